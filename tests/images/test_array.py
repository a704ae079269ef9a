"""Arrays of any axes, seen as (c, z, y, x); and what `axes`, `scene` and `timepoint` may be."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcube import errors
from cellcube.images import ArrayFov, FovReader, ImageSource, VoxelSize, open_image

SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6, "S": 2}


@st.composite
def arrays(draw: st.DrawFn) -> tuple[np.ndarray, str, int]:
    letters = {"Y", "X"} | draw(st.sets(st.sampled_from("TCZS")))
    axes = "".join(draw(st.permutations(sorted(letters))))
    shape = [SIZES[letter] for letter in axes]
    dtype = draw(st.sampled_from([">u2", "<i4", ">f4", "u1"]))
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype), axes, draw(st.integers(0, 1))


@given(arrays(), st.data())
@settings(deadline=None, max_examples=200)
def test_any_axes(case, draws):
    array, axes, timepoint = case
    timepoint = timepoint if "T" in axes else 0
    fov = ArrayFov(array, axes.lower(), timepoint=timepoint)
    assert isinstance(fov, FovReader)
    # The same by numpy alone: all six axes, in order, at one time.
    full = array.reshape(array.shape + (1,) * (6 - array.ndim))
    order = axes + "".join(letter for letter in "TCSZYX" if letter not in axes)
    full = np.transpose(full, [order.index(letter) for letter in "TCSZYX"])[timepoint]
    expected = full.reshape(-1, *full.shape[2:])
    assert fov.shape == expected.shape
    c = draws.draw(st.integers(0, expected.shape[0] - 1))
    region = tuple(
        slice(*sorted((draws.draw(st.integers(0, size)), draws.draw(st.integers(0, size)))))
        for size in expected.shape[1:]
    )
    pixels = fov.read(c, region)
    assert pixels.dtype.isnative
    assert np.array_equal(pixels, expected[(c, *region)])


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ("CYX", "3 letters for 4 axes"),
        ("QCYX", "letters other than TCZYXS: Q"),
        ("YYXC", "twice"),
        ("TCZS", "lacks Y or X"),
    ],
)
def test_axes_that_do_not_fit(axes, words):
    with pytest.raises(errors.AxesError, match=words) as caught:
        ArrayFov(np.zeros((2, 3, 4, 5)), axes, path="here.tif")
    assert "(2, 3, 4, 5)" in str(caught.value)
    assert "here.tif" in str(caught.value)
    assert caught.value.remedy


def test_axes_of_size_one_may_be_left_out():
    assert ArrayFov(np.zeros((1, 3, 4, 1, 5)), "CYX").shape == (3, 1, 4, 5)


def test_timepoints():
    array = np.zeros((3, 4, 5))
    with pytest.raises(errors.SceneError, match="3 timepoints"):
        ArrayFov(array, "TYX")
    with pytest.raises(errors.SceneError, match="no timepoint 3"):
        ArrayFov(array, "TYX", timepoint=3)
    with pytest.raises(errors.SceneError):
        ArrayFov(array, "ZYX", timepoint=1)
    assert ArrayFov(array, "ZYX", timepoint=0).shape == (1, 3, 4, 5)


def test_names_that_do_not_fit_are_left_out():
    assert ArrayFov(np.zeros((3, 4, 5)), "CYX", channel_names=["a", "b"]).channel_names is None
    fov = ArrayFov(np.zeros((2, 4, 5, 3)), "CYXS", channel_names=["a", "b"])
    assert fov.channel_names == ("a 0", "a 1", "a 2", "b 0", "b 1", "b 2")


def test_tiff_axes_unknown(data):
    path = str(data / "nuclei3d_cells3d/nuclei.tif")
    with pytest.raises(errors.AxesError, match=r"'QYX' for the shape \(60, 256, 256\)") as caught:
        open_image(ImageSource(path))
    assert "axes='ZYX'" in str(caught.value)
    with open_image(ImageSource(path, axes="ZYX")) as fov:
        assert fov.shape == (1, 60, 256, 256)
        assert fov.axes == "ZYX"
    with open_image(ImageSource(path, axes="CYX")) as fov:
        assert fov.shape == (60, 1, 256, 256)
    with pytest.raises(errors.AxesError, match="4 letters for 3 axes"):
        open_image(ImageSource(path, axes="CZYX"))


def test_override_keeps_what_still_fits(data):
    """A stack that is told as channels or slices: the sizes follow the stored axes."""
    path = str(data / "neubias/xyz_8bit__mitotic_plate_calibrated.tif")
    with open_image(ImageSource(path)) as fov:
        assert fov.voxel_size.z == 3.0
    with open_image(ImageSource(path, axes="CYX")) as fov:
        assert fov.voxel_size.z is None
        assert fov.voxel_size.x == pytest.approx(0.0852, rel=1e-3)
    path = str(data / "formats/derived_dna_CZYX.ome.tif")
    with open_image(ImageSource(path, axes="ZCYX")) as fov:
        assert fov.shape == (45, 2, 130, 133)
        assert fov.channel_names is None


def test_tiff_scenes(tmp_path):
    path = str(tmp_path / "two.ome.tif")
    first, second = np.zeros((2, 20, 30), np.uint8), np.ones((40, 50), np.uint8)
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(first, metadata={"axes": "CYX", "Name": "left"})
        writer.write(second, metadata={"axes": "YX", "Name": "right", "Channel": {"Name": ["GFP"]}})
    with pytest.raises(errors.SceneError, match="0: 'left', 1: 'right'"):
        open_image(ImageSource(path))
    for scene in (1, "1", "right"):
        with open_image(ImageSource(path, scene=scene)) as fov:
            assert fov.shape == (1, 1, 40, 50)
            assert fov.channel_names == ("GFP",)
            assert fov.read(0, (slice(0, 1), slice(3, 5), slice(0, 2))).all()
    for scene in (2, -1, "rigth"):
        with pytest.raises(errors.SceneError, match="left"):
            open_image(ImageSource(path, scene=scene))


def test_pyramid_and_thumbnail_are_not_scenes(tmp_path):
    path = tmp_path / "pyramid.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=2, tile=(32, 32), metadata=None)
        for step in (2, 4):
            writer.write(pixels[::step, ::step], subfiletype=1, tile=(32, 32), metadata=None)
        writer.write(pixels[:30, :20], subfiletype=1, metadata=None)
    with open_image(ImageSource(str(path))) as fov:
        assert fov.shape == (1, 1, 256, 256)
        assert np.array_equal(fov.read(0, (slice(0, 1), slice(0, 256), slice(0, 256)))[0], pixels)


def test_tiff_timepoints(tmp_path):
    path = str(tmp_path / "t.tif")
    pixels = np.arange(3 * 2 * 8 * 9, dtype=np.uint16).reshape(3, 2, 8, 9)
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(errors.SceneError, match="3 timepoints"):
        open_image(ImageSource(path))
    with open_image(ImageSource(path, timepoint=2)) as fov:
        assert np.array_equal(fov.read(1, (slice(0, 1), slice(2, 8), slice(0, 9)))[0], pixels[2, 1, 2:])


def test_only_the_pages_asked_for_are_read(data, monkeypatch):
    path = str(data / "formats/derived_dna_CZYX.ome.tif")
    decoded: list[int] = []
    real = tifffile.TiffFrame.asarray
    monkeypatch.setattr(
        tifffile.TiffFrame, "asarray", lambda self, **options: decoded.append(self.index) or real(self, **options)
    )
    with open_image(ImageSource(path)) as fov:
        assert decoded == []
        fov.read(1, (slice(10, 13), slice(0, 5), slice(0, 5)))
    assert decoded == [55, 56, 57]


def test_voxel_size_swapped():
    from cellcube.images.axes import match_voxel_size

    size = VoxelSize(3, 2, 1)
    assert match_voxel_size(size, "ZYX", "ZXY") == VoxelSize(3, 1, 2)
    assert match_voxel_size(size, "QYX", "ZYX") == size
    assert match_voxel_size(size, "ZYX", "CYX") == VoxelSize(None, 2, 1)
