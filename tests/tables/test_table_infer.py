from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import DataError
from outroute.schema import MAX_SLOTS, FieldKind, OutcomeKind, encode, loads
from outroute.tables.applying import apply
from outroute.tables.infer import Draft, infer
from outroute.tables.profiles import OTHER, merge_rare
from outroute.tables.ranges import outward_range, round_step, suspected_sentinels
from outroute.tables.reading import read_sites, read_table
from outroute.tables.table import Table

from .conftest import HEART_COLUMNS

finite = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 3))


def notes_of(draft: Draft, column: str) -> str:
    return " | ".join(note.text for note in draft.notes if note.column == column)


def columns(n: int = 200, seed: int = 1) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    return {
        "age": rng.normal(60, 10, n).round(),
        "group": rng.choice(["a", "b", "c"], n),
        "ill": rng.choice(["no", "yes"], n),
    }


def draft(extra: dict[str, object] | None = None, **options: object) -> Draft:
    made = infer(read_table(columns() | (extra or {})), outcome="ill", **options)  # type: ignore[arg-type]
    assert loads(made.toml()).id == made.schema.id
    return made


@given(st.lists(finite, min_size=4, max_size=200), st.integers(1, 10), st.booleans())
def test_a_range_holds_the_bulk_and_never_ends_on_an_extreme(values: list[float], k: int, integer: bool) -> None:
    array = np.array(values)
    if integer:
        array = np.round(array)
    made = outward_range(array, None, k=k, integer=integer)
    ordered = np.sort(array)
    if made is None:
        assert len(array) < 2 * k or ordered[k - 1] == ordered[-k] or ordered[k - 1] > ordered[-k]
        return
    low, high = float(made.low), float(made.high)
    assert low < high
    assert low <= ordered[k - 1]
    assert high >= ordered[-k]
    assert low == 0 or low != ordered[0]
    assert high == 0 or high != ordered[-1]
    assert made.outside == int(((array < low) | (array > high)).sum())
    assert made.outside <= 2 * (k - 1)
    if integer:
        assert made.low == int(made.low)
        assert made.high == int(made.high)


@given(
    st.lists(st.floats(100, 200), min_size=40, max_size=80),
    st.floats(1e3, 1e8),
    st.integers(2, 8),
)
def test_fewer_than_k_subjects_cannot_move_a_range(values: list[float], extreme: float, k: int) -> None:
    """k - 1 people with any outrageous values leave the same range as k - 1 people with mildly high ones."""
    base = np.array(values)
    if np.sort(base)[k - 1] >= np.sort(base)[-k]:
        return
    mild = np.append(base, np.full(k - 1, 205.0))
    wild = np.append(base, np.full(k - 1, 205.0 + extreme))
    first, second = (outward_range(item, None, k=k, integer=False) for item in (mild, wild))
    assert first is not None
    assert second is not None
    step = float(round_step(float(first.high - first.low)))
    assert abs(float(first.high) - float(second.high)) <= step  # at most the step away from an extreme
    assert first.low == second.low


def test_a_range_counts_subjects_not_rows() -> None:
    values = np.concatenate([np.linspace(10, 20, 50), np.full(30, 1000.0)])
    subjects = np.concatenate([np.arange(50), np.full(30, 50)])
    by_row = outward_range(values, None, k=5, integer=False)
    by_subject = outward_range(values, subjects, k=5, integer=False)
    assert by_row is not None
    assert by_subject is not None
    assert float(by_row.high) > 1000
    assert float(by_subject.high) < 50
    assert by_subject.outside == 30


def test_natural_limits_get_no_margin() -> None:
    hours = np.tile(np.arange(24.0), 50)
    made = outward_range(hours, None, k=5, integer=True)
    assert made is not None
    assert (int(made.low), int(made.high)) == (0, 25)


@given(st.floats(1e-6, 1e12))
def test_steps_are_round_and_fit(width: float) -> None:
    step = round_step(width)
    assert step.as_tuple().digits in {(1,), (2,), (5,)}
    assert width / 10 * (1 - 1e-9) <= float(step) <= width / 4 * (1 + 1e-9)


