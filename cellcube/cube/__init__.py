"""The cube: one Zarr v3 group that is an xarray dataset and an OME-Zarr 0.5 image."""

from cellcube.cube.layout import ArrayLayout, Layout, Representation
from cellcube.cube.objects import StoreObject, damaged_cells, first_cells, same_rows, store_object
from cellcube.cube.shards import PieceWriter
from cellcube.cube.store import (
    FORMAT,
    CubeState,
    ShardPart,
    commit,
    coordinate_chunks,
    existing_state,
    read_state,
    retracted_chunks,
    shard_parts,
    write_shard,
)
from cellcube.cube.template import (
    CHANNEL_COORDINATES,
    cell_coordinates,
    channel_coordinates,
    metadata_documents,
)

__all__ = [
    "CHANNEL_COORDINATES",
    "FORMAT",
    "ArrayLayout",
    "CubeState",
    "Layout",
    "PieceWriter",
    "Representation",
    "ShardPart",
    "StoreObject",
    "cell_coordinates",
    "channel_coordinates",
    "commit",
    "coordinate_chunks",
    "damaged_cells",
    "existing_state",
    "first_cells",
    "metadata_documents",
    "read_state",
    "retracted_chunks",
    "same_rows",
    "shard_parts",
    "store_object",
    "write_shard",
]
