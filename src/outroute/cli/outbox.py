"""``outroute outbox``: what would leave, seen and decided before it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from outroute.cli._common import emit_json, handled, out, print_table, say, warn, working, write_files
from outroute.cli._node_dir import reach_node, several
from outroute.cli._options import DEFAULT_DIR, By, Force, Json, NodeDir
from outroute.cli._running import RunningNode
from outroute.cli._views import AGREEING
from outroute.errors import DataError, StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from outroute.node import Node
    from outroute.schema import Schema
    from outroute.store import Queued

__all__ = ["outbox_app"]

PAGE = 5
"""Packets shown when nobody says how many: what a screen holds."""
MOST_SHOWN = 10_000
"""Packets of one page; --after goes on from there."""
DIGITS = 16
"""Hexadecimal digits of a digest in a list; 12 name a packet."""
ALL = 2**62

outbox_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="What would leave: look at it, hand it to a reviewer, approve or reject exactly these bytes.",
)


class Shown(StrEnum):
    """How far a packet of the outbox has come, as the commands call it."""

    PENDING = "pending"
    APPROVED = "approved"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    ALL = "all"


StateOption = Annotated[Shown, typer.Option("--state", help="Only packets that have come so far.")]
Agreeing = Annotated[bool, typer.Option("--agreeing", help="Only packets whose outcomes all agree.")]
Small = Annotated[
    int | None,
    typer.Option("--subjects", min=1, help="Only packets of at most so many subjects.", show_default=False),
]
Digest = Annotated[
    str,
    typer.Argument(
        help="SHA-256 of an exported file, or the digest of one packet; its first 12 digits are enough.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """Packets that a command is about.

    Attributes:
        queued: all of them, in outbox order.
        digest: of their bytes one after the other, in hex, when they can be approved together.
    """

    queued: Queued
    digest: str | None


@outbox_app.command()
@handled
def show(
    packet: Annotated[
        str | None,
        typer.Argument(help="Digest or identity of one packet: shown byte by byte.", show_default=False),
    ] = None,
    node: NodeDir = DEFAULT_DIR,
    first: Annotated[int, typer.Option(min=1, max=MOST_SHOWN, help="How many packets to show.")] = PAGE,
    after: Annotated[int, typer.Option(min=0, help="Go on after the packet with this number.")] = 0,
    state: StateOption = Shown.PENDING,
    agreeing: Agreeing = False,
    subjects: Small = None,
    as_json: Json = False,
) -> None:
    """Show what would leave, in units and categories; nothing leaves by this.

    The digest stands for everything selected, also for what is on other pages:
    approving it lets exactly these bytes leave and no others. With a packet's
    digest, its 512 bytes are shown in hex beside what they say.

    Examples:

    outroute outbox show --node north --first 20

    outroute outbox show --node north --agreeing

    outroute outbox show 3f2a9c0d1122 --node north
    """
    with reach_node(node) as opened:
        if packet is not None:
            _show_one(opened, packet, as_json=as_json)
            return
        with working("Reading the outbox"):
            chosen = _select(opened, state, agreeing=agreeing, most=subjects)
        _show_page(opened.schema, chosen, state, node, first=first, after=after, as_json=as_json)


@outbox_app.command()
@handled
def export(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Write the bytes that would leave here.", show_default=False)
    ],
    readable: Annotated[
        Path | None,
        typer.Option("--readable", help="Write them as a table for a spreadsheet (CSV) besides.", show_default=False),
    ] = None,
    node: NodeDir = DEFAULT_DIR,
    agreeing: Agreeing = False,
    subjects: Small = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write what waits for approval to a file, for a review elsewhere.

    The SHA-256 of the file (sha256sum FILE) is the digest to approve: a
    reviewer can name the bytes with a tool of their own. Nothing is approved
    by this; hand the file to nobody else.

    Example:

    outroute outbox export -o review.orp --readable review.csv --node north
    """
    from outroute.cli._readable import table_csv

    with reach_node(node) as opened, working("Writing what waits for approval"):
        chosen = _select(opened, Shown.PENDING, agreeing=agreeing, most=subjects)
        if chosen.digest is None:
            raise StoreError("No packet waits for approval: outroute distil makes some", code="outbox.empty")
        packets = chosen.queued.packets
        files: dict[Path, str | bytes] = {output: packets.tobytes()}
        if readable is not None:
            # A spreadsheet knows by the mark that the text is UTF-8.
            files[readable] = "\ufeff" + table_csv(opened.schema, chosen.queued)
        if hashlib.sha256(packets.tobytes()).hexdigest() != chosen.digest:
            raise StoreError("The packets changed while they were read: run the command again", code="outbox.changed")
        write_files(files, force=force)
    if as_json:
        emit_json(
            {
                "packets": len(packets),
                "bytes": packets.nbytes,
                "digest": chosen.digest,
                "file": str(output),
                "readable": None if readable is None else str(readable),
            }
        )
        return
    out.print(f"{several(len(packets), 'packet')}, {packets.nbytes:,} bytes, in {output}", highlight=False)
    out.print(f"digest {chosen.digest}", highlight=False)
    say(f"The same as: sha256sum {output}. Then: outroute outbox approve DIGEST --by NAME --node {node}")


