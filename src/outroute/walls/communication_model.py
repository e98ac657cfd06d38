"""Bytes of a plan, from what a frame, a message and a quiet second were measured to cost. Pure arithmetic.

Everything is counted at one node's line, both ways: what a node sends, what it receives, and what it keeps and answers
for others. With equal nodes the last two are, on average, what it sends and asks itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from outroute.node.asking import PROBES
from outroute.packet import PACKET_BYTES
from outroute.store import ANSWER_CAP
from outroute.transports.frames import FRAME_PACKETS, HEADER_BYTES
from outroute.trial.routing import LANDMARKS_LEAST, LANDMARKS_MOST, PACKETS_PER_CELL
from outroute.walls.communication_secagg import MESSAGES
from outroute.walls.communication_train import METHODS

__all__ = [
    "RECEIPT_BYTES",
    "SECURE",
    "RUN_BYTES",
    "SESSION_SECONDS",
    "YEAR_DAYS",
    "Costs",
    "Ours",
    "crossing",
    "federated_bytes",
    "mean_frames",
    "ours_bytes",
    "secure_bytes",
]

SESSION_SECONDS = 60.0
"""That the nodes of a trial stay connected: time to meet, hand over and ask."""
YEAR_DAYS = 365.0
DAY_SECONDS = 86_400.0
RECEIPT_BYTES = 2
"""Of each packet that was handed over."""
RUN_BYTES = 34
"""Of each cell in a frame that hands packets over."""
NEIGHBOURS = 20
"""Clients with which a client shares its keys under SecAgg+, at most: more bear more clients that leave, and send more,
so that so few favour the federated side."""
SECURE = "federated averaging with SecAgg+ (Flower)"
"""Its name for people."""
ADDRESS_BYTES, ANSWER_BYTES = 32, 70
"""Of each cell in a question, and in an answer besides its packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What was measured on real connections (``communication_wire``, ``communication_flower``), and of real messages
    (``communication_secagg``).

    Attributes:
        fixed, slope, connect: of our link, bytes for each frame, for each byte of it, and for a connection.
        idle_fixed, idle_each: bytes a second, both ways, of a member of a quiet network: and for each member.
        flower: laws of Flower's messages.
        secure: laws of those of SecAgg+; None where they were not measured.
    """

    fixed: float
    slope: float
    connect: float
    idle_fixed: float
    idle_each: float
    flower: Mapping[str, Any]
    secure: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        link: Mapping[str, Any],
        idle: Mapping[str, Any],
        flower: Mapping[str, Any],
        secure: Mapping[str, Any] | None = None,
    ) -> Costs:
        """From the steps that measured them."""
        return cls(
            fixed=link["fixed"],
            slope=link["slope"],
            connect=link["connect"],
            idle_fixed=idle["fixed"],
            idle_each=idle["each"],
            flower=flower,
            secure=secure,
        )

    def framed(self, frames: float, payload: float) -> float:
        """Bytes on the wire of frames with so many bytes in all."""
        return self.fixed * frames + self.slope * payload

    def idle(self, nodes: float, seconds: float) -> float:
        """Bytes of staying connected."""
        return (self.idle_fixed + self.idle_each * nodes) * seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Bytes at one node's line by what they are spent on."""

    packets: float
    questions: float
    connected: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.packets + self.questions + self.connected


def ours_bytes(
    costs: Costs, *, nodes: int, observations: float, k: float, replicas: int, questions: float, seconds: float
) -> Ours:
    """Outcome routing: packets handed over and kept for others, questions asked and answered, and staying connected.

    Args:
        costs: measured.
        nodes: members.
        observations: at each node.
        k: observations in a packet, on average.
        replicas: holders of a packet.
        questions: that each node asks, none of them answered from what it fetched before (a node keeps a cell for
            five minutes: questions of those minutes count as one).
        seconds: that it stays connected.
    """
    packets = observations / k
    away = min(replicas, nodes) * (nodes - 1) / nodes
    frames = mean_frames(packets * away, nodes)
    cells = min(packets * away, nodes * packets / PACKETS_PER_CELL + 1)
    handed = costs.framed(
        2 * frames, packets * away * (PACKET_BYTES + RECEIPT_BYTES) + frames * 2 * HEADER_BYTES + cells * RUN_BYTES
    )
    # A question fetches its nearest cells, and those of the own records, on which calculations are fitted.
    total = min(max(nodes * packets / PACKETS_PER_CELL, LANDMARKS_LEAST), LANDMARKS_MOST)
    own = total * (1 - (1 - 1 / total) ** observations)
    cells = min(total, own + PROBES)
    shown = min(nodes * packets, cells * ANSWER_CAP) * cells / total
    asked = min(nodes - 1, 2 * cells)
    one = costs.framed(
        2 * asked,
        shown * PACKET_BYTES + 2 * asked * HEADER_BYTES + min(replicas, nodes) * cells * (ADDRESS_BYTES + ANSWER_BYTES),
    )
    return Ours(
        packets=2 * handed,
        questions=2 * questions * one,
        connected=2 * min(nodes - 1, 64) * costs.connect + costs.idle(nodes, seconds),
    )


