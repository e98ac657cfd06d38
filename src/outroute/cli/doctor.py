"""``outroute doctor``: what keeps a node from working, found before it is started."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, working
from outroute.cli._node_dir import SCHEMA_FILE, loaded_schema
from outroute.cli._options import Json
from outroute.cli._running import find_running
from outroute.cli._settings import Settings
from outroute.errors import OutrouteError

if TYPE_CHECKING:
    from outroute.node.joining import Joining, Place
    from outroute.schema import Schema

__all__ = ["doctor"]

LITTLE_BYTES, SOME_BYTES = 100 * 2**20, 2**30
"""Free bytes below which a node does not last, and below which somebody should look."""
SKEW_SECONDS = 120
"""Seconds that a file of the node may lie in the future before the clock is suspected."""
GOOD, CARE, BAD = "ok", "care", "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    state: str
    text: str


@handled
def doctor(
    data_dir: Annotated[Path, typer.Option("--data-dir", "--node", help="The node's directory.")] = Path("node"),
    join: Annotated[
        list[str] | None, typer.Option("--join", help="Where another node is reached, to try it.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for what keeps a node from working: files, keys, disk, clock, ports, other nodes.

    Example:

    outroute doctor --data-dir north --join 10.0.0.5:7411

    Exit code 1: something has to be put right.
    """
    with working("Looking"):
        found = list(_findings(data_dir, join or []))
    if as_json:
        emit_json({"findings": [{"what": one.what, "state": one.state, "text": one.text} for one in found]})
    else:
        for one in found:
            style = {GOOD: "green", CARE: "yellow", BAD: "red"}[one.state]
            out.print(f"{one.state:>5}  {one.what}: {one.text}", style=style, markup=False, highlight=False)
    if any(one.state == BAD for one in found):
        raise typer.Exit(EXIT_PROBLEMS)


def _findings(directory: Path, join: list[str]) -> Iterator[Finding]:
    if not (directory / SCHEMA_FILE).exists():
        yield Finding(
            what="directory",
            state=BAD,
            text=f"there is no node in '{directory}': outroute node --schema SCHEMA --data-dir {directory}",
        )
        return
    try:
        schema = loaded_schema(directory, None)
    except OutrouteError as error:
        yield Finding(what="schema", state=BAD, text=str(error))
        return
    yield Finding(what="schema", state=GOOD, text=f"{schema.name} ({schema.id.hex()[:16]})")
    yield from _files(directory)
    yield _disk(directory)
    yield _clock(directory)
    for extra, module in (("service", "uvicorn"), ("dht", "opendht")):
        there = find_spec(module) is not None
        text = "installed" if there else f"not installed: pip install 'outroute[{extra}]'"
        yield Finding(what=f"extra '{extra}'", state=GOOD if there else CARE, text=text)
    running = find_running(directory)
    if running is not None:
        with running:
            health = running.client.health()
        for name, text in health["problems"].items():
            yield Finding(what=name, state=BAD, text=text)
        yield Finding(
            what="running",
            state=GOOD if health["peers"] > 1 else CARE,
            text=f"at {health['endpoint']}, {health['peers'] - 1} other nodes in sight",
        )
    try:
        joining = Settings.kept(directory, {"join": join}).joining(directory, schema)
    except OutrouteError as error:
        yield Finding(what="network", state=BAD, text=str(error))
        return
    from outroute.transports.registry import link_type

    kind = "closed" if joining.closed else "open: anybody may join"
    yield Finding(what="network", state=GOOD, text=kind)
    yield Finding(what="transport", state=GOOD, text=str(joining.transport))
    if link_type(joining.transport) is None:
        return  # it is tried when the node starts, which says what is wrong
    if running is None and joining.listen.host:
        yield from _ports(joining)
    yield from _others(directory, schema, joining)


