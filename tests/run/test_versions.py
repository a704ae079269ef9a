"""Versions: cells that are taken back, and what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pandas as pd
import pytest

import cellcube
from cellcube.demo.plates import DemoPlate
from cellcube.errors import ArgumentError, DatasetBusyError, DatasetNotFoundError, VersionNotFoundError
from cellcube.ledger import Claim
from cellcube.location import Location

FIELDS: dict[str, Any] = {"executor": 1, "shape": (1, 24, 24), "progress": False}


@pytest.fixture
def table(plate: DemoPlate) -> pd.DataFrame:
    """The cells of the good FOVs, with absolute paths."""
    table = pd.read_csv(plate.cells_csv)
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    return table[table["fov_id"] != plate.broken_fov].reset_index(drop=True)


@pytest.fixture
def root(table: pd.DataFrame) -> str:
    """A dataset of two builds."""
    cellcube.build(table.iloc[:6], "ds", **FIELDS)
    cellcube.build(table.iloc[:10], "ds", **FIELDS)
    return "ds"


def pixels(root: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path(root, "cube.zarr/cells/c").rglob("*") if p.is_file()}


def test_retracted_cells_are_hidden_from_the_next_version_on(root: str, table: pd.DataFrame) -> None:
    before, crops = pixels(root), cellcube.open(root)["cells"].values
    ids = table["cell_id"].tolist()
    report = cellcube.retract(root, [ids[2], ids[7]], "out of focus")
    assert (report.version, report.retracted, report.before, report.cells) == (3, 2, 0, 8)
    assert "2 cells retracted in version 3" in str(report)
    assert pixels(root) == before
    left = [number for number in range(10) if number not in (2, 7)]
    now = cellcube.open(root)
    assert now["cell_id"].values.tolist() == [ids[number] for number in left]
    assert np.array_equal(now["cells"].values, crops[left])
    assert np.array_equal(now.sel(cell_id=ids[9])["cells"].values, crops[9])
    assert np.array_equal(now.isel(cell=slice(2, 5))["max_z"].values, cellcube.open(root, 2)["max_z"].values[[3, 4, 5]])
    # Versions before still have them.
    assert np.array_equal(cellcube.open(root, version=2)["cells"].values, crops)
    assert cellcube.open(root, version=1).sizes["cell"] == 6
    manifest = pd.read_parquet("ds/cells.parquet")
    assert manifest["cell_id"].tolist() == now["cell_id"].values.tolist()
    assert manifest["position"].tolist() == left
    catalog = intake.open_catalog("ds/catalog.yaml")
    assert "2 of them are retracted" in catalog["normalized_cells"].description
    lazy = catalog["normalized_cells"].to_dask()
    assert np.array_equal(lazy["cells"].values[lazy["retracted"].values == 0], now["cells"].values)
    assert catalog.metadata["cellcube"]["cells"] == 8
    record = json.loads(Path("ds/runs/000003.json").read_text())
    assert (record["kind"], record["reason"]) == ("retract", "out of focus")
    assert record["environment"]["cellcube"] == cellcube.__version__
    assert "8, 2 more are retracted" in str(cellcube.info(root))
    assert not Path("ds/.cellcube").exists()


def test_what_is_retracted_stays_retracted(root: str, table: pd.DataFrame) -> None:
    gone = table["cell_id"][3]
    cellcube.retract(root, gone, "a piece of dust")
    again = cellcube.retract(root, [gone], "dust")
    assert (again.version, again.retracted, again.before) == (3, 0, 1)
    assert "nothing to retract" in str(again)
    assert cellcube.build(table.iloc[:10], root, **FIELDS).added == 0
    cellcube.build(table.iloc[:14], root, **FIELDS)
    assert cellcube.open(root).sizes["cell"] == 13
    assert gone not in cellcube.open(root)["cell_id"].values
    assert cellcube.open(root, version=2).sizes["cell"] == 10
    outcomes = pd.read_parquet("ds/outcomes.parquet")
    assert len(outcomes) == 14
    cellcube.retract(root, table["cell_id"][12], "another")
    assert pd.read_parquet("ds/cells.parquet")["position"].tolist() == [n for n in range(14) if n not in (3, 12)]


def test_what_cannot_be_retracted(root: str, table: pd.DataFrame) -> None:
    with pytest.raises(ArgumentError, match=r"1 of 2 cells are not in the dataset, such as 'nobody'"):
        cellcube.retract(root, [table["cell_id"][0], "nobody"], "x")
    with pytest.raises(ArgumentError, match="without cells and a reason"):
        cellcube.retract(root, [table["cell_id"][0]], " ")
    with pytest.raises(DatasetNotFoundError):
        cellcube.retract("nothing", ["a"], "x")
    assert not Path("nothing").exists()
    claim = Claim(Location.of("ds") / ".cellcube" / "claim.json", "ds")
    with claim, pytest.raises(DatasetBusyError):
        cellcube.retract(root, [table["cell_id"][0]], "x")
    assert cellcube.open(root).sizes["cell"] == 10


def test_manifest_is_derived_from_the_runs_alone(root: str, table: pd.DataFrame) -> None:
    cellcube.retract(root, table["cell_id"][:2], "x")
    expected = pd.read_parquet("ds/cells.parquet")
    Path("ds/cells.parquet").unlink()
    Path("ds/catalog.yaml").unlink()
    cellcube.build(table.iloc[:10], root, **FIELDS)
    pd.testing.assert_frame_equal(pd.read_parquet("ds/cells.parquet"), expected)


def test_diff_of_versions(root: str, table: pd.DataFrame) -> None:
    ids = table["cell_id"].tolist()
    cellcube.retract(root, ids[1], "dust")
    found = cellcube.diff("ds@1", "ds")
    assert found
    assert found.added == tuple(ids[6:10])
    assert found.removed == ()
    assert found.retracted == {ids[1]: "dust"}
    assert found.spec == ()
    assert found.changed.empty
    text = str(found)
    assert "4 cells added" in text
    assert "1 retracted: dust" in text
    assert not cellcube.diff("ds@2", "ds@2")
    assert "no difference" in str(cellcube.diff("ds", "ds"))
    with pytest.raises(VersionNotFoundError, match="1 to 3"):
        cellcube.diff("ds@1", "ds@4")


def test_diff_of_datasets(root: str, table: pd.DataFrame) -> None:
    other = table.iloc[2:8].assign(well="Z99", extra=1.5)
    cellcube.build(other, "other", **{**FIELDS, "name": "other", "shape": (1, 32, 32)})
    found = cellcube.diff(root, "other")
    assert found.removed == (*table["cell_id"][:2], *table["cell_id"][8:10])
    assert {field for field, *_ in found.spec} == {"name", "shape"}
    assert ("added", "extra") in found.columns
    wells = found.changed[found.changed["column"] == "well"]
    assert len(wells) == 6
    assert set(wells["second"]) == {"Z99"}
    assert "spec shape: [1, 24, 24] -> [1, 32, 32]" in str(found)


def test_retract_on_s3(table: pd.DataFrame, s3: dict[str, Any], tmp_path: Path) -> None:
    root = f"s3://bucket/{tmp_path.name}/ds"
    cellcube.build(table.iloc[:4], root, storage_options=s3, **FIELDS)
    cellcube.retract(root, table["cell_id"][1], "x", storage_options=s3)
    assert cellcube.open(root, storage_options=s3)["cells"].values.shape[0] == 3
    assert cellcube.diff(f"{root}@1", root, storage_options=s3).retracted == {table["cell_id"][1]: "x"}
