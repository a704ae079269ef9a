"""Verbs that make a dataset in steps: plan, run parts anywhere, commit."""

from __future__ import annotations

import click

from cellcube.cli.dataset import spec_fields
from cellcube.cli.root import CONTEXT, cli, pairs, storage_option

_TABLE_HELP = "The cell table again, where its URLs hold keys."


class _Part(click.ParamType[tuple[int, int]]):
    name = "I/N"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        part, _, parts = value.partition("/")
        if not (part.isdecimal() and parts.isdecimal()):
            self.fail(f"{value!r} is not I/N, such as 3/8", param, ctx)
        return int(part), int(parts)


@cli.command(context_settings=CONTEXT)
@click.argument("table")
@click.argument("root")
@click.option("--spec", "spec", metavar="FILE", help="YAML file with the spec.")
@click.option("--set", "fields", multiple=True, metavar="FIELD=VALUE", help="A field of the spec, its value as YAML.")
@click.option("--workers", type=click.IntRange(1), help="Processes for first looks; by default one a core.")
@click.option("--dry-run", is_flag=True, help="Print the plan; write nothing.")
@storage_option
def plan(
    table: str,
    root: str,
    spec: str | None,
    fields: tuple[str, ...],
    workers: int | None,
    dry_run: bool,
    storage_options: tuple[str, ...],
) -> None:
    """Plan a build of TABLE (CSV or Parquet) into the dataset at ROOT, for parts that run anywhere.

    The plan is written below ROOT, without storage options or keys: they are given again to run and commit. A plan that
    was there is replaced, and jobs that were done stay done.
    """
    from cellcube.run.parts import make_plan

    report = make_plan(
        table,
        root,
        spec,
        executor=workers,
        storage_options=pairs(storage_options, "--storage-option"),
        dry_run=dry_run,
        **spec_fields(fields),
    )
    click.echo(str(report))


@cli.command(context_settings=CONTEXT)
@click.argument("root")
@click.option("--part", type=_Part(), default="1/1", show_default=True, help="Which part, from 1, of how many.")
@click.option("--table", metavar="TABLE", help=_TABLE_HELP)
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@storage_option
def run(
    root: str,
    part: tuple[int, int],
    table: str | None,
    workers: int | None,
    quiet: bool,
    storage_options: tuple[str, ...],
) -> None:
    """Do one part of the plan at ROOT: all jobs that are missing, or every N-th of them.

    Parts run at the same time, on any machine that sees the images and ROOT. The same command continues a part that was
    killed. Cells that fail are outcomes, and do not fail the part.
    """
    from cellcube.run.parts import run_part

    report = run_part(
        root,
        *part,
        cells=table,
        executor=workers,
        storage_options=pairs(storage_options, "--storage-option"),
        progress=not quiet,
    )
    click.echo(str(report))


@cli.command(context_settings=CONTEXT)
@click.argument("root")
@click.option("--table", metavar="TABLE", help=_TABLE_HELP)
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
@click.option("--identify", is_flag=True, help="Write user and host into the provenance.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@storage_option
def commit(
    root: str, table: str | None, workers: int | None, identify: bool, quiet: bool, storage_options: tuple[str, ...]
) -> None:
    """Put what the parts of the plan at ROOT have done into the dataset.

    Refuses where jobs are missing, and names their parts. Exits with 3 where cells failed.
    """
    from cellcube.run.parts import commit_parts

    report = commit_parts(
        root,
        cells=table,
        executor=workers,
        storage_options=pairs(storage_options, "--storage-option"),
        progress=not quiet,
        identify=identify,
    )
    click.echo(str(report))
    if report.failed:
        raise SystemExit(3)
