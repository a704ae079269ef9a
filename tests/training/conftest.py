"""Small datasets to take batches of."""

from __future__ import annotations

import contextlib
import gc
import shutil
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cellcube
from cellcube.demo.plates import DemoPlate


def _absolute(plate: DemoPlate, table: Path) -> pd.DataFrame:
    frame = pd.read_csv(table)
    for name in ("fov_path", "label_path"):
        frame[name] = [str(plate.folder / path) for path in frame[name]]
    return frame


@pytest.fixture(scope="session")
def flat(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 2D cells of 2 channels in shards of 8, in two splits; the metadata ``number`` is the place in the table."""
    frame = _absolute(plate, plate.cells_csv)
    frame = frame[frame["fov_id"] != plate.broken_fov]
    frame = pd.concat([frame.assign(cell_id=frame["cell_id"] + f"-{copy}") for copy in range(6)], ignore_index=True)
    frame["number"] = range(len(frame))
    root = tmp_path_factory.mktemp("batches") / "flat"
    report = cellcube.build(
        frame, root, channels=["DNA", "ER"], shape=(1, 32, 40), storage={"shard_mb": 0.04}, projections=["max_y"],
        split={"by": "cell_id", "fractions": {"train": 0.7, "test": 0.3}, "seed": 1}, progress=False,
    )  # fmt: skip
    assert report.kept == 90
    return root


@pytest.fixture(scope="session")
def volume(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 3D cells in shards of 2, one channel a chunk; four of them in version 1, the third retracted in version 3."""
    frame = _absolute(plate, plate.cells_3d_csv)
    root = tmp_path_factory.mktemp("batches") / "volume"
    options: dict[str, Any] = {"shape": (16, 64, 64), "normalize": "minmax", "dtype": "uint16", "progress": False}
    options["storage"] = {"shard_mb": 0.6}
    cellcube.build(frame.head(4), root, **options)
    cellcube.build(frame, root, **options)
    cellcube.retract(root, [str(frame["cell_id"].iloc[2])], reason="debris")
    return root


@pytest.fixture
def copied(flat: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(flat, tmp_path / "copied"))


@pytest.fixture
def bucket(s3: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Storage options of the S3 server, whose connections are closed behind the test."""
    import fsspec

    # s3fs leaves its connections to the garbage collector, which then warns of each.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield s3
        with contextlib.suppress(KeyError):
            fsspec.filesystem("s3").clear_instance_cache()
        gc.collect()


class _Ranges(SimpleHTTPRequestHandler):
    """Files, and ranges of them."""

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        data, asked = file.read_bytes(), self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            stop = min(len(data), int(last) + 1) if first and last else len(data)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            data = data[start:stop]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def served(flat: Path) -> Iterator[str]:
    """URL of a server of the folder of `flat`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(flat.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
        server.server_close()
        gc.collect()
