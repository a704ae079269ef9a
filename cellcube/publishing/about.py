"""What is published, as one value: all that metadata documents are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellcube.cube import CubeState, existing_state
from cellcube.errors import ArgumentError
from cellcube.ledger import read_run, sha256_of
from cellcube.location import Location
from cellcube.manifest import column_descriptions, read_cells, read_outcomes
from cellcube.publishing.licences import check_licence, licence_url

if TYPE_CHECKING:
    import pandas as pd

CUBE = "cube.zarr/"
CELLS = "cells.parquet"
RUNS = "runs/"
# Work that is not part of the dataset.
UNFINISHED = ".cellcube/"

# Encoding formats of files and images by suffix.
FORMATS = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".yaml": "application/yaml",
    ".csv": "text/csv",
    ".html": "text/html",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".txt": "text/plain",
    ".zarr": "application/vnd.zarr",
}
ZARR_FORMAT = "application/vnd.zarr;version=3"


@dataclass(frozen=True)
class Published:
    """A dataset that is to be described.

    Parameters
    ----------
    state : CubeState
    cells : DataFrame
        The manifest.
    counts : mapping
        Cells by outcome: ``kept``, ``dropped``, ``failed``.
    runs : sequence of mapping
        The records of all builds, the first first.
    files : mapping
        Size in bytes and SHA-256 (hex, or None where it was not taken) of the dataset's files by path from its root.
    columns : mapping
        What each column of the manifest means.
    url : str, optional
        Where the dataset can be found.
    """

    state: CubeState
    cells: pd.DataFrame
    counts: Mapping[str, int]
    runs: Sequence[Mapping[str, Any]]
    files: Mapping[str, tuple[int, str | None]]
    columns: Mapping[str, str]
    url: str | None = None

    @property
    def name(self) -> str:
        """Of the dataset."""
        return str(self.state.attributes["name"])

    @property
    def description(self) -> str:
        """As it was given, or what the dataset holds."""
        given = self.state.attributes["description"]
        layout = self.state.layout
        size = " x ".join(map(str, layout.shape))
        channels = ", ".join(layout.channels)
        return given or f"{self.state.count:,} single-cell images of {size} voxels (z, y, x), channels {channels}."

    @property
    def licence(self) -> str | None:
        """As an SPDX expression; as it was given where it is none."""
        given = self.state.attributes["licence"]
        if not given:
            return None
        try:
            return check_licence(given)
        except ArgumentError:
            return str(given)

    @property
    def licence_url(self) -> str | None:
        """At spdx.org; None where the licence is not one SPDX identifier."""
        licence = self.licence
        try:
            return licence_url(check_licence(licence)) if licence else None
        except ArgumentError:
            return None

    @property
    def authors(self) -> list[dict[str, str | None]]:
        """`name`, `orcid`, `affiliation` of each."""
        return [dict(author) for author in self._spec.get("authors") or ()]

    @property
    def doi(self) -> str | None:
        """As an address."""
        doi = self._spec.get("doi")
        return f"https://doi.org/{doi}" if doi else None

    @property
    def keywords(self) -> list[str]:
        """As they were given."""
        return list(self._spec.get("keywords") or ())

    @property
    def citation(self) -> str | None:
        """How to cite the dataset, as it was given."""
        return self._spec.get("citation") or None

    @property
    def created(self) -> str:
        """When the first build ended, in ISO 8601."""
        return str(self.runs[0]["finished"])

    @property
    def changed(self) -> str:
        """When the last build ended, in ISO 8601."""
        return str(self.runs[-1]["finished"])

    @property
    def _spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.state.attributes["spec"]
        return spec


def read_published(root: Location, url: str | None = None) -> Published:
    """What is to be described of the dataset at a root; takes the SHA-256 of all files outside the cube.

    Raises
    ------
    cellcube.errors.DatasetNotFoundError
    """
    state = existing_state(root)
    cells = read_cells(root, state.version)
    files: dict[str, tuple[int, str | None]] = {}
    for path, size in sorted(root.sizes().items()):
        if not path.startswith(UNFINISHED):
            digest = None if path.startswith(CUBE) else sha256_of((root / path).read())
            files[path] = (size, digest)
    counts = read_outcomes(root, state.version)["status"].value_counts()
    return Published(
        state=state,
        cells=cells,
        counts={str(status): int(count) for status, count in counts.items()},
        runs=[read_run(root / RUNS.rstrip("/"), number) for number in range(1, state.version + 1)],
        files=files,
        columns=column_descriptions(state, cells),
        url=url,
    )


def encoding_format(path: str) -> str:
    """The media type of a file, by its name.

    Examples
    --------
    >>> encoding_format("runs/000001.cells.parquet")
    'application/vnd.apache.parquet'
    """
    if path in ("croissant.json", "ro-crate-metadata.json"):
        return "application/ld+json"
    name = path.lower()
    return next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), "application/octet-stream")


def orcid_url(orcid: str) -> str:
    """The address of an ORCID."""
    return f"https://orcid.org/{orcid}"
