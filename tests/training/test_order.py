"""The order of an epoch: every cell once, near to uniform, the same for the same seed, shared without overlap."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from cellcube.training.order import Order, permutation, window_edges

PERMUTED = [6, 4, 8, 9, 1, 3, 2, 7, 5, 0]
MIXED = [21, 9, 23, 8, 22, 20, 11, 10, 14, 18, 19, 13, 12, 17, 16, 15, 4, 2, 1, 3, 7, 0, 6, 5]


def blocks_of(count: int, size: int) -> np.ndarray:
    return np.arange(count) // size


def batches_of(order: Order, epoch: int, blocks: np.ndarray) -> list[np.ndarray]:
    """The batches of a rank in the order of a loader that takes from each worker in turn."""
    cells = order.epoch(epoch, blocks)
    lanes = len(order.lane_sizes())
    made = [order.lane(cells, lane, epoch, blocks)[0] for lane in range(lanes)]
    size = order.batch_size
    return [made[n % lanes][n // lanes * size : (n // lanes + 1) * size] for n in range(len(order))]


def flattened(order: Order, epoch: int, blocks: np.ndarray) -> np.ndarray:
    return np.concatenate(batches_of(order, epoch, blocks))


@hypothesis.given(
    count=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 5),
    workers=st.integers(1, 4),
    buffer=st.sampled_from([0, 1, 7, 50, 1000]),
    block=st.sampled_from([1, 3, 16]),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_ranks_and_workers_together_have_every_cell_once(
    count: int, batch_size: int, world_size: int, workers: int, buffer: int, block: int, shuffle: bool, epoch: int
) -> None:
    blocks = blocks_of(count, block)
    common: dict[str, Any] = {"buffer": buffer, "workers": workers, "shuffle": shuffle, "world_size": world_size}
    seen, sizes = [], []
    for rank in range(world_size):
        found = batches_of(Order(count, batch_size, rank=rank, **common), epoch, blocks)
        assert all(len(batch) == batch_size for batch in found[:-1])
        assert all(0 < len(batch) <= batch_size for batch in found)
        seen += [cell for batch in found for cell in batch.tolist()]
        sizes.append(sum(map(len, found)))
    assert sorted(seen) == list(range(count))
    assert max(sizes) - min(sizes) <= 1
    # Left out: less than a batch a rank, and the same number of batches for all.
    full = [batches_of(Order(count, batch_size, rank=r, drop_last=True, **common), epoch, blocks)
            for r in range(world_size)]  # fmt: skip
    assert {len(found) for found in full} == {count // world_size // batch_size}
    kept = [cell for found in full for batch in found for cell in batch.tolist()]
    assert len(set(kept)) == len(kept) > count - world_size * (batch_size + 1)
    assert all(len(batch) == batch_size for found in full for batch in found)
    # Padded: all cells, a few twice, and the same number of batches for all.
    padded = [batches_of(Order(count, batch_size, rank=r, pad=True, **common), epoch, blocks)
              for r in range(world_size)]  # fmt: skip
    assert {len(found) for found in padded} == {math.ceil(math.ceil(count / world_size) / batch_size)}
    repeated = [cell for found in padded for batch in found for cell in batch.tolist()]
    assert set(repeated) == set(range(count))
    assert len(repeated) == math.ceil(count / world_size) * world_size


@pytest.mark.parametrize("buffer", [0, 50])
def test_seed_epoch_and_world_decide(buffer: int) -> None:
    blocks = blocks_of(400, 8)

    def order(epoch: int = 0, **options: Any) -> list[int]:
        return flattened(Order(400, 32, buffer=buffer, **options), epoch, blocks).tolist()

    assert order() == order()
    others = [order(epoch=1), order(seed=1), order(world_size=2), order(world_size=2, rank=1)]
    assert len({tuple(each) for each in [order(), *others]}) == 5


def test_orders_do_not_change_between_releases() -> None:
    assert permutation(10, 0, 0).tolist() == PERMUTED
    windows = Order(24, 4, buffer=8, seed=3)
    assert flattened(windows, 2, blocks_of(24, 4)).tolist() == MIXED


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_without_windows_the_number_of_workers_does_not_matter(workers: int) -> None:
    one = flattened(Order(400, 32), 0, blocks_of(400, 8))
    assert flattened(Order(400, 32, workers=workers), 0, blocks_of(400, 8)).tolist() == one.tolist()


def test_without_windows_every_order_is_equally_likely() -> None:
    # All 24 orders of four cells, over 6,000 epochs.
    counts: dict[tuple[int, ...], int] = {}
    order = Order(4, 4, seed=5)
    for epoch in range(6_000):
        found = tuple(flattened(order, epoch, np.arange(4)).tolist())
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.parametrize("buffer", [0, 24, 100])
def test_every_cell_is_anywhere_in_an_epoch(buffer: int) -> None:
    """Chi-square of (cell, place), which is flat in windows too, for blocks of one size that fill windows."""
    count, epochs = 48, 4_000
    order = Order(count, 8, buffer=buffer, seed=2)
    table = np.zeros((count, count))
    for epoch in range(epochs):
        table[flattened(order, epoch, blocks_of(count, 6)), np.arange(count)] += 1
    # Rows and columns have fixed sums: (48 - 1)² degrees of freedom.
    statistic = ((table - epochs / count) ** 2 / (epochs / count)).sum()
    assert 0.001 < stats.chi2.cdf(statistic, (count - 1) ** 2) < 0.999


def test_places_tell_nothing_of_each_other_without_windows() -> None:
    order = Order(512, 32, seed=4)
    place = np.empty((200, 512))
    for epoch in range(200):
        place[epoch, flattened(order, epoch, np.arange(512))] = np.arange(512)
    # Place in the cube and place in the epoch, neighbours in the cube, and one epoch and the next.
    cube = [stats.spearmanr(np.arange(512), each).statistic for each in place]
    neighbours = [stats.spearmanr(each[:-1], each[1:]).statistic for each in place]
    epochs = [stats.spearmanr(a, b).statistic for a, b in pairwise(place)]
    for found in (cube, neighbours, epochs):
        # Of independent ones each has a standard deviation of 1/sqrt(511).
        assert abs(np.mean(found)) < 4 / math.sqrt(511 * len(found))
        assert 0.8 < np.std(found) * math.sqrt(511) < 1.2


def test_in_windows_only_cells_of_a_block_stay_near_each_other() -> None:
    count, block, buffer = 1024, 8, 256
    order = Order(count, 32, buffer=buffer, seed=4)
    same, other, cube = [], [], []
    for epoch in range(200):
        place = np.empty(count)
        place[flattened(order, epoch, blocks_of(count, block))] = np.arange(count)
        rows = place.reshape(-1, block)
        same.append(np.ptp(rows, axis=1).max())
        other.append(stats.spearmanr(rows[:-1, 0], rows[1:, 0]).statistic)
        cube.append(stats.spearmanr(np.arange(count), place).statistic)
        # A batch is of many blocks: as many as if it were drawn from the window without regard to blocks.
        batches = flattened(order, epoch, blocks_of(count, block)).reshape(-1, 32) // block
        assert min(len(set(batch)) for batch in batches.tolist()) >= 12
    assert max(same) < buffer
    blocks = count // block
    assert abs(np.mean(other)) < 4 / math.sqrt((blocks - 2) * 200)
    # As a shuffle of whole blocks: the correlation has the spread of as many numbers as there are blocks.
    assert abs(np.mean(cube)) < 4 / math.sqrt((blocks - 1) * 200)


def test_within_a_window_all_orders_are_equally_likely() -> None:
    order = Order(8, 4, buffer=4, seed=1)
    table = np.zeros((8, 4))
    for epoch in range(4_000):
        found = flattened(order, epoch, blocks_of(8, 2))
        table[found[:4], np.arange(4)] += 1
    assert stats.chisquare(table.ravel()).pvalue > 0.001


@hypothesis.given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=40), buffer=st.integers(1, 60))
def test_windows_are_of_whole_blocks_and_none_is_small(sizes: list[int], buffer: int) -> None:
    blocks = np.repeat(np.arange(len(sizes)), sizes)
    edges = window_edges(blocks, buffer)
    assert edges[0] == 0
    assert edges[-1] == len(blocks)
    assert set(edges.tolist()) <= {0, *np.cumsum(sizes).tolist()}
    lengths = np.diff(edges)
    assert (lengths < 1.5 * buffer + max(sizes)).all()
    assert len(lengths) == 1 or (lengths >= buffer / 2).all()
