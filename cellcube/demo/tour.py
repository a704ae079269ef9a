"""`cellcube demo`: plates, a build, the catalog, a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cellcube
from cellcube.demo.plates import write_plate
from cellcube.errors import NotADatasetError
from cellcube.gallery.sheet import contact_sheet

MARK = ".cellcube-demo"


def run_demo(folder: Path, *, workers: int | None = None, say: Callable[[str], None] = print) -> None:
    """Write synthetic plates, build a 2D and a 3D dataset, open them by their catalogs, draw contact sheets.

    Parameters
    ----------
    folder : Path
        New, empty, or of an earlier demo, whose datasets then are kept.
    workers : int, optional
        Processes; None is one a core.
    say : callable
        Takes each line of the account.

    Raises
    ------
    NotADatasetError
        Where the folder holds something else.
    """
    import intake

    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise NotADatasetError("The folder holds something else.", path=str(folder), remedy="Give a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()

    say(f"1. Synthetic plates (OME-TIFF and label images) in {folder / 'plate'}")
    plate = write_plate(folder / "plate")
    say("   One field of view is cut short on purpose; cells lie at the borders.")

    jobs: dict[str, tuple[Path, dict[str, Any]]] = {
        "cells-2d": (plate.cells_csv, {"shape": (1, 96, 96), "projections": [], "edge": "drop"}),
        "cells-3d": (plate.cells_3d_csv, {"shape": (24, 72, 72), "projections": ["max_z"], "edge": "pad"}),
    }
    for number, (name, (table, fields)) in enumerate(jobs.items(), start=2):
        root = folder / name
        say("")
        say(f"{number}. cellcube.build({table.name!r}, {name!r}, {_call(fields)})")
        report = cellcube.build(
            table,
            root,
            executor=workers,
            name=f"demo/{name}",
            description="Synthetic cells made by `cellcube demo`.",
            licence="CC0-1.0",
            **fields,
        )
        for line in report.lines():
            say(f"   {line}")

        catalog = intake.open_catalog(str(root / "catalog.yaml"))
        dataset = catalog["normalized_cells"].to_dask()
        say(f"   opened by intake.open_catalog({report.catalog!r}):")
        for source in catalog:
            say(f"     {source:<17} {catalog._entries[source].describe()['description']}")
        say(f"   cells {dict(dataset['cells'].sizes)}, nothing read yet")
        sheet = root.with_suffix(".png")
        contact_sheet(cellcube.open(root), sheet, cells=40)
        say(f"   contact sheet    {sheet}")

    say("")
    say(f"Look at {folder / 'cells-2d.png'} and {folder / 'cells-3d.png'}.")
    say("For images of your own, start from a table with the columns cell_id, fov_path, label_path, label")
    say("(or fov_path, label_path alone for every label in every image) and:")
    say("")
    say("    cellcube build my_cells.csv my-dataset --set 'shape=[1, 96, 96]' --dry-run")
    say("    cellcube build my_cells.csv my-dataset --set 'shape=[1, 96, 96]'")


def _call(fields: dict[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())
