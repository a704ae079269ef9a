"""A build in three steps, for arrays of jobs without a scheduler in common: plan, run parts anywhere, commit."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cellcube.errors import ArgumentError, PlanError
from cellcube.location import Location
from cellcube.manifest import read_outcomes
from cellcube.plan import Job
from cellcube.run.executors import Workers
from cellcube.run.finish import Build, Numbered, claim_of
from cellcube.run.planner import prepare
from cellcube.run.reasons import layout_reasons
from cellcube.run.report import BuildReport, make_report
from cellcube.run.result import JobContext, JobResult
from cellcube.run.stored import Cells, StoredPlan, check_importable
from cellcube.run.target import find_dataset
from cellcube.run.warned import Warned
from cellcube.spec import CubeSpec
from cellcube.tables import is_in

_SHOWN = 4


@dataclass(frozen=True)
class PlanReport:
    """What a stored plan will do.

    Parameters
    ----------
    cells, fovs, jobs : int
        To be done. A part is one job or more.
    known : int
        Cells of the table that the dataset has decided on already.
    failed : DataFrame
        Outcomes that are known before any pixel is read.
    layout : tuple of str
        Chunk, shard and codec, each with its reason.
    root : str
    stored : bool
        Whether the plan was written.
    """

    cells: int
    fovs: int
    jobs: int
    known: int
    failed: pd.DataFrame
    layout: tuple[str, ...]
    root: str
    stored: bool

    def __str__(self) -> str:
        lines = [f"plan: {self.cells:,} cells of {self.fovs:,} FOVs in {self.jobs:,} job{'s' * (self.jobs != 1)}"]
        if self.known:
            lines[0] += f", {self.known:,} are in the dataset or were dropped before"
        lines += [f"  {line}" for line in self.layout]
        failed = make_report(self.failed, added=0, version=0, root=self.root, catalog="", seconds=0.0)
        lines += [f"  {count:>6,} {status}: {reason}" for status, reason, count in failed.reasons()]
        if not self.stored:
            return "\n".join([*lines, "nothing was written"])
        if self.jobs:
            lines.append("next, on any machines, in any order, at the same time:")
            lines.append(f"  cellcube run {self.root} --part I/N    for I from 1 to N, N up to {self.jobs:,}")
            lines.append("and when all have ended:")
        else:
            lines.append("there is nothing to run; to end the plan:")
        return "\n".join([*lines, f"  cellcube commit {self.root}"])


@dataclass(frozen=True)
class PartReport:
    """What a part did.

    Parameters
    ----------
    part, parts : int
    jobs, of : int
        Jobs of the part, and of the plan.
    outcomes : DataFrame
        One row a cell of the part: cell_id, fov_id, label, status, reason.
    root : str
    seconds : float
        Wall time.
    """

    part: int
    parts: int
    jobs: int
    of: int
    outcomes: pd.DataFrame
    root: str
    seconds: float

    def __str__(self) -> str:
        name = f"part {self.part}/{self.parts}"
        if not self.jobs:
            return f"{name}: no jobs, as the plan has {self.of:,}"
        told = make_report(self.outcomes, added=0, version=0, root=self.root, catalog="", seconds=self.seconds)
        lines = [
            f"{name}: {self.jobs:,} of {self.of:,} jobs, {told.requested:,} cells: {told.kept:,} kept, "
            f"{told.dropped:,} dropped, {told.failed:,} failed, in {self.seconds:.1f} s",
            *(f"  {count:>6,} {status}: {reason}" for status, reason, count in told.reasons()),
            f"when all parts have ended: cellcube commit {self.root}",
        ]
        return "\n".join(lines)


def make_plan(
    cells: Cells,
    root: str | os.PathLike[str],
    spec: CubeSpec | str | os.PathLike[str] | None = None,
    *,
    executor: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **spec_fields: Any,
) -> PlanReport:
    """Plan a build, and store the plan below the root, so that `run_part` can do its jobs anywhere.

    The shape and statistics of groups are fitted here, and the spec is frozen. A plan that was there is replaced; jobs
    that were done stay done. No secrets are written.

    Parameters
    ----------
    cells, root, spec, executor, storage_options, **spec_fields
        As `cellcube.build` takes them; the executor is for first looks at fields of view.
    dry_run : bool
        Write nothing.

    Returns
    -------
    PlanReport

    Raises
    ------
    cellcube.errors.ArgumentError
        Also where a function of the spec cannot be imported by other processes.
    cellcube.errors.DatasetError, cellcube.errors.ImageError
        As `cellcube.build` does.
    """
    Workers(executor, 0)  # refuses what cannot run jobs
    planner = prepare(cells, root, spec, spec_fields, executor, storage_options, Warned())
    check_importable(planner.spec)
    planned = planner.plan()
    location, state, plan = planner.root, planner.state, planned.plan
    if not dry_run:
        with claim_of(location):
            StoredPlan(location).save(planned, state.version if state else 0, cells, storage_options)
    known = ~is_in(planned.asked, planned.table.frame["cell_id"])
    return PlanReport(
        cells=plan.cells,
        fovs=plan.fovs,
        jobs=len(plan.jobs),
        known=int(known.sum()),
        failed=plan.failed,
        layout=tuple(layout_reasons(plan.layout, plan.cells)) if plan.layout and plan.jobs else (),
        root=location.url,
        stored=not dry_run,
    )


def run_part(
    root: str | os.PathLike[str],
    part: int = 1,
    parts: int = 1,
    *,
    cells: Cells | None = None,
    executor: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> PartReport:
    """Do the jobs of one part of a stored plan; those that were done before are not done again.

    Part i of n has the jobs i, i + n, i + 2n, …, so that plates with larger fields are spread over all parts. Parts may
    run at the same time, on any machine that sees the images and the root.

    Parameters
    ----------
    root : path or URL
    part, parts : int
        Which part, from 1, of how many.
    cells : DataFrame, path or URL, optional
        The cell table, needed again where its URLs hold keys.
    executor, storage_options, progress
        As `cellcube.build` takes them.

    Returns
    -------
    PartReport

    Raises
    ------
    cellcube.errors.ArgumentError
        Where there is no such part.
    cellcube.errors.PlanError
        Where there is no plan, or it is out of date.
    """
    if not 1 <= part <= parts:
        raise ArgumentError(
            f"There is no part {part} of {parts}: parts are counted from 1.",
            remedy=f"Number the array from 1 to {max(parts, 1)}, with SLURM by --array=1-{max(parts, 1)}.",
        )
    Workers(executor, 0)
    started = time.perf_counter()
    location = Location.of(root, storage_options)
    stored = StoredPlan(location)
    state = find_dataset(location)
    stored.check(state, storage_options, cells)
    planned = stored.load(storage_options, cells, slice(part - 1, None, parts))
    stored.note_part(part, parts)
    build = Build(location, planned, state, None, executor, Warned(), started, progress=progress)
    with Workers(executor, len(planned.plan.jobs)) as workers:
        results = [each for each in build.run_jobs(workers) if each is not None]
    frames = [each.outcomes for each in results if len(each.outcomes)]
    return PartReport(
        part=part,
        parts=parts,
        jobs=len(results),
        of=stored.count(),
        outcomes=pd.concat(frames, ignore_index=True) if frames else planned.plan.failed.iloc[:0],
        root=location.url,
        seconds=time.perf_counter() - started,
    )


def commit_parts(
    root: str | os.PathLike[str],
    *,
    cells: Cells | None = None,
    executor: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    identify: bool = False,
) -> BuildReport:
    """Put what the parts of a stored plan have done into the dataset: what `cellcube.build` would have made.

    Parameters
    ----------
    root : path or URL
    cells : DataFrame, path or URL, optional
        The cell table, needed again where its URLs hold keys.
    executor, storage_options, progress, identify
        As `cellcube.build` takes them.

    Returns
    -------
    BuildReport

    Raises
    ------
    cellcube.errors.PlanError
        Where there is no plan, it is out of date, or jobs are not done: the message names their parts.
    cellcube.errors.DatasetError
        As `cellcube.build` does.
    """
    Workers(executor, 0)
    started = time.perf_counter()
    location = Location.of(root, storage_options)
    stored = StoredPlan(location)
    state = find_dataset(location)
    before = read_outcomes(location, state.version) if state else None
    committed = stored.committed(state, before)
    if not committed:
        stored.check(state, storage_options, cells)
    # A commit that was killed at its end has nothing left to do but that end.
    planned = stored.load(storage_options, cells, slice(0) if committed else slice(None))
    build = Build(location, planned, state, before, executor, Warned(), started, progress=progress)

    def results_of(workers: Workers) -> list[JobResult]:
        found = build.run_jobs(workers, _take)
        missing = [number for number, each in enumerate(found) if each is None]
        if missing:
            raise _not_done(missing, planned.plan.jobs, stored.parts(), location)
        return [each for each in found if each is not None]

    report = build.finish(identify, results_of, {"name": "parts of a plan", "workers": _parts(stored.parts())})
    if stored.exists():
        with claim_of(location):
            build.clear()
    return report


def _take(context: JobContext, item: Numbered) -> JobResult | None:
    """The result of a job that was done."""
    job, _ = item
    return JobResult.load(context.pending, job, context.base)


def _not_done(
    missing: Sequence[int], jobs: Sequence[Job], begun: Sequence[tuple[int, int]], root: Location
) -> PlanError:
    fovs = [task.source.fov_id for number in missing for task in jobs[number].fovs]
    named = ", ".join(repr(fov) for fov in fovs[:_SHOWN]) + (", …" if len(fovs) > _SHOWN else "")
    text = f"{len(missing)} of {len(jobs)} jobs of the plan are not done (FOVs {named})"
    run = f"cellcube run {root.url}"
    parts = _parts(begun)
    if parts == 1:
        return PlanError(f"{text}.", path=root.url, remedy=f"Do them with {run}, then commit.")
    lacking = sorted({number % parts + 1 for number in missing})
    never = [part for part in lacking if (part, parts) not in begun]
    told = ", ".join(f"{part}/{parts}{' (never begun)' if part in never else ''}" for part in lacking)
    return PlanError(
        f"{text}, of the parts {told}.",
        path=root.url,
        remedy=f"Run these again, such as {run} --part {lacking[0]}/{parts}, or all that is missing with {run}, "
        "then commit.",
    )


def _parts(begun: Sequence[tuple[int, int]]) -> int:
    """Into how many parts the plan was divided: what most of them were begun with."""
    return Counter(count for _, count in begun).most_common(1)[0][0] if begun else 1
