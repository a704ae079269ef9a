"""A field of view: the images of its channels and its label image, as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cellcube.errors import AxesError, ChannelError, ImageMismatchError, SceneError, did_you_mean
from cellcube.images.protocol import Closing, ImageSource, Pixels, ReaderFactory, Region, VoxelSize
from cellcube.images.registry import GuardedFov, open_image
from cellcube.images.voxels import check_voxel_size
from cellcube.urls import is_remote

ChannelChoice = tuple[str | int, ...] | Mapping[str, int] | None


@dataclass(frozen=True)
class FovSource:
    """Where the images of a field of view are.

    Parameters
    ----------
    fov_id : str
    images : dict
        One `ImageSource` a channel name; or one for all channels under the name ``""``.
    channels : tuple, mapping or None
        With one image for all channels: names or indices in it, or ``{name: index}``; None for all.
    labels : ImageSource, optional
        The label image.
    label_channel : str, optional
        Name or index of the channel of `labels` that holds the labels.
    label_images : dict
        Further label images by name.
    voxel_size : VoxelSize
        In place of what the images tell; None along axes where they are to be believed.
    """

    fov_id: str
    images: Mapping[str, ImageSource]
    channels: ChannelChoice = None
    labels: ImageSource | None = None
    label_channel: str | None = None
    label_images: Mapping[str, ImageSource] = field(default_factory=dict)
    voxel_size: VoxelSize = field(default_factory=VoxelSize)

    @property
    def every(self) -> list[ImageSource]:
        """All images and label images."""
        return [*self.images.values(), *([self.labels] if self.labels else []), *self.label_images.values()]

    @property
    def is_remote(self) -> bool:
        """Whether any of them must be fetched over a network."""
        return any(is_remote(image.path) for image in self.every)


class Fov(Closing):
    """An open field of view.

    Parameters
    ----------
    source : FovSource
    reader : str or callable
        As in `open_image`.
    pixels, labels : bool
        What to open.

    Attributes
    ----------
    channels : tuple of str
        Names of the chosen channels.
    shape : tuple of int
        Size (z, y, x) in voxels.
    dtype : numpy.dtype
        That holds the pixels of all chosen channels.
    voxel_size : tuple of float
        (z, y, x) in µm, NaN where unknown.

    Raises
    ------
    cellcube.errors.ImageError
        Where an image cannot be used, a channel is not there, or the images do not fit together.
    """

    def __init__(
        self, source: FovSource, reader: str | ReaderFactory = "auto", *, pixels: bool = True, labels: bool = True
    ) -> None:
        self.fov_id = source.fov_id
        self._open: list[GuardedFov] = []
        self._planes: list[tuple[GuardedFov, int]] = []
        self._labels: dict[str, tuple[GuardedFov, int, str]] = {}
        self.channels: tuple[str, ...] = ()
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.dtype: np.dtype[Any] = np.dtype("uint8")
        self.voxel_size: tuple[float, float, float] = (math.nan,) * 3
        try:
            if pixels:
                self._open_pixels(source, reader)
            if labels and source.labels is not None:
                self._open_labels("", source.labels, source.label_channel, reader, pixels)
                for name, image in source.label_images.items() if pixels else ():
                    self._open_labels(name, image, None, reader, pixels)
        except BaseException:
            self.close()
            raise

    def _image(self, source: ImageSource, reader: str | ReaderFactory) -> GuardedFov:
        image = open_image(source, reader)
        self._open.append(image)
        return image

    def _open_pixels(self, source: FovSource, reader: str | ReaderFactory) -> None:
        paths = []
        if "" in source.images:
            image = self._image(source.images[""], reader)
            names, indices = _choose(image, source.channels, source.images[""].path)
            self._planes = [(image, index) for index in indices]
            paths = [source.images[""].path] * len(indices)
        else:
            names = tuple(source.images)
            for name, each in source.images.items():
                image = self._image(each, reader)
                if image.shape[0] != 1:
                    raise ImageMismatchError(
                        f"The file of channel {name!r} has {image.shape[0]} channels; one is needed.",
                        path=each.path,
                        remedy="Give the file as fov_path and choose channels by name or index.",
                    )
                self._planes.append((image, 0))
                paths.append(each.path)
        first = self._planes[0][0]
        for name, path, (image, _) in zip(names, paths, self._planes, strict=True):
            if image.shape[1:] != first.shape[1:]:
                raise ImageMismatchError(
                    f"The image of channel {name!r} has shape (z, y, x) {image.shape[1:]}, that of channel "
                    f"{names[0]!r} {first.shape[1:]}.",
                    path=path,
                    remedy="The files of a FOV must be of the same size: is one of them a thumbnail or of another FOV?",
                )
        self.channels = names
        self.shape = first.shape[1:]
        self.dtype = np.result_type(*(image.dtype for image, _ in self._planes))
        told, given = first.voxel_size, source.voxel_size
        size = check_voxel_size(
            VoxelSize(given.z or told.z, given.y or told.y, given.x or told.x),
            self.shape,
            path=paths[0],
            fov_id=source.fov_id,
        )
        self.voxel_size = tuple(math.nan if value is None else value for value in (size.z, size.y, size.x))  # type: ignore[assignment]

    def _label_image(self, labels: ImageSource, channel: str | None, reader: str | ReaderFactory) -> GuardedFov:
        if channel is None and (callable(reader) or ":" in reader):
            # A user's reader knows the images; label images are files like any other.
            reader = "auto"
        try:
            return self._image(replace(labels, scene=None, timepoint=None), reader)
        except SceneError:
            # The labels too are of several scenes or timepoints.
            return self._image(labels, reader)

    def _open_labels(
        self, name: str, labels: ImageSource, choice: str | None, reader: str | ReaderFactory, pixels: bool
    ) -> None:
        try:
            image = self._label_image(labels, choice, reader)
        except AxesError as error:
            remedy = (error.remedy or "").replace("axes", "label_axes")
            raise AxesError(
                f"Of the label image: {error.message}",
                path=labels.path,
                remedy=f"{remedy} Where the images need it too, `axes` alone is enough.".strip(),
            ) from error
        channel = 0
        if choice is not None:
            wanted = int(choice) if choice.isdecimal() and choice not in (image.channel_names or ()) else choice
            channel = _choose(image, (wanted,), labels.path)[1][0]
        elif image.shape[0] != 1:
            raise ImageMismatchError(
                f"The label image has {image.shape[0]} channels; one is needed.",
                path=labels.path,
                remedy="Say which by label_channel, a table column or spec field.",
            )
        if image.dtype.kind not in "iubf":
            raise ImageMismatchError(f"The label image holds {image.dtype}, not integers.", path=labels.path)
        if pixels and image.shape[1:] != self.shape:
            raise ImageMismatchError(
                f"The label image has shape (z, y, x) {image.shape[1:]}, the image {self.shape}.",
                path=labels.path,
                remedy=_mismatch_remedy(image.shape[1:], self.shape),
            )
        if not pixels:
            self.shape = image.shape[1:]
        self._labels[name] = (image, channel, labels.path)

    @property
    def has_labels(self) -> bool:
        """Whether a label image is open."""
        return bool(self._labels)

    @property
    def tile(self) -> tuple[int, int] | None:
        """Size (y, x) of the tiles that the images are stored in and can be read by; None where they are not."""
        found = {image.tile for image, _ in self._planes}
        return found.pop() if len(found) == 1 else None

    def read(self, channel: int, region: Region) -> Pixels:
        """Pixels of one of `channels`, shape (z, y, x)."""
        image, index = self._planes[channel]
        return image.read(index, region)

    def read_labels(self, name: str = "") -> Pixels:
        """A whole label image, integers of shape (z, y, x): that of the cells, or a further one by its name."""
        image, index, path = self._labels[name]
        labels = image.read(index, (slice(0, self.shape[0]), slice(0, self.shape[1]), slice(0, self.shape[2])))
        if labels.dtype.kind == "f":
            # Some programs save labels as floats; fractions mean that these are no labels.
            whole = labels.astype(np.int64)
            if not np.array_equal(whole, labels):
                raise ImageMismatchError(f"The label image holds fractions ({labels.dtype}), not labels.", path=path)
            return whole
        return labels.view(np.uint8) if labels.dtype.kind == "b" else labels

    def close(self) -> None:
        """Release files. May be called twice."""
        while self._open:
            self._open.pop().close()


def _mismatch_remedy(labels: tuple[int, ...], image: tuple[int, ...]) -> str:
    if labels[1:] != image[1:]:
        return "A label image must have the size of the image it was made from."
    if image[0] == 1:
        return (
            "The image is one plane of the labels' stack. Planes that are files of their own cannot be put together: "
            "save them as one file."
        )
    return "Give a label image of the whole stack, or the plane or projection that the labels were made from."


def _choose(image: GuardedFov, wanted: ChannelChoice, path: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and indices of the channels of an image that are wanted."""
    count = image.shape[0]
    known = image.channel_names
    if wanted is None:
        names = known if known is not None and len(set(known)) == count else None
        return names or tuple(f"channel_{index}" for index in range(count)), tuple(range(count))
    pairs: list[tuple[str, str | int]] = (
        list(wanted.items()) if isinstance(wanted, Mapping) else [(_name(choice, known), choice) for choice in wanted]
    )
    if known is None and len(pairs) == count and all(isinstance(choice, str) for _, choice in pairs):
        # The file names none, and the names given are as many as its channels: they name them in order.
        return tuple(name for name, _ in pairs), tuple(range(count))
    indices = []
    for _, choice in pairs:
        if isinstance(choice, int):
            if not 0 <= choice < count:
                raise ChannelError(f"There is no channel {choice}; the image has {count}, from 0.", path=path)
            indices.append(choice)
            continue
        if known is None:
            raise ChannelError(
                f"There is no channel {choice!r}: the file does not name its {count} channel{'s' * (count > 1)}.",
                path=path,
                remedy=_by_index(pairs, count),
            )
        found = [index for index, name in enumerate(known) if name == choice] or [
            index for index, name in enumerate(known) if name.casefold() == choice.casefold()
        ]
        if len(found) != 1:
            problem = f"There is no channel {choice!r}" if not found else f"{len(found)} channels are named {choice!r}"
            raise ChannelError(
                f"{problem}; the image has {', '.join(map(repr, known))}.",
                path=path,
                remedy=did_you_mean(choice, known) or _by_index(pairs, count),
            )
        indices.append(found[0])
    return tuple(name for name, _ in pairs), tuple(indices)


def _by_index(pairs: list[tuple[str, str | int]], count: int) -> str:
    """How the `count` channels of a file get other names than its own."""
    if count == 1 and len(pairs) > 1:
        example = ", ".join(f"{name!r}: 'path_{name.lower()}'" for name, _ in pairs[:2])
        return f"Where every channel has a file of its own, give one column a channel: channels={{{example}, ...}}."
    example = ", ".join(f"{name!r}: {index}" for index, (name, _) in enumerate(pairs[:count][:3]))
    return f"To name channels yourself, choose them by index: channels={{{example}}}."


def _name(choice: str | int, known: tuple[str, ...] | None) -> str:
    if isinstance(choice, str):
        return choice
    return known[choice] if known is not None and 0 <= choice < len(known) else f"channel_{choice}"
