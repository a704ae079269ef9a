"""From the voxels of a crop to those of its field of view, and back.

Positions are (z, y, x), in voxels or µm. Voxel i is centred on i; the centre of the first voxel is at 0 µm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cellcube.errors import ArgumentError, did_you_mean
from cellcube.pixels.geometry import Geometry, Vector
from cellcube.pixels.select import Box, Triple

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FovPlace", "crop_to_fov", "fov_to_crop", "to_fov"]

_ORIGIN = ("origin_z", "origin_y", "origin_x")
_OPTIONAL = (
    *(f"{name}_{axis}" for name in ("voxel_size", "scale") for axis in "zyx"),
    *("rotation", "flip_y", "flip_x"),
)
# In voxels: how far rounding may put a crop's border outside a whole voxel.
_ROUNDING = 1e-6
# Cells among which a misspelt one is looked for: a million would take seconds.
_SUGGESTED = 20_000


@dataclass(frozen=True)
class FovPlace:
    """Where the crop of a cell lies in its field of view.

    Parameters
    ----------
    cell_id, fov_id : str
        Of the cell and of its field of view.
    shape : tuple of int
        Size (z, y, x) of the crop.
    geometry : cellcube.pixels.geometry.Geometry
        The map from the crop to the field of view.
    """

    cell_id: str
    fov_id: str
    shape: Triple
    geometry: Geometry

    @property
    def box(self) -> Box:
        """The smallest box of whole FOV voxels that holds the crop; it may reach outside the image."""
        low, high = self.geometry.outline(self.shape)
        start = np.floor(low + 0.5 + _ROUNDING).astype(int).tolist()
        stop = np.ceil(high + 0.5 - _ROUNDING).astype(int).tolist()
        return Box(tuple(start), tuple(stop))

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """Crop voxels to FOV voxels, shape (4, 4): homogeneous coordinates (z, y, x, 1)."""
        return self.geometry.matrix

    @property
    def matrix_um(self) -> npt.NDArray[np.float64]:
        """Crop voxels to µm in the FOV, shape (4, 4); a row is NaN where the voxel size is unknown."""
        return self.geometry.matrix_um

    @property
    def voxel_size(self) -> Vector:
        """Voxel size (z, y, x) of the crop in µm, NaN where unknown."""
        return self.geometry.voxel_size

    @property
    def fov_voxel_size(self) -> Vector:
        """Voxel size (z, y, x) of the field of view in µm, NaN where unknown."""
        return self.geometry.fov_voxel_size

    @property
    def scale(self) -> Vector:
        """FOV voxels per crop voxel along each of the crop's axes (z, y, x)."""
        return self.geometry.scale

    @property
    def rotation(self) -> float:
        """Degrees from the FOV's x axis to the crop's x axis, positive towards +y."""
        return self.geometry.rotation

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether the crop is mirrored along its y and its x axis."""
        return self.geometry.flip_y, self.geometry.flip_x


def to_fov(dataset: xr.Dataset, cell_id: str, *, variable: str = "cells") -> FovPlace:
    """Where the crop of a cell lies in its field of view.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `cellcube.open` or the dataset's Intake catalog gives, or a part of it. Of its coordinates, `cell_id` is
        read, and the cell's own values of the others.
    cell_id : str
        Of the cell.
    variable : str
        The array of crops, whose size along z, y and x is the crop's.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where the dataset has no such cell, or lacks the coordinates or the array.

    Examples
    --------
    >>> import xarray as xr
    >>> dataset = xr.Dataset(
    ...     {"cells": (("cell", "c", "z", "y", "x"), np.zeros((1, 1, 1, 4, 6)))},
    ...     {"cell_id": ("cell", ["a"]), "fov_id": ("cell", ["B2"]), "origin_z": ("cell", [0]),
    ...      "origin_y": ("cell", [-1]), "origin_x": ("cell", [20])},
    ... )
    >>> to_fov(dataset, "a").box
    Box(start=(0, -1, 20), stop=(1, 3, 26))
    """
    for name in ("cell_id", *_ORIGIN, variable):
        if name not in dataset.variables:
            raise ArgumentError(
                f"The dataset has no {name!r}, which tells where cells lie.",
                remedy=did_you_mean(name, map(str, dataset.variables)) or "Give what cellcube.open returns.",
            )
    sizes = dataset[variable].sizes
    flat = [axis for axis in "zyx" if axis not in sizes]
    if flat:
        raise ArgumentError(f"{variable!r} has no axis {flat[0]}; name the array of crops as `variable`.")
    where = _position(dataset, cell_id)

    def value(name: str) -> Any:
        column = dataset[name]
        return column.isel({axis: at for axis, at in where.items() if axis in column.dims}).values[()]

    row = {name: value(name) for name in (*_ORIGIN, *_OPTIONAL) if name in dataset.variables}
    return FovPlace(
        str(cell_id),
        str(value("fov_id")) if "fov_id" in dataset.variables else "",
        (sizes["z"], sizes["y"], sizes["x"]),
        Geometry.from_columns(row),
    )


def crop_to_fov(
    dataset: xr.Dataset,
    cell_id: str,
    points: npt.ArrayLike,
    unit: Literal["voxel", "um"] = "voxel",
    *,
    variable: str = "cells",
) -> npt.NDArray[np.float64]:
    """FOV positions of positions in the crop of a cell.

    Parameters
    ----------
    dataset, cell_id, variable
        As in `to_fov`.
    points : array-like, shape (3,) or (n, 3)
        Positions (z, y, x) in the crop, in voxels of the crop.
    unit : {"voxel", "um"}
        Of what is returned: voxels of the field of view, or µm.

    Returns
    -------
    ndarray, shape of `points`
        Positions (z, y, x) in the field of view; NaN in µm along an axis whose voxel size is unknown.

    Raises
    ------
    cellcube.errors.ArgumentError
        As `to_fov`, and where `points` or `unit` cannot be used.
    """
    given = _points(points, unit)
    geometry = to_fov(dataset, cell_id, variable=variable).geometry
    places = geometry.to_fov(given)
    return places * np.asarray(geometry.fov_voxel_size) if unit == "um" else places


def fov_to_crop(
    dataset: xr.Dataset,
    cell_id: str,
    points: npt.ArrayLike,
    unit: Literal["voxel", "um"] = "voxel",
    *,
    variable: str = "cells",
) -> npt.NDArray[np.float64]:
    """Positions in the crop of a cell, of FOV positions: the inverse of `crop_to_fov`.

    Parameters
    ----------
    dataset, cell_id, variable
        As in `to_fov`.
    points : array-like, shape (3,) or (n, 3)
        Positions (z, y, x) in the field of view.
    unit : {"voxel", "um"}
        Of `points`: voxels of the field of view, or µm.

    Returns
    -------
    ndarray, shape of `points`
        Positions (z, y, x) in voxels of the crop, which may be outside it; from µm, NaN along an axis that depends
        on a voxel size that is unknown.

    Raises
    ------
    cellcube.errors.ArgumentError
        As `crop_to_fov`.
    """
    given = _points(points, unit)
    geometry = to_fov(dataset, cell_id, variable=variable).geometry
    if unit == "voxel":
        return geometry.to_crop(given)
    sizes = np.asarray(geometry.fov_voxel_size)
    known = np.isfinite(sizes)
    # Not-a-number would spread from z, which is often unknown, to y and x, which do not depend on it.
    found = geometry.to_crop(np.where(known, given / np.where(known, sizes, 1), 0))
    found[..., (geometry.inverse[:, ~known] != 0).any(axis=1)] = np.nan
    return found


def _points(points: npt.ArrayLike, unit: str) -> npt.NDArray[np.float64]:
    if unit not in ("voxel", "um"):
        raise ArgumentError(f"unit {unit!r} is neither 'voxel' nor 'um'.")
    given = np.asarray(points, np.float64)
    if given.ndim not in (1, 2) or given.shape[-1] != 3:
        raise ArgumentError(f"points have the shape {given.shape}; give (3,) or (n, 3), each (z, y, x).")
    return given


def _position(dataset: xr.Dataset, cell_id: str) -> dict[Any, int]:
    """Where a cell is along the dimension of `cell_id`; nothing where the dataset is that of one cell."""
    column = dataset["cell_id"]
    identifiers = np.atleast_1d(column.values)
    found = np.flatnonzero(identifiers == str(cell_id))
    if not len(found):
        near = did_you_mean(str(cell_id), map(str, identifiers[:_SUGGESTED].tolist()))
        raise ArgumentError(f"The dataset has no cell {cell_id!r}, among {len(identifiers):,}.", remedy=near or None)
    return {axis: int(found[0]) for axis in column.dims}
