"""A dask cluster of several processes: what goes over its wires, and what happens when some of it dies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from dying_reader import DEATHS
from same import assert_same

import cellcube
from cellcube.demo.plates import DemoPlate, write_plate
from cellcube.errors import WorkersLostError
from cellcube.run.finish import Build

pytestmark = pytest.mark.usefixtures("small_jobs")

FIELDS: dict[str, Any] = {"shape": (1, 48, 48), "storage": {"shard_mb": 0.3}, "reader": "dying_reader:open_or_die"}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> DemoPlate:
    """Six FOVs and a broken one."""
    return write_plate(tmp_path_factory.mktemp("plate"), sites=2, size=280, volumes=0)


@pytest.fixture(scope="module")
def built(plate: DemoPlate, small_jobs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this process alone makes of the plate."""
    root = tmp_path_factory.mktemp("built") / "dataset"
    assert cellcube.build(plate.cells_csv, root, executor=1, progress=False, **FIELDS).failed
    return root


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of deaths that processes started from here will meet."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("deaths")
    patch.setenv(DEATHS, str(folder))
    patch.setenv("PYTHONPATH", str(Path(__file__).parent))
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def client(deaths: Path) -> Iterator[Client]:
    # On a busy machine a worker that is killed takes its time to come back, and would be taken for lost.
    patience = {"distributed.deploy.lost-worker-timeout": "300s"}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1, **patience}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def field_of(plate: DemoPlate, number: int) -> str:
    return str(pd.read_csv(plate.cells_csv)["fov_id"].unique()[number])


def done_jobs(root: Path) -> dict[str, int]:
    """When each job was done."""
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob(".cellcube/pending/*/done.parquet")}


def assert_continues(plate: DemoPlate, built: Path, root: Path, executor: Any, patch: pytest.MonkeyPatch) -> None:
    """The same call ends at the same dataset, and does only the jobs that are missing."""
    before = done_jobs(root)
    assert 0 < len(before) < 7
    seen: dict[str, int] = {}
    clear = Build.clear

    def look_and_clear(self: Build) -> None:
        seen.update(done_jobs(root))
        clear(self)

    patch.setattr(Build, "clear", look_and_clear)
    cellcube.build(plate.cells_csv, root, executor=executor, progress=False, **FIELDS)
    assert len(seen) == 7
    assert {key: seen[key] for key in before} == before
    assert_same(root, built)


@pytest.mark.parametrize("store", ["local", "s3"])
def test_a_job_whose_worker_dies_is_done_by_another(
    plate: DemoPlate, built: Path, tmp_path: Path, client: Client, deaths: Path, s3: dict[str, Any], store: str
) -> None:
    import s3fs

    root = str(tmp_path / "dataset") if store == "local" else "s3://bucket/cluster/dataset"
    (deaths / f"{field_of(plate, 2)}.1").touch()
    report = cellcube.build(
        plate.cells_csv, root, executor=client, progress=False, storage_options=s3 if store == "s3" else None, **FIELDS
    )
    assert report.version == 1
    assert not list(deaths.iterdir())
    if store == "s3":
        fs = s3fs.S3FileSystem(**s3, use_listings_cache=False, skip_instance_cache=True)
        fs.get("bucket/cluster/dataset", str(tmp_path / "dataset"), recursive=True)
    assert_same(tmp_path / "dataset", built)


def test_no_pixels_go_through_scheduler_or_client(
    plate: DemoPlate, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed.comm import tcp

    sent: dict[str, int] = {"to": 0, "from": 0}
    to_frames, from_frames = tcp.to_frames, tcp.from_frames

    def size(frames: Any) -> int:
        return sum(memoryview(frame).nbytes for frame in frames)

    async def counted_to(*args: Any, **kwargs: Any) -> Any:
        frames = await to_frames(*args, **kwargs)
        sent["to"] += size(frames)
        return frames

    async def counted_from(frames: Any, *args: Any, **kwargs: Any) -> Any:
        sent["from"] += size(frames)
        return await from_frames(frames, *args, **kwargs)

    monkeypatch.setattr("cellcube.plan.jobs.JOB_FOVS", 8)
    fields = {**FIELDS, "shape": (1, 160, 160), "storage": {}, "progress": False}
    cellcube.build(plate.cells_csv, tmp_path / "here", executor=1, **fields)
    monkeypatch.setattr(tcp, "to_frames", counted_to)
    monkeypatch.setattr(tcp, "from_frames", counted_from)
    report = cellcube.build(plate.cells_csv, tmp_path / "there", executor=client, **fields)
    assert_same(tmp_path / "there", tmp_path / "here")
    # Scheduler and client are in this process, and each counts what they tell each other.
    assert min(sent.values()) > 0
    crop_bytes = 5 * 160 * 160 * 2
    assert sum(sent.values()) < report.kept * crop_bytes / 20


def test_a_job_that_ends_every_worker_ends_the_build_and_is_named(
    plate: DemoPlate, built: Path, tmp_path: Path, client: Client, deaths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fov = field_of(plate, 6)
    for number in range(4):
        (deaths / f"{fov}.{number}").touch()
    with pytest.raises(WorkersLostError, match="the same call continues") as lost:
        cellcube.build(plate.cells_csv, tmp_path / "a", executor=client, progress=False, **FIELDS)
    assert lost.value.fov_id == fov
    assert "One job has ended 2 of them" in str(lost.value)
    for death in deaths.iterdir():
        death.unlink()
    client.wait_for_workers(1, timeout=60)
    assert_continues(plate, built, tmp_path / "a", client, monkeypatch)


@pytest.fixture
def lone_scheduler(deaths: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """A scheduler in a process of its own, with two workers."""
    file = tmp_path / "scheduler.json"
    own = ["--host=127.0.0.1", f"--scheduler-file={file}", "--no-dashboard"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port=0", *own], stderr=subprocess.DEVNULL
        ),
        *(
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads=1", "--no-nanny", *own],
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ),
    ]
    try:
        with Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield started[0], client
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_build_whose_scheduler_is_lost_ends_and_continues(
    plate: DemoPlate,
    built: Path,
    tmp_path: Path,
    lone_scheduler: tuple[subprocess.Popen[bytes], Client],
    deaths: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler, client = lone_scheduler
    (deaths / f"{field_of(plate, 4)}.1").write_text(str(scheduler.pid))
    with pytest.raises(WorkersLostError, match="the same call continues") as lost:
        cellcube.build(plate.cells_csv, tmp_path / "a", executor=client, progress=False, **FIELDS)
    assert lost.value.fov_id is None
    assert "dask cluster of 2 workers" in str(lost.value)
    assert not list(deaths.iterdir())
    assert_continues(plate, built, tmp_path / "a", 1, monkeypatch)


def test_processes_of_this_machine_that_die_end_the_build_and_it_continues(
    plate: DemoPlate, built: Path, tmp_path: Path, deaths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (deaths / f"{field_of(plate, 4)}.1").touch()
    with pytest.raises(WorkersLostError, match="2 processes"):
        cellcube.build(plate.cells_csv, tmp_path / "a", executor=2, progress=False, **FIELDS)
    assert_continues(plate, built, tmp_path / "a", 1, monkeypatch)
