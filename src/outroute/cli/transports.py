"""``outroute transports``: what can carry a network, and what each promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from outroute.cli._common import emit_json, handled, out, print_table, say, warn
from outroute.cli._options import Json

if TYPE_CHECKING:
    from outroute.transports.registry import Entry

__all__ = ["transports"]

_PROMISES = ("durable", "ordered", "back_pressure", "secure")


@handled
def transports(as_json: Json = False) -> None:
    """List the transports: what carries packets and questions between nodes.

    Use one with outroute node --transport URL; everything else is the same over
    all of them. durable: what is acknowledged is on disk. ordered: messages
    between two nodes arrive in order. back-pressure: a slow reader slows its
    senders down, nothing is dropped. secure: nodes prove who they are and bytes
    are encrypted, unless the URL says otherwise. Plug-ins that are installed
    stand among them.

    Examples:

    outroute transports

    outroute transports --json
    """
    from outroute.transports.registry import installed

    found = installed()
    if as_json:
        emit_json({"transports": [_described(one) for one in found]})
        return
    table = Table()
    for name in ("URL", "what it is", "promises", "installed"):
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(one.url, one.about, _promised(one), "yes" if one.installed else "broken" if one.problem else "no")
    print_table(table)
    for one in found:
        for name, text in one.options.items():
            out.print(f"{one.scheme}://  ?{name}=  {text}", markup=False, highlight=False)
    for one in found:
        if one.problem:
            warn(f"the transport {one.scheme}:// {one.problem}")
        elif not one.installed:
            say(f"For {one.scheme}://  pip install 'outroute[{one.extra}]'")
    say("Use one with: outroute node --transport URL")


def _promises(one: Entry) -> dict[str, bool | None]:
    return {name: None if one.capabilities is None else getattr(one.capabilities, name) for name in _PROMISES}


def _promised(one: Entry) -> str:
    words = {True: "", False: "not ", None: "perhaps "}
    return ", ".join(words[said] + name.replace("_", "-") for name, said in _promises(one).items())


def _described(one: Entry) -> dict[str, object]:
    return {
        "scheme": one.scheme,
        "url": one.url,
        "about": one.about,
        "options": dict(one.options),
        "capabilities": _promises(one),
        "installed": one.installed,
        "extra": one.extra or None,
        "plugin": one.plugin or None,
        "problem": one.problem or None,
    }
