"""Resampled, aligned and moved crops of real cells against scipy and scikit-image on whole fields of view."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage
from skimage.measure import regionprops
from test_datasets import CASES

from cellcube.geometry import crop_to_fov, fov_to_crop, to_fov

CHANNELS = {"DNA": "dna", "ER": "er", "Actin": "actin"}
RAW: dict[str, Any] = {"normalize": "none", "projections": []}


def opened(built: Any) -> Any:
    """The dataset with what is one number a cell in memory: `to_fov` reads a dozen of them for each cell."""
    dataset = built.dataset
    return dataset.assign({name: dataset[name].load() for name in dataset.variables if dataset[name].ndim < 3})


def positions(dataset: Any, cell_id: str) -> np.ndarray:
    """FOV positions (3, z, y, x) of all voxels of a cell's crop."""
    shape = to_fov(dataset, cell_id).shape
    points = np.moveaxis(np.indices(shape, float), 0, -1)
    return np.moveaxis(crop_to_fov(dataset, cell_id, points.reshape(-1, 3)).reshape(*shape, 3), -1, 0)


def within(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which positions are in a FOV, whose voxels span half a voxel to each side."""
    size = np.array(shape).reshape(3, 1, 1, 1)
    inside: np.ndarray = ((places >= -0.5) & (places <= size - 0.5)).all(axis=0)
    return inside


def on_border(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which positions are on the border of a FOV itself, and so neither inside nor outside."""
    size = np.array(shape).reshape(3, 1, 1, 1)
    close: np.ndarray = ((np.abs(places + 0.5) < 1e-5) | (np.abs(places - size + 0.5) < 1e-5)).any(axis=0)
    return close


def nearest(labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Labels of the voxels that hold the positions; 0 outside."""
    inside = within(places, labels.shape)
    z, y, x = (
        np.clip(np.floor(p + 0.5 + 1e-6), 0, n - 1).astype(int) for p, n in zip(places, labels.shape, strict=True)
    )
    return np.where(inside, labels[z, y, x], 0)


@pytest.fixture(scope="module")
def volumes(data: Path) -> dict[str, tuple[Path, Path, tuple[float, float, float]]]:
    """Volumes: image, labels, voxel size (z, y, x) in µm, which of the synthetic one is made up."""
    cells3d = data / "nuclei3d_cells3d"
    return {
        "cells3d": (cells3d / "nuclei.tif", cells3d / "labels_napari_bio.tif", (0.29, 0.26, 0.26)),
        "cells3d, other labels": (cells3d / "nuclei.tif", cells3d / "labels_cellprofiler.tif", (0.29, 0.26, 0.26)),
        "stardist": (data / "stardist/img3d.tif", data / "stardist/mask3d.tif", (2.0, 1.0, 1.0)),
        "neubias": (
            data / "neubias/xyz_8bit__nuclei_autothresh.tif",
            data / "neubias/derived_nuclei_autothresh_labels3d.tif",
            (4.0, 0.829, 0.829),
        ),
    }


def volume_table(volume: tuple[Path, Path, tuple[float, float, float]]) -> pd.DataFrame:
    image, labels, size = volume
    table = pd.DataFrame({"fov_path": [str(image)], "label_path": [str(labels)], "axes": "ZYX", "label_axes": "ZYX"})
    return table.assign(**dict(zip(("voxel_size_z", "voxel_size_y", "voxel_size_x"), size, strict=True)))


def plane_table(data: Path, name: str) -> pd.DataFrame:
    table = CASES[name].table(data)
    return table.assign(voxel_size_z=1.0, voxel_size_y=0.5, voxel_size_x=0.5)


# --- resampling ---------------------------------------------------------------------------------------------

# Voxel sizes (z, y, x) of the crops, as factors of those of the FOV.
FACTORS = {
    "half the size": (0.5, 0.5, 0.5),
    "twice the size": (2.0, 2.0, 2.0),
    "anisotropic": (0.8, 1.7, 0.6),
}


def check_resampled(built: Any, image: np.ndarray, labels: np.ndarray, factors: Any, order: int) -> float:
    """Compare crops and masks with scipy on the whole FOV (z, y, x); gives the largest relative difference."""
    # The anti-aliasing filter of skimage.transform.resize, over the whole FOV.
    sigma = [(factor - 1) / 2 if factor > 1 else 0 for factor in factors]
    smooth = ndimage.gaussian_filter(image.astype(float), sigma, mode="nearest")
    # The outermost voxels go on, as scipy does it with mode "nearest"; the spline's coefficients are found only once.
    margin = 12
    smooth = np.pad(smooth, margin, mode="edge")
    if order > 1:
        smooth = ndimage.spline_filter(smooth, order, mode="mirror")
    dataset, worst = opened(built), 0.0
    crops, masks = dataset["cells"].values[:, 0], dataset["mask"].values
    for number, cell in built.cells.iterrows():
        places = positions(dataset, cell["cell_id"])
        either = on_border(places, image.shape)
        inside = within(places, image.shape) & ~either
        found = ndimage.map_coordinates(smooth, places[:, inside] + margin, order=order, prefilter=False)
        worst = max(worst, float(np.abs(crops[number][inside] - found).max(initial=0)))
        assert not crops[number][~inside & ~either].any()
        np.testing.assert_array_equal(
            (masks[number] == 1)[~either], (nearest(labels, places) == cell["label"])[~either]
        )
        assert 1 - (inside | either).mean() - 1e-9 <= cell["padded_fraction"] <= 1 - inside.mean() + 1e-9
    return worst / (float(image.max()) - float(image.min()))


@pytest.mark.parametrize(
    ("volume", "name", "order"),
    [
        ("cells3d", "twice the size", 1),
        ("cells3d", "anisotropic", 3),
        ("cells3d, other labels", "half the size", 1),
        ("stardist", "half the size", 3),
        ("stardist", "twice the size", 5),
        ("stardist", "anisotropic", 2),
        ("neubias", "half the size", 1),
        ("neubias", "twice the size", 3),
        ("neubias", "anisotropic", 1),
    ],
)
def test_resampled_volumes_equal_scipy_on_the_whole_field(
    volume: str, name: str, order: int, volumes: Any, build: Any
) -> None:
    factors = FACTORS[name]
    image, labels = (tifffile.imread(path) for path in volumes[volume][:2])
    size = tuple(each * factor for each, factor in zip(volumes[volume][2], factors, strict=True))
    table = volume_table(volumes[volume])
    built = build(table, shape=(10, 24, 24), voxel_size=size, order=order, dtype="float32", **RAW)
    assert built.report.kept == len(np.unique(labels)) - 1
    # float32 has 7 digits; of splines, 12 voxels around a crop leave 4e-5.
    assert check_resampled(built, image, labels, factors, order) < (1e-6 if order == 1 else 1e-4)
    assert built.cells["scale_y"].unique() == pytest.approx([factors[1]])
    assert built.cells["voxel_size_z"].unique() == pytest.approx([size[0]])


@pytest.mark.parametrize(
    ("volume", "side", "shape", "light_tolerance"),
    [
        # Between planes of 4 µm a nucleus of two of them loses light to the dark planes around it.
        ("neubias", 0.829, (37, 32, 32), 0.08),
        ("cells3d, other labels", 0.4, (40, 60, 60), 0.01),
    ],
)
def test_isotropic_crops_hold_the_same_volume_and_the_same_light(
    volume: str, side: float, shape: Any, light_tolerance: float, volumes: Any, build: Any
) -> None:
    """Volume in µm³ and integrated intensity of the masks, where the whole label is in the crop."""
    image, labels = (tifffile.imread(path) for path in volumes[volume][:2])
    table = volume_table(volumes[volume])
    built = build(table, shape=shape, voxel_size=(side,) * 3, mask="label", dtype="float32", **RAW)
    dataset, original = built.dataset, math.prod(volumes[volume][2])
    crops, masks, found = dataset["cells"].values[:, 0], dataset["mask"].values == 1, []
    for number, cell in built.cells.iterrows():
        inside = labels == cell["label"]
        assert cell["volume_um3"] == pytest.approx(inside.sum() * original)
        assert not crops[number][~masks[number]].any()
        # Cells at the border are cut flat, and so are not round enough for a few voxels to count.
        if not cell["truncated_fraction"] and not cell["touches_border"]:
            sizes = masks[number].sum() * side**3, inside.sum() * original
            light = crops[number].sum(dtype=float) * side**3, image[inside].sum(dtype=float) * original
            found.append((*sizes, *light))
    size, wanted, light, shone = np.array(found).T
    assert len(size) >= 10
    assert size.sum() == pytest.approx(wanted.sum(), rel=0.03)
    assert light.sum() == pytest.approx(shone.sum(), rel=light_tolerance)
    large = wanted > 500 * side**3
    np.testing.assert_allclose(size[large], wanted[large], rtol=0.1)


def test_zoomed_fields_hold_the_crops(data: Path, build: Any) -> None:
    """Where the crop's grid meets that of `scipy.ndimage.zoom` of the whole FOV, the pixels are the same."""
    table = plane_table(data, "bacteria").iloc[1:]
    image, labels = (tifffile.imread(table[column].iloc[0]).astype(float) for column in ("fov_path", "label_path"))
    # An even number of columns, as scipy stretches what does not divide.
    image, labels = image[:, :320], labels[:, :320]
    for factor, smooth in ((0.5, image), (2, ndimage.gaussian_filter(image, 0.5, mode="nearest"))):
        built = build(table, shape=(1, 24, 24), voxel_size=(None, 0.5 * factor, 0.5 * factor), dtype="float32", **RAW)
        # Voxel i of the zoomed field has its centre at (i + 0.5) * factor - 0.5 of the field.
        zoomed = ndimage.zoom(smooth, 1 / factor, order=1, mode="nearest", grid_mode=True)
        large = ndimage.zoom(labels, 1 / factor, order=0, mode="nearest", grid_mode=True)
        stored, masks, count = built.dataset["cells"].values[:, 0, 0], built.dataset["mask"].values[:, 0], 0
        for number, cell in built.cells.iterrows():
            y, x = ((cell[f"origin_{axis}"] + 0.5) / factor - 0.5 for axis in "yx")
            if y % 1 or x % 1 or cell["padded_fraction"] or x + 25 > 320 / factor:
                continue
            count += 1
            place = slice(int(y), int(y) + 24), slice(int(x), int(x) + 24)
            np.testing.assert_allclose(stored[number], zoomed[place], rtol=1e-6)
            if factor < 1:
                # Halves of a voxel, in larger ones, belong to either neighbour.
                np.testing.assert_array_equal(masks[number] == 1, large[place] == cell["label"])
        assert count >= (2 if factor > 1 else 100)


@pytest.mark.parametrize("name", FACTORS)
def test_resampled_planes_equal_scipy_on_the_whole_field(name: str, data: Path, build: Any) -> None:
    _, y, x = FACTORS[name]
    table = plane_table(data, "bacteria")
    for row in range(2):
        image, labels = (tifffile.imread(table[column][row])[None] for column in ("fov_path", "label_path"))
        size = (None, 0.5 * y, 0.5 * x)
        built = build(
            table.iloc[[row]], shape=(1, 30, 40), voxel_size=size, dtype="float32", drop="label % 3 > 0", **RAW
        )
        assert built.report.kept == (np.unique(labels)[1:] % 3 == 0).sum()
        assert check_resampled(built, image, labels, (1, y, x), 1) < 1e-6


# --- exact geometry -----------------------------------------------------------------------------------------


# Every case is built with edge="shift"; these in all ways, and compared.
EDGES = ("nf1 nuclei", "volume, labels with gaps", "ImageJ volume, anisotropic", "ND2", "OME-Zarr 0.5", "bacteria")


@pytest.mark.parametrize("name", CASES)
def test_raw_crops_are_found_again_by_their_geometry(name: str, data: Path, build: Any) -> None:
    """Shifted and padded crops at the places that `to_fov` tells; dropped are those that needed padding."""
    case = replace(CASES[name], images=CASES[name].images[:1], labels=CASES[name].labels[:1])
    case = replace(case, columns={column: paths[:1] for column, paths in case.columns.items()})
    table, shape = case.table(data), case.spec["shape"]
    image = np.concatenate([case.read(table[each].iloc[0]) for each in case.columns or ["fov_path"]])
    labels = case.read_labels(table["label_path"].iloc[0])[0]
    size = image.shape[1:]
    kept = {}
    for edge in ("pad", "shift", "drop") if name in EDGES else ("shift",):
        built = build(table, edge=edge, **RAW, **case.spec)
        kept[edge] = built
        if not built.report.kept:
            continue
        dataset, cells = opened(built), built.cells
        stored, masks = dataset["cells"].values, dataset["mask"].values
        for number, cell in cells.head(15).iterrows():
            box = to_fov(dataset, cell["cell_id"]).box
            assert box.size == shape
            part = tuple(slice(max(a, 0), b) for a, b in zip(box.start, box.stop, strict=True))
            before = [max(-a, 0) for a in box.start]
            inner = tuple(slice(a, a + n) for a, n in zip(before, labels[part].shape, strict=True))
            for pixels, found in (
                (stored[number], image[(slice(None), *part)]),
                (masks[number], labels[part] == cell["label"]),
            ):
                expected = np.zeros((*found.shape[:-3], *shape), found.dtype)
                expected[(..., *inner)] = found
                np.testing.assert_array_equal(pixels, expected)
            corner = np.array(shape) - 1
            assert crop_to_fov(dataset, cell["cell_id"], corner).tolist() == (np.array(box.stop) - 1).tolist()
            assert fov_to_crop(dataset, cell["cell_id"], box.start).tolist() == [0, 0, 0]
            if edge == "shift":
                fits = [a >= 0 and b <= n for a, b, n in zip(box.start, box.stop, size, strict=True)]
                assert all(one or wanted > n for one, wanted, n in zip(fits, shape, size, strict=True))
    if name not in EDGES:
        return
    padded, shifted = kept["pad"].cells.set_index("cell_id"), kept["shift"].cells.set_index("cell_id")
    whole = padded.index[padded["padded_fraction"] == 0]
    assert kept["drop"].report.kept == len(whole)
    if len(whole):
        assert kept["drop"].cells["cell_id"].tolist() == whole.tolist()
    assert set(shifted.index[~shifted["shifted"]]) == set(whole)
    for axis in "zyx":
        moved = shifted[f"origin_{axis}"] - padded[f"origin_{axis}"]
        assert moved.tolist() == shifted[f"shift_{axis}"].tolist()


# --- alignment ----------------------------------------------------------------------------------------------


def difference(first: Any, second: Any) -> Any:
    """Between two directions without an end, in degrees."""
    return np.abs((np.asarray(first) - second + 90) % 180 - 90)


@pytest.fixture
def aligned(data: Path, build: Any, nf1: Any) -> Any:
    """Aligned cells: the dataset, and the label images by FOV."""

    def run(name: str, **fields: Any) -> tuple[Any, dict[str, np.ndarray]]:
        if name == "nf1":
            fields = {"channels": CHANNELS, "shape": (1, 160, 160), **fields}
            table = nf1("cells").iloc[:2]
        else:
            fields = {"channels": ["phase"], "shape": (1, 64, 64), **fields}
            table = CASES["bacteria"].table(data)
        built = build(table, align="major_axis", order=1, dtype="float32", **RAW, **fields)
        fovs = built.cells.groupby("label_path")["fov_id"].first()
        return built, {fov: tifffile.imread(path) for path, fov in fovs.items()}

    return run


@pytest.mark.parametrize(("name", "count"), [("bacteria", 120), ("nf1", 20)])
def test_cells_are_turned_by_the_orientation_that_skimage_finds(name: str, count: int, aligned: Any) -> None:
    built, images = aligned(name)
    masks, cells, compared = built.dataset["mask"].values[:, 0], built.cells, 0
    angles, own = [], []
    for fov, labels in images.items():
        regions = {region.label: region for region in regionprops(labels)}
        for number, cell in cells[cells["fov_id"] == fov].iterrows():
            region = regions[cell["label"]]
            if region.eccentricity < 0.6:
                continue
            compared += 1
            # regionprops: radians from the row axis towards the columns.
            angles.append(difference(cell["rotation"], 90 - math.degrees(region.orientation)))
            if (
                region.eccentricity > 0.8
                and region.area > 50
                and not (cell["truncated_fraction"] or cell["padded_fraction"])
            ):
                (stored,) = regionprops(masks[number])
                own.append(difference(math.degrees(stored.orientation), 90))
                assert stored.bbox[3] - stored.bbox[1] > stored.bbox[2] - stored.bbox[0]
    assert compared >= count
    assert max(angles) < 0.01
    # Voxels are put on a new grid: small cells turn a little.
    assert np.median(own) < 0.5
    assert max(own) < 5


@pytest.mark.parametrize(("name", "channel"), [("bacteria", "phase"), ("nf1", "ER")])
def test_flipped_cells_lean_towards_high_x_and_y(name: str, channel: str, aligned: Any) -> None:
    built, images = aligned(name, flip=channel, **({"shape": (1, 240, 240)} if name == "nf1" else {}))
    dataset, cells = opened(built), built.cells
    number = dataset["c"].values.tolist().index(channel)
    crops, masks = dataset["cells"].values[:, number, 0].astype(float), dataset["mask"].values[:, 0] == 1
    paths = cells.groupby("fov_id")[{"phase": "fov_path", "ER": "er"}[channel]].first()
    fields, stored = {fov: tifffile.imread(path).astype(float) for fov, path in paths.items()}, []
    for crop, mask, (_, cell) in zip(crops, masks, cells.iterrows(), strict=True):
        # Of the FOV's own pixels, along the axes of the crop: exact.
        image = fields[cell["fov_id"]]
        inside = np.argwhere(images[cell["fov_id"]] == cell["label"])
        points = fov_to_crop(dataset, cell["cell_id"], np.insert(inside, 0, 0, axis=1).astype(float))
        for axis in (1, 2):
            assert skewness(points[:, axis], image[tuple(inside.T)]) > -1e-6
        if not cell["truncated_fraction"] and cell["area_voxels"] > 50:
            stored += [skewness(places, crop[mask]) for places in np.nonzero(mask)]
    assert len(stored) >= 30
    # Interpolation moves the moments a little: of what is next to symmetric it may turn the sign.
    assert min(stored) > -0.1
    assert np.mean(np.array(stored) > 0) > 0.95
    for axis in "yx":
        assert 0.2 < cells[f"flip_{axis}"].mean() < 0.8


def skewness(places: np.ndarray, values: np.ndarray) -> float:
    """Of positions, weighted by intensity above the lowest."""
    weights = values - values.min()
    if not weights.any():
        return 0.0
    away = places - np.average(places, weights=weights)
    spread = np.average(away**2, weights=weights)
    return float(np.average(away**3, weights=weights) / spread**1.5) if spread else 0.0


@pytest.mark.parametrize("fields", [{}, {"flip": "phase"}, {"voxel_size": (None, 0.37, 0.37)}, {"oversize": "shrink"}])
def test_aligned_crops_equal_scipy_on_the_whole_field(fields: Any, data: Path, build: Any) -> None:
    table = plane_table(data, "bacteria").iloc[:1]
    image, labels = (tifffile.imread(table[column][0])[None] for column in ("fov_path", "label_path"))
    fields = {"channels": ["phase"], "shape": (1, 20, 30), "dtype": "float32", **fields}
    built = build(table, align="major_axis", **RAW, **fields)
    dataset, cells = opened(built), built.cells
    stored, masks = dataset["cells"].values[:, 0], dataset["mask"].values
    assert ((cells["scale_x"] > 1).any()) == ("oversize" in fields)
    for number, cell in cells.iterrows():
        places = positions(dataset, cell["cell_id"])
        inside = within(places, image.shape)
        sigma = max(0.0, (cell["scale_x"] - 1) / 2)
        smooth = ndimage.gaussian_filter(image[0].astype(float), sigma, mode="nearest")
        found = ndimage.map_coordinates(smooth, places[1:, inside], order=1, mode="nearest")
        np.testing.assert_allclose(stored[number][inside], found, atol=1e-6 * image.max())
        assert not stored[number][~inside].any()
        np.testing.assert_array_equal(masks[number] == 1, nearest(labels, places) == cell["label"])
        voxels = np.argwhere(labels == cell["label"])
        there = fov_to_crop(dataset, cell["cell_id"], voxels)
        lost = 1 - ((there > -0.5 - 1e-6) & (there < np.array(masks.shape[1:]) - 0.5 + 1e-6)).all(axis=1).mean()
        assert cell["truncated_fraction"] == pytest.approx(lost, abs=2 / len(voxels))
