"""The end of a build: pieces become shards, rows become coordinates, and the commit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cellcube import cube as cubes
from cellcube.cube import FORMAT, ArrayLayout, CubeState, Layout, ShardPart
from cellcube.errors import ArgumentError
from cellcube.ledger import (
    Recorder,
    RunTable,
    Table,
    calling_script,
    code_of,
    environment,
    function_record,
    joined_bytes,
    parse_table,
    run_name,
    table_bytes,
    write_run,
)
from cellcube.location import Location
from cellcube.pixels import stored_scale
from cellcube.run.executors import Workers
from cellcube.run.result import JobResult
from cellcube.spec import CubeSpec
from cellcube.urls import public_options, public_url


def pack(
    root: Location,
    layout: Layout,
    committed: int,
    pending: Location,
    results: Sequence[JobResult],
    workers: Workers,
) -> Recorder:
    """Put the pieces of all jobs, in order, into the shards of the cube; not visible before the commit.

    Returns
    -------
    Recorder
        Of the dataset's root, with the shards.
    """
    recorder = Recorder(root)
    cube = root / "cube.zarr"
    tasks: list[tuple[ArrayLayout, int, list[ShardPart]]] = []
    for name, array in layout.arrays().items():
        pieces = [
            (
                pending / result.key / f"{name}.{number}",
                count,
                result.sizes[f"{name}.{number}"],
                result.digests[f"{name}.{number}"],
            )
            for result in results
            for number, count in enumerate(result.pieces)
        ]
        parts = cubes.shard_parts(array, cube, committed, pieces)
        tasks += [(array, number, sources) for number, sources in parts.items()]
    for _, (path, size, sha256) in workers.run(partial(_write_shard, cube=cube), tasks):
        recorder.add(f"cube.zarr/{path}", size, sha256)
    return recorder


def commit_run(
    recorder: Recorder,
    spec: CubeSpec,
    layout: Layout,
    state: CubeState | None,
    cells: Sequence[bytes],
    tables: Mapping[RunTable, pd.DataFrame],
    record: Mapping[str, Any],
    fitted: Mapping[str, Any],
) -> CubeState:
    """Write the run and the coordinates of its cells, then replace the cube's metadata.

    Parameters
    ----------
    recorder : Recorder
        Of the dataset's root, with the shards that were written.
    spec : CubeSpec
    layout : Layout
    state : CubeState or None
        What is committed so far.
    cells : sequence of bytes
        Manifest rows of the kept cells, in the order of their pixels, as Parquet tables one below the other.
    tables : mapping
        The run's tables besides ``cells``.
    record : mapping
        Of `run_record`.
    fitted : mapping
        What later builds reuse: statistics of groups, digests of illumination images.

    Returns
    -------
    CubeState
        What is committed now.
    """
    version = state.version + 1 if state else 1
    first = state.count if state else 0
    run_cells = _run_cells(cells, version, first)
    rows = manifest_coordinates(parse_table(run_cells, coordinate_columns(layout)), layout)
    old: Mapping[str, Any] = state.attributes if state else {"versions": []}
    attributes = {
        "format": FORMAT,
        "name": spec.name,
        "description": spec.description,
        "licence": spec.licence,
        "spec": spec.to_dict(),
        "spec_digest": spec.digest,
        "identity": spec.identity(),
        "layout": layout.to_dict(),
        "voxel_size": common_voxel_size(rows, old.get("voxel_size")),
        "windows": old.get("windows") or windows_of(rows, layout),
        **fitted,
        "versions": old["versions"],
        "last_run": {"code": record["code"], "cellcube": record["environment"]["cellcube"]},
    }
    return commit_version(
        recorder,
        attributes,
        {"cells": first + len(rows), "retracted": state.retracted_at(state.version) if state else 0},
        record,
        {"cells": run_cells, **{name: table.assign(run=version) for name, table in tables.items()}},
        lambda cube, documents: cubes.coordinate_chunks(cube, documents, layout, first, rows) if len(rows) else {},
    )


def commit_version(
    recorder: Recorder,
    attributes: Mapping[str, Any],
    entry: Mapping[str, int],
    record: Mapping[str, Any],
    tables: Mapping[RunTable, Table],
    chunks: Callable[[Location, dict[str, bytes]], Mapping[str, bytes]],
) -> CubeState:
    """Add a version: its run, its coordinates, the list of its objects, then the metadata, which is the commit.

    Parameters
    ----------
    recorder : Recorder
        Of the dataset's root, with the shards that were written.
    attributes : mapping
        Of the root of the cube, with the versions so far.
    entry : mapping
        ``cells`` and ``retracted`` of the version.
    record : mapping
        Provenance.
    tables : mapping
        Of the run.
    chunks : callable
        Gives the objects of coordinates by their path in the store, from the store and its new metadata.
    """
    cube = recorder.root / "cube.zarr"
    version = len(attributes["versions"]) + 1
    known = {"version": version, **entry, "finished": record["finished"], "run": f"runs/{run_name(version)}.json"}
    state = CubeState({**attributes, "versions": [*attributes["versions"], known]})
    documents = documents_of(state)
    for path, data in chunks(cube, documents).items():
        recorder.write(f"cube.zarr/{path}", data)
    write_run(recorder, version, record, tables)
    for path, data in documents.items():
        recorder.note(f"cube.zarr/{path}", data)
    objects = table_bytes(recorder.frame(version), {"run": version})
    (recorder.root / "runs" / f"{run_name(version)}.objects.parquet").write(objects)
    cubes.commit(cube, documents, state.layout, entry["cells"])
    return state


def documents_of(state: CubeState) -> dict[str, bytes]:
    """Every ``zarr.json`` of a committed state, by path in the store, the root's last."""
    attributes = state.attributes
    voxel_size, sizes = attributes["voxel_size"], None
    if not isinstance(voxel_size, str):
        z, y, x = (math.nan if value is None else float(value) for value in voxel_size)
        sizes = (z, y, x)
    return cubes.metadata_documents(
        state.layout, state.count, attributes, attributes["name"], sizes, attributes["windows"]
    )


