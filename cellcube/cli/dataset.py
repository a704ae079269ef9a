"""Verbs that make a dataset and look at one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import cellcube
from cellcube.cli.root import CONTEXT, cli, pairs, storage_option
from cellcube.errors import did_you_mean


@cli.command(context_settings=CONTEXT)
@click.argument("table")
@click.argument("root")
@click.option("--spec", "spec", metavar="FILE", help="YAML file with the spec.")
@click.option("--set", "fields", multiple=True, metavar="FIELD=VALUE", help="A field of the spec, its value as YAML.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
@click.option("--dry-run", is_flag=True, help="Tell cells, FOVs, bytes, shards, memory and time; write nothing.")
@click.option("--on-error", type=click.Choice(["record", "raise"]), default="record", show_default=True)
@click.option("--rebuild", type=click.Choice(["missing", "all"]), default="missing", show_default=True)
@click.option("--identify", is_flag=True, help="Write user and host into the provenance.")
@click.option("--profile", is_flag=True, help="Keep and show where the time went.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@storage_option
def build(
    table: str,
    root: str,
    spec: str | None,
    fields: tuple[str, ...],
    workers: int | None,
    dry_run: bool,
    on_error: Any,
    rebuild: Any,
    identify: bool,
    profile: bool,
    quiet: bool,
    storage_options: tuple[str, ...],
) -> None:
    """Build the cells of TABLE (CSV or Parquet) into the dataset at ROOT, or add them to it.

    The same command continues a build that was killed, and does nothing where nothing is missing. Exits with 3 where
    cells failed.
    """
    report = cellcube.build(
        table,
        root,
        spec,
        executor=workers,
        rebuild=rebuild,
        on_error=on_error,
        storage_options=pairs(storage_options, "--storage-option"),
        progress=not quiet,
        dry_run=dry_run,
        identify=identify,
        profile=profile,
        **spec_fields(fields),
    )
    click.echo(str(report))
    if report.failed and not dry_run:
        raise SystemExit(3)


@cli.command(context_settings=CONTEXT)
@click.argument("root")
@click.option("--outcomes", is_flag=True, help="A table of what became of every cell, by FOV.")
@storage_option
def info(root: str, outcomes: bool, storage_options: tuple[str, ...]) -> None:
    """Tell about the dataset at ROOT on one screen."""
    options = pairs(storage_options, "--storage-option")
    about = cellcube.info(root, storage_options=options)
    click.echo(str(about))
    if outcomes:
        click.echo()
        click.echo(about.outcome_table())


@cli.command(context_settings=CONTEXT)
@click.argument("folder", default="cellcube-demo", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
def demo(folder: Path, workers: int | None) -> None:
    """Make synthetic plates in FOLDER, build datasets from them, and show the cells."""
    from cellcube.demo.tour import run_demo

    run_demo(folder, workers=workers, say=click.echo)


def spec_fields(given: tuple[str, ...]) -> dict[str, Any]:
    """Fields of the spec, as ``--set`` gives them."""
    from cellcube.spec import CubeSpec

    fields = pairs(given, "--set")
    for name in fields:
        if name not in CubeSpec.model_fields:
            raise click.BadParameter(
                f"{name!r} is not a field of the spec. {did_you_mean(name, CubeSpec.model_fields)}".rstrip(),
                param_hint="--set",
            )
    return fields


@cli.command(context_settings=CONTEXT)
@click.argument("root")
@click.argument("cell_ids", nargs=-1, metavar="CELL_ID...")
@click.option("--file", "listed", type=click.File("r"), help="Text file with one cell a line; - is standard input.")
@click.option("--reason", required=True, help="Why; it is kept with the version.")
@storage_option
def retract(root: str, cell_ids: tuple[str, ...], listed: Any, reason: str, storage_options: tuple[str, ...]) -> None:
    """Take cells of the dataset at ROOT back, in a new version. Pixels stay, and versions before still have them."""
    named = [*cell_ids, *(line.strip() for line in listed or () if line.strip())]
    options = pairs(storage_options, "--storage-option")
    click.echo(str(cellcube.retract(root, named, reason, storage_options=options)))


@cli.command(context_settings=CONTEXT)
@click.argument("first")
@click.argument("second")
@storage_option
def diff(first: str, second: str, storage_options: tuple[str, ...]) -> None:
    """Tell what differs between FIRST and SECOND, each ROOT or ROOT@VERSION. Exits with 1 where they differ."""
    found = cellcube.diff(first, second, storage_options=pairs(storage_options, "--storage-option"))
    click.echo(str(found))
    if found:
        raise SystemExit(1)
