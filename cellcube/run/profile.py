"""Where the time of a build went, job by job."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cellcube.run.result import JobResult
from cellcube.run.stopwatch import STAGES


def profile_table(results: Sequence[JobResult]) -> pd.DataFrame:
    """One row a job, in the order of the jobs.

    Returns
    -------
    DataFrame
        `job`, its `worker` (numbered, as names of machines are nobody's business), `began` (seconds after the first
        one), `fovs`, `cells` that were kept, seconds by stage, `read_bytes` (pixels and labels, decoded) and
        `written_bytes` (encoded).
    """
    workers = {name: number for number, name in enumerate(dict.fromkeys(each.worker for each in results))}
    first = min((each.began for each in results), default=0.0)
    rows = [
        {
            "job": each.key,
            "worker": workers[each.worker],
            "began": round(each.began - first, 3),
            "fovs": len(each.sources),
            "cells": sum(each.pieces),
            **{stage: each.seconds.get(stage, 0.0) for stage in STAGES},
            "read_bytes": each.read_bytes,
            "written_bytes": sum(each.sizes.values()),
        }
        for each in results
    ]
    names = ["job", "worker", "began", "fovs", "cells", *STAGES, "read_bytes", "written_bytes"]
    return pd.DataFrame(rows, columns=pd.Index(names))
