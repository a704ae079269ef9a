"""Every object of a dataset with its size and hash: what tells whether a copy is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cellcube.location import Location
from cellcube.tables import is_in

OBJECT_COLUMNS = ("path", "size", "sha256", "run")


class Recorder:
    """Writes objects below a root, and notes size and SHA-256 of each.

    Parameters
    ----------
    root : Location
    """

    def __init__(self, root: Location) -> None:
        self.root = root
        self.noted: dict[str, tuple[int, str]] = {}

    def write(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """Write one object, whole or not at all."""
        (self.root / path).write(data)
        self.note(path, data)

    def note(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """Note an object that is written elsewhere."""
        self.add(path, len(data), sha256_of(data))

    def add(self, path: str, size: int, sha256: str) -> None:
        """Note an object whose hash is known."""
        self.noted[path] = (size, sha256)

    def frame(self, run: int) -> pd.DataFrame:
        """What was noted, as `OBJECT_COLUMNS`, sorted by path."""
        rows = [(path, size, sha256, run) for path, (size, sha256) in sorted(self.noted.items())]
        frame = pd.DataFrame(rows, columns=list(OBJECT_COLUMNS))
        return frame.astype({"path": str, "size": "int64", "sha256": str, "run": "int64"})


def sha256_of(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


def fold_objects(before: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    """One row an object: the latest that was written at each path."""
    if before is None or before.empty:
        return new.reset_index(drop=True)
    kept = before[~is_in(before["path"], new["path"])]
    return pd.concat([kept, new], ignore_index=True).sort_values("path", ignore_index=True)


def as_objects(frame: pd.DataFrame) -> Mapping[str, tuple[int, str]]:
    """(size, SHA-256) by path."""
    columns: list[Any] = [frame[name].tolist() for name in ("path", "size", "sha256")]
    return {path: (size, sha256) for path, size, sha256 in zip(*columns, strict=True)}
