"""Real nodes as processes, started on free ports and waited for by what they say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from cli.conftest import PROGRAM
from outroute.service import Client

SECONDS = 90.0
#: How long a node may take to start, or something to come true, on a machine that does other things.


class Process:
    """One ``outroute node`` (or another long-lived command with ``--json``)."""

    def __init__(self, *arguments: str | Path, directory: Path | None = None, command: str = "node") -> None:
        self.directory = directory
        where = [] if directory is None else ["--data-dir", str(directory)]
        log = directory.with_suffix(".log") if directory is not None else Path("swarm.log")
        self.log = log
        with open(log, "a", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                [*PROGRAM, command, *map(str, arguments), *where, "--json"],
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            )
        late = threading.Timer(SECONDS, self.process.kill)
        late.start()
        try:
            self.said = self._object()
        finally:
            late.cancel()

    def _object(self) -> dict[str, Any]:
        text = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text += line
            try:
                found = json.loads(text)
            except ValueError:
                continue
            assert isinstance(found, dict)
            return found
        raise AssertionError(f"it ended: {text}\n{self.log.read_text()}")

    @property
    def endpoint(self) -> str:
        return str(self.said["endpoint"])

    @property
    def url(self) -> str:
        return str(self.said["http"])

    @property
    def secret(self) -> Path:
        assert self.directory is not None
        return self.directory / "network.secret"

    @property
    def token(self) -> str:
        assert self.directory is not None
        return (self.directory / "api.token").read_text().strip()

    def client(self) -> Client:
        assert self.directory is not None
        found = Client.of(self.directory)
        assert found is not None
        return found

    def sees(self) -> int:
        """Members in its sight, itself among them."""
        with self.client() as client:
            return len(client.peers()["peers"])

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def has_logged(self, event: str, times: int = 1) -> bool:
        """Whether it logged something so often."""
        return sum(one["event"] == event for one in self.lines()) >= times

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


class Town:
    """Nodes of one test; all that still run are ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Process] = []

    def start(self, name: str, *arguments: str | Path) -> Process:
        one = Process(*arguments, directory=self.folder / name)
        self.running.append(one)
        assert "error" not in one.said, one.said
        return one

    def close(self) -> None:
        for one in self.running:
            one.end(signal.SIGKILL)


def until(done: Callable[[], bool], what: str = "it") -> None:
    """Wait for what must come true by itself."""
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.05)


def raw(url: str, **options: Any) -> httpx.Client:
    """A client that sends what it is told."""
    return httpx.Client(base_url=url, trust_env=False, timeout=60.0, **options)