def test_sentinels_stand_apart() -> None:
    rng = np.random.default_rng(0)
    chol = rng.normal(240, 40, 400)
    assert suspected_sentinels(np.append(chol, np.zeros(60)), k=5) == (0.0,)
    assert set(suspected_sentinels(np.concatenate([chol, np.zeros(60), np.full(30, 999.0)]), k=5)) == {0.0, 999.0}
    assert suspected_sentinels(np.append(chol, np.zeros(4)), k=5) == ()
    assert suspected_sentinels(np.tile(np.arange(10.0), 30), k=5) == ()  # a count starts at 0
    assert suspected_sentinels(np.append(rng.exponential(3, 400), np.zeros(200)), k=5) == ()  # rain
    assert suspected_sentinels(np.array([0.0] * 50 + [1.0] * 50), k=5) == ()


@given(
    st.dictionaries(st.text("abcdefg", min_size=1, max_size=4), st.integers(1, 30), min_size=1, max_size=40),
    st.integers(2, 10),
    st.integers(2, 20),
)
def test_named_categories_hold_at_least_k_subjects(counts: dict[str, int], k: int, most: int) -> None:
    names, merged = merge_rare(tuple(counts), np.array(list(counts.values())), k=k, most=most)
    assert sum(merged) == sum(counts.values())
    assert len(names) <= most
    for name, held in zip(names, merged, strict=True):
        if name != OTHER:
            assert held == counts[name] >= k
    if OTHER in names:
        assert names[-1] == OTHER
    plain = [name for name in names if name != OTHER]
    assert plain == sorted(plain)  # never by frequency


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_no_category_of_few_subjects_is_published(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.choice(list("abcdefgh"), 200, p=np.array([40, 30, 14, 8, 4, 2, 1, 1]) / 100)
    patient = rng.integers(0, 80, 200)
    table = read_table(columns() | {"group": group, "patient": patient})
    made = infer(table, outcome="ill", subject=["patient"], k=k)
    field = next((item for item in made.schema.fields if item.name == "group"), None)
    for label in field.categories if field is not None else ():
        if label != OTHER:
            assert len(set(patient[group == label])) >= k
    seen = apply(made.mapping, made.schema, table)
    assert not [problem for problem in seen.problems if problem.name == "group"]


def test_kinds_of_columns() -> None:
    n = 200
    rng = np.random.default_rng(2)
    made = draft(
        {
            "height": rng.normal(1.7, 0.1, n),
            "visits": rng.integers(0, 30, n),
            "stage": rng.integers(1, 5, n),
            "flag": rng.random(n) < 0.3,
            "rownames": np.arange(n),
            "mrn": [f"M{i:05}" for i in rng.permutation(n)],
            "letter": [f"the patient said {i} long and rather personal things" for i in range(n)],
            "report": rng.choice(["a" * 50, "b" * 60, "c" * 70], n),
            "constant": ["x"] * n,
            "nearly": [None] * (n - 3) + [1, 2, 3],
            "born": ["1950-01-01"] * n,
            "rare": ["x"] * (n - 2) + ["y", "z"],
        },
    )
    kinds = {item.name: item for item in made.schema.fields}
    assert kinds["height"].kind is FieldKind.NUMERIC
    assert not kinds["height"].integer
    assert kinds["visits"].integer
    assert kinds["stage"].categories == ("1", "2", "3", "4")
    assert kinds["flag"].categories == ("no", "yes")
    assert set(kinds) == {"age", "group", "height", "visits", "stage", "flag"}
    for column, word in {
        "rownames": "names the row", "mrn": "id", "letter": "id", "report": "free text", "constant": "same value",
        "nearly": "missing nearly everywhere", "rare": "all but fewer than 5",
    }.items():  # fmt: skip
        assert word in notes_of(made, column), column
    assert made.unreviewed == set(kinds) | {"ill"}
    assert made.toml().count("reviewed = false") == len(kinds) + 1


def test_dates_are_left_out() -> None:
    made = draft({"seen": np.array(["2024-01-01"] * 200, dtype="datetime64[s]")})
    assert "dates" in notes_of(made, "seen")


def test_texts_among_numbers_are_told() -> None:
    values = [*np.linspace(1, 9, 197).round(2).astype(str), "<0.5", "<0.5", "n/m"]
    made = draft({"crp": values})
    assert "3 values are no number, such as '<0.5'" in notes_of(made, "crp")
    assert made.schema.field("crp").kind is FieldKind.NUMERIC


def test_a_column_of_zeros_at_one_site_is_suspected() -> None:
    rng = np.random.default_rng(3)
    site = np.array(["zug"] * 60 + ["basel"] * 140)
    chol = np.where(site == "zug", 0.0, rng.normal(240, 30, 200))
    extra = {"site": site, "chol": chol, "lvef": np.where(site == "zug", np.nan, 50 + rng.normal(0, 9, 200))}
    made = draft(extra, site="site")
    assert "0 in 60 rows looks like a code for missing (every value at zug)" in notes_of(made, "chol")
    assert float(made.schema.field("chol").low or 0) > 50
    assert "not measured at zug" in notes_of(made, "lvef")
    assert made.mapping.fields["chol"].missing == ("0",)
    assert "site" not in made.mapping.fields
    seen = apply(made.mapping, made.schema, read_table(columns() | extra))
    assert np.isnan(seen.columns["chol"]).sum() == 60


def test_too_many_slots_are_merged_and_then_left_out() -> None:
    rng = np.random.default_rng(4)
    wide: dict[str, object] = {f"c{i}": rng.choice([f"v{j}" for j in range(12)], 400) for i in range(12)}
    table = read_table({key: np.resize(np.asarray(value), 400) for key, value in columns().items()} | wide)
    made = infer(table, outcome="ill")
    assert made.schema.width <= MAX_SLOTS
    assert len(made.schema.fields) == 14
    assert any(note.kind == "slots" and "merged" in note.text for note in made.notes)
    encoded = encode(made.schema, apply(made.mapping, made.schema, table).columns)
    assert not encoded.problems
    many: dict[str, object] = {f"x{i}": rng.normal(size=400) for i in range(130)}
    many["x7"] = np.where(rng.random(400) < 0.5, np.nan, many["x7"])
    made = infer(read_table(many | {"ill": np.resize(["no", "yes"], 400)}), outcome="ill")
    assert made.schema.width == MAX_SLOTS
    (note,) = (note for note in made.notes if note.kind == "slots")
    assert "14 columns" in note.text
    assert "x7" in note.text.split(": ")[1].split(", ")


def test_outcomes() -> None:
    assert draft().schema.outcome.classes == ("no", "yes")
    rng = np.random.default_rng(5)
    days = rng.gamma(2, 4, 200).round()
    numeric = infer(read_table(columns() | {"days": days}), outcome="days", drop=["ill"]).schema.outcome
    assert numeric.kind is OutcomeKind.NUMERIC
    rule = infer(read_table(columns() | {"days": days}), outcome="days", positive="> 7")
    assert rule.schema.outcome.classes == ("no", "yes")
    seen = apply(rule.mapping, rule.schema, read_table(columns() | {"days": days}))
    np.testing.assert_array_equal(seen.outcome, (days > 7).astype(float)[seen.row - 1])
    grade = rng.integers(0, 5, 200)
    classes = infer(read_table(columns() | {"grade": grade}), outcome="grade")
    assert classes.schema.outcome.classes == ("0", "1", "2", "3", "4")
    one = infer(read_table(columns() | {"grade": grade}), outcome="grade", positive="3")
    assert one.schema.outcome.classes == ("not 3", "3")
    seen = apply(one.mapping, one.schema, read_table(columns() | {"grade": grade}))
    np.testing.assert_array_equal(seen.outcome, (grade == 3).astype(float)[seen.row - 1])
    words = np.array(["cured"] * 100 + ["same"] * 60 + ["worse"] * 36 + ["lost", "moved", "lost", "away"])
    merged = infer(read_table(columns() | {"end": np.append(words[:-4], ["lost"] * 3 + ["moved"])}), outcome="end", k=4)
    assert merged.schema.outcome.classes == ("cured", "same", "worse", "other")
    assert merged.mapping.outcome.codes == {"lost": "other", "moved": "other"}


@pytest.mark.parametrize(
    ("values", "options", "word"),
    [
        (["yes"] * 200, {}, "nothing to learn"),
        ([None] * 200, {}, "missing in every row"),
        (["yes"] * 197 + ["no"] * 3, {}, "'no' for 3 subjects"),
        ([f"word{i}" for i in range(200)], {}, "200 different values"),
        (["yes", "no"] * 100, {"positive": "maybe"}, "never 'maybe'"),
        (["yes", "no"] * 100, {"positive": "> 3"}, "needs numbers"),
        (np.linspace(0, 1, 200), {"positive": "0.5"}, "give a comparison"),
    ],
)
def test_outcomes_that_cannot_be_learnt(values: object, options: dict[str, str], word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        infer(read_table(columns() | {"ill": values}), outcome="ill", **options)  # type: ignore[arg-type]
    assert caught.value.code == "data.outcome"


def test_tables_too_small_and_columns_that_are_not_there() -> None:
    small = {name: list(np.asarray(value)[:9]) for name, value in columns().items()}
    with pytest.raises(DataError, match="9 rows; at least 10"):
        infer(read_table(small), outcome="ill")
    with pytest.raises(DataError, match="Did you mean 'ill'"):
        infer(read_table(columns()), outcome="Ill.")
    with pytest.raises(DataError, match="k must be"):
        infer(read_table(columns()), outcome="ill", k=1)
    with pytest.raises(DataError, match="No column"):
        infer(read_table(columns()), outcome="ill", drop=["age", "group"])


def test_a_column_that_tells_the_outcome_is_named() -> None:
    ill = np.asarray(columns()["ill"])
    made = draft({"died": np.where(ill == "yes", "dead", "alive"), "one": np.arange(200) % 7})
    assert "known before the outcome" in notes_of(made, "died")
    assert "known before" not in notes_of(made, "one")


def test_time_buckets_hold_k_subjects_of_a_site() -> None:
    hour = np.arange(200) // 6
    stamps = (np.datetime64("2024-01-01") + hour.astype("timedelta64[h]")).astype(str)
    assert draft({"at": stamps}, time=["at"]).schema.time.bucket_seconds == 3_600
    split = draft({"at": stamps, "site": np.tile(["a", "b"], 100)}, time=["at"], site="site")
    assert split.schema.time.bucket_seconds == 86_400
    assert "at" not in split.mapping.fields
    old = draft({"at": stamps}, time=["at"], now=1_704_067_200 + 20 * 365 * 86_400)
    assert old.schema.time.lifetime_seconds == 40 * 365 * 86_400
    with pytest.raises(DataError, match="is a time"):
        draft({"at": ["soon"] * 200}, time=["at"])


def heart(folder: Path) -> Table:
    return read_sites(sorted(folder.glob("processed.*")), columns=HEART_COLUMNS)


def test_heart(data: Callable[[str], Path]) -> None:
    table = heart(data("heart"))
    made = infer(table, outcome="num", site="site", positive="> 0", name="heart")
    assert made.schema.width == 28
    chol = made.schema.field("chol")
    assert 0 < float(chol.low or 0) < 85
    assert "every value at processed.switzerland" in notes_of(made, "chol")
    for item in made.schema.fields:
        if item.kind is FieldKind.NUMERIC:
            values = table.numbers(item.name).values
            assert float(item.low or 0) not in (np.nanmin(values), np.nanmax(values)) or item.low == 0
            assert float(item.high or 0) not in (np.nanmin(values), np.nanmax(values))
    seen = apply(made.mapping, made.schema, table)
    assert seen.refused <= 5
    assert not encode(made.schema, seen.columns).problems
    assert seen.outcome.mean() == pytest.approx(509 / 920, abs=0.01)


def test_hospital_stays(data: Callable[[str], Path]) -> None:
    made = infer(read_table(data("azpro") / "azpro.csv"), outcome="los", site="hospital")
    assert [item.name for item in made.schema.fields] == ["procedure", "sex", "age75", "admit"]
    assert made.schema.outcome.kind is OutcomeKind.NUMERIC
    assert "names the row" in notes_of(made, "rownames")


def test_preterm_births_fit_in_a_packet(data: Callable[[str], Path]) -> None:
    table = read_table(data("opt") / "opt.csv")
    made = infer(table, outcome="Preg.ended...37.wk", site="Clinic", subject=["PID"])
    assert made.schema.width <= MAX_SLOTS
    assert made.schema.outcome.classes == ("No", "Yes")
    assert "known before the outcome" in notes_of(made, "GA.at.outcome")
    assert not {"PID", "rownames", "Clinic"} & {item.name for item in made.schema.fields}


def test_air_of_beijing(data: Callable[[str], Path]) -> None:
    table = read_sites(sorted(data("beijing").glob("*.csv.gz"))[:3], site_column="file")
    made = infer(
        table, outcome="PM2.5", site="station", time=["year", "month", "day", "hour"], drop=["file"], now=1_700_000_000
    )
    names = {item.name for item in made.schema.fields}
    assert {"month", "hour", "wd", "TEMP"} <= names
    assert not {"year", "day", "No", "station", "file"} & names
    assert len(made.schema.field("wd").categories) == 16
    assert made.schema.time.bucket_seconds == 86_400
    assert made.schema.time.lifetime_seconds >= 20 * 365 * 86_400
