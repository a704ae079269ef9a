"""From the table, the spec and what is committed to jobs: pure, printable, the same on every machine."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cells import VOXEL_SIZE, CellTable
from cellcube.cube import Layout
from cellcube.errors import AxesError, ChannelError, ImageError, MissingDependencyError, SpecError, TableError
from cellcube.functions import UserFunction
from cellcube.images import ImageSource, VoxelSize
from cellcube.images.fov import Fov, FovSource
from cellcube.location import options_for
from cellcube.pixels import MEASURES, box_of_labels
from cellcube.spec import CubeSpec, Normalizer

# A job ends after so many cells or FOVs: small enough to spread, resume and hold, large enough to be worth its cost.
JOB_CELLS = 256
JOB_FOVS = 8

# FOVs that are opened to learn whether the table's channels and axes can be right at all.
PROBED = 5

# Columns of the manifest that tell where a crop lies in its FOV.
GEOMETRY: dict[str, str] = {
    "z0": "First voxel of the cell's box along z, in FOV voxels",
    "z1": "Voxel after the last of the cell's box along z",
    "y0": "First voxel of the cell's box along y, in FOV voxels",
    "y1": "Voxel after the last of the cell's box along y",
    "x0": "First voxel of the cell's box along x, in FOV voxels",
    "x1": "Voxel after the last of the cell's box along x",
    "origin_z": "FOV voxel of the crop's first voxel along z; negative outside the image",
    "origin_y": "FOV voxel of the crop's first voxel along y; negative outside the image",
    "origin_x": "FOV voxel of the crop's first voxel along x; negative outside the image",
    "voxel_size_z": "Voxel size along z in µm, NaN where unknown",
    "voxel_size_y": "Voxel size along y in µm, NaN where unknown",
    "voxel_size_x": "Voxel size along x in µm, NaN where unknown",
    "padded_fraction": "Share of the crop's voxels that are outside the image",
    "shifted": "Whether the crop was moved to stay inside the image",
    "oversize": "Whether the cell is larger than the crop, so that it is cut",
}


def geometry_and_measures(channels: Sequence[str]) -> dict[str, str]:
    """Columns that a build adds to the manifest, with what they mean."""
    columns = dict(GEOMETRY)
    for name, meaning in MEASURES.items():
        if "{channel}" not in name:
            columns[name] = meaning
            continue
        for channel in channels:
            columns[name.format(channel=channel)] = meaning.replace("the channel", channel)
    for bound in ("low", "high"):
        for channel in channels:
            stored = "0" if bound == "low" else "the highest value"
            columns[f"norm_{bound}_{channel}"] = f"Intensity of {channel} that is stored as {stored}"
    return columns


@dataclass(frozen=True)
class FovTask:
    """One FOV and the cells that are asked of it.

    Parameters
    ----------
    source : FovSource
    cells : DataFrame
        Rows of the validated table.
    """

    source: FovSource
    cells: pd.DataFrame


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
    for number, (start, stop) in enumerate(pairwise(bounds)):
        first = {name: values[number] for name, values in shared.items()}
        yield FovTask(_source(table, first, spec, storage_options), frame.iloc[start:stop])


def _shared_columns(table: CellTable, frame: pd.DataFrame, starts: Any) -> dict[str, list[Any]]:
    names = [*table.image_columns.values(), "fov_id", "label_path", "label_channel", "scene", "timepoint", "axes"]
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
    if table.has_labels:
        path = row.get("label_path")
        if path:
            label_axes = row.get("label_axes") or spec.label_axes
            labels = ImageSource(
                table.resolve(path),
                axes=label_axes or (axes.replace("C", "").replace("T", "") if axes else None),
                storage_options=options_for(table.resolve(path), storage_options),
            )
            if label_channel is not None:
                labels = image(path, label_axes or axes)
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
        voxel_size=VoxelSize(*size),
    )


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


# What fails the cells of one FOV and lets the others go on.
FOV_ERRORS = (ImageError, MissingDependencyError)
FovError = ImageError | MissingDependencyError


def list_labels(task: FovTask, reader: Any) -> list[int] | FovError:
    """Every label in the label image of a FOV, ascending; or why it cannot be read."""
    try:
        with Fov(task.source, reader, pixels=False) as fov:
            return sorted(box_of_labels(fov.read_labels()))
    except FOV_ERRORS as error:
        return error


def expand(
    table: CellTable, tasks: Sequence[FovTask], labels: Sequence[list[int] | FovError]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells of a table of FOVs.

    Parameters
    ----------
    table : CellTable
        Of mode ``fovs``.
    tasks : sequence of FovTask
    labels : sequence
        What `list_labels` gave for each.

    Returns
    -------
    cells : DataFrame
        One row a label; `cell_id` is ``<fov_id>-<label>``.
    failed : DataFrame
        Outcomes of FOVs that could not be read, one row a FOV with its `fov_id` as `cell_id`.
    """
    frames, failed = [], []
    for task, found in zip(tasks, labels, strict=True):
        fov_id = task.source.fov_id
        if isinstance(found, FOV_ERRORS):
            outcome = failed_outcome(fov_id, fov_id, found)
            outcome["reason"] += " Its cells are unknown, so the FOV counts as one."
            failed.append(outcome)
            continue
        rows = task.cells.loc[task.cells.index.repeat(len(found))].reset_index(drop=True)
        rows["label"] = np.array(found, "int64")
        rows["cell_id"] = [f"{fov_id}-{label}" for label in found]
        frames.append(rows)
    cells = pd.concat(frames, ignore_index=True) if frames else table.frame.iloc[:0].assign(label=0, cell_id="")
    return cells, outcomes_frame(failed)


