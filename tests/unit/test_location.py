"""Files and objects: atomic writes, joins, and what may be written down of a URL."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube.errors import ArgumentError, MissingDependencyError
from cellcube.location import Location
from cellcube.urls import join, options_for, protocol_of, public_options, public_url

NAMES = ["a.bin", "with space.bin", "ünï-µ 細胞.bin", "50%.bin", "hash#1.bin", "plus+&=.bin"]


@pytest.fixture(params=["local", "s3", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty folder on each kind of file system."""
    if request.param == "local":
        return Location.of(tmp_path / "folder")
    if request.param == "memory":
        return Location.of(f"memory://{tmp_path.name}")
    return Location.of(f"s3://bucket/{tmp_path.name}", request.getfixturevalue("s3"))


@pytest.mark.parametrize("name", NAMES)
def test_write_and_read(folder: Location, name: str) -> None:
    place = folder / "sub" / name
    assert not place.exists()
    assert place.size() is None
    place.write(b"first")
    place.write(bytearray(b"0123456789"))
    assert place.read() == b"0123456789"
    assert place.read(2, 5) == b"234"
    assert place.read(-3) == b"789"
    assert place.size() == 10
    assert place.name == name
    assert (folder / "sub").names() == [name]
    assert folder.sizes() == {f"sub/{name}": 10}
    assert place.parent.url == (folder / "sub").url
    place.remove()
    assert not place.exists()
    assert folder.sizes() == {}


def test_missing_is_file_not_found(folder: Location) -> None:
    with pytest.raises(FileNotFoundError):
        (folder / "none").read()
    assert (folder / "none").names() == []
    assert (folder / "none").state() == {}
    (folder / "none").remove()


# fsspec's memory file system has neither exclusive creation nor modification times.
@pytest.mark.parametrize("folder", ["local", "s3"], indirect=True)
def test_create_only_once(folder: Location) -> None:
    place = folder / "claim"
    assert place.create(b"one")
    assert not place.create(b"two")
    assert place.read() == b"one"
    assert folder.names() == ["claim"]


def test_one_of_many_threads_creates(tmp_path: Path) -> None:
    place = Location.of(tmp_path / "claim")
    start = threading.Barrier(8)
    taken: list[int] = []

    def take(number: int) -> None:
        start.wait()
        if place.create(str(number).encode()):
            taken.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert place.read() == str(taken[0]).encode()


