"""The tables that BioFile Finder reads, by its rules.

Notes
-----
Its rules, from its source code (https://github.com/AllenInstitute/biofile-finder, ``DatabaseService``,
``DatabaseFileService``, ``FileDetail``, ``Graph``): ``File Path`` is required, has no blanks, and its values tell rows
apart; ``File ID``, ``File Name``, ``File Size``, ``Thumbnail`` and ``Uploaded`` mean something, and are matched
ignoring case, white space, ``-`` and ``_``; a second match is an error. Column names with ``"`` are refused, ``.``
means nesting, and ``,`` and ``:`` end a column's name in a link. Every value is split at commas, paths as well.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pandas as pd

from cellcube.export.selection import Selection
from cellcube.export.target import Target
from cellcube.ledger import read_run
from cellcube.urls import is_remote

if TYPE_CHECKING:
    import pyarrow as pa

APP = "https://bff.allencell.org/app"
MANIFEST = "cells.parquet"
DESCRIPTIONS = "column_descriptions.csv"
PROVENANCE = "provenance.csv"

# What BioFile Finder knows, with what it means and its type.
_SPECIAL: dict[str, tuple[str, str]] = {
    "File Path": ("Where the file is", "Text"),
    "File ID": ("Identifier of the cell", "Text"),
    "File Name": ("Name of the file", "Text"),
    "File Size": ("Size of the file in bytes", "Number"),
    "Thumbnail": ("Picture of the cell: maximum along z, all channels in colour", "Text"),
    "Uploaded": ("When the build that added the cell was finished", "DateTime"),
}
_ADDED = {
    "Dataset": "Name of the dataset",
    "Dataset Version": "Version of the dataset that was exported",
    "Licence": "Licence of the dataset",
    "Code Commit": "Commit of the code whose run added the cell to the dataset",
    "Cellcube Version": "Version of cellcube that added the cell to the dataset",
    "Cube": "Where the cube (OME-Zarr) is",
}
# It uses these itself.
_TAKEN = ("hidden_bff_uid", "Data source", "file_row_number", "filename")
_WORDS = {"id": "ID", "fov": "FOV", "um": "(um)", "um2": "(um2)", "um3": "(um3)"}


def human_names(columns: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Names for people that BioFile Finder takes, no two of which are the same to it.

    Parameters
    ----------
    columns : sequence of str
        All different.
    taken : sequence of str
        Names that are not free. A column that would get one of these is called ``Table <name>``.

    Examples
    --------
    >>> human_names(["cell_id", "area_um2", "File-Path", "a.b", "A_B"], ["File Path"])
    {'cell_id': 'Cell ID', 'area_um2': 'Area (um2)', 'File-Path': 'Table File Path', 'a.b': 'A B', 'A_B': 'A B 2'}
    """
    reserved = {_normalized(name) for name in taken}
    names: dict[str, str] = {}
    used = set(reserved)
    for column in columns:
        # Units stand in brackets behind; names such as mNeonGreen or DNA are left as they are.
        words = re.sub(r"""[\s_\-"'.,:;\\]+""", " ", column).split() or ["Column"]
        name = " ".join(
            _WORDS.get(word, word if word != word.lower() else word[:1].upper() + word[1:]) for word in words
        )
        name = f"Table {name}" if _normalized(name) in reserved else name
        told, number = name, 1
        while _normalized(told) in used:
            number += 1
            told = f"{name} {number}"
        used.add(_normalized(told))
        names[column] = told
    return names


def _normalized(name: str) -> str:
    return re.sub(r"[\s\-_]", "", name.lower())


def whole(text: str) -> str:
    """A text that is not split into a list."""
    return text.replace(",", ";")


def below(base: str, path: str) -> str:
    """A path below a folder or a URL; in a URL, with nothing that would split it."""
    return f"{base}/{quote(path)}" if is_remote(base) else f"{base}/{path}"


def columns_of(
    selection: Selection,
    manifest: pd.DataFrame,
    special: Mapping[str, Any],
    lists: Sequence[str],
    cube: str | None,
) -> tuple[pa.Table, dict[str, tuple[str, str]]]:
    """The table, and what each column means and its type.

    Parameters
    ----------
    selection : Selection
    manifest : DataFrame
        One row a selected cell.
    special : mapping
        Values of the columns that BioFile Finder knows, but ``Uploaded``.
    lists : sequence of str
        Columns of the manifest in which commas separate values.
    cube : str, optional
        Where the cube is.
    """
    import pyarrow as pa

    runs = {int(run): read_run(selection.root / "runs", int(run)) for run in manifest["run"].unique()}
    about = [runs[int(run)] for run in manifest["run"]]
    commits = [((run.get("code") or {}).get("git") or {}).get("commit") for run in about]
    attributes = selection.state.attributes
    added: dict[str, Sequence[Any]] = {
        "Dataset": [whole(str(attributes["name"]))] * len(manifest),
        "Dataset Version": [selection.version] * len(manifest),
        "Licence": [attributes["licence"] or None] * len(manifest),
        "Code Commit": commits,
        "Cellcube Version": [run["environment"]["cellcube"] for run in about],
        "Cube": [cube] * len(manifest),
    }
    finished = pd.to_datetime([run["finished"] for run in about], utc=True)
    arrays: dict[str, pa.Array] = {
        name: pa.array(finished, pa.timestamp("us", "UTC"))
        if name == "Uploaded"
        else pa.array(special[name], pa.int64() if name == "File Size" else pa.string())
        for name in _SPECIAL
    }
    columns = dict(_SPECIAL)
    meanings = selection.descriptions()
    for column, name in _names_of(manifest).items():
        arrays[name] = _plain(manifest[column], column in lists)
        columns[name] = (meanings.get(column, "From the table of files"), _type_of(arrays[name].type))
    for name, values in added.items():
        if any(value is not None for value in values):
            arrays[name] = pa.array(values)
            columns[name] = (_ADDED[name], _type_of(arrays[name].type))
    return pa.table(arrays), columns


