"""Statistics of the pixels of one cell, fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

# Buckets of `_order_statistics`, the number of pixels that makes them pay, and spans at which they do not overflow.
_BUCKETS, _FEW, _SHORTEST, _LONGEST = 2048, 1500, 1e-250, 1e250


def position(percentile: float, count: int) -> tuple[int, int, float]:
    """Ranks of the two order statistics around a percentile, and the way from the first to the second."""
    position = percentile / 100 * (count - 1)
    rank = int(position)
    return rank, min(rank + 1, count - 1), position - rank


def between(first: float, second: float, fraction: float) -> float:
    """Linear interpolation from the first to the second."""
    # The form of interpolation that NumPy uses, so that the last bit agrees.
    if fraction >= 0.5:
        return second - (second - first) * (1 - fraction)
    return first + (second - first) * fraction


class Sample:
    """Statistics of one array of pixels, computed when asked for.

    Percentiles interpolate linearly between order statistics and equal ``numpy.percentile`` of the pixels as float64
    (Hyndman and Fan 1996, type 7). Integers in a range narrower than their number are counted, which is faster.

    Parameters
    ----------
    values : ndarray of integers or floats, shape (n,)
        At least one, all finite.
    """

    __slots__ = ("_below", "_highest", "_indices", "_moments", "base", "values")

    def __init__(self, values: Pixels) -> None:
        self.values = values
        self.base = 0
        self._indices: Pixels | bool | None = False
        self._below: Pixels | None = None
        self._highest: float | None = None
        self._moments: tuple[float, float] | None = None

    @property
    def indices(self) -> Pixels | None:
        """Integers less `base`, from 0 to below n, as indices; None where they do not fit, or are floats."""
        if isinstance(self._indices, bool):
            self._indices = self._as_indices()
        return self._indices

    def _as_indices(self) -> Pixels | None:
        values = self.values
        kind = values.dtype.kind
        if kind not in "iu":
            return None
        highest = int(values.max())
        self._highest = float(highest)
        if kind == "u" and highest < values.size:
            return values.astype(np.intp)
        self.base = int(values.min())
        if highest - self.base >= values.size:
            return None
        # Signed differences could overflow in the values' own type.
        if kind == "i":
            signed: Pixels = values.astype(np.int64) - self.base
            return signed
        unsigned: Pixels = (values - values.dtype.type(self.base)).astype(np.intp)
        return unsigned

    @property
    def lowest(self) -> float:
        """Lowest pixel."""
        return float(self.values.min())

    @property
    def highest(self) -> float:
        """Highest pixel."""
        if self._highest is None:
            self._highest = float(self.values.max())
        return self._highest

    @property
    def mean(self) -> float:
        """Arithmetic mean, summed in float64."""
        return self.moments[0]

    @property
    def std(self) -> float:
        """Standard deviation of the population (divided by n)."""
        return self.moments[1]

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation, in two passes."""
        if self._moments is None:
            size = self.values.size
            shifted = self.values.astype(np.float64)
            # Equal pixels have a deviation of 0, whatever their mean rounds to.
            first = float(shifted[0])
            shifted -= first
            mean = float(shifted.sum()) / size
            shifted -= mean
            shifted *= shifted
            self._moments = first + mean, math.sqrt(float(shifted.sum()) / size)
        return self._moments

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.percentiles((50.0,))[0]

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median."""
        return Sample(np.abs(self.values.astype(np.float64) - self.median)).median

    def percentiles(self, percentiles: Sequence[float]) -> tuple[float, ...]:
        """Percentiles, in 0..100."""
        size = self.values.size
        places = [position(percentile, size) for percentile in percentiles]
        if self._below is None:
            if self.indices is None:
                ranked = _order_statistics(self.values, {rank for each in places for rank in each[:2]})
                return tuple(between(ranked[first], ranked[second], way) for first, second, way in places)
            self._below = np.bincount(self.indices).cumsum()
        wanted = [rank + 1 for first, second, _ in places for rank in (first, second)]
        found = [float(self.base + number) for number in self._below.searchsorted(wanted).tolist()]
        pairs = zip(found[::2], found[1::2], strict=True)
        return tuple(between(*pair, way) for pair, (_, _, way) in zip(pairs, places, strict=True))

    def outside(self, low: float, high: float) -> float:
        """Share of the pixels strictly below `low` or above `high`."""
        size = self.values.size
        if self.values.dtype.kind == "f":
            # As float64, because a bound that is rounded to the pixels' type can equal a pixel that it does not.
            exact = self.values.astype(np.float64, copy=False)
            return (int(np.count_nonzero(exact < low)) + int(np.count_nonzero(exact > high))) / size
        first, last = math.ceil(low), math.floor(high)
        if self._below is None:
            return (int(np.count_nonzero(self.values < first)) + int(np.count_nonzero(self.values > last))) / size
        first, last = first - self.base, min(last - self.base, len(self._below) - 1)
        lower = int(self._below[min(first, len(self._below)) - 1]) if first > 0 else 0
        upper = size - (int(self._below[last]) if last >= 0 else 0)
        return (lower + upper) / size


class Counts:
    """How often each value occurs in several channels of small unsigned integers, counted at once.

    Parameters
    ----------
    values : ndarray of unsigned integers, shape (c, n)
        At least one a channel.
    width : int
        More than the highest value.
    """

    __slots__ = ("_below", "indices", "values", "width")

    def __init__(self, values: Pixels, width: int) -> None:
        channels = len(values)
        self.values = values
        self.width = width
        # Of each value in a flattened table of shape (c, width).
        self.indices = values.astype(np.intp)
        for number in range(1, channels):
            self.indices[number] += number * width
        # Over all channels, so that pixels of those before count too.
        self._below = np.bincount(self.indices.reshape(-1), minlength=channels * width).cumsum()

    @classmethod
    def of(cls, values: Pixels) -> Counts | None:
        """None where the highest value is not below n, so that counting would not pay."""
        width = int(values.max()) + 1 if values.size else 0
        return cls(values, width) if 0 < width <= values.shape[1] else None

    def percentiles(self, percentiles: Sequence[float]) -> list[tuple[float, ...]]:
        """Percentiles of each channel, as those of `Sample`."""
        channels, size = self.values.shape
        places = [position(percentile, size) for percentile in percentiles]
        ranks = [rank + 1 for first, second, _ in places for rank in (first, second)]
        wanted = [start + rank for start in range(0, channels * size, size) for rank in ranks]
        found = self._below.searchsorted(wanted).tolist()
        each, width = len(ranks), self.width
        return [
            tuple(
                between(
                    float(found[channel * each + 2 * number] - channel * width),
                    float(found[channel * each + 2 * number + 1] - channel * width),
                    way,
                )
                for number, (_, _, way) in enumerate(places)
            )
            for channel in range(channels)
        ]

    def outside(self, channel: int, low: float, high: float) -> float:
        """Share of the pixels of a channel strictly below `low` or above `high`."""
        size, start = self.values.shape[1], channel * self.width
        first, last = min(math.ceil(low), self.width), min(math.floor(high), self.width - 1)
        before = channel * size
        lower = int(self._below[start + first - 1]) - before if first > 0 else 0
        upper = size - (int(self._below[start + last]) - before) if last >= 0 else size
        share: float = (lower + upper) / size
        return share


def _order_statistics(values: Pixels, ranks: set[int]) -> dict[int, float]:
    """The pixels that have these ranks, from 0, when sorted.

    Pixels are put in buckets of equal width, and only buckets that hold a rank are sorted: the first step of a bucket
    sort, several times faster than `numpy.partition`. Rounding keeps the order of buckets, so this is exact.
    """
    bucket: Pixels | None = None
    if values.size >= _FEW:
        lowest = float(values.min())
        span = float(values.max()) - lowest
        if _SHORTEST < span < _LONGEST:
            widths = np.subtract(values, lowest, dtype=np.float64)
            widths *= _BUCKETS / span
            bucket = widths.astype(np.intp)
    if bucket is None:
        ranked = np.sort(values)
        return {rank: float(ranked[rank]) for rank in ranks}
    below = np.bincount(bucket).cumsum()
    found: dict[int, float] = {}
    members: dict[int, Pixels] = {}
    for rank in ranks:
        number = int(below.searchsorted(rank, side="right"))
        if number not in members:
            members[number] = np.sort(values[bucket == number])
        found[rank] = float(members[number][rank - (int(below[number - 1]) if number else 0)])
    return found
