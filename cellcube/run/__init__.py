"""Run jobs: the only place where pixels meet input and output."""

from cellcube.run.builder import build, find_dataset
from cellcube.run.report import BuildReport, Estimate, human_bytes, human_time

__all__ = ["BuildReport", "Estimate", "build", "find_dataset", "human_bytes", "human_time"]
