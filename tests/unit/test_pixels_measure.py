"""Boxes and measures, against scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation
from skimage.measure import label as components
from skimage.measure import regionprops, regionprops_table

from cellcube.errors import CellError
from cellcube.pixels.measure import MEASURES, box_of_labels, measure_cell, surroundings
from cellcube.pixels.quality import fragments_of, medians_of
from cellcube.pixels.select import Box
from cellcube.pixels.shapes import shapes_of_labels


@st.composite
def label_images(draw: Any) -> Any:
    """Label images of one and several planes, with gaps between labels, large labels, and perhaps no background."""
    shape = draw(st.tuples(st.sampled_from([1, 1, 4]), st.integers(1, 12), st.integers(1, 12)))
    names = draw(st.lists(st.sampled_from([1, 2, 3, 7, 255, 70_000, 2**22 + 1, 2**31 - 1]), min_size=1, max_size=5))
    if draw(st.booleans()):
        names = [0, *names]
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.choice(np.array(names), shape).astype(draw(st.sampled_from(["int32", "uint32", "int64", "uint64"])))


def reference_boxes(labels: Any) -> dict[int, tuple[Any, Any]]:
    # scikit-image counts from 1 to the largest label, so labels are made dense for it.
    names, dense = np.unique(labels, return_inverse=True)
    props = regionprops(dense.reshape(labels.shape) + 1)
    return {int(names[p.label - 1]): (p.bbox[:3], p.bbox[3:]) for p in props if names[p.label - 1] > 0}


@given(label_images(), st.tuples(*[st.integers(0, 1000)] * 3))
def test_boxes(labels: Any, offset: tuple[int, int, int]) -> None:
    found = box_of_labels(labels, offset)
    reference = reference_boxes(labels)
    assert list(found) == sorted(reference)
    for label, (start, stop) in reference.items():
        assert found[label].start == tuple(a + b for a, b in zip(start, offset, strict=True))
        assert found[label].stop == tuple(a + b for a, b in zip(stop, offset, strict=True))


@pytest.mark.parametrize("background", [0, None])
def test_the_largest_labels_are_exact(background: int | None) -> None:
    names = np.array([2**64 - 1, 2**64 - 2, 2**53 + 1, 2**53], "uint64")
    labels = names.reshape(1, 2, 2) if background is None else np.append(names, np.zeros(2, "uint64")).reshape(1, 2, 3)
    assert sorted(box_of_labels(labels)) == sorted(int(name) for name in names)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type(dtype: str) -> None:
    labels = np.zeros((1, 4, 4), dtype)
    labels[0, 1:3, 2] = 100
    assert box_of_labels(labels) == {100: Box((0, 1, 2), (1, 3, 3))}
    big_endian = labels.astype(np.dtype(dtype).newbyteorder(">"))
    assert box_of_labels(big_endian) == {100: Box((0, 1, 2), (1, 3, 3))}


def test_negative_labels_are_no_cells() -> None:
    labels = np.array([[[-5, 3, 0, -1]]], "int16")
    assert box_of_labels(labels) == {3: Box((0, 0, 1), (1, 1, 2))}
    assert labels.tolist() == [[[-5, 3, 0, -1]]]


def test_no_labels() -> None:
    assert box_of_labels(np.zeros((1, 4, 4), "uint16")) == {}
    assert box_of_labels(np.zeros((1, 0, 4), "uint16")) == {}


def measured(
    image: Any,
    labels: Any = None,
    label: int = 1,
    box: Box | None = None,
    channels: tuple[str, ...] = ("DNA",),
    saturation: tuple[float, ...] = (np.nan,),
    voxel_size: tuple[float, float, float] = (2.0, 0.5, 0.25),
) -> dict[str, Any]:
    """Measures of a cell of a FOV of shape (c, z, y, x), of which only the surroundings are given, as in a build."""
    size = image.shape[1:]
    if box is None:
        box = box_of_labels(labels)[label]
    around = surroundings(box, size)
    pixels = image[(slice(None), *around.slices)]
    part = labels[around.slices] if labels is not None else None
    return measure_cell(pixels, part, label, box, around, size, voxel_size, channels, saturation)


@given(st.integers(0, 2**32), st.booleans(), st.sampled_from(["uint8", "uint16", "float32", "int16", "int64"]))
def test_measures(seed: int, deep: bool, dtype: str) -> None:
    random = np.random.default_rng(seed)
    size = (4 if deep else 1, 12, 14)
    labels = random.choice([0, 0, 1, 3], size).astype("uint16")
    labels[0, 5, 5] = 3
    image = (random.random((2, *size)) * 100).astype(dtype)
    plain = labels if deep else labels[0]
    intensity = np.moveaxis(image if deep else image[:, 0], 0, -1)
    properties = ("label", "area", "centroid", "intensity_mean", "intensity_max", "intensity_std")
    table = regionprops_table(plain, intensity, properties=properties)
    for row, label in enumerate(table["label"]):
        found = measured(image, labels, int(label), None, ("DNA", "ER"), (np.nan, 50))
        assert found["area_voxels"] == table["area"][row]
        letters = "zyx" if deep else "yx"
        for number, letter in enumerate(letters):
            assert found[f"centroid_{letter}"] == pytest.approx(table[f"centroid-{number}"][row])
        mine = labels == label
        for number, name in enumerate(("DNA", "ER")):
            values = image[number][mine].astype("float64")
            assert found[f"intensity_mean_{name}"] == pytest.approx(table[f"intensity_mean-{number}"][row], rel=1e-5)
            assert found[f"intensity_mean_{name}"] == values.mean() or dtype == "float32"
            assert found[f"intensity_max_{name}"] == table[f"intensity_max-{number}"][row]
            assert found[f"intensity_std_{name}"] == pytest.approx(
                table[f"intensity_std-{number}"][row], rel=1e-5, abs=1e-5
            )
            assert found[f"intensity_integrated_{name}"] == pytest.approx(values.sum(), rel=1e-12)
        where = np.argwhere(mine)
        axes = [0, 1, 2] if deep else [1, 2]
        at_border = any(where[:, axis].min() == 0 or where[:, axis].max() == size[axis] - 1 for axis in axes)
        assert found["touches_border"] == at_border
        assert found["fragments"] == components(plain == label, return_num=True, connectivity=plain.ndim)[1]
        next_to = labels[binary_dilation(mine, np.ones((3, 3, 3))) & ~mine]
        assert found["touching_neighbours"] == len(set(next_to.tolist()) - {0})
        assert np.isnan(found["saturated_fraction_DNA"])
        assert found["saturated_fraction_ER"] == found["saturated_fraction"] == np.mean(image[1][mine] >= 50)
        if deep:
            assert found["volume_um3"] == pytest.approx(table["area"][row] * 0.25)
            assert np.isnan(found["area_um2"])
        else:
            assert found["area_um2"] == pytest.approx(table["area"][row] * 0.125)
            assert np.isnan(found["volume_um3"])


@given(st.integers(0, 2**32), st.booleans())
def test_large_boxes_are_measured_alike(seed: int, deep: bool) -> None:
    """Boxes that are measured channel by channel, and by batches of planes, give what small ones give."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 2**16, (2, 5 if deep else 1, 20, 20), "uint16")
    labels = random.choice([0, 1], image.shape[1:]).astype("uint8")
    arguments = (image, labels, 1, Box((0, 0, 0), labels.shape), ("DNA", "ER"), (60_000.0, 2.0))
    small = measured(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellcube.pixels.measure._LARGE", 1)
        patch.setattr("cellcube.pixels.quality._BATCH", 800)
        patch.setattr("cellcube.pixels.quality._COUNTED", 1)
        assert measured(*arguments) == pytest.approx(small, rel=1e-6, nan_ok=True)


def test_a_box_without_a_label_is_measured_whole() -> None:
    image = np.arange(30, dtype="uint16").reshape(1, 1, 5, 6)
    box = Box((0, 1, 2), (1, 3, 5))
    found = measured(image, None, box=box, saturation=(15,), voxel_size=(np.nan, np.nan, np.nan))
    assert found["area_voxels"] == 6
    assert (found["centroid_y"], found["centroid_x"]) == (1.5, 3.0)
    assert (found["intensity_mean_DNA"], found["intensity_max_DNA"]) == (image[0, 0, 1:3, 2:5].mean(), 16)
    assert found["saturated_fraction"] == 2 / 6
    assert np.isnan(found["area_um2"])
    assert not found["touches_border"]
    assert found["fragments"] == 1
    assert np.isnan(found["touching_neighbours"])
    assert np.isnan(found["signal_to_background_DNA"])


def test_every_measure_is_described() -> None:
    image = np.ones((2, 1, 5, 6))
    found = measured(image, None, 1, Box((0, 1, 2), (1, 3, 5)), ("DNA", "ER"), (1, 1))
    expected = {name.format(channel=channel) for name in MEASURES for channel in ("DNA", "ER")}
    assert set(found) == expected


def test_channels_of_one_name_in_anothers() -> None:
    """Every column holds its own channel's value."""
    image = np.stack([np.full((1, 5, 6), value, "uint8") for value in (1, 2, 3)])
    names = ("DNA", "DNA_max", "{channel}")
    found = measured(image, None, 1, Box((0, 0, 0), (1, 5, 6)), names, (2, 2, 2))
    for name, value in zip(names, (1, 2, 3), strict=True):
        assert found[f"intensity_mean_{name}"] == found[f"intensity_max_{name}"] == value
        assert found[f"saturated_fraction_{name}"] == (value >= 2)


def test_means_of_bright_half_floats_do_not_overflow() -> None:
    image = np.full((1, 1, 300, 300), 60_000, "float16")
    found = measured(image, None, 1, Box((0, 0, 0), (1, 300, 300)))
    assert found["intensity_mean_DNA"] == float(np.float16(60_000))
    assert found["intensity_std_DNA"] == found["focus_DNA"] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_number(value: float) -> None:
    """They are measured without a warning, as no number."""
    image = np.ones((1, 1, 9, 9), "float32")
    image[0, 0, 4, 4] = value
    labels = np.pad(np.ones((1, 3, 3), "uint8"), [(0, 0), (3, 3), (3, 3)])
    found = measured(image, labels)
    np.testing.assert_equal(found["intensity_mean_DNA"], value)
    assert np.isnan(found["intensity_std_DNA"])
    assert np.isnan(found["focus"])
    np.testing.assert_equal(found["signal_to_background_DNA"], value)
    image[0, 0, 4, 4], image[0, 0, 0, 0] = 1, value
    assert np.isnan(measured(image, labels)["signal_to_background_DNA"]) == np.isnan(value)


def test_pixels_of_bool_and_other_byte_orders() -> None:
    random = np.random.default_rng(0)
    mask = random.random((1, 1, 9, 9)) > 0.5
    labels = np.pad(np.ones((1, 3, 3), "uint8"), [(0, 0), (3, 3), (3, 3)])
    told = measured(mask.astype("uint8"), labels)
    assert measured(mask, labels) == told
    assert measured(mask.astype(">u2"), labels.astype(">i4")) == told
    assert measured(np.asfortranarray(mask.astype("uint16")), np.asfortranarray(labels)) == told


def test_a_label_without_voxels() -> None:
    with pytest.raises(CellError, match=r"Label 2 has no voxel in the box \(0, 0, 0\) to \(1, 2, 2\)"):
        measured(np.ones((1, 1, 4, 4)), np.ones((1, 4, 4), int), 2, Box((0, 0, 0), (1, 2, 2)))


def test_surroundings() -> None:
    assert surroundings(Box((0, 10, 10), (1, 20, 20)), (1, 100, 100)) == Box((0, 5, 5), (1, 25, 25))
    assert surroundings(Box((4, 3, 10), (6, 20, 97)), (9, 100, 100)) == Box((3, 0, 5), (7, 25, 100))
    assert surroundings(Box((0, 0, 0), (9, 9, 9)), (9, 9, 9)) == Box((0, 0, 0), (9, 9, 9))


@pytest.mark.parametrize(
    ("rows", "pieces"),
    [
        (["###", "###"], 1),
        (["#..", ".#.", "..#"], 1),
        (["#..", "..#"], 2),
        (["..#", "#.."], 2),
        (["#.#", "#.#", "###"], 1),
        (["#.#", "...", "#.#"], 4),
        (["###", "#.#", "###"], 1),
        (["##.", "...", "##."], 2),
        # Rows that lie end to end in memory are not next to each other.
        (["..#", "...", "#.."], 2),
        (["####", "...#", "#...", "#..."], 2),
    ],
)
def test_pieces(rows: list[str], pieces: int) -> None:
    inside = np.array([[letter == "#" for letter in row] for row in rows])
    for turned in (inside, inside.T, inside[::-1], inside[:, ::-1]):
        assert fragments_of(turned[None]) == pieces
        assert fragments_of(turned[:, None]) == pieces


@given(st.tuples(*[st.integers(1, 12)] * 3), st.floats(0.05, 0.95), st.integers(0, 2**32), st.booleans())
def test_pieces_of_noise_and_of_convex_planes(
    shape: tuple[int, int, int], density: float, seed: int, convex: bool
) -> None:
    random = np.random.default_rng(seed)
    inside = random.random(shape) < density
    if convex:
        # One rectangle a plane, so that planes may touch, miss each other by a corner, or be empty.
        low, high = np.sort(random.integers(0, 13, (2, 2, shape[0])), axis=0)
        y, x = np.ogrid[: shape[1], : shape[2]]
        for z, plane in enumerate(inside):
            plane[:] = (y >= low[0, z]) & (y <= high[0, z]) & (x >= low[1, z]) & (x <= high[1, z])
    inside[0, 0, 0] = True
    assert fragments_of(inside) == components(inside, return_num=True, connectivity=3)[1]


def test_neighbours_at_the_edge_of_the_image() -> None:
    """Diagonal ones count, negative labels and the ones a voxel away do not."""
    labels = np.array([[[1, 1, 0, 4], [0, 0, 2, 4], [-1, 0, 0, 4]]], "int16")
    image = np.ones((1, 1, 3, 4))
    assert measured(image, labels, 1)["touching_neighbours"] == 1
    assert measured(image, labels, 2)["touching_neighbours"] == 2
    assert measured(image, labels, 4)["touching_neighbours"] == 1
    deep = np.zeros((3, 3, 3), "uint64")
    deep[0, 0, 0], deep[1, 1, 1], deep[2, 2, 2] = 2**64 - 1, 7, 2**63
    assert measured(np.ones((1, 3, 3, 3)), deep, 7)["touching_neighbours"] == 2
    assert measured(np.ones((1, 3, 3, 3)), deep, 2**63)["touching_neighbours"] == 1


@given(st.integers(0, 2**32), st.sampled_from(["uint8", "uint16", "int32", "uint64", "float16", "float64"]))
def test_background(seed: int, dtype: str) -> None:
    """The median is that of the unlabelled voxels up to 5 beside the box, and 1 above and below it."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 200, (1, 5, 20, 21)).astype(dtype)
    labels = np.zeros(image.shape[1:], int)
    labels[2, 8:12, 9:12] = 1
    labels[2, 12:, 12:] = 2
    near = np.zeros(labels.shape, bool)
    near[1:4, 3:17, 4:17] = True
    level = np.median(image[0][near & (labels == 0)].astype(float))
    found = measured(image, labels)
    if level:
        assert found["signal_to_background_DNA"] == pytest.approx(found["intensity_mean_DNA"] / level, rel=1e-12)
    image[0][near & (labels == 0)] = 0
    assert np.isnan(measured(image, labels)["signal_to_background_DNA"])
    labels[labels == 0] = 3
    assert np.isnan(measured(image, labels)["signal_to_background_DNA"])


@given(
    st.integers(1, 40),
    st.sampled_from(["uint8", "int8", "uint16", "int64", "uint64", "float32"]),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_medians(count: int, dtype: str, seed: int, counted: bool) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 100, (3, count)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellcube.pixels.quality._COUNTED", 0 if counted else 1000)
        assert medians_of(values) == np.median(values, axis=1).tolist()


def test_medians_of_the_largest_integers() -> None:
    values = np.array([[2**64 - 1, 2**64 - 1]], "uint64")
    assert medians_of(values) == [2.0**64]


def test_saturation() -> None:
    """The share at or above the limit; the highest of those channels that have one."""
    image = np.zeros((3, 1, 4, 4), "uint16")
    image[0, 0, :2, :2] = [[100, 99], [101, 65535]]
    image[1, 0, 0, 0] = 5
    box = Box((0, 0, 0), (1, 2, 2))
    found = measured(image, None, 1, box, ("a", "b", "c"), (100, 5, np.nan))
    assert [found[f"saturated_fraction_{name}"] for name in "ab"] == [0.75, 0.25]
    assert np.isnan(found["saturated_fraction_c"])
    assert found["saturated_fraction"] == 0.75
    assert np.isnan(measured(image, None, 1, box, ("a", "b", "c"), (np.nan,) * 3)["saturated_fraction"])
    # A limit that float32 does not hold.
    bright = np.full((1, 1, 3, 3), 0.1, "float32")
    assert measured(bright, None, 1, Box((0, 0, 0), (1, 3, 3)), saturation=(0.1,))["saturated_fraction"] == 1
    assert measured(bright, None, 1, Box((0, 0, 0), (1, 3, 3)), saturation=(0.11,))["saturated_fraction"] == 0


def focus_by_loop(channel: Any) -> float:
    """The definition, voxel by voxel."""
    channel = channel.astype("float64")
    planes, height, width = channel.shape
    along_y, along_x = [], []
    for z in range(planes):
        for y in range(height):
            for x in range(width):
                if y + 2 < height:
                    along_y.append((channel[z, y + 2, x] - channel[z, y, x]) ** 2)
                if x + 2 < width:
                    along_x.append((channel[z, y, x + 2] - channel[z, y, x]) ** 2)
    gradients = [np.mean(squares) for squares in (along_y, along_x) if squares]
    if not gradients:
        return np.nan
    return float(np.mean(gradients) / (2 * channel.var())) if channel.var() else 0.0


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]),
    st.integers(0, 2**32),
)
def test_focus_is_the_normalized_brenner_gradient(shape: tuple[int, int, int], dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, random.choice([1, 2, 255]) + 1, (2, *shape)).astype(dtype)
    found = measured(image, None, 1, Box((0, 0, 0), shape), ("a", "b"), (1, 1))
    told = [focus_by_loop(channel) for channel in image]
    np.testing.assert_allclose([found["focus_a"], found["focus_b"]], told, rtol=1e-6)
    np.testing.assert_allclose(found["focus"], np.mean(told), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_focus_of_noise_is_one_whatever_its_offset_and_gain(dtype: str) -> None:
    noise = np.random.default_rng(0).integers(0, 100, (1, 1, 300, 300)).astype(dtype)
    box = Box((0, 0, 0), (1, 300, 300))
    focus = measured(noise, None, 1, box)["focus"]
    assert focus == pytest.approx(1, abs=0.01)
    for gain, offset in ((1, 60_000), (10, 0), (600, 5000)):
        changed = (noise * gain + offset).astype(dtype)
        assert measured(changed, None, 1, box)["focus"] == pytest.approx(focus, rel=1e-6)


@pytest.mark.parametrize("value", [0, 0.1, 12_345.678, 65_535])
@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32", "float64"])
def test_focus_of_nothing_is_zero(value: float, dtype: str) -> None:
    flat = np.full((1, 2, 37, 41), min(value, 60_000) if dtype == "float16" else value).astype(dtype)
    assert measured(flat, None, 1, Box((0, 0, 0), (2, 37, 41)))["focus"] == 0


@given(label_images(), st.tuples(*[st.integers(0, 1000)] * 3))
def test_shapes_of_labels(labels: Any, offset: tuple[int, int, int]) -> None:
    for label, shape in shapes_of_labels(labels, offset).items():
        voxels = np.argwhere(np.equal(labels, label)) + offset
        assert shape.voxels == len(voxels)
        np.testing.assert_allclose(shape.centre, voxels.mean(axis=0), rtol=1e-12)
        for plane in np.equal(labels, label):
            if shape.stacked and plane.any():
                assert components(plane, return_num=True, connectivity=2)[1] == 1
