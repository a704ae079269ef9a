"""Files that must be refused: every one with an error that says what is wrong and names the path."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from cellcube import errors
from cellcube.images import ImageSource, OmeZarrReader, open_image

EVERYTHING = (slice(None), slice(None), slice(None))


def read_all(path: Path | str, reader: object = "auto", **source: object) -> np.ndarray:
    with open_image(ImageSource(str(path), **source), reader) as fov:
        return np.stack([fov.read(c, EVERYTHING) for c in range(fov.shape[0])])


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("empty.tif", errors.NotAnImageError, "empty"),
        ("not_an_image.tif", errors.NotAnImageError, "not a TIFF"),
        ("truncated_cyx_imagej.tif", errors.TruncatedImageError, "byte 801583"),
        ("truncated_dapi.tif", errors.TruncatedImageError, "ends at byte"),
        ("truncated.nd2", errors.TruncatedImageError, "Invalid ChunkMap"),
        ("truncated.jpg", errors.TruncatedImageError, "damaged"),
    ],
)
def test_broken_files(data, name, error, words):
    path = data / "broken" / name
    with pytest.raises(error, match=words) as caught:
        open_image(ImageSource(str(path)))
    assert str(path) in str(caught.value)


def test_plug_in_that_is_not_installed(data, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bioio_czi", None)
    with pytest.raises(errors.MissingDependencyError, match=r'pip install "cellcube\[czi\]"'):
        open_image(ImageSource(str(data / "broken/truncated.czi")))


def test_no_file_no_permission_folder(tmp_path, data):
    for name in ("a.tif", "a.nd2", "a.ome.zarr", "a.png", "a"):
        with pytest.raises(errors.ImageNotFoundError, match=name):
            open_image(ImageSource(str(tmp_path / name)))
    for name in ("a.tif", "a.ome.zarr"):
        (tmp_path / name).mkdir()
        with pytest.raises(errors.NotAnImageError, match="folder"):
            open_image(ImageSource(str(tmp_path / name)))
    secret = tmp_path / "secret.tif"
    shutil.copy(data / "two_channel_tiny/dna.tif", secret)
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(errors.ImageAccessError):
        open_image(ImageSource(str(secret)))


def test_refused_permission(data, monkeypatch):
    """As above, for users who may read everything."""
    monkeypatch.setattr("cellcube.images.files.os.access", lambda *_: False)
    with pytest.raises(errors.ImageAccessError, match="may not be read"):
        open_image(ImageSource(str(data / "two_channel_tiny/dna.tif")))


def variants(folder: Path) -> list[tuple[Path, str]]:
    """Small TIFF files of several planes, as different writers store them."""
    pixels = np.random.default_rng(1).integers(1, 60000, (3, 40, 41), np.uint16)
    made: list[tuple[Path, str]] = []
    for name, axes, options in [
        ("imagej", "", {"imagej": True, "metadata": {"axes": "CYX"}}),
        ("ome", "", {"ome": True, "metadata": {"axes": "CYX"}}),
        ("ome_deflate", "", {"ome": True, "metadata": {"axes": "CYX"}, "compression": "zlib"}),
        ("plain", "CYX", {"metadata": None}),
        ("shaped", "", {"metadata": {"axes": "CYX"}}),
        ("lzw_strips", "CYX", {"metadata": None, "compression": "lzw", "rowsperstrip": 7}),
        ("tiles", "CYX", {"metadata": None, "compression": "zlib", "tile": (16, 16)}),
        ("big_endian", "CYX", {"metadata": None, "byteorder": ">"}),
        ("bigtiff", "CYX", {"metadata": None, "bigtiff": True}),
        ("rgb", "", {"photometric": "rgb", "planarconfig": "separate"}),
    ]:
        path = folder / f"{name}{'.ome' if 'ome' in name else ''}.tif"
        tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
        made.append((path, axes))
    # Pages after their pixels, as cameras write them that do not know how many come.
    with tifffile.TiffWriter(folder / "appended.tif") as writer:
        for plane in pixels:
            writer.write(plane, metadata=None, contiguous=False)
    return [*made, (folder / "appended.tif", "CYX")]


def test_truncation_at_any_byte_is_an_error_or_harmless(tmp_path):
    """Cut anywhere, a file either reads as the whole one does or is refused; it never loses or makes up pixels."""
    for path, axes in variants(tmp_path):
        whole = read_all(path, axes=axes or None)
        assert whole.shape == (3, 1, 40, 41)
        data = path.read_bytes()
        rng = np.random.default_rng(0)
        cuts = {*rng.integers(0, len(data), 40).tolist(), 1, 7, 8, len(data) - 1, len(data) // 2}
        for cut in sorted(cuts):
            short = tmp_path / f"cut_{path.name}"
            short.write_bytes(data[:cut])
            try:
                pixels = read_all(short, axes=axes or None)
            except errors.ImageError as error:
                assert short.name in str(error)  # noqa: PT017
            else:
                assert np.array_equal(pixels, whole), f"{path.name} cut at {cut} of {len(data)} gave other pixels"


def test_empty_strip(tmp_path):
    """A strip of length 0 would be filled up with zeros."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((40, 40), np.uint8), compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags["StripByteCounts"]
        tag.overwrite((0, *tag.value[1:]))
    with pytest.raises(errors.TruncatedImageError, match="strip or tile"):
        read_all(path)


