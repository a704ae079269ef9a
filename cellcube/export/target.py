"""Where an export writes: a folder of its own, whose files it may replace."""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellcube.errors import ArgumentError
from cellcube.export.selection import ExportReport, Selection
from cellcube.ledger import write_table
from cellcube.location import Location
from cellcube.urls import public_url

MARK = "export.json"
# Files that are encoded and written at a time; a store answers each request late.
_AT_ONCE = 8


class Target:
    """A folder that holds one export.

    Files are replaced one by one, each whole or not at all. `export.json` in it tells what it is an export of, and
    which files are its own; it is what allows the next export of the same format to replace them. Its ``finished`` is
    false while one is under way.
    """

    def __init__(self, folder: Location, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self.written: dict[str, int] = {}

    def write(self, path: str, data: bytes) -> None:
        """Put a file at a path inside the folder."""
        (self.folder / path).write(data)
        self.written[path] = len(data)

    def write_each(self, files: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
        """Encode and write files, a few at a time; `files` is not read further ahead than that."""
        from concurrent.futures import Future, ThreadPoolExecutor

        def one(path: str, encode: Callable[[], bytes]) -> None:
            self.write(path, encode())

        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for path, encode in files:
                waiting.append(pool.submit(one, path, encode))
                if len(waiting) > _AT_ONCE:
                    waiting.popleft().result()
            for each in waiting:
                each.result()

    def put(self, path: str, file: Path) -> None:
        """Put a local file, that is no longer needed where it is, at a path inside the folder."""
        self.written[path] = file.stat().st_size
        Location(str(file)).copy_to(self.folder / path)
        file.unlink()

    def write_manifest(self, frame: Any, selection: Selection, columns: Mapping[str, str]) -> None:
        """``cells.parquet`` and ``cells.csv``: the manifest's rows of the exported cells.

        Parameters
        ----------
        frame : DataFrame
        selection : Selection
        columns : mapping
            What the columns mean that the export added.
        """
        known = {**selection.descriptions(), **columns}
        described = {str(name): known.get(str(name), "From the cell table") for name in frame.columns}
        parquet = self.folder / "cells.parquet"
        write_table(parquet, frame, {"version": selection.version, "columns": described})
        self.written["cells.parquet"] = parquet.size() or 0
        self.write("cells.csv", frame.to_csv(index=False, lineterminator="\n").encode())

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local folder for files that are too large for memory; in the target where that is local."""
        place = self.folder.url if self.folder.is_local else None
        with tempfile.TemporaryDirectory(dir=place, prefix=".export.", suffix=".partial") as folder:
            yield Path(folder)

    def mark(self, files: Iterable[str], finished: bool) -> None:
        """Write `export.json`."""
        document = {**self.about, "finished": finished, "files": sorted(files)}
        self.write(MARK, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


@contextmanager
def export_target(
    to: str | os.PathLike[str],
    kind: str,
    selection: Selection,
    planned: Sequence[str],
    storage_options: Mapping[str, Any] | None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Target]:
    """A folder to export into; at the end, what an export before has left in it is removed.

    Parameters
    ----------
    to : path or URL
    kind : str
        Name of the format.
    selection : Selection
    planned : sequence of str
        Paths of all files that will be written.
    storage_options : mapping, optional
    options : mapping, optional
        What else tells how the export was made.

    Raises
    ------
    ArgumentError
        Where the folder is inside the dataset, is a file, or holds something other than an export of this format.
    """
    folder = Location.of(to, storage_options)
    check_outside(folder, selection.root)
    before = _files_before(folder, kind)
    target = Target(folder, {**selection.about(kind, folder), **(options or {})})
    for name in folder.names():
        if name.startswith(".") and name.endswith(".partial"):
            (folder / name).remove()
    target.mark({*before, *planned, MARK}, finished=False)
    yield target
    for path in before - set(target.written):
        (folder / path).remove()
        if folder.is_local:
            (folder / path).parent.remove_empty()
    target.mark(target.written, finished=True)


def report_of(target: Target, cells: int) -> ExportReport:
    """What was written into a target."""
    return ExportReport(len(target.written), cells, sum(target.written.values()), public_url(target.folder.url))


def check_outside(to: Location, root: Location) -> None:
    """Raise where a place is inside of a dataset, which nothing but a build writes to."""
    here, there = (
        os.path.realpath(each.url) if each.is_local else each.url.rstrip("/") for each in (to, root)
    )  # fmt: skip
    if here == there or here.startswith(f"{there}{os.sep if to.is_local else '/'}"):
        raise ArgumentError(
            "The export would be written into the dataset.",
            path=public_url(to.url),
            remedy="Give a folder outside of it.",
        )


def _files_before(folder: Location, kind: str) -> set[str]:
    """Paths of the files of an export of the same format that is in a folder."""
    if folder.is_local and Path(folder.url).is_file():
        raise ArgumentError("The target is a file, not a folder.", path=folder.url, remedy="Give a new folder.")
    names = [name for name in folder.names() if not name.endswith(".partial")]
    if not names:
        return set()
    remedy = "Give an empty or a new folder."
    try:
        found = json.loads((folder / MARK).read())
        other, files = found["format"], {str(path) for path in found["files"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise ArgumentError(
            f"The folder holds something that is not an export: {shown}.", path=public_url(folder.url), remedy=remedy
        ) from None
    if other != kind:
        raise ArgumentError(
            f"The folder holds an export of another format, {other!r}.", path=public_url(folder.url), remedy=remedy
        )
    # A file that was tampered with must not have files elsewhere removed.
    return {path for path in files if not path.startswith("/") and ".." not in path.split("/") and "\\" not in path}
