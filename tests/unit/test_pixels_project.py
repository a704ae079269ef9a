"""Projections, against NumPy on the part of the crop that is inside the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube.pixels.project import project, projection_axes, projection_dtype, projection_shape

NAMES = [f"{kind}_{axis}" for kind in ("max", "mean", "sum", "min") for axis in "zyx"]
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32"]


def random_pixels(random: np.random.Generator, shape: tuple[int, ...], kind: np.dtype[Any]) -> Any:
    if kind.kind == "f":
        return (random.random(shape) - 0.5).astype(kind)
    return random.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, endpoint=True)


@given(
    st.sampled_from(NAMES),
    st.sampled_from(DTYPES),
    st.integers(0, 2**32),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 2))] * 3),
)
def test_projection_of_the_inside(name: str, dtype: str, seed: int, parts: Any) -> None:
    # Before, inside and after the image along each axis.
    shape = tuple(sum(part) for part in parts)
    inside = tuple(slice(before, before + length) for before, length, _ in parts)
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    pixels = random_pixels(random, (2, *shape), kind)
    found = project(pixels, name, inside)  # type: ignore[arg-type]

    axis = "zyx".index(name[-1])
    cropped = pixels[(slice(None), *inside)].astype(np.float64)
    expected = np.zeros((2, *(size for number, size in enumerate(shape) if number != axis)))
    where = tuple(part for number, part in enumerate(inside) if number != axis)
    expected[(slice(None), *where)] = getattr(cropped, name[:-2])(axis=axis + 1)
    assert found.shape[1:] == projection_shape(name, shape)  # type: ignore[arg-type]
    assert found.dtype == projection_dtype(name, kind)
    if found.dtype.kind in "iu":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32"])
def test_sums_do_not_overflow(dtype: str) -> None:
    highest = np.iinfo(dtype).max
    pixels = np.full((1, 1000, 1, 1), highest, dtype)
    summed = project(pixels, "sum_z", (slice(0, 1000), slice(0, 1), slice(0, 1)))
    assert int(summed[0, 0, 0]) == 1000 * int(highest)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("max_z", "uint8", "uint8"),
        ("min_x", "float16", "float16"),
        ("mean_z", "uint16", "float32"),
        ("mean_z", "float16", "float32"),
        ("sum_z", "float16", "float32"),
        ("sum_z", "uint16", "uint32"),
        ("sum_z", "int8", "int32"),
        ("sum_z", "uint32", "uint64"),
        ("sum_z", "int32", "int64"),
    ],
)
def test_dtypes(name: str, dtype: str, expected: str) -> None:
    assert projection_dtype(name, np.dtype(dtype)) == expected


def test_what_remains_of_the_shape() -> None:
    assert [projection_shape(f"max_{axis}", (2, 3, 4)) for axis in "zyx"] == [(3, 4), (2, 4), (2, 3)]
    assert projection_shape("max_montage", (2, 3, 4)) == (5, 6)
    names = ["max_z", "mean_y", "sum_x", "min_montage"]
    assert [projection_axes(name) for name in names] == [("y", "x"), ("z", "x"), ("z", "y"), ("y", "x")]


def naive(pixels: Any, kind: str, axis: int, valid: Any) -> Any:
    """Voxel by voxel, in floats."""
    kept = [number for number in range(3) if number != axis]
    out = np.zeros((len(pixels), *(pixels.shape[1 + number] for number in kept)))
    for place in np.ndindex(*out.shape):
        index: list[Any] = [slice(None)] * 3
        index[kept[0]], index[kept[1]] = place[1:]
        ray = [float(value) for value, good in zip(pixels[place[0]][tuple(index)], valid[tuple(index)]) if good]  # noqa: B905
        if ray:
            out[place] = {"max": max, "min": min, "sum": sum, "mean": lambda each: sum(each) / len(each)}[kind](ray)
    return out


@given(
    st.sampled_from(["max", "mean", "sum", "min"]),
    st.sampled_from(["z", "y", "x", "montage"]),
    st.sampled_from(DTYPES),
    st.integers(0, 2**32),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.sampled_from([0.0, 0.2, 0.7, 1.0]),
)
def test_only_valid_voxels_count(kind: str, along: str, dtype: str, seed: int, shape: Any, share: float) -> None:
    random = np.random.default_rng(seed)
    pixels = random_pixels(random, (2, *shape), np.dtype(dtype))
    valid = random.random(shape) < share
    places = np.argwhere(valid)
    # The smallest box around the valid voxels, as a sampling has it.
    inside = tuple(
        slice(int(places[:, axis].min()), int(places[:, axis].max()) + 1) if len(places) else slice(0, 0)
        for axis in range(3)
    )
    name = f"{kind}_{along}"
    found = project(pixels, name, inside, valid)  # type: ignore[arg-type]
    if along == "montage":
        z, y, x = shape
        expected = np.zeros((2, y + z, x + z))
        expected[:, :y, :x] = naive(pixels, kind, 0, valid)
        expected[:, y:, :x] = naive(pixels, kind, 1, valid)
        expected[:, :y, x:] = naive(pixels, kind, 2, valid).transpose(0, 2, 1)
    else:
        expected = naive(pixels, kind, "zyx".index(along), valid)
    assert found.dtype == projection_dtype(name, pixels.dtype)
    assert found.shape[1:] == projection_shape(name, shape)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*NAMES, "max_montage", "mean_montage"])
def test_a_box_of_valid_voxels_is_that_box(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 1000, (2, 3, 5, 4)).astype("uint16")
    inside = (slice(0, 2), slice(1, 4), slice(2, 4))
    valid = np.zeros((3, 5, 4), bool)
    valid[inside] = True
    np.testing.assert_array_equal(project(pixels, name, inside, valid), project(pixels, name, inside))


def test_pixels_that_are_not_valid_may_be_anything() -> None:
    pixels = np.array([[[[np.nan, 2.0], [4.0, np.inf]]]], "float32")
    valid = np.isfinite(pixels[0])
    whole = (slice(0, 1), slice(0, 2), slice(0, 2))
    for kind in ("max", "min", "mean", "sum"):
        np.testing.assert_array_equal(project(pixels, f"{kind}_x", whole, valid), [[[2.0, 4.0]]])
