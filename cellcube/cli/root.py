"""The root of the command line, and what all verbs share."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import click

import cellcube
from cellcube.errors import CellcubeError

_OPTION_HELP = "fsspec option for remote paths, as name=value; repeat it for more. Never written anywhere."


CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=CONTEXT)
@click.version_option(cellcube.__version__, prog_name="cellcube")
def cli() -> None:
    """From microscopy images and a table of cells to a publishable single-cell dataset."""


def storage_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option that gives fsspec options."""
    return click.option("--storage-option", "storage_options", multiple=True, metavar="NAME=VALUE", help=_OPTION_HELP)(
        function
    )


def pairs(given: tuple[str, ...], option: str) -> dict[str, Any]:
    """Options of the form name=value, the values as YAML."""
    import yaml

    found = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"{text!r} is not name=value", param_hint=option)
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            what = str(getattr(error, "problem", None) or error)
            raise click.BadParameter(f"the value of {text!r} is not YAML: {what}", param_hint=option) from None
    return found


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
