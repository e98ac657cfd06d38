"""``outroute budget``: what was spent of the differential privacy that the schema promises."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, say, warn, working
from outroute.cli._node_dir import reach_node, several
from outroute.cli._options import DEFAULT_DIR, Json, NodeDir, subject_named
from outroute.cli._running import RunningNode
from outroute.errors import DataError

__all__ = ["budget"]


@handled
def budget(
    node: NodeDir = DEFAULT_DIR,
    vouch: Annotated[
        bool, typer.Option("--vouch", help="Nothing was released since the backup, and no copy of the node runs.")
    ] = False,
    by: Annotated[
        str | None, typer.Option("--by", help="Who vouches; it stands in the log.", show_default=False)
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="About this subject, as its column names it; '-' reads standard input.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was spent of the privacy that the schema promises, and what is left.

    Under the distiller private a node makes so many releases over its
    lifetime, and each subject gives so many records in all of them together.
    Releases under predecessors of the schema count too. When all are made, the
    node stops by itself: it goes on answering and asking.

    A directory that was copied, moved or restored from a backup does not know
    what was released since, so it releases nothing until somebody vouches
    that nothing was. It refuses where that is seen to be wrong.

    Examples:

    outroute budget --node north

    outroute budget --subject patient-17 --node north

    outroute budget --vouch --by "Dr. Weber" --node north

    Exit code 1: --subject, and this node knows nothing about it.
    """
    if vouch != (by is not None):
        raise DataError("--vouch and --by go together: say who vouches", code="budget.by")
    if subject is not None:
        if vouch:
            raise DataError("--vouch is about the whole node: leave out --subject", code="budget.subject")
        _about(node, subject_named(subject), as_json)
        return
    with reach_node(node) as opened, working("Adding up"):
        if isinstance(opened, RunningNode):
            found = opened.client.vouch(by=by) if by is not None else opened.client.budget()
        else:
            found = (opened.vouch(by=by) if by is not None else opened.budget()).to_dict()
    if as_json:
        emit_json(found)
        return
    _show(found)


def _about(node: Path, subject: str, as_json: bool) -> None:
    """Tell what one subject has given."""
    with reach_node(node) as opened:
        found = (
            opened.client.budget_of(subject) if isinstance(opened, RunningNode) else opened.budget_of(subject).to_dict()
        )
    if as_json:
        emit_json(found)
    elif not found["known"]:
        out.print("This node knows nothing about this subject", highlight=False)
    else:
        epsilon, records = found["epsilon"], found["records"]
        before = epsilon["spent_under_predecessors"]
        for label, text in (
            ("spent", f"epsilon {epsilon['spent']} of {epsilon['promised']}"),
            ("before", "" if before == "0" else f"epsilon {before} under predecessors of the schema"),
            ("records", f"{records['observed']:,} here, {records['given']:,} in releases"),
            ("left", f"{several(records['left'], 'record')} may still leave, in all releases to come together"),
            ("ended", "" if found["ended"] is None else _ENDED[found["ended"]]),
        ):
            if text:
                out.print(f"{label:>13}  {text}", markup=False, highlight=False)
    if not found["known"]:
        raise typer.Exit(EXIT_PROBLEMS)


_ENDED = {
    "erased": "it was erased, and gives nothing more",
    "left before without a promise": "it left under a predecessor that promised nothing, and gives nothing more",
}
_DOUBTS = {
    "copied": "this directory was copied, moved or restored: if nothing was released since, say so with --vouch --by",
    "set back": "an older journal was put back, which lacks releases that were made. Put the newest journal.db back",
    "seen": "the network has packets of this node that it does not know: put the newest journal.db back",
}


def _show(found: Mapping[str, Any]) -> None:
    chance = "" if found["delta"] == "0" else f", delta {found['delta']}"
    given = {int(n): count for n, count in found["subjects"]["by_records_given"].items()}
    lines = [
        ("schema", found["schema"]),
        (
            "promised",
            f"epsilon {found['epsilon']}{chance} for each subject over this node's lifetime, at most "
            f"{several(found['records_per_subject'], 'record')} of each",
        ),
        ("releases", f"{found['releases_made']:,} of {found['releases']:,} made, {found['releases_left']:,} left"),
        ("next release", _when(found["next_release"])),
        ("most spent", f"epsilon {found['most_epsilon_of_one_subject']} on one subject, under this schema"),
        ("records", f"{found['records']['waiting']:,} wait, {found['records']['exhausted']:,} can leave no more"),
    ]
    for before in found["predecessors"]:
        promise = f"epsilon {before['epsilon']}" if before["epsilon"] else "nothing was promised"
        lines.append(("before", f"{several(before['releases'], 'release')} under '{before['name']}' ({promise})"))
    for label, text in lines:
        out.print(f"{label:>13}  {text}", markup=False, highlight=False)
    for records, count in sorted(given.items()):
        say(f"{several(count, 'subject')} gave {several(records, 'record')}")
    subjects = found["subjects"]
    for name, text in (
        ("erased", "was erased, and gives nothing more"),
        ("left_before_without_a_promise", "left under a predecessor that promised nothing, and gives nothing more"),
        ("bound_by_predecessors", "gives less, because of what it gave under predecessors"),
    ):
        if subjects[name]:
            say(f"{several(subjects[name], 'subject')} {text}")
    if found["doubt"] is not None:
        warn(f"nothing is released: {_DOUBTS[found['doubt']]}")
    elif found["spent"]:
        warn("the budget is spent: this node releases nothing more; it goes on answering, asking and keeping packets")


def _when(seconds: int | None) -> str:
    if seconds is None:
        return "none"
    moment = datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M")
    return f"from {moment} UTC on, by the calendar: not when enough was observed"
