"""What is stored of real intensities: statistics, masks, their inverse, projections, splits, what is not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage
from test_datasets import CASES, PEDIATRIC

import cellcube

CHANNELS = {"DNA": "dna", "ER": "er", "Actin": "actin"}
RAW: dict[str, Any] = {"normalize": "none", "projections": []}


def field_of(table: pd.DataFrame, columns: Any) -> np.ndarray:
    """The image (c, z, y, x) of a table's first row, in float64."""
    return np.stack([tifffile.imread(table[column].iloc[0])[None] for column in columns]).astype(float)


# --- statistics ---------------------------------------------------------------------------------------------

BOUNDS: dict[str, Any] = {
    "percentile": lambda v: np.percentile(v, [1, 99.9]),
    "minmax": lambda v: (v.min(), v.max()),
    "zscore": lambda v: (v.mean(), v.mean() + v.std()),
    "robust_zscore": lambda v: (np.median(v), np.median(v) + 1.4826 * np.median(np.abs(v - np.median(v)))),
    "trans": lambda v: (v.mean() - 5 * v.std(), v.mean() + 5 * v.std()),
}


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("percentile", "fov"),
        ("zscore", "dataset"),
        ("robust_zscore", {"by": "genotype"}),
        ("trans", {"by": ["genotype"], "where": "well in ['D6', 'D7']"}),
        ("percentile", {"by": "plate", "where": "well == 'B7'"}),
        ("minmax", {"where": "site == 2"}),
    ],
)
def test_statistics_of_a_plate_equal_numpy_on_its_files(method: str, scope: Any, build: Any, nf1: Any) -> None:
    table = nf1("nuclei").assign(plate="Plate 2")
    fields = {"channels": CHANNELS, "shape": (1, 32, 32), "dtype": "float32", "projections": []}
    built = build(table, normalize={"method": method, "scope": scope}, **fields)
    cells, stored = built.cells, built.dataset["cells"].values
    images = {row["fov_id"]: field_of(pd.DataFrame([row]), CHANNELS.values()) for _, row in table.iterrows()}
    for fov, group in cells.groupby("fov_id"):
        own = table[table["fov_id"] == fov].iloc[0]
        members = table[table["fov_id"] == fov] if scope == "fov" else table
        if isinstance(scope, dict):
            members = members.query(scope["where"]) if "where" in scope else members
            by = "genotype" if "genotype" in scope.get("by", ()) else None
            members = members[members[by] == own[by]] if by else members
        for channel, name in enumerate(CHANNELS):
            values = np.concatenate([images[each][channel].ravel() for each in members["fov_id"]])
            low, high = BOUNDS[method](values)
            np.testing.assert_allclose(group[f"norm_low_{name}"], low, rtol=1e-12)
            np.testing.assert_allclose(group[f"norm_high_{name}"], high, rtol=1e-12)
        number, cell = group.index[0], group.iloc[0]
        found = window(images[fov], cell, (1, 32, 32))
        inside = window(np.ones((1, *images[fov].shape[1:])), cell, (1, 32, 32))[0] > 0
        for channel, name in enumerate(CHANNELS):
            low, high = cell[f"norm_low_{name}"], cell[f"norm_high_{name}"]
            values = (found[channel] - low) / (high - low)
            if method in ("percentile", "minmax", "trans"):
                values = values.clip(0, 1)
            np.testing.assert_allclose(stored[number, channel], np.where(inside, values, 0), rtol=1e-6, atol=1e-7)


def test_statistics_over_channels_of_a_six_channel_field(data: Path, build: Any) -> None:
    case = CASES["pediatric"]
    table = case.table(data).assign(plate="BR00143976")
    normalize = {
        "Brightfield": {"method": "trans", "scope": "fov"},
        "ER": {"method": "zscore", "scope": {"by": "plate"}},
        "AGP": {"method": "robust_zscore", "scope": "dataset"},
        "Mito": {"method": "minmax", "scope": "fov"},
        "DNA": {"method": "percentile", "low": 0.5, "high": 99.5, "scope": "dataset"},
        "RNA": "zscore",
    }
    built = build(table, normalize=normalize, dtype="float32", projections=[], **case.spec)
    image = field_of(table, PEDIATRIC.values())
    for channel, (name, rule) in enumerate(normalize.items()):
        cell = built.cells.iloc[0]
        values = image[channel].ravel()
        if name == "RNA":
            values = window(image[channel : channel + 1], cell, (1, 96, 96)).ravel()
        if name == "DNA":
            low, high = np.percentile(values, [0.5, 99.5])
        else:
            low, high = BOUNDS[rule if isinstance(rule, str) else rule["method"]](values)
        assert cell[[f"norm_low_{name}", f"norm_high_{name}"]].tolist() == pytest.approx([low, high], rel=1e-12)


