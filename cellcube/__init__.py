"""From microscopy images and a table of cells to a publishable single-cell dataset.

`build` makes or extends a dataset, `open` opens one as an xarray dataset, `denormalize` gives its intensities back,
`CubeSpec` holds every choice; `errors` has the exceptions, `geometry` maps crops to fields of view. Names are imported
when they are used, so that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cellcube.dataset import info, open
    from cellcube.inverse import denormalize
    from cellcube.publishing.checkout import checkout, pull
    from cellcube.publishing.describe import describe
    from cellcube.publishing.publish import publish
    from cellcube.publishing.verify import verify
    from cellcube.run import BuildReport, build
    from cellcube.spec import CubeSpec
    from cellcube.training.loader import batches
    from cellcube.versions import diff, retract

__all__ = [
    "BuildReport",
    "CubeSpec",
    "__version__",
    "batches",
    "build",
    "checkout",
    "denormalize",
    "describe",
    "diff",
    "info",
    "open",
    "publish",
    "pull",
    "retract",
    "verify",
]

_HOMES = {
    "BuildReport": "cellcube.run",
    "CubeSpec": "cellcube.spec",
    "batches": "cellcube.training.loader",
    "build": "cellcube.run",
    "checkout": "cellcube.publishing.checkout",
    "denormalize": "cellcube.inverse",
    "describe": "cellcube.publishing.describe",
    "diff": "cellcube.versions",
    "info": "cellcube.dataset",
    "open": "cellcube.dataset",
    "publish": "cellcube.publishing.publish",
    "pull": "cellcube.publishing.checkout",
    "retract": "cellcube.versions",
    "verify": "cellcube.publishing.verify",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cellcube' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "errors"])
