"""What becomes of a crop after it is cut: masks, normalization, projections; once or several times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, InstanceOf, Tag, field_validator, model_validator

from cellcube.functions import UserFunction
from cellcube.spec.normalizers import UNBOUNDED, Method, Normalize, Percentile, Raw, written_out
from cellcube.spec.values import Name, Value, described, functions_in

_PROJECTION = r"^(max|mean|sum|min)_([zyx]|montage)$"
ProjectionName = Annotated[str, Field(pattern=_PROJECTION)]
Dtype = Literal["uint8", "uint16", "float16", "float32"]


class Mask(Value):
    """What is set to 0 outside a cell.

    Parameters
    ----------
    method : {"none", "label", "dilated", "soft"}
        Nothing; all outside the label; all outside the label grown by `by`; the same with a raised cosine from 1 at
        the label's border to 0 at the distance `by`.
    by : float
        Distance in voxels of the crop along x; other axes count by their voxel size where it is known.
    labels : str, optional
        The label image, one of the spec's `label_images`. None is that of the cell.
    """

    method: Literal["none", "label", "dilated", "soft"] = "label"
    by: Annotated[float, Field(gt=0, le=1000)] | None = None
    labels: Name | None = None

    @model_validator(mode="after")
    def _distance(self) -> Self:
        if (self.method in ("dilated", "soft")) != (self.by is not None):
            raise ValueError(f"mask {self.method!r} " + ("needs 'by', in voxels" if self.by is None else "has no 'by'"))
        return self


def _mask_form(value: Any) -> str:
    if isinstance(value, UserFunction):
        return "function"
    if isinstance(value, str):
        return "word"
    return "rule" if isinstance(value, Mask) or (isinstance(value, Mapping) and "method" in value) else "channels"


MaskRule = Annotated[
    Annotated[Literal["none", "label"], Tag("word")]
    | Annotated[Mask, Tag("rule")]
    | Annotated[InstanceOf[UserFunction], Tag("function")]
    | Annotated[dict[str, Mask], Tag("channels")],
    Discriminator(_mask_form),
]


def _projection_form(value: Any) -> str:
    return "function" if isinstance(value, UserFunction) else "projection"


Projection = Annotated[
    Annotated[ProjectionName, Tag("projection")] | Annotated[InstanceOf[UserFunction], Tag("function")],
    Discriminator(_projection_form),
]


class Pipeline(Value):
    """One way from a crop to what is stored.

    Parameters
    ----------
    mask : str, Mask, callable or dict
        What is set to 0 outside the cell; one rule, or one a channel.
    neighbours : {"keep", "remove"}
        ``remove`` sets voxels of other labels to 0.
    normalize : normalizer, str, callable or dict
        One normalizer, its name, a function, or one a channel.
    dtype : str, optional
        Of what is stored.
    projections : tuple
        Names, or functions.
    """

    mask: MaskRule = "none"
    neighbours: Literal["keep", "remove"] = "keep"
    normalize: Normalize = Field(default_factory=Percentile)
    dtype: Dtype | None = None
    projections: tuple[Projection, ...] = ("max_z",)

    @field_validator("mask", mode="before")
    @classmethod
    def _mask(cls, value: Any) -> Any:
        value = described(value)
        if value is None:
            return "none"
        if value in ("dilated", "soft"):
            raise ValueError(f"{value!r} needs a distance in voxels, such as {{method: {value}, by: 3}}")
        if isinstance(value, Mapping) and "method" not in value:
            if not value:
                raise ValueError("give one mask, or one for each channel")
            if set(value) <= {"by", "labels"} and not any(isinstance(each, Mapping) for each in value.values()):
                return {"method": "label", **value}
            return {name: {"method": each} if isinstance(each, str) else each for name, each in value.items()}
        return value

    @field_validator("normalize", mode="before")
    @classmethod
    def _normalize(cls, value: Any) -> Any:
        return written_out(value)

    @field_validator("projections", mode="before")
    @classmethod
    def _projections(cls, value: Any) -> Any:
        value = () if value is None else (value,) if isinstance(value, str) or callable(value) else value
        if not isinstance(value, list | tuple):
            return value
        return tuple(dict.fromkeys(described(each) if not isinstance(each, str) else each for each in value))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        methods = self.methods()
        raw = [isinstance(each, Raw) for each in methods]
        if any(raw) and (not all(raw) or functions_in(self.normalize)):
            raise ValueError("normalize: either all channels or none can keep the image's own pixels (method 'none')")
        names = self.projection_names()
        functions = [each.short_name for each in self.projections if isinstance(each, UserFunction)]
        twice = [name for name in names if names.count(name) > 1] + [name for name in functions if is_projection(name)]
        if twice:
            raise ValueError(f"projections: {twice[0]!r} stands twice; give the functions names of their own")
        unbounded = [each.method for each in methods if isinstance(each, UNBOUNDED)]
        if unbounded and self.dtype in ("uint8", "uint16"):
            raise ValueError(f"dtype: {unbounded[0]!r} gives values that {self.dtype} cannot hold; take a float type")
        return self

    def methods(self) -> list[Method]:
        """The normalizers that are not functions."""
        given = self.normalize.values() if isinstance(self.normalize, dict) else [self.normalize]
        return [each for each in given if not isinstance(each, UserFunction)]

    @property
    def keeps_raw(self) -> bool:
        """Whether crops keep the image's own pixel values."""
        return any(isinstance(each, Raw) for each in self.methods())

    def normalizers(self, channels: tuple[str, ...]) -> tuple[Method | UserFunction, ...]:
        """The normalizer of each channel; the same function for all where it takes all channels at once."""
        if isinstance(self.normalize, dict):
            return tuple(self.normalize[name] for name in channels)
        return (self.normalize,) * len(channels)

    def masks(self, channels: tuple[str, ...]) -> tuple[Mask | UserFunction, ...]:
        """The mask of each channel."""
        if isinstance(self.mask, dict):
            return tuple(self.mask.get(name, Mask(method="none")) for name in channels)
        one = Mask(method=self.mask) if isinstance(self.mask, str) else self.mask
        return (one,) * len(channels)

    def projection_names(self) -> tuple[str, ...]:
        """Names of the projections; that of a function is its own."""
        return tuple(each if isinstance(each, str) else each.short_name for each in self.projections)


