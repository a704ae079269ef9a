"""RO-Crate: what a dataset folder holds, who made it, and from what by which code.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1), each build as the profile Process Run Crate 0.5 has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from cellcube.publishing.about import CELLS, CUBE, RUNS, UNFINISHED, ZARR_FORMAT, Published, encoding_format, orcid_url
from cellcube.urls import is_remote

RO_CRATE = "ro-crate-metadata.json"
PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"
OME_ZARR = "https://ngff.openmicroscopy.org/0.5/"
# What the context of RO-Crate 1.1 lacks.
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]

# Up to so many images are listed one by one, and up to so many FOVs; beyond, a build's images are one entity.
MOST_IMAGES = 500
MOST_FOVS = 5000

_MEANINGS = {
    CELLS: "Manifest: one row a cell, in the order of the cube",
    "outcomes.parquet": "One row for every cell requested: kept, dropped or failed, and why",
    "fovs.parquet": "One row a field of view: its labels, and what became of them",
    "catalog.yaml": "Intake catalog of the dataset",
    "README.md": "Dataset card",
    "croissant.json": "Croissant metadata of the dataset",
}
_DOI = re.compile(r"\b10\.\d{4,9}/[^\s,;>\"]*[^\s,;>\".)\]]")
_REMOTE = re.compile(
    r"(?:(?:ssh|git|https?)://)?(?:[^@/]+@)?(?P<host>[\w.-]+\.\w+)(?::\d+/|[:/])(?P<path>\S+?)(?:\.git)?/?"
)

Entity = dict[str, Any]


def ro_crate(about: Published) -> dict[str, Any]:
    """The document ``ro-crate-metadata.json`` of a dataset folder.

    Parameters
    ----------
    about : Published

    Returns
    -------
    dict
        JSON-LD; the same for the same dataset. Images are entities of their own up to `MOST_IMAGES`, then one for each
        FOV up to `MOST_FOVS`, then one for each build.
    """
    authors = list(_authors(about))
    licence, licences = _licence(about)
    citation, articles = _citation(about)
    runs = [_run(about, run) for run in about.runs]
    parts = list(_parts(about))
    below = {part["@id"] for part in parts for part in _listed(part.get("hasPart"))}
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROCESS_RUN},
        "name": about.name,
        "description": about.description,
        "version": str(about.state.version),
        "dateCreated": about.created,
        "dateModified": about.changed,
        "datePublished": about.changed,
        "license": licence,
        "author": _one_or_all([_link(each) for each in authors if each["@type"] == "Person"]),
        "identifier": about.doi,
        "url": about.url,
        "citation": citation,
        "keywords": ", ".join(about.keywords),
        "hasPart": _one_or_all([_link(part) for part in parts if part["@id"] not in below]),
        "mentions": _one_or_all([_link(action) for action, *_ in runs]),
    }
    descriptor = {
        "@id": RO_CRATE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    standards = [
        {"@id": PROCESS_RUN, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": OME_ZARR, "@type": "CreativeWork", "name": "OME-Zarr", "version": "0.5"},
    ]
    entities = [descriptor, root, *authors, *licences, *articles, *parts, *standards]
    entities += [entity for run in runs for entity in run]
    graph: dict[str, Entity] = {}
    for entity in entities:
        graph.setdefault(entity["@id"], {name: value for name, value in entity.items() if value not in (None, "", [])})
    return {"@context": CONTEXT, "@graph": list(graph.values())}


def _link(entity: Mapping[str, Any]) -> Entity:
    return {"@id": entity["@id"]}


def _one_or_all(values: list[Any]) -> Any:
    """RO-Crate wants a value alone where there is one."""
    return values[0] if len(values) == 1 else values


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _fragment(text: str) -> str:
    return quote(text, safe="/")


def _authors(about: Published) -> Iterator[Entity]:
    """Persons in their order, each after the organization that is their affiliation."""
    places: dict[str, str] = {}
    for number, author in enumerate(about.authors, 1):
        person: Entity = {"@id": f"#author-{number}", "@type": "Person", "name": author["name"]}
        if author.get("orcid"):
            person["@id"] = orcid_url(str(author["orcid"]))
        if place := author.get("affiliation"):
            if place not in places:
                places[place] = f"#organization-{len(places) + 1}"
                yield {"@id": places[place], "@type": "Organization", "name": place}
            person["affiliation"] = {"@id": places[place]}
        yield person


def _licence(about: Published) -> tuple[Any, list[Entity]]:
    name = about.licence
    if name is None:
        return "No licence is stated.", []
    identifier = about.licence_url
    if identifier is None:
        return name, []
    entity = {"@id": identifier, "@type": "CreativeWork", "name": name, "description": f"SPDX licence {name}"}
    return _link(entity), [entity]


def _citation(about: Published) -> tuple[Any, list[Entity]]:
    """The text; or the article whose DOI it tells, where that is not the dataset's own."""
    text = about.citation
    found = _DOI.search(text or "")
    address = f"https://doi.org/{found[0]}" if found else None
    if address is None or address == about.doi:
        return text, []
    entity = {"@id": address, "@type": "ScholarlyArticle", "name": text}
    return _link(entity), [entity]