def failed_outcome(cell_id: str, fov_id: str, error: Exception, label: int = 0) -> dict[str, Any]:
    """The outcome of a cell that met an error."""
    kind = getattr(error, "kind", type(error).__name__)
    text = " ".join(str(error).split())
    return {"cell_id": cell_id, "fov_id": fov_id, "label": label, "status": "failed", "reason": f"{kind}: {text}"}


def outcomes_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Outcomes as a DataFrame with the right types, also where there are none."""
    frame = pd.DataFrame(list(rows), columns=["cell_id", "fov_id", "label", "status", "reason"])
    return frame.astype({"cell_id": str, "fov_id": str, "label": "int64", "status": str, "reason": str})


def resolve_layout(
    tasks: Sequence[FovTask], spec: CubeSpec, table: CellTable
) -> tuple[Layout | None, dict[str, FovError]]:
    """What a new cube holds: from the spec, and from the first FOV that opens.

    Returns
    -------
    layout : Layout or None
        None where no FOV opens.
    errors : dict
        Why the FOVs before it did not, by `fov_id`.

    Raises
    ------
    ChannelError, AxesError, MissingDependencyError
        Where it is the call that is wrong, as every FOV that was tried says.
    """
    errors: dict[str, FovError] = {}
    reader = spec.reader
    for number, task in enumerate(tasks):
        try:
            # The label image may be broken alone; it does not decide the layout.
            with Fov(task.source, reader, labels=False) as fov:
                if spec.keeps_raw:
                    dtype = np.dtype(spec.dtype) if spec.dtype else fov.dtype
                    if dtype.name not in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32"):
                        dtype = np.dtype("float32")
                else:
                    dtype = np.dtype(spec.dtype or "float16")
                types = {name: _coordinate_type(table.frame[name]) for name in table.metadata if is_coordinate(name)}
                check_channels(fov.channels, spec)
                _check_labels(tasks, spec)
                return Layout.of(spec, fov.channels, dtype.name, table.has_labels, types), errors
        except FOV_ERRORS as error:
            errors[task.source.fov_id] = error
        if number + 1 == min(PROBED, len(tasks)):
            refuse_wrong_call(list(errors.values()), number + 1)
    return None, errors


def refuse_wrong_call(errors: Sequence[Exception], tried: int) -> None:
    """Raise where every FOV that was tried says that it is the call that is wrong, not its file.

    Raises
    ------
    ChannelError, AxesError, MissingDependencyError
    """
    wrong = [error for error in errors if isinstance(error, ChannelError | AxesError | MissingDependencyError)]
    if wrong and len(wrong) == len(errors) == min(PROBED, tried):
        raise wrong[0]


def _check_labels(tasks: Sequence[FovTask], spec: CubeSpec) -> None:
    errors: list[Exception] = []
    for task in tasks[:PROBED]:
        try:
            with Fov(task.source, spec.reader, pixels=False):
                return
        except FOV_ERRORS as error:
            errors.append(error)
    refuse_wrong_call(errors, len(tasks))


def check_channels(channels: Sequence[str], spec: CubeSpec) -> None:
    """Refuse a spec that names other channels than there are.

    Raises
    ------
    SpecError
    """
    if isinstance(spec.normalize, dict) and set(spec.normalize) != set(channels):
        raise SpecError(
            f"normalize has channels {', '.join(spec.normalize)}, the FOVs have {', '.join(channels)}.",
            remedy="Give one normalizer for each channel.",
        )


def normalizers(spec: CubeSpec, channels: Sequence[str]) -> tuple[Normalizer, ...] | UserFunction:
    """The normalizer of each channel, or the user's function."""
    if isinstance(spec.normalize, dict):
        return tuple(spec.normalize[name] for name in channels)
    if isinstance(spec.normalize, UserFunction):
        return spec.normalize
    return (spec.normalize,) * len(channels)


