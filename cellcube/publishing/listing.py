"""What a dataset must hold: the objects that its runs list, and whether the lists themselves are whole."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cellcube.errors import DatasetDamagedError
from cellcube.ledger import OBJECT_COLUMNS, as_objects, run_name, sha256_of, table_bytes
from cellcube.location import Location
from cellcube.manifest import OBJECTS

ROOT_DOCUMENT = "cube.zarr/zarr.json"
# What is derived from the runs, so that no run lists it.
DERIVED = re.compile(
    r"README\.md|(cells|fovs|outcomes|objects)\.parquet|catalog\.yaml|versions\.yaml"
    r"|versions/\d{6,}\.(yaml|cells\.parquet)"
)

_OBJECTS_OF_RUN = re.compile(r"runs/(\d{6,})\.objects\.parquet")

Objects = Mapping[str, tuple[int, str]]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    path : str
        Of the object, from the root.
    problem : {"missing", "truncated", "changed", "foreign", "unreadable", "inconsistent"}
    detail : str
    cells : tuple of str
        Identifiers of the cells whose values cannot be relied on.
    array : str
        Array of the cube that the object is of.
    """

    path: str
    problem: str
    detail: str
    cells: tuple[str, ...] = ()
    array: str = ""


@dataclass(frozen=True)
class Listing:
    """What a dataset must hold.

    Parameters
    ----------
    version : int
        That was committed last.
    committed : bool
        Whether the metadata of the root is as a run lists it, so that `version` is sure.
    objects : mapping
        (size, SHA-256) by path.
    table : DataFrame or None
        ``objects.parquet`` where it can be read and is of this version.
    runs : mapping
        Tables of objects of the runs, those that can be read.
    next : mapping
        What a run that is not committed yet has listed.
    problems : list of Problem
        Of the lists themselves.
    stale : int
        Version that ``objects.parquet`` tells of, where that is an earlier one; 0 otherwise.
    """

    version: int
    committed: bool
    objects: Objects
    table: pd.DataFrame | None
    runs: Mapping[int, pd.DataFrame]
    next: Objects
    problems: list[Problem] = field(default_factory=list)
    stale: int = 0

    @property
    def complete(self) -> bool:
        """Whether every object must be in `objects`, but for the derived ones where there is no table."""
        return self.table is not None or all(number in self.runs for number in range(1, self.version + 1))


def is_of_runs(path: str) -> bool:
    """Whether this is an object that runs list, not one that is derived from them."""
    return path.startswith(("cube.zarr/", "runs/"))


