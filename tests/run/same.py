"""Whether two datasets hold the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd


def pixel_objects(root: Path) -> dict[str, str]:
    """Digest of every shard and coordinate chunk of a cube, by its path in the store."""
    cube = root / "cube.zarr"
    files = [path for path in sorted(cube.rglob("*")) if path.is_file() and path.name != "zarr.json"]
    return {str(path.relative_to(cube)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def without_run(objects: dict[str, str]) -> dict[str, str]:
    """The same without the coordinate that tells the build of each cell."""
    return {path: digest for path, digest in objects.items() if not path.startswith("run/")}


def tables(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest and outcomes without the run, the outcomes in the order of their cells."""
    cells = pd.read_parquet(root / "cells.parquet").drop(columns="run")
    outcomes = pd.read_parquet(root / "outcomes.parquet").drop(columns="run")
    return cells, outcomes.sort_values("cell_id", ignore_index=True)


def assert_same(first: Path, second: Path, *, runs: bool = True) -> None:
    """Refuse two datasets that differ in any byte of pixels or coordinates, or in any row."""
    one, two = pixel_objects(first), pixel_objects(second)
    assert one, "there must be something to compare"
    if not runs:
        one, two = without_run(one), without_run(two)
    assert one == two
    for left, right in zip(tables(first), tables(second), strict=True):
        pd.testing.assert_frame_equal(left, right)
    assert not (first / ".cellcube").exists()
    assert not (second / ".cellcube").exists()
