from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cellcube
from cellcube.demo.plates import DemoPlate
from cellcube.errors import ArgumentError, DatasetNotFoundError, VersionNotFoundError
from cellcube.export.biofile_finder import to_biofile_finder
from cellcube.export.biofile_finder_tables import human_names
from cellcube.export.ome_tiff import to_ome_tiff
from cellcube.location import Location

URL = "https://data.example.org/screen"
SPECIAL = ["File ID", "File Path", "File Name", "File Size", "Thumbnail", "Uploaded"]
NODES = {"self", "file", "metadata"}
TYPES = {"Date", "DateTime", "Number", "Text", "YesNo", "Duration", "Dropdown", "Lookup", "Markdown", "Open file link"}


@pytest.fixture
def table(plate: DemoPlate) -> pd.DataFrame:
    """Cells with what is awkward: commas, lists, names that BioFile Finder knows, quotes, leading zeros."""
    frame = pd.read_csv(plate.cells_csv)
    frame = frame[frame["fov_id"] != plate.broken_fov].reset_index(drop=True)
    for name in ("fov_path", "label_path"):
        frame[name] = [str(plate.folder / path) for path in frame[name]]
    frame.loc[0, "cell_id"] = "a, b/c"
    frame["treatment"] = "DMSO, 0.1 %"
    frame["genes"] = "TP53, MYC"
    frame["file_path"] = "old.tif"
    frame["Data source"] = "here"
    frame['he said "a.b", c:d'] = 1.5
    frame["Row_"] = frame["row"]
    frame["batch"] = [f"{number:03}" for number in range(len(frame))]
    frame["dose"] = [np.nan, *range(1, len(frame))]
    return frame


@pytest.fixture
def root(table: pd.DataFrame) -> str:
    cellcube.build(
        table, "ds", name="lab/screen-7", licence="CC-BY-4.0", channels=["DNA", "ER"], shape=(1, 48, 64), progress=False
    )
    return "ds"


class Finder:
    """What BioFile Finder does with a data source, by DuckDB, as its own code does it."""

    def __init__(self, manifest: Path) -> None:
        self.db = duckdb.connect()
        self.db.execute("SET TimeZone = 'UTC'")
        if manifest.suffix == ".parquet":
            found = self._names(f"parquet_scan('{manifest}')")
            known = self._known(found)
            parts = [f'"{name}" AS "{known[name]}"' if name in known else f'"{name}"' for name in found]
            self.db.execute(
                f"CREATE VIEW cells AS SELECT {', '.join(parts)}, file_row_number AS hidden_bff_uid "
                f"FROM parquet_scan(['{manifest}'], union_by_name = true)"
            )
        else:
            self.db.execute(f"CREATE TABLE cells AS FROM read_csv_auto('{manifest}', header=true, sample_size=-1)")
            for name, new in self._known(self._names("cells")).items():
                if name != new:
                    self.db.execute(f'ALTER TABLE cells RENAME COLUMN "{name}" TO "{new}"')
            self.db.execute("ALTER TABLE cells ADD COLUMN hidden_bff_uid INT")
            self.db.execute(
                'UPDATE cells SET hidden_bff_uid = s.row FROM (SELECT "File Path", ROW_NUMBER() OVER '
                '(ORDER BY "File Path") AS row FROM cells) AS s WHERE cells."File Path" = s."File Path"'
            )
        self.columns = {name: kind for name, kind in self._types() if name != "hidden_bff_uid"}

    def _names(self, source: str) -> list[str]:
        return [str(row[0]) for row in self.db.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]

    def _types(self) -> list[tuple[str, str]]:
        query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'cells'"
        return [(str(name), str(kind)) for name, kind in self.db.execute(query).fetchall()]

    @staticmethod
    def _known(columns: list[str]) -> dict[str, str]:
        found = {}
        for special in SPECIAL:
            same = [name for name in columns if re.sub(r"\s|-|_", "", name.lower()) == special.lower().replace(" ", "")]
            assert len(same) <= 1, f"Too many columns similar to {special}: {same}"
            found.update(dict.fromkeys(same, special))
        return found

    def errors(self) -> list[str]:
        problems = [name for name in self.columns if '"' in name]
        if "File Path" not in self.columns:
            return [*problems, "no File Path"]
        blank = self.db.execute("""SELECT * FROM cells WHERE TRIM(CAST("File Path" AS VARCHAR)) IS NULL""").fetchall()
        ids = self.db.execute("SELECT count(DISTINCT hidden_bff_uid), count(*) FROM cells").fetchone()
        assert ids is not None
        return [*problems, *(["blank"] if blank else []), *(["rows are not told apart"] if ids[0] != ids[1] else [])]

    def rows(self) -> list[dict[str, list[str]]]:
        """Values of each row as it shows them: text, split at commas; nothing for null."""
        names = list(self.columns)
        quoted = ", ".join(f'CAST("{name}" AS VARCHAR)' for name in names)
        found = []
        for row in self.db.execute(f'SELECT {quoted} FROM cells ORDER BY "File Path"').fetchall():
            values = {
                name: [part.strip() for part in value.split(",")]
                for name, value in zip(names, row, strict=True)
                if value
            }
            found.append(values)
        return found