def parse_table(data: bytes) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """A table and its ``cellcube`` metadata; None where the bytes are not whole."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
        about = json.loads((table.schema.metadata or {}).get(b"cellcube", b"{}"))
        return table.to_pandas(), about if isinstance(about, dict) else {}
    except Exception:  # damaged bytes raise what they like
        return None


def read_bytes(location: Location) -> bytes | None:
    """The bytes of an object; None where there is none or it may not be read."""
    try:
        return location.read()
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
        return None


def run_table(root: Location, version: int, name: str) -> pd.DataFrame:
    """A table of a run.

    Raises
    ------
    DatasetDamagedError
        Where it is missing, or its bytes are not those of a table.
    """
    path = root / "runs" / f"{run_name(version)}.{name}.parquet"
    data = read_bytes(path)
    parsed = parse_table(data) if data is not None else None
    if parsed is None:
        raise DatasetDamagedError("The table of a run is missing or damaged.", path=path.url)
    return parsed[0]


def read_all(root: Location, paths: Iterable[str]) -> dict[str, bytes | None]:
    """The bytes of small objects by path."""
    paths = list(paths)
    with ThreadPoolExecutor(4 if root.is_local else 16) as threads:
        return dict(zip(paths, threads.map(lambda path: read_bytes(root / path), paths), strict=True))


def read_listing(root: Location, sizes: Mapping[str, int]) -> Listing | None:
    """What a dataset must hold; None where nothing lists its objects.

    Parameters
    ----------
    root : Location
    sizes : mapping
        Of what is there, by path.
    """
    listed = {int(found[1]): path for path in sizes if (found := _OBJECTS_OF_RUN.fullmatch(path))}
    if not listed and OBJECTS not in sizes:
        return None
    held = read_all(root, [*listed.values(), *(path for path in (OBJECTS, ROOT_DOCUMENT) if path in sizes)])
    parsed = {number: parsed_objects(held[path]) for number, path in listed.items()}
    runs = {number: each[0] for number, each in parsed.items() if each and each[1].get("run") == number}
    every = parsed_objects(held.get(OBJECTS))
    known = int(every[1].get("version", 0)) if every else 0
    version, committed = _version(held.get(ROOT_DOCUMENT), runs, every[0] if every else None, known)
    problems = []
    if every is None or not 0 < known <= version or not _same_bytes(*every, held[OBJECTS] or b""):
        problems.append(_unreadable(OBJECTS, held.get(OBJECTS), "the list of all objects"))
        every, known = None, 0
    objects = dict(as_objects(every[0])) if every else {}
    for number in range(known + 1, version + 1):
        objects.update(as_objects(runs[number]) if number in runs else {})
    if known != version:
        objects = {path: each for path, each in objects.items() if is_of_runs(path)}
    said: dict[str, tuple[int, str]] = {}
    sure = True
    for number in range(version, 0, -1):
        path = f"runs/{run_name(number)}.objects.parquet"
        data = held.get(path)
        if path in objects:
            # Compared like all others; here only whether its word counts.
            sure &= number in runs and data is not None and (len(data), sha256_of(data)) == objects[path]
        elif number not in runs or not _same_bytes(*parsed[number], data or b""):  # type: ignore[misc,call-arg,unused-ignore]
            problems.append(_unreadable(path, data, "the list of a run's objects"))
            sure = False
        if sure:
            said = {**as_objects(runs[number]), **said}
    wrong = [path for path, each in said.items() if objects.get(path) != each]
    if wrong:
        objects.update({path: said[path] for path in wrong})
        detail = f"contradicts the runs on {len(wrong)} objects, the first is {wrong[0]}"
        problems.append(Problem(OBJECTS, "changed", detail))
    late = runs.get(version + 1)
    return Listing(
        version=version,
        committed=committed,
        objects=objects,
        table=every[0] if every and known == version else None,
        runs={number: frame for number, frame in runs.items() if number <= version},
        next=as_objects(late) if late is not None else {},
        problems=problems,
        stale=known if known < version else 0,
    )


def parsed_objects(data: bytes | None) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """A table of objects and its metadata; None where it is none, or holds what cannot be."""
    parsed = parse_table(data) if data is not None else None
    if parsed is None or list(parsed[0].columns) != list(OBJECT_COLUMNS):
        return None
    frame = parsed[0]
    typed = frame["size"].dtype.kind == "i" and frame["run"].dtype.kind == "i"
    text = typed and all(isinstance(value, str) for name in ("path", "sha256") for value in frame[name])
    return parsed if text and not frame["path"].duplicated().any() else None


def _version(
    document: bytes | None, runs: Mapping[int, pd.DataFrame], table: pd.DataFrame | None, known: int
) -> tuple[int, bool]:
    """The version whose root metadata these are; the last that is known of, where no run has listed them."""
    if document is not None:
        found = (len(document), sha256_of(document))
        for number in sorted(runs, reverse=True):
            if as_objects(runs[number]).get(ROOT_DOCUMENT) == found:
                return number, True
        if table is not None and as_objects(table).get(ROOT_DOCUMENT) == found:
            return known, True
    return known or max(runs, default=1), False


def _same_bytes(table: pd.DataFrame, about: Mapping[str, Any], data: bytes) -> bool:
    """Whether a file is what is written today for its table, as far as the same libraries have written it."""
    again = table_bytes(table, about)
    if again == data:
        return True
    writer = writer_of(data)
    return writer != writer_of(again) and all(
        re.fullmatch(r"(parquet-cpp-arrow version )?\d+\.\S+", each) for each in writer
    )


def writer_of(data: bytes) -> tuple[str, ...]:
    """Which versions of the libraries wrote a table."""
    import pyarrow.parquet as pq

    found = pq.read_metadata(io.BytesIO(data))
    about = json.loads((found.metadata or {}).get(b"pandas", b"{}"))
    return str(found.created_by), str(about.get("pandas_version")), str(dict(about.get("creator", {})).get("version"))


def _unreadable(path: str, data: bytes | None, what: str) -> Problem:
    if data is None:
        return Problem(path, "missing", what)
    cut = data[:4] == b"PAR1" != data[-4:]
    return Problem(path, "truncated" if cut else "changed", f"{what} cannot be read")
