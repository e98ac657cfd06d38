"""``outroute peers``: whom the running node sees."""

from __future__ import annotations

import time

from rich.table import Table

from outroute.cli._common import emit_json, handled, out, print_table, say
from outroute.cli._node_dir import several
from outroute.cli._options import DEFAULT_DIR, Json, NodeDir
from outroute.cli._running import find_running
from outroute.errors import StoreError

__all__ = ["peers"]


@handled
def peers(node: NodeDir = DEFAULT_DIR, as_json: Json = False) -> None:
    """Show the live members of the network, as the running node knows them.

    Example:

    outroute peers --node north
    """
    running = find_running(node)
    if running is None:
        raise StoreError(
            f"No node runs in '{node}': start it with outroute node --data-dir {node}", code="node.stopped"
        )
    with running:
        found = running.client.peers()
    if as_json:
        emit_json(found)
        return
    table = Table()
    for name in ("node", "organisation", "reached at", "roles", "announced for"):
        table.add_column(name, overflow="fold")
    for one in found["peers"]:
        organisation = one["organisation"]
        table.add_row(
            one["node"][:16] + (" (this one)" if one["self"] else ""),
            organisation[:16] if organisation else "its own",
            one["endpoint"] or "calls others only",
            ", ".join(one["roles"]),
            f"{max(0, one['expires'] - int(time.time()))} s",
        )
    print_table(table)
    out.print(f"{several(len(found['peers']), 'member')} in sight; about {found['size']:,} in all", highlight=False)
    if len(found["peers"]) == 1:
        say("Alone: start others with --join, or see outroute doctor.")
