"""Arguments and options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from outroute.errors import DataError

__all__ = [
    "DEFAULT_DIR",
    "NO_REASON",
    "By",
    "Case",
    "Columns",
    "Delimiter",
    "Drop",
    "Force",
    "Json",
    "MappingFile",
    "NodeDir",
    "OutcomeColumn",
    "Positive",
    "Reason",
    "SchemaFile",
    "SchemaOrDraft",
    "Site",
    "Subject",
    "Tables",
    "Time",
    "subject_named",
]

DEFAULT_DIR = Path("node")
"""Where a node lives when nobody says otherwise."""

NodeDir = Annotated[Path, typer.Option("--node", help="The node's directory: its key, its observations, its packets.")]
By = Annotated[str, typer.Option("--by", help="Who decides this; it stands in the log.", show_default=False)]
NO_REASON = "not given"
"""What stands in the log when nobody says why."""
Reason = Annotated[
    str, typer.Option("--reason", help="Why, in a line for the log; no names of persons.", show_default=False)
]

SchemaFile = Annotated[Path, typer.Argument(help="The schema (TOML).", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Names for a CSV without a header line: a,b,c.", show_default=False),
]
Delimiter = Annotated[
    str | None, typer.Option(help="Sign between CSV fields; found by itself if not given.", show_default=False)
]
MappingFile = Annotated[
    Path | None, typer.Option("--mapping", help="How own columns become fields (mapping.toml).", show_default=False)
]
Case = Annotated[list[str] | None, typer.Option("--case", help="Column(s) that name a case.", show_default=False)]
Subject = Annotated[
    list[str] | None,
    typer.Option("--subject", help="Column(s) that name the person; k counts these.", show_default=False),
]
Time = Annotated[
    list[str] | None,
    typer.Option("--time", help="Time column, or year,month,day,hour columns.", show_default=False),
]
Tables = Annotated[
    list[str],
    typer.Argument(
        help="CSV (also .gz), Parquet or NDJSON; '-' reads a pipe; several files: one per site.", show_default=False
    ),
]
OutcomeColumn = Annotated[str, typer.Option("--outcome", help="The column to learn about.", show_default=False)]
Site = Annotated[
    str | None,
    typer.Option(
        "--site",
        help="The column that tells sites apart; without it, the table is one site: yours.",
        show_default=False,
    ),
]
Positive = Annotated[
    str | None,
    typer.Option(
        "--positive", help="Makes the outcome yes or no: '> 15', or the value that is positive.", show_default=False
    ),
]
Drop = Annotated[list[str] | None, typer.Option("--drop", help="Leave these columns out.", show_default=False)]
SchemaOrDraft = Annotated[
    Path | None,
    typer.Option("--schema", help="A schema; without it, one is drafted from the table.", show_default=False),
]


def subject_named(text: str) -> str:
    """A subject's id; '-' is a line of standard input, which keeps it out of the shell's history."""
    name = sys.stdin.readline().rstrip("\r\n") if text == "-" else text
    if not name:
        raise DataError("Name the subject: standard input is empty", code="cli.subject")
    return name
