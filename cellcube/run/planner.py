"""From what `build` was given to a plan: surveys, the shape, statistics of groups, the layout."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd

from cellcube.cells import CellTable, load_cells
from cellcube.cube import CubeState, Layout
from cellcube.errors import ArgumentError, ImageError, SpecChangedError
from cellcube.location import Location
from cellcube.manifest import read_outcomes
from cellcube.plan import (
    PROBED,
    Fit,
    Fitted,
    FovError,
    FovTask,
    Plan,
    Survey,
    Wanted,
    check_channels,
    check_drop,
    check_same_cells,
    check_table,
    expand,
    failed_outcome,
    fit_shape,
    fov_tasks,
    lightings,
    make_jobs,
    outcomes_frame,
    refuse_wrong_call,
    resolve_layout,
    survey,
)
from cellcube.run.executors import Workers
from cellcube.run.planned import Planned
from cellcube.run.result import heard
from cellcube.run.target import check_spec, choose_spec, find_dataset
from cellcube.run.warned import Warned
from cellcube.spec import CubeSpec, Split
from cellcube.splits import assign_split, empty_parts
from cellcube.tables import is_in


def prepare(
    cells: pd.DataFrame | str | os.PathLike[str],
    root: str | os.PathLike[str],
    spec: CubeSpec | str | os.PathLike[str] | None,
    spec_fields: Mapping[str, Any],
    executor: Any,
    storage_options: Mapping[str, Any] | None,
    warn: Warned,
    *,
    fresh: bool = False,
) -> Planner:
    """A planner of what `build` was given, once all of that is checked.

    Parameters
    ----------
    cells, root, spec, spec_fields, executor, storage_options
        As `build` takes them.
    warn : Warned
    fresh : bool
        Whether the root must hold no dataset yet.
    """
    chosen = choose_spec(spec, spec_fields, storage_options)
    location = Location.of(root, storage_options)
    state = find_dataset(location)
    if state is not None and fresh:
        raise ArgumentError(
            f"There is a dataset already, and committed cells never change. (path {location.url!r})",
            remedy='Give rebuild="all" a new root.',
        )
    if state is not None:
        chosen = check_spec(chosen, state, location)
    table = load_cells(cells, chosen, storage_options)
    return Planner(location, chosen, table, state, executor, storage_options, warn)


class Planner:
    """Plans one build.

    Parameters
    ----------
    root : Location
    spec : CubeSpec
    table : CellTable
    state : CubeState or None
        What is committed.
    executor : object
        As `build` takes it.
    storage_options : mapping, optional
    warn : Warned

    Attributes
    ----------
    before : DataFrame or None
        Outcomes of the dataset, once planned.
    """

    def __init__(
        self,
        root: Location,
        spec: CubeSpec,
        table: CellTable,
        state: CubeState | None,
        executor: Any,
        storage_options: Mapping[str, Any] | None,
        warn: Warned,
    ) -> None:
        self.root = root
        self.spec = spec
        self.table = table
        self.state = state
        self.executor = executor
        self.storage_options = storage_options
        self._warn = warn
        self.started = datetime.now(UTC)
        self._counted: pd.DataFrame = table.frame
        self.before: pd.DataFrame | None = None
        self.lights = lightings(spec, table.base, storage_options)
        self._light_digests = {channel: dict(light.digests) for channel, light in self.lights.items()}
        self._fitted: Fitted = {}
        self._fits: list[dict[str, Any]] = []

    def plan(self, trial: bool = False) -> Planned:
        """What is to be done; looks at FOVs where that takes their labels or statistics, and at one's metadata.

        Parameters
        ----------
        trial : bool
            Whether it is enough to fit statistics to the first FOV of each group.
        """
        frame, failed = self.table.frame, outcomes_frame([])
        check_table(self.spec, self.table)
        if self.table.mode == "fovs":
            tasks = list(fov_tasks(self.table, frame, self.spec, self.storage_options))
            surveys = self._survey([(task, Wanted(labels=True)) for task in tasks])
            labels = [found.labels if isinstance(found, Survey) else found for found in surveys]
            refuse_wrong_call([found for found in labels[:PROBED] if isinstance(found, Exception)], len(labels))
            frame, failed = expand(self.table, tasks, labels)
            if not len(frame) + len(failed):
                self._warn([("UserWarning", f"The label images of the {len(labels)} FOVs hold no label: no cells.")])
        if self.spec.split is not None:
            frame = self._split(frame, self.spec.split)
        asked, self._counted = frame["cell_id"], self._with_bare_fields(frame, failed)
        if self.state is not None:
            self.before = read_outcomes(self.root, self.state.version)
            check_same_cells(self.before, frame)
            decided = self.before.loc[self.before["status"] != "failed", "cell_id"]
            frame = frame[~is_in(frame["cell_id"], decided)]
        tasks = list(fov_tasks(self.table, frame, self.spec, self.storage_options))
        layout: Layout | None
        if self.state is not None:
            layout = self.state.layout
            check_channels(layout.channels, self.spec)
            self._check_append(layout)
        else:
            errors = self._fit_shape(tasks) if self.spec.shape == "auto" else {}
            layout = None
            if self.spec.shape != "auto":
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", UserWarning)
                    layout, errors = resolve_layout(tasks, self.spec, self.table)
                self._warn(heard(caught))
            if layout is None:
                failed = pd.concat([failed, self._all_failed(tasks, errors)], ignore_index=True)
                return self._planned(Plan((), None, failed), frame, asked)
        check_drop(self.spec, self.table, layout)
        self._check_lights()
        tasks = self._fit(tasks, layout.channels, trial)
        decisive = [self.spec.digest, layout.to_dict(), self.table.metadata, self._light_digests]
        jobs = make_jobs(tasks, json.dumps(decisive, sort_keys=True), layout.shard_cells)
        return self._planned(Plan(jobs, layout, failed), frame, asked)

    def _planned(self, plan: Plan, frame: pd.DataFrame, asked: pd.Series) -> Planned:
        return Planned(
            spec=self.spec,
            table=replace(self.table, frame=frame),
            asked=asked,
            plan=plan,
            rooms=tuple(_rooms(plan, self.state.count if self.state else 0)),
            base=self.table.published_base,
            lights=self.lights,
            fitted=self._fitted,
            fits=self._fits,
            started=self.started,
        )

    def _survey(self, items: list[tuple[FovTask, Wanted]]) -> list[Survey | FovError]:
        with Workers(self.executor, math.ceil(len(items) / 16)) as workers:
            return workers.map(partial(survey, spec=self.spec, lights=self.lights), items)

    def _split(self, frame: pd.DataFrame, split: Split) -> pd.DataFrame:
        parts = assign_split(frame, split)
        empty = empty_parts(parts, split) if self.state is None else []
        if empty:
            groups = frame[list(split.by)].drop_duplicates()
            self._warn(
                [("UserWarning", f"split: none of the {len(groups)} groups fell into {', '.join(empty)}. Another seed "
                  "or finer groups change that.")]
            )  # fmt: skip
        return frame.assign(split=pd.Series(parts, index=frame.index, dtype=str))

    def _with_bare_fields(self, frame: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
        """The cells, and a row for each field of the table that holds none: its pixels count in groups too."""
        rows = self.table.frame
        bare = rows[~is_in(rows["fov_id"], pd.concat([frame["fov_id"], failed["fov_id"]]))]
        if bare.empty:
            return frame
        bare = bare.assign(cell_id="", label=0)
        if self.spec.split is not None:
            bare = bare.assign(split=pd.Series(assign_split(bare, self.spec.split), index=bare.index, dtype=str))
        both = pd.concat([frame, bare], ignore_index=True)
        places = dict(zip(rows["fov_id"], range(len(rows)), strict=True))
        return both.iloc[both["fov_id"].map(places).argsort(kind="stable")]

    def _fit_shape(self, tasks: list[FovTask]) -> dict[str, FovError]:
        """Freeze the shape in the spec; or tell why no cell could be measured."""
        surveys = self._survey([(task, Wanted(sizes=True)) for task in tasks])
        errors = {
            task.source.fov_id: found
            for task, found in zip(tasks, surveys, strict=True)
            if not isinstance(found, Survey)
        }
        shape = fit_shape(surveys, self.spec.shape_percentile)
        if shape is not None:
            self.spec = self.spec.replace(shape=shape)
        elif not errors and tasks:
            raise ArgumentError(
                "shape: none of the cells is in its label image, so no shape can be fitted.",
                remedy="Check the column 'label', or give a shape.",
            )
        return errors

    def _all_failed(self, tasks: list[FovTask], errors: Mapping[str, FovError]) -> pd.DataFrame:
        base = self.table.published_base
        unknown = ImageError("The FOV was not looked at, as no other could be used.")
        rows = [
            failed_outcome(cell_id, task.source.fov_id, errors.get(task.source.fov_id, unknown), base, int(label))
            for task in tasks
            for cell_id, label in zip(
                task.cells["cell_id"], task.cells.get("label", pd.Series(0, task.cells.index)), strict=True
            )
        ]
        return outcomes_frame(rows)

    def _check_lights(self) -> None:
        """Refuse other illumination images than those of the dataset."""
        known = self.state.attributes.get("illumination", {}) if self.state else {}
        changed = [name for name, files in self._light_digests.items() if known.get(name, files) != files]
        if changed:
            raise SpecChangedError(
                f"The illumination images of {', '.join(changed)} are not those the dataset was built with.",
                path=self.root.url,
            )

    def _fit(self, tasks: list[FovTask], channels: tuple[str, ...], trial: bool) -> list[FovTask]:
        """The tasks with the statistics of their groups; those that are new are fitted, others stay."""
        known = json.loads(json.dumps(self.state.attributes.get("fitted", {}))) if self.state else {}
        fit = Fit(self.spec, channels, self._counted, known)
        wanted = fit.wanted(tasks)
        if trial:
            # Enough to cut a few cells of the first FOV.
            wanted = fit.wanted(tasks[:1])
        every = fov_tasks(self.table, self._counted, self.spec, self.storage_options) if wanted else ()
        looked = [(task, Wanted(channels=wanted[task.source.fov_id])) for task in every if task.source.fov_id in wanted]
        if trial:
            looked = looked[:1]
        waiting: dict[int, Survey | FovError] = {}
        done = 0
        with Workers(self.executor, math.ceil(len(looked) / 4)) as workers:
            for number, found in workers.run(partial(survey, spec=self.spec, lights=self.lights), looked):
                waiting[number] = found
                # In the order of the table, so that sums do not depend on who was first.
                while done in waiting:
                    fit.add(looked[done][0].source.fov_id, waiting.pop(done))
                    done += 1
        fit.finish()
        self._fitted, self._fits = fit.fitted, fit.records
        return [fit.bound(task) for task in tasks]

    def _check_append(self, layout: Layout) -> None:
        if layout.has_masks != self.table.has_labels:
            raise ArgumentError(
                "The dataset has masks, and this table gives no labels."
                if layout.has_masks
                else "The dataset has no masks, as its cells were given by boxes or centres; this table gives labels.",
                remedy="Build these cells into a dataset of their own.",
            )
        absent = [
            name for name, kind in layout.metadata.items() if kind in ("int64", "bool") and name not in self.table.frame
        ]
        if absent:
            raise ArgumentError(
                f"The dataset has the coordinates {', '.join(absent)}, and the table lacks these columns.",
                remedy="Add them to the table.",
            )


def _rooms(plan: Plan, committed: int) -> Iterator[int]:
    """Cells that are free in the shard where each job's cells begin, if all before are kept."""
    if plan.layout is None:
        return
    size = plan.layout.shard_cells
    start = committed
    for job in plan.jobs:
        yield size - start % size
        start += job.count
