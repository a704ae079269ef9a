"""A planned build: all that its jobs and its commit need, whichever process does them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from cellcube.cells import CellTable
from cellcube.location import Location
from cellcube.plan import Fitted, Lighting, Plan
from cellcube.run.result import JobContext
from cellcube.spec import CubeSpec
from cellcube.urls import public_url


@dataclass(frozen=True)
class Planned:
    """What `Planner` makes, and what a stored plan gives back.

    Parameters
    ----------
    spec : CubeSpec
        With the shape that was fitted.
    table : CellTable
        Whose rows are the cells of the jobs, in their order.
    asked : Series of str
        `cell_id` of every cell that the table asks for, also of those that are decided already.
    plan : Plan
    rooms : tuple of int
        Cells that are free in the shard where each job's cells begin, if all before are kept.
    base : str
        What is taken off paths that are written down.
    lights : mapping
        Illumination images by channel.
    fitted : dict
        Statistics of groups, those of the dataset and new ones.
    fits : list of dict
        What was fitted for this build, for its record.
    started : datetime
    """

    spec: CubeSpec
    table: CellTable
    asked: pd.Series
    plan: Plan
    rooms: tuple[int, ...]
    base: str
    lights: Mapping[str, Lighting]
    fitted: Fitted
    fits: list[dict[str, Any]]
    started: datetime

    @property
    def light_digests(self) -> dict[str, dict[str, str]]:
        """SHA-256 of the illumination images, by channel."""
        return {channel: dict(light.digests) for channel, light in self.lights.items()}

    def public_rows(self) -> pd.DataFrame:
        """Rows of the table without secrets in their paths."""
        rows = self.table.frame
        paths = {
            name: rows[name].map({path: public_url(path) for path in rows[name].unique()})
            for name in path_columns(self.table)
        }
        return rows.assign(**paths).reset_index(drop=True)

    def context(self, pending: Location, stop_on_error: bool = False) -> JobContext:
        """What the jobs share."""
        assert self.plan.layout is not None, "without a layout there are no jobs"
        label_images = self.table.label_images
        return JobContext(
            pending=pending,
            spec=self.spec,
            layout=self.plan.layout,
            image_columns=self.table.image_columns,
            metadata=self.table.metadata,
            base=self.base,
            stop_on_error=stop_on_error,
            label_columns=(
                *label_images.values(),
                *(f"label_{name}" for name in label_images if f"label_{name}" in self.table.frame),
            ),
            lights=self.lights,
        )


def path_columns(table: CellTable) -> list[str]:
    """Columns of a table that hold paths or URLs."""
    names = dict.fromkeys([*table.image_columns.values(), "label_path", *table.label_images.values()])
    return [name for name in names if name in table.frame]
