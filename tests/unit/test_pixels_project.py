"""Projections, against NumPy on the part of the crop that is inside the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube.pixels import project, projection_dtype, projection_shape

NAMES = [f"{kind}_{axis}" for kind in ("max", "mean", "sum", "min") for axis in "zyx"]
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32"]


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
    if kind.kind == "f":
        pixels = random.random((2, *shape)).astype(kind)
    else:
        pixels = random.integers(np.iinfo(kind).min, np.iinfo(kind).max, (2, *shape), kind, endpoint=True)
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
        np.testing.assert_allclose(found, expected, rtol=1e-6)


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
