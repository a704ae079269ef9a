"""A folder that Hugging Face `datasets` opens: Parquet with pictures, and a dataset card."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellcube.errors import ArgumentError
from cellcube.export.card import dataset_card
from cellcube.export.composite import composite, display_windows, grey_planes, png
from cellcube.export.names import safe_names
from cellcube.export.selection import Batch, ExportReport, Part, Selection, select_cells, with_columns
from cellcube.export.target import Target, export_target, report_of

if TYPE_CHECKING:
    import pyarrow as pa

# Size of a Parquet file, about, before compression, where its number of cells is not given.
_FILE_BYTES = 256 * 10**6
# Cells in a row group: a reader that wants one cell reads so many.
_GROUP = 100


def to_hugging_face(
    root: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    where: str | None = None,
    version: int | None = None,
    variable: str = "cells",
    channels: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    pixels: bool = False,
    cells_per_file: int | None = None,
) -> ExportReport:
    """Write a folder that ``datasets.load_dataset(folder)`` opens, and that can be uploaded to the Hub as it is.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    to : path or URL
        Folder to write into: a new or empty one, or one with an export to Hugging Face, which is replaced. Gets
        ``data/<split>-00000-of-00001.parquet`` and so on, split ``train`` where the manifest has no column `split`;
        ``README.md``, a dataset card with licence, tags, size and splits; and ``export.json``, which tells what was
        exported.
    where, version, variable, channels
        Which cells, pixels and channels, see `cellcube.export.selection.select_cells`.
    storage_options : mapping, optional
        fsspec options, for `root` and `to`.
    progress : bool
        Whether to show a bar.
    pixels : bool
        Whether to store all voxels too, as the feature ``pixels``: ``Array4D`` (c, z, y, x) of the stored type, with
        ``float16`` as ``float32``. Of a projection, z is 1 and y and x are its two axes.
    cells_per_file : int, optional
        None: as many as have 256 MB of pixels before compression, with all voxels counted or the pictures alone.

    Returns
    -------
    ExportReport

    Notes
    -----
    Each row has ``image``, an ``Image`` feature: a PNG of the composite of maximum projections along z, see
    `cellcube.export.to_png`; then ``pixels``, where asked for; then the columns of the manifest. A column of the
    manifest that is called like one of these two becomes ``table_<name>``.

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
    dtype = np.dtype("float32") if selection.dtype == np.float16 else selection.dtype
    if cells_per_file is None:
        cell_bytes = math.prod(selection.item) * dtype.itemsize if pixels else 3 * math.prod(selection.item[2:])
        cells_per_file = max(1, _FILE_BYTES // cell_bytes)
    if cells_per_file < 1:
        raise ArgumentError(f"cells_per_file must be at least 1, not {cells_per_file}.")
    parts = selection.parts(cells_per_file)
    files = [f"data/{part.split or 'train'}-{part.number:05d}-of-{part.count:05d}.parquet" for part in parts]
    columns = ("image", "pixels") if pixels else ("image",)
    rows = with_columns(selection.cells, dict.fromkeys(columns)).drop(columns=list(columns))
    options = {"pixels": pixels, "dtype": dtype.name, "axes": "czyx"}
    with export_target(to, "hugging-face", selection, [*files, "README.md"], storage_options, options) as target:
        with target.scratch() as scratch, _Files(target, scratch, rows, selection, dtype, pixels) as writer:
            writer.plan(files, parts)
            for batch in selection.batches(progress=progress):
                writer.add(batch)
        splits = list(dict.fromkeys(part.split or "train" for part in parts))
        target.write("README.md", dataset_card(selection, splits, pixels).encode())
    return report_of(target, len(selection))


@dataclass
class _Files:
    """Writes rows into their Parquet files; a file is put into the target with its last row."""

    target: Target
    scratch: Path
    rows: pd.DataFrame
    selection: Selection
    dtype: np.dtype[Any]
    with_pixels: bool
    _file_of: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0, object))
    _left: dict[str, int] = field(default_factory=dict)
    _open: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> _Files:
        import pyarrow as pa

        self.table_schema = _plain_types(pa.Schema.from_pandas(self.rows, preserve_index=False))
        self.schema = _with_features(self.table_schema, self.selection.item, self.dtype, self.with_pixels)
        self.windows = display_windows(self.selection)
        self.keys = safe_names(self.selection.cells["cell_id"])
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            writer.close()

    def plan(self, files: Sequence[str], parts: Sequence[Part]) -> None:
        """Say which rows go into which file."""
        self._file_of = np.empty(len(self.rows), object)
        for file, part in zip(files, parts, strict=True):
            self._file_of[part.positions] = file
            self._left[file] = len(part.positions)

    def add(self, batch: Batch) -> None:
        """Append the rows of a batch to their files."""
        file_of = self._file_of[batch.start : batch.start + len(batch.rows)]
        for file in dict.fromkeys(file_of.tolist()):
            inside = np.flatnonzero(file_of == file)
            for start in range(0, len(inside), _GROUP):
                self._write(file, batch, inside[start : start + _GROUP])

    def _write(self, file: str, batch: Batch, numbers: npt.NDArray[np.intp]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        positions = batch.start + numbers
        images = [
            {
                "bytes": png(composite(grey_planes(batch.pixels[number], self.windows), self.selection.channels)),
                "path": f"{self.keys[batch.start + number]}.png",
            }
            for number in numbers
        ]
        table = pa.Table.from_pandas(self.rows.iloc[positions], schema=self.table_schema, preserve_index=False)
        arrays: list[Any] = [pa.array(images, self.schema.field("image").type)]
        if self.with_pixels:
            arrays.append(_nested(batch.pixels[numbers].astype(self.dtype, copy=False)))
        whole = pa.Table.from_arrays([*arrays, *table.columns], schema=self.schema)
        path = self.scratch / file.replace("/", "-")
        if file not in self._open:
            self._open[file] = pq.ParquetWriter(path, self.schema, compression="zstd")
        self._open[file].write_table(whole)
        self._left[file] -= len(numbers)
        if not self._left[file]:
            self._open.pop(file).close()
            self.target.put(file, path)


def _plain_types(schema: pa.Schema) -> pa.Schema:
    """Without pandas' notes, and with the types of text that every reader knows."""
    import pyarrow as pa

    def plain(kind: pa.DataType) -> pa.DataType:
        return pa.string() if pa.types.is_large_string(kind) or pa.types.is_dictionary(kind) else kind

    return pa.schema([pa.field(each.name, plain(each.type)) for each in schema])


def _with_features(
    schema: pa.Schema, item: tuple[int, int, int, int], dtype: np.dtype[Any], with_pixels: bool
) -> pa.Schema:
    """The schema of the files: pictures and pixels in front, and how `datasets` is to understand each column."""
    import pyarrow as pa

    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if with_pixels:
        nested = pa.from_numpy_dtype(dtype)
        for _ in item:
            nested = pa.list_(nested)
        # As Arrow notes an extension type: without `datasets`, these are lists of lists.
        kind = {
            "ARROW:extension:name": "datasets.features.features.Array4DExtensionType",
            "ARROW:extension:metadata": json.dumps([list(item), dtype.name]),
        }
        fields.append(pa.field("pixels", nested, metadata=kind))
        features["pixels"] = {"shape": list(item), "dtype": dtype.name, "_type": "Array4D"}
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    for each in schema:
        features[each.name] = {"dtype": names.get(str(each.type), str(each.type)), "_type": "Value"}
    noted = {"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)}
    return pa.schema([*fields, *schema], metadata=noted)


def _nested(pixels: npt.NDArray[Any]) -> pa.Array:
    """Lists of lists of an array (cell, c, z, y, x), one element a cell, without going through Python."""
    import pyarrow as pa

    found = pa.array(np.ascontiguousarray(pixels).reshape(-1))
    for size in reversed(pixels.shape[1:]):
        offsets = np.arange(0, len(found) + 1, size, dtype=np.int32)
        found = pa.ListArray.from_arrays(pa.array(offsets), found)
    return found
