"""Building a dataset against the other ways to cut the same cells from the same images, on the same cores.

    python benchmarks/rivals.py [--rounds 3] [--fovs 8] [--workers 2] [--old-cells 24] [--quick] [--scportrait PYTHON]

The cells are those of the 2D case of benchmarks/build.py: 300 of 96 x 96 in five channels of 2160 x 2160, uint16.

- ``cellcube`` is `cellcube.build`: cube, masks, measures, manifest, provenance, catalog; ``cellcube, unmeasured`` is
  the same without the measures of single channels, which no other way takes.
- ``lean TIFFs`` reads each FOV once and writes an OME-TIFF a cell with tifffile, normalized, uint16, uncompressed:
  no masks, no measures, no manifest, and nothing to continue from.
- ``old way`` opens the FOV again for each cell with bioio, takes the cell from its dask array, normalizes it, and
  writes it with the OME-TIFF writer of bioio. It takes some dozens of cells, and cells/s are theirs.
- ``scPortrait`` extracts the cells from all FOVs side by side as one project, images and segmentation given as arrays:
  with its set-up (project, images and masks taken into it), and the extraction alone. It is run by PYTHON, of an
  environment where scportrait is installed, and left out without it.

All take turns in each round, each in a process of its own; figures are medians, and ratios the medians of the rounds'
own. ``CPU`` is what a cell takes of all processors, which compares also where the machine does much else. Imports of
the first process do not count. Memory is the largest sum of the process and all below it, where pages that they share
count once (PSS). Files are in the page cache. Writes benchmarks/results/rivals.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

CROP = 96
CHANNELS = 5
NAMES = [f"channel {index}" for index in range(CHANNELS)]


def normalized(values: np.ndarray) -> np.ndarray:
    """Percentiles 1 and 99.9 of each channel to 0 and 65535; shape (c, y, x), uint16."""
    low, high = np.percentile(values, (1, 99.9), axis=(1, 2), keepdims=True)
    return (np.clip((values - low) / np.maximum(high - low, 1), 0, 1) * 65535).astype(np.uint16)


def window(box: Any, image: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the crop in the middle of a box, moved inside the image."""
    starts = [(part.start + part.stop - CROP) // 2 for part in box]
    starts = [min(max(0, start), size - CROP) for start, size in zip(starts, image, strict=True)]
    return slice(starts[0], starts[0] + CROP), slice(starts[1], starts[1] + CROP)


def lean_fov(task: tuple[str, str, int]) -> int:
    """All cells of one FOV to OME-TIFFs."""
    import tifffile
    from scipy import ndimage

    folder, out, fov = task
    image = tifffile.imread(f"{folder}/fov{fov}.ome.tif")
    boxes = ndimage.find_objects(tifffile.imread(f"{folder}/fov{fov}_labels.tif"))
    for label, box in enumerate(boxes, start=1):
        cell = normalized(image[:, *window(box, image.shape[1:])])
        metadata = {"axes": "CYX", "Channel": {"Name": NAMES}, "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3}
        tifffile.imwrite(f"{out}/{fov}-{label}.ome.tif", cell, ome=True, metadata=metadata)
    return len(boxes)


def old_cell(task: tuple[str, str, int, int]) -> int:
    """One cell, from opening its FOV to its OME-TIFF."""
    import tifffile
    from bioio import BioImage
    from bioio_ome_tiff import Reader
    from bioio_ome_tiff.writers import OmeTiffWriter
    from scipy import ndimage

    folder, out, fov, label = task
    image = BioImage(f"{folder}/fov{fov}.ome.tif", reader=Reader)
    labels = tifffile.imread(f"{folder}/fov{fov}_labels.tif")
    [box] = ndimage.find_objects((labels == label).astype(np.uint8))
    pixels = image.get_image_dask_data("CYX")[:, *window(box, labels.shape)].compute()
    OmeTiffWriter.save(
        normalized(pixels),
        f"{out}/{fov}-{label}.ome.tiff",
        dim_order="CYX",
        channel_names=image.channel_names,
        physical_pixel_sizes=image.physical_pixel_sizes,
    )
    return 1


def mapped(work: Any, tasks: list[Any], workers: int) -> int:
    if workers == 1:
        return sum(map(work, tasks))
    with ProcessPoolExecutor(workers) as pool:
        return sum(pool.map(work, tasks))


def tree(root: int) -> list[int]:
    """Processes at and below one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


class Clock:
    """Seconds, and seconds of processors of this process and all below it, since it was made."""

    def __init__(self) -> None:
        self._used, self._start = self._processors(), time.perf_counter()

    @staticmethod
    def _processors() -> float:
        ticks = 0
        for process in tree(os.getpid()):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                # Its own, and those of children that have ended.
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self, cells: int) -> dict[str, Any]:
        """What was used, for so many cells."""
        seconds = time.perf_counter() - self._start
        return {"cells": cells, "seconds": seconds, "cpu_s": self._processors() - self._used}


def run_cellcube(options: argparse.Namespace, measured: bool = True) -> dict[str, Any]:
    import cellcube
    from cellcube.run import build  # noqa: F401

    clock = Clock()
    report = cellcube.build(
        options.folder / "cells.csv",
        options.out / "dataset",
        executor=options.workers,
        shape=(1, CROP, CROP),
        projections=[],
        channel_measures=measured,
        progress=False,
    )
    assert report.failed == 0, str(report)
    return clock.stop(report.kept)


def run_lean(options: argparse.Namespace) -> dict[str, Any]:
    import tifffile  # noqa: F401
    from scipy import ndimage  # noqa: F401

    tasks = [(str(options.folder), str(options.out), fov) for fov in range(options.fovs)]
    clock = Clock()
    return clock.stop(mapped(lean_fov, tasks, options.workers))


def run_old(options: argparse.Namespace) -> dict[str, Any]:
    import bioio_ome_tiff.writers
    from bioio import BioImage  # noqa: F401
    from scipy import ndimage  # noqa: F401

    assert bioio_ome_tiff.writers
    count = options.old_cells
    tasks = [
        (str(options.folder), str(options.out), number % options.fovs, 1 + number // options.fovs * 7 % 300)
        for number in range(count)
    ]
    # The start of the workers would weigh on so few cells, and the first cells of each warm it up.
    with ProcessPoolExecutor(options.workers) as pool:
        list(pool.map(old_cell, tasks[: 2 * options.workers]))
        clock = Clock()
        return clock.stop(sum(pool.map(old_cell, tasks)))


SIDES = {
    "cellcube": run_cellcube,
    "cellcube, unmeasured": partial(run_cellcube, measured=False),
    "lean TIFFs": run_lean,
    "old way": run_old,
}


def held_mb(root: int) -> float:
    """Memory of a process and all below it; shared pages count once."""
    total = 0
    for process in tree(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def watched(command: list[str]) -> dict[str, Any]:
    """Run a command that prints JSON last; with the largest memory of its processes, in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    largest = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.1):
            largest = max(largest, held_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, errors = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(errors[-3000:])
    return {**json.loads(out.splitlines()[-1]), "memory_mb": largest}


def once(side: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    out = Path(tempfile.mkdtemp(dir=folder.parent))
    script = Path(__file__).with_name("rivals_scportrait.py") if side == "scPortrait" else Path(__file__)
    command = [options.scportrait if side == "scPortrait" else sys.executable, "-W", "ignore", str(script)]
    command += ["--folder", str(folder), "--out", str(out), "--fovs", str(options.fovs)]
    command += ["--workers", str(options.workers)]
    if side != "scPortrait":
        command += ["--side", side, "--old-cells", str(options.old_cells)]
    try:
        found = watched(command)
        files = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
        found |= {"files_per_cell": len(files) / found["cells"], "kb_per_cell": sum(files) / found["cells"] / 1e3}
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return found


def median_ratio(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], name: str) -> float:
    """How many times less of something a cell takes here; the median of the rounds."""
    return statistics.median((a[name] / a["cells"]) / (b[name] / b["cells"]) for a, b in zip(theirs, ours, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fovs", type=int, default=24)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--old-cells", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--scportrait", metavar="PYTHON", help="of an environment with scportrait")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    for name in ("folder", "out"):
        parser.add_argument(f"--{name}", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    from build import write_fovs

    rounds = 1 if options.quick else options.rounds
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    if options.scportrait:
        runs["scPortrait"] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "fovs"
        write_fovs(folder, "2d", options.fovs)
        for _ in range(rounds):
            for side, found in runs.items():
                found.append(once(side, options, folder))
    if options.scportrait:
        runs["scPortrait, extraction alone"] = [{**run, **run["extraction"]} for run in runs["scPortrait"]]
    results = {"workers": options.workers, "fovs": options.fovs, "rounds": rounds, "ways": {}}
    print(f"{options.workers} workers, {options.fovs} FOVs")
    print(
        f"{'way':<30} {'cells/s':>9} {'cellcube is':>12} {'CPU ms/cell':>12} {'cellcube is':>12} {'peak MB':>8} "
        f"{'files/cell':>11} {'kB/cell':>8}"
    )
    for side, found in runs.items():
        row = {
            "cells_per_s": statistics.median(run["cells"] / run["seconds"] for run in found),
            "cpu_ms_per_cell": statistics.median(run["cpu_s"] / run["cells"] * 1e3 for run in found),
            **{
                name: statistics.median(run[name] for run in found)
                for name in ("memory_mb", "files_per_cell", "kb_per_cell")
            },
            "cellcube_is": median_ratio(found, runs["cellcube"], "seconds"),
            "cellcube_is_by_cpu": median_ratio(found, runs["cellcube"], "cpu_s"),
        }
        results["ways"][side] = row
        print(
            f"{side:<30} {row['cells_per_s']:>9.1f} {row['cellcube_is']:>10.2f} x {row['cpu_ms_per_cell']:>12.2f} "
            f"{row['cellcube_is_by_cpu']:>10.2f} x {row['memory_mb']:>8.0f} "
            f"{row['files_per_cell']:>11.2f} {row['kb_per_cell']:>8.0f}"
        )
    target = Path(__file__).parent / "results" / "rivals.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
