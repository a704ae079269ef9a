"""scPortrait's side of benchmarks/rivals.py, run by the Python of an environment that has scportrait.

All FOVs lie side by side in one image, as one project, which is how scPortrait takes a slide and saves it the set-up of
many projects. Prints JSON: cells, seconds and processor seconds of all, and of the extraction alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

import numpy as np
from rivals import CROP, NAMES, Clock


def main() -> None:
    import tifffile
    from scportrait.pipeline.extraction import HDF5CellExtraction
    from scportrait.pipeline.project import Project

    parser = argparse.ArgumentParser()
    for name in ("folder", "out"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("fovs", "workers"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()

    whole = Clock()
    with contextlib.redirect_stdout(sys.stderr):
        config = {
            "name": "rival",
            "input_channels": NAMES,
            "HDF5CellExtraction": {
                "threads": options.workers,
                "image_size": CROP,
                "cache": str(options.out),
                "normalization_range": (0.01, 0.999),
            },
        }
        (options.out / "project").mkdir()
        project = Project(
            str(options.out / "project"), config_path=config, extraction_f=HDF5CellExtraction, overwrite=True
        )
        images, masks, count = [], [], 0
        for fov in range(options.fovs):
            images.append(tifffile.imread(options.folder / f"fov{fov}.ome.tif"))
            labels = tifffile.imread(options.folder / f"fov{fov}_labels.tif").astype(np.uint32)
            masks.append(np.where(labels > 0, labels + np.uint32(count), np.uint32(0)))
            count += int(labels.max())
        project.load_input_from_array(np.concatenate(images, axis=2), channel_names=NAMES)
        project.filehandler._write_segmentation_sdata(np.concatenate(masks, axis=1), project.nuc_seg_name)
        project.filehandler._add_centers(segmentation_label=project.nuc_seg_name)
        project.get_project_status()
        alone = Clock()
        project.extract()
        cells = project.h5sc.n_obs
    extraction = alone.stop(cells)
    print(json.dumps({**whole.stop(cells), "extraction": extraction}))


if __name__ == "__main__":
    main()
