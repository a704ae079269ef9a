"""A manifest for BioFile Finder, https://bff.allencell.org: one row a file of one cell, with a thumbnail."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellcube.errors import ArgumentError
from cellcube.export.biofile_finder_tables import (
    DESCRIPTIONS,
    MANIFEST,
    PROVENANCE,
    below,
    columns_of,
    full_link,
    short_link,
    whole,
    write_tables,
)
from cellcube.export.composite import composite, display_windows, grey_planes, png
from cellcube.export.joined import Table, check_column, joined_manifest
from cellcube.export.names import safe_names
from cellcube.export.selection import ExportReport, Selection, select_cells
from cellcube.export.target import Target, export_target, report_of
from cellcube.location import Location
from cellcube.urls import is_remote, join, local_path, protocol_of, public_url

_KIND = "biofile-finder"
_THUMBNAIL_SIDE = 256  # px of the longer side at most; it shows them at up to 300


@dataclass(frozen=True)
class BffReport(ExportReport):
    """What was written for BioFile Finder.

    Parameters
    ----------
    files, cells, bytes, to
        As of every export.
    manifest : str
        Path or URL of the manifest.
    link : str or None
        Opens the manifest in BioFile Finder; None without `base_url`.
    full_link : str or None
        Opens it with the descriptions of its columns, the provenance, and thumbnails in place of a list.
    """

    manifest: str = ""
    link: str | None = None
    full_link: str | None = None

    def __str__(self) -> str:
        lines = [super().__str__()]
        lines += [f"open in BioFile Finder: {self.link}", f"with descriptions: {self.full_link}"] if self.link else []
        return "\n".join(lines)


def to_biofile_finder(
    root: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    base_url: str | None = None,
    files: str | Callable[[Mapping[str, Any]], str] | None = None,
    files_url: str | None = None,
    table: Table | None = None,
    thumbnails: bool = True,
    channels: Sequence[str] | None = None,
    lists: Sequence[str] = (),
    dataset_url: str | None = None,
    where: str | None = None,
    version: int | None = None,
    progress: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> BffReport:
    """Write what BioFile Finder needs to browse the cells of a dataset.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    to : path or URL
        Folder to write into: `cells.parquet` and `cells.csv` (the same rows; Parquet keeps types and leading zeros),
        `column_descriptions.csv`, `provenance.csv` and `thumbnails/`.
    base_url : str, optional
        URL at which browsers find `to`. Without it paths are as in `to`, which the desktop application opens.
    files : str or callable, optional
        What a row opens: a column of the manifest, or a function of a row that returns a path or URL. No two cells
        may share a file. Default: the column `file` of `table`, where that has one, and the thumbnail otherwise.
    files_url : str, optional
        URL at which browsers find what relative paths of `files` are relative to: the folder of `table`, or `root`.
    table : DataFrame, path or URL, optional
        Has `cell_id` and further columns for all cells wanted, such as the `cells.parquet` that
        `cellcube.export.to_ome_tiff` writes. They take the place of columns of the same names.
    thumbnails : bool
        Whether to write pictures.
    channels : sequence of str, optional
        Which channels the pictures show. Default: all.
    lists : sequence of str
        Columns of the manifest whose values are lists, separated by commas. In others commas become semicolons.
    dataset_url : str, optional
        URL at which the dataset is published, for the column ``Cube``. Default: `root` where it is a URL.
    where : str, optional
        A condition on columns of the manifest, in pandas' query syntax.
    version : int, optional
        From 1; None is the latest.
    progress : bool
        Show a bar.
    storage_options : mapping, optional
        fsspec options.

    Returns
    -------
    BffReport

    Raises
    ------
    ArgumentError
        Where an argument does not fit the dataset, a file is missing, or two cells share one.
    cellcube.errors.DatasetNotFoundError, cellcube.errors.VersionNotFoundError
    """
    selection = select_cells(root, where=where, version=version, channels=channels, storage_options=storage_options)
    if "max_z" in selection.dataset:
        selection = replace(selection, variable="max_z")
    ids = selection.cells["cell_id"].astype(str).tolist()
    manifest, base = joined_manifest(selection, table, storage_options)
    if files is None and table is not None and "file" in manifest:
        files = "file"
    if files is None and not thumbnails:
        raise ArgumentError("There is no file to list: neither `files` nor thumbnails.", remedy="Give one of them.")
    for name in lists:
        check_column(manifest, name, "lists")
    pictures = [f"thumbnails/{name}.png" for name in safe_names(ids, (".png",))] if thumbnails else []
    paths = pictures if files is None else _paths(manifest, files, base)
    given: list[str] = []
    sizes: list[int | None] = []
    if files is not None:
        given = [_public_path(path, base, files_url, base_url) for path in paths]
        _check_different(given, ids)
        sizes = _sizes([join(base, path) for path in paths], ids, storage_options)
    planned = [MANIFEST, "cells.csv", DESCRIPTIONS, PROVENANCE, *pictures]
    with export_target(to, _KIND, selection, planned, storage_options) as target:
        here = re.sub(r"\s", "%20", base_url.rstrip("/")) if base_url else public_url(target.folder.url)
        if thumbnails:
            _write_thumbnails(selection, target, pictures, progress)
        urls = [below(here, path) for path in pictures]
        special: dict[str, Sequence[Any]] = {
            "File Path": given or urls,
            "File ID": [whole(text) for text in ids],
            "File Name": [whole(path.rstrip("/").rpartition("/")[2].partition("?")[0]) for path in paths],
            "File Size": sizes or [target.written[path] for path in pictures],
            "Thumbnail": urls or [None] * len(ids),
        }
        # Where this machine keeps the dataset is of no use to others.
        known = base_url is None or not selection.root.is_local
        published = dataset_url or (public_url(selection.root.url) if known else None)
        cube = f"{published.rstrip('/')}/cube.zarr".replace(",", "%2C") if published else None
        frame, columns = columns_of(selection, manifest, special, lists, cube)
        write_tables(target, selection, frame, columns)
    report = report_of(target, len(selection))
    manifest_url = below(here, MANIFEST)
    return BffReport(
        report.files,
        report.cells,
        report.bytes,
        report.to,
        manifest=manifest_url,
        link=short_link(manifest_url) if base_url else None,
        full_link=full_link(here, str(selection.state.attributes["name"])) if base_url else None,
    )


def _paths(manifest: pd.DataFrame, files: str | Callable[[Mapping[str, Any]], str], base: str) -> list[str]:
    """Path of each cell's file as it was given."""
    if callable(files):
        rows: list[dict[str, Any]] = manifest.to_dict("records")  # type: ignore[assignment]
        found = [os.fspath(files(row)) for row in rows]
    else:
        check_column(manifest, files, "files")
        found = manifest[files].astype(object).where(manifest[files].notna(), "").astype(str).tolist()
    for path, cell in zip(found, manifest["cell_id"], strict=True):
        if not path.strip():
            raise ArgumentError("files: a cell has no file.", cell_id=str(cell))
    # What lies below the folder is seen from there, so that it can be published with it.
    inside = f"{base.rstrip('/')}/"
    return [path.removeprefix(inside) for path in found]


