"""From the table, the spec and what is committed to jobs."""

from cellcube.plan.checks import check_drop, check_same_cells, meets_condition
from cellcube.plan.jobs import FovTask, Job, Plan, fov_tasks, make_jobs
from cellcube.plan.labels import FOV_ERRORS, expand, failed_outcome, list_labels, outcomes_frame
from cellcube.plan.layout import PROBED, check_channels, is_coordinate, normalizers, refuse_wrong_call, resolve_layout

__all__ = [
    "FOV_ERRORS",
    "PROBED",
    "FovTask",
    "Job",
    "Plan",
    "check_channels",
    "check_drop",
    "check_same_cells",
    "expand",
    "failed_outcome",
    "fov_tasks",
    "is_coordinate",
    "list_labels",
    "make_jobs",
    "meets_condition",
    "normalizers",
    "outcomes_frame",
    "refuse_wrong_call",
    "resolve_layout",
]
