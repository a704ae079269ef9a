"""Datasets from real images of many kinds: counts, channels, and every stored voxel found again in its FOV."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from click.testing import CliRunner

from cellcube.cli import cli
from cellcube.errors import ChannelError, MissingDependencyError
from cellcube.gallery.sheet import contact_sheet
from cellcube.images.voxels import ImplausibleVoxelSizeWarning

Read = Callable[[str], np.ndarray]


def planes(path: str) -> np.ndarray:
    """A TIFF of one plane as (c, z, y, x)."""
    return tifffile.imread(path)[None, None]


def channels(path: str) -> np.ndarray:
    """A TIFF whose planes are channels."""
    return tifffile.imread(path)[:, None]


def stack(path: str) -> np.ndarray:
    """A TIFF whose planes are along z."""
    return tifffile.imread(path)[None]


def stack_of_channels(path: str) -> np.ndarray:
    """A TIFF of planes along z, each of several channels."""
    return tifffile.imread(path).swapaxes(0, 1)


def nd2(path: str) -> np.ndarray:
    """An ND2 file of several channels and one plane."""
    return importlib.import_module("nd2").imread(path)[:, None]


def ome_zarr(path: str) -> np.ndarray:
    """The full resolution of an OME-Zarr image or label image of one plane."""
    store = zarr.open_array(Path(path) / "s0", mode="r")
    pixels = np.asarray(store)
    return pixels[:, None] if pixels.ndim == 3 else pixels[None, None]


@dataclass(frozen=True)
class Case:
    """Images, what the spec says of them, and what must come out."""

    images: list[str]  # one a FOV
    labels: list[str]
    count: int
    names: list[str]
    spec: dict[str, Any]
    read: Read = planes
    read_labels: Read = planes
    columns: dict[str, list[str]] = field(default_factory=dict)  # files of the channels, where there is one each
    voxel: tuple[float, float, float] = (np.nan,) * 3

    def table(self, data: Path) -> pd.DataFrame:
        files = self.columns or {"fov_path": self.images}
        table = {name: [str(data / path) for path in paths] for name, paths in files.items()}
        return pd.DataFrame({**table, "label_path": [str(data / path) for path in self.labels]})


PEDIATRIC = {1: "Brightfield", 2: "ER", 3: "AGP", 4: "Mito", 5: "DNA", 6: "RNA"}
CONFOCAL = "neubias/derived_dna_conf_wf_labels3d.tif"

CASES = {
    "nf1 nuclei": Case(
        [],
        ["nf1_cellpainting/labels/D7_s1_nuclei.tif", "nf1_cellpainting/labels/H12_s1_nuclei.tif"],
        54,
        ["DNA", "ER", "Actin"],
        {"channels": {"DNA": "dna", "ER": "er", "Actin": "actin"}, "shape": (1, 80, 80)},
        columns={
            name: [f"nf1_cellpainting/images/{well}_01_{number}_1_{dye}_001.tif" for well in ("D7", "H12")]
            for name, number, dye in (("dna", 1, "DAPI"), ("er", 2, "GFP"), ("actin", 3, "RFP"))
        },
    ),
    "pediatric": Case(
        [],
        ["pediatric_cellpainting/labels/r03c03f03_cells.tif"],
        29,
        list(PEDIATRIC.values()),
        {
            "channels": {name: name for name in PEDIATRIC.values()},
            "shape": (1, 96, 96),
            "fov_voxel_size": (1, 0.598, 0.598),
        },
        columns={
            name: [f"pediatric_cellpainting/images/r03c03f03p01-ch{number}sk1fk1fl1.tiff"]
            for number, name in PEDIATRIC.items()
        },
        voxel=(1, 0.598, 0.598),
    ),
    "palette images with spaces in their names": Case(
        [],
        [f"bbbc014_translocation/labels/{well}_nuclei.tif" for well in ("01-A-01", "12-A-12")],
        980,
        ["NFkB", "DAPI"],
        {"channels": {"NFkB": "nfkb", "DAPI": "dapi"}, "shape": (1, 24, 24)},
        columns={
            name: [f"bbbc014_translocation/Channel {number}-{well}-00.tif" for well in ("01-A-01", "12-A-12")]
            for name, number in (("nfkb", 1), ("dapi", 2))
        },
    ),
    "ImageJ hyperstack": Case(
        ["bbbc022_crop/IXMtest_A02_s9.tif"],
        ["bbbc022_crop/labels/IXMtest_A02_s9_cells.tif"],
        26,
        ["DNA", "ER", "RNA"],
        {"channels": {"DNA": 0, "ER": 1, "RNA": 2}, "shape": (1, 64, 64)},
        channels,
    ),
    "volume without axes": Case(
        ["nuclei3d_cells3d/nuclei.tif"],
        ["nuclei3d_cells3d/labels_napari_bio.tif"],
        20,
        ["nuclei"],
        {"channels": ["nuclei"], "axes": "ZYX", "shape": (40, 48, 48), "fov_voxel_size": (0.29, 0.26, 0.26)},
        stack,
        stack,
        voxel=(0.29, 0.26, 0.26),
    ),
    "volume, labels with gaps": Case(
        ["stardist/img3d.tif"],
        ["stardist/mask3d.tif"],
        51,
        ["channel_0"],
        {"axes": "ZYX", "shape": (9, 16, 16)},
        stack,
        stack,
    ),
    "plane, labels with gaps": Case(
        ["stardist/img2d.tif"], ["stardist/mask2d.tif"], 125, ["channel_0"], {"shape": (1, 32, 32)}
    ),
    "ImageJ volume, anisotropic": Case(
        ["neubias/xyz_8bit__nuclei_autothresh.tif"],
        ["neubias/derived_nuclei_autothresh_labels3d.tif"],
        76,
        ["DNA"],
        {"channels": ["DNA"], "label_axes": "ZYX", "shape": (7, 24, 24)},
        stack,
        stack,
        voxel=(4.0, 0.829, 0.829),
    ),
    "ImageJ, z before channels": Case(
        ["neubias/xyzc_16bit__dna_conf_wf.tif"],
        [CONFOCAL],
        1,
        ["confocal", "widefield"],
        {"channels": ["confocal", "widefield"], "axes": "ZCYX", "shape": (32, 64, 64)},
        stack_of_channels,
        stack,
        voxel=(0.499, 0.512, 0.512),
    ),
    "OME-TIFF, z before channels": Case(
        ["formats/derived_dna_ZCYX.ome.tif"],
        [CONFOCAL],
        1,
        ["confocal", "widefield"],
        {"label_axes": "ZYX", "shape": (32, 64, 64)},
        stack_of_channels,
        stack,
        voxel=(0.499, 0.512, 0.512),
    ),
    "OME-TIFF, channels before z": Case(
        ["formats/derived_dna_CZYX.ome.tif"],
        [CONFOCAL],
        1,
        ["widefield", "confocal"],
        {"channels": ["widefield", "confocal"], "label_axes": "ZYX", "shape": (32, 64, 64)},
        lambda path: tifffile.imread(path)[::-1],
        stack,
        voxel=(0.499, 0.512, 0.512),
    ),
    "OME-Zarr 0.4": Case(
        ["formats/pediatric_crop_v04.ome.zarr"],
        ["formats/pediatric_crop_v04.ome.zarr/labels/cells"],
        12,
        ["DNA", "ER", "AGP", "Mito", "RNA", "Brightfield"],
        {"shape": (1, 64, 64)},
        ome_zarr,
        ome_zarr,
        voxel=(np.nan, 0.6, 0.6),
    ),
    "OME-Zarr 0.5": Case(
        ["formats/pediatric_crop_v05.ome.zarr"],
        ["formats/pediatric_crop_v05.ome.zarr/labels/cells"],
        12,
        ["RNA", "DNA"],
        {"channels": ["RNA", "DNA"], "shape": (1, 64, 64)},
        lambda path: ome_zarr(path)[[4, 0]],
        ome_zarr,
        voxel=(np.nan, 0.6, 0.6),
    ),
    "ND2": Case(
        ["formats/arcadia_multichannel.nd2"],
        ["formats/arcadia_multichannel_nuclei.tif"],
        9,
        ["Mono", "DAPI", "FITC BP", "TRITC BP"],
        {"shape": (1, 40, 40)},
        nd2,
        voxel=(np.nan, 0.3234, 0.3234),
    ),
    "two channels, signed labels": Case(
        [],
        ["two_channel_tiny/cell_labels.tif"],
        6,
        ["DNA", "Actin"],
        {"channels": {"DNA": "dna", "Actin": "actin"}, "shape": (1, 64, 64)},
        columns={"dna": ["two_channel_tiny/dna.tif"], "actin": ["two_channel_tiny/actin.tif"]},
    ),
    "bacteria": Case(
        ["bacteria_phase/caulo_15.tif", "bacteria_phase/ec_5I_t141xy5c1.tif"],
        ["bacteria_phase/caulo_15_masks.tif", "bacteria_phase/ec_5I_t141xy5c1_masks.tif"],
        180,
        ["phase"],
        {"channels": ["phase"], "shape": (1, 32, 32)},
    ),
    "float pixels below zero": Case(
        ["neubias/xy_float__h2b_bg_corr.tif"],
        ["neubias/xy_8bit_labels__h2b.tif"],
        2,
        ["channel_0"],
        {"shape": (1, 32, 32)},
    ),
    "float labels, brackets in names": Case(
        ["formats/A9 p5d (cropped 1).tif", "formats/A9 p5d (cropped 3).tif"],
        ["formats/A9 p5d (cropped 1)_mask.tif", "formats/A9 p5d (cropped 3)_mask.tif"],
        4,
        ["channel_0"],
        {"shape": (1, 48, 48)},
    ),
    "palette labels": Case(
        ["neubias/xyc_8bit__nuclei_nup.tif"],
        ["neubias/xy_8bit_labels__nup.tif"],
        3,
        ["nuclei", "nup"],
        {"channels": {"nuclei": 0, "nup": 1}, "shape": (1, 128, 128)},
        channels,
        voxel=(np.nan, 0.264, 0.264),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_voxel_is_found_again(name: str, data: Path, build: Any, crop: Any) -> None:
    """Crops, masks, boxes and projections equal the FOV and its labels, read by other libraries."""
    case = CASES[name]
    table = case.table(data)
    built = build(table, normalize="none", **case.spec)
    report, cells, dataset = built.report, built.cells, built.dataset
    assert (report.kept, report.dropped, report.failed) == (case.count, 0, 0)
    assert [str(channel) for channel in dataset["c"].values] == case.names
    size = cells[["voxel_size_z", "voxel_size_y", "voxel_size_x"]].drop_duplicates()
    np.testing.assert_allclose(size, [case.voxel], rtol=2e-3)

    stored, masks, projected = (dataset[each].values for each in ("cells", "mask", "max_z"))
    column = next(iter(case.columns), "fov_path")
    for path, group in cells.groupby(column, sort=False):
        row = table[table[column] == path].iloc[0]
        image = np.concatenate([case.read(row[each]) for each in case.columns or ["fov_path"]])
        labels = case.read_labels(row["label_path"])[0]
        assert set(group["label"]) == set(np.unique(labels).astype(int)) - {0}
        assert stored.dtype == image.dtype
        for number, cell in group.iterrows():
            shape = case.spec["shape"]
            found = crop(image, cell, shape)
            np.testing.assert_array_equal(stored[number], found)
            np.testing.assert_array_equal(masks[number], crop(labels, cell, shape) == cell["label"])
            if image.dtype.kind == "u":
                np.testing.assert_array_equal(projected[number], found.max(axis=1))
            where = np.argwhere(labels == cell["label"])
            assert cell[["z0", "y0", "x0"]].tolist() == where.min(0).tolist()
            assert cell[["z1", "y1", "x1"]].tolist() == (where.max(0) + 1).tolist()
            # Centred: the box's middle is the crop's, to half a voxel.
            middle = [(cell[f"{axis}0"] + cell[f"{axis}1"]) / 2 - cell[f"origin_{axis}"] for axis in "zyx"]
            np.testing.assert_allclose(middle, np.array(shape) / 2, atol=0.5)
            assert cell["oversize"] == bool((np.ptp(where, axis=0) + 1 > shape).any())


def test_metadata_follow_each_cell(build: Any, nf1: Any, tmp_path: Path) -> None:
    """Well, site and genotype reach the manifest, the dataset and the contact sheet."""
    table = nf1("cells")
    built = build(table, channels={"DNA": "dna", "ER": "er", "Actin": "actin"}, shape=(1, 64, 64))
    assert built.report.kept == 98
    cells, dataset = built.cells, built.dataset
    assert cells.groupby("well").size().to_dict() == {"B7": 20, "D6": 17, "D7": 23, "F7": 18, "H12": 20}
    assert cells.groupby("genotype").size().to_dict() == {"Null": 81, "WT": 17}
    assert dataset["genotype"].values.tolist() == cells["genotype"].tolist()
    assert dataset["site"].dtype == np.int64
    # Labels of border nuclei have no cell, so numbers have gaps and are kept as they are.
    one = dataset.sel(cell_id="D6_s2-8")
    assert (int(one["label"]), str(one["well"].values)) == (8, "D6")
    contact_sheet(dataset, tmp_path / "sheet.png", cells=8)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_implausible_voxel_size_warns_and_can_be_overridden(data: Path, build: Any) -> None:
    """64.5 µm is kept with a warning; the spec's size takes its place silently."""
    table = CASES["pediatric"].table(data)[["DNA", "label_path"]]
    with pytest.warns(UserWarning, match=r"64\.5 µm.*fov_voxel_size") as caught:
        built = build(table, channels={"DNA": "DNA"}, shape=(1, 32, 32))
    assert any(issubclass(each.category, ImplausibleVoxelSizeWarning) for each in caught)
    np.testing.assert_allclose(built.cells["voxel_size_y"], 64.5)
    right = build(table.assign(voxel_size_y=0.598, voxel_size_x=0.598), channels={"DNA": "DNA"}, shape=(1, 32, 32))
    np.testing.assert_allclose(right.cells["area_um2"], right.cells["area_voxels"] * 0.598**2)


