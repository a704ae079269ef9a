"""Whether fields of view that are fetched over a network cost time of their own, or pass while others are worked on.

    python benchmarks/ahead.py [--fovs 20] [--megabytes 100] [--milliseconds 20] [--rounds 2]

Builds the 2D cells of benchmarks/build.py from a web server with a line of so many MB/s, by one worker: with fields
fetched ahead, one after the other, and from this disk, alternating; prints medians and writes
benchmarks/results/ahead.json. What is best possible is the longer of the build from disk and the line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import build as build_benchmark
import pandas as pd
from link import served

import cellcube
import cellcube.run.reading as reading


def seconds_of(cells: pd.DataFrame, root: Path, ahead: int) -> tuple[float, float]:
    """Seconds of a build, and those in which it waited for fields that were fetched ahead."""
    reading.AHEAD = ahead
    start = time.perf_counter()
    report = cellcube.build(cells, root, executor=1, shape=(1, 96, 96), projections=[], progress=False)
    seconds = time.perf_counter() - start
    if report.failed:
        raise RuntimeError(str(report))
    shutil.rmtree(root)
    return seconds, report.stages["wait"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fovs", type=int, default=20)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--milliseconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    held = reading.AHEAD
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "fovs")
        local = pd.read_csv(build_benchmark.write_fovs(folder, "2d", options.fovs))
        size = sum(path.stat().st_size for path in folder.glob("*.tif")) / 1e6
        with served(folder, options.megabytes, options.milliseconds) as url:
            paths = ["fov_path", "label_path"]
            tables = {
                "ahead": (local.assign(**{name: f"{url}/" + local[name] for name in paths}), held),
                "one after the other": (local.assign(**{name: f"{url}/" + local[name] for name in paths}), 0),
                "from disk": (local.assign(**{name: f"{folder}/" + local[name] for name in paths}), held),
            }
            runs: dict[str, list[tuple[float, float]]] = {name: [] for name in tables}
            for _ in range(options.rounds):
                for name, (table, ahead) in tables.items():
                    runs[name].append(seconds_of(table, Path(temporary, "dataset"), ahead))
    middle = {name: statistics.median(seconds for seconds, _ in each) for name, each in runs.items()}
    waits = statistics.median(wait for _, wait in runs["ahead"])
    best = max(middle["from disk"], size / options.megabytes)
    results: dict[str, Any] = {
        **{name: round(value, 2) for name, value in middle.items()},
        "line": round(size / options.megabytes, 2),
        "waited": round(waits, 2),
        "of the best possible": round(best / middle["ahead"], 3),
        "saved": round(1 - middle["ahead"] / middle["one after the other"], 3),
    }
    for name, value in results.items():
        print(f"{name:<22}{value:>8}")
    target = Path(__file__).parent / "results" / "ahead.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
