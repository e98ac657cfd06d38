"""Schemas that name organisations, their signatures, and who counts."""

from __future__ import annotations

from declared import Json, declared, make_schema
from parts import ALICE, BOB, CLINIC

from outroute.identity import Identity, Purpose
from outroute.schema import Schema, SchemaSignature, canonical, verify_signatures

__all__ = ["agreements"]

STRANGER = bytes([9]) * 32
"""Seed of a key that no schema names."""


def agreements() -> list[Json]:
    """Declarations with organisations, canonical form and id, and signatures that count or do not."""
    out: list[Json] = []
    for key, quorum, seeds in (("tiny", 1, (ALICE,)), ("heart", 2, (CLINIC, ALICE, BOB)), ("words", 2, (BOB, CLINIC))):
        named = [Identity(seed) for seed in seeds]
        d = declared()[key] | {"organisations": [one.public_key.hex() for one in named], "quorum": quorum}
        schema, other = make_schema(d), make_schema(declared()[key])
        out.append(
            {
                "schema": key,
                "declared": d,
                "canonical_text": canonical(schema).decode(),
                "id": schema.id.hex(),
                "seeds": [seed.hex() for seed in seeds],
                "signed": [
                    _case(schema, "one of them", named[:1]),
                    _case(schema, "one of them, twice", named[:1] * 2),
                    _case(schema, "all of them", named),
                    _case(schema, "a stranger", [Identity(STRANGER)]),
                    _case(schema, "the schema without organisations", named, message=other.id),
                    _case(schema, "for another purpose", named, purpose=Purpose.PACKET),
                ],
            }
        )
    return out


def _case(
    schema: Schema, note: str, who: list[Identity], *, message: bytes | None = None, purpose: Purpose = Purpose.SCHEMA
) -> Json:
    signatures = [
        SchemaSignature(
            schema=schema.id, organisation=one.public_key, signature=one.sign(purpose, message or schema.id)
        )
        for one in who
    ]
    found = verify_signatures(schema, signatures)
    return {
        "note": note,
        "signatures": [{"organisation": s.organisation.hex(), "signature": s.signature.hex()} for s in signatures],
        "counted": [key.hex() for key in found.valid],
        "quorum_reached": found.quorum_reached,
    }
