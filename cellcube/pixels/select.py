"""Where the crop of a cell lies in its field of view, and what is cut out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cellcube.errors import CellError
from cellcube.pixels.geometry import Geometry, Vector

Triple = tuple[int, int, int]
Slices = tuple[slice, slice, slice]
Pixels = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Edge = Literal["pad", "drop", "shift", "flag"]


class Dropped(Exception):
    """A rule of the spec says that a cell is not to be kept. The text is the reason."""


@dataclass(frozen=True)
class Box:
    """A box of voxels in a field of view: `start` is inside, `stop` is not, each (z, y, x)."""

    start: Triple
    stop: Triple

    @property
    def size(self) -> Triple:
        """Edge lengths (z, y, x) in voxels."""
        z, y, x = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> Slices:
        """The box as (z, y, x) slices."""
        z, y, x = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return z, y, x

    def within(self, other: Box) -> Box:
        """The box in voxels counted from the start of another one."""
        start, stop = (
            tuple(each - first for each, first in zip(ends, other.start, strict=True))
            for ends in (self.start, self.stop)
        )
        return Box(start, stop)  # type: ignore[arg-type]


class Placement(Protocol):
    """Where a crop lies in its field of view, and how its pixels are taken from there.

    A `Window` keeps the voxels of the field, a `cellcube.pixels.resample.Sampling` scales, rotates and mirrors.
    """

    @property
    def shape(self) -> Triple:
        """Size (z, y, x) of the crop."""

    @property
    def source(self) -> Slices:
        """The FOV voxels that must be read, all inside the image."""

    @property
    def target(self) -> Slices:
        """The smallest box of crop voxels that holds all that are inside the image."""

    @property
    def shift(self) -> Vector:
        """FOV voxels (z, y, x) by which ``edge="shift"`` moved the crop."""

    @property
    def shifted(self) -> bool:
        """Whether the crop was moved to stay inside the image."""

    @property
    def oversize(self) -> bool:
        """Whether the cell is larger than the crop, so that it is cut."""

    @property
    def padded_fraction(self) -> float:
        """Share of the crop's voxels whose centres are outside the image."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the crop's voxels are inside the image."""

    def beyond(self) -> str:
        """How far the crop reaches beyond the image, as a part of a sentence; empty where it does not."""

    def geometry(self, fov_voxel_size: Vector) -> Geometry:
        """The map from the crop to the field of view, whose voxel size (z, y, x) is given in µm."""

    def inside_image(self) -> Flags | None:
        """Which voxels are inside the image, in the crop's shape; None where all are."""

    def valid(self) -> Flags | None:
        """As `inside_image`, but None also where these voxels are all of `target`."""

    def pixels(self, volume: Pixels, offset: Triple = (0, 0, 0), out: Pixels | None = None) -> Pixels:
        """The crop of one channel; voxels outside the image are 0.

        Parameters
        ----------
        volume : ndarray, shape (z, y, x)
            A part of the image that holds at least `source`.
        offset : tuple of int
            FOV voxel (z, y, x) of the first voxel of `volume`.
        out : ndarray, shape of the crop, optional
            Where to put the pixels.
        """

    def labels(self, volume: Pixels, offset: Triple = (0, 0, 0)) -> Pixels:
        """The crop of a label image, in its dtype: the nearest voxels, 0 outside the image."""

    def holds(self, points: npt.NDArray[Any]) -> Flags:
        """Whether FOV positions, shape (n, 3) in voxels, are inside the crop's extent."""


