"""`CubeSpec`: every choice that makes a cube, as one frozen, validated value."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from cellcube.errors import SpecError, did_you_mean
from cellcube.functions import UserFunction
from cellcube.location import Location

Projection = Annotated[str, Field(pattern=r"^(max|mean|sum|min)_[zyx]$")]
Size = Annotated[int, Field(ge=1, le=65_536)]
Micrometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]

# What these say does not change a pixel, so an append may differ in them.
_DESCRIPTIVE = ("name", "description", "licence", "columns")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Percentile(_Value):
    """Linear between two percentiles of the crop's pixels inside the image, clipped to 0..1.

    Percentiles interpolate linearly between order statistics (NumPy's default; Hyndman and Fan 1996, type 7).
    """

    method: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, le=100)] = 1.0
    high: Annotated[float, Field(ge=0, le=100)] = 99.9
    scope: Literal["cell"] = "cell"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self


class MinMax(_Value):
    """Linear between the lowest and the highest pixel of the crop."""

    method: Literal["minmax"] = "minmax"
    scope: Literal["cell"] = "cell"


class Range(_Value):
    """Linear between two given intensities, clipped to 0..1; the same for all cells."""

    method: Literal["range"] = "range"
    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self


class Raw(_Value):
    """The image's own pixels."""

    method: Literal["none"] = "none"


Normalizer = Annotated[Percentile | MinMax | Range | Raw, Field(discriminator="method")]


def _normalize_form(value: Any) -> str:
    if isinstance(value, UserFunction):
        return "function"
    return "channels" if isinstance(value, Mapping) and "method" not in value else "all"


Normalize = Annotated[
    Annotated[Normalizer, Tag("all")]
    | Annotated[dict[str, Normalizer], Tag("channels")]
    | Annotated[InstanceOf[UserFunction], Tag("function")],
    Discriminator(_normalize_form),
]


class Storage(_Value):
    """How the cube is chunked and compressed.

    Parameters
    ----------
    chunk_cells : int
        Cells in an inner chunk, the smallest piece that can be read.
    shard_mb : float
        Uncompressed size of a shard of the crops, in 10^6 bytes.
    codec : str
        Compression of an inner chunk.
    """

    chunk_cells: Annotated[int, Field(ge=1, le=4096)] = 1
    shard_mb: Annotated[float, Field(gt=0, le=2000)] = 64.0
    codec: Literal["blosc-zstd", "blosc-lz4", "zstd", "none"] = "blosc-zstd"


class CubeSpec(_Value):
    """Everything that decides what a cube holds.

    Frozen: `replace` makes another one. `from_yaml` and `to_yaml` load and save it.

    Parameters
    ----------
    name : str
        Dataset name; may be ``owner/project``.
    description, licence : str, optional
        What the dataset is; its licence as an SPDX identifier.
    channels : list or dict, optional
        Names or indices of channels in ``fov_path``; or ``{name: column}`` with one file column a channel; or
        ``{name: index}``. None takes all channels.
    columns : dict
        Renames of the cell table, ``{cellcube name: table name}``.
    reader : str or callable
        ``auto``, ``tifffile``, ``bioio``, ``aicsimageio``, ``package.module:Class`` or a factory of `FovReader`.
    axes : str, optional
        Axes of the image arrays, such as ``CYX``, where the files tell none or false ones.
    label_axes : str, optional
        The same for label images. Taken from `axes` without its channel axis when None.
    label_channel : str or int, optional
        The channel that holds the labels, where they are a channel of an image.
    fov_voxel_size : tuple of float, optional
        Voxel size (z, y, x) of the FOVs in µm, in place of what the files tell.
    voxel_size : None
        Crops keep the FOV's own voxel size.
    shape : tuple of int
        Size (z, y, x) of a crop in voxels.
    edge : {"pad", "drop", "shift"}
        What becomes of a crop that reaches beyond the image: filled with 0, not kept, or moved inside.
    oversize : {"crop", "drop"}
        What becomes of a cell larger than `shape`: cut (and flagged), or not kept.
    mask : {"none", "label"}
        ``label`` sets everything outside the cell's label to 0.
    align : {"none"}
        Crops keep the FOV's orientation.
    normalize : normalizer, str, callable or dict
        One normalizer, its name, a function ``(pixels (c, z, y, x), cell) -> pixels``, or one normalizer a channel.
    dtype : str, optional
        ``uint8``, ``uint16``, ``float16`` or ``float32``. None: ``float16``, or the image's own with `normalize` none.
    projections : list of str
        ``<max|mean|sum|min>_<z|y|x>``.
    drop : str, optional
        A condition on manifest columns, in pandas' query syntax; cells that meet it are not kept.
    split : None
        No split is assigned.
    cell_axis : {"cell", "t"}
        Name of the first axis in the store. ``t`` for viewers that insist on it.
    storage : Storage
        Chunks, shards and codec.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")] = "cells"
    description: str | None = None
    licence: str | None = None
    channels: tuple[Name | int, ...] | dict[Name, str | int] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    reader: Name | InstanceOf[UserFunction] = "auto"
    axes: Annotated[str, Field(pattern=r"^[A-Z]{2,7}$")] | None = None
    label_axes: Annotated[str, Field(pattern=r"^[A-Z]{2,7}$")] | None = None
    label_channel: str | int | None = None
    fov_voxel_size: tuple[Micrometres, Micrometres, Micrometres] | None = None
    voxel_size: None = None
    shape: tuple[Size, Size, Size] = (1, 96, 96)
    edge: Literal["pad", "drop", "shift"] = "pad"
    oversize: Literal["crop", "drop"] = "crop"
    mask: Literal["none", "label"] = "none"
    align: Literal["none"] = "none"
    normalize: Normalize = Field(default_factory=Percentile)
    dtype: Literal["uint8", "uint16", "float16", "float32"] | None = None
    projections: tuple[Projection, ...] = ("max_z",)
    drop: str | None = None
    split: None = None
    cell_axis: Literal["cell", "t"] = "cell"
    storage: Storage = Field(default_factory=Storage)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            problems = list(dict.fromkeys(_sentence(detail, fields) for detail in error.errors()))
            text = "; ".join(problems)
            raise SpecError(f"The spec cannot be used: {text}{'' if text.endswith('?') else '.'}") from None

    @field_validator("channels", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        if any(isinstance(item, bool) for item in items):
            raise ValueError("true and false are neither names nor indices")
        return value

    @field_validator("channels")
    @classmethod
    def _unique_channels(cls, value: Any) -> Any:
        if value is not None and len(value) == 0:
            raise ValueError("give at least one channel, or leave it out for all of them")
        if isinstance(value, tuple):
            twice = sorted({str(item) for item in value if value.count(item) > 1})
            if twice:
                raise ValueError(f"named twice: {', '.join(twice)}")
        return value

    @field_validator("axes", "label_axes", mode="before")
    @classmethod
    def _upper_axes(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("reader", "normalize", mode="before")
    @classmethod
    def _describe_function(cls, value: Any) -> Any:
        if callable(value) and not isinstance(value, UserFunction | BaseModel):
            return UserFunction.of(value)
        if _is_function(value):
            return UserFunction.load(str(value["function"]))
        return value

    @field_validator("normalize", mode="before")
    @classmethod
    def _name_to_normalizer(cls, value: Any) -> Any:
        # Runs before `_describe_function`.
        if value is None or isinstance(value, str):
            return {"method": value or "none"}
        if isinstance(value, Mapping) and not value:
            raise ValueError("give one normalizer, or one for each channel")
        if isinstance(value, Mapping) and "method" not in value and not _is_function(value):
            return {
                name: {"method": each} if isinstance(each, str) else (each or {"method": "none"})
                for name, each in value.items()
            }
        return value

    @field_validator("projections", mode="before")
    @classmethod
    def _no_projections(cls, value: Any) -> Any:
        value = () if value is None else (value,) if isinstance(value, str) else value
        return tuple(dict.fromkeys(map(str, value))) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _dtype_fits(self) -> Self:
        raw = [each.method == "none" for each in self._normalizers()]
        if any(raw) and not all(raw):
            raise ValueError("normalize: either all channels or none can keep the image's own pixels (method 'none')")
        if isinstance(self.normalize, dict) and isinstance(self.channels, dict | tuple):
            unknown = [name for name in self.normalize if name not in self.channels]
            missing = [name for name in self.channels if name not in self.normalize]
            if unknown or missing:
                known = ", ".join(map(str, self.channels))
                raise ValueError(f"normalize: give one normalizer for each of the channels {known}")
        return self

    def _normalizers(self) -> list[Percentile | MinMax | Range | Raw]:
        if isinstance(self.normalize, UserFunction):
            return []
        return list(self.normalize.values()) if isinstance(self.normalize, dict) else [self.normalize]

    @property
    def keeps_raw(self) -> bool:
        """Whether crops keep the image's own pixel values."""
        return any(each.method == "none" for each in self._normalizers())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all fields that decide pixels; the same on every machine."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """The fields that decide pixels, as plain values; user functions by the digest of their source."""
        plain = {name: value for name, value in self.to_dict().items() if name not in _DESCRIPTIVE}
        if isinstance(self.channels, dict):
            # Their order is that of the cube's channels, and the order of a mapping does not count.
            plain["channels"] = [list(pair) for pair in self.channels.items()]
        return plain

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values that JSON and YAML can hold."""
        plain: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, UserFunction):
                plain[name] = {"function": value.name, "digest": value.digest}
            elif name == "normalize" and isinstance(value, dict):
                plain[name] = {key: each.model_dump(mode="json") for key, each in value.items()}
            elif isinstance(value, BaseModel):
                plain[name] = value.model_dump(mode="json")
            else:
                plain[name] = list(value) if isinstance(value, tuple) else value
        return plain

    def replace(self, **fields: Any) -> CubeSpec:
        """Another spec with some fields changed, validated again."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**values, **fields})

    def functions(self) -> dict[str, UserFunction]:
        """User functions by the field that holds them."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in found.items() if isinstance(value, UserFunction)}

    def differences(self, other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """(field, value in `other`, value here) for all that decides pixels and differs from an `identity`."""
        mine = self.identity()
        fields = sorted(mine.keys() | other.keys())
        return [(name, other.get(name), mine.get(name)) for name in fields if other.get(name) != mine.get(name)]

    def to_yaml(self, path: str | PathLike[str] | None = None) -> str:
        """The spec as YAML; also written to `path` (local or URL) where one is given."""
        plain = self.to_dict()
        # PyYAML writes this one line break as it is, and reads a space.
        readable = "\x85" not in json.dumps(plain, ensure_ascii=False)
        text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=readable)
        if path is not None:
            Location.of(path).write(text.encode())
        return text

    @classmethod
    def from_yaml(cls, source: str | PathLike[str], storage_options: Mapping[str, Any] | None = None) -> CubeSpec:
        """Load a spec from a YAML file or URL.

        Raises
        ------
        SpecError
            Where there is no file, it is not YAML, a key is unknown or a value cannot be used.
        """
        location = Location.of(source, storage_options)
        try:
            fields = yaml.safe_load(location.read().decode()) or {}
        except FileNotFoundError:
            raise SpecError("There is no spec file.", path=str(source)) from None
        except OSError as error:
            raise SpecError(f"The spec cannot be read: {type(error).__name__}.", path=str(source)) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SpecError(f"The spec is not YAML: {error}.", path=str(source)) from error
        if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
            raise SpecError("The spec must be a mapping of fields.", path=str(source))
        try:
            return cls(**fields)
        except SpecError as error:
            raise SpecError(error.message, path=str(source)) from None


