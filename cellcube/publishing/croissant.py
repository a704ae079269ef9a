"""Croissant 1.0: what machine learning needs to load the table of cells (http://mlcommons.org/croissant/1.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cellcube.errors import ArgumentError
from cellcube.publishing.about import CELLS, CUBE, ZARR_FORMAT, Published, orcid_url

if TYPE_CHECKING:
    import pandas as pd

CROISSANT = "croissant.json"
# The name that Croissant's own library knows; the registered one is application/vnd.apache.parquet.
PARQUET = "application/x-parquet"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

# Names of parts that Croissant has a meaning for.
_PARTS = {
    "train": "cr:TrainingSplit",
    "training": "cr:TrainingSplit",
    "val": "cr:ValidationSplit",
    "valid": "cr:ValidationSplit",
    "validation": "cr:ValidationSplit",
    "test": "cr:TestSplit",
    "testing": "cr:TestSplit",
}


def croissant(about: Published) -> dict[str, Any]:
    """The document ``croissant.json`` of a dataset folder.

    Parameters
    ----------
    about : Published
        Its files must tell the SHA-256 of ``cells.parquet``.

    Returns
    -------
    dict
        JSON-LD; the same for the same dataset. Builds only add cells, so that the version is ``1.<version>.0``.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where the SHA-256 of the manifest is not known.
    """
    if about.files.get(CELLS, (0, None))[1] is None:
        raise ArgumentError(f"Croissant needs the SHA-256 of {CELLS}.", remedy="Give it in `files`.")
    splits = _splits(about.cells)
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.name,
        "description": about.description,
        "url": about.url or about.doi,
        "identifier": about.doi,
        "license": about.licence_url or about.licence,
        "creator": [_person(author) for author in about.authors],
        "keywords": about.keywords,
        "citeAs": about.citation or _cite(about),
        "version": f"1.{about.state.version}.0",
        "dateCreated": about.created,
        "dateModified": about.changed,
        "datePublished": about.changed,
        "distribution": _files(about),
        "recordSet": [*([_parts(splits)] if splits else []), _records(about, splits)],
    }
    return _filled(document)


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [])}


def _person(author: dict[str, str | None]) -> dict[str, Any]:
    affiliation = author.get("affiliation")
    orcid = author.get("orcid")
    return _filled(
        {
            "@type": "sc:Person",
            "name": author["name"],
            "url": orcid_url(orcid) if orcid else None,
            "affiliation": {"@type": "sc:Organization", "name": affiliation} if affiliation else None,
        }
    )


def _cite(about: Published) -> str | None:
    """A citation made from authors, year, name and DOI; None where nobody is named."""
    names = "; ".join(str(author["name"]) for author in about.authors)
    if not names:
        return None
    text = f"{names} ({about.changed[:4]}). {about.name}, version {about.state.version}."
    return f"{text} {about.doi}" if about.doi else text


def _files(about: Published) -> list[dict[str, Any]]:
    """The tables, and the objects of the cube as a set."""
    found: list[dict[str, Any]] = []
    for path in sorted(about.files):
        size, digest = about.files[path]
        if "/" in path or not path.endswith(".parquet") or digest is None:
            continue
        found.append(
            {
                "@type": "cr:FileObject",
                "@id": _part(path),
                "name": path,
                "contentUrl": quote(path),
                "contentSize": f"{size} B",
                "encodingFormat": PARQUET,
                "sha256": digest,
            }
        )
    found.append(
        {
            "@type": "cr:FileSet",
            "@id": CUBE.rstrip("/"),
            "name": CUBE.rstrip("/"),
            "description": f"{about.state.count:,} single-cell images with their coordinates, Zarr v3 and OME-Zarr 0.5",
            "encodingFormat": ZARR_FORMAT,
            "includes": f"{CUBE}**",
        }
    )
    return found


def _part(name: str) -> str:
    """A name as the last part of an identifier."""
    return quote(name, safe="")


def _field(column: str) -> str:
    return f"cells/{_part(column)}"


def _records(about: Published, splits: list[str]) -> dict[str, Any]:
    fields = []
    for column in map(str, about.cells.columns):
        field = {
            "@type": "cr:Field",
            "@id": _field(column),
            "name": column,
            "description": about.columns.get(column),
            "dataType": data_type(about.cells[column]),
            "source": {"fileObject": {"@id": CELLS}, "extract": {"column": column}},
        }
        if splits and column == "split":
            field["references"] = {"field": {"@id": "splits/name"}}
        fields.append(_filled(field))
    return {
        "@type": "cr:RecordSet",
        "@id": "cells",
        "name": "cells",
        "description": "One record a cell; record i is cell i of every array in cube.zarr",
        "key": {"@id": _field("cell_id")},
        "field": fields,
    }


def data_type(values: pd.Series[Any]) -> str:
    """The Croissant type of a column."""
    from pandas.api import types

    if types.is_bool_dtype(values):
        return "sc:Boolean"
    if types.is_integer_dtype(values):
        return "sc:Integer"
    if types.is_float_dtype(values):
        return "sc:Float"
    if types.is_datetime64_any_dtype(values):
        return "sc:DateTime"
    inside = types.infer_dtype(values, skipna=True) if types.is_object_dtype(values) else "string"
    known = {"boolean": "sc:Boolean", "integer": "sc:Integer", "floating": "sc:Float", "date": "sc:Date"}
    return known.get(inside, "sc:Text")


def _splits(cells: pd.DataFrame) -> list[str]:
    """Parts for training and testing; none where cells are not split."""
    if "split" not in cells:
        return []
    return sorted({str(name) for name in cells["split"].dropna().unique()} - {""})


def _parts(splits: list[str]) -> dict[str, Any]:
    """The record set of the parts, with Croissant's name for each where it has one for all."""
    meanings = [_PARTS.get(name.casefold()) for name in splits]
    fields = [{"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"}]
    data = [{"splits/name": name} for name in splits]
    if all(meanings):
        fields.append({"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"})
        data = [{**row, "splits/url": str(meaning)} for row, meaning in zip(data, meanings, strict=True)]
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "Parts for training and testing",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": fields,
        "data": data,
    }