@pytest.mark.parametrize("file", ["cells.parquet", "cells.csv"])
def test_biofile_finder_takes_the_manifest(root: str, table: pd.DataFrame, file: str) -> None:
    report = to_biofile_finder(root, "bff", base_url=URL, lists=["genes"], progress=False)
    finder = Finder(Path("bff") / file)
    assert finder.errors() == []
    assert set(SPECIAL) <= set(finder.columns)
    rows = finder.rows()
    assert len(rows) == report.cells == len(table)
    lists = {name for row in rows for name, values in row.items() if len(values) > 1}
    assert lists == {"Genes"}
    assert rows[0]["Genes"] == ["TP53", "MYC"]
    assert rows[0]["Treatment"] == ["DMSO; 0.1 %"]
    assert rows[0]["Dataset"] == ["lab/screen-7"]
    assert rows[0]["Licence"] == ["CC-BY-4.0"]
    assert rows[0]["Table File Path"] == ["old.tif"]
    assert {row["File ID"][0] for row in rows} == {"a; b/c", *table["cell_id"][1:]}
    [awkward] = [row for row in rows if row["File ID"] == ["a; b/c"]]
    assert "Dose" not in awkward
    assert sum("Dose" in row for row in rows) == len(table) - 1
    # What is a number, a date and so on to it.
    numbers = {"File Size", "Label", "Dose", "Area Voxels", "He Said A B C D", "Voxel Size Y", "Dataset Version"}
    assert {name for name in numbers if finder.columns[name] in ("BIGINT", "DOUBLE", "INTEGER")} == numbers
    assert finder.columns["Uploaded"] in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP")
    assert finder.columns["Shifted"] == "BOOLEAN"
    for row in rows:
        path = Path("bff") / unquote(row["File Path"][0].removeprefix(f"{URL}/"))
        assert path.stat().st_size == int(row["File Size"][0])
        assert row["Thumbnail"] == row["File Path"]
        assert row["File Name"] == [path.name]


def test_the_parquet_manifest_keeps_leading_zeros(root: str) -> None:
    to_biofile_finder(root, "bff", base_url=URL, progress=False)
    assert Finder(Path("bff/cells.parquet")).rows()[0]["Batch"][0].startswith("0")


def test_no_two_columns_are_the_same_to_it(root: str) -> None:
    to_biofile_finder(root, "bff", base_url=URL, progress=False)
    names = pd.read_parquet("bff/cells.parquet").columns
    plain = [re.sub(r"[\s\-_]", "", name.lower()) for name in names]
    assert len(set(plain)) == len(plain)
    assert not [name for name in names if re.search(r"""["'.,:\\]""", name)]
    assert {"Row", "Row 2", "Table Data Source", "Cell ID", "FOV ID", "Area (um2)"} <= set(names)
    assert list(pd.read_csv("bff/cells.csv").columns) == list(names)


