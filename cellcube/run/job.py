"""One job: read its FOVs once, cut, normalize, project, measure, and write encoded pieces."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cells import is_reserved
from cellcube.cube import PieceWriter
from cellcube.errors import (
    BuildStoppedError,
    CellcubeError,
    CellError,
    ChannelError,
    ImageMismatchError,
    UserFunctionError,
)
from cellcube.functions import UserFunction
from cellcube.images.fov import Fov
from cellcube.ledger import sha256_of
from cellcube.pixels import Dropped
from cellcube.plan import FOV_ERRORS, FovTask, Job, failed_outcome, meets_condition, outcomes_frame
from cellcube.run.calls import call
from cellcube.run.field import Field, PlacedCell
from cellcube.run.result import CropDepthWarning, JobContext, JobResult, heard, states_of
from cellcube.run.stages import Masks, Stages
from cellcube.urls import public_url


def run_job(job: Job, context: JobContext, room: int) -> JobResult:
    """Do one job, or take its result where it was done before.

    Parameters
    ----------
    job : Job
    context : JobContext
    room : int
        Cells that are free in the shard where the job's cells are expected to begin.

    Raises
    ------
    BuildStoppedError
        At the first failed cell, where the context says so.
    """
    done = JobResult.load(context.pending, job, context.base)
    if done is not None:
        return done
    return _Run(job, context, room).result()


class _Run:
    def __init__(self, job: Job, context: JobContext, room: int) -> None:
        self.job = job
        self.context = context
        self.spec = context.spec
        self.layout = context.layout
        self.arrays = context.layout.arrays()
        self.writers = {name: PieceWriter(array, room) for name, array in self.arrays.items()}
        self.stages = Stages(self.spec, self.layout)
        self.labels: dict[str, int] = {}
        self.outcomes: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.pieces: list[int] = []
        self.sizes: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.in_piece = 0
        self.seconds = dict.fromkeys(("read", "select", "measure", "normalize", "encode", "write"), 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def result(self) -> JobResult:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            for fov in self.job.fovs:
                self._fov(fov)
        self._put({name: writer.finish() for name, writer in self.writers.items()})
        result = JobResult(
            key=self.job.key,
            outcomes=outcomes_frame(self.outcomes),
            cells=pd.DataFrame(self.cells),
            pieces=self.pieces,
            sizes=self.sizes,
            digests=self.digests,
            labels=self.labels,
            sources={fov.source.fov_id: states_of(fov, self.context.base) for fov in self.job.fovs},
            seconds={name: round(value, 4) for name, value in self.seconds.items()},
            warned=heard(caught),
        )
        result.save(self.context.pending)
        return result

    def _fov(self, task: FovTask) -> None:
        cells = task.cells
        known = len(self.outcomes)
        try:
            with self._open(task) as fov:
                with self.stage("read"):
                    field = Field(fov, self.spec, self.layout.shape, self.context.lights)
                if field.labels is not None:
                    self.labels[fov.fov_id] = len(field.boxes)
                with self.stage("select"):
                    placed = self._place(field, cells)
                if not placed:
                    return
                with self.stage("read"):
                    field.load(placed)
            with self.stage("normalize"):
                bounds = field.bounds(task.bounds)
        except FOV_ERRORS as error:
            decided = {row["cell_id"] for row in self.outcomes[known:]}
            for row in _records(cells):
                if row["cell_id"] not in decided:
                    self._failed(row, task.source.fov_id, error)
            return
        with self.stage("measure"):
            measured = self._measure(field, placed)
        for row, cell in measured:
            self._cell(field, row, cell, bounds)

    def _open(self, task: FovTask) -> Fov:
        with self.stage("read"):
            fov = Fov(task.source, self.spec.reader)
        try:
            self._check(fov, task)
        except BaseException:
            fov.close()
            raise
        return fov

    def _check(self, fov: Fov, task: FovTask) -> None:
        path = next(iter(task.source.images.values())).path
        if fov.channels != self.layout.channels:
            raise ChannelError(
                f"The image has the channels {', '.join(fov.channels)}, the dataset has "
                f"{', '.join(self.layout.channels)}.",
                path=path,
            )
        for name, each in self.layout.representations.items():
            # What is resampled or corrected is rounded anyway.
            exact = not (self.spec.interpolates or self.spec.illumination or self.spec.preprocess)
            if each.keeps_raw and exact and not np.can_cast(fov.dtype, each.dtype, "safe"):
                place = "dataset" if name == "cells" else f"representation {name!r}"
                raise ImageMismatchError(
                    f"The image holds {fov.dtype}, which the {place}'s {each.dtype} cannot hold exactly.", path=path
                )
        planes, depth = fov.shape[0], self.layout.shape[0]
        target = self.spec.voxel_size[0] if self.spec.voxel_size is not None else None
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

    def _place(self, field: Field, cells: pd.DataFrame) -> list[PlacedCell]:
        """Where each cell lies; cells that cannot be placed are decided here."""
        placed = []
        for row in _records(cells):
            row["fov_id"] = field.fov.fov_id
            with self._deciding(row):
                placed.append(field.place(row))
        return placed

    @contextmanager
    def _deciding(self, row: Mapping[str, Any]) -> Iterator[None]:
        """What is raised within drops or fails the cell."""
        try:
            yield
        except Dropped as reason:
            self.outcomes.append({**_identity(row), "status": "dropped", "reason": str(reason)})
        except CellError as error:
            self._failed(row, row["fov_id"], error)

    def _measure(self, field: Field, placed: list[PlacedCell]) -> list[tuple[dict[str, Any], PlacedCell]]:
        """The manifest rows of the cells of a FOV; cells that meet the drop condition are decided here."""
        context = self.context
        paths = (*context.image_columns.values(), "label_path", *context.label_columns, "scene", "timepoint")
        measured = []
        for each in placed:
            with self._deciding(each.row):
                cell = field.turn(each)
                given = cell.row
                row = _identity(given)
                for column in paths:
                    if column in given:
                        value = given[column]
                        row[column] = public_url(value) if isinstance(value, str) else value
                row.update((name, given[name]) for name in (*context.metadata, "split") if name in given)
                row.update(field.measure(cell))
                if self.spec.measure is not None:
                    row.update(self._by_function(self.spec.measure, field, cell, row))
                measured.append((row, cell))
        return self._kept(measured)

    def _by_function(
        self, function: UserFunction, field: Field, cell: PlacedCell, row: dict[str, Any]
    ) -> dict[str, float]:
        """The user's own measures."""
        masks = Masks.of(field, cell, False)
        told = call("measure", function, row, field.crop(cell), masks.cell, dict(row))
        try:
            found = {str(name): float(value) for name, value in dict(told).items()}
        except (TypeError, ValueError):
            raise UserFunctionError(
                f"measure: {function.name} returned {told!r}; a mapping of names to numbers is needed."
            ) from None
        taken = [name for name in found if name in row or is_reserved(name)]
        if taken:
            raise UserFunctionError(f"measure: {function.name} returned {taken[0]!r}, which is a column already.")
        return found

    def _kept(self, measured: list[tuple[dict[str, Any], PlacedCell]]) -> list[tuple[dict[str, Any], PlacedCell]]:
        drop = self.spec.drop
        if drop is None or not measured:
            return measured
        kept = []
        if isinstance(drop, str):
            met = meets_condition(pd.DataFrame([row for row, _ in measured]), drop)
            reasons = [f"drop: {drop}" if each else "" for each in met]
        for number, (row, cell) in enumerate(measured):
            with self._deciding(row):
                if isinstance(drop, UserFunction):
                    told = call("drop", drop, row, dict(row))
                    reason = f"drop: {told if isinstance(told, str) else drop.name}" if told else ""
                else:
                    reason = reasons[number]
                if reason:
                    raise Dropped(reason)
                kept.append((row, cell))
        return kept

    def _cell(self, field: Field, row: dict[str, Any], cell: PlacedCell, bounds: Mapping[str, Any]) -> None:
        with self._deciding(row):
            with self.stage("select"):
                crop = field.crop(cell)
                masks = Masks.of(field, cell, self.stages.needs_own)
            with self.stage("normalize"):
                images, columns = self.stages(field, cell, row, crop, masks, bounds)
            row.update(columns)
            with self.stage("encode"):
                pieces = {name: self.writers[name].add(images[name]) for name in self.arrays}
            self.in_piece += 1
            reason = f"edge: {cell.placement.beyond()}" if self.spec.edge == "flag" and cell.placement.beyond() else ""
            self.outcomes.append({**_identity(row), "status": "kept", "reason": reason})
            self.cells.append(row)
            self._put(pieces)

    def _put(self, pieces: Mapping[str, memoryview | None]) -> None:
        if all(piece is None for piece in pieces.values()):
            return
        with self.stage("write"):
            for name, piece in pieces.items():
                assert piece is not None, "all arrays hold the same cells in a piece"
                file = f"{name}.{len(self.pieces)}"
                (self.context.pending / self.job.key / file).write(piece)
                self.sizes[file] = len(piece)
                self.digests[file] = sha256_of(piece)
        self.pieces.append(self.in_piece)
        self.in_piece = 0

    def _failed(self, row: Mapping[str, Any], fov_id: str, error: CellcubeError) -> None:
        cell_id = str(row["cell_id"])
        for name, value in (("cell_id", cell_id), ("fov_id", fov_id)):
            if getattr(error, name, None) is None and isinstance(error, CellError):
                setattr(error, name, value)
        if self.context.stop_on_error:
            outcome = failed_outcome(cell_id, fov_id, error, self.context.base)
            raise BuildStoppedError(
                f"The build stopped at the first failed cell: {outcome['reason']}",
                cell_id=cell_id,
                fov_id=fov_id,
                path=getattr(error, "path", None),
                remedy="What was committed before is unchanged; the same call continues.",
            ) from error
        self.outcomes.append(failed_outcome(cell_id, fov_id, error, self.context.base, int(row.get("label", 0))))


def _records(cells: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in cells.to_dict("records")]


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"cell_id": row["cell_id"], "fov_id": row["fov_id"], "label": int(row.get("label", 0))}
