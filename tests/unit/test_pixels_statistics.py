"""Statistics of pixels: against NumPy and SciPy, and the same however pixels are counted and merged."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellcube.pixels.sample import Sample
from cellcube.pixels.statistics import PixelCounts, bounds_of, merged
from cellcube.spec import Arcsinh, MinMax, Percentile, Raw, RobustZScore, TransmittedLight, ZScore

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
PERCENTILES = st.lists(st.floats(0, 100), min_size=1, max_size=4)
SCOPED = [Percentile(), Percentile(low=0, high=100), MinMax(), ZScore(), RobustZScore(), TransmittedLight()]


@st.composite
def intensities(draw: Any) -> Any:
    """Pixels that reach the limits of their type, and pixels close together."""
    kind = np.dtype(draw(st.sampled_from(INTEGERS)))
    limits = np.iinfo(kind)
    # Beyond 2^53 the oracle itself, in float64, is not exact.
    lowest, highest = max(int(limits.min), -(2**53)), min(int(limits.max), 2**53)
    first = draw(st.integers(lowest, highest))
    last = draw(st.just(highest) | st.integers(first, min(highest, first + 300)))
    edges = st.sampled_from([first, last])
    return draw(hnp.arrays(kind, st.integers(1, 60), elements=st.integers(first, last) | edges))


@st.composite
def floats(draw: Any) -> Any:
    kind = draw(st.sampled_from(["f2", "f4", "f8"]))
    width = {"f2": 16, "f4": 32, "f8": 64}[kind]
    return draw(hnp.arrays(kind, st.integers(1, 50), elements=st.floats(-60_000, 60_000, width=width)))


@given(intensities(), PERCENTILES)
def test_percentiles_of_integers_are_numpys_to_the_last_bit(values: Any, percentiles: list[float]) -> None:
    expected = tuple(np.percentile(values.astype(np.float64), percentiles).tolist())
    for found in (Sample(values).percentiles(percentiles), PixelCounts.of(values).percentiles(percentiles)):
        assert found == expected
        assert all(type(value) is float for value in found)


@given(floats(), PERCENTILES)
def test_percentiles_of_floats_are_numpys_to_the_last_bit(values: Any, percentiles: list[float]) -> None:
    expected = tuple(np.percentile(values.astype(np.float64), percentiles).tolist())
    assert Sample(values).percentiles(percentiles) == expected
    assert PixelCounts.of(values).percentiles(percentiles) == expected


@pytest.mark.parametrize("kind", [*INTEGERS[:6], "float32", "float64"])
def test_percentiles_of_many_pixels(kind: str) -> None:
    rng = np.random.default_rng(0)
    if np.dtype(kind).kind == "f":
        # Skewed, with ties and far outliers, so that buckets are crowded and empty.
        values = np.concatenate([rng.lognormal(0, 3, 4000), np.full(999, 2.5), [-1e30, 1e30]]).astype(kind)
    else:
        limits = np.iinfo(kind)
        values = rng.integers(limits.min, limits.max, 5000, kind, endpoint=True)
        values[:2] = limits.min, limits.max
    wanted = (0, 0.01, 1, 25, 50, 99.9, 99.99, 100)
    assert Sample(values).percentiles(wanted) == tuple(np.percentile(values.astype(np.float64), wanted).tolist())


@pytest.mark.parametrize("values", [np.full(3000, 0.1), np.r_[np.zeros(2999), 1e-300], np.r_[np.zeros(2999), 1.7e308]])
def test_percentiles_of_spans_without_buckets(values: Any) -> None:
    assert Sample(values).percentiles((0, 50, 100)) == (values[0], values[0], values[-1])


@given(intensities() | floats())
def test_moments_and_deviations(values: Any) -> None:
    exact = values.astype(np.float64)
    for found in (Sample(values), PixelCounts.of(values)):
        assert (found.lowest, found.highest) == (exact.min(), exact.max())
        size = np.abs(exact).max()
        assert found.mean == pytest.approx(exact.mean(), rel=1e-12, abs=1e-12 * size)
        assert found.std == pytest.approx(exact.std(), rel=1e-9, abs=1e-12 * size)
        assert found.median == np.percentile(exact, 50)
        assert found.mad == pytest.approx(scipy.stats.median_abs_deviation(exact), rel=1e-12, abs=1e-12 * size)


def test_mean_and_deviation_of_integers_far_from_zero() -> None:
    values = np.array([2**31, 2**31 + 1, 2**31 + 2] * 1000, "uint32")
    counts = PixelCounts.of(values)
    assert (counts.mean, counts.std) == (2**31 + 1, np.sqrt(2 / 3))


@pytest.mark.parametrize("value", [0.1, 1e-8, 12345.678, -3.3])
def test_equal_pixels_do_not_deviate(value: float) -> None:
    values = np.full(9217, value)
    for found in (Sample(values), PixelCounts.of(values)):
        assert (found.mean, found.std, found.mad) == (value, 0, 0)


@given(intensities() | floats())
def test_a_cell_and_its_counts_have_the_same_bounds(values: Any) -> None:
    size = float(np.abs(values.astype(np.float64)).max())
    for normalizer in SCOPED:
        of_counts, of_cell = bounds_of(normalizer, PixelCounts.of(values)), bounds_of(normalizer, Sample(values))
        exact = not isinstance(normalizer, ZScore | TransmittedLight)
        assert of_counts == (of_cell if exact else pytest.approx(of_cell, rel=1e-9, abs=1e-11 * size))


def test_bounds() -> None:
    values = np.array([2, 4, 4, 4, 5, 5, 7, 9], "uint8")
    counts = PixelCounts.of(values)
    assert bounds_of(MinMax(), counts) == (2, 9)
    assert bounds_of(Percentile(low=50, high=100), counts) == (4.5, 9)
    assert bounds_of(ZScore(), counts) == (5, 7)
    assert bounds_of(TransmittedLight(), counts) == (-5, 15)
    low, high = bounds_of(RobustZScore(), counts)
    assert (low, (high - low) / 1.4826) == (4.5, pytest.approx(scipy.stats.median_abs_deviation(values)))
    for normalizer in (Arcsinh(), Raw()):
        with pytest.raises(ValueError, match="has no bounds"):
            bounds_of(normalizer, counts)


@given(intensities() | floats(), st.integers(1, 5), st.randoms())
def test_merged_is_the_same_in_any_order(values: Any, parts: int, random: Any) -> None:
    pieces = [PixelCounts.of(piece) for piece in np.array_split(values, parts)]
    random.shuffle(pieces)
    whole = PixelCounts.of(values)
    split = random.randrange(parts)
    for found in (merged(pieces), merged([merged(pieces[:split]), merged(pieces[split:])])):
        np.testing.assert_array_equal(found.values, whole.values)
        np.testing.assert_array_equal(found.counts, whole.counts)
        assert (found.mean, found.squares, found.lowest, found.highest) == (
            whole.mean,
            whole.squares,
            whole.lowest,
            whole.highest,
        )
        assert found.count == len(values)


@pytest.fixture(scope="module")
def field() -> Any:
    rng = np.random.default_rng(1)
    values = (rng.lognormal(5, 1, 1_200_000) - 20).astype("float32")
    values[:1000] = 0
    return values


def test_many_floats_are_counted_in_bins(field: Any) -> None:
    counts = PixelCounts.of(field)
    exact = field.astype(np.float64)
    assert counts.binned
    assert counts.count == len(field)
    assert len(counts.values) < 2**17
    assert (counts.lowest, counts.highest) == (exact.min(), exact.max())
    assert counts.mean == pytest.approx(exact.mean(), rel=1e-12)
    assert counts.std == pytest.approx(exact.std(), rel=1e-12)
    wanted = (0, 0.1, 1, 50, 99.9, 100)
    np.testing.assert_allclose(counts.percentiles(wanted), np.percentile(exact, wanted), rtol=2**-13)
    median = np.median(exact)
    # Off by the error of the pixel and that of the median.
    assert abs(counts.mad - scipy.stats.median_abs_deviation(exact)) < 4 * median * 2**-13


def test_bins_are_the_same_however_floats_are_merged(field: Any) -> None:
    whole = PixelCounts.of(field)
    small = [PixelCounts.of(piece) for piece in np.array_split(field, 30)]
    assert not any(each.binned for each in small)
    large = [PixelCounts.of(piece) for piece in np.array_split(field, 3)]
    for found in (merged(small), merged(small[::-1]), merged(large), merged([merged(small[:29]), small[29]])):
        assert found.binned
        np.testing.assert_array_equal(found.values, whole.values)
        np.testing.assert_array_equal(found.counts, whole.counts)
        assert found.mean == pytest.approx(whole.mean, rel=1e-12)
        assert found.std == pytest.approx(whole.std, rel=1e-12)


@given(hnp.arrays("f4", st.integers(1, 40), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_the_centre_of_a_bin_is_near_its_pixels(values: Any) -> None:
    from cellcube.pixels.statistics import _binned

    centres, counts = _binned(values.astype(np.float64), None)
    assert (np.diff(centres) > 0).all()
    nearest = centres[np.abs(centres[:, None] - values.astype(np.float64)).argmin(0)]
    assert (np.abs(nearest - values) <= np.maximum(2.0**-13 * np.abs(values), 2.0**-126)).all()
    again, same = _binned(centres, counts)
    np.testing.assert_array_equal(again, centres)
    np.testing.assert_array_equal(same, counts)


def test_integers_are_never_binned() -> None:
    values = np.arange(3_000_000, dtype="uint32") * 1000
    counts = merged([PixelCounts.of(values[::2]), PixelCounts.of(values[1::2])])
    assert not counts.binned
    assert counts.percentiles((0, 50, 100)) == (0, np.median(values), values[-1])
    assert merged([counts, PixelCounts.of(np.array([0.5]))]).binned


def test_booleans_and_shapes() -> None:
    counts = PixelCounts.of(np.array([[True, False], [True, True]]))
    assert (counts.values.tolist(), counts.counts.tolist(), counts.mean) == ([0, 1], [1, 3], 0.75)


def test_no_pixels() -> None:
    for empty in (PixelCounts.of(np.zeros((0, 3), "uint16")), PixelCounts.of(np.zeros(0, "f4")), merged([])):
        assert empty.count == 0
        assert np.isnan([empty.mean, empty.std]).all()
        with pytest.raises(ValueError, match="no pixels"):
            empty.percentiles((50,))
    one = PixelCounts.of(np.array([3], "uint8"))
    assert merged([merged([]), one]).mean == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        PixelCounts.of(np.array([1, bad]))


def test_pixels_that_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="complex"):
        PixelCounts.of(np.zeros(3, complex))
    with pytest.raises(ValueError, match="beyond what a float32 holds"):
        PixelCounts.of(np.array([0, -1e300]))


def test_counts_travel() -> None:
    counts = PixelCounts.of(np.random.default_rng(0).integers(0, 65_536, 3_000_000, "uint16"))
    text = pickle.dumps(counts)
    assert len(text) < 1_100_000
    again = pickle.loads(text)
    assert again.percentiles((1, 99)) == counts.percentiles((1, 99))


@given(intensities() | floats(), st.floats(-70_000, 70_000), st.floats(0, 70_000))
def test_share_outside(values: Any, low: float, span: float) -> None:
    high = low + span
    exact = values.astype(np.float64)
    expected = ((exact < low) | (exact > high)).sum() / len(exact)
    fresh, counted = Sample(values), Sample(values)
    counted.percentiles((50,))
    assert fresh.outside(low, high) == counted.outside(low, high) == expected
