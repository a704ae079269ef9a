"""Runs, outcomes, provenance, and the claim that keeps two builds apart."""

from cellcube.ledger.claim import Claim
from cellcube.ledger.objects import OBJECT_COLUMNS, Recorder, as_objects, fold_objects, sha256_of
from cellcube.ledger.provenance import calling_script, code_of, environment, function_record
from cellcube.ledger.runs import (
    OUTCOME_COLUMNS,
    RunTable,
    Table,
    about_table,
    fold_outcomes,
    joined_bytes,
    parse_table,
    read_run,
    read_run_table,
    read_table,
    run_name,
    table_bytes,
    write_run,
    write_table,
)

__all__ = [
    "OBJECT_COLUMNS",
    "OUTCOME_COLUMNS",
    "Claim",
    "Recorder",
    "RunTable",
    "Table",
    "about_table",
    "as_objects",
    "calling_script",
    "code_of",
    "environment",
    "fold_objects",
    "fold_outcomes",
    "function_record",
    "joined_bytes",
    "parse_table",
    "read_run",
    "read_run_table",
    "read_table",
    "run_name",
    "sha256_of",
    "table_bytes",
    "write_run",
    "write_table",
]
