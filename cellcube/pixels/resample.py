"""Crops that are scaled, rotated or mirrored: where they lie, and how their pixels are interpolated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cellcube.errors import CellError
from cellcube.pixels.geometry import Floats, Geometry, Vector, scale_between
from cellcube.pixels.select import Dropped, Edge, Flags, Pixels, Slices, Triple, overreach

# In voxels: a position this close to the image's border is on it.
TOLERANCE = 1e-6
# Spline coefficients are found by a recursive filter whose memory fades by 0.43 a voxel at order 5, so that 12 voxels
# leave 4e-5; scipy extends the image by as many at its border.
_SPLINE_MARGIN = 12
_TRUNCATE = 4.0
_NOTHING: Slices = (slice(0, 0), slice(0, 0), slice(0, 0))


def resampled_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of interpolated pixels: float32 where it holds all values of `dtype`, float64 otherwise."""
    small = dtype.kind == "b" or dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype("float32" if small else "float64")


@dataclass(frozen=True)
class Sampling:
    """Where a crop that is scaled, rotated or mirrored lies in its field of view.

    Meets `cellcube.pixels.select.Placement`.

    Parameters
    ----------
    frame : Geometry
        The map from the crop to the field of view.
    shape, image_shape : tuple of int
        Sizes (z, y, x) of the crop and of the image.
    source : tuple of slice
        The FOV voxels that are needed, with the margin that anti-aliasing and interpolation want.
    target : tuple of slice
        The smallest box of crop voxels that holds all whose centres are inside the image.
    leaves : tuple of float
        FOV voxels (z, y, x) by which the crop's outer corners are outside the image.
    shift : tuple of float
        FOV voxels (z, y, x) by which the crop was moved to stay inside the image.
    oversize : bool
        Whether the cell is larger than the crop, so that it is cut.
    padded_fraction : float
        Share of the crop's voxels whose centres are outside the image.
    order : int
        Of the spline that interpolates intensities, 0 to 5.
    """

    frame: Geometry
    shape: Triple
    image_shape: Triple
    source: Slices
    target: Slices
    leaves: Vector = (0.0, 0.0, 0.0)
    shift: Vector = (0.0, 0.0, 0.0)
    oversize: bool = False
    padded_fraction: float = 0.0
    order: int = 1

    @property
    def shifted(self) -> bool:
        """Whether the crop was moved to stay inside the image."""
        return any(self.shift)

    @property
    def is_whole(self) -> bool:
        """Whether the centres of all of the crop's voxels are inside the image."""
        return self.padded_fraction == 0

    def beyond(self) -> str:
        """How far the crop's outer corners are outside the image; empty where they are not.

        The outer corners can be outside where no voxel's centre is, so that nothing is padded.
        """
        return overreach(self.leaves)

    def geometry(self, fov_voxel_size: Vector | None = None) -> Geometry:
        """The map from the crop to the field of view; the voxel size is the one it was placed with."""
        return self.frame

    def inside_image(self) -> Flags | None:
        """Which voxels' centres are inside the image, in the crop's shape; None where all are."""
        if self.is_whole:
            return None
        planes, plane = _inside(self.frame, self.shape, self.image_shape)
        found: Flags = planes[:, None, None] & plane
        return found

    def valid(self) -> Flags | None:
        """As `inside_image`, but None also where these voxels are all of `target`."""
        if self.is_whole:
            return None
        _, plane = _inside(self.frame, self.shape, self.image_shape)
        return None if plane[self.target[1:]].all() else self.inside_image()

    def holds(self, points: npt.NDArray[Any]) -> Flags:
        """Whether FOV positions, shape (n, 3) in voxels, are inside the crop's extent."""
        # A point on the border between two crops must not fall out of both by rounding.
        places = self.frame.to_crop(points) + 0.5 + 1e-9
        return np.asarray(((places >= 0) & (places < self.shape)).all(axis=-1))

    def pixels(self, volume: Pixels, offset: Triple = (0, 0, 0), out: Pixels | None = None) -> Pixels:
        """The crop of one channel, interpolated; voxels outside the image are 0.

        At the image's border the outermost voxels go on. Where an axis is reduced, a Gaussian takes away what the
        crop's voxels cannot show. A pixel that is not finite spreads as far as these filters reach.

        Parameters
        ----------
        volume : ndarray, shape (z, y, x)
            A part of the image that holds at least `source`.
        offset : tuple of int
            FOV voxel (z, y, x) of the first voxel of `volume`.
        out : ndarray, shape of the crop, optional
            Where to put the pixels.

        Returns
        -------
        ndarray, shape of the crop
            In `resampled_dtype`, or `out`.
        """
        dtype = resampled_dtype(volume.dtype)
        exact = self.order == 0 or _on_grid(self.frame)
        found = self._nearest(volume, offset) if exact else self._interpolated(volume, offset, dtype)
        return self._put(found, np.empty(self.shape, dtype) if out is None else out)

    def labels(self, volume: Pixels, offset: Triple = (0, 0, 0)) -> Pixels:
        """The crop of a label image, in its dtype: the nearest voxels, 0 outside the image."""
        return self._put(self._nearest(volume, offset), np.empty(self.shape, volume.dtype))

    def _put(self, found: Pixels, out: Pixels) -> Pixels:
        if not self.is_whole:
            out[...] = 0
        out[self.target] = found
        valid = self.valid()
        if valid is not None:
            out[~valid] = 0
        return out

    def _nearest(self, volume: Pixels, offset: Triple) -> Pixels:
        z, y, x = (
            # Halves go up, and those that rounding made a little smaller too.
            np.clip(np.floor(place + (0.5 + TOLERANCE)), 0, size - 1).astype(np.intp) - first
            for place, size, first in zip(_places(self.frame, self.target), self.image_shape, offset, strict=True)
        )
        found: Pixels = volume[z[:, None, None], y, x]
        return found

    def _interpolated(self, volume: Pixels, offset: Triple, dtype: np.dtype[Any]) -> Pixels:
        from scipy import ndimage

        z, y, x = (
            slice(part.start - first, part.stop - first) for part, first in zip(self.source, offset, strict=True)
        )
        size = tuple(part.stop - part.start for part in self.target)
        if 0 in size:
            return np.zeros(size, dtype)
        part = volume[z, y, x].astype(dtype)
        sigma = [_sigma(factor) for factor in _factors(self.frame)]
        if any(sigma):
            part = ndimage.gaussian_filter(part, sigma, mode="nearest", truncate=_TRUNCATE)
        linear = self.frame.linear
        start = self.frame.to_fov([part.start for part in self.target]) - [part.start for part in self.source]
        found = np.empty(size, dtype)
        if _keeps_planes(self.frame):
            # Planes of the image are taken as they are, so each is a problem in two dimensions.
            matrix = _short(linear[1:, 1:])
            for plane, image in zip(found, part[round(start[0]) :], strict=False):
                ndimage.affine_transform(image, matrix, start[1:], output=plane, order=self.order, mode="nearest")
        else:
            ndimage.affine_transform(part, _short(linear), start, output=found, order=self.order, mode="nearest")
        return found


