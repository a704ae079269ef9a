"""The table of all benchmarks: what is met, what is not, and what could not be measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def table() -> ModuleType:
    specification = importlib.util.spec_from_file_location("run_all", BENCHMARKS / "run_all.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up.
    sys.modules["run_all"] = module
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("value", "target", "most", "met"),
    [
        (10.0, 10.0, False, True),
        (9.99, 10.0, False, False),
        (10.0, 10.0, True, True),
        (10.1, 10.0, True, False),
        (None, 10.0, False, None),
        (10.0, None, False, None),
    ],
)
def test_a_target_is_met_from_its_value_on(
    table: ModuleType, value: float | None, target: float | None, most: bool, met: bool | None
) -> None:
    assert table.Row("x", value, target=target, most=most).met is met


def test_a_row_says_what_its_target_is(table: ModuleType) -> None:
    assert table.Row("memory", 2191.4, "MB", 2000, most=True).cells() == (
        "memory",
        "2,191 MB",
        "at most 2,000 MB",
        "**no**",
    )
    row = table.Row("speed", 1.234, "times as fast", 1, note="573 cells/s")
    assert row.cells() == ("speed", "1.23 times as fast (573 cells/s)", "at least 1.00 times as fast", "yes")
    assert table.Row("build.py", note="failed: no space").cells() == ("build.py", "failed: no space", "", "failed")


def test_builds_are_told_beside_their_floor(table: ModuleType) -> None:
    def row(workers: int, what: str, speed: float, memory: float, share: float) -> dict[str, Any]:
        return {
            "case": "2d", "workers": workers, "what": what, "cells_per_s": speed, "memory_mb": memory, "of_floor": share
        }  # fmt: skip

    found = [row(1, "floor", 1000, 300, 1), row(1, "cellcube", 800, 420, 0.8)]
    found += [row(2, "floor", 1800, 500, 1), row(2, "cellcube", 1200, 620, 0.67)]
    rows = {each.name: each for each in table.build_rows(found)}
    assert rows["Build 2D, 1 worker: speed"].value == 0.8
    assert rows["Build 2D, 1 worker: memory above the floor's"].value == 120
    gained = rows["Build 2D, 2 workers: of 2 times the speed of one"]
    assert gained.value == pytest.approx(0.75)
    assert gained.note == "the floor 0.90"


def test_a_rival_that_was_left_out_is_told(table: ModuleType) -> None:
    one = {"cellcube_is": 20.0, "cellcube_is_by_cpu": 12.5}
    rows = {each.name: each for each in table.rivals_rows({"ways": {"old way": one}})}
    assert rows["Build against old way"].met is True
    assert rows["Build against scPortrait"].met is None
    assert "--scportrait" in rows["Build against scPortrait"].cells()[1]


def test_rows_of_scale_keep_their_targets(table: ModuleType) -> None:
    told = {"what": "append", "figure": 3.0, "target": 2.0, "unit": "s", "met": False}
    [row] = table.scale_rows({"append": {"rows": [], "targets": [told]}})
    assert row.met is False
    assert row.unit == "s"


@pytest.mark.parametrize("script", ["build", "rivals", "scale", "batches", "ahead", "analysis", "opening"])
@pytest.mark.parametrize("text", ["", "[1]", '"x"', "7"])
def test_a_result_in_another_form_is_a_row_that_says_so(table: ModuleType, script: str, text: str) -> None:
    [row] = table.read_rows(script, text)
    assert row.name == f"{script}.py"
    assert row.value is None
    assert "another form" in row.note


def test_batches_are_told_with_their_targets(table: ModuleType) -> None:
    ours, other = {"cells_per_second": 7846.9}, {"cells_per_second": 6893.2, "cellcube_is_by_cpu": 1.25}
    told = {"row": "random, 2d, of tensorstore", "value": 1.12, "target": 1.5, "unit": "ratio"}
    [row] = table.batches_rows([{**told, "details": {"cellcube": ours, "tensorstore": other}}])
    assert row.met is False
    assert "7,847 cells/s" in row.note
    assert "1.25" in row.note


def test_a_script_that_fails_is_a_row(table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "HERE", tmp_path)
    (tmp_path / "build.py").write_text("import sys; sys.exit('no cells' if '--help' not in sys.argv else 0)")
    [row] = table.run("build", tmp_path, [], 60)
    assert row.cells()[1:] == ("failed: no cells", "", "failed")
    [row] = table.run("opening", tmp_path, [], 60)
    assert "no such script" in row.note
    (tmp_path / "analysis.py").write_text("")
    [row] = table.run("analysis", tmp_path, [], 60)
    assert row.note == "wrote no result"


def test_the_table_goes_between_its_lines_of_a_page(table: ModuleType) -> None:
    rows = [table.Row("a | b", 2.0, "s", 1.0, most=True)]
    page = "before\n\n<!-- measured -->\nold\n<!-- end of measured -->\n\nafter\n"
    done = table.put_between(page, table.as_markdown(rows))
    assert done.startswith("before\n\n<!-- measured -->\n| what |")
    assert done.endswith("| a / b | 2.00 s | at most 1.00 s | **no** |\n<!-- end of measured -->\n\nafter\n")
    assert table.put_between(done, table.as_markdown(rows)) == done
    with pytest.raises(ValueError, match="once"):
        table.put_between("no lines", "")


def test_the_text_counts_what_is_met(table: ModuleType) -> None:
    rows = [table.Row("a", 1.0, target=1.0), table.Row("b", 0.5, target=1.0), table.Row("c", 3.0), table.Row("d")]
    assert table.as_text(rows).endswith("1 of 2 targets are met.")
