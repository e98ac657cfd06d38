"""All commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from outroute.cli import _members  # noqa: F401  (a command of org_app)
from outroute.cli.audit import audit
from outroute.cli.budget import budget
from outroute.cli.data import data_app
from outroute.cli.demo import demo
from outroute.cli.doctor import doctor
from outroute.cli.evaluate import evaluate
from outroute.cli.gateway import gateway
from outroute.cli.groups import groups
from outroute.cli.leave import distil, publish
from outroute.cli.log import log_app
from outroute.cli.node import ask, confirm, observe, receive, status
from outroute.cli.org import org_app
from outroute.cli.outbox import outbox_app
from outroute.cli.packet import packet_app
from outroute.cli.paths import paths
from outroute.cli.peers import peers
from outroute.cli.pin import pin, unpin
from outroute.cli.schema import schema_app
from outroute.cli.serve import node
from outroute.cli.shares import shares_app
from outroute.cli.swarm import swarm
from outroute.cli.transports import transports
from outroute.cli.walls import walls
from outroute.cli.withdraw import correct, erase, withdraw

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="rich",
    help="Outcome routing: nodes that may not share records and will not share a model still learn from each other. "
    "Start with [bold]outroute demo[/bold]; then try your own table with [bold]outroute evaluate[/bold].",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from outroute import __version__

        typer.echo(f"outroute {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


_TRY, _NODE, _LEAVE, _LOOK = "Try it", "Run a node", "Decide what leaves, and take it back", "Agree and look inside"
app.command(rich_help_panel=_TRY)(demo)
app.command(rich_help_panel=_TRY)(evaluate)
app.command(rich_help_panel=_TRY)(walls)
app.command(rich_help_panel=_TRY)(audit)
app.add_typer(data_app, name="data", rich_help_panel=_TRY)
app.command(rich_help_panel=_NODE)(node)
app.command(rich_help_panel=_NODE)(gateway)
app.command(rich_help_panel=_NODE)(observe)
app.command(rich_help_panel=_NODE)(receive)
app.command(rich_help_panel=_NODE)(ask)
app.command(rich_help_panel=_NODE)(confirm)
app.command(rich_help_panel=_NODE)(paths)
app.command(rich_help_panel=_NODE)(pin)
app.command(rich_help_panel=_NODE)(unpin)
app.command(rich_help_panel=_NODE)(groups)
app.command(rich_help_panel=_NODE)(status)
app.command(rich_help_panel=_NODE)(peers)
app.command(rich_help_panel=_NODE)(doctor)
app.command(rich_help_panel=_NODE)(swarm)
app.command(rich_help_panel=_NODE)(transports)
app.command(rich_help_panel=_LEAVE)(distil)
app.command(rich_help_panel=_LEAVE)(budget)
app.add_typer(outbox_app, name="outbox", rich_help_panel=_LEAVE)
app.command(rich_help_panel=_LEAVE)(publish)
app.add_typer(shares_app, name="shares", rich_help_panel=_LEAVE)
app.command(rich_help_panel=_LEAVE)(withdraw)
app.command(rich_help_panel=_LEAVE)(correct)
app.command(rich_help_panel=_LEAVE)(erase)
app.add_typer(log_app, name="log", rich_help_panel=_LEAVE)
app.add_typer(schema_app, name="schema", rich_help_panel=_LOOK)
app.add_typer(org_app, name="org", rich_help_panel=_LOOK)
app.add_typer(packet_app, name="packet", rich_help_panel=_LOOK)
