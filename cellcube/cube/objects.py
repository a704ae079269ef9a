"""What each object of the store holds: which array, which cells, and which of them are whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

import google_crc32c
import numpy as np

from cellcube.cube.layout import ArrayLayout, Layout
from cellcube.cube.shards import join_pieces, split_shard
from cellcube.cube.template import Documents, cell_coordinates, channel_coordinates, coordinate_rows
from cellcube.errors import DatasetDamagedError

_CHUNK = re.compile(r"(?P<path>.+)/c/(?P<number>\d+)(?P<rest>(/0)*)")


@dataclass(frozen=True)
class StoreObject:
    """An object of the store.

    Parameters
    ----------
    kind : str
        ``metadata``, ``pixels``, ``coordinate``, or ``channels`` for the names of the channels.
    array : str
        Path of the array inside the store, or of the group or array that metadata is of; the name of an array of
        pixels.
    number : int
        Of the chunk or shard along cells.
    cells : int
        Cells of a chunk or shard.
    """

    kind: str
    array: str
    number: int = 0
    cells: int = 0

    def positions(self, count: int) -> range:
        """Places of its cells in a cube of `count` cells."""
        return range(min(count, self.number * self.cells), min(count, (self.number + 1) * self.cells))


def store_object(layout: Layout, path: str) -> StoreObject | None:
    """What is at a path of the store of a cube; None for what no cube holds."""
    arrays = {array.path: array for array in layout.arrays().values()}
    along = {*cell_coordinates(layout), *channel_coordinates(layout).values()}
    groups = {array.group for array in arrays.values() if array.group}
    along |= {f"{group}/cell_id" for group in groups}
    names = {"c", *(f"{group}/c" for group in groups if not group.startswith("labels/"))}
    if path == "zarr.json":
        return StoreObject("metadata", "")
    if path.endswith("/zarr.json"):
        of = path.removesuffix("/zarr.json")
        known = {*arrays, *along, *names, *groups, *(["labels"] if layout.masks else [])}
        return StoreObject("metadata", of) if of in known else None
    found = _CHUNK.fullmatch(path)
    if found is None:
        return None
    of, number, zeros = found["path"], int(found["number"]), len(found["rest"]) // 2
    if of in arrays:
        array = arrays[of]
        return StoreObject("pixels", array.name, number, array.shard_cells) if zeros == len(array.item) else None
    if of in along:
        dimensions = 1 if of.rpartition("/")[2] in channel_coordinates(layout) else 0
        return StoreObject("coordinate", of, number, coordinate_rows(layout)) if zeros == dimensions else None
    return StoreObject("channels", of) if of in names and not number and not zeros else None


def damaged_cells(data: bytes, array: ArrayLayout, cells: int) -> list[int]:
    """Which of the first `cells` cells of a shard are not whole, by the checksum of each inner chunk.

    Where the index cannot be read, all of them.
    """
    each = array.chunks_per_row
    rows = -(-cells // array.chunk_cells)
    try:
        whole = [_is_whole(chunk) for chunk in islice(split_shard(memoryview(data), array), rows * each)]
    except DatasetDamagedError:
        return list(range(cells))
    good = [all(whole[row * each : (row + 1) * each]) and (row + 1) * each <= len(whole) for row in range(rows)]
    return [cell for cell in range(cells) if not good[cell // array.chunk_cells]]


def _is_whole(chunk: memoryview) -> bool:
    return len(chunk) > 4 and int(google_crc32c.value(bytes(chunk[:-4]))).to_bytes(4, "little") == chunk[-4:]


def first_cells(data: bytes, array: ArrayLayout, cells: int) -> bytes | None:
    """The shard of the first cells of another; None where they are not whole."""
    try:
        return bytes(join_pieces([(data, 0, cells)], array))
    except Exception:  # codecs raise what they like on damaged chunks
        return None


def same_rows(documents: Documents, path: str, first: bytes, second: bytes, version: int) -> bool:
    """Whether two chunks of a coordinate hold the same for all cells that the metadata know of.

    Parameters
    ----------
    documents : dict
        Metadata of the cube.
    path : str
        Of the chunk in the store.
    first, second : bytes
    version : int
        That is committed; cells that a later one retracts are in it.
    """
    import zarr
    from zarr.core.buffer import cpu
    from zarr.storage import MemoryStore

    found = _CHUNK.fullmatch(path)
    assert found is not None, "that is the path of a chunk"
    values: list[Any] = []
    for data in (first, second):
        held: dict[str, Any] = {name: cpu.Buffer.from_bytes(text) for name, text in documents.items()}
        held[path] = cpu.Buffer.from_bytes(data)
        array: Any = zarr.open_group(MemoryStore(held), mode="r", use_consolidated=False)[found["path"]]
        start = int(found["number"]) * array.chunks[0]
        try:
            rows = array[start : start + (array.shards or array.chunks)[0]]
        except Exception:  # codecs raise what they like on damaged chunks
            return False
        values.append(np.where(rows > version, 0, rows) if found["path"] == "retracted" else rows)
    one, other = values
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
