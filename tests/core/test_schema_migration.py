"""Observations under a schema become observations under its successor: nothing clipped, nothing guessed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import DataError, SchemaError
from outroute.schema import (
    MISSING,
    SCALE,
    Field,
    FieldKind,
    Migration,
    OutcomeKind,
    ProblemKind,
    Schema,
    Time,
    codes_problem,
    decode_field,
    drawn_landmarks,
    encode,
)

from .making import categorical_field, codes_of, numeric_field, schema_of, schemas

X = numeric_field(unit="mg", low=Decimal(0), high=Decimal(100))
C = categorical_field()


def moving(*fields: Field, old: Schema | None = None, **given_: Any) -> Migration:
    before = old or schema_of(X, C)
    made = fields or before.fields
    wanted: dict[str, Any] = {"parent": before.id, "outcome": before.outcome}
    return Migration(old=before, new=schema_of(*made, **(wanted | given_)))


@settings(max_examples=60, deadline=None)
@given(schemas(), st.integers(0, 2**32 - 1))
def test_the_same_fields_keep_their_codes_bit_by_bit(base: Schema, seed: int) -> None:
    turned = base.fields[::-1]
    new = replace(base, parent=base.id, name="next", fields=turned, landmarks=drawn_landmarks(turned, 3))
    migration = Migration(old=base, new=new)
    codes = codes_of(base, np.random.default_rng(seed), 20)
    moved = migration.codes(codes)
    assert moved.problems == ()
    assert not len(moved.lost)
    for f in base.fields:
        assert np.array_equal(moved.codes[:, new.slots[f.name]], codes[:, base.slots[f.name]])
    assert set(migration.carried) == {f.name for f in base.fields}
    assert migration.dropped == migration.added == ()


@settings(max_examples=100, deadline=None)
@given(
    st.decimals(-50, 60, places=2),
    st.decimals(61, 160, places=2),
    st.lists(st.integers(0, SCALE), min_size=1, max_size=9),
)
def test_numbers_are_decoded_and_encoded_never_clipped(low: Decimal, high: Decimal, given_: list[int]) -> None:
    migration = moving(replace(X, low=low, high=high), C)
    old, new = migration.old, migration.new
    codes = np.full((len(given_), old.width), MISSING, dtype=np.uint16)
    codes[:, 0] = given_
    moved = migration.codes(codes)
    half = 50 / SCALE + float(high - low) / 2 / SCALE + 1e-9
    for row, code in enumerate(given_):
        value = decode_field(old.fields[0], np.array([code], dtype=np.uint16))
        after = decode_field(new.fields[0], moved.codes[row, :1])
        assert isinstance(value, float)
        if after is None:
            assert row in moved.lost
            assert not float(low) <= value <= float(high)
        else:
            assert isinstance(after, float)
            assert abs(after - value) <= half
            assert row not in moved.lost
    outside = [p for p in moved.problems if p.kind is ProblemKind.OUT_OF_RANGE]
    assert np.array_equal(np.unique(np.concatenate([p.rows for p in outside] or [np.array([], int)])), moved.lost)
    assert (moved.codes[moved.lost, 0] == MISSING).all()


def test_the_end_of_a_range_is_kept_though_codes_are_rounded() -> None:
    migration = moving(replace(X, low=Decimal(10), high=Decimal("33.3")), C)
    codes = encode(migration.old, {"x": [10, 33.3, 9.99, 33.31, None], "c": ["a"] * 5}).codes
    moved = migration.codes(codes)
    assert moved.codes[:, 0].tolist() == [0, SCALE, MISSING, MISSING, MISSING]
    assert moved.lost.tolist() == [2, 3]
    assert moved.problems[0].example == "9.99023 mg"


def test_categories_are_kept_by_name_and_lost_ones_counted() -> None:
    migration = moving(X, replace(C, categories=("d", "c", "a")))
    codes = encode(migration.old, {"x": [1, 2, 3, 4], "c": ["a", "b", "c", None]}).codes
    moved = migration.codes(codes)
    fields = [decode_field(migration.new.fields[1], row[1:]) for row in moved.codes]
    assert fields == [{"a": 1.0}, None, {"c": 1.0}, None]
    (problem,) = moved.problems
    assert (problem.kind, problem.rows.tolist(), problem.example) == (ProblemKind.UNKNOWN_CATEGORY, [1], "b")
    assert not len(moved.lost), "the case stays, its category is missing"
    shares = np.array([[0, 30_000, 35_534, 0], [0, 0, 30_000, 35_534], [0, 30_000, 0, 35_534]], dtype=np.uint16)
    moved = migration.codes(shares)
    assert moved.codes[:, 1:].tolist() == [[MISSING] * 3, [MISSING] * 3, [0, 35_534, 30_000]]
    assert not codes_problem(migration.new, moved.codes).any()


def test_new_dropped_and_changed_fields() -> None:
    old = schema_of(X, C, numeric_field("gone"), numeric_field("turned", unit="m"), numeric_field("kind"))
    migration = moving(
        numeric_field("new"), C, numeric_field("turned", unit="km"), categorical_field("kind"), X, old=old
    )
    assert migration.carried == ("c", "x")
    assert migration.dropped == ("gone", "turned", "kind")
    assert migration.added == ("new", "turned", "kind")
    codes = codes_of(old, np.random.default_rng(1), 50)
    moved = migration.codes(codes)
    for name in migration.added:
        assert (moved.codes[:, migration.new.slots[name]] == MISSING).all()
    assert moved.problems == ()
    assert not codes_problem(migration.new, moved.codes).any()


@settings(max_examples=60, deadline=None)
@given(schemas(), schemas(), st.integers(0, 2**32 - 1))
def test_whatever_comes_out_is_allowed(old: Schema, new: Schema, seed: int) -> None:
    new = replace(new, parent=old.id, outcome=old.outcome)
    migration = Migration(old=old, new=new)
    moved = migration.codes(codes_of(old, np.random.default_rng(seed), 30))
    assert not codes_problem(new, moved.codes).any()
    assert set(migration.dropped) | set(migration.carried) == {f.name for f in old.fields}
    assert set(migration.added) | set(migration.carried) == {f.name for f in new.fields}
    for name in migration.added:
        where = new.slots[name]
        assert (moved.codes[:, where] == MISSING).all()
        assert new.field(name).kind in FieldKind


def test_outcomes_are_carried_by_name_or_not_at_all() -> None:
    values = np.array([0.0, 1.0, 2.0, np.nan])
    old = schema_of(X, kind=OutcomeKind.CATEGORICAL)
    migration = moving(old=old, outcome=replace(old.outcome, classes=("z", "c", "b", "a")))
    moved, lost = migration.outcome(values)
    assert moved.tolist()[:3] == [3.0, 2.0, 1.0]
    assert np.isnan(moved[3])
    assert not len(lost)
    number = schema_of(X, kind=OutcomeKind.NUMERIC)
    migration = moving(old=number, outcome=replace(number.outcome, low=Decimal(0), high=Decimal(5)))
    moved, lost = migration.outcome(np.array([-1.0, 0.0, 5.0, 5.001, np.nan]))
    assert lost.tolist() == [0, 3]
    assert moved[1:3].tolist() == [0.0, 5.0]
    assert np.isnan(moved[[0, 3, 4]]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"unit": "h"},
        {"kind": OutcomeKind.BINARY, "low": None, "high": None, "unit": "", "classes": ("a", "b")},
    ],
)
def test_another_outcome_is_refused(change: dict[str, Any]) -> None:
    old = schema_of(X, kind=OutcomeKind.NUMERIC)
    with pytest.raises(SchemaError, match="name, kind or unit differ") as caught:
        moving(old=old, outcome=replace(old.outcome, **change))
    assert caught.value.code == "schema.outcome"
    three = schema_of(X, kind=OutcomeKind.CATEGORICAL)
    with pytest.raises(SchemaError, match="class 'c' is left out"):
        moving(old=three, outcome=replace(three.outcome, classes=("a", "b", "d")))


def test_a_successor_names_its_parent() -> None:
    with pytest.raises(SchemaError, match=schema_of(X, C).id.hex()) as caught:
        Migration(old=schema_of(X, C), new=schema_of(X, C, name="next"))
    assert caught.value.code == "schema.parent"


def test_codes_of_another_schema_are_refused() -> None:
    migration = moving()
    for codes in (np.zeros((2, 3), np.uint16), np.zeros((2, 4), np.int64), np.zeros(4, np.uint16)):
        with pytest.raises(DataError, match=r"uint16\[n, 4\]"):
            migration.codes(codes)  # type: ignore[arg-type]


def test_buckets_of_the_successor() -> None:
    migration = moving(time=Time(bucket_seconds=7 * 86_400, lifetime_seconds=30 * 86_400))
    start = np.array([-86_400, 0, 6 * 86_400, 7 * 86_400])
    assert migration.bucket(start).tolist() == [-7 * 86_400, 0, 0, 7 * 86_400]
