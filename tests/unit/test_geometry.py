"""From a dataset's crops to fields of view, on datasets made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cellcube.errors import ArgumentError
from cellcube.geometry import crop_to_fov, fov_to_crop, to_fov
from cellcube.pixels.geometry import Geometry
from cellcube.pixels.resample import place_sampling

NAN = math.nan
FRAMES = [
    Geometry((0.0, -3.0, 17.0), voxel_size=(NAN, 0.5, 0.25)),
    Geometry((4.0, 10.5, 20.25), (1.0, 2.0, 2.0), 30.0, True, False, (2.0, 1.0, 1.0)),
    Geometry((1.0, 7.0, 8.0), (1.0, 1.0, 1.0), -45.0, False, True, (NAN, NAN, NAN)),
]


def dataset(frames: list[Geometry] = FRAMES, dim: str = "cell", full: bool = True) -> xr.Dataset:
    rows = [frame.columns(full) for frame in frames]
    coordinates = {name: (dim, [row[name] for row in rows]) for name in rows[0]}
    names = [f"plate-A{number}" for number in range(len(rows))]
    return xr.Dataset(
        {
            "cells": ((dim, "c", "z", "y", "x"), np.zeros((len(rows), 1, 2, 6, 8), "uint8")),
            "mask": ((dim, "z", "y", "x"), np.zeros((len(rows), 2, 6, 8), "uint8")),
            "max_z": ((dim, "c", "y", "x"), np.zeros((len(rows), 1, 6, 8), "uint8")),
        },
        {"cell_id": (dim, names), "fov_id": (dim, [f"{name}-fov" for name in names]), **coordinates},
    )


@pytest.mark.parametrize("dim", ["cell", "t"])
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("number", range(3))
def test_place(dim: str, indexed: bool, number: int) -> None:
    given = dataset(dim=dim)
    if indexed:
        given = given.set_xindex("cell_id")
    frame = FRAMES[number]
    place = to_fov(given, f"plate-A{number}")
    assert (place.cell_id, place.fov_id, place.shape) == (f"plate-A{number}", f"plate-A{number}-fov", (2, 6, 8))
    assert repr(place.geometry) == repr(frame)
    np.testing.assert_array_equal(place.matrix, frame.matrix)
    np.testing.assert_array_equal(place.matrix_um, frame.matrix_um)
    np.testing.assert_array_equal(place.voxel_size, frame.voxel_size)
    np.testing.assert_array_equal(place.fov_voxel_size, frame.fov_voxel_size)
    assert (place.scale, place.rotation, place.flips) == (frame.scale, frame.rotation, (frame.flip_y, frame.flip_x))
    # The box holds all corners, and one voxel less anywhere does not.
    corners = np.stack(np.meshgrid((-0.5, 1.5), (-0.5, 5.5), (-0.5, 7.5), indexing="ij"), axis=-1).reshape(-1, 3)
    there = crop_to_fov(given, f"plate-A{number}", corners)
    start, stop = np.array(place.box.start), np.array(place.box.stop)
    low, high = there.min(axis=0), there.max(axis=0)
    assert (start - 0.5 <= low + 1e-5).all()
    assert (stop - 0.5 >= high - 1e-5).all()
    assert (start + 0.5 > low).all()
    assert (stop - 1.5 < high).all()


def test_without_resampling_the_box_is_the_crop() -> None:
    plain = dataset(FRAMES[:1], full=False)
    assert "rotation" not in plain.variables
    place = to_fov(plain, "plate-A0")
    assert place.box.start == (0, -3, 17)
    assert place.box.stop == (2, 3, 25)
    assert to_fov(plain[["mask"]], "plate-A0", variable="mask").box == place.box
    image = np.arange(30 * 40).reshape(1, 30, 40)
    np.testing.assert_array_equal(crop_to_fov(plain, "plate-A0", (0, 5, 2)), (0, 2, 19))
    assert image[0, 2, 19] == 99


def test_points_of_a_crop_are_found_in_the_field() -> None:
    """From pixels: what shines in the crop is where the map says in the field."""
    field = np.zeros((1, 80, 90), "float32")
    field[0, 37:40, 51:54] = 1
    sampling = place_sampling(
        (0, 36, 47), None, (1, 32, 32), field.shape, (NAN, 0.4, 0.4), (None, 0.3, 0.3), 40.0, True
    )
    crop = sampling.pixels(field)
    given = dataset([sampling.geometry()])
    bright = (np.argwhere(crop > 0) * crop[crop > 0][:, None]).sum(axis=0) / crop.sum()
    np.testing.assert_allclose(crop_to_fov(given, "plate-A0", bright), (0, 38, 52), atol=0.05)
    np.testing.assert_allclose(crop_to_fov(given, "plate-A0", bright, "um")[1:], (15.2, 20.8), atol=0.02)
    np.testing.assert_allclose(fov_to_crop(given, "plate-A0", (0, 38, 52)), bright, atol=0.05)


@pytest.mark.parametrize("number", range(3))
def test_there_and_back(number: int) -> None:
    points = np.random.default_rng(0).uniform(-5, 50, (7, 3))
    name = f"plate-A{number}"
    there = crop_to_fov(dataset(), name, points)
    assert there.shape == (7, 3)
    np.testing.assert_allclose(fov_to_crop(dataset(), name, there), points)
    np.testing.assert_allclose(fov_to_crop(dataset(), name, there[0]), points[0])
    microns = crop_to_fov(dataset(), name, points, "um")
    np.testing.assert_allclose(microns, there * FRAMES[number].fov_voxel_size)
    homogeneous = np.concatenate([points, np.ones((7, 1))], axis=1)
    if number == 1:
        np.testing.assert_allclose(microns, (homogeneous @ to_fov(dataset(), name).matrix_um.T)[:, :3])
    back = fov_to_crop(dataset(), name, microns, "um")
    # z alone is unknown in the first, everything in the last.
    known = {0: [False, True, True], 1: [True] * 3, 2: [False] * 3}[number]
    np.testing.assert_allclose(back[:, known], points[:, known])
    assert np.isnan(back[:, np.logical_not(known)]).all()


def test_one_cell_alone() -> None:
    given = dataset().set_xindex("cell_id").sel(cell_id="plate-A1")
    assert to_fov(given, "plate-A1") == to_fov(dataset(), "plate-A1")
    with pytest.raises(ArgumentError, match="no cell 'plate-A0'"):
        to_fov(given, "plate-A0")


class Watched(xr.backends.BackendArray):
    """An array that notes what is read of it."""

    def __init__(self, values: Any, read: list[Any]) -> None:
        self.values, self.read = values, read
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key: Any) -> Any:
        self.read.append(key.tuple)
        return self.values[key.tuple]


def test_only_the_cell_is_read() -> None:
    given = dataset()
    read: dict[str, list[Any]] = {name: [] for name in map(str, given.variables)}
    lazy = xr.Dataset(
        {
            name: (
                given[name].dims,
                xr.core.indexing.LazilyIndexedArray(Watched(given[name].values, read[name])),
            )
            for name in map(str, given.variables)
        }
    )
    assert to_fov(lazy, "plate-A2").cell_id == "plate-A2"
    assert [read["cells"], read["mask"], read["max_z"]] == [[], [], []]
    assert len(read.pop("cell_id")) == 1
    for name in ("fov_id", "origin_z", "rotation", "flip_x", "voxel_size_y"):
        assert read[name] == [(2,)], name


def test_what_cannot_be_used() -> None:
    given = dataset()
    with pytest.raises(ArgumentError, match=r"no cell 'plate-B1', among 3. Did you mean 'plate-A1'\?"):
        to_fov(given, "plate-B1")
    with pytest.raises(ArgumentError, match="no cell 'nothing like it', among 3"):
        crop_to_fov(given, "nothing like it", (0, 0, 0))
    with pytest.raises(ArgumentError, match="no 'origin_y'"):
        to_fov(given.drop_vars("origin_y"), "plate-A0")
    with pytest.raises(ArgumentError, match=r"no 'cels'.*'cells'"):
        to_fov(given, "plate-A0", variable="cels")
    with pytest.raises(ArgumentError, match="'max_z' has no axis z"):
        to_fov(given, "plate-A0", variable="max_z")
    with pytest.raises(ArgumentError, match=r"points have the shape \(2,\)"):
        crop_to_fov(given, "plate-A0", (0, 1))
    with pytest.raises(ArgumentError, match="unit 'mm' is neither"):
        fov_to_crop(given, "plate-A0", (0, 1, 2), "mm")  # type: ignore[arg-type]
