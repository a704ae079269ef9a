"""The contract that every image reader must pass, and a reader of arrays in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import CellcubeError, ImageNotFoundError
from cellcube.images import ArrayFov, FovReader, ImageSource, ReaderFactory, Region, VoxelSize

_EVERYTHING: Region = (slice(None), slice(None), slice(None))


def check_fov_reader(
    factory: ReaderFactory,
    source: ImageSource,
    expected: npt.NDArray[Any],
    *,
    channel_names: Sequence[str] | None = None,
    voxel_size: VoxelSize | None = None,
    regions: int = 20,
    seed: int = 0,
) -> None:
    """Check that a reader meets the contract of `cellcube.images.FovReader` on one image.

    Parameters
    ----------
    factory : callable
        ``(ImageSource) -> FovReader``.
    source : ImageSource
        An image that can be opened.
    expected : ndarray, shape (c, z, y, x)
        Its pixels, in native byte order.
    channel_names : sequence of str, optional
        Its channel names; None where it must tell none.
    voxel_size : VoxelSize, optional
        Its voxel size, compared to 0.1 %; None leaves it unchecked.
    regions : int
        How many random regions to read.
    seed : int
        Of the random regions.

    Raises
    ------
    AssertionError
        Says what is not met.
    """
    keep = expected.copy()
    with factory(source) as fov:
        assert isinstance(fov, FovReader), f"{type(fov).__name__} is not a FovReader"
        assert fov.shape == expected.shape, f"shape is {fov.shape}, not {expected.shape}"
        assert all(type(size) is int for size in fov.shape), "shape must be of plain ints"
        assert fov.dtype == expected.dtype, f"dtype is {fov.dtype}, not {expected.dtype}"
        assert fov.dtype.isnative, "dtype must be in native byte order"
        assert isinstance(fov.axes, str), "axes must be a str"
        assert {"Y", "X"} <= set(fov.axes), f"axes {fov.axes!r} lack Y or X"
        names = None if channel_names is None else tuple(channel_names)
        assert fov.channel_names == names, f"channel names are {fov.channel_names}, not {names}"
        assert names is None or all(type(name) is str for name in fov.channel_names or ()), "names must be plain str"
        if voxel_size is not None:
            _check_voxel_size(fov.voxel_size, voxel_size)
        _check_pixels(fov, expected, regions, np.random.default_rng(seed))
        _check_refusals(fov)
    fov.close()
    fov.close()
    assert np.array_equal(expected, keep), "reading changed the array that the pixels come from"
    with factory(source) as again:
        whole = tuple(slice(0, size) for size in expected.shape[1:])
        assert np.array_equal(again.read(0, (whole[0], whole[1], whole[2])), expected[0]), "a second opening differs"
    _check_missing(factory, source)


def _check_voxel_size(found: VoxelSize, expected: VoxelSize) -> None:
    for letter in "zyx":
        one, other = getattr(found, letter), getattr(expected, letter)
        close = one is other if one is None or other is None else bool(np.isclose(one, other, rtol=1e-3))
        assert close, f"voxel size {letter} is {one}, not {other}"


def _check_pixels(fov: FovReader, expected: npt.NDArray[Any], regions: int, rng: np.random.Generator) -> None:
    channels, sizes = expected.shape[0], expected.shape[1:]
    whole = tuple(slice(0, size) for size in sizes)
    todo: list[tuple[int, Region]] = [(c, (whole[0], whole[1], whole[2])) for c in range(channels)]
    for _ in range(regions):
        bounds = [np.sort(rng.choice(size + 1, 2, replace=False)) for size in sizes]
        z, y, x = (slice(int(start), int(stop)) for start, stop in bounds)
        todo.append((int(rng.integers(channels)), (z, y, x)))
    for channel, region in [*todo, *todo[:2]]:
        pixels = fov.read(channel, region)
        wanted = expected[(channel, *region)]
        assert isinstance(pixels, np.ndarray), f"read gave a {type(pixels).__name__}, not an array"
        assert pixels.shape == wanted.shape, f"read of {region} gave shape {pixels.shape}, not {wanted.shape}"
        assert pixels.dtype == fov.dtype, f"read gave {pixels.dtype}, not {fov.dtype}"
        assert pixels.dtype.isnative, "read gave pixels that are not in native byte order"
        assert np.array_equal(pixels, wanted), f"pixels of channel {channel} in {region} differ"


def _check_refusals(fov: FovReader) -> None:
    channels, z, y, x = fov.shape
    inside: Region = (slice(0, z), slice(0, y), slice(0, x))
    for channel, region in (
        (channels, inside),
        (-1, inside),
        (0, (slice(0, z + 1), slice(0, y), slice(0, x))),
        (0, (slice(0, z), slice(-1, y), slice(0, x))),
        (0, (slice(0, z), slice(0, y), slice(0, x + 1))),
    ):
        try:
            fov.read(channel, region)
        except CellcubeError:
            continue
        raise AssertionError(f"read of channel {channel} in {region}, outside {fov.shape}, was not refused")


def _check_missing(factory: ReaderFactory, source: ImageSource) -> None:
    stem, dot, suffix = source.path.rpartition(".")
    gone = dataclasses.replace(source, path=f"{stem}-is-not-there{dot}{suffix}")
    raised: Exception | None = None
    try:
        factory(gone)
    except Exception as error:
        raised = error
    assert isinstance(raised, ImageNotFoundError), f"a missing file gave {raised!r}, not ImageNotFoundError"
    assert gone.path in str(raised), f"the error does not name the path: {raised}"


def memory_reader(
    images: Mapping[str, npt.NDArray[Any]],
    *,
    axes: str | None = None,
    channel_names: Sequence[str] | None = None,
    voxel_size: VoxelSize = VoxelSize(),  # noqa: B008 - frozen
) -> ReaderFactory:
    """A reader whose files are arrays in memory.

    Parameters
    ----------
    images : mapping of str to ndarray
        By path.
    axes : str, optional
        Of all arrays; by default the last ones of TCZYX. The source's own `axes` come first.
    channel_names, voxel_size
        Of all arrays.
    """
    held = dict(images)

    def factory(source: ImageSource) -> FovReader:
        if source.path not in held:
            raise ImageNotFoundError("There is no such image in memory.", path=source.path)
        array = held[source.path]
        return ArrayFov(
            array,
            source.axes or axes or "TCZYX"[-array.ndim :],
            channel_names=channel_names,
            voxel_size=voxel_size,
            timepoint=source.timepoint,
            path=source.path,
        )

    return factory
