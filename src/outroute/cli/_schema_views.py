"""Schemas for the screen and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from rich.table import Table as View
from rich.text import Text

from outroute.schema import (
    DISSENT,
    MAX_SLOTS,
    Distiller,
    Field,
    FieldKind,
    Outcome,
    Privacy,
    Schema,
    decimal_text,
    duration_text,
    recipe_of,
)

__all__ = ["advice", "field_values", "landmarks_kind", "schema_view", "summary"]

#: Names listed in a warning.
SHOWN: Final = 8
#: Epsilon above which a guarantee is hardly one: odds change by more than a factor of twenty.
EPSILON_WEAK: Final = 3
#: Fields that landmarks drawn at random still tell apart.
DRAWN_FIELDS: Final = 4


def landmarks_kind(schema: Schema) -> str:
    """Where the landmarks come from: drawn from the declared ranges, a grid over them, or learnt."""
    recipe = recipe_of(schema.fields, schema.landmarks)
    if recipe is None:
        return "learnt from public records" if schema.privacy.public_landmarks else "learnt"
    return recipe.kind


def field_values(item: Field | Outcome) -> str:
    """The range or the categories of a field or an outcome."""
    names = item.categories if isinstance(item, Field) else item.classes
    return " | ".join(names) if names else f"{item.low} to {item.high}"


def summary(schema: Schema, unreviewed: Iterable[str] = ()) -> dict[str, Any]:
    """Everything that ``show`` says, for programs."""
    outcome = schema.outcome
    return {
        "name": schema.name,
        "id": schema.id.hex(),
        "parent": schema.parent.hex() or None,
        "slots": {"used": schema.width, "of": MAX_SLOTS},
        "outcome": {
            "name": outcome.name,
            "kind": outcome.kind.name.lower(),
            "classes": list(outcome.classes),
            "low": None if outcome.low is None else str(outcome.low),
            "high": None if outcome.high is None else str(outcome.high),
            "unit": outcome.unit,
        },
        "privacy": _promise(schema.privacy),
        "time": {
            "bucket_seconds": schema.time.bucket_seconds,
            "lifetime_seconds": schema.time.lifetime_seconds,
        },
        "landmarks": {
            "count": len(schema.landmarks),
            "kind": landmarks_kind(schema).split()[0],
            "id": schema.landmarks.id.hex(),
        },
        "fields": [
            {
                "name": item.name,
                "kind": item.kind.value,
                "low": None if item.low is None else str(item.low),
                "high": None if item.high is None else str(item.high),
                "unit": item.unit,
                "categories": list(item.categories),
                "weight": str(item.weight),
                "facet": item.facet,
                "action": item.action,
                "integer": item.integer,
                "slots": item.width,
                "description": item.description,
            }
            for item in schema.fields
        ],
        "agreement": {"organisations": [key.hex() for key in schema.organisations], "quorum": schema.quorum},
        "unreviewed": list(unreviewed),
    }


def _promise(privacy: Privacy) -> dict[str, Any]:
    out: dict[str, Any] = {
        "distiller": privacy.distiller.name.lower(),
        "k": privacy.k,
        "subject": privacy.subject,
        "noise": float(privacy.noise),
        "dissent": privacy.dissent,
        "flip": float(privacy.flip),
    }
    if privacy.epsilon is not None:
        out |= {
            "epsilon": decimal_text(privacy.epsilon),
            "delta": decimal_text(privacy.delta),
            "m": privacy.m,
            "releases": privacy.releases,
            "public_landmarks": privacy.public_landmarks,
        }
    return out


def schema_view(schema: Schema, unreviewed: Iterable[str] = ()) -> tuple[list[Text], View]:
    """The whole in lines, and its fields as a table."""
    waiting = set(unreviewed)
    outcome = schema.outcome
    bucket = schema.time.bucket_seconds
    rows = [
        ("schema", schema.name),
        ("id", schema.id.hex()),
        ("replaces", schema.parent.hex() or "nothing"),
        ("outcome", f"{outcome.name} ({outcome.kind.name.lower()}): {field_values(outcome)} {outcome.unit}".strip()),
        ("leaves a node", _leaves(schema)),
        ("time", f"told to {duration_text(bucket)}, kept {duration_text(schema.time.lifetime_seconds)}"),
        ("slots", f"{schema.width} of {MAX_SLOTS}"),
        ("facets", ", ".join(item.name for item in schema.facets) or "none"),
        ("landmarks", f"{len(schema.landmarks):,}, {landmarks_kind(schema)}"),
    ]
    if schema.organisations:
        named = ", ".join(key.hex()[:16] for key in schema.organisations[:SHOWN])
        rows.append(("must agree", f"{schema.quorum} of {len(schema.organisations)} organisations: {named}"))
    lines = [Text.assemble((f"{label:<15}", "dim"), text) for label, text in rows]
    fields = View(title="fields", title_justify="left")
    for label in ("name", "kind", "range or categories", "unit", "weight", "slots", ""):
        fields.add_column(label, justify="right" if label in ("weight", "slots") else "left", overflow="fold")
    for item in schema.fields:
        kind = "integer" if item.integer else item.kind.value
        marks = ["facet"] * item.facet + ["action"] * item.action + ["not reviewed"] * (item.name in waiting)
        cells = [item.name, kind, field_values(item), item.unit, str(item.weight), str(item.width), ", ".join(marks)]
        fields.add_row(*[Text(cell) for cell in cells])
    return lines, fields


def _noisy(privacy: Privacy) -> str:
    """What leaves a node with differential privacy."""
    assert privacy.epsilon is not None
    chance = f", delta {decimal_text(privacy.delta)}" if privacy.delta else ""
    records = "1 record" if privacy.m == 1 else f"{privacy.m} records"
    return (
        f"counts with noise: epsilon {decimal_text(privacy.epsilon)}{chance} for each {privacy.subject}, {records} of "
        f"each, over {privacy.releases} releases"
    )


def _leaves(schema: Schema) -> str:
    """What leaves a node, in words."""
    privacy = schema.privacy
    if privacy.epsilon is not None:
        return _noisy(privacy)
    if privacy.distiller is not Distiller.COHORT:
        return privacy.distiller.name.lower()
    more = [f"noise of {privacy.noise} of the range"] if privacy.noise else []
    if privacy.dissent != DISSENT:
        more.append(f"at least {privacy.dissent} with another outcome")
    if privacy.flip:
        more.append(f"{privacy.flip} of outcomes drawn by lot")
    return ", ".join([f"cohorts of at least {privacy.k} ({privacy.subject})", *more])


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def advice(schema: Schema, unreviewed: Iterable[str] = ()) -> list[str]:
    """What a person should look at before others agree to the schema."""
    found = []
    waiting = list(unreviewed)
    if waiting:
        found.append(
            f"{len(waiting)} inferred and not reviewed ({_some(waiting)}): look at each, then remove its line "
            "'reviewed = false'"
        )
    bare = [item.name for item in schema.fields if item.kind is FieldKind.NUMERIC and not item.unit]
    if bare:
        found.append(f"no unit ({_some(bare)}): without one, somebody will send another")
    idle = [item.name for item in schema.fields if item.weight == 0 and not item.facet]
    if idle:
        found.append(f"weight 0 ({_some(idle)}): leaves in every packet and counts for nothing")
    cells = 1
    for item in schema.facets:
        cells *= item.width
    if cells * len(schema.landmarks) > 1_000_000:
        found.append(f"{cells:,} facet combinations times {len(schema.landmarks):,} landmarks: many cells stay empty")
    if schema.privacy.distiller is Distiller.COHORT and schema.privacy.k < 5:
        found.append(f"k = {schema.privacy.k} is small: an average over few people tells much about each")
    elif schema.privacy.distiller is Distiller.COHORT and not schema.privacy.noise:
        found.append(
            "no noise on conditions: whoever knows a person can often tell whether it is in a packet; k = 10, "
            "noise = 0.1 and dissent = 2 under [privacy] make that hard, and cost accuracy where a node has no "
            "records of its own (docs/founders.md)"
        )
    if schema.privacy.epsilon is not None:
        found += _private_advice(schema, waiting)
    if schema.time.lifetime_seconds < schema.time.bucket_seconds:
        found.append("packets expire sooner than a bucket lasts")
    return found


def _private_advice(schema: Schema, waiting: list[str]) -> list[str]:
    """What weakens the promise of the distiller ``private``, or makes its packets useless."""
    found = []
    privacy = schema.privacy
    assert privacy.epsilon is not None
    if waiting:
        found.append(
            "what is promised concerns packets, not this file: ranges and categories inferred from protected records "
            "tell about them until each is declared from what is known beforehand"
        )
    if privacy.epsilon > EPSILON_WEAK:
        found.append(
            f"epsilon {decimal_text(privacy.epsilon)} promises little: odds about one {privacy.subject} may change by "
            f"a factor of {math.exp(min(float(privacy.epsilon), 700.0)):,.0f}"
        )
    recipe = recipe_of(schema.fields, schema.landmarks)
    used = sum(item.weight > 0 and not item.facet for item in schema.fields)
    if recipe is not None and not recipe.levels and used > DRAWN_FIELDS:
        found.append(
            f"drawn landmarks say little about {used} fields: a grid over the few that matter most makes better cells, "
            'such as [landmarks] kind = "grid" and levels = { age = 4 }'
        )
    return found
