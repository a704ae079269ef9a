"""Jobs: which cells they have, and what their keys depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellcube import CubeSpec
from cellcube.cells import load_cells
from cellcube.plan import Job, fov_tasks, make_jobs
from cellcube.tables import is_in

FIELDS, CELLS = 30, 20


def table(**columns: Any) -> pd.DataFrame:
    numbers = np.arange(FIELDS * CELLS)
    base: dict[str, Any] = {
        "cell_id": [f"c{number}" for number in numbers],
        "fov_path": [f"/{number // CELLS}.tif" for number in numbers],
        "label_path": [f"/{number // CELLS}-labels.tif" for number in numbers],
        "label": numbers % CELLS + 1,
        "dose": numbers * 0.5,
        "well": "A1",
    }
    return pd.DataFrame({**base, **columns})


def jobs(frame: pd.DataFrame, digest: str = "", **fields: Any) -> tuple[Job, ...]:
    spec = CubeSpec(shape=(1, 8, 8), **fields)
    loaded = load_cells(frame, spec)
    return make_jobs(list(fov_tasks(loaded, loaded.frame, spec, None)), digest)


def changed(first: tuple[Job, ...], second: tuple[Job, ...]) -> list[int]:
    return [number for number, (a, b) in enumerate(zip(first, second, strict=True)) if a.key != b.key]


def test_jobs_have_all_cells_in_order() -> None:
    given = table()
    made = jobs(given)
    assert pd.concat([fov.cells for job in made for fov in job.fovs])["cell_id"].tolist() == given["cell_id"].tolist()
    assert [len(job.fovs) for job in made] == [8, 8, 8, 6]
    assert len({job.key for job in made}) == len(made)


def test_the_same_table_gives_the_same_keys() -> None:
    assert not changed(jobs(table()), jobs(table()))
    # Jobs of the same fields, wherever they stand in the table.
    later = jobs(table().iloc[8 * CELLS :])
    assert [job.key for job in later] == [job.key for job in jobs(table())[1:]]


@pytest.mark.parametrize(
    ("column", "value"), [("cell_id", "other"), ("label", 77), ("dose", 0.25), ("dose", np.nan), ("well", "A2")]
)
def test_a_cell_changes_the_key_of_its_job_alone(column: str, value: Any) -> None:
    other = table()
    other.loc[10 * CELLS, column] = value
    assert changed(jobs(table()), jobs(other)) == [1]


def test_what_else_changes_keys() -> None:
    every = list(range(4))
    plain = jobs(table())
    assert changed(plain, jobs(table(), "another spec or layout")) == every
    assert changed(plain, jobs(table(well="A1", plate="P"))) == every
    assert changed(plain, jobs(table().rename(columns={"dose": "amount"}))) == every
    # The text "1" and the number 1 are stored differently.
    assert changed(jobs(table(well=1)), jobs(table(well="1"))) == every
    swapped = table()
    swapped.iloc[[0, 1]] = swapped.iloc[[1, 0]].to_numpy()
    assert changed(plain, jobs(swapped)) == [0]


@pytest.mark.parametrize("dtype", [str, object])
def test_texts_among_others(dtype: type) -> None:
    values = pd.Series(["b", "", "a", "b", "ü"], index=[5, 5, 1, 2, 3], dtype=dtype)
    assert is_in(values, pd.Series(["b", "ü", "z", "b"], dtype=dtype)).tolist() == [True, False, False, True, True]
    assert is_in(values, pd.Series([], dtype=dtype)).tolist() == [False] * 5
    assert is_in(values[:0], values).tolist() == []
    assert is_in(pd.concat([values, values]), values[:1]).sum() == 4
