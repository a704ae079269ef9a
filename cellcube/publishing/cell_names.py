"""Which cell lies where in the cube, as the runs tell."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import pandas as pd

from cellcube import cube as cubes
from cellcube.cube import CubeState
from cellcube.errors import CellcubeError, DatasetDamagedError
from cellcube.location import Location
from cellcube.manifest import CELLS, read_retracted
from cellcube.publishing.listing import parse_table, read_bytes, run_table
from cellcube.run.commit import coordinate_columns, documents_of, manifest_coordinates


class CellNames:
    """The cells of a dataset by their place.

    Parameters
    ----------
    root : Location
    version : int
    """

    def __init__(self, root: Location, version: int) -> None:
        self._root = root
        self._version = version
        self._chunks: dict[str, bytes] | None = None

    def of(self, positions: Iterable[int]) -> tuple[str, ...]:
        """Identifiers of the cells at these places; ``position <n>`` where nothing tells."""
        positions = list(positions)
        return tuple(self._ids.get(each, f"position {each}") for each in positions) if positions else ()

    def run_of(self, position: int) -> int:
        """The run that added the cell at a place."""
        return self._runs[position]

    @cached_property
    def _ids(self) -> dict[int, str]:
        return {position: cell for position, (cell, _) in self._known.items()}

    @cached_property
    def _runs(self) -> dict[int, int]:
        return {position: run for position, (_, run) in self._known.items()}

    @cached_property
    def _known(self) -> dict[int, tuple[str, int]]:
        frames = [self._cells(number) for number in range(1, self._version + 1)]
        if any(frame is None for frame in frames):
            data = read_bytes(self._root / CELLS)
            manifest = parse_table(data) if data is not None else None
            frames.append(manifest[0] if manifest is not None else None)
        found: dict[int, tuple[str, int]] = {}
        for frame in frames:
            if frame is not None and {"cell_id", "position", "run"} <= set(frame.columns):
                places = [int(each) for each in frame["position"]]
                found.update(zip(places, zip(frame["cell_id"], frame["run"], strict=True), strict=True))
        return found

    def _cells(self, number: int) -> pd.DataFrame | None:
        try:
            return run_table(self._root, number, "cells")
        except DatasetDamagedError:
            return None

    def coordinate_chunks(self, root: Location, state: CubeState) -> dict[str, bytes]:
        """Every object of the coordinates as the runs tell it; nothing where their tables are damaged."""
        if self._chunks is None:
            try:
                rows = all_rows(root, state)
            except CellcubeError:
                return {}
            documents = documents_of(state)
            if len(rows) != state.count:
                return {}
            self._chunks = cubes.coordinate_chunks(root / "cube.zarr", documents, state.layout, 0, rows)
        return self._chunks


def all_rows(root: Location, state: CubeState) -> pd.DataFrame:
    """Rows of all cells of a cube for `cellcube.cube.coordinate_chunks`.

    Raises
    ------
    DatasetDamagedError
        Where a table of a run is damaged.
    """
    frames = []
    gone: dict[int, int] = {}
    for number in range(1, state.version + 1):
        cells = run_table(root, number, "cells") if _adds(state, number) else None
        if cells is not None:
            frames.append(manifest_coordinates(cells, state.layout))
        if state.retracted_at(number) > (state.retracted_at(number - 1) if number > 1 else 0):
            retracted = read_retracted(root, number)
            gone.update(dict.fromkeys(map(int, retracted["position"]), number))
    rows = pd.concat([frame[coordinate_columns(state.layout)] for frame in frames], ignore_index=True)
    rows["retracted"] = [gone.get(position, 0) for position in range(len(rows))]
    return rows


def _adds(state: CubeState, number: int) -> bool:
    return state.count_at(number) > (state.count_at(number - 1) if number > 1 else 0)
