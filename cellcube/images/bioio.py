"""Every format that bioio has a plug-in for."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellcube.errors import MissingDependencyError, NotAnImageError, TruncatedImageError
from cellcube.images.dasked import dask_fov
from cellcube.images.files import LocalFile, image_errors, suffix
from cellcube.images.omezarr import is_zarr, open_level
from cellcube.images.protocol import FovReader, ImageSource
from cellcube.urls import is_remote, local_path

# suffix: (module of the plug-in, what pip installs)
PLUGINS = {
    ".nd2": ("bioio_nd2", "cellcube[nd2]"),
    ".czi": ("bioio_czi", "cellcube[czi]"),
    ".lif": ("bioio_lif", "cellcube[lif]"),
    ".png": ("bioio_imageio", "cellcube[imageio]"),
    ".jpg": ("bioio_imageio", "cellcube[imageio]"),
    ".jpeg": ("bioio_imageio", "cellcube[imageio]"),
    ".bmp": ("bioio_imageio", "cellcube[imageio]"),
    ".gif": ("bioio_imageio", "cellcube[imageio]"),
    ".zarr": ("bioio_ome_zarr", "bioio-ome-zarr"),
    ".tif": ("bioio_ome_tiff", "bioio-ome-tiff"),
    ".tiff": ("bioio_ome_tiff", "bioio-ome-tiff"),
}
# A file that starts as its format must and still cannot be opened is damaged, not something else.
_MAGIC = {".nd2": b"\xda\xce\xbe\x0a", ".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".jpeg": b"\xff\xd8"}

_LONGEST_REASON = 160  # characters of what a plug-in says; some quote the file


def open_bioio(source: ImageSource) -> FovReader:
    """Open one scene by the bioio plug-in for the file's suffix; a `ReaderFactory`.

    Only metadata are read here, where the plug-in allows it. A remote file is copied to a temporary one until the
    reader is closed; a remote Zarr store is read in place.

    Raises
    ------
    cellcube.errors.MissingDependencyError
        Names what installs the plug-in.
    cellcube.errors.NotAnImageError
        Where the plug-in refuses the file.
    cellcube.errors.TruncatedImageError
        Where a file of the right kind cannot be read.
    cellcube.errors.ImageNotFoundError, cellcube.errors.ImageAccessError
    cellcube.errors.AxesError, cellcube.errors.SceneError
    """
    if is_zarr(source.path):
        # bioio gives sizes without their unit and chunks that are not stored as zeros, so both come from here.
        level = open_level(source)
        name = source.path if is_remote(source.path) else str(local_path(source.path))
        reader = _plugin(name, ".zarr", source)
        options = {"fs_kwargs": dict(source.storage_options)}
        return _open(reader, name, source, options, voxel_size=level.voxel_size, check=level.check)
    local = LocalFile(source)
    kind = suffix(source.path)
    try:
        reader = _plugin(local.path, kind, source)
        return _open(reader, local.path, source, {}, on_close=local.close)
    except NotAnImageError as error:
        start = _MAGIC.get(kind)
        said = " ".join(f"{type(error.__cause__).__name__}: {error.__cause__}".split())
        text = f"The file starts as a {kind[1:].upper()} file must, and cannot be read: it is cut short or damaged."
        damaged = start is not None and _starts_with(local.path, start)
        local.close()
        if damaged:
            said = said if len(said) <= _LONGEST_REASON else said[:_LONGEST_REASON] + "…"
            raise TruncatedImageError(f"{text} bioio says: {said}", path=source.path) from error.__cause__
        raise
    except BaseException:
        local.close()
        raise


def _open(reader: Any, name: str, source: ImageSource, options: Mapping[str, Any], **fov: Any) -> FovReader:
    with image_errors(source.path, NotAnImageError, "is refused by bioio"), _third_party_warnings():
        return dask_fov(reader(name, **options), source, **fov)


def _plugin(name: str, kind: str, source: ImageSource) -> Any:
    """The Reader class of the plug-in; for an unknown suffix the one that bioio finds."""
    if kind in PLUGINS:
        module, install = PLUGINS[kind]
        try:
            with _third_party_warnings():
                return importlib.import_module(module).Reader
        except ImportError as error:
            raise MissingDependencyError(
                f"{module.replace('_', '-')} is needed to read {kind} files.",
                path=source.path,
                remedy=f'pip install "{install}"',
            ) from error
    with image_errors(source.path, NotAnImageError, "is of no kind that is known"), _third_party_warnings():
        from bioio import BioImage

        return BioImage.determine_plugin(name).metadata.get_reader()


def _starts_with(name: str, start: bytes) -> bool:
    with Path(name).open("rb") as file:
        return file.read(len(start)) == start


def _third_party_warnings() -> warnings.catch_warnings[None]:
    """Plug-ins warn about each other's versions, which no user of cellcube can change."""
    return warnings.catch_warnings(action="ignore")
