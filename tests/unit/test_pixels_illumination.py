"""Illumination correction, against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube.pixels.illumination import Correction


@st.composite
def fields(draw: Any) -> Any:
    """A flat-field, a dark-field or one dark intensity, and a stack of planes of the field."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    flat = random.uniform(200, 60_000, shape).astype(draw(st.sampled_from(["uint16", "float32", "float64"])))
    dark = random.uniform(0, 150, shape) if draw(st.booleans()) else float(random.uniform(0, 150))
    dtype = draw(st.sampled_from(["uint8", "int16", "uint16", "uint32", "float32", "float64"]))
    pixels = (random.random((draw(st.integers(1, 3)), *shape)) * 250).astype(dtype)
    return flat, dark, pixels


@given(fields(), st.data())
def test_correction(given: Any, data: Any) -> None:
    flat, dark, pixels = given
    correction = Correction.of(flat, dark)
    light = flat.astype("float64") - dark
    told = (pixels.astype("float64") - dark) / (light / light.mean())
    before = pixels.copy()
    whole = correction.apply(pixels)
    assert whole.dtype == (np.float64 if pixels.dtype in (np.uint32, np.float64) else np.float32)
    # Values next to the dark level lose digits to it.
    np.testing.assert_allclose(whole, told, rtol=1e-5, atol=1e-4 * (light.mean() / light.min()))
    np.testing.assert_array_equal(pixels, before)
    # A part of the field gives that part of the result, bit for bit.
    top, left = (data.draw(st.integers(0, size - 1)) for size in flat.shape)
    bottom, right = (
        data.draw(st.integers(first + 1, size)) for first, size in zip((top, left), flat.shape, strict=True)
    )
    part = correction.apply(pixels[:, top:bottom, left:right], (top, left))
    np.testing.assert_array_equal(part, whole[:, top:bottom, left:right])


def test_the_flat_field_becomes_flat() -> None:
    random = np.random.default_rng(0)
    dark = random.integers(90, 110, (5, 6)).astype("uint16")
    flat = random.integers(1000, 2000, (5, 6)).astype("uint16")
    corrected = Correction.of(flat, dark).apply(flat[None])
    np.testing.assert_allclose(corrected, np.mean(flat.astype(float) - dark), rtol=1e-6)


def test_pixels_below_the_dark_field_become_negative() -> None:
    correction = Correction.of(np.full((2, 2), 300.0), 100)
    np.testing.assert_array_equal(correction.apply(np.full((1, 2, 2), 90, "uint8")), np.full((1, 2, 2), -10))


def test_an_even_flat_field_changes_nothing() -> None:
    pixels = np.arange(12, dtype="uint16").reshape(1, 3, 4)
    np.testing.assert_array_equal(Correction.of(np.full((3, 4), 7, "uint8")).apply(pixels), pixels)


def test_axes_of_one_are_dropped() -> None:
    flat = np.arange(1, 13, dtype="float32").reshape(1, 1, 3, 4)
    correction = Correction.of(flat, np.zeros((1, 3, 4)))
    assert correction.shape == (3, 4)
    assert correction.gain.dtype == np.float32
    np.testing.assert_array_equal(correction.gain, Correction.of(flat[0, 0]).gain)


def test_a_dark_field_of_one_pixel_is_an_intensity() -> None:
    flat = np.full((2, 2), 300.0)
    assert Correction.of(flat, np.array([[100]])).dark == Correction.of(flat, 100).dark == 100


def test_a_gain_is_divided_by_as_it_is() -> None:
    gain = np.array([[0.5, 2.0], [1.0, 4.0]])
    correction = Correction.by_gain(gain[None], 10.0)
    pixels = np.full((1, 2, 2), 50, np.uint16)
    np.testing.assert_allclose(correction.apply(pixels), (pixels - 10.0) / gain)
    with pytest.raises(ValueError, match="gain is not positive in 1 of 4 pixels, the first at y 0, x 1"):
        Correction.by_gain(np.array([[1.0, 0.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="The gain holds NaN"):
        Correction.by_gain(gain * np.nan)


FLAT = np.full((3, 4), 100.0)


@pytest.mark.parametrize(
    ("flat", "dark", "message"),
    [
        (FLAT[0], 0, r"The flat-field has the shape \(4,\)"),
        (np.ones((2, 3, 4)), 0, r"The flat-field has the shape \(2, 3, 4\)"),
        (np.ones((0, 4)), 0, r"The flat-field has the shape \(0, 4\)"),
        (FLAT, np.ones((4, 3)), r"flat-field has the shape \(y, x\) \(3, 4\), the dark-field \(4, 3\)"),
        (FLAT, np.ones((2, 3, 4)), r"The dark-field has the shape \(2, 3, 4\)"),
        (np.full((3, 4), np.nan), 0, "The flat-field holds NaN"),
        (FLAT, np.full((3, 4), np.inf), "The dark-field holds NaN"),
        (FLAT, float("nan"), "The dark-field is nan"),
        (FLAT, 100.0, "not brighter than the dark-field in 12 of 12 pixels, the first at y 0, x 0"),
        (np.pad(FLAT, 1), 0.0, "not brighter than the dark-field in 18 of 30 pixels"),
        (np.ones((3, 4)), 100.0, "such as BaSiC's, is a gain"),
    ],
)
def test_images_that_cannot_correct(flat: Any, dark: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Correction.of(flat, dark)


def test_a_gain_estimated_without_dark_field() -> None:
    """As its message says, a flat-field without dark signal serves once the dark-field is added, at any scale."""
    gain = np.linspace(0.5, 1.5, 12).reshape(3, 4)
    pixels = np.arange(12, dtype="uint16").reshape(1, 3, 4)
    np.testing.assert_allclose(Correction.of(gain * 1000 + 50, 50).apply(pixels), (pixels - 50.0) / gain, rtol=1e-6)


@pytest.mark.parametrize("start", [(-1, 0), (0, -1), (2, 0), (0, 2)])
def test_parts_beyond_the_field(start: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"not inside the flat-field, whose shape \(y, x\) is \(3, 4\)"):
        Correction.of(FLAT).apply(np.zeros((1, 2, 3)), start)