def window(image: np.ndarray, cell: pd.Series, shape: tuple[int, int, int]) -> np.ndarray:
    """Voxels (c, z, y, x) of a raw crop; 0 outside the image."""
    out = np.zeros((len(image), *shape), image.dtype)
    first = [int(cell[f"origin_{axis}"]) for axis in "zyx"]
    start = [max(0, -at) for at in first]
    stop = [min(size, n - at) for size, n, at in zip(shape, image.shape[1:], first, strict=True)]
    inner = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    outer = tuple(slice(a + at, b + at) for a, b, at in zip(start, stop, first, strict=True))
    out[(slice(None), *inner)] = image[(slice(None), *outer)]
    return out


def naive(method: str, x: np.ndarray) -> np.ndarray:
    """The formulas as they are written in papers and in actk, of the counted pixels alone."""
    if method == "zscore":
        return (x - np.mean(x)) / np.std(x)
    if method == "robust_zscore":
        return (x - np.median(x)) / (1.4826 * np.median(np.abs(x - np.median(x))))
    if method == "trans":
        return np.clip((x - np.mean(x)) / (10 * np.std(x)) + 0.5, 0, 1)
    if method == "minmax":
        return (x - x.min()) / (x.max() - x.min())
    if method == "arcsinh":
        return np.log(x / 500 + np.sqrt((x / 500) ** 2 + 1))
    if method == "log":
        return np.log(x + 1)
    smooth = ndimage.gaussian_filter(x, sigma=(0.5,) * 3 if len(x) > 1 else (0, 0.5, 0.5))
    smooth = smooth - np.median(smooth)
    return np.clip(smooth / smooth.max(), 0, 1)


@pytest.mark.parametrize("method", ["zscore", "robust_zscore", "trans", "minmax", "arcsinh", "log", "img_bg_sub"])
@pytest.mark.parametrize("kind", ["plane", "volume"])
def test_formulas_written_naively(kind: str, method: str, data: Path, build: Any, nf1: Any) -> None:
    normalize = {"method": method, "cofactor": 500} if method == "arcsinh" else method
    fields: dict[str, Any] = {"normalize": normalize, "dtype": "float32", "projections": [], "edge": "drop"}
    if kind == "plane":
        table, shape = nf1("nuclei").iloc[:1], (1, 64, 48)
        built, image = build(table, channels=CHANNELS, shape=shape, **fields), field_of(table, CHANNELS.values())
    else:
        case = CASES["volume, labels with gaps"]
        table, shape = case.table(data), (8, 15, 16)
        built = build(table, **{**case.spec, "shape": shape}, **fields)
        image = case.read(table["fov_path"].iloc[0]).astype(float)
    stored = built.dataset["cells"].values
    assert len(stored) > 5
    for number, cell in built.cells.iterrows():
        for channel, values in enumerate(window(image, cell, shape)):
            np.testing.assert_allclose(stored[number, channel], naive(method, values), rtol=1e-5, atol=2e-6)


# --- masks --------------------------------------------------------------------------------------------------


@pytest.fixture
def both(nf1: Any) -> pd.DataFrame:
    """Cells of the NF1 plate, with their nuclei in a second label image: the same numbers."""
    return nf1("cells").assign(nuclei=nf1("nuclei")["label_path"])


