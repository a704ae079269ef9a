"""Resampled crops, against scipy and scikit-image on the whole image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from cellcube.errors import CellError, VoxelSizeError
from cellcube.pixels.resample import Sampling, place_sampling, resampled_dtype
from cellcube.pixels.select import Box, Dropped, Placement, place_window

NAN = math.nan


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Arguments of `place_sampling`, about a point of an image of one or several planes."""
    image_shape = draw(st.tuples(st.sampled_from([1, 1, 2, 5]), st.integers(1, 60), st.integers(1, 60)))
    size = draw(st.tuples(*[st.sampled_from([1.0, 0.5, 0.3])] * 3))
    return {
        "centre": tuple(draw(st.floats(0, extent - 1)) for extent in image_shape),
        "extent": None,
        "shape": draw(st.tuples(st.integers(1, 4), st.integers(1, 16), st.integers(1, 16))),
        "image_shape": image_shape,
        "fov_voxel_size": size,
        "voxel_size": draw(
            st.one_of(
                st.none(),
                st.tuples(st.one_of(st.none(), st.floats(0.4, 2)), st.floats(0.25, 2), st.floats(0.25, 2)),
            )
        ),
        "rotation": draw(st.one_of(st.just(0.0), st.floats(-180, 180), st.sampled_from([90.0, 180.0, -90.0]))),
        "flip_y": draw(st.booleans()),
        "flip_x": draw(st.booleans()),
        "order": draw(st.sampled_from([0, 1, 2, 3, 5])),
        "edge": draw(st.sampled_from(["pad", "shift", "flag"])),
    }


def positions(sampling: Sampling) -> Any:
    """FOV positions of all of the crop's voxels, through the matrix."""
    grid = np.stack(np.meshgrid(*map(np.arange, sampling.shape), indexing="ij"), axis=-1)
    homogeneous = np.concatenate([grid, np.ones((*sampling.shape, 1))], axis=-1)
    return (homogeneous @ sampling.geometry().matrix.T)[..., :3]


def oracle(image: Any, sampling: Sampling) -> tuple[Any, Any]:
    """The crop from the whole image at once, and which of its voxels are inside."""
    matrix = sampling.geometry().matrix
    pixels = image.astype(float)
    if sampling.order:
        factors = np.linalg.norm(matrix[:3, :3], axis=1)
        pixels = ndimage.gaussian_filter(pixels, np.maximum(0, (factors - 1) / 2), mode="nearest", truncate=4)
    places = positions(sampling)
    inside = ((places >= -0.5 - 1e-6) & (places < np.array(image.shape) - 0.5 - 1e-6)).all(axis=-1)
    crop = ndimage.affine_transform(pixels, matrix, output_shape=sampling.shape, order=sampling.order, mode="nearest")
    return np.where(inside, crop, 0), inside


def no_ties(sampling: Sampling) -> bool:
    """Whether no voxel is midway between two of the image's, where the nearest is a matter of rounding."""
    places = positions(sampling)
    return bool((np.abs(places - np.floor(places) - 0.5) > 1e-5).all())


@settings(max_examples=300)
@given(cases(), st.integers(0, 2**32))
def test_as_if_the_whole_image_were_resampled(case: dict[str, Any], seed: int) -> None:
    sampling = place_sampling(**case)
    assume(sampling.order or no_ties(sampling))
    image = np.random.default_rng(seed).integers(1, 1000, case["image_shape"]).astype("uint16")
    expected, inside = oracle(image, sampling)
    found = sampling.pixels(image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0.1)
    check_placement(image, sampling, inside)


