"""Commands of one node: observe, distil, receive, ask, confirm, status. Its state is a directory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from outroute.cli._common import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEMS,
    emit_json,
    handled,
    out,
    say,
    warn,
    working,
    write_files,
)
from outroute.cli._node_dir import (
    SCHEMA_FILE,
    loaded_schema,
    mapping_for,
    open_node,
    others,
    several,
    try_first_rows,
)
from outroute.cli._options import Case, Force, Json, MappingFile, Subject, Time
from outroute.cli._views import positive_class, show_insight
from outroute.cli.packet import read_packets
from outroute.errors import DataError

__all__ = ["ask", "confirm", "distil", "observe", "receive", "status"]

NodeDir = Annotated[Path, typer.Option("--node", help="The node's directory: its key, its observations, its packets.")]
DEFAULT_DIR = Path("node")
SchemaOption = Annotated[
    Path | None,
    typer.Option("--schema", help="What the network agrees on; needed once, the node keeps it.", show_default=False),
]


@handled
def observe(
    table: Annotated[
        str, typer.Argument(help="CSV (also .gz), Parquet or NDJSON; '-' reads a pipe.", show_default=False)
    ],
    node: NodeDir = DEFAULT_DIR,
    schema: SchemaOption = None,
    mapping: MappingFile = None,
    case: Case = None,
    subject: Subject = None,
    time: Time = None,
    outcome: Annotated[
        str | None, typer.Option(help="Column with the outcome, if not called as in the schema.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a table of observations in. They stay here; nothing leaves.

    Running the same export again counts nothing twice: cases are known by
    --case. Cases without an outcome wait until a later table, or outroute
    confirm, brings it.

    Examples:

    outroute observe patients.csv --schema heart.toml --case id --node north

    outroute observe visits.parquet --case visit --subject patient --time date --node north

    Exit code 1: some rows were refused (they are named); the others are in.
    """
    own = mapping_for(node, schema, mapping, outcome, case, subject, time)
    if not (node / SCHEMA_FILE).exists():
        try_first_rows(table, own, loaded_schema(node, schema))
    with open_node(node, schema) as opened:
        try:
            with working(f"Observing {table}"):
                report = opened.observe(table, mapping=own)
        except KeyboardInterrupt:
            counts = opened.counts()
            say(
                f"Stopped. The node is whole and knows {counts['known'] + counts['waiting']:,} cases; run the same "
                "command again for the rest, nothing counts twice."
            )
            raise typer.Exit(EXIT_INTERRUPTED) from None
        counts = opened.counts()
    if as_json:
        emit_json(
            {name: value for name, value in asdict(report).items() if name != "problems"}
            | {"problems": [str(p) for p in report.problems], "node": counts}
        )
    else:
        out.print(
            f"{report.seen:,} rows: {report.added:,} new, {report.duplicate:,} known already, "
            f"{report.confirmed:,} got their outcome, {report.updated:,} changed, {report.refused:,} refused",
            highlight=False,
        )
        if counts["waiting"]:
            out.print(f"{counts['waiting']:,} cases wait for their outcome", highlight=False)
        if report.conflict:
            warn(f"{report.conflict:,} cases have changed after they left in a packet; the old values stand there")
        for problem in report.problems:
            warn(str(problem))
        say("Next: outroute distil, to see what could leave.")
    if report.refused:
        raise typer.Exit(EXIT_PROBLEMS)


