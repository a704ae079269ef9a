"""Pure NumPy: where a crop lies, what is cut out, how it is normalized, projected and measured. No I/O."""

from cellcube.pixels.measure import MEASURES, box_of_labels, measure_cell
from cellcube.pixels.normalize import Normalization, exact_percentiles, stored_scale
from cellcube.pixels.project import project, projection_dtype, projection_shape
from cellcube.pixels.select import Box, Dropped, Window, cut, place_window, window_at

__all__ = [
    "MEASURES",
    "Box",
    "Dropped",
    "Normalization",
    "Window",
    "box_of_labels",
    "cut",
    "exact_percentiles",
    "measure_cell",
    "place_window",
    "project",
    "projection_dtype",
    "projection_shape",
    "stored_scale",
    "window_at",
]
