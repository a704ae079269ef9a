"""Tar files, read by tarfile and by webdataset."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset as wds

import cellcube
from cellcube import errors
from cellcube.export import to_webdataset


def samples(path: Path) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.uname) == (0, 0, "")
            key, _, ending = member.name.partition(".")
            file = tar.extractfile(member)
            assert file is not None
            found.setdefault(key, {})[ending] = file.read()
    return found


def test_cells_are_in_the_tar_files_of_their_split(flat: Path, unchanged) -> None:
    unchanged(flat)
    report = to_webdataset(flat, "out", mask=True, cells_per_tar=4, progress=False)
    dataset, table = cellcube.open(flat), pd.read_parquet("out/cells.parquet")
    index = json.loads(Path("out/index.json").read_text())
    assert index["cells"] == report.cells == sum(tar["cells"] for tar in index["tars"]) == 15
    assert (index["shape"], index["dtype"], index["channels"]) == ([2, 1, 32, 40], "float16", ["DNA", "ER"])
    assert {tar["split"] for tar in index["tars"]} == {Path(tar["file"]).parent.name for tar in index["tars"]}
    assert len({tar["split"] for tar in index["tars"]}) == 2
    for tar in index["tars"]:
        data = Path("out", tar["file"]).read_bytes()
        assert (tar["bytes"], tar["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        rows = table[table["file"] == tar["file"]].set_index("key")
        found = samples(Path("out", tar["file"]))
        assert list(found) == list(rows.index)
        assert len(found) == tar["cells"] <= 4
        for key, sample in found.items():
            row = json.loads(sample["json"])
            stored = dataset.sel(cell_id=row["cell_id"])
            assert row["cell_id"] == rows.loc[key, "cell_id"]
            assert row["split"] == str(stored["split"].values)
            assert row["volume_um3"] is None
            assert row["area_voxels"] == rows.loc[key, "area_voxels"]
            np.testing.assert_array_equal(np.load(io.BytesIO(sample["npy"])), stored["cells"].values)
            np.testing.assert_array_equal(np.load(io.BytesIO(sample["mask.npy"])), stored["mask"].values)


def test_webdataset_reads_them(volume: Path) -> None:
    to_webdataset(volume, "out", cells_per_tar=3, mask=True, progress=False)
    tars = sorted(map(str, Path("out").glob("cells-*.tar")))
    assert len(tars) == 3
    with warnings.catch_warnings():
        # It leaves files to the garbage collector.
        warnings.simplefilter("ignore")
        read = list(wds.WebDataset(tars, shardshuffle=False).decode())
    dataset = cellcube.open(volume)
    assert [sample["json"]["cell_id"] for sample in read] == list(dataset["cell_id"].values)
    np.testing.assert_array_equal(np.stack([sample["npy"] for sample in read]), dataset["cells"].values)
    np.testing.assert_array_equal(np.stack([sample["mask.npy"] for sample in read]), dataset["mask"].values)


def test_the_same_cells_give_the_same_bytes(flat: Path) -> None:
    for to in ("one", "two"):
        to_webdataset(flat, to, progress=False)
    for path in Path("one").rglob("*.tar"):
        assert path.read_bytes() == (Path("two") / path.relative_to("one")).read_bytes()
    # As many as fit: all of a split in one file.
    assert len(list(Path("one").rglob("*.tar"))) == 2


def test_what_is_left_of_another_export_is_removed(flat: Path) -> None:
    to_webdataset(flat, "out", cells_per_tar=2, progress=False)
    to_webdataset(flat, "out", where="split == 'train'", progress=False)
    files = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*"))
    assert files == ["cells.csv", "cells.parquet", "export.json", "index.json", "train", "train/cells-000000.tar"]


def test_to_a_bucket(volume: Path, bucket) -> None:
    import fsspec

    to_webdataset(volume, "s3://bucket/tars", storage_options=bucket, progress=False)
    to_webdataset(volume, "out", progress=False)
    there = fsspec.filesystem("s3", **bucket).cat_file("bucket/tars/cells-000000.tar")
    assert there == Path("out/cells-000000.tar").read_bytes()


def test_an_option_that_cannot_be(flat: Path) -> None:
    with pytest.raises(errors.ArgumentError, match="cells_per_tar"):
        to_webdataset(flat, "out", cells_per_tar=0)
