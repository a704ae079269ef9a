"""Copying a dataset, and publishing one: what is written, in which order, and what is refused."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from published import COMMON, FIRST

import cellcube
from cellcube.cube import read_state
from cellcube.demo.plates import DemoPlate
from cellcube.errors import (
    ArgumentError,
    DatasetAccessError,
    DatasetBusyError,
    DatasetDamagedError,
    DatasetDivergedError,
    DatasetNotFoundError,
    NotADatasetError,
    PublishError,
)
from cellcube.ledger import Claim
from cellcube.location import Location
from cellcube.manifest import read_objects
from cellcube.publishing.about import read_published
from cellcube.publishing.describe import describe
from cellcube.publishing.fitness import unclean
from cellcube.publishing.publish import publish
from cellcube.publishing.sync import MARK, copy_dataset
from cellcube.publishing.verify import verify

Files = Callable[[Path], dict[str, bytes]]


def copy(source: Path | str, target: Path | str, **options: Any) -> Any:
    return copy_dataset(Location.of(source), Location.of(target), **options)


def is_whole(root: Path) -> bool:
    return verify(root, "full", progress=False).ok


# --- copying ------------------------------------------------------------------------------------------------


def test_a_copy_is_the_same_to_the_byte_and_the_second_time_nothing_is_copied(
    dataset: Path, tmp_path: Path, files: Files
) -> None:
    report = copy(dataset, tmp_path / "copy", verify="full")
    assert files(tmp_path / "copy") == files(dataset)
    assert report.copied == report.objects == len(files(dataset))
    assert report.version == 2
    assert not (tmp_path / "copy" / ".cellcube").exists()
    assert copy(dataset, tmp_path / "copy").copied == 0


def test_only_what_is_new_is_copied(
    one_version: Path, table: pd.DataFrame, tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(one_version, tmp_path / "source")
    copy(tmp_path / "source", tmp_path / "copy")
    before = files(tmp_path / "copy")
    cellcube.build(table, tmp_path / "source", **COMMON)
    after = files(tmp_path / "source")
    report = copy(tmp_path / "source", tmp_path / "copy")
    assert files(tmp_path / "copy") == after
    changed = {path for path, data in after.items() if before.get(path) != data}
    assert report.copied == len(changed) < len(after)
    # The first shard is full, and stays.
    assert "cube.zarr/cells/c/0/0/0/0/0" not in changed


def test_a_reader_of_the_target_sees_the_old_version_or_the_new_one(
    one_version: Path, dataset: Path, tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch, table: pd.DataFrame
) -> None:
    copy(one_version, tmp_path / "source")
    cellcube.build(table, tmp_path / "source", **COMMON)
    before = cellcube.open(one_version)["cells"].values
    after = cellcube.open(tmp_path / "source")["cells"].values
    write = Location.write
    seen = set()
    for stop in (0, 1, 5, 12, 20, 30, 45, 60, 80):
        target = tmp_path / f"copy-{stop}"
        copy(one_version, target)
        count = 0

        def dies(self: Location, data: bytes, stop: int = stop, target: Path = target) -> None:
            nonlocal count
            if self.url.startswith(str(target)) and ".cellcube" not in self.url:
                if count == stop:
                    raise OSError("the machine is gone")
                count += 1
            write(self, data)

        with monkeypatch.context() as patch:
            patch.setattr(Location, "write", dies)
            with contextlib.suppress(DatasetAccessError):
                copy(tmp_path / "source", target, workers=1)
        opened = cellcube.open(target)
        pixels = opened["cells"].values
        assert opened["cell_id"].size == len(pixels)
        expected = before if len(pixels) == FIRST else after
        np.testing.assert_array_equal(pixels, expected)
        seen.add(len(pixels))
        # The same call goes on, and the rest is as it must be.
        copy(tmp_path / "source", target)
        assert files(target) == files(tmp_path / "source")
        assert not (target / MARK).exists()
    assert seen == {len(before), len(after)}


def test_a_copy_that_was_killed_does_not_copy_its_shards_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Location.write
    written: list[str] = []

    def noted(self: Location, data: bytes) -> None:
        if "copy" in self.url and ".cellcube" not in self.url:
            written.append(self.url)
            if self.url.endswith("max_z/c/2/0/0/0"):
                raise OSError("the machine is gone")
        write(self, data)

    monkeypatch.setattr(Location, "write", noted)
    with pytest.raises(DatasetAccessError):
        copy(dataset, tmp_path / "copy", workers=1)
    with pytest.raises(DatasetNotFoundError, match="copy that was stopped"):
        publish(tmp_path / "copy")
    first = {url for url in written if url.endswith("/0/0/0") and not url.endswith("max_z/c/2/0/0/0")}
    assert any("/cells/c/" in url for url in first)
    written.clear()
    monkeypatch.setattr(Location, "write", write)
    report = copy(dataset, tmp_path / "copy", workers=1)
    assert report.copied == report.objects - len(first)
    assert is_whole(tmp_path / "copy")


def test_shards_that_are_there_by_chance_are_not_trusted(dataset: Path, tmp_path: Path, files: Files) -> None:
    shard = "cube.zarr/cells/c/0/0/0/0/0"
    there = tmp_path / "copy" / shard
    there.parent.mkdir(parents=True)
    there.write_bytes(bytes((dataset / shard).stat().st_size))
    copy(dataset, tmp_path / "copy")
    assert files(tmp_path / "copy") == files(dataset)


def test_nothing_foreign_is_deleted(dataset: Path, tmp_path: Path) -> None:
    copy(dataset, tmp_path / "copy")
    (tmp_path / "copy" / "notes.txt").write_text("mine")
    describe(dataset, keywords=["nuclei"])
    copy(dataset, tmp_path / "copy")
    assert (tmp_path / "copy" / "notes.txt").read_text() == "mine"


def test_another_dataset_is_refused(
    dataset: Path, one_version: Path, table: pd.DataFrame, tmp_path: Path, files: Files
) -> None:
    cellcube.build(table.iloc[:3], tmp_path / "other", **{**COMMON, "shape": (1, 16, 16)})
    for target in (tmp_path / "other", one_version):
        before = files(target)
        with pytest.raises(DatasetDivergedError):
            copy(dataset, target)
        assert files(target) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").write_bytes(b"")
    with pytest.raises(NotADatasetError, match=r"thesis\.docx"):
        copy(dataset, tmp_path / "mine")


def test_a_newer_target_is_refused(dataset: Path, tmp_path: Path) -> None:
    copy(dataset, tmp_path / "copy")
    describe(tmp_path / "copy", keywords=["newer"])
    with pytest.raises(DatasetDivergedError, match="version 3, the source only 2"):
        copy(dataset, tmp_path / "copy")


def test_a_damaged_source_is_found_before_the_commit(dataset: Path, tmp_path: Path) -> None:
    shard = dataset / "cube.zarr" / "cells" / "c" / "1" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetDamagedError, match="cells/c/1/0/0/0/0"):
        copy(dataset, tmp_path / "copy")
    assert read_state(Location(str(tmp_path / "copy" / "cube.zarr"))) is None
    shard.unlink()
    with pytest.raises(DatasetDamagedError, match="missing"):
        copy(dataset, tmp_path / "copy")


def test_what_cannot_be_copied_is_told(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        copy(dataset, dataset)
    with pytest.raises(DatasetNotFoundError):
        copy(tmp_path / "nowhere", tmp_path / "copy")
    (dataset / "catalog.yaml").unlink()
    with pytest.raises(DatasetDamagedError, match="a build or a copy was stopped"):
        copy(dataset, tmp_path / "copy")


def test_two_copies_to_one_place_are_kept_apart(dataset: Path, tmp_path: Path) -> None:
    with (
        Claim(Location(str(tmp_path / "copy" / ".cellcube" / "claim.json")), "copy"),
        pytest.raises(DatasetBusyError),
    ):
        copy(dataset, tmp_path / "copy")


def test_to_s3_and_back(dataset: Path, tmp_path: Path, s3: dict[str, Any], files: Files) -> None:
    there = Location.of("s3://bucket/copied/nuclei", s3)
    report = copy_dataset(Location.of(dataset), there, verify="full")
    assert report.copied == report.objects
    assert copy_dataset(Location.of(dataset), there).copied == 0
    copy_dataset(there, Location.of(tmp_path / "back"))
    assert files(tmp_path / "back") == files(dataset)


# --- publishing ---------------------------------------------------------------------------------------------


def test_metadata_is_written_listed_and_copied(dataset: Path, tmp_path: Path, files: Files) -> None:
    report = publish(dataset, tmp_path / "out", catalog=tmp_path / "catalog.yaml", progress=False)
    assert (report.version, report.cells, report.name) == (2, 15, "lab/nuclei")
    assert report.advice == ()
    assert files(dataset) == files(tmp_path / "out")
    assert is_whole(tmp_path / "out")
    crate = json.loads((dataset / "ro-crate-metadata.json").read_text())
    croissant = json.loads((dataset / "croissant.json").read_text())
    assert {"@id": "croissant.json"} in _root(crate)["hasPart"]
    assert croissant["name"] == "lab/nuclei"
    listed = read_objects(Location(str(dataset)), 2)["path"].tolist()
    assert {"ro-crate-metadata.json", "croissant.json", "versions.yaml"} <= set(listed)
    # Once more: nothing changes.
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    again = publish(dataset, tmp_path / "out", catalog=tmp_path / "catalog.yaml", progress=False)
    assert again.copy is not None
    assert again.copy.copied == 0
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()} == {
        path: mtime for path, mtime in before.items() if path.is_file()
    }


def test_a_publication_that_was_killed_goes_on(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(dataset, progress=False)
    describe(dataset, keywords=["new"])
    write = Location.write

    def dies(self: Location, data: bytes) -> None:
        if self.url.endswith("ro-crate-metadata.json"):
            raise OSError("the machine is gone")
        write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write", dies)
        with pytest.raises(DatasetAccessError):
            publish(dataset, progress=False)
    assert not verify(dataset, progress=False).ok
    publish(dataset, progress=False)
    assert is_whole(dataset)


def _root(crate: dict[str, Any]) -> dict[str, Any]:
    [found] = [each for each in crate["@graph"] if each["@id"] == "./"]
    return dict(found)


def test_a_retraction_and_new_words_are_published(dataset: Path, tmp_path: Path) -> None:
    publish(dataset, tmp_path / "out", progress=False)
    first = str(cellcube.open(dataset)["cell_id"].values[0])
    cellcube.retract(dataset, [first], "out of focus")
    assert describe(dataset, description="Better words.", citation="Lovelace 1843") == 4
    assert describe(dataset, description="Better words.") == 4
    report = publish(dataset, tmp_path / "out", progress=False)
    assert (report.version, report.cells) == (4, 14)
    opened = cellcube.open(tmp_path / "out")
    assert first not in opened["cell_id"].values
    assert opened.attrs["cellcube"]["description"] == "Better words."
    assert is_whole(tmp_path / "out")
    actions = [
        each["name"]
        for each in json.loads((tmp_path / "out" / "ro-crate-metadata.json").read_text())["@graph"]
        if each["@type"] == "CreateAction"
    ]
    assert actions == ["Build 1", "Build 2", "Retract 3", "Describe 4"]


def test_everything_that_is_missing_is_told_at_once(
    plate: DemoPlate, table: pd.DataFrame, tmp_path: Path, files: Files
) -> None:
    bare = tmp_path / "bare"
    fields = {"channels": {"channel_0": 0, "Ch2": 1}, "shape": (1, 32, 32), "progress": False}
    cellcube.build(table.iloc[:3].assign(voxel_size_y=np.nan), bare, fov_voxel_size=None, licence="free", **fields)
    before = files(bare)
    with pytest.raises(PublishError) as caught:
        publish(bare, tmp_path / "out", catalog=tmp_path / "catalog.yaml")
    problems = "\n".join(caught.value.problems)
    assert "'free' is not an SPDX licence identifier" in problems
    assert "no description" in problems
    assert "'channel_0', 'Ch2'" in problems
    assert files(bare) == before
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "catalog.yaml").exists()
    describe(bare, licence="cc-by-4.0", description="Three nuclei.")
    with pytest.raises(PublishError, match="channels named"):
        publish(bare)
    assert publish(bare, allow=["channels", "voxel_size"]).cells == 3
    with pytest.raises(ArgumentError, match="counts"):
        publish(bare, allow=["counts"])


def test_an_unknown_voxel_size_is_refused_unless_it_is_allowed(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellcube.publishing import fitness

    location = Location(str(dataset))
    state = read_state(location / "cube.zarr")
    assert state is not None
    unknown = type(state)({**state.attributes, "voxel_size": [1.0, None, 0.65]})
    [problem] = fitness.problems_of(location, unknown)
    assert "voxel size along y is not known" in problem
    assert fitness.problems_of(location, unknown, ["voxel_size"]) == []
    # In 2D nobody knows z.
    assert fitness.problems_of(location, state) == []


def test_a_damaged_dataset_is_not_published(dataset: Path, tmp_path: Path) -> None:
    (dataset / "cube.zarr" / "cells" / "c" / "2" / "0" / "0" / "0" / "0").unlink()
    (dataset / "README.md").unlink()
    with pytest.raises(PublishError) as caught:
        publish(dataset, tmp_path / "out")
    told = "\n".join(caught.value.problems)
    assert "cube.zarr/cells/c/2/0/0/0/0 is missing" in told
    assert "README.md is missing" in told


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A repository with a remote, in which builds are run."""
    remote, folder = tmp_path / "remote.git", tmp_path / "code"
    for command in (
        ["git", "init", "-q", "--bare", str(remote)],
        ["git", "init", "-q", "-b", "main", str(folder)],
        ["git", "-C", str(folder), "config", "user.email", "a@example.org"],
        ["git", "-C", str(folder), "config", "user.name", "A"],
        ["git", "-C", str(folder), "config", "commit.gpgsign", "false"],
        ["git", "-C", str(folder), "remote", "add", "origin", str(remote)],
    ):
        subprocess.run(command, check=True)
    (folder / "make.py").write_text("pass\n")
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)
    subprocess.run(["git", "-C", str(folder), "commit", "-q", "-m", "First"], check=True)
    return folder


