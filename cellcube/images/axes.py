"""Axes of stored arrays: what they may be, and how a stored array is seen as (c, z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellcube.errors import ArgumentError, AxesError, ChannelError
from cellcube.images.protocol import Pixels, Region, VoxelSize
from cellcube.images.scenes import pick_timepoint

LETTERS = "TCZYXS"
LEFT_OUT = "_"  # marks an axis of size 1 that means nothing
_WHERE = "in the spec or as the table column `axes`"


def check_axes(axes: str, shape: Sequence[int], *, path: str, told: str = "") -> str:
    """Check axes that the caller gives against the shape of the stored array.

    Parameters
    ----------
    axes : str
        One letter of ``TCZYXS`` (S: colour samples) for every axis of the stored array, in any case of letters. Where
        the array has axes of size 1, these may be left out.
    shape : sequence of int
        Shape of the stored array.
    path : str
        Named in the error.
    told : str
        What the file tells about its axes, for the error.

    Returns
    -------
    str
        One letter for every axis; ``"_"`` for an axis of size 1 that was left out.

    Raises
    ------
    cellcube.errors.AxesError
    """
    letters = axes.upper()
    shape = tuple(shape)
    problem = None
    if wrong := sorted(set(letters) - set(LETTERS)):
        problem = f"has letters other than {LETTERS}: {', '.join(wrong)}"
    elif len(set(letters)) != len(letters):
        problem = "names an axis twice"
    elif not {"Y", "X"} <= set(letters):
        problem = "lacks Y or X"
    elif len(letters) != len(shape):
        long = [i for i, size in enumerate(shape) if size != 1]
        if len(letters) == len(long):
            spread = dict(zip(long, letters, strict=True))
            return "".join(spread.get(i, LEFT_OUT) for i in range(len(shape)))
        problem = f"has {len(letters)} letters for {len(shape)} axes"
    if problem is None:
        return letters
    file_tells = f"; the file tells {told!r}" if told else ""
    raise AxesError(
        f"axes={axes!r} {problem}. The stored array has shape {shape}{file_tells}.",
        path=path,
        remedy=f"Give one letter of {LETTERS} for every axis, such as {_suggest(told, shape)!r}, {_WHERE}.",
    )


def settle_axes(told: str, shape: Sequence[int], override: str | None, *, path: str) -> str:
    """Axes of a stored array from what the file tells and what the caller overrides.

    Without an override, an array of exactly two axes is YX whatever the file tells, axes of unknown meaning and size 1
    are left out (``"_"``), and any other axis of unknown meaning is an error.

    Raises
    ------
    cellcube.errors.AxesError
        Says what the file tells, the shape, and which override would help.
    """
    shape = tuple(shape)
    if override:
        return check_axes(override, shape, path=path, told=told)
    letters = "".join(
        LEFT_OUT if size == 1 and (letter not in LETTERS or told.count(letter) > 1) else letter
        for letter, size in zip(told, shape, strict=True)
    )
    kept = [i for i, letter in enumerate(letters) if letter != LEFT_OUT]
    if len(kept) == 2:
        spread = dict(zip(kept, "YX", strict=True))
        return "".join(spread.get(i, LEFT_OUT) for i in range(len(shape)))
    known = [letters[i] for i in kept]
    if set(known) <= set(LETTERS) and len(set(known)) == len(known) and {"Y", "X"} <= set(known):
        return letters
    raise AxesError(
        f"The file does not tell what its axes are: it says {told!r} for the shape {shape}.",
        path=path,
        remedy=f"Give `axes`, for example axes={_suggest(told, shape)!r}, {_WHERE}.",
    )


def _suggest(told: str, shape: Sequence[int]) -> str:
    """A valid axes string of the right length that keeps what the file tells where that is possible."""
    if len(told) != len(shape):
        return "TCZYX"[-len(shape) :]
    pairs = list(zip(told, shape, strict=True))
    if any(letter not in LETTERS and size == 1 for letter, size in pairs):
        pairs = [(letter, size) for letter, size in pairs if size != 1]
    letters: list[str] = []
    for letter, _ in pairs:
        if letter not in LETTERS or letter in letters:
            free = [one for one in "ZCTS" if one not in letters and one not in told]
            letter = free[0] if free else letter
        letters.append(letter)
    return "".join(letters)


def match_voxel_size(size: VoxelSize, told: str, axes: str) -> VoxelSize:
    """Voxel size after an override: a size belongs to the stored axis that the file told it for.

    `told` and `axes` have one letter for every stored axis. Where the override has no Z, the z size is unknown.
    """
    if told == axes or len(told) != len(axes):
        return size
    by_letter = {"Z": size.z, "Y": size.y, "X": size.x}

    def of(letter: str) -> float | None:
        if letter not in axes:
            return None
        was = told[axes.index(letter)]
        return by_letter[was if was in by_letter else letter]

    return VoxelSize(z=of("Z"), y=of("Y"), x=of("X"))


def match_channel_names(names: Sequence[str] | None, channels: int, samples: int) -> tuple[str, ...] | None:
    """One name for each of ``channels * samples`` channels, or None where `names` does not fit their number."""
    if not names:
        return None
    if len(names) == channels * samples:
        return tuple(str(name) for name in names)
    if len(names) == channels:
        return tuple(f"{name} {sample}" for name in names for sample in range(samples))
    return None


@dataclass(frozen=True)
class Layout:
    """How a stored array with given axes is seen as (c, z, y, x) at one timepoint.

    Colour samples become channels: with axes C and S, channel number ``c * samples + s``.
    """

    letters: str
    stored_shape: tuple[int, ...]
    timepoint: int
    path: str

    @classmethod
    def of(cls, letters: str, shape: Sequence[int], timepoint: int | None, path: str) -> Layout:
        """Check the timepoint against the array and build the layout."""
        sizes = dict(zip(letters, shape, strict=True))
        return cls(letters, tuple(shape), pick_timepoint(timepoint, sizes.get("T", 1), path=path), path)

    @property
    def axes(self) -> str:
        """The axes without those left out."""
        return self.letters.replace(LEFT_OUT, "")

    def size(self, letter: str) -> int:
        """Size of an axis; 1 where the array lacks it."""
        return self.stored_shape[self.letters.index(letter)] if letter in self.letters else 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes (c, z, y, x)."""
        return (self.size("C") * self.size("S"), self.size("Z"), self.size("Y"), self.size("X"))

    def index(self, channel: int, region: Region) -> tuple[int | slice, ...]:
        """Index into the stored array for one channel in a region of (z, y, x) slices.

        Raises
        ------
        cellcube.errors.ChannelError, cellcube.errors.ArgumentError
            Where the channel or the region is outside the image.
        """
        z, y, x = check_region(channel, region, self.shape, path=self.path)
        c, s = divmod(channel, self.size("S"))
        parts: dict[str, int | slice] = {"T": self.timepoint, "C": c, "S": s, "Z": z, "Y": y, "X": x, LEFT_OUT: 0}
        return tuple(parts[letter] for letter in self.letters)

    def arrange(self, block: Pixels, region: Region) -> Pixels:
        """What `index` took out of the stored array, as (z, y, x)."""
        left = [letter for letter in self.letters if letter in "ZYX"]
        block = np.transpose(block, [left.index(letter) for letter in "ZYX" if letter in left])
        if "Z" not in left:
            # The image has one plane; an empty z range asks for none of it.
            block = block[np.newaxis][region[0]]
        return block


