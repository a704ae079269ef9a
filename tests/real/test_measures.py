"""Measures of every cell of real images, against scikit-image and against what CellProfiler measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.ndimage import gaussian_filter
from skimage.measure import label as components
from skimage.measure import regionprops, regionprops_table
from skimage.morphology import dilation

from cellcube.pixels.masks import weights_of
from cellcube.pixels.measure import box_of_labels, measure_cell, surroundings
from cellcube.spec import Mask

PEDIATRIC = {"Brightfield": 1, "ER": 2, "AGP": 3, "Mito": 4, "DNA": 5, "RNA": 6}
NF1 = {"DAPI": 1, "GFP": 2, "RFP": 3}
VOXEL = (2.0, 0.5, 0.25)

# Images (those of several channels one a file or along an axis) and labels: 8 and 16 bits, 2D and 3D.
DATASETS: dict[str, tuple[tuple[str, ...], str]] = {
    "nf1 nuclei": (
        tuple(f"nf1_cellpainting/images/D6_01_{k}_2_{dye}_001.tif" for dye, k in NF1.items()),
        "nf1_cellpainting/labels/D6_s2_nuclei.tif",
    ),
    "nf1 cells": (
        tuple(f"nf1_cellpainting/images/D6_01_{k}_2_{dye}_001.tif" for dye, k in NF1.items()),
        "nf1_cellpainting/labels/D6_s2_cells.tif",
    ),
    "pediatric": (
        tuple(f"pediatric_cellpainting/images/r03c03f03p01-ch{k}sk1fk1fl1.tiff" for k in PEDIATRIC.values()),
        "pediatric_cellpainting/labels/r03c03f03_cells.tif",
    ),
    "bbbc014": (
        tuple(f"bbbc014_translocation/Channel {k}-01-A-01-00.tif" for k in (1, 2)),
        "bbbc014_translocation/labels/01-A-01_nuclei.tif",
    ),
    "bbbc022": (("bbbc022_crop/IXMtest_A02_s9.tif",), "bbbc022_crop/labels/IXMtest_A02_s9_cells.tif"),
    "bacteria": (("bacteria_phase/ec_5I_t141xy5c1.tif",), "bacteria_phase/ec_5I_t141xy5c1_masks.tif"),
    "caulobacter": (("bacteria_phase/caulo_15.tif",), "bacteria_phase/caulo_15_masks.tif"),
    "noisy": (("neubias/xy_8bit__nuclei_PLK1_control.tif",), "neubias/xy_8bit_labels__noisy_nuclei.tif"),
    "stardist": (("stardist/img2d.tif",), "stardist/mask2d.tif"),
    "stardist 3d": (("stardist/img3d.tif",), "stardist/mask3d.tif"),
    "nuclei 3d": (("nuclei3d_cells3d/nuclei.tif",), "nuclei3d_cells3d/labels_napari_bio.tif"),
    "autothresh 3d": (
        ("neubias/xyz_8bit__nuclei_autothresh.tif",),
        "neubias/derived_nuclei_autothresh_labels3d.tif",
    ),
}
THREE_D = ("stardist 3d", "nuclei 3d", "autothresh 3d")


def opened(data: Path, name: str) -> tuple[Any, Any]:
    """Image (c, z, y, x) and labels (z, y, x)."""
    files, label_file = DATASETS[name]
    images = [tifffile.imread(data / file) for file in files]
    labels = tifffile.imread(data / label_file)
    image = np.stack(images) if images[0].ndim == labels.ndim else images[0]
    return (image, labels) if labels.ndim == 3 else (image[:, None], labels[None])


def measured(image: Any, labels: Any, channels: tuple[str, ...] = ()) -> pd.DataFrame:
    """Every cell of a FOV, by label."""
    channels = channels or tuple(f"{k}" for k in range(len(image)))
    highest = [float(channel.max()) for channel in image]
    rows = {}
    for label, box in box_of_labels(labels).items():
        around = surroundings(box, labels.shape)
        pixels, part = image[(slice(None), *around.slices)], labels[around.slices]
        rows[label] = measure_cell(pixels, part, label, box, around, labels.shape, VOXEL, channels, highest)
    return pd.DataFrame.from_dict(rows, orient="index")


@pytest.mark.parametrize("name", DATASETS)
def test_regionprops(name: str, data: Path) -> None:
    """Areas, boxes and maxima exactly; the rest to rounding."""
    image, labels = opened(data, name)
    ours = measured(image, labels)
    deep = len(labels) > 1
    plain = labels if deep else labels[0]
    intensity = np.moveaxis(image if deep else image[:, 0], 0, -1)
    properties = ("label", "area", "bbox", "centroid", "intensity_mean", "intensity_max", "intensity_std")
    told = pd.DataFrame(regionprops_table(plain, intensity, properties=properties)).set_index("label")
    assert ours.index.tolist() == told.index.tolist()
    assert len(ours) == {"nf1 nuclei": 28, "nf1 cells": 17, "pediatric": 29, "stardist 3d": 51}.get(name, len(ours))
    np.testing.assert_array_equal(ours["area_voxels"], told["area"])
    centroids = [f"centroid_{letter}" for letter in ("zyx" if deep else "yx")]
    np.testing.assert_allclose(ours[centroids], told[[f"centroid-{k}" for k in range(plain.ndim)]], rtol=1e-12)
    boxes = pd.DataFrame([box.start[not deep :] + box.stop[not deep :] for box in box_of_labels(labels).values()])
    np.testing.assert_array_equal(boxes, told[[f"bbox-{k}" for k in range(2 * plain.ndim)]])
    for k in range(len(image)):
        np.testing.assert_allclose(ours[f"intensity_mean_{k}"], told[f"intensity_mean-{k}"], rtol=1e-12)
        np.testing.assert_array_equal(ours[f"intensity_max_{k}"], told[f"intensity_max-{k}"])
        np.testing.assert_allclose(ours[f"intensity_std_{k}"], told[f"intensity_std-{k}"], rtol=1e-9)


@pytest.mark.parametrize("name", DATASETS)
def test_pieces_neighbours_and_saturation(name: str, data: Path) -> None:
    image, labels = opened(data, name)
    ours = measured(image, labels)
    highest = image.max(axis=(1, 2, 3))
    padded = np.pad(labels, 1)
    for region in regionprops(padded):
        cell = ours.loc[region.label]
        assert cell["fragments"] == components(region.image, return_num=True, connectivity=3)[1]
        near = tuple(slice(part.start - 1, part.stop + 1) for part in region.slice)
        mine = padded[near] == region.label
        next_to = padded[near][dilation(mine, np.ones((3, 3, 3))) & ~mine]
        assert cell["touching_neighbours"] == np.count_nonzero(np.unique(next_to))
        values = image[:, labels == region.label]
        shares = (values == highest[:, None]).mean(axis=1)
        assert [cell[f"saturated_fraction_{k}"] for k in range(len(image))] == shares.tolist()
        assert cell["saturated_fraction"] == shares.max()
        np.testing.assert_array_equal(
            [cell[f"intensity_integrated_{k}"] for k in range(len(image))], values.sum(axis=1, dtype=np.int64)
        )
    assert ours["touching_neighbours"].max() > 0


@pytest.mark.parametrize("name", ["nf1 cells", "bacteria", "stardist 3d", "nuclei 3d"])
def test_labels_in_pieces(name: str, data: Path) -> None:
    """Labels of real cells that are given to three cells in turn."""
    image, labels = opened(data, name)
    merged = np.where(labels > 0, labels % 3 + 1, 0).astype("uint8")
    told = [
        components(region.image, return_num=True, connectivity=region.image.ndim)[1] for region in regionprops(merged)
    ]
    assert max(told) > 1
    assert measured(image, merged)["fragments"].tolist() == told


@pytest.mark.parametrize("name", DATASETS)
def test_background_and_focus(name: str, data: Path) -> None:
    """Against the formulas, written with NumPy for whole boxes."""
    image, labels = opened(data, name)
    ours = measured(image, labels)
    for label, box in box_of_labels(labels).items():
        around = surroundings(box, labels.shape)
        empty = labels[around.slices] == 0
        for k, channel in enumerate(image):
            cell = channel[box.slices].astype("float64")
            background = np.median(channel[around.slices][empty]) if empty.any() else np.nan
            ratio = channel[labels == label].mean() / background if background else np.nan
            np.testing.assert_allclose(ours.loc[label, f"signal_to_background_{k}"], ratio, rtol=1e-12)
            steps = cell[:, 2:] - cell[:, :-2], cell[..., 2:] - cell[..., :-2]
            gradients = [np.mean(step**2) for step in steps if step.size]
            focus = np.mean(gradients) / (2 * cell.var()) if gradients else np.nan
            np.testing.assert_allclose(ours.loc[label, f"focus_{k}"], focus, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["nf1 nuclei", "nf1 cells", "pediatric", "bbbc014", "bbbc022", "stardist", "nuclei 3d"]
)
def test_blur_lowers_the_focus(name: str, data: Path) -> None:
    """The wider a Gaussian blurs a field, the lower the focus of every cell in every channel.

    Of every cell of some size: a blur as wide as the box moves what is in it.
    """
    image, labels = opened(data, name)
    large = [label for label, box in box_of_labels(labels).items() if min(box.size[1:]) >= 22]
    assert large
    columns = [f"focus_{k}" for k in range(len(image))]
    blurred = [image.astype("float32")]
    blurred += [gaussian_filter(blurred[0], (0, 0, sigma, sigma)) for sigma in (0.5, 1, 2, 4)]
    focus = np.array([measured(each, labels).loc[large, columns] for each in blurred])
    assert (np.diff(focus, axis=0) < 0).all()


def test_masks_of_real_cells(data: Path) -> None:
    """Every cell of a field dilated by 5 pixels is what scikit-image's dilation by a disk makes."""
    from skimage.morphology import disk

    _, labels = opened(data, "nf1 cells")
    for label, box in list(box_of_labels(labels).items())[:6]:
        inside = np.pad(labels[box.slices] == label, [(0, 0), (8, 8), (8, 8)])
        kept = weights_of(Mask(method="dilated", by=5), inside)
        assert kept is not None
        np.testing.assert_array_equal(kept[0], dilation(inside[0], disk(5)))