def test_boxes(data: Path, build: Any, crop: Any) -> None:
    """Boxes need no labels; one that leaves the image fails alone."""
    path = str(data / "formats/pediatric_crop_v05.ome.zarr")
    table = pd.DataFrame(
        {"cell_id": ["in", "corner", "out"], "fov_path": path, "y0": [10, 400, 400], "y1": [60, 448, 449]}
    ).assign(x0=[20, 480, 480], x1=[80, 512, 512])
    built = build(table, channels=["DNA"], normalize="none", shape=(1, 64, 64))
    assert (built.report.kept, built.report.failed) == (2, 1)
    assert built.reasons["out"].startswith("cell: The box z 0:1, y 400:449, x 480:512 is not inside the image")
    assert "mask" not in built.dataset
    image = ome_zarr(path)[:1]
    for number, cell in built.cells.iterrows():
        np.testing.assert_array_equal(built.dataset["cells"].values[number], crop(image, cell, (1, 64, 64)))
        part = image[0, 0, cell["y0"] : cell["y1"], cell["x0"] : cell["x1"]]
        assert cell["intensity_mean_DNA"] == pytest.approx(part.mean())


def test_centres(data: Path, build: Any, crop: Any) -> None:
    """A centre is the middle voxel of an odd crop; in a volume without z it is the middle plane."""
    path = str(data / "nuclei3d_cells3d/nuclei.tif")
    table = pd.DataFrame({"cell_id": ["a", "b"], "fov_path": path, "center_y": [100, 999], "center_x": [120, 3]})
    built = build(table, axes="ZYX", normalize="none", shape=(3, 5, 7))
    assert built.reasons["b"].startswith("cell: The centre (29.5, 999.0, 3.0) is not inside the image")
    pixels = built.dataset["cells"].values[0, 0]
    image = tifffile.imread(path)
    assert pixels[1, 2, 3] == image[built.cells["origin_z"][0] + 1, 100, 120]
    np.testing.assert_array_equal(pixels[None], crop(image[None], built.cells.iloc[0], (3, 5, 7)))


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("neubias/xy_rgb__cells.tif", None),
        ("neubias/xyc_16bit__hela-cells.tif", ["lysosomes", "mitochondria", "nucleus"]),
        ("formats/nuclear_rgb.png", None),
    ],
)
def test_colour_samples_are_channels(path: str, names: list[str] | None, data: Path, build: Any) -> None:
    """RGB images of 8 and 16 bits."""
    importlib.import_module("bioio_imageio")
    from imageio.v3 import imread

    table = pd.DataFrame({"cell_id": ["a"], "fov_path": str(data / path), "center_y": 100.0, "center_x": 120.0})
    built = build(table, channels=names, normalize="none", shape=(1, 32, 48))
    assert built.dataset["c"].values.tolist() == (names or ["channel_0", "channel_1", "channel_2"])
    image = tifffile.imread(data / path) if path.endswith("tif") else imread(data / path)
    assert image.dtype == built.dataset["cells"].dtype
    cell = built.cells.iloc[0]
    y, x = cell["origin_y"], cell["origin_x"]
    found = np.moveaxis(image[y : y + 32, x : x + 48], 2, 0)
    np.testing.assert_array_equal(built.dataset["cells"].values[0, :, 0], found)


