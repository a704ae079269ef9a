"""Copy a dataset to another place, or bring a copy up to date: only what is new, and never a half state for readers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from cellcube.cube import CubeState, existing_state
from cellcube.errors import (
    ArgumentError,
    CellcubeError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetDivergedError,
)
from cellcube.ledger import Claim, as_objects, run_name, sha256_of
from cellcube.location import Location
from cellcube.manifest import CATALOG, OBJECTS, is_current, read_objects
from cellcube.run.report import human_bytes
from cellcube.run.target import WORK, find_dataset
from cellcube.urls import public_url

# Names the copy that is under way, so that the next call knows whose objects are there already.
MARK = f"{WORK}/copy.json"

Objects = Mapping[str, tuple[int, str]]


@dataclass(frozen=True)
class CopyReport:
    """What `copy_dataset` did.

    Parameters
    ----------
    source, target : str
        Where from and where to, without secrets.
    version : int
        The version that is at the target now.
    objects, bytes : int
        Of the dataset.
    copied, copied_bytes : int
        Of these, what was new or differed.
    seconds : float
    """

    source: str
    target: str
    version: int
    objects: int
    bytes: int
    copied: int
    copied_bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.target}: version {self.version}, {self.objects:,} objects, {human_bytes(self.bytes)}; "
            f"{self.copied:,} of them copied ({human_bytes(self.copied_bytes)}) in {self.seconds:.1f} s"
        )


def copy_dataset(
    source: Location,
    target: Location,
    *,
    workers: int = 8,
    verify: Literal["sizes", "full"] = "sizes",
    progress: bool = False,
) -> CopyReport:
    """Make the dataset at a target the same as that at a source.

    What the target has already is not copied again, so the call continues after a kill, and brings a copy up to date.
    Shards go first, then runs and metadata, the metadata of the cube's root, which is the commit, then what is derived,
    the catalog last: a reader of the target sees the old version or the new one. Nothing at the target is deleted.
    The SHA-256 of all bytes that are read is compared with that which the build noted.

    Parameters
    ----------
    source, target : Location
        Folders of datasets; the target may be empty, or hold earlier versions of the same dataset.
    workers : int
        Objects that are copied at a time.
    verify : {"sizes", "full"}
        Whether the sizes at the target are looked up before the commit, or what was copied is read back as well.
    progress : bool
        Show a progress bar where standard error is a terminal.

    Raises
    ------
    cellcube.errors.DatasetNotFoundError
        Where there is no dataset at the source.
    cellcube.errors.DatasetDivergedError
        Where the target holds another dataset, or versions that the source does not have.
    cellcube.errors.NotADatasetError, cellcube.errors.DatasetAccessError, cellcube.errors.DatasetBusyError
        Where the target cannot be written.
    cellcube.errors.DatasetDamagedError
        Where an object of the source is missing or is not what the build wrote. The target's commit was not replaced.
    """
    started = time.perf_counter()
    if source == target:
        raise ArgumentError("Source and target are the same.", remedy="Give another target.")
    if verify not in ("sizes", "full"):
        raise ArgumentError(f"verify={verify!r}: give 'sizes' or 'full'.")
    state = readable(source)
    objects = as_objects(read_objects(source, state.version))
    sized = {path: size for path, (size, _) in objects.items()}
    there = find_dataset(target)
    if there is not None:
        check_history(state, there, source, target)
        if there.version == state.version and same_objects(source, target) and not missing(target, sized):
            return _report(source, target, state, objects, {}, started)
    shards = tuple(f"cube.zarr/{array.path}/c/" for array in state.layout.arrays().values())
    copy = _Copy(source, target, objects, workers, verify == "full", progress)
    try:
        with Claim(target / WORK / "claim.json", public_url(target.url)):
            copy.known = _already_there(there, target, objects, shards)
            phases = in_order(objects, shards)
            for phase in phases[:2]:
                copy.run(phase)
            lost = missing(target, {path: sized[path] for phase in phases[:2] for path in phase})
            if lost:
                raise DatasetDamagedError(
                    f"{len(lost)} objects are not there, or not whole, after they were copied; first {lost[0]}.",
                    path=public_url(target.url),
                    remedy="Copy again.",
                )
            for phase in phases[2:]:
                copy.run(phase)
            # These two are not in the list, which is complete only now.
            for path in (OBJECTS, CATALOG):
                copy.put(path, (source / path).read())
            (target / MARK).remove()
    except CellcubeError:
        raise
    except OSError as error:
        raise DatasetAccessError(
            f"The copy stopped: {type(error).__name__}: {error}.",
            path=public_url(target.url),
            remedy="Check permissions and storage options; the same call continues.",
        ) from error
    return _report(source, target, state, objects, copy.copied, started)


def readable(root: Location) -> CubeState:
    """The state of a dataset that is whole enough to be copied.

    Raises
    ------
    cellcube.errors.DatasetNotFoundError, cellcube.errors.DatasetDamagedError
    """
    state = existing_state(
        root,
        remedy="Check the address: a root is the folder that holds catalog.yaml. A copy that was stopped there "
        "must be made again.",
    )
    if not is_current(root, state):
        raise DatasetDamagedError(
            f"{CATALOG} does not tell of version {state.version}: a build or a copy was stopped, or is under way.",
            path=public_url(root.url),
            remedy="Run it again; it makes up what is missing.",
        )
    return state


def check_history(state: CubeState, there: CubeState, source: Location, target: Location) -> None:
    """Refuse a target whose versions are not the first ones of the source.

    Raises
    ------
    cellcube.errors.DatasetDivergedError
    """
    ours, theirs = state.attributes, there.attributes
    if ours["spec_digest"] != theirs["spec_digest"]:
        raise DatasetDivergedError(
            f"The target holds the dataset {theirs['name']!r} of another spec, not {ours['name']!r}.",
            path=public_url(target.url),
            remedy="Give another target.",
        )
    common = min(state.version, there.version)
    records = [f"runs/{run_name(number)}.json" for number in range(1, common + 1)]
    wrote = as_objects(read_objects(source, state.version)), as_objects(read_objects(target, there.version))
    same = all(wrote[0].get(path) == wrote[1].get(path) for path in records)
    if not same or list(ours["versions"][:common]) != list(theirs["versions"][:common]):
        raise DatasetDivergedError(
            "The target holds another dataset of the same spec: their versions differ.",
            path=public_url(target.url),
            remedy="Give another target.",
        )
    if there.version > state.version:
        raise DatasetDivergedError(
            f"The target has version {there.version}, the source only {state.version}.",
            path=public_url(target.url),
            remedy=f"The newer one is the one to copy from; {public_url(source.url)} is behind.",
        )


def in_order(objects: Iterable[str], shards: tuple[str, ...]) -> list[list[str]]:
    """The paths of a dataset's objects in phases, each to be there before the next is begun."""
    phases: list[list[str]] = [[], [], [], []]
    for path in sorted(objects):
        if path == "cube.zarr/zarr.json":
            phases[2].append(path)
        elif path.startswith("cube.zarr/") and not path.endswith("zarr.json"):
            phases[0].append(path)
        elif path.startswith(("cube.zarr/", "runs/")):
            phases[1].append(path)
        else:
            phases[3].append(path)
    # Shards first: with them comes most of the time, and most that can go wrong.
    phases[0].sort(key=lambda path: not path.startswith(shards))
    return phases


