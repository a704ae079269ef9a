"""The command line: what is printed, and how it exits."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import cellcube
from cellcube.cli import cli, main
from cellcube.demo.plates import DemoPlate


@dataclass
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]

FAST = ("--workers", "1", "--quiet")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command `cellcube` in this process."""

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["cellcube", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Result(code if isinstance(code, int) else int(code is not None), printed.out, printed.err)

    return call


@pytest.fixture(scope="module")
def whole_cells(plate: DemoPlate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of four cells of the plate, none of the broken FOV."""
    import pandas as pd

    table = pd.read_csv(plate.cells_csv)
    table = table[table["fov_id"] != plate.broken_fov].head(4)
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    path = tmp_path_factory.mktemp("tables") / "cells with space.csv"
    table.to_csv(path, index=False)
    return path


def test_help_of_every_verb(run: Run) -> None:
    overview = run("--help")
    assert overview.code == 0
    assert set(cli.commands) >= {"build", "info", "demo"}
    for verb, command in cli.commands.items():
        assert verb in overview.out
        told = run(verb, "--help")
        assert told.code == 0
        assert f"cellcube {verb} " in told.out.splitlines()[0]
        for parameter in command.params:
            assert all(option in told.out for option in parameter.opts if option.startswith("--"))
        assert run(verb, "-h").out == told.out


def test_version(run: Run) -> None:
    assert run("--version").out.strip() == f"cellcube, version {cellcube.__version__}"


def test_help_imports_nothing_slow() -> None:
    script = (
        "import sys\nfrom cellcube.cli import cli\n"
        "try:\n    cli(['build', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('slow:', sorted({'numpy', 'pandas', 'zarr', 'xarray', 'pydantic', 'dask', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "slow: []"


def test_build_info_and_build_again(run: Run, whole_cells: Path, tmp_path: Path) -> None:
    root = tmp_path / "data set"
    fields = ("--set", "shape=[1, 32, 32]", "--set", "name=lab/screen")
    built = run("build", whole_cells, root, *fields, *FAST)
    assert built.code == 0
    assert "4 cells requested: 4 kept, 0 dropped, 0 failed" in built.out
    assert f"dataset  {root}" in built.out
    assert cellcube.open(root).sizes["cell"] == 4

    again = run("build", whole_cells, root, *fields, *FAST)
    assert again.code == 0
    assert "nothing to add: the dataset is at version 1" in again.out

    told = run("info", root, "--outcomes")
    assert told.code == 0
    assert "lab/screen" in told.out
    assert "1 x 32 x 32 voxels (z, y, x)" in told.out
    _, _, by_fov = told.out.partition("FOV  ")
    counts = [line.split(maxsplit=3)[1:] for line in by_fov.splitlines()[1:]]
    assert sum(int(each[0]) for each in counts if each[1] == "kept") == 4
    # The table asks for 4 cells of a field that has more.
    assert "in the label image, and no table asked for them" in told.out

    changed = run("build", whole_cells, root, "--set", "shape=[1, 48, 32]", *FAST)
    assert changed.code == 2
    assert "shape: [1, 32, 32] -> [1, 48, 32]" in changed.err

    refused = run("build", whole_cells, root, *fields, "--rebuild", "all", *FAST)
    assert refused.code == 2
    assert "new root" in refused.err


def test_spec_file_and_dry_run(run: Run, whole_cells: Path, tmp_path: Path) -> None:
    cellcube.CubeSpec(shape=(1, 32, 32), edge="drop").to_yaml(tmp_path / "spec.yaml")
    root = tmp_path / "set"
    planned = run("build", whole_cells, root, "--spec", tmp_path / "spec.yaml", "--set", "edge=pad", "--dry-run", *FAST)
    assert planned.code == 0
    assert "plan: 4 cells of" in planned.out
    assert planned.out.rstrip().endswith("nothing was written")
    assert not root.exists()


def test_plan_run_and_commit(run: Run, plate: DemoPlate, tmp_path: Path) -> None:
    root, fields = tmp_path / "set", ("--set", "shape=[1, 32, 32]")
    printed = run("plan", plate.cells_csv, root, *fields, "--workers", "1", "--dry-run")
    assert printed.code == 0
    assert printed.out.rstrip().endswith("nothing was written")
    assert not root.exists()

    planned = run("plan", plate.cells_csv, root, *fields, "--workers", "1")
    assert planned.code == 0
    assert "in 1 job" in planned.out
    assert f"cellcube run {root} --part I/N    for I from 1 to N, N up to 1" in planned.out
    early = run("commit", root, *FAST)
    assert early.code == 2
    assert "1 of 1 jobs of the plan are not done (FOVs " in early.err
    assert f"Do them with cellcube run {root}, then commit." in early.err

    done = run("run", root, "--part", "1/2", *FAST)
    assert done.code == 0, "cells that fail do not fail a part"
    assert "part 1/2: 1 of 1 jobs" in done.out
    assert "failed: truncated-image" in done.out
    assert "part 2/2: no jobs" in run("run", root, "--part", "2/2", *FAST).out
    committed = run("commit", root, *FAST)
    assert committed.code == 3
    assert "version 1" in committed.out
    assert "There is no plan for this dataset" in run("commit", root, *FAST).err


@pytest.mark.parametrize(
    ("part", "says"), [("3", "'3' is not I/N, such as 3/8"), ("0/3", "--array=1-3"), ("a/b", "is not I/N")]
)
def test_parts_are_told_how_they_are_counted(run: Run, tmp_path: Path, part: str, says: str) -> None:
    refused = run("run", tmp_path / "set", "--part", part)
    assert refused.code == 2
    assert says in refused.err


def test_failed_cells_exit_with_3(run: Run, plate: DemoPlate, tmp_path: Path) -> None:
    built = run("build", plate.cells_csv, tmp_path / "set", "--set", "shape=[1, 32, 32]", *FAST)
    assert built.code == 3
    assert "failed: truncated-image" in built.out
    stopped = run(
        "build", plate.cells_csv, tmp_path / "other", "--set", "shape=[1, 32, 32]", "--on-error", "raise", *FAST
    )
    assert stopped.code == 2
    assert "stopped at the first failed cell" in stopped.err
    assert not (tmp_path / "other" / "catalog.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build", "none.csv", "set"], "error: There is no cell table. (path '"),
        (
            ["build", "{table}", "set", "--set", "chanels=[DNA]"],
            "'chanels' is not a field of the spec. Did you mean 'channels'?",
        ),
        (["build", "{table}", "set", "--set", "shape=96"], "shape: give three whole numbers"),
        (["build", "{table}", "set", "--set", "shape"], "'shape' is not name=value"),
        (["build", "{table}", "set", "--spec", "none.yaml"], "There is no spec file."),
        (["build", "{table}", "set", "--on-error", "ignore"], "'record', 'raise'"),
        (["build", "{table}", "set", "--workers", "0"], "x>=1"),
        (["build", "{table}"], "Missing argument 'ROOT'"),
        (["build", "{table}", "{table}"], "The root is a file, not a folder."),
        (["build", "{table}", "set", "--set", "channels=[DNAA]", "--dry-run"], "DNA"),
        (["info", "none"], "There is no cellcube dataset."),
        (["biuld"], "No such command 'biuld'"),
    ],
)
def test_mistakes_exit_with_2_and_a_sentence(run: Run, whole_cells: Path, arguments: list[str], says: str) -> None:
    found = run(*(each.format(table=whole_cells) for each in arguments))
    assert found.code == 2
    assert says in found.err
    assert found.out == ""
    assert not Path("set").exists()


def test_warnings_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object, **__: object) -> str:
        warnings.warn("The voxel size is odd.", UserWarning, stacklevel=1)
        return "told"

    monkeypatch.setattr(cellcube, "info", warn, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        found = run("info", "anything")
    assert found.err == "warning: The voxel size is odd.\n"


def test_secrets_in_options_are_not_printed(run: Run, whole_cells: Path) -> None:
    found = run("info", "s3://bucket/none", "--storage-option", "secret=s3cr3t", "--storage-option", "endpoint_url=x")
    assert found.code == 2
    assert "PartialCredentialsError" in found.err or "may not be read" in found.err
    assert "s3cr3t" not in found.out + found.err
