"""Damage is found, named by its objects, and by the cells that it touches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from damage import FIELDS, KINDS, build_two, chunk_place, damage, restore, tree

import cellcube
from cellcube.cube import read_state
from cellcube.errors import (
    ArgumentError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetFormatError,
    DatasetNotFoundError,
)
from cellcube.location import Location
from cellcube.publishing.verify import VerifyReport, verify


def found(report: VerifyReport) -> dict[str, str]:
    return dict(zip(report.problems["path"], report.problems["problem"], strict=True))


def cells_of(report: VerifyReport, path: str) -> list[str]:
    cells: list[str] = report.problems.set_index("path").loc[path, "cells"]
    return cells


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_whole_dataset_has_no_problems(root: Path, undamaged: dict[str, bytes], level: Any) -> None:
    report = verify(root, level, progress=False)
    assert report.ok
    assert report.problems.empty
    assert not report.notes
    assert report.cells == []
    assert (report.version, report.objects) == (2, len(undamaged) - 2)
    listed = undamaged.keys() - {"catalog.yaml", "objects.parquet"}
    assert report.bytes == sum(len(undamaged[path]) for path in listed)
    assert report.hashed == report.objects or level == "quick"
    assert "whole" in str(report)
    assert report._repr_html_().startswith("<pre>")
    assert tree(root) == undamaged


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("how", ["changed", "truncated", "missing"])
def test_every_damage_is_found_at_its_level(root: Path, path: str, how: str) -> None:
    damage(root / path, how)
    if how == "changed":
        assert found(verify(root, "full", progress=False)) == {path: how}
    quick = verify(root)
    seen = KINDS[path] or how != "changed"
    assert found(quick) == ({path: how} if seen else {})
    assert (path in str(quick)) == seen
    assert quick.ok != seen


def test_all_kinds_of_damage_at_once(root: Path) -> None:
    paths = [path for path in KINDS if not path.startswith("runs/") and path != "catalog.yaml"]
    for number, path in enumerate(paths):
        damage(root / path, ["changed", "truncated", "missing"][number % 3], seed=1)
    report = verify(root, "full", progress=False)
    assert set(paths) <= set(found(report))


def test_the_cells_of_a_changed_shard_are_those_of_the_chunk(root: Path) -> None:
    path = "cube.zarr/cells/c/1/0/0/0/0"
    size = _shard_cells(root)
    names = list(cellcube.open(root)["cell_id"].values)
    whole = cellcube.open(root).load()
    data = bytearray((root / path).read_bytes())
    offset, length = chunk_place(bytes(data), size, 2)
    data[offset + length // 2] ^= 4
    (root / path).write_bytes(data)
    report = verify(root, "full", progress=False)
    assert report.cells == [names[size + 2]] == cells_of(report, path)
    assert list(report.problems["array"]) == ["cells"]
    assert names[size + 2] in str(report)
    dataset = cellcube.open(root)
    for cell in (0, size, size + 1, size + 3):
        np.testing.assert_array_equal(dataset["cells"][cell], whole["cells"][cell])
    np.testing.assert_array_equal(dataset["mask"], whole["mask"])


def test_the_cells_of_a_shard_without_an_index_are_all_of_them(root: Path) -> None:
    size = _shard_cells(root)
    names = list(cellcube.open(root)["cell_id"].values)
    for how, path in (("missing", "cube.zarr/raw/raw/c/0/0/0/0/0"), ("truncated", "cube.zarr/max_z/max_z/c/2/0/0/0")):
        damage(root / path, how)
    report = verify(root)
    assert cells_of(report, "cube.zarr/raw/raw/c/0/0/0/0/0") == names[:size]
    assert cells_of(report, "cube.zarr/max_z/max_z/c/2/0/0/0") == names[2 * size : 3 * size]
    assert report.cells == list(dict.fromkeys([*names[2 * size : 3 * size], *names[:size]]))


def test_the_cells_of_a_shard_from_elsewhere_are_all_of_them(root: Path) -> None:
    size = _shard_cells(root)
    other = (root / "cube.zarr/cells/c/0/0/0/0/0").read_bytes()
    (root / "cube.zarr/cells/c/1/0/0/0/0").write_bytes(other)
    names = list(cellcube.open(root)["cell_id"].values)
    assert verify(root, "full", progress=False).cells == names[size : 2 * size]


def test_cells_of_damaged_coordinates_are_their_rows(root: Path) -> None:
    names = list(cellcube.open(root)["cell_id"].values)
    damage(root / "cube.zarr/label/c/0", "missing")
    damage(root / "cube.zarr/c/c/0", "missing")
    report = verify(root)
    assert cells_of(report, "cube.zarr/label/c/0") == names
    assert cells_of(report, "cube.zarr/c/c/0") == []


def test_cells_are_named_where_a_table_of_a_run_is_damaged_too(root: Path) -> None:
    size = _shard_cells(root)
    names = list(cellcube.open(root)["cell_id"].values)
    damage(root / "runs/000001.cells.parquet", "truncated")
    damage(root / "cube.zarr/cells/c/0/0/0/0/0", "missing")
    assert verify(root).cells == names[:size]
    damage(root / "cells.parquet", "truncated")
    assert set(verify(root).cells) & {"position 0"}


def test_chunks_of_several_cells_are_named_together(good_cells: pd.DataFrame) -> None:
    build_two(good_cells, "ds", storage={"shard_mb": 0.05, "chunk_cells": 2}, representations={})
    path = Path("ds/cube.zarr/cells/c/0/0/0/0/0")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert verify("ds", "full", progress=False).cells == list(cellcube.open("ds")["cell_id"].values[:2])


def test_channels_of_their_own_chunks(good_cells: pd.DataFrame) -> None:
    fields = {**FIELDS, "shape": (1, 384, 384), "storage": {"shard_mb": 4, "codec": "zstd"}, "representations": {}}
    cellcube.build(good_cells.iloc[:3], "ds", **fields)
    path = Path("ds/cube.zarr/cells/c/0/0/0/0/0")
    data = bytearray(path.read_bytes())
    slots = _shard_cells(Path("ds")) * 5
    offset, _ = chunk_place(bytes(data), slots, 7)
    data[offset + 9] ^= 1
    path.write_bytes(data)
    assert verify("ds", "full", progress=False).cells == [cellcube.open("ds")["cell_id"].values[1]]


def test_foreign_objects_and_what_may_be_there(root: Path) -> None:
    for path in ("notes.txt", "cube.zarr/cells/c/99/0/0/0/0", "cube.zarr/other/zarr.json", "runs/000003.json"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    for path in ("gallery/index.html", "ro-crate-metadata.json", "croissant.json", "cube.zarr/cells/c/.1.partial"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    report = verify(root)
    assert found(report) == dict.fromkeys(
        ["cube.zarr/cells/c/99/0/0/0/0", "cube.zarr/other/zarr.json", "notes.txt", "runs/000003.json"], "foreign"
    )
    assert len(report.notes) == 1
    assert "1 half-written files" in report.notes[0]


def test_a_manifest_that_lost_a_row_is_inconsistent(root: Path) -> None:
    from cellcube.ledger import as_objects, read_table, sha256_of, write_table

    location = Location.of(root)
    cells, about = read_table(location / "cells.parquet")
    write_table(location / "cells.parquet", cells.iloc[1:], about)
    objects, about = read_table(location / "objects.parquet")
    data = (root / "cells.parquet").read_bytes()
    objects.loc[objects["path"] == "cells.parquet", ["size", "sha256"]] = [len(data), sha256_of(data)]
    write_table(location / "objects.parquet", objects, about)
    assert as_objects(objects)["cells.parquet"][0] == len(data)
    assert found(verify(root)) == {"cells.parquet": "inconsistent", "outcomes.parquet": "inconsistent"}


def test_the_list_of_objects_is_compared_with_the_runs(root: Path) -> None:
    from cellcube.ledger import read_table, write_table

    location = Location.of(root) / "objects.parquet"
    objects, about = read_table(location)
    objects.loc[objects["path"] == "cube.zarr/cells/c/0/0/0/0/0", "sha256"] = "0" * 64
    write_table(location, objects, about)
    report = verify(root, "full", progress=False)
    assert found(report) == {"objects.parquet": "changed"}
    assert "cube.zarr/cells/c/0/0/0/0/0" in report.problems["detail"][0]


def test_retracted_cells_are_no_damage_and_damage_names_them(root: Path) -> None:
    names = list(cellcube.open(root)["cell_id"].values)
    cellcube.retract(root, names[:2], "two cells")
    assert verify(root, "full", progress=False).ok
    damage(root / "cube.zarr/cells/c/0/0/0/0/0", "missing")
    assert verify(root).cells == names[: _shard_cells(root)]


@pytest.mark.parametrize("step", [1, 20, 50, 64])
def test_an_interrupted_build_is_noted(
    good_cells: pd.DataFrame, undamaged: dict[str, bytes], root: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    restore(root, {})
    cellcube.build(good_cells.iloc[:8], root, **FIELDS)
    before = tree(root)
    whole, count = Location.write, 0

    def broken(self: Location, data: Any) -> None:
        nonlocal count
        if ".cellcube/claim" not in self.url and ".cellcube/pending" not in self.url:
            count += 1
            if count == step:
                raise OSError("the disk is full")
        whole(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write", broken)
        with pytest.raises(OSError, match="the disk is full"):
            cellcube.build(good_cells, root, **FIELDS)
    report = verify(root, "full", progress=False)
    assert found(report) == {}
    assert any("run it again" in note for note in report.notes)
    damage(root / "cube.zarr/raw/raw/c/0/0/0/0/0", "changed")
    assert set(found(verify(root, "full", progress=False))) == {"cube.zarr/raw/raw/c/0/0/0/0/0"}
    (root / "cube.zarr/raw/raw/c/0/0/0/0/0").write_bytes(before["cube.zarr/raw/raw/c/0/0/0/0/0"])
    cellcube.build(good_cells, root, **FIELDS)
    assert verify(root, "full", progress=False).ok


def test_a_build_that_ended_after_its_commit(good_cells: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    cellcube.build(good_cells.iloc[:8], "ds", **FIELDS)
    with monkeypatch.context() as patch:
        patch.setattr("cellcube.run.finish.write_manifest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cellcube.build(good_cells, "ds", **FIELDS)
    report = verify("ds", "full", progress=False)
    assert found(report) == {}
    assert any("tell of version 1" in note for note in report.notes)
    # As in a copy without the folder of unfinished work.
    shutil.rmtree("ds/.cellcube")
    problems = found(verify("ds"))
    assert {"cells.parquet", "outcomes.parquet", "objects.parquet", "catalog.yaml"} <= set(problems)
    assert not [path for path in problems if path.startswith(("cube.zarr/", "runs/"))]
    assert verify("ds", repair=True, progress=False).ok
    assert verify("ds", "full", progress=False).ok


def test_what_cannot_be_verified(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetNotFoundError):
        verify(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="level"):
        verify(root, "deep")  # type: ignore[arg-type]
    for path in ("objects.parquet", "runs/000001.objects.parquet", "runs/000002.objects.parquet"):
        (root / path).unlink()
    with pytest.raises(DatasetFormatError, match="does not list its objects"):
        verify(root)
    (root / "cube.zarr/zarr.json").unlink()
    with pytest.raises(DatasetDamagedError, match=r"zarr\.json"):
        verify(root)

    def refused(self: Location) -> dict[str, int]:
        raise PermissionError("no")

    monkeypatch.setattr(Location, "sizes", refused)
    with pytest.raises(DatasetAccessError):
        verify(root)


def test_a_report_can_be_made_where_nearly_all_that_tells_is_gone(root: Path) -> None:
    for path in ("cube.zarr/zarr.json", "objects.parquet", "runs/000001.json", "cells.parquet"):
        (root / path).write_bytes(b"PAR1 nothing PAR1")
    report = verify(root, "full", progress=False)
    assert {"cube.zarr/zarr.json", "objects.parquet", "runs/000001.json"} <= set(found(report))
    assert any("cube.zarr/zarr.json is damaged" in note for note in report.notes)


def _shard_cells(root: Path) -> int:
    state = read_state(Location.of(root) / "cube.zarr")
    assert state is not None
    return state.layout.shard_cells
