"""Every example runs to its end, from the command line, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", str(EXAMPLES / name)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_seed_workflow_finds_what_the_treatments_do() -> None:
    printed = run("seed_workflow.py")
    found = [line.split("  <-")[0].split()[:3] for line in printed.splitlines() if line.endswith("<- differs")]
    assert ["etoposide", "nuclear", "area"] in found
    assert ["tunicamycin", "ER", "intensity"] in found
    assert Path("seed-workflow/nuclei.png").stat().st_size > 0

    again = run("seed_workflow.py")
    # The files were written anew, but what was kept is in the dataset.
    assert "nothing to add" in again


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "seed_workflow.py"))
def test_the_example_runs(name: str, data: Path) -> None:
    assert run(name, CELLCUBE_TEST_DATA=str(data)).strip()


def test_every_example_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f"({path.name})" not in listed] == []
