"""Parquet for Hugging Face, read by pyarrow and by datasets."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import cellcube
from cellcube import errors
from cellcube.export import to_hugging_face, to_png


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        yield datasets


def test_pictures_and_columns(flat: Path, unchanged) -> None:
    unchanged(flat)
    report = to_hugging_face(flat, "out", cells_per_file=4, progress=False)
    files = sorted(path.name for path in Path("out/data").iterdir())
    assert files[-1].startswith("train-")
    assert report.files == len(files) + 2
    to_png(flat, "pictures", progress=False)
    pictures = pd.read_parquet("pictures/cells.parquet").set_index("cell_id")["file"]
    manifest = pd.read_parquet(flat / "cells.parquet")
    table = pd.concat([pq.read_table(f"out/data/{file}").to_pandas() for file in files])
    assert len(table) == 15
    for cell, image in zip(table["cell_id"], table["image"], strict=True):
        assert image["path"] == pictures[cell]
        assert image["bytes"] == Path("pictures", pictures[cell]).read_bytes()
    table = table.drop(columns="image").set_index("cell_id").loc[manifest["cell_id"]].reset_index()
    pd.testing.assert_frame_equal(table[manifest.columns], manifest, check_dtype=False)
    for file in files:
        part = pd.read_parquet(f"out/data/{file}")
        assert len(part) <= 4
        assert part["split"].nunique() == 1


def test_the_card_is_what_the_hub_wants(flat: Path, volume: Path) -> None:
    to_hugging_face(flat, "out", progress=False)
    _, front, text = Path("out/README.md").read_text("utf-8").split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["license"] == "cc-by-4.0"
    assert head["size_categories"] == ["n<1K"]
    assert "Cell Painting" in head["tags"]
    [config] = head["configs"]
    for each in config["data_files"]:
        assert list(Path("out").glob(each["path"]))
    assert "15" in text
    to_hugging_face(volume, "volume", progress=False)
    assert "license" not in yaml.safe_load(Path("volume/README.md").read_text("utf-8").split("---\n")[1])


def test_datasets_opens_the_folder(flat: Path, datasets: Any) -> None:
    to_hugging_face(flat, "out", pixels=True, progress=False)
    opened = datasets.load_dataset("out", cache_dir="cache")
    dataset = cellcube.open(flat)
    assert sum(len(part) for part in opened.values()) == 15
    for name, part in opened.items():
        assert part.features["pixels"] == datasets.Array4D((2, 1, 32, 40), "float32")
        assert isinstance(part.features["image"], datasets.Image)
        for row in part.with_format("numpy", columns=["pixels", "cell_id", "split"]):
            stored = dataset.sel(cell_id=row["cell_id"])
            assert str(stored["split"].values).split()[0] == name.split("_")[0]
            np.testing.assert_array_equal(row["pixels"], stored["cells"].values)
        assert part[0]["image"].size == (40, 32)


def test_datasets_opens_the_files(volume: Path, datasets: Any) -> None:
    to_hugging_face(volume, "out", channels=["DNA"], pixels=True, progress=False)
    opened = datasets.load_dataset("parquet", data_files="out/data/*.parquet", cache_dir="cache")["train"]
    stored = cellcube.open(volume)["cells"].sel(c=["DNA"]).values
    assert opened.features["pixels"] == datasets.Array4D((1, 8, 24, 32), "uint16")
    np.testing.assert_array_equal(np.stack(list(opened.with_format("numpy")["pixels"])), stored)


def test_features_are_written_down(volume: Path) -> None:
    to_hugging_face(volume, "out", pixels=True, progress=False)
    table = pq.read_table("out/data/train-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names
    assert features["pixels"] == {"shape": [3, 8, 24, 32], "dtype": "uint16", "_type": "Array4D"}
    assert features["image"] == {"_type": "Image"}
    assert features["touches_border"] == {"dtype": "bool", "_type": "Value"}
    with Image.open(io.BytesIO(table["image"][0].as_py()["bytes"])) as picture:
        assert picture.size == (32, 24)


def test_an_option_that_cannot_be(flat: Path) -> None:
    with pytest.raises(errors.ArgumentError, match="cells_per_file"):
        to_hugging_face(flat, "out", cells_per_file=0)
