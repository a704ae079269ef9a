"""Run jobs: the only place where pixels meet input and output."""

from cellcube.run.builder import build
from cellcube.run.report import BuildReport, Estimate, human_bytes, human_time
from cellcube.run.target import find_dataset

__all__ = ["BuildReport", "Estimate", "build", "find_dataset", "human_bytes", "human_time"]
