"""Where the time of a build went."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import cellcube
from cellcube.cli import cli
from cellcube.demo.plates import DemoPlate

STAGES = ["wait", "read", "select", "measure", "normalize", "encode", "write"]


@pytest.fixture
def report(plate: DemoPlate, small_jobs: None, tmp_path: Path) -> cellcube.BuildReport:
    return cellcube.build(plate.cells_csv, tmp_path / "ds", shape=(1, 32, 32), executor=1, progress=False, profile=True)


def test_a_profile_is_kept_with_the_run(report: cellcube.BuildReport, tmp_path: Path) -> None:
    kept = pd.read_parquet(tmp_path / "ds/runs/000001.profile.parquet")
    assert report.profile is not None
    pd.testing.assert_frame_equal(kept.drop(columns="run"), report.profile)
    assert len(kept) == kept["job"].nunique() > 1
    assert kept["cells"].sum() == report.kept
    assert (kept["began"] >= 0).all()
    for stage in STAGES:
        assert kept[stage].sum() == pytest.approx(report.stages[stage], abs=1e-3)
    assert (kept["read_bytes"] > 0).any()
    assert (kept["written_bytes"] > 0).equals(kept["cells"] > 0)
    assert cellcube.verify(tmp_path / "ds", level="full").ok


def test_the_report_shows_it(report: cellcube.BuildReport) -> None:
    lines = str(report).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("profile: "))
    shown = [line.split()[0] for line in lines[start + 2 :]]
    assert shown == ["plan", *STAGES, "pack", "commit"]
    assert report.stages["plan"] > 0


def test_without_it_nothing_is_kept(plate: DemoPlate, tmp_path: Path) -> None:
    report = cellcube.build(plate.cells_csv, tmp_path / "ds", shape=(1, 32, 32), executor=1, progress=False)
    assert report.profile is None
    assert "profile" not in str(report)
    assert not list((tmp_path / "ds/runs").glob("*.profile.parquet"))


def test_the_command_line(plate: DemoPlate, tmp_path: Path) -> None:
    root = str(tmp_path / "ds")
    done = CliRunner().invoke(cli, ["build", str(plate.cells_csv), root, "--profile", "--quiet", "--workers", "1"])
    assert "µs a cell" in done.output
    assert (tmp_path / "ds/runs/000001.profile.parquet").exists()
