"""From microscopy images and a table of cells to a publishable single-cell dataset.

`build` makes or extends a dataset, `open` opens one as an xarray dataset, `CubeSpec` holds every choice, `errors` the
exceptions. Names are imported when they are used, so that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cellcube.dataset import info, open
    from cellcube.run import BuildReport, build
    from cellcube.spec import CubeSpec

__all__ = ["BuildReport", "CubeSpec", "__version__", "build", "info", "open"]

_HOMES = {
    "BuildReport": "cellcube.run",
    "CubeSpec": "cellcube.spec",
    "build": "cellcube.run",
    "info": "cellcube.dataset",
    "open": "cellcube.dataset",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cellcube' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "errors"])
