"""OME-TIFFs, read by tifffile, bioio and aicsimageio."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

import cellcube
from cellcube import errors
from cellcube.demo.plates import DemoPlate
from cellcube.export import to_ome_tiff
from cellcube.images import ImageSource, VoxelSize, open_image
from cellcube.testing.readers import check_fov_reader


@pytest.mark.parametrize("compression", ["zlib", "none"])
def test_pixels_are_those_of_the_dataset(flat: Path, compression: Any, unchanged) -> None:
    unchanged(flat)
    report = to_ome_tiff(flat, "out", mask=True, compression=compression, progress=False)
    assert (report.cells, report.files) == (15, 33)
    assert report.bytes == sum(path.stat().st_size for path in Path("out").iterdir())
    dataset, table = cellcube.open(flat), pd.read_parquet("out/cells.parquet")
    assert list(table["cell_id"]) == list(dataset["cell_id"].values)
    assert set(table["table_file"]) == {"from the table"}
    pd.testing.assert_frame_equal(
        pd.read_csv("out/cells.csv", keep_default_na=False)[["cell_id", "file"]],
        table[["cell_id", "file"]],
        check_dtype=False,
    )
    for row in table.itertuples():
        with tifffile.TiffFile(f"out/{row.file}") as tif:
            assert tif.is_ome
            pixels = tif.series[0].asarray(squeeze=False)
            assert tif.series[0].get_axes(squeeze=False).strip("TS") == "CZYX"
        stored = dataset.sel(cell_id=row.cell_id)
        np.testing.assert_array_equal(pixels.reshape(2, 1, 32, 40), stored["cells"].values)
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(tifffile.imread(f"out/{row.mask_file}"), stored["mask"].values[0])


@pytest.mark.parametrize("reader", ["tifffile", "bioio", "aicsimageio"])
def test_readers_find_pixels_names_and_voxel_size(volume: Path, reader: str) -> None:
    if reader == "aicsimageio" and importlib.util.find_spec(reader) is None:
        pytest.skip("aicsimageio is not installed")
    to_ome_tiff(volume, "out", channels=["structure", "DNA"], progress=False)
    dataset = cellcube.open(volume).sel(c=["structure", "DNA"])
    for row in pd.read_parquet("out/cells.parquet").itertuples():
        check_fov_reader(
            lambda source: open_image(source, reader),
            ImageSource(f"out/{row.file}"),
            dataset["cells"].sel(cell_id=row.cell_id).values,
            channel_names=("structure", "DNA"),
            voxel_size=VoxelSize(0.5, 0.2, 0.2),
        )


def test_bioio_alone(volume: Path) -> None:
    from bioio import BioImage

    to_ome_tiff(volume, "out", progress=False)
    row = pd.read_parquet("out/cells.parquet").iloc[3]
    with warnings.catch_warnings():
        # Of the libraries below it.
        warnings.simplefilter("ignore")
        image = BioImage(f"out/{row['file']}")
        pixels = image.data
    assert image.dims.order == "TCZYX"
    assert image.channel_names == ["DNA", "membrane", "structure"]
    assert tuple(image.physical_pixel_sizes) == (0.5, 0.2, 0.2)
    np.testing.assert_array_equal(pixels[0], cellcube.open(volume)["cells"].values[3])


def test_intensities_come_back_as_those_of_the_image(volume: Path, flat: Path) -> None:
    to_ome_tiff(volume, "out", denormalized=True, progress=False)
    expected = cellcube.denormalize(cellcube.open(volume)).values
    for row, wanted in zip(pd.read_parquet("out/cells.parquet").itertuples(), expected, strict=True):
        pixels = tifffile.imread(f"out/{row.file}")
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, np.rint(wanted))
    to_ome_tiff(flat, "flat", denormalized=True, where="well == 'B02'", progress=False)
    files = pd.read_parquet("flat/cells.parquet")
    wanted = cellcube.denormalize(cellcube.open(flat)).sel(cell_id=list(files["cell_id"])).values
    pixels = np.stack([tifffile.imread(f"flat/{file}") for file in files["file"]])
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, np.rint(wanted[:, :, 0]))


def test_intensities_that_are_no_integers_are_floats(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellcube.export import selection as selections

    before = selections.read_cells
    monkeypatch.setattr(
        selections, "read_cells", lambda *given: before(*given).assign(intensity_max_ER=0.5, norm_high_ER=0.5)
    )
    to_ome_tiff(flat, "out", denormalized=True, progress=False)
    assert tifffile.imread(next(Path("out").glob("*.ome.tif"))).dtype == np.float32


def test_a_projection_has_its_own_axes_and_sizes(flat: Path, volume: Path) -> None:
    to_ome_tiff(flat, "out", variable="max_y", progress=False)
    file = pd.read_parquet("out/cells.parquet")["file"][0]
    with open_image(ImageSource(f"out/{file}"), "tifffile") as fov:
        # Rows are along z, whose voxel size the demo's flat fields do not tell.
        assert fov.voxel_size == VoxelSize(None, None, 0.65)
    with pytest.raises(errors.ArgumentError, match="no mask"):
        to_ome_tiff(flat, "masks", variable="max_y", mask=True)
    assert not Path("masks").exists()


def test_no_inverse_is_told_before_anything_is_written(plate: DemoPlate) -> None:
    frame = pd.read_csv(plate.cells_csv).head(3)
    for name in ("fov_path", "label_path"):
        frame[name] = [str(plate.folder / path) for path in frame[name]]
    cellcube.build(frame, "smoothed", shape=(1, 32, 32), normalize="img_bg_sub", progress=False)
    with pytest.raises(errors.ArgumentError, match="smoothing"):
        to_ome_tiff("smoothed", "out", denormalized=True)
    assert not Path("out").exists()


def test_the_same_cells_give_the_same_bytes(flat: Path) -> None:
    for to in ("one", "two"):
        to_ome_tiff(flat, to, progress=False)
    for path in Path("one").glob("*.ome.tif"):
        assert path.read_bytes() == (Path("two") / path.name).read_bytes()


def test_from_and_to_a_bucket(flat: Path, bucket: dict[str, Any]) -> None:
    import fsspec

    to_ome_tiff(flat, "out", progress=False)
    files = fsspec.filesystem("s3", **bucket)
    files.put(str(flat), "bucket/flat", recursive=True)
    report = to_ome_tiff("s3://bucket/flat", "s3://bucket/tiffs", storage_options=bucket, progress=False)
    assert report.to == "s3://bucket/tiffs"
    assert to_ome_tiff("s3://bucket/flat", report.to, storage_options=bucket, progress=False) == report
    for path in Path("out").glob("*.tif"):
        assert files.cat_file(f"bucket/tiffs/{path.name}") == path.read_bytes()
    marked = files.cat_file("bucket/tiffs/export.json")
    assert b"s3://bucket/flat" in marked
    assert b"testing" not in marked
    fewer = to_ome_tiff(
        "s3://bucket/flat", "s3://bucket/tiffs", where="well == 'B02'", storage_options=bucket, progress=False
    )
    assert len(files.ls("bucket/tiffs", refresh=True)) == fewer.files
    with pytest.raises(errors.ArgumentError, match="into the dataset"):
        to_ome_tiff("s3://bucket/flat", "s3://bucket/flat/tiffs", storage_options=bucket)


def test_an_option_that_there_is_not(flat: Path) -> None:
    with pytest.raises(errors.ArgumentError, match="compression"):
        to_ome_tiff(flat, "out", compression="jpeg")  # type: ignore[arg-type]
