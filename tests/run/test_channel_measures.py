"""Builds without the measures that need the pixels of every channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cellcube
from cellcube.demo.plates import DemoPlate
from cellcube.errors import SpecError
from cellcube.pixels import MEASURES, OF_CHANNELS

FIELDS: dict[str, Any] = {"shape": (1, 32, 32), "executor": 1, "progress": False}


@pytest.fixture
def both(plate: DemoPlate, tmp_path: Path) -> tuple[Path, Path]:
    for name, measured in (("with", True), ("without", False)):
        cellcube.build(plate.cells_csv, tmp_path / name, channel_measures=measured, **FIELDS)
    return tmp_path / "with", tmp_path / "without"


def test_all_else_is_the_same(both: tuple[Path, Path]) -> None:
    full, lean = (pd.read_parquet(root / "cells.parquet") for root in both)
    left_out = [name for name in full if name not in lean]
    prefixes = tuple(name.partition("{")[0] for name in OF_CHANNELS)
    assert left_out
    assert all(name.startswith(prefixes) for name in left_out)
    kept = [name for name in MEASURES if name not in OF_CHANNELS]
    assert {"area_voxels", "touching_neighbours", "fragments", "centroid_y"} <= set(kept)
    pd.testing.assert_frame_equal(full[list(lean)], lean)
    one, other = (cellcube.open(root) for root in both)
    for name in ("cells", "mask", "max_z"):
        assert np.array_equal(one[name].values, other[name].values)


def test_it_is_verified_and_appended_to(both: tuple[Path, Path], plate: DemoPlate, tmp_path: Path) -> None:
    _, lean = both
    assert cellcube.verify(lean, level="full").ok
    with pytest.raises(cellcube.errors.SpecChangedError, match="channel_measures"):
        cellcube.build(plate.cells_csv, lean, **FIELDS)
    cells = pd.read_csv(plate.cells_csv)
    cells[["fov_path", "label_path"]] = cells[["fov_path", "label_path"]].map(lambda p: str(plate.cells_csv.parent / p))
    half = tmp_path / "halves"
    for rows in (cells.iloc[:7], cells):
        cellcube.build(rows, half, channel_measures=False, **FIELDS)
    assert cellcube.open(half).sizes["cell"] == cellcube.open(lean).sizes["cell"]


def test_conditions_on_what_is_not_measured_are_refused(plate: DemoPlate, tmp_path: Path) -> None:
    fields = {**FIELDS, "channel_measures": False}
    with pytest.raises(SpecError, match="focus"):
        cellcube.build(plate.cells_csv, tmp_path / "ds", drop="focus < 0.1", **fields)
    report = cellcube.build(plate.cells_csv, tmp_path / "ds", drop="touches_border", **fields)
    assert report.dropped


def test_raw_crops_have_windows(plate: DemoPlate, tmp_path: Path) -> None:
    cellcube.build(plate.cells_csv, tmp_path / "ds", normalize="none", channel_measures=False, **FIELDS)
    dataset = cellcube.open(tmp_path / "ds")
    assert dataset["cells"].dtype == np.uint16
    assert cellcube.verify(tmp_path / "ds").ok
