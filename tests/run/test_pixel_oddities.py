"""Unusual tables, images and specs: refused in words, or right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

import cellcube
from cellcube.errors import ArgumentError, SpecError

RAW: dict[str, Any] = {"normalize": "none", "projections": [], "executor": 1, "progress": False, "shape": (1, 16, 16)}

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a TIFF, and gives its path."""
    count = iter(range(1000))

    def save(array: Any, **options: Any) -> str:
        path = tmp_path / f"image{next(count)}.tif"
        tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
        return str(path)

    return save


@pytest.fixture
def labels() -> Any:
    found = np.zeros((40, 50), np.uint16)
    found[4:12, 6:20], found[20:33, 24:30] = 3, 8
    return found


@pytest.fixture
def table(write: Write, labels: Any) -> pd.DataFrame:
    """One FOV of two channels and two cells."""
    image = np.random.default_rng(0).integers(1, 4000, (2, 40, 50), dtype=np.uint16)
    return pd.DataFrame({"fov_id": ["F"], "fov_path": [write(image)], "label_path": [write(labels)], "axes": ["CYX"]})


def test_axes_of_colour_images_are_not_those_of_their_labels(table: pd.DataFrame, write: Write) -> None:
    """Samples are channels, which label images lack."""
    colours = np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    report = cellcube.build(table.assign(fov_path=write(colours, photometric="rgb"), axes="YXS"), "ds", **RAW)
    assert report.kept == 2
    dataset = cellcube.open("ds")
    y, x = (int(dataset[f"origin_{axis}"].values[0]) for axis in "yx")
    crop = np.pad(colours, [(16, 16), (16, 16), (0, 0)])[y + 16 : y + 32, x + 16 : x + 32]
    assert np.array_equal(dataset["cells"].values[0, :, 0], np.moveaxis(crop, -1, 0))


def test_a_plate_without_cells_is_told(table: pd.DataFrame, write: Write) -> None:
    with pytest.warns(UserWarning, match="label images of the 1 FOVs hold no label"):
        report = cellcube.build(table.assign(label_path=write(np.zeros((40, 50), np.uint16))), "ds", **RAW)
    assert (report.requested, report.version) == (0, 0)


@pytest.mark.parametrize("split", [None, {"by": "well", "fractions": {"all": 1}}])
def test_fields_without_cells_count_in_statistics(table: pd.DataFrame, write: Write, split: Any) -> None:
    """Blank wells are fields of the table as well."""
    blank = np.full((2, 40, 50), 7, np.uint16)
    blank[:, :20] = 9
    empty = table.assign(fov_id="blank", fov_path=write(blank), label_path=write(np.zeros((40, 50), np.uint16)))
    both = pd.concat([empty, table]).assign(well=["A1", "B1"])
    fields = {**RAW, "dtype": "float32", "split": split}
    cellcube.build(both, "all", **{**fields, "normalize": {"method": "zscore", "scope": "dataset"}})
    image = tifffile.imread(table["fov_path"][0])[0].astype(float)
    low = cellcube.open("all")["norm_low"].values
    assert low[:, 0] == pytest.approx(np.mean([image, blank[0]]))
    (fit, _) = json.loads(Path("all/runs/000001.json").read_text())["fits"]
    assert fit["fovs"] == ["blank", "F"]
    scope = {"where": "well == 'A1'"}
    cellcube.build(both, "blank", **{**fields, "normalize": {"method": "zscore", "scope": scope}})
    dataset = cellcube.open("blank")
    assert dataset["norm_low"].values == pytest.approx(8)
    assert dataset["norm_high"].values == pytest.approx(9)
    with pytest.raises(ArgumentError, match=r"no FOV meets the condition \"well == 'C1'\""):
        cellcube.build(
            both, "none", **{**fields, "normalize": {"method": "zscore", "scope": {"where": "well == 'C1'"}}}
        )


def named(name: str) -> Callable[..., Any]:
    """A projection of some name."""

    def function(pixels: Any) -> Any:
        return pixels.max(axis=1)

    function.__name__ = function.__qualname__ = name
    return function


