"""What is stored of real intensities, and that it can be undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tifffile

CHANNELS = {"DNA": "dna", "ER": "er", "Actin": "actin"}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("mask", ["none", "label"])
def test_percentiles_and_back(dtype: str, mask: str, build: Any, nf1: Any, crop: Any) -> None:
    """Stored pixels follow the formula; low and high give the intensities back within a step of the type."""
    low_percent, high_percent, shape = 2.0, 99.5, (1, 72, 72)
    table = nf1("nuclei").iloc[:1]
    built = build(
        table,
        channels=CHANNELS,
        shape=shape,
        dtype=dtype,
        mask=mask,
        normalize={"method": "percentile", "low": low_percent, "high": high_percent},
    )
    assert built.report.kept == 29
    image = np.stack([tifffile.imread(table[column].iloc[0])[None] for column in CHANNELS.values()]).astype(float)
    labels = tifffile.imread(table["label_path"].iloc[0])[None]
    scale = np.iinfo(dtype).max if dtype.startswith("u") else 1
    # Half a step of integers; of floats at most the spacing just below 1.
    step = 0.5 / scale if dtype.startswith("u") else np.finfo(dtype).epsneg / 2
    stored = built.dataset["cells"].values
    assert stored.dtype == dtype
    for number, cell in built.cells.iterrows():
        found = crop(image, cell, shape)
        inside = crop(np.ones(image.shape[1:]), cell, shape) > 0
        if mask == "label":
            inside &= crop(labels, cell, shape) == cell["label"]
        for channel, name in enumerate(CHANNELS):
            values, pixels = found[channel][inside], stored[number, channel][inside].astype(float) / scale
            low, high = np.percentile(values, [low_percent, high_percent])
            assert cell[f"norm_low_{name}"] == pytest.approx(low, rel=1e-12)
            assert cell[f"norm_high_{name}"] == pytest.approx(high, rel=1e-12)
            np.testing.assert_allclose(pixels, np.clip((values - low) / (high - low), 0, 1), atol=step * 1.01 + 1e-6)
            kept = (values > low) & (values < high)
            undone = low + pixels * (high - low)
            assert np.abs(undone - values)[kept].max() <= (high - low) * (step * 1.01 + 1e-6)
            assert not stored[number, channel][~inside].any()


def test_bounds_are_in_the_dataset(build: Any, nf1: Any) -> None:
    """The bounds of the manifest are coordinates too, by cell and channel."""
    built = build(nf1("nuclei").iloc[:2], channels=CHANNELS, shape=(1, 32, 32))
    for bound in ("low", "high"):
        inside = built.dataset[f"norm_{bound}"]
        assert inside.dims == ("cell", "c")
        np.testing.assert_array_equal(inside.values, built.cells[[f"norm_{bound}_{name}" for name in CHANNELS]])
