"""One AnnData of all cells: what was measured of them, and where they are."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellcube.cells import KNOWN
from cellcube.columns import added
from cellcube.errors import ArgumentError, MissingDependencyError, did_you_mean
from cellcube.export.selection import ExportReport, Selection, select_cells
from cellcube.export.target import check_outside
from cellcube.location import Location
from cellcube.pixels import MEASURES
from cellcube.urls import public_url

_MARK = "cellcube"
# Of what is measured, these tell where a cell is, and are not features of it.
_PLACES = {"centroid_z", "centroid_y", "centroid_x", "touches_border"}


def to_anndata(
    root: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    where: str | None = None,
    version: int | None = None,
    channels: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write the manifest as an AnnData, for scanpy, squidpy and their kin. No pixel is read.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    to : path or URL
        File that ends in ``.h5ad``, or folder that ends in ``.zarr``. An AnnData that this function has written there
        is replaced; anything else is refused.
    where, version
        Which cells, see `cellcube.export.selection.select_cells`.
    channels : sequence of str, optional
        Whose measures become ``X``. None: those of all.
    columns : sequence of str, optional
        Numeric columns of the manifest that become ``X``; none at all where it is empty. None: what is measured of
        each cell before normalization, by cellcube (area, intensities, focus, …) and by the spec's function `measure`.
    storage_options : mapping, optional
        fsspec options, for `root` and `to`.

    Returns
    -------
    ExportReport

    Notes
    -----
    ``X``
        (cell, column) in float64, NaN where unknown. ``var`` has the columns' names, `description` and `channel`.
    ``obs``
        All columns of the manifest with their types, by ``cell_id``. Text stays text; times become text. A ``/`` in a
        name becomes ``_``, because the files cannot hold it.
    ``obsm["spatial"]``
        (cell, 2): x, then y, of the cell's centroid in its field of view. In µm where the voxel size of every cell is
        known, in voxels of the field otherwise. Each field has its own origin: tell them apart by ``obs["fov_id"]``.
    ``uns["cellcube"]``
        `format`, `root` (no credentials; relative where that tells less), `version`, `spec` (JSON), `spec_digest`,
        `channels`, `spatial_unit` and others.

    Raises
    ------
    MissingDependencyError
        Where ``anndata`` is not installed.
    ArgumentError
        Where a condition, channel or column cannot be used, and where `to` holds something else.
    cellcube.errors.DatasetError
        Where the dataset is not there or damaged.
    """
    library = _anndata()
    target = Location.of(to, storage_options)
    kind = Path(target.name).suffix.lower()
    if kind not in (".h5ad", ".zarr"):
        raise ArgumentError(f"{target.name!r} must end in '.h5ad' or '.zarr'.")
    selection = select_cells(root, where=where, version=version, channels=channels, storage_options=storage_options)
    check_outside(target, selection.root)
    _check_ours(target, kind)
    names = _features(selection, columns)
    spatial, unit = _spatial(selection.cells)
    about = {**selection.about("anndata", target.parent), "spatial_unit": unit}
    about["spec"] = json.dumps(selection.state.attributes["spec"], ensure_ascii=False)
    told = {name: value for name, value in about.items() if value is not None and name != "variable"}
    data = library.AnnData(
        X=selection.cells[names].to_numpy(np.float64, na_value=np.nan),
        obs=_obs(selection.cells),
        var=_var(selection, names),
        obsm={"spatial": spatial},
        uns={_MARK: {**told, "channels": np.array(selection.channels, dtype=object)}},
    )
    files, size = _write(data, target, kind)
    return ExportReport(files, len(selection), size, public_url(target.url))


def _anndata() -> Any:
    try:
        import anndata  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingDependencyError(
            f"Writing AnnData needs a package that cannot be imported: {error}.",
            remedy='pip install "cellcube[anndata]"',
        ) from error
    return anndata


def _features(selection: Selection, columns: Sequence[str] | None) -> list[str]:
    """Names of the columns that become X."""
    cells = selection.cells
    numeric = [str(name) for name in cells.columns if pd.api.types.is_numeric_dtype(cells[name])]
    numeric = [name for name in numeric if not pd.api.types.is_bool_dtype(cells[name])]
    if columns is not None:
        for name in columns:
            if name not in numeric:
                raise ArgumentError(
                    f"columns: the manifest has no column {name!r} of numbers; there are {', '.join(numeric)}.",
                    remedy=did_you_mean(str(name), numeric) or None,
                )
        return [str(name) for name in columns]
    layout = selection.state.layout
    measures = {name for name in MEASURES if "{channel}" not in name} - _PLACES
    measures |= {name.format(channel=each) for name in MEASURES if "{channel}" in name for each in selection.channels}
    # What neither the cell table nor cellcube has given is the user's own measure.
    others = {*KNOWN, *layout.metadata, *added(layout), "run", "position", "fov_path", "label_path", "split"}
    others |= {name for name in numeric if name.startswith("label_")}
    return [name for name in numeric if name in measures or name not in others]


