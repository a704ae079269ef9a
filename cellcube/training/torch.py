"""Batches for PyTorch: a dataset, and a loader whose place can be saved. Needs the extra ``torch``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from cellcube.errors import ArgumentError, MissingDependencyError
from cellcube.training.loader import Batch, Batches, batches

try:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
except ImportError:  # The module can be imported without; what is in it says what is missing.
    torch = None
    DataLoader = IterableDataset = object
    get_worker_info = None

__all__ = ["CellDataset", "CellLoader", "data_loader", "to_tensors"]


def to_tensors(batch: Any) -> Any:
    """A batch as tensors that share its memory.

    Parameters
    ----------
    batch : Batch
        Anything else, which a transform may have made, is given back as it is.

    Returns
    -------
    dict
        ``pixels`` (n, c, z, y, x) and ``positions`` (n) as tensors, ``cell_ids`` as a list, and the columns by their
        names: tensors of numbers, lists of text.
    """
    if not isinstance(batch, Batch):
        return batch
    if set(batch.columns) & {each.name for each in fields(Batch)}:
        raise ArgumentError("columns: a column has the name of a field of Batch.", remedy="Rename it in a transform.")
    values = {"pixels": batch.pixels, **batch.columns, "positions": batch.positions}
    tensors = {name: torch.from_numpy(v) if v.dtype.kind in "biuf" else v.tolist() for name, v in values.items()}
    return {**tensors, "cell_ids": batch.cell_ids.tolist()}


class CellDataset(IterableDataset):  # type: ignore[misc]
    """Batches as an iterable dataset, split between the workers of a ``DataLoader``.

    Give it to a ``DataLoader`` with ``batch_size=None``, which makes no batches of batches; `data_loader` does.

    Parameters
    ----------
    batches : Batches

    Raises
    ------
    MissingDependencyError
        Without PyTorch.
    """

    def __init__(self, batches: Batches) -> None:
        if torch is None:
            raise MissingDependencyError(
                "Batches for PyTorch need the package torch.", remedy='pip install "cellcube[torch]"'
            )
        super().__init__()
        self.batches = batches
        # Epoch and first batch, in memory that workers share, also those that live longer than an epoch.
        self._start = torch.full((2,), -1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        """Batches of an epoch, of this rank."""
        return len(self.batches)

    def start_at(self, epoch: int, batch: int = 0) -> None:
        """Make the next iteration, in whatever process, begin there."""
        self._start.copy_(torch.tensor([epoch, batch]))

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        mine = self.batches if info is None else self.batches.for_worker(info.id, info.num_workers)
        epoch, batch = self._start.tolist()
        if epoch >= 0:
            mine.start_at(epoch, batch)
        return map(to_tensors, mine)


class CellLoader(DataLoader):  # type: ignore[misc]
    """A ``DataLoader`` whose epochs differ and whose place in an epoch can be saved. `data_loader` makes it.

    Each iteration is an epoch, as with `Batches`: the first is epoch 0, or that of `set_epoch`.

    Parameters
    ----------
    dataset : CellDataset
    **options
        Of ``DataLoader``.
    """

    def __init__(self, dataset: CellDataset, **options: Any) -> None:
        super().__init__(dataset, batch_size=None, **options)
        self._place = dataset.batches.for_worker(0, max(1, self.num_workers))

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration begin this epoch."""
        self._place.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """How many batches of which epoch were given out; see `Batches.state_dict`."""
        return self._place.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on where a state was taken; see `Batches.load_state_dict`."""
        self._place.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:
        epoch, first = self._place.begin()
        self.dataset.start_at(epoch, first)
        return self._counted(super().__iter__(), epoch, first)

    def _counted(self, found: Iterator[Any], epoch: int, first: int) -> Iterator[Any]:
        for number, batch in enumerate(found, first):
            self._place.gave(epoch, number)
            yield batch


def data_loader(
    source: str | os.PathLike[str],
    batch_size: int,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool | None = None,
    multiprocessing_context: str = "spawn",
    loader_options: Mapping[str, Any] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    **options: Any,
) -> CellLoader:
    """A PyTorch loader of a dataset.

    Parameters
    ----------
    source : path or URL
        Folder of a dataset, or its ``catalog.yaml``.
    batch_size : int
    num_workers : int
        Processes that read. 0: threads of this one, which is enough where pixels need little work after reading.
    pin_memory : bool
    persistent_workers : bool, optional
        Whether workers outlive an epoch. None: yes, where there are any.
    multiprocessing_context : str
        How workers are started. Forked ones may wait for ever where threads were running.
    loader_options : mapping, optional
        More options of ``DataLoader``.
    rank, world_size : int, optional
        None: those of ``torch.distributed`` where it is initialized, otherwise 0 of 1.
    **options
        Of `cellcube.batches`. A `transform` must pickle where there are workers.

    Returns
    -------
    CellLoader
        Gives what `to_tensors` makes, or what the transform returned.

    Raises
    ------
    MissingDependencyError
        Without PyTorch.
    ArgumentError, cellcube.errors.DatasetNotFoundError, cellcube.errors.VersionNotFoundError
        As `cellcube.batches`.
    """
    together = torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = int(torch.distributed.get_rank()) if together else 0
    if world_size is None:
        world_size = int(torch.distributed.get_world_size()) if together else 1
    if "worker" in options or "workers" in options:
        raise ArgumentError("worker and workers follow from num_workers.")
    if num_workers and options.get("threads") is None:
        options["threads"] = max(1, (os.cpu_count() or 1) // num_workers)
    dataset = CellDataset(batches(source, batch_size, rank=rank, world_size=world_size, **options))
    processes: dict[str, Any] = {}
    if num_workers:
        keep = persistent_workers is not False
        processes = {"multiprocessing_context": multiprocessing_context, "persistent_workers": keep}
    return CellLoader(dataset, num_workers=num_workers, pin_memory=pin_memory, **processes, **(loader_options or {}))
