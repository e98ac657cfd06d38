"""Paths behind one insight: which of the nodes near a question corroborate each other, and which contradict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.elections.paths import LEAST
from outroute.node.pairing import OWN, Mine, Pair, pairs_of, profiles_of
from outroute.schema import Schema
from outroute.synthesis import Evidence

__all__ = ["PATHS_SHOWN", "Behind", "paths_behind"]

PATHS_SHOWN = 5
"""Paths of either sign that an explanation shows: what a reader takes in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """Paths between the nodes that an insight comes from.

    Attributes:
        nodes: nodes with packets near the question, own records as one of them if there are any.
        own: whether own records are among them.
        pairs: paths between these.
        undecided: of these paths, those between nodes that share too little to tell.
        unshared: of these paths, those between nodes that share no cell.
        corroborations, contradictions: the strongest of either sign, at most `PATHS_SHOWN`, strongest first; the
            strongest one of own records is always among them. Some may be undecided; own records come first in a pair.
    """

    nodes: int
    own: bool
    pairs: int
    undecided: int
    unshared: int
    corroborations: tuple[Pair, ...]
    contradictions: tuple[Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "nodes": self.nodes,
            "own": self.own,
            "pairs": self.pairs,
            "undecided": self.undecided,
            "unshared": self.unshared,
            "corroborations": [one.to_dict() for one in self.corroborations],
            "contradictions": [one.to_dict() for one in self.contradictions],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Behind:
        """What ``to_dict`` gave."""
        signs = ("corroborations", "contradictions")
        return cls(**(dict(content) | {name: tuple(map(Pair.from_dict, content[name])) for name in signs}))


def paths_behind(schema: Schema, evidence: Evidence, rows: NDArray[np.int64], mine: Mine) -> Behind:
    """Paths between the nodes that some packets come from, and own records.

    They are the same as among all nodes: compared is whatever both saw, in every cell that both know.

    Args:
        schema: the schema.
        evidence: all packets of others.
        rows: those near the question.
        mine: own records.
    """
    known, names = profiles_of(schema, evidence, mine.codes, mine.outcome)
    nodes = np.unique(evidence.node[rows])
    own = len(mine.outcome) > 0
    if own:
        nodes = np.r_[names.index(OWN), nodes]
    left, right = np.triu_indices(len(nodes), 1)
    pairs = pairs_of(known, names, nodes[left], nodes[right])
    strongest = sorted(pairs, key=lambda one: -abs(one.strength))
    verdicts = [one.verdict for one in pairs]
    return Behind(
        nodes=len(nodes),
        own=own,
        pairs=len(pairs),
        undecided=verdicts.count("undecided"),
        unshared=verdicts.count("nothing shared"),
        corroborations=_shown([one for one in strongest if one.strength >= LEAST]),
        contradictions=_shown([one for one in strongest if one.strength <= -LEAST]),
    )


def _shown(strongest: list[Pair]) -> tuple[Pair, ...]:
    """The first few, and in any case the first of own records: whom a reader can check."""
    shown = strongest[:PATHS_SHOWN]
    mine = next((one for one in strongest if one.left == OWN), None)
    if mine is not None and mine not in shown:
        shown[-1] = mine
    return tuple(shown)
