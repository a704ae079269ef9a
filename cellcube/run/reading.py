"""Fields of view of a job, read one after the other; those of a remote store ahead of their use."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from cellcube.ahead import made_ahead
from cellcube.errors import CellError, ChannelError, ImageMismatchError
from cellcube.images.fov import Fov
from cellcube.pixels import Dropped
from cellcube.plan import FOV_ERRORS, FovError, FovTask
from cellcube.run.field import Field, PlacedCell
from cellcube.run.result import CropDepthWarning, JobContext
from cellcube.run.stopwatch import Stopwatch

# Fields of view that are fetched from a remote store while one is worked on: enough to hide the network behind the
# work, few enough that a worker holds three at most.
AHEAD = 2


@dataclasses.dataclass
class ReadField:
    """A field of view that was read, or why it could not be.

    Attributes
    ----------
    task : FovTask
    rows : list of dict
        Those of the cell table, with `fov_id`.
    field : Field or None
        None where it was not opened.
    placed : list of PlacedCell
        The cells whose place is known.
    decided : list
        (row, why) of the cells that cannot be placed.
    bounds : mapping
        As from `Field.bounds`.
    error : ImageError or MissingDependencyError or None
        What fails all cells that are not decided.
    watch : Stopwatch
    """

    task: FovTask
    rows: list[dict[str, Any]]
    field: Field | None = None
    placed: list[PlacedCell] = dataclasses.field(default_factory=list)
    decided: list[tuple[dict[str, Any], Dropped | CellError]] = dataclasses.field(default_factory=list)
    bounds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    error: FovError | None = None
    watch: Stopwatch = dataclasses.field(default_factory=Stopwatch)


def read_fields(tasks: Sequence[FovTask], context: JobContext, watch: Stopwatch) -> Generator[ReadField, None, None]:
    """The fields of view of a job, in its order, each read once.

    Parameters
    ----------
    tasks : sequence of FovTask
    context : JobContext
    watch : Stopwatch
        Is told how long the caller had to wait.
    """
    # Only one is held at a time where threads would fight for the processor that the work needs.
    ahead = AHEAD if len(tasks) > 1 and any(task.source.is_remote for task in tasks) else 0
    with closing(made_ahead(tasks, partial(read_field, context=context), lambda made: made, ahead)) as fields:
        while True:
            if ahead:
                with watch.timing("wait"):
                    found = next(fields, None)
            else:
                found = next(fields, None)
            if found is None:
                return
            yield found
            del found


def read_field(task: FovTask, context: JobContext) -> ReadField:
    """Open a field of view, find its cells, and read the pixels that they need; files are closed again."""
    rows = [{str(name): value for name, value in row.items()} for row in task.cells.to_dict("records")]
    read = ReadField(task, [{**row, "fov_id": task.source.fov_id} for row in rows])
    watch = read.watch
    try:
        with watch.timing("read"):
            fov = Fov(task.source, context.spec.reader)
        with fov:
            _check(fov, task, context)
            with watch.timing("read"):
                read.field = Field(fov, context.spec, context.layout.shape, context.lights)
            with watch.timing("select"):
                for row in read.rows:
                    try:
                        read.placed.append(read.field.place(row))
                    except (Dropped, CellError) as why:
                        read.decided.append((row, why))
            if read.placed:
                with watch.timing("read"):
                    read.field.load(read.placed)
        if read.placed:
            with watch.timing("normalize"):
                read.bounds = read.field.bounds(task.bounds)
    except FOV_ERRORS as error:
        read.error = error
    return read


def _check(fov: Fov, task: FovTask, context: JobContext) -> None:
    """Whether the cells of an open field of view go with the dataset."""
    spec, layout = context.spec, context.layout
    path = next(iter(task.source.images.values())).path
    if fov.channels != layout.channels:
        raise ChannelError(
            f"The image has the channels {', '.join(fov.channels)}, the dataset has {', '.join(layout.channels)}.",
            path=path,
        )
    for name, each in layout.representations.items():
        # What is resampled or corrected is rounded anyway.
        exact = not (spec.interpolates or spec.illumination or spec.preprocess)
        if each.keeps_raw and exact and not np.can_cast(fov.dtype, each.dtype, "safe"):
            place = "dataset" if name == "cells" else f"representation {name!r}"
            raise ImageMismatchError(
                f"The image holds {fov.dtype}, which the {place}'s {each.dtype} cannot hold exactly.", path=path
            )
    planes, depth = fov.shape[0], layout.shape[0]
    target = spec.voxel_size[0] if spec.voxel_size is not None else None
    if planes > 1 and target is not None and math.isfinite(fov.voxel_size[0]):
        planes = math.floor(planes * fov.voxel_size[0] / target + 0.5)
    if depth == 1 < planes:
        warnings.warn(
            f"The crop has 1 plane and the FOVs have {planes}: only the middle plane of each cell is taken. "
            "Give a shape with more planes for volumes.",
            CropDepthWarning,
            stacklevel=2,
        )
    elif planes < depth:
        warnings.warn(
            f"The crop has {depth} planes and the FOVs have {planes}: the rest of every crop is padding.",
            CropDepthWarning,
            stacklevel=2,
        )
    if fov.dtype.kind not in "iufb":
        raise ImageMismatchError(f"The image holds {fov.dtype}, not intensities.", path=path)
