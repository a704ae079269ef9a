"""Metadata of a dataset: true to it, whole, and valid to the libraries that others read it with."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cellcube
from cellcube.demo.plates import DemoPlate
from cellcube.errors import ArgumentError, DatasetNotFoundError
from cellcube.location import Location
from cellcube.publishing.about import Published, encoding_format, read_published
from cellcube.publishing.crate import MOST_FOVS, MOST_IMAGES, ro_crate, web_address
from cellcube.publishing.croissant import croissant, data_type
from cellcube.publishing.licences import USUAL, check_licence, licence_url

DOI = "10.5281/zenodo.1234567"
ORCID = "0000-0002-1825-0097"
FIELDS: dict[str, Any] = {
    "executor": 1,
    "progress": False,
    "shape": (1, 32, 32),
    "projections": [],
    "name": "my-lab/screen-7",
    "description": "Cells under “stress”.",
    "licence": "cc-by-4.0",
    "authors": [
        {"name": "Josiah Carberry", "orcid": ORCID, "affiliation": "Brown University"},
        {"name": "Zoë Çelik", "affiliation": "Brown University"},
        "A. Nother",
    ],
    "doi": DOI,
    "citation": "Carberry et al. 2026, J. Psychoceramics 1:2, https://doi.org/10.1234/cracked.",
    "keywords": ["microscopy", "single cell"],
    "split": {"by": "cell_id", "fractions": {"train": 0.5, "test": 0.5}, "seed": 0},
}
# Of what a crate says, only this is not in the context of RO-Crate 1.1 (checked with its version 1.1.3).
OWN_TERMS = {"sha256"}
WELL_KNOWN = {
    *("about", "actionStatus", "affiliation", "agent", "author", "citation", "codeRepository", "conformsTo"),
    *("contentSize", "dateCreated", "dateModified", "datePublished", "description", "encodingFormat", "endTime"),
    *("hasPart", "identifier", "instrument", "keywords", "license", "mentions", "name", "object", "result"),
    *("softwareVersion", "startTime", "url", "version"),
}
# Messages of these libraries are their own business.
quiet = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def root(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two builds, and of files whose names are awkward in addresses."""
    folder = tmp_path_factory.mktemp("metadata")
    table = pd.read_csv(plate.cells_csv)
    table = table[table["fov_id"] != plate.broken_fov]
    table["50% µ#?"] = 1.5
    awkward = folder / "Bild #1 50% ü?.tif"
    shutil.copy(plate.folder / table["fov_path"].iloc[0], awkward)
    first = table["fov_path"] == table["fov_path"].iloc[0]
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    table.loc[first, "fov_path"] = str(awkward)
    cellcube.build(table[first], folder / "ds", **FIELDS)
    cellcube.build(table, folder / "ds", **FIELDS, identify=True)
    (folder / "ds" / "a preview #1.png").write_bytes(b"not one")
    return folder / "ds"


@pytest.fixture(scope="module")
def about(root: Path) -> Published:
    return read_published(Location.of(root))


@pytest.fixture
def bare(plate: DemoPlate, tmp_path: Path) -> Published:
    """Of a dataset about which nothing was told, made in a notebook outside a repository."""
    small = {name: FIELDS[name] for name in ("executor", "progress", "shape", "projections")}
    cellcube.build(plate.cells_csv, tmp_path / "bare", **small)
    about = read_published(Location.of(tmp_path / "bare"))
    return replace(about, runs=[{**run, "code": {"file": None, "git": None}} for run in about.runs])


def with_spec(about: Published, **fields: Any) -> Published:
    attributes = {**about.state.attributes, "spec": {**about.state.attributes["spec"], **fields}}
    attributes |= {name: value for name, value in fields.items() if name in attributes}
    return replace(about, state=type(about.state)(attributes))


def with_images(about: Published, fovs: int, files: int) -> Published:
    paths = {f"F{fov}": [{"path": f"{fov}/{number}.tif", "size": 10} for number in range(files)] for fov in range(fovs)}
    return replace(about, runs=[{**about.runs[0], "fovs": paths}])