@handled
def distil(
    node: NodeDir = DEFAULT_DIR,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Subjects in a packet; never below the schema's floor.")
    ] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Leave observations waiting until similar ones have come together.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Write all packets of this node here, to hand them over.", show_default=False
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Condense observations into packets, and say what is withheld.

    A packet condenses at least k subjects. What has left once is never
    grouped again. Look at the file with outroute packet inspect before you
    hand it to anybody: these are exactly the bytes that would leave.

    Example:

    outroute distil --node north -o north.orp
    """
    if output is not None:
        _writable(output, force)
    with open_node(node) as opened:
        with working("Distilling"):
            made = opened.distil(k=k, streaming=streaming)
            packets = opened.outbox()
        if output is not None:
            write_files({output: packets.tobytes()}, force=force)
    withheld = {reason.name.lower(): count for reason, count in made.withheld.items()}
    if as_json:
        emit_json(
            {
                "packets": made.packets,
                "observations": made.observations,
                "withheld": withheld,
                "agreeing": made.agreeing,
                "k": made.k,
                "outbox": {"packets": len(packets), "bytes": packets.nbytes},
                "file": None if output is None else str(output),
            }
        )
        return
    out.print(
        f"{made.packets:,} new packets from {made.observations:,} observations, at least {made.k} subjects each; "
        f"{len(packets):,} packets in all, {packets.nbytes:,} bytes",
        highlight=False,
    )
    for reason, count in withheld.items():
        out.print(f"{count:,} observations stay: {reason.replace('_', ' ')}", highlight=False)
    if made.agreeing:
        warn(f"in {made.agreeing:,} packets all outcomes agree: who knows a member of such a cohort knows its outcome")
    if output is not None:
        say(f"Written to {output}. Look inside: outroute packet inspect {output} --schema {node / SCHEMA_FILE}")


def _writable(path: Path, force: bool) -> None:
    """Refuse an output that cannot be written before packets are made: what is grouped once stays grouped."""
    if path.exists() and not force:
        raise DataError(f"'{path}' exists already; --force replaces it", code="file.exists")
    if not path.absolute().parent.is_dir():
        raise DataError(f"There is no folder '{path.absolute().parent}'; make it first", code="file.folder")


@handled
def receive(
    file: Annotated[Path, typer.Argument(help="Packets of other nodes.", show_default=False)],
    node: NodeDir = DEFAULT_DIR,
    schema: SchemaOption = None,
    as_json: Json = False,
) -> None:
    """Take packets of other nodes in; each is checked by every rule first.

    Example:

    outroute receive south.orp --node north

    Exit code 1: some packets were refused; the others are in.
    """
    from outroute.packet import PACKET_BYTES, Rejection

    data = read_packets(file)
    with open_node(node, schema) as opened, working(f"Checking {len(data) // PACKET_BYTES:,} packets"):
        refused = opened.receive(data)
        held = others(opened)
        own = len(opened.received()) - len(held)
        served = opened.schema
    count = -(-len(data) // PACKET_BYTES) - sum(refused.values())
    authors = len({author.tobytes() for author in held["author"]})
    if as_json:
        emit_json(
            {
                "accepted": count,
                "refused": {reason.name.lower(): n for reason, n in refused.items()},
                "in_force": {"packets": len(held), "nodes": authors},
            }
        )
    else:
        out.print(
            f"{several(count, 'packet')} accepted; {several(len(held), 'packet')} of "
            f"{several(authors, 'other node')} in force here now",
            highlight=False,
        )
        if own:
            say(f"{several(own, 'packet')} of this node itself: its own records say more, so they do not count")
        for reason, number in refused.items():
            warn(f"{number:,} refused: {reason.text}")
        if Rejection.SCHEMA in refused:
            say(
                f"This node serves schema '{served.name}' ({served.id.hex()[:16]}). Ask the sender for packets of it, "
                "or make a node of their schema in another directory."
            )
        if Rejection.LENGTH in refused:
            say(f"'{file}' does not end with a whole packet: it was cut off on its way, so ask for it again.")
    if refused:
        raise typer.Exit(EXIT_PROBLEMS)


@handled
def ask(
    values: Annotated[
        list[str], typer.Argument(help="Conditions as field=value; what is left out is missing.", show_default=False)
    ],
    node: NodeDir = DEFAULT_DIR,
    case: Annotated[
        str | None, typer.Option("--case", help="Remember the question, to confirm its outcome later.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask what happened to cases like this one, here and elsewhere.

    A question never leaves this node: packets near the case are ranked here.

    Example:

    outroute ask age=54 sex=male chol=239 --node north --case visit-17
    """
    question = _question(values)
    with open_node(node) as opened:
        with working("Asking"):
            insight = opened.ask(question, case_id=case)
        own = opened.id.hex()
        positive = positive_class(opened.schema)
    if as_json:
        emit_json(insight.to_dict() | {"positive": positive, "node": own})
        return
    show_insight(insight, positive=positive)
    if case is not None:
        say(f"Remembered. Once the outcome is known: outroute confirm {case} OUTCOME --node {node}")


def _question(values: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for text in values:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise DataError(f"'{text}' is not a condition: write field=value", code="data.question")
        if name in out:
            raise DataError(f"'{name}' is given twice", code="data.question")
        out[name] = value
    return out


@handled
def confirm(
    case: Annotated[str, typer.Argument(help="The case.", show_default=False)],
    outcome: Annotated[str, typer.Argument(help="Its outcome, as the schema calls it.", show_default=False)],
    node: NodeDir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Bring the outcome of a case that was observed, or asked about, before.

    Example:

    outroute confirm visit-17 yes --node north

    Exit code 1: this node knows no such case.
    """
    from outroute.store import Noted

    with open_node(node) as opened:
        noted = opened.confirm(case, outcome)
    texts = {
        Noted.CONFIRMED: "noted",
        Noted.UPDATED: "noted; it replaces the outcome known before",
        Noted.DUPLICATE: "known already",
        Noted.CONFLICT: "this case has left in a packet with another outcome; kept aside for a correction",
        Noted.UNKNOWN: "this node knows no such case: observe it, or ask with --case first",
    }
    if as_json:
        emit_json({"case": case, "result": noted.name.lower()})
    else:
        out.print(texts[noted], highlight=False)
    if noted in (Noted.UNKNOWN, Noted.CONFLICT):
        raise typer.Exit(EXIT_PROBLEMS)


@handled
def status(node: NodeDir = DEFAULT_DIR, as_json: Json = False) -> None:
    """Show what this node knows, and what has left it."""
    with open_node(node) as opened:
        counts = opened.counts()
        held = others(opened)
        own, schema = opened.id.hex(), opened.schema
    authors = len({author.tobytes() for author in held["author"]})
    if as_json:
        emit_json(
            {"node": own, "schema": schema.name, "schema_id": schema.id.hex()}
            | counts
            | {"received": {"packets": len(held), "nodes": authors}}
        )
        return
    lines = {
        "node": own,
        "schema": f"{schema.name} ({schema.id.hex()})",
        "outcomes known": f"{counts['known']:,}, of which {counts['ready']:,} are in no packet yet",
        "waiting for outcome": f"{counts['waiting']:,} cases, {counts['questions']:,} questions",
        "conflicts": f"{counts['conflicts']:,} cases changed after they left in a packet",
        "own packets": f"{sum(n for name, n in counts.items() if name.startswith('packets_')):,}: "
        + ", ".join(f"{n:,} {name[8:]}" for name, n in counts.items() if name.startswith("packets_")),
        "received": f"{several(len(held), 'packet')} of {several(authors, 'other node')} in force",
    }
    for name, value in lines.items():
        out.print(f"{name:>20}  {value}", markup=False, highlight=False)
