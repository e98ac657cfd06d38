"""How much an answer rests on: observations, nodes, organisations, and how long a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.schema import Schema
from outroute.synthesis import Evidence

__all__ = ["Rests", "rests_on"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rests:
    """How much something rests on.

    Attributes:
        packets, observations, nodes, organisations: that count; a node without an organisation stands for itself.
        uncertified: nodes among them that no organisation certifies.
        own: own outcomes.
        first, last: start of the first and of the last time bucket, own outcomes included, and
        until: end of the last one, seconds since 1970; None where there is nothing.
    """

    packets: int
    observations: float
    nodes: int
    organisations: int
    uncertified: int
    own: int
    first: int | None
    last: int | None
    until: int | None


def rests_on(
    schema: Schema,
    evidence: Evidence,
    rows: NDArray[np.int64],
    own: NDArray[np.int64],
    certified: Mapping[bytes, bytes],
    counting: NDArray[np.float64] | None = None,
) -> Rests:
    """What counts among some packets, together with own outcomes.

    Args:
        schema: the schema.
        evidence: packets with weights.
        rows: the packets.
        own: int64[m], time buckets of the own outcomes.
        certified: organisation by node id.
        counting: float64[len(rows)], share of each packet that is looked at; None: all of it.
    """
    weight = np.ones(evidence.n) if evidence.weight is None else evidence.weight
    mass = evidence.size[rows] * weight[rows] * (1.0 if counting is None else counting)
    rows, mass = rows[mass > 0], mass[mass > 0]
    nodes = [evidence.nodes[i] for i in np.unique(evidence.node[rows])]
    bucket = np.concatenate([evidence.bucket[rows], own])
    last = int(bucket.max()) if len(bucket) else None
    return Rests(
        packets=len(rows),
        observations=float(mass.sum()),
        nodes=len(nodes),
        organisations=len({certified.get(node, node) for node in nodes}),
        uncertified=sum(node not in certified for node in nodes),
        own=len(own),
        first=int(bucket.min()) if len(bucket) else None,
        last=last,
        until=None if last is None else last + schema.time.bucket_seconds,
    )
