"""Why a cube is chunked, sharded and compressed as it is, in words."""

from __future__ import annotations

import math

import numpy as np

from cellcube.cube import ArrayLayout, Layout
from cellcube.cube.layout import CHANNEL_CHUNK_BYTES
from cellcube.run.report import human_bytes

_CODECS = {
    "blosc-zstd": "bits are shuffled before zstd, as the high bits of neighbouring pixels are alike",
    "blosc-lz4": "bits are shuffled before lz4, which is quicker to read than zstd and larger",
    "zstd": "zstd alone, for readers without Blosc",
    "none": "not compressed, for readers that decompress nothing",
}


def layout_reasons(layout: Layout, cells: int) -> list[str]:
    """Chunk, shard and codec of the main crops, each with its reason.

    Parameters
    ----------
    layout : Layout
    cells : int
        That the cube will have more, about.

    Returns
    -------
    list of str
        One line each.
    """
    arrays = layout.arrays()
    crops = arrays["cells"]
    objects = math.ceil(cells / layout.shard_cells)
    shard = human_bytes(crops.cell_bytes * layout.shard_cells)
    return [
        f"chunk  {_chunk(layout, crops)}",
        f"shard  {_count(layout.shard_cells, 'cell')}, {shard} of crops before compression, set by storage.shard_mb: "
        f"these cells take {_count(objects, 'object')} in each of {_count(len(arrays), 'array')}",
        f"codec  {layout.codec}: {_CODECS[layout.codec]}; every chunk ends with a CRC-32C",
    ]


def _chunk(layout: Layout, crops: ArrayLayout) -> str:
    channels = len(layout.channels)
    size = human_bytes(math.prod(crops.chunk) * layout.chunk_cells * np.dtype(crops.dtype).itemsize)
    cells = _count(layout.chunk_cells, "cell")
    limit = human_bytes(CHANNEL_CHUNK_BYTES)
    if channels > 1 and crops.chunk[0] == 1:
        return f"1 channel of {cells}, {size}: channels of {limit} and more a cell are chunks of their own"
    whole = f"{cells} with all {channels} channels" if channels > 1 else cells
    return f"{whole}, {size}: channels of less than {limit} a cell are read together"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