def check_region(channel: int, region: Region, shape: tuple[int, int, int, int], *, path: str) -> Region:
    """The region with all bounds filled in.

    Raises
    ------
    cellcube.errors.ChannelError, cellcube.errors.ArgumentError
        Where the channel or the region is outside an image of (c, z, y, x) `shape`.
    """
    if not 0 <= channel < shape[0]:
        raise ChannelError(f"There is no channel {channel}; the image has {shape[0]} (from 0).", path=path)
    if len(region) != 3:
        raise ArgumentError(f"A region is three slices (z, y, x), not {len(region)}.", path=path)
    z, y, x = (_bounded(part, size, letter, path) for part, size, letter in zip(region, shape[1:], "zyx", strict=True))
    return z, y, x


def _bounded(part: slice, size: int, letter: str, path: str) -> slice:
    if part.step not in (None, 1):
        raise ArgumentError(f"The {letter} part of a region must have no step, not {part!r}.", path=path)
    start = 0 if part.start is None else int(part.start)
    stop = size if part.stop is None else int(part.stop)
    if not 0 <= start <= stop <= size:
        raise ArgumentError(
            f"The region's {letter} range {start}:{stop} is outside the image, which has {size}.", path=path
        )
    return slice(start, stop)


def native(dtype: Any) -> np.dtype[Any]:
    """The data type in native byte order."""
    found: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    return found
