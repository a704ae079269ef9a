"""What is measured of each cell before it is cut out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import CellError
from cellcube.pixels.quality import (
    counted_moments,
    focus_of,
    fragments_of,
    medians_of,
    moments_of,
    neighbours_of,
)
from cellcube.pixels.select import Box, Triple
from cellcube.pixels.shapes import LabelShape, shapes_of_labels

Pixels = npt.NDArray[Any]

# Columns of `measure_cell`, with what they mean; `{channel}` stands for each channel's name.
MEASURES: dict[str, str] = {
    "area_voxels": "Number of voxels of the label, or of the box where there is no label",
    "area_um2": "Area of the label in µm², for FOVs of one plane; NaN where the voxel size is unknown",
    "volume_um3": "Volume of the label in µm³, for FOVs of several planes; NaN where the voxel size is unknown",
    "centroid_z": "Mean z of the label's voxels, in FOV voxels",
    "centroid_y": "Mean y of the label's voxels, in FOV voxels",
    "centroid_x": "Mean x of the label's voxels, in FOV voxels",
    "touches_border": "Whether the label touches the border of the FOV (along z too where it has several planes)",
    "fragments": "Number of connected pieces of the label; 1 where there is no label image",
    "touching_neighbours": "Number of other labels with a voxel next to the label's; NaN where there is no label image",
    "saturated_fraction": "Highest of the channels' saturated fractions; NaN where none is known",
    "focus": "Mean of the channels' focus",
    "intensity_mean_{channel}": "Mean intensity of the channel within the label, before normalization",
    "intensity_max_{channel}": "Highest intensity of the channel within the label, before normalization",
    "intensity_integrated_{channel}": "Sum of the intensities of the channel within the label, before normalization",
    "intensity_std_{channel}": "Population standard deviation of the channel within the label, before normalization",
    "saturated_fraction_{channel}": (
        "Share of the label's voxels at or above the saturation of the channel; NaN where that is unknown"
    ),
    "signal_to_background_{channel}": (
        "Mean of the channel within the label over its median in unlabelled voxels around; NaN where there are none"
    ),
    "focus_{channel}": (
        "Normalized Brenner gradient of the channel in the cell's box: about 1 for noise, less when blurred, 0 if flat"
    ),
}

# Those that need the pixels of every channel.
OF_CHANNELS = ("saturated_fraction", "focus", *(name for name in MEASURES if "{channel}" in name))

# How far the surroundings of a cell reach beyond its box along z (in FOVs of several planes), y and x, in voxels.
BACKGROUND_MARGIN: Triple = (1, 5, 5)

# Boxes of more voxels, over all channels, are measured one channel at a time: float64 takes memory.
_LARGE = 1 << 18


def box_of_labels(labels: Pixels, offset: Triple = (0, 0, 0)) -> dict[int, Box]:
    """The box of every label in a label image, 0 being the background.

    Parameters
    ----------
    labels : ndarray of integers, shape (z, y, x)
    offset : tuple of int
        FOV voxel (z, y, x) of the first voxel of `labels`.

    Returns
    -------
    dict
        Box in FOV voxels by label, ascending.
    """
    return {label: shape.box for label, shape in shapes_of_labels(labels, offset).items()}


def surroundings(box: Box, image_shape: Triple) -> Box:
    """A cell's box grown by `BACKGROUND_MARGIN`, as far as the image reaches.

    Parameters
    ----------
    box : Box
        In FOV voxels.
    image_shape : tuple of int
        Size (z, y, x) of the FOV.
    """
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    planes, height, width = image_shape
    z, y, x = BACKGROUND_MARGIN
    return Box(
        (max(z0 - z, 0), max(y0 - y, 0), max(x0 - x, 0)),
        (min(z1 + z, planes), min(y1 + y, height), min(x1 + x, width)),
    )


def measure_cell(
    pixels: Pixels | None,
    labels: Pixels | None,
    label: int,
    box: Box,
    around: Box,
    image_shape: Triple,
    voxel_size: tuple[float, float, float],
    channels: tuple[str, ...],
    saturation: Sequence[float],
    shape: LabelShape | None = None,
) -> dict[str, Any]:
    """Measure one cell in its field of view.

    Areas, centroids and intensities are those of `skimage.measure.regionprops` and of CellProfiler's
    MeasureObjectIntensity (IntegratedIntensity, StdIntensity), here of uncorrected intensities.

    Parameters
    ----------
    pixels : ndarray, shape (c, z, y, x), optional
        Intensities of `around`. None leaves out what needs them.
    labels : ndarray of integers, shape (z, y, x), optional
        Label image of `around`; 0 and below are background. None measures the whole box.
    label : int
        The cell's label.
    box : Box
        The smallest that holds the cell, in FOV voxels.
    around : Box
        Its `surroundings`, in FOV voxels.
    image_shape : tuple of int
        Size (z, y, x) of the FOV.
    voxel_size : tuple of float
        (z, y, x) in µm, NaN where unknown.
    channels : tuple of str
        Names.
    saturation : sequence of float
        Intensity from which a voxel is saturated, one a channel, NaN where there is none.
    shape : LabelShape, optional
        Of the label, where it is known.

    Returns
    -------
    dict
        By the names of `MEASURES`, without `OF_CHANNELS` where there are no pixels.

    Raises
    ------
    CellError
        Where the label has no voxel in the box.
    """
    near = _within(box, around)
    if labels is None:
        inside: Pixels | None = None
        count = math.prod(box.size)
        z, y, x = (start + (size - 1) / 2 for start, size in zip(box.start, box.size, strict=True))
        centre = z, y, x
        fragments, neighbours = 1, math.nan
    else:
        inside = np.equal(labels[near], label)
        if shape is None:
            shape = shapes_of_labels(inside.view(np.uint8), box.start).get(1)
        if shape is None:
            raise CellError(f"Label {label} has no voxel in the box {box.start} to {box.stop}, given as (z, y, x).")
        count, centre = shape.voxels, shape.centre
        fragments = 1 if shape.stacked and len(inside) == 1 else fragments_of(inside, shape.stacked)
        neighbours = float(_neighbours(labels, inside, count, box, around))

    depth_z, height, width = voxel_size
    several_planes = image_shape[0] > 1
    area = count * height * width
    axes = range(3) if several_planes else (1, 2)
    found = {
        "area_voxels": count,
        "area_um2": math.nan if several_planes else area,
        "volume_um3": area * depth_z if several_planes else math.nan,
        "centroid_z": centre[0],
        "centroid_y": centre[1],
        "centroid_x": centre[2],
        "touches_border": any(box.start[axis] == 0 or box.stop[axis] == image_shape[axis] for axis in axes),
        "fragments": fragments,
        "touching_neighbours": neighbours,
    }
    if pixels is None:
        return found
    if pixels.dtype.kind == "b":
        pixels = pixels.view(np.uint8)
    background = [math.nan] * len(channels) if labels is None else _background(pixels, labels)
    # Infinite intensities give NaN, silently.
    with np.errstate(invalid="ignore", over="ignore"):
        values = _by_channel(pixels[(slice(None), *near)], inside, count, background, saturation)
    shares = [share for share in values[4] if share == share]
    found["saturated_fraction"] = max(shares, default=math.nan)
    found["focus"] = sum(values[6]) / len(channels)
    found.update(zip(_channel_columns(channels), itertools.chain.from_iterable(values), strict=True))
    return found


@lru_cache(maxsize=64)
def _channel_columns(channels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.format(channel=channel) for name in MEASURES if "{channel}" in name for channel in channels)


def _within(box: Box, around: Box) -> tuple[slice, ...]:
    return tuple(
        slice(start - first, stop - first) for start, stop, first in zip(box.start, box.stop, around.start, strict=True)
    )


def _neighbours(labels: Pixels, inside: Pixels, count: int, box: Box, around: Box) -> int:
    start = tuple(max(at - 1, first) for at, first in zip(box.start, around.start, strict=True))
    stop = tuple(min(at + 1, last) for at, last in zip(box.stop, around.stop, strict=True))
    wider = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    near = labels[_within(wider, around)]
    if np.count_nonzero(near) == count:
        return 0
    placed = np.zeros(wider.size, bool)
    placed[_within(box, wider)] = inside
    return neighbours_of(near, placed)


def _background(pixels: Pixels, labels: Pixels) -> list[float]:
    """Median of the unlabelled voxels, one a channel; NaN where there are none."""
    where = np.flatnonzero(labels <= 0)
    if not len(where):
        return [math.nan] * len(pixels)
    found: list[float] = []
    for part in _parts(pixels):
        found += medians_of(pixels[part].reshape(part.stop - part.start, -1).take(where, axis=1))
    return found


def _parts(pixels: Pixels) -> list[slice]:
    """The channels that are measured at once."""
    channels = len(pixels)
    return [slice(0, channels)] if pixels.size <= _LARGE else [slice(k, k + 1) for k in range(channels)]


def _by_channel(
    pixels: Pixels, inside: Pixels | None, count: int, background: Sequence[float], saturation: Sequence[float]
) -> list[tuple[float, ...]]:
    """Measures of the box, by their order in `MEASURES` and then by channel."""
    found: list[tuple[float, ...]] = []
    for part in _parts(pixels):
        box = np.ascontiguousarray(pixels[part])
        moments = counted_moments if box.dtype in (np.uint8, np.uint16) else moments_of
        totals, highest, spreads = moments(box, inside, count)
        means = [total / count for total in totals]
        saturated = [
            limit if limit != limit else _count_from(one, limit, inside) / count if top >= limit else 0.0
            for one, top, limit in zip(box, highest, saturation[part], strict=True)
        ]
        ratios = [mean / level if level else math.nan for mean, level in zip(means, background[part], strict=True)]
        found += zip(means, highest, totals, spreads, saturated, ratios, focus_of(box), strict=True)
    return list(zip(*found, strict=True))


def _count_from(values: Pixels, limit: float, inside: Pixels | None) -> int:
    saturated = values >= np.float64(limit)
    return int(np.count_nonzero(saturated if inside is None else saturated & inside))
