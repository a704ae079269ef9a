"""Statistics of any number of images, counted by value and merged; and the bounds that normalizers take from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.pixels.sample import Sample, between, position
from cellcube.spec import Method, MinMax, Percentile, RobustZScore, TransmittedLight, ZScore

Pixels = npt.NDArray[Any]

# The factor that makes the median absolute deviation the standard deviation of a normal distribution.
MAD_FACTOR = 1.4826

# Integers in a wider range are sorted instead of counted in a table of all values.
_WIDEST_TABLE = 1 << 24
# Floats with more different values than this are counted in bins.
_MOST_VALUES = 1 << 16
# Bits of a float32 that a bin leaves out: 23 of the fraction less the 12 that tell bins apart.
_LEFT_OUT = 11
_BLOCK = 1 << 20


def bounds_of(normalizer: Method, statistics: Sample | PixelCounts) -> tuple[float, float]:
    """The values of pixels that a normalizer makes 0 and 1.

    Parameters
    ----------
    normalizer : Percentile, MinMax, ZScore, RobustZScore or TransmittedLight
        ``zscore``: mean and mean + standard deviation. ``robust_zscore``: median and median + 1.4826 MAD, the
        standard deviation of a normal distribution (Rousseeuw and Croux 1993). ``trans``: mean -+ 5 standard
        deviations, so that ``(x - low) / (high - low) = (x - mean) / (10 std) + 0.5``.
    statistics : Sample or PixelCounts
        Of at least one pixel.

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        Where the normalizer has no bounds that follow from statistics.
    """
    if isinstance(normalizer, Percentile):
        low, high = statistics.percentiles((normalizer.low, normalizer.high))
        return low, high
    if isinstance(normalizer, MinMax):
        return statistics.lowest, statistics.highest
    if isinstance(normalizer, ZScore):
        mean = statistics.mean
        return mean, mean + statistics.std
    if isinstance(normalizer, RobustZScore):
        median = statistics.median
        return median, median + MAD_FACTOR * statistics.mad
    if isinstance(normalizer, TransmittedLight):
        mean, reach = statistics.mean, 5 * statistics.std
        return mean - reach, mean + reach
    raise ValueError(f"{normalizer.method!r} has no bounds that follow from statistics")


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """How often each pixel value occurs, in any number of images.

    Integers are exact. Floats are exact while there are at most 65,536 different values; beyond, they are counted in
    bins, and the centre of a bin stands for its pixels. A bin spans the float32 that agree in sign, exponent and the
    first 12 bits of the fraction: percentiles, median and MAD of deviations are then off by at most 2^-13 of the
    pixel's value, and memory is bounded (2 million bins). Mean, deviation, lowest and highest stay exact, in float64.
    Which of both it is follows from all pixels, not from the order in which they were merged.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Sorted, each once. Integers beyond 2^53 are rounded.
    counts : ndarray of int64, shape (n,)
        Pixels of each value.
    whole : bool
        Whether all pixels came from integers.
    binned : bool
        Whether `values` are centres of bins.
    mean : float
        NaN where there are no pixels.
    squares : float
        Sum of the squared deviations from the mean.
    lowest, highest : float
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    whole: bool
    binned: bool
    mean: float
    squares: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, pixels: Pixels) -> PixelCounts:
        """Count the pixels of an array of any shape; it may be empty.

        Raises
        ------
        ValueError
            Where a pixel is not finite, is beyond what a float32 holds, or is no real number.
        """
        flat = pixels.reshape(-1)
        if flat.dtype.kind in "biu":
            return _of_counts(*_integers(flat.view(np.uint8) if flat.dtype.kind == "b" else flat), whole=True)
        if flat.dtype.kind != "f":
            raise ValueError(f"pixels of type {flat.dtype} cannot be counted")
        if not np.isfinite(flat).all():
            raise ValueError("pixels that are not finite cannot be counted")
        if len(flat) and max(-float(flat.min()), float(flat.max())) > float(np.finfo(np.float32).max):
            raise ValueError("pixels beyond what a float32 holds cannot be counted")
        # Looking at some pixels saves sorting all of them where most differ.
        if len(np.unique(flat[: 4 * _MOST_VALUES])) <= _MOST_VALUES:
            values, counts = np.unique(flat.astype(np.float64, copy=False), return_counts=True)
            if len(values) <= _MOST_VALUES:
                return _of_counts(values, counts, whole=False)
        moments = (0, 0.0, 0.0)
        bins: list[tuple[Pixels, Pixels]] = []
        for block in _blocks(flat):
            exact = block.astype(np.float64)
            mean = float(exact.mean())
            moments = _together(moments, (len(exact), mean, float(np.square(exact - mean).sum())))
            bins.append(_binned(exact, None))
        values, counts = _summed(bins)
        return cls(values, counts, False, True, *moments[1:], float(flat.min()), float(flat.max()))

    @property
    def count(self) -> int:
        """Pixels."""
        return int(self.counts.sum())

    @property
    def std(self) -> float:
        """Standard deviation of the population (divided by n)."""
        return math.sqrt(self.squares / self.count) if len(self.counts) else math.nan

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.percentiles((50.0,))[0]

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median."""
        deviations = np.abs(self.values - self.median)
        order = np.argsort(deviations, kind="stable")
        return _counted_percentiles(deviations[order], self.counts[order], (50.0,))[0]

    def percentiles(self, percentiles: Sequence[float]) -> tuple[float, ...]:
        """Percentiles, in 0..100, as ``numpy.percentile`` gives them for all the pixels (Hyndman and Fan, type 7).

        Raises
        ------
        ValueError
            Where there are no pixels.
        """
        found = _counted_percentiles(self.values, self.counts, percentiles)
        return tuple(min(max(value, self.lowest), self.highest) for value in found)


def merged(several: Iterable[PixelCounts]) -> PixelCounts:
    """The counts of all pixels of several counts.

    The order does not matter; only mean and deviation of binned floats depend on it, by rounding. They are put
    together by the parallel update of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance",
    The American Statistician 37(3), 242-247, equation 2.1.
    """
    parts = [each for each in several if len(each.counts)]
    if not parts:
        return _of_counts(np.zeros(0), np.zeros(0, np.int64), whole=True)
    if len(parts) == 1:
        return parts[0]
    whole = all(each.whole for each in parts)
    values, counts = _summed([(each.values, each.counts) for each in parts])
    if whole or not (any(each.binned for each in parts) or len(values) > _MOST_VALUES):
        return _of_counts(values, counts, whole=whole)
    moments = (0, 0.0, 0.0)
    for each in parts:
        moments = _together(moments, (each.count, each.mean, each.squares))
    lowest, highest = min(each.lowest for each in parts), max(each.highest for each in parts)
    return PixelCounts(*_binned(values, counts), False, True, *moments[1:], lowest, highest)


def _of_counts(values: Pixels, counts: Pixels, *, whole: bool) -> PixelCounts:
    values, counts = values.astype(np.float64), counts.astype(np.int64)
    if not len(values):
        return PixelCounts(values, counts, whole, False, math.nan, 0.0, math.nan, math.nan)
    count, first = int(counts.sum()), float(values[0])
    shifted = values - first
    # Sums that int64 holds are exact; products in float64 are so up to 2^53.
    if whole and shifted[-1] * count < 2.0**62:
        mean = first + int((shifted.astype(np.int64) * counts).sum()) / count
    else:
        mean = first + math.fsum((shifted * counts).tolist()) / count
    squares = math.fsum((np.square(values - mean) * counts).tolist())
    return PixelCounts(values, counts, whole, False, mean, squares, first, float(values[-1]))


def _integers(flat: Pixels) -> tuple[Pixels, Pixels]:
    if not len(flat):
        return flat, np.zeros(0, np.int64)
    lowest, highest = int(flat.min()), int(flat.max())
    if highest - lowest >= _WIDEST_TABLE:
        return np.unique(flat, return_counts=True)
    counts = np.zeros(highest - lowest + 1, np.int64)
    # In blocks, because indices take up to eight times the memory of the pixels.
    for block in _blocks(flat):
        shifted = block - flat.dtype.type(lowest) if flat.dtype.kind == "u" else block.astype(np.int64) - lowest
        counts += np.bincount(shifted.astype(np.intp, copy=False), minlength=len(counts))
    present = np.flatnonzero(counts)
    return present.astype(np.float64) + lowest, counts[present]


def _blocks(flat: Pixels) -> Iterable[Pixels]:
    return (flat[start : start + _BLOCK] for start in range(0, len(flat), _BLOCK))


def _binned(values: Pixels, counts: Pixels | None) -> tuple[Pixels, Pixels]:
    """Centres of the bins that hold values, and how many each holds."""
    # Adding 0 makes -0 the same as 0.
    short = values.astype(np.float32) + np.float32(0)
    pattern = short.view(np.int32)
    # Patterns of negative floats fall with rising value: all but their sign is turned around.
    bins = (pattern ^ ((pattern >> 31) & 0x7FFFFFFF)) >> _LEFT_OUT
    first = int(bins.min())
    places = bins.astype(np.intp) - first
    # Weights are float64, exact for counts up to 2^53.
    found = np.bincount(places, weights=counts).astype(np.int64)
    present = np.flatnonzero(found)
    number = (present + first).astype(np.int32)
    middle = (number << _LEFT_OUT) + np.where(number == 0, 0, 1 << (_LEFT_OUT - 1)).astype(np.int32)
    centres = (middle ^ ((middle >> 31) & 0x7FFFFFFF)).astype(np.int32).view(np.float32)
    return centres.astype(np.float64), found[present]


def _summed(parts: Sequence[tuple[Pixels, Pixels]]) -> tuple[Pixels, Pixels]:
    values = np.concatenate([values for values, _ in parts])
    counts = np.concatenate([counts for _, counts in parts])
    order = np.argsort(values, kind="stable")
    values, counts = values[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[starts], np.add.reduceat(counts, starts)


def _together(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    """Count, mean and squared deviations of two sets of pixels (Chan, Golub and LeVeque 1983)."""
    count = one[0] + other[0]
    apart = other[1] - one[1]
    mean = one[1] + apart * (other[0] / count)
    return count, mean, one[2] + other[2] + apart * apart * (one[0] * (other[0] / count))


def _counted_percentiles(values: Pixels, counts: Pixels, percentiles: Sequence[float]) -> tuple[float, ...]:
    if not len(values):
        raise ValueError("there are no pixels to take percentiles of")
    below = counts.cumsum()
    total = int(below[-1])
    return tuple(
        between(float(values[below.searchsorted(first + 1)]), float(values[below.searchsorted(second + 1)]), way)
        for first, second, way in (position(percentile, total) for percentile in percentiles)
    )
