"""Pixels of batches are those that xarray reads; what is missing or changed is an error."""

from __future__ import annotations

import itertools
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cellcube
from cellcube import errors
from cellcube.demo.plates import DemoPlate
from cellcube.training import Batch, batches
from cellcube.training.reader import _joined


def expected(root: Path, batch: Batch, variable: str = "cells", channels: list[str] | None = None) -> np.ndarray:
    found = cellcube.open(root).sel(cell_id=list(batch.cell_ids))[variable]
    values = found.values if channels is None else found.sel(c=channels).values
    return values.reshape(batch.pixels.shape)


def same(root: Path, size: int, **options: Any) -> list[str]:
    """Compare every batch with what xarray reads. Gives the cells."""
    names = {name: options[name] for name in ("variable", "channels") if name in options}
    seen: list[str] = []
    for batch in batches(root, size, **options):
        np.testing.assert_array_equal(batch.pixels, expected(root, batch, **names))
        assert batch.pixels.flags.c_contiguous
        seen += batch.cell_ids.tolist()
    return seen


@pytest.mark.parametrize("buffer", [0, 20])
@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (3, 2)])
@pytest.mark.parametrize(
    ("variable", "channels"),
    [("cells", None), ("cells", ["ER"]), ("cells", ["ER", "DNA"]), ("max_y", None), ("max_y", ["ER"]), ("mask", None)],
)
def test_pixels_are_those_of_xarray(
    flat: Path, variable: str, channels: list[str] | None, prefetch: int, threads: int, buffer: int
) -> None:
    seen = same(
        flat, 16, variable=variable, channels=channels, prefetch=prefetch, threads=threads, buffer=buffer
    )  # fmt: skip
    assert sorted(seen) == sorted(cellcube.open(flat)["cell_id"].values)


@pytest.mark.parametrize("channels", [None, ["structure"], ["structure", "DNA"]])
def test_where_a_chunk_is_one_channel(volume: Path, channels: list[str] | None) -> None:
    layout = cellcube.info(volume).state.layout
    assert layout.arrays()["cells"].chunk[0] == 1 < layout.arrays()["cells"].item[0]
    seen = same(volume, 4, channels=channels)
    assert sorted(seen) == sorted(cellcube.open(volume)["cell_id"].values)
    assert len(seen) == 6


@pytest.mark.parametrize("codec", ["none", "zstd", "blosc-lz4", "blosc-zstd"])
@pytest.mark.parametrize("chunk_cells", [1, 3])
def test_every_codec_and_several_cells_in_a_chunk(
    plate: DemoPlate, tmp_path: Path, codec: str, chunk_cells: int
) -> None:
    cellcube.build(
        plate.cells_csv, tmp_path / "d", channels=["DNA", "ER"], shape=(1, 16, 24), projections=[], progress=False,
        storage={"codec": codec, "chunk_cells": chunk_cells, "shard_mb": 0.02},
    )  # fmt: skip
    for channels in (None, ["ER"]):
        for shuffle in (True, False):
            assert len(same(tmp_path / "d", 4, channels=channels, shuffle=shuffle)) == 15


def test_a_retracted_cell_is_not_among_them_and_versions_are(volume: Path) -> None:
    dataset = cellcube.open(volume)
    [batch] = batches(volume, 10, shuffle=False)
    assert batch.positions.tolist() == [0, 1, 3, 4, 5, 6]
    assert batch.cell_ids.tolist() == dataset["cell_id"].values.tolist()
    [first] = batches(volume, 10, shuffle=False, version=1)
    assert first.positions.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(first.pixels, cellcube.open(volume, version=1)["cells"].values)


def test_columns_are_those_of_the_cells(flat: Path) -> None:
    dataset = cellcube.open(flat)
    for batch in batches(flat, 16, columns=["number", "fov_id", "split", "area_voxels", "touches_border"]):
        chosen = dataset.sel(cell_id=list(batch.cell_ids))
        np.testing.assert_array_equal(batch.columns["number"], chosen["number"].values)
        assert batch.columns["fov_id"].tolist() == chosen["fov_id"].values.tolist()
        assert batch.columns["fov_id"].dtype == object
        assert batch.columns["touches_border"].dtype == bool
        assert batch.columns["area_voxels"].dtype.kind in "if"
        assert list(batch.columns) == ["number", "fov_id", "split", "area_voxels", "touches_border"]


def test_splits_and_conditions(flat: Path) -> None:
    parts = {}
    for split in ("train", "test"):
        found = batches(flat, 16, split=split, columns="split")
        given = list(found)
        assert {value for batch in given for value in batch.columns["split"]} == {split}
        parts[split] = {name for batch in given for name in batch.cell_ids}
        assert len(parts[split]) == found.cells
    assert not parts["train"] & parts["test"]
    assert len(parts["train"] | parts["test"]) == 90
    chosen = [batch.columns["number"] for batch in batches(flat, 16, where="number < 20", columns="number")]
    assert sorted(np.concatenate(chosen)) == list(range(20))


