"""What is published beside the cube: manifest, outcomes, dataset card, Intake catalog. Derived from the runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cellcube.columns import added
from cellcube.cube import ArrayLayout, CubeState, Layout
from cellcube.ledger import (
    OUTCOME_COLUMNS,
    Recorder,
    about_table,
    fold_objects,
    fold_outcomes,
    joined_bytes,
    read_run,
    read_run_table,
    read_table,
    run_name,
    table_bytes,
    write_table,
)
from cellcube.location import Location
from cellcube.spec import is_projection
from cellcube.tables import is_in
from cellcube.version_catalogs import (
    FOLDER,
    PlainDumper,
    needs_snapshot,
    snapshot_path,
    version_catalogs,
    version_path,
    versions_source,
)

CATALOG = "catalog.yaml"
CELLS = "cells.parquet"
OUTCOMES = "outcomes.parquet"
FOVS = "fovs.parquet"
OBJECTS = "objects.parquet"
CARD = "README.md"


def read_outcomes(root: Location, version: int) -> pd.DataFrame:
    """One row for every cell ever requested, as of a version."""
    frame, about = _table(root / OUTCOMES)
    if frame is not None and about.get("version") == version:
        return frame
    folded: pd.DataFrame | None = None
    for number in range(1, version + 1):
        folded = fold_outcomes(folded, read_run_table(root / "runs", number, "outcomes"))
    return folded if folded is not None else pd.DataFrame(columns=list(OUTCOME_COLUMNS))


def read_fovs(root: Location, version: int) -> pd.DataFrame:
    """One row for every FOV that was ever read, as of a version; see `fov_table`."""
    frame, about = _table(root / FOVS)
    if frame is not None and about.get("version") == version:
        return frame
    labels = [read_run_table(root / "runs", number, "fovs") for number in range(1, version + 1)]
    return fov_table(read_outcomes(root, version), labels)


def fov_table(outcomes: pd.DataFrame, labels: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What became of the labels of each FOV.

    Parameters
    ----------
    outcomes : DataFrame
        One row a cell.
    labels : sequence of DataFrame
        `fov_id`, `labels`, `run`; the last tells.

    Returns
    -------
    DataFrame
        `fov_id`, `requested`, `kept`, `dropped`, `failed`; `labels`, the number in the label image, and
        `not_requested`, how many of them no table asked for: both empty where there is no label image or it could not
        be read.
    """
    counted = outcomes.groupby(["fov_id", "status"], sort=False).size().unstack(fill_value=0)
    table = pd.DataFrame({"fov_id": counted.index.astype(str)})
    for status in ("kept", "dropped", "failed"):
        table[status] = counted[status].to_numpy() if status in counted else 0
    table.insert(1, "requested", table[["kept", "dropped", "failed"]].sum(axis=1))
    known = pd.concat(labels).drop_duplicates("fov_id", keep="last").set_index("fov_id")["labels"] if labels else None
    found = table["fov_id"].map(known) if known is not None else pd.Series(np.nan, index=table.index)
    absent = outcomes["reason"].str.startswith("label-not-found:") & (outcomes["status"] == "failed")
    there = outcomes[(outcomes["label"] > 0) & ~absent].groupby("fov_id").size()
    table["labels"] = found.astype("Int64")
    table["not_requested"] = table["labels"] - table["fov_id"].map(there).fillna(0).astype("int64")
    return table


def read_cells(root: Location, version: int) -> pd.DataFrame:
    """The manifest as of a version: one row a kept cell that is not retracted, in the order of the cube."""
    frame, about = _table(root / CELLS)
    known = int(about.get("version", 0)) if frame is not None else 0
    if frame is None or known > version:
        frame, known = None, 0
    runs = root / "runs"
    new = [read_run_table(runs, number, "cells") for number in range(known + 1, version + 1)]
    joined = _join([*([frame] if frame is not None else []), *new]) if new or frame is None else frame
    gone = [read_retracted(root, number) for number in range(known + 1, version + 1)]
    return joined[~is_in(joined["cell_id"], pd.concat(gone)["cell_id"])].reset_index(drop=True) if gone else joined