def _files(directory: Path) -> Iterator[Finding]:
    """Keys and secrets: there, readable, and by nobody else."""
    from outroute.node.joining import SECRET_FILE
    from outroute.service.access import TOKEN_FILE
    from outroute.store.keys import KEY_FILE

    for name in (KEY_FILE, TOKEN_FILE, SECRET_FILE):
        path = directory / name
        if not path.exists():
            continue
        try:
            mode = path.stat().st_mode
            with open(path, "rb"):
                pass
        except OSError as error:
            yield Finding(what=name, state=BAD, text=f"cannot be read: {error.strerror}")
            continue
        if os.name == "posix" and mode & 0o077:
            yield Finding(what=name, state=BAD, text=f"others on this machine may read it: chmod 600 {path}")
        else:
            yield Finding(what=name, state=GOOD, text="only its owner may read it")


def _disk(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    text = f"{free / 2**30:,.1f} GiB free"
    if not os.access(directory, os.W_OK):
        return Finding(what="disk", state=BAD, text=f"'{directory}' may not be written: check owner and permissions")
    if free < LITTLE_BYTES:
        return Finding(what="disk", state=BAD, text=f"{text}: make room")
    return Finding(what="disk", state=CARE if free < SOME_BYTES else GOOD, text=text)


def _clock(directory: Path) -> Finding:
    """Members' clocks may differ by ten minutes; what can be seen from here is a clock that went back."""
    now = time.time()
    newest = max((path.stat().st_mtime for path in directory.iterdir()), default=now)
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if newest > now + SKEW_SECONDS:
        return Finding(
            what="clock",
            state=BAD,
            text=f"it says {shown}, but files of this node are {newest - now:,.0f} s newer: set the clock (NTP)",
        )
    return Finding(what="clock", state=GOOD, text=f"it says {shown}; others may differ by 10 minutes at most")


def _ports(joining: Joining) -> Iterator[Finding]:
    kinds = [("TCP", socket.SOCK_STREAM, joining.listen.port)]
    if joining.dht is not None:
        kinds.append(("UDP", socket.SOCK_DGRAM, joining.dht or joining.listen.port))
    for name, kind, port in kinds:
        host = joining.listen.host.strip("[]")
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            yield Finding(
                what=f"port {port} ({name})",
                state=BAD,
                text=f"cannot be used on {host} ({error.strerror or error}): choose another with --listen",
            )
            continue
        what = "any free port" if port == 0 else f"port {port}"
        yield Finding(what=f"{what} ({name})", state=GOOD, text=f"can be used on {host}")


def _others(directory: Path, schema: Schema, joining: Joining) -> Iterator[Finding]:
    """Whether other nodes answer, and let this one in: a real handshake, as this node."""
    from outroute.node.joining import kept_peers
    from outroute.node.members import Pinned
    from outroute.store import load_identity

    try:
        identity = load_identity(directory, create=False)
        pinned = (
            None if joining.members is None else Pinned(joining.members, directory, organisations=schema.organisations)
        )
    except OutrouteError as error:
        yield Finding(what="identity", state=BAD, text=str(error))
        return
    if pinned is not None and not pinned.admits(identity.public_key):
        yield Finding(what="members", state=BAD, text="this node's key is not on the list: have it added")
    listed = [] if pinned is None else pinned.places(identity.public_key)
    asked = list(dict.fromkeys([*joining.join, *listed]))
    met = [place for place in kept_peers(directory) if place not in asked]
    for places, state in ((asked, BAD), (met, CARE)):
        for place in places:
            problem = _call(place, directory, joining)
            yield Finding(
                what=f"node at {place}",
                state=state if problem else GOOD,
                text=problem or "answers, and lets this node in",
            )
    if not asked and not met:
        yield Finding(what="other nodes", state=CARE, text="none is known: give one with --join")


def _call(place: Place, directory: Path, joining: Joining) -> str:
    """Call a place; what is wrong, or an empty text."""
    from outroute.node.portal import run
    from outroute.store import load_identity
    from outroute.transports import Frame, Kind, encode
    from outroute.transports.registry import link_of

    async def call() -> str:
        link = link_of(joining.transport)(
            load_identity(directory, create=False),
            handle=lambda _, __: [],
            endpoint_of=lambda _: None,
            secrets=joining.secrets,
        )
        try:
            await link.request_at(str(place), encode(Frame(kind=Kind.ANNOUNCE, announcements=())))
        except OutrouteError as error:
            return str(error)
        finally:
            await link.close()
        return ""

    return run(call())
