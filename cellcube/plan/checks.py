"""What of a table and a spec can be refused before a pixel is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellcube.cells import CellTable
from cellcube.columns import measured
from cellcube.cube import Layout
from cellcube.errors import SpecError, TableError, did_you_mean
from cellcube.functions import UserFunction
from cellcube.spec import CubeSpec, Pipeline
from cellcube.tables import rows_that_meet


def check_drop(spec: CubeSpec, table: CellTable, layout: Layout) -> None:
    """Refuse a `drop` condition that does not parse or names columns that are not there.

    Raises
    ------
    SpecError
    """
    if not isinstance(spec.drop, str) or spec.measure is not None:
        # What a function measures is not known before it ran.
        return
    columns: dict[str, Any] = {name: np.array([0.5]) for name in measured(layout)}
    for name in {"touches_border", "shifted", "oversize", "flip_y", "flip_x"} & set(columns):
        columns[name] = np.array([False])
    for name in ("cell_id", "fov_id", "label", *table.metadata):
        columns[name] = table.frame[name].iloc[:1].to_numpy() if name in table.frame else [""]
    columns["label"] = [1]
    meets_condition(pd.DataFrame(columns), spec.drop)


def check_table(spec: CubeSpec, table: CellTable) -> None:
    """Refuse a spec that asks for what the table does not tell.

    Raises
    ------
    SpecError
    """
    if not table.has_labels:
        needs = {
            "mask": any(pipeline.mask != "none" for pipeline in spec.pipelines().values() if _is_rule(pipeline)),
            "neighbours": any(pipeline.neighbours == "remove" for pipeline in spec.pipelines().values()),
            "align": spec.align != "none",
        }
        for name, needed in needs.items():
            if needed:
                raise SpecError(
                    f"{name}: cells are given by {table.mode}, and this needs their labels.",
                    remedy="Give label_path and label in the table.",
                )
    if spec.shape == "auto" and table.mode == "centres":
        raise SpecError("shape: cells are given by centres, which have no size.", remedy="Give a shape.")
    if spec.shape == "auto" and isinstance(spec.align, UserFunction):
        raise SpecError("shape: 'auto' does not go with a function that aligns.", remedy="Give a shape.")
    if spec.split is not None:
        known = {"cell_id", "fov_id", "label", *table.metadata}
        unknown = [name for name in spec.split.by if name not in known]
        if unknown:
            raise SpecError(
                f"split: there is no column {unknown[0]!r}; there are {', '.join(sorted(known))}.",
                remedy=did_you_mean(unknown[0], known),
            )


def _is_rule(pipeline: Pipeline) -> bool:
    return not isinstance(pipeline.mask, UserFunction)


def meets_condition(frame: pd.DataFrame, condition: str, field: str = "drop") -> npt.NDArray[np.bool_]:
    """Which rows meet a condition of a field of the spec, as `cellcube.tables.rows_that_meet` says.

    Raises
    ------
    SpecError
        Where it cannot be evaluated to true or false.
    """
    return rows_that_meet(frame, condition, field, SpecError)


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
