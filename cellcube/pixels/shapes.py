"""Where the labels of an image lie, and how they are formed, found for all of them at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellcube.pixels.geometry import Vector
from cellcube.pixels.select import Box, Triple

Pixels = npt.NDArray[Any]


class LabelShape(NamedTuple):
    """Where a label lies, and how it is formed.

    Attributes
    ----------
    box : Box
        The smallest that holds the label, in FOV voxels.
    voxels : int
        How many there are.
    centre : tuple of float
        Mean (z, y, x) of the voxels, in FOV voxels.
    stacked : bool
        Whether in each plane its voxels are one run along x in each row from the first to the last, next to that of
        the row before: then they are one piece there.
    """

    box: Box
    voxels: int
    centre: Vector
    stacked: bool


def shapes_of_labels(labels: Pixels, offset: Triple = (0, 0, 0)) -> dict[int, LabelShape]:
    """The shape of every label in a label image, 0 and below being background.

    Labels are taken apart into runs of voxels along x, which are few, and the rest is done with these.

    Parameters
    ----------
    labels : ndarray of integers, shape (z, y, x)
    offset : tuple of int
        FOV voxel (z, y, x) of the first voxel of `labels`.

    Returns
    -------
    dict
        By label, ascending.
    """
    if not labels.size:
        return {}
    planes, height, width = labels.shape
    rows = labels.reshape(planes * height, width)
    begins = np.empty(rows.shape, np.bool_)
    begins[:, 0] = True
    np.not_equal(rows[:, 1:], rows[:, :-1], out=begins[:, 1:])
    places = np.flatnonzero(begins)
    lengths = np.diff(places, append=rows.size)
    row, x = np.divmod(places, width)
    names = rows[row, x]
    chosen = np.flatnonzero(names > 0)
    # Stable, so that the runs of a label stay in the order of its voxels.
    chosen = chosen[np.argsort(names[chosen], kind="stable")]
    if not len(chosen):
        return {}
    names, row, x, lengths = names[chosen], row[chosen], x[chosen], lengths[chosen]
    first = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    z, y = np.divmod(row, height)
    stops = x + lengths
    low = np.stack([np.minimum.reduceat(each, first) for each in (z, y, x)], axis=1)
    high = np.stack([np.maximum.reduceat(each, first) for each in (z + 1, y + 1, stops)], axis=1)
    counts = np.add.reduceat(lengths, first)
    # Twice the sum of the positions of voxels in their box: whole numbers.
    twice = (2 * z * lengths, 2 * y * lengths, (x + stops - 1) * lengths)
    sums = np.stack([np.add.reduceat(each, first) for each in twice], axis=1) - 2 * low * counts[:, None]
    centres = low + np.asarray(offset) + sums / (2 * counts)[:, None]
    follows = (row[1:] == row[:-1] + 1) & (x[1:] <= stops[:-1]) & (stops[1:] >= x[:-1])
    follows |= (z[1:] != z[:-1]) | (names[1:] != names[:-1])
    stacked = np.logical_and.reduceat(np.r_[True, follows], first)
    low += offset
    high += offset
    return {
        name: LabelShape(Box(tuple(start), tuple(stop)), count, tuple(centre), one)
        for name, start, stop, count, centre, one in zip(
            names[first].tolist(),
            low.tolist(),
            high.tolist(),
            counts.tolist(),
            centres.tolist(),
            stacked.tolist(),
            strict=True,
        )
    }