def is_projection(name: str) -> bool:
    """Whether a name is that of a projection of cellcube's own, not of a function."""
    return re.match(_PROJECTION, name) is not None


class Illumination(Value):
    """Images that even out the illumination of a channel: ``(x - dark) / gain``.

    Parameters
    ----------
    flat : str, optional
        Path or URL of a flat-field image as it was acquired, of the size of the field along y and x:
        ``gain = (flat - dark) / mean(flat - dark)`` (Model and Burkhardt 2001, Cytometry 44:309).
    gain : str, optional
        Path or URL of the gain itself, in place of `flat`: BaSiC's flat-field, CellProfiler's illumination function.
    dark : str or float
        Path or URL of the dark-field image, or one intensity.
    """

    flat: Name | None = None
    gain: Name | None = None
    dark: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Name = 0.0

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.flat is None) == (self.gain is None):
            raise ValueError("give either 'flat', as it was acquired, or 'gain', which is divided by")
        return self


class Split(Value):
    """Parts of the data for training and testing, whole groups at a time.

    A group's part follows from a hash of its value and the seed alone, so that it never changes.

    Parameters
    ----------
    by : tuple of str
        Columns whose values make a group, such as ``well``: cells of one group are in one part.
    fractions : dict
        Expected share of the groups by the part's name; they sum to 1.
    seed : int
    """

    by: tuple[Name, ...]
    fractions: dict[Name, Annotated[float, Field(gt=0, le=1)]]
    seed: int = 0

    @field_validator("by", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sums(self) -> Self:
        if not self.by:
            raise ValueError("split.by: give at least one column")
        if not self.fractions or abs(sum(self.fractions.values()) - 1) > 1e-9:
            raise ValueError("split.fractions: give shares that sum to 1, such as {train: 0.8, test: 0.2}")
        return self