def by_id(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    entities = {entity["@id"]: entity for entity in document["@graph"]}
    assert len(entities) == len(document["@graph"])
    return entities


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and set(value) == {"@id"}:
        yield value["@id"]
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from references(each)


def linked(value: Any) -> list[str]:
    return list(references(value))


@pytest.mark.parametrize("make", [ro_crate, croissant])
def test_a_document_is_json_and_the_same_for_the_same_dataset(make: Any, root: Path, about: Published) -> None:
    text = json.dumps(make(about), allow_nan=False)
    assert json.dumps(make(read_published(Location.of(root)))) == text
    shuffled = dict(reversed(about.files.items()))
    assert json.dumps(make(replace(about, files=shuffled))) == text


def test_there_must_be_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError):
        read_published(Location.of(tmp_path))


@pytest.mark.parametrize("name", ["about", "bare"])
def test_a_crate_is_whole(name: str, request: pytest.FixtureRequest) -> None:
    entities = by_id(ro_crate(request.getfixturevalue(name)))
    for entity in entities.values():
        assert set(entity) - {"@id", "@type"} <= WELL_KNOWN | OWN_TERMS
        assert entity.get("name") or entity["@id"] == "ro-crate-metadata.json"
        lost = [each for each in linked(entity) if each not in entities and each != "https://w3id.org/ro/crate/1.1"]
        assert not lost
        assert not [value for value in entity.values() if value in (None, "", [])]
        assert not [value for value in entity.values() if isinstance(value, list) and len(value) == 1]
    assert linked(entities["ro-crate-metadata.json"]["about"]) == ["./"]
    used = {each for entity in entities.values() for each in linked(entity)}
    assert set(entities) - used == {"ro-crate-metadata.json"}


def test_the_root_tells_what_was_given(about: Published) -> None:
    entities = by_id(ro_crate(about))
    root = entities["./"]
    assert (root["name"], root["description"]) == (FIELDS["name"], FIELDS["description"])
    assert linked(root["license"]) == ["https://spdx.org/licenses/CC-BY-4.0"]
    assert root["identifier"] == f"https://doi.org/{DOI}"
    assert root["keywords"] == "microscopy, single cell"
    people = [entities[each] for each in linked(root["author"])]
    assert [person["name"] for person in people] == ["Josiah Carberry", "Zoë Çelik", "A. Nother"]
    assert people[0]["@id"] == f"https://orcid.org/{ORCID}"
    assert people[0]["affiliation"] == people[1]["affiliation"] == {"@id": "#organization-1"}
    article = entities[linked(root["citation"])[0]]
    assert article == {
        "@id": "https://doi.org/10.1234/cracked",
        "@type": "ScholarlyArticle",
        "name": FIELDS["citation"],
    }


def test_files_of_a_crate_are_those_of_the_folder(root: Path, about: Published) -> None:
    entities = by_id(ro_crate(about))
    own = [each for each in entities.values() if each["@type"] == "File" and each["@id"][0] != "#"]
    paths = {each["name"] for each in own}
    everything = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert paths == {path for path in everything if not path.startswith(("cube.zarr/", ".cellcube/"))}
    for each in own:
        data = (root / each["name"]).read_bytes()
        assert each["contentSize"] == str(len(data))
        assert each["sha256"] == hashlib.sha256(data).hexdigest()
    assert "a%20preview%20%231.png" in entities
    cube = sum(path.stat().st_size for path in (root / "cube.zarr").rglob("*") if path.is_file())
    assert entities["cube.zarr/"]["contentSize"] == str(cube)
    parts = linked(entities["./"]["hasPart"])
    assert "runs/" in parts
    assert "runs/000001.json" not in parts
    assert "runs/000002.json" in linked(entities["runs/"]["hasPart"])


def test_a_crate_does_not_describe_itself_or_unfinished_work(about: Published) -> None:
    files = {**about.files, "ro-crate-metadata.json": (1, "0"), ".cellcube/claim.json": (1, "0")}
    assert ro_crate(replace(about, files=files)) == ro_crate(about)


def test_each_build_is_an_action(about: Published) -> None:
    entities = by_id(ro_crate(about))
    assert linked(entities["./"]["mentions"]) == ["#run-1", "#run-2"]
    for run in about.runs:
        number = run["version"]
        action = entities[f"#run-{number}"]
        assert (action["startTime"], action["endTime"]) == (run["started"], run["finished"])
        assert linked(action["instrument"]) == [f"#cellcube-{cellcube.__version__}", f"#run-{number}-code"]
        assert entities[f"#run-{number}-code"]["name"].endswith("test_metadata.py")
        results = linked(action["result"])
        assert results[0] == "cube.zarr/"
        assert {entities[each]["name"] for each in results[1:]} == {
            path for path in about.files if path.startswith(f"runs/00000{number}.")
        }
        told = {entities[each]["name"]: entities[each]["contentSize"] for each in linked(action["object"])}
        assert told == {file["path"]: str(file["size"]) for files in run["fovs"].values() for file in files}
    assert any(each.endswith("/Bild%20%231%2050%25%20%C3%BC%3F.tif") for each in linked(entities["#run-1"]["object"]))
    assert "agent" not in entities["#run-1"]
    [agent] = linked(entities["#run-2"]["agent"])
    assert entities[agent]["name"] == about.runs[1]["environment"]["user"]


