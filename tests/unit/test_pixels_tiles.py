"""Parts of a tiled image: all that is asked for, each voxel once, nothing that is not."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellcube.pixels import Box, around, needed_parts


@st.composite
def boxes(draw: Any) -> list[Box]:
    def interval(size: int) -> tuple[int, int]:
        start = draw(st.integers(0, size - 1))
        return start, draw(st.integers(start + 1, min(size, start + 9)))

    found = []
    for _ in range(draw(st.integers(1, 4))):
        (z0, z1), (y0, y1), (x0, x1) = interval(3), interval(60), interval(60)
        found.append(Box((z0, y0, x0), (z1, y1, x1)))
    return found


@given(boxes(), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_parts_hold_the_boxes_and_only_their_tiles(wanted: list[Box], tile: tuple[int, int]) -> None:
    read = np.zeros((3, 60, 60), int)
    for part in needed_parts(wanted, tile):
        read[part.slices] += 1
    assert read.max() == 1, "a voxel is read twice"
    touched = np.zeros((60, 60), bool)
    for box in wanted:
        assert read[box.slices].all()
        _, y, x = box.slices
        rows = slice(y.start // tile[0] * tile[0], -(-y.stop // tile[0]) * tile[0])
        touched[rows, x.start // tile[1] * tile[1] : -(-x.stop // tile[1]) * tile[1]] = True
    region = around(wanted)
    _, y, x = region.slices
    most = read.any(axis=0)
    if needed_parts(wanted, tile) != [region]:
        assert not most[~touched].any()
    assert not np.delete(most, np.r_[y], axis=0).any()
    assert not np.delete(most, np.r_[x], axis=1).any()


def test_far_corners() -> None:
    """Two cells at the ends of a slide need two tiles, not the slide."""
    corners = [Box((0, 10, 10), (1, 50, 50)), Box((0, 39_000, 39_100), (1, 39_040, 39_140))]
    parts = needed_parts(corners, (512, 512))
    assert len(parts) == 2
    assert sum(np.prod(part.size) for part in parts) <= 2 * 512 * 512
    assert needed_parts(corners, None) == [around(corners)]