def place_sampling(
    centre: Vector,
    extent: Vector | None,
    shape: Triple,
    image_shape: Triple,
    fov_voxel_size: Vector,
    voxel_size: tuple[float | None, float, float] | None = None,
    rotation: float = 0.0,
    flip_y: bool = False,
    flip_x: bool = False,
    edge: Edge = "pad",
    oversize: Literal["crop", "drop", "shrink"] = "crop",
    order: int = 1,
) -> Sampling:
    """The crop of `shape` whose centre is at a point, scaled, rotated and mirrored.

    Along z, where it is not scaled, the crop's planes are planes of the image; so are its rows and columns where
    they are neither scaled nor rotated. Its centre then is at most half a voxel from the point, on the side that
    `place_window` (for an extent) and `window_at` (for a point) choose.

    Parameters
    ----------
    centre : tuple of float
        FOV position (z, y, x) in voxels of the middle of the crop.
    extent : tuple of float, optional
        Size (z, y, x) of the cell along the crop's axes, in voxels of `voxel_size`. None for a point.
    shape, image_shape : tuple of int
        Sizes (z, y, x) of the crop and of the image.
    fov_voxel_size : tuple of float
        (z, y, x) in µm, NaN where unknown.
    voxel_size : tuple of float, optional
        Of the crop, in µm. None, for all or along z, keeps that of the FOV; so does z of an image of one plane.
    rotation, flip_y, flip_x
        As in `Geometry`.
    edge : {"pad", "drop", "shift", "flag"}
        What becomes of a crop whose outer corners are beyond the image; ``"flag"`` pads. ``"shift"`` moves the box
        around the corners into the image, and centres it along an axis that cannot hold it.
    oversize : {"crop", "drop", "shrink"}
        What becomes of a cell larger than `shape`. ``"shrink"`` makes the voxels larger by one factor along all axes,
        until the cell fits. Neither an image of one plane nor a crop of one plane is scaled along z.
    order : int
        Of the spline that interpolates intensities, 0 to 5.

    Raises
    ------
    Dropped
        Where `edge` or `oversize` says so.
    cellcube.errors.CellError
        Where the centre is not inside the image.
    cellcube.errors.VoxelSizeError
        Where `voxel_size` needs a voxel size of the FOV that is unknown.
    """
    if any(not -0.5 <= point <= size - 0.5 for point, size in zip(centre, image_shape, strict=True)):
        raise CellError(f"The centre {centre} is not inside the image of shape (z, y, x) {image_shape}.")
    scale = scale_between(fov_voxel_size, voxel_size, image_shape[0])
    deep = image_shape[0] > 1 and shape[0] > 1
    cut = False
    if extent is not None:
        # In an image of one plane every cell has one plane.
        size = (extent[0] if image_shape[0] > 1 else 1.0, extent[1], extent[2])
        factors = [length / most for length, most in zip(size, shape, strict=True)]
        # A crop of one plane is meant to be one plane of the cell.
        first = 0 if shape[0] > 1 else 1
        if max(factors[first:]) > 1 + TOLERANCE and oversize == "drop":
            lengths = ", ".join(f"{length:g}" for length in size)
            raise Dropped(f"oversize: the cell's box ({lengths}) is larger than the crop {shape}")
        factor = max(factors if deep else factors[1:]) if oversize == "shrink" else 1.0
        if factor > 1 + TOLERANCE:
            scale = (scale[0] * factor if deep else scale[0], scale[1] * factor, scale[2] * factor)
            factors = [each / factor if deep or axis else each for axis, each in enumerate(factors)]
        cut = max(factors[first:]) > 1 + TOLERANCE
    z, y, x = (size * each for size, each in zip(fov_voxel_size, scale, strict=True))
    frame = Geometry((0.0, 0.0, 0.0), scale, rotation, flip_y, flip_x, (z, y, x))
    origin = np.asarray(centre, np.float64) - frame.linear @ ((np.asarray(shape) - 1) / 2)
    # What is not scaled stays on the image's own voxels: half a voxel of interpolation would blur every second cell.
    unscaled = [scale[0] == 1, *(set(np.abs(frame.linear[1:, 1:]).flat) <= {0.0, 1.0},) * 2]
    origin = np.where(unscaled, np.floor(origin + 0.5) if extent is None else np.ceil(origin - 0.5), origin)
    frame = _at(frame, origin)
    flat = image_shape[0] == 1 and shape[0] == 1
    leaves = _leaves(frame, shape, image_shape, flat)
    shift = (0.0, 0.0, 0.0)
    if edge == "drop" and any(leaves):
        raise Dropped(f"edge: {overreach(leaves)}")
    if edge == "shift" and any(leaves):
        moved = origin + _way_inside(frame, shape, image_shape, leaves, unscaled)
        z, y, x = (float(each) for each in moved - origin)
        frame, shift = _at(frame, moved), (z, y, x)
        leaves = _leaves(frame, shape, image_shape, flat)
    target: Slices = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    padded = 0.0
    if any(leaves):
        planes, plane = _inside(frame, shape, image_shape)
        target = (_span(planes), _span(np.asarray(plane.any(axis=1))), _span(np.asarray(plane.any(axis=0))))
        padded = 1.0 - int(np.count_nonzero(planes)) * int(np.count_nonzero(plane)) / math.prod(shape)
        if padded == 1:
            target = _NOTHING
    source = _source(frame, target, image_shape, order)
    return Sampling(frame, shape, image_shape, source, target, leaves, shift, cut, padded, order)