def test_signed_pixels_and_zero_voxel_size(data: Path, build: Any) -> None:
    """An int8 OME-TIFF whose pixels are 0 µm wide: refused, then read with the true size."""
    path = str(data / "formats/ome_multi-channel_int8.ome.tif")
    table = pd.DataFrame({"cell_id": ["a"], "fov_path": path, "center_y": 80.0, "center_x": 200.0})
    refused = build(table, shape=(1, 32, 32))
    assert refused.reasons["a"].startswith("voxel-size: The voxel size along y is 0.0 µm.")
    assert "`voxel_size_y`" in refused.reasons["a"]
    built = build(table, shape=(1, 32, 32), normalize="none", fov_voxel_size=(1, 0.5, 0.5))
    pixels = built.dataset["cells"].values[0, :, 0]
    assert pixels.dtype == np.int8
    y, x = built.cells[["origin_y", "origin_x"]].iloc[0]
    np.testing.assert_array_equal(pixels, tifffile.imread(path)[:, y : y + 32, x : x + 32])
    normalized = build(table, shape=(1, 32, 32), normalize="minmax", fov_voxel_size=(1, 0.5, 0.5))
    values = normalized.dataset["cells"].values
    assert (values.min(), values.max()) == (0, 1)


def test_timepoints(data: Path, build: Any) -> None:
    """A time series is read at the table's timepoints, and not guessed."""
    nd2 = importlib.import_module("nd2")
    path = str(data / "formats/arcadia_timelapse.nd2")
    table = pd.DataFrame({"cell_id": ["t0", "t52", "t53"], "fov_path": path, "timepoint": [0, 52, 53]})
    table = table.assign(center_y=31.5, center_x=31.5)
    built = build(table, normalize="none", shape=(1, 64, 64))
    assert built.report.kept == 2
    assert built.reasons["t53"].startswith("scene: There is no timepoint 53")
    images = nd2.imread(path)
    np.testing.assert_array_equal(built.dataset["cells"].values[:, 0, 0], images[[0, 52]])
    assert "`timepoint`" in build(table[:1].drop(columns="timepoint"), shape=(1, 64, 64)).reasons["t0"]


