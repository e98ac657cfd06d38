"""Real signed packets of a small schema, for tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from decimal import Decimal

import numpy as np

from outroute.fingerprint import address
from outroute.identity import Identity
from outroute.packet import PacketArray, build, sign
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
    facet_index,
)

__all__ = [
    "BUCKET_SECONDS",
    "CELLS",
    "DAY",
    "FACETED",
    "NOW",
    "SCHEMA",
    "addresses_of",
    "cell_address",
    "identity",
    "make_packets",
    "make_schema",
    "place",
]

NOW = 1_700_000_000
DAY = 86_400


def make_schema(name: str = "stay") -> Schema:
    """Two numbers, a yes or no, 8 landmarks."""
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
    """A key pair, the same for the same number."""
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


def _faceted() -> Schema:
    ward = Field(name="ward", kind=FieldKind.CATEGORICAL, categories=("north", "south"), facet=True)
    fields = (*SCHEMA.fields, ward)
    return replace(SCHEMA, name="wards", fields=fields, landmarks=drawn_landmarks(fields, 4))


FACETED = _faceted()


def addresses_of(packets: PacketArray, schema: Schema = SCHEMA) -> list[bytes]:
    """Where packets belong."""
    facets = facet_index(schema, packets["conditions"][:, : schema.width]).tolist()
    return [address(schema, f, c) for f, c in zip(facets, packets["cell"].tolist(), strict=True)]


def cell_address(cell: int) -> bytes:
    """Address of a cell of ``SCHEMA``."""
    return address(SCHEMA, 0, cell)


CELLS = [cell_address(cell) for cell in range(len(SCHEMA.landmarks))]
"""Addresses of all cells of ``SCHEMA``."""
