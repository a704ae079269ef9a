"""Whether cost is flat in the number of cells: builds, the plan of a long table, an append to a large dataset.

    python benchmarks/scale.py [--quick] [--parts build plan append]

Each figure is of a process of its own, which has built a few cells before, so that imports do not count. Memory is the
peak of the process and its workers together, beyond Python with these imports in brackets. Writes
benchmarks/results/scale.json; with --quick, which takes sizes that say little, nothing.

build: 1,000, 10,000 and 100,000 cells (crops of 48 x 48, 5 channels) from fields of 2160 x 2160 with 300 cells, one
worker. The fields are the same four files under many names.
plan: a CSV table of 3,500 fields with 300 cells each, by labels and by centres.
append: 1,000 cells to an empty root, and to a dataset of a million whose manifest has all columns of a build.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

RESULTS = Path(__file__).parent / "results"
SIDE, PER_FIELD, FILES = 2160, 300, 4
CROP = (1, 48, 48)
CHANNELS = [f"marker {number}" for number in range(5)]

Row = dict[str, Any]


def write_fields(folder: Path, count: int, side: int = SIDE, channels: list[str] = CHANNELS) -> None:
    """Fields with a grid of discs, as images and labels; more than `FILES` are further names of the same files."""
    import tifffile

    rng = np.random.default_rng(0)
    labels = np.zeros((side, side), np.uint16)
    y, x = np.mgrid[:side, :side]
    for number, (top, left) in enumerate(centres(side), start=1):
        reach = side // 45
        window = np.s_[int(top) - reach : int(top) + reach + 1, int(left) - reach : int(left) + reach + 1]
        labels[window][(y[window] - top) ** 2 + (x[window] - left) ** 2 < reach**2] = number
    folder.mkdir(parents=True)
    for number in range(min(count, FILES)):
        pixels = rng.poisson(120, (len(channels), side, side)).astype(np.uint16)
        pixels += (labels > 0).astype(np.uint16) * rng.integers(200, 1200, dtype=np.uint16)
        metadata = {"axes": "CYX", "Channel": {"Name": channels}, "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3}
        tifffile.imwrite(folder / f"{number}.ome.tif", pixels, ome=True, metadata=metadata)
        tifffile.imwrite(folder / f"{number}_labels.tif", labels, metadata={"axes": "YX"})
    for number in range(FILES, count):
        for ending in (".ome.tif", "_labels.tif"):
            os.link(folder / f"{number % FILES}{ending}", folder / f"{number}{ending}")


def centres(side: int) -> list[tuple[float, float]]:
    """Where the cells of a field are: 15 rows of 20."""
    return [((row + 0.5) * side / 15, (column + 0.5) * side / 20) for row in range(15) for column in range(20)]


def table_of(cells: int, by: str, side: int = SIDE) -> pd.DataFrame:
    """A table of the first so many cells of the fields."""
    numbers = np.arange(cells)
    fields, places = numbers // PER_FIELD, numbers % PER_FIELD
    names = pd.Series(fields.astype(str))
    table = pd.DataFrame({"cell_id": names + "-" + places.astype(str), "fov_path": names + ".ome.tif"})
    table["well"] = "W" + pd.Series((fields % 384).astype(str))
    if by == "labels":
        return table.assign(label_path=names + "_labels.tif", label=places + 1)
    middle = np.array(centres(side))[places]
    return table.assign(center_y=middle[:, 0], center_x=middle[:, 1])


def measured(work: Callable[[], Any]) -> Row:
    """Wall seconds, CPU seconds and peak memory of some work, workers included."""
    own = psutil.Process()

    def held() -> int:
        found = own.memory_info().rss
        for child in own.children(recursive=True):
            try:
                found += child.memory_info().rss
            except psutil.Error:
                continue
        return int(found)

    before, highest, done = held(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.02):
            highest = max(highest, held())

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    start, times = time.perf_counter(), os.times()
    work()
    seconds, after = time.perf_counter() - start, os.times()
    done.set()
    watching.join()
    return {
        "seconds": seconds,
        "cpu_seconds": sum(after[:4]) - sum(times[:4]),
        "memory_mb": max(highest, held()) / 2**20,
        "before_mb": before / 2**20,
    }


def warm_up(folder: Path) -> None:
    """Build a few cells, for the imports."""
    import cellcube

    write_fields(folder / "warm", 1, 300, CHANNELS[:1])
    table_of(5, "labels", 300).to_csv(folder / "warm" / "cells.csv", index=False)
    cellcube.build(folder / "warm" / "cells.csv", folder / "warm" / "out", executor=1, shape=(1, 8, 8), progress=False)


def build_side(folder: Path, cells: int) -> Row:
    import cellcube

    def work() -> None:
        report = cellcube.build(folder / f"{cells}.csv", folder / "out", executor=1, shape=CROP, progress=False)
        assert report.kept == cells, str(report)

    return measured(work)


def plan_side(folder: Path, table: str, dry_run: bool) -> Row:
    import cellcube
    from cellcube.run.parts import make_plan

    fields: Row = {"executor": 1, "shape": (1, 16, 16)}
    if dry_run:
        return measured(lambda: cellcube.build(folder / table, folder / "out", dry_run=True, **fields))
    return measured(lambda: make_plan(folder / table, folder / "out", **fields))


def append_side(folder: Path, root: str, cells: int) -> Row:
    import cellcube

    table = folder / "more.csv"
    table_of(cells, "centres", 400).to_csv(table, index=False)
    spec: Row = {"name": "large", "shape": (1, 16, 16), "normalize": "none", "dtype": "uint16", "projections": []}

    def work() -> None:
        report = cellcube.build(table, folder / root, executor=1, storage={"shard_mb": 8.0}, progress=False, **spec)
        assert report.added == cells, str(report)

    return measured(work)


def large_side(folder: Path, root: str, cells: int) -> Row:
    from cellcube.location import Location
    from cellcube.testing.large import write_large_dataset

    return measured(lambda: write_large_dataset(Location.of(folder / root), cells))


SIDES: dict[str, Callable[..., Row]] = {
    "build": build_side,
    "plan": plan_side,
    "append": append_side,
    "large": large_side,
}


def one(side: str, folder: Path, *arguments: Any) -> Row:
    """Run a side in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, str(folder), json.dumps(arguments)]
    with tempfile.TemporaryDirectory() as warm:
        done = subprocess.run([*command, warm], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def tell(title: str, row: Row, figure: str = "") -> None:
    print(
        f"{title:<42} {row['seconds']:>8.2f} s {row['cpu_seconds']:>8.2f} s CPU {row['memory_mb']:>7.0f} MB "
        f"({row['memory_mb'] - row['before_mb']:.0f}) {figure}",
        flush=True,
    )


def judge(title: str, figure: float, target: float, unit: str) -> Row:
    """A figure beside its target, which it must not exceed."""
    met = figure <= target
    print(f"{title:<58} {figure:>8.2f} {unit:<3} at most {target:g} {unit}: {'met' if met else 'MISSED'}", flush=True)
    return {"what": title, "figure": figure, "target": target, "unit": unit, "met": met}


def builds(folder: Path, sizes: list[int]) -> tuple[list[Row], list[Row]]:
    """Builds of growing size; of the smallest, the median of several."""
    import shutil

    write_fields(folder, -(-max(sizes) // PER_FIELD))
    rows = []
    for cells in sizes:
        table_of(cells, "labels").to_csv(folder / f"{cells}.csv", index=False)
        runs = []
        for _ in range(5 if cells < 5000 else 1):
            runs.append(one("build", folder, cells))
            shutil.rmtree(folder / "out")
        row = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        rows.append({"cells": cells, "cells_per_s": cells / row["seconds"], **row})
        tell(f"build of {cells:,} cells", row, f"{cells / row['seconds']:.0f} cells/s")
    rate = [cells / row["cpu_seconds"] for cells, row in zip(sizes, rows, strict=True)]
    speed, memory = [row["cells_per_s"] for row in rows], [row["memory_mb"] for row in rows]
    return rows, [
        judge("build: cells/s, how much the fastest exceeds the slowest", 100 * (max(speed) / min(speed) - 1), 15, "%"),
        judge("build: the same in cells per second of CPU", 100 * (max(rate) / min(rate) - 1), 15, "%"),
        judge("build: memory, how much the highest exceeds the lowest", 100 * (max(memory) / min(memory) - 1), 15, "%"),
    ]


def plans(folder: Path, fields: int) -> tuple[list[Row], list[Row]]:
    """Plans of a long table."""
    write_fields(folder, fields, 400, CHANNELS[:2])
    rows = []
    for by in ("labels", "centres"):
        table_of(fields * PER_FIELD, by, 400).to_csv(folder / f"{by}.csv", index=False)
        for dry_run in (True, False):
            row = one("plan", folder, f"{by}.csv", dry_run)
            rows.append({"cells": fields * PER_FIELD, "by": by, "dry_run": dry_run, **row})
            tell(f"{'dry run' if dry_run else 'plan'} of {fields * PER_FIELD:,} cells by {by}", row)
    return rows, [
        judge("plan: the slowest", max(row["seconds"] for row in rows), 10, "s"),
        judge("plan: memory of the largest", max(row["memory_mb"] for row in rows), 1000, "MB"),
    ]


def appends(folder: Path, cells: int) -> tuple[list[Row], list[Row]]:
    """A thousand cells to nothing and to many."""
    write_fields(folder, 4, 400, ["marker 0", "marker 1"])
    rows = []
    for count in (0, cells):
        root = f"of-{count}"
        if count:
            tell(f"making a dataset of {count:,} cells", one("large", folder, root, count))
        row = one("append", folder, root, 1000)
        rows.append({"cells": count, **row})
        tell(f"1,000 cells appended to {count:,}", row)
    return rows, [
        judge("append: to the large dataset, longer than to nothing", rows[1]["seconds"] - rows[0]["seconds"], 10, "s")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--parts", nargs="+", choices=["build", "plan", "append"], default=["build", "plan", "append"])
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, folder, arguments, warm = options.side
        warm_up(Path(warm))
        print(json.dumps(SIDES[side](Path(folder), *json.loads(arguments))))
        return
    parts: dict[str, Callable[[Path], tuple[list[Row], list[Row]]]] = {
        "build": lambda folder: builds(folder, [300, 600] if options.quick else [1_000, 10_000, 100_000]),
        "plan": lambda folder: plans(folder, 20 if options.quick else 3_500),
        "append": lambda folder: appends(folder, 20_000 if options.quick else 1_000_000),
    }
    target = RESULTS / "scale.json"
    found: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    for name in options.parts:
        with tempfile.TemporaryDirectory() as temporary:
            rows, judged = parts[name](Path(temporary) / name)
        found[name] = {"rows": rows, "targets": judged}
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        target.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
