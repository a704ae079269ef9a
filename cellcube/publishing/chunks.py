"""Chosen cells out of shards, as they are encoded."""

from __future__ import annotations

from itertools import pairwise

import google_crc32c
import numpy as np
import numpy.typing as npt

from cellcube.cube import ArrayLayout
from cellcube.cube.shards import ShardBuilder, join_pieces
from cellcube.errors import DatasetDamagedError
from cellcube.location import Location
from cellcube.urls import public_url

Positions = npt.NDArray[np.int64]

# Of a shard of which this share is wanted, or more, everything is read at once.
_WHOLE = 0.5
# Bytes that are read for nothing rather than asking once more.
_GAP = 64 * 1024


def shard_of(cube: Location, array: ArrayLayout, positions: Positions, count: int) -> tuple[bytes, int]:
    """One shard of chosen cells.

    Parameters
    ----------
    cube : Location
        Where they are.
    array : ArrayLayout
    positions : ndarray of int64
        Places of the cells there, ascending.
    count : int
        Cells of the cube.

    Returns
    -------
    bytes
        A shard that holds these cells in this order; their chunks byte for byte where a chunk is of one cell.
    int
        Bytes that were read.

    Raises
    ------
    cellcube.errors.DatasetDamagedError
        Where a shard is missing, or a checksum does not fit.
    """
    numbers = positions // array.shard_cells
    builder, read = ShardBuilder(array), 0
    parts: list[tuple[bytes, int, int]] = []
    for number in np.unique(numbers):
        source = cube / array.shard_key(int(number))
        slots = positions[numbers == number] - number * array.shard_cells
        held = min(array.shard_cells, count - int(number) * array.shard_cells)
        try:
            if array.chunk_cells > 1:
                data = source.read()
                read += len(data)
                parts += [(data, start, length) for start, length in _stretches(slots)]
            else:
                chunks, size = _chunks(source, slots, array, len(slots) >= _WHOLE * held)
                read += size
                for chunk in chunks:
                    builder.add(chunk)
        except FileNotFoundError as error:
            raise DatasetDamagedError("A shard is missing.", path=public_url(source.url)) from error
        except DatasetDamagedError as error:
            error.path = public_url(source.url)
            raise
    return bytes(join_pieces(parts, array) if parts else builder.finish()), read


def _stretches(slots: Positions) -> list[tuple[int, int]]:
    """(first, length) of the stretches without gaps."""
    breaks = np.flatnonzero(np.diff(slots) != 1) + 1
    return [(int(part[0]), len(part)) for part in np.split(slots, breaks)]


def _chunks(source: Location, slots: Positions, array: ArrayLayout, whole: bool) -> tuple[list[bytes], int]:
    """The chunks of cells of a shard whose chunks are of one cell each, and how many bytes were read."""
    each = array.chunks_per_row
    length = array.shard_cells * each * 16
    data = source.read() if whole else b""
    tail = data[-length - 4 :] if whole else source.read(-length - 4)
    if len(tail) != length + 4 or _checksum(tail[:-4]) != tail[-4:]:
        raise DatasetDamagedError("The shard's index is damaged.")
    index = np.frombuffer(tail[:-4], "<u8").reshape(array.shard_cells, each, 2)[slots].reshape(-1, 2)
    if (index == 2**64 - 1).any():
        raise DatasetDamagedError("A shard holds fewer cells than it must.")
    ranges = [(int(start), int(start + size)) for start, size in index]
    read = len(data) if whole else len(tail)
    chunks: list[bytes] = []
    for group in [ranges] if whole else _together(ranges):
        first, last = group[0][0], group[-1][1]
        held = data[first:last] if whole else source.read(first, last)
        read += 0 if whole else len(held)
        chunks += [held[start - first : end - first] for start, end in group]
    for chunk, (start, end) in zip(chunks, ranges, strict=True):
        # Damage is not to be carried into a new shard.
        if len(chunk) != end - start or _checksum(chunk[:-4]) != chunk[-4:]:
            raise DatasetDamagedError("A chunk's checksum does not fit its bytes.")
    return chunks, read


def _together(ranges: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Ranges that are read with one request each group."""
    groups = [[ranges[0]]]
    for before, each in pairwise(ranges):
        if 0 <= each[0] - before[1] <= _GAP:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _checksum(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")