def _names_of(manifest: pd.DataFrame) -> dict[str, str]:
    return human_names([str(each) for each in manifest], [*_SPECIAL, *_ADDED, *_TAKEN])


def _plain(values: pd.Series, is_list: bool) -> pa.Array:
    """A column of a type that DuckDB in a browser shows as what it is; what is unknown or empty is null."""
    import pyarrow as pa

    if values.dtype.kind == "M" or isinstance(values.dtype, pd.DatetimeTZDtype):
        zone = getattr(values.dtype, "tz", None)
        return pa.array(values, from_pandas=True).cast(pa.timestamp("us", str(zone) if zone else None), safe=False)
    if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_integer_dtype(values.dtype):
        return pa.array(values, from_pandas=True)
    if pd.api.types.is_float_dtype(values.dtype):
        return pa.array(values.astype("float64"), pa.float64(), from_pandas=True)
    known = values.notna()
    texts = [str(value).strip() if there else "" for value, there in zip(values, known, strict=True)]
    return pa.array([(text if is_list else whole(text)) or None for text in texts], pa.string())


def _type_of(kind: pa.DataType) -> str:
    """What BioFile Finder calls a type."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "YesNo"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "Number"
    return "DateTime" if pa.types.is_timestamp(kind) else "Text"


def write_tables(target: Target, selection: Selection, frame: pa.Table, columns: Mapping[str, tuple[str, str]]) -> None:
    """Write the manifest as Parquet and CSV, what its columns mean, and how they are related."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    rows: list[Sequence[str]] = [("Column Name", "Description", "Type")]
    rows += [(name, *columns[name]) for name in frame.column_names]
    target.write(DESCRIPTIONS, _csv(rows))
    target.write(PROVENANCE, _csv(_edges(selection, frame.column_names)))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(frame, buffer)
    target.write("cells.csv", buffer.getvalue())
    buffer = io.BytesIO()
    # DuckDB reads snappy without an extension that a browser would have to fetch.
    pq.write_table(frame, buffer, compression="snappy")
    target.write(MANIFEST, buffer.getvalue())


def _edges(selection: Selection, known: Sequence[str]) -> list[Sequence[str]]:
    """Relations between columns: what is the parent of what. ``self`` is the file of a row, the cell.

    The graph shows the FOV and the dataset above the cell: BioFile Finder draws parents above children, and tells
    nodes apart by all their ancestors, so a dataset below its FOVs would be drawn once a FOV.
    """
    rows: list[Sequence[str]] = [("Parent", "Parent Type", "Child", "Child Type", "Relationship", "Relationship Type")]
    given = selection.state.attributes["spec"].get("channels")
    images = list(given.values()) if isinstance(given, Mapping) else []
    names = _names_of(selection.cells)
    paths = dict.fromkeys(names[name] for name in ("fov_path", *map(str, images)) if name in names)
    edges = [(name, "metadata", "FOV ID", "metadata", "image of") for name in paths]
    edges += [("FOV ID", "metadata", "", "self", "cut out"), ("Dataset", "metadata", "", "self", "contains")]
    edges += [("Code Commit", "metadata", "Dataset", "metadata", "built")]
    return [*rows, *((*edge, "") for edge in edges if {edge[0], edge[2]} <= {*known, ""})]


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def short_link(manifest: str) -> str:
    """Opens a manifest."""
    return f"{APP}?{urlencode({'url': manifest}, quote_via=quote, safe='')}"


def full_link(base: str, name: str) -> str:
    """Opens the manifest, its descriptions and its provenance, as small thumbnails."""
    # It makes tables of these names by SQL without quoting them.
    title = re.sub(r"[^\w .-]+", " ", name).strip() or "cells"
    parts = {"source": (title, MANIFEST), "sourceMetadata": (f"{title} columns", DESCRIPTIONS)}
    parts["prov"] = (f"{title} provenance", PROVENANCE)
    query = {"v": "2"} | {
        key: json.dumps({"name": told, "type": file.rpartition(".")[2], "uri": below(base, file)})
        for key, (told, file) in parts.items()
    }
    return f"{APP}?{urlencode(query, quote_via=quote, safe='')}"
