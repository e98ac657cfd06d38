"""Nodes as processes of their own, started and ended by the command that needs them.

They end with it in any case: each reads a pipe that closes when this process is gone, however it went.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from outroute.errors import TransportError

__all__ = ["NodeProcess", "Processes"]

START_SECONDS = 60.0
"""Seconds that one node may take to start on a busy machine."""
STOP_SECONDS = 60.0
"""Seconds that a node may take to hand over and leave; then it is ended."""
LOG_FILE = "log.ndjson"
"""What a node logs, in its directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """One node that runs.

    Attributes:
        directory: its directory.
        said: what it said of itself once it ran: ``node``, ``endpoint``, ``http`` and so on.
        process: the process.
        log: where it logs.
    """

    directory: Path
    said: dict[str, Any]
    process: subprocess.Popen[str]
    log: IO[str]

    @property
    def endpoint(self) -> str:
        """Where other nodes reach it."""
        return str(self.said["endpoint"])

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()


class Processes:
    """Nodes that run. Starting several at a time from several threads is allowed.

    Args:
        environment: variables of theirs beside those of this process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._started: list[tuple[subprocess.Popen[str], IO[str]]] = []
        self._lock = threading.Lock()
        self._ended = False

    def start(self, directory: Path, *options: str, python: str = sys.executable) -> NodeProcess:
        """Start a node, and wait until it says where it is.

        Args:
            directory: its directory; made when it is not there.
            options: further options of ``outroute node``.
            python: the interpreter, and so the installation, that runs it.

        Raises:
            TransportError: it did not start; the message says why.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        arguments = ["node", "--data-dir", str(directory), "--until-eof", "--json", *options]
        with self._lock:
            if self._ended:
                raise TransportError("the nodes are being ended", code="swarm.ended")
            log = open(directory / LOG_FILE, "a", encoding="utf-8")  # noqa: SIM115
            process = subprocess.Popen(
                [python, "-c", "from outroute.cli import main; main()", *arguments],
                stdin=subprocess.PIPE,  # nothing is written to it: it ends when this process does
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them in order
                env={"OMP_NUM_THREADS": "1", **os.environ, **self._environment},
            )
            self._started.append((process, log))
        late = threading.Timer(START_SECONDS, process.kill)
        late.start()
        try:
            said = _object(process.stdout)
        finally:
            late.cancel()
        if said is None or "error" in said:
            why = said["error"]["message"] if said else f"it ended; see {directory / LOG_FILE}"
            raise TransportError(f"{directory} did not start: {why}", code="swarm.start")
        return NodeProcess(directory=directory, said=said, process=process, log=log)

    def running(self) -> int:
        """How many run."""
        return sum(process.poll() is None for process, _ in self._started)

    def end(self, *, at_once: bool = False) -> None:
        """End all nodes, the last one first, so that each hands over to those that are left.

        Args:
            at_once: without handing over, as when nobody needs what they know any more.
        """
        with self._lock:
            self._ended = True
        for process, _ in reversed(self._started):
            if process.poll() is None:
                if at_once:
                    process.kill()
                else:
                    process.terminate()
        for process, log in self._started:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (log, process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


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
