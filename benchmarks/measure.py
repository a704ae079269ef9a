"""What measuring a cell costs, in all and part by part.

    python benchmarks/measure.py [--rounds 5]

Cells are discs and ellipsoids in uint16 noise with a neighbour at one side: 2D boxes of 40 x 40 voxels with 5 channels,
and 3D boxes of 40 x 160 x 160 with 4. Prints the fastest round's µs per cell.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

import numpy as np

from cellcube.pixels.measure import measure_cell, surroundings
from cellcube.pixels.quality import focus_of, fragments_of, medians_of, neighbours_of
from cellcube.pixels.select import Box

CASES = {
    "2d": {"channels": 5, "image": (1, 500, 500), "box": (1, 40, 40)},
    "3d": {"channels": 4, "image": (40, 300, 300), "box": (40, 160, 160)},
}


def parts_of(case: str) -> dict[str, Callable[[], object]]:
    fields = CASES[case]
    image, size = fields["image"], fields["box"]
    names = tuple(f"channel{k}" for k in range(fields["channels"]))
    rng = np.random.default_rng(0)
    volumes = rng.integers(100, 4000, (len(names), *image), np.uint16)
    start = tuple((whole - part) // 2 for whole, part in zip(image, size, strict=True))
    box = Box(start, tuple(first + part for first, part in zip(start, size, strict=True)))
    around = surroundings(box, image)
    grid = np.ogrid[tuple(slice(first, last) for first, last in zip(around.start, around.stop, strict=True))]
    away = sum(
        ((at - first - (part - 1) / 2) / (part / 2)) ** 2 for at, first, part in zip(grid, start, size, strict=True)
    )
    labels = np.where(away <= 1, 3, 0).astype(np.uint16)
    labels[..., :8][labels[..., :8] == 0] = 5
    pixels = volumes[(slice(None), *around.slices)]
    within = tuple(slice(a - b, c - b) for a, c, b in zip(box.start, box.stop, around.start, strict=True))
    inside = labels[within] == 3
    values = pixels[(slice(None), *within)]
    background = np.stack([channel[labels == 0] for channel in pixels])
    saturation = [65535.0] * len(names)
    return {
        "all": lambda: measure_cell(pixels, labels, 3, box, around, image, (1.0, 0.3, 0.3), names, saturation),
        "all, no labels": lambda: measure_cell(pixels, None, 3, box, around, image, (1.0, 0.3, 0.3), names, saturation),
        "focus": lambda: focus_of(values),
        "background median": lambda: medians_of(background),
        "fragments": lambda: fragments_of(inside),
        "neighbours": lambda: neighbours_of(labels, labels == 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for case in CASES:
        calls = 1000 if case == "2d" else 5
        for name, part in parts_of(case).items():
            seconds = min(timeit.repeat(part, number=calls, repeat=rounds)) / calls
            print(f"{case} {name:18} {seconds * 1e6:10.1f} µs")


if __name__ == "__main__":
    main()