def check_placement(image: Any, placement: Placement, inside: Any) -> None:
    whole = placement.pixels(image)
    # From what must be read alone.
    offset = tuple(part.start for part in placement.source)
    np.testing.assert_allclose(placement.pixels(image[placement.source], offset), whole, rtol=1e-5, atol=1e-3)  # type: ignore[arg-type]
    out = np.full(placement.shape, -1.0)
    assert placement.pixels(image, out=out) is out
    np.testing.assert_array_equal(out, whole)
    # Where the image is.
    assert placement.is_whole == inside.all()
    assert placement.padded_fraction == pytest.approx(1 - inside.mean())
    found = placement.inside_image()
    np.testing.assert_array_equal(np.ones(placement.shape, bool) if found is None else found, inside)
    box = np.zeros(placement.shape, bool)
    box[placement.target] = True
    assert not (inside & ~box).any()
    for axis in range(3):
        if inside.any():
            along = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
            assert placement.target[axis] == slice(along[0], along[-1] + 1)
    valid = placement.valid()
    np.testing.assert_array_equal(box if valid is None else valid, inside)
    assert bool(placement.beyond()) or placement.is_whole
    assert placement.shifted == any(placement.shift)


@given(cases(), st.sampled_from(["uint8", "int32", "uint64", "bool"]))
def test_labels_are_the_nearest(case: dict[str, Any], dtype: str) -> None:
    sampling = place_sampling(**case)
    assume(no_ties(sampling))
    labels = np.random.default_rng(0).integers(0, 2, case["image_shape"]).astype(dtype)
    if dtype == "uint64":
        labels *= np.uint64(2**63 + 1)
    places = positions(sampling)
    inside = ((places >= -0.5) & (places < np.array(labels.shape) - 0.5)).all(axis=-1)
    nearest = np.clip(np.rint(places).astype(int), 0, np.array(labels.shape) - 1)
    expected = np.where(inside, labels[tuple(np.moveaxis(nearest, -1, 0))], 0)
    found = sampling.labels(labels)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, expected)
    offset = tuple(part.start for part in sampling.source)
    np.testing.assert_array_equal(sampling.labels(labels[sampling.source], offset), expected)  # type: ignore[arg-type]


