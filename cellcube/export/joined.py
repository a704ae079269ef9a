"""The manifest of selected cells, with the columns of another table: what an export says of its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cellcube.errors import ArgumentError, did_you_mean
from cellcube.export.selection import Selection
from cellcube.tables import read_table
from cellcube.urls import public_url

Table = pd.DataFrame | str | os.PathLike[str]


def joined_manifest(
    selection: Selection, table: Table | None, storage_options: Mapping[str, Any] | None
) -> tuple[pd.DataFrame, str]:
    """The manifest, and what relative paths in it are relative to.

    Parameters
    ----------
    selection : Selection
    table : DataFrame, path or URL, optional
        Has `cell_id`, once each, for every selected cell. Its columns are added, or take the place of those of the same
        name.
    storage_options : mapping, optional

    Returns
    -------
    frame : DataFrame
        One row a selected cell, in the order of the cube.
    base : str
        Folder of the table, the working directory for a DataFrame, and the dataset's folder without a table.

    Raises
    ------
    ArgumentError
        Where the table lacks `cell_id` or a cell, or has one twice.
    cellcube.errors.TableError
        Where it cannot be read.
    """
    if table is None:
        return selection.cells, selection.root.url
    more, base, source = read_table(table, {}, storage_options)
    check_column(more, "cell_id", "table")
    more = more.assign(cell_id=more["cell_id"].astype(str))
    path = public_url(source) if source else None
    twice = more["cell_id"][more["cell_id"].duplicated()]
    if len(twice):
        raise ArgumentError("The table has a cell twice.", cell_id=twice.iloc[0], path=path)
    missing = selection.cells["cell_id"][~selection.cells["cell_id"].isin(more["cell_id"])]
    if len(missing):
        raise ArgumentError(f"The table lacks {len(missing):,} cells.", cell_id=str(missing.iloc[0]), path=path)
    kept = selection.cells[[name for name in selection.cells if name == "cell_id" or name not in more]]
    joined = kept.merge(more, on="cell_id", how="left", validate="1:1")
    order = [*selection.cells, *(name for name in more if name not in selection.cells)]
    return joined[order], base


def check_column(frame: pd.DataFrame, name: str, argument: str) -> None:
    """Raise where a table lacks a column that an argument names."""
    if name not in frame:
        known = [str(each) for each in frame.columns]
        raise ArgumentError(
            f"{argument}: there is no column {name!r}; there are {', '.join(known)}.",
            remedy=did_you_mean(name, known) or None,
        )
