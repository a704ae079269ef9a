from __future__ import annotations

import json
import math
import os
import sys
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cellcube
from cellcube.demo.plates import DemoPlate
from cellcube.errors import (
    ArgumentError,
    DatasetAccessError,
    DatasetBusyError,
    DatasetNotFoundError,
    MissingDependencyError,
)
from cellcube.export import quilt
from cellcube.export.ome_tiff import to_ome_tiff
from cellcube.export.quilt import to_quilt
from cellcube.export.quilt_files import sanitized


@pytest.fixture(scope="session")
def quilt3() -> Any:
    """Quilt, whose settings and caches are in a folder of the tests."""
    import quilt3
    from quilt3.util import BASE_PATH

    assert Path(os.environ["XDG_DATA_HOME"]) in Path(BASE_PATH).parents
    return quilt3


@pytest.fixture(autouse=True)
def _no_metrics(quilt3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quilt has metrics turned on, and they cannot be sent."""
    from quilt3.telemetry import ApiTelemetry
    from requests_futures.sessions import FuturesSession

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"metrics were sent: {args}")

    monkeypatch.setattr(ApiTelemetry, "telemetry_disabled", False)
    monkeypatch.setattr(FuturesSession, "post", refuse)


@pytest.fixture
def quietly(quilt3: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Quilt for the tests' own calls, without metrics."""
    from quilt3.telemetry import ApiTelemetry

    class Quiet:
        def __getattr__(self, name: str) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                with monkeypatch.context() as patch:
                    patch.setattr(ApiTelemetry, "telemetry_disabled", True)
                    return getattr(quilt3.Package, name)(*args, **kwargs)

            return call

    return Quiet()


@pytest.fixture
def bucket(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """URL of a bucket of this test's own, with versions as Quilt wants them, that Quilt finds by the environment."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(s3["endpoint_url"]))
    client = boto3.client("s3")
    name = f"quilt-{zlib.crc32(request.node.nodeid.encode()):08x}"
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return f"s3://{name}"


@pytest.fixture
def table(plate: DemoPlate) -> pd.DataFrame:
    frame = pd.read_csv(plate.cells_csv)
    frame = frame[frame["fov_id"] != plate.broken_fov].reset_index(drop=True)
    for name in ("fov_path", "label_path"):
        frame[name] = [str(plate.folder / path) for path in frame[name]]
    frame["dose"] = [np.nan, *np.linspace(0, 1, len(frame) - 1)]
    return frame


@pytest.fixture
def root(table: pd.DataFrame) -> Path:
    build(table, "ds")
    return Path("ds").absolute()


def build(table: pd.DataFrame, root: str) -> None:
    cellcube.build(
        table, root, name="lab/screen", licence="CC0-1.0", channels=["DNA", "ER"], shape=(1, 32, 32), progress=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys(package: Any) -> set[str]:
    return {key for key, _ in package.walk()}


def test_a_local_package_has_the_whole_dataset(root: Path, quietly: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (root / ".cellcube" / "pending").mkdir(parents=True)
    (root / ".cellcube" / "pending" / "piece").write_bytes(b"unfinished")
    (root / "cube.zarr" / ".zarr.json.abc.partial").write_bytes(b"half")
    report = to_quilt(root, "registry", name="lab/screen")
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    package = quietly.browse("lab/screen", registry=Path("registry").absolute().as_uri())
    left = {name for name in contents(root) if not name.startswith(".cellcube/") and not name.endswith(".partial")}
    assert keys(package) == left
    assert {"catalog.yaml", "README.md", "cells.parquet", "runs/000001.json", "cube.zarr/zarr.json"} <= left
    assert report.files == len(left)
    assert report.bytes == sum(len(contents(root)[name]) for name in left)
    assert report.top_hash == package.top_hash
    assert not report.pushed
    assert report.uri == f"quilt+{Path('registry').absolute().as_uri()}#package=lab/screen@{package.top_hash}"
    assert report.uri in str(report)


def test_the_package_says_what_the_dataset_is(root: Path, table: pd.DataFrame, quietly: Any) -> None:
    record = root / "runs" / "000001.json"
    run = json.loads(record.read_text())
    run["code"] = {
        "file": "run.py",
        "git": {"commit": "c0ffee0123456789", "dirty": True, "remote": None, "branch": "b"},
    }
    record.write_text(json.dumps(run))
    report = to_quilt(root, "registry", name="lab/screen")
    package = quietly.browse("lab/screen", registry=Path("registry").absolute().as_uri())
    assert package.meta == report.metadata
    meta = package.meta
    assert meta["cellcube"] == cellcube.__version__
    assert meta["licence"] == "CC0-1.0"
    assert len(meta["spec_digest"]) == 64
    assert meta["code"]["commit"] == "c0ffee0123456789"
    assert meta["counts"] == {
        "cells": len(table), "requested": len(table), "kept": len(table), "dropped": 0, "failed": 0
    }  # fmt: skip
    assert meta["channels"] == ["DNA", "ER"]
    told = package._meta["message"]
    assert told == f"lab/screen, version 1: {len(table)} cells, code at c0ffee012345 with uncommitted changes"


def test_a_pushed_package_is_installed_and_opened(root: Path, bucket: str, quietly: Any) -> None:
    report = to_quilt(root, bucket, name="lab/screen", push=True, message="first")
    assert report.pushed
    package = quietly.browse("lab/screen", registry=bucket)
    assert package.top_hash == report.top_hash
    assert package._meta["message"] == "first"
    assert all(str(entry.physical_key).startswith(bucket) for _, entry in package.walk())
    quietly.install("lab/screen", registry=bucket, dest="installed", dest_registry=Path("local").absolute().as_uri())
    assert contents(Path("installed")) == contents(root)
    np.testing.assert_array_equal(cellcube.open("installed")["cells"], cellcube.open(root)["cells"])


def test_a_push_follows_the_package_that_is_there(root: Path, table: pd.DataFrame, bucket: str, quietly: Any) -> None:
    first = to_quilt(root, bucket, name="lab/screen", push=True, readme=_write("old.md", "# Old"))
    more = table.head(2).assign(cell_id=["new-1", "new-2"])
    build(pd.concat([table, more]), "ds")
    second = to_quilt(root, bucket, name="lab/screen", push=True)
    package = quietly.browse("lab/screen", registry=bucket)
    assert second.top_hash == package.top_hash != first.top_hash
    assert keys(package) == set(contents(root))
    assert package.meta["version"] == 2
    quietly.install(
        "lab/screen", registry=bucket, dest="before", top_hash=first.top_hash,
        dest_registry=Path("local").absolute().as_uri(),
    )  # fmt: skip
    assert cellcube.open("before").sizes["cell"] == len(table)
    assert Path("before/README.md").read_text() == "# Old"
    assert Path("before/dataset-card.md").read_text().startswith("# lab/screen")
    again = to_quilt(root, bucket, name="lab/screen", push=True)
    assert again.top_hash == second.top_hash


def test_a_third_part_is_a_folder_and_leaves_the_rest_alone(
    root: Path, table: pd.DataFrame, bucket: str, quietly: Any
) -> None:
    build(table.head(3), "small")
    to_quilt(root, bucket, name="lab/screen/normalized-cells", push=True)
    to_quilt("small", bucket, name="lab/screen/small.1", push=True)
    report = to_quilt("small", bucket, name="lab/screen/normalized-cells", push=True)
    package = quietly.browse("lab/screen", registry=bucket)
    small = set(contents(Path("small")))
    assert keys(package) == {f"{folder}/{name}" for folder in ("normalized-cells", "small.1") for name in small}
    assert package.meta["normalized-cells"] == report.metadata
    assert set(package.meta) == {"normalized-cells", "small.1"}
    assert report.folder == "normalized-cells"
    assert report.uri.endswith("&path=normalized-cells")
    quietly.install("lab/screen", registry=bucket, dest="installed", dest_registry=Path("local").absolute().as_uri())
    assert cellcube.open("installed/normalized-cells").sizes["cell"] == 3


def test_somebody_else_pushed_in_the_meantime(root: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to_quilt(root, bucket, name="lab/screen", push=True)
    monkeypatch.setattr(quilt, "_browse", lambda *args: None)
    (root / "README.md").write_text("changed")
    with pytest.raises(DatasetBusyError, match="Call again"):
        to_quilt(root, bucket, name="lab/screen", push=True)


def test_exported_files_have_what_the_manifest_says(root: Path, table: pd.DataFrame, quietly: Any) -> None:
    to_ome_tiff(root, "tiffs", mask=True, progress=False)
    to_quilt(
        root, "registry", name="lab/screen", table="tiffs/cells.parquet",
        filepath_columns=["file", "mask_file"], metadata_columns=["cell_id", "dose", "label", "shifted"],
    )  # fmt: skip
    package = quietly.browse("lab/screen", registry=Path("registry").absolute().as_uri())
    cell = str(table["cell_id"][1])
    meta = package[f"file/{cell}.ome.tif"].meta
    assert meta == {
        "cell_id": cell,
        "dose": 0.0,
        "label": int(table["label"][1]),
        "shifted": False,
        "associates": {"mask_file": f"mask_file/{cell}_mask.ome.tif"},
    }
    assert package[f"mask_file/{cell}_mask.ome.tif"].meta["associates"] == {"file": f"file/{cell}.ome.tif"}
    assert package[f"file/{table['cell_id'][0]}.ome.tif"].meta["dose"] is None
    assert package[f"file/{cell}.ome.tif"].get_bytes() == Path(f"tiffs/{cell}.ome.tif").read_bytes()
    manifest = package["manifest.parquet"].deserialize()
    assert manifest["cell_id"].tolist() == table["cell_id"].tolist()
    assert set(manifest["file"]) | set(manifest["mask_file"]) <= keys(package)
    assert "NaN" not in (Path("registry") / ".quilt" / "packages" / package.top_hash).read_text()


def test_a_file_of_several_rows_has_all_their_values(
    root: Path, table: pd.DataFrame, bucket: str, quietly: Any
) -> None:
    to_quilt(
        root, bucket, name="lab/screen", push=True, filepath_columns=["fov_path", "label_path"],
        metadata_columns=["fov_id", "cell_id", "well"],
    )  # fmt: skip
    package = quietly.browse("lab/screen", registry=bucket)
    for fov, rows in table.groupby("fov_id"):
        name = Path(rows["fov_path"].iloc[0]).name
        meta = package[f"fov_path/{name}"].meta
        assert meta["cell_id"] == rows["cell_id"].tolist()
        assert meta["fov_id"] == fov
        assert meta["well"] == rows["well"].iloc[0]
        assert meta["associates"] == {"label_path": f"label_path/{Path(rows['label_path'].iloc[0]).name}"}
        assert package[f"fov_path/{name}"].get_bytes() == Path(rows["fov_path"].iloc[0]).read_bytes()
    assert len(list(package["fov_path"])) == table["fov_id"].nunique()


def test_files_of_one_name_do_not_hide_each_other(root: Path, table: pd.DataFrame, quietly: Any) -> None:
    paths = [
        _write(f"out/{'a' if number % 2 else 'b/c'}/{number // 2}.txt", str(number)) for number in range(len(table))
    ]
    paths[3] = ""
    more = table[["cell_id"]].assign(text=[path.removeprefix(f"{Path.cwd()}/") for path in paths])
    to_quilt(root, "registry", name="lab/screen", table=more, filepath_columns=["text"], metadata_columns=["label"])
    package = quietly.browse("lab/screen", registry=Path("registry").absolute().as_uri())
    assert package["text/a/0.txt"].get_as_string() == "1"
    assert package["text/b/c/0.txt"].get_as_string() == "0"
    assert len([key for key in keys(package) if key.startswith("text/")]) == len(table) - 1
    assert package["manifest.parquet"].deserialize()["text"][3] == ""


def test_folders_and_files_inside_of_the_dataset(root: Path, table: pd.DataFrame, quietly: Any) -> None:
    _write("image.zarr/zarr.json", "{}")
    _write("image.zarr/c/0", "x")
    more = table[["cell_id"]].assign(image="image.zarr", run_file=str(root / "runs" / "000001.json"))
    to_quilt(
        root, "registry", name="lab/screen", table=more, filepath_columns=["image", "run_file"],
        metadata_columns=["plate"],
    )  # fmt: skip
    package = quietly.browse("lab/screen", registry=Path("registry").absolute().as_uri())
    assert {"image/image.zarr/zarr.json", "image/image.zarr/c/0"} <= keys(package)
    assert package["image/image.zarr/zarr.json"].meta["plate"] == table["plate"][0]
    assert package["runs/000001.json"].meta["plate"] == table["plate"][0]
    assert not [key for key in keys(package) if key.startswith("run_file")]


def test_a_dataset_in_the_bucket_is_packed_where_it_is(
    root: Path, bucket: str, s3: dict[str, Any], quietly: Any
) -> None:
    import fsspec

    fs = fsspec.filesystem("s3", **s3, use_listings_cache=False)
    fs.put(str(root), f"{bucket}/data/ds", recursive=True)
    report = to_quilt(f"{bucket}/data/ds", bucket, name="lab/screen", push=True, storage_options=s3)
    package = quietly.browse("lab/screen", registry=bucket)
    assert keys(package) == set(contents(root))
    assert all(f"{bucket}/data/ds/" in str(entry.physical_key) for _, entry in package.walk())
    assert package.top_hash == report.top_hash == to_quilt(root, "registry", name="lab/screen").top_hash


def test_storage_options_reach_the_server_without_the_environment(
    root: Path, bucket: str, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    report = to_quilt(root, bucket, name="lab/screen", push=True, storage_options={"s3": s3})
    assert to_quilt(root, bucket, name="lab/screen", push=True, storage_options=s3).top_hash == report.top_hash
    from quilt3.hooks import get_build_s3_client_hook

    assert get_build_s3_client_hook() is None
    assert not any("testing" in file.read_text() for file in Path.cwd().glob("registry/**/*") if file.is_file())


def test_a_bucket_that_is_not_there(root: Path, bucket: str) -> None:
    with pytest.raises(DatasetAccessError, match="no such bucket"):
        to_quilt(root, "s3://nobody-has-this-bucket", name="lab/screen", push=True)


def test_quilt_is_left_as_it_was(root: Path, quilt3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from quilt3.telemetry import ApiTelemetry

    monkeypatch.delenv("QUILT_DISABLE_USAGE_METRICS", raising=False)
    to_quilt(root, "registry", name="lab/screen")
    assert ApiTelemetry.telemetry_disabled is False
    assert "QUILT_DISABLE_USAGE_METRICS" not in os.environ


def test_without_quilt_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "quilt3", None)
    with pytest.raises(MissingDependencyError, match=r"cellcube\[quilt\]"):
        to_quilt(root, "registry", name="lab/screen")
    assert not Path("registry").exists()


@pytest.mark.parametrize(
    "name", ["screen", "a/b/c/d", "a//b", "a b/c", "lab/screen/..", "lab/", "/lab/screen", "lab/scr.een"]
)
def test_names_have_two_or_three_parts(name: str, root: Path) -> None:
    with pytest.raises(ArgumentError, match="owner/project"):
        to_quilt(root, "registry", name=name)


@pytest.mark.parametrize(
    ("registry", "push", "told"),
    [
        (None, True, "s3://bucket"),
        ("registry", True, "s3://bucket"),
        ("s3://bucket/prefix", True, "s3://bucket"),
        ("https://example.org/x", True, "s3://bucket"),
        ("s3://bucket", False, "push=True"),
    ],
)
def test_packages_are_built_here_and_pushed_to_buckets(registry: str | None, push: bool, told: str, root: Path) -> None:
    with pytest.raises(ArgumentError, match=told):
        to_quilt(root, registry, name="lab/screen", push=push)


def test_arguments_that_do_not_fit_the_dataset(root: Path, table: pd.DataFrame) -> None:
    def refused(told: str, **arguments: Any) -> None:
        with pytest.raises(ArgumentError, match=told):
            to_quilt(root, "registry", name="lab/screen", **arguments)
        assert not Path("registry").exists()

    refused("Did you mean 'fov_path'", filepath_columns=["fov_pth"])
    refused("Did you mean 'well'", filepath_columns=["fov_path"], metadata_columns=["wel"])
    refused("give filepath_columns", metadata_columns=["well"])
    refused("there is no file", filepath_columns=["well"])
    refused("this machine and of S3", filepath_columns=["x"], table=table[["cell_id"]].assign(x="https://a.org/x.tif"))
    with pytest.raises(DatasetNotFoundError):
        to_quilt("nothing", "registry", name="lab/screen")
    with pytest.raises(ArgumentError, match="readme"):
        to_quilt(root, "registry", name="lab/screen", readme="nothing.md")
    build(pd.concat([table, table.head(1).assign(cell_id="new")]), "ds")
    with pytest.raises(ArgumentError, match="version 2"):
        to_quilt(root, "registry", name="lab/screen", version=1)
    assert to_quilt(root, "registry", name="lab/screen", version=2).metadata["version"] == 2


_LEAVES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.datetimes() | st.binary()
    | st.floats(width=32).map(np.float32) | st.integers(-128, 127).map(np.int8) | st.booleans().map(np.bool_)
    | st.sampled_from([pd.NA, pd.NaT, np.datetime64("NaT"), np.datetime64("2024-01-02"), Path("a"), np.arange(3)])
)  # fmt: skip
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
)


@given(_VALUES)
def test_any_value_becomes_json(value: Any) -> None:
    clean = sanitized(value)
    assert json.loads(json.dumps(clean, allow_nan=False)) == clean
    assert sanitized(clean) == clean


def test_values_keep_what_they_say() -> None:
    assert sanitized([np.float64("nan"), math.inf, np.int64(3), date(2024, 1, 2), pd.Timestamp("2024-01-02")]) == [
        None, "inf", 3, "2024-01-02", "2024-01-02T00:00:00"
    ]  # fmt: skip


def _write(path: str, text: str) -> str:
    file = Path(path).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)
