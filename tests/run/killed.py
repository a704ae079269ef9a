"""Kills a build at its writes, one after the other, and lets the same call continue. Run as a script.

Arguments: the table, a dataset of version 1 of a part of its cells, a finished dataset of all cells, a folder to work
in, the step between the writes that are killed. Prints one line a kill; exits with 1 at the first that went wrong.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pandas as pd
from same import assert_same, pixel_objects

import cellcube
from cellcube.location import Location
from cellcube.run import build  # noqa: F401 - imported before the first fork, so that the children need not

FIELDS: dict[str, Any] = {"shape": (1, 48, 48), "executor": 1, "storage": {"shard_mb": 0.3}, "progress": False}


def in_child(function: Callable[[], None]) -> int:
    """Exit status of a function in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_build(table: str, root: Path, kill_at: int) -> None:
    """Build, and die without a word at the given write, half of it on the disk."""
    count = 0
    whole = {name: getattr(Location, name) for name in ("write", "copy_to", "create")}

    def counted(name: str) -> Callable[..., Any]:
        def call(self: Location, other: Any) -> Any:
            nonlocal count
            count += 1
            if count == kill_at:
                if isinstance(other, bytes | bytearray):
                    half = Path(self.url)
                    half.parent.mkdir(parents=True, exist_ok=True)
                    half.with_name(f".{half.name}.killed.partial").write_bytes(other[: len(other) // 2])
                os._exit(9)
            return whole[name](self, other)

        return call

    for name in whole:
        setattr(Location, name, counted(name))
    cellcube.build(table, root, **FIELDS)


def continued_build(table: str, root: Path, before: Path, finished: Path) -> None:
    """What a kill left reads as before or as after; the same call ends at the same dataset."""
    if (root / "cube.zarr/zarr.json").exists():
        dataset = cellcube.open(root)
        of = {path: cellcube.open(path) for path in (before, finished) if path.exists()}
        same = [other for other in of.values() if other.sizes == dataset.sizes]
        assert same, f"{dataset.sizes} is neither before nor after"
        for name in ("cells", "max_z", "mask"):
            assert (dataset[name].values == same[0][name].values).all()
        assert list(dataset["cell_id"].values) == list(same[0]["cell_id"].values)
    cellcube.build(table, root, **FIELDS)
    assert not list(root.rglob("*.partial")), "a finished build leaves nothing half written"
    assert_same(root, finished)


def main() -> None:
    """Kill at every step-th write until the build ends without being killed."""
    table, before, finished, folder, step = sys.argv[1], *map(Path, sys.argv[2:5]), int(sys.argv[5])
    kill_at, kills = 1, 0
    while True:
        root = folder / f"killed-{kill_at}"
        if before.exists():
            shutil.copytree(before, root)
        status = in_child(lambda root=root, kill_at=kill_at: killed_build(table, root, kill_at))
        if status == 0:
            break
        if status != 9:
            sys.exit(1)
        if in_child(lambda root=root: continued_build(table, root, before, finished)) != 0:
            print(f"after a kill at write {kill_at} the build did not continue to the same dataset")
            sys.exit(1)
        shutil.rmtree(root)
        kills += 1
        kill_at += step
    print(f"survived {kills} kills over {kill_at} writes")


if __name__ == "__main__":
    assert pd.__version__
    assert pixel_objects
    main()
