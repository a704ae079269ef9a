"""Pixels of any cells, straight from the shards: index, byte ranges, checksum, decoding into the batch."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cellcube.cube import ArrayLayout
from cellcube.errors import DatasetDamagedError
from cellcube.location import Location
from cellcube.training.memory import Recycled
from cellcube.training.ranges import Bytes, limits_of, read_ranges
from cellcube.urls import public_url

Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[Any]
Names = Sequence[str] | npt.NDArray[Any]

_MISSING = 2**64 - 1
_CHECKSUM = 4
# The CRC-32C of anything with its own CRC-32C, little-endian, behind it.
_RESIDUE = 0x48674BC7
# Of shard indexes that are kept.
_CACHE_BYTES = 64 * 1024**2
# What one task decodes at least, uncompressed: less is not worth handing over.
_TASK_BYTES = 1024**2


@dataclass(frozen=True)
class Plan:
    """The chunks that some cells need, in the order of the store.

    Parameters
    ----------
    chunks : ndarray of int64, shape (chunk,)
        Number of each chunk in the array, ascending.
    edges : ndarray of int64, shape (chunk + 1,)
        Which of `rows`, `within` and `parts` belong to each chunk.
    rows : ndarray of int64
        Which of the cells.
    within : ndarray of int64
        Where the cell is in the chunk.
    parts : ndarray of int64
        Which of the channels asked for; 0 where a chunk holds all.
    """

    chunks: Ints
    edges: Ints
    rows: Ints
    within: Ints
    parts: Ints

    def slices(self, count: int) -> list[slice]:
        """The chunks in at most `count` parts of the same size."""
        edges = np.linspace(0, len(self.chunks), min(count, max(1, len(self.chunks))) + 1).astype(int).tolist()
        return [slice(start, stop) for start, stop in pairwise(edges)]


class ShardReader:
    """Reads cells of one array of pixels. Safe to use from several threads; pickles without what it has cached.

    It keeps indexes of shards, and the memory of two batches.

    Parameters
    ----------
    cube : Location
        Of the Zarr store.
    array : ArrayLayout
    channels : tuple of int, optional
        Which channels, in this order; None is all of them. Where a chunk holds one channel, no other is read.
    """

    def __init__(self, cube: Location, array: ArrayLayout, channels: tuple[int, ...] | None = None) -> None:
        self._cube, self._array, self._channels = cube, array, channels
        self._split = array.chunk != array.item
        self._dtype = np.dtype(array.dtype).newbyteorder("<")
        self._slots = array.shard_cells // array.chunk_cells * array.chunks_per_row
        self._columns = np.array(channels if channels and self._split else range(array.chunks_per_row), np.int64)
        chunk = array.chunk if array.axes[1] == "c" else (1, *array.chunk)
        self._chunk_shape = (array.chunk_cells, chunk[0], *[1] * (4 - len(chunk)), *chunk[1:])
        self._chunk_bytes = math.prod(self._chunk_shape) * self._dtype.itemsize
        self._indexes: OrderedDict[int, npt.NDArray[np.uint64]] = OrderedDict()
        self._lock = threading.Lock()
        self._memory = Recycled()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._cube, self._array, self._channels)

    @property
    def item(self) -> tuple[int, int, int, int]:
        """Shape (c, z, y, x) of a cell. Of a projection z is 1 and y and x are its two axes; of a mask c is 1."""
        stored = self._array.item[0] if self._array.axes[1] == "c" else 1
        z, y, x = self._chunk_shape[2:]
        return len(self._channels) if self._channels else stored, z, y, x

    @property
    def cell_bytes(self) -> int:
        """Uncompressed bytes of a cell that are read."""
        return self._chunk_bytes // self._array.chunk_cells * len(self._columns)

    def plan(self, positions: Ints) -> Plan:
        """Which chunks hold cells.

        Parameters
        ----------
        positions : ndarray of int64, shape (n,)
            Along the cell axis of the cube.
        """
        row, within = np.divmod(np.asarray(positions, np.int64), self._array.chunk_cells)
        each = len(self._columns)
        chunks = (row[:, None] * self._array.chunks_per_row + self._columns).ravel()
        order = np.argsort(chunks, kind="stable")
        found, edges = np.unique(chunks[order], return_index=True)
        rows = order // each
        return Plan(found, np.append(edges, len(chunks)), rows, within[rows], order % each)

    def fetch(self, plan: Plan, names: Names, part: slice = slice(None)) -> list[Bytes]:
        """The bytes of chunks of a plan, to be kept; see `stream`."""
        chunks = self.stream(plan, names, part)
        return [chunk.copy() for chunk in chunks] if self._cube.is_local else list(chunks)

    def stream(self, plan: Plan, names: Names, part: slice = slice(None)) -> Iterator[Bytes]:
        """The bytes of chunks of a plan, each with its checksum, in their order.

        Parameters
        ----------
        plan : Plan
        names : sequence of str
            Identifiers of the cells, for errors.
        part : slice
            Which of the chunks.

        Yields
        ------
        ndarray of uint8
            From a disk, valid until the next one is asked for.

        Raises
        ------
        DatasetDamagedError
            Where a shard or a chunk is not there.
        DatasetAccessError
        """
        chunks = plan.chunks[part]
        first = part.indices(len(plan.chunks))[0]

        def blame(number: int) -> tuple[int, str]:
            return int(chunks[number]), str(names[plan.rows[plan.edges[first + number]]])

        shards, slots = np.divmod(chunks, self._slots)
        spans = np.empty((len(chunks), 2), np.uint64)
        starts = np.flatnonzero(np.diff(shards, prepend=-1))
        indexes = self._read_indexes(shards[starts].tolist(), [blame(start) for start in starts.tolist()])
        for index, start, stop in zip(indexes, starts, [*starts[1:], len(chunks)], strict=True):
            spans[start:stop] = index[slots[start:stop]]
        absent = np.flatnonzero(spans[:, 0] == _MISSING)
        if len(absent):
            raise self._damaged(*blame(int(absent[0])), "a chunk is missing")
        begin, end = spans[:, 0].astype(np.int64), spans.sum(axis=1).astype(np.int64)
        groups = _joined(shards, begin, end, *limits_of(self._cube))
        ranges = [(self._key(int(shards[a])), int(begin[a]), int(end[b - 1])) for a, b in groups]
        for (a, b), (_, offset, stop), data in zip(groups, ranges, read_ranges(self._cube, ranges), strict=True):
            if data is None:
                raise self._damaged(*blame(a), "the object is missing")
            if len(data) != stop - offset:
                raise self._damaged(*blame(a), f"{stop - offset} bytes were asked for and {len(data)} came")
            for i in range(a, b):
                yield data[begin[i] - offset : end[i] - offset]

    def decode(self, plan: Plan, data: Iterable[Bytes], out: Pixels, names: Names, first: int = 0) -> None:
        """Put chunks into a batch.

        Parameters
        ----------
        plan : Plan
        data : iterable of ndarray of uint8
            Of the chunks from `first` on.
        out : ndarray, shape (n, c, z, y, x)
        names : sequence of str
            Identifiers of the cells, for errors.
        first : int

        Raises
        ------
        DatasetDamagedError
            Where a checksum does not fit.
        """
        whole = self._array.chunk_cells == 1 and (self._split or self._channels is None)
        # One row a chunk, where a chunk is a part of the batch as it is.
        flat = out.reshape(len(out) * len(self._columns), -1).view(np.uint8) if whole else None
        columns = len(self._columns)
        # Lists, as reading one number of an array takes longer than all of a list.
        edges, rows, parts = plan.edges.tolist(), plan.rows.tolist(), plan.parts.tolist()
        for number, chunk in enumerate(data, first):
            start, stop = edges[number], edges[number + 1]
            row = rows[start]
            target = np.empty(self._chunk_bytes, np.uint8) if flat is None else flat[row * columns + parts[start]]
            wrong = self._unpack(chunk, target)
            if wrong:
                raise self._damaged(int(plan.chunks[number]), str(names[row]), wrong)
            if flat is None:
                self._scatter(target, plan, slice(start, stop), out)
            else:
                for entry in range(start + 1, stop):
                    flat[rows[entry] * columns + parts[entry]] = target

    def _scatter(self, chunk: npt.NDArray[np.uint8], plan: Plan, entries: slice, out: Pixels) -> None:
        """Put the cells of a chunk, or the channels that are wanted, into a batch."""
        cells = chunk.view(self._dtype).reshape(self._chunk_shape)
        wanted = list(self._channels) if self._channels and not self._split else slice(None)
        for row, within, part in zip(plan.rows[entries], plan.within[entries], plan.parts[entries], strict=True):
            out[row, slice(part, part + 1) if self._split else slice(None)] = cells[within, wanted]

    def read(
        self,
        positions: Ints,
        names: Names,
        pool: Executor | None = None,
        threads: int = 1,
        held: Mapping[int, Bytes] | None = None,
    ) -> Pixels:
        """Pixels of cells.

        Parameters
        ----------
        positions : ndarray of int64, shape (n,)
            Along the cell axis of the cube.
        names : sequence of str
            Their identifiers, for errors.
        pool : Executor, optional
            Where to decode, in at most `threads` parts.
        threads : int
        held : mapping of int to ndarray of uint8, optional
            Chunks that were fetched before, by their number.

        Returns
        -------
        ndarray, shape (n, c, z, y, x)

        Raises
        ------
        DatasetDamagedError
            Where anything is missing or changed: names the object and the cell.
        DatasetAccessError
        """
        plan = self.plan(positions)
        out = self._memory.empty((len(positions), *self.item), self._dtype)
        most = max(1, min(threads, len(plan.chunks) * self._chunk_bytes // _TASK_BYTES))
        data: list[Bytes] | None = None
        if held is not None:
            data = [held[chunk] for chunk in plan.chunks.tolist()]
        elif not self._cube.is_local:
            # All requests at once; those of a disk are made by the threads that decode.
            data = self.fetch(plan, names)

        def work(part: slice) -> None:
            self.decode(plan, self.stream(plan, names, part) if data is None else data[part], out, names, part.start)

        parts = plan.slices(most)
        if pool is None or len(parts) == 1:
            for part in parts:
                work(part)
        else:
            tasks = [pool.submit(work, part) for part in parts]
            for task in tasks:
                task.result()
        return out

    def _unpack(self, chunk: Bytes, target: npt.NDArray[np.uint8]) -> str:
        """Check and decode a chunk into `target`. Gives what is wrong with it, or nothing."""
        import imagecodecs

        if len(chunk) <= _CHECKSUM or google_crc32c.value(chunk) != _RESIDUE:
            return "a checksum does not fit"
        packed: Any = chunk[:-_CHECKSUM]
        codec = self._array.codec
        try:
            if codec == "none":
                size = len(packed)
                target[:] = packed
            elif codec == "zstd":
                size = len(imagecodecs.zstd_decode(packed, out=target.data))
            else:
                # One thread a chunk: several chunks are decoded at one time.
                size = len(imagecodecs.blosc_decode(packed, out=target.data, numthreads=1))
        except Exception as error:
            return f"a chunk does not decode: {error}"
        return "" if size == self._chunk_bytes else "a chunk has another size"

    def _read_indexes(self, shards: list[int], blame: list[tuple[int, str]]) -> list[npt.NDArray[np.uint64]]:
        """(offset, size) of every slot of shards."""
        size = self._slots * 16 + _CHECKSUM
        with self._lock:
            new = [number for number, shard in enumerate(shards) if shard not in self._indexes]
            ranges = [(self._key(shards[number]), -size, None) for number in new]
            found = {number: self._indexes[shard] for number, shard in enumerate(shards) if shard in self._indexes}
            for number, data in zip(new, read_ranges(self._cube, ranges), strict=True):
                if data is None:
                    raise self._damaged(*blame[number], "the object is missing")
                if len(data) != size or google_crc32c.value(data) != _RESIDUE:
                    raise self._damaged(*blame[number], "the shard's index is damaged")
                index = data[:-_CHECKSUM].copy().view("<u8").reshape(-1, 2)
                found[number] = self._indexes[shards[number]] = index
            for shard in shards:
                self._indexes.move_to_end(shard)
            while len(self._indexes) > max(16, _CACHE_BYTES // size):
                self._indexes.popitem(last=False)
        return [found[number] for number in range(len(shards))]

    def _key(self, shard: int) -> str:
        return self._array.shard_key(shard)

    def _damaged(self, chunk: int, name: str, what: str) -> DatasetDamagedError:
        key = self._key(chunk // self._slots)
        return DatasetDamagedError(
            f"The pixels of the cell {name!r} cannot be read from {key}: {what}.",
            cell_id=name,
            path=public_url(f"{self._cube.url}/{key}"),
            remedy="Copy the dataset again, or rebuild it.",
        )


def _joined(shards: Ints, begin: Ints, end: Ints, gap: int, most: int) -> list[tuple[int, int]]:
    """Which chunks are read together: (first, after the last) of each range; gaps and ranges up to so many bytes."""
    apart = np.flatnonzero((np.diff(shards) != 0) | (begin[1:] - end[:-1] > gap) | (begin[1:] < end[:-1])) + 1
    found = []
    for start, stop in zip([0, *apart.tolist()], [*apart.tolist(), len(begin)], strict=True):
        a = start
        while a < stop:
            b = max(a + 1, int(np.searchsorted(end[a:stop], begin[a] + most, side="right")) + a)
            found.append((a, b))
            a = b
    return found