def test_code_of_a_build_is_told_by_its_commit(about: Published) -> None:
    git = {"remote": "git@github.com:lab/screen.git", "branch": "main", "commit": "abc123", "dirty": True}
    about = replace(about, runs=[{**about.runs[0], "code": {"file": "a b/build.py", "git": git}}])
    code = by_id(ro_crate(about))["#run-1-code"]
    assert code["codeRepository"] == "https://github.com/lab/screen"
    assert code["url"] == "https://github.com/lab/screen/blob/abc123/a%20b/build.py"
    assert code["version"] == "abc123"
    assert "not in the commit" in code["description"]


def test_of_a_notebook_in_a_repository_the_commit_is_told(about: Published) -> None:
    git = {"remote": None, "branch": "main", "commit": "abc123", "dirty": False}
    about = replace(about, runs=[{**about.runs[0], "code": {"file": None, "git": git}}])
    code = by_id(ro_crate(about))["#run-1-code"]
    assert code["version"] == "abc123"
    assert not code.keys() & {"url", "codeRepository", "description"}


def test_nothing_is_made_up(bare: Published) -> None:
    entities = by_id(ro_crate(bare))
    assert not entities["./"].keys() & {"author", "identifier", "citation", "keywords", "url"}
    assert entities["./"]["license"] == "No licence is stated."
    assert "15 single-cell images" in entities["./"]["description"]
    assert linked(entities["#run-1"]["instrument"]) == [f"#cellcube-{cellcube.__version__}"]
    document = croissant(bare)
    assert not document.keys() & {"creator", "license", "citeAs", "url", "identifier", "keywords"}
    assert [each["@id"] for each in document["recordSet"]] == ["cells"]


def test_a_licence_that_is_no_spdx_identifier_stays_as_it_is(about: Published) -> None:
    about = with_spec(about, licence="ask us first")
    assert by_id(ro_crate(about))["./"]["license"] == croissant(about)["license"] == "ask us first"
    either = with_spec(about, licence="mit or apache-2.0")
    assert by_id(ro_crate(either))["./"]["license"] == croissant(either)["license"] == "MIT OR Apache-2.0"


@pytest.mark.parametrize("text", ["Carberry 2026, in press", f"Carberry 2026, https://doi.org/{DOI}"])
def test_a_citation_of_the_dataset_itself_is_text(about: Published, text: str) -> None:
    assert by_id(ro_crate(with_spec(about, citation=text)))["./"]["citation"] == text


