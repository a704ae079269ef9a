"""Evening out the illumination of a field of view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Correction:
    """What evens out the illumination of one channel: ``(x - dark) / gain``.

    ``gain = (flat - dark) / mean(flat - dark)``, with the flat-field as it was acquired, its dark signal included; so
    a pixel as bright as the flat-field becomes ``mean(flat - dark)`` everywhere, and the mean intensity of an evenly
    bright field stays what it is. Negative results are kept.

    Make one with `Correction.of`, which checks the images.

    Parameters
    ----------
    gain : ndarray of float32, shape (y, x)
        Relative illumination of each pixel of the field; its mean is 1 where it was made from a flat-field.
    dark : ndarray of float64, shape (y, x), or float
        Intensity without light.

    References
    ----------
    Model & Burkhardt 2001, Cytometry 44:309 (flat-field from a fluorescent slide, less its dark image); Peng et al.
    2017, Nat. Commun. 8:14836 (BaSiC, whose flat-field is the gain itself).
    """

    gain: npt.NDArray[np.float32]
    dark: npt.NDArray[np.float64] | float = 0.0

    @classmethod
    def of(cls, flat: Pixels, dark: Pixels | float = 0.0) -> Self:
        """The correction by a flat-field and a dark-field.

        Parameters
        ----------
        flat : ndarray, shape (y, x)
            Flat-field of the whole field of view. Leading axes of length 1 are dropped.
        dark : ndarray, shape of `flat`, or float
            Dark-field, or one intensity.

        Raises
        ------
        ValueError
            Where the images are not 2-D, differ in shape, hold NaN or infinite values, or where the flat-field is not
            brighter than the dark-field in every pixel.
        """
        light = _image(flat, "flat-field")
        below = _below(dark, light.shape)
        light = light - below
        dim = np.argwhere(light <= 0)
        if len(dim):
            y, x = dim[0]
            raise ValueError(
                f"The flat-field is not brighter than the dark-field in {len(dim)} of {light.size} pixels, the first "
                f"at y {y}, x {x}. Give both as they were acquired; a flat-field without dark signal, such as BaSiC's, "
                "is a gain."
            )
        return cls((light / light.mean()).astype(np.float32), below)

    @classmethod
    def by_gain(cls, gain: Pixels, dark: Pixels | float = 0.0) -> Self:
        """The correction by a gain as it is, such as the flat-field of BaSiC or CellProfiler's illumination function.

        Parameters
        ----------
        gain : ndarray, shape (y, x)
            What intensities above the dark-field are divided by. Leading axes of length 1 are dropped.
        dark : ndarray, shape of `gain`, or float
            Dark-field, or one intensity.

        Raises
        ------
        ValueError
            As `of`, and where the gain is not positive in every pixel.
        """
        factor = _image(gain, "gain")
        below = _below(dark, factor.shape)
        low = np.argwhere(factor <= 0)
        if len(low):
            y, x = low[0]
            raise ValueError(
                f"The gain is not positive in {len(low)} of {factor.size} pixels, the first at y {y}, x {x}."
            )
        return cls(factor.astype(np.float32), below)

    @property
    def shape(self) -> tuple[int, int]:
        """Size (y, x) of the field of view."""
        height, width = self.gain.shape
        return height, width

    def apply(self, pixels: Pixels, start: tuple[int, int] = (0, 0)) -> Pixels:
        """Correct a part of the field.

        Parameters
        ----------
        pixels : ndarray of numbers, shape (z, y, x)
            Intensities of a part of the field.
        start : tuple of int
            Row and column of the field where the part begins.

        Returns
        -------
        ndarray, shape of `pixels`
            Of float32; of float64 where float32 does not hold the intensities exactly.

        Raises
        ------
        ValueError
            Where the part reaches beyond the field.
        """
        (top, left), (height, width) = start, pixels.shape[-2:]
        if min(top, left) < 0 or top + height > self.shape[0] or left + width > self.shape[1]:
            raise ValueError(
                f"Pixels {top}:{top + height} along y and {left}:{left + width} along x are not inside the flat-field, "
                f"whose shape (y, x) is {self.shape}."
            )
        part = slice(top, top + height), slice(left, left + width)
        exact = np.dtype(np.float32 if np.can_cast(pixels.dtype, np.float32) else np.float64)
        corrected: Pixels = pixels.astype(exact)
        corrected -= self.dark[part] if isinstance(self.dark, np.ndarray) else self.dark
        corrected /= self.gain[part]
        return corrected


def _image(pixels: Pixels, name: str) -> npt.NDArray[np.float64]:
    image = np.asarray(pixels, np.float64)
    while image.ndim > 2 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 2 or not image.size:
        raise ValueError(f"The {name} has the shape {np.shape(pixels)}: it is to be one image of shape (y, x).")
    if not np.isfinite(image).all():
        raise ValueError(f"The {name} holds NaN or infinite values.")
    return image


def _below(dark: Pixels | float, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | float:
    if isinstance(dark, np.ndarray) and dark.size > 1:
        image = _image(dark, "dark-field")
        if image.shape != shape:
            raise ValueError(f"The flat-field has the shape (y, x) {shape}, the dark-field {image.shape}.")
        return image
    below = float(np.asarray(dark).reshape(()))
    if not np.isfinite(below):
        raise ValueError(f"The dark-field is {below}, not an intensity.")
    return below