def mean_frames(packets: float, nodes: float) -> float:
    """Frames in which a node hands packets over: full ones, and one for each owner at least."""
    return max(packets / FRAME_PACKETS, min(packets, nodes - 1))


def federated_bytes(
    costs: Costs,
    *,
    key: str,
    weights: float,
    slots: int,
    rounds: float,
    flower: bool,
    each: float = 4.0,
    trainings: float = 1.0,
    seconds: float = 0.0,
) -> float:
    """Federated learning, at one client's line.

    Args:
        costs: measured.
        key: of the method (``communication_train.METHODS``).
        weights: parameters of the model.
        slots: of the schema, whose sums are exchanged once so that all sites standardise alike; 0 for none.
        rounds: of training.
        flower: in Flower's own messages; else each array in one frame of our link, the leanest way that is real.
        each: bytes of a parameter where it is not compressed.
        trainings: how often the model is trained anew.
        seconds: that the client waits for work, with Flower's pace of asking.
    """
    method, scale = METHODS[key], each / 4.0
    count = max(1, round(weights))
    compressed = key == "bits8"
    up = method.up(count) * (scale if key in ("one_shot", "fedavg") else 1.0)
    down = method.down(count) * (1.0 if compressed else scale)
    moments = 3 * 4 * slots
    if not flower:
        once = costs.connect + (costs.framed(2, 2 * moments) if slots else 0.0)
        return trainings * (once + rounds * costs.framed(2, up + down))
    law = costs.flower

    def message(sent: float, got: float) -> float:
        return float(law["up"]["fixed"] + law["up"]["slope"] * sent + law["down"]["fixed"] + law["down"]["slope"] * got)

    once = law["join"] + (message(moments, moments) if slots else 0.0)
    return float(trainings * (once + rounds * message(up, down)) + law["poll"] * seconds / 3.0)


def secure_bytes(
    costs: Costs, *, weights: float, slots: int, rounds: float, nodes: float, trainings: float = 1.0
) -> float | None:
    """Federated averaging under SecAgg+, at one client's line, every message in a frame of our link; None where it was
    not measured. Arguments as for :func:`federated_bytes`; `nodes` clients in all."""
    if costs.secure is None:
        return None
    near, payload = min(max(nodes - 1, 0), NEIGHBOURS), 0.0
    for way in ("up", "down"):
        law = costs.secure[way]
        payload += law["fixed"] + law["each"] * near + law["slope"] * max(1, round(weights))
    once = costs.connect + (costs.framed(2, 2 * 3 * 4 * slots) if slots else 0.0)
    return float(trainings * (once + rounds * costs.framed(2 * MESSAGES, payload)))


def crossing(
    first: Callable[[float], float], second: Callable[[float], float], low: float, high: float
) -> float | None:
    """Where two curves meet, between two positive bounds; None if they do not, or meet more than once without it
    showing at the bounds."""

    def gap(at: float) -> float:
        return first(at) - second(at)

    a, b = math.log(low), math.log(high)
    left, right = gap(low), gap(high)
    if left == 0:
        return low
    if left * right > 0:
        return None
    for _ in range(200):
        middle = (a + b) / 2
        value = gap(math.exp(middle))
        if left * value <= 0:
            b = middle
        else:
            a, left = middle, value
        if b - a < 1e-9:
            break
    return math.exp((a + b) / 2)
