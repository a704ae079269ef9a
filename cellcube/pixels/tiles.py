"""Which tiles of an image some boxes need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellcube.pixels.select import Box

# Above this share of the tiles, one reading of everything is cheaper than many of parts.
_MOST = 0.5


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box around all."""
    z, y, x = ((min(box.start[axis] for box in boxes), max(box.stop[axis] for box in boxes)) for axis in range(3))
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))


def needed_parts(boxes: Sequence[Box], tile: tuple[int, int] | None) -> list[Box]:
    """Disjoint parts of an image that hold all boxes, so that tiles that no box touches are left out.

    Parameters
    ----------
    boxes : sequence of Box
        At least one.
    tile : tuple of int or None
        Size (y, x) of a tile in voxels, counted from the image's first voxel; None where the image has none.

    Returns
    -------
    list of Box
        Runs of tiles along x, cut to the box around all; that box alone where most tiles are needed. Each has all the
        planes that any box needs.
    """
    region = around(boxes)
    if tile is None:
        return [region]
    (z0, y0, x0), (z1, y1, x1) = region.start, region.stop
    height, width = tile
    first = (y0 // height, x0 // width)
    touched = np.zeros((-(-y1 // height) - first[0], -(-x1 // width) - first[1]), bool)
    for box in boxes:
        rows = slice(box.start[1] // height - first[0], -(-box.stop[1] // height) - first[0])
        columns = slice(box.start[2] // width - first[1], -(-box.stop[2] // width) - first[1])
        touched[rows, columns] = True
    if touched.mean() > _MOST:
        return [region]
    parts = []
    for number, row in enumerate(touched, start=first[0]):
        edges = np.flatnonzero(np.diff(np.r_[False, row, False])) + first[1]
        for start, stop in edges.reshape(-1, 2).tolist():
            parts.append(
                Box(
                    (z0, max(number * height, y0), max(start * width, x0)),
                    (z1, min((number + 1) * height, y1), min(stop * width, x1)),
                )
            )
    return parts
