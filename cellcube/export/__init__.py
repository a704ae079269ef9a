"""Cells in the formats of other tools: OME-TIFF, PNG, AnnData, WebDataset, Hugging Face.

Each function takes the folder of a dataset and where to write, and gives an `ExportReport`. The dataset is only read,
one shard at a time. Names are imported when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellcube.export.anndata import to_anndata
    from cellcube.export.hugging_face import to_hugging_face
    from cellcube.export.ome_tiff import to_ome_tiff
    from cellcube.export.png import to_png
    from cellcube.export.selection import ExportReport
    from cellcube.export.webdataset import to_webdataset

__all__ = ["ExportReport", "to_anndata", "to_hugging_face", "to_ome_tiff", "to_png", "to_webdataset"]

_HOMES = {
    "ExportReport": "cellcube.export.selection",
    "to_anndata": "cellcube.export.anndata",
    "to_hugging_face": "cellcube.export.hugging_face",
    "to_ome_tiff": "cellcube.export.ome_tiff",
    "to_png": "cellcube.export.png",
    "to_webdataset": "cellcube.export.webdataset",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cellcube.export' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
