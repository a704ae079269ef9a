"""Shards as bytes: the inner chunks of many cells, one after the other, and an index at the end.

The layout is that of the ``sharding_indexed`` codec of Zarr v3
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): after the chunks, (offset, size) of every
chunk as little-endian uint64 in C order, then their CRC-32C. Cells are encoded as they come, so a shard is never
held uncompressed; and because a chunk's bytes do not depend on its place, encoded cells can be moved from one shard
to another without touching their pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt

from cellcube.cube.layout import ArrayLayout
from cellcube.errors import DatasetDamagedError

_MISSING = np.uint64(2**64 - 1)

Pixels = npt.NDArray[Any]
Shard = TypeVar("Shard", bytes, memoryview)


def _checksum(data: bytes | bytearray | memoryview) -> bytes:
    return int(google_crc32c.value(bytes(data))).to_bytes(4, "little")


class ChunkCodec:
    """Encodes and decodes inner chunks: bytes, compression, CRC-32C.

    Parameters
    ----------
    array : ArrayLayout
    """

    def __init__(self, array: ArrayLayout) -> None:
        self._dtype = np.dtype(array.dtype).newbyteorder("<")
        self._shape = (array.chunk_cells, *array.chunk)
        self._codec = array.codec

    def encode(self, chunk: Pixels) -> bytes:
        """The bytes of one chunk, shape ``(chunk_cells, *chunk)``."""
        import imagecodecs
        import numcodecs.zstd

        data: Any = np.ascontiguousarray(chunk, dtype=self._dtype)
        if self._codec == "none":
            packed: bytes = data.tobytes()
        elif self._codec == "zstd":
            packed = bytes(numcodecs.zstd.compress(data, 1))
        else:
            # With several threads, Blosc puts blocks into a chunk in the order in which they are done.
            name = self._codec.removeprefix("blosc-")
            options = {"compressor": name, "shuffle": "bitshuffle", "typesize": data.itemsize}
            packed = bytes(imagecodecs.blosc_encode(data, level=1, numthreads=1, **options))
        return packed + _checksum(packed)

    def decode(self, data: bytes) -> Pixels:
        """The inverse of `encode`.

        Raises
        ------
        DatasetDamagedError
            Where the checksum does not fit.
        """
        import numcodecs.blosc
        import numcodecs.zstd

        packed, checksum = data[:-4], data[-4:]
        if _checksum(packed) != checksum:
            raise DatasetDamagedError("A chunk's checksum does not fit its bytes.")
        plain: Any = packed
        if self._codec == "zstd":
            plain = numcodecs.zstd.decompress(packed)
        elif self._codec != "none":
            plain = numcodecs.blosc.decompress(packed)
        return np.frombuffer(plain, self._dtype).reshape(self._shape)


class ShardBuilder:
    """Puts encoded chunks into one shard.

    Parameters
    ----------
    array : ArrayLayout
    """

    def __init__(self, array: ArrayLayout) -> None:
        slots = array.shard_cells // array.chunk_cells * array.chunks_per_row
        self._index = np.full((slots, 2), _MISSING, "<u8")
        raw = math.prod((array.chunk_cells, *array.chunk)) * np.dtype(array.dtype).itemsize
        # As much as a shard can need: what no codec compresses grows by less. Only what is filled takes memory, which
        # NumPy asks for in huge pages.
        self._data = np.empty(slots * (raw + raw // 128 + 128) + self._index.nbytes + 4, np.uint8).data
        self._filled = 0
        self._next = 0

    def add(self, chunk: bytes | memoryview) -> None:
        """Put the next chunk, in C order of the shard's chunks."""
        self._index[self._next] = self._filled, len(chunk)
        self._next += 1
        self._put(chunk)

    def finish(self) -> memoryview:
        """The shard's bytes; the builder is spent."""
        index = self._index.tobytes()
        self._put(index)
        self._put(_checksum(index))
        return self._data[: self._filled]

    def _put(self, data: bytes | memoryview) -> None:
        self._data[self._filled : self._filled + len(data)] = data
        self._filled += len(data)


def split_shard(data: Shard, array: ArrayLayout) -> Iterator[Shard]:
    """The chunks of a shard in order, up to the first that is not there.

    Raises
    ------
    DatasetDamagedError
        Where the bytes are not a shard of `array`.
    """
    slots = array.shard_cells // array.chunk_cells * array.chunks_per_row
    size = slots * 16
    index = data[-size - 4 : -4]
    if len(index) != size or _checksum(index) != data[-4:]:
        raise DatasetDamagedError("The shard's index is damaged.")
    for offset, length in np.frombuffer(index, "<u8").reshape(slots, 2):
        if offset == _MISSING:
            return
        yield data[int(offset) : int(offset + length)]


