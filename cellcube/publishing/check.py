"""Whether a dataset is what its runs say: every object compared, and the cells that damage touches."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from cellcube import cube as cubes
from cellcube.cube import CubeState, StoreObject
from cellcube.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetError,
    DatasetFormatError,
)
from cellcube.ledger import run_name, sha256_of
from cellcube.location import Location
from cellcube.manifest import CATALOG, OBJECTS
from cellcube.publishing.cell_names import CellNames
from cellcube.publishing.derived import check_derived
from cellcube.publishing.listing import DERIVED, ROOT_DOCUMENT, Listing, Problem, read_bytes, read_listing
from cellcube.publishing.rescue import rescued_state
from cellcube.run.commit import documents_of
from cellcube.run.executors import available_cores

Level = Literal["quick", "full"]

# What is read at once of an object, and the largest table that the quick level reads.
BLOCK_BYTES = 8 * 2**20
QUICK_BYTES = 64 * 2**20

_STORE = "cube.zarr/"
_UNFINISHED = ".cellcube/"
# What others put into the folder.
_ALLOWED = re.compile(r"gallery/.*|ro-crate-metadata\.json|croissant\.json")
_PARTIAL = re.compile(r"(.*/)?\.[^/]*\.partial")


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Parameters
    ----------
    listing : Listing
    state : CubeState or None
        None where the metadata of the root is damaged and could not be made again.
    sizes : mapping
        Of what is there, by path.
    problems : tuple of Problem
        Sorted by path.
    notes : tuple of str
    hashed : int
        Objects of which the SHA-256 was taken.
    seconds : float
    """

    listing: Listing
    state: CubeState | None
    sizes: Mapping[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    hashed: int
    seconds: float


def check(root: Location, level: Level, progress: bool) -> Findings:
    """Compare a dataset with what its runs list.

    Raises
    ------
    DatasetNotFoundError
        Where there is no dataset.
    DatasetFormatError
        Where it does not list its objects.
    DatasetDamagedError
        Where nothing is left that tells what must be there.
    DatasetAccessError
        Where it cannot be read.
    """
    started = time.perf_counter()
    try:
        sizes = root.sizes()
        listing = read_listing(root, sizes)
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetAccessError(
            f"The dataset cannot be read: {type(error).__name__}: {error}.",
            path=root.url,
            remedy="Check the address, the permissions and the storage options.",
        ) from error
    if listing is None:
        raise _without_list(root, sizes)
    work = _Check(root, level, progress, sizes, listing)
    return work.findings(started)


def _without_list(root: Location, sizes: Mapping[str, int]) -> DatasetError:
    parts = (path for path in sizes if path.startswith(("runs/", _STORE)))
    committed = any(not path.startswith(f"{_STORE}{_UNFINISHED}") for path in parts)
    # Where nothing is left that a commit wrote, there is no dataset.
    state = cubes.read_state(root / "cube.zarr") if committed else cubes.existing_state(root)
    if state is not None:
        return DatasetFormatError(
            "The dataset does not list its objects: it was built before datasets did.",
            path=root.url,
            remedy="Build it again with this version of cellcube; until then only copies can be compared.",
        )
    return DatasetDamagedError(
        "Neither the cube's metadata nor a list of objects is there.",
        path=(root / ROOT_DOCUMENT).url,
        remedy="Copy the dataset again; a first build that was interrupted is continued by the same call.",
    )


@dataclass
class _Check:
    root: Location
    level: Level
    progress: bool
    sizes: Mapping[str, int]
    listing: Listing
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    uncommitted: list[str] = field(default_factory=list)

    def findings(self, started: float) -> Findings:
        listing = self.listing
        self.unfinished = any(path.startswith(_UNFINISHED) for path in self.sizes)
        self.state = self._state()
        self.names = CellNames(self.root, listing.version)
        self.documents: dict[str, bytes] | None = None
        self.problems += listing.problems
        digests = self._digests()
        for path, (size, sha256) in sorted(listing.objects.items()):
            self._compare(path, size, sha256, digests)
        self._unlisted()
        found, notes = check_derived(
            self.root, listing, self.sizes, self.state, self.unfinished, {each.path for each in self.problems}
        )
        self.problems += found
        self.notes += notes
        self._tell_unfinished()
        return Findings(
            listing=listing,
            state=self.state,
            sizes=self.sizes,
            problems=tuple(sorted(self.problems, key=lambda each: each.path)),
            notes=tuple(self.notes),
            hashed=len(digests),
            seconds=time.perf_counter() - started,
        )

    def _state(self) -> CubeState | None:
        if self.listing.committed:
            return cubes.read_state(self.root / "cube.zarr")
        state = rescued_state(self.root, self.listing)
        if state is None:
            self.notes.append(
                f"{ROOT_DOCUMENT} is damaged, and could not be made again from the runs: which cells other damage "
                "touches is not known"
            )
        return state

    def _digests(self) -> dict[str, str | Exception]:
        """SHA-256 of what is there and has the size it must have, or what reading it raised."""
        wanted = {
            path: size
            for path, (size, _) in self.listing.objects.items()
            if self.sizes.get(path) == size and (self.level == "full" or _is_small(path, size))
        }
        return digests_of(self.root, wanted, self.progress and self.level == "full")

    def _compare(self, path: str, size: int, sha256: str, digests: Mapping[str, str | Exception]) -> None:
        there = self.sizes.get(path)
        found = digests.get(path)
        if there is None or isinstance(found, FileNotFoundError):
            self._problem(path, "missing", "")
        elif isinstance(found, Exception):
            self._problem(path, "unreadable", f"{type(found).__name__}: {found}")
        elif there != size:
            word = "truncated" if there < size else "changed"
            self._problem(path, word, f"{there:,} bytes, must be {size:,}")
        elif found is not None and found != sha256:
            self._problem(path, "changed", "other bytes of the same size")

    def _problem(self, path: str, problem: str, detail: str) -> None:
        holds = self._holds(path)
        if holds is None or self.state is None:
            self.problems.append(Problem(path, problem, detail))
            return
        positions = list(holds.positions(self.state.count)) if holds.kind in ("pixels", "coordinate") else []
        data = None if problem in ("missing", "unreadable") else read_bytes(self.root / path)
        if data is not None:
            beyond = self._holds_more(path, holds, data)
            if beyond and self.unfinished:
                self.uncommitted.append(path)
                return
            if beyond:
                detail = f"{detail}; it holds more, of a build that did not end, and its own cells are whole"
                positions = []
            elif holds.kind == "pixels":
                array = self.state.layout.arrays()[holds.array]
                bad = cubes.damaged_cells(data, array, len(positions))
                if not bad:
                    detail = f"{detail}; its chunks are whole, and not those that were written"
                positions = [positions[offset] for offset in bad] if bad else positions
        array_name = holds.array if holds.kind != "metadata" else ""
        self.problems.append(Problem(path, problem, detail, self.names.of(positions), array_name))

    def _holds(self, path: str) -> StoreObject | None:
        if self.state is None or not path.startswith(_STORE):
            return None
        return cubes.store_object(self.state.layout, path.removeprefix(_STORE))

    def _holds_more(self, path: str, holds: StoreObject, data: bytes) -> bool:
        """Whether an object is what it must be, followed by cells that are not committed."""
        assert self.state is not None
        if self.listing.next.get(path) == (len(data), sha256_of(data)):
            return True
        count = len(holds.positions(self.state.count))
        if count == holds.cells:
            return False
        if holds.kind == "pixels":
            own = cubes.first_cells(data, self.state.layout.arrays()[holds.array], count)
            return own is not None and (len(own), sha256_of(own)) == self.listing.objects[path]
        if holds.kind != "coordinate":
            return False
        if self.documents is None:
            self.documents = documents_of(self.state)
        mine = self.names.coordinate_chunks(self.root, self.state).get(path.removeprefix(_STORE))
        if mine is None or (len(mine), sha256_of(mine)) != self.listing.objects[path]:
            return False
        return cubes.same_rows(self.documents, path.removeprefix(_STORE), mine, data, self.listing.version)

    def _unlisted(self) -> None:
        lists = (f"runs/{run_name(number)}.objects.parquet" for number in range(1, self.listing.version + 1))
        known = {*self.listing.objects, *lists, OBJECTS, CATALOG}
        following = f"runs/{run_name(self.listing.version + 1)}."
        partial = 0
        for path in self.sizes:
            if path in known or path.startswith(_UNFINISHED) or _ALLOWED.fullmatch(path):
                continue
            if self.listing.table is None and DERIVED.fullmatch(path):
                continue
            if _PARTIAL.fullmatch(path):
                partial += 1
            elif self.unfinished and (path.startswith(following) or self._is_beyond(path)):
                self.uncommitted.append(path)
            elif self.listing.complete or not self._may_be_ours(path):
                self.problems.append(Problem(path, "foreign", "not an object of the dataset"))
        if partial:
            self.notes.append(f"{partial} half-written files (.*.partial) of a write that was interrupted")
        if not self.listing.complete:
            self.notes.append("not every list of objects can be read, so that not every object could be compared")

    def _is_beyond(self, path: str) -> bool:
        """Whether this is a chunk or shard behind the last of the cube."""
        holds = self._holds(path)
        if holds is None or holds.kind not in ("pixels", "coordinate") or self.state is None:
            return False
        return not holds.positions(self.state.count)

    def _may_be_ours(self, path: str) -> bool:
        return self._holds(path) is not None or path.startswith("runs/")

    def _tell_unfinished(self) -> None:
        if not self.unfinished:
            return
        text = "a build or a copy is under way or was interrupted; run it again"
        if self.uncommitted:
            text += f". It left {len(self.uncommitted)} objects that are not committed"
        self.notes.append(text)


def digests_of(root: Location, sizes: Mapping[str, int], progress: bool) -> dict[str, str | Exception]:
    """SHA-256 of objects by path, or what reading them raised. A few blocks are held at a time."""
    from tqdm import tqdm

    workers = min(8, available_cores()) if root.is_local else 16
    bar = tqdm(
        total=sum(sizes.values()), unit="B", unit_scale=True, disable=None if progress else True, file=sys.stderr
    )
    with bar, ThreadPoolExecutor(workers) as threads:
        paths = sorted(sizes)
        found = threads.map(lambda path: _digest(root / path, sizes[path], bar.update), paths)
        return dict(zip(paths, found, strict=True))


def _digest(location: Location, size: int, tell: Callable[[int], object]) -> str | Exception:
    hashed = hashlib.sha256()
    try:
        for start in range(0, size, BLOCK_BYTES):
            block = location.read(start, min(size, start + BLOCK_BYTES))
            hashed.update(block)
            tell(len(block))
    except OSError as error:
        return error
    return hashed.hexdigest()


def _is_small(path: str, size: int) -> bool:
    return path.endswith("zarr.json") or (not path.startswith(_STORE) and size <= QUICK_BYTES)
