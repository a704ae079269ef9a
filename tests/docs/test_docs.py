"""The documentation is true: its code prints what it says, its links lead somewhere, its lists are complete."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import cellcube
from cellcube import errors
from cellcube.cli import cli
from cellcube.demo.plates import DemoPlate
from cellcube.images import READERS
from cellcube.spec import CubeSpec

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "examples" / "README.md",
    ROOT / "catalogs" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
CLI_PAGE = ROOT / "docs" / "cli.md"
NO_RUN = re.compile(r"<!-- no-run: \S.* -->")
MOST_PICTURE_BYTES = 80_000
# More than these would mean that the pages are no longer checked.
MOST_NOT_RUN = 6


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: language, text, line of its first text line (from 1), and whether it is marked not to run."""

    language: str
    text: str
    line: int
    marked: bool
    # Whether nothing but blank lines stands between this block and the one before.
    follows: bool


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text("utf-8").splitlines()
    start, language, between = None, "", ["beginning"]
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start, language = number + 1, line[3:].strip()
        elif start is not None and line == "```":
            marked = any(NO_RUN.fullmatch(each.strip()) for each in between)
            text = "\n".join(lines[start:number]) + "\n"
            found.append(Block(language, text, start + 1, marked, not any(each.strip() for each in between)))
            start, between = None, []
        elif start is None:
            between.append(line)
    assert start is None, f"{page.name}: the block from line {start} has no end"
    return found


def matches(printed: str, expected: str) -> bool:
    """Whether a text is what is expected, where … stands for anything and runs of spaces are the same."""

    def plain(text: str) -> str:
        return "\n".join(re.sub(r" +", " ", line).strip() for line in text.strip().splitlines())

    pattern = ".*".join(re.escape(part) for part in plain(expected).split("…"))
    return re.fullmatch(pattern, plain(printed), re.DOTALL) is not None


def run_page(page: Path, script: Path) -> None:
    """Run the Python blocks of a page, one after the other; a ``text`` block after one is what it prints."""
    todo = blocks(page)
    lines: list[str] = []
    for block in todo:
        if block.language == "python" and not block.marked:
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    # A file with the lines where they are on the page: errors tell the line, and functions have a source.
    script.write_text("\n".join(lines) + "\n", "utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__", "__file__": str(script)}
    for block, after in zip(todo, [*todo[1:], None], strict=True):
        if block.language != "python" or block.marked:
            continue
        code = compile("\n" * (block.line - 1) + block.text, str(script), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        told = after.text if after is not None and after.language == "text" and after.follows else None
        if told is not None and not matches(printed.getvalue(), told):
            pytest.fail(
                f"{page.name}:{block.line} prints\n{printed.getvalue()}\nand the page says\n{told}", pytrace=False
            )


@pytest.fixture
def folder(plate: DemoPlate, tmp_path: Path) -> Path:
    """The working directory, with a small plate in ``plate``."""
    shutil.copytree(plate.folder, tmp_path / "plate")
    return tmp_path


@pytest.fixture
def bucket(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 server that boto finds by itself, as a user's own is found."""
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(s3["endpoint_url"]))
    # s3fs leaves its connections to the garbage collector, which then warns of each.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        fsspec.filesystem("s3").clear_instance_cache()
        gc.collect()


def _has_python(page: Path) -> bool:
    return any(block.language == "python" and not block.marked for block in blocks(page))


@pytest.mark.parametrize("page", [p for p in PAGES if p.exists() and _has_python(p)], ids=page_id)
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name == "remote.md":
        request.getfixturevalue("bucket")
    script = folder / f"{page.stem}.page.py"
    if page.name == "clusters.md":
        # A dask client is the default scheduler of its whole process.
        command = [sys.executable, __file__, str(page), str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return
    # Pages import modules that they write, as users do beside their scripts.
    monkeypatch.syspath_prepend(str(folder))
    run_page(page, script)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_says_its_language_and_few_are_not_run(page: Path) -> None:
    assert all(block.language in {"python", "text", "bash", "yaml", "json"} for block in blocks(page))


def test_few_blocks_are_left_out() -> None:
    left_out = [f"{page.name}:{block.line}" for page in PAGES for block in blocks(page) if block.marked]
    assert len(left_out) <= MOST_NOT_RUN, left_out


def _anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return text.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), flags=re.MULTILINE)
            if anchor not in {_anchor(heading) for heading in headings}:
                broken.append(link)
    assert not broken


