"""What ties a build to its code: git, versions, platform, functions."""

from __future__ import annotations

import contextlib
import getpass
import inspect
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import cellcube
from cellcube.functions import UserFunction
from cellcube.urls import public_url

DEPENDENCIES = (
    "numpy",
    "pandas",
    "xarray",
    "zarr",
    "numcodecs",
    "dask",
    "fsspec",
    "s3fs",
    "tifffile",
    "imagecodecs",
    "bioio",
    "bioio-ome-zarr",
    "bioio-nd2",
    "bioio-czi",
    "aicsimageio",
    "scipy",
    "pyarrow",
    "pydantic",
    "yaozarrs",
    "intake",
)


def code_of(path: Path | None) -> dict[str, Any]:
    """Where code stands in git: remote, branch, commit, whether uncommitted changes exist.

    Parameters
    ----------
    path : Path, optional
        A source file, or a folder. None is the working directory.

    Returns
    -------
    dict
        ``git`` is None outside a repository. `file` is relative to the repository, or the bare name.
    """
    place = path or Path.cwd()
    folder = place if place.is_dir() else place.parent
    name = None if place.is_dir() else place.name
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        return {"file": name, "git": None}
    if name is not None:
        with contextlib.suppress(ValueError):
            name = place.resolve().relative_to(Path(top).resolve()).as_posix()
    remote = _git(folder, "remote", "get-url", "origin")
    if remote is None:
        remotes = (_git(folder, "remote") or "").split()
        remote = _git(folder, "remote", "get-url", remotes[0]) if remotes else None
    status = _git(folder, "status", "--porcelain")
    return {
        "file": name,
        "git": {
            "remote": public_url(remote) if remote else None,
            "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
            "commit": _git(folder, "rev-parse", "HEAD"),
            "dirty": None if status is None else bool(status),
        },
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def calling_script() -> Path | None:
    """The file that called into cellcube, or None in a notebook or an interactive session."""
    home = Path(cellcube.__file__).parent
    # Without lines of source, which take reading every file on the way.
    for frame in inspect.stack(context=0)[1:]:
        file = Path(frame.filename)
        if frame.filename.startswith("<") or home in file.parents:
            continue
        return file if file.exists() and "site-packages" not in file.parts else None
    return None


def function_record(function: UserFunction) -> dict[str, Any]:
    """What is kept of a user function: source, module and version, and where the file it is in stands in git."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function.function))
    except TypeError:
        file = None
    path = Path(file) if file and Path(file).exists() else None
    code = code_of(path) if path else {"file": None, "git": None}
    module = function.name.partition(":")[0]
    version = getattr(sys.modules.get(module.partition(".")[0]), "__version__", None)
    return {
        "name": function.name,
        "module": module,
        "module_version": None if version is None else str(version),
        "digest": function.digest,
        "source": function.source,
        **code,
    }


def environment(identify: bool) -> dict[str, Any]:
    """Versions and platform; user and host only if `identify`."""
    versions = {}
    for name in DEPENDENCIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cellcube": cellcube.__version__,
        "packages": versions,
        "platform": {"system": platform.system(), "machine": platform.machine()},
        "command": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else None,
    }
    if identify:
        found["user"] = getpass.getuser()
        found["host"] = platform.node()
    return found
