"""Vectors of the distiller ``private``: schemas, regions, what an observation adds, packets, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from declared import Json
from parts import ALICE, NOW, Stream, some_codes

from outroute.fingerprint import address
from outroute.identity import Identity
from outroute.packet import (
    PacketArray,
    Rejection,
    accept,
    build_noisy,
    contributions,
    identities,
    places,
    region_of,
    regions_of,
    sign,
    withdraw,
)
from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    canonical,
    drawn_landmarks,
    grid_landmarks,
)

__all__ = ["noisy"]

AGE: Json = {"name": "age", "kind": "numeric", "low": "0", "high": "110", "unit": "years", "integer": 1}
DOSE: Json = {"name": "dose", "kind": "numeric", "low": "0", "high": "2.5", "unit": "mg", "integer": 0}
WARD: Json = {"name": "ward", "kind": "categorical", "categories": ["a", "b", "c"]}
SITE: Json = {"name": "site", "kind": "categorical", "categories": ["x", "y"], "facet": 1}
SICK: Json = {"name": "sick", "kind": "binary", "classes": ["no", "yes"]}
STAY: Json = {"name": "stay", "kind": "numeric", "low": "-1", "high": "30", "unit": "days"}


def _declared() -> dict[str, Json]:
    def one(fields: list[Json], outcome: Json, marks: Json, **privacy: Any) -> Json:
        promise = {
            "distiller": "private",
            "k": 1,
            "subject": "patient",
            "epsilon": "1",
            "delta": "0",
            "m": 1,
            "releases": 10,
            "landmarks": "declared",
        }
        return {
            "name": "noisy",
            "fields": fields,
            "outcome": outcome,
            "privacy": promise | privacy,
            "time": {"bucket": 604_800, "lifetime": 31_536_000},
            "landmarks": marks,
            "parent": "",
        }

    return {
        "grid": one([AGE, DOSE, WARD], SICK, {"grid": {"age": 4, "ward": 3}}),
        "facets": one([AGE, SITE], SICK, {"draw": 5}, k=20, epsilon="0.25", delta="0.000001", m=3),
        "number": one([AGE, WARD], STAY, {"grid": {"age": 3}}, releases=1, landmarks="public"),
    }


def _schema(d: Json) -> Schema:
    fields = tuple(
        Field(
            name=f["name"],
            kind=FieldKind(f["kind"]),
            low=Decimal(f["low"]) if "low" in f else None,
            high=Decimal(f["high"]) if "high" in f else None,
            unit=f.get("unit", ""),
            integer=bool(f.get("integer", 0)),
            categories=tuple(f.get("categories", ())),
            facet=bool(f.get("facet", 0)),
        )
        for f in d["fields"]
    )
    o, p, marks = d["outcome"], d["privacy"], d["landmarks"]
    return Schema(
        name=d["name"],
        fields=fields,
        outcome=Outcome(
            name=o["name"],
            kind=OutcomeKind[o["kind"].upper()],
            classes=tuple(o.get("classes", ())),
            low=Decimal(o["low"]) if "low" in o else None,
            high=Decimal(o["high"]) if "high" in o else None,
            unit=o.get("unit", ""),
        ),
        privacy=Privacy(
            distiller=Distiller.PRIVATE,
            k=p["k"],
            subject=p["subject"],
            epsilon=Decimal(p["epsilon"]),
            delta=Decimal(p["delta"]),
            m=p["m"],
            releases=p["releases"],
            public_landmarks=p["landmarks"] == "public",
        ),
        time=Time(bucket_seconds=d["time"]["bucket"], lifetime_seconds=d["time"]["lifetime"]),
        landmarks=grid_landmarks(fields, marks["grid"]) if "grid" in marks else drawn_landmarks(fields, marks["draw"]),
    )


def noisy() -> Json:
    """All of them."""
    known = {key: _schema(d) for key, d in _declared().items()}
    schemas, regions, assigned, added, packets = [], [], [], [], []
    for key, schema in known.items():
        schemas.append(
            {
                "schema": key,
                "declared": _declared()[key],
                "canonical_text": canonical(schema).decode(),
                "id": schema.id.hex(),
                "landmarks": schema.landmarks.codes.tolist(),
            }
        )
        all_regions = regions_of(schema)
        regions.append({"schema": key, "codes": all_regions.codes.tolist(), "facets": all_regions.facet.tolist()})
        codes = some_codes(schema, f"noisy {key}", 8, absent=5)
        assigned += [
            {"schema": key, "codes": row.tolist(), "region": region}
            for row, region in zip(codes, region_of(schema, codes).tolist(), strict=True)
        ]
        made = _packets(key, schema)
        for i in range(len(made)):
            packets.append(_described(key, schema, made[i : i + 1]))
    for value in (-1.0, 30.0, 14.5, 0.0, 7.75, 29.9999, 40.0):
        row = contributions(known["number"], np.array([value]))[0].tolist()
        added.append({"schema": "number", "outcome": value, "adds": row})
    return {
        "schemas": schemas,
        "regions": regions,
        "assigned": assigned,
        "added": added,
        "packets": packets,
        "rejected": _rejected(known),
    }


def _packets(key: str, schema: Schema) -> PacketArray:
    draw, count = Stream(f"noisy sums {key}"), len(regions_of(schema))
    sums = np.array([[draw.below(60) - 20 for _ in range(places(schema))] for _ in range(count)], dtype=np.int64)
    sums[0] = [2**40, -(2**40), 5][: places(schema)]  # cut to 32 bits
    made = build_noisy(
        schema,
        author=Identity(ALICE).public_key,
        sequence=np.arange(count, dtype=np.uint64) + np.uint64(9 << 32),
        regions=np.arange(count),
        sums=sums,
        bucket=schema.time.bucket(NOW),
    )
    sign(made, Identity(ALICE))
    return made


def _described(key: str, schema: Schema, one: PacketArray) -> Json:
    row = one[0]
    assert accept(one.tobytes(), schema, NOW).reason.tolist() == [0]
    region = int(region_of(schema, one["conditions"][:, : schema.width])[0])
    return {
        "schema": key,
        "now": NOW,
        "author_seed": ALICE.hex(),
        "distiller": "private",
        "sequence": int(row["sequence"]),
        "bucket": int(row["bucket"]),
        "lifetime": int(row["lifetime"]),
        "size": int(row["size"]),
        "subjects": 0,
        "sums": row["outcome"][: places(schema)].view(np.int32).tolist(),
        "outcome": row["outcome"][: places(schema)].tolist(),
        "conditions": row["conditions"][: schema.width].tolist(),
        "commitment": bytes(32).hex(),
        "address": address(schema, int(regions_of(schema).facet[region]), int(row["cell"])).hex(),
        "bytes": one.tobytes().hex(),
        "identity": identities(one)[0].hex(),
    }


def _rejected(known: dict[str, Schema]) -> list[Json]:
    out: list[Json] = []
    alice = Identity(ALICE)

    def spoil(key: str, why: Rejection, note: str, name: str, value: Any, at: Any = None, *, of: int = 1) -> None:
        one = _packets(key, known[key])[of : of + 1].copy()
        if at is None:
            one[name] = value
        else:
            one[name][0, at] = value
        sign(one, alice)
        got = Rejection(int(accept(one.tobytes(), known[key], NOW).reason[0]))
        assert got is why, (key, note, got)
        out.append(
            {
                "schema": key,
                "now": NOW,
                "note": note,
                "reason": why.name,
                "number": int(why),
                "bytes": one.tobytes().hex(),
            }
        )

    spoil("grid", Rejection.DISTILLER, "a cohort in a private schema", "distiller", 1)
    spoil("grid", Rejection.SIZE, "not as many as the sums say", "size", 60_000)
    spoil("facets", Rejection.SIZE, "tells of fewer than k", "outcome", [3, 1], slice(0, 2), of=3)
    spoil("grid", Rejection.WEIGHT, "a weight", "weight", 65_536)
    spoil("grid", Rejection.OUTCOME, "unused place", "outcome", 1, 2)
    spoil("number", Rejection.OUTCOME, "unused place", "outcome", 1, 3)
    spoil("grid", Rejection.CONDITIONS, "beside the landmark", "conditions", 8190, 0)
    spoil("facets", Rejection.CONDITIONS, "another age than any landmark's", "conditions", 1, 0)
    spoil("grid", Rejection.RESERVED, "a commitment", "commitment", 1, 0)
    taken = withdraw(_packets("grid", known["grid"])[:1], alice)
    assert accept(taken.tobytes(), known["grid"], NOW).reason.tolist() == [0]
    return out
