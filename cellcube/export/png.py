"""One picture a cell, or one a channel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from cellcube.errors import ArgumentError
from cellcube.export.composite import Picture, Pixels, composite, display_windows, grey_planes, png
from cellcube.export.names import safe_names
from cellcube.export.selection import ExportReport, select_cells, with_columns
from cellcube.export.target import export_target, report_of


def to_png(
    root: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    where: str | None = None,
    version: int | None = None,
    variable: str = "cells",
    channels: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    composite: bool = True,
    montage: bool = False,
) -> ExportReport:
    """Write 8-bit PNGs of cells: maximum projections along z.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    to : path or URL
        Folder to write into: a new or empty one, or one with an export to PNG, which is replaced. Gets the pictures;
        ``cells.parquet`` and ``cells.csv``, the manifest with the column `file`, or one ``file_<channel>`` a channel,
        relative to the folder; and ``export.json``, which tells what was exported.
    where, version, variable, channels
        Which cells, pixels and channels, see `cellcube.export.selection.select_cells`.
    storage_options : mapping, optional
        fsspec options, for `root` and `to`.
    progress : bool
        Whether to show a bar.
    composite : bool
        True: ``<cell_id>.png``, all channels in the colours of the dataset's OME metadata. Transmitted light is left
        out where there is fluorescence, and a single channel is grey. False: ``<cell_id>_<channel>.png``, grey.
    montage : bool
        The projections along all three axes side by side, for volumes: along y (z, x) below the one along z, along x
        (y, z) at its right. The picture is (y + z, x + z).

    Returns
    -------
    ExportReport

    Notes
    -----
    Black and white are the display windows of the dataset's OME metadata, one for all cells: 0 to 1 where pixels were
    normalized to that. Cells can be compared, and pixels beyond the window are clipped.

    Raises
    ------
    ArgumentError
        Where a condition, variable, channel or option cannot be used, and where `to` holds something else.
    cellcube.errors.DatasetError
        Where the dataset is not there or damaged.
    """
    selection = select_cells(
        root, where=where, version=version, variable=variable, channels=channels, storage_options=storage_options
    )
    if montage and len(selection.axes) < 3:
        raise ArgumentError(
            f"montage: {variable!r} is a projection already.", remedy="Take a variable with z, y and x, such as cells."
        )
    windows = display_windows(selection)
    ends = [""] if composite else [f"_{channel}" for channel in safe_names(selection.channels)]
    names = safe_names(selection.cells["cell_id"], ends)
    titles = ["file"] if composite else [f"file_{channel}" for channel in selection.channels]
    columns = {title: [f"{name}{end}.png" for name in names] for title, end in zip(titles, ends, strict=True)}
    planned = [file for files in columns.values() for file in files]

    def files() -> Iterator[tuple[str, Callable[[], bytes]]]:
        for batch in selection.batches(progress=progress):
            for number, pixels in enumerate(batch.pixels):
                place = batch.start + number
                if composite:
                    yield columns["file"][place], partial(_blended, pixels, grey, selection.channels)
                    continue
                for title, plane in zip(titles, grey(pixels), strict=True):
                    yield columns[title][place], partial(png, plane)

    grey = partial(grey_planes, windows=windows, montage=montage)
    options = {
        "composite": composite,
        "montage": montage,
        "windows": dict(zip(selection.channels, windows, strict=True)),
    }
    with export_target(to, "png", selection, planned, storage_options, options) as target:
        target.write_each(files())
        about = dict.fromkeys(titles, "PNG of the cell")
        target.write_manifest(with_columns(selection.cells, columns), selection, about)
    return report_of(target, len(selection))


def _blended(pixels: Pixels, grey: Callable[[Pixels], Picture], channels: Sequence[str]) -> bytes:
    return png(composite(grey(pixels), channels))
