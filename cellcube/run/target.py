"""Where a build writes, and whether it may."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellcube import cube as cubes
from cellcube.cube import CubeState
from cellcube.errors import (
    ArgumentError,
    DatasetAccessError,
    NotADatasetError,
    SpecChangedError,
)
from cellcube.location import Location
from cellcube.spec import CubeSpec

WORK = ".cellcube"

# Below it, a stored plan.
PLAN = "plan"


OURS = {
    "cube.zarr",
    "runs",
    "catalog.yaml",
    "cells.parquet",
    "outcomes.parquet",
    "fovs.parquet",
    "objects.parquet",
    "README.md",
    "ro-crate-metadata.json",
    "croissant.json",
    "gallery",
    "versions",
    "versions.yaml",
    WORK,
}


def find_dataset(location: Location) -> CubeState | None:
    """The committed state of the dataset at a root, None where nothing is there yet.

    Raises
    ------
    NotADatasetError
        Where something else is there.
    DatasetAccessError
        Where the root cannot be looked at.
    """
    try:
        state = cubes.read_state(location / "cube.zarr")
        if state is None:
            found = location.names()
            if location.is_local and location.exists() and not Path(location.url).is_dir():
                raise NotADatasetError("The root is a file, not a folder.", path=location.url)
            others = [name for name in found if name not in OURS and not name.endswith(".partial")]
            if others:
                shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
                raise NotADatasetError(
                    f"The root holds something that is not a cellcube dataset: {shown}.",
                    path=location.url,
                    remedy="Give an empty or a new folder.",
                )
    except PermissionError as error:
        if isinstance(error, DatasetAccessError):
            raise
        raise DatasetAccessError("The root may not be read.", path=location.url) from error
    return state


def choose_spec(
    spec: CubeSpec | str | os.PathLike[str] | None,
    fields: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None,
) -> CubeSpec:
    """The spec of a build, from what `build` takes: a spec, a file, or none, and fields that override it."""
    if spec is None:
        return CubeSpec(**fields)
    if isinstance(spec, str | os.PathLike):
        spec = CubeSpec.from_yaml(spec, storage_options)
    if not isinstance(spec, CubeSpec):
        raise ArgumentError(f"spec must be a CubeSpec or a YAML file, not {type(spec).__name__}.")
    return spec.replace(**fields) if fields else spec


def check_spec(spec: CubeSpec, state: CubeState, location: Location) -> CubeSpec:
    """The spec with the shape that was fitted before; refuses one that would mix other cells into the dataset.

    Raises
    ------
    SpecChangedError
    """
    if spec.shape == "auto":
        spec = spec.replace(shape=state.layout.shape)
    if state.attributes["spec_digest"] == spec.digest:
        return spec
    raise SpecChangedError(
        "The dataset was built with another spec; appending would mix different cells. Use the spec it was built "
        "with, or another root. What differs (dataset -> now):",
        differences=spec.differences(state.attributes["identity"]),
        path=location.url,
    )
