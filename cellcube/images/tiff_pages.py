"""The pixels of one TIFF series as an array that reads only the pages a slice needs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcube.errors import CellcubeError, TruncatedImageError
from cellcube.images.axes import native
from cellcube.images.protocol import Pixels


class TiffPages:
    """A TIFF series as a sliceable array.

    A page holds the last axes of the array; the axes before are counted by pages. Uncompressed pages are read row by
    row, others are decoded as a whole; the last one decoded is kept, for the samples of an RGB page.

    Parameters
    ----------
    series : tifffile.TiffPageSeries
    path : str
        Named in errors.

    Raises
    ------
    cellcube.errors.TruncatedImageError
        Where the series promises more planes than the file has.
    """

    def __init__(self, series: Any, path: str) -> None:
        self.shape: tuple[int, ...] = tuple(int(size) for size in series.shape)
        self.dtype: np.dtype[Any] = native(series.dtype)
        self._told = str(series.axes)
        self._path = path
        self._pages: list[Any] = list(series.pages)
        self._key = series.keyframe
        self._decoded: tuple[int, Pixels] | None = None
        self._sizes: dict[str, int] = {}
        self._opened: list[Any] = []
        page_size = math.prod(self._key.shape)
        fits = [k for k in range(len(self.shape) + 1) if math.prod(self.shape[k:]) == page_size]
        if not fits or page_size == 0:
            raise TruncatedImageError(
                f"The file promises the shape {self.shape}, which does not divide into its pages of "
                f"{tuple(self._key.shape)}.",
                path=path,
            )
        self._outer, self._inner = self.shape[: fits[-1]], self.shape[fits[-1] :]
        planes = math.prod(self._outer)
        # Some writers describe only the first page and store the others right behind it.
        self._behind = len(self._pages) == 1 and planes > 1
        self._raw = bool(self._key.is_contiguous and self._key.is_final and self._key.fillorder == 1)
        if len(self._pages) < planes and not (self._behind and self._raw):
            raise self._missing(len(self._pages), f"the file has {len(self._pages)} of {planes} planes")

    def check(self, at: Sequence[int | slice]) -> None:
        """Check that the bytes of all planes in an index of the array are there, without reading them.

        Raises
        ------
        cellcube.errors.TruncatedImageError
            Names the first plane that is not.
        """
        for plane, _ in self._planes(at):
            page = self._pages[0 if self._behind else plane]
            if page is None:
                raise self._missing(plane, "the file it should be in is missing or lacks it")
            size = self._file_size(page)
            if self._raw:
                if len(page.dataoffsets) == 0 or page.dataoffsets[0] <= 0:
                    raise self._missing(plane, "the file does not say where it is")
                start = page.dataoffsets[0] + (plane * self._page_bytes if self._behind else 0)
                if start + self._page_bytes > size:
                    raise self._missing(plane, _cut_short("it", start + self._page_bytes, size))
                continue
            if len(page.dataoffsets) < math.prod(self._key.chunked):
                raise self._missing(plane, "the file does not say where all its strips or tiles are")
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                if offset <= 0 or count <= 0:
                    raise self._missing(plane, "a strip or tile of it is empty")
                if offset + count > size:
                    raise self._missing(plane, _cut_short("a strip or tile of it", offset + count, size))

    def __getitem__(self, index: Any) -> Pixels:
        at: tuple[int | slice, ...] = index
        self.check(at)
        inner = at[len(self._outer) :]
        outer_sizes, inner_sizes = _lengths(at[: len(self._outer)], self._outer), _lengths(inner, self._inner)
        out: Pixels = np.empty((math.prod(outer_sizes), *inner_sizes), self.dtype)
        for plane, position in self._planes(at):
            out[position] = self._read(plane, inner)
        return out.reshape((*outer_sizes, *inner_sizes))

    def close(self) -> None:
        """Close the files of a set that were opened for reading."""
        while self._opened:
            self._opened.pop().close()
        self._decoded = None

    @property
    def _page_bytes(self) -> int:
        return math.prod(self._inner) * self.dtype.itemsize

    def _planes(self, at: Sequence[int | slice]) -> Any:
        """(plane number in the series, position in the answer) of all planes that an index touches."""
        ranges = [
            range(*part.indices(size)) if isinstance(part, slice) else (int(part),)
            for part, size in zip(at, self._outer, strict=False)
        ]
        for position, where in enumerate(itertools.product(*ranges)):
            yield (int(np.ravel_multi_index(where, self._outer)) if where else 0), position

    def _read(self, plane: int, inner: tuple[int | slice, ...]) -> Pixels:
        try:
            if self._raw:
                return self._read_rows(plane, inner)
            if self._decoded is None or self._decoded[0] != plane:
                page = self._pages[plane]
                self._open(page)
                # Decoding in the caller's thread: what runs in parallel is decided elsewhere.
                self._decoded = (plane, page.asarray(maxworkers=1).reshape(self._inner))
            return self._decoded[1][inner]
        except CellcubeError:
            raise
        except (MemoryError, NotImplementedError):
            raise
        except Exception as error:
            raise self._missing(plane, f"it does not decode: {type(error).__name__}: {error}") from error

    def _read_rows(self, plane: int, inner: tuple[int | slice, ...]) -> Pixels:
        """Only the part of an uncompressed page that the first of its axes needs."""
        page = self._pages[0 if self._behind else plane]
        handle = self._open(page)
        first = inner[0]
        start, stop, _ = first.indices(self._inner[0]) if isinstance(first, slice) else (first, first + 1, 1)
        rows = max(stop - start, 0)
        row_bytes = self._page_bytes // self._inner[0]
        offset = page.dataoffsets[0] + (plane * self._page_bytes if self._behind else 0) + start * row_bytes
        data = np.empty(rows * row_bytes, np.uint8)
        with handle.lock:
            handle.seek(offset)
            held = handle.readinto(data)
        if held != len(data):
            raise self._missing(plane, f"the file ends {len(data) - held} bytes too early")
        stored = self.dtype.newbyteorder(">" if page.parent.byteorder == ">" else "<")
        block = data.view(stored).reshape((rows, *self._inner[1:]))
        return block[(0 if not isinstance(first, slice) else slice(None), *inner[1:])]

    def _open(self, page: Any) -> Any:
        handle = page.parent.filehandle
        if handle.closed:
            handle.open()
            self._opened.append(handle)
        return handle

    def _file_size(self, page: Any) -> int:
        name = str(page.parent.filehandle.path)
        if name not in self._sizes:
            self._sizes[name] = Path(name).stat().st_size
        return self._sizes[name]

    def _missing(self, plane: int, why: str) -> TruncatedImageError:
        where = np.unravel_index(plane, self._outer) if self._outer else ()
        names = ", ".join(f"{letter}={number}" for letter, number in zip(self._told, where, strict=False))
        return TruncatedImageError(f"Plane {names or plane} cannot be read: {why}.", path=self._path)


def _cut_short(what: str, stop: int, size: int) -> str:
    return f"the file is cut short: {what} should reach to byte {stop}, and the file ends at byte {size}"


def _lengths(at: Sequence[int | slice], sizes: Sequence[int]) -> list[int]:
    """Sizes of the axes that an index leaves."""
    return [len(range(*part.indices(size))) for part, size in zip(at, sizes, strict=True) if isinstance(part, slice)]