def run_record(
    root: Location,
    spec: CubeSpec,
    version: int,
    started: datetime,
    results: Sequence[JobResult],
    outcomes: pd.DataFrame,
    workers: Workers,
    identify: bool,
) -> dict[str, Any]:
    """Provenance of a run, without secrets."""
    counts = outcomes["status"].value_counts()
    return {
        "version": version,
        "kind": "build",
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": {
            "requested": len(outcomes),
            **{status: int(counts.get(status, 0)) for status in ("kept", "dropped", "failed")},
        },
        "spec": spec.to_dict(),
        "spec_digest": spec.digest,
        "code": code_of(calling_script()),
        "functions": {name: function_record(each) for name, each in spec.functions().items()},
        "environment": environment(identify),
        "executor": {"name": workers.name, "workers": workers.count},
        "root": root.name if root.is_local else public_url(root.url),
        "storage_options": public_options(root.storage_options),
        "seconds": stage_seconds(results),
        "fovs": {fov: files for result in results for fov, files in result.sources.items()},
    }


def _write_shard(item: tuple[ArrayLayout, int, list[ShardPart]], cube: Location) -> tuple[str, int, str]:
    array, number, parts = item
    return cubes.write_shard(cube, array, number, parts)


def stage_seconds(results: Sequence[JobResult]) -> dict[str, float]:
    """Seconds of all jobs by stage."""
    names = results[0].seconds if results else {}
    return {name: round(sum(result.seconds[name] for result in results), 3) for name in names}


