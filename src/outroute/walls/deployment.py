"""What a user would deploy: it turns measurements into the user's own numbers."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outroute.errors import DataError

__all__ = ["LIMITS", "MAX_FILE_BYTES", "Deployment", "load_deployment"]

MAX_FILE_BYTES = 65_536
"""Of a deployment file: a dozen numbers and comments."""

LIMITS: dict[str, tuple[float, float, bool]] = {
    "nodes": (2, 1e9, True),
    "observations": (0, 1e12, True),
    "observations_per_day": (0, 1e9, False),
    "questions_per_day": (0, 1e9, False),
    "upload_mbit": (1e-4, 1e6, False),
    "download_mbit": (1e-4, 1e6, False),
    "parameters": (1, 1e13, True),
    "bytes_per_parameter": (0.125, 8, False),
    "rounds": (1, 1e7, True),
    "hostile_share": (0, 1, False),
    "replication": (1, 64, True),
    "hours_connected_per_day": (0, 24, False),
    "trainings_per_year": (0.1, 1e5, False),
}
"""By name: least, most, and whether it is a whole number. Beyond these a figure is a slip of the finger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A network as the user plans it.

    Attributes:
        nodes: how many take part.
        observations: at each node, until now.
        observations_per_day: at each node, from now on.
        questions_per_day: at each node.
        upload_mbit, download_mbit: of one node's line, megabits a second.
        parameters: of the model that federated learning would train; None: the one of the trial.
        bytes_per_parameter: as it travels.
        rounds: of federated learning; None: as many as the trial needed.
        hostile_share: of all participants, 0 to 1, that may lie.
        replication: holders of a packet.
        hours_connected_per_day: that a node of outcome routing is there to keep and answer.
        trainings_per_year: how often a federated model is trained anew.
        given: names of the figures that the user gave; all others are defaults.
    """

    nodes: int = 10
    observations: int = 1_000
    observations_per_day: float = 10.0
    questions_per_day: float = 10.0
    upload_mbit: float = 10.0
    download_mbit: float = 50.0
    parameters: int | None = None
    bytes_per_parameter: float = 4.0
    rounds: int | None = None
    hostile_share: float = 0.1
    replication: int = 3
    hours_connected_per_day: float = 24.0
    trainings_per_year: float = 12.0
    given: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """For machines: every figure, and which of them the user gave."""
        return {name: getattr(self, name) for name in LIMITS} | {"given": list(self.given)}


def load_deployment(path: Path) -> Deployment:
    """Read a deployment file: TOML, figures by the names of :class:`Deployment`, all of them optional.

    Raises:
        DataError: ``deployment.file`` (not there, too large), ``deployment.toml`` (no TOML), ``deployment.name`` (an
            unknown name), ``deployment.value`` (no number, or out of range).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no deployment file '{path}'", code="deployment.file") from None
    except IsADirectoryError:
        raise DataError(f"'{path}' is a folder; give a deployment file (TOML)", code="deployment.file") from None
    if len(data) > MAX_FILE_BYTES:
        raise DataError(
            f"'{path}' has {len(data):,} bytes; a deployment file holds a dozen numbers", code="deployment.file"
        )
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"'{path}' is no TOML: {error}", code="deployment.toml") from None
    values: dict[str, Any] = {}
    for name, value in found.items():
        if name not in LIMITS:
            raise DataError(
                f"'{path}' names {name!r}, which a deployment does not have; it has {', '.join(LIMITS)}",
                code="deployment.name",
            )
        values[name] = _checked(path, name, value)
    return dataclasses.replace(Deployment(), **values, given=tuple(name for name in LIMITS if name in values))


def _checked(path: Path, name: str, value: Any) -> int | float:
    least, most, whole = LIMITS[name]
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if fits and whole and value == int(value):
        value = int(value)
    if not fits or (whole and not isinstance(value, int)) or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise DataError(
            f"'{path}': {name} = {value!r}; it must be {kind} from {least:g} to {most:g}", code="deployment.value"
        )
    return value if whole else float(value)
