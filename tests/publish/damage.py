"""Datasets to be damaged, and ways to damage them."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pandas as pd

import cellcube
from cellcube.demo.plates import DemoPlate

FIELDS: dict[str, Any] = {
    "executor": 1,
    "progress": False,
    "shape": (1, 32, 32),
    "projections": ["max_z"],
    "representations": {"raw": {"normalize": "none"}},
    "normalize": {"method": "minmax", "scope": "dataset"},
    "storage": {"shard_mb": 0.05},
}
FIRST = 8

# One object of each kind, and whether the quick level sees what has the same size.
KINDS = {
    "cube.zarr/cells/c/1/0/0/0/0": False,
    "cube.zarr/raw/raw/c/0/0/0/0/0": False,
    "cube.zarr/max_z/max_z/c/2/0/0/0": False,
    "cube.zarr/labels/mask/mask/c/1/0/0/0": False,
    "cube.zarr/cell_id/c/0": False,
    "cube.zarr/labels/mask/cell_id/c/0": False,
    "cube.zarr/norm_low/c/0/0": False,
    "cube.zarr/raw/clipped/c/0/0": False,
    "cube.zarr/treatment/c/0": False,
    "cube.zarr/max_z/c/c/0": False,
    "cube.zarr/zarr.json": True,
    "cube.zarr/cells/zarr.json": True,
    "cube.zarr/labels/zarr.json": True,
    "runs/000001.json": True,
    "runs/000001.cells.parquet": True,
    "runs/000002.outcomes.parquet": True,
    "runs/000002.table.parquet": True,
    "runs/000001.objects.parquet": True,
    "cells.parquet": True,
    "outcomes.parquet": True,
    "fovs.parquet": True,
    "README.md": True,
    "catalog.yaml": True,
    "objects.parquet": True,
}


def table_of(plate: DemoPlate, folder: Path | None = None) -> pd.DataFrame:
    """The cells of the good FOVs, with the paths of the plate, or of a folder that its images are copied to."""
    table = pd.read_csv(plate.cells_csv)
    table = table[table["fov_id"] != plate.broken_fov].reset_index(drop=True)
    for column in ("fov_path", "label_path"):
        table[column] = [str((folder or plate.folder) / path) for path in table[column]]
    return table


def build_two(table: pd.DataFrame, root: str | Path, **fields: Any) -> None:
    """A dataset of two versions, whose second begins within a shard."""
    cellcube.build(table.iloc[:FIRST], root, **{**FIELDS, **fields})
    cellcube.build(table, root, **{**FIELDS, **fields})


def tree(root: Path) -> dict[str, bytes]:
    """All files by path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def restore(root: Path, files: dict[str, bytes]) -> None:
    """Make a folder hold these files and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def flipped(data: bytes, seed: int = 0) -> bytes:
    """The bytes with one bit changed."""
    chosen = random.Random(seed)
    changed = bytearray(data)
    changed[chosen.randrange(len(changed))] ^= 1 << chosen.randrange(8)
    return bytes(changed)


def damage(file: Path, how: str, seed: int = 0) -> None:
    """Flip a bit of a file, cut it in two, or delete it."""
    if how == "missing":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(flipped(data, seed) if how == "changed" else data[: len(data) // 2])


def chunk_place(data: bytes, shard_cells: int, cell: int) -> tuple[int, int]:
    """Offset and size of the chunk of a cell in a shard of one chunk a cell."""
    index = data[-4 - 16 * shard_cells : -4]
    offset, size = struct.unpack_from("<QQ", index, 16 * cell)
    return offset, size
