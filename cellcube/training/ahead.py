"""Things that several threads share, made ahead of time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


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
