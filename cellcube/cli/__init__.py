"""The command line: parse, call, print."""

from cellcube.cli import dataset, export, parts, publishing
from cellcube.cli.root import cli, main

__all__ = ["cli", "dataset", "export", "main", "parts", "publishing"]
