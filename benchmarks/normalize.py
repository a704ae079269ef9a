"""Microseconds a cell that normalization takes, by method, stored type and kind of crop.

    python benchmarks/normalize.py [--channels 5] [--size 96]

One process; the best of several rounds. Crops look like fluorescence: a camera offset with a skewed signal above it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from cellcube.pixels.normalize import Normalization
from cellcube.spec import METHODS, Range, Raw

ROUNDS = 7
# Different crops, because processors learn the branches of one.
CROPS = 40


def microseconds(normalization: Normalization, crops: np.ndarray, counted: list[Any]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for crop in crops:
            normalization(crop, counted, {})
        best = min(best, (time.process_time() - started) / len(crops))
    return best * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=5)
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    count, size = options.channels, options.size
    rng = np.random.default_rng(0)
    shape = (CROPS, count, 1, size, size)
    crops = (rng.gamma(2, 150, shape) + rng.poisson(100, shape)).astype(np.uint16)
    y, x = np.mgrid[:size, :size] - size / 2
    mask = (y**2 + x**2 < (0.31 * size) ** 2)[None]
    cases = {
        "uint16": (crops, [None] * count),
        "masked": (crops, [mask] * count),
        "wide": ((crops.astype(np.uint32) * 30).clip(0, 65_535).astype(np.uint16), [None] * count),
        "float32": (crops.astype(np.float32) + rng.random(shape, np.float32), [None] * count),
    }
    print(f"{'µs a cell':24}" + "".join(f"{name:>10}" for name in cases))
    for name, method in METHODS.items():
        normalizer = method(low=0, high=4000) if method is Range else method()
        dtypes = ("uint16",) if method is Raw else ("float16", "float32")
        dtypes += ("uint8",) if name in ("percentile", "minmax", "range") else ()
        for dtype in dtypes:
            normalization = Normalization((normalizer,) * count, np.dtype(dtype))
            times = [microseconds(normalization, *case) for case in cases.values()]
            print(f"{name + ' ' + dtype:24}" + "".join(f"{each:10.0f}" for each in times))


if __name__ == "__main__":
    main()
