"""Which cells and columns batches are of, and what of them is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellcube.cube import ArrayLayout, Layout, existing_state
from cellcube.errors import ArgumentError, did_you_mean
from cellcube.location import Location
from cellcube.manifest import CATALOG, read_cells
from cellcube.tables import rows_that_meet
from cellcube.training.reader import ShardReader
from cellcube.urls import public_url

Ints = npt.NDArray[np.int64]
_SPLIT = "split"


@dataclass(frozen=True)
class Choice:
    """Chosen cells, in the order of the cube, and how their pixels are read.

    Parameters
    ----------
    cube : Location
    version : int
    array : ArrayLayout
    reader : ShardReader
    channels : tuple of str
    positions : ndarray of int64, shape (n,)
        Along the cell axis of the cube, ascending.
    cell_ids : ndarray of object, shape (n,)
    columns : dict of ndarray
        Of the manifest, by name.
    """

    cube: Location
    version: int
    array: ArrayLayout
    reader: ShardReader
    channels: tuple[str, ...]
    positions: Ints
    cell_ids: npt.NDArray[Any]
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.positions)

    def blocks(self, cells: int) -> Ints:
        """For each cell the block of about `cells` cells of one shard that it is in, ascending."""
        each = -(-cells // self.array.chunk_cells) * self.array.chunk_cells
        shard, within = np.divmod(self.positions, self.array.shard_cells)
        found: Ints = shard * -(-self.array.shard_cells // each) + within // each
        return found


def choose(
    source: str | os.PathLike[str],
    *,
    split: str | None,
    where: str | None,
    columns: str | Sequence[str],
    channels: str | Sequence[str] | None,
    variable: str,
    version: int | None,
    storage_options: Mapping[str, Any] | None,
) -> Choice:
    """Choose cells, as `cellcube.batches` says. No pixel is read."""
    root = Location.of(source, storage_options)
    if root.name == CATALOG:
        root = root.parent
    state = existing_state(root)
    version = state.existing_version(version, root)
    layout = state.layout
    array = _array(layout, variable)
    names, numbers = _channels(layout, array, channels)
    cells = read_cells(root, version)
    wanted = (columns,) if isinstance(columns, str) else tuple(columns)
    for name in wanted:
        if name not in cells:
            raise ArgumentError(
                f"The manifest has no column {name!r}.",
                remedy=did_you_mean(name, map(str, cells.columns)) or f"It has {', '.join(map(str, cells.columns))}.",
            )
    if where is not None:
        cells = cells[rows_that_meet(cells, where, "where", ArgumentError)]
    if split is not None:
        cells = cells[_in_split(cells, split)]
    if cells.empty:
        told = " and ".join(
            [f"is in the split {split!r}"] * (split is not None)
            + [f"meets the condition {where!r}"] * (where is not None)
        )
        raise ArgumentError(f"No cell {told}." if told else "The dataset has no cells.", path=public_url(root.url))
    cells = cells.sort_values("position", kind="stable")
    return Choice(
        cube=root / "cube.zarr",
        version=version,
        array=array,
        reader=ShardReader(root / "cube.zarr", array, numbers),
        channels=names,
        positions=cells["position"].to_numpy(np.int64),
        cell_ids=cells["cell_id"].to_numpy(object),
        columns={name: _values(cells[name]) for name in wanted},
    )


def _array(layout: Layout, variable: str) -> ArrayLayout:
    arrays = layout.arrays()
    if variable not in arrays:
        raise ArgumentError(
            f"There is no variable {variable!r} of pixels; there are {', '.join(arrays)}.",
            remedy=did_you_mean(variable, arrays) or None,
        )
    return arrays[variable]


def _channels(
    layout: Layout, array: ArrayLayout, channels: str | Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Names and numbers of the channels; numbers are None for all of them."""
    known = layout.channels if array.axes[1] == "c" else ()
    if channels is None:
        return known, None
    names = (channels,) if isinstance(channels, str) else tuple(channels)
    if not known:
        raise ArgumentError(f"channels: {array.name!r} is a mask and has no channels.")
    for name in names:
        if name not in known:
            raise ArgumentError(
                f"There is no channel {name!r}; there are {', '.join(known)}.",
                remedy=did_you_mean(str(name), known) or None,
            )
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"channels: give each channel once, and at least one; got {list(names)}.")
    return names, None if names == known else tuple(known.index(name) for name in names)


def _in_split(cells: pd.DataFrame, split: str) -> npt.NDArray[np.bool_]:
    if _SPLIT not in cells:
        raise ArgumentError(
            f"split: the dataset has no splits, so none is {split!r}.",
            remedy="Build it with split in its spec, or choose cells with where.",
        )
    found = cells[_SPLIT].fillna("").astype(str).to_numpy(object)
    known = [name for name in dict.fromkeys(found.tolist()) if name]
    if split not in known and known:
        raise ArgumentError(
            f"split: no cell is in {split!r}; there are {', '.join(known)}.", remedy=did_you_mean(split, known) or None
        )
    return np.asarray(found == split, bool)


def _values(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """A column as an array: numbers, truth values and times as they are, all else as objects."""
    kind = getattr(column.dtype, "kind", "O")
    if kind in "biuf" and not isinstance(column.dtype, np.dtype):
        # A type that knows missing values.
        numbers = column.isna().any() or kind == "f"
        return (
            column.to_numpy("float64", na_value=np.nan)
            if numbers
            else column.to_numpy(kind + "8" if kind != "b" else "bool")
        )
    return column.to_numpy() if kind in "biufmM" and isinstance(column.dtype, np.dtype) else column.to_numpy(object)