def _at(frame: Geometry, origin: Floats) -> Geometry:
    z, y, x = (float(first) for first in origin)
    return Geometry((z, y, x), frame.scale, frame.rotation, frame.flip_y, frame.flip_x, frame.voxel_size)


def _leaves(frame: Geometry, shape: Triple, image_shape: Triple, flat: bool) -> Vector:
    """FOV voxels (z, y, x) by which the outer corners are outside the image."""
    low, high = frame.outline(shape)
    leaves = np.maximum(-0.5 - low, high - (np.asarray(image_shape) - 0.5))
    z, y, x = (float(leaf) if leaf > TOLERANCE else 0.0 for leaf in leaves)
    return (0.0 if flat else z), y, x


def _way_inside(
    frame: Geometry, shape: Triple, image_shape: Triple, leaves: Vector, unscaled: Sequence[bool]
) -> Floats:
    """By how much the crop must move (z, y, x) so that its outer corners are inside the image."""
    way = np.zeros(3)
    for axis, (low, high) in enumerate(zip(*frame.outline(shape), strict=True)):
        first, last = -0.5, image_shape[axis] - 0.5
        if not leaves[axis]:
            continue
        if high - low <= last - first + TOLERANCE:
            way[axis] = first - low if low < first else last - high
        else:
            way[axis] = (first + last - low - high) / 2
            if unscaled[axis]:
                way[axis] = math.ceil(way[axis])
    return way


