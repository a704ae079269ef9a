"""The command line: parse, call, print."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import cellcube
from cellcube.errors import CellcubeError, did_you_mean

_OPTION_HELP = "fsspec option for remote paths, as name=value; repeat it for more. Never written anywhere."


_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_CONTEXT)
@click.version_option(cellcube.__version__, prog_name="cellcube")
def cli() -> None:
    """From microscopy images and a table of cells to a publishable single-cell dataset."""


def storage_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option that gives fsspec options."""
    return click.option("--storage-option", "storage_options", multiple=True, metavar="NAME=VALUE", help=_OPTION_HELP)(
        function
    )


@cli.command(context_settings=_CONTEXT)
@click.argument("table")
@click.argument("root")
@click.option("--spec", "spec", metavar="FILE", help="YAML file with the spec.")
@click.option("--set", "fields", multiple=True, metavar="FIELD=VALUE", help="A field of the spec, its value as YAML.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
@click.option("--dry-run", is_flag=True, help="Tell cells, FOVs, bytes, shards, memory and time; write nothing.")
@click.option("--on-error", type=click.Choice(["record", "raise"]), default="record", show_default=True)
@click.option("--rebuild", type=click.Choice(["missing", "all"]), default="missing", show_default=True)
@click.option("--identify", is_flag=True, help="Write user and host into the provenance.")
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
        storage_options=_pairs(storage_options, "--storage-option"),
        progress=not quiet,
        dry_run=dry_run,
        identify=identify,
        **_spec_fields(fields),
    )
    click.echo(str(report))
    if report.failed and not dry_run:
        raise SystemExit(3)


@cli.command(context_settings=_CONTEXT)
@click.argument("root")
@click.option("--outcomes", is_flag=True, help="A table of what became of every cell, by FOV.")
@storage_option
def info(root: str, outcomes: bool, storage_options: tuple[str, ...]) -> None:
    """Tell about the dataset at ROOT on one screen."""
    options = _pairs(storage_options, "--storage-option")
    about = cellcube.info(root, storage_options=options)
    click.echo(str(about))
    if outcomes:
        click.echo()
        click.echo(about.outcome_table())


@cli.command(context_settings=_CONTEXT)
@click.argument("folder", default="cellcube-demo", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
def demo(folder: Path, workers: int | None) -> None:
    """Make synthetic plates in FOLDER, build datasets from them, and show the cells."""
    from cellcube.demo.tour import run_demo

    run_demo(folder, workers=workers, say=click.echo)


def _spec_fields(given: tuple[str, ...]) -> dict[str, Any]:
    from cellcube.spec import CubeSpec

    fields = _pairs(given, "--set")
    for name in fields:
        if name not in CubeSpec.model_fields:
            raise click.BadParameter(
                f"{name!r} is not a field of the spec. {did_you_mean(name, CubeSpec.model_fields)}".rstrip(),
                param_hint="--set",
            )
    return fields


def _pairs(given: tuple[str, ...], option: str) -> dict[str, Any]:
    import yaml

    pairs = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"{text!r} is not name=value", param_hint=option)
        try:
            pairs[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            what = str(getattr(error, "problem", None) or error)
            raise click.BadParameter(f"the value of {text!r} is not YAML: {what}", param_hint=option) from None
    return pairs


def main() -> None:
    """Run the command line; errors of cellcube are told in a sentence, and exit with 2."""
    # The line of code that warns means nothing to who uses the command line.
    warnings.showwarning = lambda message, *_, **__: click.echo(f"warning: {message}", err=True)
    try:
        cli()
    except (CellcubeError, OSError) as error:
        told = str(error) if isinstance(error, CellcubeError) else f"{type(error).__name__}: {error}"
        click.echo(f"error: {told}", err=True)
        sys.exit(2)
