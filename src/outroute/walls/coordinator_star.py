"""Flower's deployment as its users run it: a SuperLink, a SuperNode at each site, and a run of an app.

Every part is a process of its own, started by Flower's own commands, and the SuperLink keeps its state in a database
(``--database``), which is Flower's documented way to outlive a restart of the server. Telemetry and the check for
updates are off; nothing leaves this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import MissingExtraError
from outroute.walls.coordinator_processes import Late, Running, Workplace, free_port, until

__all__ = ["ROUND_TIMEOUT", "START_SECONDS", "Star"]

START_SECONDS = 120.0
"""Seconds that a part may take to start on a busy machine."""
ROUNDS = 10_000
"""More rounds than are ever reached: a run ends with the process, not by itself."""
ROUND_TIMEOUT = 60.0
"""Seconds that the first rounds of a run wait for clients; later ones wait twice as long as a round takes."""
LOOK_SECONDS = 3.0
"""Seconds between two looks at a run's state, each of which starts a process."""

APP = Path(__file__).with_name("coordinator_app.py")
"""The app's file, which only Flower loads."""
_PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "federation"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.41", "numpy"]

[tool.flwr.app]
publisher = "outroute"

[tool.flwr.app.components]
serverapp = "federation.app:server"
clientapp = "federation.app:client"

[tool.flwr.app.config]
"""


def program(name: str) -> str:
    """Flower's command of this environment.

    Raises:
        MissingExtraError: Flower is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MissingExtraError("walls", f"A federation with Flower ({name})")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of the model: weights float32[features, outputs]; classes 0 for numbers."""

    features: int
    outputs: int
    classes: int


class Star:
    """One federation.

    Args:
        place: where it runs.
        sites: files of the sites' records (`coordinator_model.keep`), by name.
        shape: of the model.
        widths: sites that have a network of this width instead.
        timeout: seconds that a round waits for clients.
    """

    def __init__(
        self,
        place: Workplace,
        sites: Mapping[str, Path],
        shape: Shape,
        *,
        widths: Mapping[str, int] | None = None,
        timeout: float = ROUND_TIMEOUT,
    ) -> None:
        self._place, self._sites, self._shape = place, dict(sites), shape
        self._widths, self._timeout = dict(widths or {}), timeout
        self._port = free_port()
        self._folder = place.folder / "server"
        self._environment = {
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_HOME": str(place.folder / "flower"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "NO_COLOR": "1",
        }
        self._starts = 0
        self.link: Running | None = None
        self.nodes: dict[str, Running] = {}

    def start(self) -> None:
        """Start the SuperLink and all SuperNodes."""
        self._folder.mkdir()
        self._write_app()
        self.start_link()
        for site in self._sites:
            self.start_node(site)

    def _write_app(self) -> None:
        project = self._place.folder / "app"
        (project / "federation").mkdir(parents=True)
        (project / "federation" / "__init__.py").write_text("", encoding="utf-8")
        shutil.copy(APP, project / "federation" / "app.py")
        config = {
            "folder": str(self._folder),
            "features": self._shape.features,
            "outputs": self._shape.outputs,
            "classes": self._shape.classes,
            "rounds": ROUNDS,
            "least": min(2, len(self._sites)),
            "timeout": self._timeout,
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in config.items()]
        (project / "pyproject.toml").write_text(_PROJECT + "\n".join(lines) + "\n", encoding="utf-8")
        home = Path(self._environment["FLWR_HOME"])
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "wall"\n\n[superlink.wall]\naddress = "127.0.0.1:{self._port}"\ninsecure = true\n',
            encoding="utf-8",
        )

    def start_link(self) -> None:
        """Start the SuperLink, from its database if it ran before.

        Raises:
            Late: it does not answer.
        """
        self._starts += 1
        self.link = self._place.start(
            f"superlink-{self._starts}",
            [
                *(program("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", str(self._port)),
                *("--database", str(self._folder / "state.db"), "--disable-runtime-dependency-installation"),
            ],
            environment=self._environment,
        )
        link = self.link
        until(lambda: self._answers() or not link.alive, START_SECONDS, "the SuperLink starts")
        if not link.alive:
            raise Late(f"the SuperLink ended: {link.said()}")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1.0):
            return True
        return False

    def start_node(self, site: str) -> None:
        """Start the SuperNode of a site."""
        config = f'data="{self._sites[site]}"'
        if site in self._widths:
            config += f" width={self._widths[site]}"
        number = list(self._sites).index(site)
        self.nodes[site] = self._place.start(
            f"supernode-{number}",
            [
                *(program("flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{self._port}"),
                *("--host", "127.0.0.1", "--port", str(free_port()), "--node-config", config),
            ],
            environment=self._environment,
        )

    def submit(self) -> str:
        """Start a run, and say which.

        Raises:
            Late: the SuperLink does not take it.
        """
        said = self._flwr("run", str(self._place.folder / "app"), "wall")
        if not said.get("success"):
            raise Late(f"Flower took no run: {said.get('error-message', said)}")
        return str(said["run-id"])

    def status(self, run: str) -> str:
        """What the SuperLink says of a run: "running", "finished:failed" and so on, with its reason."""
        for one in self._flwr("ls", "wall").get("runs", []):
            if str(one["run-id"]) == run:
                return f"{one['status']} ({one['status-details']})" if one["status-details"] else str(one["status"])
        return "unknown"

    def ended(self, run: str, seconds: float) -> str:
        """Wait until a run ends by itself, or the time is over; its state then."""
        end = time.monotonic() + seconds
        while not (said := self.status(run)).startswith("finished") and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        return said

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [program("flwr"), *arguments, "--format", "json"],
            cwd=self._place.folder,
            env={**os.environ, **self._place.environment, **self._environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return {"success": False, "error-message": (done.stdout + done.stderr)[-2_000:]}
        return found

    def rounds(self) -> list[float]:
        """Seconds since 1970 at which each round ended, those of all runs; the start of a run is none."""
        path = self._folder / "rounds.txt"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [float(when) for when, number in map(str.split, lines) if number != "0"]

    def weights(self) -> NDArray[np.float32] | None:
        """Those saved last."""
        path = self._folder / "checkpoint.npy"
        return np.load(path) if path.exists() else None

    def wait_for(self, rounds: int, seconds: float = START_SECONDS) -> None:
        """Until so many rounds are done in all.

        Raises:
            Late: they are not.
        """
        until(lambda: len(self.rounds()) >= rounds, seconds, f"{rounds} rounds of Flower")
