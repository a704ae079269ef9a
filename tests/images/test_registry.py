"""Which reader opens what, what escapes from it, and whether a voxel size can be believed."""

from __future__ import annotations

import math
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import zarr

from cellcube import errors
from cellcube.images import (
    ArrayFov,
    ImageSource,
    ImplausibleVoxelSizeWarning,
    VoxelSize,
    check_voxel_size,
    find_reader,
    open_image,
)

HERE = ImageSource("here.tif")


class OwnReader:
    """A reader by its import path."""

    def __new__(cls, source: ImageSource) -> ArrayFov:  # type: ignore[misc]
        return ArrayFov(np.full((4, 5), 7), "YX", path=source.path)


def test_unknown_reader():
    with pytest.raises(errors.ArgumentError, match="Did you mean 'tifffile'"):
        open_image(HERE, "tiffile")
    for name in ("no_such_module:Reader", "cellcube.images:Nothing", ":"):
        with pytest.raises(errors.ArgumentError, match="cannot be imported"):
            open_image(HERE, name)
    with pytest.raises(errors.ArgumentError, match="not callable"):
        open_image(HERE, "cellcube.images:READERS")
    with pytest.raises(errors.ArgumentError):
        find_reader(3)


def test_reader_by_import_path(monkeypatch, tmp_path):
    module = type(sys)("own_module")
    module.OwnReader = OwnReader
    monkeypatch.setitem(sys.modules, "own_module", module)
    with open_image(HERE, "own_module:OwnReader") as fov:
        assert fov.read(0, (slice(0, 1), slice(0, 4), slice(0, 5))).tolist() == [[[7] * 5] * 4]


def test_a_reader_that_returns_something_else():
    with pytest.raises(errors.ArgumentError, match=r"returned a ndarray.* lacks 'axes', 'channel_names'"):
        open_image(HERE, lambda source: np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (ValueError("odd"), errors.NotAnImageError),
        (FileNotFoundError("gone"), errors.ImageNotFoundError),
        (PermissionError("no"), errors.ImageAccessError),
        (errors.AxesError("axes"), errors.AxesError),
        (MemoryError(), MemoryError),
    ],
)
def test_what_escapes_from_a_factory(raised, error):
    def factory(source):
        raise raised

    with pytest.raises(error) as caught:
        open_image(HERE, factory)
    if isinstance(caught.value, errors.ImageError) and not isinstance(raised, errors.CellcubeError):
        assert caught.value.path == "here.tif"
        assert caught.value.__cause__ is raised
        pickle.loads(pickle.dumps(caught.value))


def test_what_escapes_from_read():
    class Bad(ArrayFov):
        def read(self, channel, region):
            if channel:
                return np.zeros((1, 2, 2), np.uint8)
            raise RuntimeError("disk on fire")

    with open_image(HERE, lambda source: Bad(np.zeros((2, 4, 4)), "CYX")) as fov:
        region = (slice(0, 1), slice(0, 4), slice(0, 4))
        with pytest.raises(errors.ImageError, match="disk on fire") as caught:
            fov.read(0, region)
        assert caught.value.path == "here.tif"
        with pytest.raises(errors.ImageError, match="promised float64"):
            fov.read(1, region)


def test_a_reader_that_clips_is_kept_inside():
    class Clipping(ArrayFov):
        def read(self, channel, region):
            return np.zeros((2, 4, 4))[region]

    with open_image(HERE, lambda source: Clipping(np.zeros((2, 4, 4)), "ZYX")) as fov:
        assert fov.read(0, (slice(0, 1), slice(0, 4), slice(0, 4))).shape == (1, 4, 4)
        with pytest.raises(errors.ArgumentError, match="y range 0:5 is outside"):
            fov.read(0, (slice(0, 1), slice(0, 5), slice(0, 4)))
        with pytest.raises(errors.ChannelError):
            fov.read(1, (slice(0, 1), slice(0, 4), slice(0, 4)))


