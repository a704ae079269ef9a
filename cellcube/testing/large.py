"""A dataset of as many cells as one likes, without images: to see what grows with the number of cells."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from cellcube import cube as cubes
from cellcube.cube import Layout, PieceWriter
from cellcube.ledger import Recorder
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
    write_manifest(root, commit_run(recorder, spec, layout, None, rows, tables, record, {}))


def _shard(layout: Layout) -> bytes:
    array = layout.arrays()["cells"]
    writer = PieceWriter(array, array.shard_cells)
    for number in range(array.shard_cells):
        done = writer.add(np.full(array.item, number % 65_536, array.dtype))
    return bytes(done if done is not None else writer.finish() or b"")


def _rows(layout: Layout, count: int) -> pd.DataFrame:
    numbers = np.arange(count)
    rows = {
        "cell_id": np.char.add("cell-", np.char.zfill(numbers.astype(str), 8)),
        "fov_id": np.char.add("fov-", (numbers // 1000).astype(str)),
        "label": numbers % 1000 + 1,
        "well": np.char.add("well-", (numbers % 384).astype(str)),
    }
    frame = pd.DataFrame({name: pd.Series(values) for name, values in rows.items()})
    for name, kind in cubes.cell_coordinates(layout).items():
        if name not in frame and name not in ("run", "retracted"):
            frame[name] = np.zeros(count, kind)
    for name in cubes.channel_coordinates(layout):
        for channel in layout.channels:
            frame[f"{name}_{channel}"] = 0.0
    for channel in layout.channels:
        frame[f"intensity_max_{channel}"] = 65_535.0
    return frame
