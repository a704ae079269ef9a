"""What of a cube is fixed at its creation: channels, sizes, types, chunks, shards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cellcube.pixels import projection_dtype, projection_shape
from cellcube.spec import CubeSpec

# A chunk holds all channels of a cell unless one channel alone has this many bytes.
CHANNEL_CHUNK_BYTES = 128 * 1024

Item = tuple[int, ...]


@dataclass(frozen=True)
class ArrayLayout:
    """One array of pixels along cells.

    Parameters
    ----------
    name : str
        Variable name.
    path : str
        Of the array inside the store.
    axes : tuple of str
        Dimension names, the cell axis first.
    item : tuple of int
        Shape of one cell, without the cell axis.
    chunk : tuple of int
        Shape of an inner chunk, without the cell axis.
    dtype : str
    chunk_cells, shard_cells : int
        Cells in an inner chunk and in a shard.
    codec : str
        As in `cellcube.spec.Storage`.
    """

    name: str
    path: str
    axes: tuple[str, ...]
    item: Item
    chunk: Item
    dtype: str
    chunk_cells: int
    shard_cells: int
    codec: str

    @property
    def chunks_per_row(self) -> int:
        """Inner chunks of one step along cells."""
        return math.prod(size // part for size, part in zip(self.item, self.chunk, strict=True))

    @property
    def cell_bytes(self) -> int:
        """Uncompressed bytes of one cell."""
        return math.prod(self.item) * np.dtype(self.dtype).itemsize

    def shard_key(self, number: int) -> str:
        """Path of a shard inside the store."""
        return f"{self.path}/c/{number}" + "/0" * len(self.item)


@dataclass(frozen=True)
class Layout:
    """What of a cube never changes after its first commit.

    Parameters
    ----------
    channels : tuple of str
    dtype : str
        Of the crops.
    shape : tuple of int
        Size (z, y, x) of a crop.
    projections : tuple of str
    has_masks : bool
        Whether label masks are stored.
    cell_axis : str
    chunk_cells, shard_cells : int
    codec : str
    metadata : dict
        Type of each coordinate that comes from the cell table, by name: ``bool``, ``int64``, ``float64``, ``string``.
    """

    channels: tuple[str, ...]
    dtype: str
    shape: tuple[int, int, int]
    projections: tuple[str, ...]
    has_masks: bool
    cell_axis: str
    chunk_cells: int
    shard_cells: int
    codec: str
    metadata: Mapping[str, str]

    @classmethod
    def of(
        cls, spec: CubeSpec, channels: tuple[str, ...], dtype: str, has_masks: bool, metadata: Mapping[str, str]
    ) -> Layout:
        """The layout of a new cube."""
        cell_bytes = len(channels) * math.prod(spec.shape) * np.dtype(dtype).itemsize
        chunk_cells = spec.storage.chunk_cells
        chunks = max(1, round(spec.storage.shard_mb * 1e6 / (cell_bytes * chunk_cells)))
        return cls(
            channels=channels,
            dtype=dtype,
            shape=spec.shape,
            projections=spec.projections,
            has_masks=has_masks,
            cell_axis=spec.cell_axis,
            chunk_cells=chunk_cells,
            shard_cells=chunks * chunk_cells,
            codec=spec.storage.codec,
            metadata=dict(metadata),
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Layout:
        """The inverse of `to_dict`."""
        values = dict(fields)
        for name in ("channels", "shape", "projections"):
            values[name] = tuple(values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def arrays(self) -> dict[str, ArrayLayout]:
        """All arrays of pixels by name: ``cells``, each projection, ``mask`` where masks are stored."""
        count = len(self.channels)
        found = {"cells": self._array("cells", "cells", ("c", "z", "y", "x"), (count, *self.shape), self.dtype)}
        for name in self.projections:
            axes = ("c", *(axis for axis in "zyx" if axis != name[-1]))
            dtype = projection_dtype(name, np.dtype(self.dtype)).name
            item = (count, *projection_shape(name, self.shape))
            found[name] = self._array(name, f"{name}/{name}", axes, item, dtype)
        if self.has_masks:
            found["mask"] = self._array("mask", "labels/mask/mask", ("z", "y", "x"), self.shape, "uint8")
        return found

    def _array(self, name: str, path: str, axes: tuple[str, ...], item: Item, dtype: str) -> ArrayLayout:
        chunk = item
        if axes[0] == "c" and math.prod(item[1:]) * np.dtype(dtype).itemsize >= CHANNEL_CHUNK_BYTES:
            chunk = (1, *item[1:])
        return ArrayLayout(
            name, path, (self.cell_axis, *axes), item, chunk, dtype, self.chunk_cells, self.shard_cells, self.codec
        )