@pytest.mark.parametrize("name", ["label", "z", "cells", "mask", "raw", "origin_x", "norm_low", "labels"])
def test_projections_do_not_take_names_of_others(table: pd.DataFrame, name: str) -> None:
    fields = {**RAW, "projections": [named(name)], "representations": {"raw": {"projections": []}}}
    with pytest.raises(SpecError, match=rf"projections: '{name}' is the name of something else.*another name"):
        cellcube.build(table, "ds", **fields)
    assert not Path("ds").exists()
    cellcube.build(table, "ds", **{**fields, "projections": [named("spread")]})
    assert "spread" in cellcube.open("ds")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"representations": {"cells": {"normalize": "none"}}}, "representations: 'cells' is the name of what the spec"),
    ({"flip": True, "align": "major_axis"}, r"flip: true and false are neither names nor numbers"),
    ({"order": True}, r"order: true and false are neither"),
    ({"label_channel": False}, r"label_channel: true and false are neither"),
    ({"mask": "hard"}, r"mask: give 'none', 'label', \{method: dilated, by: 3\}.*got 'hard'"),
    ({"mask": 3}, r"mask: give 'none', 'label'.*got 3"),
    ({"mask": {"by": 3}}, r"mask 'label' has no 'by'"),
    ({"mask": {"labels": "nucleus"}}, r"mask: there is no label image 'nucleus'; name its column in label_images"),
    ({"illumination": {"A": "flat.tif"}}, r"illumination: give a mapping of channels to \{flat: path\}"),
    ({"illumination": {"A": {"flat": "a.tif", "dark": -1}}}, r"illumination\.A\.dark: input should be greater than or"),
    ({"representations": {"raw": "none"}}, r"representations: give a mapping of names \(lower case\) to mappings"),
    ({"representations": {"Raw": {}}}, r"representations: give a mapping of names \(lower case\)"),
    ({"representations": {"raw": {"dtype": "int8"}}}, r"representations\.raw\.dtype: input should be 'uint8'"),
]


