"""Blocks of a lazy dataset are whole shards, and stay so: nothing is cut or joined behind the user's back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cellcube
from cellcube.demo.plates import DemoPlate

PER_SHARD = 3
FIELDS: dict[str, Any] = {
    "shape": (1, 16, 16),
    "storage": {"shard_mb": PER_SHARD * 5 * 16 * 16 * 2 / 1e6},
    "progress": False,
}


@pytest.fixture(scope="module")
def root(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lazy") / "dataset"
    table = pd.read_csv(plate.cells_csv)
    for column in ("fov_path", "label_path"):
        table[column] = str(plate.folder) + "/" + table[column]
    cellcube.build(table.head(9), root, **FIELDS)
    cellcube.build(table, root, **FIELDS)
    return root


def kept_in_shards(count: int, hidden: set[int]) -> tuple[int, ...]:
    sizes = [len(set(range(start, min(start + PER_SHARD, count))) - hidden) for start in range(0, count, PER_SHARD)]
    return tuple(size for size in sizes if size)


def test_blocks_are_whole_shards_however_many_builds_there_were(root: Path) -> None:
    dataset = cellcube.open(root)
    expected = kept_in_shards(dataset.sizes["cell"], set())
    assert len(expected) > 2
    for name in ("cells", "max_z", "mask"):
        assert dataset[name].chunks[0] == expected
        assert all(len(sizes) == 1 for sizes in dataset[name].chunks[1:])
    assert cellcube.open(root, version=1)["cells"].chunks[0] == kept_in_shards(
        cellcube.open(root, 1).sizes["cell"], set()
    )


@pytest.mark.parametrize(("entry", "variable"), [("normalized_cells", "cells"), ("max_z", "max_z"), ("masks", "mask")])
def test_blocks_of_the_catalog_are_whole_shards(root: Path, entry: str, variable: str) -> None:
    found = intake.open_catalog(str(root / "catalog.yaml"))[entry].to_dask()
    assert found[variable].chunks[0] == cellcube.open(root)["cells"].chunks[0]
    # Also those of the variables beside it, or operations on the dataset would divide it anew.
    assert dict(found.chunks)["cell"] == found[variable].chunks[0]


def test_retracted_cells_leave_gaps_and_no_other_blocks(plate: DemoPlate, root: Path, tmp_path: Path) -> None:
    whole = cellcube.open(root)
    # One of a shard, all of the next, two of another.
    positions = {1, 3, 4, 5, 9, 10}
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    cellcube.retract(copy, whole["cell_id"].values[sorted(positions)].astype(object).tolist(), reason="out of focus")
    dataset = cellcube.open(copy)
    count = whole.sizes["cell"]
    kept = sorted(set(range(count)) - positions)
    for name in ("cells", "max_z", "mask"):
        assert dataset[name].chunks[0] == kept_in_shards(count, positions)
        assert dataset[name].attrs == whole[name].attrs
        np.testing.assert_array_equal(dataset[name].values, whole[name].isel(cell=kept).values)
    assert list(dataset.data_vars) == list(whole.data_vars)
    assert dataset.coords.keys() == whole.coords.keys()
    one = dataset.sel(cell_id=str(whole["cell_id"].values[12]))
    np.testing.assert_array_equal(one["cells"].values, whole["cells"].isel(cell=12).values)


@pytest.mark.parametrize("by", ["well", "site"])
def test_means_of_groups_are_those_of_the_cells(root: Path, by: str) -> None:
    cells = cellcube.open(root)["cells"].astype("float32")
    means = cells.groupby(by).mean("cell")
    loaded = cells.load()
    for group in np.unique(loaded[by].values):
        expected = loaded.values[loaded[by].values == group].mean(axis=0)
        np.testing.assert_allclose(means.sel({by: group}).values, expected, rtol=1e-5, atol=1e-6)


def test_a_function_gets_one_shard_after_the_other(root: Path) -> None:
    cells = cellcube.open(root)["cells"]
    bare = cells.drop_vars(list(cells.coords))
    rows = bare.isel(c=0, z=0, y=0, x=0)

    def size_of(block: xr.DataArray) -> xr.DataArray:
        return xr.full_like(block.isel(c=0, z=0, y=0, x=0), len(block))

    sizes = xr.map_blocks(size_of, bare, template=rows).values
    assert sizes.tolist() == [size for size in cells.chunks[0] for _ in range(size)]
