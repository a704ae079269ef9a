"""One job: read its FOVs once, cut, normalize, project, measure, and write encoded pieces."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cube import PieceWriter
from cellcube.errors import (
    BuildStoppedError,
    CellcubeError,
    CellError,
    ChannelError,
    ImageMismatchError,
    LabelNotFoundError,
)
from cellcube.images.fov import Fov
from cellcube.pixels import (
    Box,
    Dropped,
    Normalization,
    Window,
    box_of_labels,
    cut,
    measure_cell,
    place_window,
    project,
    window_at,
)
from cellcube.plan import FOV_ERRORS, FovTask, Job, failed_outcome, meets_condition, normalizers, outcomes_frame
from cellcube.run.result import CropDepthWarning, JobContext, JobResult, heard, states_of
from cellcube.urls import public_url

Pixels = np.ndarray[Any, Any]


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
        self.normalization = Normalization(normalizers(self.spec, self.layout.channels), np.dtype(context.layout.dtype))
        self.outcomes: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.pieces: list[int] = []
        self.sizes: dict[str, int] = {}
        self.in_piece = 0
        self.seconds = dict.fromkeys(("read", "select", "normalize", "encode", "write"), 0.0)

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
            sources={fov.source.fov_id: states_of(fov, self.context.base) for fov in self.job.fovs},
            seconds={name: round(value, 4) for name, value in self.seconds.items()},
            warned=heard(caught),
        )
        result.save(self.context.pending)
        return result

    def _fov(self, task: FovTask) -> None:
        cells = task.cells
        try:
            with self._open(task) as fov:
                with self.stage("read"):
                    labels = fov.read_labels() if fov.has_labels else None
                with self.stage("select"):
                    placed = self._place(fov, labels, cells)
                if not placed:
                    return
                region = _around([*(box for _, box, _ in placed), *(_inner(window) for _, _, window in placed)])
                with self.stage("read"):
                    volumes = tuple(fov.read(channel, region.slices) for channel in range(len(fov.channels)))
        except FOV_ERRORS as error:
            known = {row["cell_id"] for row in self.outcomes[-len(cells) :]}
            for row in _records(cells):
                if row["cell_id"] not in known:
                    self._failed(row, task.source.fov_id, error)
            return
        with self.stage("select"):
            measured = self._measure(fov, volumes, labels, region.start, placed)
        for row, window in measured:
            self._cell(row, volumes, labels, region.start, window)

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
        if self.spec.keeps_raw and not np.can_cast(fov.dtype, self.layout.dtype, "safe"):
            raise ImageMismatchError(
                f"The image holds {fov.dtype}, which the dataset's {self.layout.dtype} cannot hold exactly.", path=path
            )
        planes, depth = fov.shape[0], self.layout.shape[0]
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

    def _place(self, fov: Fov, labels: Pixels | None, cells: pd.DataFrame) -> list[tuple[dict[str, Any], Box, Window]]:
        """Where each cell lies; cells that cannot be placed are decided here."""
        boxes = box_of_labels(labels) if labels is not None else {}
        placed = []
        for row in _records(cells):
            row["fov_id"] = fov.fov_id
            try:
                box, window = self._window(row, boxes if labels is not None else None, fov)
            except Dropped as reason:
                self.outcomes.append({**_identity(row), "status": "dropped", "reason": str(reason)})
            except CellError as error:
                self._failed(row, fov.fov_id, error)
            else:
                placed.append((row, box, window))
        return placed

    def _window(self, row: Mapping[str, Any], boxes: Mapping[int, Box] | None, fov: Fov) -> tuple[Box, Window]:
        spec = self.spec
        shape = self.layout.shape
        if boxes is not None:
            box = boxes.get(int(row["label"]))
            if box is None:
                raise LabelNotFoundError(
                    f"Label {row['label']} is not in the label image, which has {len(boxes)} labels"
                    + (f" from {min(boxes)} to {max(boxes)}." if boxes else "."),
                )
        elif "y0" in row:
            box = Box(
                (int(row.get("z0", 0)), int(row["y0"]), int(row["x0"])),
                (int(row.get("z1", fov.shape[0])), int(row["y1"]), int(row["x1"])),
            )
        else:
            centre = (
                float(row.get("center_z", (fov.shape[0] - 1) / 2)),
                float(row["center_y"]),
                float(row["center_x"]),
            )
            window = window_at(centre, shape, fov.shape, spec.edge)
            return _inner(window), window
        return box, place_window(box, shape, fov.shape, spec.edge, spec.oversize)

    def _measure(
        self,
        fov: Fov,
        volumes: tuple[Pixels, ...],
        labels: Pixels | None,
        offset: tuple[int, int, int],
        placed: list[tuple[dict[str, Any], Box, Window]],
    ) -> list[tuple[dict[str, Any], Window]]:
        """The manifest rows of the cells of a FOV; cells that meet the drop condition are decided here."""
        measured = []
        for given, box, window in placed:
            row = _identity(given)
            for column in (*self.context.image_columns.values(), "label_path", "scene", "timepoint"):
                if column in given:
                    value = given[column]
                    row[column] = public_url(value) if isinstance(value, str) else value
            row.update((name, given[name]) for name in self.context.metadata)
            for axis, letter in enumerate("zyx"):
                row[f"{letter}0"], row[f"{letter}1"] = box.start[axis], box.stop[axis]
                row[f"origin_{letter}"] = window.origin[axis]
                row[f"voxel_size_{letter}"] = fov.voxel_size[axis]
            row["padded_fraction"] = window.padded_fraction
            row["shifted"], row["oversize"] = window.shifted, window.oversize
            inside = labels[box.slices] == row["label"] if labels is not None else None
            row.update(measure_cell(volumes, inside, box, offset, fov.shape, fov.voxel_size, fov.channels))
            measured.append((row, window))
        if self.spec.drop is not None and measured:
            met = meets_condition(pd.DataFrame([row for row, _ in measured]), self.spec.drop)
            for (row, _), dropped in zip(measured, met, strict=True):
                if dropped:
                    self.outcomes.append({**_identity(row), "status": "dropped", "reason": f"drop: {self.spec.drop}"})
            measured = [each for each, dropped in zip(measured, met, strict=True) if not dropped]
        return measured

    def _cell(
        self,
        row: dict[str, Any],
        volumes: tuple[Pixels, ...],
        labels: Pixels | None,
        offset: tuple[int, int, int],
        window: Window,
    ) -> None:
        with self.stage("select"):
            crop = np.empty((len(volumes), *window.shape), np.result_type(*volumes))
            for channel, volume in zip(crop, volumes, strict=True):
                cut(volume, window, offset, out=channel)
            mask = cut(labels, window) == row["label"] if labels is not None else None
            inside = None
            if self.spec.mask == "label" and mask is not None:
                inside = mask
            elif not window.is_whole:
                inside = np.zeros(window.shape, bool)
                inside[window.target] = True
        try:
            if inside is not None and not inside.any():
                raise CellError("The crop holds no voxel of the cell.")
            if crop.dtype.kind == "f" and not np.isfinite(crop).all():
                raise CellError("The crop holds pixels that are not finite.")
            with self.stage("normalize"):
                pixels, low, high = self.normalization(crop, inside, row)
                images = {name: project(pixels, name, window.target) for name in self.layout.projections}
        except CellError as error:
            self._failed(row, row["fov_id"], error)
            return
        for channel, name in enumerate(self.layout.channels):
            row[f"norm_low_{name}"], row[f"norm_high_{name}"] = float(low[channel]), float(high[channel])
        images["cells"] = pixels
        if mask is not None:
            images["mask"] = mask
        with self.stage("encode"):
            pieces = {name: self.writers[name].add(images[name]) for name in self.arrays}
        self.in_piece += 1
        self.outcomes.append({**_identity(row), "status": "kept", "reason": ""})
        self.cells.append(row)
        self._put(pieces)

    def _put(self, pieces: Mapping[str, bytearray | None]) -> None:
        if all(piece is None for piece in pieces.values()):
            return
        with self.stage("write"):
            for name, piece in pieces.items():
                assert piece is not None, "all arrays hold the same cells in a piece"
                file = f"{name}.{len(self.pieces)}"
                (self.context.pending / self.job.key / file).write(piece)
                self.sizes[file] = len(piece)
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


def _inner(window: Window) -> Box:
    """The part of a window that is inside the image."""
    z, y, x = window.source
    return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest box around all."""
    if not boxes:
        return Box((0, 0, 0), (0, 0, 0))
    z, y, x = ((min(box.start[axis] for box in boxes), max(box.stop[axis] for box in boxes)) for axis in range(3))
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))
