"""Intensities come back from what is stored, lazily; and what cannot be undone says why."""

from __future__ import annotations

from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cellcube.errors import ArgumentError
from cellcube.inverse import denormalize
from cellcube.pixels.normalize import Normalization, stored_scale
from cellcube.spec import (
    UNBOUNDED,
    Arcsinh,
    Log,
    MinMax,
    Percentile,
    Range,
    Raw,
    RobustZScore,
    TransmittedLight,
    ZScore,
)
from cellcube.spec.values import plain

OUTPUTS = ["uint8", "uint16", "float16", "float32"]


def dataset_of(crops: Any, methods: Any, dtype: str, along: str = "cell") -> xr.Dataset:
    """Crops (cell, c, z, y, x), normalized as a build does it."""
    made = Normalization(tuple(methods), np.dtype(dtype))
    found = [made(crop, [None] * crops.shape[1], {}) for crop in crops]
    rules = [plain(method) for method in methods]
    return xr.Dataset(
        {"cells": ((along, "c", "z", "y", "x"), np.stack([each.pixels for each in found]), {"normalization": rules})},
        coords={
            "c": [f"C{number}" for number in range(crops.shape[1])],
            "cell_id": (along, [f"c{number}" for number in range(len(crops))]),
            "norm_low": ((along, "c"), np.stack([each.low for each in found])),
            "norm_high": ((along, "c"), np.stack([each.high for each in found])),
        },
    )


def project(dataset: xr.Dataset, name: str, representation: str = "cells") -> xr.Dataset:
    kind, _, axis = name.partition("_")
    stored = dataset[representation]
    found = getattr(stored, kind)(axis, **({"dtype": "f8"} if kind in ("mean", "sum") else {})).astype(
        stored.dtype if kind in ("max", "min") else "float32"
    )
    found.attrs = {**stored.attrs, "projection": name, "representation": representation}
    return dataset.assign({name if representation == "cells" else f"{representation}_{name}": found})


METHODS = st.one_of(
    st.sampled_from([MinMax(), ZScore(), RobustZScore(), TransmittedLight(), Log()]),
    st.builds(lambda low, high: Percentile(low=low, high=high), st.floats(0, 40), st.floats(60, 100)),
    st.builds(lambda low, span: Range(low=low, high=low + span), st.floats(-100, 60_000), st.floats(1, 70_000)),
    st.builds(Arcsinh, cofactor=st.floats(1, 5000), offset=st.floats(-100, 1000)),
)


@given(
    st.lists(METHODS, min_size=1, max_size=3),
    st.sampled_from(OUTPUTS),
    st.sampled_from(["uint8", "uint16", "float32"]),
    st.integers(0, 2**32),
    st.sampled_from([0, 100, 65_000]),
)
def test_round_trip(methods: list[Any], dtype: str, kind: str, seed: int, base: int) -> None:
    if dtype.startswith("u"):
        methods = [each for each in methods if not isinstance(each, UNBOUNDED)] or [MinMax()]
    rng = np.random.default_rng(seed)
    values = rng.uniform(base, base + rng.choice([3, 50, 2000, 60_000]), (2, len(methods), 2, 6, 7))
    crops = np.minimum(values, np.iinfo(kind).max if kind.startswith("u") else 1e6).astype(kind)
    dataset = dataset_of(crops, methods, dtype)
    back = denormalize(dataset)
    assert back.dtype == np.float64
    for number, method in enumerate(methods):
        stored = dataset.cells.values[:, number].astype(np.float64) / stored_scale(dtype)
        low, high = (
            dataset[bound].values[:, number, None, None, None] * np.ones(stored.shape)
            for bound in ("norm_low", "norm_high")
        )
        crop, found = crops[:, number].astype(np.float64), back.values[:, number]
        if np.dtype(dtype).kind == "u":
            half = np.full(stored.shape, 0.5 / stored_scale(dtype))
        else:
            half = np.spacing(np.abs(stored.astype(dtype))).astype(np.float64) / 2
        half = half * (1 + 1e-6) + 1e-12
        tiny = 1e-9 * (1 + np.abs(crop))
        if method.method == "arcsinh":
            # What a step of the curve is in intensities: its slope at most.
            reach = method.cofactor * np.cosh(np.abs(stored) + half) * half
            assert (np.abs(found - crop) <= reach + tiny).all()
        elif method.method == "log":
            assert (np.abs(found - crop) <= np.exp(stored + half) * half + tiny).all()
        elif isinstance(method, UNBOUNDED):
            flat = high == low
            assert (found[flat] == low[flat]).all()
            assert (np.abs(found - crop) <= half * (high - low) + tiny)[~flat].all()
        else:
            below, above = (crop < low) | (high == low), (crop > high) & (high > low)
            np.testing.assert_allclose(found[below], low[below], rtol=1e-12, atol=1e-9)
            np.testing.assert_allclose(found[above], high[above], rtol=1e-12, atol=1e-9)
            inside = ~(below | above)
            assert (np.abs(found - crop) <= half * (high - low) + tiny)[inside].all()


