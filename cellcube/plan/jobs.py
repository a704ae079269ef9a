"""FOVs and the cells asked of them, in jobs: pure, printable, the same on every machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cells import VOXEL_SIZE, CellTable
from cellcube.cube import Layout
from cellcube.images import ImageSource, VoxelSize
from cellcube.images.fov import FovSource
from cellcube.spec import CubeSpec
from cellcube.urls import options_for

# A job ends after so many shards, cells or FOVs: small enough to spread, resume and hold, large enough to be worth its
# cost. What lies between the borders of whole shards need not be written twice.
JOB_SHARDS = 3
MOST_CELLS = 2048
JOB_FOVS = 8
# Where the size of shards does not matter.
JOB_CELLS = 256

# Jobs of remote fields of view have several, where there are many: one is fetched while another is worked on.
REMOTE_FOVS = 4


@dataclass(frozen=True)
class FovTask:
    """One FOV and the cells that are asked of it.

    Parameters
    ----------
    source : FovSource
    cells : DataFrame
        Rows of the validated table.
    digest : str
        Of `cells`: of the types and values of all columns.
    bounds : dict
        (low, high) that were fitted over more than this field, by representation and channel; None where nothing could
        be fitted.
    """

    source: FovSource
    cells: pd.DataFrame
    digest: str
    bounds: Mapping[str, Mapping[str, tuple[float, float] | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """FOVs that one worker reads, one after the other.

    Parameters
    ----------
    key : str
        Digest of all that decides the result, but not of the other jobs.
    fovs : tuple of FovTask
    """

    key: str
    fovs: tuple[FovTask, ...]

    @property
    def count(self) -> int:
        """Cells asked for."""
        return sum(len(fov.cells) for fov in self.fovs)


@dataclass(frozen=True)
class Plan:
    """What a build will do.

    Parameters
    ----------
    jobs : tuple of Job
    layout : Layout or None
        None where no FOV could be opened.
    failed : DataFrame
        Outcomes that are known before any pixel is read: FOVs whose labels could not be listed.
    """

    jobs: tuple[Job, ...]
    layout: Layout | None
    failed: pd.DataFrame

    @property
    def cells(self) -> int:
        """Cells that the jobs are asked for."""
        return sum(job.count for job in self.jobs)

    @property
    def fovs(self) -> int:
        """FOVs that the jobs read."""
        return sum(len(job.fovs) for job in self.jobs)

    def bytes(self) -> int:
        """Uncompressed bytes of all new pixels."""
        if self.layout is None:
            return 0
        return self.cells * sum(array.cell_bytes for array in self.layout.arrays().values())

    def shards(self) -> int:
        """Objects of pixels in a cube of these cells."""
        if self.layout is None:
            return 0
        return len(self.layout.arrays()) * math.ceil(self.cells / self.layout.shard_cells)


def fov_tasks(
    table: CellTable, frame: pd.DataFrame, spec: CubeSpec, storage_options: Mapping[str, Any] | None
) -> Iterator[FovTask]:
    """The FOVs of a table, in its order.

    Parameters
    ----------
    table : CellTable
    frame : DataFrame
        Rows of the table, ordered by FOV.
    """
    ids = frame["fov_id"].to_numpy()
    if not len(ids):
        return
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    bounds = [*starts.tolist(), len(ids)]
    shared = _shared_columns(table, frame, starts)
    # Types are part of it: the text "1" and the number 1 are stored differently.
    types = repr([(str(name), str(kind)) for name, kind in frame.dtypes.items()]).encode()
    hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy("<u8")
    for number, (start, stop) in enumerate(pairwise(bounds)):
        first = {name: values[number] for name, values in shared.items()}
        digest = hashlib.sha256(types + hashes[start:stop].tobytes()).hexdigest()
        yield FovTask(_source(table, first, spec, storage_options), frame.iloc[start:stop], digest)


def _shared_columns(table: CellTable, frame: pd.DataFrame, starts: Any) -> dict[str, list[Any]]:
    names = [
        *table.image_columns.values(),
        *table.label_images.values(),
        "fov_id",
        "label_path",
        "label_channel",
        "scene",
        "timepoint",
        "axes",
    ]
    names += ["label_axes", *VOXEL_SIZE]
    return {name: frame[name].iloc[starts].tolist() for name in dict.fromkeys(names) if name in frame}


def _source(
    table: CellTable, row: Mapping[str, Any], spec: CubeSpec, storage_options: Mapping[str, Any] | None
) -> FovSource:
    scene: str | int | None = row.get("scene") or None
    if isinstance(scene, str) and scene.isdecimal():
        scene = int(scene)
    timepoint = row.get("timepoint", -1)
    axes = row.get("axes") or spec.axes

    def image(path: str, axes: str | None) -> ImageSource:
        resolved = table.resolve(path)
        return ImageSource(
            resolved,
            scene=scene,
            timepoint=None if timepoint < 0 else int(timepoint),
            axes=axes,
            storage_options=options_for(resolved, storage_options),
        )

    images = {name: image(row[column], axes) for name, column in table.image_columns.items()}
    label_channel = row.get("label_channel") or spec.label_channel
    labels = None
    label_axes = row.get("label_axes") or spec.label_axes
    if label_channel is None and axes and not label_axes:
        label_axes = "".join(axis for axis in axes if axis not in "CTS")
    if table.has_labels:
        path = row.get("label_path")
        if path:
            labels = image(path, label_axes if label_channel is None else label_axes or axes)
        else:
            labels = next(iter(images.values()))
    given = spec.fov_voxel_size or (None, None, None)
    size = [_known(row.get(name)) or value for name, value in zip(VOXEL_SIZE, given, strict=True)]
    return FovSource(
        fov_id=row["fov_id"],
        images=images,
        channels=spec.channels if "" in images else None,  # type: ignore[arg-type]
        labels=labels,
        label_channel=None if label_channel is None or labels is None else str(label_channel),
        label_images={name: image(row[column], label_axes) for name, column in table.label_images.items()},
        voxel_size=VoxelSize(*size),
    )


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def make_jobs(tasks: Sequence[FovTask], digest: str, shard_cells: int = 0) -> tuple[Job, ...]:
    """Whole FOVs, in order, in jobs of about `JOB_SHARDS` shards.

    Parameters
    ----------
    tasks : sequence of FovTask
    digest : str
        Of the spec and the layout.
    shard_cells : int
        Cells in a shard.
    """
    most = min(JOB_SHARDS * shard_cells, MOST_CELLS) if shard_cells else JOB_CELLS
    jobs: list[Job] = []
    held: list[FovTask] = []
    count = 0
    least = min(REMOTE_FOVS, len(tasks) // 16) if any(task.source.is_remote for task in tasks) else 1
    for task in tasks:
        full = count + len(task.cells) > most and len(held) >= least
        if held and (full or len(held) == JOB_FOVS):
            jobs.append(_job(held, digest))
            held, count = [], 0
        held.append(task)
        count += len(task.cells)
    if held:
        jobs.append(_job(held, digest))
    return tuple(jobs)


def _job(fovs: list[FovTask], digest: str) -> Job:
    hashed = hashlib.sha256(digest.encode())
    for fov in fovs:
        hashed.update(repr((fov.source, fov.bounds, fov.digest)).encode())
    return Job(hashed.hexdigest()[:24], tuple(fovs))
