"""The spec of a cube: frozen values, YAML, digest."""

from cellcube.spec.cube import CubeSpec, Storage
from cellcube.spec.normalizers import (
    METHODS,
    UNBOUNDED,
    Arcsinh,
    BackgroundSubtracted,
    Group,
    Log,
    Method,
    MinMax,
    Normalizer,
    Percentile,
    Range,
    Raw,
    RobustZScore,
    TransmittedLight,
    ZScore,
    scope_of,
)
from cellcube.spec.people import Author
from cellcube.spec.pipelines import Illumination, Mask, Pipeline, Split, is_projection
from cellcube.spec.values import plain

__all__ = [
    "METHODS",
    "UNBOUNDED",
    "Arcsinh",
    "Author",
    "BackgroundSubtracted",
    "CubeSpec",
    "Group",
    "Illumination",
    "Log",
    "Mask",
    "Method",
    "MinMax",
    "Normalizer",
    "Percentile",
    "Pipeline",
    "Range",
    "Raw",
    "RobustZScore",
    "Split",
    "Storage",
    "TransmittedLight",
    "ZScore",
    "is_projection",
    "plain",
    "scope_of",
]
