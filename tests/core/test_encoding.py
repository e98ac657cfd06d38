"""Values of cases to codes and back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.distill import Observations
from outroute.distill.aggregate import aggregate
from outroute.errors import DataError, SchemaError
from outroute.schema import (
    MISSING,
    SCALE,
    Outcome,
    OutcomeKind,
    ProblemKind,
    Schema,
    codes_problem,
    decode_field,
    encode,
    encode_outcome,
    shares,
    unit_scale,
)

from . import second
from .making import agreed, categorical_field, codes_of, numeric_field, schema_of, schemas

NAN = float("nan")


def codes(schema: Schema, **columns: Any) -> list[list[int]]:
    made = encode(schema, columns)
    assert not made.problems
    out: list[list[int]] = made.codes.tolist()
    return out


def test_numbers() -> None:
    schema = schema_of(numeric_field(low=Decimal(-10), high=Decimal(10)))
    assert codes(schema, x=[-10, 0, 10, None, NAN, "", "5", np.float32("nan"), pd.NA, pd.NaT]) == [
        [0], [32767], [SCALE], [MISSING], [MISSING], [MISSING], [49150], [MISSING], [MISSING], [MISSING],
    ]  # fmt: skip
    assert codes(schema, x=np.array([1, 2], dtype=np.int8)) == codes(schema, x=[1.0, 2.0])
    assert codes(schema, x=pd.Series([1.5, None])) == codes(schema, x=[1.5, NAN])
    assert codes(schema, x=[]) == []


def test_problems_are_values() -> None:
    schema = schema_of(numeric_field(), categorical_field())
    made = encode(schema, {"x": [0.5, 1.5, "many", -0.1, np.inf], "c": ["a", "z", None, "b", "A"]})
    found = {(p.field, p.kind): (p.rows.tolist(), p.example) for p in made.problems}
    assert found == {
        ("x", ProblemKind.NOT_A_NUMBER): ([2], "many"),
        ("x", ProblemKind.OUT_OF_RANGE): ([1, 3, 4], "1.5"),
        ("c", ProblemKind.UNKNOWN_CATEGORY): ([1, 4], "z"),
    }
    assert made.bad_rows.tolist() == [1, 2, 3, 4]
    assert (made.codes[made.bad_rows, 0] == MISSING).all()
    assert made.codes[1].tolist() == [MISSING] * 4
    assert made.codes[3].tolist() == [MISSING, 0, SCALE, 0]
    assert not codes_problem(schema, made.codes).any()
    assert encode(schema, {"x": [0.5]}).bad_rows.tolist() == []


def test_categories() -> None:
    field = categorical_field(categories=("1", "yes", "no", "é"))
    schema = schema_of(field)
    whole = (np.eye(4, dtype=int) * SCALE).tolist()
    given_ = [1, 1.0, "1", np.int64(1), True, "yes", False, np.bool_(False), "é", "e\u0301"]
    assert codes(schema, c=given_) == [whole[i] for i in (0, 0, 0, 0, 1, 1, 2, 2, 3, 3)]
    assert codes(schema, c=[True, 1, 1.0, True]) == [whole[i] for i in (1, 0, 0, 1)], "1 is not True"
    assert codes(schema, c=[None, NAN, "", np.float32("nan"), pd.NA]) == [[MISSING] * 4] * 5
    assert codes(schema, c=np.array([1.0, np.nan])) == [whole[0], [MISSING] * 4]
    assert codes(schema, c=pd.Categorical(["yes", None])) == [whole[1], [MISSING] * 4]
    assert [p.kind for p in encode(schema, {"c": [["list"]]}).problems] == [ProblemKind.UNKNOWN_CATEGORY]


def test_misuse() -> None:
    schema = schema_of()
    with pytest.raises(DataError) as caught:
        encode(schema, {"x": [1], "c": ["a", "b"]})
    assert caught.value.code == "data.lengths"
    with pytest.raises(SchemaError) as unknown:
        encode(schema, {"q": [1]})
    assert unknown.value.code == "schema.no_field"
    assert encode(schema, {}).codes.shape == (0, schema.width)
    assert (encode(schema, {"c": ["a"]}).codes[0, :1] == MISSING).all(), "no column: missing everywhere"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20))
def test_numbers_as_the_specification_says(values: list[float]) -> None:
    schema = schema_of(numeric_field(low=Decimal(-10), high=Decimal(10)))
    made = encode(schema, {"x": values}).codes
    f = agreed(schema).fields[0]
    assert made[:, 0].tolist() == [second.quantise(f, v) for v in values]
    back = [decode_field(schema.fields[0], row) for row in made]
    assert np.allclose(np.array(back, dtype=float), values, atol=20 / SCALE)
    assert np.allclose(unit_scale(schema, made)[:, 0], (np.array(values) + 10) / 20, atol=1 / SCALE)


def test_back_to_people() -> None:
    schema = schema_of(numeric_field(), categorical_field())
    row = np.array([MISSING, SCALE // 2, 0, SCALE // 2], dtype=np.uint16)
    assert decode_field(schema.fields[0], row[:1]) is None
    assert decode_field(schema.fields[1], row[1:]) == {"a": 0.5, "c": 0.5}
    assert decode_field(schema.fields[1], np.full(3, MISSING, np.uint16)) is None
    assert np.isnan(unit_scale(schema, row[None])[0]).tolist() == [True, False, False, False]


@settings(max_examples=60, deadline=None)
@given(schemas(), st.integers(0, 2**32))
def test_codes_that_fields_do_not_allow(schema: Schema, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = codes_of(schema, rng, 30)
    assert not codes_problem(schema, made).any()
    for row in made:
        row[rng.integers(schema.width)] = rng.choice([0, 1, SCALE, MISSING, int(rng.integers(65_536))])
    other = agreed(schema)
    assert codes_problem(schema, made).tolist() == [second.bad_codes(other, row) for row in made.tolist()]


@settings(max_examples=60, deadline=None)
@given(schemas(), st.integers(1, 12), st.integers(0, 2**32))
def test_cohorts_as_the_specification_says(schema: Schema, size: int, seed: int) -> None:
    members = codes_of(schema, np.random.default_rng(seed), size)
    for f in schema.facets:
        members[:, schema.slots[f.name]] = members[0, schema.slots[f.name]]
    zero = np.zeros(size, dtype=np.int64)
    own = Observations(codes=members, outcome=np.zeros(size), subject=np.arange(size), bucket=zero, facet=zero)
    made = aggregate(schema, own, zero).codes
    assert made[0].tolist() == second.cohort(agreed(schema), members.tolist())
    assert not codes_problem(schema, made).any()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any))
def test_shares_sum_to_the_whole(counts: list[int]) -> None:
    (row,) = shares(np.array([counts], dtype=np.float64)).astype(int).tolist()
    assert sum(row) == SCALE
    exact = np.array(counts) / sum(counts) * SCALE
    assert np.abs(np.array(row) - exact).max() < 1 + 1e-6
    assert shares(np.ones((1, 3)))[0].tolist() == [21845, 21845, 21844], "ties to the lowest index"


# Outcomes

TWO = Outcome(name="y", kind=OutcomeKind.BINARY, classes=("no", "yes"))
ONES = Outcome(name="y", kind=OutcomeKind.BINARY, classes=("1", "2"))
TURNED = Outcome(name="y", kind=OutcomeKind.BINARY, classes=("yes", "no"))
MANY = Outcome(name="y", kind=OutcomeKind.CATEGORICAL, classes=("a", "é", "c"))
NUMBERS = Outcome(name="y", kind=OutcomeKind.NUMERIC, low=Decimal(-1), high=Decimal(9), unit="d")


@pytest.mark.parametrize(
    ("outcome", "values", "wanted"),
    [
        (TWO, ["no", "yes", None, ""], [0, 1, NAN, NAN]),
        (TWO, [0, 1, None], [0, 1, NAN]),
        (TWO, np.array([0.0, 1.0, np.nan]), [0, 1, NAN]),
        (TWO, np.array([True, False]), [1, 0]),
        (TWO, [True, False, None], [1, 0, NAN]),
        (TWO, pd.Series([1, None], dtype="Int64"), [1, NAN]),
        (TURNED, np.array([True, False]), [0, 1]),
        (TURNED, [True, None], [0, NAN]),
        (ONES, [1, 2], [0, 1]),
        (ONES, [1, 1], [0, 0]),
        (ONES, ["1", "2"], [0, 1]),
        (ONES, np.array([2.0]), [1]),
        (MANY, ["c", "e\u0301", 0, 2], [2, 1, 0, 2]),
        (NUMBERS, [-1, 9, None, "2.5"], [-1, 9, NAN, 2.5]),
        (NUMBERS, np.array([1, 2]), [1, 2]),
        (TWO, [], []),
    ],
)
def test_outcomes(outcome: Outcome, values: Any, wanted: list[float]) -> None:
    assert np.array_equal(encode_outcome(outcome, values), np.array(wanted, dtype=float), equal_nan=True)


@pytest.mark.parametrize(
    ("outcome", "values", "code", "says"),
    [
        (TWO, ["no", "maybe"], "data.outcome_class", "'maybe' in row 2"),
        (TWO, np.array([0, 2]), "data.outcome_class", "'2' in row 2"),
        (TWO, np.array([-1]), "data.outcome_class", "row 1"),
        (TWO, np.array([0.5]), "data.outcome_class", "0.5"),
        (TWO, np.array([np.inf]), "data.outcome_class", "inf"),
        (ONES, [1, 0], "data.outcome_class", "'0' in row 2"),
        (ONES, np.array([0, 0]), "data.outcome_class", "'0' in row 1"),
        (NUMBERS, [1, 10], "data.outcome_range", "row 2: 10. Wrong unit"),
        (NUMBERS, [1, "ten"], "data.outcome_range", "row 2: ten"),
        (NUMBERS, [np.inf], "data.outcome_range", "row 1"),
    ],
)
def test_wrong_outcomes(outcome: Outcome, values: Any, code: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        encode_outcome(outcome, values)
    assert caught.value.code == code
