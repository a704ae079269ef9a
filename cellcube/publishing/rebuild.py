"""Shards made again: cut from the images as the build cut them, beside the chunks that are still whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cellcube import cube as cubes
from cellcube.cells import BOX, CENTRE, FOV_COLUMNS, CellTable, load_cells
from cellcube.cube import CubeState, Layout, ShardPart
from cellcube.errors import CellcubeError, SpecChangedError, SpecError
from cellcube.location import Location
from cellcube.plan import Fit, Job, fov_tasks, lightings, make_jobs
from cellcube.publishing.listing import run_table
from cellcube.run.executors import Workers
from cellcube.run.job import run_job
from cellcube.run.result import JobContext
from cellcube.spec import CubeSpec

Cells = pd.DataFrame | str | os.PathLike[str] | None


@dataclass(frozen=True)
class Broken:
    """Shards of the same cells that are to be made again.

    Parameters
    ----------
    number : int
        Of the shard.
    arrays : tuple of str
        Those whose shard is to be made.
    cells : tuple of (str, int)
        Identifier and run of each cell of the shard, in order.
    again : frozenset of int
        Cells of the shard, from 0, that are cut from the images; the others are taken from the shards as they are.
    """

    number: int
    arrays: tuple[str, ...]
    cells: tuple[tuple[str, int], ...]
    again: frozenset[int]


@dataclass(frozen=True)
class Task:
    """What a worker needs to make shards again."""

    broken: Broken
    jobs: tuple[tuple[Job, JobContext], ...]


Made = dict[str, tuple[Location, int, str] | str]


class Sources:
    """The images of a dataset, as its runs and `cells` tell where they are.

    Parameters
    ----------
    root : Location
    state : CubeState
    cells : DataFrame, path or URL, optional
        The cell table, which tells where the images are now, or the folder that relative paths are seen from.
    storage_options : mapping, optional

    Raises
    ------
    CellcubeError
        Where the spec's functions or the illumination images are not those of the build.
    """

    def __init__(
        self, root: Location, state: CubeState, cells: Cells, storage_options: Mapping[str, Any] | None
    ) -> None:
        self._root = root
        self._state = state
        self._options = storage_options
        self.spec = spec_of(state)
        self._moved: CellTable | None = None
        self._base = str(Path.cwd())
        if cells is not None and not isinstance(cells, pd.DataFrame) and _is_folder(cells, storage_options):
            self._base = Location.of(cells, storage_options).url
        elif cells is not None:
            self._moved = load_cells(cells, self.spec, storage_options)
            self._base = self._moved.base
        self._lights = lightings(self.spec, self._base, storage_options)
        digests = {channel: dict(light.digests) for channel, light in self._lights.items()}
        if digests != state.attributes.get("illumination", {}):
            raise SpecChangedError("The illumination images are not those the dataset was built with.", path=root.url)
        self._tables: dict[int, CellTable] = {}

    def task(self, broken: Broken, work: Location) -> Task:
        """The jobs that cut the cells that are to be made again; whole fields, as the builds that added them did."""
        jobs: list[tuple[Job, JobContext]] = []
        layout = self._state.layout
        for run in sorted({broken.cells[each][1] for each in broken.again}):
            ids = {broken.cells[each][0] for each in broken.again if broken.cells[each][1] == run}
            table = self._table(run)
            fovs = set(table.frame.loc[table.frame["cell_id"].isin(ids), "fov_id"])
            rows = table.frame[table.frame["fov_id"].isin(fovs)].reset_index(drop=True)
            known = json.loads(json.dumps(self._state.attributes.get("fitted", {})))
            fit = Fit(self.spec, layout.channels, table.frame, known)
            tasks = [fit.bound(task) for task in fov_tasks(table, rows, self.spec, self._options)]
            digest = json.dumps([self.spec.digest, broken.number, run])
            context = self._context(table, layout, work / f"{broken.number}")
            jobs += [(job, context) for job in make_jobs(tasks, digest)]
        return Task(broken, tuple(jobs))

    def _context(self, table: CellTable, layout: Layout, work: Location) -> JobContext:
        images = table.label_images
        return JobContext(
            pending=work,
            spec=self.spec,
            layout=layout,
            image_columns=table.image_columns,
            metadata=table.metadata,
            label_columns=(
                *images.values(),
                *(f"label_{name}" for name in images if f"label_{name}" in table.frame),
            ),
            lights=self._lights,
        )

    def _table(self, run: int) -> CellTable:
        """The rows that a run has built, with the paths where the images are now."""
        if run not in self._tables:
            frame = run_table(self._root, run, "table").drop(columns="run")
            table = table_of(frame, self.spec, self._state.layout, self._base)
            self._tables[run] = self._with_new_paths(table)
        return self._tables[run]

    def _with_new_paths(self, table: CellTable) -> CellTable:
        if self._moved is None:
            return table
        frame = table.frame.copy()
        given = self._moved.frame.drop_duplicates("fov_id").set_index("fov_id")
        for column in (*table.image_columns.values(), "label_path", *table.label_images.values()):
            if column in frame and column in given:
                frame[column] = frame["fov_id"].map(given[column]).fillna(frame[column])
        return replace(table, frame=frame)


def spec_of(state: CubeState) -> CubeSpec:
    """The spec that a dataset was built with.

    Raises
    ------
    SpecError
        Where a function of the user's own is not there, or is another than then.
    """
    given = state.attributes["spec"]
    try:
        spec = CubeSpec(**given)
    except CellcubeError as error:
        raise SpecError(
            f"The spec of the dataset cannot be used: {error.message}",
            remedy="Functions are imported by their names: put their module on the Python path.",
        ) from error
    if spec.digest != state.attributes["spec_digest"]:
        fields = ", ".join(name for name, *_ in spec.differences(state.attributes["identity"]))
        raise SpecError(
            f"The spec is no longer that of the dataset: {fields}.",
            remedy="The source of a function has changed; runs/*.json has the source that was used.",
        )
    return spec


def table_of(frame: pd.DataFrame, spec: CubeSpec, layout: Layout, base: str) -> CellTable:
    """The cell table of rows that were validated before."""
    channels = spec.channels
    images = {"": "fov_path"}
    if isinstance(channels, dict) and any(isinstance(value, str) for value in channels.values()):
        images = {name: value for name, value in channels.items() if isinstance(value, str)}
    labels = spec.label_images
    mode: Any = "labels" if layout.has_masks else "boxes" if {"y0", "x0"} <= set(frame.columns) else "centres"
    places = {"labels": (), "boxes": BOX, "centres": CENTRE}[mode]
    own = {"cell_id", "fov_id", "label", *FOV_COLUMNS, *places, *images.values(), *labels.values()}
    own |= {f"label_{name}" for name in labels} | ({"split"} if spec.split is not None else set())
    metadata = tuple(str(name) for name in frame.columns if name not in own)
    return CellTable(frame, mode, images, metadata, base, labels)


def rebuild(
    root: Location, state: CubeState, sources: Sources, broken: Sequence[Broken], work: Location, workers: Workers
) -> Iterator[tuple[Broken, Made]]:
    """Shards made again below `work`: by array where each is with its size and SHA-256, or why it could not be made."""
    tasks = (sources.task(each, work) for each in broken)
    shared = partial(_rebuild, root=root, layout=state.layout, work=work)
    for number, made in workers.run(shared, tasks):
        yield broken[number], made


def _rebuild(task: Task, root: Location, layout: Layout, work: Location) -> Made:
    broken = task.broken
    found: dict[str, tuple[Location, int, int]] = {}
    failed: dict[str, str] = {}
    for job, context in task.jobs:
        result = run_job(job, context, layout.shard_cells)
        ids = iter(result.cells["cell_id"]) if len(result.cells) else iter(())
        for piece, count in enumerate(result.pieces):
            for index in range(count):
                found[next(ids)] = context.pending / job.key, piece, index
        lost = result.outcomes[result.outcomes["status"] != "kept"]
        failed.update(zip(lost["cell_id"], lost["status"] + ": " + lost["reason"], strict=True))
    missing = [broken.cells[each][0] for each in sorted(broken.again) if broken.cells[each][0] not in found]
    if missing:
        why = failed.get(missing[0], "it is not in the table of its run")
        return dict.fromkeys(broken.arrays, f"cell {missing[0]!r} cannot be made again: {why}")
    arrays = layout.arrays()
    made: Made = {}
    for name in broken.arrays:
        array = arrays[name]
        own = root / "cube.zarr" / array.shard_key(broken.number)
        parts: list[ShardPart] = []
        for place, (cell, _) in enumerate(broken.cells):
            source, start = own, place
            if place in broken.again:
                folder, piece, start = found[cell]
                source = folder / f"{name}.{piece}"
            if parts and parts[-1].source == source and parts[-1].start + parts[-1].count == start:
                parts[-1] = replace(parts[-1], count=parts[-1].count + 1)
            else:
                parts.append(ShardPart(source, start, 1, False))
        try:
            path, size, sha256 = cubes.write_shard(work / "made", array, broken.number, parts)
        except (CellcubeError, OSError) as error:
            made[name] = f"{type(error).__name__}: {error}"
        else:
            made[name] = work / "made" / path, size, sha256
    return made


def _is_folder(path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None) -> bool:
    location = Location.of(path, storage_options)
    return Path(location.url).is_dir() if location.is_local else location.size() is None
