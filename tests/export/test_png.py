"""Pictures of cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cellcube
from cellcube import errors
from cellcube.colors import channel_color
from cellcube.export import to_png


def grey(pixels: np.ndarray, highest: float) -> np.ndarray:
    return np.rint(pixels.astype(float) / highest * 255).astype(np.uint8)


def test_grey_pictures_are_the_projections(volume: Path) -> None:
    report = to_png(volume, "out", composite=False, progress=False)
    assert report.files == 7 * 3 + 3
    dataset = cellcube.open(volume)
    for row in pd.read_parquet("out/cells.parquet").to_dict("records"):
        for channel in ("DNA", "membrane", "structure"):
            with Image.open(f"out/{row[f'file_{channel}']}") as picture:
                assert picture.mode == "L"
                shown = np.asarray(picture)
            pixels = dataset["cells"].sel(cell_id=row["cell_id"], c=channel).max("z").values
            np.testing.assert_array_equal(shown, grey(pixels, 65535))


def test_a_composite_has_the_colours_of_its_channels(volume: Path) -> None:
    to_png(volume, "out", progress=False)
    dataset = cellcube.open(volume)
    row = pd.read_parquet("out/cells.parquet").iloc[2]
    planes = grey(dataset["cells"].sel(cell_id=row["cell_id"]).max("z").values, 65535) / 255
    dark = 1.0
    for number, name in enumerate(["DNA", "membrane", "structure"]):
        color = np.array(list(bytes.fromhex(channel_color(name, number)))) / 255
        dark = dark * (1 - planes[number][..., None] * color)
    with Image.open(f"out/{row['file']}") as picture:
        assert (picture.mode, picture.size) == ("RGB", (32, 24))
        np.testing.assert_allclose(np.asarray(picture), 255 * (1 - dark), atol=0.51)


def test_a_montage_has_three_projections(volume: Path) -> None:
    to_png(volume, "out", montage=True, channels=["DNA"], progress=False)
    dataset = cellcube.open(volume)
    row = pd.read_parquet("out/cells.parquet").iloc[0]
    pixels = dataset["cells"].sel(cell_id=row["cell_id"], c="DNA").values
    with Image.open(f"out/{row['file']}") as picture:
        assert picture.mode == "L"
        shown = np.asarray(picture)
    assert shown.shape == (24 + 8, 32 + 8)
    np.testing.assert_array_equal(shown[:24, :32], grey(pixels.max(0), 65535))
    np.testing.assert_array_equal(shown[24:, :32], grey(pixels.max(1), 65535))
    np.testing.assert_array_equal(shown[:24, 32:], grey(pixels.max(2).T, 65535))
    assert (shown[24:, 32:] == 0).all()


def test_a_projection_is_shown_and_has_no_montage(flat: Path) -> None:
    to_png(flat, "out", variable="max_y", channels=["ER"], progress=False)
    pixels = cellcube.open(flat)["max_y"].sel(c="ER").values
    for file, wanted in zip(pd.read_parquet("out/cells.parquet")["file"], pixels, strict=True):
        with Image.open(f"out/{file}") as picture:
            np.testing.assert_array_equal(np.asarray(picture), grey(wanted, 1))
    with pytest.raises(errors.ArgumentError, match="projection already"):
        to_png(flat, "out", variable="max_y", montage=True)