def compared(ours: pd.DataFrame, one: pd.Series, kind: str, dye: str, channel: str) -> dict[str, float]:
    """CellProfiler's measures of one channel of one cell, and ours of the nearest, in CellProfiler's unit of 0 to 1."""
    away = np.hypot(
        ours["centroid_y"] - one[f"{kind}_Location_Center_Y"], ours["centroid_x"] - one[f"{kind}_Location_Center_X"]
    )
    cell = ours.loc[away.idxmin()]
    assert away.min() < 0.1
    row = {"area": cell["area_voxels"], "told_area": one[f"{kind}_AreaShape_Area"]}
    names = {"mean": "Mean", "max": "Max", "std": "Std", "integrated": "Integrated"}
    for name, theirs in names.items():
        row[name] = cell[f"intensity_{name}_{channel}"] / 65535
        row[f"told_{name}"] = one[f"{kind}_Intensity_{theirs}Intensity_{dye}"]
    return row


def check_intensities(rows: list[dict[str, float]], std: float, height: float) -> None:
    """CellProfiler's intensities are corrected for illumination, which mostly took a level off.

    So means, sums and maxima are lower than ours, while what no offset changes agrees: the standard deviation, and
    how far the maximum is above the mean. Sums are means times areas, for both.
    """
    table = pd.DataFrame(rows)
    np.testing.assert_allclose(table["std"], table["told_std"], rtol=std)
    np.testing.assert_allclose(table["max"] - table["mean"], table["told_max"] - table["told_mean"], rtol=height)
    np.testing.assert_allclose(table["integrated"], table["mean"] * table["area"], rtol=1e-12)
    np.testing.assert_allclose(table["told_integrated"], table["told_mean"] * table["told_area"], rtol=1e-6)
    level = table["mean"] - table["told_mean"]
    np.testing.assert_allclose(
        table["integrated"] - level * table["area"], table["told_integrated"], rtol=0.01, err_msg="less the level"
    )


