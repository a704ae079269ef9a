"""Plan, run parts in processes that know nothing of each other, commit: the dataset that `build` makes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dying_reader import DEATHS
from same import assert_same

import cellcube
from cellcube.demo.plates import DemoPlate, write_plate
from cellcube.errors import ArgumentError, DatasetBusyError, PlanError
from cellcube.location import Location
from cellcube.run import finish
from cellcube.run.finish import claim_of
from cellcube.run.parts import commit_parts, make_plan, run_part
from cellcube.run.result import JobResult

pytestmark = pytest.mark.usefixtures("small_jobs")

FIELDS: dict[str, Any] = {"shape": (1, 48, 48), "storage": {"shard_mb": 0.3}, "reader": "dying_reader:open_or_die"}
QUIET: dict[str, Any] = {"executor": 1, "progress": False}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> DemoPlate:
    """Six FOVs and a broken one."""
    return write_plate(tmp_path_factory.mktemp("plate"), sites=2, size=280, volumes=0)


@pytest.fixture(scope="module")
def built(plate: DemoPlate, small_jobs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `build` makes of the plate."""
    root = tmp_path_factory.mktemp("built") / "dataset"
    assert cellcube.build(plate.cells_csv, root, **QUIET, **FIELDS).failed
    return root


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the jobs that this process has done."""
    keys: list[str] = []
    save = JobResult.save

    def counted(self: JobResult, pending: Location) -> None:
        keys.append(self.key)
        save(self, pending)

    monkeypatch.setattr(JobResult, "save", counted)
    return keys


def halves(plate: DemoPlate) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Some FOVs of the plate, and all of them."""
    table = pd.read_csv(plate.cells_csv)
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate.folder / path) for path in table[column]]
    return table[table["fov_id"].isin(table["fov_id"].unique()[:3])], table


def parts_of(root: Path | str, parts: int, **options: Any) -> None:
    for part in range(parts, 0, -1):
        run_part(root, part, parts, **QUIET, **options)


def documents(root: Path) -> dict[str, Any]:
    """What a commit writes besides pixels, coordinates and tables, without times and machines."""
    attributes = json.loads((root / "cube.zarr/zarr.json").read_text())["attributes"]["cellcube"]
    record = json.loads((root / "runs/000001.json").read_text())
    varying = ("started", "finished", "seconds", "executor", "environment", "code", "root", "storage_options")
    return {
        "attributes": {name: each for name, each in attributes.items() if name not in ("versions", "last_run")},
        "record": {name: each for name, each in record.items() if name not in varying},
    }


def assert_all_same(first: Path, second: Path) -> None:
    assert_same(first, second)
    assert documents(first) == documents(second)
    for name in ("cells", "outcomes", "fovs", "table"):
        one, two = (pd.read_parquet(root / f"runs/000001.{name}.parquet") for root in (first, second))
        pd.testing.assert_frame_equal(one, two)


def command(*arguments: str | Path, options: Any = None, deaths: Path | None = None) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    given = [f"--storage-option={name}={value}" for name, value in (options or {}).items()]
    script = "from cellcube.cli import main; main()"
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    if deaths is not None:
        variables[DEATHS] = str(deaths)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments), *given],
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("store", ["local", "s3"])
def test_parts_in_processes_of_their_own_one_killed(
    plate: DemoPlate, built: Path, tmp_path: Path, s3: dict[str, Any], store: str
) -> None:
    import s3fs

    root = str(tmp_path / "dataset") if store == "local" else "s3://bucket/parts/dataset"
    options = s3 if store == "s3" else None
    make_plan(plate.cells_csv, root, storage_options=options, **FIELDS)
    # The second FOV of part 2: its first job is done when it dies.
    fovs = list(pd.read_csv(plate.cells_csv)["fov_id"].unique())
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    (deaths / f"{fovs[4]}.1").touch()
    own = ("--workers", "1", "--quiet")
    parts = [command("run", root, "--part", f"{part}/3", *own, options=options, deaths=deaths) for part in (1, 2, 3)]
    (one, told, _), (two, _, _), (three, _, _) = map(ended, parts)
    assert (one, two, three) == (0, -signal.SIGKILL, 0)
    assert "part 1/3: 3 of 7 jobs" in told
    with pytest.raises(PlanError, match=r"1 of 7 jobs .* of the parts 2/3\. ") as refused:
        commit_parts(root, storage_options=options, **QUIET)
    assert f"cellcube run {root} --part 2/3" in str(refused.value)

    pending = Location.of(root, options) / ".cellcube/pending"
    before = {name: (pending / name).state() for name in pending.sizes() if name.endswith("done.parquet")}
    assert len(before) == 6
    assert ended(command("run", root, "--part", "2/3", *own, options=options, deaths=deaths))[0] == 0
    assert {name: (pending / name).state() for name in before} == before, "jobs that are done are not done again"

    code, told, _ = ended(command("commit", root, *own, options=options))
    assert code == 3, "cells have failed"
    assert "failed: truncated-image" in told
    if store == "s3":
        fs = s3fs.S3FileSystem(**s3, use_listings_cache=False, skip_instance_cache=True)
        fs.get("bucket/parts/dataset", str(tmp_path / "dataset"), recursive=True)
    assert_all_same(tmp_path / "dataset", built)
    record = json.loads((tmp_path / "dataset/runs/000001.json").read_text())
    assert record["executor"] == {"name": "parts of a plan", "workers": 3}
    with pytest.raises(PlanError, match=r"There is no plan .* gone once it is committed"):
        commit_parts(root, storage_options=options, **QUIET)


