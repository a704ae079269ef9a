"""User functions: a digest that tells when pixels would change, and only then."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcube.errors import ArgumentError
from cellcube.functions import UserFunction


def double(pixels: Any, cell: Any) -> Any:
    return pixels * 2


def times(factor: Any) -> Any:
    def scaled(pixels: Any, cell: Any) -> Any:
        return pixels * factor

    return scaled


class Subtract:
    def __init__(self, background: float) -> None:
        self.background = background

    def __call__(self, pixels: Any, cell: Any) -> Any:
        return pixels - self.background

    def method(self, pixels: Any, cell: Any) -> Any:
        return pixels - self.background


def digest(function: Any) -> str:
    return UserFunction.of(function).digest


def test_says_where_it_comes_from() -> None:
    described = UserFunction.of(double)
    assert described.name == f"{__name__}:double"
    assert described.source == "def double(pixels: Any, cell: Any) -> Any:\n    return pixels * 2"
    assert described(3, None) == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (times(2), times(3)),
        (times(np.array([1, 2])), times(np.array([1, 3]))),
        (times(np.zeros(2, "f4")), times(np.zeros(1, "f8"))),
        (times({"a": 1}), times({"a": 2})),
        (times({1, 2}), times({1, 3})),
        (times(double), times(Subtract(1))),
        (partial(double, cell=1), partial(double, cell=2)),
        (partial(double, 1), double),
        (partial(partial(double, 1), cell=2), partial(double, 1)),
        (Subtract(1.0), Subtract(2.0)),
        (Subtract(1.0).method, Subtract(2.0).method),
        (Subtract(1.0).method, Subtract(1.0)),
        (np.sqrt, np.log),
        (len, sum),
        (lambda p, c: p * 2, lambda p, c: p * 3),
        (lambda p, c, factor=1: p * factor, lambda p, c, factor=2: p * factor),
    ],
)
def test_digest_tells_functions_apart(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (times(2), times(2)),
        (times({"x", "y", "z"}), times({"z", "y", "x"})),
        (Subtract(1.0), Subtract(1.0)),
        (partial(double, cell=1), partial(double, cell=1)),
        (lambda p, c: p / 7, lambda p, c: p / 7),
        (lru_cache(double), double),
    ],
)
def test_digest_of_the_same_function_is_the_same(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


def test_defaults_bound_in_a_loop_count() -> None:
    functions = [lambda p, c, k=k: p * k for k in (1, 2)]
    assert len({digest(function) for function in functions}) == 2


def test_a_lambda_is_its_own_source_not_the_line_it_stands_in() -> None:
    first = ("monday.csv", lambda p, c: p / 10)
    second = ("tuesday.csv", lambda p, c: p / 10)
    assert UserFunction.of(first[1]).source == "lambda p, c: p / 10"
    assert digest(first[1]) == digest(second[1])


def test_a_decorated_function_is_the_function() -> None:
    def logged(function: Any) -> Any:
        @wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    assert UserFunction.of(logged(double)).name == f"{__name__}:double"


def test_a_function_that_closes_over_itself() -> None:
    def countdown(n: int) -> int:
        return n and countdown(n - 1)

    assert len(digest(countdown)) == 64


def test_a_closure_that_is_not_assigned_yet() -> None:
    def outer() -> str:
        def inner() -> Any:
            return later

        found = digest(inner)
        later = 1
        assert inner() == later
        return found

    assert len(outer()) == 64


SCRIPT = """
    import sys
    from functools import partial
    import numpy as np
    sys.path.insert(0, {folder!r})
    from cellcube.functions import UserFunction
    import mine
    things = [mine.plain, mine.closed({{"b", "a", "c"}}), partial(mine.plain, k=np.arange(3)), mine.Called(3), np.sqrt]
    print(*[UserFunction.of(each).digest for each in things])
"""


def digests_in_a_new_process(folder: Path, body: str) -> list[str]:
    (folder / "mine.py").write_text(
        f"def plain(p, c=None, k=None):\n    return {body}\n\n\n"
        "def closed(names):\n    def inner(p, c):\n        return p, names\n    return inner\n\n\n"
        "class Called:\n    def __init__(self, k):\n        self.k = object(), k\n    def __call__(self, p, c):\n"
        "        return p\n"
    )
    script = textwrap.dedent(SCRIPT).format(folder=str(folder))
    command = [sys.executable, "-B", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_digest_is_the_same_in_every_process_and_changes_with_the_source(tmp_path: Path) -> None:
    first = digests_in_a_new_process(tmp_path, "p + 1")
    assert digests_in_a_new_process(tmp_path, "p + 1") == first
    changed = digests_in_a_new_process(tmp_path, "p + 2")
    assert [one != other for one, other in zip(first, changed, strict=True)] == [True, False, True, False, False]


def test_without_source() -> None:
    made: dict[str, Any] = {}
    exec("def f(p, c):\n    return p * 2\ndef g(p, c):\n    return p * 3", made)
    assert UserFunction.of(made["f"]).source is None
    assert digest(made["f"]) != digest(made["g"])


def test_load() -> None:
    assert UserFunction.load("numpy:sqrt")(4.0) == 2.0
    assert UserFunction.load("collections:OrderedDict.fromkeys").name == "builtins:OrderedDict.fromkeys"


@pytest.mark.parametrize(
    "name",
    ["", "numpy", "numpy:", ":sqrt", ".numpy:sqrt", "numpy:sqr", "no_such_package:f", "numpy:sqrt.nothing", "a b:c"],
)
def test_load_of_a_bad_name(name: str) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be imported.*'package.module:name'") as caught:
        UserFunction.load(name)
    assert repr(name) in str(caught.value)


def test_load_of_a_module_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raises_on_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArgumentError, match="ZeroDivisionError: division by zero"):
        UserFunction.load("raises_on_import:f")


def test_load_of_what_is_not_callable() -> None:
    with pytest.raises(ArgumentError, match="not callable"):
        UserFunction.load("math:pi")
