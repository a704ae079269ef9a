"""Columns of the manifest that a build adds, and what they mean."""

from __future__ import annotations

from cellcube.cube import Layout, channel_coordinates
from cellcube.pixels import MEASURES, OF_CHANNELS

# Columns of the manifest that tell where a crop lies in its FOV.
GEOMETRY: dict[str, str] = {
    "z0": "First voxel of the cell's box along z, in FOV voxels",
    "z1": "Voxel after the last of the cell's box along z",
    "y0": "First voxel of the cell's box along y, in FOV voxels",
    "y1": "Voxel after the last of the cell's box along y",
    "x0": "First voxel of the cell's box along x, in FOV voxels",
    "x1": "Voxel after the last of the cell's box along x",
    "origin_z": "FOV voxel of the crop's first voxel along z; negative outside the image",
    "origin_y": "FOV voxel of the crop's first voxel along y; negative outside the image",
    "origin_x": "FOV voxel of the crop's first voxel along x; negative outside the image",
    "voxel_size_z": "Voxel size of the crop along z in µm, NaN where unknown",
    "voxel_size_y": "Voxel size of the crop along y in µm, NaN where unknown",
    "voxel_size_x": "Voxel size of the crop along x in µm, NaN where unknown",
    "padded_fraction": "Share of the crop's voxels that are outside the image",
    "truncated_fraction": "Share of the cell's voxels that are not in the crop",
    "shifted": "Whether the crop was moved to stay inside the image",
    "shift_z": "FOV voxels by which the crop was moved along z to stay inside the image",
    "shift_y": "FOV voxels by which the crop was moved along y to stay inside the image",
    "shift_x": "FOV voxels by which the crop was moved along x to stay inside the image",
    "oversize": "Whether the cell is larger than the crop, so that it is cut",
}
# Where crops are resampled.
INTERPOLATION: dict[str, str] = {
    "scale_z": "FOV voxels that one voxel of the crop spans along its z",
    "scale_y": "FOV voxels that one voxel of the crop spans along its y",
    "scale_x": "FOV voxels that one voxel of the crop spans along its x",
    "rotation": "Degrees from the FOV's x axis to the crop's, towards y",
    "flip_y": "Whether the crop is mirrored along y",
    "flip_x": "Whether the crop is mirrored along x",
}


def measured(layout: Layout) -> dict[str, str]:
    """Columns that are known of a cell before it is normalized, with what they mean."""
    columns = dict(GEOMETRY)
    if layout.interpolated:
        columns.update(INTERPOLATION)
    for name, meaning in MEASURES.items():
        if name in OF_CHANNELS and not layout.channel_measures:
            continue
        if "{channel}" not in name:
            columns[name] = meaning
            continue
        for channel in layout.channels:
            columns[name.format(channel=channel)] = meaning.replace("the channel", channel)
    return columns


def added(layout: Layout) -> dict[str, str]:
    """All columns that a build adds to the manifest, with what they mean."""
    columns = measured(layout)
    meanings = {
        "norm_low": "Intensity of {channel} that is stored as 0",
        "norm_high": "Intensity of {channel} that is stored as the highest value",
        "clipped": "Share of the crop's pixels of {channel} that were clipped",
    }
    for name in channel_coordinates(layout):
        kind = next(known for known in meanings if name.startswith(known))
        where = name.removeprefix(kind).removeprefix("_")
        for channel in layout.channels:
            meaning = meanings[kind].format(channel=channel)
            columns[f"{name}_{channel}"] = f"{meaning}, in {where!r}" if where else meaning
    if layout.has_split:
        columns["split"] = "Part of the data, for training and testing"
    return columns
