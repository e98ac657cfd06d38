"""Small networks of real nodes with real stores, for all kinds of outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from outroute.identity import Identity
from outroute.node import Node
from outroute.node.approval import Approval, Automatic
from outroute.node.electing import Electing
from outroute.node.local import guard_for, join_local
from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    drawn_landmarks,
)
from outroute.transports import LocalNetwork
from outroute.transports.frames import Frame, decode

NOW = 1_700_000_000
DAY = 86_400
KINDS = tuple(OutcomeKind)
SITES = ("north", "south", "east", "west")

FIELDS = (
    Field(name="age", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(100), unit="years"),
    Field(name="dose", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(10), unit="mg"),
    Field(name="ward", kind=FieldKind.CATEGORICAL, categories=("red", "green", "blue")),
)
OUTCOMES = {
    OutcomeKind.BINARY: Outcome(name="late", kind=OutcomeKind.BINARY, classes=("no", "yes")),
    OutcomeKind.CATEGORICAL: Outcome(name="course", kind=OutcomeKind.CATEGORICAL, classes=("worse", "same", "better")),
    OutcomeKind.NUMERIC: Outcome(name="stay", kind=OutcomeKind.NUMERIC, low=Decimal(0), high=Decimal(60), unit="days"),
}
ALL_LEAVE = Automatic(by="a test")
QUESTION = {"age": 62, "dose": 3.5, "ward": "green"}


def schema_of(kind: OutcomeKind, *, k: int = 5, facet: bool = False, **given: Any) -> Schema:
    fields = FIELDS
    if facet:
        fields = (*FIELDS, Field(name="sex", kind=FieldKind.CATEGORICAL, categories=("f", "m"), facet=True))
    wanted: dict[str, Any] = {
        "name": f"test {kind.name}",
        "fields": fields,
        "outcome": OUTCOMES[kind],
        "privacy": Privacy(distiller=Distiller.SINGLE if k == 1 else Distiller.COHORT, k=k),
        "time": Time(bucket_seconds=DAY, lifetime_seconds=30 * DAY),
        "landmarks": drawn_landmarks(fields, 6),
    }
    return Schema(**(wanted | given))


def table_of(kind: OutcomeKind, site: str, n: int = 60) -> dict[str, list[Any]]:
    """Columns of one site's cases, the outcome and a column ``case`` among them; the same at each call."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(site.encode()).digest()[:4], "little"))
    age, dose = rng.uniform(20, 95, n), rng.uniform(0, 10, n)
    ward = rng.choice(["red", "green", "blue"], n)
    score = (age - 55) / 20 + 0.2 * (dose - 5) + (ward == "blue")
    if kind is OutcomeKind.NUMERIC:
        outcome: Sequence[Any] = np.clip(15 + 6 * score + rng.normal(0, 3, n), 0, 60).round(2).tolist()
    else:
        classes = OUTCOMES[kind].classes
        place = np.clip(np.floor((score + rng.normal(0, 1, n) + 2) / 4 * len(classes)), 0, len(classes) - 1)
        outcome = [classes[int(p)] for p in place]
    return {
        "case": [f"{site}-{i}" for i in range(n)],
        "age": age.round(3).tolist(),
        "dose": dose.round(3).tolist(),
        "ward": ward.tolist(),
        OUTCOMES[kind].name: list(outcome),
    }


def identity(name: str) -> Identity:
    return Identity(hashlib.sha256(name.encode()).digest())


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class TappedNetwork(LocalNetwork):
    """A network that remembers every packet that travelled between two members."""

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.seen: dict[bytes, np.void] = {}

    async def carry(self, member: bytes, frame: bytes, sender: bytes | None = None) -> list[bytes]:
        replies = await super().carry(member, frame, sender)
        for data in (frame, *replies):
            read = decode(data)
            if isinstance(read, Frame):
                self.seen |= {hashlib.sha256(row.tobytes()).digest(): row for row in read.packets}
        return replies


@contextmanager
def network_of(
    schema: Schema,
    sites: Sequence[str] = SITES,
    *,
    root: Path | None = None,
    clock: Clock | None = None,
    approval: Approval | None = ALL_LEAVE,
    network: LocalNetwork | None = None,
    electing: Electing | None = None,
) -> Iterator[dict[str, Node]]:
    """Nodes of one network, in memory or each in a directory under ``root``."""
    clock = clock or Clock()
    network = network or LocalNetwork(clock=clock)
    guard = guard_for(schema)
    nodes: dict[str, Node] = {}
    try:
        for site in sites:
            place = None if root is None else root / site
            who = identity(site)
            transport = join_local(network, who, schema, data_dir=place, guard=guard)
            nodes[site] = Node(
                schema,
                transport=transport,
                identity=who,
                data_dir=place,
                clock=clock,
                approval=approval,
                electing=electing or Electing(),
            )
        yield nodes
    finally:
        for node in nodes.values():
            node.close()


def filled(nodes: dict[str, Node], kind: OutcomeKind, n: int = 60) -> None:
    """Every node observes its table, distils and publishes."""
    for site, node in nodes.items():
        assert node.observe(table_of(kind, site, n), case="case").added == n
        made = node.distil()
        assert made.packets > 0
        done = node.publish()
        assert (done.acknowledged, done.pending, done.refused) == (made.packets, 0, 0)
