"""A contact sheet: one picture of many cells, each in colour and channel by channel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellcube.colors import channel_color, is_transmitted
from cellcube.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    import xarray as xr
    from PIL import Image, ImageDraw, ImageFont

Tiles = npt.NDArray[np.float32]

_BACKGROUND, _CAPTION, _FAINT = (16, 17, 20), (214, 216, 222), (132, 136, 146)
_SMALLEST, _LARGEST = 72, 160  # px of a tile's longer side between which it is shown as it is
_ELLIPSIS = "…"


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels. A block is one cell: its tiles in a row and the caption under them."""

    tile_height: int
    tile_width: int
    tiles: int
    columns: int
    rows: int
    margin: int = 20
    gap: int = 2
    between: int = 18
    heading: int = 46
    caption: int = 20

    @property
    def block_width(self) -> int:
        return self.tiles * (self.tile_width + self.gap) - self.gap

    @property
    def block_height(self) -> int:
        return self.tile_height + self.caption

    @property
    def size(self) -> tuple[int, int]:
        width = 2 * self.margin + self.columns * (self.block_width + self.between) - self.between
        height = 2 * self.margin + self.heading + self.rows * (self.block_height + self.gap * 3) - self.gap * 3
        return width, height

    def block(self, index: int) -> tuple[int, int]:
        """Left and top of a block, counted along rows."""
        row, column = divmod(index, self.columns)
        left = self.margin + column * (self.block_width + self.between)
        return left, self.margin + self.heading + row * (self.block_height + self.gap * 3)

    def tile(self, index: int, tile: int) -> tuple[int, int]:
        """Left and top of a tile in a block."""
        left, top = self.block(index)
        return left + tile * (self.tile_width + self.gap), top


def contact_sheet(
    dataset: xr.Dataset,
    path: str | Path | None = None,
    *,
    cells: int | Sequence[int] = 48,
    channels: Sequence[str] | None = None,
    columns: int | None = None,
    colors: Mapping[str, str] | Sequence[str] | None = None,
    scale: float | None = None,
) -> Image.Image:
    """Draw cells of a dataset side by side: a colour composite, then one grey tile a channel.

    Parameters
    ----------
    dataset : xarray.Dataset
        Has `cells`, (cell or t, c, z, y, x), of numbers. Coordinate `c` gives channel names and `cell_id` captions,
        where they exist. Only the cells and channels shown are read, once.
    path : str or Path, optional
        Where to save the picture; the suffix decides the format.
    cells : int or sequence of int
        How many cells, evenly spaced over the dataset and at most as many as it has, or the positions of cells.
    channels : sequence of str, optional
        Which channels, in this order. Default: all.
    columns : int, optional
        Cells in a row of the sheet. Default: as many as make it about 4:3.
    colors : mapping of str to str, or sequence of str, optional
        ``"RRGGBB"`` by channel name, or one for each channel shown. Default: `cellcube.colors.channel_color`.
    scale : float, optional
        Screen pixels a pixel of a crop. Default: 1 where that makes tiles of 72 to 160 pixels, else the nearest
        scale that does; small crops are enlarged by whole numbers.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ArgumentError
        There are no cells to show, `dataset` has no `cells` of five axes, or an argument does not fit the dataset.

    Notes
    -----
    Tiles are maxima along z. Numbers that are not finite are shown as 0. A channel of floats within 0 to 1 is shown as
    it is; any other from the 0.5th to the 99.8th percentile of its pixels in the cells shown, without those that are
    exactly 0 (padding, masks). One window serves all cells, so they can be compared.
    Composites are blended as 1 - Π(1 - value · colour), which does not clip; transmitted light is left out of them
    where there is fluorescence. A single channel needs no composite and is one tile, in its colour.
    """
    from PIL import Image, ImageDraw

    _check(columns, scale)
    tiles, names, captions, total = _read(dataset, cells, channels)
    rgb = _colors_of(names, colors)
    floating = dataset["cells"].dtype.kind == "f"
    for c in range(len(names)):
        tiles[:, c] = _displayed(tiles[:, c], floating)
    grey_levels = np.rint(tiles * 255).astype(np.uint8)
    composites = _blend(tiles, rgb, names)

    height, width = _tile_size(tiles.shape[-2], tiles.shape[-1], scale)
    headers = ["composite", *names] if len(names) > 1 else names
    layout = _lay_out(len(tiles), len(headers), height, width, columns)
    sheet = Image.new("RGB", layout.size, _BACKGROUND)
    for k in range(len(tiles)):
        shown = [composites[k], *(grey_levels[k] if len(names) > 1 else ())]
        for t, pixels in enumerate(shown):
            sheet.paste(_resized(Image.fromarray(pixels), height, width), layout.tile(k, t))
    inks = [_CAPTION, *rgb] if len(names) > 1 else rgb
    _write_captions(ImageDraw.Draw(sheet), layout, headers, inks, captions, total)
    if path is not None:
        sheet.save(path)
    return sheet


