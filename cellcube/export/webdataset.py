"""Tar files of cells, for WebDataset and whatever else reads tar from front to back."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import ArgumentError
from cellcube.export.names import safe_names
from cellcube.export.selection import Batch, ExportReport, select_cells, with_columns
from cellcube.export.target import Target, export_target, report_of

# Uncompressed size of a tar file, about, where its number of cells is not given.
_TAR_BYTES = 256 * 10**6


def to_webdataset(
    root: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    where: str | None = None,
    version: int | None = None,
    variable: str = "cells",
    channels: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    cells_per_tar: int | None = None,
    mask: bool = False,
) -> ExportReport:
    """Write tar files of cells, in the form of WebDataset.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    to : path or URL
        Folder to write into: a new or empty one, or one with an export to WebDataset, which is replaced. Gets
        ``cells-000000.tar``, ``cells-000001.tar`` and so on; below ``train/`` and the like where the manifest has the
        column `split`. Each cell is ``<key>.npy``, pixels (c, z, y, x) in the stored type, and ``<key>.json``, its row
        of the manifest, with null for NaN; with `mask` also ``<key>.mask.npy``, (z, y, x) of ``uint8``. The key is the
        ``cell_id`` with what is not a letter, digit, ``_`` or ``-`` replaced. Beside them ``index.json``,
        ``cells.parquet`` and ``cells.csv``, the manifest with the columns `file`, the tar file, and `key`; and
        ``export.json``, which tells what was exported.
    where, version, variable, channels
        Which cells, pixels and channels, see `cellcube.export.selection.select_cells`. Of a projection, z is 1 and y
        and x are its two axes.
    storage_options : mapping, optional
        fsspec options, for `root` and `to`.
    progress : bool
        Whether to show a bar.
    cells_per_tar : int, optional
        None: as many as have 256 MB of pixels.
    mask : bool
        Whether to write the cells' masks too.

    Returns
    -------
    ExportReport

    Notes
    -----
    ``index.json`` has `variable`, `channels`, `shape`, `dtype`, `cells`, and `tars`: a list with `file`, `split`,
    `cells`, `bytes` and `sha256` of each. The same cells give the same bytes. Cells are in the order of the cube:
    shuffle when reading.

    Raises
    ------
    ArgumentError
        Where a condition, variable, channel or option cannot be used, where there is no mask, and where `to` holds
        something else.
    cellcube.errors.DatasetError
        Where the dataset is not there or damaged.
    """
    selection = select_cells(
        root, where=where, version=version, variable=variable, channels=channels, storage_options=storage_options
    )
    if mask and not selection.has_mask:
        raise ArgumentError(f"There is no mask of the shape of {variable!r}.", remedy="Leave mask out.")
    if cells_per_tar is None:
        cells_per_tar = max(1, _TAR_BYTES // (math.prod(selection.item) * selection.dtype.itemsize))
    if cells_per_tar < 1:
        raise ArgumentError(f"cells_per_tar must be at least 1, not {cells_per_tar}.")
    parts = selection.parts(cells_per_tar)
    splits = {f"{part.split + '/' if part.split else ''}cells-{part.number:06d}.tar": part.split for part in parts}
    file_of = np.empty(len(selection), object)
    for file, part in zip(splits, parts, strict=True):
        file_of[part.positions] = file
    files: list[str] = file_of.tolist()
    keys = safe_names(selection.cells["cell_id"], dots=False)
    planned = [*splits, "index.json"]
    with export_target(
        to, "webdataset", selection, planned, storage_options, {"cells_per_tar": cells_per_tar}
    ) as target:
        with target.scratch() as scratch, ExitStack() as stack:
            writer = stack.enter_context(_Tars(target, scratch, files))
            for batch in selection.batches(masks=mask, progress=progress):
                _add(batch, keys, writer)
        index = {
            "variable": selection.variable,
            "channels": list(selection.channels),
            "shape": list(selection.item),
            "axes": "czyx",
            "dtype": selection.dtype.name,
            "cells": len(selection),
            "tars": [{"file": file, "split": split, **writer.told[file]} for file, split in splits.items()],
        }
        target.write("index.json", (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
        about = {"file": "Tar file of the cell", "key": "Key of the cell in its tar file"}
        target.write_manifest(with_columns(selection.cells, {"file": files, "key": keys}), selection, about)
    return report_of(target, len(selection))


def _add(batch: Batch, keys: Sequence[str], writer: _Tars) -> None:
    for number, row in enumerate(_records(batch)):
        key = keys[batch.start + number]
        members = {f"{key}.npy": _npy(batch.pixels[number])}
        if batch.masks is not None:
            members[f"{key}.mask.npy"] = _npy(batch.masks[number])
        members[f"{key}.json"] = json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
        writer.add(batch.start + number, members)


def _records(batch: Batch) -> Iterator[dict[str, Any]]:
    """Rows of the manifest as values that JSON has."""
    names = [str(name) for name in batch.rows.columns]
    for row in batch.rows.astype(object).itertuples(index=False, name=None):
        yield {name: _plain(value) for name, value in zip(names, row, strict=True)}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value != value or str(value) in ("<NA>", "NaT") else str(value)


def _npy(pixels: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(pixels), allow_pickle=False)
    return file.getvalue()


@dataclass
class _Tars:
    """Writes cells into their tar files; a file is put into the target with its last cell."""

    target: Target
    scratch: Path
    files: list[str]
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    _open: dict[str, tarfile.TarFile] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> _Tars:
        for file in self.files:
            self._left[file] = self._left.get(file, 0) + 1
        return self

    def __exit__(self, *_: object) -> None:
        for tar in self._open.values():
            tar.close()

    def add(self, place: int, members: Mapping[str, bytes]) -> None:
        """Append the files of one cell."""
        file = self.files[place]
        path = self.scratch / file.replace("/", "-")
        if file not in self._open:
            self._open[file] = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self.told[file] = {"cells": self._left[file]}
        for name, data in members.items():
            # The defaults of all else (owner, mode, time 0) are the same everywhere.
            header = tarfile.TarInfo(name)
            header.size = len(data)
            self._open[file].addfile(header, io.BytesIO(data))
        self._left[file] -= 1
        if not self._left[file]:
            self._open.pop(file).close()
            with path.open("rb") as read:
                digest = hashlib.file_digest(read, "sha256").hexdigest()
            self.told[file].update(bytes=path.stat().st_size, sha256=digest)
            self.target.put(file, path)
