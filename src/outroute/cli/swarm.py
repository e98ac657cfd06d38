"""``outroute swarm``: several nodes on this machine, for trying a network out."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, say, working
from outroute.cli._options import Json
from outroute.errors import DataError, TransportError
from outroute.service.processes import NodeProcess, Processes

__all__ = ["swarm"]

NODES_MOST = 100
"""Nodes of a swarm: 100 take some 12 GB of memory."""


@handled
def swarm(
    count: Annotated[int, typer.Argument(min=1, max=NODES_MOST, help="How many nodes.", show_default=False)],
    schema: Annotated[Path, typer.Option("--schema", help="What the network agrees on.", show_default=False)],
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Where their directories are: node-1, node-2, ...")
    ] = Path("swarm"),
    transport: Annotated[
        str, typer.Option("--transport", help="What carries everything, as a URL; see outroute transports.")
    ] = "dht://",
    dht: Annotated[str, typer.Option("--dht", help="Let them find each other in a DHT too: on or off.")] = "off",
    as_json: Json = False,
) -> None:
    """Run several nodes on this machine as separate processes, until Ctrl-C.

    They form a closed network of their own; each logs to its directory. The
    same command again starts the same nodes. Each of them may be killed, and
    others joined with outroute node --join. They end with this command,
    however it ends.

    Example:

    outroute swarm 5 --schema heart.toml

    outroute swarm 5 --schema heart.toml --transport zeromq://
    """
    from outroute.transports.registry import link_type
    from outroute.transports.url import parse_url

    if dht not in ("on", "off"):
        raise DataError("--dht is on or off for a swarm", code="transport.dht")
    url = parse_url(transport)
    if link_type(url) is not None and url.host:
        raise TransportError(f"nodes of a swarm choose their places: write {url.scheme}://", code="transport.url")
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.set())
    running = Processes()
    shown: list[dict[str, Any]] = []
    try:
        with working("Starting the nodes") as tell:
            first: NodeProcess | None = None
            for number in range(1, count + 1):
                if stop.is_set():
                    return
                tell(f"Starting node {number} of {count}")
                secret = data_dir / "node-1" / "network.secret"
                options = ["--schema", str(schema), "--transport", transport]
                options += ["--dht", dht] if url.scheme == "dht" else []
                if first is not None:
                    options += ["--join", first.endpoint] if first.endpoint else []
                    options += ["--secret-file", str(secret)] if secret.exists() else []
                started = running.start(data_dir / f"node-{number}", *options)
                first = first or started
                shown.append({"directory": str(started.directory)} | started.said)
        if as_json:
            emit_json({"nodes": shown})
            sys.stdout.flush()
        else:
            for one in shown:
                out.print(f"{one['directory']}  {one['endpoint']}  {one['http']}", markup=False, highlight=False)
            first = shown[0]["directory"]
            say(f"In another terminal: outroute peers --node {first}. Ctrl-C ends all {count}.")
        while not stop.wait(1.0):
            if not running.running():
                say("All nodes have ended; their logs are in their directories.")
                raise typer.Exit(EXIT_PROBLEMS)
    finally:
        running.end()
