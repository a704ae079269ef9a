"""Boxes and measures, against scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import regionprops, regionprops_table

from cellcube.pixels import MEASURES, Box, box_of_labels, measure_cell


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


@given(st.integers(0, 2**32), st.booleans(), st.sampled_from(["uint8", "uint16", "float32", "int16"]))
def test_measures(seed: int, deep: bool, dtype: str) -> None:
    random = np.random.default_rng(seed)
    size = (4 if deep else 1, 12, 14)
    labels = random.choice([0, 0, 1, 3], size).astype("uint16")
    labels[0, 5, 5] = 3
    image = (random.random(size) * 100).astype(dtype)
    plain = labels if deep else labels[0]
    intensity = image if deep else image[0]
    table = regionprops_table(
        plain, intensity, properties=("label", "area", "centroid", "intensity_mean", "intensity_max")
    )
    # Only a part of the FOV is read, as a build does.
    for row, label in enumerate(table["label"]):
        box = box_of_labels(labels)[int(label)]
        offset = tuple(first // 2 for first in box.start)
        part = image[tuple(slice(first, None) for first in offset)]
        found = measure_cell(
            (part,),
            labels[box.slices] == label,
            box,
            offset,
            size,
            (2.0, 0.5, 0.25),
            ("DNA",),  # type: ignore[arg-type]
        )
        assert found["area_voxels"] == table["area"][row]
        letters = "zyx" if deep else "yx"
        for number, letter in enumerate(letters):
            assert found[f"centroid_{letter}"] == pytest.approx(table[f"centroid-{number}"][row])
        assert found["intensity_mean_DNA"] == pytest.approx(table["intensity_mean"][row], rel=1e-5)
        assert found["intensity_max_DNA"] == table["intensity_max"][row]
        where = np.argwhere(labels == label)
        axes = [0, 1, 2] if deep else [1, 2]
        at_border = any(where[:, axis].min() == 0 or where[:, axis].max() == size[axis] - 1 for axis in axes)
        assert found["touches_border"] == at_border
        if deep:
            assert found["volume_um3"] == pytest.approx(table["area"][row] * 0.25)
            assert np.isnan(found["area_um2"])
        else:
            assert found["area_um2"] == pytest.approx(table["area"][row] * 0.125)
            assert np.isnan(found["volume_um3"])


def test_a_box_without_a_label_is_measured_whole() -> None:
    image = np.arange(30, dtype="uint16").reshape(1, 5, 6)
    box = Box((0, 1, 2), (1, 3, 5))
    found = measure_cell((image,), None, box, (0, 0, 0), (1, 5, 6), (np.nan, np.nan, np.nan), ("DNA",))
    assert found["area_voxels"] == 6
    assert (found["centroid_y"], found["centroid_x"]) == (1.5, 3.0)
    assert (found["intensity_mean_DNA"], found["intensity_max_DNA"]) == (image[0, 1:3, 2:5].mean(), 16)
    assert np.isnan(found["area_um2"])
    assert not found["touches_border"]


def test_every_measure_is_described() -> None:
    image = np.ones((1, 5, 6))
    box = Box((0, 1, 2), (1, 3, 5))
    found = measure_cell((image, image), None, box, (0, 0, 0), (1, 5, 6), (1, 1, 1), ("DNA", "ER"))
    expected = {name.format(channel=channel) for name in MEASURES for channel in ("DNA", "ER")}
    assert set(found) == expected


def test_means_of_bright_half_floats_do_not_overflow() -> None:
    image = np.full((1, 300, 300), 60_000, "float16")
    found = measure_cell((image,), None, Box((0, 0, 0), (1, 300, 300)), (0, 0, 0), (1, 300, 300), (1, 1, 1), ("DNA",))
    assert found["intensity_mean_DNA"] == float(np.float16(60_000))
