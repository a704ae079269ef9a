"""What opening a dataset of many cells takes, over HTTP on this machine: seconds, requests, bytes and memory.

    python benchmarks/opening.py [--cells 1000000]

The dataset has no images behind it; its shards all hold the same pixels. Client and server are processes of their own.
Targets: under 2 s and 300 MB for a million cells. Writes benchmarks/results/opening.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results"

CLIENT = """
import json, sys, time
def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
url, cells = sys.argv[1], int(sys.argv[2])
import intake, xarray, dask.array, cellcube
from cellcube.cube import read
before = held()
start = time.perf_counter()
dataset = intake.open_catalog(url + "/ds/catalog.yaml")["normalized_cells"].to_dask()
by_intake = time.perf_counter() - start
start = time.perf_counter()
cell = dataset["cells"].isel(cell=cells // 2).compute()
one = time.perf_counter() - start
start = time.perf_counter()
opened = cellcube.open(url + "/ds")
by_cellcube = time.perf_counter() - start
memory = held()
start = time.perf_counter()
opened.sel(cell_id=f"cell-{cells // 2:08d}")["cells"].values
found = time.perf_counter() - start
print(json.dumps({"cells": opened.sizes["cell"], "intake_s": by_intake, "one_cell_s": one, "open_s": by_cellcube,
                  "memory_mb": memory / 1024, "grown_mb": (memory - before) / 1024, "by_identifier_s": found}))
"""

SERVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from counting import serve_folder
with serve_folder(Path(sys.argv[1])) as counted:
    print(counted.url, flush=True)
    sys.stdin.readline()
    print(len(counted.requests), counted.bytes, flush=True)
"""


def main() -> None:
    """Measure, print and keep."""
    from cellcube.location import Location
    from cellcube.testing.large import write_large_dataset

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    wanted = parser.parse_args().cells
    helpers = Path(__file__).parents[1] / "tests"
    rows = []
    for cells in sorted({10_000, wanted}):
        with tempfile.TemporaryDirectory() as folder:
            write_large_dataset(Location.of(Path(folder) / "ds"), cells)
            server = subprocess.Popen(
                [sys.executable, "-c", SERVER, folder, str(helpers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert server.stdout is not None
            assert server.stdin is not None
            url = server.stdout.readline().strip()
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", CLIENT, url, str(cells // 2 * 2 - 2)],
                capture_output=True,
                text=True,
                check=True,
            )
            server.stdin.write("\n")
            server.stdin.flush()
            rows.append({**json.loads(done.stdout), "requests": server.stdout.readline().strip()})
            server.wait()
    print(f"{'cells':>10} {'open_catalog s':>15} {'one cell s':>11} {'open s':>7} {'memory MB':>10} {'grown MB':>9}")
    for row in rows:
        print(
            f"{row['cells']:>10,} {row['intake_s']:>15.2f} {row['one_cell_s']:>11.2f} {row['open_s']:>7.2f} "
            f"{row['memory_mb']:>10.0f} {row['grown_mb']:>9.0f}"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "opening.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