def _parts(about: Published) -> Iterator[Entity]:
    """The cube, the folder of runs, and all files outside the cube."""
    state = about.state
    yield {
        "@id": CUBE,
        "@type": "Dataset",
        "name": "Cube",
        "description": f"{state.count:,} single-cell images with their coordinates, Zarr v3 and OME-Zarr 0.5",
        "encodingFormat": ZARR_FORMAT,
        "conformsTo": {"@id": OME_ZARR},
        "contentSize": _size([size for path, (size, _) in about.files.items() if path.startswith(CUBE)]),
    }
    others = sorted(path for path in about.files if not path.startswith((CUBE, UNFINISHED)) and path != RO_CRATE)
    runs = [{"@id": _fragment(path)} for path in others if path.startswith(RUNS)]
    if runs:
        yield {
            "@id": RUNS,
            "@type": "Dataset",
            "name": "Runs",
            "description": "Provenance of every build: parameters, code, versions, images, what became of each cell",
            "hasPart": _one_or_all(runs),
        }
    for path in others:
        size, digest = about.files[path]
        yield {
            "@id": _fragment(path),
            "@type": "File",
            "name": path,
            "description": _MEANINGS.get(path),
            "encodingFormat": encoding_format(path),
            "contentSize": str(size),
            "sha256": digest,
        }


def _run(about: Published, run: Mapping[str, Any]) -> list[Entity]:
    """A build, and what it links to."""
    number, environment = run["version"], run["environment"]
    cellcube = {
        "@id": f"#cellcube-{_fragment(str(environment['cellcube']))}",
        "@type": "SoftwareApplication",
        "name": "cellcube",
        "softwareVersion": str(environment["cellcube"]),
    }
    script = _script(run)
    tools = [cellcube, *([script] if script else [])]
    agents = [
        {"@id": f"#user-{_fragment(user)}", "@type": "Person", "name": user}
        for user in [environment.get("user")]
        if user
    ]
    images = list(_images(about, run))
    own = [path for path in sorted(about.files) if path.startswith(f"{RUNS}{number:06d}.")]
    action = {
        "@id": f"#run-{number}",
        "@type": "CreateAction",
        "name": f"{str(run.get('kind', 'build')).capitalize()} {number}",
        "description": _what(run),
        "instrument": _one_or_all([_link(tool) for tool in tools]),
        "agent": _one_or_all([_link(agent) for agent in agents]),
        "object": _one_or_all([_link(image) for image in images]),
        "result": _one_or_all([{"@id": CUBE}, *({"@id": _fragment(path)} for path in own)]),
        "startTime": run["started"],
        "endTime": run["finished"],
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }
    return [action, *tools, *agents, *images]


def _what(run: Mapping[str, Any]) -> str:
    """What a run did, in a sentence."""
    kind, counts = run.get("kind", "build"), run["counts"]
    if kind == "retract":
        return f"{counts.get('retracted', 0):,} cells retracted: {run.get('reason')}"
    if kind == "describe":
        return f"Changed: {', '.join(run.get('changed') or ())}"
    if kind == "checkout":
        source = run["source"]
        return f"{counts.get('kept', 0):,} cells taken from version {source['version']} of {source['url']}"
    decided = ", ".join(f"{counts.get(status, 0):,} {status}" for status in ("kept", "dropped", "failed"))
    return f"Cells cut from fields of view: {counts.get('requested', 0):,} requested, {decided}"


