"""Catalogs of datasets: one Intake catalog that lists the catalogs of many."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from cellcube.errors import ArgumentError, CatalogError, DatasetAccessError, DatasetBusyError
from cellcube.ledger import Claim
from cellcube.location import Location
from cellcube.manifest import CATALOG
from cellcube.publishing.about import Published
from cellcube.urls import protocol_of, public_options, public_url
from cellcube.version_catalogs import PlainDumper

# Seconds that a change waits for the changes of others, each of which takes less than one.
WAIT_SECONDS = 60.0


class UnguardedCatalogWarning(UserWarning):
    """The store cannot keep two changes of a catalog apart."""


def add_entry(
    catalog: Location,
    name: str,
    dataset: Location,
    about: Published,
    *,
    replace: bool = False,
    wait: float = WAIT_SECONDS,
) -> dict[str, Any]:
    """Put a dataset into a catalog of datasets, or bring its entry up to date.

    The catalog is made where there is none. All other entries and keys stay, in their order; comments go, but for
    those at the beginning. It is replaced whole, and two calls at once wait for each other.

    Parameters
    ----------
    catalog : Location
        A YAML file.
    name : str
        Of the entry.
    dataset : Location
        Folder of the dataset. Below the catalog's folder it is written as a relative path, so that both can be moved
        together; elsewhere as it is.
    about : Published
        What is told of the dataset.
    replace : bool
        Whether an entry of that name may be replaced that leads elsewhere.
    wait : float
        Seconds to wait for others that change the catalog.

    Returns
    -------
    dict
        The entry.

    Raises
    ------
    cellcube.errors.CatalogError
        Where the file is no catalog of the classic form, or the name is taken.
    cellcube.errors.ArgumentError
        Where readers of the catalog could not reach the dataset.
    cellcube.errors.DatasetAccessError, cellcube.errors.DatasetBusyError
        Where the catalog cannot be written, or somebody else holds it.
    """
    if not name.strip():
        raise ArgumentError("The entry needs a name.")
    entry = _entry(catalog, dataset, about)
    try:
        with _held(catalog, wait):
            _warn_where_unguarded(catalog)
            heading, document = _read(catalog)
            before = document["sources"].get(name)
            if before is not None and not replace and _place(before) != _place(entry):
                raise CatalogError(
                    f"The catalog has an entry {name!r} that leads to {_place(before)}.",
                    path=public_url(catalog.url),
                    remedy="Give another name, or replace=True.",
                )
            if before != entry:
                document["sources"][name] = entry
                text = yaml.dump(document, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=1000)
                catalog.write((heading + text).encode())
    except (CatalogError, DatasetAccessError, DatasetBusyError):
        raise
    except OSError as error:
        raise DatasetAccessError(
            f"The catalog cannot be changed: {type(error).__name__}: {error}.",
            path=public_url(catalog.url),
            remedy="Check the path, the permissions and the storage options.",
        ) from error
    return entry


def read_entries(catalog: Location) -> dict[str, Any]:
    """The entries of a catalog by name; none where there is no file.

    Raises
    ------
    cellcube.errors.CatalogError
    """
    sources: dict[str, Any] = _read(catalog)[1]["sources"]
    return sources


def entry_path(catalog: Location, dataset: Location) -> tuple[str, dict[str, Any]]:
    """The path of a dataset's catalog as an entry has it, and the storage options that belong to it.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where the catalog is remote and the dataset is not.
    """
    folder = catalog.parent.url.rstrip("/")
    inside = dataset.url.removeprefix(f"{folder}/")
    if inside != dataset.url:
        return "{{ CATALOG_DIR }}/" + f"{inside}/{CATALOG}", {}
    if dataset.is_local:
        if not catalog.is_local:
            raise ArgumentError(
                "The catalog is in a store and the dataset on this machine, where no reader of the catalog finds it.",
                path=dataset.url,
                remedy="Publish the dataset to the store: give `to`.",
            )
        return f"{dataset.url}/{CATALOG}", {}
    url = f"{public_url(dataset.url)}/{CATALOG}"
    options = public_options(dataset.storage_options)
    if protocol_of(catalog.url) == protocol_of(dataset.url) and options == public_options(catalog.storage_options):
        # Intake hands the reader's options on to paths in which CATALOG_DIR occurs, even if nothing is left of it.
        return url + "{{ CATALOG_DIR[:0] }}", {}
    return url, options


def _entry(catalog: Location, dataset: Location, about: Published) -> dict[str, Any]:
    path, options = entry_path(catalog, dataset)
    args: dict[str, Any] = {"path": path}
    if options:
        args["storage_options"] = options
    return {"description": about.description, "driver": "yaml_file_cat", "args": args, "metadata": _metadata(about)}


def _metadata(about: Published) -> dict[str, Any]:
    attributes, layout = about.state.attributes, about.state.layout
    told = {
        "name": about.name,
        "version": about.state.version,
        "cells": about.state.visible,
        "outcomes": dict(about.counts),
        "channels": list(layout.channels),
        "shape_zyx": list(layout.shape),
        "dtype": layout.dtype,
        "voxel_size_um_zyx": attributes["voxel_size"],
        "licence": about.licence,
        "authors": [author["name"] for author in about.authors],
        "doi": about.doi,
        "citation": about.citation,
        "keywords": about.keywords,
        "updated": about.changed,
    }
    plain: dict[str, Any] = yaml.safe_load(yaml.dump(told, Dumper=PlainDumper, sort_keys=False))
    return {key: value for key, value in plain.items() if value not in (None, [], "")}


def _place(entry: Any) -> str:
    """Where an entry leads to, for comparison and for people."""
    args = entry.get("args") if isinstance(entry, Mapping) else None
    path = str(args.get("path", args.get("urlpath"))) if isinstance(args, Mapping) else "something else"
    return path.replace("{{ CATALOG_DIR[:0] }}", "")


def _read(catalog: Location) -> tuple[str, dict[str, Any]]:
    """The comments that a catalog begins with, and its document."""
    try:
        text = catalog.read().decode()
    except FileNotFoundError:
        name = catalog.parent.name or "catalog"
        return "", {"metadata": {"version": 1}, "name": name, "description": "Single-cell datasets", "sources": {}}
    wrong = CatalogError(
        "The file is not an Intake catalog of the classic form.",
        path=public_url(catalog.url),
        remedy="Give a YAML file with `sources:`, or a new one.",
    )
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise wrong from error
    if not isinstance(document, dict) or not isinstance(document.get("sources") or {}, dict):
        raise wrong
    if "sources" not in document and (set(document) - {"metadata", "name", "description", "plugins"} or not document):
        raise wrong
    if (document.get("metadata") or {}).get("cellcube"):
        wrong.message = "The file is the catalog of one dataset, not one of datasets."
        raise wrong
    document["sources"] = document.get("sources") or {}
    lines = text.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip() and line[0] != "#"), 0)
    return "".join(lines[:first]), document


@contextmanager
def _held(catalog: Location, wait: float) -> Iterator[None]:
    """Alone with the catalog, as far as the store can."""
    lock = catalog.parent / f".{catalog.name}.lock"
    until = time.monotonic() + wait
    while True:
        claim = Claim(lock, public_url(catalog.url))
        try:
            claim.__enter__()
            break
        except DatasetBusyError as error:
            if time.monotonic() > until:
                raise DatasetBusyError(
                    f"Somebody else changes the catalog, for more than {wait:.0f} seconds.",
                    path=public_url(catalog.url),
                    remedy=f"Try again, or delete {public_url(lock.url)} if nobody does.",
                ) from error
            time.sleep(0.2)
    try:
        yield
    finally:
        claim.__exit__(None, None, None)


def _warn_where_unguarded(catalog: Location) -> None:
    """Look whether the store refuses to create what is there; the claim relies on it."""
    if catalog.is_local:
        return
    probe = catalog.parent / f".{catalog.name}.{uuid.uuid4().hex}.probe"
    try:
        guarded = probe.create(b"1") and not probe.create(b"2")
    finally:
        probe.remove()
    if not guarded:
        warnings.warn(
            f"The store of {public_url(catalog.url)} does not honour create-if-absent: of two changes at once one may "
            "be lost. Change this catalog from one place only.",
            UnguardedCatalogWarning,
            stacklevel=3,
        )
