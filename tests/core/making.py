"""Random schemas, conditions and packets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from outroute.identity import Identity
from outroute.packet import PacketArray, build, sign
from outroute.schema import (
    MISSING,
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

from . import second

NOW = 1_700_000_000
ALICE = Identity(b"a" * 32)
BOB = Identity(b"b" * 32)

text = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
weights = st.integers(1, 1000).map(lambda w: Decimal(w) / 100)


@st.composite
def ranges(draw: Any) -> tuple[Decimal, Decimal]:
    shift = Decimal(1).scaleb(draw(st.integers(-6, 6)))
    low = draw(st.integers(-(10**6), 10**6))
    return low * shift, (low + draw(st.integers(1, 10**6))) * shift


@st.composite
def fields(draw: Any, name: str) -> Field:
    weight = draw(weights)
    if draw(st.booleans()):
        low, high = draw(ranges())
        integer = draw(st.booleans())
        unit = draw(text)
        return Field(
            name=name, kind=FieldKind.NUMERIC, low=low, high=high, unit=unit, weight=weight, integer=integer,
            description=draw(text), action=draw(st.booleans()),
        )  # fmt: skip
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=5, unique=True))
    return Field(
        name=name, kind=FieldKind.CATEGORICAL, categories=tuple(names), weight=weight, facet=draw(st.booleans()),
        action=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def outcomes(draw: Any) -> Outcome:
    kind = draw(st.sampled_from(OutcomeKind))
    if kind is OutcomeKind.NUMERIC:
        low, high = draw(ranges())
        return Outcome(name="outcome", kind=kind, low=low, high=high, unit=draw(text))
    count = 2 if kind is OutcomeKind.BINARY else draw(st.integers(3, 10))
    return Outcome(name="outcome", kind=kind, classes=tuple(f"class {i}" for i in range(count)))


@st.composite
def schemas(draw: Any) -> Schema:
    made = [draw(fields(f"field {i}")) for i in range(draw(st.integers(1, 6)))]
    if all(f.facet for f in made):
        made.append(Field(name="more", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(1)))
    distiller = draw(
        st.sampled_from([Distiller.COHORT, Distiller.SINGLE])
    )  # private: tests/core/test_private_packets.py
    k = 1 if distiller is Distiller.SINGLE else draw(st.integers(2, 50))
    return Schema(
        name=draw(text),
        fields=tuple(made),
        outcome=draw(outcomes()),
        privacy=Privacy(distiller=distiller, k=k),
        time=Time(bucket_seconds=draw(st.integers(1, 10**7)), lifetime_seconds=draw(st.integers(10**7, 10**9))),
        landmarks=drawn_landmarks(tuple(made), draw(st.integers(1, 20))),
        parent=draw(st.sampled_from([b"", b"p" * 32])),
    )


def codes_of(schema: Schema, rng: np.random.Generator, n: int) -> NDArray[np.uint16]:
    """Allowed codes ``[n, width]``: extremes and missing values often."""
    out = np.empty((n, schema.width), dtype=np.uint16)
    for row in out:
        for f in schema.fields:
            part = row[schema.slots[f.name]]
            if rng.random() < 0.2:
                part[:] = MISSING
            elif f.kind is FieldKind.NUMERIC:
                part[0] = rng.choice([0, SCALE, int(rng.integers(SCALE + 1))])
            else:
                part[:] = 0
                if f.facet or rng.random() < 0.5:
                    part[rng.integers(f.width)] = SCALE
                else:
                    cuts = np.sort(np.append(rng.integers(0, SCALE + 1, f.width - 1), [0, SCALE]))
                    part[:] = np.diff(cuts)
    return out


def packets_of(schema: Schema, rng: np.random.Generator, n: int, *, who: Identity = ALICE, **given: Any) -> PacketArray:
    """Signed packets that are accepted at ``NOW``."""
    k = schema.privacy.k
    single = schema.privacy.distiller is Distiller.SINGLE
    size = np.ones(n, dtype=np.int64) if single else rng.integers(k, k + 100, n)
    wanted: dict[str, Any] = {
        "author": who.public_key,
        "sequence": np.arange(n, dtype=np.uint64),
        "codes": codes_of(schema, rng, n),
        "size": size,
        "subjects": size if single else rng.integers(k, size + 1),
        "bucket": np.full(n, schema.time.bucket(NOW)),
        "distiller": schema.privacy.distiller,
        "commitment": rng.integers(0, 256, (n, 32), dtype=np.uint8),
    }
    if schema.outcome.has_classes:
        classes = len(schema.outcome.classes)
        wanted["counts"] = np.array([rng.multinomial(s, np.full(classes, 1 / classes)) for s in size], dtype=np.int64)
    else:
        assert schema.outcome.low is not None
        assert schema.outcome.high is not None
        low, high = float(schema.outcome.low), float(schema.outcome.high)
        # Everybody at one end or the other: the largest variance beside its mean.
        at_high = rng.integers(0, size + 1) / size
        wanted["mean"] = low + at_high * (high - low)
        wanted["variance"] = np.where(size == 1, 0.0, at_high * (1 - at_high) * (high - low) ** 2)
    made = build(schema, **(wanted | given))
    sign(made, who)
    return made


def declared_field(f: Field) -> dict[str, Any]:
    return {
        "name": f.name,
        "kind": f.kind.value,
        "weight": str(f.weight),
        "facet": int(f.facet),
        "role": "action" if f.action else "condition",
        "low": str(f.low),
        "high": str(f.high),
        "unit": f.unit,
        "integer": int(f.integer),
        "categories": list(f.categories),
    }


def declared(schema: Schema) -> dict[str, Any]:
    """The schema as ``second.Agreed`` reads it."""
    o, p, t = schema.outcome, schema.privacy, schema.time
    return {
        "name": schema.name,
        "fields": [declared_field(f) for f in schema.fields],
        "outcome": {
            "name": o.name,
            "kind": o.kind.name.lower(),
            "classes": list(o.classes),
            "low": str(o.low),
            "high": str(o.high),
            "unit": o.unit,
        },
        "privacy": {"distiller": p.distiller.name.lower(), "k": p.k, "subject": p.subject},
        "time": {"bucket": t.bucket_seconds, "lifetime": t.lifetime_seconds},
        "landmarks": {"draw": len(schema.landmarks)},
        "parent": schema.parent.hex(),
    }


def agreed(schema: Schema) -> second.Agreed:
    """The second implementation's view of a schema with drawn landmarks."""
    return second.Agreed(declared(schema))


