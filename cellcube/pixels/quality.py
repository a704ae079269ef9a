"""How well a cell can be measured: its pieces, its neighbours, its background, its focus."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

# Voxels that are worked on at once, so that they and their differences stay in a core's cache.
_BATCH = 1 << 16
# From this many values on, counting those of 16 bits is faster than sorting them.
_COUNTED = 1 << 14


def moments_of(values: Pixels, inside: Pixels | None, count: int) -> tuple[list[float], list[float], list[float]]:
    """Sum, maximum and population standard deviation of each channel within a label.

    Parameters
    ----------
    values : ndarray of numbers, shape (c, z, y, x)
    inside : ndarray of bool, shape (z, y, x), optional
        The label's voxels; None means all.
    count : int
        How many these are.
    """
    flat = values.reshape(len(values), -1)
    if inside is not None:
        flat = flat.compress(inside.reshape(-1), axis=1)
    exact = flat.astype(np.float64)
    totals = np.add.reduce(exact, axis=1)
    exact -= (totals / count)[:, None]
    spreads = np.sqrt(np.einsum("ij,ij->i", exact, exact) / count)
    return totals.tolist(), np.maximum.reduce(flat, axis=1).tolist(), spreads.tolist()


def counted_moments(values: Pixels, inside: Pixels | None, count: int) -> tuple[list[float], list[float], list[float]]:
    """`moments_of` unsigned integers of up to 16 bits: faster, as zeros do not change their sums, which are exact."""
    channels = len(values)
    totals, squares, highest = [0] * channels, [0] * channels, [0] * channels
    for part in _batches(values):
        within = np.ascontiguousarray(values[:, part])
        if inside is not None:
            # Of the same type and shape, so that NumPy multiplies without conversion and row by row.
            kept = inside[part].astype(values.dtype).reshape(-1)
            within = (within.reshape(channels, -1) * kept).reshape(within.shape)
        exact = within.astype(np.float64)
        sums = np.add.reduce(exact.reshape(channels, -1), axis=1).tolist()
        products = np.add.reduce(np.vecdot(exact, exact).reshape(channels, -1), axis=1).tolist()
        tops = np.maximum.reduce(within.reshape(channels, -1), axis=1).tolist()
        for channel in range(channels):
            totals[channel] += int(sums[channel])
            squares[channel] += int(products[channel])
            highest[channel] = max(highest[channel], tops[channel])
    # Python's integers do not overflow.
    spreads = [math.sqrt(count * square - total**2) / count for total, square in zip(totals, squares, strict=True)]
    return [float(total) for total in totals], [float(top) for top in highest], spreads


def _batches(values: Pixels) -> Iterator[slice]:
    channels, planes, height, width = values.shape
    step = max(1, _BATCH // (channels * height * width))
    return (slice(first, first + step) for first in range(0, planes, step))


def focus_of(values: Pixels) -> list[float]:
    """Normalized Brenner gradient of each channel: how sharp it is, whatever its offset and gain.

    The mean squared difference of voxels two apart, along y and along x, over twice the variance of all voxels. This
    is one less the autocorrelation at lag 2: about 1 for white noise, less the more an image is blurred.

    Parameters
    ----------
    values : ndarray of numbers, shape (c, z, y, x)
        Of integers of up to 16 bits the result is right to six digits: differences are taken in float32.

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
    dtype = np.float32 if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 else np.float64
    # Sums of a plane of up to 2**16 voxels of 16 bits fit in 32.
    summed = np.uint32 if values.dtype in (np.uint8, np.uint16) and height * width <= 1 << 16 else np.float64
    sums = np.add.reduce(values, axis=(2, 3), dtype=summed)
    mean = (np.add.reduce(sums, axis=1, dtype=np.float64) / count).astype(dtype)[:, None, None, None]
    scatter, gradient = [0.0] * channels, [0.0] * channels
    # Of each axis, so that the mean of their mean squares is a weighted sum of squares.
    axes = (height > 2) + (width > 2)
    along_y, along_x = (axes * planes * max(height - 2, 1) * width), (axes * planes * height * max(width - 2, 1))
    for batch in _batches(values):
        part: Pixels = values[:, batch].astype(dtype, order="C")
        if height > 2:
            # Rows of a plane in one, which is faster.
            rows = part.reshape(channels, part.shape[1], height * width)
            differences = rows[..., 2 * width :] - rows[..., : -2 * width]
            _add_squares(gradient, differences.reshape(channels, part.shape[1], height - 2, width), along_y)
        if width > 2:
            # Along all rows at once, which is faster; where a row meets the next is left out.
            differences = np.empty_like(part)
            np.subtract(part.reshape(-1)[2:], part.reshape(-1)[:-2], out=differences.reshape(-1)[:-2])
            _add_squares(gradient, differences[..., :-2], along_x)
        part -= mean
        _add_squares(scatter, part, count)
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
    if values.dtype in (np.uint8, np.uint16):
        if count >= _COUNTED:
            sums = (np.cumsum(np.bincount(row)) for row in values)
            middle = [np.searchsorted(below, (low, high), side="right").tolist() for below in sums]
        else:
            # A radix sort, several times faster than a partition.
            middle = np.sort(values, axis=1, kind="stable")[:, low : high + 1].tolist()
    else:
        middle = np.partition(values, (low, high), axis=1)[:, low : high + 1].tolist()
    # Python's integers: those of 64 bits do not overflow.
    return [(row[0] + row[-1]) / 2 for row in middle]


def fragments_of(inside: Pixels, stacked: bool = False) -> int:
    """Number of connected pieces of a label; voxels that share a face, an edge or a corner are connected.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
    stacked : bool
        Whether the label is known to be one piece in each plane where it has voxels.
    """
    from scipy import ndimage

    # Most cells are one piece of a simple shape, which is told faster than pieces are found.
    if stacked and bool((inside[1:] & inside[:-1]).any(axis=(1, 2)).all()):
        return 1
    inside = inside[0] if len(inside) == 1 else inside
    return int(ndimage.label(inside, _every_neighbour(inside.ndim))[1])


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
