"""From intensities to comparable pixels, in a way that can be undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import UserFunctionError
from cellcube.functions import UserFunction
from cellcube.spec import MinMax, Normalizer, Percentile, Range, Raw

Pixels = npt.NDArray[Any]

# A histogram wider than this costs more than sorting the pixels of a crop.
_WIDEST_HISTOGRAM = 1 << 17


def exact_percentiles(values: Pixels, percentiles: tuple[float, ...]) -> tuple[float, ...]:
    """Percentiles with linear interpolation between order statistics, equal to ``numpy.percentile``.

    Integers are counted in a histogram, which gives the same values several times faster.

    Parameters
    ----------
    values : ndarray
        Any shape, at least one value.
    percentiles : tuple of float
        In 0..100, ascending.

    Returns
    -------
    tuple of float
    """
    flat = values.reshape(-1)
    if flat.dtype.kind in "iu":
        lowest, highest = int(flat.min()), int(flat.max())
        if lowest == highest:
            return tuple(float(lowest) for _ in percentiles)
        if highest - lowest < _WIDEST_HISTOGRAM:
            # Signed differences could overflow in the values' own type.
            shifted = flat - flat.dtype.type(lowest) if flat.dtype.kind == "u" else flat.astype(np.int64) - lowest
            below = np.cumsum(np.bincount(shifted, minlength=highest - lowest + 1))
            return tuple(_from_counts(below, lowest, flat.size, percentile) for percentile in percentiles)
    return tuple(float(value) for value in np.percentile(flat.astype(np.float64, copy=False), percentiles))


def _from_counts(below: Pixels, lowest: int, count: int, percentile: float) -> float:
    position = percentile / 100 * (count - 1)
    rank = int(position)
    first = int(np.searchsorted(below, rank + 1))
    second = first if rank + 1 >= count or below[first] >= rank + 2 else int(np.searchsorted(below, rank + 2))
    # The form of interpolation that NumPy uses, so that the last bit agrees.
    fraction = position - rank
    if fraction >= 0.5:
        return (lowest + second) - (second - first) * (1 - fraction)
    return (lowest + first) + (second - first) * fraction


def stored_scale(dtype: np.dtype[Any] | str) -> float:
    """The stored value that stands for 1.0: 1 for floats, the highest value for integers."""
    dtype = np.dtype(dtype)
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


@dataclass(frozen=True)
class Normalization:
    """The normalizers of all channels of a cube, ready to be applied to crops.

    Stored pixels are ``scale * clip((pixel - low) / (high - low), 0, 1)`` with `scale` as in `stored_scale`, rounded
    to the nearest for integers. So ``pixel = low + stored / scale * (high - low)``, exact within half a step of
    `dtype` where nothing was clipped. Where high equals low all pixels are equal, and 0 is stored.

    Parameters
    ----------
    normalizers : tuple of normalizer, or UserFunction
        One a channel.
    dtype : numpy.dtype
        Of the stored pixels.
    """

    normalizers: tuple[Normalizer, ...] | UserFunction
    dtype: np.dtype[Any]

    @property
    def keeps_raw(self) -> bool:
        """Whether pixels are stored as they are."""
        return not isinstance(self.normalizers, UserFunction) and isinstance(self.normalizers[0], Raw)

    def __call__(self, crop: Pixels, inside: Pixels | None, cell: dict[str, Any]) -> tuple[Pixels, Pixels, Pixels]:
        """Normalize one crop.

        Parameters
        ----------
        crop : ndarray, shape (c, z, y, x)
            Intensities.
        inside : ndarray of bool, shape (z, y, x), optional
            The voxels that statistics are taken over, and outside of which 0 is stored: those inside the image, or
            inside the cell where the spec masks. None means all.
        cell : dict
            The cell's row, for user functions.

        Returns
        -------
        pixels : ndarray, shape (c, z, y, x), of `dtype`
        low, high : ndarray of float64, shape (c,)
            NaN where a user function normalized.
        """
        if isinstance(self.normalizers, UserFunction):
            return self._by_function(self.normalizers, crop, inside, cell)
        channels = len(crop)
        if self.keeps_raw:
            pixels = crop.astype(self.dtype)
            if inside is not None:
                pixels[:, ~inside] = 0
            return pixels, np.zeros(channels), np.full(channels, stored_scale(self.dtype))
        bounds = np.array(
            [
                _bounds(normalizer, channel if inside is None else channel[inside])
                for normalizer, channel in zip(self.normalizers, crop, strict=True)
            ]
        )
        low, high = bounds[:, 0], bounds[:, 1]
        return self._scaled(crop, inside, low, high), low, high

    def _scaled(self, crop: Pixels, inside: Pixels | None, low: Pixels, high: Pixels) -> Pixels:
        scale = stored_scale(self.dtype)
        # float32 holds every 16-bit intensity exactly.
        working = np.float32 if crop.dtype.itemsize <= 2 or crop.dtype == np.float32 else np.float64
        span = high - low
        factor = np.divide(scale, span, out=np.zeros_like(span), where=span > 0)
        # In two steps, because what rounding takes from a high `low` can be a large share of a short span.
        rounded = low.astype(working)
        pixels: Any = np.subtract(crop, rounded[:, None, None, None], dtype=working)
        pixels -= (low - rounded).astype(working)[:, None, None, None]
        pixels *= factor.astype(working)[:, None, None, None]
        np.clip(pixels, 0, scale, out=pixels)
        if self.dtype.kind in "iu":
            np.rint(pixels, out=pixels)
        stored: Pixels = pixels.astype(self.dtype)
        if inside is not None:
            stored[:, ~inside] = 0
        return stored

    def _by_function(
        self, function: UserFunction, crop: Pixels, inside: Pixels | None, cell: dict[str, Any]
    ) -> tuple[Pixels, Pixels, Pixels]:
        given = crop.copy()
        if inside is not None:
            given[:, ~inside] = 0
        try:
            returned = np.asarray(function(given, cell))
        except Exception as error:
            raise UserFunctionError(
                f"normalize: {function.name} raised {type(error).__name__}: {error}.", cell_id=cell.get("cell_id")
            ) from error
        unknown = np.full(len(crop), np.nan)
        return checked_pixels(returned, crop.shape, self.dtype, function.name, cell.get("cell_id")), unknown, unknown


def checked_pixels(
    returned: Pixels, shape: tuple[int, ...], dtype: np.dtype[Any], name: str, cell_id: str | None
) -> Pixels:
    """What a user function returned, as `dtype`.

    Raises
    ------
    UserFunctionError
        Where shape or type are wrong, a pixel is not finite, or a pixel does not fit in `dtype`.
    """

    def wrong(what: str) -> UserFunctionError:
        return UserFunctionError(f"normalize: {name} returned {what}.", cell_id=cell_id)

    if returned.shape != shape:
        raise wrong(f"an array of shape {returned.shape}; (c, z, y, x) = {shape} is needed")
    if returned.dtype.kind not in "biuf":
        raise wrong(f"an array of type {returned.dtype}; numbers are needed")
    if not np.isfinite(returned).all():
        raise wrong("pixels that are not finite")
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    if returned.size and (returned.min() < limits.min or returned.max() > limits.max):
        raise wrong(f"pixels from {returned.min()} to {returned.max()}, which {dtype} cannot hold")
    return np.rint(returned).astype(dtype) if dtype.kind in "iu" else returned.astype(dtype)


def _bounds(normalizer: Normalizer, values: Pixels) -> tuple[float, float]:
    if isinstance(normalizer, Percentile):
        low, high = exact_percentiles(values, (normalizer.low, normalizer.high))
        return low, high
    if isinstance(normalizer, MinMax):
        return float(values.min()), float(values.max())
    if isinstance(normalizer, Range):
        return normalizer.low, normalizer.high
    return 0.0, 1.0