@given(cases())
def test_voxels_held_are_those_whose_place_is_in_the_crop(case: dict[str, Any]) -> None:
    sampling = place_sampling(**case)
    voxels = np.argwhere(np.ones(case["image_shape"], bool))
    matrix = np.linalg.inv(sampling.geometry().matrix)
    places = voxels @ matrix[:3, :3].T + matrix[:3, 3]
    clear = (np.abs(places - np.rint(places - 0.5) - 0.5) > 1e-6).all(axis=1)
    expected = ((places >= -0.5) & (places < np.array(case["shape"]) - 0.5)).all(axis=1)
    np.testing.assert_array_equal(sampling.holds(voxels)[clear], expected[clear])


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("size", [(12, 20), (24, 80), (60, 40), (7, 13), (48, 40)])
def test_a_whole_image_as_scikit_image_resizes_it(order: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((48, 40))
    scale = (48 / size[0], 40 / size[1])
    sampling = place_sampling(
        (0, 23.5, 19.5), None, (1, *size), (1, 48, 40), (NAN, 1.0, 1.0), (None, *scale), order=order
    )
    assert sampling.is_whole
    assert sampling.beyond() == ""
    # scikit-image does nothing against aliasing by itself where any axis grows.
    expected = resize(image, size, order=order, mode="edge", anti_aliasing=True, clip=False)
    np.testing.assert_allclose(sampling.pixels(image[None])[0], expected, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("rotation", [0.0, 33.0, 90.0, -120.0])
@pytest.mark.parametrize("voxel_size", [None, (None, 0.5, 0.5), (1.7, 0.9, 1.1)])
def test_pixels_of_a_ramp_tell_where_they_are(order: int, flips: Any, rotation: float, voxel_size: Any) -> None:
    """Nothing but the geometry: the pixel's value is the FOV coordinate."""
    ramps = np.stack(np.meshgrid(*map(np.arange, (40, 130, 120)), indexing="ij")).astype("float64")
    sampling = place_sampling(
        (20.0, 64.3, 60.6),
        None,
        (3, 20, 24),
        ramps.shape[1:],
        (0.9, 0.4, 0.5),
        voxel_size,
        rotation,
        *flips,
        order=order,
    )
    expected = sampling.geometry().to_fov(np.stack(np.meshgrid(*map(np.arange, (3, 20, 24)), indexing="ij"), axis=-1))
    for axis, ramp in enumerate(ramps):
        offset = tuple(part.start for part in sampling.source)
        found = sampling.pixels(ramp[sampling.source], offset)  # type: ignore[arg-type]
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected[..., axis], atol=1e-3)


def test_a_quarter_turn_by_hand() -> None:
    image = np.arange(100).reshape(1, 10, 10).astype("uint8")
    sampling = place_sampling((0, 5, 4), None, (1, 3, 3), image.shape, (NAN, NAN, NAN), rotation=90.0)
    # To the right in the crop is down in the image, and down in the crop is to the left.
    np.testing.assert_array_equal(sampling.pixels(image)[0], [[45, 55, 65], [44, 54, 64], [43, 53, 63]])
    mirrored = place_sampling((0, 5, 4), None, (1, 3, 3), image.shape, (NAN, NAN, NAN), rotation=90.0, flip_x=True)
    np.testing.assert_array_equal(mirrored.pixels(image)[0], [[65, 55, 45], [64, 54, 44], [63, 53, 43]])


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 6), st.integers(1, 24), st.integers(1, 24)),
    st.sampled_from([0, 1, 3]),
    st.sampled_from(["pad", "shift", "flag"]),
    st.data(),
)
def test_nothing_to_do_gives_the_window(size: Any, shape: Any, order: int, edge: Any, data: Any) -> None:
    start = tuple(data.draw(st.integers(0, extent - 1)) for extent in size)
    stop = (
        data.draw(st.integers(start[0] + 1, size[0])),
        *(data.draw(st.sampled_from(range(start[axis] + 1, size[axis] + 1))) for axis in (1, 2)),
    )
    box = Box(start, stop)  # type: ignore[arg-type]
    window = place_window(box, shape, size, edge)
    centre = tuple((first + last - 1) / 2 for first, last in zip(start, stop, strict=True))
    extent = tuple(float(length) for length in box.size)
    sampling = place_sampling(centre, extent, shape, size, (1.0, 0.5, 0.5), edge=edge, order=order)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(1, 60000, size).astype("uint16")
    np.testing.assert_array_equal(sampling.pixels(image), window.pixels(image))
    np.testing.assert_array_equal(sampling.labels(image), window.labels(image))
    for name in ("source", "target", "shift", "shifted", "oversize", "padded_fraction", "is_whole"):
        assert getattr(sampling, name) == getattr(window, name), name
    assert sampling.beyond() == window.beyond()
    assert sampling.geometry() == window.geometry((1.0, 0.5, 0.5))
    points = np.random.default_rng(1).uniform(-5, 25, (50, 3))
    np.testing.assert_array_equal(sampling.holds(points), window.holds(points))


@pytest.mark.parametrize(("shape", "planes"), [(1, 4), (2, 4), (3, 4), (2, 5), (4, 1), (5, 2)])
def test_planes_are_not_mixed_where_z_is_kept(shape: int, planes: int) -> None:
    image = np.repeat(np.arange(1, planes + 1), 400).reshape(planes, 20, 20).astype("uint8")
    for extent in (None, (float(planes), 3.0, 3.0)):
        sampling = place_sampling(
            ((planes - 1) / 2, 9.7, 9.2), extent, (shape, 5, 5), image.shape, (1.0, 0.5, 0.5), (None, 0.7, 0.7), 20.0
        )
        found = sampling.pixels(image)
        assert set(np.unique(found)) <= {0, *range(1, planes + 1)}
        assert (found == found[:, :1, :1]).all()


def test_what_crop_voxels_cannot_show_is_averaged() -> None:
    checkerboard = (np.indices((1, 64, 64)).sum(axis=0) % 2 * 1000).astype("uint16")
    for rotation in (0.0, 45.0):
        sampling = place_sampling(
            (0, 31.2, 31.7), None, (1, 6, 6), (1, 64, 64), (NAN, 1.0, 1.0), (None, 4.0, 4.0), rotation
        )
        np.testing.assert_allclose(sampling.pixels(checkerboard), 500, atol=25)
    nearest = place_sampling((0, 31.2, 31.7), None, (1, 6, 6), (1, 64, 64), (NAN, 1.0, 1.0), (None, 4.0, 4.0), order=0)
    assert set(nearest.pixels(checkerboard).flat) <= {0, 1000}


