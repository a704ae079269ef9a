"""Where the time of a job goes."""

from __future__ import annotations

import time
from types import TracebackType

# In the order in which a cell passes them; "wait" is for a field of view that is being read ahead.
STAGES = ("wait", "read", "select", "measure", "normalize", "encode", "write")


class Stopwatch:
    """Seconds by stage.

    Attributes
    ----------
    seconds : dict
        Of every stage of `STAGES`.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def timing(self, stage: str) -> _Timing:
        """A context that adds the time that is spent within to a stage."""
        return _Timing(self.seconds, stage)

    def add(self, other: Stopwatch) -> None:
        """Add what another one measured."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds


class _Timing:
    # Several for each cell: a class is several times faster here than a generator.
    __slots__ = ("_seconds", "_stage", "_start")

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds = seconds
        self._stage = stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds[self._stage] += time.perf_counter() - self._start
