"""Measures against scikit-image, and against what CellProfiler measured of the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.measure import regionprops_table

NF1 = {"DNA": "dna", "ER": "er", "Actin": "actin"}
PEDIATRIC = {1: "Brightfield", 2: "ER", 3: "AGP", 4: "Mito", 5: "DNA", 6: "RNA"}


@pytest.fixture
def pediatric(data: Path) -> pd.DataFrame:
    folder = data / "pediatric_cellpainting"
    files = {name: str(folder / f"images/r03c03f03p01-ch{k}sk1fk1fl1.tiff") for k, name in PEDIATRIC.items()}
    return pd.DataFrame({**files, "label_path": str(folder / "labels/r03c03f03_cells.tif")}, index=[0])


@pytest.mark.parametrize("labels", ["nuclei", "cells"])
def test_measures_equal_scikit_image(labels: str, build: Any, nf1: Any) -> None:
    """Area, box, centroid, mean and maximum of every object of five FOVs, exactly."""
    table = nf1(labels)
    cells = build(table, channels=NF1, shape=(1, 16, 16)).cells
    assert len(cells) == {"nuclei": 136, "cells": 98}[labels]
    for fov in table.to_dict("records"):
        image = np.stack([tifffile.imread(fov[column]) for column in NF1.values()], axis=-1)
        properties = ("label", "area", "bbox", "centroid", "intensity_mean", "intensity_max")
        told = pd.DataFrame(
            regionprops_table(tifffile.imread(fov["label_path"]), image, properties=properties)
        ).set_index("label")
        ours = cells[cells["fov_id"] == fov["fov_id"]].set_index("label")
        assert ours.index.tolist() == told.index.tolist()
        np.testing.assert_array_equal(ours["area_voxels"], told["area"])
        boxes = ours[["y0", "x0", "y1", "x1"]]
        np.testing.assert_array_equal(boxes, told[[f"bbox-{k}" for k in range(4)]])
        np.testing.assert_allclose(ours[["centroid_y", "centroid_x"]], told[["centroid-0", "centroid-1"]], rtol=1e-12)
        for k, channel in enumerate(NF1):
            np.testing.assert_allclose(ours[f"intensity_mean_{channel}"], told[f"intensity_mean-{k}"], rtol=1e-12)
            np.testing.assert_array_equal(ours[f"intensity_max_{channel}"], told[f"intensity_max-{k}"])


def test_measures_equal_scikit_image_3d(data: Path, build: Any) -> None:
    """The same in a volume, with its volumes in µm³."""
    image, labels = (str(data / "nuclei3d_cells3d" / name) for name in ("nuclei.tif", "labels_cellprofiler.tif"))
    size = (0.29, 0.26, 0.26)
    table = pd.DataFrame({"fov_path": [image], "label_path": labels})
    cells = build(table, channels=["DNA"], axes="ZYX", shape=(4, 8, 8), fov_voxel_size=size).cells
    told = pd.DataFrame(
        regionprops_table(
            tifffile.imread(labels),
            tifffile.imread(image),
            properties=("label", "area", "bbox", "centroid", "intensity_mean"),
        )
    )
    assert len(cells) == len(told) == 22
    np.testing.assert_allclose(cells["volume_um3"], told["area"] * np.prod(size))
    boxes = cells[["z0", "y0", "x0", "z1", "y1", "x1"]]
    np.testing.assert_array_equal(boxes, told[[f"bbox-{k}" for k in range(6)]])
    centroids = cells[["centroid_z", "centroid_y", "centroid_x"]]
    np.testing.assert_allclose(centroids, told[[f"centroid-{k}" for k in range(3)]], rtol=1e-12)
    np.testing.assert_allclose(cells["intensity_mean_DNA"], told["intensity_mean"], rtol=1e-12)


def matched(cells: pd.DataFrame, reference: pd.DataFrame, kind: str) -> pd.DataFrame:
    """For every row of CellProfiler's table the cell whose centroid is nearest; its distance as `distance`."""
    rows = []
    for _, one in reference.iterrows():
        here = cells
        if "Image_Metadata_Well_x" in one:
            here = cells[
                (cells["well"] == one["Image_Metadata_Well_x"]) & (cells["site"] == one["Image_Metadata_Site_x"])
            ]
        away = np.hypot(
            here["centroid_y"] - one[f"{kind}_Location_Center_Y"], here["centroid_x"] - one[f"{kind}_Location_Center_X"]
        )
        rows.append({**here.loc[away.idxmin()], "distance": away.min()})
    return pd.DataFrame(rows)


def boxes(reference: pd.DataFrame, kind: str) -> pd.DataFrame:
    edges = [("Minimum", "Y"), ("Maximum", "Y"), ("Minimum", "X"), ("Maximum", "X")]
    return reference[[f"{kind}_AreaShape_BoundingBox{end}_{axis}" for end, axis in edges]]


def test_nf1_nuclei_agree_with_cellprofiler(data: Path, build: Any, nf1: Any) -> None:
    """Areas to 1 %, boxes to a pixel, centroids to 0.1 pixel: the labels were made again from CellProfiler's masks."""
    cells = build(nf1("nuclei"), channels=NF1, shape=(1, 16, 16)).cells
    reference = pd.read_csv(data / "nf1_cellpainting/cellprofiler_reference.csv")
    ours = matched(cells, reference, "Nuclei")
    assert len(ours) == 5
    assert ours["distance"].max() < 0.1
    np.testing.assert_allclose(ours["area_voxels"], reference["Nuclei_AreaShape_Area"], rtol=0.01)
    np.testing.assert_allclose(ours[["y0", "y1", "x0", "x1"]], boxes(reference, "Nuclei"), atol=1)
    # CellProfiler's intensities are corrected for illumination, which takes background away, and in 0..1: they are
    # not equal to the raw ones, but lie 5 to 85 % below them and rank the nuclei alike where the signal is strong.
    for channel, dye, agreement in (("DNA", "DAPI", 0.99), ("ER", "GFP", 0.99), ("Actin", "RFP", 0.98)):
        raw, corrected = ours[f"intensity_mean_{channel}"] / 65535, reference[f"Nuclei_Intensity_MeanIntensity_{dye}"]
        assert np.corrcoef(raw, corrected)[0, 1] > agreement
        assert (raw / corrected).between(1.05, 1.85).all()


def test_pediatric_cells_agree_with_cellprofiler(data: Path, build: Any, pediatric: pd.DataFrame) -> None:
    """Areas to a pixel, boxes to a pixel: the labels were filled from CellProfiler's outlines."""
    channels = {name: name for name in PEDIATRIC.values()}
    cells = build(pediatric, channels=channels, shape=(1, 16, 16), fov_voxel_size=(1, 0.598, 0.598)).cells
    reference = pd.read_csv(data / "pediatric_cellpainting/cellprofiler_reference.csv")
    ours = matched(cells, reference, "Cells")
    assert ours["distance"].max() < 0.02
    np.testing.assert_allclose(ours["area_voxels"], reference["Cells_AreaShape_Area"], atol=1)
    np.testing.assert_allclose(ours[["y0", "y1", "x0", "x1"]], boxes(reference, "Cells"), atol=1)
    for channel in channels:
        raw = ours[f"intensity_mean_{channel}"] / 65535
        corrected = reference[f"Cells_Intensity_MeanIntensity_Corr{channel}"]
        # Brightfield hardly differs between cells, so its correction weighs more than the cells do.
        agreement = 0.5 if channel == "Brightfield" else 0.9
        assert np.corrcoef(raw, corrected)[0, 1] > agreement, channel
        assert (raw / corrected).between(1, 1.65).all(), channel