def test_only_the_neighbourhood_is_read() -> None:
    sampling = place_sampling(
        (20, 1000, 1000), None, (4, 32, 32), (40, 2000, 2000), (1.0, 0.5, 0.5), (2.0, 1.0, 1.0), 45.0, order=3
    )
    assert all(part.stop - part.start < 140 for part in sampling.source[1:])
    plain = place_sampling((20, 1000, 1000), None, (4, 32, 32), (40, 2000, 2000), (1.0, 0.5, 0.5), rotation=45.0)
    assert plain.source[0] == slice(19, 23)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        *((name, "float32") for name in ("bool", "uint8", "int8", "uint16", "int16", "float16", "float32", ">u2")),
        *((name, "float64") for name in ("uint32", "int32", "uint64", "int64", "float64")),
    ],
)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_dtypes(dtype: str, expected: str, order: int) -> None:
    image = np.ones((1, 20, 20), dtype)
    sampling = place_sampling((0, 9.3, 9.1), None, (1, 5, 5), image.shape, (NAN, 1.0, 1.0), rotation=10.0, order=order)
    found = sampling.pixels(image)
    assert found.dtype == expected == resampled_dtype(np.dtype(dtype))
    np.testing.assert_allclose(found, 1, rtol=1e-6)


def test_edge() -> None:
    def place(edge: Any, centre: Any = (0, 3.0, 20.0), **more: Any) -> Sampling:
        return place_sampling(centre, None, (1, 10, 10), (1, 40, 40), (NAN, 1.0, 1.0), rotation=45.0, edge=edge, **more)

    # Half a diagonal of 10 voxels is 7.07, so 4.07 - 0.5 of them are above the image.
    padded = place("pad")
    assert repr(place("flag")) == repr(padded)
    assert padded.beyond() == "the crop reaches 4 voxels beyond the image along y"
    assert padded.leaves == (0, pytest.approx(50**0.5 - 3.5), 0)
    assert padded.shift == (0, 0, 0)
    with pytest.raises(Dropped, match="edge: the crop reaches 4 voxels beyond the image along y"):
        place("drop")
    shifted = place("shift")
    assert shifted.shift == (0, pytest.approx(50**0.5 - 3.5), 0)
    assert shifted.shifted
    assert shifted.is_whole
    assert shifted.beyond() == ""
    middle = shifted.geometry().to_fov([0, 4.5, 4.5])
    np.testing.assert_allclose(middle, [0, 50**0.5 - 0.5, 20])
    assert place("drop", (0, 20.0, 20.0)).is_whole
    assert place("shift", (0, 20.0, 20.0)).shift == (0, 0, 0)
    # Corners outside, but no voxel's centre.
    barely = place("flag", (0, 6.4, 20.0))
    assert barely.is_whole
    assert barely.beyond()


def test_an_image_that_cannot_hold_the_crop_is_centred() -> None:
    sampling = place_sampling(
        (0, 2.0, 20.0), None, (1, 20, 20), (1, 15, 40), (NAN, 1.0, 1.0), rotation=30.0, edge="shift"
    )
    np.testing.assert_allclose(sampling.geometry().to_fov([0, 9.5, 9.5]), [0, 7, 20])
    assert sampling.padded_fraction > 0
    assert sampling.beyond().endswith("along y")


def test_the_plane_of_a_flat_image_is_never_outside() -> None:
    sampling = place_sampling(
        (0.4, 9.0, 9.0), None, (1, 5, 5), (1, 20, 20), (NAN, 1.0, 1.0), (3.0, 1.5, 1.5), edge="drop"
    )
    assert sampling.geometry().scale == (1, 1.5, 1.5)
    assert sampling.is_whole


def test_a_crop_without_any_voxel_in_the_image() -> None:
    sampling = place_sampling((0, 0, 0), None, (1, 2, 2), (1, 4, 4), (NAN, 1.0, 1.0), (None, 20.0, 20.0), 10.0)
    assert sampling.padded_fraction == 1
    image = np.ones((1, 4, 4), "uint8")
    assert not sampling.pixels(image).any()
    assert not sampling.pixels(image[sampling.source]).any()
    assert not sampling.labels(image[sampling.source]).any()
    inside = sampling.inside_image()
    assert inside is not None
    assert not inside.any()


