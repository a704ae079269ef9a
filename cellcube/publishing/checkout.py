"""Take chosen cells of a dataset along as a dataset of its own, or all of it as a copy that can be updated."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from cellcube import cube as cubes
from cellcube.cube import CubeState
from cellcube.errors import (
    ArgumentError,
    CellcubeError,
    DatasetAccessError,
    DatasetDivergedError,
)
from cellcube.ledger import (
    Claim,
    Recorder,
    RunTable,
    calling_script,
    code_of,
    environment,
    read_run,
    read_run_table,
    run_name,
    sha256_of,
    table_bytes,
)
from cellcube.location import Location
from cellcube.manifest import read_cells, read_fovs, read_outcomes, write_manifest
from cellcube.publishing.chunks import shard_of
from cellcube.publishing.sync import CopyReport, copy_dataset, readable
from cellcube.run.commit import commit_version, manifest_coordinates
from cellcube.run.report import human_bytes
from cellcube.run.target import WORK, find_dataset
from cellcube.tables import rows_that_meet
from cellcube.urls import is_remote, public_options, public_url

# Where a copy remembers what it is a copy of. Not part of the dataset: it does not go along with copies of the copy.
ORIGIN = f"{WORK}/origin.json"

_AT_VERSION = re.compile(r"(?P<source>.+)@v?(?P<version>\d+)")


@dataclass(frozen=True)
class CheckoutReport:
    """What `checkout` did.

    Parameters
    ----------
    root : str
        The dataset that was made.
    source : str
        What it was taken from, without secrets.
    version : int
        Of the source.
    cells : int
        Cells that it has.
    bytes : int
        Of pixels that were read; 0 where all was there already.
    seconds : float
    """

    root: str
    source: str
    version: int
    cells: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.cells:,} cells of {self.source}, version {self.version}, are in {self.root} "
            f"({human_bytes(self.bytes)} read in {self.seconds:.1f} s)"
        )


def checkout(
    source: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    version: int | None = None,
    where: str | None = None,
    workers: int = 8,
    storage_options: Mapping[str, Any] | None = None,
    identify: bool = False,
) -> CheckoutReport:
    """Take cells of a dataset along as a dataset of its own.

    Pixels are moved as they are stored, without being decoded, and only those of the cells asked for are read. Without
    `version` and `where` it is a copy with all versions, which `pull` brings up to date.

    Parameters
    ----------
    source : path or URL
        Folder of a dataset. ``…@3`` means version 3.
    to : path or URL
        A new or empty folder.
    version : int, optional
        From 1; None is the latest.
    where : str, optional
        A condition on columns of the manifest, in pandas' query syntax, such as ``"well == 'B02'"``.
    workers : int
        Objects that are written at a time.
    storage_options : mapping, optional
        fsspec options for all remote paths, or one mapping a protocol. Never written anywhere.
    identify : bool
        Write user and host into the provenance.

    Returns
    -------
    CheckoutReport

    Raises
    ------
    cellcube.errors.ArgumentError
        Where the condition cannot be evaluated, or no cell meets it.
    cellcube.errors.DatasetDivergedError
        Where `to` holds another dataset.
    cellcube.errors.DatasetError
        Where there is no dataset, no such version, or it is damaged; where `to` cannot be written.
    """
    started = time.perf_counter()
    place, version = _split(os.fspath(source), version)
    origin, target = Location.of(place, storage_options), Location.of(to, storage_options)
    state = readable(origin)
    if version is None and where is None:
        copied = copy_dataset(origin, target, workers=workers)
        _remember(origin, target)
        return CheckoutReport(
            public_url(target.url), copied.source, state.version, state.visible, copied.copied_bytes, copied.seconds
        )
    version = state.existing_version(version, origin)
    cells = _chosen(read_cells(origin, version), where, origin)
    about = _source(origin, state, version, where, len(cells))
    there = find_dataset(target)
    if there is not None:
        if read_run(target / "runs", 1).get("source") == about:
            readable(target)
            return CheckoutReport(
                public_url(target.url), about["url"], version, len(cells), 0, time.perf_counter() - started
            )
        raise DatasetDivergedError(
            "There is a dataset already, and it is not this part of that source.",
            path=public_url(target.url),
            remedy="Give a new folder.",
        )
    try:
        with Claim(target / WORK / "claim.json", public_url(target.url)):
            read = _write(origin, target, state, version, cells, about, workers, identify)
    except CellcubeError:
        raise
    except OSError as error:
        raise DatasetAccessError(
            f"The checkout stopped: {type(error).__name__}: {error}.",
            path=public_url(target.url),
            remedy="Check permissions and storage options, and do it again.",
        ) from error
    (target / WORK).remove_empty()
    seconds = time.perf_counter() - started
    return CheckoutReport(public_url(target.url), about["url"], version, len(cells), read, seconds)


def pull(
    to: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    workers: int = 8,
    storage_options: Mapping[str, Any] | None = None,
) -> CopyReport:
    """Bring a copy of a dataset up to date: only what is new is read.

    Parameters
    ----------
    to : path or URL
        The copy.
    source : path or URL, optional
        The dataset. None is where the copy was made from.
    workers : int
        Objects that are copied at a time.
    storage_options : mapping, optional
        fsspec options for all remote paths, or one mapping a protocol. Never written anywhere, so they are needed
        again.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where `source` is not given, and the copy does not know it.
    cellcube.errors.DatasetError
        As of `copy_dataset`.
    """
    target = Location.of(to, storage_options)
    known: dict[str, Any] = {}
    if source is None:
        with contextlib.suppress(OSError, ValueError):
            known = json.loads((target / ORIGIN).read())
        if "url" not in known:
            raise ArgumentError(
                "The folder does not know what it is a copy of.", path=public_url(target.url), remedy="Give `source`."
            )
        source = str(known["url"])
    origin = Location.of(source, storage_options)
    if not storage_options and known.get("storage_options"):
        origin = Location(origin.url, dict(known["storage_options"]))
    report = copy_dataset(origin, target, workers=workers)
    _remember(origin, target)
    return report


def _split(source: str, version: int | None) -> tuple[str, int | None]:
    found = _AT_VERSION.fullmatch(source)
    if found is None or (not is_remote(source) and Location.of(source).exists()):
        return source, version
    if version is not None and version != int(found["version"]):
        raise ArgumentError(f"{source!r} and version={version} are two versions.", remedy="Give one.")
    return found["source"], int(found["version"])


def _remember(origin: Location, target: Location) -> None:
    about = {"url": public_url(origin.url), "storage_options": public_options(origin.storage_options)}
    (target / ORIGIN).write(json.dumps(about).encode())


def _chosen(cells: pd.DataFrame, where: str | None, origin: Location) -> pd.DataFrame:
    if where is not None:
        cells = cells[rows_that_meet(cells, where, "where", ArgumentError)]
    if cells.empty:
        told = "The version has no cells." if where is None else f"No cell meets the condition {where!r}."
        raise ArgumentError(told, path=public_url(origin.url))
    return cells.sort_values("position", kind="stable", ignore_index=True)


def _source(origin: Location, state: CubeState, version: int, where: str | None, count: int) -> dict[str, Any]:
    """What a checkout was made from."""
    names = [f"{run_name(number)}.json" for number in range(1, version + 1)]
    return {
        "url": origin.name if origin.is_local else public_url(origin.url),
        "storage_options": public_options(origin.storage_options),
        "version": version,
        "where": where,
        "cells": count,
        "spec_digest": state.attributes["spec_digest"],
        "runs": {name: sha256_of((origin / "runs" / name).read()) for name in names},
    }


def _write(
    origin: Location,
    target: Location,
    state: CubeState,
    version: int,
    cells: pd.DataFrame,
    about: Mapping[str, Any],
    workers: int,
    identify: bool,
) -> int:
    """Write shards, runs and coordinates, and commit. Gives how many bytes of pixels were read."""
    started = datetime.now(UTC)
    layout, recorder = state.layout, Recorder(target)
    positions = cells["position"].to_numpy("int64")
    tasks = [
        (array, number, positions[first : first + array.shard_cells])
        for array in layout.arrays().values()
        for number, first in enumerate(range(0, len(positions), array.shard_cells))
    ]

    def work(task: tuple[cubes.ArrayLayout, int, np.ndarray[Any, np.dtype[np.int64]]]) -> int:
        array, number, chosen = task
        data, read = shard_of(origin / "cube.zarr", array, chosen, state.count)
        recorder.write(f"cube.zarr/{array.shard_key(number)}", data)
        return read

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="cellcube-checkout") as pool:
        read = sum(pool.map(work, tasks))
    for name in about["runs"]:
        recorder.write(f"runs/source/{name}", (origin / "runs" / name).read())
    taken = cells[["cell_id", "run", "position"]]
    recorder.write("runs/source/cells.parquet", table_bytes(taken, {"version": version}))
    tables = _tables(origin, state, version, cells, about["where"] is None)
    last = [read_run(origin / "runs", number) for number in range(1, version + 1)]
    record = {
        "version": 1,
        "kind": "checkout",
        "source": dict(about),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": _counts(tables["outcomes"]),
        "spec": state.attributes["spec"],
        "spec_digest": state.attributes["spec_digest"],
        "code": code_of(calling_script()),
        "functions": {name: each for run in last for name, each in (run.get("functions") or {}).items()},
        "environment": environment(identify),
        "executor": {"name": "threads", "workers": workers},
        "root": target.name if target.is_local else public_url(target.url),
        "storage_options": public_options(target.storage_options),
        "seconds": {},
        "fovs": _files(last, set(tables["outcomes"]["fov_id"])),
        "fits": [fit for run in last for fit in run.get("fits") or []],
        "illumination": last[0].get("illumination") or {},
    }
    new = cells.drop(columns=["run", "position"])
    new.insert(min(3, new.shape[1]), "run", 1)
    new.insert(min(4, new.shape[1]), "position", np.arange(len(new)))
    rows = manifest_coordinates(new, layout)
    attributes = {
        **state.attributes,
        "versions": [],
        "last_run": {"code": record["code"], "cellcube": record["environment"]["cellcube"]},
    }
    committed = commit_version(
        recorder,
        attributes,
        {"cells": len(new), "retracted": 0},
        record,
        {"cells": new, **tables},
        lambda cube, documents: cubes.coordinate_chunks(cube, documents, layout, 0, rows),
    )
    write_manifest(target, committed)
    return read


def _tables(
    origin: Location, state: CubeState, version: int, cells: pd.DataFrame, everything: bool
) -> dict[RunTable, pd.DataFrame]:
    """The tables of the first run, of the cells that were chosen; of all that were asked for where nothing was."""
    outcomes = read_outcomes(origin, version)
    mine = outcomes["cell_id"].isin(cells["cell_id"])
    outcomes = outcomes[mine | (outcomes["status"] != "kept")] if everything else outcomes[mine]
    fovs = read_fovs(origin, version)[["fov_id", "labels"]].dropna()
    asked = []
    for number in range(1, version + 1):
        with contextlib.suppress(CellcubeError):
            asked.append(read_run_table(origin / "runs", number, "table"))
    tables: dict[RunTable, pd.DataFrame] = {
        "outcomes": outcomes.assign(run=1).reset_index(drop=True),
        "fovs": fovs[fovs["fov_id"].isin(outcomes["fov_id"])].assign(run=1).reset_index(drop=True),
    }
    if asked:
        joined = pd.concat(asked, ignore_index=True).drop_duplicates("cell_id", keep="last")
        tables["table"] = joined[joined["cell_id"].isin(outcomes["cell_id"])].assign(run=1).reset_index(drop=True)
    return tables


def _counts(outcomes: pd.DataFrame) -> dict[str, int]:
    counted = outcomes["status"].value_counts()
    statuses = {status: int(counted.get(status, 0)) for status in ("kept", "dropped", "failed")}
    return {"requested": len(outcomes), **statuses}


def _files(runs: Sequence[Mapping[str, Any]], fovs: set[str]) -> dict[str, Any]:
    """What the source's builds read of these fields of view."""
    return {fov: files for run in runs for fov, files in (run.get("fovs") or {}).items() if fov in fovs}
