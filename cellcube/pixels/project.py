"""Projections of a crop along one axis, and the three of them side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.pixels.select import Slices

Pixels = npt.NDArray[Any]


def projection_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a projection of pixels of `dtype`: wide enough for sums, floating for means."""
    kind = name.partition("_")[0]
    if kind in ("max", "min"):
        return dtype
    if kind == "mean" or dtype.kind == "f":
        return np.dtype("float64") if dtype.itemsize > 4 else np.dtype("float32")
    return np.dtype("uint64" if dtype.kind == "u" else "int64") if dtype.itemsize > 2 else np.dtype(f"{dtype.kind}4")


def projection_axes(name: str) -> tuple[str, str]:
    """The axes of a projection: those of (z, y, x) that are left; y and x of a montage."""
    _, _, along = name.partition("_")
    first, second = (axis for axis in "zyx" if axis != ("z" if along == "montage" else along))
    return first, second


def projection_shape(name: str, shape: tuple[int, int, int]) -> tuple[int, int]:
    """The size of a projection of (z, y, x): that of its other two axes, or of the three side by side."""
    sizes = dict(zip("zyx", shape, strict=True))
    deeper = sizes["z"] if name.endswith("_montage") else 0
    first, second = (sizes[axis] + deeper for axis in projection_axes(name))
    return first, second


def project(pixels: Pixels, name: str, inside: Slices, valid: npt.NDArray[np.bool_] | None = None) -> Pixels:
    """Project a crop along one axis, or along all.

    Parameters
    ----------
    pixels : ndarray, shape (c, z, y, x)
        The crop as it is stored.
    name : str
        ``<max|mean|sum|min>_<z|y|x|montage>``. A montage is the projection along z, the one along y (z, x) below it,
        and the one along x, turned to (y, z), at its right.
    inside : tuple of slice
        The part of the crop (z, y, x) that is inside the image. Padding does not count; where there is nothing
        but padding along the axis, the projection is 0.
    valid : ndarray of bool, shape (z, y, x), optional
        The voxels that are inside the image, where these are not all of `inside`.

    Returns
    -------
    ndarray, shape (c, two of z, y, x), or (c, y + z, x + z) for a montage
        In `projection_dtype`.
    """
    kind, _, along = name.partition("_")
    if along == "montage":
        channels, depth, height, width = pixels.shape
        out = np.zeros((channels, height + depth, width + depth), projection_dtype(name, pixels.dtype))
        out[:, :height, :width] = project(pixels, f"{kind}_z", inside, valid)
        out[:, height:, :width] = project(pixels, f"{kind}_y", inside, valid)
        out[:, :height, width:] = project(pixels, f"{kind}_x", inside, valid).swapaxes(1, 2)
        return out
    axis = "zyx".index(along)
    z, y, x = inside
    part = pixels[:, z, y, x]
    dtype = projection_dtype(name, pixels.dtype)
    if valid is not None:
        found = _reduced(part, valid[z, y, x], kind, axis, dtype)
    elif kind in ("max", "min"):
        found = getattr(part, kind)(axis=axis + 1)
    else:
        found = getattr(part, kind)(axis=axis + 1, dtype=_working(dtype)).astype(dtype)
    kept = [place for number, place in enumerate(inside) if number != axis]
    shape = (len(pixels), *(size for number, size in enumerate(pixels.shape[1:]) if number != axis))
    if found.shape == shape:
        return np.ascontiguousarray(found)
    out = np.zeros(shape, dtype)
    out[:, kept[0], kept[1]] = found
    return out


def _reduced(part: Pixels, valid: npt.NDArray[np.bool_], kind: str, axis: int, dtype: np.dtype[Any]) -> Pixels:
    """The projection of the valid voxels alone; 0 where there is none."""
    counts = np.count_nonzero(valid, axis=axis)
    where = np.broadcast_to(valid, part.shape)
    if kind in ("max", "min"):
        if dtype.kind == "f":
            lowest, highest = -np.inf, np.inf
        else:
            limits = np.iinfo(dtype)
            lowest, highest = limits.min, limits.max
        found = getattr(part, kind)(axis=axis + 1, where=where, initial=lowest if kind == "max" else highest)
        return np.asarray(np.where(counts > 0, found, dtype.type(0)))
    found = part.sum(axis=axis + 1, dtype=_working(dtype), where=where)
    if kind == "mean":
        found = found / np.maximum(counts, 1)
    return np.asarray(found, dtype)


def _working(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype("float64") if dtype.kind == "f" else dtype
