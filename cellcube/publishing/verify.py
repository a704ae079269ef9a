"""`verify`: tell whether a dataset is whole, and which cells are touched where it is not."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cellcube.errors import ArgumentError
from cellcube.location import Location
from cellcube.publishing.check import Findings, Level, check
from cellcube.publishing.listing import Problem
from cellcube.publishing.repair import repair as repair_dataset
from cellcube.run.report import human_bytes

_SHOWN_PROBLEMS = 20
_SHOWN_CELLS = 4


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Parameters
    ----------
    root : str
    level : {"quick", "full"}
    version : int
        Of the dataset.
    objects, bytes : int
        That were compared: all that the dataset must hold.
    hashed : int
        How many of them by SHA-256.
    seconds : float
    problems : DataFrame
        One row an object: `path`, `problem` (missing, truncated, changed, foreign, unreadable, inconsistent),
        `detail`, `cells` (list of the `cell_id` that cannot be relied on), `array` of the cube.
    notes : tuple of str
        What is not damage, and worth knowing.
    repaired : tuple of str
        Paths of what was made again, with ``repair=True``.
    """

    root: str
    level: str
    version: int
    objects: int
    bytes: int
    hashed: int
    seconds: float
    problems: pd.DataFrame
    notes: tuple[str, ...] = ()
    repaired: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether there is nothing wrong."""
        return self.problems.empty

    @property
    def cells(self) -> list[str]:
        """Identifiers of all cells that cannot be relied on, each once."""
        return list(dict.fromkeys(cell for cells in self.problems["cells"] for cell in cells))

    def __str__(self) -> str:
        compared = f"{self.objects:,} objects, {human_bytes(self.bytes)}, {self.hashed:,} of them by SHA-256"
        lines = [f"dataset  {self.root}, version {self.version}", f"compared {compared}, in {self.seconds:.1f} s"]
        if self.repaired:
            lines.append(f"repaired {len(self.repaired):,} objects")
        if self.ok:
            lines.append("whole" if self.level == "full" else "whole, as far as names, sizes and metadata tell")
        else:
            count = len(self.problems)
            touched = f", {len(self.cells):,} cells are touched" if self.cells else ""
            lines.append(f"{count:,} problem{'s' * (count > 1)}{touched}")
            lines += [_line(row) for row in self.problems.head(_SHOWN_PROBLEMS).to_dict("records")]
            if count > _SHOWN_PROBLEMS:
                lines.append(f"  and {count - _SHOWN_PROBLEMS:,} more, see problems")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def verify(
    root: str | os.PathLike[str],
    level: Level = "quick",
    *,
    repair: bool = False,
    cells: pd.DataFrame | str | os.PathLike[str] | None = None,
    executor: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> VerifyReport:
    """Compare a dataset with what its runs list of every object.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    level : {"quick", "full"}
        ``quick`` compares names and sizes of all objects, and the hashes of metadata and tables. ``full`` compares
        the SHA-256 of every object, so it reads all of them.
    repair : bool
        Make damaged objects again, from what is there and from the images, and report what is left. An object is put
        in place only if it has the SHA-256 that it must have.
    cells : DataFrame, path or URL, optional
        For `repair`: the cell table that was built, or the folder that its relative paths are seen from.
    executor : None, int, concurrent.futures.Executor or dask.distributed.Client
        For `repair`, as `cellcube.build` takes it.
    storage_options : mapping, optional
        fsspec options for all remote paths.
    progress : bool
        Show a progress bar where standard error is a terminal.

    Returns
    -------
    VerifyReport

    Raises
    ------
    cellcube.errors.DatasetNotFoundError
        Where there is no dataset.
    cellcube.errors.DatasetFormatError
        Where it was built before datasets listed their objects.
    cellcube.errors.DatasetDamagedError
        Where nothing is left that tells what must be there.
    cellcube.errors.DatasetAccessError
        Where it cannot be read; with `repair`, where it cannot be written.
    cellcube.errors.DatasetBusyError
        With `repair`, where a build writes to it.
    """
    if level not in ("quick", "full"):
        raise ArgumentError(f"level={level!r}: give 'quick' or 'full'.")
    location = Location.of(root, storage_options)
    if not repair:
        return make_report(location, level, check(location, level, progress))
    done = repair_dataset(
        root, level, cells=cells, executor=executor, storage_options=storage_options, progress=progress
    )
    left = dict(zip(done.left["path"], done.left["reason"], strict=True))
    return make_report(location, level, done.findings, tuple(done.repaired["path"]), left)


def make_report(
    root: Location,
    level: str,
    findings: Findings,
    repaired: tuple[str, ...] = (),
    reasons: Mapping[str, str] | None = None,
) -> VerifyReport:
    """The report of what was found, and of what became of it."""
    reasons = reasons or {}
    left = [each for each in findings.problems if each.path not in repaired]
    return VerifyReport(
        root=root.url,
        level=level,
        version=findings.listing.version,
        objects=len(findings.listing.objects),
        bytes=sum(size for size, _ in findings.listing.objects.values()),
        hashed=findings.hashed,
        seconds=findings.seconds,
        problems=_frame(left, reasons),
        notes=findings.notes,
        repaired=repaired,
    )


def _frame(problems: list[Problem], reasons: Mapping[str, str]) -> pd.DataFrame:
    rows = [
        {
            "path": each.path,
            "problem": each.problem,
            "detail": ". Not repaired: ".join(filter(None, (each.detail, reasons.get(each.path)))),
            "cells": list(each.cells),
            "array": each.array,
        }
        for each in problems
    ]
    return pd.DataFrame(rows, columns=["path", "problem", "detail", "cells", "array"])


def _line(row: Mapping[Any, Any]) -> str:
    text = f"  {row['problem']:<12} {row['path']}"
    cells = row["cells"]
    if cells:
        more = ", …" if len(cells) > _SHOWN_CELLS else ""
        text += f"  {len(cells):,} cell{'s' * (len(cells) > 1)}: {', '.join(cells[:_SHOWN_CELLS])}{more}"
    return f"{text}\n{'':<15} {row['detail']}" if row["detail"] else text
