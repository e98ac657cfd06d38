"""``outroute distil`` and ``outroute publish``: into the outbox, and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outroute.cli._common import emit_json, handled, out, say, warn, working, write_files
from outroute.cli._node_dir import keep_rules, reach_node, several
from outroute.cli._options import DEFAULT_DIR, Force, Json, NodeDir
from outroute.cli._running import RunningNode, find_running
from outroute.cli._views import AGREEING
from outroute.errors import DataError, StoreError, TransportError
from outroute.service.server_file import where_is

if TYPE_CHECKING:
    from outroute.node.reports import Distillation, HandedOver

__all__ = ["distil", "publish"]


@handled
def distil(
    node: NodeDir = DEFAULT_DIR,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Subjects in a packet; never below the schema's floor.")
    ] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Leave observations waiting until similar ones have come together.")
    ] = False,
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules",
            help="Approve by itself what keeps these bounds (TOML), from now on; the node keeps a copy.",
            show_default=False,
        ),
    ] = None,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="Forget the rules: approve by hand from now on.")] = False,
    as_json: Json = False,
) -> None:
    """Condense observations into packets in the outbox, and say what is withheld.

    A packet condenses at least k subjects. Nothing leaves by this: what is
    made waits for approval of its exact bytes (outroute outbox), unless rules
    approve it or the schema's distiller is single.

    Under the distiller private this is the release of the current time bucket:
    a packet for every cell, with noise, made once a bucket and so many times
    over the node's lifetime (outroute budget). Make it by the calendar.

    Examples:

    outroute distil --node north

    outroute distil --rules rules.toml --node north
    """
    if rules is not None and by_hand:
        raise DataError("Give --rules or --by-hand, not both", code="rules.both")
    if rules is not None or by_hand:
        keep_rules(node, rules)
    with reach_node(node) as opened:
        with working("Distilling"):
            made = opened.distil(k=k, streaming=streaming)
        counts = opened.counts()
        runs = isinstance(opened, RunningNode)
        private = opened.schema.privacy.epsilon is not None
    pending = counts["packets_pending"]
    withheld = {reason.name.lower(): count for reason, count in made.withheld.items()}
    if as_json:
        emit_json(
            {
                "packets": made.packets,
                "observations": made.observations,
                "withheld": withheld,
                "agreeing": made.agreeing,
                "k": made.k,
                "approved": made.approved,
                "approved_by": made.approved_by or None,
                "pending": pending,
            }
        )
        return
    if private:
        _say_release(made)
    else:
        out.print(
            f"{several(made.packets, 'new packet')} from {made.observations:,} observations, at least {made.k} "
            f"subjects each; {several(pending, 'packet')} in the outbox {'wait' if pending != 1 else 'waits'} for "
            "approval",
            highlight=False,
        )
    if made.approved:
        out.print(f"{made.approved:,} approved by {made.approved_by}", markup=False, highlight=False)
    for reason, count in withheld.items():
        out.print(f"{count:,} observations stay: {reason.replace('_', ' ')}", highlight=False)
    if made.agreeing:
        warn(f"in {made.agreeing:,} packets {AGREEING}")
    if pending:
        say(f"Next: outroute outbox show --node {node}. Nothing has left.")
    elif made.approved and not runs:
        say(f"Next: outroute publish -o FILE --to NAME --node {node}")


def _say_release(made: Distillation) -> None:
    """What a release with noise is."""
    if made.packets:
        out.print(
            f"{several(made.packets, 'packet')}, one for each cell whether anybody was observed there or not, with "
            f"noise on every count, from {made.observations:,} observations",
            highlight=False,
        )
        say("It is counted as spent (outroute budget), and leaves whole or not at all.")
    else:
        out.print("No release: this time bucket had one, or no cell holds enough to be told. See outroute budget")


@handled
def publish(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write what goes to them here.", show_default=False)
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Who gets the file; it stands in the log.", show_default=False)
    ] = None,
    node: NodeDir = DEFAULT_DIR,
    again: Annotated[
        bool, typer.Option("--all", help="Also what was handed over before, for somebody new or a file that was lost.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Hand over what is approved, withdrawals first; nothing else leaves.

    Example:

    outroute publish -o north.orp --to south --node north
    """
    if output is None or to is None:
        if where_is(node) is not None and find_running(node) is not None:
            raise StoreError(
                "This node runs and hands over what is approved by itself: see outroute status. To write a file "
                "besides, give -o FILE --to NAME --all",
                code="node.running",
            )
        raise TransportError(
            "This node does not run: outroute node makes it part of a network, where it hands over by itself. Without "
            "one, give -o FILE --to NAME, and the receiver runs outroute receive FILE",
            code="publish.file",
        )
    writable(output, force)
    with reach_node(node) as opened:
        runs = isinstance(opened, RunningNode)
        with working("Writing what is approved"):
            if isinstance(opened, RunningNode):
                handed = _written(opened, output, to, again=again)
            else:
                handed = opened.hand_over(output, to=to, again=again)
        pending = opened.counts()["packets_pending"]
    if as_json:
        emit_json(
            {
                "packets": handed.packets,
                "withdrawals": handed.withdrawals,
                "bytes": handed.bytes,
                "to": to,
                "pending": pending,
                "file": str(output) if handed.bytes else None,
            }
        )
        return
    if handed.bytes:
        out.print(
            f"{several(handed.packets, 'packet')} and {several(handed.withdrawals, 'withdrawal')} for {to}, "
            f"{handed.bytes:,} bytes, in {output}",
            markup=False,
            highlight=False,
        )
        say(f"They run: outroute receive {output.name}. What has left cannot be made unread; see outroute withdraw.")
    else:
        out.print("Nothing approved waits to be handed over; no file was written", highlight=False)
        if runs and not again:
            say("The running node hands over by itself what is approved; --all writes that to a file too.")
    if pending:
        say(
            f"{several(pending, 'packet')} still {'wait' if pending != 1 else 'waits'} for approval: outroute outbox "
            f"show --node {node}"
        )


def _written(running: RunningNode, output: Path, to: str, *, again: bool) -> HandedOver:
    """What a running node hands over, in a file; it counts as handed over before the file is there."""
    from outroute.node.reports import HandedOver

    content, packets, withdrawals = running.client.hand_over(to=to, again=again)
    if content:
        try:
            write_files({output: content}, force=True)
        except OSError as error:
            raise StoreError(
                f"cannot write '{output}': {error.strerror}; the node counts it as handed over: give --all next time",
                code="file.write",
            ) from None
    return HandedOver(packets=packets, withdrawals=withdrawals, content=content)


def writable(path: Path, force: bool) -> None:
    """Refuse an output that cannot be written before anything is noted as handed over."""
    if path.exists() and not force:
        raise DataError(f"'{path}' exists already; --force replaces it", code="file.exists")
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; give a file name", code="file.exists")
    if not path.absolute().parent.is_dir():
        raise DataError(f"There is no folder '{path.absolute().parent}'; make it first", code="file.folder")
