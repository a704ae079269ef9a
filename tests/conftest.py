"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from cellcube.demo.plates import DemoPlate, write_plate

# Machines are noisy: how long an example takes says nothing about whether it is right.
hypothesis.settings.register_profile("cellcube", deadline=None)
hypothesis.settings.load_profile("cellcube")


@pytest.fixture(scope="session", autouse=True)
def _folders_of_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Settings and caches of other libraries stay in a folder of the tests: Quilt looks for them at its import."""
    patch = pytest.MonkeyPatch()
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        patch.setenv(name, str(tmp_path_factory.mktemp(name)))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real microscopy images."""
    folder = Path(os.environ.get("CELLCUBE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        # Without the images these tests must fail in CI, and may be left out by whoever has none.
        if os.environ.get("CI"):
            raise FileNotFoundError(f"there are no test images at {folder}: set CELLCUBE_TEST_DATA")
        pytest.skip(f"no test images at {folder}: set CELLCUBE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def plate(tmp_path_factory: pytest.TempPathFactory) -> DemoPlate:
    """A small synthetic plate: 2D FOVs of 200 pixels, one broken, and one 3D FOV."""
    return write_plate(tmp_path_factory.mktemp("plate"), sites=1, size=200, volumes=1)


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run in a folder of their own, so that nothing is left behind."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Storage options of an S3 server in this process, with the bucket ``bucket``."""
    import boto3
    from moto.server import ThreadedMotoServer

    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
    yield {"key": "testing", "secret": "testing", "endpoint_url": endpoint}
    server.stop()
    patch.undo()