def test_code_must_be_in_a_commit_that_was_pushed(
    dataset: Path, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellcube.ledger import code_of

    location = Location(str(dataset))
    state = read_state(location / "cube.zarr")
    assert state is not None

    def told(record: dict[str, Any]) -> str:
        for number in (1, 2):
            path = dataset / "runs" / f"00000{number}.json"
            run = json.loads(path.read_text())
            path.write_text(json.dumps({**run, "code": record, "functions": {}}))
        return "\n".join(unclean(location, state, code))

    clean = code_of(code / "make.py")
    assert "make.py was not pushed" in told(clean)
    subprocess.run(["git", "-C", str(code), "push", "-q", "origin", "main"], check=True)
    assert told(clean) == ""
    (code / "make.py").write_text("pass  # changed\n")
    assert "changes that are not in commit" in told(code_of(code / "make.py"))
    assert "in no git repository" in told({"file": "make.py", "git": None})
    assert "without a remote" in told({"file": "make.py", "git": {**clean["git"], "remote": None}})
    elsewhere = {**clean["git"], "remote": "https://example.org/other.git"}
    assert "a working copy of it" in told({"file": "make.py", "git": elsewhere})


def test_a_folder_that_may_not_be_written_can_be_copied_first(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: Location, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Location, "write", refuses)
    with pytest.raises(DatasetAccessError, match="metadata cannot be written"):
        publish(dataset, tmp_path / "out")


def test_what_describes_a_dataset_is_checked(dataset: Path) -> None:
    for wrong in ({"shape": (1, 2, 3)}, {}, {"doi": "not a doi"}):
        with pytest.raises(ArgumentError):
            describe(dataset, **wrong)
    assert read_published(Location(str(dataset))).doi == "https://doi.org/10.1234/nuclei"


# --- stores that do not answer ------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield int(server.getsockname()[1])


def test_a_store_that_answers_nothing_is_given_up(silent: int, monkeypatch: pytest.MonkeyPatch, s3: Any) -> None:
    monkeypatch.setattr("cellcube.cube.store.PATIENCE", 2.0)
    options = {"key": "a", "secret": "b", "endpoint_url": f"http://127.0.0.1:{silent}"}
    started = time.monotonic()
    with pytest.raises(DatasetAccessError, match="cannot be reached"):
        publish("s3://bucket/nuclei", storage_options=options)
    assert time.monotonic() - started < 20


def test_addresses_that_lead_nowhere_are_told(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellcube.cube.store.PATIENCE", 3.0)
    with pytest.raises(DatasetNotFoundError):
        publish("s3://bucket/nowhere", storage_options=s3)
    with pytest.raises((DatasetAccessError, DatasetNotFoundError)):
        publish("s3://no-such-bucket-here/nuclei", storage_options=s3)
    anonymous = {"anon": True, "endpoint_url": s3["endpoint_url"]}
    with pytest.raises((DatasetAccessError, DatasetNotFoundError)):
        publish("s3://bucket/nuclei", storage_options=anonymous)
    refused = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:9"}
    started = time.monotonic()
    with pytest.raises(DatasetAccessError, match="Check the address"):
        publish("s3://bucket/nuclei", storage_options=refused)
    assert time.monotonic() - started < 30
