"""Whether a dataset is fit to be published: everything that is missing, and how to give it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cellcube.cube import CubeState
from cellcube.errors import ArgumentError, CellcubeError
from cellcube.ledger import code_of, read_run
from cellcube.location import Location
from cellcube.manifest import CARD, read_cells, read_outcomes
from cellcube.publishing.crate import RO_CRATE
from cellcube.publishing.croissant import CROISSANT
from cellcube.publishing.licences import check_licence

Allowed = Literal["licence", "description", "channels", "voxel_size"]
ALLOWED = ("licence", "description", "channels", "voxel_size")

# Names that tell what a file had, not what was stained.
_MEANINGLESS = re.compile(r"(channel|chan|ch|c|image|wavelength|w)?[\s_:.-]*\d{1,2}|", re.IGNORECASE)
_SHOWN = 5


def problems_of(root: Location, state: CubeState, allow: Collection[str] = ()) -> list[str]:
    """What keeps a dataset from being published, each with how to mend it; nothing where it is fit.

    Parameters
    ----------
    root : Location
    state : CubeState
        What is committed there.
    allow : collection of {"licence", "description", "channels", "voxel_size"}
        What may be missing.
    """
    unknown = [name for name in allow if name not in ALLOWED]
    if unknown:
        raise ArgumentError(f"{unknown[0]!r} cannot be allowed.", remedy=f"Give some of {', '.join(ALLOWED)}.")
    found = [text for name, text in _told(root, state) if name not in allow]
    return [*found, *damage(root), *_counts(root, state)]


def damage(root: Location) -> list[str]:
    """What `verify` says of a dataset, without reading its pixels."""
    from cellcube.publishing.verify import verify

    report = verify(root.url, "quick", storage_options=root.storage_options, progress=False)
    # These are written anew, and listed anew.
    problems = report.problems[~report.problems["path"].isin([RO_CRATE, CROISSANT])]
    rows = problems[["path", "problem", "detail"]].head(_SHOWN).itertuples(index=False)
    found = [
        f"{path} is {problem}{f' ({detail})' if detail else ''}: repair the dataset" for path, problem, detail in rows
    ]
    if len(problems) > _SHOWN:
        found.append(f"{len(problems) - _SHOWN} more objects are damaged")
    return found


def unclean(root: Location, state: CubeState, folder: Path | None = None) -> list[str]:
    """Runs whose code others cannot get: not in git, with uncommitted changes, or not pushed.

    Parameters
    ----------
    root : Location
    state : CubeState
    folder : Path, optional
        Of the working copy in which is looked whether commits were pushed; None is the working directory.
    """
    found = []
    place = folder or Path.cwd()
    here = (code_of(place)["git"] or {}).get("remote")
    for version in range(1, state.version + 1):
        run = read_run(root / "runs", version)
        code = {"the script": run["code"], **dict(run.get("functions") or {})}
        for name, each in code.items():
            problem = _unclean(each.get("git") or {}, here, place)
            if problem:
                what = each.get("file") or name
                found.append(f"version {version}: the code of {what} {problem}")
    return found


def _unclean(git: Mapping[str, Any], here: str | None, folder: Path) -> str:
    commit, remote = git.get("commit"), git.get("remote")
    if not commit:
        return "is in no git repository: commit it, and build anew from the commit"
    if git.get("dirty") is not False:
        return f"had changes that are not in commit {commit[:12]}: commit them, and build anew"
    if not remote:
        return f"is in a repository without a remote (commit {commit[:12]}): push it, and build anew"
    if remote != here:
        return (
            f"is of {remote}, and whether {commit[:12]} was pushed can be seen in a working copy of it: publish there"
        )
    try:
        command = ["git", "-C", str(folder), "branch", "-r", "--contains", commit]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "cannot be looked up, git does not answer"
    if done.returncode or not done.stdout.strip():
        return f"was not pushed: no branch of a remote has commit {commit[:12]}"
    return ""


def _told(root: Location, state: CubeState) -> Iterator[tuple[str, str]]:
    """What the dataset does not tell of itself: (what, sentence)."""
    attributes, layout = state.attributes, state.layout
    licence = attributes["licence"]
    if not licence:
        yield "licence", "no licence, without which nobody may use it: describe(root, licence='CC-BY-4.0')"
    else:
        try:
            check_licence(licence)
        except ArgumentError as error:
            yield "licence", f"{error} Give it with describe(root, licence=…)"
    if not (attributes["description"] or "").strip():
        yield "description", "no description: describe(root, description='…')"
    if not (root / CARD).size():
        yield "card", f"{CARD} is missing: repair the dataset, or build once more"
    vague = [name for name in layout.channels if _MEANINGLESS.fullmatch(name.strip())]
    if vague:
        yield (
            "channels",
            f"channels named {', '.join(map(repr, vague))} tell nobody what was stained: build into a new root with "
            "channels={'DNA': 0, …}, or allow=['channels']",
        )
    unknown = _unknown_voxel_size(root, state)
    if unknown:
        yield (
            "voxel_size",
            f"the voxel size along {unknown} is not known: build into a new root with fov_voxel_size, or "
            "allow=['voxel_size']",
        )


def _unknown_voxel_size(root: Location, state: CubeState) -> str:
    """Axes along which the voxel size of a cell is not known; z counts only where crops have more than one plane."""
    axes = "zyx" if state.layout.shape[0] > 1 else "yx"
    sizes = state.attributes["voxel_size"]
    if sizes != "mixed":
        return ", ".join(axis for axis in axes if sizes["zyx".index(axis)] is None)
    cells = read_cells(root, state.version)
    return ", ".join(axis for axis in axes if bool(cells[f"voxel_size_{axis}"].isna().any()))


def _counts(root: Location, state: CubeState) -> list[str]:
    """Whether cube, manifest and outcomes have the same cells."""
    try:
        cells, outcomes = read_cells(root, state.version), read_outcomes(root, state.version)
    except CellcubeError as error:
        return [str(error)]
    found = []
    if len(cells) != state.visible:
        found.append(f"the manifest has {len(cells):,} cells and the cube {state.visible:,}: repair the dataset")
    kept = outcomes.loc[outcomes["status"] == "kept", "cell_id"]
    lost = set(cells["cell_id"]) - set(kept)
    if lost or not outcomes["cell_id"].is_unique:
        found.append(f"outcomes and manifest differ, {len(lost)} cells have no outcome: repair the dataset")
    positions = pd.Index(cells["position"]) if "position" in cells else pd.RangeIndex(len(cells))
    if not positions.is_unique or not positions.is_monotonic_increasing:
        found.append("the manifest is not in the order of the cube: repair the dataset")
    return found
