"""From intensities to comparable pixels, in a way that can be undone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import CellError, UserFunctionError
from cellcube.functions import UserFunction
from cellcube.pixels.sample import Counts, Sample
from cellcube.pixels.statistics import bounds_of
from cellcube.spec import (
    UNBOUNDED,
    Arcsinh,
    BackgroundSubtracted,
    Log,
    Method,
    MinMax,
    Percentile,
    Range,
    Raw,
    TransmittedLight,
)

Pixels = npt.NDArray[Any]
Bounds = tuple[float, float]

# Normalizers that only move, scale and clip.
_LINEAR = (Percentile, MinMax, Range, TransmittedLight)
# Crops of more voxels, over all channels, are normalized one channel at a time: indices take memory.
_LARGE = 1 << 18


def stored_scale(dtype: np.dtype[Any] | str) -> float:
    """The stored value that stands for 1.0: 1 for floats, the highest value for integers."""
    dtype = np.dtype(dtype)
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


@dataclass(frozen=True)
class Normalized:
    """A normalized crop, and what undoes it.

    Parameters
    ----------
    pixels : ndarray, shape (c, z, y, x)
    low, high : ndarray of float64, shape (c,)
        Of each channel, see `Normalization`; NaN where a user function normalized.
    clipped : ndarray of float64, shape (c,)
        Share of the counted voxels whose value lay strictly outside of what is stored; NaN where a user function
        normalized.
    """

    pixels: Pixels
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    clipped: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Normalization:
    """The normalizers of all channels of a cube, ready to be applied to crops.

    The stored pixel of a channel is ``scale * y``, rounded to the nearest of `dtype`, with `scale` as in
    `stored_scale` and ``y = (T(x) - low) / (high - low)`` in float64:

    - ``percentile``, ``minmax``, ``range``, ``trans``: T(x) = x, y clipped to 0..1. Bounds as in `bounds_of`, those of
      ``range`` given.
    - ``img_bg_sub``: the same with T(x) = `smoothed`, low its median and high its maximum over the counted voxels.
    - ``zscore``, ``robust_zscore``: T(x) = x, y clipped only to the finite values of `dtype`.
    - ``arcsinh``: T(x) = arcsinh((x - offset) / cofactor), low 0, high 1, clipped as ``zscore``.
    - ``log``: T(x) = ln(x + offset), low 0, high 1, clipped as ``zscore``.
    - ``none``: the pixel itself; where `dtype` is another, rounded to the nearest and clipped to what it can hold. Low
      is 0 and high `scale`, so that ``low + stored / scale * (high - low)`` holds here too.

    Where high equals low, 0 is stored.

    Parameters
    ----------
    normalizers : tuple of Method or UserFunction, or UserFunction
        One a channel; or one function that takes all channels.
    dtype : numpy.dtype
        Of the stored pixels.
    """

    normalizers: tuple[Method | UserFunction, ...] | UserFunction
    dtype: np.dtype[Any]

    @property
    def keeps_raw(self) -> bool:
        """Whether pixels are stored as they are."""
        given = self.normalizers
        return not isinstance(given, UserFunction) and all(isinstance(each, Raw) for each in given)

    def __call__(
        self,
        crop: Pixels,
        counted: Sequence[Pixels | None],
        cell: dict[str, Any],
        *,
        weights: Sequence[Pixels | None] | None = None,
        fitted: Sequence[Bounds | None] | None = None,
    ) -> Normalized:
        """Normalize one crop.

        Parameters
        ----------
        crop : ndarray, shape (c, z, y, x)
            Intensities; they are not changed.
        counted : sequence of (ndarray of bool, shape (z, y, x), or None)
            For each channel, the voxels that statistics are taken over, and outside of which 0 is stored: those inside
            the image, or inside the cell where the spec masks. None means all.
        cell : dict
            The cell's row, for user functions.
        weights : sequence of (ndarray of float32, shape (z, y, x), or None), optional
            What the stored pixels of each channel are multiplied by, before they are rounded: soft masks.
        fitted : sequence of ((float, float), or None), optional
            Low and high of each channel, from more than this cell. Only for normalizers with a scope.

        Returns
        -------
        Normalized

        Raises
        ------
        CellError
            Where a channel has no counted voxel, a counted pixel is not finite, or has no logarithm.
        UserFunctionError
            Where a user function raised, or returned what cannot be stored.
        """
        channels = len(crop)
        weights = (None,) * channels if weights is None else weights
        fitted = (None,) * channels if fitted is None else fitted
        if isinstance(self.normalizers, UserFunction):
            return self._by_function(self.normalizers, crop, counted, weights, cell)
        at_once = self._at_once(self.normalizers, crop, counted, weights, fitted)
        if at_once is not None:
            return at_once
        stored = np.empty(crop.shape, self.dtype)
        low, high, clipped = np.full((3, channels), np.nan)
        parts = zip(self.normalizers, crop, counted, weights, fitted, strict=True)
        for number, (normalizer, pixels, inside, weight, bounds) in enumerate(parts):
            if isinstance(normalizer, UserFunction):
                one = self._by_function(normalizer, pixels, [inside], [weight], cell)
                stored[number] = one.pixels
                continue
            try:
                low[number], high[number], clipped[number] = self._channel(
                    normalizer, pixels, inside, weight, bounds, stored[number]
                )
            except CellError as error:
                raise CellError(
                    f"Channel {number}: {error.message}", cell_id=cell.get("cell_id"), remedy=error.remedy
                ) from None
        return Normalized(stored, low, high, clipped)

    def _at_once(
        self,
        normalizers: tuple[Method | UserFunction, ...],
        crop: Pixels,
        counted: Sequence[Pixels | None],
        weights: Sequence[Pixels | None],
        fitted: Sequence[Bounds | None],
    ) -> Normalized | None:
        """All channels in a few operations, to the same pixels; None where one of them needs its own."""
        inside = counted[0]
        if (
            crop.dtype.kind != "u"
            or crop.size > _LARGE
            or any(each is not inside for each in counted)
            or any(each is not None for each in weights)
            or not all(isinstance(each, _LINEAR) for each in normalizers)
        ):
            return None
        values = crop.reshape(len(crop), -1) if inside is None else crop[:, inside]
        counts = Counts.of(values)
        if counts is None:
            return None
        first = normalizers[0]
        if isinstance(first, Percentile) and all(each is first for each in normalizers) and not any(fitted):
            bounds: list[Any] = counts.percentiles((first.low, first.high))
        else:
            bounds = [
                given if given is not None and hasattr(each, "scope") else _own_bounds(each, Sample(channel))  # type: ignore[arg-type]
                for each, channel, given in zip(normalizers, values, fitted, strict=True)
            ]
        clipped = [
            # Nothing lies beyond a cell's own extremes.
            0.0 if given is None and isinstance(each, MinMax) else counts.outside(number, *bounds[number])
            for number, (each, given) in enumerate(zip(normalizers, fitted, strict=True))
        ]
        lows, highs = np.array(bounds, np.float64).T
        flat = ~(highs > lows)
        # Once for each value that there is.
        table = np.arange(counts.width, dtype=np.float64) - lows[:, None]
        table /= np.where(flat, 1.0, highs - lows)[:, None]
        table[flat] = 0
        stored_table = self._rounded(self._clipped(table), None).reshape(-1)
        stored = np.empty(crop.shape, self.dtype) if inside is None else np.zeros(crop.shape, self.dtype)
        # Indices all fit; to clip them is faster than to check them.
        if inside is None:
            stored_table.take(counts.indices, mode="clip", out=stored.reshape(values.shape))
        else:
            stored[:, inside] = stored_table.take(counts.indices, mode="clip")
        return Normalized(stored, lows, highs, np.array(clipped))

    def _channel(
        self,
        normalizer: Method,
        pixels: Pixels,
        inside: Pixels | None,
        weight: Pixels | None,
        fitted: Bounds | None,
        out: Pixels,
    ) -> tuple[float, float, float]:
        """Normalize one channel (z, y, x) into `out`, a contiguous array; gives low, high, and the share clipped."""
        if pixels.dtype.kind == "b":
            pixels = pixels.view(np.uint8)
        values = pixels.reshape(-1) if inside is None else pixels[inside]
        if not values.size:
            raise CellError("there is no voxel to normalize.", remedy="Look at the cell's place in the image.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise CellError("the crop holds pixels that are not finite.")
        if isinstance(normalizer, BackgroundSubtracted):
            even = smoothed(pixels, inside, normalizer.sigma)
            values = even.reshape(-1) if inside is None else even[inside]
        sample = Sample(values)
        factors = None if weight is None else weight.reshape(-1) if inside is None else weight[inside]
        if isinstance(normalizer, Raw):
            bounds = 0.0, stored_scale(self.dtype)
            share = 0.0 if np.can_cast(values.dtype, self.dtype) else sample.outside(*_limits(self.dtype))
            if share:
                values = np.clip(values.astype(np.float64), *_limits(self.dtype))
            if factors is not None or (values.dtype.kind == "f" and self.dtype.kind in "iu"):
                values = self._rounded(values.astype(np.float64), factors)
        else:
            bounds = fitted if fitted is not None and hasattr(normalizer, "scope") else _own_bounds(normalizer, sample)
            # Logarithms of finite pixels fit in every float type, and nothing lies beyond a cell's own extremes.
            none = isinstance(normalizer, Arcsinh | Log) or (isinstance(normalizer, MinMax) and fitted is None)
            share = 0.0 if none else sample.outside(*self._held(normalizer, *bounds))
            values = self._stored(normalizer, sample, bounds, factors)
        if inside is None:
            np.copyto(out.reshape(-1), values, casting="unsafe")
        else:
            out[...] = 0
            out[inside] = values
        return *bounds, share

    def _held(self, normalizer: Method, low: float, high: float) -> Bounds:
        """The lowest and the highest value that are not clipped."""
        if not isinstance(normalizer, UNBOUNDED):
            return low, high
        scale, (least, most) = stored_scale(self.dtype), _limits(self.dtype)
        return low + least / scale * (high - low), low + most / scale * (high - low)

    def _stored(self, normalizer: Method, sample: Sample, bounds: Bounds, factors: Pixels | None) -> Pixels:
        """The stored pixels of a sample."""
        # Half floats are slow to make, and so are transcendental functions: once for each value that there is.
        slow = self.dtype == np.float16 or isinstance(normalizer, Arcsinh | Log)
        if not slow or factors is not None or sample.indices is None:
            return self._rounded(self._formula(normalizer, sample.values.astype(np.float64), bounds), factors)
        base = sample.base
        first, last = base, int(sample.highest)
        table = np.zeros(last - base + 1, self.dtype)
        if not isinstance(normalizer, UNBOUNDED) and bounds[1] > bounds[0]:
            # What is clipped needs no arithmetic.
            first, last = max(math.ceil(bounds[0]), first), min(math.floor(bounds[1]), last)
            table[max(last + 1 - base, 0) :] = stored_scale(self.dtype)
        if first <= last:
            values = np.arange(first, last + 1, dtype=np.float64)
            table[first - base : last + 1 - base] = self._rounded(self._formula(normalizer, values, bounds), None)
        # Indices all fit; to clip them is faster than to check them.
        return table.take(sample.indices, mode="clip")

    def _formula(self, normalizer: Method, values: Pixels, bounds: Bounds) -> Pixels:
        """``scale * y`` of float64 values, which are overwritten."""
        low, high = bounds
        if not high > low:
            values[...] = 0
            return values
        if isinstance(normalizer, Arcsinh):
            values -= normalizer.offset
            values /= normalizer.cofactor
            np.arcsinh(values, out=values)
        elif isinstance(normalizer, Log):
            values += normalizer.offset
            np.log(values, out=values)
        else:
            values -= low
            values /= high - low
        if isinstance(normalizer, UNBOUNDED):
            return values.clip(*_limits(self.dtype), out=values)
        return self._clipped(values)

    def _clipped(self, values: Pixels) -> Pixels:
        """``scale * y`` of float64 values y, clipped to 0..1; they are overwritten."""
        np.maximum(values, 0, out=values)
        np.minimum(values, 1, out=values)
        if self.dtype.kind in "iu":
            values *= stored_scale(self.dtype)
        return values

    def _rounded(self, values: Pixels, factors: Pixels | None) -> Pixels:
        if factors is not None:
            values = values * factors
        if self.dtype.kind in "iu":
            values = np.rint(values)
        stored: Pixels = values.astype(self.dtype, copy=False)
        return stored

    def _by_function(
        self,
        function: UserFunction,
        crop: Pixels,
        counted: Sequence[Pixels | None],
        weights: Sequence[Pixels | None],
        cell: dict[str, Any],
    ) -> Normalized:
        """What a function makes of all channels (c, z, y, x), or of one (z, y, x)."""
        given = crop.copy()
        several = given if crop.ndim == 4 else given[None]
        for channel, inside in zip(several, counted, strict=True):
            if inside is not None:
                channel[~inside] = 0
        cell_id = cell.get("cell_id")
        try:
            returned = np.asarray(function(given, cell))
        except Exception as error:
            raise UserFunctionError(
                f"normalize: {function.name} raised {type(error).__name__}: {error}.", cell_id=cell_id
            ) from error
        pixels = checked_pixels(returned, crop.shape, self.dtype, function.name, cell_id)
        several, returned = pixels.reshape(-1, *crop.shape[-3:]), returned.reshape(-1, *crop.shape[-3:])
        for number, (inside, weight) in enumerate(zip(counted, weights, strict=True)):
            if weight is not None:
                several[number] = self._rounded(returned[number].astype(np.float64), weight)
            if inside is not None:
                several[number][~inside] = 0
        return Normalized(pixels, *np.full((3, len(several)), np.nan))


def smoothed(pixels: Pixels, inside: Pixels | None, sigma: float) -> Pixels:
    """Smooth with a Gaussian over (z, y, x), without what is not counted leaking in.

    ``gaussian(m x) / gaussian(m)`` with m = 1 at counted voxels and 0 elsewhere: normalized convolution (Knutsson and
    Westin 1993), which is plain smoothing where all voxels count. The crop is mirrored at its edges, and the Gaussian
    cut off at four sigma, as `scipy.ndimage.gaussian_filter` does. An axis of size 1 is left alone.

    Parameters
    ----------
    pixels : ndarray, shape (z, y, x)
    inside : ndarray of bool, shape (z, y, x), optional
        Counted voxels; None means all.
    sigma : float
        In voxels, along each axis.

    Returns
    -------
    ndarray of float64, shape (z, y, x)
        0 where no voxel is counted.
    """
    from scipy.ndimage import gaussian_filter

    widths = [sigma if size > 1 else 0.0 for size in pixels.shape]
    if inside is None:
        plain: Pixels = gaussian_filter(pixels.astype(np.float64), widths)
        return plain
    sums = gaussian_filter(np.where(inside, pixels, 0).astype(np.float64), widths)
    shares = gaussian_filter(inside.astype(np.float64), widths)
    found: Pixels = np.divide(sums, shares, out=np.zeros_like(sums), where=inside)
    return found


def checked_pixels(
    returned: Pixels,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    name: str,
    cell_id: str | None,
    stage: str = "normalize",
) -> Pixels:
    """What a user function returned, as `dtype`.

    Parameters
    ----------
    returned : ndarray
    shape : tuple of int
        What it must have.
    dtype : numpy.dtype
        What is made of it: integers are rounded to the nearest.
    name, cell_id, stage : str
        For the error: of the function, of the cell, and what the function was called for.

    Raises
    ------
    UserFunctionError
        Where shape or type are wrong, a pixel is not finite, or a pixel does not fit in `dtype`.
    """

    def wrong(what: str) -> UserFunctionError:
        return UserFunctionError(f"{stage}: {name} returned {what}.", cell_id=cell_id)

    if returned.shape != shape:
        axes = "(c, z, y, x) = " if len(shape) == 4 else ""
        raise wrong(f"an array of shape {returned.shape}; {axes}{shape} is needed")
    if returned.dtype.kind not in "biuf":
        raise wrong(f"an array of type {returned.dtype}; numbers are needed")
    if not np.isfinite(returned).all():
        raise wrong("pixels that are not finite")
    least, most = _limits(dtype)
    if returned.size and (returned.min() < least or returned.max() > most):
        raise wrong(f"pixels from {returned.min()} to {returned.max()}, which {dtype} cannot hold")
    return np.rint(returned).astype(dtype) if dtype.kind in "iu" else returned.astype(dtype)


def _limits(dtype: np.dtype[Any]) -> Bounds:
    """The lowest and the highest finite value of a type."""
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return float(limits.min), float(limits.max)


def _own_bounds(normalizer: Method, sample: Sample) -> Bounds:
    if isinstance(normalizer, Range):
        return normalizer.low, normalizer.high
    if isinstance(normalizer, BackgroundSubtracted):
        return sample.median, sample.highest
    if isinstance(normalizer, Log) and (lowest := sample.lowest) <= -normalizer.offset:
        raise CellError(
            f"a pixel is {lowest:g}, and ln(x + {normalizer.offset:g}) needs pixels above {-normalizer.offset:g}.",
            remedy=f"Give an offset above {-lowest:g}.",
        )
    return (0.0, 1.0) if isinstance(normalizer, Arcsinh | Log) else bounds_of(normalizer, sample)
