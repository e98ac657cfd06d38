"""Explaining one insight: who was believed and why, what each calculation said, which packets lost, what it rests on.

Pure composition of what elections and synthesis found; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.elections import Trust
from outroute.elections.hire import Anchored
from outroute.elections.survive import OWN, Survival
from outroute.node.aged import Aged
from outroute.node.behind import Behind, paths_behind
from outroute.node.believed import Verdict, verdict_of, why
from outroute.node.electing import SURVIVED, Elected
from outroute.node.insight import BASIS
from outroute.node.nearby import near_of, nearest
from outroute.node.pairing import Mine
from outroute.node.resting import Rests, rests_on
from outroute.packet import PacketArray, identities
from outroute.schema import Schema, unit_scale
from outroute.synthesis import Evidence

__all__ = ["SHOWN", "Believed", "Calculated", "Explanation", "Lost", "Rest", "explain"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LOST_HERE = 0.5
"""Part of a node's observations near a question, as far as it is believed, below which it is said that they lost."""
SHOWN = 10
"""Nodes, losers and copies that are named; the rest is summed up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """What became of one node.

    Attributes:
        node: its id in hex.
        organisation: the key of the organisation that certifies it, in hex; None where nobody does.
        verdict: a `Verdict`'s value.
        why: in a sentence.
        weight: 0 to 1, how far each of its packets counts, before these compete.
        packets, observations: of it, that are known.
        near: observations of it near the question.
        counted: those that count, after all elections.
        said: what its packets near the question say: share of the positive class, mean, or share by class.
        predicts, follows: its scores in standard errors, see `why`.
        needed: what `follows` has to exceed to rule out luck among all nodes.
    """

    node: str
    organisation: str | None
    verdict: str
    why: str
    weight: float
    packets: int
    observations: float
    near: float
    counted: float
    said: float | dict[str, float] | None
    predicts: float
    follows: float
    needed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Nodes that are not named one by one.

    Attributes:
        verdict: theirs.
        nodes, near, counted: how many, and the sums of the same.
    """

    verdict: str
    nodes: int
    near: float
    counted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculated:
    """One calculation.

    Attributes:
        name: its name.
        estimate: what it says.
        before: its weight before any outcome spoke.
        prior: after questions whose outcome became known later.
        weight: after own outcomes.
    """

    name: str
    estimate: float | dict[str, float]
    before: float
    prior: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A packet near the question that counts less because of what others say there.

    Attributes:
        packet, node: identity and author in hex.
        weight: 0 to 1, what is left of it.
        said: its outcome.
        to: node that it mostly lost to; ``own`` for own outcomes; None: to many.
        to_packet: a packet of that node there.
        to_said: the outcome in it.
    """

    packet: str
    node: str
    weight: float
    said: float | dict[str, float]
    to: str | None
    to_packet: str | None
    to_said: float | dict[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an insight says what it says.

    Attributes:
        basis: what nodes were judged by: ``own outcomes``, ``consensus``, ``declared groups``, ``pinned nodes`` or
            ``nothing``.
        consensus_share: how far the consensus of organisations still counts beside own outcomes, 0 to 1.
        own_outcomes: that nodes were judged by.
        nodes: those that matter most for this question, at most `SHOWN`.
        others: the rest, by verdict.
        calculations: all.
        confirmed: outcomes of questions asked before that trust in calculations rests on.
        lost, lost_more: packets near the question that lost, the heaviest first, and how many more.
        copies, copies_more: packets near the question that several nodes claim: identity and author, in hex.
        paths: which nodes near the question corroborate or contradict each other, and own records.
        near, everything: what there is near the question, and altogether.
        aged: how fast what is known ages; None where nobody asked for that.
    """

    basis: str
    consensus_share: float
    own_outcomes: int
    nodes: tuple[Believed, ...]
    others: tuple[Rest, ...]
    calculations: tuple[Calculated, ...]
    confirmed: int
    lost: tuple[Lost, ...]
    lost_more: int
    copies: tuple[tuple[str, str], ...]
    copies_more: int
    paths: Behind
    near: Rests
    everything: Rests
    aged: Aged | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        copies = [{"packet": packet, "node": node} for packet, node in self.copies]
        return asdict(self) | {"copies": copies, "paths": self.paths.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Explanation:
        """What ``to_dict`` gave."""
        made: dict[str, Any] = dict(content)
        for name, kind in (("nodes", Believed), ("others", Rest), ("calculations", Calculated), ("lost", Lost)):
            made[name] = tuple(kind(**one) for one in content[name])
        made["copies"] = tuple((one["packet"], one["node"]) for one in content["copies"])
        made["paths"] = Behind.from_dict(content["paths"])
        made |= {name: Rests(**content[name]) for name in ("near", "everything")}
        made["aged"] = None if content.get("aged") is None else Aged(**content["aged"])
        return cls(**made)


def _value(schema: Schema, shares: Floats) -> float | dict[str, float]:
    """An outcome float64[C] or [1] as insights say it."""
    classes = schema.outcome.classes
    if not classes:
        return float(shares[0])
    if len(classes) == 2:
        return float(shares[1])
    return {name: float(share) for name, share in zip(classes, shares, strict=True)}


def explain(
    schema: Schema,
    question: Floats,
    evidence: Evidence,
    elected: Elected | None,
    packets: PacketArray,
    mine: Mine,
    *,
    calculations: Mapping[str, tuple[float, float | dict[str, float]]],
    before: Floats,
    trust: Trust,
    aged: Aged | None = None,
) -> Explanation:
    """Say why one question was answered so.

    Args:
        schema: the schema.
        question: float64[D], conditions on the unit scale.
        evidence: packets of others, with weights.
        elected: what was decided about them; None where everybody counts the same, or nobody is known.
        packets: in the order of ``evidence``.
        mine: own records.
        calculations: weight and estimate by name.
        before: float64[J], weights of these before any outcome spoke.
        trust: the running trust in them.
        aged: how fast what is known ages, where that was elected.
    """
    names = tuple(calculations)
    prior = trust.prior(names, before) if names else before
    said = tuple(
        Calculated(name=name, estimate=estimate, before=float(before[j]), prior=float(prior[j]), weight=weight)
        for j, (name, (weight, estimate)) in enumerate(calculations.items())
    )
    near = _Near(schema, question, evidence, packets, mine)
    own = len(mine.outcome)
    hired = None if elected is None else elected.hired
    certified: Mapping[bytes, bytes] = {} if elected is None else elected.certified
    nodes, others = ((), ()) if elected is None else _nodes(near, elected, own)
    lost, lost_more = ((), 0) if elected is None else near.lost(elected.survival)
    copies, copies_more = ((), 0) if elected is None else near.copies(elected.copied)
    return Explanation(
        basis=BASIS[Anchored.NOTHING if hired is None else hired.anchor],
        consensus_share=0.0 if hired is None else hired.consensus_share,
        own_outcomes=own,
        nodes=nodes,
        others=others,
        lost=lost,
        lost_more=lost_more,
        copies=copies,
        copies_more=copies_more,
        paths=paths_behind(schema, evidence, near.rows, mine),
        near=rests_on(schema, evidence, near.rows, mine.bucket[near.own], certified),
        everything=rests_on(schema, evidence, np.arange(evidence.n), mine.bucket, certified),
        calculations=said,
        confirmed=trust.count,
        aged=aged,
    )


class _Near:
    """What lies near a question, with what elections say of it."""

    def __init__(self, schema: Schema, question: Floats, evidence: Evidence, packets: PacketArray, mine: Mine) -> None:
        self.schema, self.evidence, self.packets = schema, evidence, packets
        self.rows, distance = nearest(schema, self.evidence.x, question, near_of(evidence.n))
        own, apart = nearest(schema, unit_scale(schema, mine.codes), question, len(mine.outcome))
        self.own = own[apart <= distance[-1]] if len(distance) else own
        self.weight = np.ones(evidence.n) if evidence.weight is None else evidence.weight

    def named(self, row: int) -> str:
        return identities(self.packets[row : row + 1])[0].hex()

    def said(self, rows: Ints) -> float | dict[str, float] | None:
        """What these packets say together, each observation once."""
        e = self.evidence
        if not len(rows) or not e.size[rows].sum():
            return None
        if e.counts is not None:
            shares = e.counts[rows] / np.maximum(e.counts[rows].sum(axis=1, keepdims=True), 1e-12)
        else:
            assert e.mean is not None
            shares = e.mean[rows][:, None]
        return _value(self.schema, np.average(shares, axis=0, weights=e.size[rows]))

    def lost(self, survival: Survival) -> tuple[tuple[Lost, ...], int]:
        """Packets near the question that lost, the largest loss of observations first."""
        e = self.evidence
        rows = self.rows[survival.weight[self.rows] < SURVIVED]
        rows = rows[np.argsort(-(e.size * (1.0 - survival.weight))[rows], kind="stable")]
        out = []
        for row in rows[:SHOWN].tolist():
            to, packet = int(survival.opponent[row]), int(survival.opponent_packet[row])
            there = packet >= 0 and to >= 0
            out.append(
                Lost(
                    packet=self.named(row),
                    node=e.nodes[e.node[row]].hex(),
                    weight=float(survival.weight[row]),
                    said=self.said(np.array([row])) or 0.0,
                    to="own" if to == OWN else e.nodes[to].hex() if to >= 0 else None,
                    to_packet=self.named(packet) if there else None,
                    to_said=self.said(np.array([packet])) if there else None,
                )
            )
        return tuple(out), max(0, len(rows) - SHOWN)

    def copies(self, copied: NDArray[np.bool_]) -> tuple[tuple[tuple[str, str], ...], int]:
        """Packets near the question that several nodes claim."""
        rows = self.rows[copied[self.rows]].tolist()
        nodes, node = self.evidence.nodes, self.evidence.node
        return tuple((self.named(row), nodes[node[row]].hex()) for row in rows[:SHOWN]), max(0, len(rows) - SHOWN)


def _nodes(near: _Near, elected: Elected, own: int) -> tuple[tuple[Believed, ...], tuple[Rest, ...]]:
    """Nodes that matter most near the question: by what counts, then by what does not; and the rest by verdict."""
    e, hired = near.evidence, elected.hired
    count, rows = len(e.nodes), near.rows
    packets = np.bincount(e.node, minlength=count)
    mass = np.bincount(e.node, e.size, count)
    heard = np.bincount(e.node[rows], e.size[rows], count).astype(np.float64)
    counted = np.bincount(e.node[rows], e.size[rows] * near.weight[rows], count).astype(np.float64)
    order = np.lexsort((-mass, -heard, -counted))
    half = SHOWN // 2
    refused = [i for i in np.lexsort((-mass, -heard)) if hired.weight[i] < 0.5][:half]  # whom a reader misses
    kept = [i for i in order if i not in refused][: SHOWN - len(refused)]
    shown = [i for i in order if i in {*refused, *kept}]
    verdicts = [verdict_of(hired, i) for i in range(count)]
    named = tuple(
        Believed(
            node=e.nodes[i].hex(),
            organisation=_hex(elected.certified.get(e.nodes[i])),
            verdict=verdicts[i].value,
            why=why(hired, i, own) + _but(float(hired.weight[i]), float(heard[i]), float(counted[i])),
            weight=float(hired.weight[i]),
            packets=int(packets[i]),
            observations=float(mass[i]),
            near=float(heard[i]),
            counted=float(counted[i]),
            said=near.said(rows[e.node[rows] == i]),
            predicts=float(hired.forward[i]),
            follows=float(hired.reverse[i]),
            needed=float(hired.needed[i]),
        )
        for i in shown
    )
    return named, tuple(_rest(verdicts, set(shown), heard, counted))


def _but(weight: float, heard: float, counted: float) -> str:
    """What a node's verdict does not say: that it is believed in general, and not here."""
    if counted >= LOST_HERE * weight * heard:
        return ""
    return "; near this case most of what it says lost to others or to your own outcomes, or was said before"


def _rest(verdicts: list[Verdict], shown: set[Any], heard: Floats, counted: Floats) -> Iterable[Rest]:
    for verdict in Verdict:
        left = [i for i, one in enumerate(verdicts) if one is verdict and i not in shown]
        if left:
            yield Rest(
                verdict=verdict.value,
                nodes=len(left),
                near=float(heard[left].sum()),
                counted=float(counted[left].sum()),
            )


def _hex(key: bytes | None) -> str | None:
    return None if key is None else key.hex()
