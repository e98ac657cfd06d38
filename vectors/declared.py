"""Schemas of the test vectors, as somebody may write them down."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Landmarks,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    drawn_landmarks,
)

__all__ = ["Json", "declared", "make_schema"]

Json = dict[str, Any]


def declared() -> dict[str, Json]:
    """Schemas as somebody may write them down: numbers and texts not yet canonical."""
    stay = {
        "name": "stay",
        "fields": [
            {
                "name": "temperature",
                "kind": "numeric",
                "low": "-10.50",
                "high": "4.5E+1",
                "unit": "°C",
                "weight": "0.25",
            },
            {"name": "visits", "kind": "numeric", "low": "0.0", "high": "12", "integer": 1, "weight": "10"},
            {"name": "ward", "kind": "categorical", "categories": ["x", "y"], "weight": "0"},
        ],
        "outcome": {"name": "days", "kind": "numeric", "low": "-0.0", "high": "365.0", "unit": "d"},
        "privacy": {"distiller": "single", "k": 1, "subject": "machine"},
        "time": {"bucket": 3600, "lifetime": 3_153_600_000},
        "landmarks": {"draw": 7},
        "parent": "",
    }
    heart = {
        "name": "heart",
        "fields": [
            {"name": "site", "kind": "categorical", "categories": ["left", "right", "both"], "facet": 1},
            {
                "name": "age",
                "kind": "numeric",
                "low": "18",
                "high": "100",
                "unit": "years",
                "integer": 1,
                "weight": "2.00",
            },
            {"name": "pressure", "kind": "numeric", "low": "60.00", "high": "260.0", "unit": "mmHg"},
            {"name": "pain", "kind": "categorical", "categories": ["none", "some", "much"], "weight": "0.5"},
            {"name": "smoker", "kind": "categorical", "categories": ["no", "yes"], "facet": 1, "weight": "0.10"},
        ],
        "outcome": {"name": "event", "kind": "binary", "classes": ["no", "yes"]},
        "privacy": {"distiller": "cohort", "k": 5, "subject": "patient"},
        "time": {"bucket": 2_592_000, "lifetime": 157_680_000},
        "landmarks": {"draw": 16},
        "parent": "",
    }
    words = {
        "name": 'Caf\u0065\u0301 "\\" \u2028 \U0001f600',
        "fields": [
            {"name": "gr\u006f\u0308\u00dfe", "kind": "numeric", "low": "0.001", "high": "1000000", "unit": "\u212b"},
            {"name": "art", "kind": "categorical", "categories": ["\u00e9", "e", "f/g"], "weight": "1.5"},
        ],
        "outcome": {"name": "grade", "kind": "categorical", "classes": ["a", "b", "c", "d"]},
        "privacy": {"distiller": "cohort", "k": 2, "subject": "\u017eena"},
        "time": {"bucket": 86_400, "lifetime": 604_800},
        "landmarks": {
            "codes": [[0, 65534, 0, 0], [32767, 20000, 20000, 25534], [65534, 0, 0, 65534], [65534, 0, 65534, 0]]
        },
        "parent": "ab" * 32,
    }
    wide = {
        "name": "wide",
        "fields": [
            *({"name": f"n{i:03}", "kind": "numeric", "low": "0", "high": "1", "weight": "10"} for i in range(80)),
            *(
                {"name": f"c{i}", "kind": "categorical", "categories": list("abcdefghijkl"), "weight": "9.99"}
                for i in range(3)
            ),
        ],
        "outcome": {"name": "class", "kind": "categorical", "classes": list("0123456789")},
        "privacy": {"distiller": "cohort", "k": 10_000, "subject": "subject"},
        "time": {"bucket": 1, "lifetime": 1},
        "landmarks": {"draw": 40},
        "parent": "",
    }
    tiny = {
        "name": "tiny",
        "fields": [
            {"name": "p", "kind": "categorical", "categories": ["0", "1"]},
            {"name": "q", "kind": "categorical", "categories": ["0", "1"]},
        ],
        "outcome": {"name": "r", "kind": "binary", "classes": ["0", "1"]},
        "privacy": {"distiller": "cohort", "k": 2, "subject": "subject"},
        "time": {"bucket": 86_400, "lifetime": 86_400},
        "landmarks": {"draw": 64},
        "parent": "",
    }
    acts = {
        "name": "acts",
        "fields": [
            {"name": "age", "kind": "numeric", "low": "0", "high": "110", "unit": "years"},
            {"name": "drug", "kind": "categorical", "categories": ["none", "a", "b"], "role": "action"},
            {"name": "dose", "kind": "numeric", "low": "0", "high": "20", "unit": "mg", "role": "action"},
        ],
        "outcome": {"name": "well", "kind": "binary", "classes": ["no", "yes"]},
        "privacy": {"distiller": "cohort", "k": 5, "subject": "patient"},
        "time": {"bucket": 86_400, "lifetime": 864_000},
        "landmarks": {"draw": 8},
        "parent": "",
    }
    blurred = {
        "name": "blurred",
        "fields": [
            {"name": "age", "kind": "numeric", "low": "0", "high": "110", "unit": "years"},
            {"name": "sex", "kind": "categorical", "categories": ["f", "m"]},
        ],
        "outcome": {"name": "well", "kind": "binary", "classes": ["no", "yes"]},
        "privacy": {
            "distiller": "cohort",
            "k": 10,
            "subject": "patient",
            "noise": "0.10",
            "dissent": 2,
            "flip": "0.05",
        },
        "time": {"bucket": 86_400, "lifetime": 864_000},
        "landmarks": {"draw": 8},
        "parent": "",
    }
    return {"heart": heart, "stay": stay, "words": words, "wide": wide, "tiny": tiny, "acts": acts, "blurred": blurred}


def make_schema(d: Json) -> Schema:
    """The schema that a declaration means."""
    fields = tuple(
        Field(
            name=f["name"],
            kind=FieldKind(f["kind"]),
            low=Decimal(f["low"]) if "low" in f else None,
            high=Decimal(f["high"]) if "high" in f else None,
            unit=f.get("unit", ""),
            categories=tuple(f.get("categories", ())),
            weight=Decimal(f.get("weight", "1")),
            facet=bool(f.get("facet", 0)),
            action=f.get("role") == "action",
            integer=bool(f.get("integer", 0)),
        )
        for f in d["fields"]
    )
    o, marks = d["outcome"], d["landmarks"]
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
            distiller=Distiller[d["privacy"]["distiller"].upper()],
            k=d["privacy"]["k"],
            subject=d["privacy"]["subject"],
            noise=Decimal(d["privacy"].get("noise", "0")),
            dissent=d["privacy"].get("dissent", 1),
            flip=Decimal(d["privacy"].get("flip", "0")),
        ),
        time=Time(bucket_seconds=d["time"]["bucket"], lifetime_seconds=d["time"]["lifetime"]),
        landmarks=(
            Landmarks(np.array(marks["codes"], dtype=np.uint16))
            if "codes" in marks
            else drawn_landmarks(fields, marks["draw"])
        ),
        parent=bytes.fromhex(d["parent"]),
        organisations=tuple(bytes.fromhex(key) for key in d.get("organisations", ())),
        quorum=d.get("quorum", 0),
    )
