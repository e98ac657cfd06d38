"""Paths as one node sees them: who corroborates or contradicts whom, and this node's own records."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.elections.paths import Paths, pair_count, strongest
from outroute.elections.profiles import Profiles
from outroute.elections.standing import standing
from outroute.errors import DataError
from outroute.node.evidence import evidence_of
from outroute.node.pairing import Pair, pairs_of, profiles_of
from outroute.node.threads import single_threaded
from outroute.packet import PacketArray
from outroute.schema import Schema

__all__ = ["TOP", "Pathways", "Peer", "paths_between"]

TOP = 10
"""Paths of either sign shown."""
TOP_MOST = 1_000
"""Paths of either sign that may be asked for: as many are kept for every node."""
PICTURED = 40
"""Nodes in the picture; more are not told apart."""
PARALLEL_FROM = 2_000
"""Nodes from which all cores are worth starting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One node whose packets are known.

    Attributes:
        node: its id in hex, or ``own``.
        packets: its packets; of ``own``, records.
        observations: what these condense.
        standing: how far all others corroborate it, between -1 and 1, relative to the node with most; two nodes with
            opposite signs are in camps that contradict each other, and own records are in the camp above zero.
        path: between it and own records; None where there are no own records, and for ``own``.
    """

    node: str
    packets: int
    observations: float
    standing: float
    path: Pair | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pathways:
    """What a node can say about paths.

    Attributes:
        peers: all nodes, ``own`` first if there are own records, then by strength of their path with it.
        corroborations, contradictions: the strongest between any two nodes, strongest first.
        pairs: pairs evaluated.
        pictured: ids of the nodes in ``matrix``: ``own`` and those with the strongest paths.
        matrix: strengths between them; None where nothing is shared, and for a node with itself.
    """

    peers: tuple[Peer, ...]
    corroborations: tuple[Pair, ...]
    contradictions: tuple[Pair, ...]
    pairs: int
    pictured: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""

        return {
            "pairs": self.pairs,
            "nodes": [asdict(one) | {"path": None if one.path is None else one.path.to_dict()} for one in self.peers],
            "corroborations": [one.to_dict() for one in self.corroborations],
            "contradictions": [one.to_dict() for one in self.contradictions],
            "matrix": {"nodes": list(self.pictured), "strength": [list(row) for row in self.matrix]},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Pathways:
        """What ``to_dict`` gave."""
        return cls(
            peers=tuple(
                Peer(**(dict(one) | {"path": None if one["path"] is None else Pair.from_dict(one["path"])}))
                for one in content["nodes"]
            ),
            corroborations=tuple(map(Pair.from_dict, content["corroborations"])),
            contradictions=tuple(map(Pair.from_dict, content["contradictions"])),
            pairs=content["pairs"],
            pictured=tuple(content["matrix"]["nodes"]),
            matrix=tuple(map(tuple, content["matrix"]["strength"])),
        )


def paths_between(
    schema: Schema,
    packets: PacketArray,
    codes: NDArray[np.uint16],
    outcome: NDArray[np.float64],
    *,
    top: int = TOP,
    origin: Callable[[bytes], bytes] = lambda key: key,
) -> Pathways:
    """Paths between the authors of packets, and own records.

    Args:
        schema: the schema.
        packets: accepted packets of others, in force.
        codes: uint16 ``[n, width]``, own records, and
        outcome: float64 ``[n]``, their outcomes.
        top: paths of either sign to show.
        origin: the first key of a node that changed its key.

    Raises:
        DataError: ``top`` lies outside 1..1,000.
    """
    if not 1 <= top <= TOP_MOST:
        raise DataError(f"between 1 and {TOP_MOST:,} paths can be shown", code="paths.top")
    evidence = evidence_of(schema, packets, origin)
    own = len(outcome)
    known, names = profiles_of(schema, evidence, codes, outcome)
    with single_threaded(boosting=False):
        found = _strongest(known, top)
        stands = standing(known).value
    if own and stands[-1] < 0:
        stands = -stands
    stands = stands / max(float(np.abs(stands).max(initial=0.0)), 1e-300)
    with_own: list[Pair | None] = [None] * len(names)
    order = list(range(len(names)))
    if own:
        others = np.arange(len(names) - 1)
        for row, one in zip(others, pairs_of(known, names, np.full(len(others), len(others)), others), strict=True):
            with_own[row] = one
        order = [len(others), *sorted(others.tolist(), key=lambda row: -_strength(with_own[row]))]
    up = _top(known, names, found.corroborating, found.corroboration, top)
    down = _top(known, names, found.contradicting, found.contradiction, top)
    node = np.concatenate([evidence.node, np.full(own, len(evidence.nodes))])
    size = np.concatenate([evidence.size, np.ones(own)])
    packets_of, observations = np.bincount(node, minlength=len(names)), np.bincount(node, size, len(names))
    pictured = _pictured(names, order, (*up, *down), own=own > 0)
    return Pathways(
        peers=tuple(
            Peer(
                node=names[row],
                packets=int(packets_of[row]),
                observations=float(observations[row]),
                standing=float(stands[row]),
                path=with_own[row],
            )
            for row in order
        ),
        corroborations=up,
        contradictions=down,
        pairs=pair_count(len(names)),
        pictured=tuple(names[row] for row in pictured),
        matrix=_matrix(known, pictured),
    )


def _strongest(known: Profiles, top: int) -> Paths:
    workers = os.cpu_count() or 1
    if known.nodes < PARALLEL_FROM or workers == 1:
        return strongest(known, keep=top)
    with ThreadPoolExecutor(workers) as pool:
        return strongest(known, keep=top, parts=workers, each=pool.map)


def _strength(pair: Pair | None) -> float:
    return 0.0 if pair is None else pair.strength


def _top(
    known: Profiles, names: list[str], others: NDArray[np.int64], strength: NDArray[np.float64], top: int
) -> tuple[Pair, ...]:
    """The strongest of all, each pair once: they are among the strongest of either of the two."""
    rows, places = np.nonzero(others >= 0)
    partner, value = others[rows, places], np.abs(strength[rows, places])
    low, high = np.minimum(rows, partner), np.maximum(rows, partner)
    _, once = np.unique(low * len(names) + high, return_index=True)
    best = once[np.argsort(-value[once], kind="stable")[:top]]
    return tuple(pairs_of(known, names, low[best], high[best]))


def _pictured(names: list[str], order: list[int], shown: tuple[Pair, ...], *, own: bool) -> list[int]:
    """Own records; who has the strongest paths; then whoever is left; in the order of the table."""
    place = {name: row for row, name in enumerate(names)}
    named = [place[one] for pair in shown for one in (pair.left, pair.right)]
    chosen = set(list(dict.fromkeys([*(order[:1] if own else []), *named, *order]))[:PICTURED])
    return [row for row in order if row in chosen]


def _matrix(known: Profiles, rows: list[int]) -> tuple[tuple[float | None, ...], ...]:
    many = len(rows)
    at = np.array(rows, dtype=np.int64)
    made = known.compare(np.repeat(at, many), np.tile(at, many))
    strength, shared = made.strength.reshape(many, many), made.cells.reshape(many, many)
    return tuple(
        tuple(float(strength[i, j]) if i != j and shared[i, j] else None for j in range(many)) for i in range(many)
    )
