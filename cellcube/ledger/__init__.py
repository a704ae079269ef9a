"""Runs, outcomes, provenance, and the claim that keeps two builds apart."""

from cellcube.ledger.claim import Claim
from cellcube.ledger.provenance import calling_script, code_of, environment, function_record
from cellcube.ledger.runs import (
    OUTCOME_COLUMNS,
    fold_outcomes,
    read_run,
    read_run_table,
    read_table,
    run_name,
    write_run,
    write_table,
)

__all__ = [
    "OUTCOME_COLUMNS",
    "Claim",
    "calling_script",
    "code_of",
    "environment",
    "fold_outcomes",
    "function_record",
    "read_run",
    "read_run_table",
    "read_table",
    "run_name",
    "write_run",
    "write_table",
]
