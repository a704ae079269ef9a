"""What is wrong with a spec, in the words of who writes one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cellcube.errors import did_you_mean
from cellcube.spec.normalizers import METHODS, Group
from cellcube.spec.pipelines import Illumination, Mask, Pipeline, Split

# What a field takes, for those whose types would make a sentence nobody can read.
TAKES = {
    "name": "letters, digits, '.', '_' and '-', with at most one '/', such as 'owner/project'",
    "channels": "a list of names or indices, or a mapping of names to indices or to file columns",
    "doi": "a DOI, such as '10.1234/abcd'",
    "columns": "a mapping of cellcube's names to the table's names",
    "reader": "the name of a reader, 'package.module:Class', or a callable",
    "axes": "2 to 7 letters, such as 'CYX'",
    "label_axes": "2 to 7 letters, such as 'ZYX'",
    "label_channel": "a name or an index",
    "fov_voxel_size": "three positive numbers in µm, (z, y, x)",
    "shape": "three whole numbers from 1 to 65536, (z, y, x), or 'auto'; an image of one plane has z = 1",
    "projections": "a list of <max|mean|sum|min>_<z|y|x|montage>, or of functions",
    "voxel_size": "three positive numbers in µm, (z, y, x); z may be null",
    "align": "'none', 'major_axis' or a function",
    "drop": "a condition such as 'touches_border', or a function",
    "preprocess": "a function",
    "measure": "a function",
    "flip": "the name or the index of a channel",
    "mask": "'none', 'label', {method: dilated, by: 3}, {method: soft, by: 3}, a function, or one of these a channel",
    "illumination": "a mapping of channels to {flat: path} or {gain: path}",
    "representations": "a mapping of names (lower case) to mappings such as {normalize: none, mask: label}",
    "label_images": "a mapping of names (lower case) to table columns with paths",
}


# Mappings of mappings: what is wrong deep inside is said as it is.
_HOLDERS = ("illumination", "representations")
_WRONG_FORM = ("model_attributes_type", "dict_type", "model_type", "string_pattern_mismatch")

# pydantic's path also names the member of a union that it tried.
_TRIED = re.compile(
    r"[\[(]|^(str|int|tuple|list|all|channels|function|method|word|rule|group|projection|constrained-\w+|float|"
    + "|".join(METHODS)
    + ")$"
)


def sentence(detail: ErrorDetails, given: Mapping[str, Any], spec: type[BaseModel]) -> str:
    """One problem in words.

    Parameters
    ----------
    detail : dict
        What pydantic says.
    given : mapping
        The fields as they were given.
    spec : type
        The model of the whole spec.
    """
    first, *rest = detail["loc"] or ("",)
    place = ".".join([str(first), *(str(part) for part in rest if not _TRIED.search(str(part)))])
    kind = detail["type"]
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        return f"unknown key {place!r}. {did_you_mean(key, _keys(detail['loc'][:-1], spec))}".rstrip(" .")
    if kind == "union_tag_invalid":
        tag, tags = str(detail["ctx"]["tag"]), str(detail["ctx"]["expected_tags"])
        hint = did_you_mean(tag, tags.replace("'", "").split(", "))
        return f"{place}: there is no method {tag!r}; there are {tags}. {hint}".rstrip(" .")
    if kind == "union_tag_not_found":
        methods = ", ".join(map(repr, METHODS))
        return f"{place}: give a method, one of {methods} (got {detail['input']!r})"
    if first in TAKES and kind != "value_error" and (first not in _HOLDERS or kind in _WRONG_FORM):
        return f"{first}: give {TAKES[str(first)]} (got {given.get(str(first))!r})"
    if kind in ("model_attributes_type", "dict_type", "model_type"):
        wanted = "a normalizer such as {method: minmax}" if "normalize" in detail["loc"] else "a mapping"
        return f"{place}: give {wanted} (got {detail['input']!r})"
    if kind == "missing":
        return f"{place} is needed"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message if not place or message.startswith(place) else f"{place}: {message} (got {detail['input']!r})"


def _keys(path: tuple[int | str, ...], spec: type[BaseModel]) -> list[str]:
    """The keys that a mapping at a place of the spec may have."""
    if not path:
        return list(cast(Any, spec).model_fields)
    method = METHODS.get(str(path[-1]))
    if method is not None:
        return list(cast(Any, method).model_fields)
    holders: dict[str, type[BaseModel]] = {"mask": Mask, "split": Split, "illumination": Illumination}
    holders["representations"] = Pipeline
    fields: Any = spec.model_fields
    field = fields.get(str(path[0]))
    holder: Any = Group if "scope" in path else holders.get(str(path[0])) or (field and field.annotation)
    return list(getattr(holder, "model_fields", ()))
