"""Where jobs run: here, on this machine's cores, on any executor, on a dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

from cellcube.errors import ArgumentError

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Runs functions over items with a bounded number under way.

    Parameters
    ----------
    executor : None, int, Executor or dask.distributed.Client
        None is this machine's cores; a number is that many processes of this machine, 1 being this process itself.
    jobs : int
        How many items there will be: a few are not worth starting processes for.
    """

    def __init__(self, executor: Any, jobs: int) -> None:
        self._executor: Executor | None = None
        self._owned = False
        # cloudpickle carries lambdas and functions of a notebook to processes that cannot import them.
        self._pickled = True
        if executor is None or isinstance(executor, int):
            if isinstance(executor, bool) or (executor is not None and executor < 1):
                raise ArgumentError(f"executor={executor!r}: give at least one worker.")
            count = min(executor or available_cores(), jobs)
            self.count = max(1, count)
            self.name = "this process" if self.count == 1 else f"{self.count} processes"
            if self.count > 1:
                from loky import ProcessPoolExecutor

                # loky starts clean processes that do not run the caller's script again.
                self._executor = ProcessPoolExecutor(self.count, timeout=60)
                self._owned = True
        elif isinstance(executor, Executor):
            self._executor = executor
            self._pickled = not isinstance(executor, ThreadPoolExecutor)
            self.count = int(getattr(executor, "_max_workers", 0) or available_cores())
            self.name = f"{type(executor).__module__.partition('.')[0]}.{type(executor).__name__}"
        elif hasattr(executor, "get_executor") and hasattr(executor, "nthreads"):
            self._executor = executor.get_executor(pure=False)
            self.count = max(1, sum(executor.nthreads().values()))
            self.name = f"dask cluster of {len(executor.nthreads())} workers"
        else:
            raise ArgumentError(
                f"executor={executor!r} cannot run jobs.",
                remedy="Give None, a number of processes, a concurrent.futures.Executor or a dask.distributed.Client.",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned and self._executor is not None:
            if kind is None:
                self._executor.shutdown(wait=True)
            else:
                self._executor.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]

    def run(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[int, Result]]:
        """(number, result) of each item, as they finish. The first exception ends it.

        Parameters
        ----------
        function : callable
        items : iterable
            Taken as workers become free, so that it may be long.
        """
        if self._executor is None:
            for number, item in enumerate(items):
                yield number, function(item)
            return
        waiting: dict[Future[Result], int] = {}
        numbered = enumerate(items)
        more = True
        try:
            while more or waiting:
                while more and len(waiting) < 2 * self.count + 1:
                    try:
                        number, item = next(numbered)
                    except StopIteration:
                        more = False
                        break
                    waiting[self._submit(function, item)] = number
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    number = waiting.pop(future)
                    yield number, future.result()
        finally:
            for future in waiting:
                future.cancel()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results in the order of the items."""
        results: list[Any] = [None] * len(items)
        for number, result in self.run(function, items):
            results[number] = result
        return results

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        assert self._executor is not None
        if not self._pickled:
            return self._executor.submit(function, item)
        import cloudpickle

        return self._executor.submit(call_pickled, cloudpickle.dumps((function, item)))


def call_pickled(payload: bytes) -> Any:
    """Call a pickled (function, item)."""
    import cloudpickle

    function, item = cloudpickle.loads(payload)
    return function(item)
