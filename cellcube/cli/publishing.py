"""Verbs that check, publish and fetch datasets."""

from __future__ import annotations

import click

import cellcube
from cellcube.cli.root import CONTEXT, cli, pairs, storage_option


@cli.command(context_settings=CONTEXT)
@click.argument("root")
@click.option("--full", is_flag=True, help="Read every object and compare its hash, not only names and sizes.")
@click.option("--repair", is_flag=True, help="Make damaged objects again, from what is there and from the images.")
@click.option("--table", "cells", metavar="TABLE", help="For --repair: the cell table, or the folder it was in.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@storage_option
def verify(
    root: str, full: bool, repair: bool, cells: str | None, quiet: bool, storage_options: tuple[str, ...]
) -> None:
    """Compare the dataset at ROOT with the list of its objects. Exits with 1 where something is wrong."""
    report = cellcube.verify(
        root,
        "full" if full else "quick",
        repair=repair,
        cells=cells,
        progress=not quiet,
        storage_options=pairs(storage_options, "--storage-option"),
    )
    click.echo(str(report))
    if not report.ok:
        raise SystemExit(1)


@cli.command(context_settings=CONTEXT)
@click.argument("root")
@click.argument("to", required=False)
@click.option("--catalog", metavar="FILE", help="A catalog of datasets that gets an entry, or its entry updated.")
@click.option("--name", help="Of the entry; by default that of the dataset.")
@click.option("--replace", is_flag=True, help="Replace an entry of that name that leads elsewhere.")
@click.option(
    "--allow", multiple=True, help="Publish although this is missing, such as voxel_size; repeat it for more."
)
@click.option("--require-clean", is_flag=True, help="Refuse where the code was not committed and pushed.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@storage_option
def publish(
    root: str,
    to: str | None,
    catalog: str | None,
    name: str | None,
    replace: bool,
    allow: tuple[str, ...],
    require_clean: bool,
    quiet: bool,
    storage_options: tuple[str, ...],
) -> None:
    """Check the dataset at ROOT, copy what is new to TO, and enter it into a catalog."""
    report = cellcube.publish(
        root,
        to,
        catalog=catalog,
        name=name,
        replace=replace,
        allow=allow,
        require_clean=require_clean,
        progress=not quiet,
        storage_options=pairs(storage_options, "--storage-option"),
    )
    click.echo(str(report))


@cli.command(context_settings=CONTEXT)
@click.argument("source")
@click.argument("to")
@click.option("--where", metavar="QUERY", help="Cells that meet a condition on the manifest's columns.")
@storage_option
def checkout(source: str, to: str, where: str | None, storage_options: tuple[str, ...]) -> None:
    """Make a dataset at TO of the cells of SOURCE, which is ROOT or ROOT@VERSION."""
    options = pairs(storage_options, "--storage-option")
    click.echo(str(cellcube.checkout(source, to, where=where, storage_options=options)))


@cli.command(context_settings=CONTEXT)
@click.argument("to")
@click.argument("source", required=False)
@storage_option
def pull(to: str, source: str | None, storage_options: tuple[str, ...]) -> None:
    """Bring the copy of a dataset at TO up to date from SOURCE, fetching only what is new."""
    options = pairs(storage_options, "--storage-option")
    click.echo(str(cellcube.pull(to, source, storage_options=options)))


@cli.command(context_settings=CONTEXT)
@click.argument("root")
@click.option("--set", "fields", multiple=True, required=True, metavar="FIELD=VALUE", help="Value as YAML; repeat it.")
@storage_option
def describe(root: str, fields: tuple[str, ...], storage_options: tuple[str, ...]) -> None:
    """Change name, description, licence, authors, doi, citation or keywords of the dataset at ROOT."""
    version = cellcube.describe(
        root, storage_options=pairs(storage_options, "--storage-option"), **pairs(fields, "--set")
    )
    click.echo(f"described in version {version}")