def test_many_images_are_told_by_fov_and_very_many_by_build(about: Published) -> None:
    few = linked(by_id(ro_crate(with_images(about, MOST_IMAGES // 2, 2)))["#run-1"]["object"])
    assert len(few) == MOST_IMAGES
    entities = by_id(ro_crate(with_images(about, MOST_IMAGES, 2)))
    assert len(linked(entities["#run-1"]["object"])) == MOST_IMAGES
    assert entities["#run-1/F7"]["contentSize"] == "20"
    assert entities["#run-1/F7"]["description"] == "Images 7/0.tif, 7/1.tif"
    entities = by_id(ro_crate(with_images(about, MOST_FOVS + 1, 1)))
    assert linked(entities["#run-1"]["object"]) == ["#run-1/images"]
    assert entities["#run-1/images"]["contentSize"] == str(10 * (MOST_FOVS + 1))


def test_images_without_a_true_size_have_none(about: Published) -> None:
    fovs = {
        "a": [{"path": "a.ome.zarr/0", "size": 900}],
        "b": [{"path": "s3://bucket/b.nd2"}],
        "c": [{"path": "s3://bucket/b.nd2"}],
    }
    entities = by_id(ro_crate(replace(about, runs=[{**about.runs[0], "fovs": fovs}])))
    assert "contentSize" not in entities["#run-1/a.ome.zarr/0"]
    remote = entities["#run-1/s3%3A//bucket/b.nd2"]
    assert "contentSize" not in remote
    assert remote["url"] == "s3://bucket/b.nd2"
    assert remote["description"] == "Image of 2 fields of view"


def test_a_build_without_images_has_no_object(about: Published) -> None:
    assert "object" not in by_id(ro_crate(with_images(about, 0, 0)))["#run-1"]


def test_croissant_has_a_field_for_every_column(about: Published) -> None:
    document = croissant(about)
    splits, cells = document["recordSet"]
    assert [field["source"]["extract"]["column"] for field in cells["field"]] == list(about.cells.columns)
    assert [field["description"] for field in cells["field"]] == list(about.columns.values())
    ids = [field["@id"] for field in cells["field"]]
    assert len(set(ids)) == len(ids)
    assert "cells/50%25%20%C2%B5%23%3F" in ids
    assert cells["key"] == {"@id": "cells/cell_id"}
    split = next(field for field in cells["field"] if field["name"] == "split")
    assert split["references"] == {"field": {"@id": "splits/name"}}
    assert {row["splits/name"]: row["splits/url"] for row in splits["data"]} == {
        "test": "cr:TestSplit",
        "train": "cr:TrainingSplit",
    }
    assert document["version"] == "1.2.0"
    assert document["citeAs"] == FIELDS["citation"]
    assert document["creator"][0]["url"] == f"https://orcid.org/{ORCID}"
    manifest = next(each for each in document["distribution"] if each["@id"] == "cells.parquet")
    assert manifest["sha256"] == about.files["cells.parquet"][1]


def test_parts_with_names_of_their_own_have_no_meaning_to_croissant(about: Published) -> None:
    cells = about.cells.assign(split=["plate a", *["train"] * (len(about.cells) - 1)])
    splits, _ = croissant(replace(about, cells=cells))["recordSet"]
    assert splits["data"] == [{"splits/name": "plate a"}, {"splits/name": "train"}]
    assert [field["@id"] for field in splits["field"]] == ["splits/name"]


def test_a_citation_is_made_from_the_authors(about: Published) -> None:
    cited = croissant(with_spec(about, citation=None))["citeAs"]
    year = about.changed[:4]
    names = "Josiah Carberry; Zoë Çelik; A. Nother"
    assert cited == f"{names} ({year}). my-lab/screen-7, version 2. https://doi.org/{DOI}"


def test_croissant_needs_a_checksum(about: Published) -> None:
    with pytest.raises(ArgumentError, match="SHA-256"):
        croissant(replace(about, files={"cells.parquet": (1, None)}))


def test_an_address_is_told(about: Published) -> None:
    about = replace(about, url="https://example.org/screen-7")
    assert croissant(about)["url"] == by_id(ro_crate(about))["./"]["url"] == "https://example.org/screen-7"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.Series([1, 2]), "Integer"),
        (pd.Series([1, None], dtype="Int64"), "Integer"),
        (pd.Series([1.5, None]), "Float"),
        (pd.Series([True, False]), "Boolean"),
        (pd.Series([True, None], dtype=object), "Boolean"),
        (pd.Series(["a", None]), "Text"),
        (pd.Series(["a", 1], dtype=object), "Text"),
        (pd.Series([], dtype=object), "Text"),
        (pd.Series(["a"], dtype="category"), "Text"),
        (pd.to_datetime(pd.Series(["2026-01-02"])), "DateTime"),
        (pd.Series([pd.Timestamp("2026-01-02").date()]), "Date"),
    ],
)
def test_types_of_columns(values: Any, kind: str) -> None:
    assert data_type(values) == f"sc:{kind}"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("CC-BY-4.0", "CC-BY-4.0"),
        (" cc0-1.0 ", "CC0-1.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/deed.en", "CC-BY-NC-SA-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0", "CC0-1.0"),
        ("https://spdx.org/licenses/MIT.html", "MIT"),
        ("mit or (apache-2.0 and cc-by-4.0)", "MIT OR (Apache-2.0 AND CC-BY-4.0)"),
        ("licenseref-Hospital", "LicenseRef-Hospital"),
    ],
)
def test_licences(text: str, licence: str) -> None:
    assert check_licence(text) == licence
    assert check_licence(licence) == licence


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("CC BY 4.0", "Did you mean 'CC-BY-4.0'?"),
        ("CC-BY", "Did you mean 'CC-BY-4.0'?"),
        ("cc0", "Did you mean 'CC0-1.0'?"),
        ("BSD", "such as CC-BY-4.0"),
        ("", "such as CC-BY-4.0"),
        ("https://creativecommons.org/licenses/by/9.9/", "such as CC-BY-4.0"),
    ],
)
def test_what_is_no_licence_gets_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ArgumentError) as error:
        check_licence(text)
    assert hint in str(error.value)


