"""Columns of the manifest that a build adds, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from cellcube.pixels import MEASURES

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
    "voxel_size_z": "Voxel size along z in µm, NaN where unknown",
    "voxel_size_y": "Voxel size along y in µm, NaN where unknown",
    "voxel_size_x": "Voxel size along x in µm, NaN where unknown",
    "padded_fraction": "Share of the crop's voxels that are outside the image",
    "shifted": "Whether the crop was moved to stay inside the image",
    "oversize": "Whether the cell is larger than the crop, so that it is cut",
}


def geometry_and_measures(channels: Sequence[str]) -> dict[str, str]:
    """Columns that a build adds to the manifest, with what they mean."""
    columns = dict(GEOMETRY)
    for name, meaning in MEASURES.items():
        if "{channel}" not in name:
            columns[name] = meaning
            continue
        for channel in channels:
            columns[name.format(channel=channel)] = meaning.replace("the channel", channel)
    for bound in ("low", "high"):
        for channel in channels:
            stored = "0" if bound == "low" else "the highest value"
            columns[f"norm_{bound}_{channel}"] = f"Intensity of {channel} that is stored as {stored}"
    return columns
