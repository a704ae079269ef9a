"""Open a published tree with another release of intake, from every kind of place.

    python tests/publish/open_with_old_intake.py /path/to/old/python

The other Python needs intake, intake-xarray, intake-parquet, jinja2, s3fs and aiohttp. Exits with 1 where it does not
find what must be there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import boto3
import pandas as pd
from moto.server import ThreadedMotoServer

import cellcube
from cellcube.demo.plates import write_plate


def main(python: str) -> None:
    # As pytest does for the tests beside this file.
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    from http_server import serve
    from published import COMMON, FIRST
    from tree import compare, make_tree, stranger

    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"key": "testing", "secret": "testing", "endpoint_url": f"http://{host}:{port}"}
    boto3.client("s3", endpoint_url=keys["endpoint_url"]).create_bucket(Bucket="bucket")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plate = write_plate(folder / "plate", sites=1, size=200, volumes=0)
        table = pd.read_csv(plate.cells_csv, dtype={"cell_id": str})
        for column in ("fov_path", "label_path"):
            table[column] = str(plate.folder) + "/" + table[column]
        for part in (table.iloc[:FIRST], table):
            cellcube.build(part, folder / "nuclei", **COMMON)
        wanted = make_tree(folder / "nuclei", folder, keys)
        site = folder / "site"
        with serve(site) as (url, _):
            places = [
                (f"{site}/catalog.yaml", {}),
                (f"file://{site}/catalog.yaml", {}),
                (f"{url}/catalog.yaml", {}),
                ("s3://bucket/tree/catalog.yaml", keys),
                ("s3://bucket/tree/catalog.yaml", {"anon": True, "endpoint_url": keys["endpoint_url"]}),
            ]
            found = stranger(python, places)
        for (place, _), each in zip(places, found["found"], strict=True):
            compare(each, wanted)
            print(f"intake {found['intake']} opens {place}")
    server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
