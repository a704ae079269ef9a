"""The PyTorch loader; runs where PyTorch is installed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cellcube
from cellcube import errors
from cellcube.training import Batch, batches
from cellcube.training import torch as for_torch


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # What PyTorch says of itself is not ours.
        warnings.filterwarnings("ignore", module="torch")
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def positions(loader: Any) -> list[list[int]]:
    return [batch["positions"].tolist() for batch in loader]


def joined(lists: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def mean_of_each(batch: Batch) -> dict[str, np.ndarray]:
    return {"mean": batch.pixels.astype("float32").mean(axis=(1, 2, 3, 4))}


def test_without_torch_the_error_names_the_extra(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(for_torch, "torch", None)
    with pytest.raises(errors.MissingDependencyError, match=r"cellcube\[torch\]"):
        for_torch.data_loader(flat, 16)


def test_torch_is_not_imported_by_batches() -> None:
    import subprocess

    code = "import sys, cellcube.training; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("buffer", [0, 24])
def test_workers_give_every_cell_once_and_places_can_be_saved(
    torch: Any, flat: Path, workers: int, buffer: int
) -> None:
    options: dict[str, Any] = {"columns": ["number", "fov_id"], "buffer": buffer, "num_workers": workers}
    loader = for_torch.data_loader(flat, 16, **options)
    assert len(loader) == 6
    epochs = [positions(loader) for _ in range(2)]
    for each in epochs:
        assert sorted(joined(each)) == list(range(90))
    if not buffer:
        plain = batches(flat, 16)
        assert epochs == [[batch.positions.tolist() for batch in plain] for _ in range(2)]
    assert epochs[0] != epochs[1]
    iterator = iter(loader)
    third = [next(iterator)["positions"].tolist() for _ in range(2)]
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (2, 2)
    third += positions(iterator)
    assert sorted(joined(third)) == list(range(90))
    # The same loader, and one that is new.
    for other in (loader, for_torch.data_loader(flat, 16, **options)):
        other.load_state_dict(state)
        assert positions(other) == third[2:]
    loader.set_epoch(1)
    assert positions(loader) == epochs[1]


def test_tensors_hold_what_batches_hold(torch: Any, flat: Path) -> None:
    columns = ["number", "fov_id", "touches_border"]
    [plain] = batches(flat, 90, columns=columns)
    [found] = for_torch.data_loader(flat, 90, columns=columns)
    assert found["pixels"].dtype == torch.float16
    assert tuple(found["pixels"].shape) == (90, 2, 1, 32, 40)
    np.testing.assert_array_equal(found["pixels"].numpy(), plain.pixels)
    np.testing.assert_array_equal(found["number"].numpy(), plain.columns["number"])
    assert found["touches_border"].dtype == torch.bool
    assert found["fov_id"] == plain.columns["fov_id"].tolist()
    assert found["cell_ids"] == plain.cell_ids.tolist()
    assert set(found) == {"pixels", "positions", "cell_ids", *columns}


def test_a_column_may_not_have_the_name_of_a_field(torch: Any) -> None:
    batch = Batch(np.zeros((1, 1, 1, 2, 2)), {"pixels": np.zeros(1)}, np.array(["a"], object), np.zeros(1, np.int64))
    with pytest.raises(errors.ArgumentError, match="name of a field"):
        for_torch.to_tensors(batch)


def test_unsigned_integers_are_tensors(torch: Any, volume: Path) -> None:
    [found] = for_torch.data_loader(volume, 10)
    assert found["pixels"].dtype == torch.uint16
    np.testing.assert_array_equal(
        found["pixels"].numpy(), cellcube.open(volume).sel(cell_id=found["cell_ids"])["cells"]
    )


def test_a_transform_runs_in_workers(torch: Any, flat: Path) -> None:
    loader = for_torch.data_loader(flat, 16, num_workers=2, transform=mean_of_each, persistent_workers=False)
    for _ in range(2):
        found = torch.cat([batch["mean"] for batch in loader])
        expected = cellcube.open(flat)["cells"].values.astype("float32").mean(axis=(1, 2, 3, 4))
        np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()), rtol=1e-5)


def test_damage_in_a_worker_is_an_error_here(torch: Any, copied: Path) -> None:
    (copied / "cube.zarr/cells/c/11/0/0/0/0").unlink()
    loader = for_torch.data_loader(copied, 16, num_workers=2, shuffle=False, persistent_workers=False)
    with pytest.raises(errors.DatasetDamagedError, match="cells/c/11/0/0/0/0"):
        list(loader)


def test_a_plain_data_loader_takes_the_dataset(torch: Any, flat: Path) -> None:
    from torch.utils.data import DataLoader

    dataset = for_torch.CellDataset(batches(flat, 16))
    assert sorted(joined(positions(DataLoader(dataset, batch_size=None)))) == list(range(90))
    assert len(dataset) == 6


def test_arguments_that_follow_from_others(torch: Any, flat: Path) -> None:
    with pytest.raises(errors.ArgumentError, match="num_workers"):
        for_torch.data_loader(flat, 16, workers=2)


def test_the_page_of_training_is_true(torch: Any, flat: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "train.md").read_text("utf-8")
    [block] = [part for part in page.split("```python\n")[1:] if part.startswith("import torch")]
    code = block.partition("```")[0].replace('"dataset"', "dataset").replace("64 * 64", "32 * 40")
    seen: dict[str, Any] = {"dataset": flat}
    exec(code, seen)
    assert seen["checkpoint"]["loader"]["epoch"] == 2
    assert torch.isfinite(seen["loss"])