@dataclass(frozen=True)
class Window:
    """Where a crop that keeps the voxels of its field of view lies in it.

    Parameters
    ----------
    origin : tuple of int
        FOV voxel (z, y, x) of the crop's first voxel; negative where the crop begins outside the image.
    shape : tuple of int
        Size (z, y, x) of the crop.
    source : tuple of slice
        The part of the crop that is inside the image, in FOV voxels.
    target : tuple of slice
        The same part in crop voxels.
    shift : tuple of float
        FOV voxels (z, y, x) by which the window was moved to stay inside the image.
    oversize : bool
        Whether the cell's box is larger than the crop, so that the cell is cut.
    """

    origin: Triple
    shape: Triple
    source: Slices
    target: Slices
    shift: Vector = (0.0, 0.0, 0.0)
    oversize: bool = False

    @property
    def shifted(self) -> bool:
        """Whether the window was moved to stay inside the image."""
        return any(self.shift)

    @property
    def is_whole(self) -> bool:
        """Whether the whole crop is inside the image."""
        return all(part.stop - part.start == size for part, size in zip(self.target, self.shape, strict=True))

    @property
    def padded_fraction(self) -> float:
        """Share of the crop's voxels that are outside the image."""
        inside: int = math.prod(part.stop - part.start for part in self.target)
        return 1.0 - inside / math.prod(self.shape)

    def beyond(self) -> str:
        """How far the crop reaches beyond the image; empty where it does not."""
        return overreach(
            [max(part.start, size - part.stop) for part, size in zip(self.target, self.shape, strict=True)]
        )

    def geometry(self, fov_voxel_size: Vector) -> Geometry:
        """The map from the crop to the field of view."""
        z, y, x = self.origin
        return Geometry((float(z), float(y), float(x)), voxel_size=fov_voxel_size)

    def inside_image(self) -> Flags | None:
        """Which voxels are inside the image, in the crop's shape; None where all are."""
        if self.is_whole:
            return None
        inside = np.zeros(self.shape, bool)
        inside[self.target] = True
        return inside

    def valid(self) -> Flags | None:
        """None: the voxels inside the image are all of `target`."""
        return None

    def pixels(self, volume: Pixels, offset: Triple = (0, 0, 0), out: Pixels | None = None) -> Pixels:
        """The crop of one channel, in its dtype, as `cut` makes it."""
        return cut(volume, self, offset, out)

    def put(self, volumes: Sequence[Pixels], offset: Triple, out: Pixels) -> None:
        """The crops of several channels, as `pixels` makes them, into `out` of shape (c, z, y, x)."""
        z, y, x = (
            slice(part.start - first, part.stop - first) for part, first in zip(self.source, offset, strict=True)
        )
        if not self.is_whole:
            out[...] = 0
        for crop, volume in zip(out, volumes, strict=True):
            crop[self.target] = volume[z, y, x]

    def labels(self, volume: Pixels, offset: Triple = (0, 0, 0)) -> Pixels:
        """The crop of a label image, as `cut` makes it."""
        return cut(volume, self, offset)

    def holds(self, points: npt.NDArray[Any]) -> Flags:
        """Whether FOV positions, shape (n, 3) in voxels, are inside the crop's extent."""
        first = np.asarray(self.origin) - 0.5
        return np.asarray(((points >= first) & (points < first + self.shape)).all(axis=-1))