SPECS: dict[str, dict[str, Any]] = {
    "fovs": {
        "shape": "auto",
        "channels": ["ER", "DNA"],
        "normalize": {
            "DNA": {"method": "percentile", "scope": {"by": ["treatment"]}},
            "ER": {"method": "zscore", "scope": "dataset"},
        },
        "representations": {"raw": {"normalize": "none", "mask": "label"}},
        "split": {"by": "well", "fractions": {"train": 0.5, "test": 0.5}},
    },
    "cells": {"shape": (1, 40, 44), "edge": "drop", "drop": "area_voxels < 300", "align": "major_axis"},
}


@pytest.mark.parametrize("kind", SPECS)
def test_whatever_is_fitted_and_asked_for(plate: DemoPlate, tmp_path: Path, kind: str) -> None:
    table = plate.fovs_csv if kind == "fovs" else plate.cells_csv
    fields = {**SPECS[kind], "storage": {"shard_mb": 0.2}}
    report = cellcube.build(table, tmp_path / "built", **QUIET, **fields)
    told = make_plan(table, tmp_path / "parts", executor=1, **fields)
    assert (told.cells + len(told.failed), told.known) == (report.requested, 0)
    parts_of(tmp_path / "parts", 3)
    committed = commit_parts(tmp_path / "parts", **QUIET)
    assert str(committed).splitlines()[0] == str(report).splitlines()[0]
    assert_all_same(tmp_path / "parts", tmp_path / "built")


def test_cells_are_added_to_a_dataset(plate: DemoPlate, tmp_path: Path) -> None:
    some, every = halves(plate)
    for name in ("built", "parts"):
        cellcube.build(some, tmp_path / name, **QUIET, **FIELDS)
    report = cellcube.build(every, tmp_path / "built", **QUIET, **FIELDS)
    assert report.version == 2
    told = make_plan(every, tmp_path / "parts", executor=1, **FIELDS)
    assert (told.known, told.known + told.cells) == (len(some), len(every))
    parts_of(tmp_path / "parts", 2)
    committed = commit_parts(tmp_path / "parts", **QUIET)
    assert (committed.added, committed.version, committed.kept) == (report.added, 2, report.kept)
    assert_same(tmp_path / "parts", tmp_path / "built")
    assert cellcube.verify(tmp_path / "parts", "full").ok

    # The same plan again has nothing to do but what failed, which is what it was.
    table = every[every["cell_id"].isin(committed.outcomes.query("status == 'kept'")["cell_id"])]
    assert make_plan(table, tmp_path / "parts", executor=1, **FIELDS).jobs == 0
    assert run_part(tmp_path / "parts", 2, 5, **QUIET).jobs == 0
    assert commit_parts(tmp_path / "parts", **QUIET).added == 0
    assert_same(tmp_path / "parts", tmp_path / "built")


def test_a_build_takes_up_what_parts_have_done(plate: DemoPlate, built: Path, tmp_path: Path, done: list[str]) -> None:
    make_plan(plate.cells_csv, tmp_path / "a", executor=1, **FIELDS)
    report = run_part(tmp_path / "a", 1, 2, **QUIET)
    assert len(done) == report.jobs == 4
    cellcube.build(plate.cells_csv, tmp_path / "a", **QUIET, **FIELDS)
    assert len(done) == len(set(done)) == 7
    assert_all_same(tmp_path / "a", built)


