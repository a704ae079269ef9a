"""Byte ranges of the objects of a cube, from a disk or from a store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cellcube.errors import DatasetAccessError
from cellcube.location import Location
from cellcube.urls import public_url

# Largest gap between two ranges, and largest range, that are read at one time. From a disk, only what is small is read
# together, so that it is still in the processor's cache when it is decoded. From a store, a gap costs less than a
# request; and what is large is asked for in several, which are under way at one time.
_LOCAL = (8 * 1024, 256 * 1024)
_REMOTE = (64 * 1024, 8 * 1024**2)
# Requests under way at one time; the store's own client may allow fewer connections.
_CONCURRENT = 64

Range = tuple[str, int, int | None]
Bytes = npt.NDArray[np.uint8]


def limits_of(cube: Location) -> tuple[int, int]:
    """Bytes between two ranges up to which they are read as one, and bytes that such a range has at most."""
    return _LOCAL if cube.is_local else _REMOTE


def read_ranges(cube: Location, ranges: Sequence[Range]) -> Iterator[Bytes | None]:
    """The bytes of ranges, in their order.

    Parameters
    ----------
    cube : Location
    ranges : sequence of (str, int, int or None)
        Path of an object inside the store, first byte, and the byte after the last. A negative first byte counts from
        the end, and goes with None. Those of one object follow each other.

    Yields
    ------
    ndarray of uint8, or None
        None where there is no such object. What ends early is shorter than was asked for. From a disk, the same
        memory is used for all: what is to be kept beyond the next range must be copied.

    Raises
    ------
    DatasetAccessError
        Where the object may not be read or the store cannot be reached.
    """
    return _read_local(cube, ranges) if cube.is_local else _read_remote(cube, ranges)


def _read_local(cube: Location, ranges: Sequence[Range]) -> Iterator[Bytes | None]:
    opened, handle = "", -1
    # Memory that was used before is in the cache; the system would have to clear what it gives anew.
    room = np.empty(max((-start if start < 0 else (end or 0) - start for _, start, end in ranges), default=0), np.uint8)
    try:
        for key, start, end in ranges:
            if key != opened:
                _close(handle)
                opened, handle = key, -1
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    handle = os.open(f"{cube.url}/{key}", os.O_RDONLY | getattr(os, "O_BINARY", 0))
            if handle < 0:
                yield None
                continue
            if start < 0:
                size = os.fstat(handle).st_size
                start, end = max(0, size + start), size
            yield room[: _read_into(room[: max(0, (end or 0) - start)].data, handle, start)]
    except OSError as error:
        raise _unreachable(cube, opened, error) from error
    finally:
        _close(handle)


def _read_into(room: memoryview, handle: int, start: int) -> int:
    """Fill `room` from a place of a file. Gives the number of bytes, which is less at the end of the file."""
    done = 0
    while done < len(room):
        # A read of much may give less at once.
        if hasattr(os, "preadv"):
            count = os.preadv(handle, [room[done:]], start + done)
        else:
            os.lseek(handle, start + done, os.SEEK_SET)
            data = os.read(handle, len(room) - done)
            count = len(data)
            room[done : done + count] = data
        if not count:
            break
        done += count
    return done


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)


def _read_remote(cube: Location, ranges: Sequence[Range]) -> Iterator[Bytes | None]:
    if not ranges:
        return
    fs, root = cube._fs()
    options = {"batch_size": _CONCURRENT} if fs.plain.async_impl else {}
    keys, starts, ends = zip(*ranges, strict=True)
    try:
        found = fs.cat_ranges([f"{root}/{key}" for key in keys], list(starts), list(ends), on_error="return", **options)
    except OSError as error:
        raise _unreachable(cube, keys[0], error) from error
    for key, data in zip(keys, found, strict=True):
        if isinstance(data, FileNotFoundError):
            yield None
        elif isinstance(data, BaseException):
            raise _unreachable(cube, key, data) from data
        else:
            yield np.frombuffer(data, np.uint8)


def _unreachable(cube: Location, key: str, error: BaseException) -> DatasetAccessError:
    return DatasetAccessError(
        f"The object {key} cannot be read: {type(error).__name__}: {error}.",
        path=public_url(f"{cube.url}/{key}"),
        remedy="Check the address, the network and the storage options.",
    )
