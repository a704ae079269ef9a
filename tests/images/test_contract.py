"""Every reader passes the same contract, on real files."""

from __future__ import annotations

import functools
import http.server
import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from cellcube import errors
from cellcube.images import ImageSource, OmeZarrReader, VoxelSize, open_image
from cellcube.testing.readers import check_fov_reader, memory_reader

OPERA = VoxelSize(None, 64.5, 64.5)
CHANNELS_OF_CROP = ("DNA", "ER", "AGP", "Mito", "RNA", "Brightfield")


def through(reader: str) -> Any:
    return lambda source: open_image(source, reader)


def stored(data: Path, name: str) -> np.ndarray:
    return tifffile.imread(data / name)


@pytest.mark.parametrize("reader", ["tifffile", "auto", "bioio"])
@pytest.mark.parametrize("order", ["ZCYX", "CZYX"])
def test_ome_tiff(data, reader, order):
    pixels = stored(data, f"formats/derived_dna_{order}.ome.tif")
    expected = pixels.swapaxes(0, 1) if order == "ZCYX" else pixels
    check_fov_reader(
        through(reader),
        ImageSource(str(data / f"formats/derived_dna_{order}.ome.tif")),
        expected,
        channel_names=("confocal", "widefield"),
        voxel_size=VoxelSize(0.4994, 0.512, 0.512),
    )


@pytest.mark.parametrize("reader", ["auto", "omezarr", "bioio", "omezarr-sparse"])
@pytest.mark.parametrize("version", ["04", "05"])
def test_ome_zarr(data, reader, version):
    path = data / f"formats/pediatric_crop_v{version}.ome.zarr"
    expected = zarr.open_array(path / "s0", mode="r")[:][:, None]
    check_fov_reader(
        through(reader),
        ImageSource(str(path)),
        expected,
        channel_names=CHANNELS_OF_CROP,
        voxel_size=VoxelSize(None, 0.6, 0.6),
    )


@pytest.mark.parametrize("reader", ["auto", "bioio"])
@pytest.mark.parametrize("version", ["04", "05"])
def test_ome_zarr_label_image(data, reader, version):
    path = data / f"formats/pediatric_crop_v{version}.ome.zarr/labels/cells"
    expected = zarr.open_array(path / "s0", mode="r")[:][None, None]
    assert len(np.unique(expected)) == 13
    check_fov_reader(through(reader), ImageSource(str(path)), expected, voxel_size=VoxelSize(None, 0.6, 0.6))


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("multichannel", ("Mono", "DAPI", "FITC BP", "TRITC BP"), VoxelSize(None, 0.32339, 0.32339)),
        ("zstack", ("FITC BP",), VoxelSize(6.0, 0.32339, 0.32339)),
    ],
)
def test_nd2(data, name, channels, size):
    nd2 = importlib.import_module("nd2")
    path = data / f"formats/arcadia_{name}.nd2"
    expected = nd2.imread(path)
    expected = expected[:, None] if name == "multichannel" else expected[None]
    check_fov_reader(through("auto"), ImageSource(str(path)), expected, channel_names=channels, voxel_size=size)


def test_nd2_timepoint(data):
    nd2 = importlib.import_module("nd2")
    path = data / "formats/arcadia_timelapse.nd2"
    check_fov_reader(
        through("bioio"),
        ImageSource(str(path), timepoint=17),
        nd2.imread(path)[17][None, None],
        channel_names=("GFP 488 nm",),
    )


def test_png_samples_are_channels(data):
    importlib.import_module("bioio_imageio")
    from PIL import Image

    path = data / "formats/nuclear_rgb.png"
    expected = np.moveaxis(np.asarray(Image.open(path)), -1, 0)[:, None]
    check_fov_reader(through("auto"), ImageSource(str(path)), expected, regions=5)


