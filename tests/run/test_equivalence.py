"""Serial, threads, processes, a dask cluster, two appends, killed and resumed: the same dataset, byte for byte."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from same import assert_same

import cellcube
from cellcube.demo.plates import DemoPlate, write_plate

FIELDS: dict[str, Any] = {"shape": (1, 48, 48), "storage": {"shard_mb": 0.3}, "edge": "drop", "progress": False}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> DemoPlate:
    """FOVs with enough cells for several shards."""
    return write_plate(tmp_path_factory.mktemp("plate"), sites=2, size=280, volumes=0)


@pytest.fixture(scope="module")
def serial(plate: DemoPlate, small_jobs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("serial") / "dataset"
    report = cellcube.build(plate.cells_csv, root, executor=1, **FIELDS)
    assert report.kept
    assert report.dropped
    assert report.failed
    # The cells must fill more than one shard, or the test would not see borders.
    assert len(list((root / "cube.zarr/cells/c").iterdir())) > 1
    return root


def test_threads_are_the_same(plate: DemoPlate, serial: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        cellcube.build(plate.cells_csv, tmp_path / "dataset", executor=pool, **FIELDS)
    assert_same(tmp_path / "dataset", serial)


def test_processes_are_the_same(plate: DemoPlate, serial: Path, tmp_path: Path) -> None:
    report = cellcube.build(plate.cells_csv, tmp_path / "dataset", executor=2, **FIELDS)
    assert report.stages["read"] > 0
    assert_same(tmp_path / "dataset", serial)


def test_a_dask_cluster_is_the_same(plate: DemoPlate, serial: Path, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        report = cellcube.build(plate.cells_csv, tmp_path / "dataset", executor=client, **FIELDS)
    assert report.added
    assert_same(tmp_path / "dataset", serial)


def test_two_appends_are_the_same(plate: DemoPlate, serial: Path, tmp_path: Path) -> None:
    table = pd.read_csv(plate.cells_csv)
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    ordered = table.sort_values("fov_id", kind="stable")
    half = ordered["fov_id"].unique()[:2]
    first = cellcube.build(ordered[ordered["fov_id"].isin(half)], tmp_path / "a", executor=1, **FIELDS)
    second = cellcube.build(ordered, tmp_path / "a", executor=1, **FIELDS)
    assert (first.version, second.version) == (1, 2)
    assert second.added == second.kept - first.kept > 0
    cellcube.build(ordered, tmp_path / "b", executor=1, **FIELDS)
    assert_same(tmp_path / "a", tmp_path / "b", runs=False)
    one = cellcube.open(tmp_path / "a", version=1)
    assert one.sizes["cell"] == first.kept
    assert set(one["run"].values) == {1}
    assert set(cellcube.open(tmp_path / "a")["run"].values) == {1, 2}


def test_shard_borders_and_chunks_of_several_cells_do_not_matter(
    plate: DemoPlate, serial: Path, tmp_path: Path
) -> None:
    storage = {"shard_mb": 0.2, "chunk_cells": 3}
    cellcube.build(plate.cells_csv, tmp_path / "dataset", executor=2, **{**FIELDS, "storage": storage})
    one, two = cellcube.open(tmp_path / "dataset"), cellcube.open(serial)
    for name in ("cells", "max_z", "mask"):
        assert (one[name].values == two[name].values).all()


@pytest.mark.parametrize("fresh", [True, False], ids=["new", "append"])
def test_a_killed_build_continues_to_the_same(plate: DemoPlate, tmp_path: Path, fresh: bool) -> None:
    here = Path(__file__).parent
    before, finished = tmp_path / "before", tmp_path / "finished"
    fields = {**FIELDS, "edge": "pad", "executor": 1}
    table = pd.read_csv(plate.cells_csv)
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    table.to_csv(tmp_path / "all.csv", index=False)
    if not fresh:
        cellcube.build(table.head(len(table) // 2), before, **fields)
        cellcube.build(table.head(len(table) // 2), finished, **fields)
    cellcube.build(table, finished, **fields)
    done = subprocess.run(
        [
            *(sys.executable, str(here / "killed.py"), str(tmp_path / "all.csv")),
            *(str(before), str(finished), str(tmp_path), "9"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    survived = re.search(r"survived (\d+) kills", done.stdout)
    assert survived is not None
    assert int(survived[1]) >= 4
