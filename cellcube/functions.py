"""Functions given by the user: where they come from, their source, and a digest of it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
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
        SHA-256 of the source; of the byte code and constants where there is no source.
    """

    function: Callable[..., Any]
    name: str
    source: str | None
    digest: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> UserFunction:
        """Describe a callable."""
        target = inspect.unwrap(function)
        while hasattr(target, "func"):  # functools.partial
            target = target.func
        module = getattr(target, "__module__", None) or type(target).__module__
        qualname = getattr(target, "__qualname__", None) or type(target).__qualname__
        try:
            described = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
            source: str | None = textwrap.dedent(inspect.getsource(described)).strip()
        except (OSError, TypeError):
            source = None
        return cls(function, f"{module}:{qualname}", source, _digest(function, target, source))

    @classmethod
    def load(cls, name: str) -> UserFunction:
        """Import ``package.module:name``.

        Raises
        ------
        ArgumentError
            Where it cannot be imported or is not callable.
        """
        module, separator, qualname = name.partition(":")
        try:
            if not separator:
                raise ImportError(f"{name!r} has no colon")
            found: Any = importlib.import_module(module)
            for part in qualname.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise ArgumentError(
                f"The function {name!r} cannot be imported: {error}.",
                remedy="Write it as 'package.module:name', with the package on the Python path.",
            ) from error
        if not callable(found):
            raise ArgumentError(f"{name!r} is not callable.")
        return cls.of(found)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserFunction) and (self.name, self.digest) == (other.name, other.digest)

    def __hash__(self) -> int:
        return hash((self.name, self.digest))


def _digest(function: Callable[..., Any], target: Any, source: str | None) -> str:
    hashed = hashlib.sha256()
    code = getattr(target, "__code__", None)
    if source is not None:
        hashed.update(source.encode())
    elif code is not None:
        hashed.update(code.co_code + repr(code.co_consts).encode())
    else:
        hashed.update(repr(type(target)).encode())
    # What a function closes over or a partial binds is part of what it does.
    for cell in getattr(target, "__closure__", None) or ():
        hashed.update(_plain(cell.cell_contents).encode())
    for attribute in ("args", "keywords"):
        if hasattr(function, "func"):
            hashed.update(_plain(getattr(function, attribute)).encode())
    return hashed.hexdigest()


def _plain(value: object) -> str:
    """A text that is the same in every process: no addresses."""
    if isinstance(value, str | int | float | bool | bytes | None):
        return repr(value)
    if isinstance(value, list | tuple):
        return "(" + ",".join(_plain(item) for item in value) + ")"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_plain(item)}" for key, item in value.items()) + "}"
    if hasattr(value, "tobytes"):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if callable(value):
        return UserFunction.of(value).digest
    return type(value).__qualname__
