"""`open_image`: which reader opens an image, and what may escape from it."""

from __future__ import annotations

import importlib
from typing import Any, cast

import numpy as np

from cellcube.errors import ArgumentError, ImageError, NotAnImageError, did_you_mean
from cellcube.images.axes import check_region
from cellcube.images.files import head, image_errors, suffix
from cellcube.images.protocol import Closing, FovReader, ImageSource, Pixels, ReaderFactory, Region, VoxelSize

_MEMBERS = ("axes", "shape", "dtype", "channel_names", "voxel_size", "read", "close", "__enter__", "__exit__")


def _tifffile(source: ImageSource) -> FovReader:
    from cellcube.images.tiff import open_tiff

    return open_tiff(source)


def _bioio(source: ImageSource) -> FovReader:
    from cellcube.images.bioio import open_bioio

    return open_bioio(source)


def _aicsimageio(source: ImageSource) -> FovReader:
    from cellcube.images.aics import open_aicsimageio

    return open_aicsimageio(source)


def _omezarr(source: ImageSource) -> FovReader:
    from cellcube.images.omezarr import OmeZarrReader

    return OmeZarrReader()(source)


def _omezarr_sparse(source: ImageSource) -> FovReader:
    from cellcube.images.omezarr import OmeZarrReader

    return OmeZarrReader(sparse=True)(source)


def _auto(source: ImageSource) -> FovReader:
    from cellcube.images import bioio, tiff
    from cellcube.images.omezarr import is_zarr

    if is_zarr(source.path):
        return _omezarr(source)
    kind = suffix(source.path)
    if kind in tiff.SUFFIXES:
        return _tifffile(source)
    if kind not in bioio.PLUGINS and head(source).startswith(tiff.MAGIC):
        return _tifffile(source)
    return _bioio(source)


READERS: dict[str, ReaderFactory] = {
    "auto": _auto,
    "tifffile": _tifffile,
    "omezarr": _omezarr,
    "omezarr-sparse": _omezarr_sparse,
    "bioio": _bioio,
    "aicsimageio": _aicsimageio,
}


def find_reader(reader: str | ReaderFactory) -> ReaderFactory:
    """The factory behind a reader's name, ``"package.module:Class"`` or callable.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where there is none.
    """
    if callable(reader):
        return reader
    if not isinstance(reader, str):
        raise ArgumentError(f"A reader is a name or a callable, not {reader!r}.")
    if reader in READERS:
        return READERS[reader]
    module, colon, name = reader.partition(":")
    if not colon:
        raise ArgumentError(
            f"There is no reader {reader!r}. There are {', '.join(READERS)}, and any 'package.module:Class'.",
            remedy=did_you_mean(reader, READERS) or None,
        )
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(f"The reader {reader!r} cannot be imported: {error}.") from error
    if not callable(found):
        raise ArgumentError(f"The reader {reader!r} is not callable.")
    return cast(ReaderFactory, found)


def open_image(source: ImageSource, reader: str | ReaderFactory = "auto") -> GuardedFov:
    """Open one scene of an image at one timepoint.

    Parameters
    ----------
    source : ImageSource
        What to open.
    reader : str or callable
        ``"auto"``: tifffile for TIFF (by suffix or first bytes), zarr for OME-Zarr, bioio for everything else.
        ``"tifffile"``, ``"omezarr"``, ``"omezarr-sparse"`` (chunks that are not stored are empty ones), ``"bioio"``,
        ``"aicsimageio"``: that one. A callable or its ``"package.module:Class"``: a `ReaderFactory` of your own.

    Returns
    -------
    FovReader
        Whatever goes wrong in it raises an `cellcube.errors.ImageError` that names the path.

    Raises
    ------
    cellcube.errors.ImageError
        Where the image cannot be used; a subclass says why.
    cellcube.errors.ArgumentError
        Where there is no such reader, or it does not return a `FovReader`.
    cellcube.errors.MissingDependencyError
        Where a package is needed.
    """
    factory = find_reader(reader)
    with image_errors(source.path, NotAnImageError, "could not be opened"):
        fov = factory(source)
        missing = [name for name in _MEMBERS if not hasattr(fov, name)]
    if missing:
        named = getattr(factory, "__name__", repr(factory))
        raise ArgumentError(
            f"The reader {named} returned a {type(fov).__name__}, which is not a FovReader: it lacks "
            f"{', '.join(repr(name) for name in missing)}.",
            path=source.path,
        )
    try:
        return GuardedFov(fov, source.path)
    except BaseException:
        fov.close()
        raise


class GuardedFov(Closing):
    """A `FovReader` whose every failure is an `ImageError`, and whose pixels are what it promised.

    Parameters
    ----------
    fov : FovReader
    path : str
        Named in errors.
    """

    def __init__(self, fov: FovReader, path: str) -> None:
        self._fov = fov
        self._path = path

        with image_errors(path, NotAnImageError, "has metadata that cannot be read"):
            self.axes: str = fov.axes
            self.shape: tuple[int, int, int, int] = fov.shape
            self.dtype: np.dtype[Any] = fov.dtype
            self.channel_names: tuple[str, ...] | None = fov.channel_names
            self.voxel_size: VoxelSize = fov.voxel_size
            # Size (y, x) of the tiles that the image can be read by, where the reader tells one.
            self.tile: tuple[int, int] | None = getattr(fov, "tile", None)

    def read(self, channel: int, region: Region) -> Pixels:
        """See `FovReader.read`."""
        with image_errors(self._path, ImageError, "could not be read"):
            region = check_region(channel, region, self.shape, path=self._path)
            pixels = self._fov.read(channel, region)
            expected = tuple(part.stop - part.start for part in region)
            if pixels.shape != expected or pixels.dtype != self.dtype:
                raise ImageError(
                    f"The reader gave {pixels.dtype} pixels of shape {pixels.shape} where it promised {self.dtype} of "
                    f"shape {expected}.",
                    path=self._path,
                )
        return pixels

    def close(self) -> None:
        """Release files. May be called twice."""
        self._fov.close()
