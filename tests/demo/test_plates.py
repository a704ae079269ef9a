from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellcube.demo.plates import CHANNELS_2D, CHANNELS_3D, DemoPlate, write_plate

WELLS = {"B02": ("DMSO", 0.0), "C05": ("etoposide", 3.0), "D08": ("tunicamycin", 3.0)}
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> DemoPlate:
    return write_plate(tmp_path_factory.mktemp("plate"), seed=3, wells=WELLS, sites=1, volumes=1)


def tables(plate: DemoPlate) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    return [
        (pd.read_csv(plate.cells_csv), pd.read_csv(plate.fovs_csv)),
        (pd.read_csv(plate.cells_3d_csv), pd.read_csv(plate.fovs_3d_csv)),
    ]


def labels_of(plate: DemoPlate, label_path: str) -> tuple[np.ndarray, np.ndarray]:
    nuclei_path = label_path.replace("_cells", "_nuclei")
    return tifffile.imread(plate.folder / label_path), tifffile.imread(plate.folder / nuclei_path)


def test_a_seed_decides_every_byte(tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> dict[str, bytes]:
        folder = tmp_path / name
        write_plate(folder, seed=seed, wells={"B02": ("DMSO", 0.0)}, sites=1, size=128, volumes=1, broken=False)
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    first, again, other = contents("first", 7), contents("again", 7), contents("other", 8)
    assert first == again
    assert first.keys() == other.keys()
    assert first["images/B02-s1.ome.tif"] != other["images/B02-s1.ome.tif"]


def test_labels_agree_with_the_tables(plate: DemoPlate) -> None:
    for cells, fovs in tables(plate):
        assert cells["cell_id"].is_unique
        assert list(cells.drop(columns=["cell_id", "label"])) == list(fovs)
        for fov in fovs.itertuples():
            labels, _ = labels_of(plate, fov.label_path)
            mine = cells[cells["fov_id"] == fov.fov_id]
            assert sorted(mine["label"]) == sorted(set(np.unique(labels)) - {0})
            assert list(mine["cell_id"]) == [f"{fov.fov_id}-{label:04d}" for label in mine["label"]]


def test_fields_hold_a_usual_number_of_cells_with_gaps_in_their_ids(plate: DemoPlate) -> None:
    (cells, _), (cells_3d, _) = tables(plate)
    per_fov = cells.groupby("fov_id")["label"].agg(["size", "max"])
    assert per_fov["size"].between(18, 40).all()
    assert (per_fov["max"] > per_fov["size"]).all()
    assert cells_3d.groupby("fov_id").size().between(4, 11).all()


def test_nuclei_lie_inside_their_cells(plate: DemoPlate) -> None:
    for _, fovs in tables(plate):
        for label_path in fovs["label_path"]:
            labels, nuclei = labels_of(plate, label_path)
            inside = nuclei > 0
            np.testing.assert_array_equal(nuclei[inside], labels[inside])
            assert set(np.unique(nuclei)) == set(np.unique(labels))


def test_cells_cut_by_the_border_stay(plate: DemoPlate) -> None:
    for _, fovs in tables(plate):
        labels, _ = labels_of(plate, fovs["label_path"][0])
        assert labels[..., 0, :].any() or labels[..., -1, :].any()


@pytest.mark.parametrize(
    ("fov", "axes", "shape", "channels", "voxel"),
    [
        ("B02-s1", "CYX", (5, 540, 540), CHANNELS_2D, {"Y": 0.65, "X": 0.65}),
        ("A01-s1", "CZYX", (3, 24, 200, 200), CHANNELS_3D, {"Z": 0.5, "Y": 0.2, "X": 0.2}),
    ],
)
def test_ome_metadata(
    plate: DemoPlate, fov: str, axes: str, shape: tuple[int, ...], channels: tuple[str, ...], voxel: dict[str, float]
) -> None:
    with tifffile.TiffFile(plate.folder / "images" / f"{fov}.ome.tif") as file:
        series = file.series[0]
        assert (series.axes, series.shape, series.dtype) == (axes, shape, np.uint16)
        pixels = ElementTree.fromstring(file.ome_metadata).find(f"{OME}Image/{OME}Pixels")
    assert pixels is not None
    assert tuple(c.get("Name") for c in pixels.findall(f"{OME}Channel")) == channels
    for axis, length in voxel.items():
        assert float(pixels.attrib[f"PhysicalSize{axis}"]) == length
        assert pixels.attrib[f"PhysicalSize{axis}Unit"] == "µm"


def test_pixels_are_those_of_a_12_bit_camera_with_an_offset(plate: DemoPlate) -> None:
    image = tifffile.imread(plate.folder / "images" / "B02-s1.ome.tif")
    labels, _ = labels_of(plate, "labels/B02-s1_cells.tif")
    assert image.max() <= 4095
    assert (image == 4095).mean() < 1e-4
    assert 100 < np.median(image[0][labels == 0]) < 200


def test_the_broken_field_is_cut_off_and_its_labels_are_whole(plate: DemoPlate) -> None:
    assert plate.broken_fov == "D08-s2"
    path = plate.folder / "images" / "D08-s2.ome.tif"
    good = plate.folder / "images" / "D08-s1.ome.tif"
    assert path.stat().st_size < 0.7 * good.stat().st_size
    assert path.read_bytes()[:4] == good.read_bytes()[:4]
    assert labels_of(plate, "labels/D08-s2_cells.tif")[0].shape == (540, 540)
    assert "D08-s2" in set(pd.read_csv(plate.cells_csv)["fov_id"])


def test_treatments_have_their_effect(plate: DemoPlate) -> None:
    area, er = {}, {}
    for well in WELLS:
        labels, nuclei = labels_of(plate, f"labels/{well}-s1_cells.tif")
        image = tifffile.imread(plate.folder / "images" / f"{well}-s1.ome.tif").astype(float)
        area[well] = np.median(np.bincount(nuclei[nuclei > 0])[np.unique(nuclei)[1:]])
        er[well] = image[1][(labels > 0) & (nuclei == 0)].mean() - image[1][labels == 0].mean()
    assert area["C05"] > 1.3 * area["B02"]
    assert er["D08"] > 1.4 * er["B02"]
    assert er["C05"] < 1.3 * er["B02"]


def test_parts_can_be_left_out(tmp_path: Path) -> None:
    plate = write_plate(tmp_path, wells={"B02": ("DMSO", 0.0)}, sites=1, size=96, volumes=0, broken=False)
    assert plate.broken_fov is None
    assert len(pd.read_csv(plate.fovs_csv)) == 1
    assert pd.read_csv(plate.cells_3d_csv).empty
    assert "label" in pd.read_csv(plate.cells_3d_csv)
