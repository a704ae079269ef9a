"""The jobs of a planned build, and its end: what they decided becomes a version of the dataset."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from cellcube.cube import CubeState
from cellcube.errors import BuildStoppedError, WorkersLostError
from cellcube.ledger import Claim, RunTable
from cellcube.location import Location
from cellcube.manifest import CATALOG, is_current, read_outcomes, write_manifest
from cellcube.plan import Job
from cellcube.run.commit import commit_run, pack, run_record, stage_seconds
from cellcube.run.executors import Workers
from cellcube.run.job import run_job
from cellcube.run.planned import Planned
from cellcube.run.profile import profile_table
from cellcube.run.report import BuildReport, make_report
from cellcube.run.result import JobContext, JobResult
from cellcube.run.target import PLAN, WORK
from cellcube.run.warned import Warned
from cellcube.tables import is_in

Numbered = tuple[Job, int]


class Build:
    """One planned build of one dataset.

    Parameters
    ----------
    root : Location
    planned : Planned
    state : CubeState or None
        What is committed.
    before : DataFrame or None
        Outcomes of the dataset.
    executor : object
        As `cellcube.build` takes it.
    warn : Warned
    started : float
        Of `time.perf_counter`: since when the report counts.
    stop_on_error, progress, profile : bool
    """

    def __init__(
        self,
        root: Location,
        planned: Planned,
        state: CubeState | None,
        before: pd.DataFrame | None,
        executor: Any,
        warn: Warned,
        started: float,
        *,
        stop_on_error: bool = False,
        progress: bool = True,
        profile: bool = False,
    ) -> None:
        self.root = root
        self.planned = planned
        self.state = state
        self.before = before
        self.executor = executor
        self.stop_on_error = stop_on_error
        self.progress = progress
        self.profile = profile
        self.started = started
        self.pending = root / WORK / "pending"
        self._warn = warn

    def run_jobs(
        self, workers: Workers, work: Callable[[JobContext, Numbered], JobResult | None] | None = None
    ) -> list[JobResult | None]:
        """What the jobs did, in their order.

        Parameters
        ----------
        workers : Workers
        work : callable, optional
            Takes what jobs share and (job, room). Does the job where none is given.
        """
        from tqdm import tqdm

        plan = self.planned.plan
        results: list[JobResult | None] = [None] * len(plan.jobs)
        if not plan.jobs:
            return results
        context = self.planned.context(self.pending, self.stop_on_error)
        counts = dict.fromkeys(("kept", "dropped", "failed"), 0)
        bar = tqdm(total=plan.cells, unit=" cells", disable=None if self.progress else True, file=sys.stderr)
        with bar:
            numbered = zip(plan.jobs, self.planned.rooms, strict=True)
            try:
                for number, result in workers.run(partial(work or _work, context), numbered):
                    results[number] = result
                    if result is None:
                        continue
                    for status, count in result.outcomes["status"].value_counts().items():
                        counts[str(status)] += int(count)
                    bar.set_postfix(counts, refresh=False)
                    bar.update(len(result.outcomes))
                    self._warn(result.warned)
            except WorkersLostError as error:
                if error.number is not None:
                    error.fov_id = ", ".join(task.source.fov_id for task in plan.jobs[error.number].fovs)
                raise
        return results

    def finish(
        self,
        identify: bool,
        results_of: Callable[[Workers], list[JobResult]] | None = None,
        done_by: Mapping[str, Any] | None = None,
    ) -> BuildReport:
        """Put what the jobs decided into the dataset.

        Parameters
        ----------
        identify : bool
            Write user and host into the provenance.
        results_of : callable, optional
            Gives the results of all jobs. They are done where none is given.
        done_by : mapping, optional
            What did the jobs, for the record: `name`, `workers`. The executor of the build where none is given.
        """
        planned, plan = self.planned, self.planned.plan
        planning = time.perf_counter() - self.started
        if self._changes_nothing():
            if self.state is not None and not is_current(self.root, self.state):
                # A build was killed between its commit and what is derived from it.
                with claim_of(self.root):
                    write_manifest(self.root, self.state)
                    self.clear()
            return self.report(plan.failed, 0)
        self._stop_at(plan.failed)
        if plan.layout is None:
            return self.report(plan.failed, 0)
        interrupted = (self.root / WORK).exists()
        with claim_of(self.root):
            with Workers(self.executor, len(plan.jobs)) as workers:
                results = results_of(workers) if results_of else [each for each in self.run_jobs(workers) if each]
                if interrupted:
                    self.root.remove_partial()
                if self.state is not None and not is_current(self.root, self.state):
                    write_manifest(self.root, self.state)
                decided = _decided(results, plan.failed)
                added = int((decided["status"] == "kept").sum())
                if not added and (self.state is None or self._same_as_before(decided)):
                    self.clear()
                    return self.report(decided, 0, stages=stage_seconds(results))
                committed = self.state.count if self.state else 0
                packing = time.perf_counter()
                recorder = pack(self.root, plan.layout, committed, self.pending, results, workers)
                packed = time.perf_counter()
                version = self.state.version + 1 if self.state else 1
                record = run_record(
                    self.root, planned.spec, version, planned.started, results, decided, workers, identify
                )
            record["executor"] = dict(done_by or record["executor"])
            record["fits"] = planned.fits
            record["illumination"] = planned.light_digests
            kept = {"fitted": planned.fitted, "illumination": planned.light_digests}
            tables: dict[RunTable, pd.DataFrame] = {
                "outcomes": decided,
                "fovs": _labels(results),
                "table": planned.public_rows(),
            }
            profile = profile_table(results) if self.profile else None
            if profile is not None:
                tables["profile"] = profile
            stages, rows = stage_seconds(results), [result.rows for result in results]
            self.state = commit_run(recorder, planned.spec, plan.layout, self.state, rows, tables, record, kept)
            # They may be many, and what follows reads them from where they were written.
            results.clear()
            rows.clear()
            self.before = None
            write_manifest(self.root, self.state)
            self.clear()
        ends = {"pack": packed - packing, "commit": time.perf_counter() - packed}
        stages = {"plan": round(planning, 3), **stages, **{name: round(value, 3) for name, value in ends.items()}}
        return self.report(decided, added, stages=stages, profile=profile)

    def clear(self) -> None:
        """Remove what is not the dataset's: pieces of jobs, and a stored plan."""
        self.pending.remove()
        (self.root / WORK / PLAN).remove()

    def report(self, decided: pd.DataFrame, added: int, **fields: Any) -> BuildReport:
        """What became of the cells of the table."""
        columns = ["cell_id", "fov_id", "label", "status", "reason"]
        frames = [decided[columns].assign(run=0)]
        version = self.state.version if self.state else 0
        if self.state is not None:
            outcomes = self.before if self.before is not None else read_outcomes(self.root, version)
            asked = pd.concat([self.planned.asked, decided["cell_id"]])
            frames = [outcomes[is_in(outcomes["cell_id"], asked)]]
            missing = decided[~is_in(decided["cell_id"], outcomes["cell_id"])]
            if len(missing):
                frames.append(missing[columns].assign(run=0))
        return make_report(
            pd.concat(frames, ignore_index=True),
            added=added,
            version=version,
            root=self.root.url,
            catalog=(self.root / CATALOG).url,
            seconds=time.perf_counter() - self.started,
            **fields,
        )

    def _stop_at(self, failed: pd.DataFrame) -> None:
        if self.stop_on_error and len(failed):
            first = failed.iloc[0]
            raise BuildStoppedError(
                f"The build stopped at the first failed cell: {first['reason']}",
                cell_id=str(first["cell_id"]),
                fov_id=str(first["fov_id"]),
            )

    def _changes_nothing(self) -> bool:
        plan = self.planned.plan
        known = self.state is not None or plan.layout is not None
        return not plan.jobs and known and self._same_as_before(plan.failed)

    def _same_as_before(self, decided: pd.DataFrame) -> bool:
        """Whether the dataset's outcomes say the same of these cells already."""
        if decided.empty:
            return True
        if self.before is None:
            return False
        columns = ["cell_id", "status", "reason"]
        both = decided[columns].merge(self.before[columns], on=columns)
        return len(both) == len(decided)


def claim_of(root: Location) -> Claim:
    """What keeps other builds away while one writes."""
    return Claim(root / WORK / "claim.json", root.url)


def _work(context: JobContext, item: Numbered) -> JobResult:
    job, room = item
    return run_job(job, context, room)


def _labels(results: Sequence[JobResult]) -> pd.DataFrame:
    """How many labels the label image of each FOV has."""
    found = {fov: count for result in results for fov, count in result.labels.items()}
    return pd.DataFrame(
        {"fov_id": pd.Series(list(found), dtype=str), "labels": pd.Series(list(found.values()), dtype="int64")}
    )


def _decided(results: Sequence[JobResult], failed: pd.DataFrame) -> pd.DataFrame:
    frames = [result.outcomes for result in results if len(result.outcomes)]
    if len(failed) or not frames:
        frames.append(failed)
    return pd.concat(frames, ignore_index=True)