def test_every_picture_is_small_shown_and_made() -> None:
    folder = ROOT / "docs" / "images"
    script = (ROOT / "docs" / "figures.py").read_text("utf-8")
    shown = set()
    for page in PAGES:
        links = re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", page.read_text("utf-8"))
        shown |= {(page.parent / link).resolve() for link in links}
    pictures = set(folder.resolve().glob("*.png"))
    assert shown == pictures
    assert [path.name for path in pictures if path.stat().st_size >= MOST_PICTURE_BYTES] == []
    assert [path.name for path in pictures if f'"{path.stem}":' not in script] == []


def test_every_page_is_linked_from_the_index() -> None:
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "index.md" and f"({page})" not in text] == []


def verbs(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """(name, help text) of a command and all below it."""
    with click.Context(command, info_name=name, terminal_width=80, **command.context_settings) as context:
        yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield from verbs(command.commands[below], f"{name} {below}")


def cli_sections() -> dict[str, str]:
    return {name: f"```text\n{text.rstrip()}\n```" for name, text in verbs(cli, "cellcube")}


def test_the_page_of_the_command_line_is_current() -> None:
    text = CLI_PAGE.read_text("utf-8")
    for name, section in cli_sections().items():
        assert f"## `{name}`" in text, f"{name!r} is not in docs/cli.md"
        assert section in text, f"the help of {name!r} has changed: run python tests/docs/test_docs.py"


@pytest.mark.parametrize("name", cellcube.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert f"cellcube.{name}" in (ROOT / "docs" / "api.md").read_text("utf-8")


def _error_classes() -> list[type[errors.CellcubeError]]:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    return [each for each in classes if issubclass(each, errors.CellcubeError)]


@pytest.mark.parametrize("error", _error_classes(), ids=lambda error: error.__name__)
def test_every_error_is_explained(error: type[errors.CellcubeError]) -> None:
    text = (ROOT / "docs" / "how-to" / "problems.md").read_text("utf-8")
    assert error.__name__ in text
    assert f"`{error.kind}`" in text


def test_the_spec_page_shows_every_field_with_its_default() -> None:
    page = ROOT / "docs" / "spec.md"
    [first, *_] = [block for block in blocks(page) if block.language == "yaml"]
    shown = yaml.safe_load(first.text)
    assert shown == CubeSpec().to_dict()
    assert list(shown) == list(CubeSpec().to_dict())
    assert [name for name in CubeSpec.model_fields if f"| `{name}`" not in page.read_text("utf-8")] == []


def test_every_reader_is_in_the_pages() -> None:
    text = (ROOT / "docs" / "how-to" / "your-images.md").read_text("utf-8")
    assert [name for name in READERS if f"`{name}`" not in text] == []


def test_every_known_column_is_in_the_page_of_the_table() -> None:
    from cellcube.cells import ALIASES, KNOWN

    text = (ROOT / "docs" / "how-to" / "cell-table.md").read_text("utf-8")
    assert [name for name in (*KNOWN, *ALIASES) if f"`{name}`" not in text] == []


def test_every_manifest_column_and_coordinate_is_in_the_format() -> None:
    from cellcube.columns import added
    from cellcube.cube import CHANNEL_COORDINATES, Layout, cell_coordinates
    from cellcube.ledger import OUTCOME_COLUMNS

    text = (ROOT / "docs" / "format.md").read_text("utf-8")
    spec = CubeSpec(oversize="shrink", split={"by": "well", "fractions": {"all": 1}})
    layout = Layout.of(spec, ("{channel}",), {"cells": "float16"}, True, {})
    names = {*cell_coordinates(layout), *CHANNEL_COORDINATES, *OUTCOME_COLUMNS, *added(layout)}
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_every_room_is_in_the_design() -> None:
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    package = Path(cellcube.__file__).parent
    rooms = [f"{path.name}/" if path.is_dir() else path.stem for path in package.iterdir() if path.name[0] not in "_."]
    assert sorted(room for room in rooms if room != "py" and f"`{room}`" not in text) == []


def test_the_changelog_has_the_version() -> None:
    assert f"## [{cellcube.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_extras_in_the_pages_exist() -> None:
    known = set(importlib.metadata.metadata("cellcube").get_all("Provides-Extra") or [])
    for page in PAGES:
        for group in re.findall(r"cellcube\[([\w,]+)\]", page.read_text("utf-8")):
            assert set(group.split(",")) <= known, f"{page.name}: {group}"


def write_cli_page() -> None:
    text = CLI_PAGE.read_text("utf-8")
    for name, section in cli_sections().items():
        heading = f"## `{name}`\n"
        if heading not in text:
            text = f"{text.rstrip()}\n\n{heading}\n{section}\n"
        before, _, after = text.partition(heading)
        old = re.search(r"```text\n.*?\n```", after, flags=re.DOTALL)
        assert old is not None, f"{name} has no text block"
        text = before + heading + after.replace(old[0], section, 1)
    CLI_PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_page(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        write_cli_page()
