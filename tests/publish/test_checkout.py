"""A part of a dataset taken along is a dataset, with the pixels and the history of its source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from http_server import serve
from published import COMMON, FIRST

import cellcube
from cellcube.cube import read_state
from cellcube.errors import (
    ArgumentError,
    DatasetDamagedError,
    DatasetDivergedError,
    DatasetNotFoundError,
    VersionNotFoundError,
)
from cellcube.ledger import sha256_of
from cellcube.location import Location
from cellcube.publishing import chunks
from cellcube.publishing.checkout import ORIGIN, checkout, pull
from cellcube.publishing.describe import describe
from cellcube.publishing.publish import publish
from cellcube.publishing.verify import verify

Files = Callable[[Path], dict[str, bytes]]


def same_cells(part: Path, source: Path, version: int | None = None) -> None:
    """Pixels and values of every cell are those of the source, byte for byte."""
    found, whole = cellcube.open(part), cellcube.open(source, version=version)
    for identifier in found["cell_id"].values:
        one, other = found.sel(cell_id=identifier), whole.sel(cell_id=identifier)
        for name in ("cells", "max_z", "mask", "norm_low", "norm_high", "clipped", "origin_y", "well", "label"):
            np.testing.assert_array_equal(one[name].values, other[name].values)


def test_chosen_cells_of_a_version(dataset: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    report = checkout(f"{dataset}@2", part, where="label % 2 == 0")
    manifest = pd.read_parquet(dataset / "cells.parquet")
    wanted = manifest.loc[manifest["label"] % 2 == 0, "cell_id"].tolist()
    assert 0 < len(wanted) < len(manifest)
    opened = cellcube.open(part)
    assert opened["cell_id"].values.tolist() == wanted
    assert report.cells == len(wanted) == cellcube.info(part).outcomes["kept"]
    assert verify(part, "full", progress=False).ok
    same_cells(part, dataset)

    record = json.loads((part / "runs" / "000001.json").read_text())
    assert record["kind"] == "checkout"
    assert record["source"]["version"] == 2
    assert record["source"]["where"] == "label % 2 == 0"
    for name, digest in record["source"]["runs"].items():
        copied = (part / "runs" / "source" / name).read_bytes()
        assert sha256_of(copied) == digest
        assert copied == (dataset / "runs" / name).read_bytes()
    taken = pd.read_parquet(part / "runs" / "source" / "cells.parquet")
    assert taken["position"].tolist() == manifest.loc[manifest["label"] % 2 == 0, "position"].tolist()
    # The same once more does nothing, another part is refused.
    assert checkout(dataset, part, version=2, where="label % 2 == 0").bytes == 0
    with pytest.raises(DatasetDivergedError):
        checkout(dataset, part, where="label % 2 == 1")


def test_chunks_are_not_encoded_again(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellcube.cube.shards import ChunkCodec, split_shard

    def refuses(*args: Any) -> Any:
        raise AssertionError("a chunk was decoded or encoded")

    with monkeypatch.context() as patch:
        patch.setattr(ChunkCodec, "decode", refuses)
        patch.setattr(ChunkCodec, "encode_into", refuses)
        checkout(dataset, tmp_path / "part", where="position in [1, 4, 5, 13]")
    state = read_state(Location(str(dataset / "cube.zarr")))
    assert state is not None
    array = state.layout.arrays()["cells"]

    def encoded(root: Path) -> list[bytes]:
        shards = sorted((root / "cube.zarr" / "cells" / "c").glob("*/0/0/0/0"), key=lambda path: int(path.parts[-5]))
        return [chunk for path in shards for chunk in split_shard(path.read_bytes(), array)]

    assert encoded(tmp_path / "part") == [encoded(dataset)[number] for number in (1, 4, 5, 13)]


def test_a_version_alone_and_then_more(dataset: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    part = tmp_path / "first"
    assert checkout(dataset, part, version=1).cells == FIRST
    same_cells(part, dataset, version=1)
    # It is an ordinary dataset: what the source got later can be built into it.
    report = cellcube.build(table, part, **COMMON)
    assert (report.version, report.added) == (2, 15 - FIRST)
    assert cellcube.open(part)["cell_id"].values.tolist() == cellcube.open(dataset)["cell_id"].values.tolist()
    same_cells(part, dataset)
    assert verify(part, "full", progress=False).ok
    assert publish(part, tmp_path / "out", progress=False).cells == 15


def test_retracted_cells_stay_behind(dataset: Path, tmp_path: Path) -> None:
    gone = str(cellcube.open(dataset)["cell_id"].values[1])
    cellcube.retract(dataset, [gone], "out of focus")
    assert gone not in _ids(checkout(dataset, tmp_path / "now", version=3).root)
    assert gone in _ids(checkout(dataset, tmp_path / "then", version=2).root)
    for name in ("now", "then"):
        assert verify(tmp_path / name, "full", progress=False).ok
        same_cells(tmp_path / name, dataset, version=2)


def _ids(root: str) -> list[str]:
    return [str(each) for each in cellcube.open(root)["cell_id"].values]


@pytest.mark.parametrize(
    "storage",
    [{"shard_mb": 0.02, "chunk_cells": 2}, {"shard_mb": 0.02, "codec": "none"}, {"shard_mb": 10}],
    ids=["cells share chunks", "not compressed", "one shard"],
)
def test_every_storage(table: pd.DataFrame, tmp_path: Path, storage: dict[str, Any]) -> None:
    source = tmp_path / "source"
    cellcube.build(table, source, **{**COMMON, "storage": storage})
    part = tmp_path / "part"
    checkout(source, part, where="position % 3 == 1 or position == 6")
    same_cells(part, source)
    assert verify(part, "full", progress=False).ok


def test_only_what_is_needed_is_read(table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    cellcube.build(table, source, **{**COMMON, "storage": {"shard_mb": 10}})
    monkeypatch.setattr(chunks, "_GAP", 0)
    state = read_state(Location(str(source / "cube.zarr")))
    assert state is not None
    array = state.layout.arrays()["cells"]
    cube = Location(str(source / "cube.zarr"))
    size = (cube / array.shard_key(0)).size()
    assert size is not None
    index = array.shard_cells * array.chunks_per_row * 16 + 4
    _, read = chunks.shard_of(cube, array, np.array([2, 9]), state.count)
    assert read < index + (size - index) * 3 / 15
    _, everything = chunks.shard_of(cube, array, np.arange(15), state.count)
    assert everything == size


def test_from_s3_and_http(dataset: Path, tmp_path: Path, s3: dict[str, Any]) -> None:
    publish(dataset, "s3://bucket/out/nuclei", storage_options=s3, progress=False)
    checkout("s3://bucket/out/nuclei@2", tmp_path / "a", where="position > 11", storage_options=s3)
    with serve(tmp_path / "nuclei") as (url, requests):
        checkout(url, tmp_path / "b", version=2, where="position > 11")
        whole = checkout(url, tmp_path / "c")
        assert pull(tmp_path / "c").copied == 0
    assert whole.cells == 15
    assert verify(tmp_path / "c", "full", progress=False).ok
    assert len(requests) > 10
    for name in ("a", "b"):
        same_cells(tmp_path / name, dataset)
        record = (tmp_path / name / "runs" / "000001.json").read_text()
        assert "testing" not in record
    assert json.loads((tmp_path / "a" / "runs" / "000001.json").read_text())["source"]["url"] == (
        "s3://bucket/out/nuclei"
    )


def test_a_copy_is_brought_up_to_date(
    one_version: Path, table: pd.DataFrame, tmp_path: Path, files: Files, s3: dict[str, Any]
) -> None:
    source = tmp_path / "source"
    checkout(one_version, source)
    assert files(source) == files(one_version)
    there = "s3://bucket/origin/nuclei"
    publish(source, there, storage_options=s3, progress=False)
    copy = tmp_path / "copy"
    checkout(there, copy, storage_options=s3)
    assert json.loads((copy / ORIGIN).read_text()) == {
        "url": there,
        "storage_options": {"endpoint_url": s3["endpoint_url"]},
    }
    cellcube.build(table, source, **COMMON)
    publish(source, there, storage_options=s3, progress=False)
    report = pull(copy, storage_options=s3)
    assert 0 < report.copied < report.objects
    assert files(copy) == files(source)
    assert pull(copy, storage_options=s3).copied == 0
    # Where the copy came from is not part of it.
    assert verify(copy, "full", progress=False).ok
    assert not (Path(checkout(copy, tmp_path / "second").root) / "runs" / "source").exists()
    assert json.loads((tmp_path / "second" / ORIGIN).read_text())["url"] == str(copy)


def test_a_copy_that_went_its_own_way_is_not_overwritten(dataset: Path, tmp_path: Path) -> None:
    checkout(dataset, tmp_path / "copy")
    describe(tmp_path / "copy", keywords=["mine"])
    describe(dataset, keywords=["theirs"])
    with pytest.raises(DatasetDivergedError, match="versions differ"):
        pull(tmp_path / "copy")


def test_what_cannot_be_taken_is_told(dataset: Path, tmp_path: Path) -> None:
    for where in ("label >", "nothing == 3", "label", "label > 10**6", "__import__('os').getcwd() == ''"):
        with pytest.raises(ArgumentError):
            checkout(dataset, tmp_path / "part", where=where)
    with pytest.raises(VersionNotFoundError, match="1 to 2"):
        checkout(f"{dataset}@7", tmp_path / "part")
    with pytest.raises(ArgumentError, match="two versions"):
        checkout(f"{dataset}@1", tmp_path / "part", version=2)
    with pytest.raises(DatasetNotFoundError):
        checkout(tmp_path / "nowhere", tmp_path / "part")
    with pytest.raises(ArgumentError, match="does not know"):
        pull(dataset)
    assert not (tmp_path / "part").exists()


def test_damage_is_not_taken_along(dataset: Path, tmp_path: Path) -> None:
    shard = dataset / "cube.zarr" / "cells" / "c" / "1" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetDamagedError, match="cells/c/1"):
        checkout(dataset, tmp_path / "part", where="position == 5")
    assert read_state(Location(str(tmp_path / "part" / "cube.zarr"))) is None
    shard.unlink()
    with pytest.raises(DatasetDamagedError, match="missing"):
        checkout(dataset, tmp_path / "part", where="position == 5")


def test_a_folder_whose_name_ends_like_a_version(dataset: Path, tmp_path: Path) -> None:
    named = tmp_path / "nuclei@2"
    dataset.rename(named)
    assert checkout(named, tmp_path / "part", version=1).cells == FIRST