@outbox_app.command()
@handled
def approve(digest: Digest, by: By, node: NodeDir = DEFAULT_DIR, as_json: Json = False) -> None:
    """Let exactly these bytes leave; outroute publish then hands them over.

    The stored bytes are hashed again: nothing is approved if one of them is
    another than at the review, or is not pending any more.

    Example:

    outroute outbox approve 3f2a9c0d1122 --by "Dr. Weber" --node north
    """
    with reach_node(node) as opened, working("Comparing the bytes"):
        done = opened.approve(digest, by=by)
        runs = isinstance(opened, RunningNode)
    if as_json:
        emit_json({"approved": len(done.ids), "digest": done.digest.hex(), "by": by})
        return
    out.print(f"{several(len(done.ids), 'packet')} approved by {by}", markup=False, highlight=False)
    if runs:
        say(f"The running node hands them over within seconds; see outroute status --node {node}.")
    else:
        say(f"Next: outroute publish -o FILE --to NAME --node {node}. Until then nothing has left.")


@outbox_app.command()
@handled
def reject(
    digest: Digest,
    by: By,
    node: NodeDir = DEFAULT_DIR,
    again: Annotated[
        bool, typer.Option("--again", help="Their observations may be condensed again, into other packets.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide that these bytes never leave.

    Their observations stay in the node's own answers and go into no other
    packet, unless --again says so.

    Example:

    outroute outbox reject 3f2a9c0d1122 --by "Dr. Weber" --node north
    """
    with reach_node(node) as opened, working("Rejecting"):
        done = opened.reject(digest, by=by, again=again)
    if as_json:
        emit_json({"rejected": len(done.ids), "digest": done.digest.hex(), "by": by, "again": again})
        return
    out.print(f"{several(len(done.ids), 'packet')} rejected by {by}; they never leave", markup=False, highlight=False)
    if again:
        say(f"Their observations are free again: outroute distil --node {node}")
    else:
        say("Their observations go into no other packet; reject the same digest with --again to allow it.")


def _select(node: Node | RunningNode, state: Shown, *, agreeing: bool, most: int | None) -> _Selection:
    """The packets of a state that pass the filters; pending ones are put together as a review."""
    from outroute.cli import _readable
    from outroute.packet import agreeing as packets_agreeing
    from outroute.store import Kind, State

    named = {Shown.ALL: (), Shown.APPROVED: (State.QUEUED,)}
    states = named[state] if state in named else (State[state.name],)
    queued = node.journal.outbox.page(*states, limit=ALL)
    keep: NDArray[np.bool_] = np.ones(len(queued), dtype=bool)
    if agreeing or most is not None:
        keep &= (queued.kinds == Kind.PACKET) & (queued.packets["size"] > 0)
    if agreeing:
        keep &= packets_agreeing(node.schema, queued.packets)
    if most is not None:
        keep &= _readable.subjects(queued.packets) <= most
    if not keep.all():
        queued = queued.where(keep)
    if state is not Shown.PENDING or not len(queued):
        return _Selection(queued=queued, digest=None)
    return _Selection(queued=queued, digest=node.review(queued.ids).digest.hex())


def _show_page(
    schema: Schema, chosen: _Selection, state: Shown, node: Path, *, first: int, after: int, as_json: bool
) -> None:
    from outroute.cli import _readable

    queued = chosen.queued
    start = int(np.searchsorted(queued.ids, after, side="right"))
    shown = [_readable.record(schema, queued, i) for i in range(start, min(start + first, len(queued)))]
    left = len(queued) - start - len(shown)
    totals = _totals(schema, queued)
    if as_json:
        emit_json(
            totals
            | {
                "state": state.value,
                "digest": chosen.digest,
                "shown": shown,
                "next_after": shown[-1]["number"] if shown and left > 0 else None,
            }
        )
        return
    what = "wait for approval" if state is Shown.PENDING else "of any state" if state is Shown.ALL else state.value
    if not len(queued):
        say(f"No packets {what}." + (" Next: outroute distil." if state is Shown.PENDING else ""))
        return
    out.print(f"[bold]{several(len(queued), 'packet')} {what}[/bold], {totals['bytes']:,} bytes", highlight=False)
    if schema.privacy.epsilon is not None:
        out.print("counts with noise, of every cell there is, whether anybody was observed there or not")
    elif totals["observations"]:
        low, high = totals["subjects"]["least"], totals["subjects"]["most"]
        out.print(f"{totals['observations']:,} observations, cohorts of {low:,} to {high:,} subjects", highlight=False)
    for view in shown:
        _card(schema, view)
    if totals["outcomes_agree"]:
        warn(f"in {totals['outcomes_agree']:,} of them {AGREEING} (--agreeing shows them)")
    if left > 0 and shown:
        say(f"{left:,} more: --after {shown[-1]['number']}")
    if chosen.digest is not None:
        out.print(f"digest of all {len(queued):,}: {chosen.digest}", highlight=False)
        say(
            f"Next: outroute outbox approve DIGEST --by NAME --node {node}; one packet byte by byte: outroute outbox "
            f"show DIGEST; for a review elsewhere: outroute outbox export -o review.orp --node {node}"
        )


def _totals(schema: Schema, queued: Queued) -> dict[str, Any]:
    """What is said of many packets at once."""
    from outroute.cli import _readable
    from outroute.packet import agreeing as packets_agreeing

    whole = queued.packets[queued.packets["size"] > 0]
    counts = _readable.subjects(whole)
    return {
        "packets": len(queued),
        "bytes": queued.packets.nbytes,
        "observations": int(whole["size"].sum(dtype=np.int64)),
        "subjects": {"least": int(counts.min()), "most": int(counts.max())} if len(whole) else None,
        "outcomes_agree": int(packets_agreeing(schema, whole).sum()),
    }


def _card(schema: Schema, view: Mapping[str, Any]) -> None:
    """One packet of a page."""
    out.print()
    out.print(
        f"{view['kind']} {view['number']}, {view['state']}, digest {view['digest'][:DIGITS]}",
        style="bold",
        markup=False,
    )
    lines: dict[str, str] = {}
    if view["kind"] == "packet":
        said = dict(view["readable"])
        outcome = said.pop(schema.outcome.name)
        if view["subjects"] is None:
            lines["condenses"] = f"{view['observations']:,} observations, counted with noise"
        else:
            lines["condenses"] = f"{view['observations']:,} observations of {view['subjects']:,} subjects"
        lines["conditions"] = "; ".join(f"{name} {value}" for name, value in said.items())
        lines["outcome"] = f"{schema.outcome.name}: {outcome}"
        lines["observed"] = f"{view['observed_from']} to before {view['observed_before']}"
    elif view["kind"] == "withdrawal":
        lines["takes back"] = f"packet {view['withdraws']}; carries no conditions and no outcome"
    else:
        lines["erased"] = "only its place is left"
    if "expires" in view:
        lines["expires"] = view["expires"]
    lines["bytes"] = f"{view['bytes']}"
    if view.get("outcomes_agree"):
        lines["CAUTION"] = AGREEING
    for name, text in lines.items():
        out.print(f"{name:>12}  {text}", markup=False, highlight=False, style="yellow" if name == "CAUTION" else None)


def _show_one(node: Node | RunningNode, prefix: str, *, as_json: bool) -> None:
    """One packet, each byte beside what it says."""
    from rich.table import Table
    from rich.text import Text

    from outroute.cli import _readable

    found = node.journal.outbox.find(prefix)
    if len(found) != 1:
        raise DataError(
            f"No packet of this outbox has a digest or identity that begins with '{prefix}': see outroute outbox show "
            "--state all"
            if not len(found)
            else f"{len(found)} packets begin with '{prefix}': give more digits",
            code="outbox.digest",
        )
    view = _readable.record(node.schema, found, 0)
    parts = _readable.parts_of(node.schema, found.packets)
    if as_json:
        sides = [{"first": part.first, "hex": part.data.hex(), "says": part.says} for part in parts]
        emit_json(view | {"side_by_side": sides})
        return
    table = Table(title=f"{view['kind']} {view['number']}, {view['state']}", title_justify="left", title_style="bold")
    for heading in ("bytes", "in hex", "what it says"):
        table.add_column(heading, overflow="fold")
    for part in parts:
        table.add_row(part.place, _hex(part.data), Text(part.says))
    print_table(table)
    out.print(f"digest {view['digest']}", highlight=False)
    if view.get("outcomes_agree"):
        warn(AGREEING)


_LINE_BYTES = 16
"""Bytes of a line of hex."""


def _hex(data: bytes) -> str:
    """Bytes in hex, in lines; long runs of zeros are counted."""
    if len(data) > _LINE_BYTES and not any(data):
        return f"00 ({len(data)} times)"
    return "\n".join(data[at : at + _LINE_BYTES].hex(" ") for at in range(0, len(data), _LINE_BYTES))