def test_part_of_a_multi_file_ome_tiff(data: Path, build: Any) -> None:
    """A set that is described in a file of its own: each file is a plane, and a warning says so."""
    path = str(data / "formats/ome_multifile/multifile-Z2.ome.tiff")
    table = pd.DataFrame({"cell_id": ["a"], "fov_path": path, "center_y": 11.5, "center_x": 8.5})
    with pytest.warns(UserWarning, match=r"read alone.*'multifile\.companion\.ome'"):
        built = build(table, normalize="none", shape=(1, 24, 18))
    np.testing.assert_array_equal(built.dataset["cells"].values[0, 0, 0], tifffile.imread(path))


def test_planes_in_files_of_their_own(data: Path, build: Any) -> None:
    """A plate that stores every plane apart: planes alone can be built, a stack cannot, and the error says so."""
    folder = data / "imagexpress_plate/Projection-Mix/2023-02-21/1334"
    files = {
        f"w{wave}": [next(str(p) for p in folder.glob(f"*_E08_s1_w{wave}*") if "thumb" not in p.name)]
        for wave in (1, 2, 3)
    }
    spec = {"channels": {name: name for name in files}, "shape": (1, 32, 32), "normalize": "none"}
    plane = pd.DataFrame({**files, "cell_id": "a", "y0": 200, "y1": 232, "x0": 100, "x1": 132})
    built = build(plane, **spec)
    expected = [tifffile.imread(path)[200:232, 100:132] for (path,) in files.values()]
    np.testing.assert_array_equal(built.dataset["cells"].values[0, :, 0], expected)
    labels = str(data / "imagexpress_plate/labels/E08_s1_labels3d.tif")
    refused = build(pd.DataFrame({**files, "label_path": labels}), label_axes="ZYX", **spec)
    assert (refused.report.kept, refused.report.failed) == (0, 21)
    (reason,) = set(refused.reasons.values())
    assert reason.startswith("image-mismatch: The label image has shape (z, y, x) (5, 512, 512), the image (1, 512, 5")
    assert "files of their own cannot be put together" in reason
    thumb = next(str(path) for path in folder.glob("*_E08_s1_w2_thumb*"))
    assert "thumbnail" in build(plane.assign(w2=thumb), **spec).reasons["a"]


