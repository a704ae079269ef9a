"""Files that a manifest lists, as they go into a Quilt package: one entry a file, with what its rows say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellcube.errors import ArgumentError
from cellcube.export.joined import check_column
from cellcube.export.selection import Selection
from cellcube.location import Location
from cellcube.urls import is_remote, join, local_path, protocol_of, public_url


@dataclass(frozen=True)
class PackedFile:
    """A file or folder of a package.

    Parameters
    ----------
    key : str
        Path in the package.
    path : str
        Where it is.
    metadata : dict
    folder : bool
        Whether it is a folder, such as an OME-Zarr image.
    """

    key: str
    path: str
    metadata: Mapping[str, Any]
    folder: bool


def packed_files(
    selection: Selection,
    manifest: pd.DataFrame,
    base: str,
    filepath_columns: Sequence[str],
    metadata_columns: Sequence[str],
    storage_options: Mapping[str, Any] | None,
) -> tuple[list[PackedFile], pd.DataFrame]:
    """The files of a manifest.

    Parameters
    ----------
    selection : Selection
    manifest : DataFrame
    base : str
        What relative paths are relative to.
    filepath_columns : sequence of str
        Columns of paths; empty where a row has no file.
    metadata_columns : sequence of str
        What each file has as metadata: the value of its row. Where a file of the column has rows that differ, all of
        them have a list, one value a row, so that lists of a file fit together. With several columns of paths,
        ``associates`` names the others' files of the same rows, by column.
    storage_options : mapping, optional

    Returns
    -------
    files : list of PackedFile
    relative : DataFrame
        The manifest with paths in the package.

    Raises
    ------
    ArgumentError
        Where there is no such column, or no file.
    """
    for name, argument in [
        *((name, "filepath_columns") for name in filepath_columns),
        *((name, "metadata_columns") for name in metadata_columns),
    ]:
        check_column(manifest, name, argument)
    keys: dict[str, list[str]] = {}
    places: dict[str, tuple[str, bool]] = {}
    for column in filepath_columns:
        given = manifest[column].astype(object).where(manifest[column].notna(), "").astype(str).str.strip().tolist()
        paths = [join(base, path) if path else "" for path in given]
        named = _keys(column, list(dict.fromkeys(path for path in paths if path)), selection.root)
        keys[column] = [named.get(path, "") for path in paths]
        for path, key in named.items():
            if key not in places:
                places[key] = (path, _is_folder(path, column, storage_options))
    relative = manifest.assign(**keys)
    files: dict[str, PackedFile] = {}
    for column in filepath_columns:
        others = [other for other in filepath_columns if other != column]
        for key, metadata in _metadata(relative, column, metadata_columns, others).items():
            before = files[key].metadata if key in files else {}
            files[key] = PackedFile(key, places[key][0], {**before, **metadata}, places[key][1])
    return list(files.values()), relative


def _keys(column: str, paths: Sequence[str], root: Location) -> dict[str, str]:
    """Where each file of a column is in the package: two never in one place."""
    inside = f"{root.url}/"
    outside = [path for path in paths if not path.startswith(inside)]
    names = [path.rstrip("/").rpartition("/")[2] for path in outside]
    if len(set(names)) < len(names):
        folders = [path.rstrip("/").split("/")[:-1] for path in outside]
        shared = 0
        while len({tuple(parts[: shared + 1]) for parts in folders}) == 1 and shared < min(map(len, folders)):
            shared += 1
        names = ["/".join([*parts[shared:], name]) for parts, name in zip(folders, names, strict=True)]
        names = [name.replace("://", "/").replace("//", "/") for name in names]
    keys = {path: path.removeprefix(inside) for path in paths if path.startswith(inside)}
    return keys | {path: f"{column}/{name}" for path, name in zip(outside, names, strict=True)}


def _is_folder(path: str, column: str, storage_options: Mapping[str, Any] | None) -> bool:
    if protocol_of(path) not in ("file", "s3", "s3a"):
        raise ArgumentError(
            f"{column}: Quilt packs files of this machine and of S3.", path=public_url(path), remedy="Copy it to one."
        )
    place = Location.of(path, storage_options)
    folder = local_path(path).is_dir() if not is_remote(path) else place.size() is None
    if not (local_path(path).exists() if not is_remote(path) else not folder or place.exists()):
        raise ArgumentError(f"{column}: there is no file.", path=public_url(path))
    return folder


def _metadata(
    manifest: pd.DataFrame, column: str, names: Sequence[str], others: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Metadata of each file of a column."""
    frame = manifest.loc[manifest[column] != "", [column, *dict.fromkeys([*names, *others])]]
    groups = {str(key): rows for key, rows in frame.groupby(column, sort=False)}
    found: dict[str, dict[str, Any]] = {key: {} for key in groups}
    for name in names:
        values = {key: rows[name].tolist() for key, rows in groups.items()}
        single = all(len(rows[name].drop_duplicates()) <= 1 for rows in groups.values())
        for key in groups:
            found[key][name] = values[key][0] if single else values[key]
    for key, rows in groups.items():
        beside = {other: list(dict.fromkeys(path for path in rows[other] if path)) for other in others}
        if any(beside.values()):
            found[key]["associates"] = {
                other: paths[0] if len(paths) == 1 else paths for other, paths in beside.items() if paths
            }
    return found


def sanitized(value: Any) -> Any:
    """A value as JSON has it: no NaN (null), no infinities (text), no numpy scalars, no dates (ISO 8601).

    Examples
    --------
    >>> import numpy as np
    >>> sanitized({"a": np.float32(0.5), "b": [np.nan, np.int64(3)], "c": float("inf"), 4: (True, None)})
    {'a': 0.5, 'b': [None, 3], 'c': 'inf', '4': [True, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): sanitized(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        return [sanitized(each) for each in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else str(value)
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else pd.Timestamp(value).isoformat()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