@pytest.mark.parametrize(("fields", "says"), WRONG)
def test_specs_are_refused_in_words(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        cellcube.CubeSpec(**fields)


def test_a_mask_of_another_label_image_needs_no_method() -> None:
    spec = cellcube.CubeSpec(mask={"labels": "nucleus"}, label_images={"nucleus": "nuclei"})
    assert spec.mask == cellcube.spec.Mask(method="label", labels="nucleus")
    assert spec == spec.replace(mask={"method": "label", "labels": "nucleus"})


@pytest.mark.parametrize("kind", ["bool", "uint8", "int16", "int32", "uint32", "float32", "float64"])
def test_label_images_of_any_type(table: pd.DataFrame, write: Write, labels: Any, kind: str) -> None:
    """Ids with gaps, negative background, a mask of booleans; in both label images."""
    given = labels > 0 if kind == "bool" else labels.astype(kind)
    if kind.startswith("int"):
        given[0, :3] = -1
    path = write(given)
    names = {"other": "other_path"}
    fields = {**RAW, "mask": "label", "neighbours": "remove", "align": "major_axis"}
    report = cellcube.build(table.assign(label_path=path, other_path=path), "ds", label_images=names, **fields)
    dataset = cellcube.open("ds")
    assert dataset["label"].values.tolist() == ([1] if kind == "bool" else [3, 8])
    assert report.failed == 0
    assert np.array_equal(dataset["mask"].values, dataset["mask_other"].values)
    if kind != "bool":
        assert dataset["rotation"].values.tolist() == [0, 90]
        assert dataset["mask"].values.sum(axis=(1, 2, 3)).tolist() == [8 * 14, 13 * 6]


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "int16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("size", [None, (None, 0.8, 0.8)])
def test_images_of_any_type(table: pd.DataFrame, write: Write, kind: str, size: Any) -> None:
    """Intensities come back from every type, resampled or not."""
    image = tifffile.imread(table["fov_path"][0])
    given = image > 2000 if kind == "bool" else (image / 4000 * 100).astype(kind)
    given = given * np.int32(1_000_003) if kind == "int32" else given
    table = table.assign(fov_path=write(given), voxel_size_y=1.0, voxel_size_x=1.0)
    raw = {"raw": {"normalize": "none", "projections": []}}
    fields = {**RAW, "normalize": "minmax", "dtype": "float32", "voxel_size": size, "representations": raw}
    cellcube.build(table, "ds", edge="shift", **fields)
    dataset = cellcube.open("ds")
    undone = cellcube.denormalize(dataset).values
    span = float(given.max()) - float(given.min())
    # Integers are rounded in the second.
    assert np.abs(undone - dataset["raw"].values.astype(float)).max() <= 0.501 * (size is not None) + 1e-6 * span
    if size is None and kind not in ("bool",):
        assert dataset["raw"].dtype == given.dtype


def test_a_crop_that_lost_its_cell_says_so(tmp_path: Path) -> None:
    labels = np.zeros((200, 200), np.uint16)
    y, x = np.mgrid[:200, :200]
    labels[(np.abs(y - x) < 2) & (y < 7)] = 1
    image = np.random.default_rng(0).integers(1, 99, (200, 200), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "f.tif", image)
    tifffile.imwrite(tmp_path / "l.tif", labels)
    table = pd.DataFrame({"cell_id": ["a"], "fov_path": ["f.tif"], "label_path": ["l.tif"], "label": [1]})
    fields: dict[str, Any] = {"shape": (1, 48, 48), "align": "major_axis", "executor": 1, "progress": False}
    cellcube.build(table, tmp_path / "ds", edge="shift", **fields)
    assert pd.read_parquet(tmp_path / "ds" / "cells.parquet")["truncated_fraction"].tolist() == [1.0]
    report = cellcube.build(table, tmp_path / "dropped", edge="shift", drop="truncated_fraction == 1", **fields)
    assert report.dropped == 1
    report = cellcube.build(table, tmp_path / "masked", edge="shift", mask="label", **fields)
    assert "no voxel of the cell" in report.outcomes["reason"][0]


def test_a_centre_is_measured_where_its_resampled_crop_is(tmp_path: Path) -> None:
    image = np.zeros((60, 60), np.uint16)
    image[22:38, 23:39] = 1000
    tifffile.imwrite(tmp_path / "f.tif", image)
    table = pd.DataFrame({"cell_id": ["a"], "fov_path": ["f.tif"], "center_y": [29.5], "center_x": [30.5]})
    cellcube.build(
        table,
        tmp_path / "ds",
        shape=(1, 32, 32),
        fov_voxel_size=(1, 0.5, 0.5),
        voxel_size=(None, 0.25, 0.25),
        executor=1,
        progress=False,
    )
    row = pd.read_parquet(tmp_path / "ds" / "cells.parquet").iloc[0]
    assert (row["y0"], row["y1"], row["x0"], row["x1"]) == (22, 38, 23, 39)
    assert row["truncated_fraction"] == 0
    assert row["intensity_mean_channel_0"] == 1000


@pytest.mark.parametrize("name", ["run", "norm_low_channel_0", "focus", "cell_id"])
def test_a_measure_cannot_take_a_column_of_the_manifest(tmp_path: Path, name: str) -> None:
    tifffile.imwrite(tmp_path / "f.tif", np.ones((20, 20), np.uint16))
    table = pd.DataFrame({"cell_id": ["a"], "fov_path": ["f.tif"], "center_y": [9], "center_x": [9]})
    report = cellcube.build(
        table,
        tmp_path / "ds",
        shape=(1, 5, 5),
        measure=lambda pixels, mask, cell: {name: 1},
        executor=1,
        progress=False,
    )
    assert f"returned '{name}', which is a column already" in report.outcomes["reason"][0]


def test_one_plane_of_a_volume_is_not_oversize(tmp_path: Path) -> None:
    labels = np.zeros((6, 30, 30), np.uint8)
    labels[1:5, 10:20, 10:20] = 1
    tifffile.imwrite(tmp_path / "f.tif", labels * np.uint8(9), metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "l.tif", labels, metadata={"axes": "ZYX"})
    table = pd.DataFrame(
        {"cell_id": ["a"], "fov_path": ["f.tif"], "label_path": ["l.tif"], "label": [1], "axes": ["ZYX"]}
    )
    with pytest.warns(UserWarning, match="only the middle plane"):
        report = cellcube.build(table, tmp_path / "ds", shape=(1, 16, 16), oversize="drop", executor=1, progress=False)
    assert report.kept == 1
    row = pd.read_parquet(tmp_path / "ds" / "cells.parquet").iloc[0]
    assert not row["oversize"]
    assert row["truncated_fraction"] == 0.75
