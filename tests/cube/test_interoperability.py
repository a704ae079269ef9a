"""The cube as others see it: OME-Zarr validators, xarray, dask, zarr, ome-zarr, napari, bioio, Intake."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import cellcube
from cellcube.demo.plates import DemoPlate

GROUPS = ["", "max_z", "mean_y", "labels/mask"]


@pytest.fixture(scope="module")
def root(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("interop") / "dataset"
    cellcube.build(
        plate.cells_3d_csv, root, executor=1, shape=(8, 32, 32), projections=["max_z", "mean_y"], name="lab/volumes"
    )
    return root


@pytest.fixture(scope="module")
def expected(root: Path) -> xr.Dataset:
    return cellcube.open(root).load()


@pytest.mark.parametrize("group", GROUPS)
def test_yaozarrs_accepts_every_image(root: Path, group: str) -> None:
    import yaozarrs

    # Metadata and arrays: that every path exists, that dimensions and types fit.
    yaozarrs.validate_zarr_store(str(root / "cube.zarr" / group))


@pytest.mark.parametrize("group", GROUPS)
def test_ome_zarr_models_accepts_every_image(root: Path, group: str) -> None:
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05 import Image, ImageLabel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = ImageLabel if group.startswith("labels") else Image
        image = model.from_zarr(zarr.open_group(root / "cube.zarr" / group, mode="r"))
        assert open_ome_zarr(zarr.open_group(root / "cube.zarr" / group, mode="r")) is not None
    axes = [axis.name for axis in image.ome_attributes.multiscales[0].axes]
    assert axes[0] == "cell"


def test_ome_zarr_models_accepts_the_labels_group(root: Path) -> None:
    from ome_zarr_models.v05 import Labels

    labels = Labels.from_zarr(zarr.open_group(root / "cube.zarr/labels", mode="r"))
    assert labels.attributes.ome.labels == ["mask"]


def test_the_axis_slots_are_those_of_ome_zarr(root: Path) -> None:
    attributes = json.loads((root / "cube.zarr/zarr.json").read_text())["attributes"]
    axes = attributes["ome"]["multiscales"][0]["axes"]
    assert [axis["type"] for axis in axes] == ["time", "channel", "space", "space", "space"]
    assert [axis.get("unit") for axis in axes] == [None, None, "micrometer", "micrometer", "micrometer"]
    transformation = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    assert transformation["scale"] == pytest.approx([1, 1, 0.5, 0.2, 0.2])
    channels = attributes["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["DNA", "membrane", "structure"]
    assert all(len(channel["color"]) == 6 and channel["window"]["end"] == 1 for channel in channels)
    colors = json.loads((root / "cube.zarr/labels/mask/zarr.json").read_text())["attributes"]["ome"]["image-label"]
    assert all(isinstance(color["label-value"], int) for color in colors["colors"])


def test_every_array_names_its_dimensions(root: Path) -> None:
    group = zarr.open_consolidated(root / "cube.zarr", zarr_format=3)
    arrays = {path: node for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert arrays["cells"].metadata.dimension_names == ("cell", "c", "z", "y", "x")
    assert arrays["cells"].shards is not None
    assert all(
        array.metadata.dimension_names and None not in array.metadata.dimension_names for array in arrays.values()
    )
    assert arrays["cell_id"].metadata.to_dict()["data_type"] == "string"
    for name in GROUPS[1:]:
        assert arrays[f"{name}/cell_id"].shape == arrays["cell_id"].shape


def test_plain_xarray_reads_it(root: Path, expected: xr.Dataset) -> None:
    cube = xr.open_zarr(root / "cube.zarr", consolidated=True)
    along = {name for name in cube.data_vars if name != "cells"}
    assert {"cell_id", "fov_id", "norm_low", "retracted"} <= along
    # Nothing else is read with a cell.
    assert set(cube["cells"].coords) == {"c"}
    np.testing.assert_array_equal(cube["cells"], expected["cells"])
    assert list(cube["cell_id"].values) == list(expected["cell_id"].values)
    for group, name in (("max_z", "max_z"), ("mean_y", "mean_y"), ("labels/mask", "mask")):
        part = xr.open_zarr(root / "cube.zarr", group=group, consolidated=True)
        np.testing.assert_array_equal(part[name], expected[name])
        assert list(part["cell_id"].values) == list(expected["cell_id"].values)


def test_xarray_reads_it_as_a_tree(root: Path, expected: xr.Dataset) -> None:
    tree = xr.open_datatree(root / "cube.zarr", engine="zarr", consolidated=True)
    np.testing.assert_array_equal(tree["labels/mask/mask"], expected["mask"])


def test_dask_and_zarr_read_it(root: Path, expected: xr.Dataset) -> None:
    lazy = da.from_zarr(str(root / "cube.zarr"), component="cells")
    np.testing.assert_array_equal(lazy.compute(), expected["cells"])
    np.testing.assert_array_equal(zarr.open_array(root / "cube.zarr/max_z/max_z", mode="r")[:], expected["max_z"])


def test_other_zarr_readers_read_it(root: Path, expected: xr.Dataset) -> None:
    import zarrs  # noqa: F401

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(zarr.open_array(root / "cube.zarr/cells", mode="r")[:], expected["cells"])
        assert zarr.open_array(root / "cube.zarr/cell_id", mode="r")[0] == expected["cell_id"].values[0]


def test_ome_zarr_reads_it(root: Path, expected: xr.Dataset) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    location = parse_url(root / "cube.zarr")
    assert location is not None
    node = next(iter(Reader(location)()))
    np.testing.assert_array_equal(np.asarray(node.data[0]), expected["cells"])
    assert node.metadata["channel_names"] == ["DNA", "membrane", "structure"]


def test_napari_reads_it(root: Path, expected: xr.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from napari_ome_zarr import napari_get_reader

        reader = napari_get_reader(str(root / "cube.zarr"))
        assert reader is not None
        layers = reader(str(root / "cube.zarr"))
    names = [layer[1].get("name") for layer in layers]
    assert names[0] == ["volumes: DNA", "volumes: membrane", "volumes: structure"]
    assert any("mask" in str(name) for name in names)
    pixels = layers[0][0]
    first = pixels[0] if isinstance(pixels, list) else pixels
    np.testing.assert_array_equal(np.asarray(first), expected["cells"])


def test_bioio_reads_it_where_the_axis_is_named_t(plate: DemoPlate, tmp_path: Path) -> None:
    from bioio import BioImage
    from bioio_ome_zarr import Reader

    cellcube.build(plate.cells_3d_csv, tmp_path / "t", executor=1, shape=(8, 32, 32), cell_axis="t")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = BioImage(str(tmp_path / "t/cube.zarr"), reader=Reader)
        assert image.dims.order == "TCZYX"
        assert image.channel_names == ["DNA", "membrane", "structure"]
        assert pytest.approx(0.2) == image.physical_pixel_sizes.Y
        pixels = image.get_image_data("TCZYX")
    dataset = cellcube.open(tmp_path / "t")
    assert dataset["cells"].dims == ("cell", "c", "z", "y", "x")
    np.testing.assert_array_equal(pixels, dataset["cells"])


READ_BY_INTAKE = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cellcube":
            raise ImportError("cellcube is not installed here")
sys.meta_path.insert(0, Refuse())
import warnings
warnings.simplefilter("ignore")
import intake
catalog = intake.open_catalog(sys.argv[1])
cells = catalog["normalized_cells"].to_dask()
masks = catalog["masks"].to_dask()
table = catalog["cells"].read()
print(json.dumps({
    "entries": list(catalog),
    "described": {name: catalog._entries[name].describe()["description"] for name in catalog},
    "metadata": dict(catalog.metadata["cellcube"]),
    "shape": cells["cells"].shape,
    "lazy": type(cells["cells"].data).__name__,
    "sum": float(cells["cells"].astype("float64").sum()),
    "first": str(cells["cell_id"].values[0]),
    "max_z": catalog["max_z"].to_dask()["max_z"].shape,
    "masked": int(masks["mask"].sum()),
    "table": len(table),
    "columns": sorted(table.columns),
}))
"""


