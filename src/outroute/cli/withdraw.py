"""``outroute withdraw``, ``correct`` and ``erase``: taking back what was a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, say, working
from outroute.cli._node_dir import reach_node, several
from outroute.cli._options import DEFAULT_DIR, NO_REASON, By, Json, NodeDir, Reason, subject_named
from outroute.cli._running import RunningNode
from outroute.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from outroute.node.reports import TakenBack

__all__ = ["correct", "erase", "withdraw"]

_DAY_LENGTH = len("2025-01-31")


@handled
def withdraw(
    by: By,
    packet: Annotated[
        str | None,
        typer.Option("--packet", help="This packet: digest or identity, 12 digits at least.", show_default=False),
    ] = None,
    case: Annotated[
        str | None, typer.Option("--case", help="The packet that this case is in.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Packets observed from this day on (2025-01-31), UTC.", show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Packets observed until this day, this day included.", show_default=False),
    ] = None,
    reason: Reason = NO_REASON,
    node: NodeDir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Take packets back.

    A packet that was approved gets a withdrawal, which goes where the packet
    went (outroute publish); honest nodes drop what it names and refuse it from
    then on. A packet that nobody approved is simply dropped. What is left of a
    cohort leaves again only among k new subjects. What somebody has read or
    copied meanwhile cannot be taken back. Times are kept by bucket (the schema
    says how wide): a bucket that --since or --until cuts is taken whole.

    Examples:

    outroute withdraw --packet 3f2a9c0d1122 --by "Dr. Weber" --node north

    outroute withdraw --case visit-17 --by "Dr. Weber" --reason "entered twice" --node north

    outroute withdraw --since 2025-01-01 --until 2025-01-31 --by "Dr. Weber" --node north
    """
    ways = [packet is not None, case is not None, since is not None or until is not None]
    if sum(ways) != 1:
        raise DataError("Say which packets: --packet, --case, or --since and --until", code="withdraw.which")
    wanted: dict[str, Any] = {"packet": packet, "case": case, "since": None, "until": None}
    if ways[2]:
        if since is None or until is None:
            raise DataError(
                "Give both --since and --until: an open end takes back more than meant", code="withdraw.time"
            )
        wanted |= {"since": _second(since), "until": _second(until, end=True)}
        if wanted["since"] >= wanted["until"]:
            raise DataError(f"--since {since} lies after --until {until}", code="withdraw.time")
    with reach_node(node) as opened, working("Withdrawing"):
        if ways[2]:  # a bucket that has begun before may hold what was observed since
            wanted["since"] = opened.schema.time.bucket(wanted["since"])
        if isinstance(opened, RunningNode):
            done = opened.client.withdraw(**wanted, by=by, reason=reason)
        else:
            done = _numbers(opened.withdraw(**wanted, by=by, reason=reason))
        runs = isinstance(opened, RunningNode)
    if as_json:
        emit_json(_shown(done) | {"by": by})
        return
    _tell(done, node, runs)


@handled
def correct(by: By, node: NodeDir = DEFAULT_DIR, reason: Reason = NO_REASON, as_json: Json = False) -> None:
    """Take back the packets of cases that changed after they had left, and use the new values.

    outroute status says how many such cases there are. Their packets are
    withdrawn, the new values replace the old; they leave again only among k
    new subjects.

    Example:

    outroute correct --by "Dr. Weber" --node north
    """
    with reach_node(node) as opened, working("Correcting"):
        if isinstance(opened, RunningNode):
            done = opened.client.correct(by=by, reason=reason)
        else:
            back = opened.correct(by=by, reason=reason)
            done = _numbers(back) | {"corrected": back.applied}
        runs = isinstance(opened, RunningNode)
    if as_json:
        emit_json(_shown(done) | {"corrected": done["corrected"], "by": by})
        return
    out.print(f"{several(done['corrected'], 'case')} corrected", highlight=False)
    _tell(done, node, runs)


@handled
def erase(
    subject: Annotated[
        str,
        typer.Argument(help="The subject, as its column names it; '-' reads standard input.", show_default=False),
    ],
    by: By,
    node: NodeDir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Delete everything about one subject here, and take back every packet it is in.

    Its observations and remembered questions are deleted for good, its packets
    withdrawn and blanked; the others of those cohorts stay with the node. '-'
    keeps the name of a person out of the shell's history.

    Examples:

    outroute erase patient-17 --by "Dr. Weber" --node north

    outroute erase - --by "Dr. Weber" --node north < subject.txt

    Exit code 1: this node knows nothing about this subject.
    """
    name = subject_named(subject)
    with reach_node(node) as opened, working("Erasing"):
        if isinstance(opened, RunningNode):
            done = opened.client.erase(name, by=by)
        else:
            gone = opened.erase(name, by=by)
            done = _numbers(gone.withdrawn) | {"observations": gone.observations, "questions": gone.questions}
        runs = isinstance(opened, RunningNode)
    known = bool(done["observations"] or done["questions"])
    if as_json:
        emit_json(_shown(done) | {"observations": done["observations"], "questions": done["questions"], "by": by})
    elif not known:
        out.print("This node knows nothing about this subject", highlight=False)
    if not known:
        raise typer.Exit(EXIT_PROBLEMS)
    if as_json:
        return
    out.print(
        f"{several(done['observations'], 'observation')} and {several(done['questions'], 'question')} deleted",
        highlight=False,
    )
    _tell(done, node, runs)
    say("Backups and tables outside this node are not touched: erase the subject there too.")


def _second(text: str, *, end: bool = False) -> int:
    """A day or a moment as seconds since 1970, UTC; with ``end`` a day means its end."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"'{text}' is not a day: write it as 2025-01-31", code="withdraw.time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if end and len(text) <= _DAY_LENGTH:
        moment += timedelta(days=1)
    return int(moment.timestamp())


def _numbers(done: TakenBack) -> dict[str, Any]:
    """What became of packets, as the interface of a running node says it."""
    return {
        "withdrawn": len(done.ids),
        "dropped": len(done.dropped),
        "freed": done.freed,
        "successors": {
            str(place): {"withdrawn": len(one.ids), "dropped": len(one.dropped)} for place, one in done.successors
        },
    }


def _shown(done: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: done[name] for name in ("withdrawn", "dropped", "freed")}
    return found | ({"successors": done["successors"]} if done["successors"] else {})


def _tell(done: Mapping[str, Any], node: Path, runs: bool) -> None:
    """What became of the packets here and under a successor of the schema, and what is to do next."""
    found = [(str(node), done), *done["successors"].items()]
    for place, one in found:
        if one["withdrawn"]:
            out.print(f"{several(one['withdrawn'], 'packet')} withdrawn in {place}", markup=False, highlight=False)
            if runs and place == str(node):
                say("The running node tells the others within seconds: only then they drop what they have.")
            else:
                say(f"Next: outroute publish -o FILE --to NAME --node {place}: only then others drop what they have.")
        if one["dropped"]:
            text = f"{several(one['dropped'], 'packet')} dropped in {place}; nobody had approved them"
            out.print(text, markup=False, highlight=False)
    if not any(one["withdrawn"] or one["dropped"] for _, one in found):
        out.print("No packet had to be taken back", highlight=False)
