"""Which scene and timepoint of a file is meant."""

from __future__ import annotations

from collections.abc import Sequence

from cellcube.errors import SceneError, did_you_mean


def pick_scene(scene: int | str | None, names: Sequence[str], *, path: str) -> int:
    """Index of the scene that is asked for.

    Parameters
    ----------
    scene : int, str or None
        Index or name. A string of digits that is no name is an index, as tables give it. None is the only scene.
    names : sequence of str
        The scenes of the file.
    path : str
        Named in the error.

    Raises
    ------
    cellcube.errors.SceneError
        Lists the scenes.
    """
    shown = ", ".join(f"{i}: {name!r}" if name else str(i) for i, name in enumerate(names[:20]))
    if len(names) > 20:
        shown += f", … ({len(names)} in all)"
    if scene is None or scene == "":
        if len(names) == 1:
            return 0
        raise SceneError(
            f"The file has {len(names)} scenes and none was asked for. They are {shown}.",
            path=path,
            remedy="Give `scene` (index or name) as a table column.",
        )
    if isinstance(scene, str):
        if names.count(scene) == 1:
            return names.index(scene)
        if not scene.isdecimal():
            text = f"There is no one scene {scene!r}. The file has {shown}."
            raise SceneError(text, path=path, remedy=did_you_mean(scene, names) or None)
    index = int(scene)
    if not 0 <= index < len(names):
        raise SceneError(f"There is no scene {index}. The file has {shown}.", path=path)
    return index


def pick_timepoint(timepoint: int | None, count: int, *, path: str) -> int:
    """Index along time that is asked for, of `count` timepoints. None is the only one.

    Raises
    ------
    cellcube.errors.SceneError
    """
    if timepoint is None:
        if count == 1:
            return 0
        raise SceneError(
            f"The image has {count} timepoints and none was asked for.",
            path=path,
            remedy="Give `timepoint` (from 0) as a table column.",
        )
    if not 0 <= timepoint < count:
        raise SceneError(f"There is no timepoint {timepoint}; the image has {count} (from 0).", path=path)
    return int(timepoint)
