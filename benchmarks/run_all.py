"""All benchmarks at once: every figure beside its target, and whether it is met.

    python benchmarks/run_all.py [--scportrait PYTHON] [--only build rivals …] [--no-run] [--markdown PAGE]

Runs the other scripts one after the other, quickly, each in a process of its own, and reads what they wrote to
benchmarks/results/. It takes less than 15 minutes on two cores that do nothing else. A script that fails or takes too
long gives a row that says so. ``--no-run`` takes the results that are there. ``--markdown docs/performance.md`` puts
the table into that page, between its lines ``<!-- measured -->`` and ``<!-- end of measured -->``. Some scripts need
packages of their own, as they say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One figure.

    Parameters
    ----------
    name : str
    value : float, optional
        None where it could not be measured.
    unit : str
    target : float, optional
        None where there is none.
    most : bool
        Whether the target is the most it may be, and not the least.
    note : str
    """

    name: str
    value: float | None = None
    unit: str = ""
    target: float | None = None
    most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where that cannot be said."""
        if self.value is None or self.target is None:
            return None
        return self.value <= self.target if self.most else self.value >= self.target

    def cells(self) -> tuple[str, str, str, str]:
        """As text: what, measured, target, met."""
        measured = self.note or "not measured" if self.value is None else f"{number(self.value)} {self.unit}".strip()
        if self.value is not None and self.note:
            measured += f" ({self.note})"
        bound = "at most" if self.most else "at least"
        target = "" if self.target is None else f"{bound} {number(self.target)} {self.unit}".strip()
        failed = self.value is None and bool(self.note)
        met = {True: "yes", False: "**no**", None: "failed" if failed else ""}[self.met]
        return self.name, measured, target, met


def number(value: float) -> str:
    """Two or three digits that matter."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def rows_of(found: Any) -> list[Mapping[str, Any]]:
    """The rows of a result that is a list, or has one."""
    return list(found if isinstance(found, list) else found["rows"])


# What a build is measured by: share of the floor's speed, and MB above its memory.
FLOOR = 0.8
ABOVE_FLOOR_MB = 300.0
# Speed of several workers, as a share of so many times that of one.
EFFICIENCY = 0.8
BUILDS = {"cellcube": "", "unmeasured": ", without measures of channels"}


def build_rows(found: Any) -> Iterator[Row]:
    """Of benchmarks/build.py."""
    rows = {(row["case"], row["workers"], row["what"]): row for row in rows_of(found)}
    for (case, workers, what), row in rows.items():
        if what not in BUILDS:
            continue
        floor = rows[case, workers, "floor"]
        name = f"Build {case.upper()}, {workers} worker{'s' if workers > 1 else ''}{BUILDS[what]}"
        speed = f"{number(row['cells_per_s'])} cells/s"
        if "of_floor_by_cpu" in row:
            speed += f"; {number(row['of_floor_by_cpu'])} by time of processors"
        yield Row(f"{name}: speed", row["of_floor"], "of the floor", FLOOR, note=speed)
        extra = row["memory_mb"] - floor["memory_mb"]
        yield Row(f"{name}: memory above the floor's", extra, "MB", ABOVE_FLOOR_MB, most=True)
        if workers > 1 and (case, 1, what) in rows:
            gained, floor_gained = (
                rows[case, workers, side]["cells_per_s"] / rows[case, 1, side]["cells_per_s"] / workers
                for side in (what, "floor")
            )
            note = f"the floor {number(floor_gained)}"
            yield Row(f"{name}: of {workers} times the speed of one", gained, target=EFFICIENCY, note=note)


def rivals_rows(found: Any) -> Iterator[Row]:
    """Of benchmarks/rivals.py."""
    targets = {"scPortrait": 10.0, "scPortrait, extraction alone": None, "old way": 15.0, "lean TIFFs": 1.0}
    for way, target in targets.items():
        if way in found["ways"]:
            row, lean = found["ways"][way], found["ways"].get("cellcube, unmeasured")
            by_cpu = f"{number(row['cellcube_is_by_cpu'])} by time of processors"
            if lean is not None:
                by_cpu += f"; {number(lean['cells_per_s'] / row['cells_per_s'])} without measures of channels"
            yield Row(f"Build against {way}", row["cellcube_is"], "times as fast", target, note=by_cpu)
        else:
            yield Row(f"Build against {way}", target=target, note="left out: give --scportrait PYTHON")


def batches_rows(found: Any) -> Iterator[Row]:
    """Of benchmarks/batches.py, which tells its targets itself."""
    for row in rows_of(found):
        ours, other = row["details"].values()
        by_cpu = number(other["cellcube_is_by_cpu"])
        note = f"{number(ours['cells_per_second'])} cells/s; {by_cpu} by time of processors"
        yield Row(f"Batches, {row['row']}", row["value"], "times as fast", row["target"], note=note)
    if not any(row["row"].startswith("random") for row in rows_of(found)):
        yield Row("Batches, random, of tensorstore and h5py", note="left out: these are not installed")


