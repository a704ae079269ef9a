"""What is derived from the runs: made again, and compared with what is there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Set

import pandas as pd

from cellcube.cube import CubeState
from cellcube.errors import CellcubeError
from cellcube.ledger import fold_outcomes
from cellcube.location import Location
from cellcube.manifest import CARD, CATALOG, CELLS, FOVS, OUTCOMES, catalog, write_manifest
from cellcube.publishing.listing import (
    Listing,
    Problem,
    parse_table,
    read_all,
    read_bytes,
    run_table,
    writer_of,
)

_OF_RUN = re.compile(r"runs/(\d{6,})\.(?!table\.)[a-z.]+")


def regenerate(root: Location, sizes: Mapping[str, int], state: CubeState) -> dict[str, bytes]:
    """Everything derived, by path, made as the builds made it, one version after the other.

    Raises
    ------
    CellcubeError
        Where a run is damaged.
    """
    runs = [path for path in sizes if (found := _OF_RUN.fullmatch(path)) and int(found[1]) <= state.version]
    with tempfile.TemporaryDirectory(prefix="cellcube-") as folder:
        copy = Location(folder)
        for path, data in read_all(root, runs).items():
            if data is not None:
                (copy / path).write(data)
        for version in range(1, state.version + 1):
            before = {**state.attributes, "versions": state.attributes["versions"][:version]}
            write_manifest(copy, CubeState(before))
        return {path: (copy / path).read() for path in copy.sizes() if not path.startswith("runs/")}


def check_derived(
    root: Location,
    listing: Listing,
    sizes: Mapping[str, int],
    state: CubeState | None,
    unfinished: bool,
    damaged: Set[str],
) -> tuple[list[Problem], list[str]]:
    """What is wrong with derived objects that no hash is known of, and with the counts.

    Parameters
    ----------
    root : Location
    listing : Listing
    sizes : mapping
        Of what is there, by path.
    state : CubeState or None
    unfinished : bool
        Whether a build is under way or was interrupted.
    damaged : set of str
        Paths that are known to be.

    Returns
    -------
    problems : list of Problem
    notes : list of str
    """
    if state is None:
        always = (CARD, CATALOG, CELLS, FOVS, OUTCOMES)
        return [Problem(path, "missing", "") for path in always if path not in {*sizes, *damaged}], []
    if listing.stale and unfinished:
        return [], [f"the tables beside the cube tell of version {listing.stale}, the cube is at {state.version}"]
    if listing.table is None:
        return _without_hashes(root, listing, sizes, state, damaged)
    try:
        outcomes = _outcomes(root, state, OUTCOMES not in damaged)
    except CellcubeError as error:
        return [], [f"{CATALOG} and the counts could not be checked: {error}"]
    counts = {str(status): int(count) for status, count in outcomes["status"].value_counts().items()}
    problems = _compared(CATALOG, sizes, read_bytes(root / CATALOG), catalog(state, counts).encode())
    if CELLS not in damaged and (cells := _table_at(root, CELLS)) is not None:
        problems += _counted(cells, outcomes, state)
    return problems, []


def _without_hashes(
    root: Location, listing: Listing, sizes: Mapping[str, int], state: CubeState, damaged: Set[str]
) -> tuple[list[Problem], list[str]]:
    if any(path.startswith("runs/") and not path.endswith(".table.parquet") for path in damaged):
        return [], ["what is derived from the runs could not be checked, as not all of them are whole"]
    try:
        made = regenerate(root, sizes, state)
    except CellcubeError as error:
        return [], [f"what is derived from the runs could not be checked: {error}"]
    problems = []
    for path, data in made.items():
        if path not in damaged:
            found = _compared(path, sizes, read_bytes(root / path), data)
            if found and found[0].problem == "changed" and listing.stale:
                found = [Problem(path, "changed", f"not of version {state.version}; perhaps of an earlier one")]
            problems += found
    return problems, []


def _compared(path: str, sizes: Mapping[str, int], there: bytes | None, made: bytes) -> list[Problem]:
    if there is None:
        return [Problem(path, "unreadable" if path in sizes else "missing", "")]
    if there == made or (path.endswith(".parquet") and _same_table(there, made)):
        return []
    if len(there) < len(made) and made.startswith(there):
        return [Problem(path, "truncated", f"{len(there):,} bytes, must be {len(made):,}")]
    return [Problem(path, "changed", "not what the runs tell")]


def _same_table(there: bytes, made: bytes) -> bool:
    """Whether two tables differ only in which libraries wrote them."""
    one, two = parse_table(there), parse_table(made)
    if one is None or two is None or writer_of(there) == writer_of(made):
        return False
    return one[1] == two[1] and one[0].equals(two[0])


def _outcomes(root: Location, state: CubeState, whole: bool) -> pd.DataFrame:
    found = _table_at(root, OUTCOMES) if whole else None
    if found is not None:
        return found
    folded: pd.DataFrame | None = None
    for number in range(1, state.version + 1):
        folded = fold_outcomes(folded, run_table(root, number, "outcomes"))
    assert folded is not None, "there is a version"
    return folded


def _table_at(root: Location, path: str) -> pd.DataFrame | None:
    data = read_bytes(root / path)
    parsed = parse_table(data) if data is not None else None
    return parsed[0] if parsed is not None else None


def _counted(cells: pd.DataFrame, outcomes: pd.DataFrame, state: CubeState) -> list[Problem]:
    """Whether manifest, outcomes and cube speak of the same cells."""
    problems = []
    if len(cells) != state.visible:
        detail = f"{len(cells):,} rows, the cube shows {state.visible:,} cells"
        problems.append(Problem(CELLS, "inconsistent", detail))
    elif not cells["position"].is_monotonic_increasing or not cells["position"].is_unique:
        problems.append(Problem(CELLS, "inconsistent", "not in the order of the cube"))
    kept = outcomes.loc[outcomes["status"] == "kept", "cell_id"]
    # Retracted cells keep their outcome.
    gone = state.retracted_at(state.version)
    if not set(cells["cell_id"]) <= set(kept) or len(kept) != len(cells) + gone:
        detail = f"{len(kept):,} cells are kept, the manifest has {len(cells):,}, and they are not the same"
        problems.append(Problem(OUTCOMES, "inconsistent", detail))
    if outcomes["cell_id"].duplicated().any():
        problems.append(Problem(OUTCOMES, "inconsistent", "a cell has more than one outcome"))
    return problems
