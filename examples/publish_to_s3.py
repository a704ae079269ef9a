"""Build straight into S3, publish, and open what was published as a stranger does.

    python examples/publish_to_s3.py [folder]

The S3 server runs in this process, so that the example needs no account; against a real one, only `store` differs.
The images are synthetic, and are written to the folder.
"""

import os
import sys
from pathlib import Path
from typing import Any

import boto3
import intake
from moto.server import ThreadedMotoServer

import cellcube
from cellcube import checkout, publish
from cellcube.demo.plates import write_plate

SITE = "s3://open-data/cells"


def start_server() -> tuple[ThreadedMotoServer, dict[str, Any]]:
    """A server with an empty bucket, and the storage options that write to it."""
    os.environ.update(AWS_ACCESS_KEY_ID="example", AWS_SECRET_ACCESS_KEY="example", AWS_DEFAULT_REGION="us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="open-data")
    # What is written is readable for everybody; a bucket policy would do the same.
    public = {"s3_additional_kwargs": {"ACL": "public-read"}}
    return server, {"key": "example", "secret": "example", "endpoint_url": endpoint, **public}


def make(folder: Path, store: dict[str, Any]) -> None:
    """Two builds into the bucket, and the catalog of datasets."""
    plate = write_plate(folder / "plate", sites=1, size=256, volumes=0)
    fields = {
        "name": "examples/plate",
        "description": "Cells of a synthetic screen, made by examples/publish_to_s3.py.",
        "licence": "CC0-1.0",
        "authors": ["Ada Lovelace"],
        "citation": "Lovelace, A. Cells that never were.",
        "channels": ["DNA", "ER"],
        "shape": (1, 64, 64),
    }
    report = cellcube.build(plate.cells_csv, f"{SITE}/plate", storage_options=store, progress=False, **fields)
    print(f"built {report.kept} cells into {SITE}/plate")
    gone = str(cellcube.open(f"{SITE}/plate", storage_options=store)["cell_id"].values[0])
    print(cellcube.retract(f"{SITE}/plate", gone, "out of focus", storage_options=store))
    print(publish(f"{SITE}/plate", catalog=f"{SITE}/catalog.yaml", storage_options=store, progress=False))


def look(who: str, options: dict[str, Any]) -> None:
    """Open the catalog of datasets with Intake alone, and read a cell."""
    catalog = intake.open_catalog(f"{SITE}/catalog.yaml", storage_options=options)
    for name in catalog:
        dataset = catalog[name]
        cells = dataset["cells"].read()
        images = dataset["normalized_cells"].to_dask()["cells"]
        pixels = images.isel(cell=int(cells["position"].iloc[-1])).compute()
        earlier = {version: len(dataset["versions"][version]["cells"].read()) for version in dataset["versions"]}
        print(f"{who} opens {name}: {len(cells)} cells, the last is {pixels.shape}; by version {earlier}")


def main(folder: Path) -> None:
    server, store = start_server()
    make(folder, store)
    look("a stranger", {"anon": True, "endpoint_url": store["endpoint_url"]})
    look("the owner", {name: store[name] for name in ("key", "secret", "endpoint_url")})
    part = folder / "treated"
    print(checkout(f"{SITE}/plate", part, where="treatment != 'DMSO'", storage_options=store))
    print(f"and {cellcube.open(part).sizes['cell']} of its cells are on this machine")
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "publish-to-s3"))