def test_create_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    place = Location.of(tmp_path / "claim")
    assert place.create(b"one")
    assert not place.create(b"two")
    assert place.read() == b"one"
    source = Location.of(tmp_path / "source")
    source.write(b"copied")
    source.copy_to(Location.of(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == b"copied"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claim", "source", "target"]


@pytest.mark.parametrize("method", ["write", "create"])
def test_files_can_be_read_by_others(tmp_path: Path, method: str) -> None:
    before = os.umask(0o022)
    try:
        getattr(Location.of(tmp_path / "file"), method)(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("broken", ["fdopen", "replace", "chmod"])
def test_failed_write_leaves_nothing_but_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    place = Location.of(tmp_path / "file")
    place.write(b"before")

    def full(handle: Any, *_: object, **__: object) -> None:
        if isinstance(handle, int):
            os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if broken == "fdopen" else Path, broken, full)
    with pytest.raises(OSError, match="No space"):
        place.write(b"after")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert place.read() == b"before"


def test_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "there" / "target"
    with pytest.raises(FileNotFoundError):
        Location.of(tmp_path / "missing").copy_to(Location.of(target))
    assert list(target.parent.iterdir()) == []


def test_longest_file_name(tmp_path: Path) -> None:
    place = Location.of(tmp_path / ("n" * 255))
    place.write(b"x")
    assert place.read() == b"x"


def test_copy(folder: Location, tmp_path: Path) -> None:
    source = folder / "source.bin"
    source.write(b"pixels")
    source.copy_to(folder / "new" / "copy.bin")
    source.copy_to(source)
    source.copy_to(Location.of(tmp_path / "down.bin"))
    Location.of(tmp_path / "down.bin").copy_to(folder / "up.bin")
    source.write(b"changed")
    assert (folder / "new" / "copy.bin").read() == b"pixels"
    assert (folder / "up.bin").read() == b"pixels"
    assert sorted(folder.sizes()) == ["new/copy.bin", "source.bin", "up.bin"]


def test_remove_partial_takes_only_what_killed_writes_left(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("sub/.shard.x1.partial", "sub/shard", "notes.partial"):
        (tmp_path / name).write_bytes(b"x")
    Location.of(tmp_path).remove_partial()
    assert Location.of(tmp_path).sizes() == {"notes.partial": 1, "sub/shard": 1}


@pytest.mark.parametrize("folder", ["local", "s3"], indirect=True)
def test_state_changes_with_the_file(folder: Location) -> None:
    (folder / "a").write(b"12345")
    before = (folder / "a").state()
    assert before["size"] == 5
    (folder / "a").write(b"123456")
    assert (folder / "a").state() != before
    (folder / "image.zarr" / "zarr.json").write(b"{}")
    assert (folder / "image.zarr").state() == (folder / "image.zarr" / "zarr.json").state() != {}


@pytest.mark.parametrize("path", ["", "   "])
def test_empty_path(path: str) -> None:
    with pytest.raises(ArgumentError, match="empty"):
        Location.of(path)


def test_unknown_protocol_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=r"no protocol 's33'.*Did you mean 's3'\?"):
        Location.of("s33://bucket/a")

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingDependencyError, match=r"Install s3fs.*cellcube\[s3\]"):
        Location.of("s3://bucket/a").read()


def test_local_paths_become_absolute(tmp_path: Path) -> None:
    assert Location.of("x/y").url == str(Path.cwd() / "x/y")
    assert Location.of(f"file://{tmp_path}/x").url == f"{tmp_path}/x"
    assert Location.of("~/x").url == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("base", "path", "joined"),
    [
        ("/data/t", "a b/ü.tif", "/data/t/a b/ü.tif"),
        ("/data/t", "../raw/a.tif", "/data/raw/a.tif"),
        ("/data/t", "/abs/a.tif", "/abs/a.tif"),
        ("/data/t", "s3://bucket/a.tif", "s3://bucket/a.tif"),
        ("/data/t", "file:///abs/a.tif", "file:///abs/a.tif"),
        ("file:///data/t", "a.tif", "/data/t/a.tif"),
        ("s3://bucket/t", "a b/ü#1.tif", "s3://bucket/t/a b/ü#1.tif"),
        ("s3://bucket/t", "../raw/a.tif", "s3://bucket/raw/a.tif"),
        ("s3://bucket/t", "./a.tif", "s3://bucket/t/a.tif"),
        ("s3://bucket", "a.tif", "s3://bucket/a.tif"),
        ("s3://bucket/t", "../../../a.tif", "s3://bucket/a.tif"),
        ("s3://bucket/t", "/abs/a.tif", "/abs/a.tif"),
        ("https://host/t/", "a.tif", "https://host/t/a.tif"),
        ("https://host:8080/t", "../a.tif", "https://host:8080/a.tif"),
        ("simplecache::s3://bucket/t", "a.tif", "simplecache::s3://bucket/t/a.tif"),
        ("/data", "~/a.tif", str(Path("~/a.tif").expanduser())),
    ],
)
def test_join(base: str, path: str, joined: str) -> None:
    assert join(base, path) == joined


def test_signed_url_of_a_table() -> None:
    table = Location.of("https://host/plates/cells.csv?sig=a/b%2Fc&x=1")
    assert (table.name, table.parent.url) == ("cells.csv", "https://host/plates")
    assert Location.of("s3://bucket/what?/a.csv").parent.url == "s3://bucket/what?"


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("a.tif", "file"),
        ("C:/a.tif", "file"),
        ("C://a.tif", "file"),
        ("local:///a", "file"),
        ("S3://b/a", "s3"),
        ("simplecache::s3://b/a", "simplecache"),
        ("https://h/a", "https"),
    ],
)
def test_protocol(path: str, protocol: str) -> None:
    assert protocol_of(path) == protocol


