"""How a cell is turned and mirrored so that cells lie alike in their crops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import CellError
from cellcube.pixels.geometry import NAN, Geometry, Vector, scale_between
from cellcube.pixels.select import Flags, Triple

# Relative: below it, a moment is 0 but for rounding.
_NOTHING = 1e-9


def major_axis_angle(inside: Flags, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The rotation that lays a label's longest direction along the crop's x axis.

    It is the direction of the larger eigenvector of the second central moments in y and x, found as the orientation
    of ``skimage.measure.regionprops`` is. Besides, each voxel has the moment of its own area, a twelfth of its side
    squared, so that voxels that are not square do not turn small labels.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
        The label's voxels; all planes count alike.
    spacing : tuple of float
        Voxel size (y, x), in any unit. Where one is not a number, voxels count as square.

    Returns
    -------
    float
        Degrees, above -90 and up to 90, from the FOV's x axis towards +y, as in `Geometry.rotation`. 0 where no
        direction is longer than the others.

    Raises
    ------
    cellcube.errors.CellError
        Where the label has no voxel.
    """
    counts = inside.sum(axis=0)
    total = int(counts.sum())
    if not total:
        raise CellError("The label has no voxel.")
    height, width = _finite(spacing)
    rows, columns = np.nonzero(counts)
    weights = counts[rows, columns] / total
    y, x = rows - weights @ rows, columns - weights @ columns
    moment_y = float(weights @ (y * y) + 1 / 12) * height**2
    moment_x = float(weights @ (x * x) + 1 / 12) * width**2
    mixed = float(weights @ (y * x)) * height * width
    if math.hypot(2 * mixed, moment_x - moment_y) <= _NOTHING * (moment_x + moment_y):
        return 0.0
    if abs(mixed) <= _NOTHING * (moment_x + moment_y):
        return 0.0 if moment_x > moment_y else 90.0
    return math.degrees(math.atan2(2 * mixed, moment_x - moment_y)) / 2


def extent_along(
    inside: Flags,
    box_start: Triple,
    rotation: float = 0.0,
    fov_voxel_size: Vector = NAN,
    voxel_size: tuple[float | None, float, float] | None = None,
    planes: int | None = None,
) -> tuple[Vector, Vector]:
    """The smallest box along a crop's axes that holds all corners of a label's voxels.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
        The label's voxels.
    box_start : tuple of int
        FOV voxel (z, y, x) of the first voxel of `inside`.
    rotation : float
        In degrees, as in `Geometry`.
    fov_voxel_size, voxel_size : tuple of float
        Of the image and of the crop, (z, y, x) in µm, as in `cellcube.pixels.resample.place_sampling`.
    planes : int, optional
        Of the image; z is not scaled where there is one.

    Returns
    -------
    centre : tuple of float
        FOV position (z, y, x) of the middle of the box, in voxels.
    extent : tuple of float
        Size (z, y, x) of the box in voxels of the crop.

    Raises
    ------
    cellcube.errors.CellError
        Where the label has no voxel.
    cellcube.errors.VoxelSizeError
        As `place_sampling`.
    """
    scale = scale_between(fov_voxel_size, voxel_size, planes)
    z_size, y_size, x_size = (size * each for size, each in zip(fov_voxel_size, scale, strict=True))
    frame = Geometry((0.0, 0.0, 0.0), scale, rotation, voxel_size=(z_size, y_size, x_size))
    inverse = frame.inverse
    depth = np.flatnonzero(inside.any(axis=(1, 2)))
    rows, columns = np.nonzero(inside.any(axis=0))
    if not len(depth):
        raise CellError("The label has no voxel.")
    lengthwise = (depth * inverse[0, 0], *(inverse[axis, 1:] @ np.stack([rows, columns]) for axis in (1, 2)))
    low, high = (np.array([end(each) for each in lengthwise]) for end in (np.min, np.max))
    middle = frame.linear @ ((low + high) / 2) + np.asarray(box_start)
    # The corners of a voxel are half a voxel away along each FOV axis.
    sizes = high - low + np.abs(inverse).sum(axis=1)
    return (
        (float(middle[0]), float(middle[1]), float(middle[2])),
        (float(sizes[0]), float(sizes[1]), float(sizes[2])),
    )


def skew_flips(
    values: npt.NDArray[Any], inside: Flags, rotation: float = 0.0, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[bool, bool]:
    """Whether to mirror a crop's axes so that intensities have their longer tail towards larger y and x.

    The tail is told by the third central moment of the positions within the label, weighted by intensity above the
    lowest of the label.

    Parameters
    ----------
    values : ndarray, shape (z, y, x)
        Intensities of one channel.
    inside : ndarray of bool, shape (z, y, x)
        The label's voxels.
    rotation : float
        Of the crop, in degrees, as in `Geometry`.
    spacing : tuple of float
        Voxel size (y, x), in any unit. Where one is not a number, voxels count as square.

    Returns
    -------
    flip_y, flip_x : bool
        False where the moment is 0, and where intensities are not finite.
    """
    planes, rows, columns = np.nonzero(inside)
    weights = values[planes, rows, columns].astype(np.float64)
    if not len(weights) or not np.isfinite(weights).all():
        return False, False
    weights -= weights.min()
    total = weights.sum()
    if total == 0:
        return False, False
    weights /= total
    height, width = _finite(spacing)
    turn = Geometry((0.0, 0.0, 0.0), rotation=rotation).inverse[1:, 1:]
    y, x = (_leans_back(weights, place) for place in turn @ np.stack([rows * height, columns * width]))
    return y, x


def _leans_back(weights: npt.NDArray[np.float64], places: npt.NDArray[np.float64]) -> bool:
    centred = places - weights @ places
    # Where all weight is in one place, what is left of it is rounding.
    centred[np.abs(centred) < _NOTHING * np.abs(places).max()] = 0
    cubes = centred**3
    return bool(weights @ cubes < -_NOTHING * (weights @ np.abs(cubes)))


def _finite(spacing: tuple[float, float]) -> tuple[float, float]:
    return spacing if all(math.isfinite(size) for size in spacing) else (1.0, 1.0)
