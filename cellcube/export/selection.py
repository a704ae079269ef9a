"""Which cells are exported, and their pixels, one shard at a time."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellcube.cube import CubeState, existing_state
from cellcube.dataset import open as open_dataset
from cellcube.errors import ArgumentError, DatasetDamagedError, did_you_mean
from cellcube.export.names import split_names
from cellcube.inverse import denormalize
from cellcube.location import Location
from cellcube.manifest import column_descriptions, read_cells
from cellcube.run.report import human_bytes
from cellcube.tables import rows_that_meet
from cellcube.urls import public_url

if TYPE_CHECKING:
    import xarray as xr

Pixels = npt.NDArray[Any]
_SPLITS = "split"


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Parameters
    ----------
    files : int
        Files, the manifest among them.
    cells : int
    bytes : int
        Of all files.
    to : str
        Where they are, without credentials.
    """

    files: int
    cells: int
    bytes: int
    to: str

    def __str__(self) -> str:
        cells, files = ("s" if count != 1 else "" for count in (self.cells, self.files))
        return f"{self.cells:,} cell{cells} in {self.files:,} file{files}, {human_bytes(self.bytes)}: {self.to}"


@dataclass(frozen=True)
class Batch:
    """Selected cells of one shard.

    Parameters
    ----------
    start : int
        Position of the first one among the selected cells.
    rows : DataFrame
        Their rows of the manifest.
    pixels : ndarray, shape (cell, c, z, y, x)
        Of a projection, z is 1 and y and x are its two axes.
    masks : ndarray of uint8, shape (cell, z, y, x), or None
    """

    start: int
    rows: pd.DataFrame
    pixels: Pixels
    masks: Pixels | None


@dataclass(frozen=True)
class Part:
    """Cells that go into one file.

    Parameters
    ----------
    split : str or None
        Name of their split, as a file or a split of Hugging Face may be named; None where there are no splits.
    number, count : int
        Which one of how many of the split.
    positions : ndarray of int
        Positions among the selected cells.
    """

    split: str | None
    number: int
    count: int
    positions: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Selection:
    """Cells of a version of a dataset, in the order of the cube.

    Parameters
    ----------
    root : Location
    state : CubeState
    version : int
    dataset : xarray.Dataset
        All cells of the version.
    cells : DataFrame
        Rows of the manifest that were selected.
    positions : ndarray of int
        Where they are along ``cell`` in `dataset`, ascending.
    variable : str
        Pixels (cell, c, …).
    channels : tuple of str
    where : str, optional
    """

    root: Location
    state: CubeState
    version: int
    dataset: xr.Dataset
    cells: pd.DataFrame
    positions: npt.NDArray[np.intp]
    variable: str
    channels: tuple[str, ...]
    where: str | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def item(self) -> tuple[int, int, int, int]:
        """Shape (c, z, y, x) of a cell in `Batch.pixels`."""
        sizes = [int(self.dataset.sizes[axis]) for axis in self.axes]
        z, y, x = [1] * (3 - len(sizes)) + sizes
        return len(self.channels), z, y, x

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of one channel of a cell: z, y and x, or two of them."""
        return tuple(str(axis) for axis in self.dataset[self.variable].dims[2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored pixels."""
        found: np.dtype[Any] = np.dtype(self.dataset[self.variable].dtype)
        return found

    @property
    def representation(self) -> str:
        """Of which representation the variable is, or is a projection."""
        return str(self.dataset[self.variable].attrs.get("representation", self.variable))

    @property
    def has_mask(self) -> bool:
        """Whether there are masks of the shape of the pixels."""
        return "mask" in self.dataset and self.axes == tuple(self.dataset["mask"].dims[1:])

    def about(self, kind: str, to: Location) -> dict[str, Any]:
        """What an export says of where it comes from; no credentials, and no more of a local path than is needed."""
        import cellcube

        attributes = self.state.attributes
        return {
            "format": kind,
            "cellcube": cellcube.__version__,
            "dataset": attributes["name"],
            "root": _seen_from(self.root, to),
            "version": self.version,
            "spec_digest": attributes["spec_digest"],
            "licence": attributes["licence"],
            "where": self.where,
            "variable": self.variable,
            "channels": list(self.channels),
            "cells": len(self),
        }

    def descriptions(self) -> dict[str, str]:
        """What each column of the manifest means."""
        return column_descriptions(self.state, self.cells)

    def voxel_sizes(self) -> npt.NDArray[np.float64]:
        """Voxel size in µm (cell, axis) of the last three axes of `Batch.pixels`, NaN where unknown."""
        axes = ("",) * (3 - len(self.axes)) + self.axes
        columns = [f"voxel_size_{axis}" for axis in axes]
        unknown = pd.Series(np.nan, index=self.cells.index)
        return np.stack([self.cells.get(name, unknown).to_numpy(np.float64) for name in columns], axis=1)

    def parts(self, cells: int) -> list[Part]:
        """The selected cells in files of at most `cells` each, none of which has cells of two splits."""
        groups: dict[str, npt.NDArray[np.intp]] = {"": np.arange(len(self))}
        if _SPLITS in self.cells:
            values = self.cells[_SPLITS].fillna("").astype(str).to_numpy()
            groups = {name: np.flatnonzero(values == name) for name in dict.fromkeys(values.tolist())}
        names = split_names(groups)
        return [
            Part(names[value] if _SPLITS in self.cells else None, number, count, found)
            for value, positions in groups.items()
            for count in [math.ceil(len(positions) / cells)]
            for number, found in enumerate(np.array_split(positions, range(cells, len(positions), cells)))
        ]

    def batches(self, *, masks: bool = False, denormalized: bool = False, progress: bool = False) -> Iterator[Batch]:
        """The selected cells of each shard, one shard after the other; shards without any are not read.

        Parameters
        ----------
        masks : bool
            Whether to read these too.
        denormalized : bool
            Intensities instead of stored pixels, see `cellcube.denormalize`.
        progress : bool
            Whether to show a bar on standard error, if that is a terminal.
        """
        from tqdm import tqdm

        ends = np.cumsum(self.dataset[self.variable].chunksizes["cell"])
        shard_of = np.searchsorted(ends, self.positions, side="right")
        starts = np.flatnonzero(np.diff(shard_of, prepend=-1))
        channels = self._channel_positions()
        with tqdm(total=len(self), unit=" cells", disable=None if progress else True, file=sys.stderr) as bar:
            for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(self)], strict=True):
                part = self.dataset.isel(cell=_as_slice(self.positions[start:end]))
                pixels = denormalize(part, self.variable) if denormalized else part[self.variable]
                read = _read(pixels if channels is None else pixels.isel(c=channels))
                yield Batch(
                    start,
                    self.cells.iloc[start:end],
                    read[:, :, None] if read.ndim == 4 else read,
                    _read(part["mask"]) if masks else None,
                )
                bar.update(end - start)

    def _channel_positions(self) -> list[int] | None:
        known = [str(name) for name in self.dataset["c"].values]
        return None if list(self.channels) == known else [known.index(name) for name in self.channels]


