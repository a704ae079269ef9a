"""A field of view in memory: where its cells lie, what is measured of them, what is cut out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from cellcube.errors import CellError, LabelNotFoundError, StatisticsError, UserFunctionError
from cellcube.functions import UserFunction
from cellcube.images.fov import Fov
from cellcube.pixels import (
    Box,
    Correction,
    Placement,
    Window,
    around,
    bounds_of,
    checked_pixels,
    extent_along,
    major_axis_angle,
    measure_cell,
    needed_parts,
    place_sampling,
    place_window,
    shapes_of_labels,
    skew_flips,
    surroundings,
    window_at,
)
from cellcube.plan import Lighting, correction_of, count_volume
from cellcube.run.calls import call
from cellcube.spec import CubeSpec, scope_of

Pixels = np.ndarray[Any, Any]
Bounds = Mapping[str, Mapping[str, tuple[float, float] | None]]


# Parts of one image that are read at one time.
_READERS = 8


@dataclass(frozen=True)
class PlacedCell:
    """A cell and where its crop lies.

    Parameters
    ----------
    row : dict
        Of the cell table, with its `fov_id`.
    box : Box
        Of the cell, in FOV voxels.
    placement : Placement
        Of the crop.
    """

    row: dict[str, Any]
    box: Box
    placement: Placement

    @property
    def label(self) -> int:
        """The cell's number in the label image; 0 where there is none."""
        return int(self.row.get("label", 0))


