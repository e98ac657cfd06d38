"""The answer to one question, as people and machines read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.elections.hire import Anchored
from outroute.synthesis import Abstention, Answers, Basis, Heterogeneity

if TYPE_CHECKING:
    from outroute.node.explaining import Explanation
    from outroute.schema import Schema

__all__ = ["BASIS", "Insight", "Insights", "Reach", "Source"]

_ABSTAINED = {
    Abstention.NO_EVIDENCE: "no packet and no own record is near this case",
    Abstention.THIN_SUPPORT: "too few observations are near this case",
}
_SCORED = "every calculation was scored on outcomes that this node observed itself"
_JUDGED = "this node has no outcomes of its own, so other nodes are judged by"
_FEW = f"own outcomes: {_SCORED}; they are too few to judge other nodes,"
_ANCHOR = {
    (Basis.OWN_OUTCOMES, None): f"own outcomes: {_SCORED}",
    (Basis.OWN_OUTCOMES, Anchored.OWN_OUTCOMES): f"own outcomes: {_SCORED}, and so was every other node",
    (Basis.OWN_OUTCOMES, Anchored.CONSENSUS): f"{_FEW} which are judged by what most organisations say",
    (Basis.OWN_OUTCOMES, Anchored.GROUPS): f"{_FEW} which are judged by what most declared groups say",
    (Basis.OWN_OUTCOMES, Anchored.PINNED): f"{_FEW} which are judged by what the pinned nodes say",
    (Basis.OWN_OUTCOMES, Anchored.NOTHING): f"{_FEW} and nothing else does",
    (Basis.DEFAULT, Anchored.CONSENSUS): f"consensus: {_JUDGED} what most organisations say",
    (Basis.DEFAULT, Anchored.GROUPS): f"declared groups: {_JUDGED} what most groups of one organisation say",
    (Basis.DEFAULT, Anchored.PINNED): f"pinned nodes: {_JUDGED} what those say that the operator pinned",
}
_NOTHING = "none: this node has no outcomes of its own, so nothing checks what the others say"


BASIS = {
    Anchored.NOTHING: "nothing",
    Anchored.OWN_OUTCOMES: "own outcomes",
    Anchored.CONSENSUS: "consensus",
    Anchored.PINNED: "pinned nodes",
    Anchored.GROUPS: "declared groups",
}
"""What an insight calls that which nodes were judged by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One node's part in an insight.

    Attributes:
        node: its id in hex, or "own" for the asker's own records.
        observations: effective number of its observations near the question.
        estimate: what its own outcomes near the question say; only for those that disagree.
    """

    node: str
    observations: float
    estimate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How much was looked at, for all questions asked together.

    Attributes:
        cells: cells asked.
        packets: packets that came back and were accepted, and those received in files.
        refused: packets that came back and were refused.
        left_out: packets that the holders keep in these cells and did not send, because a cell's answer is capped.
        unanswered: cells among them that no holder answered for the last time.
        short: cells among them of which most holders fell silent, so that packets may be missing: they died, or a part
            of the network is cut off.
    """

    cells: int
    packets: int
    refused: int
    left_out: int
    unanswered: int = 0
    short: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """The answer to one question.

    Attributes:
        outcome: name of the outcome.
        unit: its unit (numeric), or "".
        estimate: probability of the positive class (binary), mean (numeric), or probability by class.
        low, high: interval of ``level`` at the asker's own site, same form as ``estimate``. With classes: for the
            share that the site would see over many such cases. Numeric: for the outcome of this one case.
        level: probability that the interval claims to cover.
        support: effective number of independent observations near the question, own ones included.
        contributors: whose observations count most, largest first.
        disagreeing: nodes whose own outcomes near the question lie away from the estimate.
        calculations: estimate and weight of each calculation, by name.
        anchor: what the weights rest on, in words.
        basis: what other nodes were judged by: ``own outcomes``, ``consensus`` (of organisations), ``declared groups``,
            ``pinned nodes`` or ``nothing``.
        heterogeneity_known: whether the spread between nodes could be estimated (it takes three nodes).
        abstained: why there is no answer; None when there is one.
        reach: how much was looked at.
        explanation: why it says so, for those who asked.
    """

    outcome: str
    unit: str
    estimate: float | dict[str, float]
    low: float | dict[str, float]
    high: float | dict[str, float]
    level: float
    support: float
    contributors: tuple[Source, ...]
    disagreeing: tuple[Source, ...]
    calculations: dict[str, tuple[float, float | dict[str, float]]]
    anchor: str
    heterogeneity_known: bool
    abstained: str | None
    reach: Reach
    basis: str = "nothing"
    explanation: Explanation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""

        def sources(items: tuple[Source, ...]) -> list[dict[str, Any]]:
            out: list[dict[str, Any]] = []
            for s in items:
                row: dict[str, Any] = {"node": s.node, "observations": s.observations}
                if s.estimate is not None:
                    row["estimate"] = s.estimate
                out.append(row)
            return out

        return {
            "outcome": self.outcome,
            "unit": self.unit,
            "estimate": self.estimate,
            "interval": {"low": self.low, "high": self.high, "level": self.level},
            "support": self.support,
            "contributors": sources(self.contributors),
            "disagreeing": sources(self.disagreeing),
            "calculations": {n: {"weight": w, "estimate": e} for n, (w, e) in self.calculations.items()},
            "anchor": self.anchor,
            "basis": self.basis,
            "heterogeneity_known": self.heterogeneity_known,
            "abstained": self.abstained,
            "reach": {
                "cells": self.reach.cells,
                "packets": self.reach.packets,
                "refused": self.reach.refused,
                "left_out": self.reach.left_out,
                "unanswered": self.reach.unanswered,
                "short": self.reach.short,
            },
            **({} if self.explanation is None else {"explanation": self.explanation.to_dict()}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Insights:
    """The answers to many questions, as arrays; ``insights[i]`` is one :class:`Insight`.

    Attributes:
        schema: the schema.
        answers: arrays, one row a question.
        nodes: ids of the nodes that ``answers`` refers to by index, in hex.
        level: probability that the intervals claim to cover.
        reach: how much was looked at.
        judged_by: what other nodes were judged by; None where none is known, or all count the same.
    """

    schema: Schema
    answers: Answers
    nodes: tuple[str, ...]
    level: float
    reach: Reach
    judged_by: Anchored | None = None

    def __len__(self) -> int:
        return len(self.answers.support)

    @property
    def estimate(self) -> NDArray[np.float64]:
        """float64 ``[m]``, or ``[m, classes]`` for categorical outcomes."""
        return self.answers.estimate

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Class probabilities, float64 ``[m, classes]`` (class outcomes only)."""
        e = self.answers.estimate
        return np.column_stack([1.0 - e, e]) if e.ndim == 1 else e

    def _value(self, values: NDArray[np.float64]) -> float | dict[str, float]:
        if values.ndim == 0:
            return float(values)
        return {c: float(v) for c, v in zip(self.schema.outcome.classes, values, strict=True)}

    def __getitem__(self, i: int) -> Insight:
        a = self.answers
        contributors = [
            Source(node=self.nodes[n], observations=float(w))
            for n, w in zip(a.contributors[i], a.contributions[i], strict=True)
            if n >= 0 and w > 0
        ]
        if a.own[i] > 0:
            contributors.append(Source(node="own", observations=float(a.own[i])))
        by_node = dict(zip(a.contributors[i].tolist(), a.contributions[i].tolist(), strict=True))
        disagreeing = tuple(
            Source(node=self.nodes[n], observations=float(by_node.get(int(n), 0.0)), estimate=float(e))
            for n, e in zip(a.disagreeing[i], a.disagreeing_estimate[i], strict=True)
            if n >= 0
        )
        why = Abstention(int(a.abstained[i]))
        return Insight(
            outcome=self.schema.outcome.name,
            unit=self.schema.outcome.unit,
            estimate=self._value(a.estimate[i]),
            low=self._value(a.low[i]),
            high=self._value(a.high[i]),
            level=self.level,
            support=float(a.support[i]),
            contributors=tuple(sorted(contributors, key=lambda s: -s.observations)),
            disagreeing=disagreeing,
            calculations={
                name: (float(a.weights[j]), self._value(a.by_calculation[i, j]))
                for j, name in enumerate(a.calculations)
            },
            anchor=_ANCHOR.get((a.basis, self.judged_by), _NOTHING),
            basis=BASIS[Anchored.NOTHING if self.judged_by is None else self.judged_by],
            heterogeneity_known=a.heterogeneity is Heterogeneity.KNOWN,
            abstained=_ABSTAINED.get(why),
            reach=self.reach,
        )