def chunk_grid(cells: Pixels, array: ArrayLayout) -> Iterator[Pixels]:
    """The chunks of a row of the shard, in C order.

    Parameters
    ----------
    cells : ndarray, shape (chunk_cells, *item)
        As many cells as a chunk holds.
    """
    if array.chunk == array.item:
        yield cells
        return
    for channel in range(array.item[0]):
        yield cells[:, channel : channel + 1]


class PieceWriter:
    """Encodes cells as they come and gives out pieces: shards that may begin and end anywhere.

    Parameters
    ----------
    array : ArrayLayout
    room : int
        Cells that the first piece may hold; the others hold a whole shard. Pieces that fall on shard borders can
        become shards without being copied.
    """

    def __init__(self, array: ArrayLayout, room: int) -> None:
        self._array = array
        self._codec = ChunkCodec(array)
        self._room = room
        self._builder = ShardBuilder(array)
        self._row = np.zeros((array.chunk_cells, *array.item), np.dtype(array.dtype))
        self._waiting = 0
        self._count = 0

    def add(self, cell: Pixels) -> memoryview | None:
        """Put one cell, shape ``item``. Gives a piece when one is full."""
        if cell.shape != self._array.item:
            raise ValueError(f"{self._array.name!r} holds items of shape {self._array.item}, not {cell.shape}")
        self._count += 1
        if self._array.chunk_cells == 1:
            self._encode(cell[None])
        else:
            self._row[self._waiting] = cell
            self._waiting += 1
            if self._waiting == self._array.chunk_cells:
                self._encode_waiting()
        return self.finish() if self._count == self._room else None

    def _encode_waiting(self) -> None:
        self._encode(self._row)
        self._row[:] = 0
        self._waiting = 0

    def _encode(self, row: Pixels) -> None:
        for chunk in chunk_grid(row, self._array):
            self._builder.add(self._codec.encode(chunk))

    def finish(self) -> memoryview | None:
        """The last piece, or None where there are no more cells."""
        if not self._count:
            return None
        if self._waiting:
            self._encode_waiting()
        piece = self._builder.finish()
        self._builder = ShardBuilder(self._array)
        self._count = 0
        self._room = self._array.shard_cells
        return piece


def join_pieces(parts: list[tuple[bytes, int, int]], array: ArrayLayout) -> memoryview:
    """One shard from rows of others.

    Parameters
    ----------
    parts : list of (bytes, int, int)
        A shard's or piece's bytes, the first cell to take of it, and how many.
    array : ArrayLayout

    Returns
    -------
    memoryview
        A shard that holds these cells in this order.
    """
    if array.chunk_cells > 1:
        return _recode_pieces(parts, array)
    builder = ShardBuilder(array)
    each = array.chunks_per_row
    for data, start, count in parts:
        chunks = list(split_shard(memoryview(data), array))[start * each : (start + count) * each]
        if len(chunks) != count * each:
            raise DatasetDamagedError("A shard holds fewer cells than it must.")
        for chunk in chunks:
            # Damage is not to be carried into a new shard.
            if _checksum(chunk[:-4]) != chunk[-4:]:
                raise DatasetDamagedError("A chunk's checksum does not fit its bytes.")
            builder.add(chunk)
    return builder.finish()


def _recode_pieces(parts: list[tuple[bytes, int, int]], array: ArrayLayout) -> memoryview:
    # Several cells share a chunk, so their place in it changes.
    writer = PieceWriter(array, array.shard_cells + 1)
    codec = ChunkCodec(array)
    each = array.chunks_per_row
    for data, start, count in parts:
        taken = 0
        row: list[Pixels] = []
        for chunk in split_shard(data, array):
            row.append(codec.decode(chunk))
            if len(row) == each:
                cells = np.concatenate(row, axis=1)
                for cell in cells[max(0, start) :][: count - taken]:
                    writer.add(cell)
                    taken += 1
                start -= array.chunk_cells
                row = []
        if taken != count:
            raise DatasetDamagedError("A shard holds fewer cells than it must.")
    shard = writer.finish()
    return ShardBuilder(array).finish() if shard is None else shard
