"""Every label of a table of FOVs, and outcomes of what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cells import CellTable
from cellcube.errors import CellcubeError, ImageError, MissingDependencyError
from cellcube.plan.jobs import FovTask
from cellcube.urls import seen_from

# What fails the cells of one FOV and lets the others go on.
FOV_ERRORS = (ImageError, MissingDependencyError)


FovError = ImageError | MissingDependencyError


def expand(
    table: CellTable, tasks: Sequence[FovTask], labels: Sequence[list[int] | FovError]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells of a table of FOVs.

    Parameters
    ----------
    table : CellTable
        Of mode ``fovs``.
    tasks : sequence of FovTask
    labels : sequence
        The labels of each, or why they cannot be read.

    Returns
    -------
    cells : DataFrame
        One row a label; `cell_id` is ``<fov_id>-<label>``.
    failed : DataFrame
        Outcomes of FOVs that could not be read, one row a FOV with its `fov_id` as `cell_id`.
    """
    frames, failed = [], []
    for task, found in zip(tasks, labels, strict=True):
        fov_id = task.source.fov_id
        if isinstance(found, FOV_ERRORS):
            outcome = failed_outcome(fov_id, fov_id, found, table.published_base)
            outcome["reason"] += " Its cells are unknown, so the FOV counts as one."
            failed.append(outcome)
            continue
        rows = task.cells.loc[task.cells.index.repeat(len(found))].reset_index(drop=True)
        rows["label"] = np.array(found, "int64")
        rows["cell_id"] = [f"{fov_id}-{label}" for label in found]
        frames.append(rows)
    cells = pd.concat(frames, ignore_index=True) if frames else table.frame.iloc[:0].assign(label=0, cell_id="")
    return cells, outcomes_frame(failed)


def failed_outcome(cell_id: str, fov_id: str, error: CellcubeError, base: str, label: int = 0) -> dict[str, Any]:
    """The outcome of a cell that met an error.

    Parameters
    ----------
    cell_id, fov_id : str
    error : CellcubeError
    base : str
        Folder or URL that the table's paths are seen from; what is published names paths as the table does.
    label : int
    """
    kind = error.kind
    text = seen_from(base, " ".join(error.tell("path").split()))
    return {"cell_id": cell_id, "fov_id": fov_id, "label": label, "status": "failed", "reason": f"{kind}: {text}"}


def outcomes_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Outcomes as a DataFrame with the right types, also where there are none."""
    frame = pd.DataFrame(list(rows), columns=["cell_id", "fov_id", "label", "status", "reason"])
    return frame.astype({"cell_id": str, "fov_id": str, "label": "int64", "status": str, "reason": str})
