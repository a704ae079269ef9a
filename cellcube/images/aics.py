"""aicsimageio 4.14, for whoever has it installed; bioio is its successor."""

from __future__ import annotations

import warnings
from typing import Any

from cellcube.errors import ImageError, MissingDependencyError, NotAnImageError
from cellcube.images.dasked import dask_fov
from cellcube.images.files import LocalFile, image_errors
from cellcube.images.protocol import FovReader, ImageSource

INSTALL = "pip install --no-deps aicsimageio==4.14.0 resource-backed-dask-array"


def open_aicsimageio(source: ImageSource) -> FovReader:
    """Open one scene by `aicsimageio.AICSImage`; a `ReaderFactory`.

    Its requirements forbid Zarr 3, so it is installed without them and runs beside the newer packages.

    Raises
    ------
    cellcube.errors.MissingDependencyError
        Where it is not installed.
    cellcube.errors.NotAnImageError, cellcube.errors.ImageNotFoundError, cellcube.errors.ImageAccessError
    cellcube.errors.AxesError, cellcube.errors.SceneError
    """
    local = LocalFile(source)
    try:
        with warnings.catch_warnings(action="ignore"):
            image_class, reader_class = _import(local.path)
            with image_errors(source.path, NotAnImageError, "is refused by aicsimageio"):
                reader = image_class(local.path, reader=reader_class).reader
            with image_errors(source.path, ImageError, "could not be opened"):
                return dask_fov(reader, source, on_close=local.close)
    except BaseException:
        local.close()
        raise


def _import(name: str) -> tuple[Any, Any]:
    """AICSImage, and the reader class that it must use for a file; None leaves the choice to it."""
    import tifffile

    # aicsimageio looks an enumeration up where older versions of tifffile had it.
    old_place = type(tifffile.TIFF)
    if not hasattr(old_place, "RESUNIT"):
        old_place.RESUNIT = tifffile.RESUNIT
    try:
        from aicsimageio import AICSImage

        if not _is_ome_tiff(name):
            return AICSImage, None
        # Left alone, it falls back to a reader that loses all metadata where this one cannot be imported.
        from aicsimageio.readers.ome_tiff_reader import OmeTiffReader
    except ImportError as error:
        top = (error.name or "aicsimageio").partition(".")[0]
        raise MissingDependencyError(
            f"aicsimageio cannot be imported: {error}.",
            remedy=INSTALL if top in ("aicsimageio", "resource_backed_dask_array") else f"pip install {top}",
        ) from error
    return AICSImage, OmeTiffReader


def _is_ome_tiff(name: str) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(name) as tif:
            return bool(tif.is_ome)
    except tifffile.TiffFileError:
        return False