def _script(run: Mapping[str, Any]) -> Entity | None:
    """The code that called cellcube; None where nothing is known of it."""
    file, git = run["code"].get("file"), run["code"].get("git") or {}
    if not file and not git.get("commit"):
        return None
    commit, remote = git.get("commit"), git.get("remote")
    repository = web_address(remote) if remote else None
    return {
        "@id": f"#run-{run['version']}-code",
        "@type": "SoftwareSourceCode",
        "name": file or "An interactive session",
        "description": "With changes that are not in the commit" if git.get("dirty") else None,
        "version": commit,
        "codeRepository": repository,
        "url": _permanent(repository, commit, file),
    }


def web_address(remote: str) -> str | None:
    """The web address of a git remote; None for one on this machine.

    Examples
    --------
    >>> web_address("git@github.com:lab/screen.git")
    'https://github.com/lab/screen'
    """
    found = None if remote.startswith("file:") else _REMOTE.fullmatch(remote)
    return f"https://{found['host']}/{found['path']}" if found else None


def _permanent(repository: str | None, commit: str | None, file: str | None) -> str | None:
    """Address of a file at a commit, where the host is known to have one."""
    middle = {"https://github.com/": "blob", "https://gitlab.com/": "-/blob"}
    part = next((each for host, each in middle.items() if (repository or "").startswith(host)), None)
    return f"{repository}/{part}/{commit}/{quote(file)}" if part and commit and file else None


def _images(about: Published, run: Mapping[str, Any]) -> Iterator[Entity]:
    """The files that a build read, sorted; as one entity a FOV, or one in all, where there are many."""
    number, fovs = run["version"], run.get("fovs") or {}
    files = _files(run)
    if sum(len(_files(each)) for each in about.runs) <= MOST_IMAGES:
        for path in sorted(files):
            owners = [fov for fov in sorted(fovs) if any(file["path"] == path for file in fovs[fov])]
            whose = f"field of view {owners[0]}" if len(owners) == 1 else f"{len(owners):,} fields of view"
            yield {
                "@id": f"#run-{number}/{_fragment(path)}",
                "@type": "File",
                "name": path,
                "description": f"Image of {whose}",
                "url": path if is_remote(path) else None,
                "encodingFormat": encoding_format(path),
                "contentSize": _size(_sizes([files[path]])),
                "dateModified": _time(files[path].get("mtime")),
            }
    elif sum(len(each.get("fovs") or {}) for each in about.runs) <= MOST_FOVS:
        for fov in sorted(fovs):
            names = ", ".join(sorted(file["path"] for file in fovs[fov]))
            yield _folder(f"#run-{number}/{_fragment(fov)}", fov, f"Images {names}", fovs[fov])
    elif fovs:
        meaning = f"{len(files):,} files of {len(fovs):,} fields of view, listed in {RUNS}{number:06d}.json"
        yield _folder(f"#run-{number}/images", f"Images of build {number}", meaning, list(files.values()))


def _files(run: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Each file that a build read, by its path: one may hold many FOVs."""
    return {file["path"]: file for files in (run.get("fovs") or {}).values() for file in files}


def _folder(identifier: str, name: str, description: str, files: list[Mapping[str, Any]]) -> Entity:
    return {
        "@id": identifier,
        "@type": "Dataset",
        "name": name,
        "description": description,
        "contentSize": _size(_sizes(files)),
    }


def _sizes(files: list[Mapping[str, Any]]) -> list[int]:
    """Sizes of all files; nothing where one is not known, as runs record only the metadata's of an OME-Zarr image."""
    known = [
        int(file["size"])
        for file in files
        if file.get("size") is not None
        and not any(part.endswith(".zarr") for part in PurePosixPath(file["path"].replace("\\", "/")).parts)
    ]
    return known if len(known) == len(files) else []


def _size(sizes: list[int]) -> str | None:
    return str(sum(sizes)) if sizes else None


def _time(seconds: Any) -> str | None:
    """A modification time in ISO 8601; None where it was not told as seconds."""
    if isinstance(seconds, int | float):
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    return None
