"""The claim, what is kept of git, and the tables of runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cellcube.errors import DatasetAccessError, DatasetBusyError, DatasetDamagedError
from cellcube.functions import UserFunction
from cellcube.ledger import (
    Claim,
    Recorder,
    about_table,
    code_of,
    environment,
    fold_outcomes,
    function_record,
    joined_bytes,
    parse_table,
    read_run,
    read_run_table,
    read_table,
    table_bytes,
    write_run,
    write_table,
)
from cellcube.ledger import claim as claims
from cellcube.ledger import runs as runs_room
from cellcube.location import Location


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location.of(tmp_path / "set" / "claim.json")
    return Location.of(f"s3://bucket/{tmp_path.name}/claim.json", request.getfixturevalue("s3"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 0.0)


# --- the claim ----------------------------------------------------------------------------------------------


def test_claim_keeps_another_build_out(place: Location) -> None:
    with Claim(place, "s3://the/dataset"):
        with (
            pytest.raises(DatasetBusyError, match="Another build writes to this dataset since 20") as caught,
            Claim(place, "s3://the/dataset"),
        ):
            raise AssertionError
        assert caught.value.path == "s3://the/dataset"
        assert place.url in str(caught.value)
        assert place.exists()
    assert not place.exists()
    with Claim(place, "again"):
        pass


def test_claim_is_given_back_after_an_error(place: Location) -> None:
    with pytest.raises(KeyboardInterrupt), Claim(place, "d"):
        raise KeyboardInterrupt
    assert not place.exists()


def test_claim_of_a_process_that_died(tmp_path: Path) -> None:
    place = Location.of(tmp_path / "claim.json")
    script = (
        "import os\nfrom cellcube.ledger import Claim\nfrom cellcube.location import Location\n"
        f"Claim(Location.of({place.url!r}), 'd').__enter__()\nos._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert json.loads(place.read())["process"] != os.getpid()
    with Claim(place, "d"):
        assert json.loads(place.read())["process"] == os.getpid()
    assert not place.exists()


def test_claim_of_a_process_that_lives(tmp_path: Path) -> None:
    place = Location.of(tmp_path / "claim.json")
    script = (
        "import sys\nfrom cellcube.ledger import Claim\nfrom cellcube.location import Location\n"
        f"with Claim(Location.of({place.url!r}), 'd'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(DatasetBusyError), Claim(place, "d"):
            raise AssertionError
        process.communicate()
    assert not place.exists()


def foreign(place: Location, age: float, **fields: Any) -> None:
    """The claim of another machine, renewed `age` seconds ago."""
    renewed = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    body = {"token": "other", "machine": "elsewhere", "process": 1, "started": renewed, "renewed": renewed}
    place.write(json.dumps({**body, **fields}).encode())


def test_claim_of_another_machine_is_kept_while_it_is_renewed(place: Location) -> None:
    foreign(place, 60)
    with pytest.raises(DatasetBusyError), Claim(place, "d"):
        raise AssertionError
    assert json.loads(place.read())["token"] == "other"


def test_stale_claim_is_taken_over(place: Location) -> None:
    foreign(place, claims.STALE_SECONDS + 60)
    with Claim(place, "d"):
        assert json.loads(place.read())["token"] != "other"
    assert not place.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"token": "x"}', b'{"renewed": 3, "process": "x"}'])
def test_damaged_claim_is_taken_over(tmp_path: Path, content: bytes) -> None:
    place = Location.of(tmp_path / "claim.json")
    place.write(content)
    with Claim(place, "d"):
        pass
    assert not place.exists()


def test_only_one_takes_a_stale_claim_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Location.of(tmp_path / "claim.json")
    foreign(place, claims.STALE_SECONDS + 60)
    # The other build takes it over in the moment after this one did.
    monkeypatch.setattr(claims.time, "sleep", lambda _: foreign(place, 0, token="third"))
    with pytest.raises(DatasetBusyError), Claim(place, "d"):
        raise AssertionError
    assert json.loads(place.read())["token"] == "third"


def test_a_claim_that_was_taken_over_is_not_removed(place: Location) -> None:
    with Claim(place, "d"):
        foreign(place, 0)
    assert json.loads(place.read())["token"] == "other"


def test_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    place = Location.of(tmp_path / "claim.json")
    with Claim(place, "d") as claim:
        place.remove()
        assert claim._beating is not None
        for _ in range(1000):
            if place.exists():
                break
            claim._beating.join(0.01)
        assert place.exists()


def test_claim_tells_no_names(place: Location) -> None:
    import getpass
    import platform

    with Claim(place, "d"):
        text = place.read().decode()
    assert platform.node() not in text
    assert getpass.getuser() not in json.loads(text).values()


def test_claim_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DatasetAccessError, match="cannot be written"), Claim(Location.of(tmp_path / "file" / "c"), "d"):
        raise AssertionError


# --- git ----------------------------------------------------------------------------------------------------

Git = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Git]:
    """A git repository with one committed script in a folder."""
    folder = tmp_path / "repo ü"
    (folder / "sub").mkdir(parents=True)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--initial-branch", "work")
    (folder / "sub" / "script.py").write_text("def mine(p, c):\n    return p\n")
    return folder, git


def test_code_in_git(repository: tuple[Path, Git]) -> None:
    folder, git = repository
    script = folder / "sub" / "script.py"
    assert code_of(script) == {
        "file": "sub/script.py",
        "git": {"remote": None, "branch": None, "commit": None, "dirty": True},
    }
    git("add", ".")
    git("commit", "-m", "first")
    git("remote", "add", "origin", "https://me:s3cr3t@host/lab/repo.git")
    clean = {
        "remote": "https://host/lab/repo.git",
        "branch": "work",
        "commit": git("rev-parse", "HEAD"),
        "dirty": False,
    }
    assert code_of(script) == {"file": "sub/script.py", "git": clean}
    assert code_of(folder) == {"file": None, "git": clean}
    (folder / "untracked.txt").write_text("x")
    assert code_of(script)["git"] == {**clean, "dirty": True}


def test_remote_that_is_not_called_origin(repository: tuple[Path, Git]) -> None:
    folder, git = repository
    git("remote", "add", "upstream", "git@host:lab/repo.git")
    assert code_of(folder)["git"]["remote"] == "git@host:lab/repo.git"


def test_code_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script.py").write_text("")
    assert code_of(tmp_path / "script.py") == {"file": "script.py", "git": None}
    monkeypatch.setenv("PATH", "")
    assert code_of(tmp_path / "script.py") == {"file": "script.py", "git": None}


def test_record_of_a_function(repository: tuple[Path, Git], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, git = repository
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.syspath_prepend(folder / "sub")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    record = function_record(UserFunction.load("script:mine"))
    assert record["source"] == "def mine(p, c):\n    return p"
    assert (record["name"], record["file"]) == ("script:mine", "sub/script.py")
    assert record["git"]["commit"] == git("rev-parse", "HEAD")
    assert function_record(UserFunction.of(len))["git"] is None


def test_environment_names_no_one_unless_asked() -> None:
    found = environment(identify=False)
    assert set(found) == {"python", "cellcube", "packages", "platform", "command"}
    assert found["packages"]["numpy"] == np.__version__
    assert {"user", "host"} <= set(environment(identify=True))


# --- runs ---------------------------------------------------------------------------------------------------


def outcomes(*rows: tuple[str, str], run: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        [{"cell_id": c, "fov_id": "f", "label": 1, "status": s, "reason": "", "run": run} for c, s in rows]
    )


def test_run_round_trip(place: Location) -> None:
    runs = place.parent / "runs"
    cells = pd.DataFrame({"cell_id": ["ü", "b"], "x": [0.1, np.nan], "n": [1, 2**60], "ok": [True, False]})
    decided = outcomes(("ü", "kept"), ("b", "kept"), ("c", "failed"))
    fovs = pd.DataFrame({"fov_id": ["f"], "labels": [4], "run": [12]})
    tables = {"outcomes": decided, "cells": cells, "fovs": fovs}
    write_run(Recorder(place.parent), 12, {"spec": {"name": "µ"}, "n": 1}, tables)
    assert read_run(runs, 12) == {"spec": {"name": "µ"}, "n": 1}
    pd.testing.assert_frame_equal(read_run_table(runs, 12, "cells"), cells)
    pd.testing.assert_frame_equal(read_run_table(runs, 12, "outcomes"), decided)
    pd.testing.assert_frame_equal(read_run_table(runs, 12, "fovs"), fovs)
    assert runs.names() == [f"000012.{end}" for end in ("cells.parquet", "fovs.parquet", "json", "outcomes.parquet")]


def test_missing_and_damaged_runs(place: Location) -> None:
    runs = place.parent / "runs"
    with pytest.raises(DatasetDamagedError, match="missing or damaged"):
        read_run(runs, 1)
    with pytest.raises(DatasetDamagedError, match="missing or damaged"):
        read_run_table(runs, 1, "cells")
    (runs / "000001.json").write(b'{"cut')
    (runs / "000001.cells.parquet").write(b"PAR1")
    with pytest.raises(DatasetDamagedError) as caught:
        read_run(runs, 1)
    assert caught.value.path == f"{runs.url}/000001.json"
    with pytest.raises(DatasetDamagedError):
        read_run_table(runs, 1, "cells")


def test_tables_are_read_by_any_reader_of_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    place = Location.of(tmp_path / "t.parquet")
    frame = pd.DataFrame({"text": ["a", "ü"], "empty": pd.Series(["", ""], dtype=str), "n": [1, 2]})
    write_table(place, frame, {"version": 3})
    assert [str(field.type) for field in pq.read_schema(place.url)] == ["string", "string", "int64"]
    back, about = read_table(place)
    pd.testing.assert_frame_equal(back, frame)
    assert about == {"version": 3}
    write_table(place, outcomes().reindex(columns=["cell_id", "run"]))
    assert len(read_table(place)[0]) == 0


def test_the_latest_decision_on_a_cell_counts() -> None:
    first = outcomes(("a", "kept"), ("b", "failed"), ("c", "dropped"))
    second = outcomes(("b", "kept"), ("d", "failed"), run=2)
    folded = fold_outcomes(fold_outcomes(None, first), second)
    assert folded[["cell_id", "status", "run"]].values.tolist() == [
        ["a", "kept", 1],
        ["c", "dropped", 1],
        ["b", "kept", 2],
        ["d", "failed", 2],
    ]


# --- long tables --------------------------------------------------------------------------------------------


def joined(parts: list[pd.DataFrame], **options: Any) -> pd.DataFrame | None:
    found = joined_bytes([table_bytes(part) for part in parts], lambda names: {"columns": list(names)}, **options)
    if found is None:
        return None
    assert about_table(bytes(found)) == {"columns": list(parse_table(found).columns)}
    return parse_table(found)


@pytest.mark.parametrize("rows", [1, 4, 5, 1000])
def test_tables_are_joined_a_part_at_a_time(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_room, "_GROUP_ROWS", rows)
    numbers = np.arange(13)
    whole = pd.DataFrame(
        {"cell_id": numbers.astype(str), "n": numbers, "x": np.where(numbers % 3, 0.5, np.nan), "ok": numbers > 3}
    )
    parts = [whole[:3], whole[3:3], whole[3:4][["x", "ok", "cell_id", "n"]], whole[4:]]
    pd.testing.assert_frame_equal(joined(parts), whole)


def test_rows_are_changed_as_they_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_room, "_GROUP_ROWS", 2)
    parts = [pd.DataFrame({"n": [0, 1, 2]}), pd.DataFrame({"n": [3, 4]})]
    found = joined(parts, change=lambda rows, start: rows.append_column("m", pa.array(np.arange(len(rows)) + start)))
    assert found is not None
    assert found["m"].tolist() == found["n"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "other",
    [{"n": [1.5]}, {"n": ["1"]}, {"m": [1]}, {"n": [1], "m": [1]}, {"n": pd.array([1], "Int64")}],
    ids=["type", "text", "name", "more", "gaps"],
)
def test_tables_of_other_columns_are_not_joined(other: dict[str, Any]) -> None:
    assert joined([pd.DataFrame({"n": [1]}), pd.DataFrame(other)]) is None
    assert joined([pd.DataFrame({"n": [1]})[:0]]) is None


def test_text_that_is_missing_is_empty_when_joined() -> None:
    found = joined([pd.DataFrame({"text": pd.Series(["a", None], dtype=str)}), pd.DataFrame({"text": ["b"]})])
    assert found is not None
    assert found["text"].tolist() == ["a", "", "b"]


def test_some_columns_of_a_table() -> None:
    data = table_bytes(pd.DataFrame({"a": [1], "b": [2], "c": [3]}))
    assert parse_table(data, ["c", "a", "x"]).to_dict("list") == {"a": [1], "c": [3]}
