"""Functions given by the user: where they come from, their source, and a digest of it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import CodeType, ModuleType
from typing import Any

from cellcube.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class UserFunction:
    """A callable with what ties it to its code.

    Parameters
    ----------
    function : callable
    name : str
        ``package.module:qualified.name``.
    source : str or None
        Its source text, None where Python cannot find it.
    digest : str
        SHA-256 of the source, and of what the function binds: closures, defaults, partial arguments, attributes of an
        object that is called. Of byte code and constants where there is no source. Other functions and globals that
        it uses do not count.
    """

    function: Callable[..., Any]
    name: str
    source: str | None
    digest: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> UserFunction:
        """Describe a callable."""
        target = _target(function)
        module = getattr(target, "__module__", None) or type(target).__module__
        qualname = getattr(target, "__qualname__", None) or type(target).__qualname__
        return cls(function, f"{module}:{qualname}", _source(target), _digest(function, ()))

    @classmethod
    def load(cls, name: str) -> UserFunction:
        """Import ``package.module:name``.

        Raises
        ------
        ArgumentError
            Where it cannot be imported or is not callable.
        """
        module, _, qualname = name.partition(":")
        try:
            if not module or not qualname or module.startswith("."):
                raise ImportError("that is not 'package.module:name'")
            found: Any = importlib.import_module(module)
            for part in qualname.split("."):
                found = getattr(found, part)
        except Exception as error:  # a module can raise anything while it is imported
            text = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
            raise ArgumentError(
                f"The function {name!r} cannot be imported: {text}.",
                remedy="Write it as 'package.module:name', with the package on the Python path.",
            ) from error
        if not callable(found):
            raise ArgumentError(f"{name!r} is not callable.")
        return cls.of(found)

    @property
    def short_name(self) -> str:
        """Its name without module and class, fit for a column or a group: ``function`` for a lambda."""
        last = self.name.rpartition(":")[2].rpartition(".")[2]
        return last if last.isidentifier() else "function"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserFunction) and (self.name, self.digest) == (other.name, other.digest)

    def __hash__(self) -> int:
        return hash((self.name, self.digest))


def _target(function: Any) -> Any:
    """What holds the code: behind decorators and partials."""
    target = inspect.unwrap(function)
    while isinstance(target, partial):
        target = inspect.unwrap(target.func)
    return target


def _source(target: Any) -> str | None:
    described = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
    try:
        text = textwrap.dedent(inspect.getsource(described)).strip()
    except (OSError, TypeError):
        return None
    if getattr(target, "__name__", None) == "<lambda>":
        return _lambda_source(target.__code__) or text
    return text


def _lambda_source(code: CodeType) -> str | None:
    """The lambda alone: the lines it stands in hold other things, such as the path of a table, or other lambdas."""
    text = "".join(linecache.getlines(code.co_filename))
    try:
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda)]
    except SyntaxError:
        return None
    places = [(line, column) for line, _, column, _ in code.co_positions() if line and column]
    for node in nodes:
        if (node.body.lineno, node.body.col_offset) == min(places, default=None):
            return ast.get_source_segment(text, node)
    return None


def _digest(function: Any, above: tuple[int, ...]) -> str:
    target = _target(function)
    source = _source(target)
    hashed = hashlib.sha256()
    code = getattr(target, "__code__", None)
    if source is not None:
        hashed.update(source.encode())
    elif code is not None:
        hashed.update(code.co_code + repr(code.co_consts).encode())
    else:
        name = getattr(target, "__qualname__", None) or getattr(target, "__name__", "")
        hashed.update(f"{type(target)!r} {name}".encode())
    for value in _bound(function):
        hashed.update(_plain(value, (*above, id(function))).encode())
    return hashed.hexdigest()


def _bound(function: Any) -> Iterator[object]:
    """What decides the result besides the source: partial arguments, closure, defaults, state of an object."""
    step = inspect.unwrap(function)
    while isinstance(step, partial):
        yield from (step.args, step.keywords)
        step = inspect.unwrap(step.func)
    for cell in getattr(step, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in ("__defaults__", "__kwdefaults__"):
        if getattr(step, name, None):
            yield getattr(step, name)
    holder = getattr(step, "__self__", None) if inspect.isroutine(step) else step
    if not (holder is None or inspect.isclass(holder) or inspect.isroutine(holder) or inspect.ismodule(holder)):
        yield getattr(holder, "__dict__", None) or {}


def _plain(value: object, above: tuple[int, ...]) -> str:
    """A text that is the same in every process: no addresses, no order of sets."""
    if isinstance(value, str | int | float | complex | bool | bytes | None):
        return repr(value)
    if id(value) in above:  # a function that closes over itself
        return "itself"
    above = (*above, id(value))
    if isinstance(value, list | tuple):
        return "(" + ",".join(_plain(item, above) for item in value) + ")"
    if isinstance(value, set | frozenset):
        return "{" + ",".join(sorted(_plain(item, above) for item in value)) + "}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_plain(key, above)}:{_plain(item, above)}" for key, item in value.items()) + "}"
    if hasattr(value, "tobytes") and not inspect.isclass(value):
        about = (getattr(value, "dtype", None), getattr(value, "shape", None))
        return f"{about} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, ModuleType):
        return value.__name__
    if callable(value):
        return _digest(value, above)
    return f"{type(value).__qualname__} {_plain(getattr(value, '__dict__', None), above)}"