@pytest.mark.parametrize("kind", ["Nuclei", "Cells"])
def test_pediatric_intensities_agree_with_cellprofiler(kind: str, data: Path) -> None:
    """Labels equal CellProfiler's but for a pixel. Brightfield was corrected by a factor as well, of 1 to 3 %."""
    folder = data / "pediatric_cellpainting"
    image, _ = opened(data, "pediatric")
    labels = tifffile.imread(folder / f"labels/r03c03f03_{kind.lower()}.tif")[None]
    ours = measured(image, labels, tuple(PEDIATRIC))
    for channel in PEDIATRIC:
        rows = [
            compared(ours, one, kind, f"Corr{channel}", channel)
            for _, one in pd.read_csv(folder / "cellprofiler_reference.csv").iterrows()
        ]
        assert [row["area"] for row in rows] == pytest.approx([row["told_area"] for row in rows], abs=1)
        check_intensities(rows, std=0.035, height=0.05)


def test_nf1_intensities_agree_with_cellprofiler(data: Path) -> None:
    """To 3.5 %, as areas differ by up to 1 %; to 0.015 % in the nucleus whose label is CellProfiler's to the pixel."""
    folder = data / "nf1_cellpainting"
    same = []
    for _, one in pd.read_csv(folder / "cellprofiler_reference.csv").iterrows():
        well, site = one["Image_Metadata_Well_x"], one["Image_Metadata_Site_x"]
        files = [folder / f"images/{well}_01_{k}_{site}_{dye}_001.tif" for dye, k in NF1.items()]
        image = np.stack([tifffile.imread(file) for file in files])[:, None]
        labels = tifffile.imread(folder / f"labels/{well}_s{site}_nuclei.tif")[None]
        ours = measured(image, labels, tuple(NF1))
        rows = [compared(ours, one, "Nuclei", dye, dye) for dye in NF1]
        assert rows[0]["area"] == pytest.approx(rows[0]["told_area"], rel=0.01)
        check_intensities(rows, std=0.035, height=0.016)
        same += [row for row in rows if row["area"] == row["told_area"]]
    assert len(same) == 3
    check_intensities(same, std=1.5e-4, height=1.5e-4)
