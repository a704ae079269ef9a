"""How well a cell can be measured: its pieces, its neighbours, its background, its focus."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

# Voxels that are worked on at once, so that they and their differences stay in a core's cache.
_BATCH = 1 << 16
# From this many values on, counting those of 16 bits is faster than partitioning them.
_COUNTED = 1 << 14


def focus_of(values: Pixels) -> list[float]:
    """Normalized Brenner gradient of each channel: how sharp it is, whatever its offset and gain.

    The mean squared difference of voxels two apart, along y and along x, over twice the variance of all voxels. This
    is one less the autocorrelation at lag 2: about 1 for white noise, less the more an image is blurred.

    Parameters
    ----------
    values : ndarray of float32 or float64, shape (c, z, y, x)
        Of C order. In float32, which is twice as fast, the result of intensities of up to 16 bits is right to six
        digits.

    Returns
    -------
    list of float
        One a channel; 0 where all voxels are equal. An axis of fewer than 3 voxels is left out; NaN where both are, or
        where a voxel is NaN or infinite.

    References
    ----------
    Gradient: Brenner et al. 1976, J. Histochem. Cytochem. 24:100. Its relation to the autocorrelation: Vollath 1987,
    J. Microsc. 147:279, and 1988, J. Microsc. 151:133.
    """
    channels, planes, height, width = values.shape
    count = planes * height * width
    if height < 3 and width < 3:
        return [math.nan] * channels
    mean = (np.add.reduce(values.reshape(channels, count), axis=1, dtype=np.float64) / count).astype(values.dtype)
    scatter, gradient = [0.0] * channels, [0.0] * channels
    # Of each axis, so that the mean of their mean squares is a weighted sum of squares.
    axes = (height > 2) + (width > 2)
    along_y, along_x = (axes * planes * max(height - 2, 1) * width), (axes * planes * height * max(width - 2, 1))
    step = max(1, _BATCH // (channels * height * width))
    for first in range(0, planes, step):
        part = values[:, first : first + step]
        _add_squares(scatter, part - mean[:, None, None, None], count)
        if height > 2:
            _add_squares(gradient, part[:, :, 2:] - part[:, :, :-2], along_y)
        if width > 2:
            _add_squares(gradient, part[..., 2:] - part[..., :-2], along_x)
    return [slope / (2 * variance) if variance else 0.0 for slope, variance in zip(gradient, scatter, strict=True)]


def _add_squares(sums: list[float], values: Pixels, over: int) -> None:
    # Row by row, as a sum of few terms in float32 loses few digits. Longer ones BLAS would share out to its threads, so
    # that the result would depend on their number.
    rows = np.vecdot(values, values).reshape(len(values), -1)
    for channel, square in enumerate(np.add.reduce(rows, axis=1, dtype=np.float64).tolist()):
        sums[channel] += square / over


def medians_of(values: Pixels) -> list[float]:
    """The median of each row, that of an even number of values being the mean of the middle two.

    Parameters
    ----------
    values : ndarray of numbers, shape (c, n), n > 0

    Returns
    -------
    list of float
        One a row; NaN where a value is NaN.
    """
    if values.dtype.kind == "f":
        of_floats: list[float] = np.median(values.astype(np.float64), axis=1).tolist()
        return of_floats
    count = values.shape[1]
    low, high = (count - 1) // 2, count // 2
    if values.dtype in (np.uint8, np.uint16) and count >= _COUNTED:
        middle = [np.searchsorted(np.cumsum(np.bincount(row)), (low, high), side="right").tolist() for row in values]
    else:
        middle = np.partition(values, (low, high), axis=1)[:, low : high + 1].tolist()
    # Python's integers: those of 64 bits do not overflow.
    return [(row[0] + row[-1]) / 2 for row in middle]


def fragments_of(inside: Pixels) -> int:
    """Number of connected pieces of a label; voxels that share a face, an edge or a corner are connected.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
    """
    from scipy import ndimage

    # Most cells are one piece of a simple shape, which is told faster than pieces are found.
    if all(map(_is_stack, inside)) and bool((inside[1:] & inside[:-1]).any(axis=(1, 2)).all()):
        return 1
    inside = inside[0] if len(inside) == 1 else inside
    return int(ndimage.label(inside, _every_neighbour(inside.ndim))[1])


def _is_stack(inside: Pixels) -> bool:
    """Whether a plane's voxels are one run in each row from the first to the last, each next to that of the row before.

    Those of a plane without a voxel are not.
    """
    filled = np.flatnonzero(inside.any(axis=1))
    if not len(filled):
        return False
    inside = inside[filled[0] : filled[-1] + 1]
    first = inside.argmax(axis=1)
    stop = inside.shape[1] - inside[:, ::-1].argmax(axis=1)
    # Gaps and empty rows would count as voxels.
    if int(np.add.reduce(stop - first)) != np.count_nonzero(inside):
        return False
    return bool((first[1:] <= stop[:-1]).all() and (stop[1:] >= first[:-1]).all())


@cache
def _every_neighbour(axes: int) -> Pixels:
    return np.ones((3,) * axes, bool)


def neighbours_of(labels: Pixels, inside: Pixels) -> int:
    """Number of other labels with a voxel next to a cell's, by a face, an edge or a corner.

    Parameters
    ----------
    labels : ndarray of integers, shape (z, y, x)
        Of the cell's box and of what lies next to it. 0 and below are no labels.
    inside : ndarray of bool, shape (z, y, x)
        The cell's voxels there.
    """
    if np.count_nonzero(labels) == np.count_nonzero(inside):
        return 0
    grown = inside
    for axis, length in enumerate(inside.shape):
        if length > 1:
            ahead = (slice(None),) * axis + (slice(1, None),)
            behind = (slice(None),) * axis + (slice(None, -1),)
            before, grown = grown, grown.copy()
            grown[ahead] |= before[behind]
            grown[behind] |= before[ahead]
    next_to = set(labels.reshape(-1).take(np.flatnonzero(grown ^ inside)).tolist())
    return sum(label > 0 for label in next_to)
