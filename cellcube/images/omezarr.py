"""OME-Zarr 0.1 to 0.5, local or remote, images and label images, read by zarr-python.

A chunk that is not stored reads as the fill value without an error. Where an image has nothing but the fill value in a
chunk, its object is therefore looked for: this costs nothing for chunks with a signal in them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cellcube.errors import ImageError, ImageNotFoundError, NotAnImageError, SceneError, TruncatedImageError
from cellcube.images.array import ArrayFov
from cellcube.images.axes import match_voxel_size, settle_axes
from cellcube.images.files import filesystem, image_errors
from cellcube.images.protocol import FovReader, ImageSource, Pixels, VoxelSize
from cellcube.images.scenes import pick_scene
from cellcube.images.voxels import in_micrometres
from cellcube.urls import is_remote, local_path

_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def is_zarr(path: str) -> bool:
    """Whether a path or URL is a Zarr store or inside one: by a name that ends in ``.zarr``, or by its files."""
    if any(part.lower().endswith(".zarr") for part in PurePosixPath(path.partition("?")[0]).parts):
        return True
    return not is_remote(path) and any((local_path(path) / mark).is_file() for mark in _MARKS)


@dataclass(frozen=True)
class OmeZarrReader:
    """A `ReaderFactory` for OME-Zarr.

    Parameters
    ----------
    sparse : bool
        Chunks that are not stored are taken as empty, as writers leave them out. By default only label images may lack
        chunks, and an image that does is refused.

    Examples
    --------
    >>> from cellcube.images import open_image, OmeZarrReader
    >>> open_image(source, reader=OmeZarrReader(sparse=True))  # doctest: +SKIP
    """

    sparse: bool = False

    def __call__(self, source: ImageSource) -> FovReader:
        """Open one image or label image; only metadata are read.

        Raises
        ------
        cellcube.errors.NotAnImageError, cellcube.errors.ImageNotFoundError, cellcube.errors.ImageAccessError
        cellcube.errors.AxesError, cellcube.errors.SceneError
        """
        found = open_level(source)
        letters = settle_axes(found.told, found.array.shape, source.axes, path=source.path)
        return ArrayFov(
            ZarrPixels(found, sparse=self.sparse),
            letters,
            channel_names=found.channel_names,
            voxel_size=match_voxel_size(found.voxel_size, found.told, letters),
            timepoint=source.timepoint,
            path=source.path,
        )


@dataclass(frozen=True)
class Level:
    """The full-resolution array of a multiscale image, with its metadata."""

    array: Any
    told: str
    channel_names: tuple[str, ...] | None
    voxel_size: VoxelSize
    is_label: bool
    source: ImageSource

    def exists(self, key: str) -> bool:
        """Whether an object below the array is stored."""
        inside = f"{self.array.path}/{key}".lstrip("/")
        if not is_remote(self.source.path):
            return (local_path(self.source.path) / inside).exists()
        fs, root = filesystem(self.source.path, self.source.storage_options)
        return bool(fs.exists(f"{root.rstrip('/')}/{inside}"))

    def check(self, index: tuple[int | slice, ...], block: Pixels) -> None:
        """Check that the pixels of an index are stored ones; does nothing for a label image.

        Raises
        ------
        cellcube.errors.TruncatedImageError
            Names the first chunk or shard that is not stored.
        """
        if self.is_label:
            return
        array = self.array
        fill = 0 if array.fill_value is None else array.fill_value
        spans: list[list[tuple[int, slice | None]]] = []  # for every axis: (chunk number, its part of the block)
        for part, size, chunk in zip(index, array.shape, array.shards or array.chunks, strict=True):
            if not isinstance(part, slice):
                spans.append([(int(part) // chunk, None)])
                continue
            start, stop, _ = part.indices(size)
            spans.append(
                [
                    (number, slice(max(number * chunk - start, 0), min((number + 1) * chunk, stop) - start))
                    for number in range(start // chunk, -(-stop // chunk) if stop > start else start // chunk)
                ]
            )
        for combination in itertools.product(*spans):
            pixels = block[tuple(part for _, part in combination if part is not None)]
            if np.any(pixels != fill) and not (fill != fill and np.all(np.isnan(pixels))):
                continue
            key = array.metadata.encode_chunk_key(tuple(number for number, _ in combination))
            with image_errors(self.source.path, ImageError, "could not be searched for its chunks"):
                stored = self.exists(key)
            if not stored:
                raise TruncatedImageError(
                    f"The chunk {f'{array.path}/{key}'.lstrip('/')!r} is not stored.",
                    path=self.source.path,
                    remedy="Where the writer left out empty chunks on purpose, use reader='omezarr-sparse'.",
                )


class ZarrPixels:
    """The array of a `Level`, sliced with a check for missing chunks."""

    def __init__(self, level: Level, *, sparse: bool) -> None:
        self._level = level
        self._sparse = sparse
        self.shape: tuple[int, ...] = tuple(int(size) for size in level.array.shape)
        self.dtype: Any = level.array.dtype
        self.chunks: tuple[int, ...] = tuple(int(size) for size in level.array.chunks)

    def __getitem__(self, index: Any) -> Pixels:
        with image_errors(self._level.source.path, TruncatedImageError, "has chunks that cannot be read"):
            block: Pixels = np.asarray(self._level.array[index])
        if not self._sparse:
            self._level.check(index, block)
        return block


def open_level(source: ImageSource) -> Level:
    """The full-resolution array that a source means.

    The path may be an OME-Zarr image, a label image, the root of a bioformats2raw store (whose images are the scenes),
    or a plain Zarr array.
    """
    path = source.path
    node = _open_node(source)
    if hasattr(node, "chunks"):
        names = getattr(node.metadata, "dimension_names", None) or ["?"] * node.ndim
        told = "".join(_letter({"name": name or "?"}) for name in names)
        return Level(node, told, None, VoxelSize(), "labels" in _parts(path), source)
    attributes = _ome(node)
    scene = source.scene
    if "bioformats2raw.layout" in attributes and "multiscales" not in attributes:
        series = sorted((name for name in node.group_keys() if name.isdecimal()), key=int)
        node = node[series[pick_scene(scene, series, path=path)]]
        attributes, scene = _ome(node), None
    if "multiscales" not in attributes:
        raise _no_image(attributes, path)
    every = attributes["multiscales"]
    with image_errors(path, NotAnImageError, "has OME-Zarr metadata that cannot be read"):
        image = every[pick_scene(scene, [str(one.get("name") or "") for one in every], path=path)]
        dataset = image["datasets"][0]
        array = node[dataset["path"]]
        axes = _axes(image.get("axes"), array.ndim)
        told = "".join(_letter(axis) for axis in axes)
        size = _voxel_size(axes, told, [*_scales(dataset), *_scales(image)])
        channels = (attributes.get("omero") or {}).get("channels") or []
        labels = [str(channel.get("label") or "") for channel in channels]
    is_label = "image-label" in attributes or "labels" in _parts(path)
    return Level(array, told, tuple(labels) if labels and all(labels) else None, size, is_label, source)


def _open_node(source: ImageSource) -> Any:
    import zarr

    path = source.path
    if is_remote(path):
        filesystem(path, source.storage_options)  # names the extra where a package is missing
        where, options = path, dict(source.storage_options)
    else:
        where, options = str(local_path(path)), None
        if not Path(where).exists():
            raise ImageNotFoundError("There is no file or folder at the path.", path=path)
    try:
        with image_errors(path, NotAnImageError, "is not a Zarr store that can be opened"):
            for version in (3, 2):  # one at a time: a remote store is asked for far fewer objects
                with contextlib.suppress(FileNotFoundError, zarr.errors.ContainsArrayError):
                    return zarr.open_group(
                        where, mode="r", storage_options=options, zarr_format=version, use_consolidated=False
                    )
            return zarr.open_array(where, mode="r", storage_options=options)
    except ImageNotFoundError as error:
        if is_remote(path):
            raise
        raise NotAnImageError("The folder has no Zarr metadata in it.", path=path) from error


def _ome(group: Any) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = group.attrs.asdict()
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def _no_image(attributes: Mapping[str, Any], path: str) -> ImageError:
    plate = attributes.get("plate")
    if isinstance(plate, Mapping):
        wells = [str(well.get("path")) for well in plate.get("wells", ())]
        shown = ", ".join(wells[:10]) + (", …" if len(wells) > 10 else "")
        text = f"The path is a plate of {len(wells)} wells ({shown}), not one image."
        return SceneError(text, path=path, remedy="Give the path of one field, such as <plate>/A/1/0.")
    if attributes.get("labels"):
        text = f"The path is a folder of label images: {', '.join(attributes['labels'])}."
        return NotAnImageError(text, path=path, remedy="Give the path of one of them.")
    return NotAnImageError("The Zarr group is not an OME-Zarr image: it has no `multiscales`.", path=path)


def _axes(axes: Sequence[Any] | None, count: int) -> list[dict[str, Any]]:
    """Axes as dictionaries; version 0.3 has plain names and the versions before it always TCZYX."""
    if not axes:
        return [{"name": name} for name in "tczyx"[-count:]]
    return [{"name": axis} if isinstance(axis, str) else dict(axis) for axis in axes]


def _letter(axis: Mapping[str, Any]) -> str:
    name = str(axis["name"]).upper()
    if name in ("T", "C", "Z", "Y", "X"):
        return name
    return {"time": "T", "channel": "C"}.get(str(axis.get("type")), "?")


def _scales(holder: Mapping[str, Any]) -> list[Sequence[float]]:
    steps = holder.get("coordinateTransformations") or ()
    return [step["scale"] for step in steps if step.get("type") == "scale" and "scale" in step]


def _voxel_size(axes: Sequence[Mapping[str, Any]], told: str, scales: Sequence[Sequence[float]]) -> VoxelSize:
    """In µm; unknown for an axis without a unit or without a scale."""

    def of(letter: str) -> float | None:
        if letter not in told or not scales:
            return None
        at = told.index(letter)
        return in_micrometres(float(np.prod([scale[at] for scale in scales])), axes[at].get("unit"))

    return VoxelSize(z=of("Z"), y=of("Y"), x=of("X"))


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.partition("?")[0]).parts
