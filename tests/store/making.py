"""Real signed packets for tests, of a small schema."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.identity import Identity
from outroute.packet import PacketArray, build, sign, withdraw
from outroute.schema import (
    SCALE,
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
from outroute.store import Journal, Which

NOW = 1_700_000_000
DAY = 86_400


def make_schema(name: str = "stay") -> Schema:
    fields = (
        Field(name="age", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(100)),
        Field(name="dose", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(1)),
    )
    return Schema(
        name=name,
        fields=fields,
        outcome=Outcome(name="late", kind=OutcomeKind.BINARY, classes=("no", "yes")),
        privacy=Privacy(distiller=Distiller.COHORT, k=5),
        time=Time(bucket_seconds=DAY, lifetime_seconds=30 * DAY),
        landmarks=drawn_landmarks(fields, 8),
    )


SCHEMA = make_schema()
BUCKET_SECONDS = SCHEMA.time.bucket_seconds


def identity(number: int) -> Identity:
    return Identity(hashlib.sha256(b"test key %d" % number).digest())


def make_packets(
    count: int,
    *,
    author: int = 0,
    first: int = 0,
    seed: int = 0,
    schema: Schema = SCHEMA,
    lifetime: int | None = None,
    cell: int | None = None,
) -> PacketArray:
    """``count`` signed packets with sequences from ``first``; all in one cell when ``cell`` is given."""
    rng = np.random.default_rng([seed, author, first])
    if cell is None:
        codes = rng.integers(0, SCALE + 1, (count, schema.width)).astype(np.uint16)
    else:
        codes = np.repeat(schema.landmarks.codes[[cell]], count, axis=0)
    key = identity(author)
    yes = rng.integers(0, 6, count)
    packets = build(
        schema,
        author=key.public_key,
        sequence=np.arange(first, first + count, dtype=np.uint64),
        codes=codes,
        size=np.full(count, 5),
        subjects=np.full(count, 5),
        bucket=np.full(count, schema.time.bucket(NOW)),
        distiller=Distiller.COHORT,
        counts=np.stack([5 - yes, yes], axis=1),
        lifetime=lifetime,
        commitment=rng.integers(0, 256, (count, 32)).astype(np.uint8),
    )
    sign(packets, key)
    return packets


def place(number: int) -> bytes:
    """Some address."""
    return hashlib.sha256(b"address %d" % number).digest()


def filled(journal: Journal, packets: int, *, size: int = 5, name: str = "", author: int = 0) -> NDArray[np.int64]:
    """Observe ``size`` cases for each of so many packets and put these into the outbox; their numbers there.

    Case ``"case 3.1"`` is the second in packet 3, of subject ``"subject 3.1"``; a name stands before the numbers.
    """
    labels = [f"{name}{packet}.{place}" for packet in range(packets) for place in range(size)]
    codes = np.full((len(labels), SCHEMA.width), 7, dtype=np.uint16)
    journal.observe(
        [f"case {label}" for label in labels],
        codes,
        np.ones(len(labels)),
        bucket=np.repeat(np.arange(packets), size) * DAY,
        subjects=[f"subject {label}" for label in labels],
    )
    rows = journal.observations(Which.READY).rows[-len(labels) :].reshape(packets, size)
    made = make_packets(packets, author=author, first=journal.outbox.reserve(packets))
    secrets = [hashlib.sha256(b"nonce %d" % int(row[0])).digest() for row in rows]
    return journal.outbox.add(made, [place(i) for i in range(packets)], list(rows), secrets=secrets, now=NOW)


def withdrawals_of(journal: Journal, ids: NDArray[np.int64]) -> PacketArray:
    """A signed withdrawal of each packet, in the order of ``ids``."""
    found = journal.outbox.get(ids)
    return withdraw(found.packets[np.searchsorted(found.ids, ids)], identity(0))


def open_journal(directory: Path | None = None) -> Journal:
    return Journal(directory, schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW)