def test_all_that_is_missing_is_one_part(plate: DemoPlate, built: Path, tmp_path: Path, done: list[str]) -> None:
    make_plan(plate.cells_csv, tmp_path / "a", executor=1, **FIELDS)
    with pytest.raises(PlanError, match=rf"7 of 7 jobs .*Do them with cellcube run {tmp_path / 'a'}, then commit"):
        commit_parts(tmp_path / "a", **QUIET)
    run_part(tmp_path / "a", 2, 3, **QUIET)
    with pytest.raises(PlanError, match=r"5 of 7 jobs .* of the parts 1/3 \(never begun\), 3/3 \(never begun\)"):
        commit_parts(tmp_path / "a", **QUIET)
    run_part(tmp_path / "a", executor=2, progress=False)
    assert commit_parts(tmp_path / "a", **QUIET).version == 1
    assert_all_same(tmp_path / "a", built)


def test_more_parts_than_jobs(plate: DemoPlate, built: Path, tmp_path: Path) -> None:
    make_plan(plate.cells_csv, tmp_path / "a", executor=1, **FIELDS)
    assert "part 9/9: no jobs, as the plan has 7" in str(run_part(tmp_path / "a", 9, 9, **QUIET))
    parts_of(tmp_path / "a", 9)
    commit_parts(tmp_path / "a", **QUIET)
    assert_all_same(tmp_path / "a", built)


@pytest.mark.parametrize(("part", "parts"), [(0, 3), (4, 3), (-1, 2), (1, 0)])
def test_there_are_parts_from_1(tmp_path: Path, part: int, parts: int) -> None:
    with pytest.raises(ArgumentError, match="counted from 1"):
        run_part(tmp_path, part, parts, **QUIET)


def _describe(root: Path) -> None:
    """Another version."""
    cellcube.describe(root, description="Cells of a plate.")


def _more_cells(root: Path) -> None:
    """A table that has changed."""
    table = root.parent / "cells.csv"
    table.write_text(table.read_text().replace("demo-painting", "demo-painted"))


def _half_a_plan(root: Path) -> None:
    path = root / ".cellcube/plan/cells.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def _other_release(root: Path) -> None:
    path = root / ".cellcube/plan/plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cellcube": "0.0.1"}))


OUTRUN: dict[str, tuple[Callable[[Path], None], str]] = {
    "version": (_describe, "made for version 1, and the dataset is at version 2"),
    "table": (_more_cells, "cell table has changed"),
    "damaged": (_half_a_plan, "The plan is damaged"),
    "release": (_other_release, "made by cellcube 0.0.1, and this is"),
}


