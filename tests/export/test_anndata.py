"""AnnData, read by anndata."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellcube import errors
from cellcube.export import to_anndata


@pytest.fixture
def anndata() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("anndata")


def read(anndata: Any, path: str) -> Any:
    return anndata.read_h5ad(path) if path.endswith(".h5ad") else anndata.read_zarr(path)


@pytest.mark.parametrize("to", ["cells.h5ad", "cells.zarr"])
def test_the_manifest_comes_back(anndata: Any, flat: Path, to: str, unchanged) -> None:
    unchanged(flat)
    for _ in range(2):
        report = to_anndata(flat, to)
    files = [path for path in [Path(to), *Path(to).rglob("*")] if path.is_file()]
    assert (report.cells, report.files, report.bytes) == (15, len(files), sum(path.stat().st_size for path in files))
    found, manifest = read(anndata, to), pd.read_parquet(flat / "cells.parquet").set_index("cell_id")
    assert list(found.obs.index) == list(manifest.index)
    for name in manifest.columns:
        assert list(found.obs[name].fillna(-1)) == list(manifest[name].fillna(-1)), name
        assert found.obs[name].dtype.kind == manifest[name].to_numpy().dtype.kind
    np.testing.assert_array_equal(found.X, manifest[list(found.var_names)].to_numpy(float))
    assert {"area_voxels", "intensity_mean_ER", "focus_DNA"} <= set(found.var_names)
    assert not {"label", "run", "site", "centroid_x", "position", "norm_low_DNA", "y0"} & set(found.var_names)
    assert found.var.loc["intensity_mean_ER", "channel"] == "ER"
    np.testing.assert_allclose(found.obsm["spatial"], manifest[["centroid_x", "centroid_y"]] * 0.65)
    about = found.uns["cellcube"]
    assert (about["spatial_unit"], list(about["channels"])) == ("micrometer", ["DNA", "ER"])
    assert json.loads(about["spec"])["shape"] == [1, 32, 40]
    assert Path.cwd().joinpath(about["root"]).resolve() == flat.resolve()


def test_columns_cells_and_channels_are_chosen(anndata: Any, flat: Path) -> None:
    to_anndata(flat, "a.h5ad", columns=["area_voxels", "site"], where="well == 'B02'")
    found = anndata.read_h5ad("a.h5ad")
    assert list(found.var_names) == ["area_voxels", "site"]
    assert set(found.obs["well"]) == {"B02"}
    to_anndata(flat, "a.h5ad", columns=[])
    assert anndata.read_h5ad("a.h5ad").shape == (15, 0)
    to_anndata(flat, "a.h5ad", channels=["ER"])
    assert not [name for name in anndata.read_h5ad("a.h5ad").var_names if name.endswith("DNA")]
    with pytest.raises(errors.ArgumentError, match="Did you mean 'area_voxels'"):
        to_anndata(flat, "a.h5ad", columns=["area_voxel"])
    with pytest.raises(errors.ArgumentError, match="no column 'well' of numbers"):
        to_anndata(flat, "a.h5ad", columns=["well"])


def test_to_a_bucket(anndata: Any, flat: Path, bucket: dict[str, Any]) -> None:
    import fsspec

    for to in ("cells.h5ad", "cells.zarr"):
        for _ in range(2):
            report = to_anndata(flat, f"s3://bucket/anndata/{to}", storage_options=bucket)
        files = fsspec.filesystem("s3", **bucket)
        files.get(f"bucket/anndata/{to}", to, recursive=True)
        found = read(anndata, to)
        assert found.shape[0] == report.cells == 15
        assert found.uns["cellcube"]["root"] == "flat"
        assert "testing" not in str(found.uns)


@pytest.mark.parametrize("to", ["cells.h5ad", "cells.zarr"])
def test_something_else_is_not_replaced(anndata: Any, flat: Path, to: str, unchanged) -> None:
    other = anndata.AnnData(np.zeros((2, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.write_h5ad(to) if to.endswith(".h5ad") else other.write_zarr(to)
    unchanged(Path.cwd())
    with pytest.raises(errors.ArgumentError, match="not an export"):
        to_anndata(flat, to)
    with pytest.raises(errors.ArgumentError, match="must end in"):
        to_anndata(flat, "cells.csv")
    with pytest.raises(errors.ArgumentError, match="into the dataset"):
        to_anndata(flat, flat / to)


def test_without_anndata_the_extra_is_named(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(errors.MissingDependencyError, match=r"cellcube\[anndata\]"):
        to_anndata(flat, "a.h5ad")
    assert not Path("a.h5ad").exists()
