"""Images: one Protocol, `FovReader`, and the readers that meet it."""

from cellcube.images.array import ArrayFov
from cellcube.images.omezarr import OmeZarrReader
from cellcube.images.protocol import FovReader, ImageSource, Pixels, ReaderFactory, Region, VoxelSize
from cellcube.images.registry import READERS, find_reader, open_image
from cellcube.images.voxels import ImplausibleVoxelSizeWarning, check_voxel_size

__all__ = [
    "READERS",
    "ArrayFov",
    "FovReader",
    "ImageSource",
    "ImplausibleVoxelSizeWarning",
    "OmeZarrReader",
    "Pixels",
    "ReaderFactory",
    "Region",
    "VoxelSize",
    "check_voxel_size",
    "find_reader",
    "open_image",
]
