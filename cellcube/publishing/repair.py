"""`repair`: make damaged objects again, each only if it comes out as the runs list it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pandas as pd

from cellcube import cube as cubes
from cellcube.cube import CubeState
from cellcube.errors import ArgumentError, CellcubeError, DatasetBusyError
from cellcube.ledger import Claim, read_run, sha256_of, table_bytes
from cellcube.location import Location
from cellcube.manifest import CATALOG, OBJECTS
from cellcube.publishing.cell_names import CellNames
from cellcube.publishing.check import Findings, Level, check
from cellcube.publishing.derived import regenerate
from cellcube.publishing.listing import (
    ROOT_DOCUMENT,
    Problem,
    is_of_runs,
    parsed_objects,
    read_bytes,
)
from cellcube.publishing.rebuild import Broken, Cells, Made, Sources, rebuild, spec_of
from cellcube.publishing.rescue import rescued_state
from cellcube.publishing.run_tables import candidates
from cellcube.run.commit import documents_of
from cellcube.run.executors import Workers
from cellcube.run.target import WORK
from cellcube.spec import CubeSpec

_RUN_FILE = re.compile(r"runs/(\d{6,})\.(\w+)\.parquet")
_STORE = "cube.zarr/"


@dataclass(frozen=True)
class RepairReport:
    """What `repair` did.

    Parameters
    ----------
    root : str
    version : int
    repaired : DataFrame
        One row an object that was put in place or removed: `path`, `how`.
    left : DataFrame
        One row an object that is as it was: `path`, `problem`, `reason`.
    findings : Findings
        What was wrong before.
    seconds : float
    """

    root: str
    version: int
    repaired: pd.DataFrame
    left: pd.DataFrame
    findings: Findings
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is left to repair."""
        return self.left.empty

    def __str__(self) -> str:
        lines = [f"dataset  {self.root}, version {self.version}"]
        if self.repaired.empty and self.left.empty:
            lines.append("nothing to repair")
        lines += [f"  repaired  {row['path']}  {row['how']}" for row in self.repaired.to_dict("records")]
        for row in self.left.to_dict("records"):
            lines.append(f"  left      {row['path']}  {row['problem']}\n{'':<12}{row['reason']}")
        return "\n".join(lines)


