"""``outroute schema``: what a network agrees on; draft it, check it, show it, sign it, replace it."""

from __future__ import annotations

import time as clock
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outroute import schema as schemas
from outroute.cli._common import (
    EXIT_PROBLEMS,
    emit_json,
    handled,
    out,
    print_table,
    say,
    split_names,
    warn,
    working,
    write_files,
)
from outroute.cli._options import Case, Columns, Delimiter, Force, Json, MappingFile, SchemaFile, Subject, Time
from outroute.cli._schema_agree import diff, migrate, sign, signed
from outroute.cli._schema_learn import learn
from outroute.cli._schema_views import advice, schema_view, summary
from outroute.errors import DataError, SchemaError
from outroute.schema import Schema

if TYPE_CHECKING:
    from outroute.tables.infer import Draft

__all__ = ["schema_app"]

schema_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="What a network agrees on: fields with units and ranges, the outcome, the privacy floor, landmarks.",
)


@schema_app.command()
@handled
def infer(
    table: Annotated[
        list[str],
        typer.Argument(
            help="CSV (also .gz), Parquet or NDJSON; '-' reads a pipe; several files: one per site.", show_default=False
        ),
    ],
    outcome: Annotated[str, typer.Option(help="The column to learn about.", show_default=False)],
    site: Annotated[str | None, typer.Option(help="The column that tells sites apart.", show_default=False)] = None,
    subject: Subject = None,
    time: Time = None,
    case: Case = None,
    drop: Annotated[list[str] | None, typer.Option(help="Leave these columns out.", show_default=False)] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Use these columns only.", show_default=False)] = None,
    positive: Annotated[
        str | None,
        typer.Option(help="Makes the outcome yes or no: '> 15', or the value that is positive.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=2, help="Fewest subjects in a packet.")] = 5,
    noise: Annotated[
        str,
        typer.Option("--noise", help="Noise on conditions, as a share of their ranges; 0.1 with --k 10 is advised."),
    ] = "0",
    dissent: Annotated[
        int, typer.Option("--dissent", min=0, help="Fewest members of a cohort with another outcome than most.")
    ] = 1,
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon", help="Differential privacy: counts with noise instead of cohorts.", show_default=False
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The schema's name.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write here; without it, print.", show_default=False)
    ] = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draft a schema from a table.

    Ranges are rounded outward so that nobody's extreme value is told,
    categories of fewer than k subjects are merged, ids and free text are
    left out. All of it is a proposal: look at every field, give it its
    unit, then remove its line reviewed = false.

    With --epsilon the schema promises differential privacy for what leaves
    nodes. The schema itself leaves too: draft it from a table that is public,
    or declare every range and category from what is known beforehand.

    Examples:

    outroute schema infer heart.csv --outcome num --positive "> 0" --site hospital -o heart.toml

    outroute schema infer basel.csv bern.csv zurich.csv --outcome died --subject patient --k 10 --noise 0.1 -o ward.toml

    outroute schema infer reference.csv --outcome died --subject patient --epsilon 1 -o ward.toml

    zcat stations.csv.gz | outroute schema infer - --outcome PM2.5 --site station --time year,month,day,hour
    """
    from outroute.tables.infer import infer as draft

    with working("Reading the table"):
        read, site = _read_tables(table, site, split_names(columns), delimiter)
    with working(f"Looking at {len(read.names)} columns of {read.rows:,} rows"):
        made = draft(
            read,
            outcome=outcome,
            site=site,
            subject=split_names(subject),
            time=split_names(time),
            case=split_names(case),
            drop=split_names(drop),
            keep=split_names(keep),
            positive=positive,
            k=k,
            noise=_share(noise),
            dissent=dissent,
            name=name or (output.stem if output is not None else None),
            now=int(clock.time()),
        )
        if epsilon is not None:
            made = _with_promise(made, epsilon)
    text = made.toml()
    if output is not None:
        write_files({output: text}, force=force)
    if as_json:
        emit_json(
            {
                "schema": summary(made.schema, sorted(made.unreviewed)),
                "toml": text,
                "file": None if output is None else str(output),
                "notes": [{"column": note.column, "kind": note.kind, "text": note.text} for note in made.notes],
            }
        )
        return
    if output is None:
        out.print(text, markup=False, highlight=False, end="")
    for kind, title in (
        ("outcome", "outcome"),
        ("time", "time"),
        ("slots", "slots"),
        ("look", "look at"),
        ("left out", "left out"),
    ):
        for note in made.notes:
            if note.kind == kind:
                say(f"{title:>9}  {note}")
    where = "" if output is None else f" in {output}"
    say(
        f"\n{len(made.schema.fields)} fields{where}, {made.schema.width} of {schemas.MAX_SLOTS} slots. These notes may "
        "tell about single cases: they stay with you. Next: look at the file, then outroute schema check."
    )


def _with_promise(made: Draft, epsilon: float) -> Draft:
    """The draft with differential privacy instead of cohorts."""
    from dataclasses import replace
    from decimal import Decimal

    from outroute.schema import Distiller, Privacy
    from outroute.schema.toml import DEFAULT_RECORDS, DEFAULT_RELEASES

    privacy = Privacy(
        distiller=Distiller.PRIVATE,
        k=1,
        subject=made.schema.privacy.subject,
        epsilon=Decimal(str(epsilon)),
        m=DEFAULT_RECORDS,
        releases=DEFAULT_RELEASES,
    )
    return replace(made, schema=replace(made.schema, privacy=privacy))


def _read_tables(
    paths: list[str], site: str | None, columns: tuple[str, ...], delimiter: str | None
) -> tuple[Any, str | None]:
    from outroute.tables.reading import SITE_COLUMN, read_sites, read_table

    if len(paths) == 1:
        return read_table(paths[0], columns=columns or None, delimiter=delimiter), site
    if "-" in paths:
        raise DataError("Standard input is one table; give it alone", code="data.sites")
    added = site or SITE_COLUMN
    return read_sites(paths, site_column=added, columns=columns or None, delimiter=delimiter), added


def _share(text: str) -> Decimal:
    """A share as it is written."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise DataError(f"--noise is a share such as 0.1, not '{text[:20]}'", code="data.number") from None


@schema_app.command()
@handled
def check(
    schema: SchemaFile,
    table: Annotated[
        str | None, typer.Argument(help="A table to try it on ('-' reads a pipe).", show_default=False)
    ] = None,
    mapping: MappingFile = None,
    strict: Annotated[bool, typer.Option(help="Warnings are problems too.")] = False,
    columns: Columns = None,
    delimiter: Delimiter = None,
    as_json: Json = False,
) -> None:
    """Check a schema, alone or on a table.

    Exit code 0: usable. 1: problems found (rows that the schema refuses;
    with --strict also warnings). 2: could not run.

    Examples:

    outroute schema check heart.toml

    outroute schema check heart.toml basel.csv --mapping mapping.toml
    """
    problems: list[str] = []
    warnings: list[str] = []
    loaded: Schema | None = None
    waiting: tuple[str, ...] = ()
    try:
        loaded = schemas.load(schema)
        waiting = schemas.unreviewed(schema)
        warnings = advice(loaded, waiting)
    except SchemaError as error:
        if error.code == "schema.file":
            raise
        problems.append(str(error))
    rows: dict[str, Any] | None = None
    if loaded is not None and table is not None:
        rows = _check_table(loaded, table, mapping, split_names(columns), delimiter, problems)
    failed = bool(problems) or (strict and bool(warnings))
    if as_json:
        emit_json(
            {
                "ok": not failed,
                "id": None if loaded is None else loaded.id.hex(),
                "problems": problems,
                "warnings": warnings,
                "unreviewed": list(waiting),
                "rows": rows,
            }
        )
    else:
        for text in warnings:
            warn(text)
        for text in problems:
            say(f"problem: {text}", "red")
        if rows is not None:
            waits = f"{rows['waiting']:,} wait for an outcome"
            say(f"{rows['seen']:,} rows: {rows['kept']:,} usable ({waits}), {rows['refused']:,} refused")
        if loaded is not None and not problems:
            out.print(f"{schema}: usable, id {loaded.id.hex()}", markup=False, highlight=False)
    if failed:
        raise typer.Exit(EXIT_PROBLEMS)


def _check_table(
    schema: Schema,
    table: str,
    mapping: Path | None,
    columns: tuple[str, ...],
    delimiter: str | None,
    problems: list[str],
) -> dict[str, Any]:
    from outroute.tables.applying import apply_batches
    from outroute.tables.mapping import default_mapping, load_mapping
    from outroute.tables.observed import Tally
    from outroute.tables.reading import iter_batches

    used = load_mapping(mapping, schema) if mapping is not None else default_mapping(schema)
    tally = Tally()
    with working(f"Reading {table}") as update:
        batches = iter_batches(table, columns=columns or None, delimiter=delimiter)
        try:
            for observed in apply_batches(used, schema, batches, outcomes="optional"):
                tally.add(observed)
                update(f"Reading {table}: {tally.seen:,} rows")
        except DataError as error:
            if error.code not in ("data.unit", "data.number", "data.category", "data.time", "data.column"):
                raise
            problems.append(str(error))
    problems += [str(problem) for problem in tally.problems]
    if tally.seen and not tally.kept:
        problems.append("not one row is usable")
    return {"seen": tally.seen, "kept": tally.kept, "waiting": tally.waiting, "refused": tally.refused}


@schema_app.command()
@handled
def show(schema: SchemaFile, as_json: Json = False) -> None:
    """Show a schema: fields, units, ranges, categories, weights, facets, slots, landmarks, id.

    Example: outroute schema show heart.toml
    """
    loaded = schemas.load(schema)
    waiting = schemas.unreviewed(schema)
    if as_json:
        emit_json(summary(loaded, waiting))
        return
    lines, fields = schema_view(loaded, waiting)
    for line in lines:
        out.print(line)
    print_table(fields)


@schema_app.command("mapping")
@handled
def draft_mapping(
    schema: SchemaFile,
    table: Annotated[str, typer.Argument(help="Our own table ('-' reads a pipe).", show_default=False)],
    outcome: Annotated[str | None, typer.Option(help="Our column of the outcome.", show_default=False)] = None,
    positive: Annotated[str | None, typer.Option(help="Makes a number yes or no: '> 15'.", show_default=False)] = None,
    case: Case = None,
    subject: Subject = None,
    time: Time = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write here; without it, print.", show_default=False)
    ] = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draft mapping.toml: how our own columns, units, codes and gaps become the schema's fields.

    The file is private and stays here. Columns of the same name are filled
    in; codes that the schema does not know, values out of range and suspected
    codes for missing are marked for you to answer.

    Example: outroute schema mapping heart.toml switzerland.csv --case id -o mapping.toml
    """
    from outroute.tables.mapping import Rule, loads_mapping
    from outroute.tables.reading import read_table
    from outroute.tables.template import mapping_template

    loaded = schemas.load(schema)
    rule = Rule.parse(positive) if positive is not None else None
    names = (split_names(case), split_names(subject), split_names(time))
    with working("Reading the table"):
        read = read_table(table, columns=split_names(columns) or None, delimiter=delimiter)
    for name in (*names[0], *names[1], *names[2], *([outcome] if outcome else [])):
        read.require(name)
    text = mapping_template(
        loaded, read, case=names[0], subject=names[1], time=names[2], outcome=outcome, positive_when=rule
    )
    loads_mapping(text, loaded)
    if output is not None:
        write_files({output: text}, force=force, private=True)
    if as_json:
        emit_json({"toml": text, "file": None if output is None else str(output)})
    elif output is None:
        out.print(text, markup=False, highlight=False, end="")
    else:
        then = f"outroute schema check {schema} {table} --mapping {output}"
        say(f"Drafted {output}. Answer what is marked with #, then: {then}")


schema_app.command()(learn)
schema_app.command()(diff)
schema_app.command()(sign)
schema_app.command()(signed)
schema_app.command()(migrate)