@pytest.mark.parametrize("name", ["FILE_PATH", "file-path", "File path", "thumbnail", "hidden bff uid", "uploaded"])
def test_names_that_it_knows_are_kept_free(name: str) -> None:
    taken = [*SPECIAL, "hidden_bff_uid"]
    [found] = human_names([name], taken).values()
    assert found.startswith("Table ")
    both = human_names([name, f"Table {name}"], taken)
    assert len({value.lower().replace(" ", "") for value in both.values()}) == 2


def test_columns_are_described_by_name_and_type(root: str) -> None:
    to_biofile_finder(root, "bff", base_url=URL, progress=False)
    described = pd.read_csv("bff/column_descriptions.csv", keep_default_na=False)
    assert list(described.columns) == ["Column Name", "Description", "Type"]
    assert described["Column Name"].tolist() == list(pd.read_parquet("bff/cells.parquet").columns)
    assert set(described["Type"]) <= TYPES
    about = described.set_index("Column Name")
    assert about.loc["Truncated Fraction"].tolist() == ["Share of the cell's voxels that are not in the crop", "Number"]
    assert about.loc["Treatment"].tolist() == ["From the cell table", "Text"]
    assert about.loc["Uploaded", "Type"] == "DateTime"
    assert about.loc["Touches Border", "Type"] == "YesNo"
    assert (about["Description"].str.len() > 5).all()


def test_provenance_connects_columns_that_exist(root: str) -> None:
    to_biofile_finder(root, "bff", base_url=URL, progress=False)
    columns = set(pd.read_parquet("bff/cells.parquet").columns)
    db = duckdb.connect()
    found = db.execute("FROM read_csv_auto('bff/provenance.csv', header=true, sample_size=-1)")
    names = [re.sub(r"\s+", "", each[0].lower()) for each in found.description or []]
    edges = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    assert {"parent", "child", "relationship", "parenttype", "childtype", "relationshiptype"} == set(names)
    for edge in edges:
        assert edge["relationship"]
        for end in ("parent", "child"):
            assert edge[f"{end}type"] in NODES
            assert (edge[end] in columns) == (edge[f"{end}type"] != "self")
    pairs = [(edge["parent"], edge["child"]) for edge in edges]
    assert len(set(pairs)) == len(pairs)
    assert {("FOV Path", "FOV ID"), ("FOV ID", None), ("Dataset", None)} <= set(pairs)


