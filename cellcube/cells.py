"""The cell table: load, rename, validate, order. What comes out is trusted by everything after it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from cellcube.errors import TableError, did_you_mean
from cellcube.spec import CubeSpec
from cellcube.tables import fov_ids, optional_names, optional_text, read_table, typed_column
from cellcube.urls import join

Mode = Literal["labels", "boxes", "centres", "fovs"]

BOX = ("z0", "z1", "y0", "y1", "x0", "x1")
CENTRE = ("center_z", "center_y", "center_x")
VOXEL_SIZE = ("voxel_size_z", "voxel_size_y", "voxel_size_x")
FOV_COLUMNS = ("label_path", "label_channel", "scene", "timepoint", "axes", "label_axes", *VOXEL_SIZE)
KNOWN = ("cell_id", "fov_id", "fov_path", "label", *FOV_COLUMNS, *BOX, *CENTRE)

# Columns of the Allen Institute's cell tables.
ALIASES = {
    "CellId": "cell_id",
    "CellIndex": "label",
    "FOVId": "fov_id",
    "SourceReadPath": "fov_path",
    "MembraneSegmentationReadPath": "label_path",
    "PixelScaleX": "voxel_size_x",
    "PixelScaleY": "voxel_size_y",
    "PixelScaleZ": "voxel_size_z",
}

# Columns that the manifest and the outcomes have of their own; a table's column of that name gets this prefix.
RESERVED = frozenset(
    {"run", "position", "retracted", "status", "reason", "cell", "c", "z", "y", "x", "t", "cells"}
    | {"origin_z", "origin_y", "origin_x", "padded_fraction", "shifted", "oversize", "touches_border"}
    | {"area_voxels", "area_um2", "volume_um3", "centroid_z", "centroid_y", "centroid_x", *BOX}
    | {"scale_z", "scale_y", "scale_x", "rotation", "flip_y", "flip_x", "shift_z", "shift_y", "shift_x"}
    | {
        "norm_low",
        "norm_high",
        "truncated_fraction",
        "fragments",
        "touching_neighbours",
        "focus",
        "saturated_fraction",
        "clipped",
    }
)
RESERVED_STARTS = (
    *("norm_low_", "norm_high_", "clipped_", "focus_", "saturated_fraction_", "signal_to_background_"),
    *("intensity_mean_", "intensity_max_", "intensity_std_", "intensity_integrated_"),
)
RESERVED_PREFIX = "table_"

_SHOWN = 3


@dataclass(frozen=True)
class CellTable:
    """A validated cell table, ordered by FOV (first appearance), then as given.

    Parameters
    ----------
    frame : DataFrame
        Columns of `KNOWN` under their cellcube names, one column a channel file, and metadata.
    mode : {"labels", "boxes", "centres", "fovs"}
        What says where a cell is. ``fovs``: one row a FOV, which means every label in it.
    image_columns : dict
        Column with the image path, by channel name; ``{"": "fov_path"}`` for one file of several channels.
    metadata : tuple of str
        Columns that are carried into the manifest, each of one type: bool, int64, float64 or str.
    base : str
        Folder or URL that relative paths are seen from.
    label_images : dict
        Column with the path of each further label image, by its name.
    """

    frame: pd.DataFrame
    mode: Mode
    image_columns: dict[str, str]
    metadata: tuple[str, ...]
    base: str
    label_images: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def has_labels(self) -> bool:
        """Whether cells are given by a label image, so that masks can be stored."""
        return self.mode in ("labels", "fovs")

    @property
    def published_base(self) -> str:
        """What is taken off paths that are written down: `base` where the table's paths are relative to it.

        Empty where all are absolute, so that what is written does not depend on the working directory.
        """
        paths = self.frame[next(iter(self.image_columns.values()))].unique()
        return self.base if any(self.resolve(path) != path for path in paths) else ""

    def resolve(self, path: str) -> str:
        """A path of the table as a path that can be opened."""
        return join(self.base, path)


def load_cells(
    cells: pd.DataFrame | str | os.PathLike[str],
    spec: CubeSpec,
    storage_options: Mapping[str, Any] | None = None,
) -> CellTable:
    """Load and validate a cell table.

    Parameters
    ----------
    cells : DataFrame, path or URL
        A DataFrame, or a CSV or Parquet file. Relative paths in a file are seen from its folder, those in a
        DataFrame from the working directory.
    spec : CubeSpec
        Tells the renamed columns and the channels.
    storage_options : mapping, optional
        fsspec options for a remote table.

    Raises
    ------
    TableError
        With everything that is wrong with the table in `problems`.
    """
    frame, base, source = read_table(cells, spec.columns, storage_options)
    return _Check(frame, spec, base, source).table()


class _Check:
    """Collects everything that is wrong before it raises."""

    def __init__(self, frame: pd.DataFrame, spec: CubeSpec, base: str, source: str | None) -> None:
        self.given = frame
        self.spec = spec
        self.base = base
        self.source = source
        self.problems: list[str] = []

    def table(self) -> CellTable:
        if self.given.empty:
            raise TableError("The cell table has no rows.", path=self.source)
        frame = self._renamed()
        images = self._image_columns(frame)
        mode = self._mode(frame)

        # Every column that is there is looked at before anything is raised.
        out: dict[str, Any] = {}
        for column in images.values():
            if column in frame:
                out[column] = self._paths(frame, column, required=True)
        if "label_path" in frame:
            out["label_path"] = self._paths(frame, "label_path", required=mode in ("labels", "fovs"))
        self._label_images(frame, mode, out)
        for column in ("label_channel", "scene"):
            if column in frame:
                out[column] = optional_names(frame[column])
        for column in ("axes", "label_axes"):
            if column in frame:
                out[column] = optional_text(frame[column], upper=True)
        if "timepoint" in frame:
            out["timepoint"] = self._whole(frame, "timepoint", minimum=0, missing=-1)
        for column in VOXEL_SIZE:
            if column in frame:
                out[column] = self._voxel_size(frame, column)
        if "label" in frame:
            out["label"] = self._whole(frame, "label", minimum=1)
        if mode == "boxes":
            self._boxes(frame, out)
        if mode == "centres":
            for column in CENTRE:
                if column in frame:
                    out[column] = self._finite(frame, column)
        if "cell_id" in frame:
            out["cell_id"] = self._identifiers(frame, "cell_id")
            self._duplicates(out["cell_id"], "cell_id")
        if "fov_id" in frame:
            out["fov_id"] = self._identifiers(frame, "fov_id")
        self._raise()
        if "fov_id" not in out:
            out["fov_id"] = fov_ids(out, next(iter(images.values())))

        used = {*images.values(), *out}
        metadata = {_metadata_name(name): typed_column(frame[name]) for name in frame.columns if name not in used}
        twice = [
            name for name in frame.columns if name not in used and _metadata_name(name) in {*frame.columns} - {name}
        ]
        self.problems += [
            f"column {name!r} is carried as {_metadata_name(name)!r}, and there is a column of that name"
            for name in twice
        ]
        out.update(metadata)
        checked = pd.DataFrame(out)
        self._same_in_fov(checked, [*images.values(), *self.spec.label_images.values(), *FOV_COLUMNS])
        if mode == "fovs":
            self._duplicates(checked["fov_id"], "fov_id")
        if self.spec.split is not None and "split" in checked:
            self.problems.append(
                "there is a column 'split' and the spec would write another; rename one or leave it out"
            )
        self._raise()
        order = np.argsort(pd.factorize(checked["fov_id"])[0], kind="stable")
        ordered = checked.iloc[order].reset_index(drop=True)
        return CellTable(ordered, mode, images, tuple(metadata), self.base, self.spec.label_images)

    def _raise(self) -> None:
        if self.problems:
            count = len(self.problems)
            raise TableError(
                f"The cell table cannot be used: {count} problem{'s' * (count > 1)}.",
                problems=self.problems,
                path=self.source,
            )

    def _missing(self, column: str, frame: pd.DataFrame, why: str = "") -> str:
        hint = did_you_mean(column, map(str, self.given.columns))
        return f"column {column!r} is missing{why}. {hint}".rstrip()

    def _renamed(self) -> pd.DataFrame:
        frame = self.given.copy(deep=False)
        frame.columns = [str(name) for name in frame.columns]
        twice = frame.columns[frame.columns.duplicated()].unique()
        if len(twice):
            self.problems.append(f"columns that stand twice: {', '.join(twice)}")
            self._raise()
        renames = {}
        for ours, theirs in self.spec.columns.items():
            if theirs not in frame:
                self.problems.append(self._missing(theirs, frame, f" (spec columns: {ours})"))
            else:
                renames[theirs] = ours
        for theirs, ours in ALIASES.items():
            if theirs in frame and ours not in frame and ours not in renames.values():
                renames[theirs] = ours
        clash = [ours for theirs, ours in renames.items() if ours in frame and ours not in renames and ours != theirs]
        for name in clash:
            self.problems.append(f"column {name!r} exists and another column is renamed to it")
        if clash:
            self._raise()
        return frame.rename(columns=renames)

    def _image_columns(self, frame: pd.DataFrame) -> dict[str, str]:
        channels = self.spec.channels
        if isinstance(channels, dict) and any(isinstance(value, str) for value in channels.values()):
            mixed = [name for name, value in channels.items() if not isinstance(value, str)]
            if mixed:
                self.problems.append(
                    f"channels: {', '.join(mixed)} are indices and the others are columns; give all of one kind"
                )
            columns = {name: value for name, value in channels.items() if isinstance(value, str)}
            for name, column in columns.items():
                if column not in frame:
                    self.problems.append(self._missing(column, frame, f" (the files of channel {name!r})"))
            return columns
        if "fov_path" not in frame:
            self.problems.append(
                self._missing("fov_path", frame, " (or one path column a channel, by channels={'DNA': 'column', ...})")
            )
        return {"": "fov_path"}

    def _mode(self, frame: pd.DataFrame) -> Mode:
        labelled = "label_path" in frame or "label_channel" in frame or self.spec.label_channel is not None
        needs: list[str] = []
        mode: Mode
        if "label" in frame:
            mode = "labels"
            if not labelled:
                self.problems.append(self._missing("label_path", frame, " (the label image that 'label' is in)"))
            needs = ["cell_id"]
        elif {"y0", "y1", "x0", "x1"} & set(frame.columns):
            mode, needs = "boxes", ["cell_id", "y0", "y1", "x0", "x1"]
            if ("z0" in frame) != ("z1" in frame):
                needs += ["z0", "z1"]
        elif {"center_y", "center_x"} & set(frame.columns):
            mode, needs = "centres", ["cell_id", "center_y", "center_x"]
        elif labelled:
            mode = "fovs"
            if "cell_id" in frame:
                self.problems.append(self._missing("label", frame, " (there is a cell_id, so a row is a cell)"))
        else:
            mode = "fovs"
            hints = [did_you_mean(name, map(str, frame.columns)) for name in ("label", "label_path")]
            self.problems.append(
                "nothing says where the cells are: give label_path and label, or a box (y0, y1, x0, x1), or a centre "
                "(center_y, center_x), or label_path alone for every label. " + " ".join(filter(None, hints))
            )
            self.problems[-1] = self.problems[-1].rstrip()
        self.problems += [self._missing(name, frame) for name in needs if name not in frame]
        return mode

    def _label_images(self, frame: pd.DataFrame, mode: Mode, out: dict[str, Any]) -> None:
        if self.spec.label_images and mode not in ("labels", "fovs"):
            self.problems.append("label_images: the cells themselves must be given by label_path and label")
        for name, column in self.spec.label_images.items():
            if column not in frame:
                self.problems.append(self._missing(column, frame, f" (the label image {name!r})"))
                continue
            out[column] = self._paths(frame, column, required=True)
            if f"label_{name}" in frame:
                out[f"label_{name}"] = self._whole(frame, f"label_{name}", minimum=0, missing=0)

    def _rows(self, bad: pd.Series | np.ndarray[Any, Any]) -> str:
        where = np.flatnonzero(np.asarray(bad))
        # Row numbers as a spreadsheet shows them: the header is row 1.
        offset = 2 if self.source else 0
        shown = ", ".join(str(row + offset) for row in where[:_SHOWN])
        return f"{len(where)} row{'s' * (len(where) > 1)} ({shown}{', …' * (len(where) > _SHOWN)})"

    def _identifiers(self, frame: pd.DataFrame, column: str) -> pd.Series:
        values = frame[column]
        kinds = {_kind(value) for value in values.dropna().head(100_000)} if values.dtype == object else set()
        if len(kinds) > 1:
            self.problems.append(f"{column!r} mixes types: {', '.join(sorted(kinds))}")
        if values.dtype.kind == "f" and values.notna().any():
            whole = values.dropna() % 1 == 0
            if not whole.all():
                self.problems.append(f"{column!r} holds fractions, not identifiers")
            else:
                values = values.astype("Int64")
        text = values.astype(str).where(values.notna(), "").str.strip()
        empty = text == ""
        if empty.any():
            self.problems.append(f"{column!r} is empty in {self._rows(empty)}")
        return text

    def _duplicates(self, values: pd.Series, column: str) -> None:
        twice = values[values.duplicated() & (values != "")].unique()
        if len(twice):
            shown = ", ".join(repr(str(value)) for value in twice[:_SHOWN])
            values_stand = "value stands" if len(twice) == 1 else "values stand"
            self.problems.append(f"{column!r} is not unique: {len(twice)} {values_stand} twice or more ({shown})")

    def _paths(self, frame: pd.DataFrame, column: str, *, required: bool) -> pd.Series:
        values = frame[column]
        wrong = pd.Series(False, values.index)
        if pd.api.types.infer_dtype(values, skipna=True) in ("string", "empty"):
            text = optional_text(values)
        else:
            wrong = values.notna() & ~values.map(lambda value: isinstance(value, str | os.PathLike)).astype(bool)
            text = values.map(_path_text).astype(str)
        if wrong.any():
            self.problems.append(f"{column!r} mixes types: not a path in {self._rows(wrong)}")
        empty = (text == "") & ~wrong
        if required and empty.any():
            self.problems.append(f"{column!r} is empty in {self._rows(empty)}")
        return text

    def _numbers(self, frame: pd.DataFrame, column: str) -> pd.Series:
        values = pd.to_numeric(frame[column], errors="coerce").astype("float64")
        wrong = values.isna() & frame[column].notna()
        if wrong.any():
            wrong &= frame[column].astype(str).str.lower() != "nan"
        if frame[column].dtype.kind == "b":
            wrong = frame[column].notna()
        if wrong.any():
            shown = frame[column][wrong].iloc[0]
            self.problems.append(f"{column!r} is not a number in {self._rows(wrong)}, such as {str(shown)!r}")
        return values.mask(wrong, 1.0)

    def _finite(self, frame: pd.DataFrame, column: str) -> pd.Series:
        values = self._numbers(frame, column)
        bad = ~np.isfinite(values)
        if bad.any():
            self.problems.append(f"{column!r} is empty or not finite in {self._rows(bad)}")
        return values.mask(bad, 1.0)

    def _whole(self, frame: pd.DataFrame, column: str, *, minimum: int, missing: int | None = None) -> pd.Series:
        if missing is None:
            values = self._finite(frame, column)
        else:
            values = self._numbers(frame, column)
            values = values.mask(values.isna(), missing)
        fraction = values % 1 != 0
        if fraction.any():
            self.problems.append(f"{column!r} is not a whole number in {self._rows(fraction)}")
        low = (values < minimum) & (values != missing if missing is not None else True)
        if low.any():
            note = " (0 is the background)" if column == "label" else ""
            self.problems.append(f"{column!r} is below {minimum} in {self._rows(low)}{note}")
        values = values.mask(fraction, 1)
        high = values >= 2**63
        if high.any():
            self.problems.append(f"{column!r} is too large in {self._rows(high)}")
        if not high.any() and frame[column].dtype.kind in "iu" and frame[column].notna().all():
            # Not by way of floats, which hold whole numbers to 2^53 only.
            return frame[column].astype("int64")
        return values.mask(high, 1).astype("int64")

    def _voxel_size(self, frame: pd.DataFrame, column: str) -> pd.Series:
        values = self._numbers(frame, column)
        bad = values.notna() & ~((values > 0) & np.isfinite(values))
        if bad.any():
            self.problems.append(f"{column!r} is zero, negative or not finite in {self._rows(bad)}: give it in µm")
        return values

    def _boxes(self, frame: pd.DataFrame, out: dict[str, Any]) -> None:
        for axis in "zyx":
            before = len(self.problems)
            for column in (f"{axis}0", f"{axis}1"):
                if column in frame:
                    out[column] = self._whole(frame, column, minimum=0)
            # Values that cannot be used cannot be compared either.
            if f"{axis}0" in out and f"{axis}1" in out and len(self.problems) == before:
                empty = out[f"{axis}1"] <= out[f"{axis}0"]
                if empty.any():
                    self.problems.append(f"'{axis}1' is not above '{axis}0' in {self._rows(empty)}")

    def _same_in_fov(self, checked: pd.DataFrame, columns: list[str]) -> None:
        codes, fovs = pd.factorize(checked["fov_id"])
        for column in columns:
            if column not in checked:
                continue
            values, count = pd.factorize(checked[column], use_na_sentinel=False)
            # One number for each value in each FOV: as many as there are FOVs, if none differs.
            pairs = np.unique(codes * np.int64(len(count)) + values)
            if len(pairs) > len(fovs):
                fov = fovs[np.flatnonzero(np.bincount(pairs // len(count)) > 1)[0]]
                self.problems.append(
                    f"{column!r} differs between rows of one FOV, such as {str(fov)!r}: give them their own fov_id"
                )


def _metadata_name(name: str) -> str:
    return RESERVED_PREFIX + name if is_reserved(name) else name


def is_reserved(name: str) -> bool:
    """Whether the manifest has or may have a column of this name of its own."""
    return name in RESERVED or name.startswith(RESERVED_STARTS)


def _path_text(value: object) -> str:
    return os.fspath(value).strip() if isinstance(value, str | os.PathLike) else ""


def _kind(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int"
    return "float" if isinstance(value, float | np.floating) else type(value).__name__
