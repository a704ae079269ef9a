"""Memory of batches is used again, and never while anybody holds it."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import cellcube
from cellcube.training import batches
from cellcube.training.memory import Recycled


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_arrays_are_whole_and_writable() -> None:
    array = Recycled().empty((3, 2, 1, 4, 5), "<f2")
    assert (array.shape, array.dtype) == ((3, 2, 1, 4, 5), np.dtype("<f2"))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[:] = 7
    assert (array == 7).all()
    assert Recycled().empty((0, 3), "u1").shape == (0, 3)


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    memory = Recycled()
    first = memory.empty((100, 100), "f4")
    where, view = address(first), first[50:, ::2]
    del first
    gc.collect()
    second = memory.empty((100, 100), "f4")
    assert address(second) != where
    del view
    gc.collect()
    assert address(memory.empty((200, 50), "f4")) == where


def test_no_two_arrays_share_memory_and_few_blocks_are_kept() -> None:
    memory = Recycled(2)
    held = [memory.empty((1000,), "u1") for _ in range(5)]
    for number, array in enumerate(held):
        array[:] = number
    assert [int(array.max()) for array in held] == [int(array.min()) for array in held] == list(range(5))
    del held, array
    gc.collect()
    assert len(memory._free) == 2
    # Of another size there is none.
    assert memory.empty((999,), "u1").nbytes == 999


@pytest.mark.parametrize("prefetch", [0, 3])
def test_batches_that_are_kept_stay_as_they_are(flat: Path, prefetch: int) -> None:
    stored = cellcube.open(flat)["cells"].values
    found = batches(flat, 8, prefetch=prefetch, threads=2)
    kept = [(batch.positions, batch.pixels[:, 1:]) for _ in range(3) for batch in found]
    gc.collect()
    for positions, pixels in kept:
        np.testing.assert_array_equal(pixels, stored[positions][:, 1:])


def test_batches_that_are_dropped_give_their_memory_to_others(flat: Path) -> None:
    found = batches(flat, 10, prefetch=0)
    seen, others = set(), []
    for _ in range(3):
        for batch in found:
            seen.add(address(batch.pixels))
            # What the system would give to the next batch.
            others.append(np.empty(batch.pixels.shape, batch.pixels.dtype))
    # Of 27 batches one is held and one is made.
    assert len(others) == 27
    assert len(seen) <= 3
