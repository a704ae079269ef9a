"""Versions of a dataset: take cells back, and tell what changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from cellcube import cube as cubes
from cellcube.cube import CubeState, existing_state
from cellcube.errors import ArgumentError, did_you_mean
from cellcube.ledger import (
    OUTCOME_COLUMNS,
    Claim,
    Recorder,
    RunTable,
    calling_script,
    code_of,
    environment,
    read_run,
)
from cellcube.location import Location
from cellcube.manifest import is_current, read_cells, read_retracted, write_manifest
from cellcube.run.commit import commit_version
from cellcube.run.target import WORK

# Columns that tell of builds, not of cells.
_OF_THE_BUILD = ("run", "position")


@dataclass(frozen=True)
class RetractReport:
    """What a retraction did.

    Parameters
    ----------
    root : str
    version : int
        The version in which the cells are no longer seen; the latest where nothing changed.
    retracted : int
        Cells that this call took back.
    before : int
        Cells of the call that were retracted already.
    cells : int
        Cells that are left.
    """

    root: str
    version: int
    retracted: int
    before: int
    cells: int

    def __str__(self) -> str:
        if not self.retracted:
            return f"nothing to retract: the dataset is at version {self.version}"
        return f"{self.retracted:,} cells retracted in version {self.version}; {self.cells:,} are left"


def retract(
    root: str | os.PathLike[str],
    cell_ids: str | Iterable[str],
    reason: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    identify: bool = False,
) -> RetractReport:
    """Take cells back, in a new version.

    Pixels stay as they are, and versions before still have the cells. Later builds of a table with these cells do not
    add them again.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    cell_ids : str or iterable of str
    reason : str
        Why; it is kept with the version.
    storage_options : mapping, optional
        fsspec options.
    identify : bool
        Write user and host into the provenance.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where a cell is not in the dataset, or there is no reason.
    cellcube.errors.DatasetError
        Where there is no dataset, or another build is writing to it.
    """
    wanted = [cell_ids] if isinstance(cell_ids, str) else list(dict.fromkeys(map(str, cell_ids)))
    if not wanted or not reason.strip():
        raise ArgumentError("Nothing can be retracted without cells and a reason.")
    location = Location.of(root, storage_options)
    existing_state(location)
    with Claim(location / WORK / "claim.json", location.url):
        state = existing_state(location)
        if not is_current(location, state):
            write_manifest(location, state)
        known = read_cells(location, state.version).set_index("cell_id")["position"]
        gone = _retracted_until(location, state.version)
        unknown = [name for name in wanted if name not in known.index and name not in gone]
        if unknown:
            raise ArgumentError(
                f"{len(unknown)} of {len(wanted)} cells are not in the dataset, such as {unknown[0]!r}.",
                path=location.url,
                remedy=did_you_mean(unknown[0], map(str, known.index[:10_000])),
            )
        new = [name for name in wanted if name in known.index]
        if new:
            rows = pd.DataFrame({"cell_id": new, "position": known.loc[new].to_numpy("int64"), "reason": reason})
            state = _commit(location, state, rows, reason, identify)
            write_manifest(location, state)
    (location / WORK).remove_empty()
    return RetractReport(location.url, state.version, len(new), len(wanted) - len(new), state.visible)


def _commit(root: Location, state: CubeState, rows: pd.DataFrame, reason: str, identify: bool) -> CubeState:
    version = state.version + 1
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "version": version,
        "kind": "retract",
        "reason": reason,
        "started": now,
        "finished": now,
        "counts": {"retracted": len(rows)},
        "spec": state.attributes["spec"],
        "spec_digest": state.attributes["spec_digest"],
        "code": code_of(calling_script()),
        "environment": environment(identify),
    }
    nothing = pd.DataFrame({name: pd.Series([], dtype=str) for name in OUTCOME_COLUMNS})
    tables: dict[RunTable, pd.DataFrame] = {
        "retracted": rows.assign(run=version),
        "cells": pd.DataFrame({"cell_id": pd.Series([], dtype=str)}),
        "outcomes": nothing.astype({"label": "int64", "run": "int64"}),
        "fovs": pd.DataFrame({"fov_id": pd.Series([], dtype=str), "labels": pd.Series([], dtype="int64")}),
    }
    entry = {"cells": state.count, "retracted": state.retracted_at(state.version) + len(rows)}
    return commit_version(
        Recorder(root),
        state.attributes,
        entry,
        record,
        tables,
        lambda cube, documents: cubes.retracted_chunks(
            cube, documents, state.layout, rows["position"].to_numpy("int64"), version
        ),
    )


@dataclass(frozen=True)
class Difference:
    """What differs between two versions, or two datasets.

    Parameters
    ----------
    first, second : str
        What was compared, ``root@version``.
    added, removed : tuple of str
        Cells that only the second has, and only the first; without those that were retracted.
    retracted : dict
        Reason by cell, of cells that the first has and that were retracted in the second.
    spec : tuple of (str, object, object)
        Field of the spec, value in the first, value in the second.
    changed : DataFrame
        `cell_id`, `column`, `first`, `second`: values of cells that both have.
    columns : tuple of (str, str)
        ``added`` or ``removed``, and a column of the manifest.
    """

    first: str
    second: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    retracted: Mapping[str, str]
    spec: tuple[tuple[str, Any, Any], ...]
    changed: pd.DataFrame
    columns: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.retracted or self.spec or len(self.changed) or self.columns)

    def __str__(self) -> str:
        lines = [f"{self.first} -> {self.second}"]
        for name, cells in (("added", self.added), ("removed", self.removed), ("retracted", tuple(self.retracted))):
            if cells:
                lines.append(f"{len(cells):,} cells {name}: {_some(cells)}")
        for reason in dict.fromkeys(self.retracted.values()):
            lines.append(f"  {list(self.retracted.values()).count(reason):,} retracted: {reason}")
        lines += [f"spec {field}: {old!r} -> {new!r}" for field, old, new in self.spec]
        lines += [f"column {name} {what}" for what, name in self.columns]
        for column, rows in self.changed.groupby("column", sort=False):
            one = rows.iloc[0]
            lines.append(
                f"{column} differs for {len(rows):,} cells, such as {one['cell_id']}: "
                f"{one['first']!r} -> {one['second']!r}"
            )
        return "\n".join(lines if self else [*lines, "no difference"])


def diff(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Difference:
    """What differs between two versions of a dataset, or between two datasets.

    Parameters
    ----------
    first, second : path or URL
        ``root@version``, or ``root`` for its latest version.
    storage_options : mapping, optional
        fsspec options.

    Raises
    ------
    cellcube.errors.DatasetNotFoundError, cellcube.errors.VersionNotFoundError
    """
    one, two = (_Version.of(each, storage_options) for each in (first, second))
    before, after = one.cells(), two.cells()
    gone = _retracted_until(two.root, two.version)
    lost = [name for name in before.index if name not in after.index]
    both = before.index.intersection(after.index, sort=False)
    common = [name for name in before.columns if name in after.columns and name not in _OF_THE_BUILD]
    changes = []
    for name in common:
        left, right = before.loc[both, name], after.loc[both, name]
        differs = ~((left == right) | (left.isna() & right.isna()))
        changes.append(
            pd.DataFrame({"cell_id": both[differs], "column": name, "first": left[differs], "second": right[differs]})
        )
    changed = pd.concat(changes, ignore_index=True) if changes else pd.DataFrame(columns=["cell_id", "column"])
    old, new = one.record()["spec"], two.record()["spec"]
    return Difference(
        first=str(one),
        second=str(two),
        added=tuple(name for name in after.index if name not in before.index),
        removed=tuple(name for name in lost if name not in gone),
        retracted={name: gone[name] for name in lost if name in gone},
        spec=tuple((name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)),
        changed=changed,
        columns=(
            *(("removed", str(name)) for name in before.columns if name not in after.columns),
            *(("added", str(name)) for name in after.columns if name not in before.columns),
        ),
    )


def split_version(address: str | os.PathLike[str]) -> tuple[str, int | None]:
    """The root and the version of ``root@version``; None where there is none.

    Examples
    --------
    >>> split_version("s3://bucket/screen@3")
    ('s3://bucket/screen', 3)
    >>> split_version("https://me@host/screen")
    ('https://me@host/screen', None)
    """
    text = os.fspath(address)
    root, found, version = text.rpartition("@")
    return (root, int(version)) if found and version.isdecimal() else (text, None)


@dataclass(frozen=True)
class _Version:
    root: Location
    version: int

    @classmethod
    def of(cls, address: str | os.PathLike[str], storage_options: Mapping[str, Any] | None) -> _Version:
        root, version = split_version(address)
        location = Location.of(root, storage_options)
        return cls(location, existing_state(location).existing_version(version, location))

    def cells(self) -> pd.DataFrame:
        return read_cells(self.root, self.version).set_index("cell_id")

    def record(self) -> dict[str, Any]:
        return read_run(self.root / "runs", self.version)

    def __str__(self) -> str:
        return f"{self.root.url}@{self.version}"


def _retracted_until(root: Location, version: int) -> dict[str, str]:
    frames = [read_retracted(root, number) for number in range(1, version + 1)]
    return {
        str(name): str(reason)
        for frame in frames
        for name, reason in zip(frame["cell_id"], frame["reason"], strict=True)
    }


def _some(cells: Sequence[str], most: int = 5) -> str:
    return ", ".join(cells[:most]) + (", …" if len(cells) > most else "")
