"""Runs: one provenance record and one table of outcomes a build, written once."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from cellcube.errors import DatasetDamagedError
from cellcube.ledger.objects import Recorder
from cellcube.location import Location
from cellcube.tables import is_in

RunTable = Literal["outcomes", "cells", "fovs", "table", "retracted", "objects", "profile"]
# In memory, or as the bytes of a Parquet file.
Table = pd.DataFrame | bytes | memoryview
OUTCOME_COLUMNS = ("cell_id", "fov_id", "label", "status", "reason", "run")


_SHORT_TABLE = 10_000

# Rows of a row group: what is held at once of a long table.
_GROUP_ROWS = 32_768


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
    schema = pa.schema(fields, metadata=noted)
    options = _options(schema, len(frame) > _SHORT_TABLE)
    pq.write_table(table.cast(schema), buffer, row_group_size=_GROUP_ROWS, **options)
    return buffer.getvalue()


def _options(schema: Any, long: bool) -> dict[str, Any]:
    """How a table of a schema is written as Parquet."""
    import pyarrow as pa

    return {
        "compression": "zstd",
        # Measures hardly ever repeat: to look for what repeats takes longer than all the rest.
        "use_dictionary": [field.name for field in schema if not pa.types.is_floating(field.type)],
        # Statistics help to skip parts of a long table, and are a quarter of a short one.
        "write_statistics": long,
    }


def write_table(location: Location, frame: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a table as Parquet, with `metadata` under ``cellcube`` in its schema."""
    location.write(table_bytes(frame, metadata))


def read_table(location: Location) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and its ``cellcube`` metadata."""
    data = location.read()
    return parse_table(data), about_table(data)


def parse_table(data: bytes | memoryview, columns: Collection[str] | None = None) -> pd.DataFrame:
    """The table in the bytes of a Parquet file; only those of `columns` that it has, if they are given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    wanted = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
    # Of long tables some columns are asked for: each gives its memory back once it is taken over.
    frame: pd.DataFrame = file.read(wanted).to_pandas(self_destruct=wanted is not None, split_blocks=wanted is not None)
    return frame


def about_table(data: bytes) -> dict[str, Any]:
    """What is noted under ``cellcube`` in the schema of a Parquet file."""
    import pyarrow.parquet as pq

    noted = pq.read_schema(io.BytesIO(data)).metadata or {}
    about: dict[str, Any] = json.loads(noted.get(b"cellcube", b"{}"))
    return about


def joined_bytes(
    parts: Sequence[bytes],
    describe: Callable[[Sequence[str]], Mapping[str, Any]],
    change: Callable[[Any, int], Any] = lambda table, start: table,
) -> memoryview | None:
    """Tables as `table_bytes` makes them, one below the other, without holding their rows in memory all at once.

    Parameters
    ----------
    parts : sequence of bytes
    describe : callable
        Gives the metadata of the joined table from the names of its columns.
    change : callable
        Gives some rows as they are to be written, from a pyarrow Table of them and the number of rows before.

    Returns
    -------
    memoryview or None
        Of the joined table's bytes; None where the tables have no rows, or not the same columns of the same types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema: Any = None
    kinds: dict[str, Any] = {}
    rows = 0
    for part in parts:
        about = pq.read_metadata(pa.BufferReader(part))
        if not about.num_rows:
            # Its columns say nothing.
            continue
        own = about.schema.to_arrow_schema()
        found = {field.name: field.type for field in own}
        if b"pandas" in (own.metadata or {}) or found != (kinds or found):
            return None
        if schema is None:
            schema, kinds = own.remove_metadata(), found
        rows += about.num_rows
    if schema is None:
        return None
    changed = change(schema.empty_table(), 0).schema
    changed = changed.with_metadata({b"cellcube": json.dumps(dict(describe(changed.names))).encode()})
    stream, written = pa.BufferOutputStream(), 0
    with pq.ParquetWriter(stream, changed, **_options(changed, rows > _SHORT_TABLE)) as writer:
        for group in _row_groups(parts, schema):
            writer.write_table(change(group, written).cast(changed))
            written += len(group)
    pa.default_memory_pool().release_unused()
    return memoryview(stream.getvalue())


def _row_groups(parts: Sequence[bytes], schema: Any) -> Iterator[Any]:
    """The rows of several files as pyarrow Tables of a schema, each as long as a row group but the last."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    waiting = schema.empty_table()
    for part in parts:
        file = pq.ParquetFile(pa.BufferReader(part))
        for group in range(file.num_row_groups if file.metadata.num_rows else 0):
            rows = file.read_row_group(group)
            columns = [
                # Text that one table lacks is empty there.
                pc.fill_null(rows[each.name], "") if pa.types.is_string(each.type) else rows[each.name]
                for each in schema
            ]
            waiting = pa.concat_tables([waiting, pa.table(columns, schema=schema)])
            while len(waiting) >= _GROUP_ROWS:
                yield waiting[:_GROUP_ROWS]
                waiting = waiting[_GROUP_ROWS:]
    if len(waiting):
        yield waiting


def write_run(recorder: Recorder, version: int, record: Mapping[str, Any], tables: Mapping[RunTable, Table]) -> None:
    """Write what a build did, before it is committed.

    Parameters
    ----------
    recorder : Recorder
        Of the dataset's root.
    version : int
    record : mapping
        Provenance.
    tables : mapping
        DataFrames, or their bytes as of `table_bytes`. ``outcomes``: `OUTCOME_COLUMNS`, one row a cell that the build
        decided on. ``cells``: manifest rows of the cells it kept, in the order of the cube. ``fovs``: `fov_id`,
        `labels` in its label image, `run`. ``table``: rows of the validated cell table. ``retracted``: `cell_id`,
        `position`, `reason`, `run`.
    """
    for name, table in tables.items():
        data = table_bytes(table, {"run": version}) if isinstance(table, pd.DataFrame) else table
        recorder.write(f"runs/{run_name(version)}.{name}.parquet", data)
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
    kept = before[~is_in(before["cell_id"], new["cell_id"])]
    return pd.concat([kept, new], ignore_index=True)
