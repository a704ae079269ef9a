"""What a new cube holds, learned from the spec and the first FOV that opens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cells import CellTable
from cellcube.cube import Layout, cell_coordinates, channel_coordinates
from cellcube.errors import AxesError, ChannelError, MissingDependencyError, SpecError, did_you_mean
from cellcube.images.fov import Fov
from cellcube.plan.jobs import FovTask
from cellcube.plan.labels import FOV_ERRORS, FovError
from cellcube.spec import CubeSpec, Pipeline

# FOVs that are opened to learn whether the table's channels and axes can be right at all.
PROBED = 5


def resolve_layout(
    tasks: Sequence[FovTask], spec: CubeSpec, table: CellTable
) -> tuple[Layout | None, dict[str, FovError]]:
    """What a new cube holds: from the spec, and from the first FOV that opens.

    Returns
    -------
    layout : Layout or None
        None where no FOV opens.
    errors : dict
        Why the FOVs before it did not, by `fov_id`.

    Raises
    ------
    ChannelError, AxesError, MissingDependencyError
        Where it is the call that is wrong, as every FOV that was tried says.
    """
    errors: dict[str, FovError] = {}
    reader = spec.reader
    for number, task in enumerate(tasks):
        try:
            # The label image may be broken alone; it does not decide the layout.
            with Fov(task.source, reader, labels=False) as fov:
                dtypes = {name: _dtype(pipeline, fov.dtype) for name, pipeline in spec.pipelines().items()}
                check_channels(fov.channels, spec)
                groups = {*spec.representations, *(f"mask_{name}" for name in spec.label_images)}
                types = {
                    name: coordinate_type(table.frame[name])
                    for name in table.metadata
                    if is_coordinate(name) and name not in groups
                }
                _check_labels(tasks, spec)
                return _checked(Layout.of(spec, fov.channels, dtypes, table.has_labels, types)), errors
        except FOV_ERRORS as error:
            errors[task.source.fov_id] = error
        if number + 1 == min(PROBED, len(tasks)):
            refuse_wrong_call(list(errors.values()), number + 1)
    return None, errors


def refuse_wrong_call(errors: Sequence[Exception], tried: int) -> None:
    """Raise where no FOV that was tried opens, and most say that it is the call that is wrong, not their file.

    Raises
    ------
    ChannelError, AxesError, MissingDependencyError
    """
    wrong = [error for error in errors if isinstance(error, ChannelError | AxesError | MissingDependencyError)]
    if len(errors) == min(PROBED, tried) and 2 * len(wrong) > len(errors):
        raise wrong[0]


def _check_labels(tasks: Sequence[FovTask], spec: CubeSpec) -> None:
    errors: list[Exception] = []
    for task in tasks[:PROBED]:
        try:
            with Fov(task.source, spec.reader, pixels=False):
                return
        except FOV_ERRORS as error:
            errors.append(error)
    refuse_wrong_call(errors, len(tasks))


def check_channels(channels: Sequence[str], spec: CubeSpec) -> None:
    """Refuse a spec that names other channels than there are.

    Raises
    ------
    SpecError
    """
    for name, pipeline in spec.pipelines().items():
        place = "" if name == "cells" else f"representations.{name}."
        if isinstance(pipeline.normalize, dict) and set(pipeline.normalize) != set(channels):
            raise SpecError(
                f"{place}normalize has channels {', '.join(pipeline.normalize)}, the FOVs have {', '.join(channels)}.",
                remedy="Give one normalizer for each channel.",
            )
        if isinstance(pipeline.mask, dict):
            _known(f"{place}mask", pipeline.mask, channels)
    _known("illumination", spec.illumination, channels)
    if isinstance(spec.flip, str):
        _known("flip", [spec.flip], channels)
    elif spec.flip is not None and not 0 <= spec.flip < len(channels):
        raise SpecError(f"flip: there is no channel {spec.flip}; there are {len(channels)}, from 0.")


def _known(field: str, given: Iterable[str], channels: Sequence[str]) -> None:
    unknown = [name for name in given if name not in channels]
    if unknown:
        raise SpecError(
            f"{field}: there is no channel {unknown[0]!r}; the FOVs have {', '.join(channels)}.",
            remedy=did_you_mean(unknown[0], channels),
        )


def _dtype(pipeline: Pipeline, image: np.dtype[Any]) -> str:
    if not pipeline.keeps_raw:
        return pipeline.dtype or "float16"
    name = np.dtype(pipeline.dtype or image).name
    known = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32")
    return name if name in known else "float32"


def _checked(layout: Layout) -> Layout:
    """A layout whose names do not meet.

    Raises
    ------
    SpecError
    """
    arrays = layout.arrays()
    axes = ("cell", "t", "c", "z", "y", "x")
    taken = {*axes, *cell_coordinates(layout), *channel_coordinates(layout), "labels", *layout.masks}
    projections = {
        projection if name == "cells" else f"{name}_{projection}"
        for name, each in layout.representations.items()
        for projection in each.projections
    }
    for name in sorted(projections & {*taken, "mask", *layout.representations}):
        raise SpecError(
            f"projections: {name!r} is the name of something else in the cube.",
            remedy="Give the function, or the representation that it is of, another name.",
        )
    for name in layout.representations:
        if name != "cells" and (name in taken or name in projections or name == "mask"):
            raise SpecError(f"representations: {name!r} is the name of something else in the cube; choose another.")
    if len(arrays) < sum(1 + len(each.projections) for each in layout.representations.values()) + len(layout.masks):
        raise SpecError("representations: two arrays of the cube would have one name; choose other names.")
    return layout


def is_coordinate(name: str) -> bool:
    """Whether a metadata column can be a coordinate of the cube: its name is a path in the store."""
    return "/" not in name and "\\" not in name and not name.startswith((".", "__")) and name not in _TAKEN


_TAKEN = {
    "labels",
    "mask",
    "zarr.json",
    *(f"{kind}_{axis}" for kind in ("max", "mean", "sum", "min") for axis in ("z", "y", "x", "montage")),
}


def coordinate_type(values: pd.Series) -> str:
    """Type in the cube of a column of a validated table."""
    return {"b": "bool", "i": "int64", "f": "float64"}.get(values.dtype.kind, "string")
