"""A dataset as a Quilt package: a versioned list of its files, with what they are."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cellcube.errors import ArgumentError
from cellcube.export.joined import Table, joined_manifest
from cellcube.export.quilt_client import default_registry, quilt_client
from cellcube.export.quilt_files import PackedFile, packed_files, sanitized
from cellcube.export.selection import Selection, select_cells
from cellcube.ledger import read_run, write_table
from cellcube.location import Location
from cellcube.manifest import CARD, read_outcomes
from cellcube.run.report import human_bytes
from cellcube.urls import is_remote, local_path, protocol_of, public_url

_PART = re.compile(r"[A-Za-z0-9_-]+")
_FOLDER = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]+")
# What tells of an image that is a folder.
_HEADS = ("zarr.json", ".zattrs", ".zgroup")
# Unfinished work of a build, and what a killed one has left.
_NOT_PACKED = re.compile(r"^\.cellcube/|(^|/)\.[^/]*\.partial$")


@dataclass(frozen=True)
class QuiltReport:
    """A revision of a Quilt package.

    Parameters
    ----------
    name : str
        ``owner/project``.
    folder : str
        Where in the package the dataset is; empty for the whole package.
    registry : str
    top_hash : str
        Names the revision.
    files, bytes : int
        Of the whole package.
    metadata : dict
        Of the dataset: of the package, or in that under the name of the folder.
    pushed : bool
        Whether files were copied into the registry; otherwise the package tells where they are.
    """

    name: str
    folder: str
    registry: str
    top_hash: str
    files: int
    bytes: int
    metadata: Mapping[str, Any]
    pushed: bool

    @property
    def uri(self) -> str:
        """What Quilt calls the revision."""
        place = f"&path={self.folder}" if self.folder else ""
        return f"quilt+{self.registry}#package={self.name}@{self.top_hash}{place}"

    def __str__(self) -> str:
        done = "pushed to" if self.pushed else "built in"
        return (
            f"{self.name} {done} {self.registry}: {self.files:,} files, {human_bytes(self.bytes)}\n"
            f"revision {self.top_hash[:12]}: {self.uri}"
        )


def to_quilt(
    root: str | os.PathLike[str],
    registry: str | os.PathLike[str] | None = None,
    *,
    name: str,
    readme: str | os.PathLike[str] | None = None,
    filepath_columns: Sequence[str] | None = None,
    metadata_columns: Sequence[str] | None = None,
    table: Table | None = None,
    message: str | None = None,
    push: bool = False,
    version: int | None = None,
    progress: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> QuiltReport:
    """Make a revision of a Quilt package of a dataset, or of a folder in one.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset, on this machine or in S3.
    registry : path or URL, optional
        A local folder, or with `push` a bucket, ``s3://bucket``. Default: Quilt's own local registry.
    name : str
        ``owner/project``: the package becomes the dataset. ``owner/project/folder``: the dataset becomes that folder of
        the package, in place of what was there; the rest of the package stays.
    readme : path or URL, optional
        Becomes ``README.md``; the dataset card is then ``dataset-card.md``.
    filepath_columns : sequence of str, optional
        Columns of the manifest that hold paths, relative ones to the folder of `table`, or to `root`. Each file
        becomes ``<column>/<file name>``, or stays where it is in the dataset; where two have one name, the folders that
        tell them apart stand before it. ``manifest.parquet`` is the manifest with these paths.
    metadata_columns : sequence of str, optional
        Columns whose values become metadata of those files; of a folder, such as an OME-Zarr image, those of its
        ``zarr.json``. A file of several rows has a list, and so have all
        files of its column, unless each has but one value.
    table : DataFrame, path or URL, optional
        Has `cell_id` and further columns for all cells, such as the `cells.parquet` that
        `cellcube.export.to_ome_tiff` writes. They take the place of columns of the same names.
    message : str, optional
        Of the revision. Default: name, version, cells and commit.
    push : bool
        Copy the files into the bucket. Otherwise the package lists files where they are.
    version : int, optional
        Fails unless this is the dataset's latest version, which is what its files hold.
    progress : bool
        Show Quilt's bars.
    storage_options : mapping, optional
        fsspec options for S3: `key`, `secret`, `token`, `endpoint_url`, `anon`. Without them Quilt finds credentials as
        boto3 does, and a server other than Amazon's by the environment variable ``AWS_ENDPOINT_URL_S3``.

    Returns
    -------
    QuiltReport

    Raises
    ------
    ArgumentError
        Where the name, the registry or a column cannot be used, a file is missing, or `version` is not the latest.
    MissingDependencyError
        Without the extra ``quilt``.
    cellcube.errors.DatasetError
        Where the dataset is not there, the registry cannot be reached, or somebody else pushed in the meantime.

    Notes
    -----
    Nothing is sent but to the registry: Quilt's usage metrics are off during the call.
    """
    package_name, folder = _parsed_name(name)
    place = _registry(registry, push)
    selection = select_cells(root, version=version, storage_options=storage_options)
    latest = selection.state.version
    if selection.version != latest:
        raise ArgumentError(
            f"version: a package holds the files of a dataset as they are, which is version {latest}.",
            path=public_url(selection.root.url),
            remedy="Leave version out.",
        )
    if not selection.root.is_local and protocol_of(selection.root.url) not in ("s3", "s3a"):
        raise ArgumentError(
            "Quilt packs files of this machine and of S3.",
            path=public_url(selection.root.url),
            remedy="Copy the dataset to one of them.",
        )
    if metadata_columns and not filepath_columns:
        raise ArgumentError("metadata_columns: there are no files that could have it; give filepath_columns too.")
    manifest, base = joined_manifest(selection, table, storage_options)
    columns = list(filepath_columns or ())
    packed, relative = packed_files(selection, manifest, base, columns, list(metadata_columns or ()), storage_options)
    metadata = sanitized(_about(selection))
    told = message or _message(metadata)
    with quilt_client(storage_options, progress) as quilt3, tempfile.TemporaryDirectory() as scratch:
        # What is made here must last as long as a local package that lists it.
        made = Path(scratch) if push else Path(local_path(place or default_registry())) / "files" / name
        package = _packed(quilt3, selection, packed, metadata)
        if columns:
            _set_manifest(package, relative, made)
        if readme is not None:
            _set_readme(package, readme, made, storage_options)
        package = _joined(quilt3, package, package_name, folder, place, metadata)
        if push:
            done = package.push(package_name, registry=place, message=told)
        else:
            package.build(package_name, registry=place, message=told)
            done = package
        sizes = [int(entry.size or 0) for _, entry in done.walk()]
        return QuiltReport(
            package_name,
            folder,
            place or default_registry(),
            str(done.top_hash),
            len(sizes),
            sum(sizes),
            metadata,
            push,
        )


def _parsed_name(name: str) -> tuple[str, str]:
    """Name of the package, and of the folder in it."""
    parts = name.split("/")
    good = len(parts) in (2, 3) and all(_PART.fullmatch(part) for part in parts[:2])
    if not good or not all(_FOLDER.fullmatch(part) for part in parts[2:]):
        raise ArgumentError(
            f"{name!r} is not a name of a package.",
            remedy="Give owner/project or owner/project/folder, of letters, digits, - and _.",
        )
    return "/".join(parts[:2]), "".join(parts[2:])


def _registry(registry: str | os.PathLike[str] | None, push: bool) -> str | None:
    """URL of the registry; None for Quilt's own."""
    text = None if registry is None else os.fspath(registry).rstrip("/")
    remote = text is not None and is_remote(text)
    if push and not (remote and re.fullmatch(r"s3://[^/?#]+", str(text))):
        raise ArgumentError(
            "Quilt pushes to a bucket of S3.", path=public_url(text or ""), remedy="Give registry='s3://bucket'."
        )
    if remote and not push:
        raise ArgumentError(
            "A package in a bucket would list files that are not there.",
            path=public_url(text or ""),
            remedy="Give push=True.",
        )
    if text is None or remote:
        return text
    return local_path(text).expanduser().absolute().as_uri()