def test_closed_image_and_its_temporary_copy(data, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def copies():
        return set(tmp_path.glob("cellcube-*"))

    fsspec.filesystem("memory").pipe_file("/dna.tif", (data / "two_channel_tiny/dna.tif").read_bytes())
    before = copies()
    fov = open_image(ImageSource("memory://dna.tif"))
    assert len(copies() - before) == 1
    fov.close()
    assert copies() <= before
    with pytest.raises(errors.ArgumentError, match="closed"):
        fov.read(0, (slice(0, 1), slice(0, 4), slice(0, 4)))
    for broken in ("empty.tif", "truncated_cyx_imagej.tif", "truncated.nd2"):
        fsspec.filesystem("memory").pipe_file(f"/{broken}", (data / "broken" / broken).read_bytes())
        with pytest.raises(errors.ImageError, match="memory://"):
            open_image(ImageSource(f"memory://{broken}"))
    assert copies() <= before


def test_auto_by_first_bytes(data, tmp_path):
    name = tmp_path / "no_suffix"
    shutil.copy(data / "two_channel_tiny/dna.tif", name)
    with open_image(ImageSource(str(name))) as fov:
        assert fov.shape == (1, 1, 120, 220)
    with open_image(ImageSource(f"file://{name}")) as fov:
        assert fov.shape == (1, 1, 120, 220)
    text = tmp_path / "table.csv"
    text.write_text("cell_id,label\n")
    with pytest.raises(errors.NotAnImageError):
        open_image(ImageSource(str(text)))


def test_zarr_that_is_no_image(tmp_path, data):
    group = zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(errors.NotAnImageError, match="multiscales"):
        open_image(ImageSource(str(tmp_path / "a.zarr")))
    group.attrs["ome"] = {"plate": {"wells": [{"path": "A/1"}]}}
    with pytest.raises(errors.SceneError, match="plate"):
        open_image(ImageSource(str(tmp_path / "a.zarr")))
    labels = data / "formats/pediatric_crop_v05.ome.zarr/labels"
    with pytest.raises(errors.NotAnImageError, match="cells"):
        open_image(ImageSource(str(labels)))
    with open_image(ImageSource(str(labels.parent / "s0"))) as fov:
        assert fov.axes == "CYX"
    with pytest.raises(errors.AxesError):
        open_image(ImageSource(str(data / "formats/pediatric_crop_v04.ome.zarr/s0")))
    with open_image(ImageSource(str(data / "formats/pediatric_crop_v04.ome.zarr/s0"), axes="CYX")) as fov:
        assert fov.shape == (6, 1, 448, 512)


def test_bioformats2raw_scenes(tmp_path):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    axes = [{"name": "y", "type": "space", "unit": "nanometer"}, {"name": "x", "type": "space", "unit": "nanometer"}]
    for number in range(2):
        image = root.create_group(str(number))
        image.create_array("0", data=np.full((8, 9), number + 1, np.uint8))
        scale = [{"type": "scale", "scale": [250, 250]}]
        image.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    with pytest.raises(errors.SceneError, match="2 scenes"):
        open_image(ImageSource(str(tmp_path / "a.zarr")))
    with open_image(ImageSource(str(tmp_path / "a.zarr"), scene=1)) as fov:
        assert fov.read(0, (slice(0, 1), slice(0, 8), slice(0, 9))).min() == 2
        assert fov.voxel_size == VoxelSize(None, 0.25, 0.25)


def test_import_is_fast_and_light():
    heavy = "tifffile zarr dask fsspec bioio xarray aicsimageio"
    code = f"import sys, cellcube.images; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("letter", ["z", "y", "x"])
def test_voxel_sizes_that_cannot_be(letter, value):
    size = VoxelSize(**{"z": 1.0, "y": 1.0, "x": 1.0, letter: value})
    with pytest.raises(errors.VoxelSizeError, match="fov_voxel_size") as caught:
        check_voxel_size(size, (2, 5, 5), path="a.tif", fov_id="f1")
    assert "a.tif" in str(caught.value)
    assert "f1" in str(caught.value)


def test_voxel_size_of_one_plane():
    assert check_voxel_size(VoxelSize(0.0, 1, 1), (1, 5, 5), path="a") == VoxelSize(None, 1, 1)
    assert check_voxel_size(VoxelSize(), (1, 5, 5), path="a") == VoxelSize()


def test_voxel_size_that_is_hard_to_believe(data):
    path = str(data / "pediatric_cellpainting/images/r03c03f03p01-ch1sk1fk1fl1.tiff")
    with open_image(ImageSource(path)) as fov, pytest.warns(ImplausibleVoxelSizeWarning, match=r"64\.5.*voxel_size_y"):
        assert check_voxel_size(fov.voxel_size, fov.shape[1:], path=path).x == pytest.approx(64.5)
    with warnings.catch_warnings(action="error"):
        check_voxel_size(VoxelSize(30.0, 1, 1), (2, 5, 5), path="a")


def test_zero_voxel_size_of_a_real_file(data):
    path = str(data / "formats/ome_multi-channel_int8.ome.tif")
    with open_image(ImageSource(path)) as fov, pytest.raises(errors.VoxelSizeError):
        check_voxel_size(fov.voxel_size, fov.shape[1:], path=path)