def _check(columns: int | None, scale: float | None) -> None:
    if columns is not None and columns < 1:
        raise ArgumentError(f"columns is {columns}; a sheet has at least one.")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ArgumentError(f"scale is {scale}; it is a positive number of screen pixels.")


def _read(
    dataset: xr.Dataset, cells: int | Sequence[int], channels: Sequence[str] | None
) -> tuple[Tiles, list[str], list[str], int]:
    """Maxima along z of the cells shown, (cell, c, y, x), channel names, captions and the number of all cells."""
    if "cells" not in dataset or dataset["cells"].ndim != 5 or dataset["cells"].dims[1:] != ("c", "z", "y", "x"):
        found = dataset["cells"].dims if "cells" in dataset else sorted(map(str, dataset.data_vars))
        raise ArgumentError(f"A contact sheet needs a variable 'cells' with axes (cell, c, z, y, x); found {found}.")
    crops = dataset["cells"]
    axis = crops.dims[0]
    total = crops.sizes[axis]
    chosen = _choose(cells, total)
    known = (
        [str(name) for name in dataset["c"].values]
        if "c" in dataset.coords
        else list(map(str, range(crops.sizes["c"])))
    )
    names = known if channels is None else list(channels)
    for name in names:
        if name not in known:
            raise ArgumentError(f"There is no channel {name!r}; there are {known}.", remedy=did_you_mean(name, known))
    if not names or not crops.sizes["y"] or not crops.sizes["x"] or not crops.sizes["z"]:
        raise ArgumentError("There is nothing to show: no channels, or crops without pixels.")

    # Selected in the order of storage, which reads each chunk once, and put into the order asked for afterwards.
    rows, row_of = np.unique(chosen, return_inverse=True)
    planes, plane_of = np.unique([known.index(name) for name in names], return_inverse=True)
    shown = crops.isel({axis: rows.tolist(), "c": planes.tolist()} if channels is not None else {axis: rows.tolist()})
    if shown.dtype.kind == "f":
        shown = shown.where(np.isfinite(shown), 0)
    tiles = shown.max("z").values[row_of][:, plane_of].astype(np.float32)
    ids = dataset["cell_id"].isel({axis: chosen}).values if "cell_id" in dataset.variables else chosen
    return tiles, names, [str(i) for i in ids], total


def _choose(cells: int | Sequence[int], total: int) -> list[int]:
    """Positions of the cells shown."""
    if isinstance(cells, int | np.integer):
        wanted = min(int(cells), total)
        if wanted < 1:
            raise ArgumentError(f"There are no cells to show: {cells} of {total} asked for.")
        return [int(k) for k in np.rint(np.linspace(0, total - 1, wanted))]
    chosen = [int(k) for k in cells]
    if not chosen:
        raise ArgumentError("There are no cells to show: `cells` is empty.")
    wrong = [k for k in chosen if not -total <= k < total]
    if wrong:
        raise ArgumentError(f"Cells {wrong[:5]} are not in the dataset, which has {total}.")
    return [k % total for k in chosen]


def _colors_of(names: Sequence[str], colors: Mapping[str, str] | Sequence[str] | None) -> list[tuple[int, ...]]:
    """Red, green and blue, 0 to 255, of each channel."""
    default = [channel_color(name, k) for k, name in enumerate(names)]
    if colors is None:
        chosen = default
    elif isinstance(colors, Mapping):
        chosen = [colors.get(name, usual) for name, usual in zip(names, default, strict=True)]
    else:
        chosen = list(colors)
    if len(chosen) != len(names):
        raise ArgumentError(f"{len(chosen)} colors are given for {len(names)} channels.")
    try:
        found = [tuple(bytes.fromhex(color.removeprefix("#"))) for color in chosen]
    except ValueError:
        found = []
    if any(len(levels) != 3 for levels in found) or not found:
        raise ArgumentError(f"Colors are six hexadecimal digits, such as '3D7BFF'; got {chosen}.")
    return found


