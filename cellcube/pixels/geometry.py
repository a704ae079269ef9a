"""Where the voxels of a crop lie in its field of view, for crops that are scaled, rotated and mirrored too.

A position is given in voxels, in the order (z, y, x): voxel i is centred on i and spans i - 0.5 to i + 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import VoxelSizeError

Vector = tuple[float, float, float]
Floats = npt.NDArray[np.float64]

NAN: Vector = (math.nan, math.nan, math.nan)
_QUARTERS = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
# Voxel sizes that differ by less are one: metadata is often written with seven digits.
_SAME_SCALE = 1e-6


@dataclass(frozen=True)
class Geometry:
    """The map from a crop to its field of view: position q of the crop is position ``origin + M q`` of the FOV.

    ``M = D_fov⁻¹ · R · F · D_crop``, where the D are diagonal matrices of voxel sizes, R is the rotation and F the
    mirroring. Along an axis whose voxel size is unknown, a voxel of the FOV counts as one unit; y and x count as
    unknown together.

    Parameters
    ----------
    origin : tuple of float
        FOV position (z, y, x) of the crop's first voxel.
    scale : tuple of float
        FOV voxels per crop voxel along each of the crop's axes.
    rotation : float
        Degrees from the FOV's x axis to the crop's x axis, positive towards +y: clockwise as images are shown.
        The crop's y axis is turned with it; z stays.
    flip_y, flip_x : bool
        Whether the crop's axis points the other way.
    voxel_size : tuple of float
        Of the crop, (z, y, x) in µm, NaN where unknown.
    """

    origin: Vector
    scale: Vector = (1.0, 1.0, 1.0)
    rotation: float = 0.0
    flip_y: bool = False
    flip_x: bool = False
    voxel_size: Vector = NAN

    @property
    def fov_voxel_size(self) -> Vector:
        """Voxel size (z, y, x) of the field of view in µm, NaN where unknown."""
        z, y, x = (size / scale for size, scale in zip(self.voxel_size, self.scale, strict=True))
        return z, y, x

    @property
    def is_plain(self) -> bool:
        """Whether the crop's voxels are voxels of the field of view, in their order."""
        return (
            self.scale == (1.0, 1.0, 1.0)
            and not (self.rotation or self.flip_y or self.flip_x)
            and all(float(first).is_integer() for first in self.origin)
        )

    @property
    def linear(self) -> Floats:
        """The matrix M, shape (3, 3): rows are FOV axes, columns are crop axes, each (z, y, x)."""
        cosine, sine = _turn(self.rotation)
        tall = self._tallness()
        z, y, x = self.scale
        y, x = -y if self.flip_y else y, -x if self.flip_x else x
        # Adding 0 makes a negative zero positive.
        return np.array([[z, 0.0, 0.0], [0.0, cosine * y, sine * x / tall], [0.0, -sine * y * tall, cosine * x]]) + 0.0

    @property
    def inverse(self) -> Floats:
        """The inverse of `linear`: rows are crop axes, columns are FOV axes."""
        cosine, sine = _turn(self.rotation)
        tall = self._tallness()
        z, y, x = self.scale
        y, x = -y if self.flip_y else y, -x if self.flip_x else x
        return (
            np.array([[1 / z, 0.0, 0.0], [0.0, cosine / y, -sine / (tall * y)], [0.0, sine * tall / x, cosine / x]])
            + 0.0
        )

    def _tallness(self) -> float:
        """Height of a FOV voxel by its width; 1 where it is unknown."""
        _, height, width = self.fov_voxel_size
        ratio = height / width
        return 1.0 if math.isnan(ratio) else ratio

    @property
    def matrix(self) -> Floats:
        """Crop voxels to FOV voxels, shape (4, 4): homogeneous coordinates (z, y, x, 1)."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.linear
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def matrix_um(self) -> Floats:
        """Crop voxels to µm in the FOV, shape (4, 4); a row is NaN where the FOV's voxel size is unknown.

        The centre of the FOV's first voxel is at 0 µm.
        """
        sizes = np.array([*self.fov_voxel_size, 1.0])
        found: Floats = self.matrix * sizes[:, None]
        return found

    def to_fov(self, points: npt.ArrayLike) -> Floats:
        """FOV positions, in voxels, of crop positions, shape (..., 3)."""
        found: Floats = np.asarray(points, np.float64) @ self.linear.T + np.asarray(self.origin, np.float64)
        return found

    def to_crop(self, points: npt.ArrayLike) -> Floats:
        """Crop positions, in voxels, of FOV positions, shape (..., 3)."""
        found: Floats = (np.asarray(points, np.float64) - np.asarray(self.origin, np.float64)) @ self.inverse.T
        return found

    def bounds(self, first: Sequence[float], last: Sequence[float]) -> tuple[Floats, Floats]:
        """The smallest FOV box around the crop's box from one crop position to another: its two corners (z, y, x)."""
        near, far = np.asarray(first, np.float64), np.asarray(last, np.float64)
        linear = self.linear
        middle = linear @ ((near + far) / 2) + np.asarray(self.origin, np.float64)
        half = np.abs(linear) @ ((far - near) / 2)
        return middle - half, middle + half

    def outline(self, shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
        """The smallest FOV box around the outer corners of a crop of `shape`: its two corners (z, y, x)."""
        return self.bounds((-0.5, -0.5, -0.5), [size - 0.5 for size in shape])

    def columns(self, full: bool) -> dict[str, Any]:
        """The geometry as one row of a table.

        Parameters
        ----------
        full : bool
            Whether with ``scale_*``, ``rotation`` and ``flip_*``. Without them ``origin_*`` are integers.

        Raises
        ------
        ValueError
            Where `full` is false and the geometry is not that of a crop that keeps the FOV's voxels.
        """
        if not (full or self.is_plain):
            raise ValueError(f"a crop that is resampled needs all columns: {self}")
        row: dict[str, Any] = {}
        for letter, first in zip("zyx", self.origin, strict=True):
            row[f"origin_{letter}"] = float(first) if full else int(first)
        if full:
            row.update((f"scale_{letter}", float(scale)) for letter, scale in zip("zyx", self.scale, strict=True))
            row["rotation"] = float(self.rotation)
            row["flip_y"], row["flip_x"] = bool(self.flip_y), bool(self.flip_x)
        row.update((f"voxel_size_{letter}", float(size)) for letter, size in zip("zyx", self.voxel_size, strict=True))
        return row

    @classmethod
    def from_columns(cls, row: Mapping[str, Any]) -> Geometry:
        """The geometry of a row; what is absent besides ``origin_*`` means no scaling, rotation or mirroring."""

        def vector(name: str, default: float) -> Vector:
            z, y, x = (float(row.get(f"{name}_{letter}", default)) for letter in "zyx")
            return z, y, x

        return cls(
            (float(row["origin_z"]), float(row["origin_y"]), float(row["origin_x"])),
            vector("scale", 1.0),
            float(row.get("rotation", 0.0)),
            bool(row.get("flip_y", False)),
            bool(row.get("flip_x", False)),
            vector("voxel_size", math.nan),
        )


def _turn(degrees: float) -> tuple[float, float]:
    """Cosine and sine, exact for quarter turns."""
    quarters, rest = divmod(degrees, 90.0)
    if rest == 0:
        return _QUARTERS[int(quarters) % 4]
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def scale_between(
    fov_voxel_size: Vector, voxel_size: tuple[float | None, float, float] | None, planes: int | None = None
) -> Vector:
    """FOV voxels per crop voxel (z, y, x), for crops of a wanted voxel size.

    Parameters
    ----------
    fov_voxel_size : tuple of float
        (z, y, x) in µm, NaN where unknown.
    voxel_size : tuple of float, optional
        Of the crop, in µm. None, for all or along z, keeps that of the FOV.
    planes : int, optional
        Of the image; z is kept where there is one.

    Raises
    ------
    cellcube.errors.VoxelSizeError
        Where the FOV's voxel size is unknown along an axis that is to be scaled.
    """
    scale = [1.0, 1.0, 1.0]
    for axis, (wanted, given) in enumerate(zip(voxel_size or (), fov_voxel_size, strict=bool(voxel_size))):
        if wanted is None or (axis == 0 and planes == 1):
            continue
        if math.isnan(given):
            letter = "zyx"[axis]
            raise VoxelSizeError(
                f"The crops are to have voxels of {wanted:g} µm along {letter}, and the image's voxel size along "
                f"{letter} is unknown.",
                remedy=f"Give it as a column voxel_size_{letter} of the cell table, or as fov_voxel_size of the spec.",
            )
        ratio = wanted / given
        scale[axis] = 1.0 if abs(ratio - 1) < _SAME_SCALE else ratio
    return scale[0], scale[1], scale[2]
