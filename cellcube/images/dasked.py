"""What bioio's and aicsimageio's readers have in common: lazy dask arrays with named dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from cellcube.errors import NotAnImageError, TruncatedImageError
from cellcube.images.array import ArrayFov
from cellcube.images.axes import match_voxel_size, settle_axes
from cellcube.images.files import image_errors
from cellcube.images.protocol import FovReader, ImageSource, Pixels, VoxelSize
from cellcube.images.scenes import pick_scene

# The names that readers make up where the file tells none.
_MADE_UP = re.compile(r"Channel:\d+(:\d+)?|channel_\d+", re.IGNORECASE)

Check = Callable[[tuple[int | slice, ...], Pixels], None]


class DaskPixels:
    """A dask array that is computed when it is sliced.

    Parameters
    ----------
    array : dask.array.Array
    path : str
        Named in errors.
    check : callable, optional
        Called with index and pixels after every slicing; raises where the pixels cannot be believed.
    """

    def __init__(self, array: Any, path: str, check: Check | None = None) -> None:
        self._array = array
        self._path = path
        self._check = check
        self.shape: tuple[int, ...] = tuple(int(size) for size in array.shape)
        self.dtype: Any = array.dtype

    def __getitem__(self, index: Any) -> Pixels:
        with image_errors(self._path, TruncatedImageError, "has pixels that cannot be read"):
            # In the caller's thread: what runs in parallel is decided elsewhere, maybe on a dask cluster.
            block: Pixels = np.asarray(self._array[index].compute(scheduler="synchronous"))
        if self._check is not None:
            self._check(index, block)
        return block


def dask_fov(
    image: Any,
    source: ImageSource,
    *,
    voxel_size: VoxelSize | None = None,
    check: Check | None = None,
    on_close: Callable[[], None] | None = None,
) -> FovReader:
    """One scene of an opened bioio or aicsimageio reader as a `FovReader`.

    Parameters
    ----------
    image : bioio_base.reader.Reader or aicsimageio.readers.reader.Reader
        Has `scenes`, `set_scene`, `xarray_dask_data`, `channel_names` and `physical_pixel_sizes`.
    source : ImageSource
    voxel_size : VoxelSize, optional
        What to take instead of the reader's own.
    check : callable, optional
        See `DaskPixels`.
    on_close : callable, optional
        See `ArrayFov`.
    """
    path = source.path
    with image_errors(path, NotAnImageError, "has scenes that cannot be read"):
        names = [str(name) for name in image.scenes]
    number = pick_scene(source.scene, names, path=path)
    with image_errors(path, TruncatedImageError, "has metadata that cannot be read"):
        image.set_scene(number)
        data = image.xarray_dask_data
        if "M" in data.dims:  # tiles of a mosaic: the image is what they make together
            data = image.mosaic_xarray_dask_data
        sizes, channels = image.physical_pixel_sizes, image.channel_names
    told = "".join(str(name).upper() if len(str(name)) == 1 else "?" for name in data.dims)
    letters = settle_axes(told, data.shape, source.axes, path=path)
    if voxel_size is None:
        # Some readers make up a z size for images without a z axis.
        voxel_size = VoxelSize(z=sizes.Z if "Z" in told else None, y=sizes.Y, x=sizes.X)
    if channels is not None and all(_MADE_UP.fullmatch(str(name)) for name in channels):
        channels = None
    return ArrayFov(
        DaskPixels(data.data, path, check),
        letters,
        channel_names=channels,
        voxel_size=match_voxel_size(voxel_size, told, letters),
        timepoint=source.timepoint,
        path=path,
        on_close=on_close,
    )
