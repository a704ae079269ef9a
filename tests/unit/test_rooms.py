"""The order of the rooms, read from the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import cellcube

PACKAGE = Path(cellcube.__file__).parent

# A room imports only rooms above it.
ORDER = [
    "errors",
    "urls",
    "location",
    "functions",
    "ahead",
    "spec",
    "tables",
    "cells",
    "images",
    "pixels",
    "colors",
    "cube",
    "ledger",
    "columns",
    "splits",
    "plan",
    "version_catalogs",
    "manifest",
    "run",
    "versions",
    "dataset",
    "geometry",
    "inverse",
    "gallery",
    "publishing",
    "export",
    "training",
    "demo",
    "cli",
    "testing",
]

# The only files that may import a library, where a library belongs to a room.
HOMES = {
    "tifffile": ["images/", "demo/plates.py", "export/ome_tiff.py"],
    "bioio": ["images/"],
    "bioio_base": ["images/"],
    "aicsimageio": ["images/"],
    "zarr": ["cube/", "images/omezarr.py"],
    "yaozarrs": ["cube/"],
    "numcodecs": ["cube/"],
    "xarray": ["cube/", "inverse.py"],
    "intake": ["demo/"],
    "loky": ["run/executors.py"],
    "distributed": ["run/executors.py"],
    "click": ["cli/"],
    "PIL": ["gallery/", "export/"],
    "fsspec": ["location.py", "images/files.py"],
}

# What takes longest to import, and is not needed to print a help text.
SLOW = {"numpy", "pandas", "zarr", "scipy", "pydantic"}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
LONGEST = 460


def room_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those that are for type checkers only."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))
    return found


def imports(file: str) -> set[str]:
    """Full names of the modules that a file imports, wherever it does so."""
    names: set[str] = set()
    for node in runtime_nodes(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            assert node.module is not None
            if node.module == "cellcube":
                names.update(f"cellcube.{alias.name}" for alias in node.names)
            else:
                # `from package import module` is an import of the module.
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                inner = {name for name in parts if (PACKAGE.parent / f"{name.replace('.', '/')}.py").exists()}
                names.update(inner if inner == parts else {node.module})
    return names


def rooms_imported(file: str) -> set[str]:
    return {name.split(".")[1] for name in imports(file) if name.startswith("cellcube.")} - {room_of(file)}


def test_every_room_has_a_place() -> None:
    assert {room_of(file) for file in FILES} - {"__init__"} == set(ORDER)
    assert len(FILES) > 40


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_a_room_imports_only_rooms_above_it(file: str) -> None:
    above = set(ORDER[: ORDER.index(room_of(file))])
    assert rooms_imported(file) <= above


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in FILES}
    edges: dict[str, set[str]] = {}
    for module, file in modules.items():
        names = {name.removeprefix("cellcube.") for name in imports(file) if name.startswith("cellcube.")}
        # A package's own face imports its parts, and parts do not import the face.
        edges[module] = {name for name in names if name in modules and name != module}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " imports ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in modules:
        visit(module, ())


def test_the_whole_package_is_used_by_the_last_rooms_only() -> None:
    whole = [file for file in FILES if "cellcube" in imports(file)]
    assert {room_of(file) for file in whole} == {"ledger", "demo", "cli", "export"}
    # Provenance wants to know where the package is and its version, and builds nothing.
    tree = ast.parse((PACKAGE / "ledger/provenance.py").read_text())
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = {name for name in used if name.startswith("cellcube.")}
    assert used == {"cellcube.__file__", "cellcube.__version__"}


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_home(library: str) -> None:
    importers = [file for file in FILES if any(name.split(".")[0] == library for name in imports(file))]
    strangers = [file for file in importers if not file.startswith(tuple(HOMES[library]))]
    assert not strangers


def test_pixels_do_no_input_or_output() -> None:
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "functools",
        "itertools",
        "math",
        "numpy",
        "scipy",
        "typing",
        "cellcube",
    }
    for file in FILES:
        if room_of(file) == "pixels":
            assert {name.split(".")[0] for name in imports(file)} <= allowed, file


def test_what_the_command_line_imports_first_is_quick() -> None:
    for file in ("__init__.py", "cli/root.py", "cli/dataset.py", "cli/export.py", "errors.py", "location.py"):
        body = ast.parse((PACKAGE / file).read_text()).body
        first = [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [line for line in first if SLOW & set(line.replace(".", " ").split())], file


def test_nothing_imports_the_testing_room() -> None:
    assert not [file for file in FILES if "testing" in rooms_imported(file)]


@pytest.mark.parametrize("file", FILES)
def test_no_file_is_too_long_to_know(file: str) -> None:
    assert len((PACKAGE / file).read_text().splitlines()) <= LONGEST


def test_public_names() -> None:
    for name in cellcube.__all__:
        assert getattr(cellcube, name) is not None
    assert set(cellcube.__all__) <= set(dir(cellcube))
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = cellcube.biuld
