"""Runs: one provenance record and one table of outcomes a build, written once."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from cellcube.errors import DatasetDamagedError
from cellcube.ledger.objects import Recorder
from cellcube.location import Location

RunTable = Literal["outcomes", "cells", "fovs", "table", "retracted", "objects"]
OUTCOME_COLUMNS = ("cell_id", "fov_id", "label", "status", "reason", "run")


_SHORT_TABLE = 10_000


def run_name(version: int) -> str:
    """The file name of a run without its suffix."""
    return f"{version:06d}"


def table_bytes(frame: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> bytes:
    """A table as Parquet, with `metadata` under ``cellcube`` in its schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    # pandas strings come as large_string, which not every reader of Parquet knows.
    fields = [
        pa.field(each.name, pa.string() if pa.types.is_large_string(each.type) else each.type) for each in table.schema
    ]
    noted = {b"cellcube": json.dumps(dict(metadata or {})).encode()}
    if any(str(kind) == "Int64" for kind in frame.dtypes):
        # Whole numbers with gaps come back as such only by this; it is larger than a small table.
        noted.update(table.schema.metadata or {})
    buffer = io.BytesIO()
    # Statistics help to skip parts of a long table, and are a quarter of a short one.
    statistics = len(frame) > _SHORT_TABLE
    pq.write_table(
        table.cast(pa.schema(fields, metadata=noted)), buffer, compression="zstd", write_statistics=statistics
    )
    return buffer.getvalue()


def write_table(location: Location, frame: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a table as Parquet, with `metadata` under ``cellcube`` in its schema."""
    location.write(table_bytes(frame, metadata))


def read_table(location: Location) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and its ``cellcube`` metadata."""
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(location.read()))
    noted = (table.schema.metadata or {}).get(b"cellcube", b"{}")
    return table.to_pandas(), json.loads(noted)


def write_run(
    recorder: Recorder, version: int, record: Mapping[str, Any], tables: Mapping[RunTable, pd.DataFrame]
) -> None:
    """Write what a build did, before it is committed.

    Parameters
    ----------
    recorder : Recorder
        Of the dataset's root.
    version : int
    record : mapping
        Provenance.
    tables : mapping
        ``outcomes``: `OUTCOME_COLUMNS`, one row a cell that the build decided on. ``cells``: manifest rows of the
        cells it kept, in the order of the cube. ``fovs``: `fov_id`, `labels` in its label image, `run`. ``table``:
        rows of the validated cell table. ``retracted``: `cell_id`, `position`, `reason`, `run`.
    """
    for name, frame in tables.items():
        recorder.write(f"runs/{run_name(version)}.{name}.parquet", table_bytes(frame, {"run": version}))
    text = json.dumps(record, indent=1, ensure_ascii=False)
    recorder.write(f"runs/{run_name(version)}.json", text.encode())


def read_run(runs: Location, version: int) -> dict[str, Any]:
    """The provenance record of a version."""
    path = runs / f"{run_name(version)}.json"
    try:
        record: dict[str, Any] = json.loads(path.read())
    except (FileNotFoundError, ValueError) as error:
        raise DatasetDamagedError("The record of a run is missing or damaged.", path=path.url) from error
    return record


def read_run_table(runs: Location, version: int, table: RunTable) -> pd.DataFrame:
    """One of the tables of a version, as `write_run` writes them, or its ``objects``."""
    path = runs / f"{run_name(version)}.{table}.parquet"
    try:
        return read_table(path)[0]
    except (OSError, ValueError) as error:
        raise DatasetDamagedError("The table of a run is missing or damaged.", path=path.url) from error


def fold_outcomes(before: pd.DataFrame | None, decided: pd.DataFrame) -> pd.DataFrame:
    """One row for every cell ever requested: what the latest run that looked at it decided."""
    new = decided.loc[:, list(OUTCOME_COLUMNS)]
    if before is None or before.empty:
        return new.reset_index(drop=True)
    kept = before[~before["cell_id"].isin(new["cell_id"])]
    return pd.concat([kept, new], ignore_index=True)