def _about(selection: Selection) -> dict[str, Any]:
    """Metadata of the package."""
    state = selection.state
    attributes, layout = state.attributes, state.layout
    run = read_run(selection.root / "runs", state.version)
    code = run["code"] or {}
    counted = read_outcomes(selection.root, state.version)["status"].value_counts()
    return {
        "name": attributes["name"],
        "description": attributes["description"],
        "licence": attributes["licence"],
        "version": state.version,
        "cellcube": run["environment"]["cellcube"],
        "format": attributes["format"],
        "spec_digest": attributes["spec_digest"],
        "code": {"file": code.get("file"), **(code.get("git") or {"commit": None})},
        "finished": run["finished"],
        "counts": {
            "cells": len(selection),
            "requested": int(counted.sum()),
            **{status: int(counted.get(status, 0)) for status in ("kept", "dropped", "failed")},
        },
        "channels": list(layout.channels),
        "shape_zyx": list(layout.shape),
        "dtype": layout.dtype,
    }


def _message(metadata: Mapping[str, Any]) -> str:
    code = metadata["code"]
    commit = f", code at {code['commit'][:12]}" if code.get("commit") else ""
    dirty = " with uncommitted changes" if code.get("dirty") else ""
    return f"{metadata['name']}, version {metadata['version']}: {metadata['counts']['cells']:,} cells{commit}{dirty}"