def test_damaged_strip(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 99, (2, 64, 64), np.uint16), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[1].dataoffsets[0], tif.pages[1].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset + 4 : offset + count] = bytes(count - 4)
    path.write_bytes(content)
    with open_image(ImageSource(str(path), axes="CYX")) as fov:
        fov.read(0, EVERYTHING)
        with pytest.raises(errors.TruncatedImageError, match=r"Plane .*=1 cannot be read: it does not decode"):
            fov.read(1, EVERYTHING)


def write_set(folder: Path, count: int = 4) -> np.ndarray:
    """An OME-TIFF set of one file a plane; every file has the metadata of all."""
    pixels = np.arange(count * 20 * 30, dtype=np.uint16).reshape(count, 20, 30)
    uuids = [f"urn:uuid:00000000-0000-0000-0000-{i:012d}" for i in range(count)]
    planes = "".join(
        f'<TiffData FirstZ="{i}" IFD="0" PlaneCount="1"><UUID FileName="z{i}.ome.tif">{uuid}</UUID></TiffData>'
        for i, uuid in enumerate(uuids)
    )
    for i, uuid in enumerate(uuids):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">'
            f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="30" SizeY="20" '
            f'SizeZ="{count}" SizeC="1" SizeT="1" PhysicalSizeX="200" PhysicalSizeXUnit="nm">'
            f'<Channel ID="Channel:0:0" Name="DNA"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / f"z{i}.ome.tif", pixels[i], description=xml, metadata=None)
    return pixels


def test_multi_file_set(tmp_path):
    pixels = write_set(tmp_path)
    for name in ("z0.ome.tif", "z2.ome.tif"):
        assert np.array_equal(read_all(tmp_path / name), pixels[None])
    with open_image(ImageSource(str(tmp_path / "z0.ome.tif"))) as fov:
        assert fov.channel_names == ("DNA",)
        assert fov.voxel_size.x == pytest.approx(0.2)
    (tmp_path / "z2.ome.tif").unlink()
    with pytest.raises(errors.TruncatedImageError, match=r"missing: z2\.ome\.tif.*Z=2"):
        open_image(ImageSource(str(tmp_path / "z0.ome.tif")))


def test_ome_metadata_that_promise_too_much(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ones((3, 20, 30), np.uint8), ome=True, metadata={"axes": "ZYX"})
    path.write_bytes(
        path.read_bytes().replace(b'SizeZ="3"', b'SizeZ="5"').replace(b'PlaneCount="3"', b'PlaneCount="5"')
    )
    with pytest.raises(errors.TruncatedImageError):
        open_image(ImageSource(str(path)))


@pytest.mark.parametrize("reader", ["auto", "bioio"])
@pytest.mark.parametrize("version", ["04", "05"])
def test_missing_chunk(data, tmp_path, reader, version):
    path = tmp_path / "crop.ome.zarr"
    shutil.copytree(data / f"formats/pediatric_crop_v{version}.ome.zarr", path)
    key = {"04": "s0/1/0/1", "05": "s0/c/1/0/1"}[version]
    (path / key).unlink()
    with open_image(ImageSource(str(path)), reader) as fov:
        fov.read(0, EVERYTHING)
        fov.read(1, (slice(0, 1), slice(0, 448), slice(0, 256)))
        with pytest.raises(errors.TruncatedImageError, match=key):
            fov.read(1, EVERYTHING)
        with pytest.raises(errors.TruncatedImageError, match=key):
            fov.read(1, (slice(0, 1), slice(255, 256), slice(511, 512)))
    with open_image(ImageSource(str(path)), OmeZarrReader(sparse=True)) as fov:
        assert not fov.read(1, (slice(0, 1), slice(0, 256), slice(256, 512))).any()
    for part in (path / "labels/cells").rglob("s0/**/0"):
        if part.is_file():
            part.unlink()
    assert not read_all(path / "labels/cells", reader).any()


def test_missing_shard_and_stored_zeros(tmp_path):
    """A chunk of zeros that is stored is no missing one."""
    group = zarr.create_group(tmp_path / "a.zarr")
    array = group.create_array(
        "0", shape=(2, 64, 64), chunks=(1, 16, 16), shards=(1, 32, 32), dtype="f4", fill_value=np.nan
    )
    array[:] = 0
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    assert not read_all(tmp_path / "a.zarr").any()
    (tmp_path / "a.zarr/0/c/1/1/0").unlink()
    with pytest.raises(errors.TruncatedImageError, match="0/c/1/1/0"):
        read_all(tmp_path / "a.zarr")


def test_damaged_chunk(data, tmp_path):
    path = tmp_path / "crop.ome.zarr"
    shutil.copytree(data / "formats/pediatric_crop_v05.ome.zarr", path)
    chunk = path / "s0/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:1000])
    for reader in ("auto", "bioio"):
        with pytest.raises(errors.TruncatedImageError, match=r"chunks|pixels"):
            read_all(path, reader)


def test_header_only(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8))
    with pytest.raises(errors.TruncatedImageError):
        open_image(ImageSource(str(path)))
