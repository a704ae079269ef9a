"""What a build tells the user."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Estimate:
    """What a planned build will take.

    Parameters
    ----------
    cells, fovs, shards : int
    bytes : int
        Uncompressed.
    memory : int
        Bytes that all workers hold together at most, about.
    seconds : float or None
        From cutting out a few cells of the first FOV; None where none could be.
    workers : int
    layout : tuple of str
        Chunk, shard and codec, each with its reason.
    """

    cells: int
    fovs: int
    shards: int
    bytes: int
    memory: int
    seconds: float | None
    workers: int
    layout: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildReport:
    """What became of the cells of a table.

    Counts are of the cells the table asks for, whichever build decided on them:
    ``requested == kept + dropped + failed``.

    Parameters
    ----------
    requested, kept, dropped, failed : int
    added : int
        Cells that this build put into the dataset.
    version : int
        Of the dataset after the build; 0 where there is none yet.
    root, catalog : str
        Where the dataset and its catalog are.
    outcomes : DataFrame
        One row a requested cell: cell_id, fov_id, label, status, reason, run.
    seconds : float
        Wall time.
    stages : dict
        Seconds by stage: plan; of all jobs together wait (for a remote FOV that is read ahead), read, select, measure,
        normalize, encode, write; then, as they pass, pack (pieces become shards) and commit.
    plan : Estimate, optional
        With ``dry_run=True``.
    profile : DataFrame, optional
        With ``profile=True``: one row a job; see `cellcube.run.profile.profile_table`.
    """

    requested: int
    kept: int
    dropped: int
    failed: int
    added: int
    version: int
    root: str
    catalog: str
    outcomes: pd.DataFrame
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    plan: Estimate | None = None
    profile: pd.DataFrame | None = None

    def lines(self) -> list[str]:
        """The report as lines of text."""
        if self.plan is not None:
            return _plan_lines(self.plan, self)
        lines = [
            f"{self.requested:,} cells requested: {self.kept:,} kept, {self.dropped:,} dropped, {self.failed:,} failed"
        ]
        if self.added:
            rate = self.added / self.seconds if self.seconds > 0 else 0.0
            lines.append(
                f"{self.added:,} cells added in {self.seconds:.1f} s ({rate:,.0f} cells/s): version {self.version}"
            )
        elif self.version:
            lines.append(f"nothing to add: the dataset is at version {self.version}")
        else:
            lines.append("no cell could be kept, so no dataset was written")
        lines += [f"  {count:>6,} {status}: {reason}" for status, reason, count in self.reasons()]
        if self.version:
            lines += [f"dataset  {self.root}", f"catalog  {self.catalog}"]
        if self.profile is not None:
            lines += _profile_lines(self.profile, self.stages)
        return lines

    def reasons(self, most: int = 8) -> list[tuple[str, str, int]]:
        """(status, reason, cells) of what was not kept, the most frequent first.

        Details that differ from cell to cell (how far a crop reaches beyond the image) are left out.
        """
        lost = self.outcomes[self.outcomes["status"] != "kept"].copy()
        reasons = lost["reason"].str.replace(r"^(edge|oversize):.*", r"\1", regex=True)
        lost["reason"] = reasons.str.replace(r"^(label-not-found: )Label \d+ is", r"\1a label is", regex=True)
        counted = lost.groupby(["status", "reason"]).size().sort_values(ascending=False)
        rows: list[tuple[str, str, int]] = [
            (str(key[0]), str(key[1]), int(count))
            for key, count in zip(counted.index[:most].to_list(), counted.head(most), strict=True)
        ]
        rest = counted.iloc[most:]
        if len(rest):
            rows.append(("others", f"{len(rest)} other reasons, see outcomes", int(rest.sum())))
        return rows

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _plan_lines(plan: Estimate, report: BuildReport) -> list[str]:
    known = report.kept + report.dropped
    lines = [
        f"plan: {plan.cells:,} cells of {plan.fovs:,} FOVs to add"
        + (f", {known:,} are in the dataset or were dropped before" if known else ""),
        f"  {human_bytes(plan.bytes)} of pixels (uncompressed) in {plan.shards:,} shards",
        f"  about {human_bytes(plan.memory)} of memory with {plan.workers} worker{'s' * (plan.workers > 1)}",
    ]
    if plan.seconds is not None:
        lines.append(f"  about {human_time(plan.seconds)}")
    lines += [f"  {line}" for line in plan.layout]
    lines += [f"  {count:>6,} {status}: {reason}" for status, reason, count in report.reasons()]
    return [*lines, "nothing was written"]


def _profile_lines(profile: pd.DataFrame, stages: Mapping[str, float]) -> list[str]:
    cells = max(int(profile["cells"].sum()), 1)
    whole = sum(stages.values()) or 1.0
    count = profile["worker"].nunique()
    lines = [
        f"profile: {len(profile):,} job{'s' * (len(profile) != 1)} by {count} worker{'s' * (count != 1)}, "
        f"{human_bytes(profile['read_bytes'].sum())} of pixels and labels read, "
        f"{human_bytes(profile['written_bytes'].sum())} written",
        f"  {'stage':<10}{'seconds':>10}{'share':>8}{'µs a cell':>12}",
    ]
    for stage, seconds in stages.items():
        lines.append(f"  {stage:<10}{seconds:>10.2f}{seconds / whole:>8.0%}{seconds / cells * 1e6:>12,.0f}")
    return lines


def human_bytes(count: float) -> str:
    """Bytes in the unit that fits.

    Examples
    --------
    >>> human_bytes(1234567)
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def human_time(seconds: float) -> str:
    """Seconds, minutes or hours.

    Examples
    --------
    >>> human_time(5400)
    '1.5 h'
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def make_report(outcomes: pd.DataFrame, **fields: Any) -> BuildReport:
    """A report whose counts are those of its outcomes."""
    counts = outcomes["status"].value_counts()
    return BuildReport(
        requested=len(outcomes),
        kept=int(counts.get("kept", 0)),
        dropped=int(counts.get("dropped", 0)),
        failed=int(counts.get("failed", 0)),
        outcomes=outcomes.reset_index(drop=True),
        **fields,
    )
