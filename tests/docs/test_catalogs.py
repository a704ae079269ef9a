"""The catalogs that ship with the project open, and give what `cellcube.open` gives."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest

import cellcube

CATALOGS = Path(__file__).parents[2] / "catalogs"
DATASETS = sorted(path.parent for path in CATALOGS.glob("*/catalog.yaml"))


def test_the_catalog_lists_every_dataset() -> None:
    catalog = intake.open_catalog(str(CATALOGS / "catalog.yaml"))
    assert list(catalog) == [path.name for path in DATASETS]
    for name in catalog:
        assert "normalized_cells" in list(catalog[name])


def _entries() -> list[tuple[Path, str]]:
    return [(path, name) for path in DATASETS for name in intake.open_catalog(str(path / "catalog.yaml"))]


@pytest.mark.parametrize(("path", "name"), _entries(), ids=lambda value: getattr(value, "name", value))
def test_every_entry_gives_what_the_dataset_has(path: Path, name: str) -> None:
    catalog: Any = intake.open_catalog(str(CATALOGS / "catalog.yaml"))[path.name]
    about = catalog._entries[name].describe()
    assert about["description"]
    dataset = cellcube.open(path)
    if name == "versions":
        assert len(catalog[name]["v1"]["cells"].read()) == dataset.sizes["cell"]
        return
    if name == "fovs":
        assert catalog[name].read()["kept"].sum() == dataset.sizes["cell"]
        return
    if name in ("cells", "outcomes"):
        table = catalog[name].read()
        kept = table if name == "cells" else table[table["status"] == "kept"]
        assert kept["cell_id"].tolist() == dataset["cell_id"].values.tolist()
        return
    variable = about["metadata"]["variable"]
    found = catalog[name].to_dask()
    assert found["cell_id"].values.tolist() == dataset["cell_id"].values.tolist()
    assert found[variable].dims == tuple(about["metadata"]["dims"])
    one = found[variable].isel(cell=-1).values
    assert one.any()
    np.testing.assert_array_equal(one, dataset[variable].isel(cell=-1).values)


@pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.name)
def test_a_dataset_that_ships_is_small_free_and_tied_to_no_machine(path: Path, tmp_path: Path) -> None:
    files = [file for file in path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 150_000
    assert cellcube.open(path).attrs["cellcube"]["licence"] == "CC0-1.0"
    for file in files:
        assert not any(word in file.read_bytes() for word in (b"/home/", b"/Users/", b"/tmp/", b"file://")), file

    # It works wherever it is.
    shutil.copytree(path, tmp_path / "elsewhere")
    moved = intake.open_catalog(str(tmp_path / "elsewhere" / "catalog.yaml"))
    assert moved["normalized_cells"].to_dask()["cells"].isel(cell=0).compute().shape == (2, 1, 32, 32)


def test_the_script_makes_the_same_cells_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(CATALOGS / "build_demo.py"), str(tmp_path / "again")], check=True, timeout=120)
    again, shipped = cellcube.open(tmp_path / "again"), cellcube.open(CATALOGS / "demo")
    assert again["cell_id"].values.tolist() == shipped["cell_id"].values.tolist()
    assert again.attrs["cellcube"]["spec_digest"] == shipped.attrs["cellcube"]["spec_digest"]
    # Painted with floating point, which may round otherwise on another machine.
    np.testing.assert_allclose(again["cells"].astype("float32"), shipped["cells"].astype("float32"), atol=0.02)
