"""Normalization: exact percentiles, and pixels from which the intensities can be found again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellcube.errors import UserFunctionError
from cellcube.functions import UserFunction
from cellcube.pixels import Normalization, exact_percentiles, stored_scale
from cellcube.spec import MinMax, Percentile, Range, Raw

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
OUTPUTS = ["uint8", "uint16", "float16", "float32"]


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


@given(intensities(), st.lists(st.floats(0, 100), min_size=1, max_size=4).map(sorted))
def test_percentiles_of_integers_are_numpys_to_the_last_bit(values: Any, percentiles: list[float]) -> None:
    found = exact_percentiles(values, tuple(percentiles))
    assert found == tuple(np.percentile(values.astype(np.float64), percentiles).tolist())
    assert all(type(value) is float for value in found)


@pytest.mark.parametrize("kind", INTEGERS[:6])
def test_percentiles_over_the_whole_range(kind: str) -> None:
    limits = np.iinfo(kind)
    values = np.random.default_rng(0).integers(limits.min, limits.max, 5000, kind, endpoint=True)
    values[:2] = limits.min, limits.max
    expected = np.percentile(values.astype(np.float64), [0, 1, 50, 99.9, 100])
    assert exact_percentiles(values.reshape(50, 100), (0, 1, 50, 99.9, 100)) == tuple(expected.tolist())


@given(
    hnp.arrays("f4", st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)),
    st.lists(st.floats(0, 100), min_size=1, max_size=3).map(sorted),
)
def test_percentiles_of_floats(values: Any, percentiles: list[float]) -> None:
    expected = np.percentile(values.astype(np.float64), percentiles)
    assert exact_percentiles(values, tuple(percentiles)) == tuple(expected.tolist())


def normalization(normalizer: Any, dtype: str, channels: int = 1) -> Normalization:
    return Normalization((normalizer,) * channels, np.dtype(dtype))


normalizers = st.one_of(
    st.just(MinMax()),
    st.builds(lambda low, high: Percentile(low=low, high=high), st.floats(0, 49), st.floats(50, 100)),
    st.builds(lambda low, span: Range(low=low, high=low + span), st.floats(-100, 66_000), st.floats(1, 70_000)),
)


def half_a_step(stored: Any, dtype: str) -> Any:
    """How far rounding to `dtype` moves a value in 0..scale; a little more, for the arithmetic before it."""
    arithmetic = 4 * 2.0**-24 * stored_scale(dtype)
    if np.dtype(dtype).kind == "u":
        return 0.5 + arithmetic
    return np.spacing(stored.astype(dtype)).astype(np.float64) / 2 + arithmetic


@given(
    st.sampled_from(["uint8", "uint16", "int16", "float32", "uint32", "float64"]),
    st.sampled_from(OUTPUTS),
    normalizers,
    st.integers(0, 2**32),
    st.integers(0, 65_000),
)
def test_can_be_undone_within_half_a_step(source: str, dtype: str, normalizer: Any, seed: int, base: int) -> None:
    kind = np.dtype(source)
    limit = min(np.iinfo(kind).max, 2**20) if kind.kind in "iu" else 2**20
    width = np.random.default_rng(seed).choice([3, 50, 2000, 10**6])
    values = np.random.default_rng(seed).uniform(base, base + width, (1, 2, 5, 6))
    crop = np.minimum(values, limit).astype(kind)
    pixels, low, high = normalization(normalizer, dtype)(crop, None, {})
    assert pixels.dtype == dtype
    scale = stored_scale(dtype)
    if high[0] <= low[0]:
        assert not pixels.any()
        return
    exact = scale * np.clip((crop.astype(np.float64) - low[0]) / (high[0] - low[0]), 0, 1)
    assert (np.abs(pixels.astype(np.float64) - exact) <= half_a_step(pixels, dtype)).all()
    back = low[0] + pixels.astype(np.float64) / scale * (high[0] - low[0])
    within = (crop >= low[0]) & (crop <= high[0])
    step = half_a_step(pixels, dtype) / scale * (high[0] - low[0])
    assert (np.abs(back - crop)[within] <= (step + 1e-9 * np.abs(crop))[within]).all()


@pytest.mark.parametrize("dtype", OUTPUTS)
def test_ends_are_stored_as_the_ends(dtype: str) -> None:
    crop = np.array([[[[10, 60, 110]]]], "uint16")
    pixels, low, high = normalization(MinMax(), dtype)(crop, None, {})
    assert (low[0], high[0]) == (10, 110)
    assert (pixels[0, 0, 0, 0], float(pixels[0, 0, 0, 2])) == (0, pytest.approx(stored_scale(dtype), rel=1e-6))


def test_each_channel_has_its_own_normalizer() -> None:
    crop = np.stack([np.arange(8).reshape(2, 2, 2), 10 * np.arange(8).reshape(2, 2, 2)]).astype("uint8")
    both = Normalization((MinMax(), Range(low=0, high=140)), np.dtype("float32"))
    pixels, low, high = both(crop, None, {})
    assert (low.tolist(), high.tolist()) == ([0, 0], [7, 140])
    np.testing.assert_allclose(pixels[1], crop[1] / 140)
    np.testing.assert_allclose(pixels[0], crop[0] / 7, rtol=1e-6)


@pytest.mark.parametrize("normalizer", [MinMax(), Percentile()])
@pytest.mark.parametrize("dtype", OUTPUTS)
@pytest.mark.parametrize("value", [0, 7, 65_535])
def test_constant_crop_is_zero(normalizer: Any, dtype: str, value: int) -> None:
    pixels, low, high = normalization(normalizer, dtype)(np.full((1, 1, 4, 4), value, "uint16"), None, {})
    assert not pixels.any()
    assert (low[0], high[0]) == (value, value)


def test_statistics_are_those_of_the_inside_and_the_outside_is_zero() -> None:
    crop = np.full((1, 1, 1, 4), 1000, "uint16")
    crop[0, 0, 0, :2] = 10, 30
    inside = np.array([[[True, True, False, False]]])
    pixels, low, high = normalization(MinMax(), "uint8")(crop, inside, {})
    assert (low[0], high[0], pixels.ravel().tolist()) == (10, 30, [0, 255, 0, 0])
    ranged, _, _ = normalization(Range(low=0, high=1000), "float32")(crop, inside, {})
    assert ranged.ravel().tolist() == pytest.approx([0.01, 0.03, 0, 0])


def test_raw_keeps_the_pixels() -> None:
    crop = np.array([[[[0, 300, 65_535]]]], "uint16")
    raw = normalization(Raw(), "uint16")
    pixels, low, high = raw(crop, np.array([[[True, True, False]]]), {})
    assert raw.keeps_raw
    assert pixels.ravel().tolist() == [0, 300, 0]
    # So that the formula that undoes a normalization holds here too.
    assert (low[0] + 300 / stored_scale("uint16") * (high[0] - low[0])) == pytest.approx(300)


def test_the_crop_given_is_not_changed() -> None:
    crop = np.arange(16, dtype="float32").reshape(1, 1, 4, 4)
    before = crop.copy()
    inside = np.zeros((1, 4, 4), bool)
    inside[0, 0] = True

    def spoil(pixels: Any, cell: Any) -> Any:
        pixels[:] = 0.5
        return pixels

    for each in (MinMax(), Percentile(), Raw()):
        normalization(each, "float32")(crop, inside, {})
    Normalization(UserFunction.of(spoil), np.dtype("float32"))(crop, inside, {})
    np.testing.assert_array_equal(crop, before)


def by_function(function: Any, dtype: str = "uint8") -> Any:
    crop = np.arange(8, dtype="uint16").reshape(2, 1, 2, 2)
    return Normalization(UserFunction.of(function), np.dtype(dtype))(crop, None, {"cell_id": "c7", "well": "B03"})


def test_user_function() -> None:
    pixels, low, high = by_function(lambda p, cell: p + (0.6 if cell["well"] == "B03" else 0))
    assert pixels.dtype == np.uint8
    assert pixels.ravel().tolist() == list(range(1, 9))
    assert np.isnan([*low, *high]).all()


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda p, c: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda p, c: c["plate"], "raised KeyError: 'plate'"),
        (lambda p, c: p[0], r"shape \(1, 2, 2\); \(c, z, y, x\) = \(2, 1, 2, 2\) is needed"),
        (lambda p, c: None, "returned an array of shape"),
        (lambda p, c: p.astype(str), "numbers are needed"),
        (lambda p, c: p * 1j, "numbers are needed"),
        (lambda p, c: p * np.nan, "not finite"),
        (lambda p, c: p * 100, "from 0 to 700, which uint8 cannot hold"),
        (lambda p, c: p - 1.0, "from -1.0 to 6.0, which uint8 cannot hold"),
    ],
)
def test_user_function_that_fails(function: Any, says: str) -> None:
    with pytest.raises(UserFunctionError, match=says) as caught:
        by_function(function)
    assert caught.value.cell_id == "c7"


def test_user_function_that_overflows_half_floats() -> None:
    with pytest.raises(UserFunctionError, match="which float16 cannot hold"):
        by_function(lambda p, c: p * 70_000.0, "float16")
