"""What a network agrees on: fields, outcome, privacy floor, landmarks. See ``docs/specification.md``."""

from __future__ import annotations

from outroute.schema.canonical import canonical, decimal_text, schema_id
from outroute.schema.encoding import (
    Encoded,
    Problem,
    ProblemKind,
    codes_problem,
    decode_field,
    encode,
    encode_outcome,
    facet_index,
    shares,
    unit_scale,
)
from outroute.schema.files import load, unreviewed
from outroute.schema.landmarks import DEFAULT_LANDMARKS, MAX_LANDMARKS, Landmarks
from outroute.schema.model import (
    MAX_CATEGORIES,
    MAX_CLASSES,
    MAX_SLOTS,
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
)
from outroute.schema.toml import drawn_landmarks, dumps, duration_text, loads, parse_duration

__all__ = [
    "DEFAULT_LANDMARKS",
    "MAX_CATEGORIES",
    "MAX_CLASSES",
    "MAX_LANDMARKS",
    "MAX_SLOTS",
    "MISSING",
    "SCALE",
    "Distiller",
    "Encoded",
    "Field",
    "FieldKind",
    "Landmarks",
    "Outcome",
    "OutcomeKind",
    "Privacy",
    "Problem",
    "ProblemKind",
    "Schema",
    "Time",
    "canonical",
    "codes_problem",
    "decimal_text",
    "decode_field",
    "drawn_landmarks",
    "dumps",
    "duration_text",
    "encode",
    "encode_outcome",
    "facet_index",
    "load",
    "loads",
    "parse_duration",
    "schema_id",
    "shares",
    "unit_scale",
    "unreviewed",
]
