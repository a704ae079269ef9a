"""In which order the cells of an epoch come, and which of them a rank and a worker has. Plain functions of the seed.

Keys are the raw words of PCG64, which NumPy keeps the same in all its versions, so a seed means the same order
everywhere. Two keys of 64 bits are equal with a probability that does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import ArgumentError

Ints = npt.NDArray[np.int64]


def whole_number(name: str, value: Any, least: int) -> int:
    """An argument as an int.

    Raises
    ------
    ArgumentError
        Where it is not a whole number, or less than `least`.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


@dataclass(frozen=True)
class Order:
    """Everything that the order of the batches of a rank depends on, but for the epoch.

    Parameters
    ----------
    count : int
        Cells of all ranks together.
    batch_size : int
    shuffle : bool
    seed : int
    buffer : int
        Cells that are mixed with each other; 0 mixes all of them.
    rank, world_size : int
    workers : int
        Of each rank.
    drop_last : bool
        Whether batches that are not full are left out.
    pad : bool
        Whether ranks with a cell less repeat one.
    """

    count: int
    batch_size: int
    shuffle: bool = True
    seed: int = 0
    buffer: int = 0
    rank: int = 0
    world_size: int = 1
    workers: int = 1
    drop_last: bool = False
    pad: bool = False

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "world_size": 1, "workers": 1, "seed": 0, "rank": 0, "buffer": 0}
        for name, low in least.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), low))
        if self.rank >= self.world_size:
            raise ArgumentError(f"rank must be below world_size ({self.world_size}), not {self.rank}.")

    @property
    def share(self) -> tuple[int, int]:
        """The cells of this rank: from, to, in the order of the epoch. May go beyond the end, with `pad`."""
        if self.pad or self.drop_last:
            each = math.ceil(self.count / self.world_size) if self.pad else self.count // self.world_size
            return self.rank * each, (self.rank + 1) * each
        return self.rank * self.count // self.world_size, (self.rank + 1) * self.count // self.world_size

    def __len__(self) -> int:
        """Batches of this rank."""
        start, stop = self.share
        return (stop - start) // self.batch_size if self.drop_last else math.ceil((stop - start) / self.batch_size)

    def lane_sizes(self) -> list[int]:
        """Cells of each lane; batch *i* of a rank is made of lane *i* modulo the number of lanes.

        Lanes are the workers where cells are mixed in windows, which each worker reads its own of; otherwise there
        is one.
        """
        count, lanes = len(self), self.workers if self.buffer else 1
        start, stop = self.share
        short = max(0, count * self.batch_size - (stop - start))
        sizes = [len(range(lane, count, lanes)) * self.batch_size for lane in range(lanes)]
        if count:
            sizes[(count - 1) % lanes] -= short
        return sizes

    def epoch(self, epoch: int, blocks: Ints) -> Ints:
        """Which cells this rank has in an epoch, lane after lane.

        Parameters
        ----------
        epoch : int
        blocks : ndarray of int64, shape (count,)
            Which cells are close to each other in the store: ascending. Used where cells are mixed in windows.

        Returns
        -------
        ndarray of int64
            Cells by their number, from 0.
        """
        start, stop = self.share
        if not self.shuffle:
            order = np.arange(self.count)
        elif not self.buffer:
            order = permutation(self.count, self.seed, epoch)
        else:
            order = shuffled_blocks(blocks, self.seed, epoch)
        if stop > self.count:
            return order[np.arange(start, stop) % self.count]
        return order[start:stop][: sum(self.lane_sizes())]

    def lane(self, cells: Ints, lane: int, epoch: int, blocks: Ints) -> tuple[Ints, Ints]:
        """The cells of a lane in the order in which they come, and where its windows begin and end.

        Parameters
        ----------
        cells : ndarray of int64
            What `epoch` gave.
        lane, epoch : int
        blocks : ndarray of int64
            As for `epoch`.
        """
        sizes = self.lane_sizes()
        own = cells[sum(sizes[:lane]) : sum(sizes[: lane + 1])]
        if not (self.shuffle and self.buffer):
            return own, np.array([0, len(own)])
        edges = window_edges(blocks[own], self.buffer)
        window = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        keys = _words(len(own), self.seed, epoch, self.rank, lane)
        return own[np.lexsort((keys, window))], edges


def _words(count: int, seed: int, *purpose: int) -> npt.NDArray[np.uint64]:
    # Not one list of numbers: NumPy takes (seed, epoch) and (seed, epoch, 0, 0) for the same.
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(len(purpose), *purpose))).random_raw(count)


def permutation(count: int, seed: int, *purpose: int) -> Ints:
    """Each of all orders of `count` numbers equally likely.

    Examples
    --------
    >>> permutation(5, 0, 1).tolist()
    [3, 0, 2, 4, 1]
    """
    return np.argsort(_words(count, seed, *purpose), kind="stable")


def shuffled_blocks(blocks: Ints, seed: int, *purpose: int) -> Ints:
    """Blocks in an order of which each is equally likely; within a block as they are.

    Examples
    --------
    >>> shuffled_blocks(np.array([0, 0, 0, 1, 2, 2]), 7).tolist()
    [3, 4, 5, 0, 1, 2]
    """
    known, numbers = np.unique(blocks, return_inverse=True)
    place = np.argsort(permutation(len(known), seed, *purpose), kind="stable")
    return np.argsort(place[numbers], kind="stable")


def window_edges(blocks: Ints, buffer: int) -> Ints:
    """Where windows of about `buffer` cells begin and end: where a block does.

    Examples
    --------
    >>> window_edges(np.array([4, 4, 4, 1, 1, 1, 0, 0, 0]), 5).tolist()
    [0, 6, 9]
    >>> window_edges(np.array([4, 4, 4, 1, 1, 1, 0, 0]), 5).tolist()
    [0, 8]
    """
    if not len(blocks):
        return np.array([0, 0])
    ends = np.append(np.flatnonzero(np.diff(blocks)) + 1, len(blocks))
    edges = [0]
    while edges[-1] < len(blocks):
        place = int(np.searchsorted(ends, edges[-1] + buffer))
        edge = int(ends[min(place, len(ends) - 1)])
        # A last window of a few cells would mix only these.
        edges.append(edge if len(blocks) - edge >= buffer / 2 else len(blocks))
    return np.array(edges)
