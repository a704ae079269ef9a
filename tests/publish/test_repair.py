"""What is damaged is made again byte for byte, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from damage import FIELDS, FIRST, KINDS, build_two, chunk_place, damage, table_of, tree

import cellcube
from cellcube import manifest
from cellcube.demo.plates import DemoPlate
from cellcube.errors import ArgumentError, DatasetBusyError
from cellcube.ledger import Claim
from cellcube.location import Location
from cellcube.publishing.repair import repair
from cellcube.publishing.verify import verify

QUIET: dict[str, Any] = {"executor": 1, "progress": False}
SHARD = "cube.zarr/cells/c/1/0/0/0/0"
# What nothing else holds.
LOST = {"runs/000001.json", "runs/000001.objects.parquet"}


@pytest.mark.parametrize("path", [path for path in KINDS if path not in LOST])
def test_each_object_is_made_again(
    good_cells: pd.DataFrame, undamaged: dict[str, bytes], root: Path, path: str
) -> None:
    damage(root / path, ["changed", "truncated", "missing"][len(path) % 3], seed=2)
    report = repair(root, cells=good_cells if "table" in path else None, **QUIET)
    assert list(report.repaired["path"]) == [path]
    assert report.ok
    assert tree(root) == undamaged
    assert path in str(report)


def test_many_objects_are_made_again(good_cells: pd.DataFrame, undamaged: dict[str, bytes], root: Path) -> None:
    paths = [path for path in KINDS if path not in {*LOST, "objects.parquet", "catalog.yaml"}]
    for number, path in enumerate(path for path in paths if not path.startswith("runs/")):
        damage(root / path, ["changed", "truncated", "missing"][number % 3], seed=3)
    damage(root / "runs/000002.table.parquet", "changed")
    assert repair(root, cells=good_cells, **QUIET).ok
    assert tree(root) == undamaged


def test_all_pixels_are_made_again(good_cells: pd.DataFrame, undamaged: dict[str, bytes], root: Path) -> None:
    for path in undamaged:
        if path.startswith("cube.zarr/") and not path.endswith("zarr.json"):
            (root / path).unlink()
    assert repair(root, "quick", **QUIET).ok
    assert tree(root) == undamaged


def test_a_list_of_objects_that_nothing_else_holds_is_told(undamaged: dict[str, bytes], root: Path) -> None:
    for path in LOST:
        damage(root / path, "changed")
    damage(root / SHARD, "missing")
    report = repair(root, **QUIET)
    assert list(report.repaired["path"]) == [SHARD]
    assert set(report.left["path"]) == LOST
    assert report.left["reason"].str.contains("another copy").all()
    assert {path: data for path, data in tree(root).items() if path not in LOST} == {
        path: data for path, data in undamaged.items() if path not in LOST
    }


@pytest.mark.parametrize("level", ["quick", "full"])
def test_nothing_to_repair_changes_nothing(
    undamaged: dict[str, bytes], root: Path, monkeypatch: pytest.MonkeyPatch, level: Any
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("nothing is to be written")

    with monkeypatch.context() as patch:
        for name in ("write", "create", "copy_to", "remove"):
            patch.setattr(Location, name, refused)
        report = repair(root, level, **QUIET)
    assert report.ok
    assert report.repaired.empty
    assert "nothing to repair" in str(report)
    assert tree(root) == undamaged


def test_only_fields_of_damaged_cells_are_read(undamaged: dict[str, bytes], plate: DemoPlate) -> None:
    shutil.copytree(plate.folder, "images")
    table = table_of(plate, Path("images").absolute())
    build_two(table, "ds")
    before = tree(Path("ds"))
    data = bytearray(before[SHARD])
    size = _shard_cells(before)
    offset, _ = chunk_place(bytes(data), size, 0)
    data[offset + 3] ^= 1
    Path("ds", SHARD).write_bytes(data)
    damaged = pd.read_parquet("ds/cells.parquet").iloc[size]
    for path in table["fov_path"].unique():
        if path != damaged["fov_path"]:
            Path(path).unlink()
    report = repair("ds", **QUIET)
    assert list(report.repaired["how"]) == ["1 cell from the images"]
    assert tree(Path("ds")) == before


def test_missing_images_leave_all_as_it_is(plate: DemoPlate) -> None:
    shutil.copytree(plate.folder, "images")
    build_two(table_of(plate, Path("images").absolute()), "ds")
    damage(Path("ds", SHARD), "changed")
    damage(Path("ds/cube.zarr/label/c/0"), "missing")
    Path("images").rename("moved")
    before = tree(Path("ds"))
    report = verify("ds", "full", repair=True, **QUIET)
    assert report.repaired == ("cube.zarr/label/c/0",)
    assert list(report.problems["path"]) == [SHARD]
    assert "image-not-found" in report.problems["detail"][0]
    after = tree(Path("ds"))
    assert after.pop("cube.zarr/label/c/0")
    assert after == before
    # The table tells where they are now.
    moved = table_of(plate, Path("moved").absolute())
    assert verify("ds", "full", repair=True, cells=moved, **QUIET).ok
    assert verify("ds", "full", **{"progress": False}).ok


def test_other_images_leave_all_as_it_is(plate: DemoPlate) -> None:
    import tifffile

    shutil.copytree(plate.folder, "images")
    table = table_of(plate, Path("images").absolute())
    build_two(table, "ds")
    damage(Path("ds", SHARD), "missing")
    before = tree(Path("ds"))
    for path in table["fov_path"].unique():
        tifffile.imwrite(path, tifffile.imread(path) // 2, metadata={"axes": "CYX"})
    report = repair("ds", **QUIET)
    assert list(report.left["path"]) == [SHARD]
    assert tree(Path("ds")) == before


def test_relative_paths_are_seen_from_the_table_or_a_folder(plate: DemoPlate, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = pd.read_csv(plate.cells_csv)
    cells = cells[cells["fov_id"] != plate.broken_fov]
    shutil.copytree(plate.folder, "images")
    cells.to_csv("images/mine.csv", index=False)
    cellcube.build("images/mine.csv", "ds", **FIELDS)
    before = tree(Path("ds"))
    for given in ("images/mine.csv", "images", Path("images")):
        damage(Path("ds", SHARD), "changed")
        assert repair("ds", cells=given, **QUIET).ok
        assert tree(Path("ds")) == before
    damage(Path("ds", SHARD), "changed")
    assert not repair("ds", **QUIET).ok
    monkeypatch.chdir("images")
    assert repair("../ds", **QUIET).ok


def test_functions_and_what_becomes_of_them(
    good_cells: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_scaling.py"
    module.write_text("def halve(pixels, cell):\n    return pixels / 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_scaling  # type: ignore[import-not-found]

    fields = {**FIELDS, "normalize": own_scaling.halve, "dtype": "float32"}
    cellcube.build(good_cells, "ds", **fields)
    before = tree(Path("ds"))
    path = "cube.zarr/cells/c/0/0/0/0/0"
    damage(Path("ds", path), "missing")
    assert repair("ds", **QUIET).ok
    assert tree(Path("ds")) == before
    damage(Path("ds", path), "missing")
    damage(Path("ds/cube.zarr/run/c/0"), "missing")
    monkeypatch.delitem(sys.modules, "own_scaling")
    module.unlink()
    report = repair("ds", **QUIET)
    assert list(report.left["path"]) == [path]
    assert "own_scaling:halve" in report.left["reason"][0]
    assert "Python path" in report.left["reason"][0]
    module.write_text("def halve(pixels, cell):\n    return pixels / 3\n")
    report = repair("ds", **QUIET)
    assert "no longer that of the dataset" in report.left["reason"][0]
    monkeypatch.delitem(sys.modules, "own_scaling", raising=False)


def test_all_that_a_spec_can_ask_for(plate: DemoPlate) -> None:
    table = table_of(plate)
    fields = {
        "drop": "area_voxels < 100",
        "split": {"by": ["fov_id"], "fractions": {"train": 0.5, "test": 0.5}},
        "normalize": {"method": "percentile", "scope": {"by": ["treatment"]}},
        "storage": {"shard_mb": 0.05, "chunk_cells": 2, "codec": "zstd"},
        "projections": ["mean_montage"],
        "voxel_size": (1.0, 0.5, 0.5),
        "align": "major_axis",
        "fov_voxel_size": (1.0, 0.4, 0.4),
    }
    build_two(table, "ds", **fields)
    before = tree(Path("ds"))
    for path in ("cube.zarr/zarr.json", "cube.zarr/rotation/c/0", "cube.zarr/split/c/0", SHARD):
        damage(Path("ds", path), "missing")
    damage(Path("ds/cube.zarr/cells/c/0/0/0/0/0"), "changed")
    assert repair("ds", **QUIET).ok
    assert tree(Path("ds")) == before


def test_cells_given_by_boxes(plate: DemoPlate) -> None:
    build_two(table_of(plate), "labels")
    cells = pd.read_parquet("labels/cells.parquet")
    boxes = cells[["cell_id", "fov_id", "fov_path", "y0", "y1", "x0", "x1", "treatment"]]
    build_two(boxes, "ds")
    before = tree(Path("ds"))
    damage(Path("ds", SHARD), "missing")
    assert repair("ds", **QUIET).ok
    assert tree(Path("ds")) == before


def test_retracted_cells_stay_retracted(root: Path) -> None:
    names = list(cellcube.open(root)["cell_id"].values)
    cellcube.retract(root, names[3:5], "two cells")
    cellcube.retract(root, names[0], "another")
    before = tree(root)
    for path in ("cube.zarr/retracted/c/0", "cube.zarr/cells/c/0/0/0/0/0", "cube.zarr/zarr.json", "cells.parquet"):
        damage(root / path, "missing")
    assert repair(root, **QUIET).ok
    assert tree(root) == before
    assert list(cellcube.open(root)["cell_id"].values) == [*names[1:3], *names[5:]]


def test_foreign_objects_are_removed_where_that_is_asked(undamaged: dict[str, bytes], root: Path) -> None:
    for path in ("notes.txt", "cube.zarr/other/new/zarr.json"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    report = repair(root, **QUIET)
    assert set(report.left["path"]) == {"notes.txt", "cube.zarr/other/new/zarr.json"}
    assert report.left["reason"].str.contains("remove_foreign=True").all()
    assert len(tree(root)) == len(undamaged) + 2
    report = repair(root, remove_foreign=True, **QUIET)
    assert report.ok
    assert set(report.repaired["how"]) == {"removed"}
    assert tree(root) == undamaged
    assert not (root / "cube.zarr/other").exists()


def test_what_an_abandoned_build_left_is_taken_off(
    good_cells: pd.DataFrame, undamaged: dict[str, bytes], root: Path
) -> None:
    first = {**FIELDS, "storage": {"shard_mb": 0.05}}
    cellcube.build(good_cells.iloc[:FIRST], "one", **first)
    before = tree(Path("one"))
    # The shard that the first build ended in, as the second wrote it.
    last = f"cube.zarr/cells/c/{(FIRST - 1) // _shard_cells(undamaged)}/0/0/0/0"
    Path("one", last).write_bytes(undamaged[last])
    report = verify("one")
    assert list(report.problems["path"]) == [last]
    assert report.cells == []
    assert repair("one", **QUIET).ok
    assert tree(Path("one")) == before


def test_an_interrupted_build_continues_after_a_repair(
    good_cells: pd.DataFrame, undamaged: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    cellcube.build(good_cells.iloc[:FIRST], "ds", **FIELDS)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("cellcube.run.finish.commit_run", broken)
        with pytest.raises(OSError, match="disk"):
            cellcube.build(good_cells, "ds", **FIELDS)
    damage(Path("ds/cube.zarr/cells/c/0/0/0/0/0"), "changed")
    assert Path("ds/.cellcube/pending").exists()
    assert repair("ds", **QUIET).ok
    assert Path("ds/.cellcube/pending").exists()
    cellcube.build(good_cells, "ds", **FIELDS)
    assert {path: data for path, data in tree(Path("ds")).items() if path.endswith("/0")} == {
        path: data for path, data in undamaged.items() if path.endswith("/0")
    }


def test_derived_tables_of_other_libraries_are_listed_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = manifest.table_bytes
    with monkeypatch.context() as patch:
        # As if another library had written it.
        patch.setattr(manifest, "joined_bytes", lambda *_: None)
        patch.setattr(manifest, "table_bytes", lambda frame, about: plain(frame, {**about, "library": "another"}))
        damage(root / "cells.parquet", "missing")
        report = repair(root, **QUIET)
    assert list(report.repaired["path"]) == ["cells.parquet", "objects.parquet"]
    assert verify(root, "full", progress=False).ok
    assert len(pd.read_parquet(root / "cells.parquet")) == cellcube.open(root).sizes["cell"]


def test_a_repair_waits_for_no_build(root: Path) -> None:
    damage(root / SHARD, "missing")
    location = Location.of(root)
    with Claim(location / ".cellcube/claim.json", location.url), pytest.raises(DatasetBusyError):
        repair(root, **QUIET)
    with pytest.raises(ArgumentError, match="level"):
        repair(root, "deep", **QUIET)  # type: ignore[arg-type]


def test_on_s3(good_cells: pd.DataFrame, s3: dict[str, Any]) -> None:
    cellcube.build(good_cells, "ds", **{**FIELDS, "representations": {}, "projections": []})
    files = tree(Path("ds"))
    root = Location.of("s3://bucket/repaired", s3)
    for path, data in files.items():
        (root / path).write(data)
    assert verify(root.url, "full", storage_options=s3, progress=False).ok
    data = bytearray(files[SHARD])
    data[chunk_place(bytes(data), _shard_cells(files), 0)[0] + 5] ^= 1
    (root / SHARD).write(data)
    (root / "cube.zarr/cell_id/c/0").write(b"nothing")
    (root / "cube.zarr/zarr.json").remove()
    (root / "outcomes.parquet").remove()
    (root / "notes.txt").write(b"x")
    expected = {
        "cube.zarr/cell_id/c/0": "truncated",
        "cube.zarr/zarr.json": "missing",
        "outcomes.parquet": "missing",
        "notes.txt": "foreign",
    }
    report = verify(root.url, storage_options=s3)
    assert dict(zip(report.problems["path"], report.problems["problem"], strict=True)) == expected
    report = verify(root.url, "full", storage_options=s3, progress=False)
    assert dict(zip(report.problems["path"], report.problems["problem"], strict=True)) == {**expected, SHARD: "changed"}
    assert len(report.problems.set_index("path").loc[SHARD, "cells"]) == 1
    assert repair(root.url, storage_options=s3, remove_foreign=True, **QUIET).ok
    assert {path: (root / path).read() for path in root.sizes()} == files


def _shard_cells(files: dict[str, bytes]) -> int:
    size: int = json.loads(files["cube.zarr/zarr.json"])["attributes"]["cellcube"]["layout"]["shard_cells"]
    return size