def select_cells(
    root: str | os.PathLike[str],
    *,
    where: str | None = None,
    version: int | None = None,
    variable: str = "cells",
    channels: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Selection:
    """Choose cells, pixels and channels of a dataset. No pixel is read.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    where : str, optional
        A condition on columns of the manifest, in pandas' query syntax, such as ``"well == 'B02' and area_um2 > 50"``.
        None: all cells.
    version : int, optional
        From 1; None is the latest.
    variable : str
        ``cells``, another representation, or a projection.
    channels : sequence of str, optional
        Names, in the order wanted. None: all of them.
    storage_options : mapping, optional
        fsspec options.

    Returns
    -------
    Selection

    Raises
    ------
    ArgumentError
        Where the condition cannot be evaluated or no cell meets it, and where there is no such variable or channel.
    cellcube.errors.DatasetNotFoundError, cellcube.errors.VersionNotFoundError, cellcube.errors.DatasetDamagedError
    """
    location = Location.of(root, storage_options)
    state = existing_state(location)
    version = state.existing_version(version, location)
    dataset = open_dataset(root, version, storage_options=storage_options)
    names = _channels(dataset, _checked_variable(dataset, variable), channels)
    cells = read_cells(location, version)
    if where is not None:
        cells = cells[rows_that_meet(cells, where, "where", ArgumentError)]
    if cells.empty:
        told = "The dataset has no cells." if where is None else f"No cell meets the condition {where!r}."
        raise ArgumentError(told, path=public_url(location.url))
    stored = pd.Index(dataset["cell_id"].values.astype(object))
    positions = stored.get_indexer(pd.Index(cells["cell_id"].astype(object)))
    if (positions < 0).any():
        missing = str(cells["cell_id"].iloc[int(np.argmin(positions))])
        raise DatasetDamagedError("A cell of the manifest is not in the cube.", cell_id=missing, path=location.url)
    order = np.argsort(positions, kind="stable")
    return Selection(
        location, state, version, dataset, cells.iloc[order].reset_index(drop=True), positions[order], variable, names,
        where,
    )  # fmt: skip


def with_columns(frame: pd.DataFrame, added: Mapping[str, Any]) -> pd.DataFrame:
    """A copy of a manifest with more columns behind; its own of the same names become ``table_<name>``."""
    frame = frame.rename(columns={name: f"table_{name}" for name in added if name in frame})
    return pd.concat([frame, pd.DataFrame(dict(added), index=frame.index)], axis=1)


def _checked_variable(dataset: xr.Dataset, variable: str) -> str:
    # Bounds of the normalization have channels too, and are not pixels.
    known = [str(name) for name, each in dataset.data_vars.items() if "c" in each.dims and each.ndim > 3]
    if variable not in known:
        raise ArgumentError(
            f"There is no variable {variable!r} of pixels; there are {', '.join(known)}.",
            remedy=did_you_mean(variable, known) or None,
        )
    return variable


def _channels(dataset: xr.Dataset, variable: str, channels: Sequence[str] | None) -> tuple[str, ...]:
    known = [str(name) for name in dataset["c"].values]
    if channels is None:
        return tuple(known)
    names = (channels,) if isinstance(channels, str) else tuple(channels)
    for name in names:
        if name not in known:
            raise ArgumentError(
                f"There is no channel {name!r}; there are {', '.join(known)}.",
                remedy=did_you_mean(str(name), known) or None,
            )
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"channels: give each channel of {variable!r} once, and at least one; got {list(names)}.")
    return names


def _as_slice(positions: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == len(positions) else positions


def _read(pixels: xr.DataArray) -> Pixels:
    # In this thread, whatever scheduler is the default: one shard is one task.
    return np.asarray(pixels.variable.compute(scheduler="synchronous").values)


def _seen_from(root: Location, to: Location) -> str:
    if not root.is_local:
        return public_url(root.url)
    if not to.is_local or os.path.commonpath([root.url, to.url]) == os.path.abspath(os.sep):  # noqa: PTH100
        return root.name
    return os.path.relpath(root.url, to.url).replace(os.sep, "/")
