"""Bytes that go to workers and come back, a cell: what a scheduler passes on.

python benchmarks/network.py
"""

from __future__ import annotations

import tempfile
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import cloudpickle

import cellcube
from cellcube.demo.plates import write_plate
from cellcube.run.result import JobResult

SHAPE = (1, 96, 96)


class Counting(Executor):
    """Does everything at once, and counts the bytes of what is asked and answered for jobs."""

    def __init__(self) -> None:
        self.cells = self.asked = self.answered = 0

    def submit(self, function: Any, payload: bytes, /) -> Future[Any]:  # type: ignore[override]
        """The answer to a pickled call."""
        answer: Future[Any] = Future()
        result = function(payload)
        answer.set_result(result)
        if isinstance(result, JobResult):
            self.cells += len(result.outcomes)
            self.asked += len(payload)
            self.answered += len(cloudpickle.dumps(result))
        return answer


def main() -> None:
    """Build a plate of synthetic fields and print the bytes a cell."""
    counting = Counting()
    with tempfile.TemporaryDirectory() as folder:
        plate = write_plate(Path(folder, "plate"), sites=12, volumes=0)
        cellcube.build(plate.cells_csv, Path(folder, "cells"), executor=counting, progress=False, shape=SHAPE)
        channels = cellcube.open(Path(folder, "cells")).sizes["c"]
    crop = channels * SHAPE[0] * SHAPE[1] * SHAPE[2] * 2
    cells = counting.cells
    print(f"{cells} cells with crops of {crop:,} bytes")
    print(f"{counting.asked / cells:.0f} bytes a cell to the workers, {counting.answered / cells:.0f} back")


if __name__ == "__main__":
    main()
