"""Batches of cells: `batches`, and the iterable that it gives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.ahead import made_ahead
from cellcube.errors import ArgumentError
from cellcube.training.ahead import Windows
from cellcube.training.choice import Choice, choose
from cellcube.training.order import Order, whole_number
from cellcube.training.ranges import Bytes

Pixels = npt.NDArray[Any]
Transform = Callable[["Batch"], Any]

# Of pixels, uncompressed: what one request of a store is to bring at least, and what is mixed there.
_BLOCK_BYTES = 2 * 1024**2
_BUFFER_BYTES = 256 * 1024**2
_MOST_THREADS = 16


@dataclass(frozen=True)
class Batch:
    """Some cells.

    Parameters
    ----------
    pixels : ndarray, shape (n, c, z, y, x)
        Of the stored type. Of a projection z is 1 and y and x are its two axes; of a mask c is 1.
    columns : dict of ndarray, shape (n,)
        Columns of the manifest: numbers and truth values as such, text as objects.
    cell_ids : ndarray of object, shape (n,)
    positions : ndarray of int64, shape (n,)
        The manifest's `position`: place along the cell axis of the cube.
    """

    pixels: Pixels
    columns: Mapping[str, npt.NDArray[Any]]
    cell_ids: npt.NDArray[Any]
    positions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pixels)


class Batches:
    """Batches of a dataset, as `batches` gives them; each `iter` is one epoch.

    The first is epoch 0, or that of `set_epoch`; each further one has the next number, whether the one before was
    read to its end or not. It pickles, without what it has read and without threads.

    Parameters
    ----------
    choice : Choice
    order : Order
    block_cells : int
        Cells that are read at one time where cells are mixed in windows.
    transform : callable, optional
    prefetch, threads : int
    worker : int
    """

    def __init__(
        self,
        choice: Choice,
        order: Order,
        *,
        block_cells: int = 1,
        transform: Transform | None = None,
        prefetch: int = 2,
        threads: int = 1,
        worker: int = 0,
    ) -> None:
        self._choice, self._order, self._block_cells = choice, order, block_cells
        self._transform, self._prefetch, self._threads, self._worker = transform, prefetch, threads, worker
        # Epoch and batch that the next iterator begins with, and where the last one is.
        self._next = (0, 0)
        self._now: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Batches of an epoch, of this rank, of all its workers."""
        return len(self._order)

    @property
    def cells(self) -> int:
        """Chosen cells, of all ranks."""
        return len(self._choice)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names along the axis c; none for a mask."""
        return self._choice.channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(c, z, y, x) of a cell."""
        return self._choice.reader.item

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return np.dtype(self._choice.array.dtype)

    @property
    def exact(self) -> bool:
        """Whether all orders of the cells are equally likely; otherwise cells are mixed in windows."""
        return self._order.shuffle and not self._order.buffer

    def set_epoch(self, epoch: int) -> None:
        """Make the next `iter` begin this epoch.

        Parameters
        ----------
        epoch : int
        """
        self.start_at(whole_number("epoch", epoch, 0), 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the last iterator is: plain values, to be saved beside the model.

        Returns
        -------
        dict
            `epoch`, `batches` (how many of it were given out), and `order`, what the order depends on. At the end of
            an epoch, the next one and 0.
        """
        epoch, done = self._now or self._next
        if done >= len(self) > 0:
            epoch, done = epoch + 1, 0
        return {"epoch": epoch, "batches": done, "order": self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next `iter` go on where a state was taken, with the batches that were left.

        Parameters
        ----------
        state : mapping
            From `state_dict` of batches with the same arguments, of any rank.

        Raises
        ------
        ArgumentError
            Where the order was another one: other cells, seed, batch size or number of ranks.
        """
        own, other = self._identity(), dict(state.get("order", {}))
        differs = [name for name in own if own[name] != other.get(name)]
        if differs:
            told = ", ".join(f"{name} {other.get(name)!r} is now {own[name]!r}" for name in differs)
            raise ArgumentError(
                f"The state is of batches in another order: {told}.", remedy="Give the arguments of the saved run."
            )
        self.start_at(int(state["epoch"]), int(state["batches"]))

    def for_worker(self, worker: int, workers: int) -> Batches:
        """The part of one of several workers of this rank: every `workers`-th batch, from the `worker`-th on.

        Taking one batch from each worker in turn gives the batches in the order of ``workers=1``; where cells are
        mixed in windows, each worker has windows of its own, and the order is another for each number of workers.
        """
        if whole_number("worker", worker, 0) >= workers:
            raise ArgumentError(f"worker must be below workers ({workers}), not {worker}.")
        made = Batches(
            self._choice, replace(self._order, workers=workers), block_cells=self._block_cells,
            transform=self._transform, prefetch=self._prefetch, threads=self._threads, worker=worker,
        )  # fmt: skip
        made._next = self._next
        return made

    def start_at(self, epoch: int, batch: int) -> None:
        """Make the next `iter` begin with this batch of an epoch."""
        self._next, self._now = (epoch, batch), None

    def begin(self) -> tuple[int, int]:
        """Epoch and batch that the next `iter` would begin with, which counts as begun: for other iterators."""
        self._now = self._next
        self._next = (self._now[0] + 1, 0)
        return self._now

    def gave(self, epoch: int, number: int) -> None:
        """Count a batch as given out."""
        self._now = (epoch, number + 1)

    def __iter__(self) -> Iterator[Any]:
        return self._epoch(*self.begin())

    def _epoch(self, epoch: int, first: int) -> Iterator[Any]:
        workers = self._order.workers
        mine = range(first + self._worker, len(self), workers)
        if not mine:
            return
        lane = mine[0] % len(self._order.lane_sizes())
        blocks = self._choice.blocks(self._block_cells)
        cells, edges = self._order.lane(self._order.epoch(epoch, blocks), lane, epoch, blocks)
        size, lanes = self._order.batch_size, len(self._order.lane_sizes())

        def places(number: int) -> slice:
            start = number // lanes * size
            return slice(start, min(start + size, len(cells)))

        windows = self._windows(cells, edges, [places(number) for number in mine]) if len(edges) > 2 else None
        pool = ThreadPoolExecutor(self._threads, "cellcube-decode") if self._threads > 1 else None

        def make(number: int) -> Batch:
            return self._read(cells, edges, places(number), windows, pool)

        made = made_ahead(mine, make, self._transform or _same, self._prefetch)
        try:
            for number, batch in zip(mine, made, strict=True):
                # The batches of the other workers that go with this one count as given out.
                self.gave(epoch, len(self) - 1 if number == mine[-1] else number + workers - self._worker - 1)
                yield batch
        finally:
            if windows is not None:
                windows.close()
            made.close()
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _windows(
        self, cells: npt.NDArray[np.int64], edges: npt.NDArray[np.int64], batches: Sequence[slice]
    ) -> Windows[dict[int, Bytes]]:
        """Chunks of each window, by their number."""
        uses = [0] * (len(edges) - 1)
        for part in batches:
            for window in _touched(edges, part):
                uses[window] += 1
        choice = self._choice

        def fetch(window: int) -> dict[int, Bytes]:
            chosen = cells[edges[window] : edges[window + 1]]
            plan = choice.reader.plan(choice.positions[chosen])
            return dict(zip(plan.chunks.tolist(), choice.reader.fetch(plan, choice.cell_ids[chosen]), strict=True))

        return Windows(uses, fetch)

    def _read(
        self,
        cells: npt.NDArray[np.int64],
        edges: npt.NDArray[np.int64],
        part: slice,
        windows: Windows[dict[int, Bytes]] | None,
        pool: ThreadPoolExecutor | None,
    ) -> Batch:
        choice, chosen = self._choice, cells[part]
        positions, names = choice.positions[chosen], choice.cell_ids[chosen]
        held: dict[int, Bytes] | None = None
        touched = list(_touched(edges, part)) if windows is not None else []
        if windows is not None:
            held = {}
            for window in touched:
                held.update(windows.take(window))
        pixels = choice.reader.read(positions, names, pool, self._threads, held)
        for window in touched:
            assert windows is not None
            windows.give_back(window)
        return Batch(pixels, {name: values[chosen] for name, values in choice.columns.items()}, names, positions)

    def _identity(self) -> dict[str, Any]:
        """What the order depends on, but for the rank; workers only where they change it."""
        fields = asdict(self._order)
        del fields["rank"]
        if not self._order.buffer:
            fields["workers"] = 1
        cells = hashlib.sha256(self._choice.positions.astype("<i8").tobytes()).hexdigest()[:16]
        return {**fields, "block_cells": self._block_cells, "cells": cells}


def _same(batch: Batch) -> Batch:
    return batch


def _touched(edges: npt.NDArray[np.int64], part: slice) -> range:
    """Which windows a part of a lane is in."""
    first, last = np.searchsorted(edges, [part.start, part.stop - 1], side="right") - 1
    return range(int(first), int(last) + 1)


def batches(
    source: str | os.PathLike[str],
    batch_size: int,
    *,
    shuffle: bool = True,
    seed: int = 0,
    split: str | None = None,
    columns: str | Sequence[str] = (),
    transform: Transform | None = None,
    channels: str | Sequence[str] | None = None,
    variable: str = "cells",
    where: str | None = None,
    version: int | None = None,
    drop_last: bool = False,
    pad: bool = False,
    buffer: int | None = None,
    prefetch: int = 2,
    threads: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    worker: int = 0,
    workers: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> Batches:
    """Batches of cells for training: each cell once an epoch, in an order that only the arguments decide on.

    Parameters
    ----------
    source : path or URL
        Folder of a dataset, or its ``catalog.yaml``.
    batch_size : int
        Cells of a batch. The last one of an epoch has what is left.
    shuffle : bool
        False: cells in the order of the cube.
    seed : int
        Orders of the epochs follow from it.
    split : str, optional
        Only cells whose `split` in the manifest is this.
    columns : sequence of str
        Columns of the manifest to bring along.
    transform : callable, optional
        Called with each `Batch`, in order, in a thread of its own; what it returns is given out instead.
    channels : sequence of str, optional
        Names, in the order wanted. None: all of them.
    variable : str
        ``cells``, another representation, a projection, or a mask.
    where : str, optional
        A condition on columns of the manifest, in pandas' query syntax, such as ``"well == 'B02'"``.
    version : int, optional
        From 1; None is the latest.
    drop_last : bool
        Leave out the batch that is not full; all ranks then have the same number of batches.
    pad : bool
        Where cells cannot be shared equally between ranks, those with one less repeat one, so that all ranks have
        the same number of batches.
    buffer : int, optional
        Cells that are mixed with each other. 0: all of them, so that each order is equally likely. None: all of them
        on a disk and where a cell has megabytes; elsewhere as many as have 256 MB uncompressed, or four batches.
    prefetch : int
        Batches that are made while one is used; 0 uses no threads for that.
    threads : int, optional
        That decode. None: as many as there are processors, 16 at most.
    rank, world_size : int
        Which of how many processes that train together.
    worker, workers : int
        Which of how many processes that read for this rank.
    storage_options : mapping, optional
        fsspec options.

    Returns
    -------
    Batches
        Its iterators raise `DatasetDamagedError` where a shard or chunk is missing or its checksum does not fit; they
        never give zeros instead.

    Raises
    ------
    ArgumentError
        Where an argument cannot be used, or no cell is chosen.
    cellcube.errors.DatasetNotFoundError, cellcube.errors.VersionNotFoundError
    """
    for name, value, least in (("prefetch", prefetch, 0), ("threads", threads, 1), ("buffer", buffer, 0)):
        if value is not None:
            whole_number(name, value, least)
    # Checks the numbers before anything is read.
    order = Order(0, batch_size, shuffle, seed, 0, rank, world_size, workers, drop_last, pad)
    choice = choose(
        source, split=split, where=where, columns=columns, channels=channels, variable=variable, version=version,
        storage_options=storage_options,
    )  # fmt: skip
    each = choice.reader.cell_bytes
    block_cells = max(1, _BLOCK_BYTES // each)
    if buffer is None:
        buffer = 0 if choice.cube.is_local else max(4 * batch_size, _BUFFER_BYTES // each)
    # Mixing windows of blocks of one cell is mixing all cells.
    windowed = shuffle and block_cells > 1
    order = replace(order, count=len(choice), buffer=buffer if windowed else 0)
    if not len(order):
        raise ArgumentError(
            f"A batch of {batch_size:,} cells is more than a rank has of {len(choice):,}.",
            remedy="Give a smaller batch_size, or drop_last=False.",
        )
    made = Batches(
        choice, order, block_cells=block_cells if order.buffer else 1, transform=transform, prefetch=prefetch,
        threads=threads or max(1, min(_MOST_THREADS, _processors() // workers)),
    )  # fmt: skip
    return made if workers == 1 and worker == 0 else made.for_worker(worker, workers)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
