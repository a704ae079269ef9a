"""Tables as a user gives them: DataFrames, and CSV or Parquet files."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellcube.errors import CellcubeError, TableError
from cellcube.location import Location
from cellcube.urls import public_url

# Identifiers and paths are text, so that they keep their leading zeros.
_TEXT = ("cell_id", "fov_id", "label_path", "fov_path")
_ALSO_TEXT = ("CellId", "FOVId", "well", "plate")

# What stands for an empty field in a CSV file: pandas' list without "None", which is a treatment in many tables.
_EMPTY = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"]
_EMPTY += ["NA", "NULL", "NaN", "n/a", "nan", "null"]


def read_table(
    table: pd.DataFrame | str | os.PathLike[str],
    columns: Mapping[str, str],
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, str, str | None]:
    """A table with the columns it has.

    Parameters
    ----------
    table : DataFrame, path or URL
        A DataFrame, or a CSV file (separated by commas, semicolons or tabs; may be gzipped) or a Parquet file.
    columns : mapping
        Renamed columns, ``{cellcube name: table name}``; tells which columns hold identifiers.
    storage_options : mapping, optional
        fsspec options for a remote table.

    Returns
    -------
    frame : DataFrame
        With a plain index; a named index of the table is a column.
    base : str
        Folder or URL that relative paths in it are seen from.
    source : str or None
        Where it was read from.

    Raises
    ------
    TableError
        Where it cannot be read.
    """
    if isinstance(table, pd.DataFrame):
        unnamed = [level for level, name in enumerate(table.index.names) if name is None or name in table]
        if len(unnamed) == table.index.nlevels:
            return table.reset_index(drop=True), str(Path.cwd()), None
        # Tables are often indexed by their cell.
        kept = table.reset_index(unnamed, drop=True) if unnamed else table
        return kept.reset_index(), str(Path.cwd()), None
    if not isinstance(table, str | os.PathLike):
        raise TableError(f"The cell table must be a DataFrame, a path or a URL, not {type(table).__name__}.")
    location = Location.of(table, storage_options)
    frame = _parse(_bytes(location), columns, location.url)
    return frame.reset_index(drop=True), location.parent.url, location.url


def _bytes(location: Location) -> bytes:
    try:
        return location.read()
    except FileNotFoundError:
        raise TableError("There is no cell table.", path=location.url) from None
    except IsADirectoryError:
        raise TableError("The cell table is a folder, not a CSV or Parquet file.", path=location.url) from None
    except PermissionError:
        raise TableError("The cell table may not be read.", path=location.url) from None


def _parse(data: bytes, columns: Mapping[str, str], path: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(data)) if data[:4] == b"PAR1" else _read_csv(data, columns)
    except pd.errors.EmptyDataError:
        raise TableError("The cell table is empty.", path=path) from None
    except UnicodeDecodeError as error:
        raise TableError(
            "The cell table is neither Parquet nor CSV in UTF-8. A spreadsheet program can save it as 'CSV UTF-8'.",
            path=path,
        ) from error
    except pd.errors.ParserWarning as error:
        raise TableError("The cell table has rows with more fields than its header.", path=path) from error
    except (pd.errors.ParserError, ValueError, OSError, zlib.error) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise TableError(f"The cell table is neither CSV nor Parquet: {text}.", path=path) from error


def _read_csv(data: bytes, columns: Mapping[str, str]) -> pd.DataFrame:
    if data[:2] == b"\x1f\x8b":
        data = zlib.decompress(data, 31)
    if data[:4] == b"PK\x03\x04":
        raise ValueError("it is a spreadsheet or an archive; save it as CSV")
    header, _, _ = data.lstrip().partition(b"\n")
    # Of equals the first: a table of one column has no separator.
    separator = max(",;\t", key=lambda each: header.count(each.encode()))
    options: dict[str, Any] = {"sep": separator, "skipinitialspace": True, "index_col": False}
    text = {columns.get(name, name) for name in _TEXT}.union(_ALSO_TEXT)
    names = pd.read_csv(io.BytesIO(data), nrows=0, **options).columns
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame: pd.DataFrame = pd.read_csv(
            io.BytesIO(data),
            dtype={name: str for name in names if name.strip() in text},
            keep_default_na=False,
            na_values=_EMPTY,
            low_memory=False,
            **options,
        )
    return frame.set_axis(frame.columns.str.strip(), axis=1)


def typed_column(values: pd.Series) -> pd.Series:
    """One of bool, int64, float64 or str, so that it can be stored in any format."""
    if values.dtype == object:
        values = values.infer_objects()
    kind = values.dtype.kind
    if isinstance(values.dtype, pd.CategoricalDtype):
        kind = "O"
    if kind == "b" and not values.isna().any():
        return values.astype(bool)
    if kind in "iu" and not values.isna().any():
        return values.astype("int64") if values.empty or values.max() <= np.iinfo("int64").max else values.astype(str)
    if kind in "iuf":
        return values.astype("float64")
    if kind == "M":
        text: pd.Series = values.dt.strftime("%Y-%m-%dT%H:%M:%S").astype(str)
        return text.where(values.notna(), "")
    return values.astype(str).where(values.notna(), "")


def optional_text(values: pd.Series, *, upper: bool = False) -> pd.Series:
    """Text without blanks around it; empty where nothing is given."""
    text = values.astype(str).where(values.notna(), "").str.strip()
    return text.str.upper() if upper else text


def optional_names(values: pd.Series) -> pd.Series:
    """Names or indices as text; a column of whole floats, as pandas makes of ints with gaps, as ints."""
    if values.dtype.kind == "f" and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return optional_text(values)


def is_in(values: pd.Series, others: pd.Series) -> npt.NDArray[np.bool_]:
    """Which texts are among others, each taken once: pandas' `isin` makes a scalar of every one of millions.

    Parameters
    ----------
    values, others : Series of str

    Returns
    -------
    ndarray of bool, shape (n,)
        One for each of `values`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.large_string()
    return np.asarray(pc.is_in(pa.array(values, text), value_set=pa.array(others, text)), bool)


