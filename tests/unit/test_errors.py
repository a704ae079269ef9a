"""What a caller can rely on in every error."""

from __future__ import annotations

import inspect
import pickle

import pytest

from cellcube import errors
from cellcube.errors import CellcubeError, CellError, PublishError, SpecChangedError, TableError, did_you_mean

CLASSES = [
    value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, CellcubeError)
]  # fmt: skip

# Callers match on these words: one that changes breaks their code.
KINDS = {
    "CellcubeError": "error",
    "ArgumentError": "argument",
    "SpecError": "spec",
    "TableError": "table",
    "MissingDependencyError": "missing-dependency",
    "ImageError": "image",
    "ImageNotFoundError": "image-not-found",
    "ImageAccessError": "image-access",
    "NotAnImageError": "not-an-image",
    "TruncatedImageError": "truncated-image",
    "AxesError": "axes",
    "ChannelError": "channel",
    "SceneError": "scene",
    "VoxelSizeError": "voxel-size",
    "ImageMismatchError": "image-mismatch",
    "StatisticsError": "statistics",
    "CellError": "cell",
    "LabelNotFoundError": "label-not-found",
    "UserFunctionError": "user-function",
    "DatasetError": "dataset",
    "DatasetNotFoundError": "dataset-not-found",
    "NotADatasetError": "not-a-dataset",
    "DatasetAccessError": "dataset-access",
    "DatasetFormatError": "dataset-format",
    "DatasetDamagedError": "dataset-damaged",
    "SpecChangedError": "spec-changed",
    "VersionNotFoundError": "version-not-found",
    "DatasetBusyError": "dataset-busy",
    "PlanError": "plan",
    "DatasetDivergedError": "dataset-diverged",
    "PublishError": "not-publishable",
    "CatalogError": "catalog",
    "BuildStoppedError": "build-stopped",
    "WorkersLostError": "workers-lost",
}

PARENTS = {
    "ArgumentError": ValueError,
    "SpecError": ValueError,
    "TableError": ValueError,
    "MissingDependencyError": ImportError,
    "ImageError": OSError,
    "ImageNotFoundError": FileNotFoundError,
    "ImageAccessError": PermissionError,
    "AxesError": ValueError,
    "ChannelError": LookupError,
    "SceneError": LookupError,
    "VoxelSizeError": ValueError,
    "ImageMismatchError": ValueError,
    "StatisticsError": ValueError,
    "CellError": ValueError,
    "LabelNotFoundError": LookupError,
    "DatasetError": OSError,
    "DatasetNotFoundError": FileNotFoundError,
    "NotADatasetError": FileExistsError,
    "DatasetAccessError": PermissionError,
    "SpecChangedError": ValueError,
    "VersionNotFoundError": LookupError,
    "DatasetDivergedError": FileExistsError,
    "PublishError": ValueError,
    "CatalogError": ValueError,
    "BuildStoppedError": RuntimeError,
}


def make(cls: type[CellcubeError]) -> CellcubeError:
    if issubclass(cls, TableError | PublishError):
        return cls("It is wrong.", problems=["first", "second"], path="/data/t.csv")
    if issubclass(cls, SpecChangedError):
        return cls("It is wrong.", differences=[("shape", [1, 2, 3], [1, 2, 4])], path="/data/t.csv")
    return cls("It is wrong.", cell_id="cell-7", fov_id="B03", path="/data/t.csv", remedy="Mend it.")


def test_kinds_are_stable_and_unique() -> None:
    assert {cls.__name__: cls.kind for cls in CLASSES} == KINDS
    assert len(set(KINDS.values())) == len(KINDS)
    assert all("kind" in vars(cls) for cls in CLASSES)


@pytest.mark.parametrize("name", PARENTS)
def test_builtin_parents(name: str) -> None:
    error = make(getattr(errors, name))
    with pytest.raises(PARENTS[name]):
        raise error
    assert isinstance(error, CellcubeError)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_survives_pickle_with_all_it_carries(cls: type[CellcubeError]) -> None:
    error = make(cls)
    error.__cause__ = None
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.args == error.args


def test_prints_what_it_is_about_and_the_remedy() -> None:
    text = str(make(CellError))
    assert text == "It is wrong. (cell 'cell-7', FOV 'B03', path '/data/t.csv') Mend it."


def test_does_not_repeat_what_the_message_says() -> None:
    assert str(CellError("Cell 'cell-7' is wrong.", cell_id="cell-7")) == "Cell 'cell-7' is wrong."


def test_tells_a_short_identifier_that_the_message_holds_by_chance() -> None:
    text = str(CellError("The crop (1, 96, 96) is empty.", cell_id="1", fov_id="96"))
    assert text == "The crop (1, 96, 96) is empty. (cell '1', FOV '96')"


def test_lists_all_problems_and_differences() -> None:
    assert "  - first\n  - second" in str(make(TableError))
    changed = make(SpecChangedError)
    assert "shape: [1, 2, 3] -> [1, 2, 4]" in str(changed)
    assert changed.differences == (("shape", [1, 2, 3], [1, 2, 4]),)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("word", "known", "answer"),
    [
        ("Lable", ["label", "cell_id"], "Did you mean 'label'?"),
        ("CELLID", ["cell_id"], "Did you mean 'cell_id'?"),
        ("zzz", ["label", "cell_id"], ""),
        ("label", [], ""),
    ],
)
def test_did_you_mean(word: str, known: list[str], answer: str) -> None:
    assert did_you_mean(word, known) == answer
