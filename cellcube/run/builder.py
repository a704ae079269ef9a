"""`build`: from a table of cells to a committed version of a dataset."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from cellcube.errors import ArgumentError
from cellcube.run.executors import Workers
from cellcube.run.finish import Build
from cellcube.run.planner import prepare
from cellcube.run.reasons import layout_reasons
from cellcube.run.report import BuildReport, Estimate
from cellcube.run.trial import trial
from cellcube.run.warned import Warned
from cellcube.spec import CubeSpec


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
    profile: bool = False,
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
    profile : bool
        Keep where the time went with the run, one row a job, in ``runs/<version>.profile.parquet``, and show it in the
        report.
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
    cellcube.errors.WorkersLostError
        Where the executor's workers end without an answer.
    """
    for name, value, known in (("rebuild", rebuild, ("missing", "all")), ("on_error", on_error, ("record", "raise"))):
        if value not in known:
            raise ArgumentError(f"{name}={value!r}: give one of {', '.join(map(repr, known))}.")
    Workers(executor, 0)  # refuses what cannot run jobs
    started = time.perf_counter()
    warn = Warned()
    planner = prepare(cells, root, spec, spec_fields, executor, storage_options, warn, fresh=rebuild == "all")
    planned = planner.plan(trial=dry_run)
    one = Build(
        planner.root,
        planned,
        planner.state,
        planner.before,
        executor,
        warn,
        started,
        stop_on_error=on_error == "raise",
        progress=progress,
        profile=profile,
    )
    return one.report(planned.plan.failed, 0, plan=_estimate(one)) if dry_run else one.finish(identify)


def _estimate(build: Build) -> Estimate:
    """What the build would take."""
    plan = build.planned.plan
    with Workers(build.executor, len(plan.jobs)) as workers:
        count = workers.count
    seconds, memory = trial(plan, build.planned.context(build.pending) if plan.layout else None)
    return Estimate(
        cells=plan.cells,
        fovs=plan.fovs,
        shards=plan.shards(),
        bytes=plan.bytes(),
        memory=memory * count,
        seconds=None if seconds is None else seconds * plan.cells / count,
        workers=count,
        layout=tuple(layout_reasons(plan.layout, plan.cells)) if plan.layout else (),
    )
