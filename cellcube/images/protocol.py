"""What an image is to the rest of cellcube: one scene at one timepoint, seen as (c, z, y, x)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class ImageSource:
    """Where an image is and which part of it is meant.

    Parameters
    ----------
    path : str
        A local path or any fsspec URL.
    scene : int or str, optional
        Index or name of the scene. None means the only one; a file of several scenes then is an error.
    timepoint : int, optional
        Index along time. None means the only one; a file of several timepoints then is an error.
    axes : str, optional
        What the axes of the stored array are, such as ``"CYX"``, where the file tells none or false ones.
    storage_options : mapping
        Passed to fsspec for remote URLs.
    """

    path: str
    scene: int | str | None = None
    timepoint: int | None = None
    axes: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)


@dataclass(frozen=True)
class VoxelSize:
    """Edge lengths of a voxel in µm along z, y and x, as a file tells them; None where it tells nothing."""

    z: float | None = None
    y: float | None = None
    x: float | None = None


@runtime_checkable
class FovReader(Protocol):
    """One open image: one scene at one timepoint.

    An implementation is made by a factory ``(ImageSource) -> FovReader``, which raises an
    `cellcube.errors.ImageError` that names the path where the image cannot be used. `cellcube.testing` has the
    contract test that every implementation must pass.

    A reader whose images are stored in tiles may have `tile`, their size (y, x): then only the tiles are asked for that
    cells reach into, each by a `read` of its own, in several threads.
    """

    @property
    def axes(self) -> str:
        """Axes of the stored array as the reader understands them, such as ``"TCZYX"``."""
        ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes (c, z, y, x); an axis that the file lacks has size 1."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels, in native byte order."""
        ...

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """One name a channel, or None where the file tells none."""
        ...

    @property
    def voxel_size(self) -> VoxelSize:
        """Voxel size in µm as the file tells it, unchecked."""
        ...

    def read(self, channel: int, region: Region) -> Pixels:
        """Pixels of one channel in a region of (z, y, x) slices with bounds inside the image.

        Returns
        -------
        ndarray, shape (z, y, x)
            In `dtype`. May be a read-only view.

        Raises
        ------
        cellcube.errors.TruncatedImageError
            Where pixels are missing or do not decode. Never returns made-up pixels.
        """
        ...

    def close(self) -> None:
        """Release files. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


ReaderFactory = Callable[[ImageSource], FovReader]


class Closing:
    """Closes itself at the end of a ``with`` block."""

    def close(self) -> None:
        """Release files. May be called twice."""
        raise AttributeError("a class that closes itself must say how")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
