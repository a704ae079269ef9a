"""Open a catalog of datasets as a stranger does: with intake alone. Prints what was found, as JSON.

    python open_tree.py '[["<url of the catalog>", {<storage options>}], ...]'

It runs with every release of intake, and imports neither cellcube nor the tests.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import intake


def first_cell(source: Any, variable: str) -> list[float]:
    """Shape, and sum of the pixels, of the first cell, and the identifier that it has."""
    opened = source.to_dask()
    one = opened[variable][0].compute().values
    return [str(opened["cell_id"].values[0]), *map(int, one.shape), float(one.astype("float64").sum())]


def look(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Everything that the tree shows: datasets, versions, representations."""
    found: dict[str, Any] = {}
    tree = intake.open_catalog(url, storage_options=options) if options else intake.open_catalog(url)
    for name in list(tree):
        entry, dataset = tree._entries[name].describe(), tree[name]
        versions = dataset["versions"]
        found[name] = {
            "description": entry["description"],
            "metadata": {key: entry["metadata"].get(key) for key in ("cells", "version", "licence", "doi")},
            "entries": sorted(dataset),
            "cells": len(dataset["cells"].read()),
            "arrays": {
                array: first_cell(dataset[array], variable)
                for array, variable in (("normalized_cells", "cells"), ("max_z", "max_z"), ("masks", "mask"))
            },
            "versions": {
                each: {
                    "cells": sorted(versions[each]["cells"].read()["cell_id"]),
                    "count": versions._entries[each].describe()["metadata"]["cells"],
                    "array": first_cell(versions[each]["normalized_cells"], "cells"),
                }
                for each in list(versions)
            },
        }
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    places = json.loads(sys.argv[1])
    print(json.dumps({"intake": intake.__version__, "found": [look(url, options) for url, options in places]}))