def _public_path(path: str, base: str, files_url: str | None, base_url: str | None) -> str:
    """Where whoever opens the manifest finds a file."""
    if files_url is not None and not is_remote(path) and not local_path(path).is_absolute():
        return below(files_url.rstrip("/"), path)
    found = join(base, path)
    if is_remote(found):
        return re.sub(r"\s", "%20", public_url(found)).replace(",", "%2C")
    if base_url is not None:
        raise ArgumentError(
            "files: a browser does not reach a file of this machine.",
            path=found,
            remedy="Give relative paths, and `files_url` that they are found at.",
        )
    return found


def _sizes(paths: Sequence[str], ids: Sequence[str], storage_options: Mapping[str, Any] | None) -> list[int | None]:
    """Size of each file in bytes; None for folders, such as OME-Zarr, and what a web server does not tell."""
    from concurrent.futures import ThreadPoolExecutor

    def size(path: str) -> int | None:
        if protocol_of(path) in ("http", "https"):
            return None
        place = Location.of(path, storage_options)
        found = place.size()
        if found is None and not place.exists():
            raise FileNotFoundError(path)
        return found

    found: list[int | None] = []
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(size, path) for path in paths]
        for path, cell, result in zip(paths, ids, waiting, strict=True):
            try:
                found.append(result.result())
            except FileNotFoundError:
                pool.shutdown(wait=False, cancel_futures=True)
                raise ArgumentError("files: there is no file.", cell_id=cell, path=public_url(path)) from None
    return found


def _check_different(paths: Sequence[str], ids: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for path, cell in zip(paths, ids, strict=True):
        other = first.setdefault(path, cell)
        if other != cell:
            raise ArgumentError(
                f"files: the cells {other!r} and {cell!r} have the same file.",
                path=path,
                remedy="A row of BioFile Finder is a file: give each cell one of its own.",
            )


def _write_thumbnails(selection: Selection, target: Target, paths: Sequence[str], progress: bool) -> None:
    windows = display_windows(selection)

    def pictures() -> Iterator[tuple[str, Callable[[], bytes]]]:
        for batch in selection.batches(progress=progress):
            for number, pixels in enumerate(batch.pixels):
                yield paths[batch.start + number], partial(_thumbnail, pixels, windows, selection.channels)

    target.write_each(pictures())


def _thumbnail(pixels: npt.NDArray[Any], windows: Sequence[tuple[float, float]], channels: Sequence[str]) -> bytes:
    from PIL import Image

    picture = composite(grey_planes(pixels, windows), channels)
    height, width = picture.shape[:2]
    scale = _THUMBNAIL_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    return png(picture)