@pytest.mark.parametrize("what", OUTRUN)
def test_a_plan_that_is_out_of_date_is_refused(plate: DemoPlate, tmp_path: Path, what: str) -> None:
    some, every = halves(plate)
    root = tmp_path / "dataset"
    cellcube.build(some, root, **QUIET, **FIELDS)
    every.to_csv(tmp_path / "cells.csv", index=False)
    make_plan(tmp_path / "cells.csv", root, executor=1, **FIELDS)
    parts_of(root, 1)
    os.utime(tmp_path / "cells.csv", (1, 1))
    assert run_part(root, 1, 2, **QUIET).jobs == 2, "a table that was only touched is the same"
    change, says = OUTRUN[what]
    change(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    for refused in (lambda: run_part(root, 1, 2, **QUIET), lambda: commit_parts(root, **QUIET)):
        with pytest.raises(PlanError, match=says) as error:
            refused()
        assert "cellcube plan TABLE ROOT" in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
    make_plan(tmp_path / "cells.csv", root, executor=1, **FIELDS)
    parts_of(root, 2)
    assert commit_parts(root, **QUIET).version == (3 if what == "version" else 2)


def test_an_image_that_changes_makes_its_job_missing(plate: DemoPlate, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(plate.folder, tmp_path / "plate")
    table = tmp_path / "plate" / plate.cells_csv.name
    make_plan(table, tmp_path / "a", executor=1, **FIELDS)
    parts_of(tmp_path / "a", 2)
    fov = pd.read_csv(table).iloc[0]
    os.utime(tmp_path / "plate" / fov["fov_path"], (1, 1))
    with pytest.raises(PlanError, match=rf"1 of 7 jobs .*'{fov['fov_id']}'.* of the parts 1/2\. "):
        commit_parts(tmp_path / "a", **QUIET)
    run_part(tmp_path / "a", 1, 2, **QUIET)
    assert commit_parts(tmp_path / "a", **QUIET).version == 1


@pytest.mark.parametrize("place", ["write_manifest", "clear"])
def test_a_commit_that_was_killed_at_its_end_is_ended_by_the_next(
    plate: DemoPlate, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    root = tmp_path / "a"
    make_plan(plate.cells_csv, root, executor=1, **FIELDS)
    parts_of(root, 2)
    with monkeypatch.context() as patch:
        patch.setattr(finish if place == "write_manifest" else finish.Build, place, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            commit_parts(root, **QUIET)
    report = commit_parts(root, **QUIET)
    assert (report.added, report.version) == (0, 1)
    assert report.requested == report.kept + report.dropped + report.failed > 0
    assert_all_same(root, built)


def test_plan_and_commit_wait_for_no_other_build(plate: DemoPlate, tmp_path: Path) -> None:
    make_plan(plate.cells_csv, tmp_path / "a", executor=1, **FIELDS)
    with claim_of(Location.of(tmp_path / "a")):
        parts_of(tmp_path / "a", 2)
        with pytest.raises(DatasetBusyError):
            make_plan(plate.cells_csv, tmp_path / "a", executor=1, **FIELDS)
        with pytest.raises(DatasetBusyError):
            commit_parts(tmp_path / "a", **QUIET)
    assert commit_parts(tmp_path / "a", **QUIET).version == 1


def test_no_field_opens(plate: DemoPlate, tmp_path: Path) -> None:
    _, every = halves(plate)
    broken = every[every["fov_id"] == plate.broken_fov].assign(fov_path="/nowhere.tif", label_path="/nowhere.tif")
    told = make_plan(broken, tmp_path / "a", executor=1, **FIELDS)
    assert (told.jobs, len(told.failed)) == (0, len(broken))
    assert "failed: image-not-found" in str(told)
    assert run_part(tmp_path / "a", **QUIET).jobs == 0
    report = commit_parts(tmp_path / "a", **QUIET)
    assert (report.failed, report.version) == (len(broken), 0)
    assert not list(tmp_path.rglob("*.json")), "a plan that is committed is gone"


def test_a_plan_that_is_only_printed_writes_nothing(plate: DemoPlate, tmp_path: Path) -> None:
    told = str(make_plan(plate.cells_csv, tmp_path / "a", executor=1, dry_run=True, **FIELDS))
    assert told.endswith("nothing was written")
    assert not (tmp_path / "a").exists()
    for line in (
        "chunk  1 cell with all 5 channels, 23.0 kB",
        "shard  13 cells, 299.5 kB of crops",
        "codec  blosc-zstd",
    ):
        assert line in told


def test_keys_are_not_written_and_given_again(
    plate: DemoPlate, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from http_server import serve

    fields = {**FIELDS, "reader": "auto"}
    with serve(plate.folder) as (address, _):
        _, every = halves(plate)
        for column in ("fov_path", "label_path"):
            every[column] = [f"{address}/{path}?token=hush" for path in pd.read_csv(plate.cells_csv)[column]]
        make_plan(every, tmp_path / "a", executor=1, storage_options={"headers": {"x": "hush"}}, **fields)
        written = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
        assert len(written) == 5
        assert not [path for path in written if b"hush" in path.read_bytes()]
        with pytest.raises(PlanError, match=r"hold keys.*--table TABLE"):
            run_part(tmp_path / "a", 1, 2, **QUIET)
        parts_of(tmp_path / "a", 2, cells=every)
        with pytest.raises(PlanError, match="not the one that the plan was made of"):
            commit_parts(tmp_path / "a", cells=every.iloc[30:], **QUIET)
        commit_parts(tmp_path / "a", cells=every, **QUIET)
    cells = pd.read_parquet(tmp_path / "a/cells.parquet")
    assert cells["fov_path"].str.startswith("http://127.0.0.1").all()
    for name in ("cells", "max_z", "mask"):
        assert (cellcube.open(tmp_path / "a")[name].values == cellcube.open(built)[name].values).all()


def test_functions_are_imported_by_their_names(plate: DemoPlate, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own_measures.py").write_text(
        "def width(pixels, mask, cell):\n    return {'width': pixels.shape[-1]}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "own"))
        fields = {**FIELDS, "measure": {"function": "own_measures:width"}}
        make_plan(plate.cells_csv, tmp_path / "a", executor=1, **fields)
        process = command("run", tmp_path / "a", "--quiet", "--workers", "1")
        code, _, told = ended(process)
        assert code == 2
        assert "own_measures:width" in told
        assert "on the Python path" in told
        parts_of(tmp_path / "a", 2)
        commit_parts(tmp_path / "a", **QUIET)
    assert (pd.read_parquet(tmp_path / "a/cells.parquet")["width"] == 48).all()


def test_functions_that_others_cannot_import_are_refused(plate: DemoPlate, tmp_path: Path) -> None:
    def local(pixels: Any, mask: Any, cell: Any) -> dict[str, float]:
        return {}

    for function in (local, lambda pixels, mask, cell: {}):
        with pytest.raises(ArgumentError, match=r"measure: the function .* cannot be imported by other processes"):
            make_plan(plate.cells_csv, tmp_path / "a", executor=1, measure=function, **FIELDS)
    assert not (tmp_path / "a").exists()