@pytest.mark.parametrize("neighbours", ["keep", "remove"])
def test_each_channel_has_the_mask_of_its_compartment(neighbours: str, build: Any, both: pd.DataFrame) -> None:
    mask = {"DNA": {"method": "label", "labels": "nucleus"}, "ER": "label", "Actin": {"method": "dilated", "by": 5}}
    shape = (1, 150, 150)
    built = build(
        both,
        channels=CHANNELS,
        shape=shape,
        mask=mask,
        neighbours=neighbours,
        label_images={"nucleus": "nuclei"},
        **RAW,
    )
    assert built.report.kept == 98
    dataset = built.dataset
    stored, masks, nuclei = (dataset[name].values for name in ("cells", "mask", "mask_nucleus"))
    removed = 0
    for fov, group in built.cells.groupby("fov_id"):
        row = both[both["fov_id"] == fov]
        image, labels = field_of(row, CHANNELS.values()), field_of(row, ["label_path", "nuclei"])
        for number, cell in group.head(6).iterrows():
            pixels, (whole, core) = window(image, cell, shape), window(labels, cell, shape)
            inside, nucleus = whole == cell["label"], core == cell["label"]
            near = ndimage.distance_transform_edt(~inside) <= 5
            others = (whole != 0) & ~inside
            removed += int((near & others).sum())
            for channel, wanted in enumerate((nucleus, inside, near)):
                wanted = wanted & ~others if neighbours == "remove" else wanted
                np.testing.assert_array_equal(stored[number, channel], np.where(wanted, pixels[channel], 0))
            np.testing.assert_array_equal(masks[number], inside)
            np.testing.assert_array_equal(nuclei[number], nucleus)
            # Numbers of cells are those of their nuclei, which lie within them.
            assert (nucleus & ~inside).sum() <= 0.02 * nucleus.sum()
    assert removed > 1000


def test_masked_statistics_are_of_the_compartment(build: Any, both: pd.DataFrame) -> None:
    mask = {"DNA": {"labels": "nucleus", "method": "label"}, "ER": "label", "Actin": "none"}
    fields = {"label_images": {"nucleus": "nuclei"}, "mask": mask, "normalize": "zscore", "dtype": "float32"}
    table = both.iloc[:1]
    built = build(table, channels=CHANNELS, shape=(1, 200, 200), projections=[], **fields)
    image, (cells, nuclei) = field_of(table, CHANNELS.values()), field_of(table, ["label_path", "nuclei"])
    for _, cell in built.cells.head(10).iterrows():
        crops, whole, core = (window(each, cell, (1, 200, 200)) for each in (image, cells[None], nuclei[None]))
        valid = window(np.ones_like(cells[None]), cell, (1, 200, 200))[0] > 0
        counted = (core[0] == cell["label"], whole[0] == cell["label"], valid)
        for name, pixels, inside in zip(CHANNELS, crops, counted, strict=True):
            low, high = BOUNDS["zscore"](pixels[inside])
            assert cell[[f"norm_low_{name}", f"norm_high_{name}"]].tolist() == pytest.approx([low, high], rel=1e-9)


# --- back to intensities ------------------------------------------------------------------------------------

