"""Which cells are exported, how they are read, how files are called, and where they may go."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cellcube
from cellcube import errors
from cellcube.cube.read import StrictStore
from cellcube.export import selection as selections
from cellcube.export import to_ome_tiff, to_png
from cellcube.export.names import safe_names, split_names
from cellcube.export.selection import select_cells, with_columns
from cellcube.export.target import Target
from cellcube.location import Location


def test_batches_are_the_cells_in_the_order_of_the_cube(flat: Path) -> None:
    dataset, selection = cellcube.open(flat), select_cells(flat)
    batches = list(selection.batches(masks=True))
    assert [len(batch.rows) for batch in batches] == [4, 4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in batches]), dataset["cells"].values)
    np.testing.assert_array_equal(np.concatenate([batch.masks for batch in batches]), dataset["mask"].values)
    assert list(pd.concat([batch.rows for batch in batches])["cell_id"]) == list(dataset["cell_id"].values)


def test_one_shard_at_a_time_is_read_and_only_those_that_are_needed(
    flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    before = StrictStore.get

    async def counted(self, key, *given, **named):
        if key.startswith("cells/c/") and key not in read:
            read.append(key)
        return await before(self, key, *given, **named)

    monkeypatch.setattr(StrictStore, "get", counted)
    ids = list(cellcube.open(flat)["cell_id"].values)
    selection = select_cells(flat, where=f"cell_id in {[str(ids[k]) for k in (1, 2, 13)]}")
    assert read == []
    seen = [(len(batch.rows), list(read)) for batch in selection.batches()]
    first, last = "cells/c/0/0/0/0/0", "cells/c/3/0/0/0/0"
    assert seen == [(2, [first]), (1, [first, last])]


def test_where_version_and_channels_choose(volume: Path) -> None:
    assert len(select_cells(volume)) == 7
    assert len(select_cells(volume, version=1)) == 4
    dataset = cellcube.open(volume)
    chosen = select_cells(volume, where="area_voxels > area_voxels.median()", channels=["structure", "DNA"])
    manifest = pd.read_parquet(volume / "cells.parquet")
    wanted = manifest[manifest["area_voxels"] > manifest["area_voxels"].median()]
    assert list(chosen.cells["cell_id"]) == list(wanted["cell_id"])
    expected = dataset["cells"].values[wanted.index][:, [2, 0]]
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in chosen.batches()]), expected)


def test_cells_are_found_by_name_where_manifest_and_cube_differ(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = selections.read_cells

    def fewer(*given):
        return before(*given).drop(index=[0, 5]).sample(frac=1, random_state=0)

    monkeypatch.setattr(selections, "read_cells", fewer)
    dataset, selection = cellcube.open(flat), select_cells(flat)
    for batch in selection.batches():
        np.testing.assert_array_equal(batch.pixels, dataset["cells"].sel(cell_id=list(batch.rows["cell_id"])).values)
    monkeypatch.setattr(selections, "read_cells", lambda *given: before(*given).assign(cell_id=str))
    with pytest.raises(errors.DatasetDamagedError):
        select_cells(flat)


def test_retracted_cells_are_not_exported(volume: Path, tmp_path: Path) -> None:
    root = tmp_path / "volume"
    shutil.copytree(volume, root)
    gone = [str(name) for name in cellcube.open(root)["cell_id"].values[[1, 4]]]
    cellcube.retract(root, gone, "out of focus")
    before, selection = cellcube.open(volume), select_cells(root)
    assert len(selection) == 5
    assert len(select_cells(root, version=2)) == 7
    for batch in selection.batches():
        assert not set(gone) & set(batch.rows["cell_id"])
        np.testing.assert_array_equal(batch.pixels, before["cells"].sel(cell_id=list(batch.rows["cell_id"])).values)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "wel == 'B02'"}, "cannot be evaluated.*well"),
        ({"where": "area_voxels"}, "not true or false"),
        ({"where": "area_voxels < 0"}, "No cell meets"),
        ({"variable": "cell"}, "Did you mean 'cells'"),
        ({"variable": "mask"}, "no variable 'mask' of pixels"),
        ({"variable": "norm_low"}, "no variable"),
        ({"channels": ["dna"]}, "Did you mean 'DNA'"),
        ({"channels": []}, "at least one"),
        ({"channels": ["DNA", "DNA"]}, "once"),
    ],
)
def test_what_cannot_be_chosen_is_told(flat: Path, options, words: str) -> None:
    with pytest.raises(errors.ArgumentError, match=re.compile(words, re.DOTALL)):
        select_cells(flat, **options)


def test_no_dataset_and_no_version(flat: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.DatasetNotFoundError):
        select_cells(tmp_path)
    with pytest.raises(errors.VersionNotFoundError):
        select_cells(flat, version=7)


def test_columns_of_the_table_give_way() -> None:
    frame = pd.DataFrame({"file": ["x"], "a": [1]}, index=[7])
    assert with_columns(frame, {"file": ["y"]}).to_dict("records") == [{"table_file": "x", "a": 1, "file": "y"}]


@given(st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=30), st.booleans())
def test_file_names_are_safe_and_tell_apart(names: list[str], dots: bool) -> None:
    suffixes = ("", "_mask")
    found = safe_names(names, suffixes, dots=dots)
    whole = [(name + suffix).casefold() for name in found for suffix in suffixes]
    assert len(set(whole)) == len(whole)
    for name in found:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*" if dots else r"[A-Za-z0-9_][A-Za-z0-9_-]*", name)
        assert len(name) <= 140
        assert not name.endswith(".")


def test_names_stay_where_they_can() -> None:
    assert safe_names(["B02-s1-0001", "x.y"]) == ["B02-s1-0001", "x.y"]
    assert len(set(map(str.lower, safe_names(["a1", "A1"])))) == 2
    assert len({f"{n}{s}" for n in safe_names(["a", "a_mask"], ("", "_mask")) for s in ("", "_mask")}) == 4
    assert split_names(["train", ""]) == {"train": "train", "": "unassigned"}


def test_the_same_export_again_replaces_its_files(flat: Path, unchanged) -> None:
    unchanged(flat)
    to_png(flat, "out", progress=False)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    to_png(flat, "out", progress=False)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    Path("out/notes.txt").write_text("mine")
    report = to_png(flat, "out", where="well == 'B02'", progress=False)
    marked = json.loads(Path("out/export.json").read_text())
    assert marked["finished"]
    assert {*marked["files"], "notes.txt"} == {path.name for path in Path("out").iterdir()}
    assert report.files == len(marked["files"]) == report.cells + 3


def test_a_killed_export_is_finished_by_the_next(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellcube.export import png

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(png, "with_columns", fail)
        with pytest.raises(KeyboardInterrupt):
            to_png(flat, "out", progress=False)
    assert not json.loads(Path("out/export.json").read_text())["finished"]
    report = to_png(flat, "out", where="well == 'B02'", progress=False)
    assert len(list(Path("out").glob("*.png"))) == report.cells < 15


def test_cells_are_not_read_far_ahead_of_what_is_written(tmp_path: Path) -> None:
    target, begun = Target(Location.of(tmp_path / "out"), {}), 0

    def files():
        nonlocal begun
        for number in range(200):
            begun += 1
            assert begun - len(target.written) < 20
            yield f"{number}.txt", str(number).encode

    target.write_each(files())
    assert len(list((tmp_path / "out").iterdir())) == 200

    def failing():
        yield "a.txt", lambda: bytes("ä", "ascii")

    with pytest.raises(UnicodeEncodeError):
        target.write_each(failing())


def test_a_folder_with_something_else_is_refused(flat: Path, tmp_path: Path, unchanged) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    unchanged(tmp_path / "mine")
    with pytest.raises(errors.ArgumentError, match=r"thesis\.txt.*empty or a new folder"):
        to_png(flat, "mine")
    with pytest.raises(errors.ArgumentError, match="is a file"):
        to_png(flat, "mine/thesis.txt")
    to_png(flat, "out", progress=False)
    with pytest.raises(errors.ArgumentError, match="another format, 'png'"):
        to_ome_tiff(flat, "out")


def test_nothing_is_written_into_the_dataset(flat: Path, unchanged) -> None:
    unchanged(flat)
    for to in (flat, flat / "png", f"{flat}/../flat/x"):
        with pytest.raises(errors.ArgumentError, match="into the dataset"):
            to_png(flat, to)


def test_files_elsewhere_are_never_removed(flat: Path) -> None:
    to_png(flat, "out", progress=False)
    Path("thesis.txt").write_text("years")
    marked = json.loads(Path("out/export.json").read_text())
    marked["files"] += ["../thesis.txt", str(Path("thesis.txt").absolute())]
    Path("out/export.json").write_text(json.dumps(marked))
    to_png(flat, "out", progress=False)
    assert Path("thesis.txt").exists()


def test_local_paths_are_told_as_seen_from_the_export(flat: Path, tmp_path: Path) -> None:
    to_png(flat, flat.parent / "exports" / "png", progress=False)
    assert json.loads((flat.parent / "exports/png/export.json").read_text())["root"] == "../../flat"