def read_retracted(root: Location, version: int) -> pd.DataFrame:
    """The cells that one version retracted, with the reason; mostly none."""
    if read_run(root / "runs", version).get("kind") != "retract":
        return pd.DataFrame({"cell_id": pd.Series([], dtype=str), "position": [], "reason": [], "run": []})
    return read_run_table(root / "runs", version, "retracted")


def _table(location: Location) -> tuple[pd.DataFrame | None, dict[str, Any]]:
    try:
        return read_table(location)
    except (OSError, ValueError):
        return None, {}


def _join(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)] or list(frames[:1])
    joined = pd.concat(filled, ignore_index=True)
    # A text column that one table lacks is empty there, not NaN.
    for name in joined.columns:
        if any(name in frame and frame[name].dtype.kind in "OTU" for frame in filled):
            joined[name] = joined[name].astype(object).where(joined[name].notna(), "").astype(str)
    return joined


def _cells_bytes(root: Location, state: CubeState) -> bytes | memoryview:
    """The manifest as Parquet. Its rows, which may be millions, only pass by where nothing but new ones is added."""
    runs, version = root / "runs", state.version

    def describe(names: Iterable[Hashable]) -> dict[str, Any]:
        return {"version": version, "columns": column_descriptions(state, names)}

    # Where something is missing or damaged, `read_cells` knows what to do or to say.
    with contextlib.suppress(OSError, ValueError):
        parts = [(root / CELLS).read()] if version > 1 else []
        known = int(about_table(parts[0]).get("version", 0)) if parts else 0
        new = range(known + 1, version + 1)
        if known <= version and all(read_retracted(root, number).empty for number in new):
            parts += [(runs / f"{run_name(number)}.cells.parquet").read() for number in new]
            joined = joined_bytes(parts, describe)
            if joined is not None:
                return joined
    cells = read_cells(root, version)
    return table_bytes(cells, describe(cells))


def is_current(root: Location, state: CubeState) -> bool:
    """Whether everything derived from the runs tells of the committed version."""
    try:
        catalog = yaml.safe_load((root / CATALOG).read())
        return bool(catalog["metadata"]["cellcube"]["version"] == state.version)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return False


def write_manifest(root: Location, state: CubeState) -> None:
    """Write all that is derived from the runs; the catalog last."""
    runs, version, before = root / "runs", state.version, state.version - 1
    recorder = Recorder(root)
    decided = read_run_table(runs, version, "outcomes")
    outcomes = fold_outcomes(read_outcomes(root, before) if before else None, decided)
    about = {"version": version}
    recorder.write(CELLS, _cells_bytes(root, state))
    recorder.write(OUTCOMES, table_bytes(outcomes, about))
    labels = [] if before == 0 else [read_fovs(root, before)[["fov_id", "labels"]].dropna()]
    fovs = fov_table(outcomes, [*labels, read_run_table(runs, version, "fovs")])
    recorder.write(FOVS, table_bytes(fovs, about))
    counts = {str(status): int(count) for status, count in outcomes["status"].value_counts().items()}
    recorder.write(CARD, card(state, counts, read_run(runs, version)).encode())
    listed = f"runs/{run_name(version)}.objects.parquet"
    recorder.note(listed, (root / listed).read())
    text = catalog(state, counts)
    for path, data in _version_files(root, state, yaml.safe_load(text)["sources"]).items():
        recorder.write(path, data)
    objects = fold_objects(_committed_objects(root, version), recorder.frame(version))
    write_table(root / OBJECTS, objects, about)
    (root / CATALOG).write(text.encode())


def _version_files(root: Location, state: CubeState, sources: Mapping[str, Any]) -> dict[str, bytes]:
    """The catalogs of versions that are new or changed, and the manifests of those that lost cells since."""
    there = {f"{FOLDER}/{name}" for name in (root / FOLDER).names()}
    known = [number for number in range(1, state.version) if version_path(number) in there]
    found = version_catalogs(state, sources, [version_path(number) for number in known])
    for number in range(1, state.version):
        if needs_snapshot(state, number) and snapshot_path(number) not in there:
            found[snapshot_path(number)] = table_bytes(read_cells(root, number), {"version": number})
    return found


def read_objects(root: Location, version: int) -> pd.DataFrame:
    """Every object of a dataset but this table and the catalog: path, size in bytes, SHA-256, run."""
    frame, about = _table(root / OBJECTS)
    return frame if frame is not None and about.get("version") == version else _committed_objects(root, version)


