"""Where jobs run: here, on this machine's cores, on any executor, on a dask cluster."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from cellcube.errors import ArgumentError, WorkersLostError

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Work that this process does alone before it starts others, and that must be left for them to be worth their start.
PATIENCE_SECONDS = 1.0
WORTH_SECONDS = 4.0

# After so long without a result it is looked whether a cluster is still there.
LOOK_SECONDS = 10.0


class Workers:
    """Runs functions over items with a bounded number under way.

    Parameters
    ----------
    executor : None, int, Executor or dask.distributed.Client
        None is this machine's cores, used once there is work enough to be worth starting processes; a number is that
        many processes of this machine, 1 being this process itself.
    jobs : int
        How many items there will be.
    """

    def __init__(self, executor: Any, jobs: int) -> None:
        self._executor: Executor | None = None
        self._client: Any = None
        self._owned = False
        self._name = "this process"
        # cloudpickle carries lambdas and functions of a notebook to processes that cannot import them.
        self._pickled = True
        self._jobs = jobs
        self._waits = executor is None
        if executor is None or isinstance(executor, int):
            if isinstance(executor, bool) or (executor is not None and executor < 1):
                raise ArgumentError(f"executor={executor!r}: give at least one worker.")
            self.count = max(1, min(executor or available_cores(), jobs))
            self._owned = self.count > 1
        elif isinstance(executor, Executor):
            self._executor = executor
            self._pickled = not isinstance(executor, ThreadPoolExecutor)
            self.count = int(getattr(executor, "_max_workers", 0) or available_cores())
            self._name = f"{type(executor).__module__.partition('.')[0]}.{type(executor).__name__}"
        elif hasattr(executor, "get_executor") and hasattr(executor, "nthreads"):
            self._executor = executor.get_executor(pure=False)
            self._client = executor
            self.count, self._name = 1, "dask cluster"
            self._look_at_cluster()
        else:
            raise ArgumentError(
                f"executor={executor!r} cannot run jobs.",
                remedy="Give None, a number of processes, a concurrent.futures.Executor or a dask.distributed.Client.",
            )

    @property
    def name(self) -> str:
        """What does the work, for people."""
        return self._name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned and self._executor is not None:
            if kind is None:
                # They end by themselves while what follows is done.
                self._executor.shutdown(wait=False)
            else:
                self._executor.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]

    def run(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[int, Result]]:
        """(number, result) of each item, as they finish. The first exception ends it.

        Parameters
        ----------
        function : callable
        items : iterable
            Taken as workers become free, so that it may be long.

        Raises
        ------
        WorkersLostError
            Where workers end without an answer. A dask cluster gives an item to other workers first.
        """
        numbered = enumerate(items)
        if self._executor is None:
            if (yield from self._here(function, numbered)):
                return
            self._start()
        waiting: dict[Future[Result], int] = {}
        more = True
        try:
            while more or waiting:
                self._look_at_cluster()
                while more and len(waiting) < 2 * self.count + 1:
                    try:
                        number, item = next(numbered)
                    except StopIteration:
                        more = False
                        break
                    waiting[self._submit(function, item)] = number
                if not waiting:
                    return
                done, _ = wait(waiting, LOOK_SECONDS if self._client else None, return_when=FIRST_COMPLETED)
                for future in done:
                    number = waiting.pop(future)
                    yield number, _result_of(future, number, self._name)
        finally:
            for future in waiting:
                future.cancel()

    def _look_at_cluster(self) -> None:
        """Count the workers of a cluster, which come and go.

        Raises
        ------
        WorkersLostError
            Where the client has lost its scheduler: what it would be given then is never answered.
        """
        if self._client is None:
            return
        threads = None
        if self._client.status == "running":
            with suppress(OSError, RuntimeError, ValueError):
                threads = self._client.nthreads()
        if self._client.status not in ("running", "newly-connected"):
            raise _lost(self._name, " The connection to the scheduler is lost.")
        if threads is not None:
            self.count = max(1, sum(threads.values()))
            self._name = f"dask cluster of {len(threads)} workers"

    def _here(
        self, function: Callable[[Item], Result], numbered: Iterator[tuple[int, Item]]
    ) -> Generator[tuple[int, Result], None, bool]:
        """Items that are done in this process, until others are worth their start. Returns whether that was all."""
        start = time.perf_counter()
        if self.count > 1 and not self._waits:
            return False
        for number, item in numbered:
            yield number, function(item)
            spent = time.perf_counter() - start
            left = spent / (number + 1) * (self._jobs - number - 1)
            if self.count > 1 and spent > PATIENCE_SECONDS and left > WORTH_SECONDS:
                return False
        return True

    def _start(self) -> None:
        from loky import ProcessPoolExecutor

        # loky starts clean processes that do not run the caller's script again.
        self._executor = ProcessPoolExecutor(self.count, timeout=60)
        self._name = f"{self.count} processes"

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results in the order of the items."""
        results: list[Any] = [None] * len(items)
        for number, result in self.run(function, items):
            results[number] = result
        return results

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        assert self._executor is not None
        try:
            if not self._pickled:
                return self._executor.submit(function, item)
            import cloudpickle

            return self._executor.submit(call_pickled, cloudpickle.dumps((function, item)))
        except BrokenExecutor as error:
            raise _lost(self._name) from error


def _result_of(future: Future[Result], number: int, name: str) -> Result:
    try:
        return future.result()
    except (CancelledError, BrokenExecutor) as error:
        # Nothing is cancelled here before the first exception: a client does so where it has lost its scheduler.
        raise _lost(name) from error
    except Exception as error:
        scheduler = sys.modules.get("distributed.scheduler")
        if scheduler is None or not isinstance(error, scheduler.KilledWorker):
            raise
        lost = _lost(name, f" One job has ended {error.allowed_failures + 1} of them, one after the other.")
        lost.number = number
        raise lost from error


def _lost(name: str, why: str = "") -> WorkersLostError:
    return WorkersLostError(
        f"The workers ({name}) ended without an answer.{why}",
        remedy="Often memory has run out: dry_run=True tells how much a worker needs. Jobs that were done are kept: "
        "the same call continues, with these or other workers.",
    )


def call_pickled(payload: bytes) -> Any:
    """Call a pickled (function, item)."""
    import cloudpickle

    function, item = cloudpickle.loads(payload)
    return function(item)