def analysis_rows(found: Any) -> Iterator[Row]:
    """Of benchmarks/analysis.py."""
    name = f"Lazy analysis of {found['cells']:,} cells: memory"
    yield Row(name, found["memory_mb"], "MB", found["target_mb"], most=True, note=f"{number(found['seconds'])} s")


def opening_rows(found: Any) -> Iterator[Row]:
    """Of benchmarks/opening.py."""
    row = max(rows_of(found), key=lambda each: each["cells"])
    name = f"Opening {row['cells']:,} cells over HTTP"
    yield Row(f"{name}, by Intake", row["intake_s"], "s", 2.0, most=True)
    yield Row(f"{name}, by cellcube.open", row["open_s"], "s", 2.0, most=True)
    yield Row(f"{name}: memory", row["memory_mb"], "MB", 300.0, most=True)


def scale_rows(found: Any) -> Iterator[Row]:
    """Of benchmarks/scale.py, which tells its targets itself."""
    for part in found.values():
        for row in part["targets"]:
            yield Row(f"Scale: {row['what']}", row["figure"], row["unit"], row["target"], most=True)


def ahead_rows(found: Any) -> Iterator[Row]:
    """Of benchmarks/ahead.py."""
    note = f"{number(100 * found['saved'])} % less than one after the other"
    yield Row("Fields fetched ahead: of the best possible", found["of the best possible"], note=note)


READERS: Mapping[str, Callable[[Any], Iterator[Row]]] = {
    "build": build_rows,
    "rivals": rivals_rows,
    "scale": scale_rows,
    "batches": batches_rows,
    "ahead": ahead_rows,
    "analysis": analysis_rows,
    "opening": opening_rows,
}


# Run quickly, these would say nothing.
WHOLE = ("scale",)


def read_rows(script: str, text: str) -> list[Row]:
    """The rows of a result; one that says so where they cannot be told."""
    try:
        return list(READERS[script](json.loads(text)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [Row(f"{script}.py", note=f"its result is in another form: {type(error).__name__} {error}")]


def run(script: str, results: Path, more: Sequence[str], seconds: float) -> list[Row]:
    """Run a script and read what it wrote; it has so many seconds, and twice as many where it is run as a whole."""
    path, started = HERE / f"{script}.py", time.time()
    if not path.exists():
        return [Row(f"{script}.py", note="there is no such script")]
    command = [sys.executable, "-W", "ignore", str(path), *more]
    if script not in WHOLE:
        helped = subprocess.run(
            [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False
        ).stdout
        command += ["--quick"] if "--quick" in helped else ["--rounds", "1"] if "--rounds" in helped else []
    seconds *= 2 if script in WHOLE else 1
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [Row(f"{script}.py", note=f"took more than {seconds:.0f} s")]
    print(f"{script}.py: {time.time() - started:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1][:100]
        return [Row(f"{script}.py", note=f"failed: {last}")]
    written = results / f"{script}.json"
    if not written.exists() or written.stat().st_mtime < started - 1:
        return [Row(f"{script}.py", note="wrote no result")]
    return read_rows(script, written.read_text())


def as_text(rows: Sequence[Row]) -> str:
    """Rows as columns."""
    table = [("what", "measured", "target", "met"), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]) for line in table
    ]
    told = [row.met for row in rows if row.met is not None]
    return "\n".join([*(line.rstrip() for line in lines), "", f"{sum(told)} of {len(told)} targets are met."])


def as_markdown(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    lines = ["| what | measured | target | met |", "|---|---|---|---|"]
    return "\n".join(
        [*lines, *("| " + " | ".join(cell.replace("|", "/") for cell in row.cells()) + " |" for row in rows)]
    )


def put_between(text: str, table: str, name: str = "measured") -> str:
    """A page with the table between its lines ``<!-- name -->`` and ``<!-- end of name -->``.

    Raises
    ------
    ValueError
        Where the page does not have both of them once.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"The page must have the lines {begin} and {end} once.")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(READERS), default=list(READERS), help="scripts to run")
    parser.add_argument("--scportrait", metavar="PYTHON", help="of an environment with scportrait")
    parser.add_argument("--no-run", action="store_true", help="read the results that are there")
    parser.add_argument("--seconds", type=float, default=300, help="that one script may take")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table into this page")
    given = parser.parse_args()
    results = HERE / "results"
    rows: list[Row] = []
    for script in given.only:
        written = results / f"{script}.json"
        if given.no_run:
            missing = [Row(f"{script}.py", note="has not been run")]
            rows += read_rows(script, written.read_text()) if written.exists() else missing
        else:
            more = ["--scportrait", given.scportrait] if script == "rivals" and given.scportrait else []
            rows += run(script, results, more, given.seconds)
    print(as_text(rows))
    if given.markdown:
        page = given.markdown.read_text("utf-8")
        given.markdown.write_text(put_between(page, as_markdown(rows)), "utf-8")


if __name__ == "__main__":
    main()
