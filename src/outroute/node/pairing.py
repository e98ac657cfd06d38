"""Profiles of the nodes whose packets are known, own records as one node more, and single paths between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.elections.profiles import Comparison, Profiles, profiles
from outroute.fingerprint import cells
from outroute.schema import Schema
from outroute.synthesis import Evidence

__all__ = ["OWN", "SURE", "Mine", "Pair", "pairs_of", "profiles_of"]

OWN = "own"
"""What this node's own records are called among the nodes."""
SURE = 1.645
"""Standard errors from zero at which a path is said to corroborate or contradict: a 90 % interval beside zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mine:
    """Own records with known outcomes, as they are kept.

    Attributes:
        codes: uint16 ``[n, width]``, conditions.
        outcome: float64 ``[n]``.
        bucket: int64 ``[n]``, start of the time bucket, seconds since 1970.
    """

    codes: NDArray[np.uint16]
    outcome: NDArray[np.float64]
    bucket: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One path.

    Attributes:
        left, right: the nodes' ids in hex, or ``own``.
        strength: -1 to 1, how far the outcomes of one predict those of the other, base rates and sampling noise apart.
        error: its standard error.
        cells: cells in which both have outcomes.
        effective: cells free of noise that would say as much.
    """

    left: str
    right: str
    strength: float
    error: float
    cells: int
    effective: float

    @property
    def verdict(self) -> str:
        """``corroborates``, ``contradicts``, ``undecided``, or ``nothing shared``."""
        if not self.cells:
            return "nothing shared"
        if abs(self.strength) <= SURE * self.error:
            return "undecided"
        return "corroborates" if self.strength > 0 else "contradicts"

    @property
    def interval(self) -> tuple[float, float]:
        """Its 90 % interval, within -1 to 1."""
        low, high = (max(-1.0, min(1.0, self.strength + sign * SURE * self.error)) for sign in (-1, 1))
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"verdict": self.verdict}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Pair:
        """What ``to_dict`` gave."""
        return cls(**{name: value for name, value in content.items() if name != "verdict"})


def profiles_of(
    schema: Schema, evidence: Evidence, codes: NDArray[np.uint16], outcome: NDArray[np.float64]
) -> tuple[Profiles, list[str]]:
    """Profiles and names of all authors, in the order of the evidence, and last of own records if there are any.

    Weights do not count: who is believed is no part of a path.

    Args:
        schema: the schema.
        evidence: packets of others.
        codes: uint16 ``[n, width]``, own records, and
        outcome: float64 ``[n]``, their outcomes.
    """
    own = len(outcome)
    names = [node.hex() for node in evidence.nodes] + [OWN] * (own > 0)
    counts = mean = variance = None
    if evidence.counts is not None:
        counts = np.concatenate([evidence.counts, outcome[:, None] == np.arange(evidence.counts.shape[1])])
    else:
        assert evidence.mean is not None
        assert evidence.variance is not None
        mean = np.concatenate([evidence.mean, outcome])
        variance = np.concatenate([evidence.variance, np.zeros(own)])
    known = profiles(
        node=np.concatenate([evidence.node, np.full(own, len(evidence.nodes))]),
        cell=np.concatenate([evidence.cell, cells(schema, codes, 1)[:, 0].astype(np.int64)]),
        size=np.concatenate([evidence.size, np.ones(own)]),
        counts=counts,
        mean=mean,
        variance=variance,
        nodes=len(names),
        cells=len(schema.landmarks),
    )
    return known, names


def pairs_of(known: Profiles, names: list[str], left: NDArray[np.int64], right: NDArray[np.int64]) -> list[Pair]:
    """Paths (left[i], right[i])."""
    made: Comparison = known.compare(left, right)
    return [
        Pair(
            left=names[a],
            right=names[b],
            strength=float(made.strength[i]),
            error=float(made.error[i]),
            cells=int(made.cells[i]),
            effective=float(made.effective[i]),
        )
        for i, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True))
    ]
