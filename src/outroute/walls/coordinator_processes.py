"""A folder and processes that end together: after the work, after Ctrl-C, and when this process itself is killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from outroute.errors import OutrouteError
from outroute.walls import coordinator_guard
from outroute.walls.base import CannotRunError
from outroute.walls.coordinator_guard import MARK

__all__ = ["Late", "Running", "Workplace", "free_port", "until"]

GUARD_SECONDS = 30.0
"""Seconds that the guard may take to end everything."""
LOOK_SECONDS = 0.05
"""Seconds between two looks at what must come true."""


class Late(OutrouteError):
    """Something did not come true in time."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="walls.late")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A program that runs in a process group of its own.

    Attributes:
        name: for people.
        process: its process.
        log: what it said.
    """

    name: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it runs (or is stopped)."""
        return self.process.poll() is None

    def signal(self, what: signal.Signals) -> None:
        """Send a signal to it and to what it started in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, what)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        """The end of its log, for messages."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2_000:]


class Workplace:
    """A folder and processes, as a context; nothing of either is left afterwards.

    A guard (`outroute.walls.coordinator_guard`) does the clearing away: it outlives this process.

    Attributes:
        folder: of its own, removed at the end.
        environment: what everything that is started carries.

    Raises:
        CannotRunError: this system has no process groups or cannot stop a process for a while (`walls.system`).
    """

    def __init__(self) -> None:
        if not hasattr(os, "killpg") or not hasattr(signal, "SIGSTOP"):
            raise CannotRunError(
                "processes cannot be stopped and killed in groups on this system: run the wall 'coordinator' on Linux "
                "or macOS, or leave it out with --walls",
                code="walls.system",
            )
        self._mark = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="outroute-walls-"))
        self.environment: dict[str, str] = {MARK: self._mark}
        self._streams: list[IO[str]] = []
        self._processes: list[subprocess.Popen[str]] = []
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(coordinator_guard.__file__), str(self.folder), self._mark],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End everything, and wait until it is gone."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(GUARD_SECONDS)
        for process in self._processes:
            process.wait(GUARD_SECONDS)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        for stream in self._streams:
            stream.close()

    def watch(self, group: int) -> None:
        """Tell the guard of a process group that was started elsewhere."""
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{group}\n")
        self._guard.stdin.flush()

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None, talks: bool = False
    ) -> Running:
        """Start a program.

        Args:
            name: for people; its log is called so.
            command: program and arguments.
            environment: variables beside those of this process.
            talks: its standard input and output are pipes; otherwise it has no input, and its output is its log.
        """
        path = self.folder / f"{name}.log"
        log = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._streams.append(log)
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else log,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | self.environment | dict(environment or {}),
        )
        self._processes.append(process)
        self.watch(process.pid)
        return Running(name=name, process=process, log=path)


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def until(done: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for what comes true by itself; seconds that it took.

    Raises:
        Late: it did not.
    """
    begin = time.monotonic()
    while not done():
        if time.monotonic() - begin > seconds:
            raise Late(f"{what}: not within {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - begin
