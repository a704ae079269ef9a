"""Conditions on tables, and values of them as text."""

from __future__ import annotations

import pandas as pd
import pytest

from cellcube.errors import ArgumentError, SpecError
from cellcube.tables import rows_that_meet, text_of

FRAME = pd.DataFrame({"well": ["A1", "B2", "B3"], "area": [1.0, 2.0, float("nan")]})


def test_rows_that_meet_a_condition() -> None:
    assert rows_that_meet(FRAME, "well.str.startswith('B') and area > 1", "where", ArgumentError).tolist() == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("condition", ["area >", "aera > 1", "area > @np.pi", "np.pi > area", "frame.area > 1"])
def test_a_condition_sees_the_columns_and_nothing_else(condition: str) -> None:
    with pytest.raises(SpecError, match=r"drop: the condition .* cannot be evaluated.*Columns are well, area"):
        rows_that_meet(FRAME, condition, "drop", SpecError)


@pytest.mark.parametrize("condition", ["area", "area + 1", "True", "1 < 2"])
def test_a_condition_is_true_or_false_for_each_row(condition: str) -> None:
    with pytest.raises(ArgumentError, match=r"where: .* not true or false"):
        rows_that_meet(FRAME, condition, "where", ArgumentError)


def test_whole_floats_are_the_text_of_whole_numbers() -> None:
    assert [text_of(value) for value in (3, 3.0, 3.5, "3.0", True, None)] == ["3", "3", "3.5", "3.0", "True", "None"]
