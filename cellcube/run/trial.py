"""What a planned build will take, measured on one FOV."""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings

from cellcube.location import Location
from cellcube.plan import Job, Plan
from cellcube.run.job import run_job
from cellcube.run.result import JobContext


def trial(plan: Plan, context: JobContext | None) -> tuple[float | None, int]:
    """Seconds a cell and bytes a worker, from the first FOV that works, in a folder that is thrown away."""
    import tempfile

    if context is None:
        return None, 0
    layout = context.layout
    shard = sum(array.cell_bytes for array in layout.arrays().values()) * min(layout.shard_cells, max(plan.cells, 1))
    for job in plan.jobs[:4]:
        fov = job.fovs[0]
        with tempfile.TemporaryDirectory() as folder:
            trial = dataclasses.replace(context, pending=Location(folder), stop_on_error=False)
            start = time.perf_counter()
            key = hashlib.sha256(job.key.encode()).hexdigest()[:24]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = run_job(Job(key, (fov,)), trial, layout.shard_cells)
            seconds = time.perf_counter() - start
        if (result.outcomes["status"] == "kept").any():
            image = sum(int(files.get("size") or 0) for files in result.sources[fov.source.fov_id])
            return seconds / len(fov.cells), shard + 2 * image + 150_000_000
    return None, shard + 150_000_000