def _run_cells(parts: Sequence[bytes], version: int, first: int) -> bytes | memoryview:
    """The manifest rows of a run as Parquet, with the run and the place in the cube after the identity."""
    import pyarrow as pa

    about = {"run": version}

    def numbered(rows: Any, start: int) -> Any:
        place = min(3, rows.num_columns)
        positions = np.arange(first + start, first + start + len(rows))
        rows = rows.add_column(place, "run", pa.array(np.full(len(rows), version)))
        return rows.add_column(place + 1, "position", pa.array(positions))

    joined = joined_bytes(parts, lambda _: about, numbered)
    if joined is not None:
        return joined
    # There are none, or the columns of some differ, as measures of the user's own may.
    frames = [frame for part in parts if len(frame := parse_table(part))] or [pd.DataFrame()]
    rows = pd.concat(frames, ignore_index=True)
    rows.insert(min(3, rows.shape[1]), "run", version)
    rows.insert(min(4, rows.shape[1]), "position", np.arange(first, first + len(rows)))
    return table_bytes(rows, about)


def manifest_coordinates(kept: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Manifest rows of a run with all columns that `cellcube.cube.coordinate_chunks` wants."""
    if kept.empty:
        return pd.DataFrame({name: [] for name in coordinate_columns(layout)})
    rows = kept.assign(retracted=0)
    for name, kind in layout.metadata.items():
        if name not in rows:
            rows[name] = "" if kind == "string" else math.nan
        elif kind == "string":
            rows[name] = rows[name].astype(str)
        elif kind in ("int64", "bool") and rows[name].dtype.kind not in ("iub" if kind == "int64" else "b"):
            raise ArgumentError(
                f"The column {name!r} holds {rows[name].dtype}, in the dataset it is {kind}.",
                remedy="Convert the column, or give it another name.",
            )
    return rows


def coordinate_columns(layout: Layout) -> list[str]:
    """Columns of the manifest that become coordinates, or tell of the windows of channels."""
    kinds = [*cubes.channel_coordinates(layout), *(["intensity_max"] if layout.channel_measures else [])]
    return [*cubes.cell_coordinates(layout), *(f"{name}_{channel}" for name in kinds for channel in layout.channels)]


def common_voxel_size(rows: pd.DataFrame, before: Any) -> Any:
    """(z, y, x) with None where unknown, or ``"mixed"`` where cells differ."""
    columns = [f"voxel_size_{axis}" for axis in "zyx"]
    found = {
        tuple(None if math.isnan(value) else float(value) for value in row)
        for row in rows[columns].drop_duplicates().to_numpy("float64")
    }
    if before == "mixed":
        return before
    if before is not None:
        found.add(tuple(before))
    if not found:
        return [None, None, None]
    return list(found.pop()) if len(found) == 1 else "mixed"


# Display windows of what has no bounds: most pixels lie so many standard deviations around the mean.
_DEVIATIONS = (-2.0, 5.0)


def windows_of(rows: pd.DataFrame, layout: Layout) -> dict[str, list[list[float]]]:
    """Display window of each channel in stored values, by representation."""
    found = {}
    nothing = pd.Series([], dtype="float64")
    for name, representation in layout.representations.items():
        found[name] = [
            _window(each, rows.get(f"intensity_max_{channel}", nothing).to_numpy("float64"), representation.dtype)
            for each, channel in zip(representation.normalization, layout.channels, strict=True)
        ]
    return found


def _window(normalizer: Mapping[str, Any], highest: Any, dtype: str) -> list[float]:
    method = normalizer.get("method")
    if method in ("zscore", "robust_zscore"):
        return list(_DEVIATIONS)
    whole = stored_scale(dtype)
    end = float(np.percentile(highest, 90)) if len(highest) else whole
    if method == "arcsinh":
        end = float(np.arcsinh((end - normalizer["offset"]) / normalizer["cofactor"]))
    elif method == "log":
        end = float(np.log(max(end + normalizer["offset"], 1.0)))
    elif method != "none":
        return [0.0, whole]
    return [0.0, end if end > 0 else whole]
