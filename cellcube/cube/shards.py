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


def _checksum(data: bytes | memoryview) -> bytes:
    # Arrays are not copied, other views of memory would have to be.
    plain = np.frombuffer(data, np.uint8) if isinstance(data, memoryview) and len(data) else bytes(data)
    return int(google_crc32c.value(plain)).to_bytes(4, "little")


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
        self._level, self._shuffle = array.level, array.shuffle

    @property
    def most(self) -> int:
        """Bytes that a chunk can become: what no codec compresses grows by less."""
        raw = math.prod(self._shape) * self._dtype.itemsize
        return raw + raw // 128 + 128

    def encode(self, chunk: Pixels) -> bytes:
        """The bytes of one chunk, shape ``(chunk_cells, *chunk)``."""
        room = bytearray(self.most)
        return bytes(room[: self.encode_into(chunk, memoryview(room))])

    def encode_into(self, chunk: Pixels, room: memoryview) -> int:
        """Put the bytes of one chunk at the beginning of a buffer of at least `most`; gives their number."""
        data: Any = np.ascontiguousarray(chunk, dtype=self._dtype)
        size: int
        if self._codec == "none":
            size = data.nbytes
            room[:size] = data.tobytes()
        elif self._codec == "zstd":
            import numcodecs.zstd

            packed = numcodecs.zstd.compress(data, self._level)
            size = len(packed)
            room[:size] = packed
        else:
            import imagecodecs

            # With several threads, Blosc puts blocks into a chunk in the order in which they are done.
            name = self._codec.removeprefix("blosc-")
            options: dict[str, Any] = {"compressor": name, "shuffle": self._shuffle, "typesize": data.itemsize}
            options |= {"level": self._level, "numthreads": 1, "out": room[: self.most - 4]}
            size = len(imagecodecs.blosc_encode(data, **options))
        room[size : size + 4] = _checksum(room[:size])
        return size + 4

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
    """Puts chunks into one shard.

    Parameters
    ----------
    array : ArrayLayout
    """

    def __init__(self, array: ArrayLayout) -> None:
        self._codec = ChunkCodec(array)
        self._index = np.full((_slots(array), 2), _MISSING, "<u8")
        # Only what is filled takes memory, which NumPy asks for in huge pages.
        self._data = np.empty(len(self._index) * self._codec.most + self._index.nbytes + 4, np.uint8).data
        self._filled = 0
        self._next = 0

    def add(self, chunk: bytes | memoryview) -> None:
        """Put the next chunk, which is encoded, in C order of the shard's chunks."""
        self._data[self._filled : self._filled + len(chunk)] = chunk
        self._note(len(chunk))

    def encode(self, chunk: Pixels) -> None:
        """Encode and put the next chunk."""
        self._note(self._codec.encode_into(chunk, self._data[self._filled :]))

    def _note(self, size: int) -> None:
        self._index[self._next] = self._filled, size
        self._next += 1
        self._filled += size

    def finish(self) -> memoryview:
        """The shard's bytes; the builder is spent."""
        end = self._filled
        self._filled += _put_index(self._index, self._data[end:])
        return self._data[: self._filled]


def _slots(array: ArrayLayout) -> int:
    """Inner chunks of a shard."""
    return array.shard_cells // array.chunk_cells * array.chunks_per_row


def _put_index(index: npt.NDArray[np.uint64], room: memoryview) -> int:
    """Put an index and its checksum at the beginning of a buffer; gives the number of bytes."""
    size = index.nbytes
    room[:size] = index.tobytes()
    room[size : size + 4] = _checksum(room[:size])
    return size + 4


def _index_of(data: bytes | memoryview, array: ArrayLayout) -> npt.NDArray[np.int64]:
    """(offset, size) of the chunks of a shard in order, up to the first that is not there, shape (n, 2).

    Raises
    ------
    DatasetDamagedError
        Where the bytes are not a shard of `array`.
    """
    slots = _slots(array)
    size = slots * 16
    index = data[-size - 4 : -4]
    if len(index) != size or _checksum(index) != data[-4:]:
        raise DatasetDamagedError("The shard's index is damaged.")
    found = np.frombuffer(index, "<u8").reshape(slots, 2)
    missing = np.flatnonzero(found[:, 0] == _MISSING)
    return found[: missing[0] if len(missing) else slots].astype(np.int64)


def split_shard(data: Shard, array: ArrayLayout) -> Iterator[Shard]:
    """The chunks of a shard in order, up to the first that is not there.

    Raises
    ------
    DatasetDamagedError
        Where the bytes are not a shard of `array`.
    """
    for offset, size in _index_of(data, array).tolist():
        yield data[offset : offset + size]


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
            self._builder.encode(chunk)

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
    each = array.chunks_per_row
    index = np.full((_slots(array), 2), _MISSING, "<u8")
    taken: list[tuple[memoryview, npt.NDArray[np.int64]]] = []
    filled = 0
    number = 0
    for data, start, count in parts:
        chunks = _index_of(data, array)[start * each : (start + count) * each]
        if len(chunks) != count * each:
            raise DatasetDamagedError("A shard holds fewer cells than it must.")
        if not len(chunks):
            continue
        view = memoryview(data)
        for offset, size in chunks.tolist():
            # Damage is not to be carried into a new shard.
            if _checksum(view[offset : offset + size - 4]) != view[offset + size - 4 : offset + size]:
                raise DatasetDamagedError("A chunk's checksum does not fit its bytes.")
        ends = filled + np.cumsum(chunks[:, 1])
        index[number : number + len(chunks), 0] = ends - chunks[:, 1]
        index[number : number + len(chunks), 1] = chunks[:, 1]
        taken.append((view, chunks))
        number += len(chunks)
        filled = int(ends[-1])
    joined = np.empty(filled + index.nbytes + 4, np.uint8).data
    filled = 0
    for view, chunks in taken:
        for first, last in _runs(chunks):
            joined[filled : filled + last - first] = view[first:last]
            filled += last - first
    _put_index(index, joined[filled:])
    return joined


def _runs(chunks: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last byte of chunks, shape (n, 2); those that lie one behind the other are one run."""
    ends = chunks.sum(axis=1)
    breaks = np.flatnonzero(chunks[1:, 0] != ends[:-1])
    return list(
        zip(
            chunks[np.r_[0, breaks + 1], 0].tolist(),
            ends[np.r_[breaks, len(chunks) - 1]].tolist(),
            strict=True,
        )
    )


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
