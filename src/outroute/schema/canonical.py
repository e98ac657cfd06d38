"""The canonical form of a schema and its id.

Source: DESIGN section 4: sorted UTF-8, integers and decimal strings, no floats; landmarks by hash.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outroute.schema.model import Field, Privacy, Schema

__all__ = ["canonical", "canonical_fields", "decimal_text", "schema_id"]

_PREFIX = b"outroute schema v1\0"


def decimal_text(value: Decimal) -> str:
    """The one way to write a decimal: plain digits, no exponent, no trailing zeros, no minus zero."""
    text = format(value.normalize(), "f")
    return "0" if text in ("-0", "0") else text


def _dump(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _field(f: Field) -> dict[str, object]:
    out: dict[str, object] = {
        "name": f.name,
        "kind": f.kind.value,
        "weight": decimal_text(f.weight),
        "facet": int(f.facet),
    }
    if f.categories:
        out["categories"] = list(f.categories)
    if f.low is not None and f.high is not None:
        out |= {
            "low": decimal_text(f.low),
            "high": decimal_text(f.high),
            "unit": f.unit,
            "integer": int(f.integer),
        }
    if f.action:
        out["role"] = "action"
    return out


def canonical_fields(fields: tuple[Field, ...]) -> bytes:
    """Canonical bytes of the fields alone: the seed from which landmarks are drawn."""
    return _dump([_field(f) for f in fields])


def canonical(schema: Schema) -> bytes:
    """Canonical bytes of ``schema``: JSON with sorted keys, no white space, NFC text, no floats.

    Descriptions are for people and are left out: mending a typo makes no new network. Organisations and quorum are
    members only where there are some, a field's role only where it is an action, and what the distiller ``private``
    promises only where it is the distiller.
    """
    o = schema.outcome
    outcome: dict[str, object] = {"name": o.name, "kind": o.kind.name.lower()}
    if o.classes:
        outcome["classes"] = list(o.classes)
    if o.low is not None and o.high is not None:
        outcome |= {"low": decimal_text(o.low), "high": decimal_text(o.high), "unit": o.unit}
    agreed: dict[str, object] = {}
    if schema.organisations:
        agreed = {"organisations": [key.hex() for key in schema.organisations], "quorum": schema.quorum}
    return _dump(
        {
            "version": 1,
            "name": schema.name,
            "fields": [_field(f) for f in schema.fields],
            "outcome": outcome,
            "privacy": _privacy(schema.privacy),
            "time": {"bucket": schema.time.bucket_seconds, "lifetime": schema.time.lifetime_seconds},
            "landmarks": schema.landmarks.id.hex(),
            "parent": schema.parent.hex(),
            **agreed,
        }
    )


def _privacy(privacy: Privacy) -> dict[str, object]:
    out: dict[str, object] = {
        "distiller": privacy.distiller.name.lower(),
        "k": privacy.k,
        "subject": privacy.subject,
    }
    from outroute.schema.privacy import DISSENT

    # Named only where they are not what they always were: schemas of before keep their ids.
    if privacy.noise:
        out["noise"] = decimal_text(privacy.noise)
    if privacy.dissent != DISSENT:
        out["dissent"] = privacy.dissent
    if privacy.flip:
        out["flip"] = decimal_text(privacy.flip)
    if privacy.epsilon is not None:
        out |= {
            "epsilon": decimal_text(privacy.epsilon),
            "delta": decimal_text(privacy.delta),
            "m": privacy.m,
            "releases": privacy.releases,
            "landmarks": "public" if privacy.public_landmarks else "declared",
        }
    return out


def schema_id(schema: Schema) -> bytes:
    """SHA-256 over a prefix and the canonical form, 32 bytes."""
    return hashlib.sha256(_PREFIX + canonical(schema)).digest()
