"""Flat-field and dark-field images of the channels: where they are, and as corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cellcube.errors import ImageAccessError, ImageMismatchError, ImageNotFoundError
from cellcube.images import ImageSource, open_image
from cellcube.ledger import sha256_of
from cellcube.location import Location
from cellcube.pixels import Correction
from cellcube.spec import CubeSpec
from cellcube.urls import join, options_for

Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Lighting:
    """Where the images are that even out the illumination of a channel.

    Parameters
    ----------
    channel : str
    flat : ImageSource
        Flat-field or gain.
    is_gain : bool
    dark : ImageSource or float
    reader : str
    digests : tuple of (str, str)
        SHA-256 (hex) of each file: what the images hold decides pixels, wherever they are.
    """

    channel: str
    flat: ImageSource
    is_gain: bool
    dark: ImageSource | float
    reader: str
    digests: tuple[tuple[str, str], ...]

    def __hash__(self) -> int:
        return hash((self.channel, self.is_gain, self.digests))


def lightings(spec: CubeSpec, base: str, storage_options: Mapping[str, Any] | None) -> dict[str, Lighting]:
    """Where the images of the spec are, by channel.

    Parameters
    ----------
    spec : CubeSpec
    base : str
        Folder or URL that relative paths are seen from: that of the cell table.
    storage_options : mapping, optional

    Raises
    ------
    ImageError
        Where a file cannot be read.
    """
    reader = spec.reader if isinstance(spec.reader, str) and ":" not in spec.reader else "auto"
    found = {}
    for channel, each in spec.illumination.items():
        sources: dict[str, ImageSource] = {}
        digests = []
        for name, given in (("flat", each.flat or each.gain), ("dark", each.dark)):
            if isinstance(given, str):
                path = join(base, given)
                sources[name] = ImageSource(path, storage_options=options_for(path, storage_options))
                digests.append((name, _digest(sources[name], f"{name}-field image of channel {channel!r}")))
        dark = sources.get("dark", each.dark)
        assert not isinstance(dark, str)
        found[channel] = Lighting(channel, sources["flat"], each.gain is not None, dark, reader, tuple(digests))
    return found


def _digest(source: ImageSource, what: str) -> str:
    location = Location(source.path, source.storage_options)
    try:
        return sha256_of(location.read())
    except FileNotFoundError:
        raise ImageNotFoundError(f"There is no {what}.", path=source.path) from None
    except OSError as error:
        raise ImageAccessError(f"The {what} cannot be read: {type(error).__name__}.", path=source.path) from error


def correction_of(lighting: Lighting | None, shape: tuple[int, int, int]) -> Correction | None:
    """The illumination correction of a channel, for fields of a shape (z, y, x).

    Raises
    ------
    ImageError
        Where an image cannot be read, or does not fit the fields.
    """
    if lighting is None:
        return None
    correction = _correction(lighting)
    if correction.shape != shape[1:]:
        raise ImageMismatchError(
            f"The flat-field image of channel {lighting.channel!r} has shape (y, x) {correction.shape}, the field "
            f"{shape[1:]}.",
            path=lighting.flat.path,
        )
    return correction


@lru_cache(maxsize=8)
def _correction(lighting: Lighting) -> Correction:
    dark = lighting.dark
    flat = _plane(lighting.flat, lighting.reader)
    offset = _plane(dark, lighting.reader) if isinstance(dark, ImageSource) else dark
    try:
        return (Correction.by_gain if lighting.is_gain else Correction.of)(flat, offset)
    except ValueError as error:
        raise ImageMismatchError(f"The flat-field image cannot be used: {error}", path=lighting.flat.path) from error


def _plane(source: ImageSource, reader: str) -> Pixels:
    with open_image(source, reader) as image:
        channels, depth, height, width = image.shape
        if channels != 1 or depth != 1:
            raise ImageMismatchError(
                f"The image has {channels} channels and {depth} planes; one plane is needed.", path=source.path
            )
        plane: Pixels = image.read(0, (slice(0, 1), slice(0, height), slice(0, width)))[0]
        return plane
