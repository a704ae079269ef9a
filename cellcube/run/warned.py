"""Warnings of a build, each told once, whichever process they came from."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from types import FrameType

from cellcube.images import ImplausibleVoxelSizeWarning
from cellcube.run.result import CropDepthWarning

_CATEGORIES = {each.__name__: each for each in (CropDepthWarning, ImplausibleVoxelSizeWarning)}


class Warned:
    """Tells what was not told yet; called with (category, text) of warnings."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, heard: Iterable[Sequence[str]]) -> None:
        """Warn at the line that called into cellcube."""
        for category, message in heard:
            if message not in self._told:
                self._told.add(message)
                warnings.warn(message, _CATEGORIES.get(category, UserWarning), stacklevel=_frames_of_ours() + 1)


def _frames_of_ours() -> int:
    """Frames from the one that asks up to the last one of cellcube."""
    frame: FrameType | None = sys._getframe(1)
    count = 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "cellcube":
        frame, count = frame.f_back, count + 1
    return count
