"""One OME-TIFF a cell."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cellcube.errors import ArgumentError
from cellcube.export.names import safe_names
from cellcube.export.selection import ExportReport, Selection, select_cells, with_columns
from cellcube.export.target import export_target, report_of
from cellcube.inverse import denormalize

Pixels = npt.NDArray[Any]
# Clipped to 0..1 between intensities of the image itself, so that what comes back is within the image's range.
_WITHIN = ("percentile", "minmax", "range")


def to_ome_tiff(
    root: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    where: str | None = None,
    version: int | None = None,
    variable: str = "cells",
    channels: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    denormalized: bool = False,
    mask: bool = False,
    compression: Literal["zlib", "none"] = "zlib",
) -> ExportReport:
    """Write one OME-TIFF a cell, with axes CZYX, channel names and voxel size.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    to : path or URL
        Folder to write into: a new or empty one, or one with an export to OME-TIFF, which is replaced. Gets
        ``<cell_id>.ome.tif`` for each cell, with characters that a file system may not take replaced;
        ``cells.parquet`` and ``cells.csv``, the manifest with the columns `file` and, with `mask`, `mask_file`,
        relative to the folder; and ``export.json``, which tells what was exported.
    where, version, variable, channels
        Which cells, pixels and channels, see `cellcube.export.selection.select_cells`. Of a projection, Z is 1 and Y
        and X are its two axes.
    storage_options : mapping, optional
        fsspec options, for `root` and `to`.
    progress : bool
        Whether to show a bar.
    denormalized : bool
        Intensities instead of stored pixels, see `cellcube.denormalize`. They are rounded to ``uint16`` where all
        channels were normalized by ``percentile``, ``minmax`` or ``range``, between 0 and 65535, and the manifest's
        highest intensities of all cells are whole numbers; in any other case they are ``float32``. Pixels that were
        never normalized keep their type.
    mask : bool
        Whether to write the cell's label (1 within, 0 elsewhere; axes CZYX with one channel) as
        ``<cell_id>_mask.ome.tif`` too.
    compression : {"zlib", "none"}
        ``zlib`` is lossless, and every reader of TIFF knows it.

    Returns
    -------
    ExportReport

    Notes
    -----
    ``float16`` is written as ``float32``, because few readers of TIFF know it, and 64-bit integers, which OME does not
    know, as ``float64``. ``PhysicalSizeX``, ``Y`` and ``Z`` are in µm, each left out where it is unknown. The same
    cells give the same bytes.

    Raises
    ------
    ArgumentError
        Where a condition, variable, channel or option cannot be used, where there is no mask or no inverse of the
        normalization, and where `to` holds something else.
    cellcube.errors.DatasetError
        Where the dataset is not there or damaged.
    """
    if compression not in ("zlib", "none"):
        raise ArgumentError(f"compression must be 'zlib' or 'none', not {compression!r}.")
    selection = select_cells(
        root, where=where, version=version, variable=variable, channels=channels, storage_options=storage_options
    )
    if mask and not selection.has_mask:
        raise ArgumentError(f"There is no mask of the shape of {variable!r}.", remedy="Leave mask out.")
    if denormalized:
        # Reads nothing, and tells before anything is written where there is no inverse.
        denormalize(selection.dataset, variable)
    dtype = _written_type(selection, denormalized)
    names = safe_names(selection.cells["cell_id"], ("", "_mask") if mask else ("",))
    columns: dict[str, Any] = {"file": [f"{name}.ome.tif" for name in names]}
    if mask:
        columns["mask_file"] = [f"{name}_mask.ome.tif" for name in names]
    planned = [file for files in columns.values() for file in files]
    options = {"denormalized": denormalized, "dtype": dtype.name, "axes": "CZYX"}

    def files() -> Iterator[tuple[str, Callable[[], bytes]]]:
        sizes = selection.voxel_sizes()
        for batch in selection.batches(masks=mask, denormalized=denormalized, progress=progress):
            for number, cell in enumerate(batch.rows["cell_id"].astype(str)):
                place = batch.start + number
                tell = partial(encode_ome_tiff, voxel_size=sizes[place], compression=compression)
                seed = json.dumps([selection.state.attributes["spec_digest"], options, variable, cell])
                yield (
                    columns["file"][place],
                    partial(tell, batch.pixels[number], dtype, selection.channels, cell, seed=seed),
                )
                if batch.masks is not None:
                    label = batch.masks[number][None]
                    yield (
                        columns["mask_file"][place],
                        partial(tell, label, label.dtype, ("mask",), f"{cell} mask", seed=seed + "mask"),
                    )

    with export_target(to, "ome-tiff", selection, planned, storage_options, options) as target:
        target.write_each(files())
        about = {"file": "OME-TIFF of the cell", "mask_file": "OME-TIFF of the cell's mask"}
        target.write_manifest(with_columns(selection.cells, columns), selection, about)
    return report_of(target, len(selection))


def encode_ome_tiff(
    pixels: Pixels,
    dtype: np.dtype[Any],
    channels: Sequence[str],
    name: str,
    *,
    voxel_size: Sequence[float],
    compression: str,
    seed: str,
) -> bytes:
    """An OME-TIFF.

    Parameters
    ----------
    pixels : ndarray, shape (c, z, y, x)
    dtype : dtype
        To write. Where it is an integer type and that of `pixels` is not, they are rounded and clipped to its range.
    channels : sequence of str
    name : str
        Of the image.
    voxel_size : sequence of float
        (z, y, x) in µm, NaN where unknown.
    compression : {"zlib", "none"}
    seed : str
        What makes the UUID of the file, along with nothing else.
    """
    import tifffile

    if dtype.kind in "iu" and pixels.dtype.kind == "f":
        limits = np.iinfo(dtype)
        pixels = np.clip(np.rint(np.nan_to_num(pixels)), limits.min, limits.max)
    metadata: dict[str, Any] = {
        "axes": "CZYX",
        "Name": name,
        "Channel": {"Name": list(channels)},
        "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, seed)}",
        "Creator": "cellcube",
    }
    for axis, size in zip("ZYX", voxel_size, strict=True):
        if np.isfinite(size) and size > 0:
            metadata[f"PhysicalSize{axis}"] = float(size)
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.ascontiguousarray(pixels, dtype),
        ome=True,
        photometric="minisblack",
        compression=None if compression == "none" else compression,
        predictor=False,
        metadata=metadata,
        software="cellcube",
    )
    return file.getvalue()


def _written_type(selection: Selection, denormalized: bool) -> np.dtype[Any]:
    """The type of all files of an export."""
    stored = selection.dtype
    plain = {"float16": "float32", "int64": "float64", "uint64": "float64"}
    stored = np.dtype(plain.get(stored.name, stored.name))
    if not denormalized:
        return stored
    rules = selection.dataset[selection.variable].attrs.get("normalization") or []
    chosen = [rule for rule in rules if rule.get("channel") in selection.channels]
    if chosen and all(rule.get("method") == "none" for rule in chosen):
        return stored
    kind = str(selection.dataset[selection.variable].attrs.get("projection", "")).partition("_")[0]
    if kind in ("", "max", "min") and all(rule.get("method") in _WITHIN for rule in chosen):
        end = "" if selection.representation == "cells" else f"_{selection.representation}"
        highest = _column(selection, "intensity_max_{}")
        low, high = _column(selection, f"norm_low{end}_{{}}"), _column(selection, f"norm_high{end}_{{}}")
        whole = bool(np.isfinite(highest).all() and (highest == np.rint(highest)).all())
        if whole and bool((low >= 0).all() and (high <= np.iinfo(np.uint16).max).all()):
            return np.dtype("uint16")
    return np.dtype("float32")


def _column(selection: Selection, name: str) -> npt.NDArray[np.float64]:
    """A column of the manifest for each channel (cell, c); NaN where there is none."""
    unknown = np.full(len(selection), np.nan)
    found = [selection.cells.get(name.format(channel), unknown) for channel in selection.channels]
    return np.stack([np.asarray(each, np.float64) for each in found], axis=1)