def test_usual_licences_are_licences() -> None:
    assert [check_licence(each) for each in USUAL] == list(USUAL)
    assert licence_url("CC0-1.0") == "https://spdx.org/licenses/CC0-1.0"
    assert licence_url("MIT OR Apache-2.0") is licence_url("LicenseRef-own") is None


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:lab/screen.git", "https://github.com/lab/screen"),
        ("https://github.com/lab/screen", "https://github.com/lab/screen"),
        ("ssh://git@gitlab.com:22/lab/sub/screen.git", "https://gitlab.com/lab/sub/screen"),
        ("/home/me/screen", None),
        ("../screen", None),
        ("file:///home/me/screen.git", None),
        ("C:\\me\\screen", None),
    ],
)
def test_web_addresses_of_remotes(remote: str, address: str | None) -> None:
    assert web_address(remote) == address


def test_encoding_formats() -> None:
    assert encoding_format("images/A.OME.TIF") == "image/tiff"
    assert encoding_format("a.ome.zarr") == "application/vnd.zarr"
    assert encoding_format("croissant.json") == "application/ld+json"
    assert encoding_format("a.nd2") == "application/octet-stream"


@quiet
@pytest.mark.parametrize("name", ["about", "bare"])
def test_ro_crate_py_reads_a_crate(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from rocrate.rocrate import ROCrate

    document = ro_crate(request.getfixturevalue(name))
    Path("ro-crate-metadata.json").write_text(json.dumps(document))
    crate = ROCrate(str(tmp_path))
    assert crate.name == document["@graph"][1]["name"]
    assert {entity.id for entity in crate.get_entities()} == set(by_id(document))


@quiet
@pytest.mark.parametrize("profile", ["ro-crate-1.1", "process-run-crate-0.5"])
@pytest.mark.parametrize("name", ["about", "bare", "many"])
def test_a_crate_keeps_to_its_profiles(name: str, profile: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    import rocrate
    from rocrate_validator import models, services

    about = request.getfixturevalue("about" if name == "many" else name)
    document = ro_crate(with_images(about, MOST_IMAGES, 2) if name == "many" else about)
    # The context that the library brings, as there need not be a network.
    context = json.loads((Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_text())["@context"]
    settings = services.ValidationSettings(
        rocrate_uri=str(tmp_path),
        profile_identifier=profile,
        requirement_severity=models.Severity.REQUIRED,
        metadata_dict={**document, "@context": [context, *document["@context"][1:]]},
        offline=True,
    )
    result = services.validate(settings)
    assert [(issue.check.identifier, issue.message) for issue in result.get_issues()] == []
    assert result.passed()


@quiet
def test_mlcroissant_reads_the_cells(root: Path, about: Published, tmp_path: Path) -> None:
    import mlcroissant

    shutil.copytree(root, "ds")
    Path("ds/croissant.json").write_text(json.dumps(croissant(about)))
    dataset = mlcroissant.Dataset(jsonld="ds/croissant.json")
    assert dataset.metadata.ctx.issues.errors == set()
    assert dataset.metadata.ctx.issues.warnings == set()
    records = list(dataset.records("cells"))
    fields = {field["@id"]: field["name"] for field in croissant(about)["recordSet"][1]["field"]}
    read = pd.DataFrame(records).rename(columns=fields)
    for column in ("cell_id", "fov_id", "split"):
        assert [value.decode() for value in read[column]] == list(about.cells[column])
    for column in ("label", "origin_y", "50% µ#?", "intensity_mean_DNA", "shifted"):
        assert list(read[column]) == list(about.cells[column])
    assert {row["splits/name"] for row in dataset.records("splits")} == {"train", "test"}


@quiet
def test_mlcroissant_accepts_a_dataset_about_which_nothing_was_told(bare: Published) -> None:
    import mlcroissant

    Path("croissant.json").write_text(json.dumps(croissant(bare)))
    issues = mlcroissant.Dataset(jsonld="croissant.json").metadata.ctx.issues
    assert issues.errors == set()
    # What is recommended and was not given.
    assert len(issues.warnings) == 2
