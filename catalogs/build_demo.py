"""Make the tiny dataset in catalogs/demo again.

    python catalogs/build_demo.py [root]

A synthetic plate is painted into memory, so that the provenance holds no path of the machine it was made on.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import fsspec
import pandas as pd

import cellcube
from cellcube.demo.plates import write_plate

COLUMNS = ["cell_id", "fov_id", "fov_path", "label_path", "label", "well", "treatment"]
SPEC = cellcube.CubeSpec(
    name="cellcube/demo",
    description="Twelve synthetic nuclei of three treatments; for trying out catalogs.",
    licence="CC0-1.0",
    channels=["DNA", "ER"],
    shape=(1, 32, 32),
    dtype="uint8",
    projections=[],
    storage={"shard_mb": 0.05},
)


def main(root: Path) -> None:
    """Replace the dataset at `root`."""
    memory = fsspec.filesystem("memory")
    with tempfile.TemporaryDirectory() as folder:
        plate = write_plate(folder, sites=1, size=200, volumes=0, broken=False)
        table = pd.read_csv(plate.cells_csv).head(12)[COLUMNS]
        table["label_path"] = table["label_path"].str.replace("_cells", "_nuclei")
        table.to_csv(plate.cells_csv, index=False)
        memory.put(folder, "/plate", recursive=True)
    with tempfile.TemporaryDirectory() as folder:
        # The dataset is replaced after the build, which writes down whether the repository holds changes.
        new = Path(folder) / "demo"
        print(cellcube.build("memory://plate/cells_2d.csv", new, SPEC, executor=1))
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(new, root)
    memory.rm("/plate", recursive=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "demo")