@pytest.fixture
def crops() -> Any:
    return np.random.default_rng(0).gamma(2, 300, (6, 3, 4, 8, 9)).astype("uint16")


def test_what_is_kept(crops: Any) -> None:
    dataset = dataset_of(crops, [Percentile(), Arcsinh(), Log()], "float16")
    dataset["c"].attrs["long_name"] = "Channel name"
    back = denormalize(dataset)
    assert (back.name, back.dims, back.attrs) == ("cells", dataset.cells.dims, {"long_name": "intensity"})
    assert set(back.coords) == set(dataset.cells.coords)
    assert back["c"].attrs == {"long_name": "Channel name"}
    assert "normalization" in dataset.cells.attrs


def test_raw_pixels_come_back_as_they_are(crops: Any) -> None:
    dataset = project(dataset_of(crops, [Raw()] * 3, "uint16"), "sum_z")
    back = denormalize(dataset)
    assert (back.dtype, back.attrs) == (np.uint16, {"long_name": "intensity"})
    np.testing.assert_array_equal(back, crops)
    np.testing.assert_array_equal(denormalize(dataset, "sum_z"), crops.sum(2))
    assert "normalization" in dataset.cells.attrs


def unreadable(shape: tuple[int, ...], chunks: Any, dtype: Any) -> Any:
    """A dask array that raises where it is computed."""

    def fail(block: Any, block_info: Any = None) -> Any:
        raise AssertionError("something was read")

    return dask.array.zeros(shape, chunks=chunks, dtype=dtype).map_blocks(fail, dtype=dtype, meta=np.empty(0, dtype))


