"""Tables of a run made again from others that hold the same; what comes out is compared by its hash."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

import pandas as pd

from cellcube.cells import load_cells
from cellcube.errors import CellcubeError
from cellcube.ledger import run_name
from cellcube.location import Location
from cellcube.manifest import CELLS, FOVS, OBJECTS, OUTCOMES
from cellcube.publishing.listing import Listing, is_of_runs, parse_table, read_bytes, run_table
from cellcube.publishing.rebuild import Cells
from cellcube.spec import CubeSpec
from cellcube.splits import assign_split

_SAME = {"cells": CELLS, "outcomes": OUTCOMES, "fovs": FOVS}

Candidates = Iterator[tuple[pd.DataFrame, str]]


def candidates(
    root: Location,
    listing: Listing,
    damaged: Container[str],
    number: int,
    name: str,
    cells: Cells,
    spec: CubeSpec | None,
    storage_options: Mapping[str, Any] | None,
) -> Candidates:
    """What a table of a run can have been, and where that is from.

    Parameters
    ----------
    root : Location
    listing : Listing
    damaged : container of str
        Paths of what is not to be relied on.
    number, name
        The run, and its table.
    cells : DataFrame, path or URL, optional
        The cell table that was built.
    spec : CubeSpec or None
    storage_options : mapping, optional
    """
    if name == "objects" and listing.table is not None:
        frame = listing.table
        own = frame["path"].map(is_of_runs) & (frame["path"] != f"runs/{run_name(number)}.objects.parquet")
        yield frame[(frame["run"] == number) & own], f"from {OBJECTS}"
    try:
        if name in _SAME and _SAME[name] not in damaged:
            yield from _from_derived(root, number, name)
        if name == "table" and cells is not None and spec is not None:
            yield from _from_cells(root, number, cells, spec, storage_options)
    except (CellcubeError, KeyError):
        # What it would be made from is damaged too, or not that of this run.
        return


def _from_derived(root: Location, number: int, name: str) -> Candidates:
    data = read_bytes(root / _SAME[name])
    parsed = parse_table(data) if data is not None else None
    if parsed is None:
        return
    how = f"from {_SAME[name]}"
    if name == "fovs":
        labels = parsed[0].dropna(subset="labels").set_index("fov_id")["labels"].astype("int64")
        read = run_table(root, number, "outcomes")["fov_id"].unique()
        fovs = [fov for fov in read if fov in labels.index]
        rows = {"fov_id": pd.Series(fovs, dtype=str), "labels": labels.loc[fovs].to_numpy("int64")}
        yield pd.DataFrame(rows).assign(run=number), how
        return
    frame = parsed[0][parsed[0]["run"] == number]
    yield frame, how
    # Columns that only other runs have.
    yield frame.dropna(axis=1, how="all"), how


def _from_cells(
    root: Location, number: int, cells: Cells, spec: CubeSpec, storage_options: Mapping[str, Any] | None
) -> Candidates:
    assert cells is not None, "there is a table"
    frame = load_cells(cells, spec, storage_options).frame
    if spec.split is not None:
        frame = frame.assign(split=pd.Series(assign_split(frame, spec.split), index=frame.index, dtype=str))
    decided = run_table(root, number, "outcomes")["cell_id"]
    yield frame[frame["cell_id"].isin(decided)].assign(run=number), "from the cell table"
