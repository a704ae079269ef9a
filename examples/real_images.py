"""From the images of a plate to single cells: build, look, and compare genotypes.

The images are Cell Painting of cells with and without the gene NF1 (Way lab, CC0): five fields of view of five wells,
one TIFF file for each of three channels, and label images of the nuclei.

    python examples/real_images.py [FOLDER OF THE TEST IMAGES] [OUTPUT FOLDER]

The folder of the test images may also be given by the environment variable CELLCUBE_TEST_DATA; the images are expected
in its subfolder `nf1_cellpainting`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd

import cellcube
from cellcube.gallery.sheet import contact_sheet


def find_images(arguments: list[str]) -> Path:
    """The folder of the NF1 images; ends the script with a sentence where there is none."""
    given = arguments[0] if arguments else os.environ.get("CELLCUBE_TEST_DATA")
    if not given:
        sys.exit("Where are the test images? Give their folder as argument, or by CELLCUBE_TEST_DATA.")
    folder = Path(given).expanduser().resolve() / "nf1_cellpainting"
    if not (folder / "images").is_dir():
        sys.exit(f"There is no folder {folder / 'images'}: give the folder that holds `nf1_cellpainting`.")
    return folder


def make_table(folder: Path) -> pd.DataFrame:
    """A table with one row for every field of view: its files, and what is known about it.

    A row has no `label` column, which means: every cell in the label image. All columns that are not files
    (well, site, genotype) are metadata, and follow each cell into the dataset.
    """
    rows = []
    for dapi in sorted((folder / "images").glob("*_DAPI_*.tif")):
        # B7_01_1_3_DAPI_001.tif: well, plate part, channel number, site, dye, timepoint
        well, part, _, site, _, timepoint = dapi.stem.split("_")
        rows.append(
            {
                "fov_id": f"{well}_s{site}",
                "path_dna": str(dapi),
                "path_er": str(folder / "images" / f"{well}_{part}_2_{site}_GFP_{timepoint}.tif"),
                "path_actin": str(folder / "images" / f"{well}_{part}_3_{site}_RFP_{timepoint}.tif"),
                "label_path": str(folder / "labels" / f"{well}_s{site}_nuclei.tif"),
                "well": well,
                "site": int(site),
            }
        )
    # The plate map says which genotype is in which well.
    wells = pd.read_csv(folder / "platemap_NF1_plate2.csv").set_index("well_position")
    return pd.DataFrame(rows).join(wells["genotype"], on="well")


def main(arguments: list[str]) -> None:
    folder = find_images(arguments)
    output = Path(arguments[1] if len(arguments) > 1 else "nf1-dataset")

    # One call reads every image once, cuts out every nucleus with its surroundings, and writes the dataset.
    # Run the script again: nothing is done twice.
    report = cellcube.build(
        make_table(folder),
        output,
        name="nf1-cell-painting",
        description="Nuclei of cells with and without NF1, Cell Painting",
        licence="CC0-1.0",
        channels={"DNA": "path_dna", "ER": "path_er", "Actin": "path_actin"},  # channel: column with its files
        shape=(1, 96, 96),  # z, y, x in pixels; images of one plane have z = 1
        normalize={"method": "percentile", "low": 1, "high": 99.9},  # for each cell and channel
    )
    print(report)

    # Nothing is read yet: the dataset is a table of cells whose pixels are fetched when they are used.
    dataset = cellcube.open(output)
    print(f"\n{dataset.sizes['cell']} cells, channels {', '.join(dataset['c'].values)}")

    # The manifest has a row for every cell: where it came from, its metadata and its measures. Intensities are those
    # of the image, within the nucleus, before normalization.
    cells = pd.read_parquet(output / "cells.parquet")
    intensities = [f"intensity_mean_{channel}" for channel in dataset["c"].values]
    print("\nMean intensity within the nucleus, by genotype:")
    print(cells.groupby("genotype")[["area_voxels", *intensities]].mean().round(0).to_string())
    print(f"(number of nuclei: {cells.groupby('genotype').size().to_dict()}; one well of WT, so no conclusion yet)")

    # Pixels of a group: the average picture of its nuclei, read from the shards that hold them.
    chosen = dataset.isel(cell=(dataset["genotype"] == "WT").values)
    average = chosen["max_z"].sel(c="ER").astype("float32").mean("cell").compute()
    print(f"\nAverage ER of WT: {average.shape[0]} x {average.shape[1]} pixels, dark in the nucleus: ", end="")
    print(f"{float(average[40:56, 40:56].mean()):.2f} there, {float(average.mean()):.2f} over all")

    contact_sheet(dataset, "nf1-cells.png", cells=40)
    print("\nContact sheet: nf1-cells.png")


if __name__ == "__main__":
    main(sys.argv[1:])
