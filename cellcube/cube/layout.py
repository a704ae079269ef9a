"""What of a cube is fixed at its creation: channels, sizes, types, chunks, shards."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cellcube.functions import UserFunction
from cellcube.pixels import projection_axes, projection_dtype, projection_shape
from cellcube.spec import CubeSpec, is_projection, plain

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
        As in `cellcube.spec.Storage`, and so are `level` and `shuffle`.
    representation : str
        Which pixels these are: ``cells``, another representation, or nothing for masks.
    projection : str
        How they were projected; nothing for volumes.
    level : int
    shuffle : str
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
    representation: str = ""
    projection: str = ""
    level: int = 1
    shuffle: str = "bitshuffle"

    @property
    def group(self) -> str:
        """Path of the group that the array is in; nothing for the root."""
        return self.path.rpartition("/")[0]

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
class Representation:
    """What is stored of each crop in one way.

    Parameters
    ----------
    dtype : str
    projections : tuple of str
        Names; those that no rule of `cellcube.pixels.project` knows are functions of the user's own.
    normalization : tuple of dict
        The normalizer of each channel as plain values.
    soft_mask : bool
        Whether pixels were multiplied with weights between 0 and 1.
    """

    dtype: str
    projections: tuple[str, ...]
    normalization: tuple[Mapping[str, Any], ...]
    soft_mask: bool = False

    @property
    def keeps_raw(self) -> bool:
        """Whether crops keep the image's own pixel values."""
        return any(each.get("method") == "none" for each in self.normalization)


@dataclass(frozen=True)
class Layout:
    """What of a cube never changes after its first commit.

    Parameters
    ----------
    channels : tuple of str
    shape : tuple of int
        Size (z, y, x) of a crop.
    representations : dict
        ``cells`` first, then the others by name.
    masks : tuple of str
        Names of the masks: ``mask`` and ``mask_<label image>``; none where cells are not given by labels.
    interpolated : bool
        Whether crops are resampled, so that their geometry has a scale and a rotation.
    has_split : bool
        Whether cells have a coordinate ``split``.
    cell_axis : str
    chunk_cells, shard_cells : int
    codec : str
    metadata : dict
        Type of each coordinate that comes from the cell table, by name: ``bool``, ``int64``, ``float64``, ``string``.
    level : int
    shuffle : str
        As in `cellcube.spec.Storage`.
    channel_measures : bool
        Whether intensities and focus of every channel are measured.
    """

    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    representations: Mapping[str, Representation]
    masks: tuple[str, ...]
    interpolated: bool
    has_split: bool
    cell_axis: str
    chunk_cells: int
    shard_cells: int
    codec: str
    metadata: Mapping[str, str]
    level: int = 1
    shuffle: str = "bitshuffle"
    channel_measures: bool = True

    @classmethod
    def of(
        cls,
        spec: CubeSpec,
        channels: tuple[str, ...],
        dtypes: Mapping[str, str],
        has_labels: bool,
        metadata: Mapping[str, str],
    ) -> Layout:
        """The layout of a new cube.

        Parameters
        ----------
        spec : CubeSpec
            With a shape that is known.
        channels : tuple of str
        dtypes : mapping
            Of each representation.
        has_labels : bool
        metadata : mapping
        """
        assert spec.shape != "auto", "the shape was fitted"
        cell_bytes = len(channels) * math.prod(spec.shape) * np.dtype(dtypes["cells"]).itemsize
        chunk_cells = spec.storage.chunk_cells
        chunks = max(1, round(spec.storage.shard_mb * 1e6 / (cell_bytes * chunk_cells)))
        masks = ("mask", *(f"mask_{name}" for name in spec.label_images)) if has_labels else ()
        return cls(
            channels=channels,
            shape=spec.shape,
            representations={
                name: Representation(
                    dtypes[name],
                    pipeline.projection_names(),
                    tuple(plain(each) for each in pipeline.normalizers(channels)),
                    any(isinstance(each, UserFunction) or each.method == "soft" for each in pipeline.masks(channels)),
                )
                for name, pipeline in spec.pipelines().items()
            },
            masks=masks,
            interpolated=spec.interpolates,
            has_split=spec.split is not None,
            cell_axis=spec.cell_axis,
            chunk_cells=chunk_cells,
            shard_cells=chunks * chunk_cells,
            codec=spec.storage.codec,
            metadata=dict(metadata),
            level=spec.storage.level,
            shuffle=spec.storage.shuffle,
            channel_measures=spec.channel_measures,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Layout:
        """The inverse of `to_dict`."""
        values = dict(fields)
        for name in ("channels", "shape", "masks"):
            values[name] = tuple(values[name])
        values["representations"] = {
            name: Representation(
                each["dtype"], tuple(each["projections"]), tuple(each["normalization"]), each["soft_mask"]
            )
            for name, each in values["representations"].items()
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; those that have a default only where they are not."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        unused = [
            name for name in ("level", "shuffle", "channel_measures") if values[name] == getattr(type(self), name)
        ]
        return {name: value for name, value in values.items() if name not in unused}

    @property
    def dtype(self) -> str:
        """Type of the main crops."""
        return self.representations["cells"].dtype

    @property
    def projections(self) -> tuple[str, ...]:
        """Projections of the main crops."""
        return self.representations["cells"].projections

    @property
    def has_masks(self) -> bool:
        """Whether label masks are stored."""
        return bool(self.masks)

    def arrays(self) -> dict[str, ArrayLayout]:
        """All arrays of pixels by name: ``cells``, other representations, projections, masks."""
        count = len(self.channels)
        found = {}
        for representation, each in self.representations.items():
            main = representation == "cells"
            path = "cells" if main else f"{representation}/{representation}"
            axes: tuple[str, ...] = ("c", "z", "y", "x")
            found[representation] = self._array(
                representation, path, axes, (count, *self.shape), each.dtype, representation, ""
            )
            for projection in each.projections:
                name = projection if main else f"{representation}_{projection}"
                if is_projection(projection):
                    axes = ("c", *projection_axes(projection))
                    dtype = projection_dtype(projection, np.dtype(each.dtype)).name
                    item = (count, *projection_shape(projection, self.shape))
                else:
                    axes, dtype, item = ("c", "y", "x"), each.dtype, (count, *self.shape[1:])
                found[name] = self._array(name, f"{name}/{name}", axes, item, dtype, representation, projection)
        for name in self.masks:
            found[name] = self._array(name, f"labels/{name}/{name}", ("z", "y", "x"), self.shape, "uint8", "", "")
        return found

    def _array(
        self, name: str, path: str, axes: tuple[str, ...], item: Item, dtype: str, representation: str, projection: str
    ) -> ArrayLayout:
        chunk = item
        if axes[0] == "c" and math.prod(item[1:]) * np.dtype(dtype).itemsize >= CHANNEL_CHUNK_BYTES:
            chunk = (1, *item[1:])
        return ArrayLayout(
            name,
            path,
            (self.cell_axis, *axes),
            item,
            chunk,
            dtype,
            self.chunk_cells,
            self.shard_cells,
            self.codec,
            representation,
            projection,
            self.level,
            self.shuffle,
        )
