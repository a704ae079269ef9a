"""Where the real test images are, and an S3 server that serves some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def find_data() -> Path:
    """The folder of real images: the variable CELLCUBE_TEST_DATA, or shared/data beside the repository."""
    named = os.environ.get("CELLCUBE_TEST_DATA")
    return Path(named) if named else Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    folder = find_data()
    if not folder.is_dir():
        pytest.skip(f"no test images at {folder}; set CELLCUBE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, Any]]:
    """Storage options for an S3 server in this process, with an empty bucket ``images``."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    s3fs.S3FileSystem(**options).mkdir("images")
    yield options
    server.stop()
