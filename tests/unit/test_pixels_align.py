"""How cells are turned and mirrored, against scikit-image and against the resampled crops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops

from cellcube.errors import CellError, VoxelSizeError
from cellcube.pixels.align import extent_along, major_axis_angle, skew_flips
from cellcube.pixels.resample import place_sampling

NAN = math.nan
SPACINGS = st.tuples(st.floats(0.2, 3), st.floats(0.2, 3))
LABELS = arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))).filter(
    lambda each: each.any()
)


def ellipse(angle: float, spacing: tuple[float, float] = (1.0, 1.0), size: int = 101, planes: int = 1) -> Any:
    """An ellipse of half axes 30 and 12, the longer at `angle` from x towards y, in the middle."""
    y, x = np.indices((size, size)) - size // 2
    y, x = y * spacing[0], x * spacing[1]
    turn = math.radians(angle)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return np.repeat(((along / 30) ** 2 + (across / 12) ** 2 <= 1)[None], planes, axis=0)


@given(LABELS, st.floats(0.2, 3))
def test_angle_as_the_orientation_of_scikit_image(inside: Any, size: float) -> None:
    # Theirs is of voxels without size, which is another direction where voxels are not square.
    spacing = (size, size)
    flat = inside.any(axis=0)
    (region,) = regionprops(flat.astype(int), spacing=spacing)
    largest, smallest = region.inertia_tensor_eigvals
    assume(largest - smallest > 1e-6 * largest)
    # Theirs is from the first axis, y, to the second, x.
    expected = 90 - math.degrees(region.orientation)
    found = major_axis_angle(flat[None], spacing)
    assert -90 < found <= 90
    assert (found - expected + 90) % 180 == pytest.approx(90, abs=1e-3)


@pytest.mark.parametrize("angle", [-80, -45, -10, 0, 20, 45, 89, 90])
def test_angle_of_an_ellipse(angle: float) -> None:
    assert major_axis_angle(ellipse(angle)) == pytest.approx(angle, abs=0.5)
    tall = (0.7, 0.4)
    found = major_axis_angle(ellipse(angle, tall, 201), tall)
    assert (found - angle + 90) % 180 == pytest.approx(90, abs=0.5)


@given(LABELS, SPACINGS)
def test_all_planes_count(inside: Any, spacing: tuple[float, float]) -> None:
    height, width = spacing
    _, rows, columns = np.nonzero(inside)
    moments = np.cov([rows * height, columns * width], ddof=0) if len(rows) > 1 else np.zeros((2, 2))
    moments += np.diag([height**2, width**2]) / 12
    values, vectors = np.linalg.eigh(moments)
    assume(values[1] - values[0] > 1e-6 * values[1])
    expected = math.degrees(math.atan2(vectors[0, 1], vectors[1, 1]))
    assert (major_axis_angle(inside, spacing) - expected + 90) % 180 == pytest.approx(90, abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 5, 5)])
def test_no_direction_is_longer(shape: Any) -> None:
    assert major_axis_angle(np.ones(shape, bool)) == 0
    cross = np.zeros((1, 7, 7), bool)
    cross[0, 3] = cross[0, :, 3] = True
    assert major_axis_angle(cross) == 0


def test_bars() -> None:
    assert major_axis_angle(np.ones((1, 2, 9), bool)) == 0
    assert major_axis_angle(np.ones((1, 9, 2), bool)) == 90
    # Six tall voxels on top of each other, and as many pixels that are wider than the whole.
    assert major_axis_angle(np.ones((1, 6, 1), bool), (1.0, 8.0)) == 0
    assert major_axis_angle(np.ones((1, 6, 2), bool), (NAN, 8.0)) == 90


def test_a_label_without_voxels() -> None:
    with pytest.raises(CellError, match="no voxel"):
        major_axis_angle(np.zeros((1, 4, 4), bool))
    with pytest.raises(CellError, match="no voxel"):
        extent_along(np.zeros((1, 4, 4), bool), (0, 0, 0))
    assert skew_flips(np.ones((1, 4, 4)), np.zeros((1, 4, 4), bool)) == (False, False)


@given(LABELS, st.tuples(*[st.integers(0, 50)] * 3))
def test_extent_without_rotation_is_the_box(inside: Any, start: Any) -> None:
    places = np.argwhere(inside) + start
    first, last = places.min(axis=0), places.max(axis=0)
    centre, extent = extent_along(inside, start, 0.0, (NAN, 0.5, 0.5))
    assert centre == tuple((first + last) / 2)
    assert extent == tuple(last - first + 1)
    _, scaled = extent_along(inside, start, 0.0, (2.0, 0.5, 0.25), (1.0, 0.5, 0.5))
    assert scaled == pytest.approx((last - first + 1) * [2, 1, 0.5])
    _, kept = extent_along(inside, start, 0.0, (NAN, 0.5, 0.25), (1.0, 0.5, 0.5), planes=1)
    assert kept == pytest.approx((last - first + 1) * [1, 1, 0.5])
    with pytest.raises(VoxelSizeError):
        extent_along(inside, start, 0.0, (NAN, 0.5, 0.25), (1.0, 0.5, 0.5))


@given(
    LABELS,
    st.floats(-180, 180),
    st.sampled_from([None, (None, 0.6, 0.6), (1.5, 0.4, 1.0)]),
    st.tuples(st.booleans(), st.booleans()),
)
def test_the_box_along_the_axes_holds_every_voxel_and_no_more(
    inside: Any, rotation: float, voxel_size: Any, flips: tuple[bool, bool]
) -> None:
    start, field = (3, 40, 50), (1.0, 0.5, 0.3)
    centre, extent = extent_along(inside, start, rotation, field, voxel_size)
    frame = place_sampling(centre, extent, (9, 9, 9), (20, 100, 100), field, voxel_size, rotation, *flips).geometry()
    corners = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    places = frame.to_crop(((np.argwhere(inside) + start)[:, None] + corners).reshape(-1, 3))
    low, high = places.min(axis=0), places.max(axis=0)
    np.testing.assert_allclose(high - low, extent, atol=1e-6)
    # The crop keeps to the image's planes where z is not scaled, and to its voxels where nothing is turned either.
    linear = frame.matrix[:3, :3]
    whole = np.array([abs(linear[0, 0]) == 1, *[set(np.abs(linear[1:, 1:]).flat) <= {0.0, 1.0}] * 2])
    middle = (low + high) / 2
    np.testing.assert_allclose(middle[~whole], 4, atol=1e-6)
    assert (np.abs(middle - 4) <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.6, 0.4)])
@pytest.mark.parametrize("angle", [-70, -30, 0, 25, 60, 90])
def test_an_aligned_cell_lies_along_x(angle: float, spacing: tuple[float, float]) -> None:
    label = ellipse(angle, spacing, 181)
    field = (NAN, *spacing)
    rotation = major_axis_angle(label, spacing)
    centre, extent = extent_along(label, (0, 0, 0), rotation, field, (None, 1.0, 1.0))
    assert extent[1:] == pytest.approx((25, 61), abs=2)
    sampling = place_sampling(centre, extent, (1, 40, 80), label.shape, field, (None, 1.0, 1.0), rotation)
    crop = sampling.labels(label)
    assert major_axis_angle(crop) == pytest.approx(0, abs=1)
    assert sampling.holds(np.argwhere(label)).all()
    _, crop_extent = extent_along(crop, (0, 0, 0))
    assert crop_extent[1:] == pytest.approx((25, 61), abs=2)


@given(arrays("uint8", st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7))), st.data())
def test_flipped_twice_is_flipped_once(values: Any, data: Any) -> None:
    inside = data.draw(arrays(bool, values.shape))
    flip_y, flip_x = skew_flips(values, inside)
    axes = tuple(axis for axis, flip in ((1, flip_y), (2, flip_x)) if flip)
    assert skew_flips(np.flip(values, axes), np.flip(inside, axes)) == (False, False)


def test_what_lies_in_one_column_does_not_lean() -> None:
    values = np.ones((1, 7, 5), np.uint8)
    values[0, [1, 4], 3] = 6, 94
    assert skew_flips(values, np.ones(values.shape, bool), 0.0, (1.0, 1.5)) == (True, False)


@given(arrays("uint8", st.tuples(st.just(1), st.integers(2, 7), st.integers(2, 7))), SPACINGS)
def test_skewness_against_the_definition(values: Any, spacing: tuple[float, float]) -> None:
    inside = np.ones(values.shape, bool)
    weights = values.astype(float) - values.min()
    assume(weights.any())
    found = skew_flips(values, inside, 0.0, spacing)
    for axis, flip in zip((1, 2), found, strict=True):
        profile = weights.sum(axis=tuple({0, 1, 2} - {axis}))
        places = np.arange(len(profile))
        third = (profile * (places - (profile @ places) / profile.sum()) ** 3).sum()
        assert flip == (third < -1e-6 * profile.sum())


@pytest.mark.parametrize("rotation", [0.0, 35.0, -120.0, 90.0])
def test_after_mirroring_the_tail_is_towards_larger_positions(rotation: float) -> None:
    label = ellipse(20, size=121)
    y, x = np.indices((121, 121)) - 60
    # A bright spot, and a weak one 23 voxels away at an angle that is on no axis of these crops.
    spots = 20000 * np.exp(-((y - 3) ** 2 + (x - 9) ** 2) / 18) + 4000 * np.exp(-((y + 5) ** 2 + (x + 13) ** 2) / 18)
    bright = (10 + spots)[None].astype("uint16")
    flips = skew_flips(bright, label, rotation)
    sampling = place_sampling((0, 60, 60), None, (1, 80, 80), label.shape, (NAN, 1.0, 1.0), None, rotation, *flips)
    crop, mask = sampling.pixels(bright), sampling.labels(label)
    assert skew_flips(crop, mask) == (False, False)
    unflipped = place_sampling((0, 60, 60), None, (1, 80, 80), label.shape, (NAN, 1.0, 1.0), None, rotation)
    assert skew_flips(unflipped.pixels(bright), unflipped.labels(label)) == flips


def test_nothing_to_tell_the_ends_apart() -> None:
    inside = np.ones((1, 5, 6), bool)
    assert skew_flips(np.full((1, 5, 6), 7), inside) == (False, False)
    ends = np.zeros((1, 5, 6))
    ends[0, [0, 4]] = 1
    assert skew_flips(ends, inside) == (False, False)
    ends[0, 2, 2] = NAN
    assert skew_flips(ends, inside) == (False, False)
    # What is outside the label does not count.
    tail = np.zeros((1, 1, 9))
    tail[0, 0, [0, 6, 7]] = 1
    only = np.ones(tail.shape, bool)
    assert skew_flips(tail, only) == (False, True)
    only[0, 0, 0] = False
    assert skew_flips(tail, only) == (False, False)
