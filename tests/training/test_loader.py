"""Epochs, places that can be saved, workers, and threads that end."""

from __future__ import annotations

import gc
import json
import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcube import errors
from cellcube.ahead import made_ahead
from cellcube.training import Batch, Batches, batches
from cellcube.training.ahead import Windows

BUFFERS = pytest.mark.parametrize("buffer", [0, 24])


def cells(found: Iterator[Batch] | Batches) -> list[list[int]]:
    return [batch.positions.tolist() for batch in found]


def joined(lists: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    gc.collect()
    limit = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < limit:
        time.sleep(0.01)
    assert [thread.name for thread in set(threading.enumerate()) - before] == []


@BUFFERS
def test_each_iteration_is_an_epoch(flat: Path, buffer: int) -> None:
    found = batches(flat, 16, buffer=buffer)
    epochs = [cells(found) for _ in range(3)]
    assert all(sorted(joined(each)) == list(range(90)) for each in epochs)
    assert len({str(each) for each in epochs}) == 3
    again = batches(flat, 16, buffer=buffer)
    again.set_epoch(2)
    assert cells(again) == epochs[2]
    assert again.state_dict()["epoch"] == 3
    # An epoch that is left early is over.
    again.set_epoch(0)
    for _ in again:
        break
    assert cells(again) == epochs[1]
    assert cells(batches(flat, 16, buffer=buffer, seed=1)) != epochs[0]
    with pytest.raises(errors.ArgumentError, match="epoch must"):
        again.set_epoch(-1)


@BUFFERS
@pytest.mark.parametrize("after", [0, 1, 4, 5, 6])
def test_it_goes_on_where_a_state_was_taken(flat: Path, buffer: int, after: int) -> None:
    whole = batches(flat, 16, buffer=buffer)
    epochs = [cells(whole) for _ in range(3)]
    first = batches(flat, 16, buffer=buffer)
    first.set_epoch(1)
    iterator = iter(first)
    given = [next(iterator).positions.tolist() for _ in range(after)]
    # What was made ahead does not count.
    state = json.loads(json.dumps(first.state_dict()))
    del iterator
    second = batches(flat, 16, buffer=buffer)
    second.load_state_dict(state)
    rest = cells(second)
    if after == 6:
        assert (given, rest) == (epochs[1], epochs[2])
    else:
        assert given + rest == epochs[1]
        assert cells(second) == epochs[2]
    # Before anything is read.
    third = batches(flat, 16, buffer=buffer)
    third.load_state_dict(state)
    assert third.state_dict() == state


def test_a_state_of_another_order_is_refused(flat: Path) -> None:
    state = batches(flat, 16).state_dict()
    for options in ({"seed": 1}, {"split": "train"}, {"world_size": 2}, {"buffer": 24}, {"shuffle": False}):
        with pytest.raises(errors.ArgumentError, match="another order"):
            batches(flat, 16, **options).load_state_dict(state)
    with pytest.raises(errors.ArgumentError, match="batch_size 16 is now 8"):
        batches(flat, 8).load_state_dict(state)
    # What does not change the order may change.
    batches(flat, 16, rank=0, columns="number", prefetch=0, threads=1, workers=2).load_state_dict(state)


@BUFFERS
@pytest.mark.parametrize("first", [0, 3])
def test_workers_and_ranks_share_the_cells(flat: Path, buffer: int, first: int) -> None:
    seen = []
    for rank in range(2):
        whole = batches(flat, 7, buffer=buffer, rank=rank, world_size=2, workers=3)
        parts = []
        for worker in range(3):
            part = whole.for_worker(worker, 3)
            part.start_at(1, first)
            parts.append(cells(part))
        turns = [parts[turn % 3][turn // 3] for turn in range(sum(map(len, parts)))]
        assert len(turns) == len(whole) - first
        if not buffer:
            one = batches(flat, 7, rank=rank, world_size=2)
            one.start_at(1, first)
            assert turns == cells(one)
        seen += joined(turns)
    assert len(set(seen)) == len(seen) == 90 - 2 * 7 * first


def test_a_worker_by_arguments_and_its_state(flat: Path) -> None:
    part = batches(flat, 16, worker=1, workers=2)
    given = cells(part)
    assert given == cells(batches(flat, 16).for_worker(1, 2)) != []
    assert part.state_dict()["epoch"] == 1
    iterator = iter(part)
    next(iterator)
    rest = batches(flat, 16, worker=1, workers=2)
    rest.load_state_dict(part.state_dict())
    assert cells(iterator) == cells(rest)
    # A worker that has nothing.
    assert cells(batches(flat, 90, worker=1, workers=2)) == []


def test_the_order_of_the_cube(flat: Path) -> None:
    assert joined(cells(batches(flat, 16, shuffle=False))) == list(range(90))
    assert joined(cells(batches(flat, 16, shuffle=False, drop_last=True))) == list(range(80))


@BUFFERS
def test_batches_are_filled_from_many_shards(flat: Path, buffer: int) -> None:
    shards = [len({position // 8 for position in each}) for each in cells(batches(flat, 16, buffer=buffer))[:5]]
    assert min(shards) >= (6 if not buffer else 3)


@BUFFERS
@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_threads_end_when_a_loop_is_left(flat: Path, prefetch: int, buffer: int) -> None:
    found = batches(flat, 4, prefetch=prefetch, threads=2, buffer=buffer)
    for _ in found:
        break

    def fail(_: Batch) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        list(map(fail, found))
    iterator = iter(found)
    next(iterator)
    del iterator


def test_threads_end_when_a_transform_or_a_shard_fails(copied: Path) -> None:
    def fail(batch: Batch) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        list(batches(copied, 4, prefetch=4, transform=fail))
    (copied / "cube.zarr/cells/c/3/0/0/0/0").unlink()
    for buffer in (0, 24):
        with pytest.raises(errors.DatasetDamagedError):
            list(batches(copied, 4, prefetch=4, threads=2, buffer=buffer))


def test_two_iterators_at_once(flat: Path) -> None:
    found = batches(flat, 16)
    one, two = iter(found), iter(found)
    pairs = list(zip(cells(one), cells(two), strict=True))
    assert [a for a, _ in pairs] != [b for _, b in pairs]


def _in_a_process(found: Batches, give: Any) -> None:
    give.put((cells(found), found.state_dict()["epoch"]))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_read_the_same(flat: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    found = batches(flat, 16, threads=2)
    expected = cells(found)
    found.set_epoch(0)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_in_a_process, args=(found, queue))
    process.start()
    assert queue.get(timeout=120) == (expected, 1)
    process.join(30)
    assert process.exitcode == 0
    queue.close()
    queue.join_thread()


def test_a_copy_goes_on_where_the_original_would(flat: Path) -> None:
    found = batches(flat, 16)
    cells(found)
    copy = pickle.loads(pickle.dumps(found))
    assert cells(copy) == cells(found)


def test_no_more_is_made_ahead_than_asked_for() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item

    for number, _ in enumerate(made_ahead(range(20), make, str, 3), 1):
        time.sleep(0.01)
        assert len(made) <= number + 3
    assert sorted(made) == list(range(20))


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_things_come_in_order_however_long_they_take(ahead: int) -> None:
    def make(item: int) -> int:
        time.sleep(0.003 * (item % 3))
        return item

    assert list(made_ahead(range(12), make, str, ahead)) == [str(item) for item in range(12)]


def test_windows_are_made_once_and_dropped() -> None:
    made: list[int] = []

    def make(window: int) -> int:
        made.append(window)
        return window * 10

    windows = Windows([2, 1, 0, 1], make)
    takes: list[Callable[[], int]] = [lambda: windows.take(0), lambda: windows.take(0), lambda: windows.take(1)]
    assert [take() for take in takes] == [0, 0, 10]
    windows.give_back(0)
    windows.give_back(0)
    assert windows.take(3) == 30
    assert sorted(made) == [0, 1, 3]
    assert 0 not in windows._made
    windows.close()


def test_the_bytes_of_windows_are_bounded(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellcube.training.reader import ShardReader

    held: list[int] = []
    plain = Windows.take

    def take(self: Windows[Any], number: int) -> Any:
        found = plain(self, number)
        held.append(len(self._made))
        return found

    fetched: list[int] = []
    fetch = ShardReader.fetch

    def counted(self: ShardReader, plan: Any, *rest: Any) -> Any:
        fetched.extend(plan.chunks.tolist())
        return fetch(self, plan, *rest)

    monkeypatch.setattr(Windows, "take", take)
    monkeypatch.setattr(ShardReader, "fetch", counted)
    assert len(cells(batches(flat, 8, buffer=16))) == 12
    assert max(held) <= 4
    # Every chunk is asked for once.
    assert np.unique(fetched).tolist() == sorted(fetched) == list(range(90))