def test_command_line_with_relative_paths(data: Path, nf1: Any, tmp_path: Path) -> None:
    """A CSV file beside a spec file, images by relative paths, one of them broken: exits with 3 and says why."""
    (tmp_path / "images").symlink_to(data)
    table = nf1("nuclei").iloc[:3]
    for column in ("dna", "er", "actin", "label_path"):
        table[column] = [str(Path("images") / Path(path).relative_to(data)) for path in table[column]]
    table.loc[table.index[1], "er"] = "images/broken/truncated_dapi.tif"
    table.to_csv(tmp_path / "cells.csv", index=False)
    (tmp_path / "spec.yaml").write_text(
        "name: nf1\nlicence: CC0-1.0\nchannels: {DNA: dna, ER: er, Actin: actin}\nshape: [1, 64, 64]\n"
    )
    arguments = ["build", str(tmp_path / "cells.csv"), str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(cli, [*arguments, "--spec", str(tmp_path / "spec.yaml"), "--quiet"])
    assert result.exit_code == 3, result.output
    assert "87 cells requested: 59 kept, 0 dropped, 28 failed" in result.output
    assert "truncated-image: " in result.output
    told = CliRunner().invoke(cli, ["info", str(tmp_path / "out")])
    assert "DNA, ER, Actin" in told.output
    assert "well, site, genotype" in told.output


def test_wrong_channel_says_which_exist(data: Path, build: Any) -> None:
    """Names that are not the file's are an error before anything is written."""
    nd2 = CASES["ND2"].table(data)
    with pytest.raises(ChannelError, match=r"'Mono', 'DAPI', 'FITC BP', 'TRITC BP'.*Did you mean 'FITC BP'"):
        build(nd2, channels=["DAPI", "FITC"])
    imagej = CASES["ImageJ hyperstack"].table(data)
    with pytest.raises(ChannelError, match=r"IXMtest_A02_s9_c1\.tif.*channels=\{'DNA': 0, 'ER': 1, 'RNA': 2\}"):
        build(imagej, channels=["DNA", "ER", "RNA"])
    one = CASES["bacteria"].table(data)
    with pytest.raises(ChannelError, match=r"does not name its 1 channel.*one column a channel"):
        build(one, channels=["phase", "GFP"])


def test_missing_plugin_says_what_installs_it(data: Path, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of one kind of file that needs a package."""
    monkeypatch.setitem(__import__("sys").modules, "bioio_nd2", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "cellcube\[nd2\]"'):
        build(CASES["ND2"].table(data).assign(cell_id="a", label=1))
