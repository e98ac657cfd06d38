"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Case", "Columns", "Delimiter", "Force", "Json", "MappingFile", "SchemaFile", "Subject", "Time"]

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
