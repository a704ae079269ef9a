"""Getting hold of a file: local as it is, remote as a temporary copy; and the errors that both can give."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from cellcube.errors import (
    CellcubeError,
    ImageAccessError,
    ImageError,
    ImageNotFoundError,
    MissingDependencyError,
    NotAnImageError,
)
from cellcube.images.protocol import ImageSource
from cellcube.urls import is_remote, local_path

_EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}


def suffix(path: str) -> str:
    """The last suffix of a path or URL in lower case, such as ``".tif"``."""
    clean = urlsplit(path).path if path.startswith(("http://", "https://")) else path
    return PurePosixPath(clean.replace("\\", "/")).suffix.lower()


@contextlib.contextmanager
def image_errors(path: str, otherwise: type[ImageError], doing: str) -> Iterator[None]:
    """Turn any exception into an `ImageError` that names the path; those of cellcube pass.

    Parameters
    ----------
    path : str
        Named in the error.
    otherwise : type
        The class for what is neither a missing file nor a refused one.
    doing : str
        What failed, such as ``"could not be opened"``.
    """
    try:
        yield
    except (CellcubeError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageNotFoundError("There is no file or object at the path.", path=path) from error
    except PermissionError as error:
        raise ImageAccessError(f"The image may not be read: {error}.", path=path) from error
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        raise otherwise(f"The image {doing}: {type(error).__name__}: {text}", path=path) from error


def filesystem(path: str, storage_options: Any) -> tuple[Any, str]:
    """The fsspec filesystem of a URL and the path in it.

    Raises
    ------
    cellcube.errors.MissingDependencyError
        Where the protocol needs a package that is not installed.
    """
    import fsspec

    try:
        fs, inside = fsspec.core.url_to_fs(path, **dict(storage_options))
    except ImportError as error:
        extra = _EXTRAS.get(path.partition("://")[0])
        remedy = f'pip install "cellcube[{extra}]"' if extra else str(error)
        raise MissingDependencyError("A package is needed to read from this URL.", path=path, remedy=remedy) from error
    return fs, inside


class LocalFile:
    """A local file, or the temporary local copy of a remote one.

    Parameters
    ----------
    source : ImageSource
        Its `path` and `storage_options` are used.

    Raises
    ------
    cellcube.errors.ImageNotFoundError, cellcube.errors.ImageAccessError
    cellcube.errors.NotAnImageError
        Where the file is empty or a folder.
    """

    def __init__(self, source: ImageSource) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if not is_remote(source.path):
            self.path = str(local_path(source.path))
        else:
            fs, inside = filesystem(source.path, source.storage_options)
            # A long-lived copy is removed by close(); the finalizer is for readers that were forgotten.
            self._folder = tempfile.TemporaryDirectory(prefix="cellcube-", ignore_cleanup_errors=True)
            name = PurePosixPath(urlsplit(source.path).path).name or "image"
            self.path = str(Path(self._folder.name, name))
            try:
                with image_errors(source.path, ImageError, "could not be fetched"):
                    fs.get_file(inside, self.path)
            except BaseException:
                self.close()
                raise
        try:
            _check_local(self.path, source.path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Delete the temporary copy, where there is one. May be called twice."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()


def head(source: ImageSource, count: int = 16) -> bytes:
    """The first bytes of a local or remote file; empty for a folder."""
    if not is_remote(source.path):
        name = local_path(source.path)
        with image_errors(source.path, ImageError, "could not be opened"):
            if name.is_dir():
                return b""
            with name.open("rb") as file:
                return file.read(count)
    fs, inside = filesystem(source.path, source.storage_options)
    with image_errors(source.path, ImageError, "could not be opened"):
        return bytes(fs.cat_file(inside, start=0, end=count))


def _check_local(name: str, path: str) -> None:
    if not Path(name).exists():
        raise ImageNotFoundError("There is no file at the path.", path=path)
    if Path(name).is_dir():
        raise NotAnImageError("The path is a folder, and not an image that is stored as one.", path=path)
    if not os.access(name, os.R_OK):
        raise ImageAccessError("The file may not be read.", path=path)
    if Path(name).stat().st_size == 0:
        raise NotAnImageError("The file is empty.", path=path)
