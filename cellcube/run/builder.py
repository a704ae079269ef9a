"""`build`: from a table of cells to a committed version of a dataset."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import pandas as pd

from cellcube.cells import CellTable, load_cells
from cellcube.cube import CubeState, Layout
from cellcube.errors import (
    ArgumentError,
    BuildStoppedError,
)
from cellcube.images import ImplausibleVoxelSizeWarning
from cellcube.ledger import Claim, RunTable
from cellcube.location import Location
from cellcube.manifest import CATALOG, is_current, read_outcomes, write_manifest
from cellcube.plan import Job, Plan
from cellcube.run.commit import commit_run, pack, run_record, stage_seconds
from cellcube.run.executors import Workers
from cellcube.run.job import run_job
from cellcube.run.planner import Planner
from cellcube.run.report import BuildReport, Estimate, make_report
from cellcube.run.result import CropDepthWarning, JobContext, JobResult
from cellcube.run.target import WORK, check_spec, choose_spec, find_dataset
from cellcube.run.trial import trial
from cellcube.spec import CubeSpec
from cellcube.urls import public_url

_CATEGORIES = {each.__name__: each for each in (CropDepthWarning, ImplausibleVoxelSizeWarning)}


def build(
    cells: pd.DataFrame | str | os.PathLike[str],
    root: str | os.PathLike[str],
    spec: CubeSpec | str | os.PathLike[str] | None = None,
    *,
    executor: Any = None,
    rebuild: Literal["missing", "all"] = "missing",
    on_error: Literal["record", "raise"] = "record",
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    dry_run: bool = False,
    identify: bool = False,
    **spec_fields: Any,
) -> BuildReport:
    """Cut, normalize, project and measure the cells of a table, and append them to a dataset.

    The dataset is made where there is none. Cells that are in it already are skipped, so the same call after a kill
    continues, and the same call after success does nothing.

    Parameters
    ----------
    cells : DataFrame, path or URL
        The cell table; see `cellcube.cells.load_cells`.
    root : path or URL
        Folder of the dataset.
    spec : CubeSpec, path or URL, optional
        Every choice that makes the cube, or a YAML file of them.
    executor : None, int, concurrent.futures.Executor or dask.distributed.Client
        Where the work is done. None is this machine's cores; a number is that many processes.
    rebuild : {"missing", "all"}
        ``missing`` skips what is committed; cells that failed before are tried again. ``all`` demands a root that
        holds no dataset yet.
    on_error : {"record", "raise"}
        A cell that fails becomes an outcome, or stops the build.
    storage_options : mapping, optional
        fsspec options for all remote paths, or one mapping a protocol. Never written anywhere.
    progress : bool
        Show a progress bar where standard error is a terminal.
    dry_run : bool
        Write nothing; the report's `plan` tells what would be done.
    identify : bool
        Write user and host into the provenance.
    **spec_fields
        Fields of `CubeSpec`; they override those of `spec`.

    Returns
    -------
    BuildReport

    Raises
    ------
    cellcube.errors.ArgumentError
        Where the spec, the table or another argument cannot be used (`SpecError`, `TableError`).
    cellcube.errors.DatasetError
        Where the root cannot be used: `SpecChangedError`, `NotADatasetError`, `DatasetAccessError`,
        `DatasetBusyError`.
    cellcube.errors.ImageError
        Where the first FOVs all say that the channels or axes asked for are not there.
    cellcube.errors.BuildStoppedError
        At the first failed cell, with ``on_error="raise"``.
    """
    for name, value, known in (("rebuild", rebuild, ("missing", "all")), ("on_error", on_error, ("record", "raise"))):
        if value not in known:
            raise ArgumentError(f"{name}={value!r}: give one of {', '.join(map(repr, known))}.")
    Workers(executor, 0)  # refuses what cannot run jobs
    started = time.perf_counter()
    chosen = choose_spec(spec, spec_fields, storage_options)
    location = Location.of(root, storage_options)
    state = find_dataset(location)
    if state is not None and rebuild == "all":
        raise ArgumentError(
            f"There is a dataset already, and committed cells never change. (path {location.url!r})",
            remedy='Give rebuild="all" a new root.',
        )
    if state is not None:
        chosen = check_spec(chosen, state, location)
    table = load_cells(cells, chosen, storage_options)
    builder = _Builder(location, chosen, table, state, executor, storage_options, on_error == "raise", progress)
    if dry_run:
        return builder.dry_run(started)
    return builder.build(started, identify)


class _Builder:
    """One build of one dataset."""

    def __init__(
        self,
        root: Location,
        spec: CubeSpec,
        table: CellTable,
        state: CubeState | None,
        executor: Any,
        storage_options: Mapping[str, Any] | None,
        stop_on_error: bool,
        progress: bool,
    ) -> None:
        self.root = root
        self.cube = root / "cube.zarr"
        self.pending = root / WORK / "pending"
        self.spec = spec
        self.table = table
        self.state = state
        self.executor = executor
        self.storage_options = storage_options
        self.stop_on_error = stop_on_error
        self.progress = progress
        self.started = datetime.now(UTC)
        self.warned: set[str] = set()
        self.planner = Planner(root, spec, table, state, executor, storage_options, self._warn)

    def dry_run(self, started: float) -> BuildReport:
        """The report of what would be done."""
        plan = self.planner.plan(trial=True)
        with Workers(self.executor, len(plan.jobs)) as workers:
            count = workers.count
        seconds, memory = trial(plan, self._context(plan.layout) if plan.layout else None)
        estimate = Estimate(
            cells=plan.cells,
            fovs=plan.fovs,
            shards=plan.shards(),
            bytes=plan.bytes(),
            memory=memory * count,
            seconds=None if seconds is None else seconds * plan.cells / count,
            workers=count,
        )
        return self._report(plan.failed, 0, started, plan=estimate)

    def build(self, started: float, identify: bool) -> BuildReport:
        """Do it."""
        plan = self.planner.plan()
        if self._changes_nothing(plan):
            if self.state is not None and not is_current(self.root, self.state):
                # A build was killed between its commit and what is derived from it.
                with self._claim():
                    write_manifest(self.root, self.state)
                    self.pending.remove()
            return self._report(plan.failed, 0, started)
        if plan.layout is None:
            self._stop_at(plan.failed)
            return self._report(plan.failed, 0, started)
        self._stop_at(plan.failed)
        interrupted = (self.root / WORK).exists()
        with self._claim():
            if interrupted:
                self.root.remove_partial()
            if self.state is not None and not is_current(self.root, self.state):
                write_manifest(self.root, self.state)
            with Workers(self.executor, len(plan.jobs)) as workers:
                results = self._run_jobs(plan, workers)
                decided = _decided(results, plan.failed)
                added = int((decided["status"] == "kept").sum())
                if not added and (self.state is None or self._same_as_before(decided)):
                    self.pending.remove()
                    return self._report(decided, 0, started, stages=stage_seconds(results))
                committed = self.state.count if self.state else 0
                packing = time.perf_counter()
                recorder = pack(self.root, plan.layout, committed, self.pending, results, workers)
                packed = time.perf_counter()
                version = self.state.version + 1 if self.state else 1
                record = run_record(
                    self.root, self.planner.spec, version, self.started, results, decided, workers, identify
                )
            record["fits"] = self.planner.fits
            record["illumination"] = self.planner.light_digests
            kept = {"fitted": self.planner.fitted, "illumination": self.planner.light_digests}
            asked = self.planner.asked
            tables: dict[RunTable, pd.DataFrame] = {
                "outcomes": decided,
                "fovs": _labels(results),
                "table": self._public(asked[asked["cell_id"].isin(decided["cell_id"])]),
            }
            self.state = commit_run(
                recorder, self.planner.spec, plan.layout, self.state, _kept_rows(results), tables, record, kept
            )
            self.planner.before = None
            write_manifest(self.root, self.state)
            self.pending.remove()
        ends = {"pack": round(packed - packing, 3), "commit": round(time.perf_counter() - packed, 3)}
        return self._report(decided, added, started, stages={**stage_seconds(results), **ends})

    def _public(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of the table without secrets in their paths."""
        columns = {*self.table.image_columns.values(), *self.table.label_images.values(), "label_path"}
        paths = {name: rows[name].map(public_url) for name in columns & set(rows)}
        return rows.assign(**paths).reset_index(drop=True)

    def _claim(self) -> Claim:
        return Claim(self.root / WORK / "claim.json", self.root.url)

    def _stop_at(self, failed: pd.DataFrame) -> None:
        if self.stop_on_error and len(failed):
            first = failed.iloc[0]
            raise BuildStoppedError(
                f"The build stopped at the first failed cell: {first['reason']}",
                cell_id=str(first["cell_id"]),
                fov_id=str(first["fov_id"]),
            )

    def _changes_nothing(self, plan: Plan) -> bool:
        return (
            not plan.jobs and (self.state is not None or plan.layout is not None) and self._same_as_before(plan.failed)
        )

    def _same_as_before(self, decided: pd.DataFrame) -> bool:
        """Whether the dataset's outcomes say the same of these cells already."""
        if decided.empty:
            return True
        if self.planner.before is None:
            return False
        columns = ["cell_id", "status", "reason"]
        both = decided[columns].merge(self.planner.before[columns], on=columns)
        return len(both) == len(decided)

    def _warn(self, heard: Iterable[Sequence[str]]) -> None:
        """Tell each warning of a build once, whichever process it came from."""
        for category, message in heard:
            if message not in self.warned:
                self.warned.add(message)
                warnings.warn(message, _CATEGORIES.get(category, UserWarning), stacklevel=5)

    def _context(self, layout: Layout) -> JobContext:
        return JobContext(
            pending=self.pending,
            spec=self.planner.spec,
            layout=layout,
            image_columns=self.table.image_columns,
            metadata=self.table.metadata,
            base=self.table.published_base,
            stop_on_error=self.stop_on_error,
            label_columns=(
                *self.table.label_images.values(),
                *(f"label_{name}" for name in self.table.label_images if f"label_{name}" in self.table.frame),
            ),
            lights=self.planner.lights,
        )

    def _run_jobs(self, plan: Plan, workers: Workers) -> list[JobResult]:
        from tqdm import tqdm

        assert plan.layout is not None
        context = self._context(plan.layout)
        results: list[JobResult | None] = [None] * len(plan.jobs)
        counts = dict.fromkeys(("kept", "dropped", "failed"), 0)
        bar = tqdm(total=plan.cells, unit=" cells", disable=None if self.progress else True, file=sys.stderr)
        with bar:
            numbered = zip(plan.jobs, _rooms(plan, self.state.count if self.state else 0), strict=True)
            for number, result in workers.run(partial(_work, context=context), numbered):
                results[number] = result
                for status, count in result.outcomes["status"].value_counts().items():
                    counts[str(status)] += int(count)
                bar.set_postfix(counts, refresh=False)
                bar.update(len(result.outcomes))
                self._warn(result.warned)
        return [result for result in results if result is not None]

    def _report(self, decided: pd.DataFrame, added: int, started: float, **fields: Any) -> BuildReport:
        asked = self.planner.asked["cell_id"] if "cell_id" in self.planner.asked else pd.Series([], dtype=str)
        frames = [decided[["cell_id", "fov_id", "label", "status", "reason"]].assign(run=0)]
        version = self.state.version if self.state else 0
        if self.state is not None:
            outcomes = self.planner.before if self.planner.before is not None else read_outcomes(self.root, version)
            asked_ids = pd.concat([asked, decided["cell_id"]])
            frames = [outcomes[outcomes["cell_id"].isin(asked_ids)]]
            missing = decided[~decided["cell_id"].isin(outcomes["cell_id"])]
            if len(missing):
                frames.append(missing[["cell_id", "fov_id", "label", "status", "reason"]].assign(run=0))
        return make_report(
            pd.concat(frames, ignore_index=True),
            added=added,
            version=version,
            root=self.root.url,
            catalog=(self.root / CATALOG).url,
            seconds=time.perf_counter() - started,
            **fields,
        )


def _work(item: tuple[Job, int], context: JobContext) -> JobResult:
    job, room = item
    return run_job(job, context, room)


def _kept_rows(results: list[JobResult]) -> pd.DataFrame:
    frames = [result.cells for result in results if len(result.cells)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _labels(results: list[JobResult]) -> pd.DataFrame:
    """How many labels the label image of each FOV has."""
    found = {fov: count for result in results for fov, count in result.labels.items()}
    return pd.DataFrame(
        {"fov_id": pd.Series(list(found), dtype=str), "labels": pd.Series(list(found.values()), dtype="int64")}
    )


def _rooms(plan: Plan, committed: int) -> Iterable[int]:
    """Cells that are free in the shard where each job's cells begin, if all before are kept."""
    assert plan.layout is not None
    size = plan.layout.shard_cells
    start = committed
    for job in plan.jobs:
        yield size - start % size
        start += job.count


def _decided(results: list[JobResult], failed: pd.DataFrame) -> pd.DataFrame:
    frames = [result.outcomes for result in results if len(result.outcomes)]
    if len(failed) or not frames:
        frames.append(failed)
    return pd.concat(frames, ignore_index=True)
