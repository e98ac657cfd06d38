"""Commands of one node: observe, receive, ask, confirm, status. Its state is a directory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
)
from outroute.cli._explain import show_comparison, show_explanation
from outroute.cli._explain_picture import picture
from outroute.cli._node_dir import (
    SCHEMA_FILE,
    loaded_schema,
    mapping_for,
    others,
    reach_node,
    refuse_successor,
    several,
    try_first_rows,
)
from outroute.cli._options import DEFAULT_DIR, Case, Json, MappingFile, NodeDir, Subject, Time
from outroute.cli._running import RunningNode
from outroute.cli._views import positive_class, show_insight
from outroute.cli.packet import read_packets
from outroute.errors import DataError, StoreError

if TYPE_CHECKING:
    from outroute.node import Node
    from outroute.schema import Outcome

__all__ = ["ask", "confirm", "observe", "receive", "status"]

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
    refuse_successor(node)
    own = mapping_for(node, schema, mapping, outcome, case, subject, time)
    if not (node / SCHEMA_FILE).exists():
        try_first_rows(table, own, loaded_schema(node, schema))
    with reach_node(node, schema) as opened:
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
            warn(
                f"{report.conflict:,} cases have changed after they went into a packet; the old values stand there: "
                "see outroute correct"
            )
        for problem in report.problems:
            warn(str(problem))
        say(f"Next: outroute distil --node {node}, to see what could leave.")
    if report.refused:
        raise typer.Exit(EXIT_PROBLEMS)


@handled
def receive(
    file: Annotated[Path, typer.Argument(help="Packets of other nodes.", show_default=False)],
    node: NodeDir = DEFAULT_DIR,
    schema: SchemaOption = None,
    pass_on: Annotated[
        str | None,
        typer.Option(
            "--pass-on",
            metavar="NAME",
            help="Hand them to the holders of their cells too, if the node runs; NAME lets them leave.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take packets of other nodes in; each is checked by every rule first.

    They count in this node's answers. With --pass-on a node that runs also
    brings them to the holders of their cells, so that everybody finds them:
    packets of two synthesizers, say, whose common key is nobody's node.

    Examples:

    outroute receive south.orp --node north

    outroute receive rare.orp --pass-on "Dr. Weber" --node a

    Exit code 1: some packets were refused; the others are in.
    """
    from outroute.packet import PACKET_BYTES, Rejection

    data = read_packets(file)
    passed: dict[str, int] | None = None
    with reach_node(node, schema) as opened, working(f"Checking {len(data) // PACKET_BYTES:,} packets"):
        if isinstance(opened, RunningNode):
            done = opened.client.receive(data)
            if pass_on is not None:
                passed = opened.client.pass_on(data, by=pass_on)
            refused = {Rejection[name.upper()]: number for name, number in done["refused"].items()}
            held, authors, own = (done["in_force"][name] for name in ("packets", "nodes", "own"))
        else:
            if pass_on is not None:
                raise StoreError(
                    f"only a node that runs can pass packets on: start it with outroute node --data-dir {node}, or "
                    "leave out --pass-on",
                    code="node.stopped",
                )
            refused = opened.receive(data)
            foreign = others(opened)
            held, authors = len(foreign), len({author.tobytes() for author in foreign["author"]})
            own = len(opened.received()) - held
        served = opened.schema
    count = -(-len(data) // PACKET_BYTES) - sum(refused.values())
    if as_json:
        emit_json(
            {
                "accepted": count,
                "refused": {reason.name.lower(): n for reason, n in refused.items()},
                "in_force": {"packets": held, "nodes": authors},
            }
            | ({} if passed is None else {"passed_on": passed})
        )
    else:
        out.print(
            f"{several(count, 'packet')} accepted; {several(held, 'packet')} of "
            f"{several(authors, 'other node')} in force here now",
            highlight=False,
        )
        if passed is not None:
            out.print(
                f"{several(passed['sent'], 'packet')} passed on, {passed['acknowledged']:,} kept by the holders of "
                "their cells",
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
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say who was believed and why, who agrees with whom, and which packets lost."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="With --explain: draw it as a picture (PNG, SVG or PDF).", show_default=False),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="Compare outcomes by this action, all else equal.", show_default=False),
    ] = None,
    actions: Annotated[
        str | None,
        typer.Option("--values", help="With --by: values to compare, a,b,c; default all.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask what happened to cases like this one, here and elsewhere.

    A question never leaves this node: packets near the case are ranked here.

    Examples:

    outroute ask age=54 sex=male chol=239 --node north --case visit-17

    outroute ask age=54 sex=male chol=239 --node north --explain

    outroute ask age=54 sex=male chol=239 --node north --by drug
    """
    question = _question(values)
    if by is not None:
        if explain or plot is not None or case is not None:
            raise DataError("--by compares answers: leave out --explain, --plot and --case", code="data.question")
        _compare(node, question, by, actions, as_json)
        return
    if actions is not None:
        raise DataError("--values are those of an action: name it with --by", code="data.question")
    explain = explain or plot is not None
    with reach_node(node) as opened:
        with working("Asking"):
            insight = opened.ask(question, case_id=case, explain=explain)
        own = opened.id.hex()
        positive = positive_class(opened.schema)
    if plot is not None:
        picture(insight, positive, plot)
    if as_json:
        emit_json(insight.to_dict() | {"positive": positive, "node": own})
        return
    show_insight(insight, positive=positive)
    if explain:
        show_explanation(insight, positive)
    if plot is not None:
        say(f"Picture: {plot}")
    if case is not None:
        say(f"Remembered. Once the outcome is known: outroute confirm {case} OUTCOME --node {node}")


def _compare(node: Path, question: dict[str, Any], by: str, actions: str | None, as_json: bool) -> None:
    """``ask --by``."""
    wanted = None if actions is None else [value.strip() for value in actions.split(",")]
    with reach_node(node) as opened:
        with working("Comparing"):
            found = opened.compare(question, by, wanted)
        own = opened.id.hex()
        outcome = opened.schema.outcome
        positive = positive_class(opened.schema)
    if as_json:
        emit_json(found.to_dict() | {"positive": positive, "node": own})
    else:
        show_comparison(found, positive, outcome.unit)


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

    It is a record of this node's own from then on. What calculations had said
    of the case, if it was asked with --case, is scored, and the next answer
    weighs them by it.

    Exit code 1: this node knows no such case, or it is in a packet with
    another outcome.
    """
    from outroute.store import Noted

    with reach_node(node) as opened:
        _check_outcome(opened.schema.outcome, outcome)
        noted = opened.confirm(case, outcome)
    texts = {
        Noted.CONFIRMED: "noted: an own record from now on; what was said of it before is scored, if it was asked",
        Noted.UPDATED: "noted; it replaces the outcome known before",
        Noted.DUPLICATE: "known already",
        Noted.CONFLICT: "this case is in a packet with another outcome; kept aside: see outroute correct",
        Noted.UNKNOWN: "this node knows no such case: observe it, or ask with --case first",
    }
    if as_json:
        emit_json({"case": case, "result": noted.name.lower()})
    else:
        out.print(texts[noted], highlight=False)
    if noted in (Noted.UNKNOWN, Noted.CONFLICT):
        raise typer.Exit(EXIT_PROBLEMS)


def _check_outcome(outcome: Outcome, text: str) -> None:
    """Refuse what is no outcome of the schema, without speaking of rows: there is one."""
    from outroute.schema import encode_outcome

    try:
        encode_outcome(outcome, [text])
    except DataError as error:
        if outcome.has_classes:
            allowed = f"is not one of {', '.join(outcome.classes)}"
        else:
            allowed = f"is no number from {outcome.low} to {outcome.high} {outcome.unit}".rstrip()
        raise DataError(f"outcome '{outcome.name}': '{text}' {allowed}", code=error.code) from None


@handled
def status(
    node: NodeDir = DEFAULT_DIR,
    restored: Annotated[
        bool,
        typer.Option("--restored", help="Say so after a restore from a backup: numbers go on in a new incarnation."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what this node knows, what waits for approval, and what has left it.

    A directory that was copied or moved is noticed at the next command; one
    that a backup was written over is not, so say --restored once.
    """
    with reach_node(node, restored=restored) as opened:
        found = opened.client.status() if isinstance(opened, RunningNode) else _status_of(opened)
    if as_json:
        emit_json(found)
        return
    counts = {name: count for name, count in found.items() if isinstance(count, int)}
    waiting, received, log = counts.pop("withdrawals_to_send"), found["received"], found["log"]
    network = found.get("network")
    states = {name.removeprefix("packets_"): n for name, n in counts.items() if name.startswith("packets_")}
    approved = states.pop("queued")
    lines = {
        "node": found["node"],
        "public key": found["key"],
        "schema": f"{found['schema']} ({found['schema_id']})",
        "outcomes known": f"{counts['known']:,}, of which {counts['ready']:,} are in no packet yet",
        "waiting for outcome": f"{counts['waiting']:,} cases, {counts['questions']:,} questions",
        "conflicts": f"{counts['conflicts']:,} cases changed after they went into a packet",
        "own packets": f"{sum(states.values()) + approved:,}: {states.pop('pending'):,} wait for approval, "
        f"{approved:,} approved and to be handed over, " + ", ".join(f"{n:,} {name}" for name, n in states.items()),
        "withdrawals": f"{waiting:,} to be handed over",
        "received": f"{several(received['packets'], 'packet')} of {several(received['nodes'], 'other node')} in force",
        "log": f"{log['entries']:,} entries, head {log['head']}",
    }
    if network is not None:
        place = f"at {network['endpoint']}, " if network["endpoint"] else ""
        lines["runs"] = f"{place}{several(network['peers'] - 1, 'other node')} in sight"
        lines |= {f"trouble ({name})": text for name, text in network["problems"].items()}
    for name, value in lines.items():
        out.print(f"{name:>20}  {value}", markup=False, highlight=False)
    if counts["packets_pending"]:
        say(f"Next: outroute outbox show --node {node}")
    elif (approved or waiting) and network is None:
        say(f"Next: outroute publish -o FILE --to NAME --node {node}")
    elif counts["conflicts"]:
        say(f"Next: outroute correct --by NAME --node {node}")


def _status_of(node: Node) -> dict[str, Any]:
    """What status shows of a node that does not run; the interface of one that runs gives the same."""
    from outroute.store import State

    held = others(node)
    entries, head = node.log.head()
    return (
        {"node": node.id.hex(), "key": node.key.hex(), "schema": node.schema.name, "schema_id": node.schema.id.hex()}
        | node.counts()
        | {
            "withdrawals_to_send": node.journal.outbox.summary().withdrawals[State.QUEUED],
            "received": {"packets": len(held), "nodes": len({author.tobytes() for author in held["author"]})},
            "log": {"entries": entries, "head": head},
        }
    )