class Unread(xr.backends.BackendArray):
    """A variable of a file that must not be read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype = shape, np.dtype("float64")

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("something was read")


def test_nothing_is_read(crops: Any) -> None:
    dataset = dataset_of(crops, [Percentile(), Arcsinh(), Log()], "float16")
    pixels = xr.Variable(dataset.cells.dims, unreadable(crops.shape, (4, 3, 4, 8, 9), "float16"), dataset.cells.attrs)
    bounds = [
        xr.Variable(("cell", "c"), unreadable((6, 3), (5, 3), "float64")),
        xr.Variable(("cell", "c"), xr.core.indexing.LazilyIndexedArray(Unread((6, 3)))),
    ]
    for bound in bounds:
        lazy = dataset.assign(cells=pixels).assign_coords(norm_low=bound, norm_high=bound)
        back = denormalize(lazy)
        assert back.chunks is not None
        if bound is bounds[1]:
            assert back.chunks == ((4, 2), (3,), (4,), (8,), (9,))
        with pytest.raises(AssertionError, match="something was read"):
            back.compute()
    raw = dataset.assign(cells=pixels).assign_coords(norm_low=bounds[1], norm_high=bounds[1])
    raw.cells.attrs["normalization"] = [plain(Raw())] * 3
    assert denormalize(raw).chunks == pixels.chunks


@pytest.mark.parametrize("chunks", [(4, 3, 4, 8, 9), (1, 1, 4, 8, 9), (6, 2, 1, 3, 9)])
def test_lazy_is_the_same(crops: Any, chunks: Any) -> None:
    dataset = dataset_of(crops, [Percentile(), Arcsinh(), Log()], "float16")
    back = denormalize(dataset.chunk(dict(zip(dataset.cells.dims, chunks, strict=True))))
    assert back.chunks is not None
    xr.testing.assert_identical(back.compute(), denormalize(dataset))
    part = denormalize(dataset.chunk(cell=2).isel(cell=[5, 1], x=slice(3)))
    xr.testing.assert_identical(part.compute(), denormalize(dataset).isel(cell=[5, 1], x=slice(3)))


def test_along_time(crops: Any) -> None:
    dataset = dataset_of(crops, [MinMax()] * 3, "uint16", along="t")
    np.testing.assert_allclose(denormalize(dataset), crops, atol=np.ptp(crops) / 2**16)


@pytest.mark.parametrize("name", ["max_z", "min_y", "mean_x"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_projections(crops: Any, name: str, dtype: str) -> None:
    methods = [MinMax(), TransmittedLight(), Range(low=0, high=10_000)]
    back = denormalize(project(dataset_of(crops, methods, dtype), name), name)
    kind, _, axis = name.partition("_")
    expected = getattr(denormalize(dataset_of(crops, methods, dtype)), kind)(axis)
    np.testing.assert_allclose(back, expected, rtol=1e-5, atol=0.05)
    assert (back.name, back.dims) == (name, expected.dims)


@pytest.mark.parametrize("name", ["max_z", "min_x"])
def test_projections_of_curves(crops: Any, name: str) -> None:
    dataset = dataset_of(crops, [Arcsinh(), Log(), ZScore()], "float32")
    kind, _, axis = name.partition("_")
    back = denormalize(project(dataset, name), name)
    np.testing.assert_array_equal(back, getattr(denormalize(dataset), kind)(axis))


def test_another_representation_has_its_own_bounds(crops: Any) -> None:
    dataset = dataset_of(crops, [MinMax()] * 3, "float32")
    other = dataset_of(crops, [Range(low=-100, high=20_000)] * 3, "uint16")
    both = dataset.assign(near=other.cells).assign_coords(norm_low_near=other.norm_low, norm_high_near=other.norm_high)
    both.near.attrs["representation"] = "near"
    np.testing.assert_allclose(denormalize(both, "near"), crops, atol=0.5 * 20_100 / 65_535 + 1e-6)
    both = project(both, "max_z", "near")
    np.testing.assert_array_equal(denormalize(both, "near_max_z"), denormalize(both, "near").max("z"))
    shared = dataset.assign(near=dataset.cells)
    np.testing.assert_array_equal(denormalize(shared, "near"), denormalize(dataset))


def test_selected_channels(crops: Any) -> None:
    dataset = dataset_of(crops, [MinMax(), Arcsinh(), Log()], "float32")
    with pytest.raises(ArgumentError, match="2 channels, and the normalization of 3"):
        denormalize(dataset.isel(c=[0, 2]))
    named = dataset.assign(cells=dataset.cells.copy())
    for number, rule in enumerate(named.cells.attrs["normalization"]):
        rule["channel"] = f"C{number}"
    whole = denormalize(named)
    for selected in ([2, 0], [1], 1, slice(0, 2)):
        np.testing.assert_array_equal(denormalize(named.isel(c=selected)), whole.isel(c=selected))


FUNCTION = {"function": "mine:f", "digest": "0"}


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"method": "img_bg_sub", "sigma": 0.5, "scope": "cell"}, "channel 'C1': img_bg_sub smooths"),
        (FUNCTION, "channel 'C1': the function mine:f of the user's own"),
        ({"method": "sqrt"}, "channel 'C1': the method 'sqrt' is not one"),
    ],
)
def test_what_has_no_inverse(crops: Any, rule: Any, says: str) -> None:
    dataset = dataset_of(crops, [MinMax()] * 3, "float32")
    dataset.cells.attrs["normalization"][1] = rule
    with pytest.raises(ArgumentError, match=says):
        denormalize(dataset)
    dataset = project(dataset, "max_z")
    with pytest.raises(ArgumentError, match=says):
        denormalize(dataset, "max_z")


@pytest.mark.parametrize(
    ("method", "name", "says"),
    [
        (MinMax(), "sum_z", "channel 'C0': the sum of pixels normalized by minmax"),
        (Arcsinh(), "mean_z", "channel 'C0': the mean of pixels normalized by arcsinh"),
        (MinMax(), "sharpest", "channel 'C0': sharpest is a projection of the user's own"),
    ],
)
def test_projections_that_have_no_inverse(crops: Any, method: Any, name: str, says: str) -> None:
    dataset = project(dataset_of(crops, [method] * 3, "float32"), name if "_" in name else "max_z")
    dataset = dataset.rename({"max_z": name}) if "max_z" in dataset else dataset
    dataset[name].attrs["projection"] = name
    with pytest.raises(ArgumentError, match=says):
        denormalize(dataset, name)


def test_soft_masks_have_no_inverse(crops: Any) -> None:
    for method in (MinMax(), Raw()):
        dataset = dataset_of(crops, [method] * 3, "float32")
        dataset.cells.attrs["soft_mask"] = True
        with pytest.raises(ArgumentError, match="multiplied by a soft mask"):
            denormalize(dataset)


def test_datasets_that_lack_something(crops: Any) -> None:
    dataset = project(dataset_of(crops, [MinMax()] * 3, "uint8"), "mean_z")
    with pytest.raises(ArgumentError, match=r"no variable 'cell'. Did you mean 'cells'\?"):
        denormalize(dataset, "cell")
    with pytest.raises(ArgumentError, match="no 'norm_high'"):
        denormalize(dataset.drop_vars("norm_high"))
    with pytest.raises(ArgumentError, match="a mean of 'cells', which is not in the dataset"):
        denormalize(dataset.drop_vars("cells"), "mean_z")
    with pytest.raises(ArgumentError, match="'norm_low' does not say how it was normalized"):
        denormalize(dataset, "norm_low")
