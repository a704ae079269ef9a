"""Datasets with two versions, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from damage import build_two, restore, table_of, tree
from published import COMMON, FIRST

import cellcube
from cellcube.demo.plates import DemoPlate


@pytest.fixture(scope="session")
def table(plate: DemoPlate) -> pd.DataFrame:
    """The cell table with absolute paths."""
    frame = pd.read_csv(plate.cells_csv, dtype={"cell_id": str})
    for column in ("fov_path", "label_path"):
        frame[column] = str(plate.folder) + "/" + frame[column]
    return frame


@pytest.fixture(scope="session")
def two_versions(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published") / "nuclei"
    cellcube.build(table.iloc[:FIRST], root, **COMMON)
    cellcube.build(table, root, **COMMON)
    return root


@pytest.fixture(scope="session")
def one_version(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published") / "first"
    cellcube.build(table.iloc[:FIRST], root, **COMMON)
    return root


@pytest.fixture
def dataset(two_versions: Path, tmp_path: Path) -> Path:
    """A dataset of two versions that a test may change."""
    return Path(shutil.copytree(two_versions, tmp_path / "nuclei"))


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    """The bytes of all objects below a folder that are part of a dataset."""

    def read(root: Path) -> dict[str, bytes]:
        found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        return {path: data for path, data in found.items() if not path.startswith(".cellcube")}

    return read


@pytest.fixture(scope="session")
def good_cells(plate: DemoPlate) -> pd.DataFrame:
    """The cells of the good FOVs."""
    return table_of(plate)


@pytest.fixture(scope="session")
def undamaged(good_cells: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files, by path, of a dataset that is to be damaged."""
    root = tmp_path_factory.mktemp("undamaged") / "ds"
    build_two(good_cells, root)
    return tree(root)


@pytest.fixture
def root(undamaged: dict[str, bytes], tmp_path: Path) -> Path:
    """A dataset that a test may damage."""
    restore(tmp_path / "ds", undamaged)
    return tmp_path / "ds"