def repair(
    root: str | os.PathLike[str],
    level: Level = "full",
    *,
    cells: Cells = None,
    remove_foreign: bool = False,
    executor: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> RepairReport:
    """Make again what is damaged in a dataset, and nothing else.

    Tables and metadata come from the runs, pixels from the images, read with the spec and the statistics of the
    dataset. An object of the cube or of a run is put in place only if it has the size and SHA-256 that are listed.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    level : {"quick", "full"}
        How thoroughly damage is looked for; see `cellcube.verify`.
    cells : DataFrame, path or URL, optional
        The cell table, which tells where the images are now, or the folder that its relative paths are seen from.
    remove_foreign : bool
        Remove objects that are not of the dataset.
    executor, storage_options, progress
        As `cellcube.build` takes them.

    Returns
    -------
    RepairReport

    Raises
    ------
    cellcube.errors.DatasetBusyError
        Where a build writes to the dataset.
    cellcube.errors.DatasetError
        As `cellcube.verify`.
    cellcube.errors.TableError
        Where `cells` cannot be used.
    """
    if level not in ("quick", "full"):
        raise ArgumentError(f"level={level!r}: give 'quick' or 'full'.")
    Workers(executor, 0)  # refuses what cannot run jobs
    started = time.perf_counter()
    location = Location.of(root, storage_options)
    before = read_bytes(location / ROOT_DOCUMENT)
    findings = check(location, level, progress)
    work = _Repair(location, findings, cells, executor, storage_options)
    if work.todo or (remove_foreign and work.foreign):
        with Claim(location / WORK / "claim.json", location.url):
            if read_bytes(location / ROOT_DOCUMENT) != before:
                raise DatasetBusyError("A build wrote to the dataset while it was compared.", path=location.url)
            try:
                work.run(remove_foreign)
            finally:
                work.work.remove()
    for path in work.foreign:
        if path not in work.repaired:
            work.left.setdefault(path, "not of the dataset; remove_foreign=True removes it")
    problems = {each.path: each.problem for each in findings.problems}
    return RepairReport(
        root=location.url,
        version=findings.listing.version,
        repaired=pd.DataFrame(sorted(work.repaired.items()), columns=["path", "how"]),
        left=pd.DataFrame(
            [(path, problems[path], reason) for path, reason in sorted(work.left.items())],
            columns=["path", "problem", "reason"],
        ),
        findings=findings,
        seconds=time.perf_counter() - started,
    )


class _Repair:
    """One repair of one dataset."""

    def __init__(
        self,
        root: Location,
        findings: Findings,
        cells: Cells,
        executor: Any,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        self.root = root
        self.listing = findings.listing
        self.sizes = findings.sizes
        self.state = findings.state
        self.cells = cells
        self.executor = executor
        self.storage_options = storage_options
        self.work = root / WORK / "repair"
        self.names = CellNames(root, self.listing.version)
        self.foreign = [each.path for each in findings.problems if each.problem == "foreign"]
        self.todo: dict[str, Problem] = {}
        for each in findings.problems:
            if each.problem != "foreign":
                self.todo.setdefault(each.path, each)
        self.repaired: dict[str, str] = {}
        self.left: dict[str, str] = {}

    def run(self, remove_foreign: bool) -> None:
        """Do it."""
        for path in [path for path in self.todo if path.startswith("runs/")]:
            self._run_file(path)
        if self.state is None:
            self.state = rescued_state(self.root, self.listing)
        if self.state is None:
            copy = "the metadata of the root must be whole first: copy it from another copy of the dataset"
            self._leave([path for path in self.todo if path not in self.repaired], copy)
            return
        self._metadata(self.state)
        self._coordinates(self.state)
        self._shards(self.state)
        self._derived(self.state)
        self._leave(self._open(), "it is not made by a build; whatever made it can make it again")
        if remove_foreign:
            for path in self.foreign:
                (self.root / path).remove()
                self.repaired[path] = "removed"
                self._remove_empty(path)

    def _remove_empty(self, path: str) -> None:
        folder = (self.root / path).parent
        while folder.url != self.root.url and folder.url.startswith(self.root.url):
            folder.remove_empty()
            folder = folder.parent

    def _open(self) -> list[str]:
        """What is neither repaired nor given up yet."""
        return [path for path in self.todo if path not in self.repaired and path not in self.left]

    def _leave(self, paths: Iterable[str], reason: str) -> None:
        for path in paths:
            self.left.setdefault(path, reason)

    def _put(self, path: str, data: bytes, how: str) -> bool:
        """Put an object in place if it is what must be there."""
        if (len(data), sha256_of(data)) != self.listing.objects.get(path):
            return False
        (self.root / path).write(data)
        self.repaired[path] = how
        return True

    def _run_file(self, path: str) -> None:
        """A table of a run, where others hold the same."""
        found = _RUN_FILE.fullmatch(path)
        if found is not None:
            number, name = int(found[1]), found[2]
            spec = _spec_or_none(self.state)
            ways = candidates(self.root, self.listing, self.todo, number, name, self.cells, spec, self.storage_options)
            for frame, how in ways:
                if self._put(path, table_bytes(frame.reset_index(drop=True), {"run": number}), how):
                    return
        self._leave([path], "nothing else holds what it holds: copy it from another copy of the dataset")

    def _metadata(self, state: CubeState) -> None:
        wanted = [path for path in self._open() if path.startswith(_STORE) and path.endswith("zarr.json")]
        documents = documents_of(state) if wanted else {}
        # The root's last, as a build writes them.
        for path in sorted(wanted, key=lambda path: (path == ROOT_DOCUMENT, path)):
            data = documents.get(path.removeprefix(_STORE))
            if data is None or not self._put(path, data, "from the runs"):
                self._leave([path], f"it comes out with other bytes{self._other_versions()}")

    def _coordinates(self, state: CubeState) -> None:
        kinds = {path: self._kind(path, state) for path in self._open()}
        wanted = [path for path, kind in kinds.items() if kind in ("coordinate", "channels")]
        chunks = self.names.coordinate_chunks(self.root, state) if wanted else {}
        for path in wanted:
            data = chunks.get(path.removeprefix(_STORE))
            if data is None:
                self._leave([path], "the tables of the runs must be whole first")
            elif not self._put(path, data, "from the runs"):
                self._leave([path], f"it comes out with other bytes{self._other_versions()}")

    def _kind(self, path: str, state: CubeState) -> str | None:
        holds = cubes.store_object(state.layout, path.removeprefix(_STORE)) if path.startswith(_STORE) else None
        return holds.kind if holds is not None else None

    def _shards(self, state: CubeState) -> None:
        wanted = [path for path in self._open() if self._kind(path, state) == "pixels"]
        for path in wanted:
            self._from_itself(path, state)
        wanted = [path for path in wanted if path not in self.repaired]
        if not wanted:
            return
        try:
            sources = Sources(self.root, state, self.cells, self.storage_options)
            self._rebuild(self._broken(wanted, state, partly=True), state, sources, last=False)
            again = [path for path in wanted if path not in self.repaired and path not in self.left]
            self._rebuild(self._broken(again, state, partly=False), state, sources, last=True)
        except (CellcubeError, OSError) as error:
            told = str(error) if isinstance(error, CellcubeError) else f"{type(error).__name__}: {error}"
            self._leave([path for path in wanted if path not in self.repaired], told)

    def _from_itself(self, path: str, state: CubeState) -> None:
        """A shard that holds more than is committed."""
        holds = cubes.store_object(state.layout, path.removeprefix(_STORE))
        data = read_bytes(self.root / path)
        if data is None or holds is None:
            return
        own = cubes.first_cells(data, state.layout.arrays()[holds.array], len(holds.positions(state.count)))
        if own is not None:
            self._put(path, own, "from its own chunks")

    def _broken(self, paths: Iterable[str], state: CubeState, partly: bool) -> list[Broken]:
        arrays: dict[int, list[str]] = {}
        again: dict[int, set[int]] = {}
        for path in paths:
            holds = cubes.store_object(state.layout, path.removeprefix(_STORE))
            assert holds is not None, "that is a shard"
            arrays.setdefault(holds.number, []).append(holds.array)
            positions = list(holds.positions(state.count))
            damaged = set(range(len(positions)))
            data = read_bytes(self.root / path)
            if partly and data is not None and state.layout.chunk_cells == 1:
                array = state.layout.arrays()[holds.array]
                damaged = set(cubes.damaged_cells(data, array, len(positions))) or damaged
            again.setdefault(holds.number, set()).update(damaged)
        found = []
        for number in sorted(arrays):
            size = state.layout.shard_cells
            positions = list(range(number * size, min(state.count, (number + 1) * size)))
            cells = tuple(zip(self.names.of(positions), map(self.names.run_of, positions), strict=True))
            found.append(Broken(number, tuple(arrays[number]), cells, frozenset(again[number])))
        return found

    def _rebuild(self, broken: list[Broken], state: CubeState, sources: Sources, last: bool) -> None:
        if not broken:
            return
        with Workers(self.executor, len(broken)) as workers:
            for each, made in rebuild(self.root, state, sources, broken, self.work, workers):
                self._place(each, made, state, last or len(each.again) == len(each.cells))

    def _place(self, broken: Broken, made: Made, state: CubeState, last: bool) -> None:
        """Put shards in place that are what must be there; the others are given up if this was the last way."""
        for name, result in made.items():
            path = f"{_STORE}{state.layout.arrays()[name].shard_key(broken.number)}"
            if isinstance(result, str):
                self._leave([path], result)
                continue
            location, size, sha256 = result
            if (size, sha256) == self.listing.objects[path]:
                location.copy_to(self.root / path)
                count = len(broken.again)
                self.repaired[path] = f"{count:,} cell{'s' * (count > 1)} from the images"
            elif last:
                self._leave([path], f"the images give other pixels than they gave{self._other_versions()}")

    def _other_versions(self) -> str:
        """What of the libraries differs from the build's."""
        try:
            then = read_run(self.root / "runs", self.listing.version)["environment"]["packages"]
        except (CellcubeError, KeyError):
            return ""
        names = ("numpy", "scipy", "zarr", "numcodecs", "imagecodecs", "tifffile", "pyarrow")
        differ = [f"{name} {then[name]}" for name in names if name in then and then[name] != _version(name)]
        return f"; it was made with {', '.join(differ)}" if differ else ""

    def _derived(self, state: CubeState) -> None:
        wanted = [path for path in self._open() if not is_of_runs(path)]
        if not wanted:
            return
        needed = [path for path in self.left if path.startswith("runs/") and not path.endswith(".table.parquet")]
        if needed:
            self._leave(wanted, f"{needed[0]} must be whole first")
            return
        try:
            made = regenerate(self.root, {**self.sizes, **dict.fromkeys(self.repaired, 0)}, state)
        except CellcubeError as error:
            self._leave(wanted, str(error))
            return
        for path in wanted:
            if path not in (OBJECTS, CATALOG) and path in made:
                (self.root / path).write(made[path])
                self.repaired[path] = "from the runs"
        self._objects(made[OBJECTS], state.version)
        if CATALOG in wanted:
            (self.root / CATALOG).write(made[CATALOG])
            self.repaired[CATALOG] = "from the runs"

    def _objects(self, made: bytes, version: int) -> None:
        """The list of all objects, where it is damaged or derived tables have other bytes than it says."""
        parsed = parsed_objects(made)
        assert parsed is not None, "it was just written"
        frame, about = parsed
        for path in [path for path in frame["path"] if not is_of_runs(path)]:
            data = read_bytes(self.root / path)
            if data is not None:
                frame.loc[frame["path"] == path, "size"] = len(data)
                frame.loc[frame["path"] == path, "sha256"] = sha256_of(data)
        table = self.listing.table
        if table is not None:
            others = table[~table["path"].isin(frame["path"])]
            frame = pd.concat([frame, others], ignore_index=True).sort_values("path", ignore_index=True)
        again = table_bytes(frame, about)
        if OBJECTS in self.todo or (table is not None and not table.equals(frame)):
            (self.root / OBJECTS).write(again)
            self.repaired[OBJECTS] = "from the runs"


def _spec_or_none(state: CubeState | None) -> CubeSpec | None:
    try:
        return spec_of(state) if state is not None else None
    except CellcubeError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
