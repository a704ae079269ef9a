"""Voxel sizes: units, and whether a size can be believed."""

from __future__ import annotations

import math
import warnings

from cellcube.errors import VoxelSizeError
from cellcube.images.protocol import VoxelSize

LARGEST_PLAUSIBLE = 10.0  # µm along y and x; a microscope's pixels are finer, as 64.5 µm (a camera's pixel) is not

_MICROMETRES = {
    "pm": 1e-6,
    "picometer": 1e-6,
    "a": 1e-4,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "centimetre": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
}


class ImplausibleVoxelSizeWarning(UserWarning):
    """A voxel size is so large that the file's metadata are probably wrong."""


def micrometres(unit: str | None) -> float | None:
    """How many µm one `unit` is, or None for a unit that is no length or not known (``"pixel"``, an empty string).

    Examples
    --------
    >>> micrometres("nm"), micrometres("pixel")
    (0.001, None)
    """
    if not unit:
        return None
    # ImageJ writes the micro sign as an escape; Unicode has two characters for it.
    text = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("\u03bc", "µ")
    return _MICROMETRES.get(text.casefold().replace("\u03bc", "µ"))


def in_micrometres(value: float | None, unit: str | None) -> float | None:
    """A length in µm, or None where the value is missing or the unit is not known."""
    factor = micrometres(unit)
    return None if value is None or factor is None else float(value) * factor


def check_voxel_size(
    size: VoxelSize, shape_zyx: tuple[int, int, int], *, path: str, fov_id: str | None = None
) -> VoxelSize:
    """Refuse a voxel size that cannot be, and warn about one that is hard to believe.

    Parameters
    ----------
    size : VoxelSize
        In µm, as the file or the caller tells it.
    shape_zyx : tuple of int
        Sizes of the image. The z size of a single plane that is not positive and finite is treated as unknown.
    path, fov_id : str
        Named in errors and warnings.

    Returns
    -------
    VoxelSize
        Every part positive and finite, or None where it is unknown.

    Raises
    ------
    cellcube.errors.VoxelSizeError
        Where a part is zero, negative or not finite.

    Warns
    -----
    ImplausibleVoxelSizeWarning
        Where y or x is more than 10 µm.
    """
    z = size.z
    if z is not None and shape_zyx[0] == 1 and not _usable(z):
        z = None
    for letter, value in (("z", z), ("y", size.y), ("x", size.x)):
        if value is not None and not _usable(value):
            raise VoxelSizeError(
                f"The voxel size along {letter} is {value} µm.",
                path=path,
                fov_id=fov_id,
                remedy="Give the true one as the table columns `voxel_size_z`, `voxel_size_y`, `voxel_size_x` or as "
                "the spec field `fov_voxel_size` (µm).",
            )
    large = {letter: value for letter, value in (("y", size.y), ("x", size.x)) if value and value > LARGEST_PLAUSIBLE}
    if large:
        shown = ", ".join(f"{letter} {value:g} µm" for letter, value in large.items())
        warnings.warn(
            f"{path}: the voxel size ({shown}) is hard to believe for a microscope. If it is wrong, give the true one "
            "as the table columns `voxel_size_y`, `voxel_size_x` or as the spec field `fov_voxel_size` (µm).",
            ImplausibleVoxelSizeWarning,
            stacklevel=2,
        )
    return VoxelSize(z=z, y=size.y, x=size.x)


def _usable(value: float) -> bool:
    return math.isfinite(value) and value > 0