def _committed_objects(root: Location, version: int) -> pd.DataFrame:
    """What the runs wrote."""
    frame, about = _table(root / OBJECTS)
    known = int(about.get("version", 0)) if frame is not None else 0
    folded = frame if 0 < known <= version else None
    for number in range(known + 1 if folded is not None else 1, version + 1):
        folded = fold_objects(folded, read_run_table(root / "runs", number, "objects"))
    assert folded is not None, "there is a version"
    return folded


def column_descriptions(state: CubeState, names: Iterable[Hashable]) -> dict[str, str]:
    """What each column of the manifest means; of a DataFrame, its columns."""
    known = {
        "cell_id": "Identifier of the cell",
        "fov_id": "Identifier of the field of view",
        "label": "Value of the cell in its label image; 0 where it was given by a box or a centre",
        "run": "Build that added the cell: runs/<run>.json",
        "position": "Place of the cell along the first axis of the cube",
        "fov_path": "Image file, as the cell table gave it",
        "label_path": "Label image file, as the cell table gave it",
        **added(state.layout),
    }
    return {str(name): known.get(str(name), "From the cell table") for name in names}


def _about(state: CubeState, counts: Mapping[str, int]) -> dict[str, Any]:
    attributes = state.attributes
    layout = state.layout
    return {
        "format": attributes["format"],
        "version": state.version,
        "cells": state.visible,
        "retracted": state.retracted_at(state.version),
        "outcomes": dict(counts),
        "channels": list(layout.channels),
        "shape_zyx": list(layout.shape),
        "dtype": layout.dtype,
        "voxel_size_um_zyx": attributes["voxel_size"],
        "licence": attributes["licence"],
        "spec_digest": attributes["spec_digest"],
    }


def catalog(state: CubeState, counts: Mapping[str, int]) -> str:
    """The Intake catalog, paths relative to itself; in the form that every release of Intake opens."""
    attributes, layout = state.attributes, state.layout
    about = _about(state, counts)
    size = "x".join(str(edge) for edge in layout.shape)
    channels = ", ".join(layout.channels)

    gone = state.retracted_at(state.version)
    hidden = f"; {gone:,} of them are retracted: leave out those whose variable `retracted` is not 0" if gone else ""

    def cube(name: str, description: str, **args: Any) -> dict[str, Any]:
        array = layout.arrays()[name]
        # Whole shards: one task reads one object.
        chunks = dict.fromkeys(array.axes, -1) | {layout.cell_axis: layout.shard_cells}
        return {
            "description": description,
            "driver": "zarr",
            "args": {
                "urlpath": "{{ CATALOG_DIR }}/cube.zarr",
                "consolidated": True,
                "zarr_format": 3,
                "chunks": chunks,
                **args,
            },
            "metadata": {**about, "variable": name, "dims": list(array.axes), "dtype": array.dtype},
        }

    sources = {
        "normalized_cells": cube(
            "cells", f"{state.count:,} single-cell crops of {size} voxels (z, y, x), channels {channels}{hidden}"
        )
    }
    for name, array in layout.arrays().items():
        if name != "cells":
            title = "masks" if name == "mask" else name
            sources[title] = cube(name, _describe(array, layout), group=array.group)
    for name, file, description in (
        ("cells", CELLS, "Manifest: one row a kept cell, in the order of the cube"),
        ("outcomes", OUTCOMES, "One row for every cell ever requested: kept, dropped or failed, and why"),
        ("fovs", FOVS, "One row a field of view: its labels, and what became of them"),
    ):
        sources[name] = {
            "description": description,
            "driver": "parquet",
            "args": {"urlpath": "{{ CATALOG_DIR }}/" + file, "engine": "pyarrow"},
            "metadata": {"version": state.version},
        }
    sources["versions"] = versions_source()
    document = {
        "name": attributes["name"],
        "description": attributes["description"] or f"Single-cell images: {channels}",
        "metadata": {"version": 1, "cellcube": about},
        "sources": sources,
    }
    return yaml.dump(document, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=1000)


