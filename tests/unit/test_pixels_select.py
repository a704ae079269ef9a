"""Where a crop lies, against an oracle that pads the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube.errors import CellError
from cellcube.pixels.select import Box, Dropped, Placement, Window, cut, overreach, place_window, window_at

PAD = 40


@st.composite
def images(draw: Any) -> tuple[Any, Box, tuple[int, int, int]]:
    """An image, a box inside it, and the shape of a crop."""
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 14), st.integers(1, 14)))
    start = tuple(draw(st.integers(0, extent - 1)) for extent in size)
    stop = tuple(draw(st.integers(first + 1, extent)) for first, extent in zip(start, size, strict=True))
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 20), st.integers(1, 20)))
    # No pixel is 0, so padding is told from the image.
    image = np.arange(1, np.prod(size) + 1).reshape(size)
    return image, Box(start, stop), shape  # type: ignore[arg-type]


def oracle(image: Any, origin: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    padded = np.pad(image, PAD)
    return padded[tuple(slice(first + PAD, first + PAD + size) for first, size in zip(origin, shape, strict=True))]


def check_pixels(image: Any, window: Window) -> None:
    expected = oracle(image, window.origin, window.shape)
    crop = cut(image, window)
    np.testing.assert_array_equal(crop, expected)
    assert window.padded_fraction == pytest.approx((expected == 0).mean(), abs=1e-12)
    assert window.is_whole == (expected != 0).all()
    np.testing.assert_array_equal(crop[window.target], image[window.source])
    check_placement(image, window, expected)


def check_placement(image: Any, placement: Placement, expected: Any) -> None:
    """What a caller sees who does not know which kind of placement it is."""
    np.testing.assert_array_equal(placement.pixels(image), expected)
    out = np.full(placement.shape, -1)
    assert placement.pixels(image, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(placement.labels(image), expected)
    inside = placement.inside_image()
    assert (inside is None) == placement.is_whole
    assert placement.valid() is None
    if inside is not None:
        np.testing.assert_array_equal(inside, expected != 0)
    # Every voxel of the image that the crop shows is held, and no other.
    voxels = np.argwhere(np.ones(image.shape, bool))
    held = placement.holds(voxels)
    assert set(image[tuple(voxels[held].T)]) == set(expected[expected != 0])
    geometry = placement.geometry((1.0, 0.5, 0.25))
    assert geometry.is_plain
    assert geometry.fov_voxel_size == geometry.voxel_size == (1.0, 0.5, 0.25)
    for place in voxels[held]:
        q = tuple(int(each) for each in geometry.to_crop(place))
        assert expected[q] == image[tuple(place)]


@given(images())
def test_pad(case: tuple[Any, Box, Any]) -> None:
    image, box, shape = case
    window = place_window(box, shape, image.shape)
    assert not window.shifted
    check_pixels(image, window)
    for axis in range(3):
        before = box.start[axis] - window.origin[axis]
        after = window.origin[axis] + shape[axis] - box.stop[axis]
        # Centred; the odd voxel goes to the window's end where the box is moved towards it.
        assert before - after in (0, 1)
    axes = range(3) if shape[0] > 1 else (1, 2)
    assert window.oversize == any(box.size[axis] > shape[axis] for axis in axes)


@given(images())
def test_a_cell_that_is_not_oversize_is_whole_in_its_crop(case: tuple[Any, Box, Any]) -> None:
    image, box, shape = case
    for edge in ("pad", "shift"):
        window = place_window(box, shape, image.shape, edge)  # type: ignore[arg-type]
        if not window.oversize:
            marked = np.zeros(image.shape, bool)
            marked[box.slices] = True
            # One plane of a volume is what was asked for, not a cell that is cut.
            whole = marked.sum() if shape[0] > 1 else box.size[1] * box.size[2]
            assert cut(marked, window).sum() == whole


@given(images())
def test_shift_stays_inside_wherever_the_image_is_large_enough(case: tuple[Any, Box, Any]) -> None:
    image, box, shape = case
    window = place_window(box, shape, image.shape, "shift")
    padded = place_window(box, shape, image.shape)
    check_pixels(image, window)
    for axis, (size, extent) in enumerate(zip(shape, image.shape, strict=True)):
        if size <= extent:
            assert 0 <= window.origin[axis] <= extent - size
            # And no further than it must.
            assert abs(window.origin[axis] - padded.origin[axis]) == max(
                0, -padded.origin[axis], padded.origin[axis] + size - extent
            )
        else:
            assert window.source[axis] == slice(0, extent)
            assert abs(window.target[axis].start - (size - window.target[axis].stop)) <= 1
    assert window.shifted == (window.origin != padded.origin)
    assert tuple(np.subtract(window.origin, padded.origin)) == window.shift


@given(images())
def test_drop_if_and_only_if_it_leaves_the_image(case: tuple[Any, Box, Any]) -> None:
    image, box, shape = case
    padded = place_window(box, shape, image.shape)
    assert place_window(box, shape, image.shape, "flag") == padded
    if padded.is_whole:
        assert place_window(box, shape, image.shape, "drop") == padded
        assert padded.beyond() == ""
    else:
        with pytest.raises(Dropped, match=r"edge: the crop reaches \d+ voxels beyond the image along [zyx]") as caught:
            place_window(box, shape, image.shape, "drop")
        assert str(caught.value) == f"edge: {padded.beyond()}"


@given(images())
def test_oversize_drop(case: tuple[Any, Box, Any]) -> None:
    image, box, shape = case
    if place_window(box, shape, image.shape).oversize:
        with pytest.raises(Dropped, match="oversize"):
            place_window(box, shape, image.shape, "pad", "drop")
    else:
        place_window(box, shape, image.shape, "pad", "drop")


@given(images(), st.data())
def test_cut_from_a_part_of_the_image(case: tuple[Any, Box, Any], data: Any) -> None:
    image, box, shape = case
    window = place_window(box, shape, image.shape)
    offset = tuple(data.draw(st.integers(0, part.start)) for part in window.source)
    part = image[tuple(slice(first, None) for first in offset)]
    out = np.full(shape, -1)
    assert cut(part, window, offset, out=out) is out  # type: ignore[arg-type]
    np.testing.assert_array_equal(out, cut(image, window))


@given(images())
def test_centre_of_a_box_gives_the_window_of_the_box(case: tuple[Any, Box, Any]) -> None:
    image, box, shape = case
    centre = tuple((start + stop - 1) / 2 for start, stop in zip(box.start, box.stop, strict=True))
    at, of_box = window_at(centre, shape, image.shape), place_window(box, shape, image.shape)  # type: ignore[arg-type]
    check_pixels(image, at)
    # Half a voxel is rounded up here and down there.
    assert all(one - other in (0, 1) for one, other in zip(at.origin, of_box.origin, strict=True))


@pytest.mark.parametrize(
    ("centre", "origin"), [((0, 5, 5), (0, 4, 4)), ((0, 5.4, 4.6), (0, 4, 4)), ((0, -0.5, 9.4), (0, -1, 8))]
)
def test_centre_in_an_odd_window(centre: Any, origin: Any) -> None:
    assert window_at(centre, (1, 3, 3), (1, 10, 10)).origin == origin


@pytest.mark.parametrize("centre", [(0, 10, 5), (0, -0.6, 5), (1, 5, 5), (0, 5, float("nan"))])
def test_centre_outside(centre: Any) -> None:
    with pytest.raises(CellError, match="not inside the image"):
        window_at(centre, (1, 3, 3), (1, 10, 10))


@pytest.mark.parametrize(("start", "stop"), [((0, -1, 0), (1, 3, 3)), ((0, 0, 0), (1, 11, 3)), ((0, 0, 0), (2, 3, 3))])
def test_box_outside(start: Any, stop: Any) -> None:
    with pytest.raises(CellError, match="not inside the image of shape"):
        place_window(Box(start, stop), (1, 3, 3), (1, 10, 10))


def test_how_far_a_crop_reaches_beyond_the_image() -> None:
    assert overreach([0, 0.0, 0]) == ""
    assert overreach([0, 2, 3]) == "the crop reaches 3 voxels beyond the image along x"
    assert overreach([0, 1.2, 1.1]) == "the crop reaches 2 voxels beyond the image along y"
    window = window_at((0, 9, 4), (1, 4, 4), (1, 10, 10), "flag")
    assert window.beyond() == "the crop reaches 2 voxels beyond the image along y"
    assert window_at((0, 9, 4), (1, 4, 4), (1, 10, 10), "shift").beyond() == ""


def test_a_point_on_the_border_of_two_windows_is_in_one() -> None:
    left, right = (window_at((0, 5, x), (1, 4, 4), (1, 10, 10)) for x in (2, 6))
    points = np.array([[0, 5, 4.5], [0, 5, 4.4], [0, 5, 4.6], [0, 20, 4.5]])
    np.testing.assert_array_equal(left.holds(points), [False, True, False, False])
    np.testing.assert_array_equal(right.holds(points), [True, False, True, False])
