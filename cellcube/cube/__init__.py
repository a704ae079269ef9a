"""The cube: one Zarr v3 group that is an xarray dataset and an OME-Zarr 0.5 image."""

from cellcube.cube.layout import ArrayLayout, Layout
from cellcube.cube.shards import PieceWriter
from cellcube.cube.store import (
    FORMAT,
    CubeState,
    ShardPart,
    commit,
    read_state,
    shard_parts,
    write_coordinates,
    write_shard,
)
from cellcube.cube.template import CELL_COORDINATES, CHANNEL_COORDINATES, metadata_documents

__all__ = [
    "CELL_COORDINATES",
    "CHANNEL_COORDINATES",
    "FORMAT",
    "ArrayLayout",
    "CubeState",
    "Layout",
    "PieceWriter",
    "ShardPart",
    "commit",
    "metadata_documents",
    "read_state",
    "shard_parts",
    "write_coordinates",
    "write_shard",
]