def card(state: CubeState, counts: Mapping[str, int], run: Mapping[str, Any]) -> str:
    """The dataset card."""
    attributes, layout = state.attributes, state.layout
    size = " x ".join(str(edge) for edge in layout.shape)
    voxel = attributes["voxel_size"]
    if voxel == "mixed":
        spacing = "differs between cells (coordinates `voxel_size_z`, `voxel_size_y`, `voxel_size_x`)"
    else:
        parts = [f"{axis} {value:g} µm" for axis, value in zip("zyx", voxel, strict=True) if value is not None]
        spacing = ", ".join(parts) or "unknown"
    code = run["code"].get("git") or {}
    made = f"`{run['code'].get('file') or 'an interactive session'}`"
    if code.get("commit"):
        made += f" at commit `{code['commit'][:12]}`" + (" with uncommitted changes" if code.get("dirty") else "")
        made += f" of {code['remote']}" if code.get("remote") else ""
    normalize = json.dumps(attributes["spec"]["normalize"], ensure_ascii=False)
    listed = "\n".join(f"| `{name}` | {text} |" for name, text in _contents(state).items())
    gone = state.retracted_at(state.version)
    retracted = f" and {gone:,} that are retracted" if gone else ""
    lost = ", ".join(f"{counts.get(status, 0):,} {status}" for status in ("kept", "dropped", "failed"))
    return f"""# {attributes["name"]}

{attributes["description"] or "Single-cell images cut from microscopy fields of view."}

| | |
|---|---|
| cells | {state.visible:,}{retracted} ({sum(counts.values()):,} requested: {lost}) |
| channels | {", ".join(layout.channels)} |
| crop | {size} voxels (z, y, x), {layout.dtype} |
| voxel size | {spacing} |
| normalization | `{normalize}` |
| licence | {attributes["licence"] or "not stated"} |
| version | {state.version} |

## Open it

```python
import intake  # pip install "intake<3" intake-xarray intake-parquet jinja2 (and s3fs for S3)

catalog = intake.open_catalog("catalog.yaml")
dataset = catalog["normalized_cells"].to_dask()  # xarray.Dataset, read lazily
pixels = dataset["cells"].isel({layout.cell_axis}=0).compute()
table = catalog["cells"].read()
```

`cube.zarr` is an OME-Zarr 0.5 image as well; any viewer of OME-Zarr opens it.

## What is here

| path | content |
|---|---|
{listed}

## How it was made

Version {state.version} was made by cellcube {run["environment"]["cellcube"]} from {made}, on {run["finished"][:10]}.
`runs/` has one record a build: parameters, code, versions of all packages, and the size and time of every image.
"""


def _contents(state: CubeState) -> dict[str, str]:
    layout = state.layout
    contents = {
        "catalog.yaml": "Intake catalog",
        "versions.yaml": "Intake catalog of every version",
        "cells.parquet": "manifest: one row a kept cell, in the order of the cube",
        "outcomes.parquet": "one row for every cell requested: kept, dropped or failed, and why",
        "fovs.parquet": "one row a field of view: its labels, and what became of them",
        "objects.parquet": "every object with its size and SHA-256",
        "cube.zarr": f"the crops ({layout.cell_axis}, c, z, y, x), Zarr v3, xarray and OME-Zarr 0.5",
    }
    for name, array in layout.arrays().items():
        if name != "cells":
            contents[f"cube.zarr/{array.group}"] = _describe(array, layout)
    contents["runs"] = "provenance of every build"
    return contents


def _describe(array: ArrayLayout, layout: Layout) -> str:
    """What an array of pixels is, for people."""
    if not array.representation:
        other = array.name.removeprefix("mask_")
        what = "the cell's label" if array.name == "mask" else f"the cell's object in the label image {other!r}"
        return f"1 within {what}, 0 elsewhere"
    if array.projection:
        kind, _, axis = array.projection.partition("_")
        if not is_projection(array.projection):
            text = f"{array.projection} of each crop"
        elif axis == "montage":
            text = f"{kind} projections along z, y and x of each crop, side by side"
        else:
            text = f"{kind} projection along {axis} of each crop"
        return text if array.representation == "cells" else f"{text}, {array.representation}"
    normalized = {each.get("method", "own function") for each in layout.representations[array.name].normalization}
    return f"The same crops, normalization {', '.join(sorted(normalized))}"
