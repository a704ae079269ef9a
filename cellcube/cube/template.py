"""The metadata of a cube: every ``zarr.json`` of the store, made in memory by zarr, written in one order.

The document of the root holds the consolidated metadata of all others. Replacing it is the commit.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellcube.colors import channel_color
from cellcube.cube.layout import ArrayLayout, Layout
from cellcube.pixels import stored_scale

# Rows of a coordinate in one object, about: a build rewrites at most one that was there before.
COORDINATE_ROWS = 65_536
# Where shards of pixels are small, an object holds fewer rows: its index would be larger than they are.
COORDINATE_CHUNKS = 64

# Along cells: name -> type, in every cube.
_ALWAYS = {
    "cell_id": "string",
    "fov_id": "string",
    "label": "int64",
    "run": "int64",
    "retracted": "int64",
    "origin_z": "int64",
    "origin_y": "int64",
    "origin_x": "int64",
    "voxel_size_z": "float64",
    "voxel_size_y": "float64",
    "voxel_size_x": "float64",
}
# Where crops are resampled, their first voxel may lie between those of the field, and more is needed to map them.
_INTERPOLATED = {
    "origin_z": "float64",
    "origin_y": "float64",
    "origin_x": "float64",
    "scale_z": "float64",
    "scale_y": "float64",
    "scale_x": "float64",
    "rotation": "float64",
    "flip_y": "bool",
    "flip_x": "bool",
}
# Along cells and channels, of each representation.
CHANNEL_COORDINATES = ("norm_low", "norm_high", "clipped")

_ABOUT = {
    "cell_id": "Identifier of the cell",
    "fov_id": "Identifier of the field of view",
    "label": "Value of the cell in its label image; 0 where it was given by a box or a centre",
    "run": "Build that added the cell: runs/<run>.json",
    "retracted": "Version that retracted the cell; 0 where it is in the dataset",
    "norm_low": "Intensity that is stored as 0: pixel = norm_low + stored / scale * (norm_high - norm_low)",
    "norm_high": "Intensity that is stored as scale: 1 for floats, the highest value of the type for integers",
    "clipped": "Share of the crop's pixels that lay outside norm_low..norm_high and were clipped",
    "split": "Part of the data, for training and testing",
    "rotation": "Degrees from the FOV's x axis to the crop's, towards y",
    "flip_y": "Whether the crop is mirrored along y",
    "flip_x": "Whether the crop is mirrored along x",
    "cells": "Crops of single cells",
    "mask": "1 within the cell's label, 0 elsewhere",
    "c": "Channel name",
}
for _axis in "zyx":
    _ABOUT[f"origin_{_axis}"] = f"FOV voxel of the crop's first voxel along {_axis}"
    _ABOUT[f"scale_{_axis}"] = f"FOV voxels that one voxel of the crop spans along its {_axis}"
    _ABOUT[f"voxel_size_{_axis}"] = f"Voxel size of the crop along {_axis}, NaN where unknown"

Documents = dict[str, bytes]


def cell_coordinates(layout: Layout) -> dict[str, str]:
    """Type of each coordinate along cells, by name: those of cellcube, then those of the cell table."""
    own = {
        **_ALWAYS,
        **(_INTERPOLATED if layout.interpolated else {}),
        **({"split": "string"} if layout.has_split else {}),
    }
    return {**own, **layout.metadata}


def channel_coordinates(layout: Layout) -> dict[str, str]:
    """Coordinates along cells and channels: column of the rows -> path in the store."""
    found = {name: name for name in CHANNEL_COORDINATES}
    for representation in layout.representations:
        if representation != "cells":
            found.update({f"{name}_{representation}": f"{representation}/{name}" for name in CHANNEL_COORDINATES})
    return found


def metadata_documents(
    layout: Layout,
    count: int,
    attributes: Mapping[str, Any],
    name: str,
    voxel_size: tuple[float, float, float] | None,
    windows: Mapping[str, Sequence[tuple[float, float]]],
) -> Documents:
    """Every ``zarr.json`` of a cube of `count` cells, by path, the root's last.

    Parameters
    ----------
    layout : Layout
    count : int
        Cells.
    attributes : mapping
        What goes under ``cellcube`` in the root's attributes.
    name : str
        Of the image.
    voxel_size : tuple of float, optional
        (z, y, x) in µm of all cells; NaN along axes where it is unknown; None where cells differ.
    windows : mapping
        Display window (low, high) of each channel in stored values, by representation.
    """
    import zarr
    from zarr.storage import MemoryStore

    documents: dict[str, Any] = {}
    store = MemoryStore(documents)
    cell = layout.cell_axis
    arrays = layout.arrays()
    along_cells = cell_coordinates(layout)
    root = zarr.create_group(
        store,
        attributes={
            "ome": _image(arrays["cells"], layout, name, voxel_size, windows["cells"]),
            "cellcube": dict(attributes),
        },
    )
    _pixels(root, arrays["cells"], layout, count)
    _coordinate(root, "c", "string", (len(layout.channels),), ("c",), layout)
    for coordinate, kind in along_cells.items():
        _coordinate(root, coordinate, kind, (count,), (cell,), layout)
    for coordinate in CHANNEL_COORDINATES:
        _coordinate(root, coordinate, "float64", (count, len(layout.channels)), (cell, "c"), layout)
    if layout.masks:
        root.create_group("labels", attributes={"ome": _labels_group(layout.masks)})
    for array in arrays.values():
        if not array.group:
            continue
        title = f"{name} {array.name}"
        if array.representation:
            ome = _image(array, layout, title, voxel_size, windows[array.representation])
        else:
            ome = _mask(array, layout, title, voxel_size)
        group = root.create_group(array.group, attributes={"ome": ome})
        _pixels(group, array, layout, count)
        _coordinate(group, "cell_id", "string", (count,), (cell,), layout)
        if array.representation:
            _coordinate(group, "c", "string", (len(layout.channels),), ("c",), layout)
        if array.representation == array.name:
            for coordinate in CHANNEL_COORDINATES:
                _coordinate(group, coordinate, "float64", (count, len(layout.channels)), (cell, "c"), layout)
    with warnings.catch_warnings():
        # Consolidated metadata is the commit, and every reader named in the documentation knows it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store)
    plain = {path: _compact(value.to_bytes()) for path, value in documents.items() if path.endswith("zarr.json")}
    return {path: plain[path] for path in sorted(plain, key=lambda path: (path == "zarr.json", path))}


def coordinate_rows(layout: Layout) -> int:
    """Rows of a coordinate along cells in one object: whole shards of pixels."""
    return layout.shard_cells * min(max(1, COORDINATE_ROWS // layout.shard_cells), COORDINATE_CHUNKS)


def _compact(document: bytes) -> bytes:
    """JSON without the blanks, which are half of it."""
    return json.dumps(json.loads(document), separators=(",", ":"), ensure_ascii=False).encode()


def _pixels(group: Any, array: ArrayLayout, layout: Layout, count: int) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    itemsize = np.dtype(array.dtype).itemsize
    compressors: list[Any] = []
    if array.codec.startswith("blosc-"):
        cname: Any = array.codec.removeprefix("blosc-")
        shuffle: Any = array.shuffle
        compressors = [BloscCodec(cname=cname, clevel=array.level, shuffle=shuffle, typesize=itemsize, blocksize=0)]
    elif array.codec == "zstd":
        compressors = [ZstdCodec(level=array.level)]
    about = f"{array.name.replace('_', ' ')} of the crops"
    attributes: dict[str, Any] = {"long_name": _ABOUT.get(array.name, about)}
    if array.representation:
        representation = layout.representations[array.representation]
        attributes["representation"] = array.representation
        attributes["normalization"] = [
            {"channel": channel, **each}
            for channel, each in zip(layout.channels, representation.normalization, strict=True)
        ]
        attributes["soft_mask"] = representation.soft_mask
    if array.projection:
        attributes["projection"] = array.projection
    group.create_array(
        array.name,
        shape=(count, *array.item),
        chunks=(array.chunk_cells, *array.chunk),
        shards=(array.shard_cells, *array.item),
        dtype=array.dtype,
        compressors=[*compressors, Crc32cCodec()],
        dimension_names=array.axes,
        fill_value=0,
        attributes=attributes,
    )


def _coordinate(
    group: Any, name: str, kind: str, shape: tuple[int, ...], axes: tuple[str, ...], layout: Layout
) -> None:
    from zarr.codecs import ZstdCodec

    attributes = {"long_name": _ABOUT[name]} if name in _ABOUT else {}
    if name.startswith("voxel_size"):
        attributes["units"] = "micrometer"
    group.create_array(
        name,
        shape=shape,
        # Chunks are as long as the shards of pixels: dask divides all variables of a dataset alike.
        chunks=(shape[0],) if axes[0] == "c" else (layout.shard_cells, *shape[1:]),
        shards=None if axes[0] == "c" else (coordinate_rows(layout), *shape[1:]),
        dtype=np.dtypes.StringDType() if kind == "string" else kind,
        compressors=[ZstdCodec(level=3)],
        dimension_names=axes,
        fill_value={"string": "", "bool": False, "float64": float("nan")}.get(kind, 0),
        attributes=attributes,
    )


def _multiscale(
    array: ArrayLayout, layout: Layout, name: str, voxel_size: tuple[float, float, float] | None
) -> list[Any]:
    from yaozarrs import v05

    sizes = dict(zip("zyx", voxel_size or (math.nan,) * 3, strict=True))
    axes: list[Any] = []
    scale = []
    for axis in array.axes:
        if axis == layout.cell_axis:
            # The only type of a fifth axis that OME-Zarr allows beside a channel axis.
            axes.append(v05.TimeAxis(name=axis))
        elif axis == "c":
            axes.append(v05.ChannelAxis(name="c"))
        else:
            known = math.isfinite(sizes[axis])
            axes.append(v05.SpaceAxis(name=axis, unit="micrometer" if known else None))
            scale.append(sizes[axis] if known else 1.0)
    scale = [1.0] * (len(axes) - len(scale)) + scale
    dataset = v05.Dataset(path=array.name, coordinateTransformations=[v05.ScaleTransformation(scale=scale)])
    return [v05.Multiscale(name=name, axes=axes, datasets=[dataset])]


def _image(
    array: ArrayLayout,
    layout: Layout,
    name: str,
    voxel_size: tuple[float, float, float] | None,
    windows: Sequence[tuple[float, float]],
) -> dict[str, Any]:
    from yaozarrs import v05

    highest = stored_scale(array.dtype)
    # Sums exceed what a crop can hold; there, the window of a crop would show white.
    kind, _, axis = array.projection.partition("_")
    factor = layout.shape["zyx".index(axis) if axis in tuple("zyx") else 0] if kind == "sum" else 1
    channels = [
        v05.OmeroChannel(
            label=channel,
            color=channel_color(channel, number),
            active=True,
            window=v05.OmeroWindow(
                min=min(0, start * factor), max=max(highest, end * factor), start=start * factor, end=end * factor
            ),
        )
        for number, (channel, (start, end)) in enumerate(zip(layout.channels, windows, strict=True))
    ]
    image = v05.Image(
        version="0.5",
        multiscales=_multiscale(array, layout, name, voxel_size),
        omero=v05.Omero(channels=channels, rdefs=v05.OmeroRenderingDefs(model="color", defaultT=0, defaultZ=0)),
    )
    return _plain(image)


def _labels_group(masks: Sequence[str]) -> dict[str, Any]:
    from yaozarrs import v05

    return _plain(v05.LabelsGroup(version="0.5", labels=list(masks)))


def _mask(
    array: ArrayLayout, layout: Layout, name: str, voxel_size: tuple[float, float, float] | None
) -> dict[str, Any]:
    from yaozarrs import v05

    image = v05.LabelImage.model_validate(
        {
            "version": "0.5",
            "multiscales": _multiscale(array, layout, name, voxel_size),
            "image-label": {
                "version": "0.5",
                "colors": [{"label-value": 1, "rgba": [255, 255, 0, 128]}],
                "source": {"image": "../../"},
            },
        }
    )
    plain = _plain(image)
    for color in plain["image-label"]["colors"]:
        # Readers insist on integers here.
        color["label-value"] = int(color["label-value"])
    return plain


def _plain(model: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
    return plain
