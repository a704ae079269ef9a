"""What is read of the images, how often, and when."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import zarr
from counting import proxy
from same import pixel_objects, tables

import cellcube
from cellcube.errors import BuildStoppedError, TruncatedImageError
from cellcube.images import FovReader, ImageSource
from cellcube.images.fov import Fov
from cellcube.testing.readers import memory_reader

FIELDS: dict[str, Any] = {"normalize": "none", "projections": [], "executor": 1, "progress": False}
FOVS = 20


def table(scheme: str = "") -> pd.DataFrame:
    """Two cells a FOV, by their boxes."""
    rows = []
    for fov in range(FOVS):
        for cell in range(2):
            box = {"y0": 4, "y1": 12, "x0": 4 + 20 * cell, "x1": 14 + 20 * cell}
            rows.append({"cell_id": f"{fov}-{cell}", "fov_id": str(fov), "fov_path": f"{scheme}{fov}.img", **box})
    return pd.DataFrame(rows)


class Counting:
    """A reader of arrays in memory that notes what is opened and read."""

    def __init__(self, scheme: str = "") -> None:
        rng = np.random.default_rng(0)
        self.images = {f"{scheme}{fov}.img": rng.integers(0, 999, (2, 24, 48), np.uint16) for fov in range(FOVS)}
        self.held = memory_reader(self.images, axes="CYX")
        self.reads: Counter[tuple[str, int]] = Counter()
        self.second = threading.Event()
        self.lock = threading.Lock()
        self.begun: list[str] = []

    def __call__(self, source: ImageSource) -> FovReader:
        reader = self.held(source)
        read = reader.read

        def counted(channel: int, region: Any) -> Any:
            with self.lock:
                self.reads[source.path, channel] += 1
                if source.path not in self.begun:
                    self.begun.append(source.path)
            if len(self.begun) > 1:
                self.second.set()
            return read(channel, region)

        reader.read = counted  # type: ignore[method-assign]
        return reader


@pytest.mark.parametrize("remote", [False, True])
def test_every_channel_of_a_fov_is_read_once(tmp_path: Path, remote: bool) -> None:
    scheme = "memory://plate/" if remote else f"{tmp_path}/"
    reader = Counting(scheme)
    report = cellcube.build(table(scheme), "ds", reader=reader, shape=(1, 16, 16), **FIELDS)
    assert report.kept == 2 * FOVS
    assert len(reader.reads) == 2 * FOVS
    assert set(reader.reads.values()) == {1}
    stored = cellcube.open("ds")["cells"].values
    path = f"{scheme}3.img"
    assert np.array_equal(stored[6, :, 0], reader.images[path][:, 0:16, 1:17])


def test_labels_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plate: Any) -> None:
    seen: Counter[str] = Counter()
    read = Fov.read_labels

    def counted(fov: Fov, name: str = "") -> Any:
        seen[fov.fov_id] += 1
        return read(fov, name)

    monkeypatch.setattr(Fov, "read_labels", counted)
    report = cellcube.build(plate.cells_csv, tmp_path / "ds", shape=(1, 32, 32), **FIELDS)
    assert report.kept
    assert seen
    assert set(seen.values()) == {1}


def test_remote_fovs_are_read_while_others_are_worked_on() -> None:
    """While the cells of the first FOV are measured, the second is being read; no more than two are ahead."""
    scheme = "memory://plate/"
    reader = Counting(scheme)
    ahead: list[int] = []

    def measure(pixels: Any, mask: Any, cell: Any) -> dict[str, float]:
        del pixels, mask
        number = int(cell["fov_id"])
        if number == 0:
            assert reader.second.wait(30), "the second FOV was not begun while the first was worked on"
        ahead.append(len(reader.begun) - 1 - number)
        return {"done": 1.0}

    report = cellcube.build(table(scheme), "ds", reader=reader, shape=(1, 16, 16), measure=measure, **FIELDS)
    assert report.kept == 2 * FOVS
    assert max(ahead) <= 2
    assert report.stages["wait"] > 0


def test_what_is_read_ahead_is_the_same(tmp_path: Path) -> None:
    here = f"{tmp_path}/"
    near, far = Counting(here), Counting("memory://plate/")
    frame = table("memory://plate/")
    cellcube.build(table(here), tmp_path / "near", reader=near, shape=(1, 16, 16), **FIELDS)
    cellcube.build(frame, tmp_path / "far", reader=far, shape=(1, 16, 16), **FIELDS)
    one, two = (pixel_objects(tmp_path / name) for name in ("near", "far"))
    assert one
    assert {path: one[path] for path in one if not path.startswith("fov_path/")} == {
        path: two[path] for path in two if not path.startswith("fov_path/")
    }
    for left, right in zip(tables(tmp_path / "near"), tables(tmp_path / "far"), strict=True):
        pd.testing.assert_frame_equal(
            left.drop(columns="fov_path", errors="ignore"), right.drop(columns="fov_path", errors="ignore")
        )


def test_a_fov_that_fails_ahead_fails_its_cells_alone() -> None:
    scheme = "memory://plate/"
    reader = Counting(scheme)
    inner = reader.held

    def broken(source: ImageSource) -> FovReader:
        if source.path == f"{scheme}7.img":
            raise TruncatedImageError("The file is cut short.", path=source.path)
        return inner(source)

    reader.held = broken
    report = cellcube.build(table(scheme), "ds", reader=reader, shape=(1, 16, 16), **FIELDS)
    failed = report.outcomes[report.outcomes["status"] == "failed"]
    assert failed["fov_id"].tolist() == ["7", "7"]
    assert report.kept == 2 * FOVS - 2
    threads = {each.name for each in threading.enumerate()}
    assert not any(name.startswith("cellcube-") for name in threads)
    with pytest.raises(BuildStoppedError, match="cut short"):
        cellcube.build(table(scheme), "other", reader=reader, shape=(1, 16, 16), on_error="raise", **FIELDS)
    assert not any(each.name.startswith("cellcube-") for each in threading.enumerate())


def test_only_the_tiles_that_cells_need_are_fetched(s3: dict[str, Any], tmp_path: Path) -> None:
    """Two cells in far corners of a tiled OME-Zarr slide on S3."""
    side, tile = 2048, 256
    image = np.random.default_rng(0).integers(1, 4000, (2, side, side), dtype=np.uint16)
    group = zarr.open_group(tmp_path / "slide.ome.zarr", mode="w", zarr_format=3)
    array = group.create_array("0", shape=image.shape, chunks=(1, tile, tile), dtype=image.dtype)
    array[:] = image
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "name": "slide"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    fsspec.filesystem("s3", **s3).put(str(tmp_path / "slide.ome.zarr"), "bucket/slides/", recursive=True)
    centres = [(40, 60), (1990, 2000)]
    frame = pd.DataFrame(
        {
            "cell_id": ["first", "last"],
            "fov_id": "slide",
            "fov_path": "s3://bucket/slides/slide.ome.zarr",
            "center_y": [y for y, _ in centres],
            "center_x": [x for _, x in centres],
        }
    )
    with proxy(str(s3["endpoint_url"])) as counted:
        options = {**s3, "endpoint_url": counted.url}
        report = cellcube.build(frame, tmp_path / "ds", shape=(1, 32, 32), storage_options=options, **FIELDS)
        chunks = Counter(path for method, path, _ in counted.requests if method == "GET" and "/0/c/" in path)
    assert report.kept == 2
    assert len(chunks) == 4, "two tiles of two channels"
    assert set(chunks.values()) == {1}
    dataset = cellcube.open(tmp_path / "ds")
    for crop, y, x in zip(dataset["cells"].values, dataset["origin_y"].values, dataset["origin_x"].values, strict=True):
        assert np.array_equal(crop[:, 0], image[:, int(y) : int(y) + 32, int(x) : int(x) + 32])
