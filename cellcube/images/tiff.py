"""TIFF in all its kinds, read by tifffile: the fast path."""

from __future__ import annotations

import logging
import struct
import warnings
from pathlib import Path
from typing import Any

from cellcube.errors import NotAnImageError, TruncatedImageError
from cellcube.images.array import ArrayFov
from cellcube.images.axes import Layout, match_voxel_size, settle_axes
from cellcube.images.files import LocalFile, image_errors
from cellcube.images.protocol import FovReader, ImageSource
from cellcube.images.scenes import pick_scene
from cellcube.images.tiff_metadata import describe, described_elsewhere, ome_files
from cellcube.images.tiff_pages import TiffPages

# What tifffile says of a damaged file is raised here as an error; without a handler Python prints it as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

SUFFIXES = frozenset(
    {".tif", ".tiff", ".stk", ".lsm", ".btf", ".tf2", ".tf8", ".flex", ".svs", ".scn", ".ndpi", ".qptiff"}
)
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIDE_IMAGES = frozenset({"label", "macro", "overview", "thumbnail", "map"})


def open_tiff(source: ImageSource) -> FovReader:
    """Open one scene of a TIFF file (plain, OME, ImageJ, MetaMorph and others); a `ReaderFactory`.

    Only metadata are read here. Palette images give their intensities, colour samples are channels. A remote file is
    copied to a temporary one until the reader is closed.

    Raises
    ------
    cellcube.errors.TruncatedImageError
        Where the metadata promise planes that are not in the file or set of files.
    cellcube.errors.NotAnImageError, cellcube.errors.ImageNotFoundError, cellcube.errors.ImageAccessError
    cellcube.errors.AxesError, cellcube.errors.SceneError
    """
    local = LocalFile(source)
    try:
        return _open(source, local)
    except BaseException:
        local.close()
        raise


def _open(source: ImageSource, local: LocalFile) -> FovReader:
    import tifffile

    path = source.path
    with Path(local.path).open("rb") as file:
        start = file.read(16)
    if not start.startswith(MAGIC):
        raise NotAnImageError(f"The file is not a TIFF: it starts with {start!r}.", path=path)
    with image_errors(path, TruncatedImageError, "has metadata that cannot be read"):
        tif = tifffile.TiffFile(local.path)
    try:
        with image_errors(path, TruncatedImageError, "has metadata that cannot be read"):
            every = list(tif.series)
            _check_promises(tif, every, path)
        scenes = _scenes(every)
        if not scenes:
            raise TruncatedImageError("The TIFF file has no image in it.", path=path)
        number = pick_scene(source.scene, [str(series.name or "") for series in scenes], path=path)
        series = scenes[number]
        with image_errors(path, TruncatedImageError, "has metadata that cannot be read"):
            pages = TiffPages(series, path)
            names, size = describe(tif, series, number)
            elsewhere = described_elsewhere(tif) if series.kind != "ome" else ""
        if elsewhere:
            warnings.warn(
                f"{path}: the file is a part of a multi-file OME-TIFF and is read alone, as an image of shape "
                f"{tuple(series.shape)}. The set is described in {elsewhere!r}, which is not read.",
                stacklevel=2,
            )
        told = series.axes
        letters = settle_axes(told, pages.shape, source.axes, path=path)
        # The planes of the other timepoints may be missing: an acquisition that was stopped.
        layout = Layout.of(letters, pages.shape, source.timepoint, path)
        with image_errors(path, TruncatedImageError, "has metadata that cannot be read"):
            pages.check([layout.timepoint if letter == "T" else slice(None) for letter in letters])
    except TruncatedImageError as error:
        missing = _missing_files(tif, local)
        tif.close()
        if missing:
            text = f"Files of this multi-file OME-TIFF are missing: {missing}. {error.message}"
            remedy = "Put the whole set into one local folder." if local.path != path else None
            raise TruncatedImageError(text, path=path, remedy=remedy) from error
        raise
    except BaseException:
        tif.close()
        raise

    def close() -> None:
        pages.close()
        tif.close()
        local.close()

    return ArrayFov(
        pages,
        letters,
        channel_names=names,
        voxel_size=match_voxel_size(size, told, letters),
        timepoint=source.timepoint,
        path=path,
        on_close=close,
    )


def _scenes(every: list[Any]) -> list[Any]:
    """The series that are images of the sample: no thumbnails, no reduced copies, no labels of a slide."""
    real = [
        series
        for series in every
        if not series.keyframe.is_reduced and str(series.name or "").strip().lower() not in _SIDE_IMAGES
    ]
    return real or every


def _check_promises(tif: Any, every: list[Any], path: str) -> None:
    """What tifffile only logs: a chain of pages that leads out of the file, fewer planes than ImageJ promises."""
    beyond = _page_beyond_end(tif)
    if beyond is not None:
        raise TruncatedImageError(
            f"The file is cut short: page {len(tif.pages)} (from 0) should begin at byte {beyond}, and the file ends "
            f"at byte {tif.filehandle.size}.",
            path=path,
        )
    if not tif.is_imagej or (every and every[0].kind == "imagej"):
        return
    meta = tif.imagej_metadata or {}
    channels, slices, frames = (int(meta.get(name, 1)) for name in ("channels", "slices", "frames"))
    if tif.pages.first.samplesperpixel == channels:
        channels = 1
    promised = max(channels * slices * frames, 1)
    if promised > len(tif.pages):
        raise TruncatedImageError(
            f"ImageJ's metadata promise {promised} planes (channels {channels}, slices {slices}, frames {frames}), and "
            f"{len(tif.pages)} could be found: plane {len(tif.pages)} is missing.",
            path=path,
        )


def _page_beyond_end(tif: Any) -> int | None:
    """Where the page after the last one should be, if that is outside the file."""
    last = tif.pages[len(tif.pages) - 1]
    if last.offset <= 0:
        return None
    handle, form = tif.filehandle, tif.tiff

    def number(code: str, size: int) -> int:
        data = handle.read(size)
        return int(struct.unpack(code, data)[0]) if len(data) == size else 0

    handle.seek(last.offset)
    tags = number(form.tagnoformat, form.tagnosize)
    handle.seek(last.offset + form.tagnosize + tags * form.tagsize)
    following = number(form.offsetformat, form.offsetsize)
    return following if following >= handle.size else None


def _missing_files(tif: Any, local: LocalFile) -> str:
    if not tif.is_ome:
        return ""
    folder = Path(local.path).parent
    gone = [name for name in ome_files(tif) if name != Path(local.path).name and not (folder / name).exists()]
    return ", ".join(gone[:5]) + (" and others" if len(gone) > 5 else "")