def place_window(
    box: Box,
    shape: Triple,
    image_shape: Triple,
    edge: Edge = "pad",
    oversize: Literal["crop", "drop"] = "crop",
) -> Window:
    """The window of `shape` that is centred on a cell's box.

    The origin is ``floor((start + stop - shape) / 2)`` along each axis, so a box of even size in an odd window (or
    the reverse) lies half a voxel off centre, towards the window's end.

    Parameters
    ----------
    box : Box
        The cell's box in FOV voxels.
    shape, image_shape : tuple of int
        Sizes (z, y, x) of the crop and of the image.
    edge : {"pad", "drop", "shift", "flag"}
        What becomes of a window that reaches beyond the image. With ``"flag"`` it is padded too: `Window.beyond`
        tells it.
    oversize : {"crop", "drop"}
        What becomes of a box larger than `shape`.

    Raises
    ------
    Dropped
        Where `edge` or `oversize` says so.
    CellError
        Where the box is not inside the image.
    """
    if any(start < 0 or stop > size for start, stop, size in zip(box.start, box.stop, image_shape, strict=True)):
        raise CellError(
            f"The box z {box.start[0]}:{box.stop[0]}, y {box.start[1]}:{box.stop[1]}, x {box.start[2]}:{box.stop[2]} "
            f"is not inside the image of shape (z, y, x) {image_shape}."
        )
    # A crop of one plane is meant to be one plane of the cell.
    axes = range(3) if shape[0] > 1 else (1, 2)
    too_large = any(box.size[axis] > shape[axis] for axis in axes)
    if too_large and oversize == "drop":
        raise Dropped(f"oversize: the cell's box {box.size} is larger than the crop {shape}")
    origin = tuple((start + stop - size) // 2 for start, stop, size in zip(box.start, box.stop, shape, strict=True))
    return _fit(origin, shape, image_shape, edge, too_large)


def window_at(
    centre: tuple[float, float, float],
    shape: Triple,
    image_shape: Triple,
    edge: Edge = "pad",
) -> Window:
    """The window of `shape` around a point, given in FOV voxels (voxel i spans i - 0.5 to i + 0.5).

    Raises
    ------
    Dropped
        Where the window reaches beyond the image and `edge` is ``"drop"``.
    CellError
        Where the point is not inside the image.
    """
    if any(not -0.5 <= point <= size - 0.5 for point, size in zip(centre, image_shape, strict=True)):
        raise CellError(f"The centre {centre} is not inside the image of shape (z, y, x) {image_shape}.")
    origin = tuple(math.floor(point - (size - 1) / 2 + 0.5) for point, size in zip(centre, shape, strict=True))
    return _fit(origin, shape, image_shape, edge, False)


def _fit(origin: tuple[int, ...], shape: Triple, image_shape: Triple, edge: str, oversize: bool) -> Window:
    leaves = [
        max(0, -first, first + size - extent) for first, size, extent in zip(origin, shape, image_shape, strict=True)
    ]
    shift = (0.0, 0.0, 0.0)
    if edge == "drop" and any(leaves):
        raise Dropped(f"edge: {overreach(leaves)}")
    if edge == "shift" and any(leaves):
        moved = tuple(
            # An image smaller than the crop cannot hold it: it is centred in the crop.
            min(max(first, 0), extent - size) if size <= extent else -((size - extent) // 2)
            for first, size, extent in zip(origin, shape, image_shape, strict=True)
        )
        z, y, x = (float(after - before) for after, before in zip(moved, origin, strict=True))
        origin, shift = moved, (z, y, x)
    bounds = [
        (max(0, first), min(extent, first + size))
        for first, size, extent in zip(origin, shape, image_shape, strict=True)
    ]
    source = tuple(slice(start, stop) for start, stop in bounds)
    target = tuple(slice(start - first, stop - first) for (start, stop), first in zip(bounds, origin, strict=True))
    return Window(
        (origin[0], origin[1], origin[2]),
        shape,
        (source[0], source[1], source[2]),
        (target[0], target[1], target[2]),
        shift,
        oversize,
    )


def overreach(leaves: Sequence[float]) -> str:
    """The sentence on a crop that reaches `leaves` (z, y, x) voxels beyond the image; empty where all are 0."""
    most = max(leaves)
    if most <= 0:
        return ""
    axis = "zyx"[list(leaves).index(most)]
    return f"the crop reaches {math.ceil(most)} voxels beyond the image along {axis}"


def cut(volume: Pixels, window: Window, offset: Triple = (0, 0, 0), out: Pixels | None = None) -> Pixels:
    """The pixels of a window; voxels outside the image are 0.

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)
        A part of the image that holds all of the window that is inside the image.
    window : Window
        In FOV voxels.
    offset : tuple of int
        FOV voxel (z, y, x) of the first voxel of `volume`.
    out : ndarray, shape of the window, optional
        Where to put the pixels.

    Returns
    -------
    ndarray, shape of the window
        In the dtype of `volume`.
    """
    z, y, x = (slice(part.start - first, part.stop - first) for part, first in zip(window.source, offset, strict=True))
    inside = volume[z, y, x]
    if out is None:
        out = np.empty(window.shape, volume.dtype)
    if not window.is_whole:
        out[...] = 0
    out[window.target] = inside
    return out
