"""All commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from outroute.cli.demo import demo
from outroute.cli.evaluate import evaluate
from outroute.cli.node import ask, confirm, distil, observe, receive, status
from outroute.cli.packet import packet_app
from outroute.cli.schema import schema_app

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


_TRY, _NODE, _LOOK = "Try it", "Run a node", "Agree and look inside"
app.command(rich_help_panel=_TRY)(demo)
app.command(rich_help_panel=_TRY)(evaluate)
app.command(rich_help_panel=_NODE)(observe)
app.command(rich_help_panel=_NODE)(distil)
app.command(rich_help_panel=_NODE)(receive)
app.command(rich_help_panel=_NODE)(ask)
app.command(rich_help_panel=_NODE)(confirm)
app.command(rich_help_panel=_NODE)(status)
app.add_typer(schema_app, name="schema", rich_help_panel=_LOOK)
app.add_typer(packet_app, name="packet", rich_help_panel=_LOOK)
