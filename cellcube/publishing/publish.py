"""`publish`: check a dataset, write the metadata that others look for, copy it, and list it in a catalog."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from dataclasses import replace as altered
from typing import Any

from cellcube.cube import CubeState
from cellcube.errors import ArgumentError, DatasetAccessError, PublishError
from cellcube.ledger import Claim, Recorder, fold_objects, write_table
from cellcube.location import Location
from cellcube.manifest import CATALOG, OBJECTS, read_objects
from cellcube.publishing.about import Published, read_published
from cellcube.publishing.catalogs import add_entry, entry_path
from cellcube.publishing.crate import RO_CRATE, ro_crate
from cellcube.publishing.croissant import CROISSANT, croissant
from cellcube.publishing.fitness import problems_of, unclean
from cellcube.publishing.sync import CopyReport, copy_dataset, readable
from cellcube.run.target import WORK
from cellcube.urls import public_url


@dataclass(frozen=True)
class PublishReport:
    """What `publish` did.

    Parameters
    ----------
    root : str
        Where the published dataset is.
    url : str
        Of its catalog, for `intake.open_catalog`.
    name : str
        Of the entry in the catalog of datasets.
    catalog : str or None
        The catalog of datasets.
    version, cells : int
    copy : CopyReport or None
        What was copied, where it was.
    advice : tuple of str
        What a published dataset may have, and this one lacks.
    """

    root: str
    url: str
    name: str
    catalog: str | None
    version: int
    cells: int
    copy: CopyReport | None
    advice: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"published {self.name}, version {self.version}, {self.cells:,} cells", f"catalog   {self.url}"]
        if self.catalog:
            lines.append(f"listed    {self.name!r} in {self.catalog}")
        if self.copy:
            lines.append(f"copied    {self.copy.copied:,} of {self.copy.objects:,} objects")
        return "\n".join([*lines, *(f"advice    {text}" for text in self.advice)])


def publish(
    root: str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    catalog: str | os.PathLike[str] | None = None,
    name: str | None = None,
    replace: bool = False,
    require_clean: bool = False,
    allow: Collection[str] = (),
    workers: int = 8,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> PublishReport:
    """Check a dataset, write its metadata, copy it, and list it in a catalog of datasets.

    Everything is checked before anything is written. The same call again copies and writes only what is new.

    Parameters
    ----------
    root : path or URL
        Folder of the dataset.
    to : path or URL, optional
        Where it is to be copied to. None publishes it where it is.
    catalog : path or URL, optional
        A catalog of datasets, YAML, in which it is to be listed; made where there is none.
    name : str, optional
        Of its entry; None is the dataset's own.
    replace : bool
        Whether an entry of that name may be replaced that leads elsewhere.
    require_clean : bool
        Demand that the code of every run is in a commit that was pushed. Call it in a working copy of that code.
    allow : collection of {"licence", "description", "channels", "voxel_size"}
        What may be missing.
    workers : int
        Objects that are copied at a time.
    storage_options : mapping, optional
        fsspec options for all remote paths, or one mapping a protocol. Never written anywhere.
    progress : bool
        Show a progress bar where standard error is a terminal.

    Returns
    -------
    PublishReport

    Raises
    ------
    cellcube.errors.PublishError
        Where the dataset is not fit to be published; it lists everything that is missing.
    cellcube.errors.DatasetError
        Where there is no dataset, or source, target or catalog cannot be used: `DatasetDivergedError`,
        `NotADatasetError`, `DatasetAccessError`, `DatasetBusyError`, `CatalogError`.
    """
    location = Location.of(root, storage_options)
    target = location if to is None else Location.of(to, storage_options)
    parent = None if catalog is None else Location.of(catalog, storage_options)
    if parent is not None:
        entry_path(parent, target)
        if not parent.name.endswith((".yaml", ".yml")):
            raise ArgumentError("The catalog is no YAML file.", path=parent.url, remedy=f"Give …/{CATALOG}.")
    state = readable(location)
    problems = problems_of(location, state, allow)
    if require_clean:
        problems += unclean(location, state)
    if problems:
        raise PublishError("The dataset is not fit to be published:", problems=problems, path=public_url(location.url))
    about = write_metadata(location, state, None if target.is_local else public_url(target.url))
    copied = None
    if target != location:
        copied = copy_dataset(location, target, workers=workers, progress=progress)
    entry = name or about.name
    if parent is not None:
        add_entry(parent, entry, target, about, replace=replace)
    return PublishReport(
        root=public_url(target.url),
        url=public_url((target / CATALOG).url),
        name=entry,
        catalog=None if parent is None else public_url(parent.url),
        version=state.version,
        cells=state.visible,
        copy=copied,
        advice=_advice(about, target, parent),
    )


def write_metadata(root: Location, state: CubeState, url: str | None) -> Published:
    """Write ``ro-crate-metadata.json`` and ``croissant.json`` where they differ, and list them among the objects.

    Parameters
    ----------
    root : Location
    state : CubeState
    url : str, optional
        Where the dataset can be found.

    Raises
    ------
    cellcube.errors.DatasetAccessError
        Where they cannot be written.
    """
    about = read_published(root, url)
    # The crate lists all files, and the table of objects lists the crate: neither can tell the other's hash.
    files = {path: each for path, each in about.files.items() if path not in (OBJECTS, RO_CRATE, CROISSANT)}
    about = altered(about, files=files)
    recorder = Recorder(root)
    texts = {CROISSANT: _json(croissant(about))}
    recorder.note(CROISSANT, texts[CROISSANT])
    with_croissant = altered(about, files={**files, CROISSANT: recorder.noted[CROISSANT]})
    texts[RO_CRATE] = _json(ro_crate(with_croissant))
    recorder.note(RO_CRATE, texts[RO_CRATE])
    listed = read_objects(root, state.version)
    folded = fold_objects(listed, recorder.frame(state.version))
    if folded.equals(listed) and all(_is_there(root / path, data) for path, data in texts.items()):
        return about
    try:
        with Claim(root / WORK / "claim.json", public_url(root.url)):
            for path, data in texts.items():
                (root / path).write(data)
            write_table(root / OBJECTS, folded, {"version": state.version})
    except DatasetAccessError:
        raise
    except OSError as error:
        raise DatasetAccessError(
            f"The metadata cannot be written: {type(error).__name__}: {error}.",
            path=public_url(root.url),
            remedy="Check the permissions, or copy the dataset to a place of your own first.",
        ) from error
    return about


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _is_there(location: Location, data: bytes) -> bool:
    try:
        return location.read() == data
    except OSError:
        return False


def _advice(about: Published, target: Location, catalog: Location | None) -> tuple[str, ...]:
    found = []
    if not about.authors:
        found.append("no authors are named: describe(root, authors=[…])")
    if not about.doi and not about.citation:
        found.append("there is no DOI and no citation: describe(root, doi='10.…')")
    if catalog is not None and target.is_local and not target.url.startswith(f"{catalog.parent.url}/"):
        found.append(f"the catalog names {target.url}, which only this machine has: put one below the other's folder")
    return tuple(found)
