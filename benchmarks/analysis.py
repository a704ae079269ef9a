"""Memory and time of examples/lazy_analysis.py over many cells: mean cells of wells, features, principal components.

    python benchmarks/analysis.py [--cells 10000] [--crop 96] [--shard-mb 64] [--quick]

The cube is built first, in a process of its own; then another one opens and analyses it. Memory is the peak resident
set of that process, imports and all; its target is under 2 GB for 10,000 cells of five channels. Writes
benchmarks/results/analysis.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET_MB = 2000
EXAMPLES = Path(__file__).parents[1] / "examples"

BUILD = """
import sys
from pathlib import Path
import lazy_analysis
print(lazy_analysis.build(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
"""

ANALYSE = """
import json, os, sys, time, warnings
from pathlib import Path
import dask.array as da
import lazy_analysis
warnings.simplefilter("error", da.PerformanceWarning)
start, used = time.perf_counter(), time.process_time()
means, table, scores, components = lazy_analysis.analyse(Path(sys.argv[1]))
seconds, cpu = time.perf_counter() - start, time.process_time() - used
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print()
print(json.dumps({"cells": len(table), "threads": os.cpu_count(), "seconds": seconds, "cpu_s": cpu,
                  "memory_mb": peak / 1024}))
"""


def run(code: str, *arguments: object) -> str:
    """The last line that some code prints, with the examples importable."""
    path = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n"
    command = [sys.executable, "-c", path + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--shard-mb", type=float, default=64)
    parser.add_argument("--quick", action="store_true", help="the same; nothing here is repeated")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = run(BUILD, folder, given.cells, given.crop, given.shard_mb)
        row = json.loads(run(ANALYSE, root))
    row |= {"crop": given.crop, "shard_mb": given.shard_mb, "target_mb": TARGET_MB}
    print(
        f"{row['cells']:,} cells of {given.crop} x {given.crop}: peak {row['memory_mb']:,.0f} MB "
        f"(target below {TARGET_MB:,}), {row['seconds']:.0f} s, {row['cpu_s']:.0f} s of processors, "
        f"{row['threads']} threads"
    )
    target = Path(__file__).parent / "results" / "analysis.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
