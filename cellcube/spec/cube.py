"""`CubeSpec`: every choice that makes a cube, as one frozen, validated value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, InstanceOf, ValidationError, field_validator, model_validator

from cellcube.errors import SpecError
from cellcube.functions import UserFunction
from cellcube.location import Location
from cellcube.spec.normalizers import scope_of
from cellcube.spec.people import Author
from cellcube.spec.pipelines import Illumination, Pipeline, Split
from cellcube.spec.sentences import sentence
from cellcube.spec.values import Micrometres, Name, Size, Value, described, functions_in, plain
from cellcube.urls import public_url

# What these say does not change a pixel, so an append may differ in them.
_DESCRIPTIVE = ("name", "description", "licence", "authors", "doi", "citation", "keywords", "columns")

# Fields that came later count only where they are used: cubes from before can be appended to.
_LATER = (
    "label_images",
    "shape_percentile",
    "order",
    "flip",
    "neighbours",
    "preprocess",
    "illumination",
    "saturation",
    "channel_measures",
    "measure",
    "representations",
)

Axes = Annotated[str, Field(pattern=r"^[A-Z]{2,7}$")]
RepresentationName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Storage(Value):
    """How the cube is chunked and compressed.

    Parameters
    ----------
    chunk_cells : int
        Cells in an inner chunk, the smallest piece that can be read.
    shard_mb : float
        Uncompressed size of a shard of the crops, in 10^6 bytes.
    codec : {"blosc-zstd", "blosc-lz4", "zstd", "none"}
        Compression of an inner chunk.
    level : int
        Of the compression, from fast to small.
    shuffle : {"bitshuffle", "shuffle", "noshuffle"}
        How Blosc orders bits or bytes before it compresses them.
    """

    chunk_cells: Annotated[int, Field(ge=1, le=4096)] = 1
    shard_mb: Annotated[float, Field(gt=0, le=2000)] = 64.0
    codec: Literal["blosc-zstd", "blosc-lz4", "zstd", "none"] = "blosc-zstd"
    level: Annotated[int, Field(ge=1, le=9)] = 1
    shuffle: Literal["bitshuffle", "shuffle", "noshuffle"] = "bitshuffle"

    def identity(self) -> dict[str, Any]:
        """As plain values; those that came later only where they are used."""
        fields = type(self).model_fields
        unused = [name for name in ("level", "shuffle") if getattr(self, name) == fields[name].default]
        return {name: value for name, value in plain(self).items() if name not in unused}


class CubeSpec(Pipeline):
    """Everything that decides what a cube holds.

    Frozen: `replace` makes another one. `from_yaml` and `to_yaml` load and save it.

    Parameters
    ----------
    name : str
        Dataset name; may be ``owner/project``.
    description, licence : str, optional
        What the dataset is; its licence as an SPDX identifier.
    authors : list of Author
        ``[{name: …, orcid: …, affiliation: …}]``; a name alone is enough.
    doi, citation : str, optional
        Of the dataset; how to cite it and its paper.
    keywords : list of str
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
    label_images : dict
        More label images, ``{name: path column}``, such as ``{nucleus: nuclei_path}``. The object that belongs to a
        cell has the number in the column ``label_<name>``, or the cell's own label where there is no such column.
    illumination : dict
        Flat-field and dark-field images by channel.
    voxel_size : tuple of float, optional
        Voxel size (z, y, x) of the crops in µm, to which they are resampled; z None keeps the planes. None keeps the
        FOV's own.
    order : int
        Of the spline that interpolates intensities, 0 to 5; 1 is linear. Labels are always nearest.
    shape : tuple of int or "auto"
        Size (z, y, x) of a crop in voxels. ``auto`` is fitted to the cells of the first build and stays.
    shape_percentile : float
        With ``auto``: share of the cells, in percent, that the crop is large enough for along each axis.
    edge : {"pad", "drop", "shift", "flag"}
        What becomes of a crop that reaches beyond the image: filled with 0, not kept, moved inside, or filled with 0
        and told in the outcomes.
    oversize : {"crop", "drop", "shrink"}
        What becomes of a cell larger than `shape`: cut (and flagged), not kept, or sampled at larger voxels.
    align : {"none", "major_axis"} or callable
        ``major_axis`` turns each cell in the plane so that the longest axis of its label lies along x. A function
        ``(mask (z, y, x), pixels (c, z, y, x), cell) -> degrees`` tells another angle.
    flip : str or int, optional
        A channel: aligned cells are mirrored so that its intensity is skewed towards high y and high x.
    preprocess : callable, optional
        ``(pixels (c, z, y, x), cell) -> pixels``, of each crop before masks and normalization.
    mask : str, Mask, callable or dict
        ``label`` sets everything outside the cell's label to 0; ``{method: dilated, by: 3}`` and
        ``{method: soft, by: 3}`` leave a margin; a mapping gives each channel its own, of another label image too. A
        function ``(mask (z, y, x), pixels (c, z, y, x), cell) -> weights (z, y, x) in 0..1`` makes its own.
    neighbours : {"keep", "remove"}
        ``remove`` sets voxels of other labels to 0.
    normalize : normalizer, str, callable or dict
        One normalizer, its name, a function ``(pixels (c, z, y, x), cell) -> pixels``, or one normalizer a channel,
        where a function takes ``(pixels (z, y, x), cell)``.
    dtype : str, optional
        ``uint8``, ``uint16``, ``float16`` or ``float32``. None: ``float16``, or the image's own with `normalize` none.
    projections : list
        ``<max|mean|sum|min>_<z|y|x|montage>``, the last with all three side by side; or functions
        ``(pixels (c, z, y, x)) -> (c, y, x)``.
    saturation : float, optional
        Intensity from which a pixel is saturated, such as 4095 for a camera of 12 bits. None: the highest value of
        the image's integer type.
    channel_measures : bool
        Measure intensities, saturation, background and focus of every channel. False leaves these columns out, which
        makes builds of small crops faster; geometry and shape are always there.
    measure : callable, optional
        ``(pixels (c, z, y, x), mask (z, y, x) or None, cell) -> {name: number}``: more columns of the manifest.
    drop : str or callable, optional
        A condition on manifest columns, in pandas' query syntax; cells that meet it are not kept. A function
        ``(cell) -> reason or None`` decides by itself.
    representations : dict
        More ways to store the same crops, each a mapping of `mask`, `neighbours`, `normalize`, `dtype`, `projections`.
    split : Split, optional
        ``{by: well, fractions: {train: 0.8, test: 0.2}, seed: 0}``.
    cell_axis : {"cell", "t"}
        Name of the first axis in the store. ``t`` for viewers that insist on it.
    storage : Storage
        Chunks, shards and codec.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")] = "cells"
    description: str | None = None
    licence: str | None = None
    authors: tuple[Author, ...] = ()
    doi: Annotated[str, Field(pattern=r"^10\.\d{4,9}/\S+$")] | None = None
    citation: str | None = None
    keywords: tuple[Name, ...] = ()
    channels: tuple[Name | int, ...] | dict[Name, str | int] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    reader: Name | InstanceOf[UserFunction] = "auto"
    axes: Axes | None = None
    label_axes: Axes | None = None
    label_channel: str | int | None = None
    label_images: dict[RepresentationName, Name] = Field(default_factory=dict)
    fov_voxel_size: tuple[Micrometres, Micrometres, Micrometres] | None = None
    illumination: dict[Name, Illumination] = Field(default_factory=dict)
    voxel_size: tuple[Micrometres | None, Micrometres, Micrometres] | None = None
    order: Annotated[int, Field(ge=0, le=5)] = 1
    shape: tuple[Size, Size, Size] | Literal["auto"] = (1, 96, 96)
    shape_percentile: Annotated[float, Field(gt=0, le=100)] = 95.0
    edge: Literal["pad", "drop", "shift", "flag"] = "pad"
    oversize: Literal["crop", "drop", "shrink"] = "crop"
    align: Literal["none", "major_axis"] | InstanceOf[UserFunction] = "none"
    flip: Name | int | None = None
    preprocess: InstanceOf[UserFunction] | None = None
    saturation: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    channel_measures: bool = True
    measure: InstanceOf[UserFunction] | None = None
    drop: Name | InstanceOf[UserFunction] | None = None
    representations: dict[RepresentationName, Pipeline] = Field(default_factory=dict)
    split: Split | None = None
    cell_axis: Literal["cell", "t"] = "cell"
    storage: Storage = Field(default_factory=Storage)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            problems = list(dict.fromkeys(sentence(detail, fields, type(self)) for detail in error.errors()))
            text = "; ".join(problems)
            raise SpecError(f"The spec cannot be used: {text}{'' if text.endswith('?') else '.'}") from None

    @field_validator("channels", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        if any(isinstance(item, bool) for item in items):
            raise ValueError("true and false are neither names nor indices")
        return value

    @field_validator("flip", "label_channel", "order", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("true and false are neither names nor numbers")
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

    @field_validator("authors", mode="before")
    @classmethod
    def _names_of_authors(cls, value: Any) -> Any:
        value = (value,) if isinstance(value, str | Mapping) else () if value is None else value
        return tuple({"name": each} if isinstance(each, str) else each for each in value)

    @field_validator("doi", mode="before")
    @classmethod
    def _doi_alone(cls, value: Any) -> Any:
        for start in ("https://doi.org/", "http://doi.org/", "doi:"):
            value = value.removeprefix(start) if isinstance(value, str) else value
        return value

    @field_validator("axes", "label_axes", mode="before")
    @classmethod
    def _upper_axes(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("reader", "align", "preprocess", "measure", "drop", mode="before")
    @classmethod
    def _describe_function(cls, value: Any) -> Any:
        return described(value)

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if isinstance(self.channels, dict | tuple):
            for name, pipeline in self.pipelines().items():
                place = "" if name == "cells" else f"representations.{name}."
                given = pipeline.normalize
                if isinstance(given, dict) and set(given) != set(map(str, self.channels)):
                    known = ", ".join(map(str, self.channels))
                    raise ValueError(f"{place}normalize: give one normalizer for each of the channels {known}")
        images = {rule.labels for pipeline in self.pipelines().values() for rule in _mask_rules(pipeline)} - {None}
        unknown = sorted(str(name) for name in images - set(self.label_images))
        if unknown:
            raise ValueError(f"mask: there is no label image {unknown[0]!r}; name its column in label_images")
        for taken in ("path", "channel", "axes"):
            if taken in self.label_images:
                raise ValueError(f"label_images: {taken!r} cannot be a name, as label_{taken} is another column")
        if "cells" in self.representations:
            raise ValueError("representations: 'cells' is the name of what the spec itself describes; choose another")
        if self.preprocess is not None:
            scopes = [scope_of(each) for pipeline in self.pipelines().values() for each in pipeline.methods()]
            if any(scope != "cell" for scope in scopes):
                raise ValueError(
                    "preprocess: it changes crops, and statistics of whole fields would be of other pixels; "
                    "take scope cell, or images that are processed already"
                )
        if self.flip is not None and self.align == "none":
            raise ValueError("flip: cells are mirrored only where they are aligned; give align: major_axis")
        return self

    def pipelines(self) -> dict[str, Pipeline]:
        """What is stored of each crop: ``cells``, and the other representations by their names."""
        return {"cells": self, **self.representations}

    @property
    def interpolates(self) -> bool:
        """Whether crops are resampled: no longer the field's own voxels in rows and columns."""
        return self.voxel_size is not None or self.align != "none" or self.oversize == "shrink"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all fields that decide pixels; the same on every machine."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """The fields that decide pixels, as plain values; user functions by the digest of their source."""
        values = {name: value for name, value in self.to_dict().items() if name not in _DESCRIPTIVE}
        if isinstance(self.channels, dict):
            # Their order is that of the cube's channels, and the order of a mapping does not count.
            values["channels"] = [list(pair) for pair in self.channels.items()]
        values["storage"] = self.storage.identity()
        unused = [
            name
            for name in _LATER
            if getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True)
        ]
        return {name: value for name, value in values.items() if name not in unused}

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values that JSON and YAML can hold, without passwords and signatures of URLs."""
        own = [name for name in type(self).model_fields if name not in Pipeline.model_fields]
        place = own.index("measure")
        names = [*own[:place], *Pipeline.model_fields, *own[place:]]
        values = {name: plain(getattr(self, name)) for name in names}
        for images in values["illumination"].values():
            images.update({name: public_url(path) for name, path in images.items() if isinstance(path, str)})
        return values

    def replace(self, **fields: Any) -> CubeSpec:
        """Another spec with some fields changed, validated again."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**values, **fields})

    def functions(self) -> dict[str, UserFunction]:
        """User functions by the field that holds them, such as ``normalize.DNA``."""
        return functions_in(self)

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


def _mask_rules(pipeline: Pipeline) -> list[Any]:
    given = pipeline.mask.values() if isinstance(pipeline.mask, dict) else [pipeline.mask]
    return [rule for rule in given if hasattr(rule, "labels")]
