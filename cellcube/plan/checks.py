"""What of a table and a spec can be refused before a pixel is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellcube.cells import CellTable
from cellcube.columns import geometry_and_measures
from cellcube.cube import Layout
from cellcube.errors import SpecError, TableError
from cellcube.spec import CubeSpec


def check_drop(spec: CubeSpec, table: CellTable, layout: Layout) -> None:
    """Refuse a `drop` condition that does not parse or names columns that are not there.

    Raises
    ------
    SpecError
    """
    if spec.drop is None:
        return
    columns: dict[str, Any] = {name: np.array([0.5]) for name in geometry_and_measures(layout.channels)}
    for name in ("touches_border", "shifted", "oversize"):
        columns[name] = np.array([False])
    for name in ("cell_id", "fov_id", "label", *table.metadata):
        columns[name] = table.frame[name].iloc[:1].to_numpy() if name in table.frame else [""]
    columns["label"] = [1]
    meets_condition(pd.DataFrame(columns), spec.drop)


def meets_condition(frame: pd.DataFrame, condition: str) -> Any:
    """Which rows meet a condition in pandas' query syntax.

    Raises
    ------
    SpecError
        Where it cannot be evaluated to true or false.
    """
    try:
        met = np.asarray(frame.eval(condition, engine="python"))
    except Exception as error:
        raise SpecError(
            f"drop: the condition {condition!r} cannot be evaluated: {error}.",
            remedy=f"Columns are {', '.join(map(str, frame.columns))}.",
        ) from error
    if met.dtype != bool or met.shape != (len(frame),):
        raise SpecError(f"drop: the condition {condition!r} is not true or false for each cell.")
    return met


def check_same_cells(before: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Refuse a table that gives a committed `cell_id` to another cell.

    Parameters
    ----------
    before : DataFrame
        Outcomes of the dataset.
    frame : DataFrame
        Cells asked for.

    Raises
    ------
    TableError
    """
    known = before[before["status"] != "failed"]
    both = frame.merge(known[["cell_id", "fov_id", "label"]], on="cell_id", suffixes=("", "_before"))
    if both.empty:
        return
    differs = both["fov_id"] != both["fov_id_before"]
    if "label_before" in both:
        differs |= both["label"] != both["label_before"]
    if differs.any():
        row = both[differs].iloc[0]
        raise TableError(
            "The cell table cannot be used.",
            problems=[
                f"{int(differs.sum())} values of 'cell_id' belong to other cells of the dataset, such as "
                f"{row['cell_id']!r}: FOV {row['fov_id_before']!r} there, {row['fov_id']!r} in the table"
            ],
        )
