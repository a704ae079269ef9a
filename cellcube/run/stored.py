"""A plan below the root of its dataset, from which any process can do some of the jobs.

Keys are not written: storage options are given again, and a table whose URLs hold keys is given again too.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

from cellcube.cells import CellTable, load_cells
from cellcube.cube import CubeState, Layout
from cellcube.errors import ArgumentError, CellcubeError, PlanError
from cellcube.functions import UserFunction
from cellcube.ledger import environment, sha256_of, table_bytes
from cellcube.location import Location
from cellcube.plan import Fit, Job, Plan, fov_tasks, lightings
from cellcube.run.planned import Planned, path_columns
from cellcube.run.target import PLAN, WORK
from cellcube.spec import CubeSpec
from cellcube.tables import is_in
from cellcube.urls import public_url

Cells = pd.DataFrame | str | os.PathLike[str]

AGAIN = "Plan again: cellcube plan TABLE ROOT."


class StoredPlan:
    """The plan below a root.

    Parameters
    ----------
    root : Location
    """

    def __init__(self, root: Location) -> None:
        self.root = root
        self._folder = root / WORK / PLAN

    def exists(self) -> bool:
        """Whether there is one."""
        return (self._folder / "plan.json").exists()

    def save(self, planned: Planned, version: int, cells: Cells, storage_options: Mapping[str, Any] | None) -> None:
        """Write a plan in place of the one that is there.

        Parameters
        ----------
        planned : Planned
        version : int
            Of the dataset that it was made for.
        cells : DataFrame, path or URL
            The cell table that was given.
        storage_options : mapping, optional
            For the table; not written.
        """
        plan, table = planned.plan, planned.table
        tables = {
            "cells": planned.public_rows(),
            "asked": pd.DataFrame({"cell_id": planned.asked}),
            "failed": plan.failed,
            "jobs": pd.DataFrame(
                {
                    "key": pd.Series([job.key for job in plan.jobs], dtype=str),
                    "cells": pd.Series([job.count for job in plan.jobs], dtype="int64"),
                    "room": pd.Series(planned.rooms, dtype="int64"),
                }
            ),
        }
        data = {name: table_bytes(frame) for name, frame in tables.items()}
        paths = [table.base, *(path for name in path_columns(table) for path in table.frame[name].unique())]
        about = {
            "cellcube": environment(False)["cellcube"],
            "started": planned.started.isoformat(),
            "version": version,
            "source": _source(cells, storage_options),
            "has_keys": any(public_url(path) != path for path in paths),
            "table": {
                "mode": table.mode,
                "image_columns": table.image_columns,
                "metadata": table.metadata,
                "base": public_url(table.base),
                "label_images": table.label_images,
            },
            "base": public_url(planned.base),
            "spec": planned.spec.to_dict(),
            "spec_digest": planned.spec.digest,
            "layout": plan.layout.to_dict() if plan.layout else None,
            "illumination": planned.light_digests,
            "fitted": planned.fitted,
            "fits": planned.fits,
            "digests": {name: sha256_of(each) for name, each in data.items()},
        }
        self._folder.remove()
        for name, each in data.items():
            (self._folder / f"{name}.parquet").write(each)
        # Last, as it says that the others are there.
        (self._folder / "plan.json").write(json.dumps(about).encode())

    def check(
        self, state: CubeState | None, storage_options: Mapping[str, Any] | None, cells: Cells | None = None
    ) -> None:
        """Refuse a plan that is out of date.

        Parameters
        ----------
        state : CubeState or None
            What is committed.
        storage_options : mapping, optional
        cells : DataFrame, path or URL, optional
            The cell table, where it is given again.

        Raises
        ------
        PlanError
        """
        about = self._about
        here = environment(False)["cellcube"]
        if about["cellcube"] != here:
            raise self._stale(f"The plan was made by cellcube {about['cellcube']}, and this is {here}.")
        version = state.version if state else 0
        if version != about["version"]:
            then = f"version {about['version']}" if about["version"] else "a new dataset"
            now = f"is at version {version}" if version else "is gone"
            raise self._stale(f"The plan is out of date: it was made for {then}, and the dataset {now}.")
        source = about["source"]
        given = source and source["path"] if cells is None or isinstance(cells, pd.DataFrame) else cells
        if source is None or given is None:
            return
        place = Location.of(given, storage_options)
        found = place.state()
        # Machines that only do jobs need not see the table.
        if found and found != source["state"] and sha256_of(place.read()) != source["sha256"]:
            raise PlanError(
                "The plan is out of date: the cell table has changed since it was made.",
                path=public_url(place.url),
                remedy=f"{AGAIN} Jobs whose cells and images are the same are not done again.",
            )

    def load(
        self,
        storage_options: Mapping[str, Any] | None,
        cells: Cells | None = None,
        part: slice = slice(None),
    ) -> Planned:
        """The plan, with some of its jobs.

        Parameters
        ----------
        storage_options : mapping, optional
        cells : DataFrame, path or URL, optional
            The cell table again, where its URLs hold keys.
        part : slice
            Of the jobs.

        Raises
        ------
        PlanError
            Where there is none, or its spec or images are no longer those that it was made with.
        """
        about = self._about
        spec = self._spec(about)
        jobs = self._table("jobs")
        ends = list(accumulate(jobs["cells"].tolist(), initial=0))
        numbers = range(len(jobs))[part]
        rows = self._table("cells")
        if len(numbers) < len(jobs):
            own = [np.arange(ends[number], ends[number + 1]) for number in numbers]
            rows = rows.take(np.concatenate([[], *own]).astype(int)).reset_index(drop=True)
        table = CellTable(rows, **{**about["table"], "metadata": tuple(about["table"]["metadata"])})
        base = about["base"]
        if about["has_keys"]:
            table, base = self._with_keys(table, spec, cells, storage_options)
        lights = lightings(spec, table.base, storage_options)
        layout = Layout.from_dict(about["layout"]) if about["layout"] else None
        planned = Planned(
            spec=spec,
            table=table,
            asked=self._table("asked")["cell_id"],
            plan=Plan((), layout, self._table("failed")),
            rooms=tuple(int(jobs["room"].iloc[number]) for number in numbers),
            base=base,
            lights=lights,
            fitted=about["fitted"],
            fits=about["fits"],
            started=datetime.fromisoformat(about["started"]),
        )
        if planned.light_digests != about["illumination"]:
            raise self._stale("The illumination images are not those that the plan was made with.")
        if layout is None:
            return planned
        fit = Fit(spec, layout.channels, rows, about["fitted"])
        tasks = iter([fit.bound(task) for task in fov_tasks(table, table.frame, spec, storage_options)])
        found = []
        for number in numbers:
            fovs, left = [], int(jobs["cells"].iloc[number])
            while left:
                fovs.append(next(tasks))
                left -= len(fovs[-1].cells)
            found.append(Job(str(jobs["key"].iloc[number]), tuple(fovs)))
        return replace(planned, plan=replace(planned.plan, jobs=tuple(found)))

    def committed(self, state: CubeState | None, outcomes: pd.DataFrame | None) -> bool:
        """Whether the dataset has, since the plan was made, decided on all that it asks for."""
        about = self._about
        if state is None or outcomes is None or state.version <= about["version"]:
            return False
        since = outcomes.loc[outcomes["run"] > about["version"], "cell_id"]
        planned = pd.concat([self._table("cells")["cell_id"], self._table("failed")["cell_id"]])
        return bool(is_in(planned, since).all())

    def count(self) -> int:
        """Jobs in all."""
        return len(self._table("jobs"))

    def note_part(self, part: int, parts: int) -> None:
        """Remember that a part was begun, so that what is missing can be told by its name."""
        (self._folder / "parts" / f"{part}-of-{parts}").write(b"")

    def parts(self) -> list[tuple[int, int]]:
        """Parts that were begun: (part, parts)."""
        found = []
        for name in (self._folder / "parts").names():
            part, _, parts = name.partition("-of-")
            if part.isdecimal() and parts.isdecimal():
                found.append((int(part), int(parts)))
        return sorted(found, key=lambda each: (each[1], each[0]))

    @cached_property
    def _about(self) -> dict[str, Any]:
        try:
            about: dict[str, Any] = json.loads((self._folder / "plan.json").read())
        except FileNotFoundError:
            raise PlanError(
                "There is no plan for this dataset.",
                path=self.root.url,
                remedy="Make one: cellcube plan TABLE ROOT. A plan is gone once it is committed.",
            ) from None
        except ValueError:
            raise self._stale("The plan is damaged.") from None
        return about

    def _table(self, name: str) -> pd.DataFrame:
        try:
            data = (self._folder / f"{name}.parquet").read()
        except FileNotFoundError:
            data = b""
        if sha256_of(data) != self._about["digests"][name]:
            raise self._stale("The plan is damaged, or another one is just being written.")
        return pd.read_parquet(io.BytesIO(data))

    def _stale(self, why: str) -> PlanError:
        return PlanError(why, path=self.root.url, remedy=AGAIN)

    def _spec(self, about: Mapping[str, Any]) -> CubeSpec:
        try:
            spec = CubeSpec(**about["spec"])
        except CellcubeError as error:
            raise PlanError(
                f"The spec of the plan cannot be used here: {error.message}",
                path=self.root.url,
                remedy="Functions are imported by their names: put their module on the Python path.",
            ) from error
        if spec.digest != about["spec_digest"]:
            changed = [
                name for name, value in spec.to_dict().items() if json.loads(json.dumps(value)) != about["spec"][name]
            ]
            raise self._stale(f"The source of a function of the spec has changed since the plan: {', '.join(changed)}.")
        return spec

    def _with_keys(
        self, table: CellTable, spec: CubeSpec, cells: Cells | None, storage_options: Mapping[str, Any] | None
    ) -> tuple[CellTable, str]:
        """The table and what is taken off its paths, with the URLs as they are given again."""
        if cells is None:
            raise PlanError(
                "URLs of the cell table hold keys, which a plan does not.",
                path=self.root.url,
                remedy="Give the table again: --table TABLE.",
            )
        given = load_cells(cells, spec, storage_options)
        paths = given.frame.drop_duplicates("fov_id").set_index("fov_id")[path_columns(given)]
        frame = table.frame
        if not frame["fov_id"].isin(paths.index).all():
            raise self._stale("The cell table is not the one that the plan was made of.")
        found = {name: frame["fov_id"].map(paths[name]) for name in path_columns(table)}
        return replace(table, frame=frame.assign(**found), base=given.base), given.published_base


def check_importable(spec: CubeSpec) -> None:
    """Refuse functions that other processes cannot import by their names.

    Raises
    ------
    ArgumentError
    """
    for place, function in spec.functions().items():
        try:
            found = None if function.name.startswith("__main__:") else UserFunction.load(function.name)
        except ArgumentError:
            found = None
        if found != function:
            raise ArgumentError(
                f"{place}: the function {function.name!r} cannot be imported by other processes, which a plan is for.",
                remedy="Put it into a module on their Python path and give it as 'package.module:name'.",
            )


def _source(cells: Cells, storage_options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What tells whether the table has changed; without its place where its URL holds keys."""
    if isinstance(cells, pd.DataFrame):
        return None
    place = Location.of(cells, storage_options)
    path = place.url if public_url(place.url) == place.url else None
    return {"path": path, "state": place.state(), "sha256": sha256_of(place.read())}
