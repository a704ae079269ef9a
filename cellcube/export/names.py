"""Names of files that every file system takes, made from names of cells, channels and splits."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

# Names that Windows keeps for devices.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_LONGEST = 120


def safe_names(names: Iterable[str], suffixes: Sequence[str] = ("",), *, dots: bool = True) -> list[str]:
    """A file name, without its ending, for each of some different names.

    Names of ASCII letters, digits, ``_``, ``-`` and ``.`` stay as they are. In any other each such character becomes
    ``_``, and the first 10 digits of its SHA-256 follow, so that different names never become the same. That
    also tells apart names that differ in upper and lower case alone.

    Parameters
    ----------
    names : iterable of str
        All different.
    suffixes : sequence of str
        What is put behind each name: no two of all combinations become the same.
    dots : bool
        Whether dots may stay.

    Returns
    -------
    list of str

    Examples
    --------
    >>> safe_names(["B02-1", "a/b", ".."])
    ['B02-1', 'a_b-c14cddc033', '__-5ec1f7e700']
    """
    names = [str(name) for name in names]
    found = [_safe(name, dots) for name in names]
    taken = Counter((name + suffix).casefold() for name in found for suffix in set(suffixes))
    return [
        safe if all(taken[(safe + suffix).casefold()] == 1 for suffix in suffixes) else _told_apart(safe, name)
        for safe, name in zip(found, names, strict=True)
    ]


def split_names(values: Iterable[str]) -> dict[str, str]:
    """A name of ASCII letters, digits and ``_`` for each value of the column ``split``; ``unassigned`` for none.

    Examples
    --------
    >>> split_names(["train", "hold out", ""])
    {'train': 'train', 'hold out': 'hold_out_93dc6de745', '': 'unassigned'}
    """
    values = list(dict.fromkeys(values))
    plain = [value if value else "unassigned" for value in values]
    safe = safe_names(plain, dots=False)
    return {value: name.replace("-", "_") for value, name in zip(values, safe, strict=True)}


def _safe(name: str, dots: bool) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.-]" if dots else r"[^A-Za-z0-9_-]", "_", name)
    plain = re.sub(r"^[.-]+|\.+$", lambda found: "_" * len(found[0]), plain)
    if plain == name and name.partition(".")[0].lower() not in _DEVICES and 0 < len(name) <= _LONGEST:
        return name
    return _told_apart(plain, name)


def _told_apart(plain: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return plain if plain.endswith(f"-{digest}") else f"{plain[:_LONGEST]}-{digest}"
