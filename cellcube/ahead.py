"""Making things ahead of time in threads: in order, not too many, and with nothing left behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
Done = TypeVar("Done")


def made_ahead(
    items: Iterable[Item], make: Callable[[Item], Made], finish: Callable[[Made], Done], ahead: int
) -> Generator[Done, None, None]:
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
    makers = ThreadPoolExecutor(min(ahead, 8), "cellcube-make")
    finisher = ThreadPoolExecutor(1, "cellcube-finish")
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