def test_options_by_protocol() -> None:
    options = {"s3": {"anon": True}, "https": {"timeout": 3}}
    assert options_for("s3://b/a", options) == {"anon": True}
    assert options_for("https://h/a", options) == {"timeout": 3}
    assert options_for("gs://b/a", options) == {}
    assert options_for("/data/a", {"anon": True}) == {}
    assert options_for("gs://b/a", {"anon": True}) == {"anon": True}


SECRET = "s3cr3t-0f-mine"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        (f"https://me:{SECRET}@host/a.tif", "https://host/a.tif"),
        (f"https://{SECRET}@host:8080/a.tif", "https://host:8080/a.tif"),
        (f"https://host/a.tif?X-Amz-Signature={SECRET}", "https://host/a.tif"),
        (f"https://host/a.tif?sv=1&sig={SECRET}", "https://host/a.tif"),
        (f"https://host/a.tif?part=1&Token={SECRET}", "https://host/a.tif"),
        (f"https://host/a.tif#access_token={SECRET}", "https://host/a.tif"),
        (f"https://me:p/{SECRET}@host/a.tif", "https://host/a.tif"),
        (f"https://me:p#{SECRET}@host/a.tif", "https://host/a.tif"),
        (f"simplecache::s3://key:{SECRET}@bucket/a.tif", "simplecache::s3://bucket/a.tif"),
        (f"zip://a.tif::https://me:{SECRET}@host/b.zip?key={SECRET}", "zip://a.tif::https://host/b.zip"),
    ],
)
def test_public_url_holds_no_secret(url: str, public: str) -> None:
    assert public_url(url) == public
    assert SECRET not in public_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "images/a b.tif",
        "git@github.com:lab/repo.git",
        "s3://bucket/a#1@2.tif",
        "s3://bucket/a?b.tif",
        "https://host:8080/a@b.tif?part=1",
        "http://[::1]:80/a",
        "gs://bucket/x y/ü.tif",
    ],
)
def test_public_url_leaves_the_rest(url: str) -> None:
    assert public_url(url) == url


NESTED = st.recursive(
    st.just(SECRET) | st.just(f"https://me:{SECRET}@host") | st.just([SECRET]) | st.just(f"me:{SECRET}@host:9000"),
    lambda inner: st.dictionaries(
        st.sampled_from(["key", "secret", "token", "client_kwargs", "config", "headers", "endpoint_url", "anon"]), inner
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["key", "secret", "token", "password", "client_kwargs", "endpoint_url"]), NESTED)
)
def test_public_options_hold_no_secret(options: dict[str, Any]) -> None:
    def drop_free_text(value: Any) -> Any:
        # A bare secret in a field that is public by its name cannot be told from a host.
        if isinstance(value, dict):
            public = ("endpoint_url", "anon")
            return {k: drop_free_text(v) for k, v in value.items() if not (k in public and v == SECRET)}
        return value

    assert SECRET not in json.dumps(public_options(drop_free_text(options)))


def test_public_options_keep_what_helps() -> None:
    given_options = {"anon": True, "endpoint_url": "https://h:9000", "key": SECRET, "client_kwargs": {"verify": SECRET}}
    assert public_options(given_options) == {"anon": True, "endpoint_url": "https://h:9000"}
    assert public_options(None) == {}


def test_secrets_are_not_in_the_repr() -> None:
    assert SECRET not in repr(Location.of("s3://bucket/a", {"secret": SECRET}))


def test_sees_what_another_process_wrote(s3: dict[str, Any]) -> None:
    place = Location.of("s3://bucket/seen-late", s3)
    assert place.names() == []
    fsspec.filesystem("s3", skip_instance_cache=True, **s3).pipe_file("bucket/seen-late/x", b"1")
    assert place.names() == ["x"]
