"""Writing the same shards by cellcube's streaming writer, by zarr-python, and by zarr-python on the zarrs pipeline.

    python benchmarks/shard_writers.py [--rounds 5]

One process, one thread each, alternating; medians. Memory is what a writer holds beyond the cells it is given, by the
size of the buffers it needs: one shard uncompressed, or one shard compressed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellcube.cube import Layout, PieceWriter
from cellcube.spec import CubeSpec

BATCHED = "zarr.core.codec_pipeline.BatchedCodecPipeline"


def cells(count: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    blurred = rng.random((count, shape[0], 1, shape[2] // 8, shape[3] // 8)).repeat(8, 3).repeat(8, 4)
    pixels = blurred + rng.normal(0, 0.02, (count, *shape))
    return np.clip(pixels, 0, 1).astype(np.float16)


def by_cellcube(folder: Path, pixels: np.ndarray, layout: Layout) -> int:
    array = layout.arrays()["cells"]
    writer = PieceWriter(array, layout.shard_cells)
    written = 0
    for cell in pixels:
        piece = writer.add(cell)
        if piece is not None:
            (folder / str(written)).write_bytes(piece)
            written += len(piece)
    return written


def by_zarr(folder: Path, pixels: np.ndarray, layout: Layout, pipeline: str) -> int:
    codecs: Any = [
        zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2),
        zarr.codecs.Crc32cCodec(),
    ]
    array = layout.arrays()["cells"]
    with zarr.config.set({"codec_pipeline.path": pipeline, "threading.max_workers": 1, "async.concurrency": 1}):
        store = zarr.create_array(
            str(folder / "cells.zarr"),
            shape=pixels.shape,
            chunks=(1, *array.chunk),
            shards=(layout.shard_cells, *array.item),
            dtype=pixels.dtype,
            compressors=codecs,
        )
        buffer = np.zeros((layout.shard_cells, *array.item), pixels.dtype)
        for start in range(0, len(pixels), layout.shard_cells):
            for number, cell in enumerate(pixels[start : start + layout.shard_cells]):
                buffer[number] = cell
            store[start : start + layout.shard_cells] = buffer
    return sum(path.stat().st_size for path in (folder / "cells.zarr").rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    print(f"{'cells':<22} {'writer':<12} {'MB/s':>7} {'written MB':>11} {'buffer MB':>10}")
    for count, shape in ((1024, (5, 1, 96, 96)), (16, (4, 40, 160, 160))):
        spec = CubeSpec(shape=shape[1:], storage={"shard_mb": 32})
        layout = Layout.of(spec, tuple(f"c{index}" for index in range(shape[0])), {"cells": "float16"}, False, {})
        pixels = cells(count // layout.shard_cells * layout.shard_cells, shape)
        writers = {
            "cellcube": lambda folder, pixels=pixels, layout=layout: by_cellcube(folder, pixels, layout),
            "zarrs": lambda folder, pixels=pixels, layout=layout: by_zarr(
                folder, pixels, layout, "zarrs.ZarrsCodecPipeline"
            ),
            "zarr-python": lambda folder, pixels=pixels, layout=layout: by_zarr(folder, pixels, layout, BATCHED),
        }
        seconds: dict[str, list[float]] = {name: [] for name in writers}
        sizes = {}
        for _ in range(rounds):
            for name, write in writers.items():
                with tempfile.TemporaryDirectory() as folder:
                    start = time.perf_counter()
                    sizes[name] = write(Path(folder))
                    seconds[name].append(time.perf_counter() - start)
        shards = len(pixels) / layout.shard_cells
        for name, found in seconds.items():
            buffer = sizes[name] / shards if name == "cellcube" else (pixels.nbytes + sizes[name]) / shards
            speed = pixels.nbytes / 1e6 / statistics.median(found)
            shape_text = "x".join(map(str, pixels.shape))
            print(f"{shape_text:<22} {name:<12} {speed:>7.0f} {sizes[name] / 1e6:>11.1f} {buffer / 1e6:>10.1f}")


if __name__ == "__main__":
    main()
