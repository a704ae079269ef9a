"""Normalizers: how intensities become comparable, and over which pixels their statistics are taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, InstanceOf, Tag, field_validator, model_validator

from cellcube.functions import UserFunction
from cellcube.spec.values import Finite, Name, Value, described, is_function


class Group(Value):
    """Statistics over all pixels of the fields of view that share a value.

    Parameters
    ----------
    by : tuple of str
        Columns of the cell table, such as ``plate``. None: all fields are one group.
    where : str, optional
        A condition on columns of the cell table, in pandas' query syntax: only fields that meet it are counted, such
        as control wells. The statistics apply to every field of the group.
    """

    by: tuple[Name, ...] = ()
    where: Name | None = None

    @field_validator("by", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.by and self.where is None:
            raise ValueError("give columns (by), a condition (where), or both; for all fields, write 'dataset'")
        return self


def _scope_form(value: Any) -> str:
    return "group" if isinstance(value, Mapping | Group) else "word"


Scope = Annotated[
    Annotated[Literal["cell", "fov", "dataset"], Tag("word")] | Annotated[Group, Tag("group")],
    Discriminator(_scope_form),
]


class Percentile(Value):
    """Linear between two percentiles, clipped to 0..1.

    Percentiles interpolate linearly between order statistics (NumPy's default; Hyndman and Fan 1996, type 7).
    """

    method: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, le=100)] = 1.0
    high: Annotated[float, Field(ge=0, le=100)] = 99.9
    scope: Scope = "cell"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self.low, self.high)
        return self


class MinMax(Value):
    """Linear between the lowest and the highest pixel, clipped to 0..1."""

    method: Literal["minmax"] = "minmax"
    scope: Scope = "cell"


class Range(Value):
    """Linear between two given intensities, clipped to 0..1; the same for all cells."""

    method: Literal["range"] = "range"
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self.low, self.high)
        return self


class ZScore(Value):
    """``(x - mean) / standard deviation``, not clipped. The deviation is that of the population (divided by n)."""

    method: Literal["zscore"] = "zscore"
    scope: Scope = "cell"


class RobustZScore(Value):
    """``(x - median) / (1.4826 * MAD)``, not clipped; MAD is the median absolute deviation from the median.

    The factor makes it the standard deviation of a normal distribution (Rousseeuw and Croux 1993).
    """

    method: Literal["robust_zscore"] = "robust_zscore"
    scope: Scope = "cell"


class TransmittedLight(Value):
    """``(x - mean) / (10 * standard deviation) + 0.5``, clipped to 0..1: `trans` of the Allen Institute's actk."""

    method: Literal["trans"] = "trans"
    scope: Scope = "cell"


class BackgroundSubtracted(Value):
    """`img_bg_sub` of the Allen Institute's actk: smoothed, the median subtracted, divided by the maximum, clipped.

    ``s = gaussian(x, sigma)``; ``clip((s - median(s)) / (max(s) - median(s)), 0, 1)``. Smoothing cannot be undone.
    """

    method: Literal["img_bg_sub"] = "img_bg_sub"
    sigma: Annotated[float, Field(ge=0, le=100)] = 0.5
    scope: Literal["cell"] = "cell"


class Arcsinh(Value):
    """``arcsinh((x - offset) / cofactor)``, not clipped: linear near `offset`, logarithmic far above it."""

    method: Literal["arcsinh"] = "arcsinh"
    cofactor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 100.0
    offset: Finite = 0.0


class Log(Value):
    """``ln(x + offset)``, not clipped. Pixels must be above ``-offset``."""

    method: Literal["log"] = "log"
    offset: Finite = 1.0


class Raw(Value):
    """The image's own pixels."""

    method: Literal["none"] = "none"


Method = (
    Percentile | MinMax | Range | ZScore | RobustZScore | TransmittedLight | BackgroundSubtracted | Arcsinh | Log | Raw
)
METHODS = {
    "percentile": Percentile,
    "minmax": MinMax,
    "range": Range,
    "zscore": ZScore,
    "robust_zscore": RobustZScore,
    "trans": TransmittedLight,
    "img_bg_sub": BackgroundSubtracted,
    "arcsinh": Arcsinh,
    "log": Log,
    "none": Raw,
}
# What they give is below 0 and above 1.
UNBOUNDED = (ZScore, RobustZScore, Arcsinh, Log)

ByMethod = Annotated[Method, Field(discriminator="method")]


def _one_form(value: Any) -> str:
    return "function" if isinstance(value, UserFunction) else "method"


# One channel's normalizer.
Normalizer = Annotated[
    Annotated[ByMethod, Tag("method")] | Annotated[InstanceOf[UserFunction], Tag("function")],
    Discriminator(_one_form),
]


def _normalize_form(value: Any) -> str:
    if isinstance(value, UserFunction):
        return "function"
    return "channels" if isinstance(value, Mapping) and "method" not in value else "all"


Normalize = Annotated[
    Annotated[ByMethod, Tag("all")]
    | Annotated[dict[str, Normalizer], Tag("channels")]
    | Annotated[InstanceOf[UserFunction], Tag("function")],
    Discriminator(_normalize_form),
]


def written_out(value: Any) -> Any:
    """The short forms of `normalize` written out: names, None, functions."""
    value = described(value)
    if value is None or isinstance(value, str):
        return {"method": value or "none"}
    if isinstance(value, Mapping) and not value:
        raise ValueError("give one normalizer, or one for each channel")
    if isinstance(value, Mapping) and "method" not in value and not is_function(value):
        return {name: written_out(each) if each != {} else each for name, each in value.items()}
    return value


def scope_of(normalizer: Method | UserFunction) -> Literal["cell", "fov", "dataset"] | Group:
    """Over which pixels the statistics of a normalizer are taken."""
    return getattr(normalizer, "scope", "cell")


def _check_order(low: float, high: float) -> None:
    if low >= high:
        raise ValueError(f"low ({low}) must be below high ({high})")
