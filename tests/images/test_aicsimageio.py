"""The adapter for aicsimageio, which few have installed."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import tifffile

from cellcube import errors
from cellcube.images import ImageSource, VoxelSize, open_image
from cellcube.images.aics import INSTALL
from cellcube.testing.readers import check_fov_reader

installed = importlib.util.find_spec("aicsimageio") is not None


@pytest.mark.skipif(not installed, reason=f"aicsimageio is not installed: {INSTALL}")
@pytest.mark.parametrize("order", ["ZCYX", "CZYX"])
def test_ome_tiff(data, order):
    path = data / f"formats/derived_dna_{order}.ome.tif"
    pixels = tifffile.imread(path)
    check_fov_reader(
        lambda source: open_image(source, "aicsimageio"),
        ImageSource(str(path)),
        pixels.swapaxes(0, 1) if order == "ZCYX" else pixels,
        channel_names=("confocal", "widefield"),
        voxel_size=VoxelSize(0.4994, 0.512, 0.512),
    )


def test_not_installed(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "aicsimageio", None)
    path = str(data / "formats/derived_dna_CZYX.ome.tif")
    with pytest.raises(errors.MissingDependencyError) as caught:
        open_image(ImageSource(path), "aicsimageio")
    assert INSTALL in str(caught.value)


def test_a_reader_that_cannot_be_imported_is_not_replaced(data, monkeypatch):
    """aicsimageio would fall back to a reader without channel names and voxel size."""
    if not installed:
        pytest.skip(f"aicsimageio is not installed: {INSTALL}")
    monkeypatch.setitem(sys.modules, "aicsimageio.readers.ome_tiff_reader", None)
    with pytest.raises(errors.MissingDependencyError):
        open_image(ImageSource(str(data / "formats/derived_dna_CZYX.ome.tif")), "aicsimageio")