def _places(frame: Geometry, part: Slices) -> tuple[Floats, Floats, Floats]:
    """FOV positions of a part of a crop: z, shape (z,), and y and x, each shape (y, x)."""
    linear = frame.linear
    z, y, x = (np.arange(each.start, each.stop, dtype=np.float64) for each in part)
    rows, columns = y[:, None], x[None, :]
    return (
        frame.origin[0] + linear[0, 0] * z,
        frame.origin[1] + linear[1, 1] * rows + linear[1, 2] * columns,
        frame.origin[2] + linear[2, 1] * rows + linear[2, 2] * columns,
    )


def _inside(frame: Geometry, shape: Triple, image_shape: Triple) -> tuple[Flags, Flags]:
    """Which planes, shape (z,), and which voxels of each, shape (y, x), have their centres inside the image."""
    places = _places(frame, (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])))
    # A position between two voxels belongs to the second, so the far border of the image is outside.
    nearest = [np.floor(place + 0.5 + TOLERANCE) for place in places]
    z, y, x = ((place >= 0) & (place < size) for place, size in zip(nearest, image_shape, strict=True))
    return z, y & x


def _span(flags: Flags) -> slice:
    found = np.flatnonzero(flags)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _source(frame: Geometry, target: Slices, image_shape: Triple, order: int) -> Slices:
    if target == _NOTHING:
        return _NOTHING
    low, high = frame.bounds([part.start for part in target], [part.stop - 1 for part in target])
    margins = [0, 0, 0]
    if order > 0 and not _on_grid(frame):
        spline = 1 if order == 1 else _SPLINE_MARGIN
        margins = [spline + int(_TRUNCATE * _sigma(factor) + 0.5) for factor in _factors(frame)]
        if _keeps_planes(frame):
            margins[0] = 0
    z, y, x = (
        slice(max(0, math.floor(first + 1e-9) - margin), min(size, math.ceil(last - 1e-9) + 1 + margin))
        for first, last, margin, size in zip(low, high, margins, image_shape, strict=True)
    )
    return z, y, x


def _factors(frame: Geometry) -> list[float]:
    """How many FOV voxels a crop voxel spans along each FOV axis."""
    return [float(each) for each in np.sqrt(np.square(frame.linear).sum(axis=1))]


def _sigma(factor: float) -> float:
    """Of the Gaussian before an axis is reduced: the rule of ``skimage.transform.resize``."""
    return (factor - 1) / 2 if factor > 1 + TOLERANCE else 0.0


def _keeps_planes(frame: Geometry) -> bool:
    return frame.scale[0] == 1 and float(frame.origin[0]).is_integer()


def _on_grid(frame: Geometry) -> bool:
    """Whether the crop's voxels are voxels of the image, in whatever order."""
    return set(np.abs(frame.linear).flat) <= {0.0, 1.0} and all(float(first).is_integer() for first in frame.origin)


def _short(matrix: Floats) -> Floats | Sequence[float]:
    """The diagonal alone, where there is nothing else: scipy then interpolates each axis by itself."""
    diagonal = np.diag(matrix)
    return diagonal.copy() if np.array_equal(matrix, np.diag(diagonal)) else matrix
