"""Small datasets to export, and what an export must leave alone."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cellcube
from cellcube.demo.plates import DemoPlate

# The second half of what a file system, a URL or a tar reader may stumble over.
UNSAFE = ["a/b", "..", "ü", "CON", "B02.s1.0009"]
FLAT = {"channels": ["DNA", "ER"], "shape": (1, 32, 40), "licence": "CC-BY-4.0", "keywords": ["Cell Painting"]}
VOLUME = {"shape": (8, 24, 32), "normalize": "minmax", "dtype": "uint16"}


def _absolute(plate: DemoPlate, table: Path) -> pd.DataFrame:
    frame = pd.read_csv(table)
    for name in ("fov_path", "label_path"):
        frame[name] = [str(plate.folder / path) for path in frame[name]]
    return frame


@pytest.fixture(scope="session")
def flat(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 2D cells in shards of 4, split in two, some with identifiers that are no file names; float16."""
    frame = _absolute(plate, plate.cells_csv)
    frame = frame[frame["fov_id"] != plate.broken_fov].reset_index(drop=True)
    frame["cell_id"] = [*UNSAFE, *frame["cell_id"][len(UNSAFE) :]]
    frame["file"] = "from the table"
    root = tmp_path_factory.mktemp("datasets") / "flat"
    split = {"by": "cell_id", "fractions": {"train": 0.6, "hold out": 0.4}, "seed": 1}
    report = cellcube.build(
        frame, root, **FLAT, split=split, storage={"shard_mb": 0.02}, projections=["max_y"], progress=False
    )
    assert report.kept == len(frame) == 15
    return root


@pytest.fixture(scope="session")
def volume(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 3D cells in shards of 2, four of them in version 1; uint16."""
    frame = _absolute(plate, plate.cells_3d_csv)
    root = tmp_path_factory.mktemp("datasets") / "volume"
    storage = {"shard_mb": 0.07}
    cellcube.build(frame.head(4), root, **VOLUME, storage=storage, progress=False)
    assert cellcube.build(frame, root, **VOLUME, storage=storage, progress=False).version == 2
    return root


@pytest.fixture
def unchanged() -> Iterator[Callable[[Path], None]]:
    """Give it a folder: at the end of the test, everything in it must be as it was."""
    known: dict[Path, dict[str, str]] = {}

    def state(root: Path) -> dict[str, str]:
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {str(p): f"{p.stat().st_mtime_ns} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in files}

    def watch(root: Path) -> None:
        known[root] = state(root)

    yield watch
    for root, before in known.items():
        assert state(root) == before


@pytest.fixture
def bucket(s3: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Storage options of the S3 server, whose connections are closed behind the test."""
    import fsspec

    # s3fs leaves its connections to the garbage collector, which then warns of each.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield s3
        with contextlib.suppress(KeyError):
            fsspec.filesystem("s3").clear_instance_cache()
        gc.collect()
