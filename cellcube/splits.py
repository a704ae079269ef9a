"""Parts of the data for training and testing, whole groups at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pandas as pd

from cellcube.spec import Split
from cellcube.tables import text_of


def assign_split(frame: pd.DataFrame, split: Split) -> list[str]:
    """The part of each row.

    A SHA-256 of the seed and the group's value is a number in 0..1; the parts divide 0..1 in the order of their names,
    each as wide as its fraction. So a group is in the same part in whatever table and order it comes.

    Parameters
    ----------
    frame : DataFrame
        With the columns of ``split.by``.
    split : Split

    Returns
    -------
    list of str
        One a row.
    """
    columns = [[text_of(value) for value in frame[name].tolist()] for name in split.by]
    known: dict[tuple[str, ...], str] = {}
    parts = []
    for group in zip(*columns, strict=True):
        if group not in known:
            known[group] = _part(group, split)
        parts.append(known[group])
    return parts


def empty_parts(parts: Sequence[str], split: Split) -> list[str]:
    """Parts that got no cell."""
    return sorted(set(split.fractions) - set(parts))


def _part(group: tuple[str, ...], split: Split) -> str:
    hashed = hashlib.sha256("\x1f".join([str(split.seed), *group]).encode()).digest()
    place = int.from_bytes(hashed[:8], "big") / 2**64
    names = sorted(split.fractions)
    above = 0.0
    for name in names:
        above += split.fractions[name]
        if place < above:
            return name
    # The fractions sum to 1 but for rounding.
    return names[-1]