def is_coordinate(name: str) -> bool:
    """Whether a metadata column can be a coordinate of the cube: its name is a path in the store."""
    return "/" not in name and "\\" not in name and not name.startswith((".", "__")) and name not in _TAKEN


_TAKEN = {
    "labels",
    "mask",
    "zarr.json",
    *(f"{kind}_{axis}" for kind in ("max", "mean", "sum", "min") for axis in "zyx"),
}


def _coordinate_type(values: pd.Series) -> str:
    return {"b": "bool", "i": "int64", "f": "float64"}.get(values.dtype.kind, "string")


def check_drop(spec: CubeSpec, table: CellTable, layout: Layout) -> None:
    """Refuse a `drop` condition that does not parse or names columns that are not there.

    Raises
    ------
    SpecError
    """
    if spec.drop is None:
        return
    columns: dict[str, Any] = {name: np.array([0.5]) for name in geometry_and_measures(layout.channels)}
    for name in ("touches_border", "shifted", "oversize"):
        columns[name] = np.array([False])
    for name in ("cell_id", "fov_id", "label", *table.metadata):
        columns[name] = table.frame[name].iloc[:1].to_numpy() if name in table.frame else [""]
    columns["label"] = [1]
    meets_condition(pd.DataFrame(columns), spec.drop)


def meets_condition(frame: pd.DataFrame, condition: str) -> Any:
    """Which rows meet a condition in pandas' query syntax.

    Raises
    ------
    SpecError
        Where it cannot be evaluated to true or false.
    """
    try:
        met = np.asarray(frame.eval(condition, engine="python"))
    except Exception as error:
        raise SpecError(
            f"drop: the condition {condition!r} cannot be evaluated: {error}.",
            remedy=f"Columns are {', '.join(map(str, frame.columns))}.",
        ) from error
    if met.dtype != bool or met.shape != (len(frame),):
        raise SpecError(f"drop: the condition {condition!r} is not true or false for each cell.")
    return met


def make_jobs(tasks: Sequence[FovTask], digest: str) -> tuple[Job, ...]:
    """Whole FOVs, in order, in jobs of about `JOB_CELLS` cells.

    Parameters
    ----------
    tasks : sequence of FovTask
    digest : str
        Of the spec and the layout.
    """
    jobs: list[Job] = []
    held: list[FovTask] = []
    count = 0
    for task in tasks:
        if held and (count + len(task.cells) > JOB_CELLS or len(held) == JOB_FOVS):
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
        hashed.update(repr(fov.source).encode())
        # Types are part of it: the text "1" and the number 1 are stored differently.
        hashed.update(repr([(str(name), str(kind)) for name, kind in fov.cells.dtypes.items()]).encode())
        hashed.update(json.dumps(fov.cells.to_dict("split")["data"], default=str).encode())
    return Job(hashed.hexdigest()[:24], tuple(fovs))


def check_same_cells(before: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Refuse a table that gives a committed `cell_id` to another cell.

    Parameters
    ----------
    before : DataFrame
        Outcomes of the dataset.
    frame : DataFrame
        Cells asked for.

    Raises
    ------
    TableError
    """
    known = before[before["status"] != "failed"]
    both = frame.merge(known[["cell_id", "fov_id", "label"]], on="cell_id", suffixes=("", "_before"))
    if both.empty:
        return
    differs = both["fov_id"] != both["fov_id_before"]
    if "label_before" in both:
        differs |= both["label"] != both["label_before"]
    if differs.any():
        row = both[differs].iloc[0]
        raise TableError(
            "The cell table cannot be used.",
            problems=[
                f"{int(differs.sum())} values of 'cell_id' belong to other cells of the dataset, such as "
                f"{row['cell_id']!r}: FOV {row['fov_id_before']!r} there, {row['fov_id']!r} in the table"
            ],
        )
