"""Taking observations in: every kind of table, twice, across restarts, with and without outcomes and ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from node.making import DAY, KINDS, QUESTION, Clock, schema_of, table_of
from outroute.errors import DataError, OutrouteError, SchemaError
from outroute.node import Node
from outroute.schema import OutcomeKind
from outroute.store import Noted

BINARY = OutcomeKind.BINARY


def forms(table: dict[str, list[Any]], where: Path) -> dict[str, Any]:
    """The same table in every form that a node reads."""
    frame = pd.DataFrame(table)
    frame.to_csv(where / "t.csv", index=False)
    pq.write_table(pa.table(table), where / "t.parquet")
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    (where / "t.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "csv": where / "t.csv",
        "parquet": str(where / "t.parquet"),
        "ndjson": where / "t.ndjson",
        "frame": frame,
        "arrow": pa.table(table),
        "dict": table,
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_every_form_of_a_table_is_the_same_table(kind: OutcomeKind, tmp_path: Path) -> None:
    table = table_of(kind, "north", 40)
    with Node(schema_of(kind), clock=Clock()) as node:
        for number, (form, given) in enumerate(forms(table, tmp_path).items()):
            report = node.observe(given, case="case")
            expected = (40, 0) if number == 0 else (0, 40)
            assert (report.added, report.duplicate) == expected, form
            assert report.seen == 40
            assert not report.problems
        assert node.counts()["known"] == 40


def test_a_nightly_export_counts_once_whatever_the_day(tmp_path: Path) -> None:
    """Without a time column a case keeps the day on which it was first seen, even after it has left in a packet."""
    clock, table = Clock(), table_of(BINARY, "north", 30)
    for night in range(4):
        with Node(schema_of(BINARY), data_dir=tmp_path, clock=clock) as node:
            report = node.observe(table, case="case")
            assert (report.added, report.duplicate) == ((30, 0) if night == 0 else (0, 30))
            assert report.conflict == report.updated == 0
            if night == 1:
                assert node.distil().observations == 30
        clock.now += DAY + 3600


def test_with_a_time_column_a_case_that_moved_is_an_update_and_after_it_left_a_conflict(tmp_path: Path) -> None:
    clock, table = Clock(), table_of(BINARY, "north", 10)
    when, later = ["2023-11-01"] * 10, ["2023-11-02"] * 10
    with Node(schema_of(BINARY), data_dir=tmp_path, clock=clock) as node:
        assert node.observe(table | {"seen": when}, case="case", time="seen").added == 10
        assert node.observe(table | {"seen": later}, case="case", time="seen").updated == 10
        assert node.distil().observations == 10
        assert node.observe(table | {"seen": when}, case="case", time="seen").conflict == 10
        assert node.counts()["conflicts"] == 10


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_cases_without_outcome_wait_across_restarts(kind: OutcomeKind, tmp_path: Path) -> None:
    schema, clock = schema_of(kind), Clock()
    table = table_of(kind, "north", 20)
    name = schema.outcome.name
    open_ones = {k: v for k, v in table.items() if k != name}
    (tmp_path / "open.csv").write_text(pd.DataFrame(open_ones).to_csv(index=False))
    with Node(schema, data_dir=tmp_path / "node", clock=clock) as node:
        report = node.observe(tmp_path / "open.csv", case="case")  # the column itself is absent
        assert (report.added, report.waiting) == (20, 20)
        assert node.distil().packets == 0
        assert node.counts()["waiting"] == 20
    with Node(schema, data_dir=tmp_path / "node", clock=clock) as node:
        assert node.observe(open_ones, case="case").duplicate == 20
        for case, outcome in list(zip(table["case"], table[name], strict=True))[:8]:
            assert node.confirm(case, outcome) is Noted.CONFIRMED
            assert node.confirm(case, outcome) is Noted.DUPLICATE
        assert node.confirm("nobody", table[name][0]) is Noted.UNKNOWN
    with Node(schema, data_dir=tmp_path / "node", clock=clock) as node:
        assert node.counts()["known"] == 8
        report = node.observe(table, case="case")
        assert (report.confirmed, report.duplicate) == (12, 8)
        # An export that has lost an outcome does not take it back.
        assert node.observe(open_ones, case="case").duplicate == 20
        assert node.counts()["waiting"] == 0


def test_rows_without_an_id_count_by_their_number_among_equals(tmp_path: Path) -> None:
    """Equal rows of one table are different cases, also when they lie in different batches; the table again is not."""
    n = 140_000  # more than one batch of rows
    table = {"age": [50] * n, "dose": [5] * n, "ward": ["red"] * n, "late": ["no", "yes"] * (n // 2)}
    with Node(schema_of(BINARY), clock=Clock()) as node:
        assert node.observe(table).added == n
        assert node.observe({k: v[:100] for k, v in table.items()}).duplicate == 100
        assert node.counts()["known"] == n


def test_rows_of_different_subjects_and_times_are_different_cases() -> None:
    clock = Clock()
    table = {"age": [50] * 4, "dose": [5] * 4, "ward": ["red"] * 4, "late": ["no"] * 4}
    with Node(schema_of(BINARY), clock=clock) as node:
        a = table | {"who": ["a", "b", "a", "b"], "seen": ["2023-11-03"] * 4}
        b = table | {"who": ["c", "d", "e", "f"], "seen": ["2023-11-03"] * 4}
        c = table | {"who": ["a", "b", "a", "b"], "seen": ["2023-11-01"] * 4}
        for part in (a, b, c):
            assert node.observe(part, subject="who", time="seen").added == 4
        assert node.observe(a, subject="who", time="seen").duplicate == 4


def test_bad_rows_are_counted_and_good_ones_kept() -> None:
    table = table_of(BINARY, "north", 40)
    table["age"][3] = 400
    table["ward"][5] = "purple"
    with Node(schema_of(BINARY), clock=Clock()) as node:
        report = node.observe(table, case="case")
        assert (report.seen, report.added, report.refused) == (40, 38, 2)
        assert {p.name for p in report.problems} == {"age", "ward"}


def test_a_wrong_unit_stops_with_nothing_kept() -> None:
    table = table_of(BINARY, "north", 40)
    table["age"] = [a * 1000 for a in table["age"]]
    with Node(schema_of(BINARY), clock=Clock()) as node:
        with pytest.raises(DataError) as caught:
            node.observe(table, case="case")
        assert caught.value.code == "data.unit"
        with pytest.raises(DataError) as caught:
            node.observe({k: v for k, v in table.items() if k != "dose"}, case="case")
        assert caught.value.code == "data.column"
        assert node.counts()["known"] == 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_question_asked_and_confirmed_becomes_an_observation(kind: OutcomeKind, tmp_path: Path) -> None:
    schema = schema_of(kind)
    value = table_of(kind, "north", 1)[schema.outcome.name][0]
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        assert node.ask(QUESTION, case_id=17).abstained
        assert node.counts()["questions"] == 1
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        assert node.confirm("17", value) is Noted.CONFIRMED
        assert node.counts() == node.counts() | {"known": 1, "questions": 0}
        assert node.confirm(17, value) is Noted.DUPLICATE


@pytest.mark.parametrize(
    ("case", "error", "words"),
    [
        ({"agee": 5}, SchemaError, "did you mean age"),
        ({"age": 101}, DataError, "age: '101' is out of range; the schema allows 0 to 100 years"),
        ({"age": float("inf")}, DataError, "out of range"),
        ({"age": "old"}, DataError, "not a number"),
        ({"ward": "purple"}, DataError, "red, green, blue"),
        ({"age": [1, 2]}, DataError, "one value a case"),
    ],
)
def test_a_question_that_the_schema_does_not_know_is_refused(
    case: dict[str, Any], error: type[OutrouteError], words: str
) -> None:
    with Node(schema_of(BINARY), clock=Clock()) as node:
        with pytest.raises(error, match=words):
            node.ask(case)
        with pytest.raises(error):
            node.ask_many([QUESTION, case])


def test_an_outcome_that_the_schema_does_not_know_is_refused() -> None:
    with Node(schema_of(BINARY), clock=Clock()) as node:
        for wrong in ("perhaps", 7, None):
            with pytest.raises(DataError):
                node.confirm("a", wrong)


def test_many_questions_come_in_any_form() -> None:
    with Node(schema_of(BINARY), clock=Clock()) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        cases = [QUESTION, {"age": 30}, {}]
        frame = pd.DataFrame(cases).assign(note="not a field")
        listed = node.ask_many(cases).estimate
        assert len(listed) == 3
        assert node.ask_many(frame).estimate.tolist() == listed.tolist()
        assert node.ask_many({c: frame[c].tolist() for c in ("age", "dose", "ward")}).estimate.tolist() == (
            listed.tolist()
        )
        assert [node.ask(c).estimate for c in cases] == pytest.approx(listed.tolist(), rel=1e-5)
        assert len(node.ask_many(frame.head(0))) == 0
        with pytest.raises(DataError, match="no column is a field"):
            node.ask_many({"agee": [1]})
        with pytest.raises(DataError, match="codes uint16"):
            node.ask_many(frame[["age"]].to_numpy())
        with pytest.raises(DataError, match="probes"):
            node.ask(QUESTION, probes=0)
