"""What a build does and tells: outcomes, versions, provenance, refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

import cellcube
from cellcube.demo.plates import DemoPlate
from cellcube.errors import (
    ArgumentError,
    BuildStoppedError,
    ChannelError,
    DatasetAccessError,
    DatasetBusyError,
    DatasetFormatError,
    DatasetNotFoundError,
    NotADatasetError,
    SpecChangedError,
    SpecError,
    TableError,
    VersionNotFoundError,
)
from cellcube.ledger import Claim
from cellcube.location import Location

SMALL: dict[str, Any] = {"executor": 1, "shape": (1, 32, 32), "progress": False}


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def table(plate: DemoPlate) -> pd.DataFrame:
    """The cells of the good FOVs, with absolute paths."""
    table = pd.read_csv(plate.cells_csv)
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    return table[table["fov_id"] != plate.broken_fov].reset_index(drop=True)


def test_counts_reconcile_and_every_cell_has_an_outcome(plate: DemoPlate) -> None:
    report = cellcube.build(plate.cells_csv, "ds", **{**SMALL, "shape": (1, 48, 48)}, edge="drop")
    asked = pd.read_csv(plate.cells_csv)["cell_id"]
    assert report.requested == len(asked) == report.kept + report.dropped + report.failed
    outcomes = pd.read_parquet("ds/outcomes.parquet")
    assert sorted(outcomes["cell_id"]) == sorted(asked)
    assert set(outcomes["status"]) == {"kept", "dropped", "failed"}
    failed = outcomes[outcomes["status"] == "failed"]
    assert set(failed["fov_id"]) == {plate.broken_fov}
    assert failed["reason"].str.startswith("truncated-image: ").all()
    assert outcomes.loc[outcomes["status"] == "dropped", "reason"].str.startswith("edge: ").all()
    assert len(pd.read_parquet("ds/cells.parquet")) == report.kept == cellcube.open("ds").sizes["cell"]
    record = json.loads(Path("ds/runs/000001.json").read_text())
    assert record["counts"] == {
        "requested": report.requested,
        "kept": report.kept,
        "dropped": report.dropped,
        "failed": report.failed,
    }


def test_the_same_build_again_changes_nothing_and_says_so(plate: DemoPlate) -> None:
    first = cellcube.build(plate.cells_csv, "ds", **SMALL)
    before = tree(Path("ds"))
    second = cellcube.build(plate.cells_csv, "ds", **SMALL)
    assert tree(Path("ds")) == before
    assert (second.added, second.version, second.kept) == (0, 1, first.kept)
    assert "nothing to add" in str(second)
    assert (second.requested, second.dropped, second.failed) == (first.requested, first.dropped, first.failed)


def test_a_mended_image_is_built_by_the_same_call(table: pd.DataFrame, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(Path(table["fov_path"][0]).read_bytes()[:5000])
    one = table["fov_id"] == table["fov_id"][0]
    mended = Path(table["fov_path"][0]).read_bytes()
    table.loc[one, "fov_path"] = str(broken)
    first = cellcube.build(table, "ds", **SMALL)
    assert first.failed == one.sum()
    broken.write_bytes(mended)
    second = cellcube.build(table, "ds", **SMALL)
    assert (second.version, second.added, second.failed) == (2, int(one.sum()), 0)
    assert set(pd.read_parquet("ds/outcomes.parquet")["status"]) == {"kept"}


def test_a_new_failure_is_recorded_as_a_version(table: pd.DataFrame) -> None:
    cellcube.build(table, "ds", **SMALL)
    more = pd.concat([table, table.head(1).assign(cell_id="ghost", label=60_000)])
    report = cellcube.build(more, "ds", **SMALL)
    assert (report.version, report.added, report.failed) == (2, 0, 1)
    outcomes = pd.read_parquet("ds/outcomes.parquet").set_index("cell_id")
    assert outcomes.loc["ghost", "reason"].startswith("label-not-found: Label 60000 is not in the label image")
    assert cellcube.build(more, "ds", **SMALL).version == 2


def test_pixels_of_a_crop_are_those_of_the_fov(table: pd.DataFrame) -> None:
    cellcube.build(table, "ds", **SMALL, normalize="none", projections=["sum_z"])
    dataset = cellcube.open("ds")
    assert dataset["cells"].dtype == np.uint16
    for row in pd.read_parquet("ds/cells.parquet").itertuples():
        image = tifffile.imread(row.fov_path)
        padded = np.pad(image, ((0, 0), (32, 32), (32, 32)))
        expected = padded[:, row.origin_y + 32 :, row.origin_x + 32 :][:, :32, :32]
        np.testing.assert_array_equal(dataset["cells"].sel(cell_id=row.cell_id)[:, 0], expected)
        np.testing.assert_array_equal(dataset["sum_z"].sel(cell_id=row.cell_id), expected)


def test_normalization_can_be_undone(table: pd.DataFrame) -> None:
    cellcube.build(table, "raw", **SMALL, normalize="none")
    cellcube.build(table, "scaled", **SMALL, normalize="minmax", dtype="uint16")
    raw, scaled = cellcube.open("raw").load(), cellcube.open("scaled").load()
    low, high = (scaled[name].values[:, :, None, None, None] for name in ("norm_low", "norm_high"))
    undone = low + scaled["cells"].values / 65535 * (high - low)
    inside = raw["cells"].values > 0
    step = np.broadcast_to((high - low) / 65535, undone.shape)
    assert (np.abs(undone - raw["cells"].values)[inside] <= step[inside]).all()


def test_a_users_function_normalizes_and_is_in_the_provenance(table: pd.DataFrame) -> None:
    def halve(pixels: np.ndarray, cell: dict[str, Any]) -> np.ndarray:
        assert pixels.shape == (5, 1, 32, 32)
        assert cell["treatment"]
        return pixels / 2

    cellcube.build(table, "ds", **SMALL, normalize=halve, dtype="float32")
    cellcube.build(table, "raw", **SMALL, normalize="none")
    np.testing.assert_array_equal(cellcube.open("ds")["cells"], cellcube.open("raw")["cells"] / np.float32(2))
    assert np.isnan(cellcube.open("ds")["norm_low"]).all()
    function = json.loads(Path("ds/runs/000001.json").read_text())["functions"]["normalize"]
    assert "return pixels / 2" in function["source"]
    assert function["name"].endswith("halve")
    assert function["git"] is None or len(function["git"]["commit"]) == 40
    with pytest.raises(SpecChangedError, match="normalize"):
        cellcube.build(table, "ds", **SMALL, normalize=lambda pixels, cell: pixels, dtype="float32")


def test_a_function_that_fails_for_one_cell_fails_that_cell(table: pd.DataFrame) -> None:
    bad = str(table["cell_id"][3])

    def sometimes(pixels: np.ndarray, cell: dict[str, Any]) -> np.ndarray:
        return np.full(pixels.shape, np.nan) if cell["cell_id"] == bad else pixels / 4096

    report = cellcube.build(table, "ds", **SMALL, normalize=sometimes)
    assert (report.failed, report.kept) == (1, len(table) - 1)
    reason = report.outcomes.set_index("cell_id").loc[bad, "reason"]
    assert reason.startswith("user-function: ")
    assert "not finite" in reason
    with pytest.raises(BuildStoppedError, match=bad):
        cellcube.build(table, "other", **SMALL, normalize=sometimes, on_error="raise")


def test_drop_conditions_use_measures_and_metadata(table: pd.DataFrame) -> None:
    condition = "touches_border or treatment == 'DMSO'"
    report = cellcube.build(table, "ds", **SMALL, drop=condition)
    kept = pd.read_parquet("ds/cells.parquet")
    assert report.dropped
    assert not kept["touches_border"].any()
    assert "DMSO" not in set(kept["treatment"])
    assert f"drop: {condition}" in set(report.outcomes["reason"])
    with pytest.raises(SpecError, match="arae_voxels"):
        cellcube.build(table, "other", **SMALL, drop="arae_voxels > 3")
    assert not Path("other").exists()


def test_masking_sets_everything_else_to_zero(table: pd.DataFrame) -> None:
    cellcube.build(table, "ds", **SMALL, mask="label", normalize="none")
    dataset = cellcube.open("ds").load()
    outside = dataset["mask"].values == 0
    pixels = np.moveaxis(dataset["cells"].values, 1, 0)
    assert outside.any()
    assert (pixels[:, outside] == 0).all()
    assert (pixels[:, ~outside] > 0).mean() > 0.99


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
def test_output_types(table: pd.DataFrame, dtype: str) -> None:
    cellcube.build(
        table.head(4), "ds", **SMALL, dtype=dtype, projections=["max_z", "mean_z", "sum_z", "min_z", "max_y"]
    )
    dataset = cellcube.open("ds").load()
    assert dataset["cells"].dtype == dtype
    highest = np.iinfo(dtype).max if dtype.startswith("u") else 1
    assert dataset["cells"].max() == highest
    np.testing.assert_array_equal(dataset["max_y"], dataset["cells"].max("y"))


@pytest.mark.parametrize("frames", [1, 3], ids=["one label plane", "labels over time"])
def test_a_timepoint_chooses_in_images_and_in_labels(tmp_path: Path, frames: int) -> None:
    images = np.random.default_rng(0).integers(1, 999, (3, 40, 40), dtype=np.uint16)
    labels = np.zeros((3, 40, 40), np.uint8)
    for frame in range(3):
        labels[frame, 5 + 5 * frame : 15 + 5 * frame, 8:20] = 1
    tifffile.imwrite("movie.ome.tif", images, ome=True, metadata={"axes": "TYX"})
    tifffile.imwrite("labels.ome.tif", labels[:frames], ome=True, metadata={"axes": "TYX"})
    table = pd.DataFrame({"fov_path": "movie.ome.tif", "label_path": "labels.ome.tif", "timepoint": [0, 2]})
    report = cellcube.build(table, "ds", **SMALL, normalize="none", channels=["DNA"])
    assert (report.kept, report.failed) == (2, 0)
    cells = pd.read_parquet("ds/cells.parquet")
    assert cells["y0"].tolist() == ([5, 15] if frames == 3 else [5, 5])
    assert cells["timepoint"].tolist() == [0, 2]
    assert cells["fov_id"].tolist() == ["movie-t0", "movie-t2"]
    for number, frame in enumerate((0, 2)):
        top, left = cells.loc[number, ["origin_y", "origin_x"]].astype(int)
        padded = np.pad(images[frame], 32)[top + 32 :, left + 32 :][:32, :32]
        np.testing.assert_array_equal(cellcube.open("ds")["cells"][number, 0, 0], padded)


def test_a_table_of_fovs_means_every_label(plate: DemoPlate) -> None:
    report = cellcube.build(plate.fovs_csv, "ds", **SMALL)
    labels = 0
    for row in pd.read_csv(plate.fovs_csv).itertuples():
        labels += len(np.unique(tifffile.imread(plate.folder / row.label_path))) - 1
    assert report.requested == labels
    assert cellcube.build(plate.fovs_csv, "ds", **SMALL).version == 1


def test_a_broken_label_image_fails_its_fov_only(plate: DemoPlate, table: pd.DataFrame, tmp_path: Path) -> None:
    fovs = table.drop(columns=["cell_id", "label"]).drop_duplicates("fov_id").reset_index(drop=True)
    (tmp_path / "labels.tif").write_bytes(b"II*\0 nothing")
    fovs.loc[0, "label_path"] = str(tmp_path / "labels.tif")
    report = cellcube.build(fovs, "ds", **SMALL)
    assert report.failed == 1
    row = report.outcomes[report.outcomes["status"] == "failed"].iloc[0]
    assert row["cell_id"] == row["fov_id"] == fovs["fov_id"][0]
    assert report.kept


def test_on_error_raise_stops_and_keeps_what_was_committed(plate: DemoPlate, table: pd.DataFrame) -> None:
    cellcube.build(table.head(3), "ds", **SMALL)
    before = tree(Path("ds"))
    with pytest.raises(BuildStoppedError, match="truncated-image"):
        cellcube.build(plate.cells_csv, "ds", **SMALL, on_error="raise")
    after = {path: data for path, data in tree(Path("ds")).items() if not path.startswith(".cellcube")}
    assert after == before


def test_when_nothing_can_be_kept_nothing_is_written(plate: DemoPlate) -> None:
    broken = pd.read_csv(plate.cells_csv)
    broken = broken[broken["fov_id"] == plate.broken_fov]
    for column in ("fov_path", "label_path"):
        broken[column] = [str(plate.folder / path) for path in broken[column]]
    report = cellcube.build(broken, "ds", **SMALL)
    assert (report.failed, report.version, report.kept) == (len(broken), 0, 0)
    assert "no cell could be kept" in str(report)
    assert not Path("ds").exists() or not list(Path("ds").iterdir())
    with pytest.raises(DatasetNotFoundError):
        cellcube.open("ds")


def test_a_changed_spec_is_refused_with_what_differs(table: pd.DataFrame) -> None:
    cellcube.build(table, "ds", **SMALL)
    with pytest.raises(SpecChangedError) as caught:
        cellcube.build(table, "ds", **{**SMALL, "shape": (1, 40, 40)}, edge="drop")
    assert {name for name, _, _ in caught.value.differences} == {"shape", "edge"}
    assert "[1, 32, 32] -> [1, 40, 40]" in str(caught.value)
    # What does not decide pixels may change.
    again = cellcube.build(table, "ds", **SMALL, description="better words")
    assert again.version == 1


def test_dry_run_tells_and_writes_nothing(plate: DemoPlate) -> None:
    report = cellcube.build(plate.cells_csv, "ds", **SMALL, dry_run=True)
    assert not Path("ds").exists()
    assert report.plan is not None
    assert report.plan.cells == len(pd.read_csv(plate.cells_csv))
    assert report.plan.fovs == 4
    assert report.plan.bytes == report.plan.cells * (2 * 5 * 32 * 32 * 2 + 32 * 32)
    assert report.plan.seconds is not None
    assert report.plan.memory > 1e6
    assert "nothing was written" in str(report)


def test_versions_open(table: pd.DataFrame) -> None:
    cellcube.build(table.head(5), "ds", **SMALL)
    cellcube.build(table, "ds", **SMALL)
    assert cellcube.open("ds", version=1).sizes["cell"] == 5
    assert cellcube.open("ds").sizes["cell"] == len(table)
    with pytest.raises(VersionNotFoundError, match="1 to 2"):
        cellcube.open("ds", version=3)


def test_open_reads_one_cell_by_its_name(table: pd.DataFrame) -> None:
    cellcube.build(table, "ds", **SMALL)
    dataset = cellcube.open("ds")
    name = str(table["cell_id"][4])
    cell = dataset.sel(cell_id=name)
    assert cell["cells"].dims == ("c", "z", "y", "x")
    assert cell["well"].item() == table["well"][4]
    assert cell["concentration_um"].item() == table["concentration_um"][4]
    assert dataset["cells"].chunks is not None
    assert dataset["cells"].sel(c="DNA").shape == (len(table), 1, 32, 32)


REFUSALS = [
    ({"shapes": (1, 32, 32)}, SpecError, "Did you mean 'shape'"),
    ({"executor": "many"}, ArgumentError, "executor"),
    ({"rebuild": "some"}, ArgumentError, "rebuild"),
    ({"on_error": "ignore"}, ArgumentError, "on_error"),
    ({"channels": ["DAN"]}, ChannelError, "'DNA'"),
    ({"columns": {"cell_id": "cel_id"}}, TableError, "Did you mean 'cell_id'"),
]


@pytest.mark.parametrize(("fields", "error", "words"), REFUSALS)
def test_refusals_write_nothing(table: pd.DataFrame, fields: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        cellcube.build(table, "ds", **{**SMALL, **fields})
    assert not Path("ds").exists()


def test_a_root_that_holds_something_else_is_refused(table: pd.DataFrame) -> None:
    Path("photos").mkdir()
    Path("photos/holiday.jpg").write_bytes(b"sun")
    with pytest.raises(NotADatasetError, match=r"holiday\.jpg"):
        cellcube.build(table, "photos", **SMALL)
    Path("file").write_bytes(b"")
    with pytest.raises(NotADatasetError):
        cellcube.build(table, "file", **SMALL)
    assert [path.name for path in Path("photos").iterdir()] == ["holiday.jpg"]


def test_a_newer_format_is_refused(table: pd.DataFrame) -> None:
    cellcube.build(table.head(2), "ds", **SMALL)
    path = Path("ds/cube.zarr/zarr.json")
    document = json.loads(path.read_text())
    document["attributes"]["cellcube"]["format"] = 99
    path.write_text(json.dumps(document))
    for call in (lambda: cellcube.open("ds"), lambda: cellcube.build(table, "ds", **SMALL)):
        with pytest.raises(DatasetFormatError, match="newer cellcube"):
            call()


def test_a_root_that_cannot_be_written_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    if os.getuid() == 0:
        # Who may write everywhere cannot make a folder here either.
        locked = Path("/proc/self")
    else:
        locked = tmp_path / "locked"
        locked.mkdir()
        locked.chmod(0o555)
    with pytest.raises(DatasetAccessError, match="cannot be written"):
        cellcube.build(table, locked / "ds", **SMALL)


def test_two_builds_at_once_are_kept_apart(table: pd.DataFrame) -> None:
    cellcube.build(table.head(3), "ds", **SMALL)
    with Claim(Location(str(Path("ds/.cellcube/claim.json").absolute())), "ds"), pytest.raises(DatasetBusyError):
        cellcube.build(table, "ds", **SMALL)
    assert cellcube.build(table, "ds", **SMALL).version == 2


def test_rebuild_all_wants_a_new_root(table: pd.DataFrame) -> None:
    cellcube.build(table.head(3), "ds", **SMALL, rebuild="all")
    with pytest.raises(ArgumentError, match="new root"):
        cellcube.build(table, "ds", **SMALL, rebuild="all")


def test_an_id_given_to_another_cell_is_refused(table: pd.DataFrame) -> None:
    cellcube.build(table.head(3), "ds", **SMALL)
    table.loc[0, "label"] = table["label"][5]
    with pytest.raises(TableError, match="belong to other cells"):
        cellcube.build(table.head(3), "ds", **SMALL)


def test_the_record_ties_cells_to_code_and_images(table: pd.DataFrame) -> None:
    cellcube.build(table, "ds", **SMALL)
    record = json.loads(Path("ds/runs/000001.json").read_text())
    assert record["code"]["file"].endswith("test_build.py")
    assert record["environment"]["cellcube"] == cellcube.__version__
    assert {"numpy", "zarr", "xarray", "tifffile"} <= set(record["environment"]["packages"])
    assert "user" not in record["environment"]
    assert record["spec_digest"] == cellcube.CubeSpec(shape=(1, 32, 32)).digest
    assert set(record["fovs"]) == set(table["fov_id"])
    for files in record["fovs"].values():
        assert len(files) == 2
        for file in files:
            assert not Path(file["path"]).is_absolute() or not Path(file["path"]).is_relative_to(Path.cwd())
            assert file["size"] == Path(file["path"]).stat().st_size
            assert file["mtime"] == pytest.approx(Path(file["path"]).stat().st_mtime)
    assert record["started"] <= record["finished"]
    cellcube.build(table, "named", **SMALL, identify=True)
    assert {"user", "host"} <= set(json.loads(Path("named/runs/000001.json").read_text())["environment"])


def test_paths_are_told_as_the_table_gives_them(plate: DemoPlate) -> None:
    broken = f"images/{plate.broken_fov}.ome.tif"
    relative = cellcube.build(plate.cells_csv, "relative", **SMALL).outcomes
    assert relative.loc[relative["status"] == "failed", "reason"].str.contains(f"(path '{broken}')", regex=False).all()
    table = pd.read_csv(plate.cells_csv)
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    absolute = cellcube.build(table, "absolute", **SMALL)
    reasons = absolute.outcomes.loc[absolute.outcomes["status"] == "failed", "reason"]
    assert reasons.str.contains(f"(path '{plate.folder / broken}')", regex=False).all()
    # From another folder the same build still has nothing to add.
    Path("elsewhere").mkdir()
    root = Path("absolute").absolute()
    os.chdir("elsewhere")
    assert cellcube.build(table, root, **SMALL).version == 1


def test_derived_files_are_made_again(table: pd.DataFrame) -> None:
    cellcube.build(table.head(6), "ds", **SMALL)
    cellcube.build(table, "ds", **SMALL)
    before = tree(Path("ds"))
    for name in ("cells.parquet", "outcomes.parquet", "catalog.yaml", "README.md"):
        (Path("ds") / name).unlink()
    assert cellcube.build(table, "ds", **SMALL).added == 0
    assert tree(Path("ds")) == before


def test_the_card_and_the_catalog_tell_the_truth(table: pd.DataFrame) -> None:
    fields = {**SMALL, "name": "lab/plate-7", "licence": "CC-BY-4.0", "description": "Nuclei under ER stress."}
    report = cellcube.build(table, "ds", **fields)
    card = Path("ds/README.md").read_text()
    for words in (
        "# lab/plate-7",
        "CC-BY-4.0",
        "Nuclei under ER stress.",
        f"| cells | {report.kept:,} (",
        "DNA, ER, RNA",
    ):
        assert words in card
    catalog = yaml.safe_load(Path("ds/catalog.yaml").read_text())
    about = catalog["metadata"]["cellcube"]
    assert (about["cells"], about["licence"], about["version"]) == (report.kept, "CC-BY-4.0", 1)
    paths = [entry["args"].get("urlpath") or entry["args"]["path"] for entry in catalog["sources"].values()]
    assert all(path.startswith("{{ CATALOG_DIR }}/") for path in paths)
    shown = str(cellcube.info("ds"))
    for words in ("lab/plate-7", "CC-BY-4.0", f"{report.kept:,} kept", "y 0.65, x 0.65 µm", "1 x 32 x 32 voxels"):
        assert words in shown


def test_metadata_columns_may_come_and_go(table: pd.DataFrame) -> None:
    cellcube.build(table.head(4).assign(donor=["a", "b", "a", ""]), "ds", **SMALL)
    cellcube.build(table.head(8).assign(batch=1.5), "ds", **SMALL)
    cells = pd.read_parquet("ds/cells.parquet")
    assert cells["donor"].tolist() == ["a", "b", "a", "", "", "", "", ""]
    assert cells["batch"].isna().tolist() == [True] * 4 + [False] * 4
    assert [str(value) for value in cellcube.open("ds")["donor"].values] == ["a", "b", "a", "", "", "", "", ""]


def test_no_secret_is_written(table: pd.DataFrame, s3: dict[str, Any]) -> None:
    options = {**s3, "secret": "s3cr3t-of-mine", "token": "t0ken-of-mine", "key": "k3y-of-mine"}
    cellcube.build(table.head(4), "s3://bucket/secretive", **SMALL, storage_options=options)
    import s3fs

    fs = s3fs.S3FileSystem(**s3)
    found = fs.find("bucket/secretive")
    assert len(found) > 20
    for path in found:
        data = fs.cat_file(path)
        for secret in (b"s3cr3t-of-mine", b"t0ken-of-mine", b"k3y-of-mine"):
            assert secret not in data, path


def test_images_labels_table_and_dataset_on_s3(plate: DemoPlate, s3: dict[str, Any]) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(**s3)
    fs.put(str(plate.folder), "bucket/plate", recursive=True)
    remote = cellcube.build(
        "s3://bucket/plate/cells_2d.csv", "s3://bucket/out/ds", **{**SMALL, "executor": 2}, storage_options=s3
    )
    local = cellcube.build(plate.cells_csv, "ds", **SMALL)
    assert (remote.kept, remote.failed) == (local.kept, local.failed)
    dataset = cellcube.open("s3://bucket/out/ds", storage_options=s3)
    np.testing.assert_array_equal(dataset["cells"], cellcube.open("ds")["cells"])
    for path, data in tree(Path("ds/cube.zarr")).items():
        if "/c/" in path:
            assert fs.cat_file(f"bucket/out/ds/cube.zarr/{path}") == data, path
    again = cellcube.build("s3://bucket/plate/cells_2d.csv", "s3://bucket/out/ds", **SMALL, storage_options=s3)
    assert (again.added, again.version) == (0, 1)
    assert not fs.exists("bucket/out/ds/.cellcube")
    record = json.loads(fs.cat_file("bucket/out/ds/runs/000001.json"))
    assert all("etag" in file for files in record["fovs"].values() for file in files)
