"""A dataset of as many cells as one likes, without images: to see what grows with the number of cells."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from cellcube.columns import added
from cellcube.cube import Layout, PieceWriter
from cellcube.ledger import Recorder, table_bytes
from cellcube.location import Location
from cellcube.manifest import write_manifest
from cellcube.run.commit import commit_run
from cellcube.spec import CubeSpec


def write_large_dataset(
    root: Location, cells: int, *, channels: int = 2, size: int = 16, shard_mb: float = 8.0
) -> None:
    """Write a dataset whose shards all hold the same pixels: cell i is filled with ``i % cells in a shard``.

    Parameters
    ----------
    root : Location
        A new folder.
    cells : int
        At least one shard; rounded down to whole shards.
    channels, size : int
        Of a crop, which has one plane.
    shard_mb : float
        As in the spec.
    """
    spec = CubeSpec(
        name="large",
        shape=(1, size, size),
        normalize="none",
        dtype="uint16",
        projections=[],
        storage={"shard_mb": shard_mb},
    )
    names = tuple(f"marker {number}" for number in range(channels))
    layout = Layout.of(spec, names, {"cells": "uint16"}, False, {"well": "string"})
    array = layout.arrays()["cells"]
    shards = max(1, cells // array.shard_cells)
    recorder = Recorder(root)
    shard = _shard(layout)
    for number in range(shards):
        recorder.write(f"cube.zarr/{array.shard_key(number)}", shard)
    count = shards * array.shard_cells
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "kind": "build",
        "finished": finished,
        "code": {"file": None, "git": None},
        "environment": {"cellcube": "test", "python": "3"},
    }
    rows = _rows(layout, count)
    outcomes = rows[["cell_id", "fov_id", "label"]].assign(status="kept", reason="")
    fovs = pd.DataFrame({"fov_id": rows["fov_id"].unique()}).assign(labels=1000)
    tables: dict[Any, pd.DataFrame] = {"outcomes": outcomes, "fovs": fovs}
    write_manifest(root, commit_run(recorder, spec, layout, None, [table_bytes(rows)], tables, record, {}))


def _shard(layout: Layout) -> bytes:
    array = layout.arrays()["cells"]
    writer = PieceWriter(array, array.shard_cells)
    for number in range(array.shard_cells):
        done = writer.add(np.full(array.item, number % 65_536, array.dtype))
    return bytes(done if done is not None else writer.finish() or b"")


def _rows(layout: Layout, count: int) -> pd.DataFrame:
    """Manifest rows with all columns of a build; measures are random, as nothing compresses them."""
    numbers, rng = np.arange(count), np.random.default_rng(0)
    rows = {
        "cell_id": np.char.add("cell-", np.char.zfill(numbers.astype(str), 8)),
        "fov_id": np.char.add("fov-", (numbers // 1000).astype(str)),
        "label": numbers % 1000 + 1,
        "well": np.char.add("well-", (numbers % 384).astype(str)),
    }
    columns: dict[str, Any] = {name: pd.Series(values) for name, values in rows.items()}
    columns["fov_path"] = "images/" + columns["fov_id"] + ".tif"
    for name in added(layout):
        if name in ("shifted", "oversize", "touches_border"):
            columns[name] = np.zeros(count, bool)
        elif name.startswith("origin_") or name[1:] in ("0", "1") or name in ("area_voxels", "fragments"):
            columns[name] = numbers % 2000
        elif name.startswith(("voxel_size", "intensity_max")):
            columns[name] = np.full(count, 0.5 if name.startswith("voxel_size") else 65_535.0)
        else:
            columns[name] = rng.random(count)
    return pd.DataFrame(columns)
