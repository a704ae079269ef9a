"""The map from crops to fields of view, against its definition as a product of matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube.errors import VoxelSizeError
from cellcube.pixels.geometry import Geometry, scale_between

NAN = math.nan
SIZES = st.floats(0.1, 10)
GEOMETRIES = st.builds(
    Geometry,
    origin=st.tuples(*[st.floats(-100, 1000)] * 3),
    scale=st.tuples(*[st.floats(0.2, 8)] * 3),
    rotation=st.one_of(st.floats(-360, 360), st.sampled_from([0.0, 90.0, -90.0, 180.0, 45.0])),
    flip_y=st.booleans(),
    flip_x=st.booleans(),
    voxel_size=st.tuples(*[st.one_of(SIZES, st.just(NAN))] * 3),
)


def product(geometry: Geometry) -> Any:
    """``D_fov⁻¹ · R · F · D_crop`` written out."""
    crop = np.array(geometry.voxel_size)
    scale = np.array(geometry.scale)
    field = crop / scale
    unknown = np.isnan(crop)
    unknown[1:] |= unknown[1:].any()
    field[unknown], crop[unknown] = 1, scale[unknown]
    angle = math.radians(geometry.rotation)
    rotation = np.eye(3)
    # Columns are crop axes: y goes to (y: cos, x: -sin), x goes to (y: sin, x: cos).
    rotation[1:, 1] = math.cos(angle), -math.sin(angle)
    rotation[1:, 2] = math.sin(angle), math.cos(angle)
    flips = np.diag([1, -1 if geometry.flip_y else 1, -1 if geometry.flip_x else 1])
    return np.diag(1 / field) @ rotation @ flips @ np.diag(crop)


@given(GEOMETRIES)
def test_the_matrix_is_the_product(geometry: Geometry) -> None:
    np.testing.assert_allclose(geometry.linear, product(geometry), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(geometry.inverse, np.linalg.inv(product(geometry)), rtol=1e-7, atol=1e-9)
    homogeneous = geometry.matrix
    np.testing.assert_array_equal(homogeneous[:3, :3], geometry.linear)
    np.testing.assert_array_equal(homogeneous[:3, 3], geometry.origin)
    np.testing.assert_array_equal(homogeneous[3], [0, 0, 0, 1])


@given(GEOMETRIES, st.lists(st.tuples(*[st.floats(-200, 200)] * 3), max_size=5))
def test_there_and_back(geometry: Geometry, points: Any) -> None:
    points = np.array(points, float).reshape(-1, 3)
    there = geometry.to_fov(points)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ geometry.matrix.T
    np.testing.assert_allclose(there, homogeneous[:, :3], atol=1e-6)
    np.testing.assert_allclose(geometry.to_crop(there), points, atol=1e-6)
    for point, place in zip(points, there, strict=True):
        assert geometry.to_fov(point).shape == (3,)
        np.testing.assert_allclose(geometry.to_fov(point), place, atol=1e-9)


@given(GEOMETRIES)
def test_in_um_nothing_is_sheared_or_stretched(geometry: Geometry) -> None:
    matrix = geometry.matrix_um
    unknown = np.isnan(geometry.fov_voxel_size)
    assert np.isnan(matrix[:3][unknown]).all()
    assert np.isfinite(matrix[:3][~unknown]).all()
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])
    if not unknown[1:].any():
        y, x = matrix[1:3, 1], matrix[1:3, 2]
        assert np.linalg.norm(y) == pytest.approx(geometry.voxel_size[1])
        assert np.linalg.norm(x) == pytest.approx(geometry.voxel_size[2])
        assert y @ x == pytest.approx(0, abs=1e-9)
        angle = math.degrees(math.atan2(x[0], x[1])) + (180 if geometry.flip_x else 0)
        assert (angle - geometry.rotation + 180) % 360 == pytest.approx(180, abs=1e-6)


def test_rotation_is_clockwise_as_images_are_shown() -> None:
    np.testing.assert_array_equal(
        Geometry((0, 10, 20), rotation=90).to_fov([[0, 0, 1], [0, 1, 0], [2, 0, 0]]),
        [[0, 11, 20], [0, 10, 19], [2, 10, 20]],
    )
    y, x = Geometry((0, 0, 0), rotation=30).to_fov([0, 0, 1])[1:]
    assert (y, x) == (pytest.approx(0.5), pytest.approx(math.sqrt(3) / 2))
    # Twice as tall as wide: one voxel along x is half a voxel along y.
    tall = Geometry((0, 0, 0), rotation=90, voxel_size=(NAN, 2.0, 1.0))
    np.testing.assert_array_equal(tall.to_fov([0, 0, 1]), [0, 0.5, 0])


def test_without_rotation_it_is_exact() -> None:
    geometry = Geometry((1.0, 2.0, 3.0), (0.3, 0.7, 1.1), 0.0, False, True, (0.29, 0.1083, 0.65))
    np.testing.assert_array_equal(geometry.linear, np.diag([0.3, 0.7, -1.1]))
    assert not np.signbit(geometry.linear).sum() - 1
    np.testing.assert_array_equal(Geometry((1, 2, 3)).matrix, [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def test_mirroring_is_of_the_crop() -> None:
    plain = Geometry((0, 5, 5), rotation=30)
    mirrored = Geometry((0, 5, 5), rotation=30, flip_x=True)
    np.testing.assert_allclose(mirrored.to_fov([0, 2, 3]), plain.to_fov([0, 2, -3]))


@given(GEOMETRIES, st.tuples(*[st.integers(1, 50)] * 3))
def test_the_outline_holds_all_corners(geometry: Geometry, shape: tuple[int, int, int]) -> None:
    corners = np.stack(np.meshgrid(*[(-0.5, size - 0.5) for size in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    places = geometry.to_fov(corners)
    low, high = geometry.outline(shape)
    np.testing.assert_allclose(low, places.min(axis=0), atol=1e-6)
    np.testing.assert_allclose(high, places.max(axis=0), atol=1e-6)


@given(GEOMETRIES)
def test_columns_and_back(geometry: Geometry) -> None:
    row = geometry.columns(full=True)
    assert list(row) == [
        *("origin_z", "origin_y", "origin_x", "scale_z", "scale_y", "scale_x", "rotation", "flip_y", "flip_x"),
        *("voxel_size_z", "voxel_size_y", "voxel_size_x"),
    ]
    assert repr(Geometry.from_columns(row)) == repr(geometry)
    stored = {name: np.array([value])[0] for name, value in row.items()}
    assert repr(Geometry.from_columns(stored)) == repr(geometry)


def test_columns_of_crops_that_keep_voxels() -> None:
    geometry = Geometry((0.0, -3.0, 7.0), voxel_size=(NAN, 0.5, 0.5))
    row = geometry.columns(full=False)
    assert {name: (value, type(value)) for name, value in row.items() if name.startswith("origin")} == {
        "origin_z": (0, int),
        "origin_y": (-3, int),
        "origin_x": (7, int),
    }
    assert set(row) == {f"{name}_{axis}" for name in ("origin", "voxel_size") for axis in "zyx"}
    assert repr(Geometry.from_columns(row)) == repr(geometry)
    assert Geometry.from_columns({"origin_z": 0, "origin_y": 1, "origin_x": 2}).is_plain


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((0, 0.5, 0)),
        Geometry((0, 0, 0), (1, 2, 2)),
        Geometry((0, 0, 0), rotation=90),
        Geometry((0, 0, 0), flip_y=True),
    ],
)
def test_columns_are_not_left_out_where_they_tell(geometry: Geometry) -> None:
    with pytest.raises(ValueError, match="needs all columns"):
        geometry.columns(full=False)


def test_scale_between() -> None:
    assert scale_between((1.0, 0.5, 0.25), None) == (1, 1, 1)
    assert scale_between((NAN, NAN, NAN), None) == (1, 1, 1)
    assert scale_between((1.0, 0.5, 0.25), (2.0, 0.5, 0.5)) == (2, 1, 2)
    assert scale_between((NAN, 0.5, 0.25), (None, 0.5, 0.5)) == (1, 1, 2)
    assert scale_between((NAN, 0.5, 0.25), (2.0, 0.5, 0.5), planes=1) == (1, 1, 2)
    assert scale_between((1.0, 0.325, 0.325), (1.0, 0.32500001, 0.32500001)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("given_size", "letter"), [((NAN, 1.0, 1.0), "z"), ((1.0, NAN, 1.0), "y"), ((1.0, 1.0, NAN), "x")]
)
def test_an_unknown_voxel_size_cannot_be_changed(given_size: Any, letter: str) -> None:
    with pytest.raises(VoxelSizeError, match=f"along {letter} is unknown.*voxel_size_{letter}"):
        scale_between(given_size, (2.0, 2.0, 2.0), planes=5)