def read_by_intake(catalog: str) -> dict[str, Any]:
    """What a process without cellcube reads through a catalog."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", READ_BY_INTAKE, catalog], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_catalog_opens_without_cellcube_also_after_a_move(root: Path, expected: xr.Dataset, tmp_path: Path) -> None:
    import shutil

    found = read_by_intake(str(root / "catalog.yaml"))
    assert found["entries"] == ["normalized_cells", "max_z", "mean_y", "masks", "cells", "outcomes", "fovs", "versions"]
    assert found["lazy"] == "Array"
    assert found["shape"] == list(expected["cells"].shape)
    assert found["sum"] == pytest.approx(float(expected["cells"].astype("float64").sum()))
    assert found["masked"] == int(expected["mask"].sum())
    assert found["first"] == str(expected["cell_id"].values[0])
    assert found["metadata"]["channels"] == ["DNA", "membrane", "structure"]
    assert found["metadata"]["voxel_size_um_zyx"] == pytest.approx([0.5, 0.2, 0.2])
    assert all(found["described"].values())
    moved = tmp_path / "else where" / "copy"
    shutil.copytree(root, moved)
    again = read_by_intake(f"file://{moved}/catalog.yaml")
    assert again == found


def test_the_manifest_is_in_the_order_of_the_cube(root: Path, expected: xr.Dataset) -> None:
    table = pd.read_parquet(root / "cells.parquet")
    assert table["cell_id"].tolist() == [str(name) for name in expected["cell_id"].values]
    assert table["norm_low_DNA"].to_numpy() == pytest.approx(expected["norm_low"].sel(c="DNA").values)


def test_a_missing_shard_is_an_error_and_not_zeros(root: Path, tmp_path: Path) -> None:
    import shutil

    from cellcube.errors import DatasetDamagedError

    shutil.copytree(root, tmp_path / "damaged")
    (tmp_path / "damaged/cube.zarr/cells/c/0/0/0/0/0").unlink()
    dataset = cellcube.open(tmp_path / "damaged")
    with pytest.raises(DatasetDamagedError, match="cells/c/0/0/0/0/0"):
        dataset["cells"].isel(cell=0).compute()