@pytest.mark.parametrize("planes", [1, 6])
@pytest.mark.parametrize("rotation", [0.0, 25.0])
def test_shrink_holds_the_whole_label(planes: int, rotation: float) -> None:
    labels = np.zeros((planes, 100, 90), "uint8")
    labels[:, 30:70, 20:60] = 1
    depth = 1 if planes == 1 else 4
    span = 40 * (abs(math.cos(math.radians(rotation))) + abs(math.sin(math.radians(rotation))))
    arguments: dict[str, Any] = {
        "centre": ((planes - 1) / 2, 49.5, 39.5),
        "extent": (float(planes), span, span),
        "shape": (depth, 24, 32),
        "image_shape": labels.shape,
        "fov_voxel_size": (2.0, 0.5, 0.5),
        "rotation": rotation,
    }
    cut = place_sampling(**arguments)
    assert cut.oversize
    voxels = np.argwhere(labels)
    assert not cut.holds(voxels).all()
    with pytest.raises(Dropped, match=r"oversize: the cell's box .* is larger than the crop"):
        place_sampling(**arguments, oversize="drop")
    shrunk = place_sampling(**arguments, oversize="shrink")
    assert not shrunk.oversize
    assert shrunk.holds(voxels).all()
    factor = span / 24
    scale = (factor if planes > 1 else 1, factor, factor)
    assert shrunk.geometry().scale == pytest.approx(scale)
    assert shrunk.geometry().voxel_size == pytest.approx(
        [size * each for size, each in zip((2, 0.5, 0.5), scale, strict=True)]
    )
    assert shrunk.geometry().fov_voxel_size == pytest.approx((2, 0.5, 0.5))
    # One of its sides is the crop's.
    assert shrunk.labels(labels).any(axis=(0, 2))[[1, -2]].all()


def test_a_cell_that_fits_is_not_shrunk() -> None:
    arguments: dict[str, Any] = {
        "centre": (0, 20, 20),
        "extent": (1.0, 10.0, 10.0),
        "shape": (1, 10, 12),
        "image_shape": (1, 40, 40),
        "fov_voxel_size": (NAN, NAN, NAN),
    }
    for oversize in ("crop", "drop", "shrink"):
        sampling = place_sampling(**arguments, oversize=oversize)  # type: ignore[arg-type]
        assert sampling.geometry().scale == (1, 1, 1)
        assert not sampling.oversize


def test_one_plane_of_a_volume_is_a_section_and_not_shrunk_into() -> None:
    sampling = place_sampling(
        (10, 20, 20), (20.0, 8.0, 8.0), (1, 10, 10), (20, 40, 40), (1.0, 1.0, 1.0), oversize="shrink"
    )
    assert sampling.geometry().scale == (1, 1, 1)
    # One plane of a volume is what was asked for, not a cell that was cut.
    assert not sampling.oversize
    smaller = place_sampling(
        (10, 20, 20), (20.0, 8.0, 16.0), (1, 8, 8), (20, 40, 40), (1.0, 1.0, 1.0), oversize="shrink"
    )
    assert smaller.geometry().scale == (1, 2, 2)


@pytest.mark.parametrize("centre", [(0, 10, 5), (0, -0.6, 5), (1, 5, 5), (0, 5, float("nan"))])
def test_centre_outside(centre: Any) -> None:
    with pytest.raises(CellError, match="not inside the image"):
        place_sampling(centre, None, (1, 3, 3), (1, 10, 10), (NAN, 1.0, 1.0))


def test_an_unknown_voxel_size() -> None:
    with pytest.raises(VoxelSizeError, match="along y is unknown"):
        place_sampling((0, 5, 5), None, (1, 3, 3), (1, 10, 10), (NAN, NAN, 1.0), (None, 2.0, 2.0))
    turned = place_sampling((0, 5, 5), None, (1, 3, 3), (1, 10, 10), (NAN, NAN, NAN), rotation=30.0)
    assert np.isnan(turned.geometry().voxel_size).all()