BOUNDED: dict[str, Any] = {
    "percentile": {"method": "percentile", "low": 2, "high": 98},
    "minmax": {"method": "minmax"},
    "range": {"method": "range", "low": 3000, "high": 20_000},
    "trans": {"method": "trans", "scope": "fov"},
}
UNBOUNDED: dict[str, Any] = {
    "zscore": {"method": "zscore"},
    "robust_zscore": {"method": "robust_zscore", "scope": "dataset"},
    "arcsinh": {"method": "arcsinh", "cofactor": 400, "offset": 2000},
    "log": {"method": "log", "offset": 10},
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
def test_denormalized_pixels_are_the_intensities_of_the_field(dtype: str, build: Any, nf1: Any) -> None:
    """Every method in one pass, each in a representation of its own."""
    whole = dtype.startswith("u")
    methods = BOUNDED if whole else {**BOUNDED, **UNBOUNDED}
    table, shape = nf1("nuclei").iloc[[3]], (1, 48, 48)
    built = build(
        table,
        channels=CHANNELS,
        shape=shape,
        edge="drop",
        **RAW,
        representations={name: {"normalize": rule, "dtype": dtype} for name, rule in methods.items()},
    )
    assert built.report.kept > 10
    dataset, image = built.dataset, field_of(table, CHANNELS.values())
    values = np.stack([window(image, cell, shape) for _, cell in built.cells.iterrows()])
    np.testing.assert_array_equal(cellcube.denormalize(dataset).values, values)
    for name in methods:
        stored, found = dataset[name].values, cellcube.denormalize(dataset, name).values
        assert stored.dtype == dtype
        np.testing.assert_array_equal(cellcube.denormalize(dataset, f"{name}_max_z").values, found.max(axis=2))
        low, high = (dataset[f"norm_{bound}_{name}"].values[:, :, None, None, None] for bound in ("low", "high"))
        if name in BOUNDED:
            below, above = values < low, values > high
            assert (np.broadcast_to(low, values.shape)[below] == found[below]).all()
            np.testing.assert_allclose(found[above], np.broadcast_to(high, values.shape)[above], rtol=1e-12)
            share = (below | above).mean(axis=(2, 3, 4))
            np.testing.assert_allclose(dataset[f"clipped_{name}"].values, share, rtol=1e-6)
            assert (share.max() > 0) == (name != "minmax")
            kept = ~(below | above)
        else:
            kept = np.ones(values.shape, bool)
        # Half a step of the stored type, as intensity.
        if whole:
            half = np.full(values.shape, 0.5 / np.iinfo(dtype).max)
        else:
            half = np.spacing(np.abs(stored)).astype(float) / 2
        slope = high - low
        if name == "arcsinh":
            slope = 400 * np.cosh(np.arcsinh((values - 2000) / 400))
        if name == "log":
            slope = values + 10
        # Curved methods bend within a step, and float64 rounds.
        assert (np.abs(found - values) <= 1.01 * half * slope + 1e-9)[kept].all(), name


# --- projections and representations ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["volume without axes", "ImageJ, z before channels", "ImageJ volume, anisotropic"])
def test_projections_and_montages_equal_numpy(name: str, data: Path, build: Any) -> None:
    case = CASES[name]
    kinds = ("max", "min", "mean", "sum")
    names = [f"{kind}_{along}" for kind in kinds for along in ("z", "y", "x", "montage")]
    built = build(case.table(data), normalize="none", projections=names, drop="label > 12", **case.spec)
    stored, count = {each: built.dataset[each].values for each in names}, 0
    image = case.read(case.table(data)["fov_path"].iloc[0])
    for number, cell in built.cells.iterrows():
        # Padding does not count.
        crop = window(image, cell, case.spec["shape"]).astype(float)
        inside = window(np.ones_like(image), cell, case.spec["shape"]) > 0
        masked = np.ma.masked_array(crop, ~inside)
        for kind in kinds:
            count += 1
            z, y, x = (np.ma.filled(getattr(masked, kind)(axis=axis), 0) for axis in (1, 2, 3))
            for along, found in zip("zyx", (z, y, x), strict=True):
                np.testing.assert_allclose(stored[f"{kind}_{along}"][number], found, rtol=1e-6)
            np.testing.assert_allclose(stored[f"{kind}_montage"][number], blocks(z, y, x), rtol=1e-6)
    assert count == 4 * min(case.count, 12)


def blocks(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The projection along z, with that along y below it and that along x, turned, at its right."""
    corner = np.zeros((len(z), y.shape[1], y.shape[1]))
    return np.block([[z, x.transpose(0, 2, 1)], [y, corner]])


def test_representations_equal_builds_of_their_own(data: Path, build: Any, both: pd.DataFrame) -> None:
    common = {
        "channels": CHANNELS,
        "shape": (1, 70, 70),
        "label_images": {"nucleus": "nuclei"},
        "voxel_size": (None, 2, 2),
        "fov_voxel_size": (1, 1, 1),
        "align": "major_axis",
    }
    others = {
        "raw": {"normalize": "none", "dtype": "float32", "projections": ["mean_y"]},
        "nuclei": {"mask": {"method": "soft", "by": 4, "labels": "nucleus"}, "normalize": "minmax", "dtype": "uint8"},
        "plate": {"normalize": {"method": "zscore", "scope": "dataset"}, "neighbours": "remove", "projections": []},
    }
    table = both.iloc[[1]]
    together = build(table, representations=others, normalize="img_bg_sub", **common).dataset
    for name, fields in {"cells": {"normalize": "img_bg_sub"}, **others}.items():
        alone = build(table, **fields, **common).dataset
        suffix = "" if name == "cells" else f"_{name}"
        assert together[name].dtype == alone["cells"].dtype
        np.testing.assert_array_equal(together[name].values, alone["cells"].values)
        for bound in ("norm_low", "norm_high", "clipped"):
            np.testing.assert_array_equal(together[bound + suffix].values, alone[bound].values)
        for projection in fields.get("projections", ["max_z"]):
            own = projection if name == "cells" else f"{name}_{projection}"
            np.testing.assert_array_equal(together[own].values, alone[projection].values)


# --- what is kept -------------------------------------------------------------------------------------------


def test_wells_are_split_whole(build: Any, nf1: Any) -> None:
    fields = {"channels": CHANNELS, "shape": (1, 24, 24)}
    split = {"by": "well", "fractions": {"train": 0.5, "test": 0.5}, "seed": 3}
    built = build(nf1("nuclei"), split=split, **fields, **RAW)
    parts = built.cells.groupby("well")["split"].unique()
    assert parts.map(len).tolist() == [1] * 5
    assert {part for (part,) in parts} == {"train", "test"}
    # A well's part does not depend on what else is in the table, nor on its order.
    table = nf1("cells").iloc[[4, 1]]
    again = build(table, split=split, **fields, **RAW).cells.groupby("well")["split"].first()
    assert again.to_dict() == {well: parts[well][0] for well in again.index}
    assert built.dataset["split"].values.tolist() == built.cells["split"].tolist()


def test_cells_are_dropped_by_measures_that_skimage_confirms(data: Path, build: Any) -> None:
    """Specks, saturated, and border cells of real images, by what is measured without cellcube."""
    folder = data / "neubias"
    path, label_path = folder / "xy_8bit__nuclei_PLK1_control.tif", folder / "xy_8bit_labels__noisy_nuclei.tif"
    image, labels = tifffile.imread(path).astype(float), tifffile.imread(label_path)
    table = pd.DataFrame({"fov_path": [str(path)], "label_path": [str(label_path)]})
    condition = "area_voxels < 20 or touches_border or intensity_mean_channel_0 < 40 or fragments > 1"
    built = build(table, drop=condition, shape=(1, 64, 64), **RAW)
    wanted = set()
    for label in np.unique(labels)[1:].tolist():
        inside = labels == label
        border = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]]).any()
        pieces = ndimage.label(inside, np.ones((3, 3)))[1]
        if not (inside.sum() < 20 or border or image[inside].mean() < 40 or pieces > 1):
            wanted.add(label)
    assert 5 <= len(wanted) < 30
    assert set(built.cells["label"]) == wanted
    outcomes = built.report.outcomes
    assert set(outcomes.loc[outcomes["status"] == "dropped", "reason"]) == {f"drop: {condition}"}
    assert built.report.dropped == len(np.unique(labels)) - 1 - len(wanted)


def test_every_label_of_the_field_has_a_fate(data: Path, build: Any, nf1: Any) -> None:
    """Kept, dropped, failed or not asked for: together they are the labels of the image."""
    row = nf1("nuclei").iloc[0]
    labels = np.unique(tifffile.imread(row["label_path"]))[1:]
    asked = [*labels[::2].tolist(), 5000]
    table = pd.DataFrame([row] * len(asked)).assign(label=asked, cell_id=[f"n{label}" for label in asked])
    built = build(table, channels=CHANNELS, shape=(1, 150, 150), edge="drop", **RAW)
    fovs = pd.read_parquet(built.root / "fovs.parquet").iloc[0]
    assert fovs["labels"] == len(labels)
    assert fovs["not_requested"] == len(labels) - (len(asked) - 1)
    assert fovs[["kept", "dropped", "failed"]].tolist() == [built.report.kept, built.report.dropped, 1]
    assert built.report.dropped > 0
    assert fovs["requested"] == len(asked)
    assert "label-not-found" in built.reasons["n5000"]
