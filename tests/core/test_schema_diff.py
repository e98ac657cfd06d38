"""Differences between schemas, and what each means."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings

from outroute.identity import Identity
from outroute.schema import (
    Change,
    Distiller,
    Field,
    Landmarks,
    Meaning,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    diff,
    drawn_landmarks,
)

from .making import categorical_field, numeric_field, schema_of, schemas

KEYS = tuple(sorted(Identity(bytes([n]) * 32).public_key for n in (7, 8)))
X = numeric_field(unit="mg", low=Decimal(0), high=Decimal(100))
C = categorical_field()


def one(old: Schema, new: Schema) -> Change:
    (change,) = diff(old, new)
    assert str(change).startswith(change.where)
    return change


def changed(**given_: Any) -> tuple[Schema, Schema]:
    """A schema with a numeric and a categorical field, and the same with something else; landmarks stay."""
    marks = schema_of(X, C).landmarks
    base: dict[str, Any] = {"landmarks": marks}
    fields = given_.pop("fields", (X, C))
    return schema_of(X, C, **base), schema_of(*fields, **(base | given_))


@settings(deadline=None)
@given(schemas())
def test_nothing_changes_from_a_schema_to_itself(schema: Schema) -> None:
    assert diff(schema, schema) == ()


@settings(deadline=None)
@given(schemas(), schemas())
def test_every_difference_of_ids_is_told(old: Schema, new: Schema) -> None:
    new = replace(new, parent=old.parent)
    told = diff(old, new)
    assert bool(told) >= (old.id != new.id)
    ranks = [list(Meaning).index(change.meaning) for change in told]
    assert ranks == sorted(ranks)


FIELDS: list[tuple[Meaning, Field, str]] = [
    (Meaning.NARROWS, numeric_field(unit="mg", low=Decimal(10), high=Decimal(100)), "10 to 100 mg; before, 0 to 100"),
    (Meaning.NARROWS, numeric_field(unit="mg", low=Decimal(-5), high=Decimal(90)), "-5 to 90 mg"),
    (Meaning.WIDENS, numeric_field(unit="mg", low=Decimal(0), high=Decimal(200)), "0 to 200 mg"),
    (Meaning.BREAKS, numeric_field(unit="mg", low=Decimal(101), high=Decimal(200)), "no value of before has a place"),
    (Meaning.BREAKS, numeric_field(unit="g", low=Decimal(0), high=Decimal(100)), "another unit is another meaning"),
    (Meaning.SHIFTS, replace(X, weight=Decimal("0.5")), "weighs 0.5; before, 1"),
    (Meaning.COSMETIC, replace(X, description="dose"), "other words"),
    (Meaning.COSMETIC, replace(X, integer=True), "whole numbers"),
]


@pytest.mark.parametrize(("meaning", "field", "says"), FIELDS)
def test_numeric_fields(meaning: Meaning, field: Field, says: str) -> None:
    change = one(*changed(fields=(field, C)))
    assert change.meaning is meaning
    assert change.where == "field 'x'"
    assert says in change.text


def test_categories_and_facets() -> None:
    old = schema_of(X, C, landmarks=schema_of(X, C).landmarks)
    fewer = schema_of(X, replace(C, categories=("a", "b")))
    told = [change for change in diff(old, fewer) if change.where == "field 'c'"]
    assert [(c.meaning, c.text) for c in told] == [
        (Meaning.NARROWS, "category 'c' is left out: what had it becomes missing")
    ]
    more = schema_of(X, replace(C, categories=("b", "a", "c", "d")))
    told = [change for change in diff(old, more) if change.where == "field 'c'"]
    assert [c.meaning for c in told] == [Meaning.WIDENS, Meaning.COSMETIC]
    marks = Landmarks(schema_of(X, replace(C, facet=True)).landmarks.codes)
    facet = schema_of(X, replace(C, facet=True), landmarks=marks)
    assert one(schema_of(X, C, landmarks=marks), facet).meaning is Meaning.SHIFTS


def test_a_role_that_changes_is_told() -> None:
    marks = schema_of(X, C).landmarks
    plain, acting = schema_of(X, C, landmarks=marks), schema_of(X, replace(C, action=True), landmarks=marks)
    there, back = one(plain, acting), one(acting, plain)
    assert there.meaning is back.meaning is Meaning.SHIFTS
    assert "may be compared by it" in there.text
    assert "no action any more" in back.text


def test_fields_come_and_go_and_look_renamed() -> None:
    old, new = schema_of(X, C), schema_of(replace(X, name="dose"), C)
    told = diff(old, new)
    gone = next(c for c in told if c.meaning is Meaning.BREAKS)
    assert gone.where == "field 'x'"
    assert "renamed to 'dose'?" in gone.text
    assert [c.where for c in told if c.meaning is Meaning.WIDENS] == ["field 'dose'"]
    kind = diff(old, schema_of(categorical_field("x"), C))
    assert next(c for c in kind if c.where == "field 'x'").meaning is Meaning.BREAKS
    order = diff(old, schema_of(C, X))
    assert [(c.meaning, c.text) for c in order if c.where == "fields"] == [(Meaning.COSMETIC, "stand in another order")]


@pytest.mark.parametrize(
    ("given_", "meaning", "says"),
    [
        ({"privacy": Privacy(k=3)}, Meaning.WEAKENS, "only 3 subjects must share a packet; before, 5"),
        ({"privacy": Privacy(k=9)}, Meaning.NARROWS, "9 subjects"),
        ({"privacy": Privacy(distiller=Distiller.SINGLE, k=1)}, Meaning.WEAKENS, "single observations may leave"),
        ({"privacy": Privacy(k=5, subject="visit")}, Meaning.WEAKENS, "k counts 'visit'"),
        ({"time": Time(bucket_seconds=3600, lifetime_seconds=30 * 86_400)}, Meaning.WEAKENS, "told to 1 hour"),
        ({"time": Time(bucket_seconds=7 * 86_400, lifetime_seconds=30 * 86_400)}, Meaning.NARROWS, "told to 1 week"),
        ({"time": Time(bucket_seconds=86_400, lifetime_seconds=60 * 86_400)}, Meaning.WIDENS, "live 60 days"),
        ({"time": Time(bucket_seconds=86_400, lifetime_seconds=86_400)}, Meaning.NARROWS, "live 1 day"),
        ({"landmarks": drawn_landmarks((X, C), 5)}, Meaning.SHIFTS, "5 other ones; before, 12"),
        ({"name": "new"}, Meaning.COSMETIC, "is 'new'; before, 'test'"),
    ],
)
def test_what_is_not_a_field(given_: dict[str, Any], meaning: Meaning, says: str) -> None:
    change = one(*changed(**given_))
    assert change.meaning is meaning
    assert says in str(change)


def test_a_lower_floor_comes_first() -> None:
    old, new = changed(privacy=Privacy(k=2), fields=(numeric_field(unit="g"), C), name="new")
    assert [c.meaning for c in diff(old, new)] == [Meaning.WEAKENS, Meaning.BREAKS, Meaning.COSMETIC]


def test_agreement() -> None:
    nobody, both = schema_of(), schema_of(organisations=KEYS, quorum=2)
    assert {c.meaning for c in diff(nobody, both)} == {Meaning.SHIFTS}
    assert "2 of 2 must sign; before, nobody had to" in [c.text for c in diff(nobody, both)]
    fewer = diff(both, schema_of(organisations=KEYS, quorum=1))
    assert [(c.meaning, c.text) for c in fewer] == [(Meaning.WEAKENS, "1 of 2 must sign; before, 2 of 2")]
    assert {c.meaning for c in diff(both, nobody)} == {Meaning.WEAKENS}


def test_outcomes() -> None:
    old = schema_of(kind=OutcomeKind.CATEGORICAL)

    def told(**given_: Any) -> list[tuple[Meaning, str]]:
        new = schema_of(kind=OutcomeKind.CATEGORICAL, outcome=replace(old.outcome, **given_))
        return [(c.meaning, c.text) for c in diff(old, new)]

    assert told(classes=("a", "b", "c", "d")) == [(Meaning.WIDENS, "class 'd' is new")]
    assert told(classes=("a", "b", "d"))[0] == (Meaning.BREAKS, "class 'c' is left out: what had it has no place")
    assert told(name="z")[0][0] is Meaning.BREAKS
    assert told(description="more")[0][0] is Meaning.COSMETIC
    assert told(kind=OutcomeKind.BINARY, classes=("a", "b"))[0] == (
        Meaning.BREAKS, "is binary; before, categorical",
    )  # fmt: skip
    two = schema_of()
    turned = schema_of(outcome=replace(two.outcome, classes=("yes", "no")))
    assert [(c.meaning, c.text) for c in diff(two, turned)] == [
        (Meaning.SHIFTS, "the positive class is 'no'; before, 'yes'")
    ]
    number = schema_of(kind=OutcomeKind.NUMERIC)
    narrow = schema_of(kind=OutcomeKind.NUMERIC, outcome=replace(number.outcome, low=Decimal(0)))
    assert one(number, narrow).meaning is Meaning.NARROWS
