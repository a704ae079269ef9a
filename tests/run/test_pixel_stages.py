"""Pixels end to end: geometry, masks, statistics of groups, functions at every stage, representations, splits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same import assert_same

import cellcube
from cellcube.errors import ArgumentError, ImageError, SpecChangedError, SpecError, TableError
from cellcube.geometry import crop_to_fov, fov_to_crop, to_fov
from cellcube.run import field as fields

RAW: dict[str, Any] = {"normalize": "none", "projections": [], "executor": 1, "progress": False}


def blobs(shape: tuple[int, int, int], count: int, seed: int) -> Any:
    """A label image of tilted ellipsoids, some touching each other or the border."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1).astype(float)
    for label in range(1, count + 1):
        centre = random.uniform(0, 1, 3) * (np.array(shape) - 1)
        angle = random.uniform(0, math.pi)
        z, y, x = np.moveaxis(grid - centre, -1, 0)
        long, short = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        labels[(long / random.uniform(4, 9)) ** 2 + (short / random.uniform(2, 4)) ** 2 + (z / 3) ** 2 <= 1] = label
    return labels


class Screen:
    """FOVs on disk, with the arrays that they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: dict[str, Any] = {}
        self.labels: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []

    def add(self, fov: str, image: Any, labels: Any, voxel_size: tuple[float, float, float], **columns: Any) -> None:
        """Write a FOV (c, z, y, x) and a row for each label."""
        self.images[fov], self.labels[fov] = image, labels
        tifffile.imwrite(self.folder / f"{fov}.tif", image, photometric="minisblack")
        tifffile.imwrite(self.folder / f"{fov}-labels.tif", labels, photometric="minisblack")
        size = dict(zip(("voxel_size_z", "voxel_size_y", "voxel_size_x"), voxel_size, strict=True))
        self.rows += [
            {
                "cell_id": f"{fov}-{label}",
                "fov_id": fov,
                "fov_path": str(self.folder / f"{fov}.tif"),
                "label_path": str(self.folder / f"{fov}-labels.tif"),
                "label": int(label),
                "axes": "CZYX",
                "label_axes": "ZYX",
                **size,
                **columns,
            }
            for label in np.unique(labels)[1:]
        ]

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    """Two plates of two FOVs, 2 channels, one plane; wells A1 (control) and B1."""
    made = Screen(tmp_path)
    for number, (plate, well) in enumerate([("P1", "A1"), ("P1", "B1"), ("P2", "A1"), ("P2", "B1")]):
        random = np.random.default_rng(number)
        labels = blobs((1, 60, 80), 9, number)
        image = random.gamma(4, 60 * (number + 1), (2, 1, 60, 80)).astype(np.uint16) + 400 * (labels > 0)
        made.add(f"F{number}", image.astype(np.uint16), labels, (1, 0.5, 0.5), plate=plate, well=well)
    return made


def kept(root: str | Path) -> pd.DataFrame:
    return pd.read_parquet(Path(root) / "cells.parquet").set_index("cell_id")


# --- geometry -----------------------------------------------------------------------------------------------


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    depth=st.sampled_from([1, 4]),
    shape=st.tuples(st.integers(1, 6), st.integers(3, 30), st.integers(3, 30)),
    edge=st.sampled_from(["pad", "drop", "shift", "flag"]),
    oversize=st.sampled_from(["crop", "drop"]),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore::cellcube.run.result.CropDepthWarning")
def test_the_geometry_finds_the_pixels_again(
    tmp_path_factory: pytest.TempPathFactory, depth: int, shape: Any, edge: str, oversize: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("screen")
    screen = Screen(folder)
    random = np.random.default_rng(seed)
    labels = blobs((depth, 40, 50), 6, seed)
    image = random.integers(1, 60_000, (1, depth, 40, 50), dtype=np.uint16)
    screen.add("F", image, labels, (0.8, 0.3, 0.3))
    report = cellcube.build(screen.table, folder / "ds", shape=shape, edge=edge, oversize=oversize, **RAW)
    if not report.kept:
        return
    dataset = cellcube.open(folder / "ds")
    cells = dataset["cells"].values[:, 0]
    for number, cell_id in enumerate(dataset["cell_id"].values):
        place = to_fov(dataset, str(cell_id))
        z, y, x = (range(start, stop) for start, stop in zip(place.box.start, place.box.stop, strict=True))
        found = np.zeros([len(z), len(y), len(x)], np.uint16)
        for (i, a), (j, b), (k, c) in _inside((z, y, x), image.shape[1:]):
            found[i, j, k] = image[0, a, b, c]
        assert np.array_equal(found, cells[number])
        corners = np.array([[0, 0, 0], np.array(cells[number].shape) - 1])
        assert np.array_equal(crop_to_fov(dataset, str(cell_id), corners), corners + place.box.start)
        assert np.array_equal(fov_to_crop(dataset, str(cell_id), corners + place.box.start), corners)
        micrometres = crop_to_fov(dataset, str(cell_id), corners, unit="um")
        assert micrometres == pytest.approx((corners + place.box.start) * [0.8, 0.3, 0.3])


def _inside(ranges: Any, shape: Any) -> Any:
    """Pairs of (crop voxel, FOV voxel) along each axis, for voxels inside the image."""
    axes = [[(n, v) for n, v in enumerate(r) if 0 <= v < size] for r, size in zip(ranges, shape, strict=True)]
    return [(a, b, c) for a in axes[0] for b in axes[1] for c in axes[2]]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    depth=st.sampled_from([1, 6]),
    voxel=st.sampled_from([None, (None, 0.3, 0.3), (0.6, 0.45, 0.2), (1.1, 0.9, 0.9)]),
    align=st.sampled_from(["none", "major_axis"]),
    oversize=st.sampled_from(["crop", "shrink"]),
    edge=st.sampled_from(["pad", "shift"]),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore::cellcube.run.result.CropDepthWarning")
def test_resampled_positions_agree_within_half_a_voxel(
    tmp_path_factory: pytest.TempPathFactory, depth: int, voxel: Any, align: str, oversize: str, edge: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("screen")
    screen = Screen(folder)
    labels = blobs((depth, 48, 56), 5, seed)
    # Every channel tells the position along one axis, so each pixel says where it comes from.
    image = np.stack(np.meshgrid(*(np.arange(size) for size in labels.shape), indexing="ij")).astype(np.float32)
    screen.add("F", image, labels, (0.9, 0.35, 0.35))
    flip = "channel_2" if align != "none" else None
    cellcube.build(
        screen.table,
        folder / "ds",
        shape=(depth, 15, 15),
        voxel_size=voxel,
        align=align,
        flip=flip,
        oversize=oversize,
        edge=edge,
        **RAW,
    )
    dataset = cellcube.open(folder / "ds")
    cells = dataset["cells"].values
    for number, cell_id in enumerate(dataset["cell_id"].values):
        q = np.argwhere(np.ones(cells.shape[2:], bool))
        positions = crop_to_fov(dataset, str(cell_id), q)
        # Near the border interpolation and anti-aliasing see its repetition.
        reach = 1 + np.abs(to_fov(dataset, str(cell_id)).matrix[:3, :3]).sum(axis=1) * 2
        flat = np.array([depth == 1, False, False])
        deep = (((positions >= reach) & (positions <= np.array(labels.shape) - 1 - reach)) | flat).all(axis=1)
        stored = cells[number].reshape(3, -1).T
        assert np.abs(stored[deep] - positions[deep]).max(initial=0) < 0.05
        assert np.abs(fov_to_crop(dataset, str(cell_id), positions) - q).max() < 1e-6


def test_fields_of_different_voxel_size_end_at_one(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    for name, factor in (("fine", 1), ("coarse", 2)):
        size = 120 // factor
        # The same disk of 10 µm at two samplings.
        yy, xx = (np.mgrid[:size, :size] + 0.5) * factor
        labels = ((yy - 60) ** 2 + (xx - 60) ** 2 <= 20**2).astype(np.uint8)[None]
        image = (1000 + 500 * np.sin(yy / 9) * np.cos(xx / 7)).astype(np.float32)[None, None]
        screen.add(name, image, labels, (1, 0.25 * factor, 0.25 * factor))
    report = cellcube.build(screen.table, "ds", shape=(1, 30, 30), voxel_size=(None, 0.5, 0.5), mask="label", **RAW)
    dataset = cellcube.open("ds")
    assert report.kept == 2
    fine, coarse = dataset["cells"].values[:, 0, 0]
    both = (dataset["mask"].values[:, 0] == 1).all(axis=0)
    assert both.sum() == pytest.approx(math.pi * 10**2, rel=0.05)
    assert np.abs(fine - coarse)[both].max() < 15
    assert dataset["voxel_size_y"].values.tolist() == [0.5, 0.5]
    scales = dict(zip(dataset["fov_id"].values, dataset["scale_y"].values, strict=True))
    assert scales == {"fine": 2.0, "coarse": 1.0}
    assert dataset.attrs["cellcube"]["voxel_size"][1:] == [0.5, 0.5]


def test_a_field_of_unknown_voxel_size_fails_with_a_remedy(screen: Screen) -> None:
    table = screen.table
    table.loc[table["fov_id"] == "F1", ["voxel_size_y", "voxel_size_x"]] = math.nan
    report = cellcube.build(table, "ds", shape=(1, 20, 20), voxel_size=(None, 0.7, 0.7), **RAW)
    failed = report.outcomes[report.outcomes["status"] == "failed"]
    assert set(failed["fov_id"]) == {"F1"}
    assert failed["reason"].str.contains("voxel-size: .*fov_voxel_size").all()


def test_aligned_cells_lie_flat_and_lean_one_way(screen: Screen) -> None:
    cellcube.build(screen.table, "ds", shape=(1, 24, 24), align="major_axis", flip=0, mask="label", **RAW)
    dataset = cellcube.open("ds")
    y, x = np.mgrid[:24, :24]
    for mask, crop in zip(dataset["mask"].values[:, 0].astype(bool), dataset["cells"].values[:, 0, 0], strict=True):
        if mask[[0, -1]].any() or mask[:, [0, -1]].any() or mask.sum() < 40:
            continue
        covariance = np.cov(y[mask], x[mask])
        angle = 0.5 * math.atan2(2 * covariance[0, 1], covariance[1, 1] - covariance[0, 0])
        ratio = np.sqrt(np.linalg.eigvalsh(covariance))
        if ratio[0] < 0.7 * ratio[1]:
            assert abs(math.degrees(angle)) < 10
        weights = crop[mask].astype(float) - crop[mask].min()
        mean = np.average(x[mask], weights=weights)
        # Resampling moves the moment a little.
        assert np.average((x[mask] - mean) ** 3, weights=weights) > -3
    assert kept("ds")["flip_x"].any()
    assert not kept("ds")["flip_x"].all()


# --- shape, edges, sizes ------------------------------------------------------------------------------------


def test_shape_auto_is_fitted_once_and_stays(screen: Screen) -> None:
    table = screen.table
    first = table[table["plate"] == "P1"]
    cellcube.build(first, "ds", shape="auto", **RAW)
    shape = cellcube.open("ds")["cells"].shape[2:]
    boxes = kept("ds")
    sizes = np.stack([boxes[f"{axis}1"] - boxes[f"{axis}0"] for axis in "zyx"], axis=1)
    assert shape == tuple(np.ceil(np.percentile(sizes, 95, axis=0)).astype(int))
    report = cellcube.build(table, "ds", shape="auto", **RAW)
    assert report.version == 2
    assert cellcube.open("ds")["cells"].shape[2:] == shape
    assert cellcube.build(table, "ds", shape=shape, **RAW).added == 0
    with pytest.raises(SpecChangedError, match="shape"):
        cellcube.build(table, "ds", shape=(1, 9, 9), **RAW)
    cellcube.build(table, "all", shape="auto", shape_percentile=100, **RAW)
    assert not kept("all")["oversize"].any()
    fovs = table.drop(columns=["cell_id", "label"]).drop_duplicates()
    cellcube.build(fovs, "fovs", shape="auto", **RAW)
    assert cellcube.open("fovs")["cells"].shape[2:] != ()


def test_shape_auto_of_boxes(screen: Screen) -> None:
    table = screen.table.drop(columns=["label", "label_path"])
    table = table.assign(y0=5, y1=25, x0=np.arange(len(table)) % 20, x1=40)
    cellcube.build(table, "ds", shape="auto", shape_percentile=100, **RAW)
    assert cellcube.open("ds")["cells"].shape[2:] == (1, 20, 40)
    with pytest.raises(SpecError, match="centres"):
        cellcube.build(table.drop(columns=["y0", "y1", "x0", "x1"]).assign(center_y=5, center_x=5), "c", shape="auto")


def test_flagged_edges_are_kept_and_told(screen: Screen) -> None:
    report = cellcube.build(screen.table, "ds", shape=(1, 30, 30), edge="flag", **RAW)
    outcomes = report.outcomes.set_index("cell_id")
    padded = kept("ds")["padded_fraction"] > 0
    assert report.kept == report.requested
    assert padded.any()
    assert (outcomes["reason"].str.startswith("edge: the crop reaches") == padded.reindex(outcomes.index)).all()


def test_shrunk_cells_are_whole(screen: Screen) -> None:
    cellcube.build(screen.table, "ds", shape=(1, 9, 9), oversize="shrink", **RAW)
    cells, dataset = kept("ds"), cellcube.open("ds")
    large = (cells["y1"] - cells["y0"] > 9) | (cells["x1"] - cells["x0"] > 9)
    assert large.any()
    assert (cells["scale_x"] > 1).equals(large)
    assert (cells["scale_y"] == cells["scale_x"]).all()
    assert (cells["scale_z"] == 1).all()
    assert (cells["truncated_fraction"] == 0).all()
    assert np.allclose(cells["voxel_size_x"], 0.5 * cells["scale_x"])
    assert dataset["cells"].dtype == np.uint16
    cellcube.build(screen.table, "cut", shape=(1, 9, 9), oversize="crop", **RAW)
    cut = kept("cut")
    assert (cut["truncated_fraction"] > 0).sum() > 0
    for cell_id, row in cut.iterrows():
        inside = screen.labels[row["fov_id"]] == row["label"]
        start = [int(row[f"origin_{axis}"]) for axis in "zyx"]
        window = tuple(slice(max(0, a), a + size) for a, size in zip(start, (1, 9, 9), strict=True))
        assert row["truncated_fraction"] == pytest.approx(1 - inside[window].sum() / inside.sum()), cell_id


# --- masks --------------------------------------------------------------------------------------------------


@pytest.fixture
def nuclei(screen: Screen) -> pd.DataFrame:
    """The table with a second label image: the core of each cell, with numbers of its own."""
    from scipy import ndimage

    table = screen.table.assign(nuclei_path="", label_nucleus=0)
    for fov, labels in list(screen.labels.items()):
        core = np.zeros_like(labels)
        for label in np.unique(labels)[1:]:
            core[ndimage.binary_erosion(labels == label, np.ones((1, 3, 3)))] = label + 100
        tifffile.imwrite(screen.folder / f"{fov}-nuclei.tif", core, photometric="minisblack")
        screen.labels[f"{fov} nuclei"] = core
        rows = table["fov_id"] == fov
        table.loc[rows, "nuclei_path"] = str(screen.folder / f"{fov}-nuclei.tif")
        table.loc[rows, "label_nucleus"] = table.loc[rows, "label"] + 100
    # Cells so thin that nothing is left of them have no nucleus.
    has = [row["label_nucleus"] in screen.labels[f"{row['fov_id']} nuclei"] for _, row in table.iterrows()]
    return table[has]


def windows(row: Any, array: Any, shape: tuple[int, int, int]) -> Any:
    """The crop of an array, padded with 0."""
    padded = np.pad(array, 40)
    start = [int(row[f"origin_{axis}"]) + 40 for axis in "zyx"]
    return padded[tuple(slice(a, a + size) for a, size in zip(start, shape, strict=True))]


def test_each_channel_has_its_mask(screen: Screen, nuclei: pd.DataFrame) -> None:
    shape = (1, 24, 24)
    cellcube.build(
        nuclei,
        "ds",
        shape=shape,
        label_images={"nucleus": "nuclei_path"},
        mask={"channel_0": {"labels": "nucleus"}, "channel_1": "label"}
        | {"channel_0": {"method": "label", "labels": "nucleus"}},
        **RAW,
    )
    dataset = cellcube.open("ds")
    stored = dataset["cells"].values
    for number, (_, row) in enumerate(kept("ds").iterrows()):
        fov = row["fov_id"]
        cell = windows(row, screen.labels[fov], shape) == row["label"]
        nucleus = windows(row, screen.labels[f"{fov} nuclei"], shape) == row["label_nucleus"]
        for channel, inside in enumerate((nucleus, cell)):
            crop = windows(row, screen.images[fov][channel], shape)
            assert np.array_equal(stored[number, channel], np.where(inside, crop, 0))
        assert np.array_equal(dataset["mask"].values[number], cell)
        assert np.array_equal(dataset["mask_nucleus"].values[number], nucleus)
    catalog = intake.open_catalog("ds/catalog.yaml")
    assert catalog["mask_nucleus"].to_dask()["mask_nucleus"].shape == dataset["mask"].shape


def test_a_cell_without_an_object_in_the_other_image_has_none(screen: Screen, nuclei: pd.DataFrame) -> None:
    table = nuclei.assign(label_nucleus=[0, *nuclei["label_nucleus"][1:]])
    fields = {"shape": (1, 24, 24), "label_images": {"nucleus": "nuclei_path"}, **RAW}
    cellcube.build(table, "ds", **fields)
    stored = cellcube.open("ds")["mask_nucleus"].values
    assert not stored[0].any()
    assert stored[1].any()
    report = cellcube.build(table, "masked", mask={"method": "label", "labels": "nucleus"}, **fields)
    failed = report.outcomes[report.outcomes["status"] == "failed"]
    assert failed["cell_id"].tolist() == [table["cell_id"].iloc[0]]
    assert failed["reason"].str.contains("no voxel of the cell").all()


def test_planes_are_counted_after_resampling(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    labels = blobs((12, 30, 30), 2, 1)
    screen.add("F", labels[None] * np.uint16(100), labels, (0.6, 0.2, 0.2))
    # 12 planes of 0.6 µm are 36 of 0.2 µm; a warning would be an error here.
    cellcube.build(screen.table, "ds", shape=(36, 20, 20), voxel_size=(0.2, 0.2, 0.2), **RAW)
    assert cellcube.open("ds").sizes["z"] == 36


def test_neighbours_are_removed_and_background_stays(screen: Screen) -> None:
    shape = (1, 24, 24)
    report = cellcube.build(screen.table, "ds", shape=shape, neighbours="remove", **RAW)
    stored = cellcube.open("ds")["cells"].values
    removed = 0
    for number, (_, row) in enumerate(kept("ds").iterrows()):
        labels = windows(row, screen.labels[row["fov_id"]], shape)
        others = (labels != 0) & (labels != row["label"])
        crop = windows(row, screen.images[row["fov_id"]][1], shape)
        assert np.array_equal(stored[number, 1], np.where(others, 0, crop))
        removed += int(others.sum())
    assert removed > 0
    assert report.kept == report.requested


def test_dilated_and_soft_masks(screen: Screen) -> None:
    from scipy import ndimage

    shape = (1, 40, 40)
    cellcube.build(screen.table, "dilated", shape=shape, mask={"method": "dilated", "by": 3}, **RAW)
    fields = {**RAW, "normalize": {"method": "range", "low": 0, "high": 1000}, "dtype": "float32"}
    cellcube.build(screen.table, "soft", shape=shape, mask={"method": "soft", "by": 3}, **fields)
    dilated, soft = (cellcube.open(name)["cells"].values[:, 0, 0] for name in ("dilated", "soft"))
    for number, (_, row) in enumerate(kept("soft").iterrows()):
        inside = windows(row, screen.labels[row["fov_id"]], shape)[0] == row["label"]
        distance = ndimage.distance_transform_edt(~inside)
        crop = windows(row, screen.images[row["fov_id"]][0], shape)[0].astype(float)
        assert np.array_equal(dilated[number], np.where(distance <= 3, crop, 0))
        weights = np.where(distance < 3, (1 + np.cos(np.pi * distance / 3)) / 2, 0)
        assert np.allclose(soft[number], np.clip(crop / 1000, 0, 1) * weights, atol=1e-6)
    with pytest.raises(ArgumentError, match="soft"):
        cellcube.denormalize(cellcube.open("soft"))


def test_masks_need_labels(screen: Screen) -> None:
    boxes = screen.table.drop(columns=["label", "label_path"]).assign(y0=1, y1=9, x0=1, x1=9)
    for field in ({"mask": "label"}, {"neighbours": "remove"}, {"align": "major_axis"}):
        with pytest.raises(SpecError, match=r"given by boxes.*label_path and label"):
            cellcube.build(boxes, "ds", **field)
    assert not Path("ds").exists()


# --- statistics ---------------------------------------------------------------------------------------------


def pixels_of(screen: Screen, fovs: list[str], channel: int) -> Any:
    return np.concatenate([screen.images[fov][channel].ravel() for fov in fovs])


@pytest.mark.parametrize("kind", ["percentile", "zscore", "robust_zscore", "minmax", "trans"])
@pytest.mark.parametrize(
    ("scope", "fovs"),
    [
        ("fov", {fov: [fov] for fov in ("F0", "F1", "F2", "F3")}),
        ("dataset", {fov: ["F0", "F1", "F2", "F3"] for fov in ("F0", "F1", "F2", "F3")}),
        ({"by": "plate"}, {"F0": ["F0", "F1"], "F1": ["F0", "F1"], "F2": ["F2", "F3"], "F3": ["F2", "F3"]}),
        ({"by": "plate", "where": "well == 'A1'"}, {"F0": ["F0"], "F1": ["F0"], "F2": ["F2"], "F3": ["F2"]}),
        ({"where": "well == 'B1'"}, {fov: ["F1", "F3"] for fov in ("F0", "F1", "F2", "F3")}),
    ],
)
def test_statistics_are_of_exactly_the_fields_of_the_scope(
    screen: Screen, kind: str, scope: Any, fovs: dict[str, list[str]]
) -> None:
    normalize = {"method": kind, "scope": scope}
    cellcube.build(screen.table, "ds", shape=(1, 16, 16), **{**RAW, "normalize": normalize, "dtype": "float32"})
    bounds: dict[str, Callable[[Any], tuple[float, float]]] = {
        "percentile": lambda v: tuple(np.percentile(v, [1, 99.9])),  # type: ignore[dict-item,return-value]
        "zscore": lambda v: (v.mean(), v.mean() + v.std()),
        "robust_zscore": lambda v: (
            np.median(v),
            np.median(v) + 1.4826 * np.median(np.abs(v - np.median(v))),
        ),
        "minmax": lambda v: (v.min(), v.max()),
        "trans": lambda v: (v.mean() - 5 * v.std(), v.mean() + 5 * v.std()),
    }
    cells, stored = kept("ds"), cellcube.open("ds")["cells"].values
    for number, (_, row) in enumerate(cells.iterrows()):
        for channel in range(2):
            low, high = bounds[kind](pixels_of(screen, fovs[row["fov_id"]], channel).astype(float))
            assert row[f"norm_low_channel_{channel}"] == pytest.approx(low, rel=1e-9)
            assert row[f"norm_high_channel_{channel}"] == pytest.approx(high, rel=1e-9)
            crop = windows(row, screen.images[row["fov_id"]][channel].astype(float), (1, 16, 16))
            inside = windows(row, np.ones((1, 60, 80)), (1, 16, 16)) > 0
            values = (crop - low) / (high - low)
            if kind in ("percentile", "minmax", "trans"):
                assert row[f"clipped_channel_{channel}"] == pytest.approx(
                    ((values[inside] < 0) | (values[inside] > 1)).mean()
                )
                values = values.clip(0, 1)
            assert np.allclose(stored[number, channel], np.where(inside, values, 0), atol=2e-5)


def test_fitted_statistics_are_saved_and_reused(screen: Screen) -> None:
    table = screen.table
    fields = {**RAW, "shape": (1, 16, 16), "normalize": {"method": "percentile", "scope": {"by": "plate"}}}
    half = table[(table["plate"] == "P1") & (table["well"] == "A1")]
    cellcube.build(half, "ds", **fields)
    record = json.loads(Path("ds/runs/000001.json").read_text())
    (fit, _) = record["fits"]
    assert (fit["channel"], fit["group"], fit["fovs"], fit["pixels"]) == ("channel_0", ["P1"], ["F0"], 4800)
    first = kept("ds")
    cellcube.build(table, "ds", **fields)
    second = kept("ds")
    pd.testing.assert_frame_equal(first, second.loc[first.index])
    # P1 keeps what F0 alone gave; P2 is new, and fitted to both of its fields.
    assert second.loc[second["plate"] == "P1", "norm_high_channel_0"].nunique() == 1
    record = json.loads(Path("ds/runs/000002.json").read_text())
    assert {json.dumps(fit["group"]): fit["fovs"] for fit in record["fits"]} == {'["P2"]': ["F2", "F3"]}
    assert set(cellcube.open("ds").attrs["cellcube"]["fitted"]["cells"]["channel_1"]) == {'["P1"]', '["P2"]'}


def test_float_images_have_statistics_too(screen: Screen, tmp_path: Path) -> None:
    other = Screen(tmp_path / "float")
    other.folder.mkdir()
    for fov in ("F0", "F1"):
        image = np.exp(screen.images[fov].astype(np.float32) / 200)
        other.add(fov, image, screen.labels[fov], (1, 1, 1))
    cellcube.build(
        other.table, "ds", shape=(1, 16, 16), **{**RAW, "normalize": {"method": "percentile", "scope": "dataset"}}
    )
    low, high = np.percentile(pixels_of(other, ["F0", "F1"], 0).astype(float), [1, 99.9])
    row = kept("ds").iloc[0]
    assert row["norm_low_channel_0"] == pytest.approx(low, rel=1e-3)
    assert row["norm_high_channel_0"] == pytest.approx(high, rel=1e-3)


def test_scopes_that_cannot_be_are_refused_before_a_pixel_is_read(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellcube.images.fov import Fov

    monkeypatch.setattr(Fov, "read", lambda *_: pytest.fail("a pixel was read"))
    monkeypatch.setattr(Fov, "read_labels", lambda *_: pytest.fail("a label was read"))

    def build(scope: Any, table: pd.DataFrame = screen.table) -> None:
        cellcube.build(table, "ds", shape=(1, 9, 9), **{**RAW, "normalize": {"method": "zscore", "scope": scope}})

    with pytest.raises(ArgumentError, match=r"no column 'dish' to group by. Columns are .*plate"):
        build({"by": "dish"})
    with pytest.raises(ArgumentError, match=r"no FOV of the group \[\"P2\"\] meets the condition"):
        build({"by": "plate", "where": "fov_id == 'F0'"})
    with pytest.raises(SpecError, match="normalize: the condition 'wel == 1' cannot be evaluated"):
        build({"where": "wel == 1"})
    with pytest.raises(TableError, match="'label' differs between rows of one FOV"):
        build({"by": "label"})
    assert not Path("ds").exists()


def test_a_group_whose_controls_cannot_be_read_fails_alone(screen: Screen) -> None:
    (screen.folder / "F2.tif").write_bytes(b"II*\0 broken")
    scope = {"by": "plate", "where": "well == 'A1'"}
    report = cellcube.build(
        screen.table, "ds", shape=(1, 9, 9), **{**RAW, "normalize": {"method": "zscore", "scope": scope}}
    )
    outcomes = report.outcomes.groupby(["fov_id", "status"]).size().unstack(fill_value=0)
    assert (outcomes.loc[["F0", "F1"], "failed"] == 0).all()
    assert (outcomes.loc[["F2", "F3"], "kept"] == 0).all()
    reasons = report.outcomes.loc[report.outcomes["fov_id"] == "F3", "reason"]
    assert reasons.str.startswith("statistics: ").all()


def test_one_normalizer_a_channel_and_back(screen: Screen) -> None:
    normalize = {"channel_0": "arcsinh", "channel_1": {"method": "log", "offset": 1}}
    cellcube.build(screen.table, "ds", shape=(1, 16, 16), **{**RAW, "normalize": normalize, "dtype": "float32"})
    back = cellcube.denormalize(cellcube.open("ds"))
    assert back.chunks is not None
    values = back.values
    for number, (_, row) in enumerate(kept("ds").iterrows()):
        inside = windows(row, np.ones((1, 60, 80)), (1, 16, 16)) > 0
        for channel in range(2):
            crop = windows(row, screen.images[row["fov_id"]][channel], (1, 16, 16))
            assert np.allclose(values[number, channel][inside], crop[inside], rtol=1e-5)


def test_illumination_is_corrected(screen: Screen, tmp_path: Path) -> None:
    flat = (800 + 5 * np.arange(80)[None] + np.zeros((60, 1))).astype(np.float32)
    tifffile.imwrite(tmp_path / "flat.tif", flat)
    dark = np.full((60, 80), 30, np.uint16)
    tifffile.imwrite(tmp_path / "dark.tif", dark)
    light = {"channel_1": {"flat": "flat.tif", "dark": "dark.tif"}}
    raw = {**RAW, "dtype": "float32", "illumination": light, "shape": (1, 16, 16)}
    cellcube.build(screen.table, "ds", **raw)
    gain = (flat - dark) / (flat - dark).mean()
    corrected = {fov: (image[1].astype(float) - dark) / gain for fov, image in screen.images.items()}
    stored = cellcube.open("ds")["cells"].values
    for number, (_, row) in enumerate(kept("ds").iterrows()):
        crop = windows(row, corrected[row["fov_id"]], (1, 16, 16))
        assert np.allclose(stored[number, 1], crop, rtol=1e-5, atol=1e-3)
        assert np.array_equal(stored[number, 0], windows(row, screen.images[row["fov_id"]][0], (1, 16, 16)))
        inside = screen.labels[row["fov_id"]] == row["label"]
        assert row["intensity_mean_channel_1"] == pytest.approx(corrected[row["fov_id"]][inside].mean(), rel=1e-5)
    scoped = {**raw, "normalize": {"method": "zscore", "scope": "dataset"}}
    cellcube.build(screen.table, "scoped", **scoped)
    everything = np.concatenate([each.ravel() for each in corrected.values()])
    assert kept("scoped")["norm_low_channel_1"].iloc[0] == pytest.approx(everything.mean(), rel=1e-5)
    tifffile.imwrite(tmp_path / "gain.tif", gain)
    by_gain = {"channel_1": {"gain": "gain.tif", "dark": 30}}
    cellcube.build(screen.table, "gain", **{**raw, "illumination": by_gain})
    assert np.allclose(cellcube.open("gain")["cells"].values, stored, rtol=1e-5, atol=1e-3)
    tifffile.imwrite(tmp_path / "flat.tif", flat + 1)
    with pytest.raises(SpecChangedError, match=r"illumination images of channel_1"):
        cellcube.build(screen.table, "ds", **raw)
    tifffile.imwrite(tmp_path / "flat.tif", flat[:50])
    tifffile.imwrite(tmp_path / "dark.tif", dark[:50])
    report = cellcube.build(screen.table, "other", **raw)
    assert report.kept == 0
    with pytest.raises(ImageError, match=r"no flat-field image of channel 'channel_0'.*nowhere.tif"):
        cellcube.build(screen.table, "other", **{**raw, "illumination": {"channel_0": {"flat": "nowhere.tif"}}})
    assert report.outcomes["reason"].str.contains(r"flat-field image of channel 'channel_1' has shape").all()


# --- functions ----------------------------------------------------------------------------------------------


def test_every_stage_takes_a_function(screen: Screen) -> None:
    import scipy.ndimage as ndimage

    def preprocess(pixels: Any, cell: Any) -> Any:
        return ndimage.gaussian_filter(pixels, (0, 0, 1, 1), output=np.float32)

    def ring(mask: Any, pixels: Any, cell: Any) -> Any:
        return ndimage.binary_dilation(mask, np.ones((1, 3, 3))) ^ mask

    def double(pixels: Any, cell: Any) -> Any:
        return pixels * 2

    def spread(pixels: Any) -> Any:
        return pixels.max(axis=1) - pixels.min(axis=1)

    def perimeter(pixels: Any, mask: Any, cell: Any) -> dict[str, float]:
        return {"my_perimeter": float((mask & ~ndimage.binary_erosion(mask, np.ones((1, 3, 3)))).sum())}

    def small(cell: Any) -> str | None:
        return "too small" if cell["area_voxels"] < 60 else None

    report = cellcube.build(
        screen.table,
        "ds",
        shape=(1, 24, 24),
        preprocess=preprocess,
        mask=ring,
        align=lambda mask, pixels, cell: 90.0,
        normalize={"channel_0": double, "channel_1": {"method": "range", "low": 0, "high": 1000}},
        dtype="float32",
        projections=["max_z", spread],
        measure=perimeter,
        drop=small,
        executor=1,
        progress=False,
    )
    dataset, cells = cellcube.open("ds"), kept("ds")
    assert report.kept > 5
    assert set(report.outcomes.loc[report.outcomes["status"] == "dropped", "reason"]) == {"drop: too small"}
    assert (cells["rotation"] == 90).all()
    assert (cells["my_perimeter"] > 3).all()
    assert (dataset["spread"].values == 0).all()
    assert np.isnan(cells["norm_low_channel_0"]).all()
    record = json.loads(Path("ds/runs/000001.json").read_text())
    functions = record["functions"]
    assert {"preprocess", "mask", "align", "normalize.channel_0", "projections.1", "measure", "drop"} == set(functions)
    for function in functions.values():
        assert function["source"]
        assert function["module_version"] is None or function["module_version"]
        assert {"name", "digest", "file", "git"} <= set(function)
    changed = lambda mask, pixels, cell: 45.0  # noqa: E731
    assert cellcube.CubeSpec(align=changed).digest != cellcube.CubeSpec(align=lambda m, p, c: 90.0).digest


WRONG: list[tuple[str, Any, str]] = [
    ("preprocess", lambda pixels, cell: pixels[:, :, 1:], r"preprocess: .* returned an array of shape"),
    ("preprocess", lambda pixels, cell: pixels * np.nan, "preprocess: .* not finite"),
    ("mask", lambda mask, pixels, cell: mask[0], "mask: .* returned an array of shape"),
    ("mask", lambda mask, pixels, cell: mask * 2.0, "mask: .* weights from 0 to 2"),
    ("align", lambda mask, pixels, cell: math.nan, "align: .* an angle in degrees is needed"),
    ("align", lambda mask, pixels, cell: 1 / 0, "align: .* ZeroDivisionError"),
    ("normalize", lambda pixels, cell: pixels.astype(str), "normalize: .* numbers are needed"),
    ("projections", lambda pixels: pixels, "projections: .* returned an array of shape"),
    ("measure", lambda pixels, mask, cell: 3, "measure: .* a mapping of names to numbers"),
    ("measure", lambda pixels, mask, cell: {"area_voxels": 3}, "measure: .* which is a column already"),
    ("drop", lambda cell: cell["nothing"], "drop: .* KeyError"),
]


@pytest.mark.parametrize(("stage", "function", "says"), WRONG)
def test_a_wrong_function_is_an_outcome_that_names_the_stage(
    screen: Screen, stage: str, function: Any, says: str
) -> None:
    def sometimes(*arguments: Any) -> Any:
        row = arguments[-1] if isinstance(arguments[-1], dict) else None
        if row is not None and row["fov_id"] != "F1":
            return good[stage](*arguments)
        return function(*arguments)

    good: dict[str, Any] = {
        "preprocess": lambda pixels, cell: pixels,
        "mask": lambda mask, pixels, cell: mask,
        "align": lambda mask, pixels, cell: 0.0,
        "normalize": lambda pixels, cell: pixels,
        "measure": lambda pixels, mask, cell: {"one": 1},
        "drop": lambda cell: False,
    }
    fields = {"projections": [], "dtype": "float32", "normalize": "minmax", stage: sometimes}
    report = cellcube.build(screen.table, "ds", shape=(1, 24, 24), executor=1, progress=False, **fields)
    failed = report.outcomes[report.outcomes["status"] == "failed"]
    assert len(failed)
    assert failed["reason"].str.match(f"user-function: {says}").all(), failed["reason"].iloc[0]
    if stage != "projections":
        assert set(failed["fov_id"]) == {"F1"}
        assert report.kept > 0


# --- measures, fates, splits --------------------------------------------------------------------------------


def test_cells_are_dropped_by_their_quality(screen: Screen) -> None:
    condition = "touches_border or focus_channel_0 < 0.3 or touching_neighbours > 0"
    cellcube.build(screen.table, "all", shape=(1, 16, 16), **RAW)
    report = cellcube.build(screen.table, "ds", shape=(1, 16, 16), drop=condition, **RAW)
    met = kept("all").query(condition).index
    dropped = report.outcomes[report.outcomes["status"] == "dropped"]
    assert 0 < len(met) < report.requested
    assert sorted(dropped["cell_id"]) == sorted(met)
    assert set(dropped["reason"]) == {f"drop: {condition}"}


def test_the_fate_of_labels_nobody_asked_for(screen: Screen) -> None:
    table = screen.table
    asked = table[table["label"] <= 3]
    absent = table.iloc[:1].assign(cell_id="ghost", label=777)
    cellcube.build(pd.concat([asked, absent]), "ds", shape=(1, 16, 16), edge="drop", **RAW)
    fovs = pd.read_parquet("ds/fovs.parquet").set_index("fov_id")
    for fov, labels in screen.labels.items():
        found = set(np.unique(labels)) - {0}
        rows = asked[asked["fov_id"] == fov]
        assert fovs.loc[fov, "labels"] == len(found)
        assert fovs.loc[fov, "not_requested"] == len(found - set(rows["label"]))
        assert fovs.loc[fov, "requested"] == len(rows) + (fov == "F0")
        assert fovs.loc[fov, ["kept", "dropped", "failed"]].sum() == fovs.loc[fov, "requested"]
    text = cellcube.info("ds").outcome_table()
    assert "no table asked for" in text
    assert "label-not-found" in text
    cellcube.build(table, "ds", shape=(1, 16, 16), edge="drop", **RAW)
    again = pd.read_parquet("ds/fovs.parquet").set_index("fov_id")
    assert (again["not_requested"] == 0).all()
    assert (again["labels"] == fovs["labels"]).all()
    assert intake.open_catalog("ds/catalog.yaml")["fovs"].read().shape == again.reset_index().shape


def test_splits_keep_groups_together_and_never_change(screen: Screen) -> None:
    table = screen.table.assign(well=[f"W{n % 13}" for n in range(len(screen.table))])
    split = {"by": ["well"], "fractions": {"train": 0.6, "test": 0.4}, "seed": 1}
    cellcube.build(table.iloc[10:20], "ds", shape=(1, 16, 16), split=split, **RAW)
    first = kept("ds")["split"]
    cellcube.build(table, "ds", shape=(1, 16, 16), split=split, **RAW)
    cells = kept("ds")
    assert cells.loc[first.index, "split"].equals(first)
    assert (cells.groupby("well")["split"].nunique() == 1).all()
    assert set(cells["split"]) == {"train", "test"}
    dataset = cellcube.open("ds")
    assert dataset["split"].values.tolist() == cells["split"].tolist()
    with pytest.raises(SpecChangedError, match="split"):
        cellcube.build(table, "ds", shape=(1, 16, 16), split={**split, "seed": 2}, **RAW)
    with pytest.raises(TableError, match="column 'split'"):
        cellcube.build(table.assign(split="x"), "own", split=split)
    with pytest.raises(SpecError, match=r"no column 'wel'.*Did you mean 'well'"):
        cellcube.build(table, "own", split={**split, "by": "wel"})
    with pytest.warns(UserWarning, match="none of the 1 groups fell into"):
        cellcube.build(table.assign(well="A"), "one", shape=(1, 16, 16), split=split, **RAW)


# --- representations ----------------------------------------------------------------------------------------


def test_several_representations_in_one_pass(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int]] = []
    original = fields.Fov.read

    def counted(self: Any, channel: int, part: Any) -> Any:
        read.append((self.fov_id, channel))
        return original(self, channel, part)

    monkeypatch.setattr(fields.Fov, "read", counted)
    common = {"shape": (1, 20, 20), "executor": 1, "progress": False}
    others = {
        "raw": {"normalize": "none", "projections": ["max_montage"]},
        "masked": {"mask": "label", "normalize": "zscore", "dtype": "float32", "projections": []},
    }
    cellcube.build(screen.table, "ds", representations=others, projections=["max_z", "max_y", "max_x"], **common)
    assert len(read) == len(set(read)) == 8
    dataset = cellcube.open("ds")
    cellcube.build(screen.table, "one", projections=["max_z", "max_y", "max_x"], **common)
    cellcube.build(screen.table, "two", **{**common, **others["raw"]})
    cellcube.build(screen.table, "three", **{**common, **others["masked"]})
    for name, other in (("cells", "one"), ("raw", "two"), ("masked", "three")):
        alone = cellcube.open(other)
        assert dataset[name].dtype == alone["cells"].dtype
        assert np.array_equal(dataset[name].values, alone["cells"].values)
        suffix = "" if name == "cells" else f"_{name}"
        assert np.array_equal(dataset[f"norm_high{suffix}"].values, alone["norm_high"].values)
        assert np.array_equal(cellcube.denormalize(dataset, name).values, cellcube.denormalize(alone).values)
    crop = dataset["raw"].values
    montage = dataset["raw_max_montage"].values
    assert montage.shape == (dataset.sizes["cell"], 2, 21, 21)
    assert np.array_equal(montage[:, :, :20, :20], crop.max(axis=2))
    assert np.array_equal(montage[:, :, 20:, :20], crop.max(axis=3))
    assert np.array_equal(montage[:, :, :20, 20:], crop.max(axis=4).swapaxes(2, 3))
    catalog = intake.open_catalog("ds/catalog.yaml")
    assert {"normalized_cells", "raw", "raw_max_montage", "masked", "max_x", "masks"} <= set(catalog)
    opened = catalog["raw"].to_dask()
    assert np.array_equal(opened["raw"].values, crop)
    assert opened["norm_high"].shape == (dataset.sizes["cell"], 2)
    assert np.array_equal(cellcube.denormalize(opened, "raw").values, crop)
    assert catalog["raw_max_montage"].to_dask()["raw_max_montage"].shape == montage.shape


@pytest.mark.parametrize("name", ["mask", "z", "cell_id", "max_z", "labels", "plate_x"])
def test_names_of_representations_do_not_meet_others(screen: Screen, name: str) -> None:
    fields = {"representations": {name: {"normalize": "none"}}, "shape": (1, 9, 9), "executor": 1, "progress": False}
    if name == "plate_x":
        cellcube.build(screen.table.assign(plate_x="P"), "ds", **fields)
        assert cellcube.open("ds")["plate_x"].dims == ("cell", "c", "z", "y", "x")
        assert set(kept("ds")["plate_x"]) == {"P"}
        return
    with pytest.raises(SpecError, match=r"is the name of something else in the cube|representations"):
        cellcube.build(screen.table, "ds", **fields)


EVERYTHING: dict[str, Any] = {
    "shape": "auto",
    "voxel_size": (None, 0.4, 0.4),
    "align": "major_axis",
    "flip": 1,
    "oversize": "shrink",
    "mask": {"method": "soft", "by": 2},
    "neighbours": "remove",
    "normalize": {
        "channel_0": {"method": "percentile", "scope": {"by": "plate"}},
        "channel_1": {"method": "zscore", "scope": "fov"},
    },
    "representations": {"raw": {"normalize": "none"}, "bg": {"normalize": "img_bg_sub"}},
    "drop": "area_voxels < 15",
    "split": {"by": "well", "fractions": {"train": 0.5, "test": 0.5}},
    "storage": {"shard_mb": 0.02},
    "progress": False,
}


@pytest.mark.filterwarnings("ignore:split")
def test_all_of_it_is_the_same_on_processes_and_in_two_appends(screen: Screen, tmp_path: Path) -> None:
    table = screen.table
    cellcube.build(table, "serial", executor=1, **EVERYTHING)
    cellcube.build(table, "parallel", executor=2, **EVERYTHING)
    assert_same(Path("serial"), Path("parallel"))
    shape = cellcube.open("serial")["cells"].shape[2:]
    fixed = {**EVERYTHING, "shape": shape}
    cellcube.build(table[table["plate"] == "P1"], "twice", executor=1, **fixed)
    cellcube.build(table, "twice", executor=1, **fixed)
    assert_same(Path("serial"), Path("twice"), runs=False)
