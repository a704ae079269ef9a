"""What a new cube holds, learned from the spec and the first FOV that opens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cellcube.cells import CellTable
from cellcube.cube import Layout
from cellcube.errors import AxesError, ChannelError, MissingDependencyError, SpecError
from cellcube.functions import UserFunction
from cellcube.images.fov import Fov
from cellcube.plan.jobs import FovTask
from cellcube.plan.labels import FOV_ERRORS, FovError
from cellcube.spec import CubeSpec, Normalizer

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
                if spec.keeps_raw:
                    dtype = np.dtype(spec.dtype) if spec.dtype else fov.dtype
                    if dtype.name not in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32"):
                        dtype = np.dtype("float32")
                else:
                    dtype = np.dtype(spec.dtype or "float16")
                types = {name: _coordinate_type(table.frame[name]) for name in table.metadata if is_coordinate(name)}
                check_channels(fov.channels, spec)
                _check_labels(tasks, spec)
                return Layout.of(spec, fov.channels, dtype.name, table.has_labels, types), errors
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
    if isinstance(spec.normalize, dict) and set(spec.normalize) != set(channels):
        raise SpecError(
            f"normalize has channels {', '.join(spec.normalize)}, the FOVs have {', '.join(channels)}.",
            remedy="Give one normalizer for each channel.",
        )


def normalizers(spec: CubeSpec, channels: Sequence[str]) -> tuple[Normalizer, ...] | UserFunction:
    """The normalizer of each channel, or the user's function."""
    if isinstance(spec.normalize, dict):
        return tuple(spec.normalize[name] for name in channels)
    if isinstance(spec.normalize, UserFunction):
        return spec.normalize
    return (spec.normalize,) * len(channels)


def is_coordinate(name: str) -> bool:
    """Whether a metadata column can be a coordinate of the cube: its name is a path in the store."""
    return "/" not in name and "\\" not in name and not name.startswith((".", "__")) and name not in _TAKEN


_TAKEN = {
    "labels",
    "mask",
    "zarr.json",
    *(f"{kind}_{axis}" for kind in ("max", "mean", "sum", "min") for axis in "zyx"),
}


def _coordinate_type(values: pd.Series) -> str:
    return {"b": "bool", "i": "int64", "f": "float64"}.get(values.dtype.kind, "string")
