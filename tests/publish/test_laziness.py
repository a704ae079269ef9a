"""What is asked of a server when a published dataset is opened, and when one cell of it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest
from counting import Counted, proxy, serve_folder

import cellcube
from cellcube.location import Location
from cellcube.testing.large import write_large_dataset

MOST_REQUESTS = 8
REST = 64 * 1024
CELLS = 40_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large") / "ds"
    write_large_dataset(Location.of(root), CELLS)
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small") / "ds"
    write_large_dataset(Location.of(root), 1, shard_mb=8.0)
    return root


def shard_bytes(dataset: Any) -> tuple[int, int]:
    """Bytes of a shard's index, and of one cell uncompressed."""
    _, c, z, y, x = dataset["cells"].shape
    return dataset["cells"].data.chunks[0][0] * 16 + 4, c * z * y * x * 2


def read_one(catalog: Any, cell: int) -> Any:
    dataset = catalog["normalized_cells"].to_dask()
    return dataset, dataset["cells"].isel(cell=cell).compute()


def check(counted: Counted, dataset: Any) -> None:
    index, pixels = shard_bytes(dataset)
    assert len(counted.requests) <= MOST_REQUESTS, str(counted)
    assert counted.bytes <= index + pixels + REST, str(counted)


def test_one_cell_over_http(large: Path) -> None:
    with serve_folder(large.parent) as counted:
        catalog = intake.open_catalog(f"{counted.url}/ds/catalog.yaml")
        dataset, cell = read_one(catalog, 31_234)
        assert np.unique(cell.values) == 31_234 % dataset["cells"].data.chunks[0][0]
        check(counted, dataset)


def test_one_cell_from_s3(large: Path, s3: dict[str, Any]) -> None:
    root = f"s3://bucket/{large.parent.name}/ds"
    for name, _ in Location.of(large).sizes().items():
        (Location.of(large) / name).copy_to(Location.of(f"{root}/{name}", s3))
    with proxy(str(s3["endpoint_url"])) as counted:
        options = {**s3, "endpoint_url": counted.url}
        catalog = intake.open_catalog(f"{root}/catalog.yaml", storage_options=options)
        dataset, cell = read_one(catalog, 31_234)
        assert np.unique(cell.values) == 31_234 % dataset["cells"].data.chunks[0][0]
        check(counted, dataset)


def test_opening_does_not_grow_with_the_cells(large: Path, small: Path) -> None:
    asked = {}
    for root in (large, small):
        with serve_folder(root.parent) as counted:
            dataset = cellcube.open(f"{counted.url}/ds")
            asked[root] = (len(counted.requests), counted.bytes)
            cells = dataset["cells"].data.chunks[0]
            assert dataset.sizes["cell"] == sum(cells)
            assert (len(cells) > 1) == (root == large)
    assert asked[large][0] == asked[small][0]
    assert asked[large][1] < asked[small][1] + 2_000


def test_a_cell_is_found_by_its_identifier(large: Path) -> None:
    with serve_folder(large.parent) as counted:
        dataset = cellcube.open(f"{counted.url}/ds")
        counted.clear()
        cell = dataset.sel(cell_id="cell-00031234")
        assert all("/cell_id/" in path for _, path, _ in counted.requests)
        assert np.unique(cell["cells"].values) == 31_234 % dataset["cells"].data.chunks[0][0]
        part = dataset.isel(cell=slice(100, 200))
        assert part.sel(cell_id="cell-00000150")["well"].item() == "well-150"
        with pytest.raises(KeyError):
            part.sel(cell_id="cell-00000250")