def numeric_field(name: str = "x", **given: Any) -> Field:
    wanted: dict[str, Any] = {"name": name, "kind": FieldKind.NUMERIC, "low": Decimal(0), "high": Decimal(1)}
    return Field(**(wanted | given))


def categorical_field(name: str = "c", **given: Any) -> Field:
    wanted: dict[str, Any] = {"name": name, "kind": FieldKind.CATEGORICAL, "categories": ("a", "b", "c")}
    return Field(**(wanted | given))


def schema_of(*own: Field, kind: OutcomeKind = OutcomeKind.BINARY, **given: Any) -> Schema:
    """A schema around a few fields; k = 5, buckets of a day."""
    made = own or (numeric_field(), categorical_field(), categorical_field("f", facet=True))
    outcome = {
        OutcomeKind.BINARY: Outcome(name="y", kind=OutcomeKind.BINARY, classes=("no", "yes")),
        OutcomeKind.CATEGORICAL: Outcome(name="y", kind=OutcomeKind.CATEGORICAL, classes=("a", "b", "c")),
        OutcomeKind.NUMERIC: Outcome(name="y", kind=OutcomeKind.NUMERIC, low=Decimal(-1), high=Decimal(9), unit="d"),
    }[kind]
    wanted: dict[str, Any] = {
        "name": "test",
        "fields": made,
        "outcome": outcome,
        "privacy": Privacy(k=5),
        "time": Time(bucket_seconds=86_400, lifetime_seconds=30 * 86_400),
        "landmarks": drawn_landmarks(made, 12),
    }
    return Schema(**(wanted | given))
