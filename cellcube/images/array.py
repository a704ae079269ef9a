"""Any array that slices like numpy, seen as one field of view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from cellcube.errors import ArgumentError
from cellcube.images.axes import LEFT_OUT, Layout, check_axes, match_channel_names, native
from cellcube.images.protocol import Closing, Pixels, Region, VoxelSize


class Sliceable(Protocol):
    """What `ArrayFov` needs of an array: basic indexing by a tuple of one int or slice for every axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of every axis."""
        ...

    @property
    def dtype(self) -> Any:
        """Data type, in any byte order."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """The pixels of a block; integers drop their axis."""
        ...


class ArrayFov(Closing):
    """A `FovReader` over an array, which is sliced only when `read` is called.

    Parameters
    ----------
    array : array
        numpy, or anything with `shape`, `dtype` and numpy slicing. Never written to.
    axes : str
        One letter of ``TCZYXS`` for every axis, in any order; axes of size 1 may be left out. Colour samples (S) become
        channels: with C and S, channel number ``c * samples + s``.
    channel_names : sequence of str, optional
        One a channel; ignored where the number does not fit.
    voxel_size : VoxelSize
        In µm.
    timepoint : int, optional
        Index along T. None means the only one.
    path : str
        Named in errors.
    on_close : callable, optional
        Called once by `close`.

    Raises
    ------
    cellcube.errors.AxesError, cellcube.errors.SceneError
        Where the axes do not fit the array, or there is no such timepoint.
    """

    def __init__(
        self,
        array: Sliceable,
        axes: str,
        *,
        channel_names: Sequence[str] | None = None,
        voxel_size: VoxelSize = VoxelSize(),  # noqa: B008 - frozen
        timepoint: int | None = None,
        path: str = "",
        on_close: Callable[[], None] | None = None,
    ) -> None:
        shape = tuple(int(size) for size in array.shape)
        # Readers mark axes without meaning; what a caller gives is checked in full.
        letters = axes if LEFT_OUT in axes else check_axes(axes, shape, path=path)
        self._layout = Layout.of(letters, shape, timepoint, path)
        self._array = array
        self._names = match_channel_names(channel_names, self._layout.size("C"), self._layout.size("S"))
        self._voxel_size = voxel_size
        self._on_close = on_close
        self._closed = False

    @property
    def axes(self) -> str:
        """Axes of the stored array."""
        return self._layout.axes

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes (c, z, y, x)."""
        return self._layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels, in native byte order."""
        return native(self._array.dtype)

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """One name a channel, or None."""
        return self._names

    @property
    def voxel_size(self) -> VoxelSize:
        """Voxel size in µm."""
        return self._voxel_size

    @property
    def tile(self) -> tuple[int, int] | None:
        """Size (y, x) of the chunks that the array is read by; None where it tells none."""
        chunks = getattr(self._array, "chunks", None)
        letters = self._layout.letters
        if not chunks or "Y" not in letters or "X" not in letters:
            return None
        y, x = chunks[letters.index("Y")], chunks[letters.index("X")]
        # Those of dask arrays may be of any sizes.
        return (y, x) if isinstance(y, int) and isinstance(x, int) else None

    def read(self, channel: int, region: Region) -> Pixels:
        """Pixels (z, y, x) of one channel in a region of (z, y, x) slices.

        Raises
        ------
        cellcube.errors.ChannelError, cellcube.errors.ArgumentError
            Where the channel or the region is outside the image, or it is closed.
        """
        if self._closed:
            raise ArgumentError("The image was closed before it was read.", path=self._layout.path)
        index = self._layout.index(channel, region)
        block = np.asarray(self._array[index])
        return self._layout.arrange(block, region).astype(self.dtype, copy=False)

    def close(self) -> None:
        """Release what is behind the array. May be called twice."""
        self._closed = True
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()
