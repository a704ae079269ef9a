"""Normalization against formulas written out in float64, and what user functions may return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cellcube.errors import CellError, UserFunctionError
from cellcube.functions import UserFunction
from cellcube.pixels.normalize import Normalization, Normalized, checked_pixels, smoothed, stored_scale
from cellcube.spec import (
    METHODS,
    UNBOUNDED,
    Arcsinh,
    BackgroundSubtracted,
    Log,
    MinMax,
    Percentile,
    Range,
    Raw,
    RobustZScore,
    TransmittedLight,
    ZScore,
)

OUTPUTS = ["uint8", "uint16", "float16", "float32"]
CLIPPED = ("percentile", "minmax", "range", "trans", "img_bg_sub")


def normalization(normalizer: Any, dtype: str, channels: int = 1) -> Normalization:
    return Normalization((normalizer,) * channels, np.dtype(dtype))


def oracle(normalizer: Any, crop: Any, inside: Any) -> tuple[Any, float, float]:
    """Normalized pixels before clipping and rounding, low and high, of one channel, as naively as can be."""
    pixels = crop.astype(np.float64)
    if normalizer.method == "img_bg_sub":
        axes = tuple(axis for axis in range(3) if crop.shape[axis] > 1)
        counted = inside.astype(float)
        blurred = scipy.ndimage.gaussian_filter(pixels * counted, normalizer.sigma, axes=axes)
        with np.errstate(invalid="ignore", divide="ignore"):
            pixels = blurred / scipy.ndimage.gaussian_filter(counted, normalizer.sigma, axes=axes)
        pixels[~inside] = 0
    values = pixels[inside]
    if normalizer.method == "arcsinh":
        return np.arcsinh((pixels - normalizer.offset) / normalizer.cofactor), 0, 1
    if normalizer.method == "log":
        return np.log(np.maximum(pixels + normalizer.offset, 1e-300)), 0, 1
    mad = scipy.stats.median_abs_deviation(values)
    low, high = {
        "percentile": lambda: np.percentile(values, (getattr(normalizer, "low", 0), getattr(normalizer, "high", 0))),
        "minmax": lambda: (values.min(), values.max()),
        "range": lambda: (normalizer.low, normalizer.high),
        "zscore": lambda: (values.mean(), values.mean() + values.std()),
        "robust_zscore": lambda: (np.median(values), np.median(values) + 1.4826 * mad),
        "trans": lambda: (values.mean() - 5 * values.std(), values.mean() + 5 * values.std()),
        "img_bg_sub": lambda: (np.median(values), values.max()),
    }[normalizer.method]()
    return (pixels - low) / (high - low) if high > low else np.zeros_like(pixels), float(low), float(high)


def step_of(stored: Any, dtype: str) -> Any:
    """How far apart stored values are."""
    if np.dtype(dtype).kind == "u":
        return 1.0
    return np.spacing(np.abs(stored.astype(dtype))).astype(np.float64)


normalizers = st.one_of(
    st.sampled_from([MinMax(), ZScore(), RobustZScore(), TransmittedLight(), BackgroundSubtracted(), Log()]),
    st.builds(BackgroundSubtracted, sigma=st.floats(0, 3)),
    st.builds(lambda low, high: Percentile(low=low, high=high), st.floats(0, 49), st.floats(50, 100)),
    st.builds(lambda low, span: Range(low=low, high=low + span), st.floats(-100, 66_000), st.floats(1, 70_000)),
    st.builds(Arcsinh, cofactor=st.floats(0.5, 5000), offset=st.floats(-100, 1000)),
)


@st.composite
def crops(draw: Any) -> tuple[Any, Any]:
    """A channel of some type, narrow or wide, and the counted voxels or None."""
    kind = np.dtype(draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "uint32", "float64", "bool"])))
    seed, base = draw(st.integers(0, 2**32)), draw(st.sampled_from([0, 100, 30_000, 65_000]))
    rng = np.random.default_rng(seed)
    shape = (draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 7, 40])), 9)
    limit = {"b": 1, "f": 2**20}.get(kind.kind) or min(int(np.iinfo(kind).max), 2**20)
    width = rng.choice([3, 50, 2000, 10**6])
    values = np.minimum(rng.uniform(base, base + width, shape), limit)
    inside = draw(st.sampled_from([None, rng.random(shape) < 0.4]))
    if inside is not None:
        inside[0, 0, 0] = True
    return values.astype(kind), inside


@given(crops(), normalizers, st.sampled_from(OUTPUTS))
def test_stored_pixels_are_those_of_the_formula(given_: Any, normalizer: Any, dtype: str) -> None:
    crop, inside = given_
    if isinstance(normalizer, UNBOUNDED) and dtype.startswith("u"):
        return
    found = normalization(normalizer, dtype)(crop[None], [inside], {})
    everywhere = np.ones(crop.shape, bool) if inside is None else inside
    exact, low, high = oracle(normalizer, crop, everywhere)
    tolerance = 1e-12 * max(abs(low), abs(high), 1)
    assert (found.low[0], found.high[0]) == (pytest.approx(low, abs=tolerance), pytest.approx(high, abs=tolerance))
    if found.high[0] - found.low[0] < 1e3 * tolerance:
        return  # what the oracle says is rounding
    if normalizer.method in CLIPPED:
        exact = np.clip(exact, 0, 1)
    else:
        exact = np.clip(exact, np.finfo(dtype).min, np.finfo(dtype).max)
    exact = np.where(everywhere, exact * stored_scale(dtype), 0)
    stored = found.pixels[0]
    assert stored.dtype == dtype
    # The bounds may differ in their last bits, and then a value halfway between two steps may go either way.
    slack = 1e-9 + 1e3 * tolerance / (high - low) * (np.abs(exact) + 1)
    if dtype.startswith("f"):
        slack = slack * step_of(stored, dtype) + 2 * tolerance / (high - low) * (1 + np.abs(exact))
    assert (np.abs(stored.astype(np.float64) - exact) <= step_of(stored, dtype) / 2 + slack).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("method", [Percentile(), MinMax(), Range(low=140.5, high=900), Arcsinh(), Log(), ZScore()])
def test_by_table_and_by_arithmetic_to_the_last_bit(method: Any, dtype: str) -> None:
    if isinstance(method, UNBOUNDED) and dtype == "uint8":
        return
    rng = np.random.default_rng(3)
    crop = (rng.gamma(2, 150, (1, 1, 64, 64)) + 100).astype("uint16")
    made = normalization(method, dtype)
    by_table = made(crop, [None], {})
    # Floats have no table.
    by_arithmetic = made(crop.astype("float32"), [None], {})
    np.testing.assert_array_equal(by_table.pixels, by_arithmetic.pixels)
    np.testing.assert_array_equal(by_table.clipped, by_arithmetic.clipped)
    exact = made(crop.astype("int64") - 0, [None], {})
    np.testing.assert_array_equal(by_table.pixels, exact.pixels)


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("fitted", [(10.5, 10.9), (200, 300), (-50, -20), (5000, 6000), (-10.5, 10_000.25), (50, 50)])
def test_fitted_bounds_anywhere(kind: str, fitted: tuple[float, float]) -> None:
    crop = np.random.default_rng(0).integers(0, 255, (1, 1, 40, 40)).astype(kind)
    made = normalization(Percentile(), "float16")
    found = made(crop, [None], {}, fitted=[fitted])
    low, high = fitted
    assert (found.low[0], found.high[0]) == fitted
    expected = np.clip((crop.astype(float) - low) / (high - low), 0, 1) if high > low else np.zeros(crop.shape)
    np.testing.assert_array_equal(found.pixels, expected.astype("float16"))
    assert found.clipped[0] == pytest.approx(((crop < low) | (crop > high)).mean(), abs=1e-12)


def test_fitted_is_for_normalizers_with_a_scope() -> None:
    crop = np.arange(16, dtype="uint8").reshape(1, 1, 4, 4).repeat(3, 0)
    made = Normalization((MinMax(), Range(low=0, high=15), Arcsinh()), np.dtype("float32"))
    found = made(crop, [None] * 3, {}, fitted=[(0, 30), (0, 30), (0, 30)])
    assert (found.high.tolist(), found.pixels[0].max(), found.pixels[1].max()) == ([30, 15, 1], 0.5, 1)


@pytest.mark.parametrize("dtype", OUTPUTS)
def test_ends_are_stored_as_the_ends(dtype: str) -> None:
    crop = np.array([[[[10, 60, 110]]]], "uint16")
    found = normalization(MinMax(), dtype)(crop, [None], {})
    assert (found.low[0], found.high[0], found.clipped[0]) == (10, 110, 0)
    assert (found.pixels[0, 0, 0, 0], found.pixels[0, 0, 0, 2]) == (0, stored_scale(dtype))


def test_each_channel_has_its_own_normalizer_and_voxels() -> None:
    crop = np.stack([np.arange(8).reshape(2, 2, 2), 10 * np.arange(8).reshape(2, 2, 2)]).astype("uint8")
    both = Normalization((MinMax(), Range(low=0, high=140)), np.dtype("float32"))
    first = np.zeros((2, 2, 2), bool)
    first[0] = True
    found = both(crop, [first, None], {})
    assert (found.low.tolist(), found.high.tolist()) == ([0, 0], [3, 140])
    np.testing.assert_allclose(found.pixels[1], crop[1] / 140)
    np.testing.assert_allclose(found.pixels[0], np.where(first, crop[0] / 3, 0), rtol=1e-6)
    with pytest.raises(ValueError, match="zip"):
        both(crop, [None], {})


@pytest.mark.parametrize("method", [each for each in METHODS.values() if each not in (Range, Raw, Arcsinh, Log)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [0, 7, 65_535, 0.1])
def test_constant_crop_is_zero(method: Any, dtype: str, value: float) -> None:
    kind = "float32" if isinstance(value, float) else "uint16"
    found = normalization(method(), dtype)(np.full((1, 1, 40, 4), value, kind), [None], {})
    assert not found.pixels.any()
    assert (found.low[0], found.high[0], found.clipped[0]) == (pytest.approx(value), pytest.approx(value), 0)


def test_statistics_are_those_of_the_counted_and_the_rest_is_zero() -> None:
    crop = np.full((1, 1, 1, 4), 1000, "uint16")
    crop[0, 0, 0, :2] = 10, 30
    inside = np.array([[[True, True, False, False]]])
    found = normalization(MinMax(), "uint8")(crop, [inside], {})
    assert (found.low[0], found.high[0], found.pixels.ravel().tolist()) == (10, 30, [0, 255, 0, 0])
    ranged = normalization(Range(low=0, high=20), "float32")(crop, [inside], {})
    assert (ranged.pixels.ravel().tolist(), ranged.clipped[0]) == ([0.5, 1, 0, 0], 0.5)
    spoilt = crop.astype("float32")
    spoilt[~inside[None]] = np.nan
    for method in (MinMax(), BackgroundSubtracted(), Raw()):
        masked = normalization(method, "float32")(spoilt, [inside], {})
        assert masked.pixels.ravel()[2:].tolist() == [0, 0]
        assert np.isfinite(masked.pixels).all()


def test_smoothing_takes_nothing_from_outside() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 100, (5, 12, 13)).astype("uint8")
    everywhere = np.ones(pixels.shape, bool)
    np.testing.assert_allclose(smoothed(pixels, everywhere, 1.5), smoothed(pixels, None, 1.5), rtol=1e-12)
    expected = scipy.ndimage.gaussian_filter(pixels.astype(float), 1.5)
    np.testing.assert_allclose(smoothed(pixels, None, 1.5), expected, rtol=1e-12)
    inside = rng.random(pixels.shape) < 0.5
    brighter = np.where(inside, pixels, 255).astype("uint8")
    np.testing.assert_array_equal(smoothed(pixels, inside, 1.5), smoothed(brighter, inside, 1.5))
    np.testing.assert_allclose(smoothed(np.full_like(pixels, 9), inside, 1.5)[inside], 9)
    np.testing.assert_array_equal(smoothed(pixels[:1], None, 0), pixels[:1])


def test_share_of_clipped_voxels() -> None:
    crop = np.arange(1000, dtype="uint16").reshape(1, 1, 20, 50)
    share = {}
    for method in (Percentile(low=10, high=95), MinMax(), Range(low=100, high=899), ZScore(), Arcsinh(), Raw()):
        dtype = "uint16" if isinstance(method, Raw) else "float16"
        share[method.method] = normalization(method, dtype)(crop, [None], {}).clipped[0]
    assert share == {"percentile": 0.15, "minmax": 0, "range": 0.2, "zscore": 0, "arcsinh": 0, "none": 0}


def test_unbounded_values_are_clipped_to_what_the_type_holds() -> None:
    crop = np.array([[[[1000, 1001, 65_535, 0, 66_600]]]], "uint32")
    found = normalization(ZScore(), "float16")(crop, [None], {}, fitted=[(1000, 1000.9)])
    limit = float(np.finfo("float16").max)
    assert found.pixels.ravel().tolist() == pytest.approx([0, 1.111, limit, -1111, limit], rel=1e-3)
    assert found.clipped[0] == 2 / 5


@pytest.mark.parametrize("offset", [0.0, 1.0, -5.0])
def test_pixels_without_a_logarithm(offset: float) -> None:
    crop = np.array([[[[5, 6, 7]]], [[[5, -offset, 7]]]], "float32")
    made = normalization(Log(offset=offset), "float32", 2)
    with pytest.raises(CellError, match=r"Channel 1: a pixel is .* needs pixels above") as caught:
        made(crop + np.array([1, 0], "float32")[:, None, None, None], [None, None], {"cell_id": "c7"})
    assert caught.value.cell_id == "c7"
    assert caught.value.remedy is not None
    inside = np.array([[[False, False, True]]])
    assert made(crop, [inside, inside], {}).pixels[1].ravel().tolist() == pytest.approx([0, 0, np.log(7 + offset)])


def test_no_voxel_and_no_finite_voxel() -> None:
    crop = np.ones((2, 1, 3, 3), "float32")
    made = normalization(MinMax(), "float16", 2)
    with pytest.raises(CellError, match="Channel 1: there is no voxel") as caught:
        made(crop, [None, np.zeros((1, 3, 3), bool)], {"cell_id": "c7"})
    assert caught.value.cell_id == "c7"
    crop[0, 0, 1, 1] = np.inf
    with pytest.raises(CellError, match=r"Channel 0: .* not finite"):
        made(crop, [None, None], {})


@pytest.mark.parametrize("dtype", OUTPUTS)
def test_weights_multiply_what_is_stored(dtype: str) -> None:
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 1000, (2, 1, 30, 30)).astype("uint16")
    weight = rng.random((1, 30, 30)).astype("float32")
    inside = weight > 0.3
    made = normalization(Percentile(low=5, high=95), dtype, 2)
    plain = made(crop, [inside, None], {})
    found = made(crop, [inside, None], {}, weights=[weight, None])
    np.testing.assert_array_equal(found.pixels[1], plain.pixels[1])
    low, high = plain.low[0], plain.high[0]
    assert (found.low[0], found.high[0], found.clipped[0]) == (low, high, plain.clipped[0])
    exact = stored_scale(dtype) * np.clip((crop[0].astype(float) - low) / (high - low), 0, 1) * weight * inside
    assert (np.abs(found.pixels[0] - exact) <= 0.5000001 * step_of(found.pixels[0], dtype)).all()
    raw = normalization(Raw(), dtype)(crop[:1] // 4, [inside], {}, weights=[weight])
    exact = (crop[0] // 4) * weight.astype(float) * inside
    assert (np.abs(raw.pixels[0] - exact) <= 0.5000001 * step_of(raw.pixels[0], dtype)).all()


def test_raw_keeps_the_pixels() -> None:
    crop = np.array([[[[0, 300, 65_535]]]], "uint16")
    raw = normalization(Raw(), "uint16")
    found = raw(crop, [np.array([[[True, True, False]]])], {})
    assert raw.keeps_raw
    assert not normalization(MinMax(), "uint16").keeps_raw
    assert (found.pixels.ravel().tolist(), found.clipped[0]) == ([0, 300, 0], 0)
    # So that the formula that undoes a normalization holds here too.
    assert (found.low[0] + 300 / stored_scale("uint16") * (found.high[0] - found.low[0])) == pytest.approx(300)


def test_raw_pixels_between_those_of_the_image() -> None:
    crop = np.array([[[[-3.7, 0.5, 1.5, 99.9, 300]]]], "float32")
    found = normalization(Raw(), "uint8")(crop, [None], {})
    assert (found.pixels.ravel().tolist(), found.clipped[0]) == ([0, 0, 2, 100, 255], 2 / 5)
    np.testing.assert_array_equal(normalization(Raw(), "float32")(crop, [None], {}).pixels, crop)
    half = normalization(Raw(), "float16")(np.array([[[[3, 65_535]]]], "uint16"), [None], {})
    assert half.pixels.ravel().tolist() == [3, np.finfo("float16").max]


def test_the_crop_given_is_not_changed() -> None:
    inside = np.zeros((1, 4, 4), bool)
    inside[0, 0] = True

    def spoil(pixels: Any, cell: Any) -> Any:
        pixels[:] = 0.5
        return pixels

    for kind in ("float32", "float64", "uint16"):
        crop = np.arange(16).astype(kind).reshape(1, 1, 4, 4)
        before = crop.copy()
        weight = [np.full((1, 4, 4), 0.5, "float32")]
        for method in METHODS.values():
            each = method(low=0, high=5) if method is Range else method()
            for counted in (None, inside):
                normalization(each, "float32")(crop, [counted], {}, weights=weight)
        Normalization(UserFunction.of(spoil), np.dtype("float32"))(crop, [inside], {})
        Normalization((UserFunction.of(spoil),), np.dtype("float32"))(crop, [None], {})
        np.testing.assert_array_equal(crop, before)


def by_function(function: Any, dtype: str = "uint8", *, one: bool = False, **options: Any) -> Normalized:
    crop = np.arange(8, dtype="uint16").reshape(2, 1, 2, 2)
    user = UserFunction.of(function)
    made = Normalization((user, Range(low=0, high=7)) if one else user, np.dtype(dtype))
    options.setdefault("counted", [None, None])
    return made(crop, cell={"cell_id": "c7", "well": "B03"}, **options)


def test_user_function() -> None:
    found = by_function(lambda p, cell: p + (0.6 if cell["well"] == "B03" else 0))
    assert found.pixels.dtype == np.uint8
    assert found.pixels.ravel().tolist() == list(range(1, 9))
    assert np.isnan([*found.low, *found.high, *found.clipped]).all()


def test_user_function_of_one_channel() -> None:
    found = by_function(lambda p, cell: p * 2.0 + (p.shape == (1, 2, 2)), "float32", one=True)
    assert found.pixels[0].ravel().tolist() == [1, 3, 5, 7]
    assert found.pixels[1].ravel().tolist() == pytest.approx([4 / 7, 5 / 7, 6 / 7, 1])
    assert np.isnan([found.low[0], found.high[0], found.clipped[0]]).all()
    assert (found.low[1], found.high[1], found.clipped[1]) == (0, 7, 0)


@pytest.mark.parametrize("one", [True, False])
def test_user_function_sees_no_uncounted_voxel_and_stores_none(one: bool) -> None:
    inside = np.array([[[True, False], [True, True]]])
    weight = np.full((1, 2, 2), 0.5, "float32")
    seen = []

    def function(pixels: Any, cell: Any) -> Any:
        seen.append(pixels.copy())
        return pixels + 3.0

    found = by_function(function, one=one, counted=[inside, None], weights=[weight, None])
    assert np.ravel(seen)[:4].tolist() == [0, 0, 2, 3]
    # 3, 5 and 6, halved and then rounded to even.
    assert found.pixels[0].ravel().tolist() == [2, 0, 2, 3]


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
    assert caught.value.message.startswith("normalize: ")


def test_user_function_of_one_channel_that_fails() -> None:
    with pytest.raises(UserFunctionError, match=r"shape \(2, 2\); \(1, 2, 2\) is needed") as caught:
        by_function(lambda p, c: p[0], one=True)
    assert caught.value.cell_id == "c7"


def test_user_function_that_overflows_half_floats() -> None:
    with pytest.raises(UserFunctionError, match="which float16 cannot hold"):
        by_function(lambda p, c: p * 70_000.0, "float16")


def test_pixels_of_other_stages_are_checked_alike() -> None:
    kept = checked_pixels(np.array([[0.4, 2.6]]), (1, 2), np.dtype("uint8"), "module:f", "c7", "project")
    assert (kept.dtype, kept.tolist()) == (np.uint8, [[0, 3]])
    with pytest.raises(UserFunctionError, match=r"^project: module:f returned an array of shape \(1,\)"):
        checked_pixels(np.zeros(1), (2,), np.dtype("uint8"), "module:f", "c7", "project")


@pytest.mark.parametrize("dtype", OUTPUTS)
@pytest.mark.parametrize("normalizer", [Percentile(), MinMax(), Range(low=100, high=400), TransmittedLight()])
@pytest.mark.parametrize("masked", [False, True])
def test_channels_together_are_those_one_by_one(normalizer: Any, dtype: str, masked: bool) -> None:
    rng = np.random.default_rng(5)
    crop = rng.poisson([[[[20]]], [[[150]]], [[[300]]], [[[7]]]], (4, 1, 40, 40)).astype("uint16")
    crop[3] = 9
    inside = rng.random(crop.shape[1:]) < 0.6 if masked else None
    fitted = [None, (120.5, 170.25), None, None]
    together = normalization(normalizer, dtype, 4)(crop, [inside] * 4, {}, fitted=fitted)
    for number, (channel, bounds) in enumerate(zip(crop, fitted, strict=True)):
        # Signed pixels are taken one channel at a time.
        alone = normalization(normalizer, dtype)(channel[None].astype("int32"), [inside], {}, fitted=[bounds])
        np.testing.assert_array_equal(together.pixels[number], alone.pixels[0])
        for name in ("low", "high", "clipped"):
            assert getattr(together, name)[number] == getattr(alone, name)[0]
