"""`cellcube export`: cells in the formats of other tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cellcube.cli.root import CONTEXT, cli, pairs, storage_option


@cli.group(context_settings=CONTEXT)
def export() -> None:
    """Write cells in the formats of other tools."""


def _choosing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which cells, shared by all formats."""
    for option in (
        storage_option,
        click.option("--channel", "channels", multiple=True, help="A channel; repeat it for more. Default: all."),
        click.option("--at-version", "version", type=click.IntRange(1), help="A version of the dataset."),
        click.option("--where", metavar="QUERY", help="Cells that meet a condition on the manifest's columns."),
    ):
        function = option(function)
    return function


def _variable(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--variable", default="cells", show_default=True, help="Crops or another representation.")(
        function
    )


def _shared(given: dict[str, Any]) -> dict[str, Any]:
    """Options as the functions take them."""
    options = pairs(given.pop("storage_options"), "--storage-option")
    return {**given, "channels": list(given["channels"]) or None, "storage_options": options}


@export.command("ome-tiff", context_settings=CONTEXT)
@click.argument("root")
@click.argument("to")
@_choosing
@_variable
@click.option("--denormalized", is_flag=True, help="Intensities as they were before normalization.")
@click.option("--mask", is_flag=True, help="The mask of each cell as a second file.")
@click.option("--compression", type=click.Choice(["zlib", "none"]), default="zlib", show_default=True)
def ome_tiff(root: str, to: str, **given: Any) -> None:
    """One OME-TIFF a cell, in the folder TO."""
    from cellcube.export import to_ome_tiff

    click.echo(str(to_ome_tiff(root, to, **_shared(given))))


@export.command(context_settings=CONTEXT)
@click.argument("root")
@click.argument("to")
@_choosing
@_variable
@click.option("--composite/--channels-apart", default=True, show_default=True, help="One picture, or one a channel.")
@click.option("--montage", is_flag=True, help="Projections along all three axes.")
def png(root: str, to: str, **given: Any) -> None:
    """PNG pictures of each cell, in the folder TO."""
    from cellcube.export import to_png

    click.echo(str(to_png(root, to, **_shared(given))))


@export.command(context_settings=CONTEXT)
@click.argument("root")
@click.argument("to")
@_choosing
def anndata(root: str, to: str, **given: Any) -> None:
    """The manifest as AnnData: TO is a file ending in .h5ad or .zarr."""
    from cellcube.export import to_anndata

    click.echo(str(to_anndata(root, to, **_shared(given))))


@export.command(context_settings=CONTEXT)
@click.argument("root")
@click.argument("to")
@_choosing
@_variable
def webdataset(root: str, to: str, **given: Any) -> None:
    """Tar files for training, in the folder TO."""
    from cellcube.export import to_webdataset

    click.echo(str(to_webdataset(root, to, **_shared(given))))


@export.command("hugging-face", context_settings=CONTEXT)
@click.argument("root")
@click.argument("to")
@_choosing
@_variable
@click.option("--pixels", is_flag=True, help="The pixels too, not only a picture.")
def hugging_face(root: str, to: str, **given: Any) -> None:
    """A folder that the datasets library opens, in TO."""
    from cellcube.export import to_hugging_face

    click.echo(str(to_hugging_face(root, to, **_shared(given))))
