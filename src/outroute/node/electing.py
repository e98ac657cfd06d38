"""Elections put together: how far each packet counts, before anything is calculated from it.

A packet's weight is the product of three elections: how far its node is drawn on (hire), whether what it says is
contradicted where it lies (survive), and how old it is, if outcomes change with time. What is left goes to the
calculations, among which the trust election chooses. Packets that two nodes claim word for word count once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from outroute.elections.alignment import Table
from outroute.elections.copies import said_once
from outroute.elections.hire import Hired, Prepared, prepare
from outroute.elections.survive import Survival, survive
from outroute.errors import DataError
from outroute.schema import Schema
from outroute.synthesis import Evidence, Records

__all__ = ["Elected", "Electing", "dropped", "elect_packets", "organisations_of", "table_of", "table_of_own"]

SEVERAL = 3
"""Organisations from which on there is a majority among them, and groups are not asked."""
SURVIVED = 0.9
"""Packets that keep at least this much of their weight in their neighbourhood count in full: honest nodes differ by
chance, and that costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Electing:
    """How a node elects.

    Attributes:
        packets: let elections decide how far each packet counts; without them everybody counts the same.
        pinned: ids of nodes that the operator trusts whatever they say.
        budget: packets to fetch for a question at most, those that are expected to help most; None: all of its cells.
        groups: a group for each node by its id, such as a device's model. Where fewer than three organisations
            certify nodes, the consensus is one over these groups; nodes without one are a group together.
        ageing: elect how fast evidence ages too, for outcomes that change over time; otherwise nothing ages.
    """

    packets: bool = True
    pinned: frozenset[bytes] = frozenset()
    budget: int | None = None
    groups: Mapping[bytes, str] = field(default_factory=dict)
    ageing: bool = False

    def __post_init__(self) -> None:
        if self.budget is not None and self.ageing:
            raise DataError(
                "a budget chooses packets by what nodes have always said, ageing weighs what is new: choose one",
                code="data.budget",
            )
        if self.budget is not None and self.budget < 1:
            raise DataError("a question fetches one packet at least: budget >= 1, or None for all", code="data.budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elected:
    """What the elections decided.

    Attributes:
        evidence: the packets, with weights.
        hired: about nodes, in the order of ``evidence.nodes``.
        survival: about packets, in the order of ``evidence``.
        copied: bool[n], packets that somebody else who counts says word for word.
        certified: what organisation certifies a node, by the node's id.
    """

    evidence: Evidence
    hired: Hired
    survival: Survival
    copied: NDArray[np.bool_]
    certified: Mapping[bytes, bytes]
    _prepared: Prepared
    _before: NDArray[np.float64]

    def confirmed(self, schema: Schema, own: Records, fresh: NDArray[np.int64]) -> Elected:
        """The same after some more own outcomes became known, without a pass over what packets say.

        Hired anew are all nodes, from the sums that are kept of their packets. Packets compete anew where the new
        outcomes matter, with the trust in nodes that they competed with before.

        Args:
            schema: what the network agreed on.
            own: all own records, the new ones among them.
            fresh: int64[f], rows of `own` that are new.
        """
        hired = self._prepared.hire(table_of_own(schema, own), own.group)
        survival = self.survival.confirm(own.x[fresh], own.y[fresh]) if len(fresh) else self.survival
        return replace(
            self,
            evidence=_weighted(self.evidence, self._before, hired, survival),
            hired=hired,
            survival=survival,
        )

    @property
    def weight(self) -> NDArray[np.float64]:
        """How far each packet counts, float64[n] in [0, 1]."""
        return np.ones(self.evidence.n) if self.evidence.weight is None else self.evidence.weight

    @property
    def dropped(self) -> float:
        """Share of nodes that are not drawn on, 0 to 1; one that is drawn on by half counts as half."""
        return dropped(self.evidence)

    def moved(self, since: Elected) -> float:
        """Share of all observations, 0 to 1, by which weights differ from those of the same packets before."""
        size = self.evidence.size
        return float(size @ np.abs(self.weight - since.weight) / max(float(size.sum()), 1e-12))


def _weighted(evidence: Evidence, before: NDArray[np.float64], hired: Hired, survival: Survival) -> Evidence:
    lasting = np.where(survival.weight >= SURVIVED, 1.0, survival.weight)
    weight = before * hired.weight[evidence.node] * lasting
    return replace(evidence, weight=weight if (weight < 1.0).any() else None)


def dropped(evidence: Evidence) -> float:
    """Share of the nodes with packets that the weights leave out, 0 to 1; see `Elected.dropped`."""
    if evidence.weight is None or not evidence.n:
        return 0.0
    count = len(evidence.nodes)
    mass = np.bincount(evidence.node, evidence.size, count)
    kept = np.bincount(evidence.node, evidence.size * evidence.weight, count)
    present = mass > 0
    return 1.0 - float((kept[present] / mass[present]).mean()) if present.any() else 0.0


def organisations_of(nodes: tuple[bytes, ...], certified: Mapping[bytes, bytes]) -> NDArray[np.int64]:
    """Organisation of each node, int64[N]; a node that nobody certified stands for itself."""
    names = [certified.get(node, node) for node in nodes]
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], dtype=np.int64)


