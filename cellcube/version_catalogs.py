"""Catalogs of the versions of a dataset: what `catalog.yaml` lists under ``versions``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import yaml

from cellcube.cube import CubeState

VERSIONS = "versions.yaml"
FOLDER = "versions"

# Folders above an object store's are not written "..", which some refuse; Intake renders its paths with Jinja.
_ABOVE = "{{ CATALOG_DIR.rstrip('/').rpartition('/')[0] }}"


def version_path(version: int) -> str:
    """Where the catalog of a version is."""
    return f"{FOLDER}/{version:06d}.yaml"


def snapshot_path(version: int) -> str:
    """Where the manifest of a version is, if cells that it had were retracted later."""
    return f"{FOLDER}/{version:06d}.cells.parquet"


def needs_snapshot(state: CubeState, version: int) -> bool:
    """Whether cells of a version were retracted later, so that the latest manifest lacks them."""
    return state.retracted_at(state.version) > state.retracted_at(version)


def versions_source() -> dict[str, Any]:
    """The entry of the catalog of versions in the dataset's own."""
    return {
        "description": "Every version of the dataset, v1 the first",
        "driver": "yaml_file_cat",
        "args": {"path": "{{ CATALOG_DIR }}/" + VERSIONS},
        "metadata": {},
    }


def version_catalogs(state: CubeState, sources: Mapping[str, Any], there: Collection[str] = ()) -> dict[str, bytes]:
    """The catalog of versions, and those of the versions that are not there yet, by path.

    Parameters
    ----------
    state : CubeState
    sources : mapping
        Of the dataset's catalog: the arrays, and the manifest as ``cells``.
    there : collection of str
        Paths that need not be made again.

    Returns
    -------
    dict
        In a version, ``cells`` is the manifest of that version, and the arrays are those of the whole cube: their first
        cells are the version's, which `description` and ``metadata`` tell. No driver of Intake opens a part of an
        array.
    """
    entries = {}
    found: dict[str, bytes] = {}
    for version in range(1, state.version + 1):
        known = state.attributes["versions"][version - 1]
        count, retracted = state.count_at(version), state.retracted_at(version)
        about = {
            "version": version,
            "cells": count - retracted,
            "retracted": retracted,
            "finished": known["finished"],
            "run": known["run"],
        }
        text = f"Version {version}: {count - retracted:,} cells, {known['finished'][:10]}"
        entries[f"v{version}"] = {
            "description": text,
            "driver": "yaml_file_cat",
            "args": {"path": "{{ CATALOG_DIR }}/" + version_path(version)},
            "metadata": about,
        }
        path = version_path(version)
        if path not in there or needs_snapshot(state, version):
            document = {
                "name": f"v{version}",
                "description": text,
                "metadata": {"version": 1, "cellcube": about},
                "sources": _sources(state, version, sources, about),
            }
            found[path] = _yaml(document)
    heading = {"name": "versions", "description": "Versions of the dataset", "metadata": {"version": 1}}
    found[VERSIONS] = _yaml({**heading, "sources": entries})
    return found


def _sources(
    state: CubeState, version: int, sources: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    count = state.count_at(version)
    axis = state.layout.cell_axis
    pick = f"isel({axis}=slice(0, {count}))"
    if about["retracted"]:
        pick = f"isel({axis}=cells['position']) with the manifest cells"
    found = {}
    for name, source in sources.items():
        args = dict(source["args"])
        if source["driver"] == "zarr":
            args["urlpath"] = args["urlpath"].replace("{{ CATALOG_DIR }}", _ABOVE)
            metadata = {**about, "variable": source["metadata"]["variable"], "dims": source["metadata"]["dims"]}
            description = f"The array of all versions. Version {version}: {pick}"
        elif name == "cells":
            metadata, description = dict(about), f"Manifest of version {version}: one row a cell"
            if needs_snapshot(state, version):
                args["urlpath"] = "{{ CATALOG_DIR }}/" + snapshot_path(version).rpartition("/")[2]
            else:
                args["urlpath"] = args["urlpath"].replace("{{ CATALOG_DIR }}", _ABOVE)
                args["filters"] = [[["run", "<=", version]]]
        else:
            continue
        found[name] = {"description": description, "driver": source["driver"], "args": args, "metadata": metadata}
    return found


def _yaml(document: Mapping[str, Any]) -> bytes:
    return yaml.dump(document, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=1000).encode()


class PlainDumper(yaml.SafeDumper):
    """Without anchors, which people stumble over."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True
