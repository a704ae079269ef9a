"""Exceptions of cellcube, grouped by what the caller would do about them.

Every error carries a stable `kind` (a short word to match on), what it is about (`cell_id`, `fov_id`, `path`)
and a `remedy`, and prints all of them. Each class also has the builtin parent a caller would expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Shorter identifiers can stand in a message by chance, so they are told again.
_TELLING = 4


class CellcubeError(Exception):
    """Base of all errors raised by cellcube.

    Parameters
    ----------
    message : str
        What is wrong, in one or two sentences.
    cell_id, fov_id, path : str, optional
        The cell, the field of view and the file or URL that the error is about.
    remedy : str, optional
        What the caller can do.
    """

    kind = "error"

    def __init__(
        self,
        message: str,
        *,
        cell_id: str | None = None,
        fov_id: str | None = None,
        path: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cell_id = cell_id
        self.fov_id = fov_id
        self.path = path
        self.remedy = remedy

    def __str__(self) -> str:
        return self.tell("cell", "FOV", "path")

    def tell(self, *named: str) -> str:
        """The message, the remedy, and of what it is about those `named`: ``cell``, ``FOV``, ``path``."""
        about = [
            f"{name} {value!r}"
            for name, value in (("cell", self.cell_id), ("FOV", self.fov_id), ("path", self.path))
            if name in named and value is not None and (value not in self.message or len(value) < _TELLING)
        ]
        text = self.message
        if about:
            text += f" ({', '.join(about)})"
        if self.remedy:
            text += f" {self.remedy}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not pickle by themselves, and these cross process borders.
        # `path` of an ImportError is not in its dictionary.
        return (_rebuild, (type(self), {**self.__dict__, "path": self.path}))


def _rebuild(cls: type[CellcubeError], state: dict[str, object]) -> CellcubeError:
    error = cls.__new__(cls)
    Exception.__init__(error, state.get("message"))
    for name, value in state.items():
        setattr(error, name, value)
    return error


# --- the call is wrong: correct the arguments ---------------------------------------------------------------


class ArgumentError(CellcubeError, ValueError):
    """An argument of a public function is not usable."""

    kind = "argument"


class SpecError(ArgumentError):
    """A `CubeSpec` field is unknown or has a value that cannot be used."""

    kind = "spec"


class TableError(ArgumentError):
    """The cell table cannot be used. `problems` lists everything that is wrong with it, not only the first."""

    kind = "table"

    def __init__(self, message: str, *, problems: Sequence[str] = (), path: str | None = None) -> None:
        self.problems = tuple(problems)
        if problems:
            message += "\n" + "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(message, path=path)


class MissingDependencyError(CellcubeError, ImportError):
    """An optional package is needed. The message names the extra that installs it."""

    kind = "missing-dependency"


# --- an input cannot be read: mend the file, the path or the metadata --------------------------------------


class ImageError(CellcubeError, OSError):
    """An image or label image cannot be used; fails the cells of its field of view."""

    kind = "image"


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no file or object at the path."""

    kind = "image-not-found"


class ImageAccessError(ImageError, PermissionError):
    """The file or object exists but may not be read."""

    kind = "image-access"


class NotAnImageError(ImageError):
    """The file is not an image that the reader knows."""

    kind = "not-an-image"


class TruncatedImageError(ImageError):
    """Pixels that the file's own metadata promises are not there, or do not decode."""

    kind = "truncated-image"


class AxesError(ImageError, ValueError):
    """The axes of an image are unknown, or an `axes` override does not fit it."""

    kind = "axes"


class ChannelError(ImageError, LookupError):
    """A channel is not in the image. The message says which exist."""

    kind = "channel"


class SceneError(ImageError, LookupError):
    """A scene or timepoint is not in the image."""

    kind = "scene"


class VoxelSizeError(ImageError, ValueError):
    """A voxel size is zero, negative or not finite."""

    kind = "voxel-size"


class ImageMismatchError(ImageError, ValueError):
    """Images of one field of view, or image and label image, differ in shape or type."""

    kind = "image-mismatch"


class StatisticsError(ImageError, ValueError):
    """Statistics that a normalization needs could not be taken over the fields of a group."""

    kind = "statistics"


# --- one cell cannot be used --------------------------------------------------------------------------------


class CellError(CellcubeError, ValueError):
    """One cell cannot be cut out, normalized or measured; the others go on."""

    kind = "cell"


class LabelNotFoundError(CellError, LookupError):
    """The label is not in the label image."""

    kind = "label-not-found"


class UserFunctionError(CellError):
    """A function given by the user raised, or returned pixels that cannot be stored."""

    kind = "user-function"


# --- the dataset folder is not as it must be ----------------------------------------------------------------


class DatasetError(CellcubeError, OSError):
    """A dataset folder cannot be used for what was asked."""

    kind = "dataset"


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no cellcube dataset at the root."""

    kind = "dataset-not-found"


class NotADatasetError(DatasetError, FileExistsError):
    """The root holds something that is not a cellcube dataset."""

    kind = "not-a-dataset"


class DatasetAccessError(DatasetError, PermissionError):
    """The root cannot be written to or read from."""

    kind = "dataset-access"


class DatasetFormatError(DatasetError):
    """The dataset was written in a format that this version of cellcube does not know."""

    kind = "dataset-format"


class DatasetDamagedError(DatasetError):
    """Something that the dataset's metadata promises is missing or changed."""

    kind = "dataset-damaged"


class SpecChangedError(DatasetError, ValueError):
    """The spec differs from the one the dataset was built with. `differences` lists (field, old, new)."""

    kind = "spec-changed"

    def __init__(
        self, message: str, *, differences: Sequence[tuple[str, object, object]] = (), path: str | None = None
    ) -> None:
        self.differences = tuple(differences)
        if differences:
            message += "\n" + "\n".join(f"  {field}: {old!r} -> {new!r}" for field, old, new in differences)
        super().__init__(message, path=path)


class VersionNotFoundError(DatasetError, LookupError):
    """The dataset has no such version."""

    kind = "version-not-found"


class DatasetBusyError(DatasetError):
    """Another build is writing to the dataset."""

    kind = "dataset-busy"


class PlanError(DatasetError, RuntimeError):
    """A stored plan is not there, is out of date, or its jobs are not all done."""

    kind = "plan"


class DatasetDivergedError(DatasetError, FileExistsError):
    """The target holds another dataset, or other versions than those of the source."""

    kind = "dataset-diverged"


class PublishError(DatasetError, ValueError):
    """The dataset is not fit to be published. `problems` lists everything that is missing, and how to give it."""

    kind = "not-publishable"

    def __init__(self, message: str, *, problems: Sequence[str] = (), path: str | None = None) -> None:
        self.problems = tuple(problems)
        if problems:
            message += "\n" + "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(message, path=path)


class CatalogError(DatasetError, ValueError):
    """A catalog of datasets cannot be read as one, or has another entry of that name."""

    kind = "catalog"


class BuildStoppedError(CellcubeError, RuntimeError):
    """A build with ``on_error="raise"`` stopped at the first cell that failed."""

    kind = "build-stopped"


class WorkersLostError(CellcubeError, RuntimeError):
    """Workers, or the scheduler of a cluster, ended without an answer, such as for want of memory.

    `number` is that of the item that ended them, from 0, where one did.
    """

    kind = "workers-lost"
    number: int | None = None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names what in `known` is nearest to `word`, or an empty string.

    Examples
    --------
    >>> did_you_mean("lable", ["label", "cell_id"])
    "Did you mean 'label'?"
    """
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return f"Did you mean {folded[close[0]]!r}?" if close else ""