def elect_packets(
    schema: Schema,
    evidence: Evidence,
    own: Records,
    *,
    rng: np.random.Generator,
    certified: Mapping[bytes, bytes] | None = None,
    pinned: frozenset[bytes] = frozenset(),
    groups: Mapping[bytes, str] | None = None,
    age: NDArray[np.float64] | None = None,
) -> Elected:
    """Weigh packets.

    Args:
        schema: what the network agreed on.
        evidence: packets of others; weights that it has are kept as a factor.
        own: own records, may be none.
        rng: draws neighbourhoods.
        certified: organisation by node id.
        pinned: nodes that the operator trusts.
        groups: declared groups by node id, looked at where fewer than three organisations certify nodes: who is
            certified by nobody cannot take the operator's word away by making many keys.
        age: float64[n] in (0, 1], what is left of each packet's observations by their age; None: all of them.
    """
    before = np.ones(evidence.n) if evidence.weight is None else evidence.weight
    table = table_of(evidence)
    if age is not None:
        before, table = before * age, replace(table, size=table.size * age)
    organisation = organisations_of(evidence.nodes, certified or {})
    known = {} if certified is None else certified
    grouped = bool(groups) and len({known[node] for node in evidence.nodes if node in known}) < SEVERAL
    if grouped:
        assert groups is not None
        organisation = organisations_of(evidence.nodes, {n: groups.get(n, "").encode() for n in evidence.nodes})
    said = [
        part.reshape(evidence.n, -1) for part in (evidence.counts, evidence.mean, evidence.variance) if part is not None
    ]
    mine = table_of_own(schema, own)
    pins = np.array([i for i, n in enumerate(evidence.nodes) if n in pinned], dtype=np.int64)
    prepared = prepare(table, mine, organisation, pins if len(pins) else None, grouped=grouped)
    hired = prepared.hire(mine, own.group)
    once, copied = said_once(
        evidence.x, evidence.node, hired.weight, np.column_stack([evidence.size, evidence.bucket, *said])
    )
    survival = survive(
        evidence.x,
        np.asarray(schema.slot_weights, dtype=np.float64),
        evidence.node,
        hired.weight,
        evidence.size,
        counts=evidence.counts,
        mean=evidence.mean,
        variance=evidence.variance,
        own_x=own.x,
        own_y=own.y,
        weight=before * once,
        organisation=organisation,
        rng=rng,
    )
    return Elected(
        evidence=_weighted(evidence, before * once, hired, survival),
        hired=hired,
        survival=survival,
        copied=copied,
        certified={} if certified is None else certified,
        _prepared=prepared,
        _before=before * once,
    )


def table_of(evidence: Evidence) -> Table:
    """Packets as the elections see them."""
    if evidence.counts is not None:
        share = evidence.counts / np.maximum(evidence.counts.sum(axis=1, keepdims=True), 1e-12)
        target = share[:, 1:] if share.shape[1] == 2 else share
    else:
        assert evidence.mean is not None
        target = evidence.mean[:, None]
    return Table(
        x=evidence.x,
        target=target,
        size=evidence.size,
        node=evidence.node,
        nodes=len(evidence.nodes),
        numeric=evidence.counts is None,
    )


def table_of_own(schema: Schema, own: Records) -> Table:
    """Own records as the elections see them."""
    classes = len(schema.outcome.classes)
    if classes == 2:
        target = own.y[:, None].astype(np.float64)
    elif classes:
        target = (own.y[:, None] == np.arange(classes)).astype(np.float64)
    else:
        target = own.y[:, None]
    return Table(
        x=own.x,
        target=target,
        size=np.ones(own.n),
        node=np.zeros(own.n, dtype=np.int64),
        nodes=1,
        numeric=not classes,
    )