def test_the_catalog_is_a_source_too(flat: Path) -> None:
    assert batches(flat / "catalog.yaml", 16).cells == 90


def test_what_it_tells_of_itself(flat: Path) -> None:
    found = batches(flat, 16, channels="ER")
    assert (found.channels, found.shape, found.dtype.name) == (("ER",), (1, 1, 32, 40), "float16")
    assert (found.cells, len(found), found.exact) == (90, 6, True)
    assert batches(flat, 16, variable="mask").channels == ()
    assert not batches(flat, 16, buffer=20).exact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size must"),
        ({"seed": -1}, "seed must"),
        ({"prefetch": -1}, "prefetch must"),
        ({"threads": 0}, "threads must"),
        ({"buffer": -1}, "buffer must"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size"),
        ({"worker": 2, "workers": 2}, "worker must be below workers"),
        ({"variable": "cellz"}, "Did you mean 'cells'"),
        ({"channels": ["DMA"]}, "Did you mean 'DNA'"),
        ({"channels": []}, "at least one"),
        ({"channels": ["DNA", "DNA"]}, "once"),
        ({"variable": "mask", "channels": ["DNA"]}, "has no channels"),
        ({"columns": ["fov"]}, "no column 'fov'"),
        ({"split": "trian"}, "Did you mean 'train'"),
        ({"where": "nonsense >"}, "cannot be evaluated"),
        ({"where": "number + 1"}, "not true or false"),
        ({"where": "number < 0"}, "No cell meets"),
        ({"where": "number < 0", "split": "train"}, "No cell is in the split 'train' and meets"),
        ({"batch_size": 100, "drop_last": True}, "smaller batch_size"),
    ],
)
def test_wrong_arguments_are_told(flat: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ArgumentError, match=message):
        batches(flat, **{"batch_size": 16, **options})


def test_no_dataset_no_version_and_no_splits(flat: Path, volume: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.DatasetNotFoundError):
        batches(tmp_path / "nothing", 4)
    with pytest.raises(errors.VersionNotFoundError):
        batches(flat, 4, version=9)
    with pytest.raises(errors.ArgumentError, match="has no splits"):
        batches(volume, 4, split="train")


def _remove(shard: Path) -> None:
    shard.unlink()


def _truncate(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-100])


def _empty(shard: Path) -> None:
    shard.write_bytes(b"")


def _flip_first(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)


