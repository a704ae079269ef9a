"""What chunks, shards and codecs cost and give, on cells cut from real images.

    python benchmarks/chunks.py [--data FOLDER] [--rounds 5] [--quick] [--markdown docs/performance.md]

FOLDER holds the test images (or the environment variable CELLCUBE_TEST_DATA names it): Cell Painting nuclei in five
channels, 96 x 96, and a volume of nuclei, cut to 40 x 160 x 160 at many places and mirrored into four channels. Without
them the cells are those of the demo plate. `cellcube.build` cuts and normalizes them to float16; where they are few,
they are taken several times.

One thread, by time of the processor, medians of the rounds in which all take turns. Shards are files in the page cache,
written as cellcube writes them and read by one `pread` a chunk. Megabytes are 10^6 bytes before compression. Writes
benchmarks/results/chunks.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import tifffile
from run_all import put_between

import cellcube
from cellcube.cube.layout import ArrayLayout
from cellcube.cube.shards import PieceWriter

PAINTING = {"DNA": 5, "ER": 2, "RNA": 6, "AGP": 3, "Mito": 4}
CODECS = {
    "blosc lz4, bits": ("lz4", 1, "bitshuffle"),
    "blosc lz4": ("lz4", 1, "noshuffle"),
    "blosc zstd-1, bits": ("zstd", 1, "bitshuffle"),
    "blosc zstd-1, bytes": ("zstd", 1, "shuffle"),
    "blosc zstd-1": ("zstd", 1, "noshuffle"),
    "blosc zstd-3, bits": ("zstd", 3, "bitshuffle"),
    "blosc zstd-3": ("zstd", 3, "noshuffle"),
    "blosc zstd-5, bits": ("zstd", 5, "bitshuffle"),
    "blosc zstd-5": ("zstd", 5, "noshuffle"),
    "zstd-1, no blosc": ("plain", 1, ""),
}
SHARDS_MB = (16, 64, 128, 256)


def painted_cells(data: Path | None, folder: Path) -> np.ndarray:
    """Real 2D cells (cell, c, z, y, x)."""
    common: dict[str, Any] = {"shape": (1, 96, 96), "projections": [], "progress": False}
    if data is None:
        from cellcube.demo.plates import write_plate

        plate = write_plate(folder / "plate", sites=2, size=800, volumes=0, broken=False)
        cellcube.build(plate.cells_csv, folder / "2d", edge="drop", **common)
    else:
        source = data / "pediatric_cellpainting"
        row = {f"path_{name}": source / f"images/r03c03f03p01-ch{k}sk1fk1fl1.tiff" for name, k in PAINTING.items()}
        table = pd.DataFrame([{**row, "label_path": source / "labels/r03c03f03_nuclei.tif"}]).astype(str)
        channels = {name: f"path_{name}" for name in PAINTING}
        cellcube.build(table, folder / "2d", channels=channels, edge="shift", **common)
    return np.asarray(cellcube.open(folder / "2d")["cells"].values)


def volume_cells(data: Path | None, folder: Path) -> np.ndarray:
    """Real 3D cells (cell, c, z, y, x), of one volume that is mirrored into four channels."""
    if data is None:
        from cellcube.demo.plates import write_plate

        plate = write_plate(folder / "volumes", sites=1, size=200, volumes=1, broken=False)
        rows = pd.read_csv(plate.cells_3d_csv)
        volume = tifffile.imread(plate.folder / str(rows["fov_path"][0]))[0]
    else:
        volume = tifffile.imread(data / "nuclei3d_cells3d" / "nuclei.tif")
    tile = [max(1, math.ceil(size / have)) for size, have in zip((40, 224, 224), volume.shape, strict=True)]
    volume = np.tile(volume, tile)
    row = {}
    for number, mirrored in enumerate((np.s_[:], np.s_[::-1], np.s_[:, ::-1], np.s_[:, :, ::-1])):
        row[f"path_{number}"] = str(folder / f"volume{number}.tif")
        tifffile.imwrite(row[f"path_{number}"], volume[mirrored], metadata={"axes": "ZYX"})
    room = [size - need for size, need in zip(volume.shape, (40, 160, 160), strict=True)]
    table = pd.DataFrame(
        [
            {**row, "cell_id": f"{z}-{y}-{x}", "center_z": z + 20, "center_y": y + 80, "center_x": x + 80}
            for z in (0, room[0])
            for y in np.linspace(0, room[1], 3).astype(int)
            for x in np.linspace(0, room[2], 3).astype(int)
        ]
    )
    channels = {f"c{number}": f"path_{number}" for number in range(4)}
    common: dict[str, Any] = {"shape": (40, 160, 160), "projections": [], "edge": "shift", "progress": False}
    cellcube.build(table, folder / "3d", channels=channels, executor=1, **common)
    return np.asarray(cellcube.open(folder / "3d")["cells"].values)


def medians(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of the processor that each way takes; they take turns, and the first turn does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            start = time.process_time()
            work()
            if number:
                found[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in found.items()}


def encode(chunk: np.ndarray, codec: tuple[str, int, str]) -> bytes:
    name, level, shuffle = codec
    if name == "plain":
        return bytes(imagecodecs.zstd_encode(chunk.tobytes(), level=level))
    return bytes(
        imagecodecs.blosc_encode(
            chunk, compressor=name, level=level, shuffle=shuffle, typesize=chunk.itemsize, numthreads=1
        )
    )


def decode(data: bytes, codec: tuple[str, int, str], target: memoryview) -> None:
    if codec[0] == "plain":
        imagecodecs.zstd_decode(data, out=target)
    else:
        imagecodecs.blosc_decode(data, out=target, numthreads=1)


def codec_rows(cells: np.ndarray, per_channel: bool, rounds: int) -> list[dict[str, Any]]:
    """Codecs, on the chunks that cells of this size have by default."""
    chunks = [np.ascontiguousarray(part) for cell in cells for part in (cell if per_channel else cell[None])]
    packed = {name: [encode(chunk, codec) for chunk in chunks] for name, codec in CODECS.items()}
    room = np.empty(chunks[0].nbytes, np.uint8).data
    encoding = medians({n: lambda c=c: [encode(chunk, c) for chunk in chunks] for n, c in CODECS.items()}, rounds)
    decoding = medians(
        {n: lambda n=n, c=c: [decode(data, c, room) for data in packed[n]] for n, c in CODECS.items()}, rounds
    )
    megabytes = sum(chunk.nbytes for chunk in chunks) / 1e6
    return [
        {
            "codec": name,
            "encode_mb_s": megabytes / encoding[name],
            "decode_mb_s": megabytes / decoding[name],
            "of_size": sum(map(len, packed[name])) / 1e6 / megabytes,
        }
        for name in CODECS
    ]


class ShardFile:
    """Cells of one array in shards, as files, and the plainest way to read them."""

    def __init__(self, folder: Path, cells: np.ndarray, array: ArrayLayout) -> None:
        self.array, self.count = array, len(cells)
        self._files: list[int] = []
        self._cells = cells
        shards = list(self.shards())
        self.bytes = sum(map(len, shards))
        for number, shard in enumerate(shards):
            path = folder / f"{number}"
            path.write_bytes(shard)
            self._files.append(os.open(path, os.O_RDONLY))
        self._slots = array.shard_cells // array.chunk_cells * array.chunks_per_row
        self._indexes = [self.index(number) for number in range(len(self._files))]
        self._room = np.empty((array.chunk_cells, *array.chunk), array.dtype)

    def shards(self) -> Iterator[memoryview]:
        """The cells as shards."""
        writer = PieceWriter(self.array, self.array.shard_cells)
        for cell in self._cells:
            if (piece := writer.add(cell)) is not None:
                yield piece
        if (last := writer.finish()) is not None:
            yield last

    def encode(self) -> None:
        """Make the shards, and forget them."""
        for _ in self.shards():
            pass

    def index(self, number: int) -> np.ndarray:
        """Offsets and sizes of the chunks of a shard, read from its file."""
        size = self._slots * 16
        file = self._files[number]
        data = os.pread(file, size, os.fstat(file).st_size - size - 4)
        return np.frombuffer(data, "<u8").reshape(-1, self.array.chunks_per_row, 2).astype(int)

    def chunk(self, shard: int, row: int, part: int) -> None:
        """Read and decode one chunk."""
        offset, length = self._indexes[shard][row, part]
        data = os.pread(self._files[shard], length, offset)
        imagecodecs.blosc_decode(data[:-4], out=self._room.reshape(-1).view(np.uint8).data, numthreads=1)

    def cell(self, position: int, parts: int | None = None) -> None:
        """A cell, or its first `parts` channels; a chunk of all channels is read whole."""
        shard, within = divmod(position, self.array.shard_cells)
        for part in range(min(parts or math.inf, self.array.chunks_per_row)):
            self.chunk(shard, within // self.array.chunk_cells, part)

    def cells(self, positions: np.ndarray, parts: int | None = None) -> None:
        """Several cells, one after the other."""
        for position in positions:
            self.cell(int(position), parts)

    def scan(self) -> None:
        """Read and decode all cells in order."""
        for position in range(0, self.count, self.array.chunk_cells):
            self.cell(position)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)


def array_of(cells: np.ndarray, chunk_cells: int, channel: bool, shard_mb: float) -> ArrayLayout:
    item = cells.shape[1:]
    chunk = (1, *item[1:]) if channel else item
    per_shard = max(1, round(shard_mb * 1e6 / (cells[0].nbytes * chunk_cells))) * chunk_cells
    return ArrayLayout(
        "cells", "cells", ("cell", "c", "z", "y", "x"), item, chunk, "float16", chunk_cells, per_shard, "blosc-zstd"
    )


def layout_rows(cells: np.ndarray, case: str, rounds: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Chunks at shards of 64 MB, and shards at the default chunk."""
    chunkings = {
        "one channel of a cell": (1, True, 64.0),
        "one cell": (1, False, 64.0),
        "4 cells": (4, False, 64.0),
        "16 cells": (16, False, 64.0),
    }
    if case == "3d":
        del chunkings["16 cells"]
    channel = case == "3d"
    sizes = {f"{size} MB": (1, channel, float(size)) for size in SHARDS_MB}
    found = {}
    for title, ways in (("chunk", chunkings), ("shard", sizes)):
        files = {}
        for number, (name, (chunk_cells, per_channel, shard_mb)) in enumerate(ways.items()):
            place = folder / f"{case}-{title}-{number}"
            place.mkdir()
            files[name] = ShardFile(place, cells, array_of(cells, chunk_cells, per_channel, shard_mb))
        some = np.random.default_rng(0).integers(0, len(cells), min(200, 2 * len(cells)))
        random = medians({n: lambda f=f, at=some: f.cells(at) for n, f in files.items()}, rounds)
        one = medians({n: lambda f=f, at=some: f.cells(at, 1) for n, f in files.items()}, rounds)
        scan = medians({n: f.scan for n, f in files.items()}, rounds)
        making = medians({n: f.encode for n, f in files.items()}, 1)
        index = medians({n: lambda f=f: [f.index(0) for _ in range(100)] for n, f in files.items()}, rounds)
        found[title] = [
            {
                title: name,
                "encode_mb_s": cells.nbytes / 1e6 / making[name],
                "scan_mb_s": cells.nbytes / 1e6 / scan[name],
                "of_size": file.bytes / cells.nbytes,
                "cell_us": random[name] / len(some) * 1e6,
                "channel_us": one[name] / len(some) * 1e6,
                "index_us": index[name] * 1e4,
                "index_kb": file.array.shard_cells // file.array.chunk_cells * file.array.chunks_per_row * 16 / 1e3,
                "shard_cells": file.array.shard_cells,
                "objects_per_100k": math.ceil(100_000 / file.array.shard_cells),
                "stored_mb": file.array.shard_cells * file.array.cell_bytes * file.bytes / cells.nbytes / 1e6,
            }
            for name, file in files.items()
        ]
        for file in files.values():
            file.close()
    return found


