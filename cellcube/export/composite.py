"""A cell as a picture of 8 bits: windows, projections, colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.colors import channel_color, is_transmitted
from cellcube.export.selection import Selection
from cellcube.pixels import project

Pixels = npt.NDArray[Any]
Picture = npt.NDArray[np.uint8]


def display_windows(selection: Selection) -> list[tuple[float, float]]:
    """Stored values (low, high) that are shown black and white, of each channel: those of the OME metadata."""
    layout = selection.state.layout
    by_name = dict(zip(layout.channels, selection.state.attributes["windows"][selection.representation], strict=True))
    kind, _, axis = str(selection.dataset[selection.variable].attrs.get("projection", "")).partition("_")
    factor = layout.shape["zyx".index(axis) if axis in tuple("zyx") else 0] if kind == "sum" else 1
    return [(by_name[name][0] * factor, by_name[name][1] * factor) for name in selection.channels]


def grey_planes(pixels: Pixels, windows: Sequence[tuple[float, float]], montage: bool = False) -> Picture:
    """The maximum projection of each channel along z.

    Parameters
    ----------
    pixels : ndarray, shape (c, z, y, x)
    windows : sequence of (float, float)
        Of each channel, what becomes 0 and 255.
    montage : bool
        The projections along all axes, side by side: along y (z, x) below that along z, along x (y, z) at its right.

    Returns
    -------
    ndarray of uint8, shape (c, y, x), or (c, y + z, x + z) for a montage
    """
    whole = tuple(slice(0, size) for size in pixels.shape[1:])
    planes = project(np.nan_to_num(pixels), "max_montage" if montage else "max_z", (whole[0], whole[1], whole[2]))
    low, high = (np.array(edge, np.float64)[:, None, None] for edge in zip(*windows, strict=True))
    shown = (planes.astype(np.float64) - low) / np.where(high > low, high - low, 1)
    grey: Picture = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    return grey


def composite(planes: Picture, channels: Sequence[str]) -> Picture:
    """Channels in their colours, blended as 1 - Π(1 - value · colour), which does not clip.

    Transmitted light is left out where there is fluorescence. A single channel stays grey.

    Parameters
    ----------
    planes : ndarray of uint8, shape (c, y, x)
    channels : sequence of str

    Returns
    -------
    ndarray of uint8, shape (y, x, 3), or (y, x) for a single channel
    """
    if len(channels) == 1:
        only: Picture = planes[0]
        return only
    fluorescent = [number for number, name in enumerate(channels) if not is_transmitted(name)]
    dark = np.ones((*planes.shape[1:], 3), np.float32)
    for number in fluorescent or range(len(channels)):
        color = np.array(tuple(bytes.fromhex(channel_color(channels[number], number))), np.float32) / 255
        dark *= 1 - planes[number, :, :, None].astype(np.float32) / 255 * color
    blended: Picture = np.rint(255 * (1 - dark)).astype(np.uint8)
    return blended


def png(picture: Picture) -> bytes:
    """A picture, grey (y, x) or colour (y, x, 3), as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=6)
    return file.getvalue()
