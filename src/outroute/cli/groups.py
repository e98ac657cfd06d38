"""``outroute groups``: which nodes of a fleet belong together, by their operator's word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outroute.cli._common import emit_json, handled, out, print_table, say, write_files
from outroute.cli._node_dir import GROUPS_FILE, kept_groups, prepare
from outroute.cli._options import DEFAULT_DIR, Json, NodeDir
from outroute.cli._running import find_running
from outroute.errors import DataError

__all__ = ["groups"]


@handled
def groups(
    file: Annotated[
        Path | None, typer.Argument(help="CSV with the columns node and group.", show_default=False)
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Declare none any more.")] = False,
    node: NodeDir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Declare groups of a fleet's nodes, such as each device's model.

    While a node has no outcomes of its own, it judges others by what most
    organisations say. One organisation's fleet has no such majority: there,
    what most declared groups say is believed. Nodes that are in no group are
    one together, and groups do not count where three organisations or more
    certify nodes. Without a file, the groups declared are listed.

    Examples:

    outroute groups models.csv --node gateway

    outroute groups --node gateway
    """
    from outroute.node.groups import load_groups, sizes

    if file is not None and clear:
        raise DataError("give a file of groups, or --clear, not both", code="groups.both")
    prepare(node, None)
    kept = node / GROUPS_FILE
    if clear:
        kept.unlink(missing_ok=True)
    elif file is not None:
        load_groups(file)
        write_files({kept: file.read_text(encoding="utf-8-sig")}, force=True)
    found = sizes(kept_groups(node))
    if as_json:
        emit_json({"groups": found, "nodes": sum(found.values())})
    elif not found:
        out.print("No groups are declared.")
    else:
        from rich.table import Table

        table = Table()
        table.add_column("group")
        table.add_column("nodes", justify="right")
        for name, count in found.items():
            table.add_row(name, f"{count:,}")
        print_table(table)
    if clear or file is not None:
        running = find_running(node)
        if running is not None:
            running.close()
            say("The node runs: this counts from its next start.")