def same_objects(source: Location, target: Location) -> bool:
    """Whether the lists of objects, and the catalogs, are the same to the byte."""
    try:
        return all((source / path).read() == (target / path).read() for path in (OBJECTS, CATALOG))
    except OSError:
        return False


def missing(root: Location, sizes: Mapping[str, int]) -> list[str]:
    """Paths below a root where there is no object of the size that must be there."""
    found = root.sizes()
    return sorted(path for path, size in sizes.items() if found.get(path) != size)


def _already_there(there: CubeState | None, target: Location, objects: Objects, shards: tuple[str, ...]) -> set[str]:
    """Paths that need not be copied."""
    sizes = target.sizes()
    same_size = {path for path, (size, _) in objects.items() if sizes.get(path) == size}
    listed: Objects = {}
    if there is not None:
        try:
            listed = as_objects(read_objects(target, there.version))
        except CellcubeError:
            listed = {}
    known = {path for path in same_size if listed.get(path) == objects[path]}
    mark = json.dumps({"began": objects[f"runs/{run_name(1)}.json"]}).encode()
    try:
        ours = (target / MARK).read() == mark
    except OSError:
        ours = False
    if not ours:
        (target / MARK).write(mark)
    for path in sorted(same_size - known):
        if not path.startswith(shards):
            continue
        # Shards of one history have one size only where they are the same; others must be read to be known.
        trusted = ours and path not in listed
        if trusted or sha256_of((target / path).read()) == objects[path][1]:
            known.add(path)
    return known


class _Copy:
    """Copies objects, several at a time."""

    def __init__(
        self, source: Location, target: Location, objects: Objects, workers: int, read_back: bool, progress: bool
    ) -> None:
        self.source = source
        self.target = target
        self.objects = objects
        self.workers = max(1, workers)
        self.read_back = read_back
        self.progress = progress
        self.known: set[str] = set()
        self.copied: dict[str, int] = {}

    def run(self, paths: Sequence[str]) -> None:
        """Copy those of `paths` that are not there."""
        from tqdm import tqdm

        todo = [path for path in paths if path not in self.known]
        with (
            ThreadPoolExecutor(self.workers, thread_name_prefix="cellcube-copy") as pool,
            tqdm(total=len(todo), unit=" objects", disable=None if self.progress else True) as bar,
        ):
            try:
                for _ in pool.map(self._one, todo):
                    bar.update(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, path: str) -> None:
        size, digest = self.objects[path]
        try:
            data = (self.source / path).read()
        except FileNotFoundError as error:
            raise DatasetDamagedError(f"The object {path} is missing.", path=public_url(self.source.url)) from error
        if len(data) != size or sha256_of(data) != digest:
            raise DatasetDamagedError(
                f"The object {path} is not what the build wrote ({len(data):,} bytes, expected {size:,}).",
                path=public_url(self.source.url),
                remedy="Where a build is writing there, copy again when it is done; otherwise repair the source.",
            )
        self.put(path, data)

    def put(self, path: str, data: bytes) -> None:
        """Write one object and note it."""
        location = self.target / path
        location.write(data)
        if self.read_back and location.read() != data:
            raise DatasetDamagedError(f"The object {path} reads back otherwise.", path=public_url(self.target.url))
        self.copied[path] = len(data)


def _report(
    source: Location,
    target: Location,
    state: CubeState,
    objects: Objects,
    copied: Mapping[str, int],
    started: float,
) -> CopyReport:
    return CopyReport(
        source=public_url(source.url),
        target=public_url(target.url),
        version=state.version,
        objects=len(objects) + 2,
        bytes=sum(size for size, _ in objects.values()),
        copied=len(copied),
        copied_bytes=sum(copied.values()),
        seconds=time.perf_counter() - started,
    )
