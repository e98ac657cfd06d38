"""Random schemas and observations, and the real heart-disease tables."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from outroute.distill import Observations
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
    encode,
    facet_index,
)

DAY = 86_400
SITES = ("cleveland", "hungarian", "switzerland", "va")
COLUMNS = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
]


def number(name: str, low: int, high: int) -> Field:
    return Field(name=name, kind=FieldKind.NUMERIC, low=Decimal(low), high=Decimal(high))


def choice(name: str, categories: str, *, facet: bool = False) -> Field:
    return Field(name=name, kind=FieldKind.CATEGORICAL, categories=tuple(categories), facet=facet)


def outcome_of(kind: OutcomeKind) -> Outcome:
    if kind is OutcomeKind.NUMERIC:
        return Outcome(name="outcome", kind=kind, low=Decimal(-100), high=Decimal(100))
    return Outcome(name="outcome", kind=kind, classes=tuple("abcd"[: 2 if kind is OutcomeKind.BINARY else 4]))


def make_schema(
    *,
    k: int = 2,
    kind: OutcomeKind = OutcomeKind.BINARY,
    facet: bool = False,
    distiller: Distiller = Distiller.COHORT,
    lifetime_days: int = 36_500,
) -> Schema:
    fields = (number("x", 0, 10), number("y", -5, 5), choice("c", "uvw"), choice("f", "pq", facet=facet))
    return Schema(
        name="random",
        fields=fields,
        outcome=outcome_of(kind),
        privacy=Privacy(distiller=distiller, k=k),
        time=Time(bucket_seconds=DAY, lifetime_seconds=lifetime_days * DAY),
        landmarks=drawn_landmarks(fields, 4),
    )


def make_observations(
    schema: Schema,
    rng: np.random.Generator,
    n: int,
    *,
    subjects: int | None = None,
    missing: float = 0.0,
    unknown: float = 0.0,
    days: int = 1,
    distinct: int | None = None,
) -> Observations:
    """n random rows; ``distinct``: that many different conditions only; ``subjects``: repeated subjects."""
    codes = np.zeros((n, schema.width), dtype=np.uint16)
    for item in schema.fields:
        where = schema.slots[item.name]
        if item.kind is FieldKind.NUMERIC:
            codes[:, where] = rng.integers(0, SCALE, (n, 1), endpoint=True)
        else:
            codes[np.arange(n), where.start + rng.integers(0, item.width, n)] = SCALE
        codes[np.ix_(rng.random(n) < missing, np.arange(where.start, where.stop))] = MISSING
    if distinct is not None and n:
        codes = codes[rng.integers(0, min(distinct, n), n)]
    if schema.outcome.has_classes:
        outcome = rng.integers(0, len(schema.outcome.classes), n).astype(np.float64)
    else:
        outcome = rng.uniform(-100, 100, n)
    outcome[rng.random(n) < unknown] = np.nan
    return Observations(
        codes=codes,
        outcome=outcome,
        subject=rng.permutation(n).astype(np.int64) if subjects is None else rng.integers(0, subjects, n),
        bucket=rng.integers(0, days, n) * DAY,
        facet=facet_index(schema, codes),
    )


@st.composite
def worlds(draw: st.DrawFn, *, max_rows: int = 120) -> tuple[Schema, Observations]:
    """A schema and observations of every kind: repeated subjects, missing values, equal rows, several windows."""
    schema = make_schema(
        k=draw(st.integers(2, 6)),
        kind=draw(st.sampled_from(list(OutcomeKind))),
        facet=draw(st.booleans()),
        lifetime_days=draw(st.sampled_from([4, 12, 36_500])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    observations = make_observations(
        schema,
        rng,
        draw(st.integers(0, max_rows)),
        subjects=draw(st.one_of(st.none(), st.integers(1, 30))),
        missing=draw(st.sampled_from([0.0, 0.3, 1.0])),
        unknown=draw(st.sampled_from([0.0, 0.2, 1.0])),
        days=draw(st.sampled_from([1, 10])),
        distinct=draw(st.sampled_from([None, 1, 5])),
    )
    return schema, observations


def heart_schema(*, k: int = 5, distiller: Distiller = Distiller.COHORT) -> Schema:
    fields = (
        number("age", 20, 90),
        choice("sex", "01"),
        choice("cp", "1234"),
        number("trestbps", 80, 220),
        number("chol", 80, 620),
        choice("fbs", "01"),
        choice("restecg", "012"),
        number("thalach", 50, 220),
        choice("exang", "01"),
        number("oldpeak", -3, 7),
        choice("slope", "123"),
        number("ca", 0, 3),
        choice("thal", "367"),
    )
    return Schema(
        name="heart",
        fields=fields,
        outcome=Outcome(name="disease", kind=OutcomeKind.BINARY, classes=("no", "yes")),
        privacy=Privacy(distiller=distiller, k=k, subject="patient"),
        time=Time(),
        landmarks=drawn_landmarks(fields),
    )


@pytest.fixture(scope="session")
def heart() -> dict[str, Observations]:
    """Four real hospitals (UCI heart disease); zero stands for missing in cholesterol and blood pressure."""
    root = os.environ.get("OUTROUTE_DATA")
    folder = Path(root or "") / "heart"
    if not root or not folder.is_dir():
        pytest.skip("needs the heart-disease tables: set OUTROUTE_DATA")
    schema = heart_schema()
    out = {}
    for site in SITES:
        table = np.genfromtxt(folder / f"processed.{site}.data", delimiter=",", missing_values="?")
        columns = dict(zip(COLUMNS, table.T, strict=True))
        for name in ("chol", "trestbps"):
            columns[name] = np.where(columns[name] == 0, np.nan, columns[name])
        disease = (columns.pop("num") > 0).astype(np.float64)
        n = len(disease)
        encoded = encode(schema, columns)
        assert not encoded.problems
        out[site] = Observations(
            codes=encoded.codes,
            outcome=disease,
            subject=np.arange(n),
            bucket=np.zeros(n, dtype=np.int64),
            facet=np.zeros(n, dtype=np.int64),
        )
    return out
