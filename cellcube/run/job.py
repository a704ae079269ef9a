"""One job: read its FOVs once, cut, normalize, project, measure, and write encoded pieces."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pandas as pd

from cellcube.cells import is_reserved
from cellcube.cube import PieceWriter
from cellcube.errors import (
    BuildStoppedError,
    CellcubeError,
    CellError,
    UserFunctionError,
)
from cellcube.functions import UserFunction
from cellcube.ledger import sha256_of, table_bytes
from cellcube.pixels import Dropped
from cellcube.plan import Job, failed_outcome, meets_condition, outcomes_frame
from cellcube.run.calls import call
from cellcube.run.field import Field, PlacedCell
from cellcube.run.reading import ReadField, read_fields
from cellcube.run.result import JobContext, JobResult, heard, states_of
from cellcube.run.stages import Masks, Stages
from cellcube.run.stopwatch import Stopwatch
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
        self.starts_shard = room == self.layout.shard_cells
        self.labels: dict[str, int] = {}
        self.outcomes: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.pieces: list[int] = []
        self.sizes: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.in_piece = 0
        self.watch = Stopwatch()
        self.began = time.time()
        self.read_bytes = 0

    def result(self) -> JobResult:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            with closing(read_fields(self.job.fovs, self.context, self.watch)) as fields:
                for read in fields:
                    self._fov(read)
                    del read  # its pixels, before those of the next
        self._put({name: writer.finish() for name, writer in self.writers.items()})
        result = JobResult(
            key=self.job.key,
            outcomes=outcomes_frame(self.outcomes),
            rows=table_bytes(pd.DataFrame(self.cells)),
            pieces=self.pieces,
            sizes=self.sizes,
            digests=self.digests,
            labels=self.labels,
            sources={fov.source.fov_id: states_of(fov, self.context.base) for fov in self.job.fovs},
            seconds={name: round(value, 4) for name, value in self.watch.seconds.items()},
            began=round(self.began, 3),
            read_bytes=self.read_bytes,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            warned=heard(caught),
        )
        result.save(self.context.pending)
        return result

    def _fov(self, read: ReadField) -> None:
        fov_id = read.task.source.fov_id
        self.watch.add(read.watch)
        for row, why in read.decided:
            self._decide(row, why)
        if read.field is not None:
            self.read_bytes += read.field.read_bytes
            if read.field.labels is not None:
                self.labels[fov_id] = len(read.field.shapes)
        if read.error is not None:
            known = {row["cell_id"] for row, _ in read.decided}
            for row in read.rows:
                if row["cell_id"] not in known:
                    self._failed(row, fov_id, read.error)
            return
        field = read.field
        assert field is not None, "a field is there or the error says why not"
        with self.watch.timing("measure"):
            measured = self._measure(field, read.placed)
        for row, cell in measured:
            self._cell(field, row, cell, read.bounds)

    def _decide(self, row: Mapping[str, Any], why: Dropped | CellError) -> None:
        """The cell is dropped or failed."""
        if isinstance(why, Dropped):
            self.outcomes.append({**_identity(row), "status": "dropped", "reason": str(why)})
        else:
            self._failed(row, row["fov_id"], why)

    def _measure(self, field: Field, placed: list[PlacedCell]) -> list[tuple[dict[str, Any], PlacedCell]]:
        """The manifest rows of the cells of a FOV; cells that meet the drop condition are decided here."""
        context = self.context
        paths = (*context.image_columns.values(), "label_path", *context.label_columns, "scene", "timepoint")
        carried = (*context.metadata, "split")
        measured = []
        for each in placed:
            try:
                cell = field.turn(each)
                given = cell.row
                row = _identity(given)
                for column in paths:
                    if column in given:
                        value = given[column]
                        row[column] = public_url(value) if isinstance(value, str) else value
                row.update((name, given[name]) for name in carried if name in given)
                row.update(field.measure(cell))
                if self.spec.measure is not None:
                    row.update(self._by_function(self.spec.measure, field, cell, row))
            except (Dropped, CellError) as why:
                self._decide(each.row, why)
            else:
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
            try:
                if isinstance(drop, UserFunction):
                    told = call("drop", drop, row, dict(row))
                    reason = f"drop: {told if isinstance(told, str) else drop.name}" if told else ""
                else:
                    reason = reasons[number]
            except CellError as error:
                self._decide(row, error)
                continue
            if reason:
                self._decide(row, Dropped(reason))
            else:
                kept.append((row, cell))
        return kept

    def _cell(self, field: Field, row: dict[str, Any], cell: PlacedCell, bounds: Mapping[str, Any]) -> None:
        try:
            with self.watch.timing("select"):
                crop = field.crop(cell)
                masks = Masks.of(field, cell, self.stages.needs_own)
            with self.watch.timing("normalize"):
                images, columns = self.stages(field, cell, row, crop, masks, bounds)
        except (Dropped, CellError) as why:
            self._decide(row, why)
            return
        row.update(columns)
        with self.watch.timing("encode"):
            pieces = {name: self.writers[name].add(images[name]) for name in self.arrays}
        self.in_piece += 1
        reason = f"edge: {cell.placement.beyond()}" if self.spec.edge == "flag" and cell.placement.beyond() else ""
        self.outcomes.append({**_identity(row), "status": "kept", "reason": reason})
        self.cells.append(row)
        self._put(pieces)

    def _put(self, pieces: Mapping[str, memoryview | None]) -> None:
        if all(piece is None for piece in pieces.values()):
            return
        # A piece that begins within a shard is hashed with the others there.
        whole = self.starts_shard or bool(self.pieces)
        with self.watch.timing("write"):
            for name, piece in pieces.items():
                assert piece is not None, "all arrays hold the same cells in a piece"
                file = f"{name}.{len(self.pieces)}"
                (self.context.pending / self.job.key / file).write(piece)
                self.sizes[file] = len(piece)
                self.digests[file] = sha256_of(piece) if whole else ""
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


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"cell_id": row["cell_id"], "fov_id": row["fov_id"], "label": int(row.get("label", 0))}
