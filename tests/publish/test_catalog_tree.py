"""A catalog of datasets: strangers open it from anywhere, and entries are neither lost nor mixed up."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import intake
import pytest
import yaml
from http_server import serve
from tree import compare, make_tree, stranger

import cellcube
from cellcube.errors import ArgumentError, CatalogError, DatasetAccessError, DatasetBusyError
from cellcube.ledger import Claim
from cellcube.location import Location
from cellcube.publishing.about import Published, read_published
from cellcube.publishing.catalogs import UnguardedCatalogWarning, add_entry, entry_path, read_entries
from cellcube.publishing.publish import publish


@pytest.fixture(scope="module")
def tree(two_versions: Path, tmp_path_factory: pytest.TempPathFactory, s3: dict[str, Any]) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("tree")
    dataset = Path(shutil.copytree(two_versions, folder / "nuclei"))
    return folder / "site", make_tree(dataset, folder, s3)


@pytest.fixture
def about(dataset: Path) -> Published:
    return read_published(Location(str(dataset)))


def test_a_stranger_opens_the_tree_from_everywhere(tree: tuple[Path, Any], tmp_path: Path, s3: dict[str, Any]) -> None:
    site, wanted = tree
    moved = shutil.copytree(site, tmp_path / "elsewhere" / "moved")
    anonymous = {"anon": True, "endpoint_url": s3["endpoint_url"]}
    with serve(site) as (url, requests):
        places: list[tuple[str, dict[str, Any]]] = [
            (f"{site}/catalog.yaml", {}),
            (f"file://{site}/catalog.yaml", {}),
            (f"{moved}/catalog.yaml", {}),
            (f"{url}/catalog.yaml", {}),
            ("s3://bucket/tree/catalog.yaml", s3),
            ("s3://bucket/tree/catalog.yaml", anonymous),
        ]
        found = stranger(sys.executable, places)
    assert found["intake"].startswith("2.")
    for each in found["found"]:
        compare(each, wanted)
    assert any(request.startswith("HEAD") for request in requests)
    # Nothing outside the dataset, and nothing that is not there, is asked for.
    assert all(".." not in request for request in requests)


def test_the_files_of_the_tree_name_no_machine_and_no_secret(tree: tuple[Path, Any]) -> None:
    site, _ = tree
    for path in site.rglob("*.yaml"):
        text = path.read_text()
        assert str(site) not in text
        assert "testing" not in text
    entries = read_entries(Location(str(site / "catalog.yaml")))
    assert entries["lab/nuclei"]["args"] == {"path": "{{ CATALOG_DIR }}/whole/catalog.yaml"}
    assert entries["lab/retracted"]["args"] == {"path": "{{ CATALOG_DIR }}/deep/er/catalog.yaml"}


def test_versions_tell_how_to_take_their_cells(tree: tuple[Path, Any]) -> None:
    site, wanted = tree
    versions = intake.open_catalog(str(site / "deep" / "er" / "versions.yaml"))
    first = versions["v1"]
    about = first._entries["normalized_cells"].describe()
    assert "isel(cell=slice(0, 7))" in about["description"]
    # By positions, which are right with and without retractions.
    for name in ("v1", "v2", "v3"):
        cells, cube = versions[name]["cells"].read(), versions[name]["normalized_cells"].to_dask()
        taken = cube.isel(cell=cells["position"].to_numpy())
        assert sorted(taken["cell_id"].values.tolist()) == wanted["lab/retracted"]["versions"][name]


def test_two_who_publish_at_once_lose_nothing(tmp_path: Path, about: Published) -> None:
    catalog = Location(str(tmp_path / "catalog.yaml"))
    names = [f"set-{number}" for number in range(8)]

    def add(name: str) -> None:
        add_entry(catalog, name, Location(str(tmp_path / name)), about)

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_entries(catalog)) == names
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".catalog")] == []


def test_two_in_s3_lose_nothing(s3: dict[str, Any], about: Published) -> None:
    catalog = Location.of("s3://bucket/both/catalog.yaml", s3)
    threads = [
        threading.Thread(target=add_entry, args=(catalog, name, Location.of(f"s3://bucket/both/{name}", s3), about))
        for name in ("one", "two", "three")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_entries(catalog)) == ["one", "three", "two"]
    assert Location.of("s3://bucket/both", s3).names() == ["catalog.yaml"]


def test_what_others_wrote_stays(tmp_path: Path, about: Published) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(
        "# Our lab\n# keeps this file\nname: lab\nplugins:\n  source: []\nmetadata: {version: 1, owner: us}\n"
        "sources:\n  zebra:  # first\n    driver: csv\n    args: {urlpath: z.csv}\n  ant:\n    driver: csv\n"
        "    args: {urlpath: '{{ CATALOG_DIR }}/a.csv'}\n"
    )
    catalog = Location(str(path))
    add_entry(catalog, "lab/nuclei", Location(str(tmp_path / "nuclei")), about)
    text = path.read_text()
    assert text.startswith("# Our lab\n# keeps this file\nname: lab\n")
    document = yaml.safe_load(text)
    assert list(document) == ["name", "plugins", "metadata", "sources"]
    assert list(document["sources"]) == ["zebra", "ant", "lab/nuclei"]
    assert document["sources"]["ant"] == {"driver": "csv", "args": {"urlpath": "{{ CATALOG_DIR }}/a.csv"}}
    # The same once more changes nothing, not even the file.
    before = path.stat().st_mtime_ns
    add_entry(catalog, "lab/nuclei", Location(str(tmp_path / "nuclei")), about)
    assert path.stat().st_mtime_ns == before


def test_a_name_that_is_taken_is_refused(tmp_path: Path, about: Published) -> None:
    catalog = Location(str(tmp_path / "catalog.yaml"))
    add_entry(catalog, "nuclei", Location(str(tmp_path / "one")), about)
    with pytest.raises(CatalogError, match=r"one/catalog\.yaml"):
        add_entry(catalog, "nuclei", Location(str(tmp_path / "two")), about)
    add_entry(catalog, "nuclei", Location(str(tmp_path / "two")), about, replace=True)
    assert read_entries(catalog)["nuclei"]["args"]["path"] == "{{ CATALOG_DIR }}/two/catalog.yaml"
    with pytest.raises(ArgumentError):
        add_entry(catalog, " ", Location(str(tmp_path / "two")), about)


@pytest.mark.parametrize(
    "text",
    ["sources: [1, 2]", "- a", "version: 2\nentries: {}\n", "a: [", "", "!!python/object:os.system {}\n"],
)
def test_what_is_no_catalog_is_left_alone(tmp_path: Path, about: Published, text: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    with pytest.raises(CatalogError, match="classic form"):
        add_entry(Location(str(path)), "nuclei", Location(str(tmp_path / "nuclei")), about)
    assert path.read_text() == text


def test_the_catalog_of_a_dataset_is_not_one_of_datasets(dataset: Path, about: Published) -> None:
    with pytest.raises(CatalogError, match="of one dataset"):
        add_entry(Location(str(dataset / "catalog.yaml")), "nuclei", Location(str(dataset)), about)


def test_paths_are_relative_below_the_catalog_and_whole_elsewhere(tmp_path: Path) -> None:
    keys = {"key": "me", "secret": "mine", "endpoint_url": "https://me:pw@store.example"}
    in_s3 = Location.of("s3://bucket/lab/catalog.yaml", keys)
    assert entry_path(in_s3, Location.of("s3://bucket/lab/a/b", keys)) == ("{{ CATALOG_DIR }}/a/b/catalog.yaml", {})
    # Beside the catalog's folder: no "..", and the reader's options are still handed on.
    assert entry_path(in_s3, Location.of("s3://bucket/other", keys)) == (
        "s3://bucket/other/catalog.yaml{{ CATALOG_DIR[:0] }}",
        {},
    )
    public = Location.of("s3://open/data", {"anon": True})
    assert entry_path(in_s3, public) == ("s3://open/data/catalog.yaml", {"anon": True})
    local = Location(str(tmp_path / "catalog.yaml"))
    options = {"endpoint_url": "https://store.example"}
    assert entry_path(local, Location.of("s3://bucket/x", keys)) == ("s3://bucket/x/catalog.yaml", options)
    with pytest.raises(ArgumentError, match="no reader of the catalog"):
        entry_path(in_s3, Location(str(tmp_path)))


def test_a_dataset_beside_the_catalog_opens_in_s3(dataset: Path, s3: dict[str, Any]) -> None:
    public = {**s3, "s3_additional_kwargs": {"ACL": "public-read"}}
    options = {"storage_options": public, "progress": False}
    publish(dataset, "s3://bucket/beside/data/nuclei", catalog="s3://bucket/beside/lists/all.yaml", **options)
    publish(dataset, "s3://bucket/beside/data/nuclei", catalog="s3://bucket/beside/lists/all.yaml", **options)
    anonymous = {"anon": True, "endpoint_url": s3["endpoint_url"]}
    found = intake.open_catalog("s3://bucket/beside/lists/all.yaml", storage_options=anonymous)
    assert len(found["lab/nuclei"]["cells"].read()) == cellcube.open(dataset).sizes["cell"]


def test_a_catalog_that_somebody_holds_is_waited_for(tmp_path: Path, about: Published) -> None:
    catalog = Location(str(tmp_path / "catalog.yaml"))
    with (
        Claim(Location(str(tmp_path / ".catalog.yaml.lock")), "catalog"),
        pytest.raises(DatasetBusyError, match="changes the catalog"),
    ):
        add_entry(catalog, "nuclei", Location(str(tmp_path / "nuclei")), about, wait=0.5)
    add_entry(catalog, "nuclei", Location(str(tmp_path / "nuclei")), about, wait=0.5)


def test_a_store_without_create_if_absent_is_told_of(
    s3: dict[str, Any], about: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrites(self: Location, data: bytes) -> bool:
        self.write(data)
        return True

    monkeypatch.setattr(Location, "create", overwrites)
    catalog = Location.of("s3://bucket/unguarded/catalog.yaml", s3)
    with pytest.warns(UnguardedCatalogWarning, match="does not honour create-if-absent"):
        add_entry(catalog, "nuclei", Location.of("s3://bucket/unguarded/nuclei", s3), about)
    assert list(read_entries(catalog)) == ["nuclei"]


def test_a_catalog_that_may_not_be_written(tmp_path: Path, about: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Location, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Location, "write", refuses)
    with pytest.raises(DatasetAccessError, match="cannot be changed"):
        add_entry(Location(str(tmp_path / "catalog.yaml")), "nuclei", Location(str(tmp_path / "nuclei")), about)


def test_catalogs_that_lead_nowhere(dataset: Path, tmp_path: Path) -> None:
    publish(dataset, tmp_path / "site" / "nuclei", catalog=tmp_path / "site" / "catalog.yaml", progress=False)
    with pytest.raises(ArgumentError, match="no YAML file"):
        publish(dataset, catalog=tmp_path / "site" / "catalog")
    shutil.rmtree(tmp_path / "site" / "nuclei")
    with pytest.raises(FileNotFoundError):
        list(intake.open_catalog(str(tmp_path / "site" / "catalog.yaml"))["lab/nuclei"])
