"""Masks, against scipy's distances and scikit-image's dilation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from skimage.morphology import ball, dilation, disk

from cellcube.pixels.masks import weights_of, without_neighbours
from cellcube.spec import Mask


@st.composite
def insides(draw: Any) -> Any:
    """Label masks with at least one voxel."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    inside = random.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.5]))
    inside[tuple(random.integers(0, size) for size in shape)] = True
    return inside


SPACINGS = st.one_of(st.none(), st.tuples(*[st.sampled_from([0.1, 0.3, 1.0, 2.5])] * 3))


def true_distances(inside: Any, spacing: tuple[float, float, float] | None) -> Any:
    steps = (1.0, 1.0, 1.0) if spacing is None else tuple(size / spacing[2] for size in spacing)
    return distance_transform_edt(~inside, sampling=steps)


@given(insides())
def test_nothing_and_the_label(inside: Any) -> None:
    assert weights_of(Mask(method="none"), inside) is None
    kept = weights_of(Mask(method="label"), inside)
    assert kept is not None
    assert kept.dtype == bool
    np.testing.assert_array_equal(kept, inside)


@given(insides(), st.one_of(st.floats(0.01, 20), st.sampled_from([1.0, 2.0, 2**0.5, 3**0.5, 5**0.5])), SPACINGS)
def test_distances_are_euclidean(inside: Any, by: float, spacing: tuple[float, float, float] | None) -> None:
    away = true_distances(inside, spacing)
    dilated = weights_of(Mask(method="dilated", by=by), inside, spacing)
    assert dilated is not None
    assert dilated.dtype == bool
    np.testing.assert_array_equal(dilated, away <= by)
    soft = weights_of(Mask(method="soft", by=by), inside, spacing)
    assert soft is not None
    assert soft.dtype == np.float32
    told = np.where(away < by, 0.5 * (1 + np.cos(np.pi * away / by)), 0)
    np.testing.assert_allclose(soft, told, atol=1e-7)
    assert (soft[inside] == 1).all()
    assert (soft[away >= by] == 0).all()


@given(insides(), st.floats(0.5, 6))
def test_distances_to_every_voxel_of_the_label(inside: Any, by: float) -> None:
    """The definition, voxel by voxel."""
    members = np.argwhere(inside)
    near = [min(np.linalg.norm(members - voxel, axis=1)) <= by for voxel in np.argwhere(np.ones_like(inside))]
    kept = weights_of(Mask(method="dilated", by=by), inside)
    np.testing.assert_array_equal(kept, np.reshape(near, inside.shape))


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_a_dilated_label_is_one_dilated_by_a_disk(radius: int) -> None:
    random = np.random.default_rng(radius)
    rule = Mask(method="dilated", by=radius)
    plane = random.random((60, 70)) < 0.01
    kept = weights_of(rule, plane[None])
    assert kept is not None
    np.testing.assert_array_equal(kept[0], dilation(plane, disk(radius)))
    volume = random.random((12, 30, 30)) < 0.002
    np.testing.assert_array_equal(weights_of(rule, volume), dilation(volume, ball(radius)))


def test_a_soft_mask_falls_as_a_cosine() -> None:
    inside = np.zeros((1, 1, 7), bool)
    inside[0, 0, 0] = True
    soft = weights_of(Mask(method="soft", by=4), inside)
    assert soft is not None
    np.testing.assert_allclose(soft[0, 0], [1, 0.5 + 8**-0.5, 0.5, 0.5 - 8**-0.5, 0, 0, 0], atol=1e-7)


def test_distances_count_in_voxels_along_x() -> None:
    inside = np.zeros((5, 1, 9), bool)
    inside[2, 0, 4] = True
    kept = weights_of(Mask(method="dilated", by=3), inside, (1.0, 0.5, 0.5))
    assert kept is not None
    assert kept[:, 0, 4].tolist() == [False, True, True, True, False]
    assert kept[2, 0].tolist() == [False, *[True] * 7, False]


@pytest.mark.parametrize("spacing", [(np.nan, 0.5, 0.5), (0.5, np.nan, 0.5), (2, 2, np.nan), (0, 1, 1), (np.inf, 1, 1)])
def test_unknown_spacings_count_like_x(spacing: tuple[float, float, float]) -> None:
    inside = np.zeros((5, 5, 5), bool)
    inside[2, 2, 2] = True
    rule = Mask(method="dilated", by=2)
    np.testing.assert_array_equal(weights_of(rule, inside, spacing), weights_of(rule, inside))


@pytest.mark.parametrize("method", ["label", "dilated", "soft"])
def test_a_crop_without_the_label_keeps_nothing(method: str) -> None:
    rule = Mask(method=method, by=None if method == "label" else 3)  # type: ignore[arg-type]
    kept = weights_of(rule, np.zeros((2, 5, 5), bool))
    assert kept is not None
    assert kept.shape == (2, 5, 5)
    assert not kept.any()


def test_very_large_distances() -> None:
    inside = np.zeros((1, 3, 200), bool)
    inside[0, 0, 0] = True
    kept = weights_of(Mask(method="dilated", by=1000), inside)
    assert kept is not None
    assert kept.all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64"])
def test_without_neighbours(dtype: str) -> None:
    labels = np.array([[[0, 1, 2], [2, 3, 0]]], dtype)
    assert without_neighbours(labels, 2).tolist() == [[[True, False, True], [True, False, True]]]
    assert without_neighbours(labels, 70_000).tolist() == [[[True, False, False], [False, False, True]]]


def test_negative_labels_are_background() -> None:
    assert without_neighbours(np.array([[[-1, 0, 1, 2]]]), 1).tolist() == [[[True, True, True, False]]]
