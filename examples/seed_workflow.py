"""A whole workflow on synthetic images: select, normalize, project, make a dataset, analyse it.

    python examples/seed_workflow.py [folder]

Which treatment does what to nuclei? The images are of a screen with DMSO, etoposide (which swells nuclei) and
tunicamycin (which stresses the ER). Everything is written to the folder; run it again, and only what is missing is
done.
"""

import sys
from pathlib import Path
from typing import Any

import intake
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import mannwhitneyu

import cellcube
from cellcube.demo.plates import write_plate
from cellcube.gallery.sheet import contact_sheet

Pixels = npt.NDArray[Any]


def select(folder: Path) -> pd.DataFrame:
    """The cells of interest: one row a nucleus, whichever program segmented it."""
    plate = write_plate(folder / "plate", volumes=0)
    cells = pd.read_csv(plate.cells_csv, dtype={"cell_id": str})
    cells["label_path"] = cells["label_path"].str.replace("_cells", "_nuclei")
    for column in ("fov_path", "label_path"):
        cells[column] = str(plate.folder) + "/" + cells[column]
    return cells


def normalize(pixels: Pixels, cell: dict[str, Any]) -> Pixels:
    """Intensities above the local background, as a share of the brightest; (c, z, y, x) in and out."""
    above = pixels - np.median(pixels, axis=(1, 2, 3), keepdims=True)
    return np.clip(above, 0, None) / max(float(above.max()), 1.0)


def make_dataset(cells: pd.DataFrame, root: Path) -> cellcube.BuildReport:
    """Cut, normalize and project each nucleus, on all cores of this machine."""
    return cellcube.build(
        cells,
        root,
        name="examples/nuclei",
        description="Nuclei of a synthetic screen, made by examples/seed_workflow.py.",
        licence="CC0-1.0",
        channels=["DNA", "ER"],
        shape=(1, 48, 48),
        normalize=normalize,
        projections=["max_z"],
        drop="touches_border",
    )


def analyse(catalog_path: Path) -> pd.DataFrame:
    """What each treatment does, from the published folder alone: neither cellcube nor the images are needed."""
    catalog = intake.open_catalog(str(catalog_path))
    cells = catalog["cells"].read()
    images = catalog["max_z"].to_dask()
    # Texture comes from the pixels: how uneven the normalized DNA of each nucleus is. Rows are in the cube's order.
    texture = images["max_z"].sel(c="DNA").astype("float32").std(["y", "x"]).compute()
    cells["texture_DNA"] = texture.values

    measures = {"area_um2": "nuclear area", "intensity_mean_ER": "ER intensity", "texture_DNA": "DNA texture"}
    control = cells[cells["treatment"] == "DMSO"]
    rows = []
    for treatment, treated in cells.groupby("treatment"):
        for column, name in measures.items():
            ratio = treated[column].median() / control[column].median()
            p = mannwhitneyu(treated[column], control[column]).pvalue
            rows.append({"treatment": treatment, "cells": len(treated), "measure": name, "ratio": ratio, "p": p})
    return pd.DataFrame(rows)


def main(folder: Path) -> None:
    cells = select(folder)
    print(f"{len(cells)} nuclei selected in {cells['fov_id'].nunique()} fields of view")

    report = make_dataset(cells, folder / "nuclei")
    print(report)
    contact_sheet(cellcube.open(folder / "nuclei"), folder / "nuclei.png", cells=30)

    effects = analyse(folder / "nuclei" / "catalog.yaml")
    print("\nMedian of each treatment, as a ratio to DMSO (Mann-Whitney p):")
    for row in effects[effects["treatment"] != "DMSO"].to_dict("records"):
        mark = "  <- differs" if row["p"] < 0.001 else ""
        print(f"  {row['treatment']:<12} {row['measure']:<14} {row['ratio']:.2f}  (p = {row['p']:.1g}){mark}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "seed-workflow"))
