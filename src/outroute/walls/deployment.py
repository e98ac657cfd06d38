"""What a user would deploy: it turns measurements into the user's own numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Deployment"]


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
