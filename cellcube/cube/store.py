"""The only writer of the Zarr store: shards, coordinates, and the commit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cube.layout import ArrayLayout, Layout
from cellcube.cube.shards import join_pieces
from cellcube.cube.template import Documents, cell_coordinates, channel_coordinates, coordinate_rows
from cellcube.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetFormatError,
    DatasetNotFoundError,
    VersionNotFoundError,
)
from cellcube.location import PATIENCE, Location
from cellcube.urls import public_url

FORMAT = 1


@dataclass(frozen=True)
class CubeState:
    """What the committed metadata of a cube says.

    Parameters
    ----------
    attributes : dict
        What is under ``cellcube`` in the root's attributes.
    """

    attributes: Mapping[str, Any]

    @property
    def version(self) -> int:
        """Number of committed builds."""
        return len(self.attributes["versions"])

    @property
    def count(self) -> int:
        """Committed cells."""
        return int(self.attributes["versions"][-1]["cells"])

    @property
    def layout(self) -> Layout:
        """What never changes."""
        try:
            return Layout.from_dict(self.attributes["layout"])
        except (KeyError, TypeError) as error:
            raise DatasetFormatError(
                "The dataset was written by an early version of cellcube, before its format was settled.",
                remedy="Build it again.",
            ) from error

    def existing_version(self, version: int | None, root: Location) -> int:
        """A version that the dataset at a root has; the latest for None.

        Raises
        ------
        VersionNotFoundError
            Where there is no such version.
        """
        if version is None:
            return self.version
        if not 1 <= version <= self.version:
            raise VersionNotFoundError(
                f"There is no version {version}; the dataset has 1 to {self.version}.", path=public_url(root.url)
            )
        return version

    def count_at(self, version: int) -> int:
        """Cells that the builds up to a version added, from 1."""
        return int(self.attributes["versions"][version - 1]["cells"])

    def retracted_at(self, version: int) -> int:
        """Cells that are retracted in a version."""
        return int(self.attributes["versions"][version - 1].get("retracted", 0))

    @property
    def visible(self) -> int:
        """Cells of the latest version that are not retracted."""
        return self.count - self.retracted_at(self.version)


@dataclass(frozen=True)
class ShardPart:
    """Cells `start` to ``start + count`` of one object, that go into one shard."""

    source: Location
    start: int
    count: int
    whole: bool
    size: int = 0
    sha256: str = ""


def read_state(cube: Location) -> CubeState | None:
    """The committed state of the cube at a location, or None where there is none.

    Raises
    ------
    DatasetFormatError
        Where it was written in a format this version does not know.
    DatasetDamagedError
        Where the metadata is there but is not that of a cellcube cube.
    """
    try:
        text = (cube / "zarr.json").read(patience=PATIENCE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise DatasetAccessError(f"The dataset may not be read: {error}.", path=public_url(cube.url)) from error
    except OSError as error:
        raise DatasetAccessError(
            f"The dataset cannot be reached: {type(error).__name__}: {error}.",
            path=public_url(cube.url),
            remedy="Check the address, the network and the storage options.",
        ) from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DatasetDamagedError(f"The cube's metadata is not JSON: {error}.", path=f"{cube.url}/zarr.json") from error
    attributes = document.get("attributes", {}).get("cellcube")
    if not isinstance(attributes, dict) or "format" not in attributes:
        raise DatasetDamagedError("The Zarr store was not written by cellcube.", path=cube.url)
    if attributes["format"] != FORMAT:
        raise DatasetFormatError(
            f"The dataset has format {attributes['format']}; this version of cellcube knows format {FORMAT}.",
            path=cube.url,
            remedy="Install a newer cellcube.",
        )
    return CubeState(attributes)


def existing_state(root: Location, remedy: str | None = None) -> CubeState:
    """The committed state of the dataset at a root.

    Parameters
    ----------
    root : Location
        Folder of the dataset.
    remedy : str, optional
        What the caller can do where there is none.

    Raises
    ------
    DatasetNotFoundError
        Where there is no dataset.
    DatasetFormatError, DatasetDamagedError, DatasetAccessError
        As of `read_state`.
    """
    state = read_state(root / "cube.zarr")
    if state is None:
        raise DatasetNotFoundError("There is no cellcube dataset.", path=public_url(root.url), remedy=remedy)
    return state


def write_shard(cube: Location, array: ArrayLayout, number: int, parts: Sequence[ShardPart]) -> tuple[str, int, str]:
    """Write one shard from parts of other objects. Gives its path in the store, size in bytes and SHA-256.

    A part that is the whole shard already is copied as it is.
    """
    target = cube / array.shard_key(number)
    if len(parts) == 1 and parts[0].whole and parts[0].sha256:
        parts[0].source.copy_to(target)
        size, sha256 = parts[0].size, parts[0].sha256
    else:
        read: dict[str, bytes] = {}
        for part in parts:
            read[part.source.url] = read.get(part.source.url) or part.source.read()
        try:
            joined = join_pieces([(read[part.source.url], part.start, part.count) for part in parts], array)
        except DatasetDamagedError as error:
            error.path = ", ".join(part.source.url for part in parts)
            raise
        target.write(joined)
        size, sha256 = len(joined), hashlib.sha256(joined).hexdigest()
    if target.size() != size:
        raise DatasetDamagedError("A shard is not there, or not whole, after it was written.", path=target.url)
    return array.shard_key(number), size, sha256


def shard_parts(
    array: ArrayLayout,
    cube: Location,
    committed: int,
    pieces: Sequence[tuple[Location, int, int, str]],
) -> dict[int, list[ShardPart]]:
    """Which parts of which pieces make each shard, by the shard's number.

    Parameters
    ----------
    array : ArrayLayout
    cube : Location
    committed : int
        Cells that are in the cube already; the shard they end in is written again, with them first.
    pieces : sequence of (Location, int, int, str)
        In the order of their cells: where it is, the number of its cells, its size in bytes, its SHA-256.
    """
    found: dict[int, list[ShardPart]] = {}
    number, filled = divmod(committed, array.shard_cells)
    if not pieces:
        return found
    if filled:
        found[number] = [ShardPart(cube / array.shard_key(number), 0, filled, False)]
    for source, count, size, sha256 in pieces:
        start = 0
        while start < count:
            taken = min(count - start, array.shard_cells - filled)
            whole = taken == count and filled == 0
            found.setdefault(number, []).append(ShardPart(source, start, taken, whole, size, sha256))
            start += taken
            filled += taken
            if filled == array.shard_cells:
                number, filled = number + 1, 0
    return found


def coordinate_chunks(
    cube: Location, documents: Documents, layout: Layout, first: int, rows: pd.DataFrame
) -> dict[str, bytes]:
    """The objects of the coordinates of new cells by their path; readers of committed metadata do not see new cells.

    Parameters
    ----------
    cube : Location
    documents : dict
        Of the cube with the new cells.
    layout : Layout
    first : int
        Place of the first new cell.
    rows : DataFrame
        One row a new cell, with all columns of `cell_coordinates`, and ``<name>_<channel>`` for each of
        `channel_coordinates`.
    """
    import zarr
    from zarr.core.buffer import cpu
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {path: cpu.Buffer.from_bytes(data) for path, data in documents.items()}
    count = first + len(rows)
    groups = [f"{array.group}/" if array.group else "" for array in layout.arrays().values()]
    targets: dict[str, Any] = {}
    for name, kind in cell_coordinates(layout).items():
        plain = rows[name].to_numpy()
        targets[name] = plain.astype(np.dtypes.StringDType()) if kind == "string" else plain.astype(kind)
    for name, path in channel_coordinates(layout).items():
        targets[path] = rows[[f"{name}_{channel}" for channel in layout.channels]].to_numpy("float64")
    targets.update({f"{group}cell_id": targets["cell_id"] for group in groups})
    for path, data in targets.items():
        boundary, filled = divmod(first, coordinate_rows(layout))
        if filled:
            key = f"{path}/c/{boundary}" + "/0" * (data.ndim - 1)
            held[key] = cpu.Buffer.from_bytes((cube / key).read())
    root = zarr.open_group(MemoryStore(held), mode="r+", use_consolidated=False)
    names = np.array(layout.channels, np.dtypes.StringDType())
    if not first:
        targets.update({f"{group}c": names for group in groups if not group.startswith("labels/")})
    for path, data in targets.items():
        # A chunk that is not there is damage, so chunks of nothing but fill values are written too.
        array: Any = root[path].with_config({"write_empty_chunks": True})  # type: ignore[union-attr]
        if path.rpartition("/")[2] == "c":
            array[:] = data
        elif len(rows):
            array[first:count] = data
    return {key: buffer.to_bytes() for key, buffer in held.items() if not key.endswith("zarr.json")}


def retracted_chunks(
    cube: Location, documents: Documents, layout: Layout, positions: Any, version: int
) -> dict[str, bytes]:
    """The objects of the coordinate ``retracted`` with cells marked; readers of the versions before see no change.

    Parameters
    ----------
    cube : Location
    documents : dict
        The metadata of the store.
    layout : Layout
    positions : ndarray of int64
        Of the cells.
    version : int
        In which they are retracted.
    """
    import zarr
    from zarr.core.buffer import cpu
    from zarr.storage import MemoryStore

    size = coordinate_rows(layout)
    held: dict[str, Any] = {path: cpu.Buffer.from_bytes(data) for path, data in documents.items()}
    for number in np.unique(positions // size):
        key = f"retracted/c/{number}"
        held[key] = cpu.Buffer.from_bytes((cube / key).read())
    root = zarr.open_group(MemoryStore(held), mode="r+", use_consolidated=False)
    # As a build writes it, so that the bytes do not depend on what came first.
    array: Any = root["retracted"].with_config({"write_empty_chunks": True})  # type: ignore[union-attr]
    for number in np.unique(positions // size):
        part = slice(number * size, min((number + 1) * size, array.shape[0]))
        values = array[part]
        values[positions[positions // size == number] - number * size] = version
        array[part] = values
    return {key: buffer.to_bytes() for key, buffer in held.items() if not key.endswith("zarr.json")}


def commit(cube: Location, documents: Documents, layout: Layout, count: int) -> None:
    """Make the new cells visible: replace the metadata, the root's last.

    Raises
    ------
    DatasetDamagedError
        Where a shard that the metadata would promise is not there.
    """
    for array in layout.arrays().values():
        shards = math.ceil(count / array.shard_cells)
        there = set((cube / f"{array.path}/c").names())
        missing = [number for number in range(shards) if str(number) not in there]
        if missing:
            raise DatasetDamagedError(
                f"{len(missing)} shards of {array.name!r} are missing, the first is {array.shard_key(missing[0])}.",
                path=cube.url,
            )
        # A build that was given up may have left shards behind the last.
        for name in there:
            if name.isdecimal() and int(name) >= shards:
                (cube / f"{array.path}/c/{name}").remove()
    for path, data in documents.items():
        (cube / path).write(data)
