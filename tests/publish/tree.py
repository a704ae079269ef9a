"""A tree of published datasets, on disk, in S3 and behind HTTP, and a stranger who opens it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cellcube
from cellcube.publishing.publish import publish

HERE = Path(__file__).parent


def make_tree(dataset: Path, folder: Path, s3: dict[str, Any]) -> dict[str, Any]:
    """Publish a dataset of two versions twice, in one of them with a cell retracted. Gives what must be found."""
    again = Path(shutil.copytree(dataset, folder / "work"))
    gone = str(cellcube.open(again)["cell_id"].values[2])
    cellcube.retract(again, [gone], "out of focus")
    catalog = folder / "site" / "catalog.yaml"
    publish(dataset, folder / "site" / "whole", catalog=catalog, progress=False)
    publish(again, folder / "site" / "deep" / "er", catalog=catalog, name="lab/retracted", progress=False)
    public = {**s3, "s3_additional_kwargs": {"ACL": "public-read"}}
    for root, to, name in ((dataset, "whole", None), (again, "deep/er", "lab/retracted")):
        there = "s3://bucket/tree"
        options = {"storage_options": public, "progress": False}
        publish(root, f"{there}/{to}", catalog=f"{there}/catalog.yaml", name=name, **options)
    return {"lab/nuclei": expected(dataset), "lab/retracted": expected(again)}


def expected(root: Path) -> dict[str, Any]:
    """What a stranger must find, as cellcube itself sees it."""
    latest = cellcube.open(root)
    about = latest.attrs["cellcube"]
    versions = {}
    for number in range(1, len(about["versions"]) + 1):
        cells = cellcube.open(root, version=number)["cell_id"].values.tolist()
        versions[f"v{number}"] = sorted(map(str, cells))
    pixels = {
        entry: float(latest[variable].isel(cell=0).values.astype("float64").sum())
        for entry, variable in (("normalized_cells", "cells"), ("max_z", "max_z"), ("masks", "mask"))
    }
    return {"cells": latest.sizes["cell"], "pixels": pixels, "versions": versions}


def stranger(python: str, places: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What a Python with nothing but intake finds at these places; without the credentials of this process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS", "PYTHON"))}
    command = [python, str(HERE / "open_tree.py"), json.dumps(places)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """What was found is what must be."""
    assert list(found) == list(wanted)
    for name, each in wanted.items():
        seen = found[name]
        assert seen["description"] == "Nuclei of a synthetic plate."
        assert seen["cells"] == seen["metadata"]["cells"] == each["cells"]
        assert seen["metadata"]["licence"] == "CC0-1.0"
        assert seen["metadata"]["doi"] == "https://doi.org/10.1234/nuclei"
        assert seen["metadata"]["version"] == len(each["versions"])
        assert {"normalized_cells", "max_z", "masks", "cells", "outcomes", "fovs", "versions"} == set(seen["entries"])
        for entry, total in each["pixels"].items():
            assert seen["arrays"][entry][-1] == total
        assert {version: about["cells"] for version, about in seen["versions"].items()} == each["versions"]
        for about in seen["versions"].values():
            assert about["count"] == len(about["cells"])
            assert about["array"] == seen["arrays"]["normalized_cells"]
