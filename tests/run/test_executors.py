"""Where jobs run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cellcube.errors import ArgumentError, WorkersLostError
from cellcube.run import executors
from cellcube.run.executors import Workers

GOES_ON = threading.Event()


def answer_the_first(number: int) -> int:
    if number:
        GOES_ON.wait(60)
    return number


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("executor", [None, 1, 2])
def test_results_come_in_order(executor: int | None) -> None:
    with Workers(executor, 7) as workers:
        assert workers.map(square, list(range(7))) == [square(number) for number in range(7)]


def test_lambdas_go_to_processes() -> None:
    offset = 5
    with Workers(2, 3) as workers:
        assert workers.map(lambda number: number + offset, [1, 2, 3]) == [6, 7, 8]


def test_long_work_moves_to_processes_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(executors, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(executors, "available_cores", lambda: 2)
    with Workers(None, 6) as workers:
        assert workers.map(square, list(range(6))) == [0, 1, 4, 9, 16, 25]
        assert workers.name == "2 processes"


def test_short_work_stays_here() -> None:
    with Workers(None, 6) as workers:
        workers.map(square, list(range(6)))
        assert workers.name == "this process"


def test_items_are_taken_as_workers_become_free() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    with ThreadPoolExecutor(2) as pool, Workers(pool, 100) as workers:
        next(iter(workers.run(square, items())))
        assert taken < 20, "memory must not grow with the number of jobs"


class GrowingCluster:
    """What is used of a dask client, whose workers come one by one."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.asked = 0
        self.status = "running"

    def get_executor(self, pure: bool) -> ThreadPoolExecutor:
        assert not pure, "an item that was done before is to be done again"
        return self.pool

    def nthreads(self) -> dict[str, int]:
        self.asked += 1
        return {f"worker-{number}": 2 for number in range(min(self.asked - 1, 4))}


def test_workers_that_join_a_cluster_later_are_used() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    with ThreadPoolExecutor(2) as pool, Workers(GrowingCluster(pool), 100) as workers:
        assert (workers.count, workers.name) == (1, "dask cluster of 0 workers")
        ahead = []
        for done, _ in enumerate(workers.run(square, items())):
            ahead.append(taken - done)
    assert max(ahead[:2]) <= 2 * 8 + 1
    assert max(ahead) == 2 * 8 + 1
    assert (workers.count, workers.name) == (8, "dask cluster of 4 workers")


def test_a_cluster_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.1)
    with ThreadPoolExecutor(1) as pool:
        cluster = GrowingCluster(pool)
        with Workers(cluster, 3) as workers:
            results = workers.run(answer_the_first, range(3))
            assert next(results) == (0, 0)
            cluster.status = "connecting"
            with pytest.raises(WorkersLostError, match="connection to the scheduler is lost"):
                next(results)
        with pytest.raises(WorkersLostError, match="the same call continues"):
            Workers(cluster, 3)
        GOES_ON.set()


def test_processes_that_end_are_told_in_words() -> None:
    with Workers(2, 3) as workers, pytest.raises(WorkersLostError, match=r"2 processes.*the same call continues"):
        workers.map(os._exit, [3, 3, 3])


def test_an_exception_ends_the_run() -> None:
    def fail(number: int) -> int:
        raise OverflowError(str(number))

    with ThreadPoolExecutor(2) as pool, Workers(pool, 3) as workers, pytest.raises(OverflowError):
        workers.map(fail, [1, 2, 3])


@pytest.mark.parametrize("executor", ["threads", 0, -1, True, 1.5])
def test_what_cannot_run_jobs_is_refused(executor: Any) -> None:
    with pytest.raises(ArgumentError, match="executor="):
        Workers(executor, 1)
