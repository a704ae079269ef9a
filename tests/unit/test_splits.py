"""Parts of the data: whole groups, stable, near their fractions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcube.spec import Split
from cellcube.splits import assign_split, empty_parts

PINNED = ["train", "train", "test", "val", "train", "train"]
SPLIT = Split(by="well", fractions={"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)


def wells(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"well": names, "cell": range(len(names))})


def test_fractions_are_met_by_many_groups() -> None:
    parts = pd.Series(assign_split(wells([f"P{n // 384}-{n % 384}" for n in range(20_000)]), SPLIT))
    shares = parts.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.012)


@given(st.lists(st.text(max_size=4), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_a_group_is_in_one_part_whatever_the_order(names: list[str], random: object) -> None:
    frame = wells(names)
    parts = frame.assign(part=assign_split(frame, SPLIT))
    assert (parts.groupby("well")["part"].nunique() == 1).all()
    shuffled = frame.sample(frac=1, random_state=len(names))
    again = shuffled.assign(part=assign_split(shuffled, SPLIT))
    assert dict(zip(again["cell"], again["part"], strict=True)) == dict(zip(parts["cell"], parts["part"], strict=True))


def test_other_tables_do_not_matter() -> None:
    assert assign_split(wells(["A", "B"]), SPLIT)[1] == assign_split(wells(["B"]), SPLIT)[0]


def test_the_order_of_the_parts_does_not_matter() -> None:
    other = Split(by="well", fractions={"test": 0.2, "train": 0.7, "val": 0.1}, seed=3)
    names = [str(n) for n in range(300)]
    assert assign_split(wells(names), other) == assign_split(wells(names), SPLIT)


def test_the_seed_matters() -> None:
    other = Split(by="well", fractions=SPLIT.fractions, seed=4)
    names = [str(n) for n in range(100)]
    assert assign_split(wells(names), other) != assign_split(wells(names), SPLIT)


def test_pinned() -> None:
    # A published split must never change.
    assert assign_split(wells(["A01", "A02", "A03", "B01", "B02", "H12"]), SPLIT) == PINNED


def test_several_columns_and_numbers() -> None:
    split = Split(by=["plate", "row"], fractions={"a": 0.5, "b": 0.5})
    whole = pd.DataFrame({"plate": ["x"] * 40, "row": np.arange(40)})
    gaps = whole.assign(row=whole["row"].astype(float))
    assert assign_split(whole, split) == assign_split(gaps, split)
    assert set(assign_split(whole, split)) == {"a", "b"}


def test_empty_parts() -> None:
    parts = assign_split(wells(["A"]), SPLIT)
    assert empty_parts(parts, SPLIT) == sorted({"train", "val", "test"} - set(parts))
