"""Open a dataset, and tell about it."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellcube.cube import CubeState, existing_state
from cellcube.ledger import read_run
from cellcube.location import Location
from cellcube.manifest import CATALOG, read_fovs, read_outcomes
from cellcube.run.report import human_bytes

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def open(
    root: str | os.PathLike[str], version: int | None = None, *, storage_options: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Open a dataset as an xarray dataset, lazily.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    version : int, optional
        From 1; None is the latest. A version holds the cells of all builds up to it.
    storage_options : mapping, optional
        fsspec options.

    Returns
    -------
    xarray.Dataset
        ``cells`` (cell, c, z, y, x), the projections by their names (cell, c, two of z, y, x) and ``mask``
        (cell, z, y, x) as dask arrays whose chunks are whole shards. Coordinates along ``cell`` for what tells cells
        apart and for the columns of the cell table; variables for geometry and normalization. Those are read when
        they are used. ``cell_id`` is indexed: ``dataset.sel(cell_id="…")``. Retracted cells are left out.

    Raises
    ------
    cellcube.errors.DatasetNotFoundError
        Where there is no dataset.
    cellcube.errors.VersionNotFoundError
        Where it has no such version.
    """
    from cellcube.cube.read import open_cube

    location = Location.of(root, storage_options)
    state = existing_state(location)
    version = state.existing_version(version, location)
    retracted = state.retracted_at(version) > 0
    return open_cube(location / "cube.zarr", state.layout, version, state.count_at(version), retracted)


@dataclass(frozen=True)
class DatasetInfo:
    """What `info` tells of a dataset.

    Parameters
    ----------
    root : str
    state : CubeState
    outcomes : dict
        Cells by status.
    reasons : dict
        Cells by why they were not kept.
    objects, bytes : int
        Of the whole folder.
    run : dict
        Record of the last build.
    decided : DataFrame
        Outcomes: one row a cell.
    fovs : DataFrame
        One row a FOV: its labels, and what became of them.
    """

    root: str
    state: CubeState
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    objects: int
    bytes: int
    run: Mapping[str, Any]
    decided: pd.DataFrame
    fovs: pd.DataFrame

    def __str__(self) -> str:
        attributes, layout, run = self.state.attributes, self.state.layout, self.run
        voxel = attributes["voxel_size"]
        if voxel == "mixed":
            spacing = "differs between cells"
        else:
            known = [f"{axis} {value:g}" for axis, value in zip("zyx", voxel, strict=True) if value is not None]
            spacing = ", ".join(known) + " µm" if known else "unknown"
        raw = sum(array.cell_bytes for array in layout.arrays().values()) * self.state.count
        code = run["code"].get("git") or {}
        commit = (
            f"{code['commit'][:12]}{' with uncommitted changes' if code.get('dirty') else ''}"
            if code.get("commit")
            else "no git"
        )
        normalize = attributes["spec"]["normalize"]
        method = normalize.get("method") or normalize.get("function") or "one a channel"
        gone = self.state.retracted_at(self.state.version)
        rows = {
            "dataset": self.root,
            "name": attributes["name"],
            "licence": attributes["licence"] or "not stated",
            "version": f"{self.state.version}, finished {run['finished']}",
            "cells": f"{self.state.visible:,}" + (f", {gone:,} more are retracted" if gone else ""),
            "outcomes": ", ".join(f"{self.outcomes.get(each, 0):,} {each}" for each in ("kept", "dropped", "failed")),
            "channels": ", ".join(layout.channels),
            "crop": f"{' x '.join(map(str, layout.shape))} voxels (z, y, x), {layout.dtype}",
            "voxel size": spacing,
            "normalize": method,
            "projections": ", ".join(layout.projections) or "none",
            "also as": ", ".join(name for name in layout.representations if name != "cells") or "nothing else",
            "masks": ", ".join(layout.masks) or "none",
            "coordinates": ", ".join(layout.metadata) or "none",
            "storage": f"{human_bytes(self.bytes)} in {self.objects:,} objects; {human_bytes(raw)} uncompressed",
            "shard": f"{layout.shard_cells:,} cells, {layout.codec}",
            "made with": f"cellcube {run['environment']['cellcube']}, Python {run['environment']['python']}",
            "code": f"{run['code'].get('file') or 'interactive'}, {commit}",
            "spec": attributes["spec_digest"][:16],
            "catalog": f"{self.root}/{CATALOG}",
        }
        lines = [f"{name:<12} {value}" for name, value in rows.items()]
        for reason, count in self.reasons.items():
            lines.append(f"{'':<12} {count:>6,}  {reason}")
        return "\n".join(lines)

    def outcome_table(self) -> str:
        """Cells by FOV, status and reason, and labels that no table asked for, as text."""
        counted = self.decided.fillna({"reason": ""}).groupby(["fov_id", "status", "reason"], sort=False).size()
        lines = [f"{'FOV':<24} {'cells':>7}  {'status':<8} reason"]
        for key, count in zip(counted.index.to_list(), counted, strict=True):
            lines.append(f"{key[0]:<24} {count:>7,}  {key[1]:<8} {key[2]}")
        ignored = self.fovs[self.fovs["not_requested"].fillna(0) > 0]
        for fov, count in zip(ignored["fov_id"], ignored["not_requested"], strict=True):
            lines.append(f"{fov:<24} {count:>7,}  {'-':<8} in the label image, and no table asked for them")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def info(root: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> DatasetInfo:
    """Everything about a dataset that fits on one screen.

    Parameters
    ----------
    root : path or URL
    storage_options : mapping, optional

    Raises
    ------
    cellcube.errors.DatasetNotFoundError
        Where there is no dataset.
    """
    location = Location.of(root, storage_options)
    state = existing_state(location)
    outcomes = read_outcomes(location, state.version)
    lost = outcomes[outcomes["status"] != "kept"]
    reasons = (lost["status"] + ": " + lost["reason"]).value_counts().head(8)
    sizes = location.sizes()
    return DatasetInfo(
        root=location.url,
        state=state,
        outcomes={str(name): int(count) for name, count in outcomes["status"].value_counts().items()},
        reasons={str(name): int(count) for name, count in reasons.items()},
        objects=len(sizes),
        bytes=sum(sizes.values()),
        run=read_run(location / "runs", state.version),
        decided=outcomes,
        fovs=read_fovs(location, state.version),
    )
