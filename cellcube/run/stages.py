"""From a crop to what is stored of it: masks, normalization, projections, in every representation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellcube.cube import Layout
from cellcube.errors import CellError, UserFunctionError
from cellcube.functions import UserFunction
from cellcube.pixels import Normalization, checked_pixels, project, weights_of, without_neighbours
from cellcube.run.calls import call
from cellcube.run.field import Field, PlacedCell
from cellcube.spec import CubeSpec, Mask, Pipeline

Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Masks:
    """Which voxels of a crop belong to what.

    Parameters
    ----------
    cell : ndarray of bool, shape (z, y, x), optional
        The cell's label; None where cells are not given by labels.
    others : dict
        The same of further label images, by their names.
    own : ndarray of bool, shape (z, y, x), optional
        What belongs to no other label; None where neighbours are kept.
    image : ndarray of bool, shape (z, y, x), optional
        What is inside the image; None where all is.
    """

    cell: Pixels | None
    others: Mapping[str, Pixels]
    own: Pixels | None
    image: Pixels | None

    @classmethod
    def of(cls, field: Field, cell: PlacedCell, neighbours: bool) -> Masks:
        """The masks of a cell's crop; what is its own only with `neighbours`."""
        image = cell.placement.inside_image()
        if field.labels is None:
            return cls(None, {}, None, image)
        labels = cell.placement.labels(field.labels)
        others = {}
        for name, more in field.more_labels.items():
            number = int(cell.row.get(f"label_{name}", cell.label))
            # 0 is the background: the cell has no such object.
            others[name] = (cell.placement.labels(more) == number) & (number > 0)
        own = without_neighbours(labels, cell.label) if neighbours else None
        return cls(labels == cell.label, others, own, image)

    def arrays(self) -> dict[str, Pixels]:
        """What is stored, by the names of the cube's arrays."""
        if self.cell is None:
            return {}
        return {"mask": self.cell, **{f"mask_{name}": mask for name, mask in self.others.items()}}


class Stages:
    """Everything that becomes of a crop.

    Parameters
    ----------
    spec : CubeSpec
    layout : Layout
    """

    def __init__(self, spec: CubeSpec, layout: Layout) -> None:
        self.spec = spec
        self.layout = layout
        self.needs_own = any(each.neighbours == "remove" for each in spec.pipelines().values())
        self._normalizations = {}
        for name, pipeline in spec.pipelines().items():
            given = pipeline.normalize
            normalizers = given if isinstance(given, UserFunction) else pipeline.normalizers(layout.channels)
            self._normalizations[name] = Normalization(normalizers, np.dtype(layout.representations[name].dtype))

    def __call__(
        self,
        field: Field,
        cell: PlacedCell,
        row: dict[str, Any],
        crop: Pixels,
        masks: Masks,
        bounds: Mapping[str, Sequence[tuple[float, float] | None]],
    ) -> tuple[dict[str, Pixels], dict[str, float]]:
        """What is stored of a crop.

        Parameters
        ----------
        field : Field
        cell : PlacedCell
        row : dict
            The cell's manifest row, for functions.
        crop : ndarray, shape (c, z, y, x)
        masks : Masks
        bounds : mapping
            Of `Field.bounds`.

        Returns
        -------
        images : dict
            By the names of the cube's arrays.
        columns : dict
            Of the manifest.

        Raises
        ------
        CellError
            Where nothing of the cell is in the crop, or a function fails.
        """
        images = masks.arrays()
        columns: dict[str, float] = {}
        for name, pipeline in self.spec.pipelines().items():
            counted, weights = self._coverage(field, cell, row, crop, masks, pipeline)
            done = self._normalizations[name](crop, counted, row, weights=weights, fitted=bounds[name])
            images[name] = done.pixels
            suffix = "" if name == "cells" else f"_{name}"
            for number, channel in enumerate(self.layout.channels):
                columns[f"norm_low{suffix}_{channel}"] = float(done.low[number])
                columns[f"norm_high{suffix}_{channel}"] = float(done.high[number])
                columns[f"clipped{suffix}_{channel}"] = float(done.clipped[number])
            for projection in pipeline.projections:
                if isinstance(projection, UserFunction):
                    short, projected = projection.short_name, self._projected(projection, done.pixels, row)
                else:
                    short = projection
                    projected = project(done.pixels, projection, cell.placement.target, cell.placement.valid())
                images[short if name == "cells" else f"{name}_{short}"] = projected
        return images, columns

    def _projected(self, function: UserFunction, pixels: Pixels, row: Mapping[str, Any]) -> Pixels:
        returned = np.asarray(call("projections", function, row, pixels.copy()))
        shape = (len(pixels), *pixels.shape[2:])
        return checked_pixels(returned, shape, pixels.dtype, function.name, str(row["cell_id"]), "projections")

    def _coverage(
        self, field: Field, cell: PlacedCell, row: Mapping[str, Any], crop: Pixels, masks: Masks, pipeline: Pipeline
    ) -> tuple[list[Pixels | None], list[Pixels | None] | None]:
        """The voxels that count and the weights of each channel."""
        found: dict[Any, tuple[Pixels | None, Pixels | None]] = {}
        rules = pipeline.masks(self.layout.channels)
        for rule in rules:
            if rule in found:
                continue
            if isinstance(rule, UserFunction):
                weights: Pixels | None = self._weights(rule, crop, masks, row)
            else:
                weights = self._by_rule(rule, masks, field, cell)
            counted = weights if weights is None or weights.dtype == bool else weights > 0
            for part in (masks.image, masks.own if pipeline.neighbours == "remove" else None):
                if part is not None:
                    counted = part if counted is None else counted & part
            if counted is not None and not counted.any():
                raise CellError("The crop holds no voxel of the cell.")
            found[rule] = (counted, None if weights is None or weights.dtype == bool else weights)
        soft = [found[rule][1] for rule in rules]
        return [found[rule][0] for rule in rules], soft if any(each is not None for each in soft) else None

    def _by_rule(self, rule: Mask, masks: Masks, field: Field, cell: PlacedCell) -> Pixels | None:
        if rule.method == "none" or masks.cell is None:
            return None
        inside = masks.cell if rule.labels is None else masks.others[rule.labels]
        weights: Pixels | None = weights_of(rule, inside, cell.placement.geometry(field.fov.voxel_size).voxel_size)
        return weights

    def _weights(self, function: UserFunction, crop: Pixels, masks: Masks, row: Mapping[str, Any]) -> Pixels:
        mask = masks.cell.copy() if masks.cell is not None else None
        returned = np.asarray(call("mask", function, row, mask, crop.copy(), row))
        if returned.dtype == bool and returned.shape == crop.shape[1:]:
            return returned
        name, cell_id = function.name, str(row["cell_id"])
        weights = checked_pixels(returned, crop.shape[1:], np.dtype("float32"), name, cell_id, "mask")
        if weights.min() < 0 or weights.max() > 1:
            raise UserFunctionError(
                f"mask: {name} returned weights from {weights.min():g} to {weights.max():g}; 0 to 1 are needed.",
                cell_id=cell_id,
            )
        return weights