def _flip_index(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[-10] ^= 1
    shard.write_bytes(data)


def _without_chunk(shard: Path) -> None:
    import google_crc32c

    data = bytearray(shard.read_bytes())
    size = 8 * 16
    data[-size - 4 : -size + 12] = b"\xff" * 16
    data[-4:] = int(google_crc32c.value(bytes(data[-size - 4 : -4]))).to_bytes(4, "little")
    shard.write_bytes(data)


@pytest.mark.parametrize("harm", [_remove, _truncate, _empty, _flip_first, _flip_index, _without_chunk])
@pytest.mark.parametrize("options", [{"shuffle": False}, {"prefetch": 0}, {"buffer": 20}, {"threads": 2}])
def test_damage_is_told_with_object_and_cell(
    copied: Path, harm: Callable[[Path], None], options: dict[str, Any]
) -> None:
    harm(copied / "cube.zarr/cells/c/3/0/0/0/0")
    harmed = set(cellcube.open(copied)["cell_id"].values[24:32])
    with pytest.raises(errors.DatasetDamagedError, match="cells/c/3/0/0/0/0") as caught:
        list(batches(copied, 16, **options))
    assert caught.value.cell_id in harmed
    assert str(caught.value.path).endswith("cube.zarr/cells/c/3/0/0/0/0")
    # Batches that do not need it come.
    assert sum(len(batch) for batch in batches(copied, 8, where="position < 24 or position >= 32")) == 82


def test_shards_that_may_not_be_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    found = batches(copied, 16)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(errors.DatasetAccessError, match="Permission denied"):
        list(found)


def test_a_disk_that_gives_little_at_a_time(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    if not hasattr(os, "preadv"):
        pytest.skip("this system reads by seeking")
    plain = os.preadv
    monkeypatch.setattr(os, "preadv", lambda handle, rooms, place: plain(handle, [rooms[0][:100]], place))
    assert len(same(flat, 16)) == 90


def test_a_system_without_positioned_reads(flat: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delattr(os, "preadv", raising=False)
    assert len(same(flat, 16, threads=2)) == 90
    _truncate(copied / "cube.zarr/cells/c/3/0/0/0/0")
    with pytest.raises(errors.DatasetDamagedError, match="cells/c/3/0/0/0/0"):
        list(batches(copied, 16))


def test_neighbours_are_read_together_and_long_ranges_apart() -> None:
    begin = np.array([0, 100, 200, 10_000, 0, 10])
    end = np.array([100, 200, 300, 10_100, 10, 20])
    shards = np.array([0, 0, 0, 0, 1, 1])
    assert _joined(shards, begin, end, 0, 1000) == [(0, 3), (3, 4), (4, 6)]
    assert _joined(shards, begin, end, 9_700, 20_000) == [(0, 4), (4, 6)]
    edges = np.arange(6) * 50
    assert _joined(np.zeros(5), edges[:-1], edges[1:], 0, 100) == [(0, 2), (2, 4), (4, 5)]
    assert _joined(np.zeros(2), np.array([0, 10]), np.array([10, 500]), 0, 100) == [(0, 1), (1, 2)]


def test_indexes_are_kept_and_few(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellcube.training import reader

    asked: list[tuple[str, int, int | None]] = []
    plain = reader.read_ranges

    def counted(cube: Any, ranges: Any) -> Any:
        asked.extend(ranges)
        return plain(cube, ranges)

    monkeypatch.setattr(reader, "read_ranges", counted)
    found = batches(flat, 16, shuffle=False, prefetch=0)
    for _ in range(2):
        assert sum(len(batch) for batch in found) == 90
    assert len([start for _, start, _ in asked if start < 0]) == 12
    # Each batch is two whole shards, one range each.
    assert len([start for _, start, _ in asked if start >= 0]) == 24
    monkeypatch.setattr(reader, "_CACHE_BYTES", 0)
    choice = found._choice
    for _ in range(2):
        list(found)
    assert len(choice.reader._indexes) <= 16


def test_a_cell_that_is_asked_for_twice_is_there_twice(flat: Path) -> None:
    found = batches(flat, 4)
    reader = found._choice.reader
    positions = np.array([5, 2, 5, 5])
    pixels = reader.read(positions, ["a", "b", "c", "d"])
    np.testing.assert_array_equal(pixels, cellcube.open(flat)["cells"].values[positions])


def test_it_pickles_without_what_it_has_read(flat: Path) -> None:
    found = batches(flat, 16, columns="number", transform=len)
    first = list(found)
    copy = pickle.loads(pickle.dumps(found))
    assert not copy._choice.reader._indexes
    copy.set_epoch(0)
    assert list(copy) == first == [16] * 5 + [10]


def test_a_transform_sees_batches_in_order_and_what_it_gives_comes(flat: Path) -> None:
    counted = itertools.count()

    def transform(batch: Batch) -> tuple[int, int]:
        return next(counted), int(batch.positions[0])

    found = list(batches(flat, 8, shuffle=False, prefetch=4, transform=transform))
    assert found == [(number, number * 8) for number in range(12)]


def test_s3_and_http_give_the_same(
    flat: Path, bucket: dict[str, Any], served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    from cellcube.training import loader

    fs = fsspec.filesystem("s3", **bucket)
    fs.put(str(flat), "bucket/batches/flat", recursive=True)
    stored = cellcube.open(flat)["cells"].values
    for source, options in (("s3://bucket/batches/flat", bucket), (f"{served}/flat/catalog.yaml", {})):
        for more in ({}, {"buffer": 0}, {"shuffle": False}, {"buffer": 24, "prefetch": 5}):
            found = batches(source, 16, storage_options=options, **more)
            seen = []
            for batch in found:
                np.testing.assert_array_equal(batch.pixels, stored[batch.positions])
                seen += batch.positions.tolist()
            assert sorted(seen) == list(range(90))
        assert not batches(source, 16, storage_options=options).exact
    # Where a cell is larger than a block, there is nothing to mix in windows.
    monkeypatch.setattr(loader, "_BLOCK_BYTES", 1)
    assert batches("s3://bucket/batches/flat", 16, storage_options=bucket).exact
    fs.rm_file("bucket/batches/flat/cube.zarr/cells/c/3/0/0/0/0")
    with pytest.raises(errors.DatasetDamagedError, match="cells/c/3/0/0/0/0: the object is missing"):
        list(batches("s3://bucket/batches/flat", 16, storage_options=bucket))


@pytest.mark.parametrize("buffer", [0, 24])
def test_a_missing_object_over_http_is_an_error(flat: Path, served: str, buffer: int) -> None:
    holed = flat.parent / f"holed-{buffer}"
    shutil.copytree(flat, holed)
    (holed / "cube.zarr/cells/c/3/0/0/0/0").unlink()
    with pytest.raises(errors.DatasetDamagedError, match="cells/c/3/0/0/0/0: the object is missing"):
        list(batches(f"{served}/{holed.name}", 16, buffer=buffer))


def test_a_store_that_cannot_be_reached(served: str, flat: Path) -> None:
    found = batches(f"{served}/flat", 16)
    object.__setattr__(found._choice.reader._cube, "url", "http://127.0.0.1:9/flat/cube.zarr")
    with pytest.raises(errors.DatasetAccessError, match="Check the address"):
        list(found)
