"""Making things ahead of time in threads: in order, not too many, and with nothing left behind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
Done = TypeVar("Done")


def made_ahead(
    items: Iterable[Item], make: Callable[[Item], Made], finish: Callable[[Made], Done], ahead: int
) -> Iterator[Done]:
    """``finish(make(item))`` of every item, in order.

    Parameters
    ----------
    items : iterable
    make : callable
        Called in several threads at one time.
    finish : callable
        Called in one thread, in the order of the items.
    ahead : int
        How many are made while the caller is busy with one; 0 uses no threads.

    Raises
    ------
    Exception
        What `make` or `finish` raised, where that item would come. Threads have ended by then, as they have when the
        iterator is closed or forgotten.
    """
    if not ahead:
        for item in items:
            yield finish(make(item))
        return
    makers = ThreadPoolExecutor(min(ahead, 8), "cellcube-batch")
    finisher = ThreadPoolExecutor(1, "cellcube-transform")
    waiting: deque[Future[Done]] = deque()

    def finished(made: Future[Made]) -> Done:
        return finish(made.result())

    try:
        for item in items:
            waiting.append(finisher.submit(finished, makers.submit(make, item)))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # A maker that is cancelled ends the wait of its finisher.
        makers.shutdown(wait=False, cancel_futures=True)
        finisher.shutdown(wait=True, cancel_futures=True)
        makers.shutdown(wait=True)


class Windows(Generic[Made]):
    """Things that several takers share, each made once, the next one while this one is used, dropped after its last.

    Parameters
    ----------
    uses : list of int
        How many takers each window will have.
    make : callable
        Makes a window from its number, in a thread.
    """

    def __init__(self, uses: list[int], make: Callable[[int], Made]) -> None:
        self._uses, self._make = uses, make
        self._made: dict[int, Future[Made]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "cellcube-window")

    def take(self, number: int) -> Made:
        """A window; waits until it is made."""
        with self._lock:
            for each in (number, number + 1):
                if each < len(self._uses) and self._uses[each] and each not in self._made:
                    self._made[each] = self._pool.submit(self._make, each)
            future = self._made[number]
        return future.result()

    def give_back(self, number: int) -> None:
        """Say that a taker is done with a window."""
        with self._lock:
            self._uses[number] -= 1
            if not self._uses[number]:
                del self._made[number]

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._made.clear()
