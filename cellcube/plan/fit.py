"""What is fitted once, before any cell is cut, and reused for ever: the shape of crops, statistics of groups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from cellcube.errors import ArgumentError, TableError
from cellcube.functions import UserFunction
from cellcube.pixels import PixelCounts, bounds_of, merged
from cellcube.plan.checks import meets_condition
from cellcube.plan.jobs import FovTask
from cellcube.plan.labels import FOV_ERRORS, FovError
from cellcube.plan.survey import Survey
from cellcube.spec import CubeSpec, Group, Method, plain, scope_of
from cellcube.tables import text_of

# [low, high] by representation, channel and group.
Fitted = dict[str, dict[str, dict[str, list[float]]]]


def fit_shape(surveys: Iterable[Survey | FovError], percentile: float) -> tuple[int, int, int] | None:
    """The shape (z, y, x) that is large enough for a percentage of the cells along each axis; None without cells."""
    sizes = [found.sizes for found in surveys if isinstance(found, Survey) and len(found.sizes)]
    if not sizes:
        return None
    # Rounding must not add a voxel to whole numbers.
    z, y, x = np.ceil(np.percentile(np.concatenate(sizes), percentile, axis=0) - 1e-6).astype(int)
    return max(1, int(z)), max(1, int(y)), max(1, int(x))


@dataclass(frozen=True)
class _Need:
    """Statistics of one channel over a group of fields."""

    representation: str
    channel: str
    normalizer: Method
    scope: str
    keys: Mapping[str, str]
    counted: frozenset[str]


@dataclass
class Fit:
    """Statistics over groups of fields, gathered field by field.

    Parameters
    ----------
    spec : CubeSpec
    channels : tuple of str
    frame : DataFrame
        All cells that the table asks for, and a row for each field without any; their fields make the groups.
    fitted : dict
        What was fitted before; it stays.
    """

    spec: CubeSpec
    channels: tuple[str, ...]
    frame: pd.DataFrame
    fitted: Fitted
    records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._needs = [
            self._need(name, channel, normalizer)
            for name, pipeline in self.spec.pipelines().items()
            for channel, normalizer in zip(self.channels, pipeline.normalizers(self.channels), strict=True)
            if not isinstance(normalizer, UserFunction) and _is_shared(scope_of(normalizer))
        ]
        self._unread: list[str] = []
        self._counts: dict[tuple[str, str, str], tuple[PixelCounts, list[str]]] = {}

    def _need(self, representation: str, channel: str, normalizer: Method) -> _Need:
        scope = scope_of(normalizer)
        by, where = (scope.by, scope.where) if isinstance(scope, Group) else ((), None)
        text = json.dumps(plain(scope))
        fovs = self.frame["fov_id"]
        unknown = [name for name in by if name not in self.frame]
        if unknown:
            raise ArgumentError(
                f"normalize: there is no column {unknown[0]!r} to group by.",
                remedy=f"Columns are {', '.join(map(str, self.frame.columns))}.",
            )
        for name in by:
            differs = self.frame.groupby("fov_id", sort=False)[name].nunique(dropna=False) > 1
            if differs.any():
                raise TableError(
                    "The cell table cannot be used.",
                    problems=[
                        f"{name!r} differs between rows of one FOV, such as {str(differs.index[differs][0])!r}, "
                        "and statistics are of whole FOVs"
                    ],
                )
        first = self.frame[~fovs.duplicated()]
        values = zip(*(first[name].map(text_of) for name in by), strict=True) if by else ((),) * len(first)
        keys = {
            fov: json.dumps(list(value), ensure_ascii=False) for fov, value in zip(first["fov_id"], values, strict=True)
        }
        met = np.ones(len(self.frame), bool)
        if where is not None:
            met = meets_condition(self.frame, where, "normalize")
        return _Need(representation, channel, normalizer, text, keys, frozenset(fovs[met]))

    def wanted(self, tasks: Sequence[FovTask]) -> dict[str, tuple[str, ...]]:
        """Channels whose intensities must be counted, by `fov_id`: what the groups of `tasks` lack.

        Raises
        ------
        ArgumentError
            Where no field of a group meets the condition of its scope.
        """
        channels: dict[str, dict[str, None]] = {}
        for need in self._needs:
            known = self.fitted.get(need.representation, {}).get(need.channel, {})
            missing = {need.keys[task.source.fov_id] for task in tasks} - set(known)
            fovs = [fov for fov, key in need.keys.items() if key in missing and fov in need.counted]
            without = missing - {need.keys[fov] for fov in fovs}
            if without:
                where, group = getattr(scope_of(need.normalizer), "where", None), sorted(without)[0]
                raise ArgumentError(
                    f"normalize: no FOV {'' if group == '[]' else f'of the group {group} '}meets the condition "
                    f"{where!r}, so nothing can be fitted for channel {need.channel!r}.",
                    remedy="Add its control FOVs to the table, or change the condition.",
                )
            for fov in fovs:
                channels.setdefault(fov, {})[need.channel] = None
        return {fov: tuple(names) for fov, names in channels.items()}

    def add(self, fov: str, found: Survey | FovError) -> None:
        """Count the intensities of one more field; in the order of the table."""
        if isinstance(found, FOV_ERRORS):
            self._unread.append(fov)
            return
        for scope, channel, key in {
            (need.scope, need.channel, need.keys[fov]) for need in self._needs if fov in need.counted
        }:
            if channel in found.counts:
                counts = found.counts[channel]
                place = (scope, channel, key)
                before, fovs = self._counts.get(place, (None, []))
                both = merged([before, counts]) if before is not None else counts
                self._counts[place] = (both, [*fovs, fov])

    def finish(self) -> None:
        """Turn counts into bounds."""
        for need in self._needs:
            known = self.fitted.setdefault(need.representation, {}).setdefault(need.channel, {})
            for (scope, channel, key), (counts, fovs) in self._counts.items():
                if (scope, channel) != (need.scope, need.channel) or key in known:
                    continue
                low, high = bounds_of(need.normalizer, counts)
                known[key] = [low, high]
                self.records.append(
                    {
                        "representation": need.representation,
                        "channel": channel,
                        "group": json.loads(key),
                        "low": low,
                        "high": high,
                        "pixels": counts.count,
                        "fovs": fovs,
                        "unread": [fov for fov in self._unread if need.keys[fov] == key and fov in need.counted],
                    }
                )

    def bound(self, task: FovTask) -> FovTask:
        """A task with the statistics that apply to its field."""
        bounds: dict[str, dict[str, tuple[float, float] | None]] = {}
        for need in self._needs:
            key = need.keys[task.source.fov_id]
            found = self.fitted.get(need.representation, {}).get(need.channel, {}).get(key)
            bounds.setdefault(need.representation, {})[need.channel] = (found[0], found[1]) if found else None
        return replace(task, bounds=bounds) if bounds else task


def _is_shared(scope: str | Group) -> bool:
    return isinstance(scope, Group) or scope == "dataset"
