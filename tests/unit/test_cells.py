"""The cell table: what is read from it, and everything that can be wrong with it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube import CubeSpec
from cellcube.cells import KNOWN, RESERVED_PREFIX, CellTable, load_cells
from cellcube.columns import added
from cellcube.cube import Layout
from cellcube.errors import TableError
from cellcube.location import Location

CSV = (
    "cell_id,fov_path,label_path,label,drug,dose\n007,raw/a.tif,raw/a_l.tif,3,None,0.5\n008,raw/a.tif,raw/a_l.tif,4,,\n"
)


def rows(**columns: Any) -> pd.DataFrame:
    """A good table of two cells, with columns changed or added."""
    base: dict[str, Any] = {
        "cell_id": ["a", "b"],
        "fov_path": ["x.tif"] * 2,
        "label_path": ["l.tif"] * 2,
        "label": [1, 2],
    }
    return pd.DataFrame({**base, **columns})


def load(table: Any, **fields: Any) -> CellTable:
    return load_cells(table, CubeSpec(**fields))


def problems(table: Any, **fields: Any) -> list[str]:
    with pytest.raises(TableError) as caught:
        load(table, **fields)
    found = list(caught.value.problems)
    assert all(f"  - {problem}" in str(caught.value) for problem in found)
    return found


# --- where a table comes from -------------------------------------------------------------------------------


def test_csv(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text(CSV)
    table = load(tmp_path / "cells.csv")
    assert table.mode == "labels"
    assert table.has_labels
    assert table.frame["cell_id"].tolist() == ["007", "008"]
    assert table.frame["label"].tolist() == [3, 4]
    assert table.frame["label"].dtype == np.int64
    assert table.metadata == ("drug", "dose")
    assert table.frame["drug"].tolist() == ["None", ""]
    np.testing.assert_array_equal(table.frame["dose"], [0.5, np.nan])
    assert table.image_columns == {"": "fov_path"}
    assert table.resolve("raw/a.tif") == str(tmp_path / "raw/a.tif")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", CSV.replace(",", ";").encode()),
        ("tabs.tsv", CSV.replace(",", "\t").encode()),
        ("tabs.csv", CSV.replace(",", "\t").encode()),
        ("windows.csv", CSV.replace("\n", "\r\n").encode("utf-8-sig")),
        ("spaces.csv", CSV.replace(",", " , ", 5).encode()),
        ("blank-line.csv", b"\n" + CSV.replace(",", ";").encode()),
        ("cells.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("no suffix", CSV.encode()),
    ],
)
def test_forms_of_csv(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "plain.csv").write_text(CSV)
    (tmp_path / name).write_bytes(content)
    pd.testing.assert_frame_equal(load(tmp_path / name).frame, load(tmp_path / "plain.csv").frame)


def test_parquet_and_dataframe(tmp_path: Path) -> None:
    frame = rows(dose=[0.5, np.nan], ok=[True, False])
    frame.to_parquet(tmp_path / "cells.parquet")
    (tmp_path / "cells.parquet").rename(tmp_path / "cells.dat")
    from_file, from_frame = load(str(tmp_path / "cells.dat")), load(frame)
    pd.testing.assert_frame_equal(from_file.frame, from_frame.frame)
    assert from_file.resolve("x.tif") == str(tmp_path / "x.tif")
    assert from_frame.resolve("x.tif") == str(Path.cwd() / "x.tif")


def test_url(s3: dict[str, Any]) -> None:
    Location.of("s3://bucket/plate 1/cells.csv", s3).write(CSV.encode())
    table = load_cells("s3://bucket/plate 1/cells.csv", CubeSpec(), s3)
    assert len(table) == 2
    assert table.resolve("raw/a.tif") == "s3://bucket/plate 1/raw/a.tif"
    assert table.resolve("../a.tif") == "s3://bucket/a.tif"
    assert table.resolve("https://host/a.tif") == "https://host/a.tif"
    with pytest.raises(TableError, match="no cell table"):
        load_cells("s3://bucket/none.csv", CubeSpec(), s3)


def test_the_table_given_is_not_changed() -> None:
    frame = rows(CellId=[1, 2])
    before = frame.copy(deep=True)
    load(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_an_index_with_a_name_is_a_column() -> None:
    assert load(rows().set_index("cell_id")).frame["cell_id"].tolist() == ["a", "b"]
    assert load(rows().set_index(["cell_id", "label"])).frame["label"].tolist() == [1, 2]
    assert load(rows().set_axis([7, 7])).frame["cell_id"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"cell_id,fov_path\n", "no rows"),
        (CSV.encode() + b"1,2,3,4,5,6,7,8\n", "neither CSV nor Parquet.*line 4"),
        (b"a,b\n1,2,3\n", "more fields than its header"),
        ("µ\n1".encode("latin-1"), "CSV UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "neither Parquet nor CSV"),
        (b"PK\x03\x04 a spreadsheet", "spreadsheet.*save it as CSV"),
        (b"PAR1 cut short", "neither CSV nor Parquet"),
        (gzip.compress(CSV.encode(), mtime=0)[:20], "neither CSV nor Parquet"),
    ],
)
def test_not_a_table(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "cells.csv").write_bytes(content)
    with pytest.raises(TableError, match=says) as caught:
        load(tmp_path / "cells.csv")
    assert caught.value.path == str(tmp_path / "cells.csv")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no cell table"):
        load(tmp_path / "none.csv")
    with pytest.raises(TableError, match="folder"):
        load(tmp_path)
    with pytest.raises(TableError, match="not int"):
        load(3)
    with pytest.raises(TableError, match="no rows"):
        load(pd.DataFrame())


# --- names of columns ---------------------------------------------------------------------------------------


def test_renames(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Nr,Image,Seg,Object\n007,a.tif,l.tif,3\n")
    columns = {"cell_id": "Nr", "fov_path": "Image", "label_path": "Seg", "label": "Object"}
    table = load(tmp_path / "t.csv", columns=columns)
    assert table.frame[["cell_id", "fov_path", "label_path", "label"]].values.tolist() == [["007", "a.tif", "l.tif", 3]]
    assert table.metadata == ()


def test_renames_can_swap() -> None:
    swapped = load(rows(), columns={"fov_path": "label_path", "label_path": "fov_path"})
    assert swapped.frame["fov_path"].unique().tolist() == ["l.tif"]


def test_rename_of_what_is_not_there_and_onto_what_is() -> None:
    assert problems(rows(), columns={"scene": "Scen"})[0].startswith("column 'Scen' is missing (spec columns: scene)")
    assert problems(rows(Other=[1, 2]), columns={"cell_id": "Other"}) == [
        "column 'cell_id' exists and another column is renamed to it"
    ]


def test_allen_names() -> None:
    frame = pd.DataFrame(
        {
            "CellId": [1, 2],
            "CellIndex": [5, 6],
            "FOVId": [9, 9],
            "SourceReadPath": ["a.czi"] * 2,
            "MembraneSegmentationReadPath": ["a_m.tif"] * 2,
            "PixelScaleX": [0.1] * 2,
            "PixelScaleY": [0.1] * 2,
            "PixelScaleZ": [0.3] * 2,
            "ProteinDisplayName": ["LAMP1"] * 2,
        }
    )
    table = load(frame)
    first = table.frame.iloc[0]
    assert (first.cell_id, first.label, first.fov_id, first.fov_path) == ("1", 5, "9", "a.czi")
    assert (first.voxel_size_z, first.voxel_size_y, first.voxel_size_x) == (0.3, 0.1, 0.1)
    assert table.metadata == ("ProteinDisplayName",)


def test_own_names_go_before_the_allen_names() -> None:
    table = load(rows(CellId=[8, 9]))
    assert table.frame["cell_id"].tolist() == ["a", "b"]
    assert table.metadata == ("CellId",)


def test_one_file_a_channel() -> None:
    frame = rows(path_dna=["a_w1.tif"] * 2, path_er=["a_w2.tif"] * 2).drop(columns="fov_path")
    table = load(frame, channels={"ER": "path_er", "DNA": "path_dna"})
    assert table.image_columns == {"ER": "path_er", "DNA": "path_dna"}
    assert table.frame["fov_id"].unique().tolist() == ["a_w2"]
    assert table.metadata == ()
    missing = problems(frame.rename(columns={"path_er": "path_err"}), channels={"ER": "path_er", "DNA": "path_dna"})
    assert missing == ["column 'path_er' is missing (the files of channel 'ER'). Did you mean 'path_err'?"]


def test_channels_by_index_are_in_one_file() -> None:
    assert load(rows(), channels={"DNA": 0, "ER": 2}).image_columns == {"": "fov_path"}
    assert "indices and the others are columns" in problems(rows(), channels={"DNA": 0, "ER": "fov_path"})[0]


@pytest.mark.parametrize(
    ("renamed", "says"),
    [
        ({"cell_id": "cellid"}, "column 'cell_id' is missing. Did you mean 'cellid'?"),
        ({"fov_path": "FOV_path"}, "Did you mean 'FOV_path'?"),
        ({"label_path": "labels_path"}, "(the label image that 'label' is in). Did you mean 'labels_path'?"),
        (
            {"label": "lable"},
            "column 'label' is missing (there is a cell_id, so a row is a cell). Did you mean 'lable'?",
        ),
    ],
)
def test_missing_column_names_the_nearest(renamed: dict[str, str], says: str) -> None:
    (problem,) = problems(rows().rename(columns=renamed))
    assert problem.endswith(says)


def test_nothing_says_where_the_cells_are() -> None:
    (problem,) = problems(pd.DataFrame({"fov_path": ["a.tif"], "label_pth": ["l.tif"]}))
    assert "nothing says where the cells are" in problem
    assert "Did you mean 'label_pth'?" in problem


def test_columns_that_stand_twice() -> None:
    frame = rows()
    assert problems(pd.concat([frame, frame[["label"]]], axis=1)) == ["columns that stand twice: label"]
    assert problems(pd.DataFrame({0: [1], "0": [2]})) == ["columns that stand twice: 0"]


# --- where a cell is ----------------------------------------------------------------------------------------


def test_modes() -> None:
    base = pd.DataFrame({"cell_id": ["a"], "fov_path": ["x.tif"]})
    box = base.assign(y0=[1.0], y1=[5], x0=[2], x1=[6])
    assert load(box).mode == "boxes"
    assert load(box).frame[["y0", "y1", "x0", "x1"]].values.tolist() == [[1, 5, 2, 6]]
    assert load(box.assign(z0=[0], z1=[1])).frame["z1"].dtype == np.int64
    assert load(base.assign(center_y=[1.5], center_x=[2])).mode == "centres"
    assert not load(box).has_labels
    fovs = load(pd.DataFrame({"fov_path": ["p/a.ome.tif", "p/b.ome.tif"], "label_path": ["a", "b"]}))
    assert (fovs.mode, fovs.has_labels, fovs.frame["fov_id"].tolist()) == ("fovs", True, ["a", "b"])
    inside = load(pd.DataFrame({"fov_path": ["a.tif"]}), label_channel="Nuclei")
    assert inside.mode == "fovs"
    assert load(rows().drop(columns="label_path").assign(label_channel=[2.0, 2.0])).frame["label_channel"][0] == "2"


def test_fovs_must_be_told_apart() -> None:
    (problem,) = problems(pd.DataFrame({"fov_path": ["a.tif"] * 2, "label_path": ["l.tif"] * 2}))
    assert problem == "'fov_id' is not unique: 1 value stands twice or more ('a')"
    scenes = load(pd.DataFrame({"fov_path": ["a.tif"] * 2, "label_path": ["l.tif"] * 2, "scene": [0, 1]}))
    assert scenes.frame["fov_id"].tolist() == ["a-s0", "a-s1"]
    times = load(pd.DataFrame({"fov_path": ["a.tif"] * 2, "label_path": ["l.tif"] * 2, "timepoint": [0, np.nan]}))
    assert times.frame["fov_id"].tolist() == ["a-t0", "a"]


def test_fov_id_of_equal_names_in_different_folders() -> None:
    table = load(rows(fov_path=["p1/a.tif", "p2/a.tif"]))
    assert table.frame["fov_id"].tolist() == ["p1/a.tif", "p2/a.tif"]
    signed = load(rows(fov_path=[f"https://host/p{n}/a.tif?sig=s3cr3t" for n in (1, 2)]))
    assert signed.frame["fov_id"].tolist() == ["https://host/p1/a.tif", "https://host/p2/a.tif"]


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(0, 99)), min_size=1, max_size=30, unique=True))
def test_order_is_by_fov_then_as_given(cells: list[tuple[str, int]]) -> None:
    frame = pd.DataFrame(
        {
            "cell_id": [f"{fov}-{label}" for fov, label in cells],
            "fov_path": [f"{fov}.tif" for fov, _ in cells],
            "label_path": "l.tif",
            "label": [label + 1 for _, label in cells],
        }
    )
    fovs = list(dict.fromkeys(fov for fov, _ in cells))
    expected = [f"{fov}-{label}" for wanted in fovs for fov, label in cells if fov == wanted]
    table = load(frame)
    assert table.frame["cell_id"].tolist() == expected
    assert table.frame.index.tolist() == list(range(len(cells)))


# --- metadata -----------------------------------------------------------------------------------------------


def test_metadata_is_typed() -> None:
    frame = rows(
        whole=[1, 2],
        small=np.array([1, 2], "i1"),
        huge=np.array([2**64 - 1, 1], "u8"),
        real=[0.5, np.nan],
        half=np.array([0.5, 1], "f2"),
        gaps=pd.array([1, None], dtype="Int64"),
        truth=[True, False],
        unsure=pd.array([True, None], dtype="boolean"),
        text=["µ", None],
        mixed=np.array([1, "a"], object),
        kind=pd.Categorical(["x", None]),
        day=pd.to_datetime(["2020-01-02", None]),
        nothing=[None, None],
    )
    table = load(frame)
    kinds = {name: table.frame[name].dtype for name in table.metadata}
    assert {name for name, kind in kinds.items() if kind == np.int64} == {"whole", "small"}
    assert {name for name, kind in kinds.items() if kind == np.float64} == {"real", "half", "gaps"}
    assert {name for name, kind in kinds.items() if kind.kind == "b"} == {"truth"}
    texts = {name: table.frame[name].tolist() for name in table.metadata if kinds[name].kind not in "ifb"}
    assert texts == {
        "huge": [str(2**64 - 1), "1"],
        "unsure": ["True", ""],
        "text": ["µ", ""],
        "mixed": ["1", "a"],
        "kind": ["x", ""],
        "day": ["2020-01-02T00:00:00", ""],
        "nothing": ["", ""],
    }


def test_what_the_manifest_has_of_its_own_is_kept_apart() -> None:
    spec = CubeSpec(oversize="shrink", split={"by": "well", "fractions": {"all": 1}})
    layout = Layout.of(spec, ("DNA",), {"cells": "float16"}, True, {})
    own = [*(name for name in added(layout) if name != "split"), "run", "status", "reason", "norm_low", "cells", "x"]
    given_columns = {name: [1, 2] for name in own if not name.startswith("voxel_size")}
    table = load(rows(**given_columns))
    assert sorted(table.metadata) == sorted(RESERVED_PREFIX + name for name in given_columns)
    assert not set(table.metadata) & {*own, *KNOWN}
    clash = problems(rows(run=[1, 2], table_run=[3, 4]))
    assert clash == ["column 'run' is carried as 'table_run', and there is a column of that name"]


def test_columns_that_this_table_does_not_use_are_metadata() -> None:
    table = load(rows(center_y=[1.5, 2.5], path_dna=["a", "a"]), channels={"DNA": "path_dna"})
    assert table.metadata == ("fov_path", "center_y")


# --- everything that is wrong, at once ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"cell_id": ["a", "a"]}, "'cell_id' is not unique: 1 value stands twice or more ('a')"),
        ({"cell_id": ["a", " a "]}, "'cell_id' is not unique: 1 value stands twice or more ('a')"),
        ({"cell_id": ["a", None]}, "'cell_id' is empty in 1 row (1)"),
        ({"cell_id": ["", "  "]}, "'cell_id' is empty in 2 rows (0, 1)"),
        ({"cell_id": np.array([1, "b"], object)}, "'cell_id' mixes types: int, str"),
        ({"cell_id": [1.5, 2]}, "'cell_id' holds fractions, not identifiers"),
        ({"cell_id": [1, np.inf]}, "'cell_id' holds fractions, not identifiers"),
        ({"fov_path": ["x.tif", ""]}, "'fov_path' is empty in 1 row (1)"),
        ({"fov_path": np.array(["x.tif", 3], object)}, "'fov_path' mixes types: not a path in 1 row (1)"),
        ({"label_path": ["l.tif", None]}, "'label_path' is empty in 1 row (1)"),
        ({"label": [1, np.nan]}, "'label' is empty or not finite in 1 row (1)"),
        ({"label": [1, np.inf]}, "'label' is empty or not finite in 1 row (1)"),
        ({"label": [1, 2.5]}, "'label' is not a whole number in 1 row (1)"),
        ({"label": [0, -3]}, "'label' is below 1 in 2 rows (0, 1) (0 is the background)"),
        ({"label": ["1", "two"]}, "'label' is not a number in 1 row (1), such as 'two'"),
        ({"label": [True, True]}, "'label' is not a number in 2 rows (0, 1), such as 'True'"),
        ({"label": [1, 1e300]}, "'label' is too large in 1 row (1)"),
        ({"label": np.array([1, 2**64 - 1], "u8")}, "'label' is too large in 1 row (1)"),
        ({"timepoint": [0, 0.5]}, "'timepoint' is not a whole number in 1 row (1)"),
        ({"timepoint": [0, -2]}, "'timepoint' is below 0 in 1 row (1)"),
        ({"voxel_size_y": [0, 1]}, "'voxel_size_y' is zero, negative or not finite in 1 row (0): give it in µm"),
        ({"voxel_size_x": [-1, np.inf]}, "'voxel_size_x' is zero, negative or not finite in 2 rows (0, 1)"),
        ({"voxel_size_x": ["0,65", "0,65"]}, "'voxel_size_x' is not a number in 2 rows (0, 1), such as '0,65'"),
        ({"axes": ["CYX", "YX"]}, "'axes' differs between rows of one FOV, such as 'x': give them their own fov_id"),
    ],
)
def test_bad_values(columns: dict[str, Any], says: str) -> None:
    assert any(problem.startswith(says) for problem in problems(rows(**columns)))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"y0": [5.5]}, ["'y0' is not a whole number in 1 row (0)"]),
        ({"x1": [np.nan]}, ["'x1' is empty or not finite in 1 row (0)"]),
        ({"x1": [np.inf]}, ["'x1' is empty or not finite in 1 row (0)"]),
        ({"y0": [9]}, ["'y1' is not above 'y0' in 1 row (0)"]),
        ({"y0": [-1]}, ["'y0' is below 0 in 1 row (0)"]),
        ({"z0": [0]}, ["column 'z1' is missing."]),
    ],
)
def test_bad_boxes(columns: dict[str, Any], says: list[str]) -> None:
    good = {"cell_id": ["a"], "fov_path": ["x.tif"], "y0": [1], "y1": [9], "x0": [1], "x1": [9]}
    assert problems(pd.DataFrame({**good, **columns})) == says


def test_bad_centre() -> None:
    frame = pd.DataFrame({"cell_id": ["a"], "fov_path": ["x.tif"], "center_y": [np.inf]})
    assert problems(frame) == [
        "column 'center_x' is missing. Did you mean 'center_y'?",
        "'center_y' is empty or not finite in 1 row (0)",
    ]


def test_all_problems_in_one_error() -> None:
    frame = rows(cell_id=["a", "a"], fov_path=["", "x.tif"], label=[0, 2.5], voxel_size_y=[0, 1], timepoint=["x", 1])
    found = problems(frame.drop(columns="label_path"))
    columns = ("label_path", "fov_path", "timepoint", "voxel_size_y", "label", "cell_id")
    assert all(any(f"'{name}'" in problem for problem in found) for name in columns)
    with pytest.raises(TableError, match=f"{len(found)} problems"):
        load(frame.drop(columns="label_path"))


def test_rows_are_numbered_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("cell_id,fov_path,label_path,label\n" + "a,x,l,0\n" * 5)
    found = problems(tmp_path / "t.csv")
    assert any("5 rows (2, 3, 4, …)" in problem for problem in found)


def test_whole_numbers_given_as_floats() -> None:
    table = load(rows(cell_id=[1.0, 2.0], label=[1.0, 2.0], fov_id=[3.0, 3.0], scene=[0.0, 0.0]))
    first = table.frame.iloc[0]
    assert (first.cell_id, first.label, first.fov_id, first.scene) == ("1", 1, "3", "0")


@pytest.mark.parametrize("label", [2**53 + 1, 2**62 + 3])
def test_large_labels_are_exact(tmp_path: Path, label: int) -> None:
    assert load(rows(label=[1, label])).frame["label"].tolist() == [1, label]
    rows(label=[1, label]).to_csv(tmp_path / "t.csv", index=False)
    assert load(tmp_path / "t.csv").frame["label"].tolist() == [1, label]


@pytest.mark.parametrize("kind", [str, object, Path], ids=["text", "objects", "paths"])
def test_paths_of_any_kind(kind: Any) -> None:
    given = [" x.tif", "y.tif "] if kind is not Path else [Path("x.tif"), Path("y.tif")]
    dtype = object if kind is Path else kind
    table = load(rows(fov_path=pd.Series(given, dtype=dtype)))
    assert table.frame["fov_path"].tolist() == ["x.tif", "y.tif"]
    assert table.frame["fov_id"].tolist() == ["x", "y"]
    assert problems(rows(fov_path=pd.Series([given[0], None], dtype=dtype))) == ["'fov_path' is empty in 1 row (1)"]
    assert problems(rows(fov_path=pd.Series([given[0], 3], dtype=object))) == [
        "'fov_path' mixes types: not a path in 1 row (1)"
    ]


def test_the_first_field_whose_rows_differ_is_named() -> None:
    table = pd.concat([rows(), rows(cell_id=["c", "d"], fov_path="y.tif")], ignore_index=True)
    table["fov_id"] = ["one", "one", "two", "two"]
    table["voxel_size_x"] = [0.5, 0.5, np.nan, 0.5]
    assert problems(table) == [
        "'voxel_size_x' differs between rows of one FOV, such as 'two': give them their own fov_id"
    ]
    table["voxel_size_x"] = [0.5, 0.5, np.nan, np.nan]
    assert load(table).frame["fov_id"].tolist() == ["one", "one", "two", "two"]