def _displayed(pixels: Tiles, floating: bool) -> Tiles:
    """`pixels` of one channel as 0 to 1, what is shown black and white."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (floating and low >= 0 and high <= 1):
        # Exact zeros are padding or masked, and would lift the background of a camera with an offset to grey.
        real = pixels[pixels != 0]
        low, high = (float(edge) for edge in np.percentile(real if real.size else pixels, (0.5, 99.8)))
        if high <= low:  # little but background: the percentiles fall together, and the extremes may not
            low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) / (high - low if high > low else 1)
    return np.clip(pixels, 0, 1)


def _blend(tiles: Tiles, rgb: Sequence[tuple[int, ...]], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Colour composites (cell, y, x, rgb) of tiles (cell, c, y, x)."""
    fluorescent = [c for c, name in enumerate(names) if not is_transmitted(name)]
    dark = np.ones((tiles.shape[0], *tiles.shape[2:], 3), np.float32)
    for c in fluorescent or range(len(names)):
        dark *= 1 - tiles[:, c, :, :, None] * (np.array(rgb[c], np.float32) / 255)
    composites: npt.NDArray[np.uint8] = np.rint(255 * (1 - dark)).astype(np.uint8)
    return composites


def _tile_size(height: int, width: int, scale: float | None) -> tuple[int, int]:
    """Height and width of a tile in screen pixels."""
    longer = max(height, width)
    if scale is None:
        scale = math.ceil(_SMALLEST / longer) if longer < _SMALLEST else min(1.0, _LARGEST / longer)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(tile: Image.Image, height: int, width: int) -> Image.Image:
    from PIL import Image

    if (tile.height, tile.width) == (height, width):
        return tile
    if height < tile.height:
        return tile.resize((width, height), Image.Resampling.BOX)
    whole = height % tile.height == 0 and width % tile.width == 0
    return tile.resize((width, height), Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC)


def _lay_out(cells: int, tiles: int, height: int, width: int, columns: int | None) -> _Layout:
    """The layout of `columns` columns, or of as many as bring it nearest to 4:3."""
    tried = range(1, cells + 1) if columns is None else (min(columns, cells),)
    layouts = [_Layout(height, width, tiles, n, math.ceil(cells / n)) for n in tried]
    return min(layouts, key=lambda layout: abs(math.log(layout.size[0] / layout.size[1] * 3 / 4)))


def _write_captions(
    draw: ImageDraw.ImageDraw,
    layout: _Layout,
    headers: Sequence[str],
    inks: Sequence[tuple[int, ...]],
    captions: Sequence[str],
    total: int,
) -> None:
    """How many cells of how many, a header over each column of tiles, and each cell's name under its tiles."""
    from PIL import ImageFont

    small, bold = ImageFont.load_default(size=12), ImageFont.load_default(size=13)
    count = f"{len(captions)} of {total} cell{'s' if total != 1 else ''}"
    draw.text((layout.margin, layout.margin - 4), _fit(count, small, layout.size[0] - layout.margin), _FAINT, small)
    for column in range(layout.columns):
        for t, (header, ink) in enumerate(zip(headers, inks, strict=True)):
            left, top = layout.tile(column, t)
            draw.text((left + 1, top - 6), _fit(header, bold, layout.tile_width - 2), ink, bold, anchor="ls")
    for k, caption in enumerate(captions):
        left, top = layout.block(k)
        text = _fit(caption, small, layout.block_width)
        draw.text((left + 1, top + layout.tile_height + 14), text, _CAPTION, small, anchor="ls")


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text` on one line of `width` pixels, with an ellipsis within: cell ids differ most at their ends."""
    text = "".join(letter if letter.isprintable() else "·" for letter in text)
    kept = len(text)
    fitted = text
    while kept > 0 and font.getlength(fitted) > width:
        kept -= 1
        fitted = text[: kept // 3] + _ELLIPSIS + text[len(text) - (kept - kept // 3) :]
    return fitted
