"""Write the test vectors of ``docs/specification.md`` beside this file: python vectors/generate.py

The same files come out every time, on every platform. They hold JSON with bytes in hex; numbers are integers, or
decimals in 64-bit floats.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from agreements import agreements
from declared import Json, declared, make_schema
from noisy import noisy
from parts import ALICE, CLINIC, NOW, SECRET, make_packets, some_codes
from refused import rejected
from shares import shares
from statements import statements

from outroute.distill import Observations
from outroute.distill.aggregate import aggregate
from outroute.fingerprint import address, cells, sketch
from outroute.identity import Certificate, Identity, node_id
from outroute.packet import (
    PacketArray,
    accept,
    commit,
    expiry,
    identities,
    sign,
    slots,
    withdraw,
)
from outroute.schema import (
    MISSING,
    Distiller,
    Schema,
    canonical,
    encode,
    facet_index,
)

__all__ = ["declared", "files", "main", "make_schema"]


def schemas() -> list[Json]:
    """Declarations with their canonical form and id."""
    out = []
    for key, d in declared().items():
        schema = make_schema(d)
        out.append(
            {
                "schema": key,
                "declared": d,
                "canonical_text": canonical(schema).decode(),
                "canonical": canonical(schema).hex(),
                "id": schema.id.hex(),
                "width": schema.width,
                "slot_weights": schema.slot_weights.tolist(),
                "landmarks": {"count": len(schema.landmarks), "id": schema.landmarks.id.hex()},
                "landmarks_artefact": schema.landmarks.to_bytes().hex(),
            }
        )
    return out


def conditions(known: dict[str, Schema]) -> list[Json]:
    """Codes with fingerprint, cell, nearest landmarks, facet number and address."""
    out = []
    for key, schema in known.items():
        codes = np.vstack(
            [
                some_codes(schema, f"conditions {key}", 12),
                schema.landmarks.codes[-1:],
                np.full((1, schema.width), MISSING, dtype=np.uint16),
            ]
        )
        near, facet, prints = cells(schema, codes, 4), facet_index(schema, codes), sketch(schema, codes)
        for row, print_, cell, number in zip(codes, prints, near.tolist(), facet.tolist(), strict=True):
            out.append(
                {
                    "schema": key,
                    "codes": row.tolist(),
                    "fingerprint": print_.tobytes().hex(),
                    "cell": cell[0],
                    "nearest": cell,
                    "facet": number,
                    "address": address(schema, number, cell[0]).hex(),
                    "secret": SECRET.hex(),
                    "address_with_secret": address(schema, number, cell[0], SECRET).hex(),
                }
            )
    return out


def encodings(known: dict[str, Schema]) -> Json:
    """Values to codes, cohorts to codes, numeric outcomes to codes."""
    values: list[Json] = []
    for key, name, given in (
        ("stay", "temperature", [-10.5, 45.0, 0.0, 17.25, 36.6, -10.499999, 44.99999]),
        ("stay", "visits", [0, 1, 2, 3, 5, 6, 7, 11, 12]),
        ("heart", "age", [18, 19, 59, 99.5, 100]),
        ("words", "größe", [0.001, 1.0, 999999.999, 500000.0005, 1000000]),
    ):
        codes = encode(known[key], {name: given}).codes[:, known[key].slots[name]][:, 0]
        values.append({"schema": key, "field": name, "values": given, "codes": codes.tolist()})
    cohorts: list[Json] = []
    for key, sizes in (("heart", (1, 2, 3, 7)), ("words", (2, 3, 5, 6)), ("stay", (1, 4)), ("wide", (3,))):
        for size in sizes:
            schema = known[key]
            codes = some_codes(schema, f"cohort {key} {size}", size, absent=4, whole=size % 2 == 1)
            for f in schema.facets:
                codes[:, schema.slots[f.name]] = codes[0, schema.slots[f.name]]
            zero = np.zeros(size, dtype=np.int64)
            own = Observations(codes=codes, outcome=np.zeros(size), subject=np.arange(size), bucket=zero, facet=zero)
            made = aggregate(schema, own, zero)
            cohorts.append({"schema": key, "members": codes.tolist(), "codes": made.codes[0].tolist()})
    outcomes: list[Json] = []
    means = np.array([0.0, 365.0, 3.0, 182.5, 1.27e-7, 364.9999999, 40.0, 400.0, 91.25])
    variances = np.array([0.0, 0.0, 4.5, 33306.25, 5e-5, 1e-5, 99999.0, 1.0, 0.25])
    pairs = make_packets(known["stay"], some_codes(known["stay"], "outcomes", 9), mean=means, variance=variances)[
        "outcome"
    ]
    for mean, variance, pair in zip(means.tolist(), variances.tolist(), pairs.tolist(), strict=True):
        outcomes.append({"schema": "stay", "mean": mean, "variance": variance, "codes": pair[:2]})
    return {"values": values, "cohorts": cohorts, "outcomes": outcomes}


def packets(known: dict[str, Schema]) -> list[Json]:
    """Packets that are accepted at ``NOW``, and withdrawals of some."""
    out: list[Json] = []
    for key, schema in known.items():
        codes = some_codes(schema, f"packets {key}", 4)
        codes[3] = MISSING
        size = np.array([schema.privacy.k + i * (schema.privacy.distiller is Distiller.COHORT) for i in range(4)])
        subjects = size.copy()
        subjects[2] = schema.privacy.k
        nonces = [hashlib.sha256(f"nonce {key} {i}".encode()).digest() for i in range(3)]
        observed = [some_codes(schema, f"observed {key} {i}", 2, whole=True) for i in range(3)]
        commitments = np.zeros((4, 32), dtype=np.uint8)
        proofs: list[Json] = []
        for i, rows in enumerate(observed):
            outcomes = [1.0, 0.0]
            flat = sorted(r.astype("<u2").tobytes() + struct.pack("<d", y) for r, y in zip(rows, outcomes, strict=True))
            commitments[i] = np.frombuffer(commit(nonces[i], b"".join(flat)), dtype=np.uint8)
            proofs.append({"secret": nonces[i].hex(), "codes": rows.tolist(), "outcomes": outcomes})
        more: Json = {}
        if not schema.outcome.has_classes:
            more = {"mean": np.array([0.0, 3.25, 100.0, 365.0]), "variance": np.zeros(4)}
        made = make_packets(schema, codes, size=size, subjects=subjects, commitment=commitments, **more)
        if not schema.outcome.has_classes:
            # A cohort of a schema that also allows single observations.
            made = np.concatenate(
                [
                    made,
                    make_packets(
                        schema,
                        codes[:1],
                        size=np.array([9]),
                        subjects=np.array([4]),
                        distiller=Distiller.COHORT,
                        mean=np.array([20.0]),
                        variance=np.array([12.5]),
                        lifetime=1,
                        sequence=np.array([2**64 - 1], dtype=np.uint64),
                    ),
                ]
            )
        sign(made, Identity(ALICE))
        back = withdraw(made[:2], Identity(ALICE))
        for i, row in enumerate(made):
            out.append(_described(key, schema, made[i : i + 1], row, proofs[i] if i < 3 else None))
        for i in range(2):
            one = back[i : i + 1]
            out.append(
                {
                    "schema": key,
                    "now": NOW,
                    "author_seed": ALICE.hex(),
                    "withdraws": made[i : i + 1].tobytes().hex(),
                    **_names(schema, one),
                }
            )
    return out


def _names(schema: Schema, one: PacketArray) -> Json:
    assert accept(one.tobytes(), schema, NOW).reason.tolist() == [0]
    return {
        "bytes": one.tobytes().hex(),
        "identity": identities(one)[0].hex(),
        "slot": slots(one)[0].hex(),
        "expiry": int(expiry(schema, one)[0]),
        "node": node_id(one["author"][0].tobytes()).hex(),
    }


def _described(key: str, schema: Schema, one: PacketArray, row: Any, proof: Json | None) -> Json:
    places = len(schema.outcome.classes) or 2
    out: Json = {
        "schema": key,
        "now": NOW,
        "author_seed": ALICE.hex(),
        "distiller": Distiller(int(row["distiller"])).name.lower(),
        "sequence": int(row["sequence"]),
        "bucket": int(row["bucket"]),
        "lifetime": int(row["lifetime"]),
        "size": int(row["size"]),
        "subjects": int(row["weight"]) >> 16,
        "outcome": row["outcome"][:places].tolist(),
        "conditions": row["conditions"][: schema.width].tolist(),
        "commitment": row["commitment"].tobytes().hex(),
    }
    if proof is not None:
        out["committed"] = proof
    return out | _names(schema, one)


def certificates() -> list[Json]:
    """Certificates, when they hold, and some that never do."""
    out: list[Json] = []
    clinic, node = Identity(CLINIC), Identity(ALICE).public_key
    good = clinic.certify(node, not_before=NOW, not_after=NOW + 86_400)

    def add(note: str, data: bytes, times: tuple[int, ...]) -> None:
        cert = Certificate.from_bytes(data)
        out.append(
            {
                "note": note,
                "organisation_seed": CLINIC.hex(),
                "node_seed": ALICE.hex(),
                "not_before": cert.not_before,
                "not_after": cert.not_after,
                "bytes": data.hex(),
                "holds": [{"now": now, "holds": cert.holds(now)} for now in times],
            }
        )

    edges = (NOW - 601, NOW - 600, NOW, NOW + 86_400, NOW + 87_000, NOW + 87_001)
    add("one day", good.to_bytes(), edges)
    add("before 1970", clinic.certify(node, not_before=-(2**40), not_after=-1).to_bytes(), (-(2**39), 599, 600))
    flipped = bytearray(good.to_bytes())
    flipped[40] ^= 1
    add("another node key", bytes(flipped), (NOW,))
    later = bytearray(good.to_bytes())
    later[72] ^= 0xFF
    add("another end", bytes(later), (NOW,))
    return out


def files() -> dict[str, str]:
    """Text of every file by its name."""
    known = {key: make_schema(d) for key, d in declared().items()}
    parts: dict[str, Any] = {
        "schemas": schemas(),
        "encodings": encodings(known),
        "conditions": conditions(known),
        "packets": packets(known),
        "rejected": rejected(known),
        "certificates": certificates(),
        "agreements": agreements(),
        "statements": statements(),
        "shares": shares(),
        "private": noisy(),
    }
    return {f"{name}.json": _lines(value) for name, value in parts.items()}


def _lines(value: Any) -> str:
    """JSON with one case a line, so that a change shows which cases changed."""

    def cases(rows: list[Any]) -> str:
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]"

    if isinstance(value, list):
        return cases(value) + "\n"
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {cases(v)}" for k, v in value.items()) + "\n}\n"


def main() -> None:
    """Write the files."""
    for name, content in files().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