TITLES = {
    "codec": "codec", "chunk": "chunk", "shard": "shard", "encode_mb_s": "encode, MB/s", "decode_mb_s": "decode, MB/s",
    "scan_mb_s": "all cells in order, MB/s", "of_size": "stored, of size", "cell_us": "random cell, µs",
    "channel_us": "one channel of it, µs", "index_us": "its shard's index, µs", "index_kb": "index, kB",
    "shard_cells": "cells a shard", "objects_per_100k": "objects for 100,000 cells", "stored_mb": "object, MB",
}  # fmt: skip
SHOWN = {
    "codec": ("codec", "encode_mb_s", "decode_mb_s", "of_size"),
    "chunk": ("chunk", "encode_mb_s", "scan_mb_s", "of_size", "cell_us", "channel_us", "index_kb"),
    "shard": ("shard", "shard_cells", "objects_per_100k", "stored_mb", "index_kb", "index_us", "cell_us", "scan_mb_s"),
}


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def table(rows: list[dict[str, Any]], kind: str) -> str:
    """Rows as a Markdown table."""
    names = SHOWN[kind]
    lines = ["| " + " | ".join(TITLES[name] for name in names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(as_text(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CELLCUBE_TEST_DATA"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    data = Path(options.data) if options.data else None
    rounds = 1 if options.quick else options.rounds
    results: dict[str, Any] = {"rounds": rounds, "real": data is not None}
    told = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case, cells in (("2d", painted_cells(data, folder)), ("3d", volume_cells(data, folder))):
            size = "x".join(map(str, cells.shape[1:]))
            print(f"\n{case}: {len(cells)} cells of {size}\n")
            found = {"codec": codec_rows(cells[: 400 if case == "2d" else 6], case == "3d", rounds)}
            # As many as fill the largest shard.
            many = np.resize(cells, (math.ceil(256e6 / cells[0].nbytes), *cells.shape[1:]))
            found |= layout_rows(many, case, rounds, folder)
            results[case] = found
            told.append(f"Cells of {' x '.join(map(str, cells.shape[1:]))} (c, z, y, x):")
            told += [table(rows, kind) for kind, rows in found.items()]
            print("\n\n".join(told[-3:]), flush=True)
    target = Path(__file__).parent / "results" / "chunks.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown:
        page = options.markdown.read_text("utf-8")
        options.markdown.write_text(put_between(page, "\n\n".join(["", *told, ""]), "chunks"), "utf-8")


if __name__ == "__main__":
    main()
