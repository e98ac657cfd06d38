from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outroute.errors import DataError, SchemaError
from outroute.schema import Schema, encode, loads
from outroute.tables.applying import apply, apply_batches, match_labels
from outroute.tables.mapping import Rule, TableMapping, default_mapping, load_mapping, loads_mapping
from outroute.tables.observed import Observed, Reason, Tally
from outroute.tables.reading import iter_batches, read_table
from outroute.tables.template import mapping_template

from .conftest import HEART_COLUMNS

SCHEMA = """
name = "heart"
[outcome]
name = "ill"
kind = "binary"
classes = ["no", "yes"]
[fields.age]
kind = "numeric"
low = 20
high = 90
unit = "years"
[fields.chol]
kind = "numeric"
low = 50
high = 600
unit = "mg/dl"
[fields.sex]
kind = "categorical"
categories = ["female", "male"]
"""


@pytest.fixture
def schema() -> Schema:
    return loads(SCHEMA)


def run(schema: Schema, columns: dict[str, list[object]], mapping: str = "", **options: object) -> Observed:
    used = loads_mapping(mapping, schema)
    return apply(used, schema, read_table(columns), **options)  # type: ignore[arg-type]


def good(n: int = 4) -> dict[str, list[object]]:
    return {
        "age": [40 + i % 40 for i in range(n)],
        "chol": [200.0] * n,
        "sex": ["male", "female"] * (n // 2) + ["male"] * (n % 2),
        "ill": ["yes", "no"] * (n // 2) + ["yes"] * (n % 2),
    }


def test_the_default_mapping_takes_columns_of_the_same_name(schema: Schema) -> None:
    seen = run(schema, good())
    assert seen.columns["age"].tolist() == [40.0, 41.0, 42.0, 43.0]
    assert seen.columns["sex"].tolist() == ["male", "female", "male", "female"]
    assert seen.outcome.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert seen.case.tolist() == ["1", "2", "3", "4"]
    assert seen.subject.tolist() == seen.case.tolist()
    assert seen.time is None
    assert not seen.problems
    assert loads_mapping("", schema) == default_mapping(schema)
    assert not encode(schema, seen.columns).problems


def test_units_codes_sentinels_and_names(schema: Schema) -> None:
    mapping = """
    case = ["ward", "nr"]
    subject = "patient"
    missing = [999]
    [fields.age]
    column = "years"
    [fields.chol]
    column = "c"
    scale = "38.67"
    missing = [0]
    [fields.sex]
    column = "g"
    codes = { 1 = "male", 2 = "female" }
    [outcome]
    column = "grade"
    positive_when = "> 1"
    """
    columns: dict[str, list[object]] = {
        "years": [50, 999, 70],
        "c": [5.0, 0.0, 6.5],
        "g": [1.0, 2.0, 999],
        "grade": [2, 1, None],
        "ward": ["a", "a/1", "b"],
        "nr": ["1/2", "2", "3"],
        "patient": ["p", "q", "p"],
    }
    seen = run(schema, columns, mapping)
    np.testing.assert_allclose(seen.columns["age"], [50, np.nan, 70])
    np.testing.assert_allclose(seen.columns["chol"], [193.35, np.nan, 251.355])
    assert seen.columns["sex"].tolist() == ["male", "female", None]
    np.testing.assert_array_equal(seen.outcome, [1.0, 0.0, np.nan])
    assert seen.waiting == 1
    assert len(set(seen.case)) == 3
    assert seen.subject.tolist() == ["p", "q", "p"]


def test_ids_joined_from_columns_never_collide(schema: Schema) -> None:
    columns = good(2) | {"a": ["x/y", "x"], "b": ["z", "y/z"]}
    assert len(set(run(schema, columns, 'case = ["a", "b"]').case)) == 2


@given(own=st.floats(-40, 110), scale=st.sampled_from(["5/9", "0.1", "2.54", "1e-3"]))
def test_a_unit_is_converted_exactly_as_written(own: float, scale: str) -> None:
    text = SCHEMA.replace("low = 20\nhigh = 90", "low = -1000\nhigh = 1000")
    schema = loads(text)
    mapping = loads_mapping(f'[fields.age]\nscale = "{scale}"\noffset = "-17.5"', schema)
    assert mapping.fields["age"].scale == Fraction(scale)
    seen = apply(mapping, schema, read_table(good(1) | {"age": [own]}))
    assert seen.columns["age"][0] == pytest.approx(float(Fraction(own) * Fraction(scale) - Fraction("17.5")), abs=1e-9)


def test_a_field_that_the_node_does_not_measure(schema: Schema) -> None:
    columns = good()
    del columns["chol"]
    with pytest.raises(DataError, match="absent = true") as caught:
        run(schema, columns)
    assert caught.value.code == "data.column"
    seen = run(schema, columns, "[fields.chol]\nabsent = true")
    assert np.isnan(seen.columns["chol"]).all()
    assert not encode(schema, seen.columns).problems


def test_rows_out_of_range_are_refused_and_named(schema: Schema) -> None:
    columns = good(100)
    columns["chol"][16] = 1200.0  # type: ignore[index]
    columns["chol"][30] = 601.0  # type: ignore[index]
    columns["case"] = [f"c{i}" for i in range(100)]
    seen = run(schema, columns, 'case = "case"')
    assert seen.refused == 2
    assert len(seen.outcome) == 98
    assert 17 not in seen.row
    (problem,) = seen.problems
    assert (problem.name, problem.reason, problem.count) == ("chol", Reason.OUT_OF_RANGE, 2)
    assert (problem.first_row, problem.first_case, problem.example) == (17, "c16", "1200.0")
    assert str(problem).startswith("chol: 2 values outside the range; first in row 17 (case c16): 1200.0.")
    assert "50 to 600 mg/dl" in str(problem)


def test_a_wrong_unit_stops_the_run_and_is_guessed(schema: Schema) -> None:
    columns = good(50) | {"chol": list(np.linspace(4.0, 8.0, 50))}
    with pytest.raises(DataError, match=r"100%.*\[fields.chol\].*38.67: cholesterol mmol/l to mg/dl") as caught:
        run(schema, columns)
    assert caught.value.code == "data.unit"


def test_a_code_for_missing_is_guessed(schema: Schema) -> None:
    columns = good(50)
    columns["chol"][:20] = [0.0] * 20
    with pytest.raises(DataError, match=r"If 0 means missing, write \[fields.chol\] missing = \[0\]"):
        run(schema, columns)
    assert run(schema, columns, "[fields.chol]\nmissing = [0]").refused == 0


def test_unknown_codes_and_texts_for_numbers_stop_when_they_are_many(schema: Schema) -> None:
    with pytest.raises(DataError, match="female, male") as caught:
        run(schema, good(10) | {"sex": ["m", "w"] * 5})
    assert caught.value.code == "data.category"
    with pytest.raises(DataError, match='decimal = ","') as caught:
        run(schema, good(10) | {"chol": ["200,5"] * 10})
    assert caught.value.code == "data.number"
    assert run(schema, good(10) | {"chol": ["200,5"] * 10}, 'decimal = ","').columns["chol"][0] == 200.5
    with pytest.raises(DataError, match="no, yes") as caught:
        run(schema, good(10) | {"ill": ["2"] * 10})
    assert caught.value.code == "data.category"


def test_few_wrong_values_never_stop_a_small_table(schema: Schema) -> None:
    seen = run(schema, good(3) | {"sex": ["male", "?", "x"], "chol": ["abc", 100, 100]})
    assert seen.refused == 2
    assert {(problem.name, problem.reason) for problem in seen.problems} == {
        ("sex", Reason.UNKNOWN_CATEGORY),
        ("chol", Reason.NOT_A_NUMBER),
    }


def test_other_takes_what_is_listed_nowhere_when_asked(schema: Schema) -> None:
    schema = loads(SCHEMA.replace('["female", "male"]', '["female", "male", "other"]'))
    columns = good(10) | {"sex": ["divers"] * 10}
    assert run(schema, columns, '[fields.sex]\nother = "other"').columns["sex"].tolist() == ["other"] * 10
    with pytest.raises(DataError):
        run(schema, columns)


def test_yes_and_no_in_other_words() -> None:
    assert match_labels(["1", "0", "TRUE", "n", "x"], ("no", "yes"), {}) == [1, 0, 1, 0, -1]
    assert match_labels(["yes", "No"], ("0", "1"), {}) == [1, 0]
    assert match_labels(["1"], ("low", "high"), {}) == [-1]
    assert match_labels(["low", "HIGH", "1"], ("low", "high"), {"1": "high", "low": "high"}) == [1, 1, 1]


def test_an_outcome_of_0_and_1_is_the_class_index() -> None:
    schema = loads(SCHEMA.replace('["no", "yes"]', '["alive", "dead"]'))
    assert run(schema, good(2) | {"ill": [0, 1]}).outcome.tolist() == [0.0, 1.0]


def test_a_numeric_outcome_has_its_unit_and_range() -> None:
    schema = loads(SCHEMA.replace('kind = "binary"\nclasses = ["no", "yes"]', 'kind = "numeric"\nlow = 0\nhigh = 100'))
    seen = run(schema, good(2) | {"ill": [0.5, None]}, '[outcome]\nscale = "24"')
    np.testing.assert_array_equal(seen.outcome, [12.0, np.nan])
    with pytest.raises(DataError) as caught:
        run(schema, good(10) | {"ill": [500] * 10})
    assert caught.value.code == "data.unit"


def test_the_outcome_may_come_later(schema: Schema) -> None:
    columns = good()
    del columns["ill"]
    with pytest.raises(DataError, match="'ill'"):
        run(schema, columns)
    seen = run(schema, columns, outcomes="optional")
    assert seen.waiting == len(seen.row) == 4
    wrong = run(schema, good() | {"ill": ["?", "", "NA", "yes"]})
    assert wrong.waiting == 3


def test_rows_without_case_subject_or_time_are_refused(schema: Schema) -> None:
    columns = good() | {"id": ["a", None, "c", "d"], "who": ["x", "y", "", "z"], "at": ["2024-01-01"] * 3 + ["soon"]}
    seen = run(schema, columns, 'case = "id"\nsubject = "who"\n[time]\ncolumn = "at"')
    assert seen.case.tolist() == ["a"]
    assert {problem.reason for problem in seen.problems} == {Reason.NO_CASE, Reason.NO_SUBJECT, Reason.BAD_TIME}
    assert seen.time is not None
    assert seen.time.tolist() == [1_704_067_200]


def test_batches_count_together(schema: Schema, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    chol = ["200"] * 200
    chol[150:157] = ["1000"] * 7
    path.write_text("age,chol,sex,ill\n" + "".join(f"50,{value},male,yes\n" for value in chol))
    tally = Tally()
    for seen in apply_batches(default_mapping(schema), schema, iter_batches(path, rows=10)):
        tally.add(seen)
    assert (tally.seen, tally.kept, tally.refused) == (200, 193, 7)
    (problem,) = tally.problems
    assert (problem.count, problem.first_row) == (7, 151)


def test_a_mapping_that_is_wrong_from_some_batch_on_stops(schema: Schema, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("age,chol,sex,ill\n" + "50,200,male,yes\n" * 20 + "50,5.2,male,yes\n" * 20)
    with pytest.raises(DataError, match="probably wrong"):
        list(apply_batches(default_mapping(schema), schema, iter_batches(path, rows=5)))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[fields.colour]", "no such field"),
        ('[fields.chol]\ncolum = "x"', "does not know 'colum'"),
        ('[fields.chol]\nscale = "abc"', "5/9"),
        ("[fields.chol]\nscale = 0", "every value equal"),
        ('[fields.chol]\nabsent = true\ncolumn = "x"', "remove one"),
        ('[fields.sex]\ncodes = { 1 = "man" }', "not one of female, male"),
        ('[fields.sex]\nother = "x"', "not one of female, male"),
        ('[outcome]\npositive_when = "above 3"', "> 15"),
        ('[outcome]\npositive_when = "> 3"\ncodes = { 1 = "yes" }', "keep one"),
        ('[time]\nformat = "%Y"', "needs column"),
        ("decimal = ';'", 'decimal is "."'),
        ("fields = 3", "must be a table"),
        ("x = [", "not valid TOML"),
    ],
)
def test_a_wrong_mapping_says_where(schema: Schema, text: str, word: str) -> None:
    with pytest.raises(SchemaError, match=word.replace("(", r"\(").replace("[", r"\[")) as caught:
        loads_mapping(text, schema)
    assert caught.value.code.startswith("mapping.")


def test_a_mapping_file_is_named_in_errors(schema: Schema, tmp_path: Path) -> None:
    path = tmp_path / "mapping.toml"
    with pytest.raises(SchemaError, match="Cannot read"):
        load_mapping(path, schema)
    path.write_text("x = 1")
    with pytest.raises(SchemaError, match=r"mapping.toml.*does not know 'x'"):
        load_mapping(path, schema)


@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    operator=st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    threshold=st.floats(-1e6, 1e6),
)
def test_a_rule_is_the_comparison_it_spells(value: float, operator: str, threshold: float) -> None:
    rule = Rule.parse(f"{operator} {threshold!r}")
    expected = {">": value > threshold, ">=": value >= threshold, "<": value < threshold, "<=": value <= threshold,
                "==": value == threshold, "!=": value != threshold}[operator]  # fmt: skip
    assert rule.apply(np.array([value, np.nan])).tolist()[0] == float(expected)
    assert np.isnan(rule.apply(np.array([np.nan]))[0])


def test_a_template_loads_and_asks(schema: Schema) -> None:
    columns = {
        "Age": [40, 50, 60, 45, 55, 65, 70] * 4,
        "chol": [0] * 28,
        "geschlecht": ["m"] * 28,
        "ill": [0, 3] * 14,
    }
    text = mapping_template(schema, read_table(columns), case=["Age"], positive_when=Rule.parse("> 0"))
    mapping = loads_mapping(text, schema)
    assert mapping.fields["age"].column == "Age"
    assert mapping.fields["chol"].missing == ("0",)
    assert mapping.fields["sex"].column is None
    assert mapping.outcome.positive_when == Rule(operator=">", threshold=0.0)
    assert mapping.case == ("Age",)
    assert "looks like a code for missing" in text
    seen = apply(mapping, schema, read_table(columns))
    assert seen.refused == 0
    assert seen.outcome.tolist() == [0.0, 1.0] * 14


def test_a_template_lists_codes_that_the_schema_does_not_know(schema: Schema) -> None:
    text = mapping_template(schema, read_table(good(4) | {"sex": ["m", "w", "male", "Female"]}))
    assert '# codes."m" = "..."  # female | male' in text
    assert 'codes."Female"' not in text
    loads_mapping(text.replace('# codes."m" = "..."', 'codes."m" = "male"'), schema)


def test_switzerland_needs_its_mapping(data: Callable[[str], Path]) -> None:
    folder = data("heart")
    schema = loads(SCHEMA.replace('["female", "male"]', '["0", "1"]'))
    table = read_table(folder / "processed.switzerland.data", columns=HEART_COLUMNS)
    outcome = '[outcome]\ncolumn = "num"\npositive_when = "> 0"\n'
    with pytest.raises(DataError, match=r"123 values outside.*missing = \[0\]"):
        apply(loads_mapping(outcome, schema), schema, table)
    mapping: TableMapping = loads_mapping(outcome + "[fields.chol]\nmissing = [0]", schema)
    seen = apply(mapping, schema, table)
    assert seen.refused == 0
    assert np.isnan(seen.columns["chol"]).all()
    assert seen.outcome.sum() == 115.0
