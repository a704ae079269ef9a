"""Open a cube as an xarray dataset, lazily."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from cellcube.cube.layout import Layout
from cellcube.cube.template import channel_coordinates
from cellcube.errors import DatasetDamagedError
from cellcube.location import Location

if TYPE_CHECKING:
    import xarray as xr

_COORDINATES = ("cell_id", "fov_id", "label", "run")
_CHUNK_KEY = re.compile(r"(^|/)c(/\d+)+$")


class StrictStore(WrapperStore[Store]):
    """A store in which a missing chunk is an error. Zarr would read zeros; every chunk of a cube is written.

    Metadata is read once, so that all groups of a dataset tell of the same version.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._documents: dict[str, Buffer | None] = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes at a key.

        Raises
        ------
        DatasetDamagedError
            Where the key is that of a chunk and there is nothing.
        """
        if key.endswith("zarr.json"):
            if key not in self._documents:
                self._documents[key] = await self._store.get(key, prototype, byte_range)
            return self._documents[key]
        found = await self._store.get(key, prototype, byte_range)
        if found is None and _CHUNK_KEY.search(key):
            raise DatasetDamagedError(
                f"The object {key} is missing.", path=str(self._store), remedy="Copy the dataset again, or rebuild it."
            )
        return found


def zarr_store(cube: Location) -> Store:
    """A read-only zarr store of a location, in which missing chunks are errors."""
    if cube.is_local:
        return StrictStore(LocalStore(cube.url, read_only=True))
    return StrictStore(FsspecStore.from_url(cube.url, storage_options=dict(cube.storage_options), read_only=True))


def open_cube(cube: Location, layout: Layout, version: int, count: int, retracted: bool) -> xr.Dataset:
    """The cells of a version of a cube.

    Parameters
    ----------
    cube : Location
    layout : Layout
    version, count : int
        The version, and how many cells its builds and those before added.
    retracted : bool
        Whether some of them may be retracted, so that this must be looked up.

    Returns
    -------
    xarray.Dataset
        ``cells`` and other representations (cell, c, z, y, x), each projection (cell, c, two of z, y, x) and the
        masks (cell, z, y, x), as dask arrays whose chunks are whole shards. What tells cells apart and what comes
        from the cell table are coordinates; geometry and bounds of the normalization are variables. Both are read
        when they are used. An index on ``cell_id``.
    """
    import xarray as xr

    from cellcube.cube.index import IdentifierIndex

    store = zarr_store(cube)
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    arrays = layout.arrays()
    options: dict[str, Any] = {"consolidated": True, "zarr_format": 3}
    root = xr.open_zarr(store, chunks=None, drop_variables=["cells"], **options)
    for name, array in arrays.items():
        chunks = {layout.cell_axis: array.shard_cells, **dict.fromkeys(array.axes[1:], -1)}
        drop = [other for other in root.variables if other != name]
        opened = xr.open_zarr(store, group=array.group or None, chunks=chunks, drop_variables=drop, **options)
        variable = opened[name].variable
        if array.projection.endswith("_montage"):
            # Longer than the axes of the crops, which have these names.
            variable = opened[name].rename({"y": "montage_y", "x": "montage_x"}).variable
        variables[name] = variable
    for name, path in channel_coordinates(layout).items():
        group, _, coordinate = path.rpartition("/")
        if group:
            opened = xr.open_zarr(store, group=group, chunks=None, drop_variables=[group], **options)
            coordinates[name] = opened[coordinate].variable
    dataset: xr.Dataset = root.assign({**variables, **coordinates}).set_coords([*_COORDINATES, *layout.metadata])
    if layout.has_split:
        dataset = dataset.set_coords("split")
    if layout.cell_axis != "cell":
        dataset = dataset.rename_dims({layout.cell_axis: "cell"})
    dataset = dataset.isel(cell=slice(0, count))
    if retracted:
        since = dataset["retracted"].values
        hidden = (since > 0) & (since <= version)
        if hidden.any():
            names = list(dataset.variables)
            pixels = {name: _kept(dataset[name].variable, ~hidden) for name in arrays}
            dataset = dataset.drop_vars(arrays).isel(cell=np.flatnonzero(~hidden)).assign(pixels)
            dataset = dataset[[name for name in names if name in dataset.data_vars]]
    return dataset.drop_vars("retracted").set_xindex("cell_id", IdentifierIndex)


def _kept(variable: xr.Variable, keep: npt.NDArray[np.bool_]) -> xr.Variable:
    """Some cells of a dask array, divided as it was: by an index of its own, dask cuts across shards."""
    data = variable.data
    parts = np.split(keep, np.cumsum(data.chunks[0])[:-1])
    there = [number for number, part in enumerate(parts) if part.any()]
    chunks = (tuple(int(parts[number].sum()) for number in there), *data.chunks[1:])

    def rows(block: npt.NDArray[Any], block_id: tuple[int, ...]) -> npt.NDArray[Any]:
        return block[parts[there[block_id[0]]]]

    return variable._replace(data=data.blocks[there].map_blocks(rows, chunks=chunks, dtype=data.dtype))
