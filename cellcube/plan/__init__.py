"""From the table, the spec and what is committed to jobs."""

from cellcube.plan.checks import check_drop, check_same_cells, check_table, meets_condition
from cellcube.plan.fit import Fit, Fitted, fit_shape
from cellcube.plan.jobs import FovTask, Job, Plan, fov_tasks, make_jobs
from cellcube.plan.labels import FOV_ERRORS, FovError, expand, failed_outcome, outcomes_frame
from cellcube.plan.layout import PROBED, check_channels, is_coordinate, refuse_wrong_call, resolve_layout
from cellcube.plan.lighting import Lighting, correction_of, lightings
from cellcube.plan.survey import Survey, Wanted, count_volume, survey

__all__ = [
    "FOV_ERRORS",
    "PROBED",
    "Fit",
    "Fitted",
    "FovError",
    "FovTask",
    "Job",
    "Lighting",
    "Plan",
    "Survey",
    "Wanted",
    "check_channels",
    "check_drop",
    "check_same_cells",
    "check_table",
    "correction_of",
    "count_volume",
    "expand",
    "failed_outcome",
    "fit_shape",
    "fov_tasks",
    "is_coordinate",
    "lightings",
    "make_jobs",
    "meets_condition",
    "outcomes_frame",
    "refuse_wrong_call",
    "resolve_layout",
    "survey",
]