def _var(selection: Selection, names: Sequence[str]) -> pd.DataFrame:
    described = selection.descriptions()
    # The longest, because a channel's name may be the end of another's.
    channels = [
        max((each for each in selection.channels if name.endswith(f"_{each}")), key=len, default="") for name in names
    ]
    texts = {"description": [described.get(name, "") for name in names], "channel": channels}
    index = pd.Index(list(names), dtype=object)
    return pd.DataFrame({name: pd.Series(text, index, dtype=object) for name, text in texts.items()}, index=index)


def _obs(cells: pd.DataFrame) -> pd.DataFrame:
    found: dict[str, Any] = {}
    for name in cells.columns.drop("cell_id"):
        values = cells[name]
        if values.dtype.kind in "mM" or isinstance(values.dtype, pd.DatetimeTZDtype):
            values = values.astype(str)
        # AnnData of every version writes objects that are text; of pandas' own types of text not all do.
        if values.dtype.kind in "OTU" or isinstance(values.dtype, pd.StringDtype):
            values = values.fillna("").astype(object)
        key = str(name).replace("/", "_")
        while key in found:
            key += "_"
        found[key] = values.array if isinstance(values.dtype, pd.api.extensions.ExtensionDtype) else values.to_numpy()
    return pd.DataFrame(found, index=pd.Index(cells["cell_id"].astype(object).to_numpy(), dtype=object, name="cell_id"))


def _spatial(cells: pd.DataFrame) -> tuple[npt.NDArray[np.float64], str]:
    """Positions (cell, 2) in the field, x and then y, and their unit."""
    voxels = cells[["centroid_x", "centroid_y"]].to_numpy(np.float64)
    sizes = cells[["voxel_size_x", "voxel_size_y"]].to_numpy(np.float64)
    if "scale_x" in cells:
        # Voxels of the crop are larger than those of the field by so much.
        sizes = sizes / cells[["scale_x", "scale_y"]].to_numpy(np.float64)
    return (voxels * sizes, "micrometer") if np.isfinite(sizes).all() else (voxels, "voxel")


def _check_ours(target: Location, kind: str) -> None:
    """Raise where there is something that `to_anndata` did not write."""
    remedy = "Give another name."
    if kind == ".h5ad":
        if target.size() is None:
            if target.exists():
                raise ArgumentError("There is a folder of this name.", path=public_url(target.url), remedy=remedy)
            return
        import h5py  # type: ignore[import-not-found, unused-ignore]

        with tempfile.TemporaryDirectory() as folder:
            local = target
            if not target.is_local:
                local = Location(f"{folder}/before.h5ad")
                target.copy_to(local)
            ours = False
            with contextlib.suppress(OSError), h5py.File(local.url, "r") as file:
                ours = f"uns/{_MARK}" in file
    else:
        if not target.names() and target.size() is None:
            return
        ours = any((target / f"uns/{_MARK}/{name}").exists() for name in ("zarr.json", ".zgroup"))
    if not ours:
        raise ArgumentError(
            "There is something that is not an export of cellcube.", path=public_url(target.url), remedy=remedy
        )


def _write(data: Any, target: Location, kind: str) -> tuple[int, int]:
    """Write an AnnData, and tell how many files and bytes that are."""
    parent = target.parent
    if parent.is_local:
        Path(parent.url).mkdir(parents=True, exist_ok=True)
    place = parent.url if parent.is_local else None
    with (
        tempfile.TemporaryDirectory(dir=place, prefix=".export.", suffix=".partial") as folder,
        warnings.catch_warnings(),
    ):
        # Of the libraries below, about formats to come.
        warnings.simplefilter("ignore")
        local = Path(folder) / f"new{kind}"
        if kind == ".h5ad":
            data.write_h5ad(local, convert_strings_to_categoricals=False, compression="gzip")
            size = local.stat().st_size
            Location(str(local)).copy_to(target)
            return 1, size
        data.write_zarr(local, convert_strings_to_categoricals=False)
        sizes = Location(str(local)).sizes()
        if target.is_local:
            if Path(target.url).exists():
                Path(target.url).rename(Path(folder) / "old")
            local.rename(target.url)
        else:
            before = target.sizes()
            for path in sizes:
                Location(str(local / path)).copy_to(target / path)
            for path in before.keys() - sizes.keys():
                (target / path).remove()
        return len(sizes), sum(sizes.values())
