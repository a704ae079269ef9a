"""The metadata of the root, which are the commit, made again from the runs; right where their SHA-256 is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from cellcube.cells import KNOWN
from cellcube.cube import FORMAT, CubeState, Layout, cell_coordinates
from cellcube.ledger import read_run, run_name, sha256_of
from cellcube.location import Location
from cellcube.manifest import CATALOG
from cellcube.plan.layout import coordinate_type
from cellcube.publishing.listing import ROOT_DOCUMENT, Listing, run_table
from cellcube.run.commit import common_voxel_size, documents_of, manifest_coordinates, windows_of
from cellcube.spec import CubeSpec

Facts = Callable[[Location, CubeSpec], tuple[tuple[str, ...], dict[str, str]]]


def rescued_state(root: Location, listing: Listing) -> CubeState | None:
    """The committed state of a cube whose root metadata are damaged; None where the runs do not tell it."""
    if ROOT_DOCUMENT not in listing.objects:
        return None
    for facts in (_facts_of_arrays, _facts_of_catalog):
        try:
            state = CubeState(_attributes(root, listing, facts))
            made = documents_of(state)["zarr.json"]
        except Exception:  # whatever else is damaged can show anywhere; what comes out is compared by its hash
            continue
        if (len(made), sha256_of(made)) == listing.objects[ROOT_DOCUMENT]:
            return state
    return None


def _attributes(root: Location, listing: Listing, facts: Facts) -> dict[str, Any]:
    version = listing.version
    records = [read_run(root / "runs", number) for number in range(1, version + 1)]
    builds = [(number, record) for number, record in enumerate(records, 1) if record.get("kind", "build") == "build"]
    last = builds[-1][1]
    spec = CubeSpec(**last["spec"])
    layout = _layout(root, listing, spec, *facts(root, spec))
    voxel_size, windows, count, gone = None, None, 0, 0
    versions = []
    for number, record in enumerate(records, 1):
        if record.get("kind") == "retract":
            gone += len(run_table(root, number, "retracted"))
        else:
            rows = manifest_coordinates(run_table(root, number, "cells"), layout)
            if len(rows):
                voxel_size = common_voxel_size(rows, voxel_size)
            windows = windows or windows_of(rows, layout)
            count += len(rows)
        entry = {"version": number, "cells": count, "retracted": gone, "finished": record["finished"]}
        versions.append({**entry, "run": f"runs/{run_name(number)}.json"})
    fitted: dict[str, dict[str, dict[str, list[float]]]] = {}
    for _, record in builds:
        for fit in record["fits"]:
            groups = fitted.setdefault(fit["representation"], {}).setdefault(fit["channel"], {})
            groups[json.dumps(fit["group"], ensure_ascii=False)] = [fit["low"], fit["high"]]
    return {
        "format": FORMAT,
        "name": spec.name,
        "description": spec.description,
        "licence": spec.licence,
        "spec": last["spec"],
        "spec_digest": spec.digest,
        "identity": spec.identity(),
        "layout": layout.to_dict(),
        "voxel_size": voxel_size,
        "windows": windows,
        "fitted": fitted,
        "illumination": last["illumination"],
        "versions": versions,
        "last_run": {"code": last["code"], "cellcube": last["environment"]["cellcube"]},
    }


def _facts_of_arrays(root: Location, spec: CubeSpec) -> tuple[tuple[str, ...], dict[str, str]]:
    """Channels, and the type of each representation, as the metadata of the arrays say."""
    paths = {name: "cells" if name == "cells" else f"{name}/{name}" for name in spec.pipelines()}
    found = {name: json.loads((root / "cube.zarr" / path / "zarr.json").read()) for name, path in paths.items()}
    channels = tuple(each["channel"] for each in found["cells"]["attributes"]["normalization"])
    return channels, {name: each["data_type"] for name, each in found.items()}


def _facts_of_catalog(root: Location, spec: CubeSpec) -> tuple[tuple[str, ...], dict[str, str]]:
    """The same, as the catalog says."""
    found = yaml.safe_load((root / CATALOG).read())
    sources = {name: "normalized_cells" if name == "cells" else name for name in spec.pipelines()}
    dtypes = {name: found["sources"][source]["metadata"]["dtype"] for name, source in sources.items()}
    return tuple(found["metadata"]["cellcube"]["channels"]), dtypes


def _layout(
    root: Location, listing: Listing, spec: CubeSpec, channels: tuple[str, ...], dtypes: Mapping[str, str]
) -> Layout:
    """What never changes."""
    has_labels = "cube.zarr/labels/zarr.json" in listing.objects
    own = {*KNOWN, *cell_coordinates(Layout.of(spec, channels, dtypes, has_labels, {})), *spec.representations}
    table = run_table(root, 1, "table")
    given = [name for name in table.columns if name not in own and f"cube.zarr/{name}/zarr.json" in listing.objects]
    types = {name: coordinate_type(table[name]) for name in given}
    return Layout.of(spec, channels, dtypes, has_labels, types)
