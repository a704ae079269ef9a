"""Paths and URLs: read, write atomically, list, copy. The only place that talks to file systems."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellcube.errors import ArgumentError, MissingDependencyError, did_you_mean
from cellcube.urls import (
    StorageOptions,
    is_remote,
    local_path,
    options_for,
    protocol_of,
    public_url,
)

# Seconds after which a store that answers nothing is given up, where one small answer is waited for. The libraries
# below try again several times, and wait each time as long as is right for large objects.
PATIENCE = 45.0


@dataclass(frozen=True)
class Location:
    """A file or folder, local or remote.

    Parameters
    ----------
    url : str
        Local path, ``file://`` URL or any fsspec URL.
    storage_options : mapping
        Passed to fsspec for remote URLs.
    """

    url: str
    storage_options: StorageOptions = field(default_factory=dict, hash=False, compare=False, repr=False)

    @classmethod
    def of(cls, path: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> Location:
        """The location of a path as a user gives it; local paths become absolute."""
        text = os.fspath(path)
        if not text.strip():
            raise ArgumentError("The path is empty.", remedy="Give a local path or a URL.")
        if is_remote(text):
            _check_protocol(text)
            return cls(text.rstrip("/"), options_for(text, storage_options))
        return cls(str(local_path(text).expanduser().absolute()))

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.url}/{name}", self.storage_options)

    @property
    def is_local(self) -> bool:
        """Whether this is on this machine's file system."""
        return not is_remote(self.url)

    @property
    def name(self) -> str:
        """The last component."""
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The folder that holds this."""
        if self.is_local:
            return Location(str(Path(self.url).parent))
        return Location(self._path.rpartition("/")[0], self.storage_options)

    @property
    def _path(self) -> str:
        # A signature behind "?" may hold slashes; in object stores "?" is a character like others.
        url = self.url.partition("?")[0] if protocol_of(self.url) in ("http", "https") else self.url
        return url.rstrip("/")

    def _fs(self) -> tuple[Any, str]:
        import fsspec

        # Cached listings would hide what another process has written.
        options = {"use_listings_cache": False, **self.storage_options}
        try:
            fs, path = fsspec.core.url_to_fs(self.url, **options)
        except ImportError as error:
            protocol = protocol_of(self.url)
            raise MissingDependencyError(
                f"{protocol}:// needs a package that is not installed: {error}",
                path=public_url(self.url),
                remedy='Install it, or cellcube with its extra: pip install "cellcube[s3]" or "cellcube[http]".',
            ) from error
        return _FileSystem(fs), path

    def read(self, start: int | None = None, end: int | None = None, *, patience: float | None = None) -> bytes:
        """The bytes from `start` to `end`; a negative start counts from the end.

        Parameters
        ----------
        start, end : int, optional
        patience : float, optional
            Seconds after which a remote store is given up with a TimeoutError.

        Raises
        ------
        FileNotFoundError, PermissionError, TimeoutError
        """
        if not self.is_local:
            fs, path = self._fs()
            return bytes(fs.within(patience, "cat_file", path, start=start, end=end))
        with Path(self.url).open("rb") as file:
            if start is not None:
                file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
            if end is None:
                return file.read()
            return file.read(end - (start or 0))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Put `data` here, whole or not at all; what was here before stays until then."""
        if not self.is_local:
            fs, path = self._fs()
            fs.pipe_file(path, bytes(data))
            return
        target = Path(self.url)
        temporary = _partial(target, data)
        try:
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def create(self, data: bytes) -> bool:
        """Put `data` here only if nothing is here. Returns whether it was put."""
        if self.is_local:
            target = Path(self.url)
            temporary = _partial(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError:
                # No hard links on this file system.
                return _create_exclusive(target, data)
            finally:
                temporary.unlink(missing_ok=True)
            return True
        fs, path = self._fs()
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if "PreconditionFailed" in f"{error!r} {error.__cause__!r}":
                return False
            raise
        return True

    def exists(self) -> bool:
        """Whether there is a file, an object or a non-empty prefix here."""
        if self.is_local:
            return Path(self.url).exists()
        fs, path = self._fs()
        return bool(fs.within(PATIENCE, "exists", path))

    def size(self) -> int | None:
        """Size in bytes, or None where there is no file or object."""
        try:
            if self.is_local:
                status = Path(self.url).stat()
                return None if Path(self.url).is_dir() else status.st_size
            fs, path = self._fs()
            info = fs.within(PATIENCE, "info", path)
            return None if info.get("type") == "directory" else int(info["size"])
        except FileNotFoundError:
            return None

    def state(self) -> dict[str, Any]:
        """What tells whether the file has changed: size in bytes, and modification time or ETag.

        A folder (an OME-Zarr image) is told by the state of its metadata. Empty where nothing is known.
        """
        if self.is_local:
            path = Path(self.url)
            if path.is_dir():
                for name in ("zarr.json", ".zattrs"):
                    if (path / name).exists():
                        return Location(str(path / name)).state()
                return {}
            try:
                status = path.stat()
            except OSError:
                return {}
            return {"size": status.st_size, "mtime": round(status.st_mtime, 6)}
        fs, path_ = self._fs()
        try:
            info = fs.info(path_)
        except OSError:
            return {}
        if info.get("type") == "directory":
            for name in ("zarr.json", ".zattrs"):
                state = (self / name).state()
                if state:
                    return state
            return {}
        found: dict[str, Any] = {"size": info.get("size")}
        for key in ("ETag", "etag", "LastModified", "mtime"):
            if info.get(key) is not None:
                found["etag" if key.lower() == "etag" else "mtime"] = str(info[key]).strip('"')
        return found

    def names(self) -> list[str]:
        """Names of what is directly inside this folder, sorted; empty where there is none."""
        try:
            if self.is_local:
                return sorted(entry.name for entry in Path(self.url).iterdir())
            fs, path = self._fs()
            found = (str(entry).rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
            return sorted(name for name in found if name)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file below this folder, by its path from here."""
        if self.is_local:
            top = Path(self.url)
            return {p.relative_to(top).as_posix(): p.stat().st_size for p in sorted(top.rglob("*")) if p.is_file()}
        fs, path = self._fs()
        try:
            found = fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
        prefix = path.rstrip("/") + "/"
        return {name.removeprefix(prefix): int(info["size"]) for name, info in sorted(found.items())}

    def copy_to(self, target: Location) -> None:
        """Make `target` the same file as this one, whole or not at all; cheap inside one file system."""
        if self == target:
            return
        if self.is_local and target.is_local:
            destination = Path(target.url)
            destination.parent.mkdir(parents=True, exist_ok=True)
            temporary = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
            temporary.unlink(missing_ok=True)
            try:
                try:
                    os.link(self.url, temporary)
                except OSError:
                    # No hard links on this file system.
                    shutil.copyfile(self.url, temporary)
                temporary.replace(destination)
            finally:
                # Renaming one hard link over another of the same file leaves both.
                temporary.unlink(missing_ok=True)
            return
        fs, path = self._fs()
        if not self.is_local and not target.is_local:
            other, other_path = target._fs()
            if other.plain is fs.plain:
                fs.cp_file(path, other_path)
                return
        target.write(self.read())

    def remove_partial(self) -> None:
        """Delete what killed writes have left below this folder. Object stores have no half-written objects."""
        if self.is_local:
            for path in Path(self.url).rglob(".*.partial"):
                path.unlink(missing_ok=True)

    def remove_empty(self) -> None:
        """Delete this folder if there is nothing in it. Object stores have no empty folders."""
        if self.is_local:
            with contextlib.suppress(OSError):
                Path(self.url).rmdir()

    def remove(self) -> None:
        """Delete this file, or this folder with all in it; nothing where it does not exist."""
        if self.is_local:
            path = Path(self.url)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            return
        fs, path_ = self._fs()
        if fs.exists(path_):
            fs.rm(path_, recursive=True)


def _check_protocol(url: str) -> None:
    from fsspec import available_protocols

    protocol, known = protocol_of(url), available_protocols()
    if protocol not in known:
        raise ArgumentError(
            f"There is no protocol {protocol!r}.", path=public_url(url), remedy=did_you_mean(protocol, known) or None
        )


def _partial(target: Path, data: bytes | bytearray | memoryview) -> Path:
    """A temporary file beside `target` that holds `data`; none is left where that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".partial")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files for the owner only; a dataset is to be shared.
        temporary.chmod(0o666 & ~_umask())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _create_exclusive(target: Path, data: bytes) -> bool:
    try:
        with target.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


class _FileSystem:
    """An fsspec file system whose own library's failures are builtin errors."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def within(self, seconds: float | None, name: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a method, given up after so many seconds where the file system knows how."""
        if seconds is not None and getattr(self.plain, "async_impl", False):
            kwargs["timeout"] = seconds
        return getattr(self, name)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.plain, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                if not type(error).__module__.startswith(("botocore", "aiobotocore")):
                    raise
                kind = type(error).__name__
                builtin = PermissionError if "Credential" in kind or "Token" in kind else ConnectionError
                raise builtin(f"{kind}: {error}") from error

        return call


def _umask() -> int:
    # There is no way to read it without setting it.
    value = os.umask(0o022)
    os.umask(value)
    return value