def _packed(quilt3: Any, selection: Selection, files: Sequence[PackedFile], metadata: Mapping[str, Any]) -> Any:
    """A package of the dataset and the files."""
    package = quilt3.Package()
    package.set_dir("/", selection.root.url.replace("s3a://", "s3://"))
    for key in [key for key, _ in package.walk() if _NOT_PACKED.search(key)]:
        package.delete(key)
    if ".cellcube" in package:
        package.delete(".cellcube")
    for file in files:
        if file.folder:
            package.set_dir(file.key, file.path)
            inside = [key for key, _ in package.walk() if key.startswith(f"{file.key}/")]
            heads = {f"{file.key}/{name}" for name in _HEADS} & set(inside)
            # Metadata of folders do not survive a push.
            for key in heads or inside:
                package[key].set_meta(sanitized(file.metadata))
        elif file.key in package:
            package[file.key].set_meta(sanitized(file.metadata))
        else:
            package.set(file.key, file.path, meta=sanitized(file.metadata))
    package.set_meta(dict(metadata))
    return package


def _set_manifest(package: Any, manifest: pd.DataFrame, made: Path) -> None:
    held = io.BytesIO()
    manifest.to_parquet(held, index=False)
    place = made / hashlib.sha256(held.getvalue()).hexdigest()[:16] / "manifest.parquet"
    write_table(Location(str(place)), manifest)
    package.set("manifest.parquet", str(place))


def _set_readme(package: Any, readme: Any, made: Path, storage_options: Mapping[str, Any] | None) -> None:
    source = Location.of(readme, storage_options)
    try:
        text = source.read()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ArgumentError("readme: there is no file.", path=public_url(source.url)) from error
    place = made / hashlib.sha256(text).hexdigest()[:16] / CARD
    Location(str(place)).write(text)
    if CARD in package:
        package.set("dataset-card.md", package[CARD])
    package.set(CARD, str(place))


def _joined(
    quilt3: Any, package: Any, name: str, folder: str, registry: str | None, metadata: Mapping[str, Any]
) -> Any:
    """The next revision of a package, of which `package` is all or a folder."""
    before = _browse(quilt3, name, registry)
    if before is None and not folder:
        return package
    revision = before if before is not None else quilt3.Package()
    kept = dict(revision.meta)
    if not folder:
        # Taken on, so that Quilt knows which revision this one follows.
        for key in list(revision):
            revision.delete(key)
        kept = {}
    elif folder in revision:
        revision.delete(folder)
    prefix = f"{folder}/" if folder else ""
    for key, entry in package.walk():
        revision.set(f"{prefix}{key}", entry)
    revision.set_meta(kept | ({folder: dict(metadata)} if folder else dict(metadata)))
    return revision


def _browse(quilt3: Any, name: str, registry: str | None) -> Any:
    """The latest revision of a package, or None."""
    from botocore.exceptions import ClientError

    try:
        return quilt3.Package.browse(name, registry=registry)
    except FileNotFoundError:
        return None
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            return None
        raise
