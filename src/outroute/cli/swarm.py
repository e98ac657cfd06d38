"""``outroute swarm``: several nodes on this machine, for trying a network out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, say, working
from outroute.cli._options import Json
from outroute.errors import DataError, TransportError

__all__ = ["swarm"]

NODES_MOST = 100
"""Nodes of a swarm: 100 take some 12 GB of memory."""
START_SECONDS = 60.0
"""Seconds that one node may take to start on a busy machine."""
STOP_SECONDS = 60.0
"""Seconds that all nodes may take to hand over and leave; then they are ended."""


@handled
def swarm(
    count: Annotated[int, typer.Argument(min=1, max=NODES_MOST, help="How many nodes.", show_default=False)],
    schema: Annotated[Path, typer.Option("--schema", help="What the network agrees on.", show_default=False)],
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Where their directories are: node-1, node-2, ...")
    ] = Path("swarm"),
    dht: Annotated[str, typer.Option("--dht", help="Let them find each other in a DHT too: on or off.")] = "off",
    as_json: Json = False,
) -> None:
    """Run several nodes on this machine as separate processes, until Ctrl-C.

    They form a closed network of their own; each logs to its directory. The
    same command again starts the same nodes. Each of them may be killed, and
    others joined with outroute node --join.

    Example:

    outroute swarm 5 --schema heart.toml
    """
    if dht not in ("on", "off"):
        raise DataError("--dht is on or off for a swarm", code="transport.dht")
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.set())
    running: list[tuple[subprocess.Popen[str], IO[str]]] = []
    shown: list[dict[str, Any]] = []
    try:
        with working("Starting the nodes") as tell:
            for number in range(1, count + 1):
                if stop.is_set():
                    return
                tell(f"Starting node {number} of {count}")
                shown.append(_started(running, data_dir / f"node-{number}", schema, dht, data_dir, shown))
        if as_json:
            emit_json({"nodes": shown})
            sys.stdout.flush()
        else:
            for one in shown:
                out.print(f"{one['directory']}  {one['endpoint']}  {one['http']}", markup=False, highlight=False)
            first = shown[0]["directory"]
            say(f"In another terminal: outroute peers --node {first}. Ctrl-C ends all {count}.")
        while not stop.wait(1.0):
            if all(process.poll() is not None for process, _ in running):
                say("All nodes have ended; their logs are in their directories.")
                raise typer.Exit(EXIT_PROBLEMS)
    finally:
        _end(running)


def _started(
    running: list[tuple[subprocess.Popen[str], IO[str]]],
    directory: Path,
    schema: Path,
    dht: str,
    parent: Path,
    before: list[dict[str, Any]],
) -> dict[str, Any]:
    """Start one node, and wait until it says where it is."""
    arguments = ["node", "--schema", str(schema), "--data-dir", str(directory), "--dht", dht, "--json"]
    if before:
        secret = parent / "node-1" / "network.secret"
        arguments += ["--join", before[0]["endpoint"]]
        arguments += ["--secret-file", str(secret)] if secret.exists() else []
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = open(directory / "log.ndjson", "a", encoding="utf-8")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-c", "from outroute.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them in order
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
    )
    running.append((process, log))
    late = threading.Timer(START_SECONDS, process.kill)
    late.start()
    try:
        said = _object(process.stdout)
    finally:
        late.cancel()
    if said is None or "error" in said:
        why = said["error"]["message"] if said else f"it ended; see {directory / 'log.ndjson'}"
        raise TransportError(f"{directory} did not start: {why}", code="swarm.start")
    return {"directory": str(directory)} | said


def _object(stream: IO[str] | None) -> dict[str, Any] | None:
    """One JSON object from a program's output, which goes on; None when it ends first."""
    text = ""
    for line in stream or ():
        text += line
        try:
            found = json.loads(text)
        except ValueError:
            continue
        return found if isinstance(found, dict) else None
    return None


def _end(running: list[tuple[subprocess.Popen[str], IO[str]]]) -> None:
    """End all nodes, the last one first, so that each hands over to those that are left."""
    for process, _ in reversed(running):
        if process.poll() is None:
            process.terminate()
    for process, log in running:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        if process.stdout is not None:
            process.stdout.close()
