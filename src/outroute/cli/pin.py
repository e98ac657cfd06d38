"""``outroute pin`` and ``outroute unpin``: nodes that the operator believes whatever they say."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from outroute.cli._common import emit_json, handled, out, print_table, say
from outroute.cli._node_dir import reach_node
from outroute.cli._options import DEFAULT_DIR, NO_REASON, Json, NodeDir
from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.node.choosing import Pin

__all__ = ["pin", "unpin"]

Why = Annotated[str, typer.Option("--why", help="The reason, in a line for the log.", show_default=False)]


@handled
def pin(
    peer: Annotated[
        str | None,
        typer.Argument(help="The node's id, or the start of it; without one, those pinned are listed."),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Who decides this; it stands in the log.")] = "",
    why: Why = NO_REASON,
    node: NodeDir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Believe a node whatever it says, from the next question on.

    For nodes whose outcomes somebody has checked: what they say counts in
    full, and while this node has few outcomes of its own, other nodes are
    judged by them. A pinned node that turns is believed until it is unpinned.

    Examples:

    outroute pin 3f9a0c51d2b7 --by "Dr. Weber" --why "audited in May" --node north

    outroute pin --node north
    """
    with reach_node(node) as opened:
        if peer is None:
            found = opened.pins()
            if as_json:
                emit_json({"pinned": [asdict(one) for one in found]})
            else:
                _table(found)
            return
        if not by:
            raise DataError("say who pins the node with --by: it stands in the log", code="pin.text")
        made = opened.pin(peer, by=by, why=why)
    if as_json:
        emit_json(asdict(made))
        return
    out.print(f"node {made.node[:16]} is believed whatever it says", highlight=False)
    say(f"To judge it by what it says again: outroute unpin {made.node[:16]} --by NAME --node {node}")


@handled
def unpin(
    peer: Annotated[str, typer.Argument(help="The node's id, or the start of it.", show_default=False)],
    by: Annotated[str, typer.Option("--by", help="Who decides this; it stands in the log.", show_default=False)],
    why: Why = NO_REASON,
    node: NodeDir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Judge a pinned node by what it says again.

    Example:

    outroute unpin 3f9a0c51d2b7 --by "Dr. Weber" --node north
    """
    with reach_node(node) as opened:
        gone = opened.unpin(peer, by=by, why=why)
    if as_json:
        emit_json(asdict(gone))
    else:
        out.print(f"node {gone.node[:16]} is judged by what it says again", highlight=False)


def _table(pins: tuple[Pin, ...]) -> None:
    from rich.table import Table

    if not pins:
        out.print("No node is pinned.")
        return
    table = Table()
    for name in ("node", "pinned by", "since", "why"):
        table.add_column(name)
    for one in pins:
        table.add_row(one.node[:16], one.by, datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%d"), one.why)
    print_table(table)
