"""Pure NumPy: where a crop lies, what is cut out, how it is normalized, projected and measured. No I/O."""

from cellcube.pixels.align import extent_along, major_axis_angle, skew_flips
from cellcube.pixels.geometry import Geometry
from cellcube.pixels.illumination import Correction
from cellcube.pixels.masks import weights_of, without_neighbours
from cellcube.pixels.measure import MEASURES, OF_CHANNELS, box_of_labels, measure_cell, surroundings
from cellcube.pixels.normalize import Normalization, Normalized, checked_pixels, stored_scale
from cellcube.pixels.project import project, projection_axes, projection_dtype, projection_shape
from cellcube.pixels.resample import Sampling, place_sampling
from cellcube.pixels.select import Box, Dropped, Placement, Window, cut, place_window, window_at
from cellcube.pixels.shapes import LabelShape, shapes_of_labels
from cellcube.pixels.statistics import PixelCounts, bounds_of, merged
from cellcube.pixels.tiles import around, needed_parts

__all__ = [
    "MEASURES",
    "OF_CHANNELS",
    "Box",
    "Correction",
    "Dropped",
    "Geometry",
    "LabelShape",
    "Normalization",
    "Normalized",
    "PixelCounts",
    "Placement",
    "Sampling",
    "Window",
    "around",
    "bounds_of",
    "box_of_labels",
    "checked_pixels",
    "cut",
    "extent_along",
    "major_axis_angle",
    "measure_cell",
    "merged",
    "needed_parts",
    "place_sampling",
    "place_window",
    "project",
    "projection_axes",
    "projection_dtype",
    "projection_shape",
    "shapes_of_labels",
    "skew_flips",
    "stored_scale",
    "surroundings",
    "weights_of",
    "window_at",
    "without_neighbours",
]