def test_the_commit_of_the_code_is_in_the_manifest_and_the_provenance(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Path(root, "runs", "000001.json")
    changed = json.loads(record.read_text())
    changed["code"] = {"file": "run.py", "git": {"commit": "c0ffee", "dirty": False}}
    record.write_text(json.dumps(changed))
    to_biofile_finder(root, "bff", base_url=URL, progress=False)
    assert set(pd.read_parquet("bff/cells.parquet")["Code Commit"]) == {"c0ffee"}
    with Path("bff/provenance.csv").open() as file:
        assert ["Code Commit", "metadata", "Dataset", "metadata", "built", ""] in list(csv.reader(file))


def test_links_lead_to_the_files(root: str) -> None:
    report = to_biofile_finder(root, "bff", base_url="https://data.example.org/my screen/", progress=False)
    assert report.link is not None
    assert report.full_link is not None
    base = "https://data.example.org/my%20screen"
    assert report.manifest == f"{base}/cells.parquet"
    assert report.link.startswith("https://bff.allencell.org/app?url=https%3A%2F%2F")
    assert parse_qs(urlsplit(report.link).query) == {"url": [report.manifest]}
    query = parse_qs(urlsplit(report.full_link).query)
    parts = {key: json.loads(query[key][0]) for key in ("source", "sourceMetadata", "prov")}
    for key, file in (
        ("source", "cells.parquet"),
        ("sourceMetadata", "column_descriptions.csv"),
        ("prov", "provenance.csv"),
    ):
        assert parts[key]["uri"] == f"{base}/{file}"
        assert parts[key]["type"] == file.rpartition(".")[2]
        assert Path("bff", file).exists()
    assert len({part["name"] for part in parts.values()}) == 3
    assert report.link in str(report)


def test_without_a_url_paths_are_local_and_there_is_no_link(root: str) -> None:
    report = to_biofile_finder(root, "bff", progress=False)
    frame = pd.read_parquet("bff/cells.parquet")
    assert report.link is None
    assert report.full_link is None
    assert all(Path(path).is_file() for path in frame["File Path"])
    assert set(frame["Cube"]) == {str(Path(root).absolute() / "cube.zarr")}
    assert str(report).count("\n") == 0


def test_where_the_dataset_is_on_this_machine_is_not_published(root: str) -> None:
    to_biofile_finder(root, "bff", base_url=URL, progress=False)
    frame = pd.read_parquet("bff/cells.parquet")
    assert "Cube" not in frame
    to_biofile_finder(root, "bff", base_url=URL, dataset_url="https://data.example.org/ds/", progress=False)
    assert set(pd.read_parquet("bff/cells.parquet")["Cube"]) == {"https://data.example.org/ds/cube.zarr"}


def test_thumbnails_show_the_cell_in_the_colours_of_its_channels(root: str, table: pd.DataFrame) -> None:
    to_biofile_finder(root, "bff", progress=False)
    frame = pd.read_parquet("bff/cells.parquet").set_index("File ID")
    dataset = cellcube.open(root).load()
    cell = str(table["cell_id"][3])
    crop = dataset["max_z"].sel(cell_id=cell).values.astype(np.float32)
    with Image.open(frame.loc[cell, "Thumbnail"]) as picture:
        shown = np.asarray(picture).astype(np.float32) / 255
    assert shown.shape == (48, 64, 3)
    blue, green = (np.array(color, np.float32) / 255 for color in ((0x3D, 0x7B, 0xFF), (0x2B, 0xD9, 0x6B)))
    expected = 1 - (1 - crop[0, :, :, None] * blue) * (1 - crop[1, :, :, None] * green)
    assert np.abs(shown - expected).max() < 0.015


def test_one_channel_is_grey_and_large_crops_are_shown_smaller(plate: DemoPlate) -> None:
    cellcube.build(plate.cells_3d_csv, "ds3", shape=(24, 80, 400), projections=[], progress=False)
    to_biofile_finder("ds3", "bff", channels=["membrane"], progress=False)
    with Image.open(next(Path("bff/thumbnails").iterdir())) as picture:
        assert picture.size == (256, 51)
        assert picture.mode == "L"
        assert np.asarray(picture).max() > 150


def test_dates_and_whole_numbers_of_a_further_table_keep_their_types(root: str) -> None:
    ids = cellcube.open(root)["cell_id"].values
    more = pd.DataFrame({"cell_id": ids, "imaged": pd.Timestamp("2024-05-06 07:08:09"), "well": "B99"})
    more["seen"] = pd.Series([None, *range(1, len(ids))], dtype="Int64")
    to_biofile_finder(root, "bff", table=more.iloc[::-1], progress=False)
    finder = Finder(Path("bff/cells.parquet"))
    assert finder.columns["Imaged"] == "TIMESTAMP"
    assert finder.columns["Seen"] == "BIGINT"
    assert {row["Well"][0] for row in finder.rows()} == {"B99"}
    assert finder.rows()[0]["Imaged"] == ["2024-05-06 07:08:09"]
    by_id = {row["File ID"][0]: row for row in finder.rows()}
    assert by_id[str(ids[5])]["Seen"] == ["5"]


def test_files_of_another_export_are_listed(root: str, table: pd.DataFrame) -> None:
    to_ome_tiff(root, "tiffs", progress=False)
    report = to_biofile_finder(
        root,
        "bff",
        base_url=URL,
        table="tiffs/cells.parquet",
        files_url="https://data.example.org/tiffs",
        progress=False,
    )
    finder = Finder(Path("bff/cells.parquet"))
    assert finder.errors() == []
    for row in finder.rows():
        assert row["File Path"] == [f"https://data.example.org/tiffs/{row['File Name'][0]}"]
        assert Path("tiffs", row["File Name"][0]).stat().st_size == int(row["File Size"][0])
        assert row["Thumbnail"][0].startswith(f"{URL}/thumbnails/")
        assert row["File"] == row["File Name"]
    assert report.cells == len(table)


def test_files_by_a_function_and_without_thumbnails(root: str) -> None:
    to_biofile_finder(
        root, "bff", base_url=URL, thumbnails=False, progress=False,
        files=lambda row: f"https://images.example.org/{row['fov_id']}.tif?cell={row['label']},1",
    )  # fmt: skip
    frame = pd.read_parquet("bff/cells.parquet")
    assert frame["File Path"][1] == f"https://images.example.org/{frame['FOV ID'][1]}.tif?cell={frame['Label'][1]}%2C1"
    assert frame["File Name"][1] == f"{frame['FOV ID'][1]}.tif"
    assert frame["Thumbnail"].isna().all()
    assert frame["File Size"].isna().all()
    assert not Path("bff/thumbnails").exists()
    assert Finder(Path("bff/cells.csv")).errors() == []


def test_a_selection_of_cells(root: str) -> None:
    report = to_biofile_finder(root, "bff", where="well == 'B02'", progress=False)
    frame = pd.read_parquet("bff/cells.parquet")
    assert set(frame["Well"]) == {"B02"}
    assert len(frame) == report.cells == len(list(Path("bff/thumbnails").iterdir())) > 0


def test_writing_again_replaces_what_was_there(root: str) -> None:
    to_biofile_finder(root, "bff", progress=False)
    to_biofile_finder(root, "bff", where="well == 'B02'", progress=False)
    assert len(list(Path("bff/thumbnails").iterdir())) == len(pd.read_parquet("bff/cells.parquet"))


def test_dataset_and_manifest_in_s3(root: str, s3: dict[str, Any]) -> None:
    import fsspec

    fs = fsspec.filesystem("s3", **s3, use_listings_cache=False)
    fs.put(root, "bucket/bff-source", recursive=True)
    report = to_biofile_finder("s3://bucket/bff-source", "s3://bucket/bff", storage_options=s3, progress=False)
    frame = pd.read_parquet(io.BytesIO(fs.cat("bucket/bff/cells.parquet")))
    assert report.cells == len(frame)
    assert set(frame["Cube"]) == {"s3://bucket/bff-source/cube.zarr"}
    for path, size in zip(frame["File Path"], frame["File Size"], strict=True):
        assert Location.of(unquote(path), s3).size() == size
    assert "testing" not in fs.cat("bucket/bff/cells.csv").decode()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"files": "fov_path"}, "have the same file"),
        ({"files": "fov_path", "base_url": URL}, "a browser does not reach"),
        ({"files": "fov_pth"}, "Did you mean 'fov_path'"),
        ({"files": lambda row: "nowhere/" + row["cell_id"]}, "there is no file"),
        ({"files": lambda row: " "}, "a cell has no file"),
        ({"thumbnails": False}, "neither `files` nor thumbnails"),
        ({"lists": ["gene"]}, "Did you mean 'genes'"),
        ({"where": "well == 'Z99'"}, "No cell meets"),
        ({"channels": ["RNA"]}, "no channel"),
        ({"table": pd.DataFrame({"cell_id": ["x"]})}, "lacks"),
        ({"table": pd.DataFrame({"cell_id": ["x", "x"]})}, "twice"),
        ({"table": pd.DataFrame({"cell": ["x"]})}, "no column 'cell_id'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    root: str, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ArgumentError, match=re.escape(told)):
        to_biofile_finder(root, "bff", progress=False, **arguments)
    assert not Path("bff").exists()


def test_there_must_be_a_dataset_of_that_version(root: str) -> None:
    with pytest.raises(DatasetNotFoundError):
        to_biofile_finder("nothing", "bff")
    with pytest.raises(VersionNotFoundError):
        to_biofile_finder(root, "bff", version=7)
