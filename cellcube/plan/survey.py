"""A first look at a field of view: its labels, the sizes of its cells, the counts of its intensities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cellcube.errors import ImageError
from cellcube.images.fov import Fov
from cellcube.pixels import Box, Correction, PixelCounts, box_of_labels, extent_along, major_axis_angle, merged
from cellcube.plan.jobs import FovTask
from cellcube.plan.labels import FOV_ERRORS, FovError
from cellcube.plan.lighting import Lighting, correction_of
from cellcube.spec import CubeSpec

Pixels = np.ndarray[Any, Any]

# Rows that are counted at once: a whole field would be copied into wide integers.
_ROWS = 256


@dataclass(frozen=True)
class Wanted:
    """What a survey is to find out.

    Parameters
    ----------
    labels, sizes : bool
        All labels; the size of each cell.
    channels : tuple of str
        Whose intensities are counted.
    """

    labels: bool = False
    sizes: bool = False
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What a first look at one field of view found.

    Parameters
    ----------
    labels : list of int
        All labels, ascending.
    sizes : ndarray, shape (n, 3)
        Size (z, y, x) of each cell that is asked for and there, in voxels of the crop.
    counts : dict
        Of the intensities of the whole field, by channel.
    """

    labels: list[int] = field(default_factory=list)
    sizes: Pixels = field(default_factory=lambda: np.empty((0, 3)))
    counts: Mapping[str, PixelCounts] = field(default_factory=dict)


def survey(
    item: tuple[FovTask, Wanted], spec: CubeSpec, lights: Mapping[str, Lighting] | None = None
) -> Survey | FovError:
    """Look at a field of view; or tell why it cannot be read.

    Parameters
    ----------
    item : tuple
        The field, and what is wanted of it.
    spec : CubeSpec
    lights : mapping, optional
        As from `lightings`.
    """
    task, wanted = item
    pixels = bool(wanted.channels) or (wanted.sizes and spec.interpolates)
    has_labels = task.source.labels is not None
    try:
        with Fov(task.source, spec.reader, pixels=pixels, labels=has_labels and (wanted.labels or wanted.sizes)) as fov:
            labels = fov.read_labels() if fov.has_labels else None
            boxes = box_of_labels(labels) if labels is not None else {}
            return Survey(
                sorted(boxes),
                _sizes(task, fov, labels, boxes, spec) if wanted.sizes else np.empty((0, 3)),
                {
                    name: count_field(fov, name, (lights or {}).get(name))
                    for name in wanted.channels
                    if name in fov.channels
                },
            )
    except FOV_ERRORS as error:
        return error


def count_field(fov: Fov, channel: str, light: Lighting | None) -> PixelCounts:
    """The intensities of a channel over a whole field, after illumination correction.

    Raises
    ------
    ImageError
        Where the field cannot be read or holds pixels that are not finite.
    """
    depth, height, width = fov.shape
    volume = fov.read(fov.channels.index(channel), (slice(0, depth), slice(0, height), slice(0, width)))
    return count_volume(volume, correction_of(light, fov.shape), (0, 0))


def count_volume(volume: Pixels, correction: Correction | None, start: tuple[int, int]) -> PixelCounts:
    """The intensities of a volume (z, y, x) whose first row and column in the field are `start`."""
    parts = []
    for plane in range(volume.shape[0]):
        for row in range(0, volume.shape[1], _ROWS):
            block = volume[plane : plane + 1, row : row + _ROWS]
            if correction is not None:
                block = correction.apply(block, (start[0] + row, start[1]))
            parts.append(PixelCounts.of(block))
    try:
        return merged(parts)
    except ValueError as error:
        raise ImageError(f"The intensities cannot be counted: {error}.") from error


def _sizes(task: FovTask, fov: Fov, labels: Pixels | None, boxes: Mapping[int, Box], spec: CubeSpec) -> Pixels:
    if labels is None:
        table = task.cells
        z = (table["z1"] - table["z0"]).to_numpy() if "z0" in table else np.full(len(table), fov.shape[0] or 1)
        sizes = np.stack([z, table["y1"] - table["y0"], table["x1"] - table["x0"]], axis=1).astype(float)
        return sizes * _factors(fov, spec)
    wanted = task.cells["label"].tolist() if "label" in task.cells else list(boxes)
    found = []
    for label in wanted:
        box = boxes.get(int(label))
        if box is None:
            continue
        if spec.align == "none":
            found.append(np.array(box.size) * _factors(fov, spec))
            continue
        inside = labels[box.slices] == label
        angle = major_axis_angle(inside, _plane_spacing(fov))
        voxel_size = _target(fov, spec)
        found.append(np.array(extent_along(inside, box.start, angle, fov.voxel_size, voxel_size)[1]))
    return np.array(found, float).reshape(-1, 3)


def _plane_spacing(fov: Fov) -> tuple[float, float]:
    _, y, x = fov.voxel_size
    return (1.0, 1.0) if math.isnan(y) or math.isnan(x) else (y, x)


def _target(fov: Fov, spec: CubeSpec) -> tuple[float | None, float, float] | None:
    if spec.voxel_size is None:
        return None
    z, y, x = spec.voxel_size
    return (None if fov.shape[0] == 1 else z, y, x)


def _factors(fov: Fov, spec: CubeSpec) -> Pixels:
    """Crop voxels in one FOV voxel, along each axis."""
    target = _target(fov, spec)
    if target is None:
        return np.ones(3)
    pairs = zip(fov.voxel_size, target, strict=True)
    return np.array([1.0 if wanted is None or math.isnan(own) else own / wanted for own, wanted in pairs])