class Field:
    """An open field of view, its labels, and the part of its pixels that its cells need.

    Parameters
    ----------
    fov : Fov
    spec : CubeSpec
    shape : tuple of int
        Of a crop.
    lights : mapping
        Illumination images by channel.
    """

    def __init__(self, fov: Fov, spec: CubeSpec, shape: tuple[int, int, int], lights: Mapping[str, Lighting]) -> None:
        self.fov = fov
        self.spec = spec
        self.shape = shape
        self.labels = fov.read_labels() if fov.has_labels else None
        self.more_labels = {name: fov.read_labels(name) for name in spec.label_images} if fov.has_labels else {}
        self.shapes = shapes_of_labels(self.labels) if self.labels is not None else {}
        self.corrections: list[Correction | None] = [
            correction_of(lights.get(name), fov.shape) for name in fov.channels
        ]
        self.volumes: tuple[Pixels, ...] = ()
        self.read_bytes = sum(each.nbytes for each in (self.labels, *self.more_labels.values()) if each is not None)
        self.offset = (0, 0, 0)
        _, y, x = fov.voxel_size
        self.plane_spacing = (1.0, 1.0) if math.isnan(y) or math.isnan(x) else (y, x)

    # --- where cells lie ------------------------------------------------------------------------------------

    def place(self, row: dict[str, Any]) -> PlacedCell:
        """Where a cell lies, as far as labels tell.

        Raises
        ------
        Dropped
            Where the spec's `edge` or `oversize` says so.
        CellError
            Where the cell cannot be in this field.
        """
        box = self._box(row)
        if box is None:
            centre = (
                float(row.get("center_z", (self.fov.shape[0] - 1) / 2)),
                float(row["center_y"]),
                float(row["center_x"]),
            )
            window = window_at(centre, self.shape, self.fov.shape, "pad" if self.spec.interpolates else self.spec.edge)
            if not self.spec.interpolates:
                return PlacedCell(row, _inner(window), window)
            placement = self._sampling(centre, None)
            return PlacedCell(row, self._around(placement), placement)
        return PlacedCell(row, box, self._placement(row, box))

    def _box(self, row: Mapping[str, Any]) -> Box | None:
        if self.labels is not None:
            shape = self.shapes.get(int(row["label"]))
            if shape is None:
                raise LabelNotFoundError(
                    f"Label {row['label']} is not in the label image, which has {len(self.shapes)} labels"
                    + (f" from {min(self.shapes)} to {max(self.shapes)}." if self.shapes else "."),
                )
            return shape.box
        if "y0" not in row:
            return None
        return Box(
            (int(row.get("z0", 0)), int(row["y0"]), int(row["x0"])),
            (int(row.get("z1", self.fov.shape[0])), int(row["y1"]), int(row["x1"])),
        )

    def _around(self, placement: Placement) -> Box:
        """The part of the image that a crop reaches over."""
        low, high = placement.geometry(self.fov.voxel_size).outline(self.shape)
        start = np.maximum(np.floor(low + 0.5 + 1e-6), 0).astype(int)
        stop = np.minimum(np.ceil(high + 0.5 - 1e-6), self.fov.shape).astype(int)
        z, y, x = zip(start.tolist(), stop.tolist(), strict=True)
        return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))

    def _placement(
        self, row: Mapping[str, Any], box: Box, rotation: float | None = None, flips: tuple[bool, bool] = (False, False)
    ) -> Placement:
        spec = self.spec
        # A crop of one plane is cut from a volume without being shrunk.
        axes = range(3) if self.shape[0] > 1 else (1, 2)
        fits = all(box.size[axis] <= self.shape[axis] for axis in axes)
        if not spec.interpolates or (spec.voxel_size is None and spec.align == "none" and fits):
            oversize = "crop" if spec.oversize == "shrink" else spec.oversize
            return place_window(box, self.shape, self.fov.shape, spec.edge, oversize)
        if self.labels is None:
            place_window(box, self.shape, self.fov.shape)  # refuses a box outside the image
            inside = np.ones(box.size, bool)
        else:
            inside = self.labels[box.slices] == row["label"]
        if rotation is None:
            rotation = major_axis_angle(inside, self.plane_spacing) if spec.align == "major_axis" else 0.0
        centre, extent = extent_along(inside, box.start, rotation, self.fov.voxel_size, self._target())
        return self._sampling(centre, extent, rotation, flips)

    def _sampling(
        self,
        centre: tuple[float, float, float],
        extent: tuple[float, float, float] | None,
        rotation: float = 0.0,
        flips: tuple[bool, bool] = (False, False),
    ) -> Placement:
        return place_sampling(
            centre,
            extent,
            self.shape,
            self.fov.shape,
            self.fov.voxel_size,
            self._target(),
            rotation=rotation,
            flip_y=flips[0],
            flip_x=flips[1],
            edge=self.spec.edge,
            oversize=self.spec.oversize,
            order=self.spec.order,
        )

    def _target(self) -> tuple[float | None, float, float] | None:
        if self.spec.voxel_size is None:
            return None
        z, y, x = self.spec.voxel_size
        return (None if self.fov.shape[0] == 1 else z, y, x)

    def turn(self, cell: PlacedCell) -> PlacedCell:
        """The cell with the angle and the mirroring that its intensities tell; for fields whose pixels are loaded."""
        spec = self.spec
        if spec.flip is None and not isinstance(spec.align, UserFunction):
            return cell
        assert self.labels is not None, "checked with the table"
        inside = self.labels[cell.box.slices] == cell.label
        rotation = cell.placement.geometry(self.fov.voxel_size).rotation
        if isinstance(spec.align, UserFunction):
            told = call("align", spec.align, cell.row, inside.copy(), self.block(cell.box), cell.row)
            try:
                rotation = float(told)
            except (TypeError, ValueError):
                rotation = math.nan
            if not math.isfinite(rotation):
                raise UserFunctionError(f"align: {spec.align.name} returned {told!r}; an angle in degrees is needed.")
        flips = (False, False)
        if spec.flip is not None:
            channel = self.fov.channels.index(spec.flip) if isinstance(spec.flip, str) else spec.flip
            flips = skew_flips(self.block(cell.box)[channel], inside, rotation, self.plane_spacing)
        return replace(cell, placement=self._placement(cell.row, cell.box, rotation, flips))

    # --- pixels ---------------------------------------------------------------------------------------------

    def load(self, cells: Sequence[PlacedCell]) -> None:
        """Read the part of the field that the cells need; all of it where statistics are of the whole field."""
        boxes = [Box((0, 0, 0), self.fov.shape)]
        if not isinstance(self.spec.align, UserFunction) and not self._field_scopes():
            boxes = [surroundings(cell.box, self.fov.shape) for cell in cells]
            for cell in cells:
                z, y, x = cell.placement.source
                boxes.append(Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop)))
        region = around(boxes)
        parts = needed_parts(boxes, self.fov.tile)
        channels = range(len(self.fov.channels))
        self.offset = region.start
        self.read_bytes += len(channels) * self.fov.dtype.itemsize * sum(math.prod(part.size) for part in parts)
        if parts == [region]:
            self.volumes = tuple(self.fov.read(channel, region.slices) for channel in channels)
            return
        # What lies between the parts is never looked at.
        self.volumes = tuple(np.empty(region.size, self.fov.dtype) for _ in channels)

        def read(item: tuple[int, Box]) -> None:
            channel, part = item
            pixels = self.fov.read(channel, part.slices)
            self.volumes[channel][part.within(region).slices] = pixels

        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(read, product(channels, parts)))

    def _field_scopes(self) -> bool:
        return any(
            scope_of(each) == "fov"
            for pipeline in self.spec.pipelines().values()
            for each in pipeline.normalizers(self.fov.channels)
        )

    def bounds(self, fitted: Bounds) -> dict[str, list[tuple[float, float] | None]]:
        """(low, high) of each channel by representation, where they are not the cell's own.

        Raises
        ------
        StatisticsError
            Where statistics of the field's group could not be fitted.
        """
        counts: dict[int, Any] = {}
        found: dict[str, list[tuple[float, float] | None]] = {}
        for name, pipeline in self.spec.pipelines().items():
            found[name] = []
            for channel, normalizer in enumerate(pipeline.normalizers(self.fov.channels)):
                label = self.fov.channels[channel]
                if isinstance(normalizer, UserFunction) or scope_of(normalizer) == "cell":
                    found[name].append(None)
                elif scope_of(normalizer) == "fov":
                    if channel not in counts:
                        counts[channel] = count_volume(self.volumes[channel], self.corrections[channel], (0, 0))
                    found[name].append(bounds_of(normalizer, counts[channel]))
                else:
                    bounds = fitted.get(name, {}).get(label)
                    if bounds is None:
                        raise StatisticsError(
                            f"The statistics of channel {label!r} could not be fitted: no FOV of its group can be "
                            "read.",
                            fov_id=self.fov.fov_id,
                        )
                    found[name].append(bounds)
        return found

    def block(self, box: Box) -> Pixels:
        """Intensities (c, z, y, x) of a box inside what was loaded, after illumination correction."""
        z, y, x = (
            slice(first - start, last - start)
            for first, last, start in zip(box.start, box.stop, self.offset, strict=True)
        )
        if any(self.corrections):
            return np.stack([self._corrected(channel, (z, y, x)) for channel in range(len(self.volumes))])
        block = np.empty((len(self.volumes), *box.size), self._dtype)
        for out, volume in zip(block, self.volumes, strict=True):
            out[...] = volume[z, y, x]
        return block

    def _corrected(self, channel: int, part: tuple[slice, slice, slice]) -> Pixels:
        pixels: Pixels = self.volumes[channel][part]
        correction = self.corrections[channel]
        if correction is not None:
            pixels = correction.apply(pixels, (self.offset[1] + part[1].start, self.offset[2] + part[2].start))
        return pixels

    def crop(self, cell: PlacedCell) -> Pixels:
        """The crop (c, z, y, x) of a cell, before masks and normalization.

        Raises
        ------
        CellError
            Where it holds pixels that are not finite, or the function that preprocesses fails.
        """
        placement = cell.placement
        if isinstance(placement, Window) and not any(self.corrections):
            crop = np.empty((len(self.volumes), *placement.shape), self._dtype)
            placement.put(self.volumes, self.offset, crop)
        else:
            crop = np.stack([self._placed(channel, placement) for channel in range(len(self.volumes))])
        if crop.dtype.kind == "f" and not np.isfinite(crop).all():
            raise CellError("The crop holds pixels that are not finite.")
        if self.spec.preprocess is not None:
            function = self.spec.preprocess
            returned = np.asarray(call("preprocess", function, cell.row, crop.copy(), cell.row))
            crop = checked_pixels(
                returned, crop.shape, np.dtype("float32"), function.name, str(cell.row["cell_id"]), "preprocess"
            )
        return crop

    def _placed(self, channel: int, placement: Placement) -> Pixels:
        correction, volume = self.corrections[channel], self.volumes[channel]
        if correction is None:
            return placement.pixels(volume, self.offset)
        z, y, x = placement.source
        start = (z.start, y.start, x.start)
        part = tuple(
            slice(each.start - first, each.stop - first)
            for each, first in zip(placement.source, self.offset, strict=True)
        )
        return placement.pixels(correction.apply(volume[part], (y.start, x.start)), start)

    # --- measures -------------------------------------------------------------------------------------------

    def measure(self, cell: PlacedCell) -> dict[str, Any]:
        """Geometry and measures of a cell, by column."""
        box, placement, fov = cell.box, cell.placement, self.fov
        around = surroundings(box, fov.shape)
        labels = self.labels[around.slices] if self.labels is not None else None
        measures = measure_cell(
            self.block(around) if self.spec.channel_measures else None,
            labels,
            cell.label,
            box,
            around,
            fov.shape,
            fov.voxel_size,
            fov.channels,
            self._saturations,
            self.shapes.get(cell.label),
        )
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        shift_z, shift_y, shift_x = map(float, placement.shift)
        return {
            "z0": z0,
            "z1": z1,
            "y0": y0,
            "y1": y1,
            "x0": x0,
            "x1": x1,
            **placement.geometry(fov.voxel_size).columns(self.spec.interpolates),
            "padded_fraction": placement.padded_fraction,
            "truncated_fraction": self._truncated(cell, measures["area_voxels"]),
            "shifted": placement.shifted,
            "shift_z": shift_z,
            "shift_y": shift_y,
            "shift_x": shift_x,
            "oversize": placement.oversize,
            **measures,
        }

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        """Of blocks and crops; known where pixels are loaded."""
        return np.result_type(*self.volumes)

    @cached_property
    def _saturations(self) -> list[float]:
        """The intensity of each channel from which a voxel is saturated, NaN where none is known."""
        return [self._saturation(channel) for channel in range(len(self.volumes))]

    def _saturation(self, channel: int) -> float:
        if self.corrections[channel] is not None:
            # Of corrected intensities it cannot be told.
            return math.nan
        if self.spec.saturation is not None:
            return self.spec.saturation
        dtype = self.volumes[channel].dtype
        return float(np.iinfo(dtype).max) if dtype.kind in "iu" else math.nan

    def _truncated(self, cell: PlacedCell, count: int) -> float:
        """Share of the cell's voxels, of which there are `count`, that are not in its crop."""
        box, placement = cell.box, cell.placement
        if not isinstance(placement, Window):
            points = np.argwhere(self._is_cell(cell, box))
            return 1.0 - float(placement.holds(points + box.start).mean())
        within = _common(box, _inner(placement))
        if within == box:
            return 0.0
        return 1.0 - int(np.count_nonzero(self._is_cell(cell, within))) / count

    def _is_cell(self, cell: PlacedCell, box: Box) -> Pixels:
        """Which voxels of a box are the cell's: those of its label, or all."""
        if self.labels is None:
            return np.ones(box.size, bool)
        return np.equal(self.labels[box.slices], cell.label)


def _common(box: Box, other: Box) -> Box:
    """What is in both; of size 0 where they do not meet."""
    start = tuple(max(pair) for pair in zip(box.start, other.start, strict=True))
    stop = tuple(max(first, min(pair)) for first, *pair in zip(start, box.stop, other.stop, strict=True))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _inner(placement: Window) -> Box:
    """The part of a window that is inside the image."""
    z, y, x = placement.source
    return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
