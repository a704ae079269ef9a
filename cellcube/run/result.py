"""What jobs share, and what each leaves behind."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cellcube.cube import Layout
from cellcube.ledger import parse_table, read_table, write_table
from cellcube.location import Location
from cellcube.plan import FovTask, Job, Lighting
from cellcube.spec import CubeSpec
from cellcube.urls import public_url, seen_from


@dataclass(frozen=True)
class JobContext:
    """What all jobs of a build share.

    Parameters
    ----------
    pending : Location
        Folder for what is not committed yet.
    spec : CubeSpec
    layout : Layout
    image_columns : mapping
        As in `CellTable`.
    metadata : tuple of str
        Columns carried into the manifest.
    base : str
        Folder or URL that the table's paths are seen from.
    stop_on_error : bool
    label_columns : tuple of str
        Columns of further label images.
    lights : mapping
        Illumination images by channel.
    """

    pending: Location
    spec: CubeSpec
    layout: Layout
    image_columns: Mapping[str, str]
    metadata: tuple[str, ...]
    base: str = ""
    stop_on_error: bool = False
    label_columns: tuple[str, ...] = ()
    lights: Mapping[str, Lighting] = field(default_factory=dict)


@dataclass(frozen=True)
class JobResult:
    """What a job decided and wrote.

    Parameters
    ----------
    key : str
        Of the job.
    outcomes : DataFrame
        One row a requested cell: `cell_id`, `fov_id`, `label`, `status`, `reason`.
    rows : bytes
        `cells` as Parquet: many results are held until the commit, and so take least.
    pieces : list of int
        Cells in each piece; piece i of array a is ``<key>/<a>.<i>`` in the pending folder.
    sizes : dict
        Bytes of each piece by its name.
    sources : dict
        Path, size and time or ETag of every file read, by `fov_id`.
    digests : dict
        SHA-256 of each piece by its name; empty where it begins within a shard, so that it is none by itself.
    labels : dict
        Number of labels in the label image, by `fov_id`.
    seconds : dict
        Time by stage, of `cellcube.run.stopwatch.STAGES`.
    began : float
        Seconds since 1970.
    read_bytes : int
        Of pixels and labels that were read, decoded.
    worker : str
        Host and process.
    warned : list of (str, str)
        Category and text of warnings.
    """

    key: str
    outcomes: pd.DataFrame
    rows: bytes
    pieces: list[int]
    sizes: dict[str, int]
    sources: dict[str, list[dict[str, Any]]]
    digests: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    began: float = 0.0
    read_bytes: int = 0
    worker: str = ""
    warned: list[list[str]] = field(default_factory=list)

    @property
    def cells(self) -> pd.DataFrame:
        """The manifest rows of the kept cells, in the order of their pixels."""
        return parse_table(self.rows)

    def save(self, pending: Location) -> None:
        """Mark the job as done. Written after its pieces, so that what is marked is whole."""
        about = {
            "pieces": self.pieces,
            "sizes": self.sizes,
            "sources": self.sources,
            "digests": self.digests,
            "labels": self.labels,
            "seconds": self.seconds,
            "began": self.began,
            "read_bytes": self.read_bytes,
            "worker": self.worker,
            "warned": self.warned,
        }
        (pending / self.key / "cells.parquet").write(self.rows)
        write_table(pending / self.key / "done.parquet", self.outcomes, about)

    @classmethod
    def load(cls, pending: Location, job: Job, base: str) -> JobResult | None:
        """The result of a job that was done before, where its pieces are whole and its files have not changed."""
        try:
            outcomes, about = read_table(pending / job.key / "done.parquet")
            rows = (pending / job.key / "cells.parquet").read()
            parse_table(rows)
        except (OSError, ValueError):
            return None
        result = cls(job.key, outcomes, rows, **about)
        sizes = (pending / job.key).sizes()
        if any(sizes.get(name) != size for name, size in result.sizes.items()):
            return None
        now = {fov.source.fov_id: states_of(fov, base) for fov in job.fovs}
        return result if json.loads(json.dumps(now)) == result.sources else None


class CropDepthWarning(UserWarning):
    """The crop's number of planes does not go with that of the FOVs."""


def heard(caught: Sequence[warnings.WarningMessage]) -> list[list[str]]:
    """Category and text of warnings, each once."""
    found = dict.fromkeys((each.category.__name__, str(each.message)) for each in caught)
    return [list(each) for each in found]


def states_of(fov: FovTask, base: str) -> list[dict[str, Any]]:
    """Path as seen from `base`, size and modification time or ETag of every file of a FOV."""
    seen = {image.path: image for image in fov.source.every}
    return [
        {"path": public_url(seen_from(base, path)), **Location(path, image.storage_options).state()}
        for path, image in seen.items()
    ]
