"""Projections of a crop along one axis."""

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


def projection_shape(name: str, shape: tuple[int, int, int]) -> tuple[int, int]:
    """The size that is left of (z, y, x) after a projection: its other two axes."""
    first, second = (size for axis, size in zip("zyx", shape, strict=True) if axis != name[-1])
    return first, second


def project(pixels: Pixels, name: str, inside: Slices) -> Pixels:
    """Project a crop along one axis.

    Parameters
    ----------
    pixels : ndarray, shape (c, z, y, x)
        The crop as it is stored.
    name : str
        ``<max|mean|sum|min>_<z|y|x>``.
    inside : tuple of slice
        The part of the crop (z, y, x) that is inside the image. Padding does not count; where there is nothing
        but padding along the axis, the projection is 0.

    Returns
    -------
    ndarray, shape (c, two of z, y, x)
        In `projection_dtype`.
    """
    kind, _, letter = name.partition("_")
    axis = "zyx".index(letter)
    z, y, x = inside
    part = pixels[:, z, y, x]
    dtype = projection_dtype(name, pixels.dtype)
    if kind in ("max", "min"):
        found = getattr(part, kind)(axis=axis + 1)
    else:
        working = np.float64 if dtype.kind == "f" else dtype
        found = getattr(part, kind)(axis=axis + 1, dtype=working).astype(dtype)
    kept = [place for number, place in enumerate(inside) if number != axis]
    shape = (len(pixels), *(size for number, size in enumerate(pixels.shape[1:]) if number != axis))
    if found.shape == shape:
        return np.ascontiguousarray(found)
    out = np.zeros(shape, dtype)
    out[:, kept[0], kept[1]] = found
    return out
