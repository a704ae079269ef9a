"""Build speed against a floor: the leanest direct code that makes the same arrays from the same files.

    python benchmarks/build.py [--rounds 3] [--workers 1 2] [--fovs N] [--cases 2d 3d] [--quick]

Floor and build alternate in one run, each in a process of its own; figures are medians. CPU is user and system time of
all processes, which says more than the wall where a machine does other work too. Memory is the peak of what all
processes of a side hold together (PSS, so that shared pages count once), looked at several times a second.

The floor reads each FOV once with tifffile, slices, takes histogram percentiles, and writes shards with zarr on the
zarrs pipeline: no validation, no outcomes, no manifest, no provenance, no resume, no catalog. Writes
benchmarks/results/build.json.

The row `cellcube` is a build as it is by default, which measures intensities, focus, saturation and background of each
cell in each channel; `unmeasured` is a build with ``channel_measures=False``, which still writes geometry, shapes,
outcomes and provenance, none of which the floor knows.

Below each build stand the µs that its stages take of the wall time of a cell: those of jobs over the number of workers,
and as `rest` what none of them accounts for (planning, the start of workers, tables).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

CASES: dict[str, dict[str, Any]] = {
    # So many FOVs that a run takes some seconds: the start of workers and the commit are paid once a build.
    "2d": {
        "channels": 5,
        "image": (1, 2160, 2160),
        "crop": (1, 96, 96),
        "cells": 300,
        "projections": [],
        "fovs": 24,
        "quick": 8,
    },
    "3d": {
        "channels": 4,
        "image": (40, 624, 924),
        "crop": (40, 160, 160),
        "cells": 12,
        "projections": ["max_z"],
        "fovs": 6,
        "quick": 2,
    },
}


def write_fovs(folder: Path, case: str, count: int) -> Path:
    import pandas as pd
    import tifffile

    fields = CASES[case]
    depth, height, width = fields["image"]
    rng = np.random.default_rng(0)
    side = math.ceil(math.sqrt(fields["cells"] * width / height))
    columns, rows = side, math.ceil(fields["cells"] / side)
    labels = np.zeros((depth, height, width), np.uint16)
    y, x = np.mgrid[:height, :width]
    number = 0
    for row in range(rows):
        for column in range(columns):
            if number == fields["cells"]:
                break
            number += 1
            centre = ((row + 0.5) * height / rows, (column + 0.5) * width / columns)
            radius = 0.42 * min(height / rows, width / columns)
            window = np.s_[
                int(centre[0] - radius) : int(centre[0] + radius) + 1,
                int(centre[1] - radius) : int(centre[1] + radius) + 1,
            ]
            disc = (y[window] - centre[0]) ** 2 + (x[window] - centre[1]) ** 2 < radius**2
            labels[:, *window][:, disc] = number
    folder.mkdir(parents=True)
    table = []
    noise = rng.poisson(120, (fields["channels"], depth, height, width)).astype(np.uint16)
    for fov in range(count):
        pixels = np.roll(noise, 37 * fov, axis=-1)
        pixels += (labels > 0).astype(np.uint16) * rng.integers(200, 1200, dtype=np.uint16)
        axes = "CZYX" if depth > 1 else "CYX"
        names = [f"channel {index}" for index in range(fields["channels"])]
        tifffile.imwrite(
            folder / f"fov{fov}.ome.tif",
            pixels if depth > 1 else pixels[:, 0],
            ome=True,
            metadata={"axes": axes, "Channel": {"Name": names}, "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3},
        )
        tifffile.imwrite(
            folder / f"fov{fov}_labels.tif", labels if depth > 1 else labels[0], metadata={"axes": axes[1:]}
        )
        table += [
            {
                "cell_id": f"{fov}-{label}",
                "fov_path": f"fov{fov}.ome.tif",
                "label_path": f"fov{fov}_labels.tif",
                "label": label,
            }
            for label in range(1, fields["cells"] + 1)
        ]
    pd.DataFrame(table).to_csv(folder / "cells.csv", index=False)
    return folder / "cells.csv"


def floor_fovs(arguments: tuple[str, str, list[int], int]) -> None:
    """The same work for some FOVs, by hand; each worker writes shards of its own."""
    import tifffile
    import zarr
    from scipy import ndimage

    folder, out, fovs, worker = arguments[0], arguments[1], arguments[2], arguments[3]
    case = CASES[os.environ["BENCHMARK_CASE"]]
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1})
    channels, shape = case["channels"], case["crop"]
    total = len(fovs) * case["cells"]
    per_cell = channels * math.prod(shape) * 2
    shard = max(1, round(64e6 / per_cell))
    codecs = [zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2)]
    one_channel = math.prod(shape) * 2 >= 128 * 1024
    group = zarr.create_group(f"{out}/{worker}.zarr")
    arrays = {}
    items = {"cells": ((channels, *shape), "float16"), "mask": (shape, "uint8")}
    for name in case["projections"]:
        items[name] = ((channels, *shape[1:]), "float16")
    for name, (item, dtype) in items.items():
        chunk = (1, 1, *item[1:]) if one_channel and len(item) == 4 else (1, *item)
        arrays[name] = group.create_array(
            name, shape=(total, *item), chunks=chunk, shards=(shard, *item), dtype=dtype, compressors=codecs
        )
    buffers = {name: np.zeros((shard, *item), dtype) for name, (item, dtype) in items.items()}
    filled = written = 0
    for fov in fovs:
        image = tifffile.imread(f"{folder}/fov{fov}.ome.tif").reshape(channels, *case["image"])
        labels = tifffile.imread(f"{folder}/fov{fov}_labels.tif").reshape(case["image"])
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            start = [(part.start + part.stop - size) // 2 for part, size in zip(box, shape, strict=True)]
            low = [max(0, first) for first in start]
            high = [min(size, first + extent) for first, extent, size in zip(start, shape, case["image"], strict=True)]
            source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            target = tuple(slice(a - first, b - first) for a, b, first in zip(low, high, start, strict=True))
            crop = image[:, *source]
            pixels = buffers["cells"][filled]
            pixels[...] = 0
            for channel in range(channels):
                values = crop[channel]
                lowest = int(values.min())
                below = np.cumsum(np.bincount((values - np.uint16(lowest)).ravel()))
                bounds = [lowest + np.searchsorted(below, q * (values.size - 1) + 1) for q in (0.01, 0.999)]
                scaled = (values.astype(np.float32) - np.float32(bounds[0])) * np.float32(
                    1 / max(bounds[1] - bounds[0], 1)
                )
                pixels[channel][target] = np.clip(scaled, 0, 1, out=scaled)
            mask = buffers["mask"][filled]
            mask[...] = 0
            mask[target] = labels[source] == label
            for name in case["projections"]:
                buffers[name][filled] = pixels.max(axis=1)
            filled += 1
            if filled == shard or written + filled == total:
                for name, array in arrays.items():
                    array[written : written + filled] = buffers[name][:filled]
                written += filled
                filled = 0


def run_floor(folder: Path, out: Path, fovs: int, workers: int) -> None:
    parts = [(str(folder), str(out), list(range(fovs))[worker::workers], worker) for worker in range(workers)]
    if workers == 1:
        floor_fovs(parts[0])
        return
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(floor_fovs, parts))


def run_cellcube(folder: Path, out: Path, case: str, workers: int, measured: bool) -> dict[str, float]:
    import cellcube

    fields = CASES[case]
    report = cellcube.build(
        folder / "cells.csv",
        out / "dataset",
        executor=workers,
        shape=fields["crop"],
        projections=fields["projections"],
        channel_measures=measured,
    )
    assert report.failed == 0, str(report)
    whole = ("plan", "pack", "commit")
    return {name: value if name in whole else value / workers for name, value in report.stages.items()}


def one(what: str, case: str, folder: Path, fovs: int, workers: int) -> dict[str, Any]:
    """Run one side in a process of its own.

    Gives seconds and CPU seconds without the start of Python, peak memory of all its processes, and seconds by stage.
    """
    out = Path(tempfile.mkdtemp(dir=folder.parent))
    environment = {**os.environ, "BENCHMARK_CASE": case}
    command = [sys.executable, __file__, "--side", what, "--case", case, "--folder", str(folder), "--out", str(out)]
    command += ["--fovs", str(fovs), "--workers", str(workers)]
    peak = 0.0
    ended = threading.Event()

    def watch(pid: int) -> None:
        nonlocal peak
        while not ended.wait(0.15):
            peak = max(peak, sum(map(held, family(pid))))

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        watcher = threading.Thread(target=watch, args=(process.pid,))
        watcher.start()
        told, wrong = process.communicate()
        ended.set()
        watcher.join()
    if process.returncode:
        raise RuntimeError(wrong)
    shutil.rmtree(out)
    return {**json.loads(told.splitlines()[-1]), "memory_mb": peak}


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in family(int(child)))]


def held(pid: int) -> float:
    """MB that a process holds; what it shares with others counts in parts."""
    try:
        status = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("Pss:")) / 1024


def side(options: argparse.Namespace) -> None:
    # Imports are the same for both and paid once a session.
    import pandas  # noqa: F401
    import tifffile  # noqa: F401
    import zarr  # noqa: F401
    from scipy import ndimage  # noqa: F401

    if options.side != "floor":
        from cellcube.run import build  # noqa: F401
    stages = {}
    start, before = time.perf_counter(), sum(os.times()[:4])
    if options.side == "floor":
        run_floor(options.folder, options.out, options.fovs, options.workers[0])
    else:
        measured = options.side == "cellcube"
        stages = run_cellcube(options.folder, options.out, options.case, options.workers[0], measured)
    seconds, spent = time.perf_counter() - start, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu": spent, "stages": stages}))


def per_cell(runs: list[dict[str, Any]], cells: int) -> dict[str, float]:
    """Medians of the µs a cell by stage."""
    found = {name: statistics.median(run["stages"][name] for run in runs) / cells * 1e6 for name in runs[0]["stages"]}
    return {**found, "rest": statistics.median(run["seconds"] for run in runs) / cells * 1e6 - sum(found.values())}


def told(stages: dict[str, float]) -> str:
    """The µs by stage as text, and whether what is made of pixels costs less than keeping it."""
    made, kept = ("select", "measure", "normalize"), ("encode", "write", "pack")
    sums = [sum(stages[name] for name in names) for names in (made, kept)]
    return (
        "      µs a cell: "
        + ", ".join(f"{name} {value:.0f}" for name, value in stages.items())
        + f"\n      {' + '.join(made)} {sums[0]:.0f} is {'less' if sums[0] < sums[1] else 'not less'} than "
        + f"{' + '.join(kept)} {sums[1]:.0f}; without measure {sums[0] - stages['measure']:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--fovs", type=int, help="of each case; so many that a run takes some seconds by default")
    parser.add_argument("--quick", action="store_true", help="one round of few FOVs: to see that it works")
    for name in ("side", "case"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for name in ("folder", "out"):
        parser.add_argument(f"--{name}", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options)
        return
    rounds = 1 if options.quick else options.rounds
    results = []
    heads = ("cells/s", "CPU µs", "MB/s", "peak MB", "of floor", "by CPU")
    print(f"{'case':<5} {'workers':>7} {'':<11}" + "".join(f" {head:>9}" for head in heads))
    with tempfile.TemporaryDirectory() as temporary:
        for case in options.cases:
            folder = Path(temporary) / case
            fovs = options.fovs or CASES[case]["quick" if options.quick else "fovs"]
            write_fovs(folder, case, fovs)
            cells = fovs * CASES[case]["cells"]
            megabytes = cells * CASES[case]["channels"] * math.prod(CASES[case]["crop"]) * 2 / 1e6
            for workers in options.workers:
                runs: dict[str, list[dict[str, Any]]] = {"floor": [], "cellcube": [], "unmeasured": []}
                for _ in range(rounds):
                    for what, found in runs.items():
                        found.append(one(what, case, folder, fovs, workers))
                for what, found in runs.items():
                    middle = {
                        name: statistics.median(each[name] for each in found) for name in found[0] if name != "stages"
                    }
                    pairs = list(zip(runs["floor"], found, strict=True))
                    ratio, by_cpu = (
                        statistics.median(a[name] / b[name] for a, b in pairs) for name in ("seconds", "cpu")
                    )
                    seconds, memory = middle["seconds"], middle["memory_mb"]
                    row = {"case": case, "workers": workers, "what": what, "cells_per_s": cells / seconds}
                    row |= {"mb_per_s": megabytes / seconds, "memory_mb": memory, "of_floor": ratio}
                    row |= {"cpu_us_per_cell": middle["cpu"] / cells * 1e6, "of_floor_by_cpu": by_cpu}
                    if what != "floor":
                        row["us_per_cell"] = per_cell(found, cells)
                    results.append(row)
                    print(
                        f"{case:<5} {workers:>7} {what:<11} {cells / seconds:>9.0f} {row['cpu_us_per_cell']:>9.0f} "
                        f"{megabytes / seconds:>9.1f} {memory:>9.0f} {ratio:>9.2f} {by_cpu:>9.2f}",
                        flush=True,
                    )
                    if what != "floor":
                        print(told(row["us_per_cell"]), flush=True)
    target = Path(__file__).parent / "results" / "build.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
