"""Byte ranges of the objects of a cube, from a disk or from a store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from cellcube.errors import DatasetAccessError
from cellcube.location import Location
from cellcube.urls import public_url

# Largest gap between two ranges, and largest range, that are read at one time. From a disk, only what is small is read
# together: its parts are copied once more, which costs more than a call. From a store, a gap costs less than a request;
# and what is large is asked for in several, which are under way at one time.
_LOCAL = (8 * 1024, 64 * 1024)
_REMOTE = (64 * 1024, 8 * 1024**2)
# Requests under way at one time; the store's own client may allow fewer connections.
_CONCURRENT = 64

Range = tuple[str, int, int | None]


def limits_of(cube: Location) -> tuple[int, int]:
    """Bytes between two ranges up to which they are read as one, and bytes that such a range has at most."""
    return _LOCAL if cube.is_local else _REMOTE


def read_ranges(cube: Location, ranges: Sequence[Range]) -> Iterator[bytes | None]:
    """The bytes of ranges, in their order.

    Parameters
    ----------
    cube : Location
    ranges : sequence of (str, int, int or None)
        Path of an object inside the store, first byte, and the byte after the last. A negative first byte counts from
        the end, and goes with None. Those of one object follow each other.

    Yields
    ------
    bytes or None
        None where there is no such object. What ends early is shorter than was asked for.

    Raises
    ------
    DatasetAccessError
        Where the object may not be read or the store cannot be reached.
    """
    return _read_local(cube, ranges) if cube.is_local else _read_remote(cube, ranges)


def _read_local(cube: Location, ranges: Sequence[Range]) -> Iterator[bytes | None]:
    opened, handle = "", -1
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
            yield _pread(handle, start, (end or 0) - start)
    except OSError as error:
        raise _unreachable(cube, opened, error) from error
    finally:
        _close(handle)


def _pread(handle: int, start: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        data = os.pread(handle, size, start)
        # A read of much may give less at once.
        while 0 < len(data) < size:
            more = os.pread(handle, size - len(data), start + len(data))
            if not more:
                break
            data += more
        return data
    os.lseek(handle, start, os.SEEK_SET)
    return os.read(handle, size)


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)


def _read_remote(cube: Location, ranges: Sequence[Range]) -> Iterator[bytes | None]:
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
            yield bytes(data)


def _unreachable(cube: Location, key: str, error: BaseException) -> DatasetAccessError:
    return DatasetAccessError(
        f"The object {key} cannot be read: {type(error).__name__}: {error}.",
        path=public_url(f"{cube.url}/{key}"),
        remedy="Check the address, the network and the storage options.",
    )