def text_of(value: object) -> str:
    """The same text for 3 and 3.0: a table with gaps holds whole numbers as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def rows_that_meet(
    frame: pd.DataFrame, condition: str, field: str, error: type[CellcubeError]
) -> npt.NDArray[np.bool_]:
    """Which rows meet a condition in pandas' query syntax, which sees the columns and nothing else.

    Parameters
    ----------
    frame : DataFrame
        One row a cell.
    condition : str
    field : str
        What the condition was given as, for errors.
    error : type
        Of what is raised where it cannot be evaluated to true or false.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    try:
        met = np.asarray(frame.eval(condition, engine="python", local_dict={}, global_dict={}))
    except Exception as cause:  # what the parser and the operators of the condition raise
        raise error(
            f"{field}: the condition {condition!r} cannot be evaluated: {cause}.",
            remedy=f"Columns are {', '.join(map(str, frame.columns))}.",
        ) from cause
    if met.dtype != bool or met.shape != (len(frame),):
        raise error(f"{field}: the condition {condition!r} is not true or false for each cell.")
    return met


def _stem(path: str) -> str:
    name = path.rstrip("/").replace("\\", "/").rpartition("/")[2].partition("?")[0]
    base, _, _ = name.rpartition(".")
    for suffix in (".ome", ".tar"):
        base = base.removesuffix(suffix)
    return base or name


def fov_ids(out: Mapping[str, Any], image: str) -> pd.Series:
    """Identifiers from file names; from whole paths where names alone are not unique."""
    paths = out[image]
    unique = paths.unique()
    stems = {path: _stem(path) for path in unique}
    if len(set(stems.values())) < len(unique):
        # Identifiers are published: no signatures.
        stems = {path: public_url(path) for path in unique}
    codes, found = pd.factorize(paths)
    ids = pd.Series([stems[path] for path in found], dtype=str).take(codes).set_axis(paths.index)
    for column, letter in (("scene", "s"), ("timepoint", "t")):
        if column in out:
            text = out[column].astype(str)
            ids = ids.where(text.isin(["", "-1"]), ids + f"-{letter}" + text)
    text_ids: pd.Series = ids.astype(str)
    return text_ids
