"""Shards made here, read back by zarr-python through the metadata of a cube."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcube.cube import Layout, PieceWriter, Representation, metadata_documents
from cellcube.cube import layout as layouts
from cellcube.cube.layout import ArrayLayout
from cellcube.cube.shards import ChunkCodec, join_pieces, split_shard
from cellcube.errors import DatasetDamagedError

CODECS = ["blosc-zstd", "blosc-lz4", "zstd", "none"]


def make_layout(**fields: Any) -> Layout:
    values: dict[str, Any] = {
        "channels": ("DNA", "ER"),
        "shape": (2, 3, 5),
        "representations": {
            "cells": Representation("uint16", ("max_z", "sum_y", "mean_montage"), ({"method": "none"},) * 2),
            "bright": Representation("float16", ("max_x",), ({"method": "zscore", "scope": "cell"},) * 2, True),
        },
        "masks": ("mask", "mask_nucleus"),
        "interpolated": False,
        "has_split": False,
        "cell_axis": "cell",
        "chunk_cells": 1,
        "shard_cells": 6,
        "codec": "blosc-zstd",
        "metadata": {},
    }
    return Layout(**{**values, **fields})


def some_cells(array: ArrayLayout, count: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    cells = random.integers(0, 200, (count, *array.item)).astype(array.dtype)
    # Empty cells are cells too.
    cells[random.random(count) < 0.2] = 0
    return cells


def write_pieces(array: ArrayLayout, cells: Any, room: int) -> list[tuple[bytes, int]]:
    """Pieces with the number of cells in each."""
    writer = PieceWriter(array, room)
    pieces, held = [], 0
    for cell in cells:
        piece = writer.add(cell)
        held += 1
        if piece is not None:
            pieces.append((bytes(piece), held))
            held = 0
    last = writer.finish()
    if last is not None:
        pieces.append((bytes(last), held))
    assert writer.finish() is None
    return pieces


def read_by_zarr(layout: Layout, array: ArrayLayout, shards: list[bytes], count: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        attributes = {"format": 1}
        windows = dict.fromkeys(layout.representations, [(0, 1)] * len(layout.channels))
        documents = metadata_documents(layout, count, attributes, "test", None, windows)
        files = {**documents, **{array.shard_key(number): shard for number, shard in enumerate(shards)}}
        for path, data in files.items():
            place = Path(folder) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        found: Any = zarr.open_group(folder, mode="r")[array.path]
        assert found.metadata.dimension_names == array.axes
        return found[:]


@pytest.mark.parametrize("name", ["cells", "max_z", "sum_y", "mask"])
@pytest.mark.parametrize("codec", CODECS)
def test_zarr_reads_every_array_and_codec(name: str, codec: str) -> None:
    layout = make_layout(codec=codec)
    array = layout.arrays()[name]
    cells = some_cells(array, 10)
    pieces = write_pieces(array, cells, 6)
    assert [count for _, count in pieces] == [6, 4]
    found = read_by_zarr(layout, array, [piece for piece, _ in pieces], 10)
    np.testing.assert_array_equal(found, cells)
    assert found.dtype == array.dtype


@pytest.mark.parametrize(("shuffle", "flags"), [("bitshuffle", 4), ("shuffle", 1), ("noshuffle", 0)])
@pytest.mark.parametrize("codec", ["blosc-zstd", "blosc-lz4"])
def test_level_and_shuffling_are_those_of_the_metadata(codec: str, shuffle: str, flags: int) -> None:
    layout = make_layout(codec=codec, level=5, shuffle=shuffle, shape=(2, 40, 40))
    assert Layout.from_dict(layout.to_dict()) == layout
    array = layout.arrays()["cells"]
    cells = some_cells(array, 6)
    shard = write_pieces(array, cells, 6)[0][0]
    np.testing.assert_array_equal(read_by_zarr(layout, array, [shard], 6), cells)
    # Blosc's header tells how it shuffled: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
    assert {chunk[2] & 0b101 for chunk in split_shard(shard, array)} == {flags}
    document = metadata_documents(
        layout, 6, {"format": 1}, "test", None, {"cells": [(0, 1)] * 2, "bright": [(0, 1)] * 2}
    )
    [sharding] = json.loads(document["cells/zarr.json"])["codecs"]
    told = sharding["configuration"]["codecs"][1]["configuration"]
    assert (told["clevel"], told["shuffle"]) == (5, shuffle)


def test_a_higher_level_of_zstd_takes_less_room() -> None:
    pixels = np.repeat(np.random.default_rng(0).integers(0, 40, (1, 2, 2, 64, 32)), 2, axis=-1).astype("uint16")
    sizes = {}
    for level in (1, 9):
        layout = make_layout(codec="zstd", level=level, shape=(2, 64, 64))
        sizes[level] = len(ChunkCodec(layout.arrays()["cells"]).encode(pixels))
    assert sizes[9] < sizes[1]


def test_a_layout_tells_level_and_shuffling_only_where_they_are_chosen() -> None:
    plain = make_layout().to_dict()
    assert {"level", "shuffle"} & plain.keys() == set()
    assert Layout.from_dict(plain) == make_layout()
    chosen = make_layout(level=3).to_dict()
    assert {**plain, "level": 3} == chosen


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float16", "float32"])
def test_zarr_reads_every_type(dtype: str) -> None:
    only = Representation(dtype, ("max_z",), ({"method": "none"},) * 2)
    layout = make_layout(representations={"cells": only}, cell_axis="t")
    array = layout.arrays()["cells"]
    cells = some_cells(array, 6)
    np.testing.assert_array_equal(read_by_zarr(layout, array, [write_pieces(array, cells, 6)[0][0]], 6), cells)


@settings(max_examples=60)
@given(st.data())
def test_any_split_into_pieces_makes_the_same_shards(data: Any) -> None:
    chunk_cells = data.draw(st.integers(1, 3), label="chunk_cells")
    shard_cells = chunk_cells * data.draw(st.integers(1, 4), label="chunks in a shard")
    by_channel = data.draw(st.booleans(), label="channels split")
    with pytest.MonkeyPatch.context() as patch:
        if by_channel:
            patch.setattr(layouts, "CHANNEL_CHUNK_BYTES", 1)
        layout = make_layout(chunk_cells=chunk_cells, shard_cells=shard_cells, shape=(1, 3, 4))
        array = layout.arrays()["cells"]
        assert array.chunk[0] == (1 if by_channel else 2)
        jobs = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4), label="cells of each job")
        cells = some_cells(array, sum(jobs), data.draw(st.integers(0, 99)))

        # Each job writes its own pieces, wherever it believes that it begins.
        pieces: list[tuple[bytes, int]] = []
        first = 0
        for count in jobs:
            room = data.draw(st.integers(1, shard_cells), label="room")
            pieces += write_pieces(array, cells[first : first + count], room)
            first += count

        rows = [(number, row) for number, (_, count) in enumerate(pieces) for row in range(count)]
        shards = []
        for start in range(0, len(rows), shard_cells):
            parts: list[tuple[bytes, int, int]] = []
            wanted = rows[start : start + shard_cells]
            for number in dict.fromkeys(number for number, _ in wanted):
                places = [row for each, row in wanted if each == number]
                parts.append((pieces[number][0], places[0], len(places)))
            shards.append(bytes(join_pieces(parts, array)))
        straight = write_pieces(array, cells, shard_cells)
        assert shards == [piece for piece, _ in straight]
        np.testing.assert_array_equal(read_by_zarr(layout, array, shards, len(cells)), cells)


@pytest.mark.parametrize("codec", CODECS)
def test_chunk_round_trip(codec: str) -> None:
    array = make_layout(codec=codec, chunk_cells=2).arrays()["cells"]
    chunk = some_cells(array, 2)
    np.testing.assert_array_equal(ChunkCodec(array).decode(ChunkCodec(array).encode(chunk)), chunk)


@pytest.mark.parametrize("chunk_cells", [1, 2])
def test_a_changed_byte_anywhere_is_damage(chunk_cells: int) -> None:
    array = make_layout(chunk_cells=chunk_cells).arrays()["cells"]
    shard = write_pieces(array, some_cells(array, 6), 6)[0][0]
    assert bytes(join_pieces([(shard, 0, 6)], array)) == shard
    for place in range(len(shard)):
        damaged = bytearray(shard)
        damaged[place] ^= 0x10
        with pytest.raises(DatasetDamagedError):
            join_pieces([(bytes(damaged), 0, 6)], array)


@pytest.mark.parametrize("size", [0, 3, 50, -1])
def test_a_shard_that_is_cut_short_is_damage(size: int) -> None:
    array = make_layout().arrays()["cells"]
    shard = write_pieces(array, some_cells(array, 6), 6)[0][0]
    with pytest.raises(DatasetDamagedError, match="index"):
        list(split_shard(shard[:size], array))


@pytest.mark.parametrize("chunk_cells", [1, 2])
def test_a_piece_with_fewer_cells_than_promised_is_damage(chunk_cells: int) -> None:
    array = make_layout(chunk_cells=chunk_cells).arrays()["cells"]
    piece = write_pieces(array, some_cells(array, 2), 6)[0][0]
    with pytest.raises(DatasetDamagedError, match="fewer cells"):
        join_pieces([(piece, 0, 4)], array)


def test_layout_of_a_spec() -> None:
    from cellcube import CubeSpec

    spec = CubeSpec(shape=(1, 96, 96), storage={"shard_mb": 10, "chunk_cells": 3})
    layout = Layout.of(spec, ("DNA",), {"cells": "float16"}, True, {"well": "string"})
    assert layout.shard_cells % 3 == 0
    assert layout.shard_cells * 96 * 96 * 2 == pytest.approx(10e6, rel=0.01)
    assert Layout.from_dict(layout.to_dict()) == layout
    huge = Layout.of(spec.replace(shape=(64, 512, 512)), ("DNA", "ER"), {"cells": "float32"}, False, {})
    assert huge.shard_cells == 3
    assert huge.arrays()["cells"].chunk == (1, 64, 512, 512)