# What a field takes, for those whose types would make a sentence nobody can read.
_TAKES = {
    "name": "letters, digits, '.', '_' and '-', with at most one '/', such as 'owner/project'",
    "channels": "a list of names or indices, or a mapping of names to indices or to file columns",
    "columns": "a mapping of cellcube's names to the table's names",
    "reader": "the name of a reader, 'package.module:Class', or a callable",
    "axes": "2 to 7 letters, such as 'CYX'",
    "label_axes": "2 to 7 letters, such as 'ZYX'",
    "label_channel": "a name or an index",
    "fov_voxel_size": "three positive numbers in µm, (z, y, x)",
    "shape": "three whole numbers from 1 to 65536, (z, y, x); an image of one plane has z = 1",
    "projections": "a list of <max|mean|sum|min>_<z|y|x>",
}


def _is_function(value: Any) -> bool:
    return isinstance(value, Mapping) and "function" in value and set(value) <= {"function", "digest"}


def _sentence(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    # pydantic's path also names the member of a union that it tried.
    tried = r"[\[(]|^(str|int|tuple|all|channels|function|percentile|minmax|range|constrained-str)$"
    first, *rest = detail["loc"] or ("",)
    place = ".".join([str(first), *(str(part) for part in rest if not re.search(tried, str(part)))])
    if detail["type"] == "extra_forbidden":
        *path, key = [str(part) for part in detail["loc"]]
        holder: Any = Storage if path and path[0] == "storage" else CubeSpec if not path else None
        fields = list(holder.model_fields) if holder else ["method", "low", "high", "scope"]
        return f"unknown key {place!r}. {did_you_mean(key, fields)}".rstrip(" .")
    if detail["type"] == "none_required":
        return f"{place}: only null is possible in this version"
    if detail["type"] == "union_tag_invalid":
        tag, tags = str(detail["ctx"]["tag"]), str(detail["ctx"]["expected_tags"])
        hint = did_you_mean(tag, tags.replace("'", "").split(", "))
        return f"{place}: there is no method {tag!r}; there are {tags}. {hint}".rstrip(" .")
    if detail["type"] == "union_tag_not_found":
        return f"{place}: give a method, one of 'percentile', 'minmax', 'range', 'none' (got {detail['input']!r})"
    if first in _TAKES and detail["type"] != "value_error":
        return f"{first}: give {_TAKES[str(first)]} (got {given.get(str(first))!r})"
    if first == "normalize" and detail["type"] in ("model_attributes_type", "dict_type"):
        return f"{place}: give a normalizer such as {{method: minmax}} (got {detail['input']!r})"
    if detail["type"] == "missing":
        return f"{place} is needed"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message if not place or message.startswith(place) else f"{place}: {message} (got {detail['input']!r})"
