"""Change what a dataset says about itself, without building: description, licence, authors, DOI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from cellcube.cube import CubeState, existing_state
from cellcube.errors import ArgumentError
from cellcube.ledger import OUTCOME_COLUMNS, Claim, Recorder, RunTable, calling_script, code_of, environment
from cellcube.location import Location
from cellcube.manifest import is_current, write_manifest
from cellcube.run.commit import commit_version
from cellcube.run.target import WORK
from cellcube.spec import CubeSpec
from cellcube.urls import public_url

# Fields of the spec that tell of a dataset, and make no other cells.
FIELDS = ("name", "description", "licence", "authors", "doi", "citation", "keywords")


def describe(
    root: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    identify: bool = False,
    **fields: Any,
) -> int:
    """Change the name, description, licence, authors, DOI, citation or keywords of a dataset, in a new version.

    Cells and pixels stay as they are. A later build keeps its own spec's words.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    storage_options : mapping, optional
        fsspec options.
    identify : bool
        Write user and host into the provenance.
    **fields
        As in `CubeSpec`: `name`, `description`, `licence`, `authors`, `doi`, `citation`, `keywords`.

    Returns
    -------
    int
        The version that has them; the latest where nothing changed.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where another field is given, or a value that cannot be used.
    cellcube.errors.DatasetError
        Where there is no dataset, or another build is writing to it.
    """
    unknown = [name for name in fields if name not in FIELDS]
    if unknown or not fields:
        raise ArgumentError(
            f"{unknown[0]!r} does not describe a dataset." if unknown else "Nothing is given.",
            remedy=f"Give some of {', '.join(FIELDS)}.",
        )
    # Checked and brought into their form by the spec itself.
    checked = CubeSpec(**fields).to_dict()
    new = {name: checked[name] for name in fields}
    location = Location.of(root, storage_options)
    existing_state(location)
    with Claim(location / WORK / "claim.json", public_url(location.url)):
        state = existing_state(location)
        if not is_current(location, state):
            write_manifest(location, state)
        changed = {name: value for name, value in new.items() if state.attributes["spec"].get(name) != value}
        if changed:
            state = _commit(location, state, changed, identify)
            write_manifest(location, state)
    (location / WORK).remove_empty()
    return state.version


def _commit(root: Location, state: CubeState, changed: Mapping[str, Any], identify: bool) -> CubeState:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    spec = {**state.attributes["spec"], **changed}
    own = {name: spec[name] for name in ("name", "description", "licence")}
    record = {
        "version": state.version + 1,
        "kind": "describe",
        "changed": dict(changed),
        "started": now,
        "finished": now,
        "counts": {},
        "spec": spec,
        "spec_digest": state.attributes["spec_digest"],
        "code": code_of(calling_script()),
        "environment": environment(identify),
    }
    nothing = pd.DataFrame({name: pd.Series([], dtype=str) for name in OUTCOME_COLUMNS})
    tables: dict[RunTable, pd.DataFrame] = {
        "cells": pd.DataFrame({"cell_id": pd.Series([], dtype=str)}),
        "outcomes": nothing.astype({"label": "int64", "run": "int64"}),
        "fovs": pd.DataFrame({"fov_id": pd.Series([], dtype=str), "labels": pd.Series([], dtype="int64")}),
    }
    entry = {"cells": state.count, "retracted": state.retracted_at(state.version)}
    attributes = {**state.attributes, **own, "spec": spec}
    return commit_version(Recorder(root), attributes, entry, record, tables, lambda cube, documents: {})
