"""Where the crop of a cell lies in its field of view, and what is cut out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cellcube.errors import CellError

Triple = tuple[int, int, int]
Slices = tuple[slice, slice, slice]


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


@dataclass(frozen=True)
class Window:
    """Where a crop lies in its field of view.

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
    shifted : bool
        Whether the window was moved to stay inside the image.
    oversize : bool
        Whether the cell's box is larger than the crop, so that the cell is cut.
    """

    origin: Triple
    shape: Triple
    source: Slices
    target: Slices
    shifted: bool = False
    oversize: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the whole crop is inside the image."""
        return all(part.stop - part.start == size for part, size in zip(self.target, self.shape, strict=True))

    @property
    def padded_fraction(self) -> float:
        """Share of the crop's voxels that are outside the image."""
        inside: int = math.prod(part.stop - part.start for part in self.target)
        return 1.0 - inside / math.prod(self.shape)


def place_window(
    box: Box,
    shape: Triple,
    image_shape: Triple,
    edge: Literal["pad", "drop", "shift"] = "pad",
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
    edge : {"pad", "drop", "shift"}
        What becomes of a window that reaches beyond the image.
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
    too_large = any(length > size for length, size in zip(box.size, shape, strict=True))
    if too_large and oversize == "drop":
        raise Dropped(f"oversize: the cell's box {box.size} is larger than the crop {shape}")
    origin = tuple((start + stop - size) // 2 for start, stop, size in zip(box.start, box.stop, shape, strict=True))
    return _fit(origin, shape, image_shape, edge, too_large)


def window_at(
    centre: tuple[float, float, float],
    shape: Triple,
    image_shape: Triple,
    edge: Literal["pad", "drop", "shift"] = "pad",
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
    shifted = False
    if any(leaves) and edge == "drop":
        axis = int(np.argmax(leaves))
        raise Dropped(f"edge: the crop reaches {leaves[axis]} voxels beyond the image along {'zyx'[axis]}")
    if any(leaves) and edge == "shift":
        moved = tuple(
            # An image smaller than the crop cannot hold it: it is centred in the crop.
            min(max(first, 0), extent - size) if size <= extent else -((size - extent) // 2)
            for first, size, extent in zip(origin, shape, image_shape, strict=True)
        )
        shifted = moved != origin
        origin = moved
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
        shifted,
        oversize,
    )


def cut(
    volume: npt.NDArray[Any], window: Window, offset: Triple = (0, 0, 0), out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
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
