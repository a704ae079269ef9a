"""Building datasets from real images, and reading the same images without cellcube."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cellcube
from cellcube.run.report import BuildReport


@dataclass(frozen=True)
class Built:
    """A dataset and what its build said."""

    report: BuildReport
    root: Path

    @property
    def cells(self) -> pd.DataFrame:
        return pd.read_parquet(self.root / "cells.parquet")

    @property
    def dataset(self) -> xr.Dataset:
        return cellcube.open(self.root)

    @property
    def reasons(self) -> dict[str, str]:
        return dict(zip(self.report.outcomes["cell_id"], self.report.outcomes["reason"], strict=True))


BuildIt = Callable[..., Built]


@pytest.fixture
def build(tmp_path: Path) -> BuildIt:
    """`cellcube.build` in this process, into a new folder; checks that the counts reconcile."""
    count = iter(range(1000))

    def run(cells: pd.DataFrame | str | Path, **fields: Any) -> Built:
        root = tmp_path / f"dataset{next(count)}"
        report = cellcube.build(cells, root, executor=1, progress=False, **fields)
        assert report.requested == report.kept + report.dropped + report.failed == len(report.outcomes)
        assert (report.outcomes["reason"] != "").sum() == report.dropped + report.failed
        if report.kept:
            built = Built(report, root)
            assert len(built.cells) == report.kept == built.dataset.sizes["cell"]
        else:
            assert report.version == 0
            assert not (root / "cube.zarr").exists()
        return Built(report, root)

    return run


@pytest.fixture
def nf1(data: Path) -> Callable[[str], pd.DataFrame]:
    """Table of the NF1 plate's FOVs, for labels of ``nuclei`` or ``cells``."""
    folder = data / "nf1_cellpainting"

    def table(labels: str) -> pd.DataFrame:
        rows = []
        for dapi in sorted((folder / "images").glob("*_DAPI_*.tif")):
            well, _, _, site, _, _ = dapi.stem.split("_")
            rows.append(
                {
                    "fov_id": f"{well}_s{site}",
                    "dna": str(dapi),
                    "er": str(dapi.with_name(f"{well}_01_2_{site}_GFP_001.tif")),
                    "actin": str(dapi.with_name(f"{well}_01_3_{site}_RFP_001.tif")),
                    "label_path": str(folder / "labels" / f"{well}_s{site}_{labels}.tif"),
                    "well": well,
                    "site": int(site),
                }
            )
        wells = pd.read_csv(folder / "platemap_NF1_plate2.csv").set_index("well_position")
        return pd.DataFrame(rows).join(wells["genotype"], on="well")

    return table


@pytest.fixture
def crop() -> Callable[[np.ndarray, pd.Series, tuple[int, int, int]], np.ndarray]:
    """Voxels of a crop found again in the FOV by the manifest's geometry; 0 outside the image."""

    def find(image: np.ndarray, cell: pd.Series, shape: tuple[int, int, int]) -> np.ndarray:
        # Padded by the crop's size on every side, so that a plain slice does it.
        padded = np.pad(image, [(0, 0)] * (image.ndim - 3) + [(size, size) for size in shape])
        place = tuple(
            slice(cell[f"origin_{letter}"] + size, cell[f"origin_{letter}"] + 2 * size)
            for letter, size in zip("zyx", shape, strict=True)
        )
        return padded[(..., *place)]

    return find
