"""What is measured of each cell before it is cut out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.pixels.select import Box, Triple

Pixels = npt.NDArray[Any]

# Columns of `measure_cell`, with what they mean; `{channel}` stands for each channel's name.
MEASURES: dict[str, str] = {
    "area_voxels": "Number of voxels of the label, or of the box where there is no label",
    "area_um2": "Area of the label in µm², for FOVs of one plane; NaN where the voxel size is unknown",
    "volume_um3": "Volume of the label in µm³, for FOVs of several planes; NaN where the voxel size is unknown",
    "centroid_z": "Mean z of the label's voxels, in FOV voxels",
    "centroid_y": "Mean y of the label's voxels, in FOV voxels",
    "centroid_x": "Mean x of the label's voxels, in FOV voxels",
    "touches_border": "Whether the label touches the border of the FOV (along z too where it has several planes)",
    "intensity_mean_{channel}": "Mean intensity of the channel within the label, before normalization",
    "intensity_max_{channel}": "Highest intensity of the channel within the label, before normalization",
}

# Above this, a table indexed by label would be larger than the image.
_HIGHEST_DENSE_LABEL = 1 << 22


def box_of_labels(labels: Pixels, offset: Triple = (0, 0, 0)) -> dict[int, Box]:
    """The box of every label in a label image, 0 being the background.

    Parameters
    ----------
    labels : ndarray of integers, shape (z, y, x)
    offset : tuple of int
        FOV voxel (z, y, x) of the first voxel of `labels`.

    Returns
    -------
    dict
        Box in FOV voxels by label, ascending.
    """
    from scipy import ndimage

    if not labels.size:
        return {}
    names: Pixels | None = None
    if labels.dtype.kind == "i" and int(labels.min()) < 0:
        labels = np.where(labels < 0, 0, labels)
    if int(labels.max()) > _HIGHEST_DENSE_LABEL:
        names, dense = np.unique(labels, return_inverse=True)
        labels = dense.reshape(labels.shape).astype(np.int32)
        if names[0] != 0:
            # Without background, dense number 0 is a label.
            labels += 1
            names = np.concatenate([np.zeros(1, names.dtype), names])
    found = {}
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None:
            start = tuple(part.start + first for part, first in zip(place, offset, strict=True))
            stop = tuple(part.stop + first for part, first in zip(place, offset, strict=True))
            found[int(names[number]) if names is not None else number] = Box(start, stop)
    return found


def measure_cell(
    volumes: tuple[Pixels, ...],
    inside: Pixels | None,
    box: Box,
    offset: Triple,
    image_shape: Triple,
    voxel_size: tuple[float, float, float],
    channels: tuple[str, ...],
) -> dict[str, Any]:
    """Measure one cell in its field of view.

    Parameters
    ----------
    volumes : tuple of ndarray, each shape (z, y, x)
        Intensities, one a channel, of a part of the FOV that holds the box.
    inside : ndarray of bool, shape of the box, optional
        The label's voxels. None measures the whole box.
    box : Box
        In FOV voxels.
    offset : tuple of int
        FOV voxel of the first voxel of the volumes.
    image_shape : tuple of int
        Size (z, y, x) of the FOV.
    voxel_size : tuple of float
        (z, y, x) in µm, NaN where unknown.
    channels : tuple of str
        Names, one a volume.

    Returns
    -------
    dict
        By the names of `MEASURES`.
    """
    count = int(np.count_nonzero(inside)) if inside is not None else int(np.prod(box.size))
    depth_z, height, width = voxel_size
    several_planes = image_shape[0] > 1
    area = count * height * width
    row: dict[str, Any] = {
        "area_voxels": count,
        "area_um2": np.nan if several_planes else area,
        "volume_um3": area * depth_z if several_planes else np.nan,
    }
    for axis, letter in enumerate("zyx"):
        if inside is None:
            centre = (box.size[axis] - 1) / 2
        else:
            others = tuple(other for other in range(3) if other != axis)
            profile = np.count_nonzero(inside, axis=others)
            centre = float(profile @ np.arange(len(profile))) / count
        row[f"centroid_{letter}"] = box.start[axis] + centre
    axes = range(3) if several_planes else (1, 2)
    row["touches_border"] = any(box.start[axis] == 0 or box.stop[axis] == image_shape[axis] for axis in axes)
    z, y, x = (
        slice(start - first, stop - first) for start, stop, first in zip(box.start, box.stop, offset, strict=True)
    )
    for name, volume in zip(channels, volumes, strict=True):
        values = volume[z, y, x]
        if inside is not None:
            values = values[inside]
        row[f"intensity_mean_{name}"] = float(values.mean(dtype=np.float64))
        row[f"intensity_max_{name}"] = float(values.max())
    return row