def test_tiff_kinds(data):
    """Big-endian, palette, LZW, deflate, PackBits, samples, signed, float, MetaMorph, ImageJ."""
    for name, shape, names, size in [
        ("bbbc014_translocation/Channel 1-01-A-01-00.tif", (1, 1, 1024, 1360), None, VoxelSize()),
        ("pediatric_cellpainting/images/r03c03f03p01-ch1sk1fk1fl1.tiff", (1, 1, 1080, 1080), None, OPERA),
        ("nf1_cellpainting/images/B7_01_1_3_DAPI_001.tif", (1, 1, 904, 1224), None, VoxelSize()),
        ("bacteria_phase/caulo_15.tif", (1, 1, 281, 310), None, VoxelSize()),
        ("neubias/xyc_16bit__hela-cells.tif", (3, 1, 512, 672), None, VoxelSize(0.05149, 0.05149, 0.05149)),
        ("neubias/xyzc_16bit__dna_conf_wf.tif", (2, 45, 130, 133), None, VoxelSize(0.49941, 0.51188, 0.51188)),
        ("neubias/xyz_8bit__mitotic_plate_badZcalibrated.tif", (1, 6, 263, 263), None, VoxelSize(None, 0.0852, 0.0852)),
        ("neubias/xyc_16bit__nuclei_tubulin.tif", (2, 1, 214, 226), None, VoxelSize()),
        ("neubias/xy_float__h2b_bg_corr.tif", (1, 1, 42, 60), None, VoxelSize()),
        ("formats/ome_multi-channel_int8.ome.tif", (3, 1, 167, 439), None, VoxelSize(None, 0.0, 0.0)),
        ("formats/MetamorphImage.tif", (1, 1, 520, 696), ("Cy5",), VoxelSize(None, 0.645, 0.645)),
        ("two_channel_tiny/dna_labels.tif", (1, 1, 120, 220), None, VoxelSize()),
        ("formats/A9 p5d (cropped 1).tif", (1, 1, 104, 102), None, VoxelSize()),
    ]:  # fmt: skip
        pixels = stored(data, name)
        if "hela" in name:
            pixels = np.moveaxis(pixels, -1, 0)
        if "dna_conf_wf" in name:
            pixels = pixels.swapaxes(0, 1)
        expected = pixels.reshape(shape).astype(pixels.dtype.newbyteorder("="))
        check_fov_reader(
            through("auto"), ImageSource(str(data / name)), expected, channel_names=names, voxel_size=size, regions=5
        )


def test_memory():
    pixels = np.random.default_rng(0).integers(0, 9, (2, 3, 8, 9), np.uint16)
    factory = memory_reader(
        {"mem://a.tif": pixels.astype(">u2")}, channel_names=("a", "b"), voxel_size=VoxelSize(1, 2, 3)
    )
    source = ImageSource("mem://a.tif")
    for one in (factory, lambda source: open_image(source, factory)):
        check_fov_reader(one, source, pixels, channel_names=("a", "b"), voxel_size=VoxelSize(1, 2, 3))


def test_factory_with_options(data):
    path = data / "formats/pediatric_crop_v05.ome.zarr"
    with open_image(ImageSource(str(path)), OmeZarrReader(sparse=True)) as fov:
        assert fov.shape == (6, 1, 448, 512)


def test_s3(data, s3, tmp_path):
    s3fs = importlib.import_module("s3fs")
    fs = s3fs.S3FileSystem(**s3)
    crop, dna = data / "formats/pediatric_crop_v05.ome.zarr", data / "neubias/xyzc_16bit__dna_conf_wf.tif"
    fs.put(str(crop), "bucket/images/crop.ome.zarr", recursive=True)
    fs.put_file(str(dna), "bucket/images/dna.tif")
    fs.put_file(str(data / "formats/arcadia_zstack.nd2"), "bucket/images/z.nd2")
    whole = zarr.open_array(crop / "s0", mode="r")[:][:, None]

    def source(name: str) -> ImageSource:
        return ImageSource(f"s3://bucket/images/{name}", storage_options=s3)

    for reader in ("auto", "bioio"):
        check_fov_reader(through(reader), source("crop.ome.zarr"), whole, channel_names=CHANNELS_OF_CROP, regions=3)
        with open_image(source("crop.ome.zarr/labels/cells"), reader) as fov:
            assert len(np.unique(fov.read(0, (slice(0, 1), slice(0, 448), slice(0, 512))))) == 13
    check_fov_reader(through("auto"), source("dna.tif"), tifffile.imread(dna).swapaxes(0, 1), regions=3)
    nd2 = importlib.import_module("nd2")
    pixels = nd2.imread(data / "formats/arcadia_zstack.nd2")[None]
    check_fov_reader(through("auto"), source("z.nd2"), pixels, channel_names=("FITC BP",), regions=3)


def test_http(data):
    """Any plain file server will do: a missing chunk is found there too."""
    aiohttp = importlib.import_module("aiohttp")
    assert aiohttp
    crop = data / "formats/pediatric_crop_v05.ome.zarr"
    whole = zarr.open_array(crop / "s0", mode="r")[:][:, None]
    handler = functools.partial(QuietHandler, directory=str(data))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        url = f"{root}/formats/pediatric_crop_v05.ome.zarr"
        check_fov_reader(through("auto"), ImageSource(url), whole, channel_names=CHANNELS_OF_CROP, regions=3)
        with open_image(ImageSource(f"{root}/two_channel_tiny/dna.tif")) as fov:
            assert fov.shape == (1, 1, 120, 220)
        QuietHandler.hidden = "/s0/c/2/"
        try:
            with open_image(ImageSource(url)) as fov, pytest.raises(errors.TruncatedImageError, match="s0/c/2/0/0"):
                fov.read(2, (slice(0, 1), slice(0, 10), slice(0, 10)))
        finally:
            QuietHandler.hidden = None
            server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    hidden: str | None = None

    def log_message(self, *args: object) -> None:
        pass

    def send_head(self) -> Any:
        if self.hidden and self.hidden in self.path:
            self.send_error(404)
            return None
        return super().send_head()
