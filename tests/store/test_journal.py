"""The node's own state: idempotent observing, waiting, conflicts, the outbox and its sequence numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import StoreError
from outroute.store import Journal, Noted, State, Which
from store.making import NOW, SCHEMA, make_packets, place

WIDTH = SCHEMA.width
NAN = float("nan")


def open_journal(directory: Path | None = None, now: int = NOW, restored: bool = False) -> Journal:
    return Journal(directory, schema_id=SCHEMA.id, width=WIDTH, now=now, restored=restored)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path) as opened:
        yield opened


def observe(
    journal: Journal, cases: list[object], outcome: list[float], code: int = 7, subjects: list[object] | None = None
) -> list[Noted]:
    codes = np.full((len(cases), WIDTH), code, dtype=np.uint16)
    bucket = np.zeros(len(cases), dtype=np.int64)
    noted = journal.observe(cases, codes, np.array(outcome), bucket=bucket, subjects=subjects)
    return [Noted(n) for n in noted.tolist()]


def test_the_same_export_twice_counts_once(journal: Journal) -> None:
    assert observe(journal, ["a", "b", "c"], [1, 0, NAN]) == [Noted.ADDED] * 3
    assert observe(journal, ["a", "b", "c"], [1, 0, NAN]) == [Noted.DUPLICATE] * 3
    assert journal.counts() == {"known": 2, "ready": 2, "waiting": 1, "excluded": 0, "conflicts": 0, "questions": 0}


def test_the_same_case_twice_in_one_batch(journal: Journal) -> None:
    assert observe(journal, ["a", "a", "a"], [NAN, 1, 0]) == [Noted.ADDED, Noted.CONFIRMED, Noted.UPDATED]
    assert journal.observations().outcome.tolist() == [0]


def test_ids_are_compared_as_people_write_them(journal: Journal) -> None:
    observe(journal, ["7"], [1])
    assert observe(journal, [7], [1]) == [Noted.DUPLICATE]
    assert observe(journal, [7.0], [1]) == [Noted.DUPLICATE]
    assert observe(journal, np.array([7]).tolist(), [1]) == [Noted.DUPLICATE]
    assert observe(journal, [7.5], [1]) == [Noted.ADDED]


def test_arrays_come_back_as_they_went_in(journal: Journal) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 65536, (20_000, WIDTH)).astype(np.uint16)
    outcome = np.where(rng.random(20_000) < 0.3, np.nan, rng.normal(size=20_000))
    bucket, facet = rng.integers(-5, 5, 20_000), rng.integers(0, 9, 20_000)
    subjects = np.arange(20_000) // 3
    noted = journal.observe(np.arange(20_000), codes, outcome, bucket=bucket, facet=facet, subjects=subjects)
    assert (noted == Noted.ADDED).all()
    known = ~np.isnan(outcome)
    found = journal.observations(Which.KNOWN)
    assert (found.codes == codes[known]).all()
    assert (found.outcome == outcome[known]).all()
    assert (found.bucket == bucket[known]).all()
    assert (found.facet == facet[known]).all()
    assert (found.packet == -1).all()
    _, groups = np.unique(found.subject, return_inverse=True)
    _, expected = np.unique(subjects[known], return_inverse=True)
    assert len(set(zip(groups.tolist(), expected.tolist(), strict=True))) == len(set(expected.tolist()))
    parts, after = [], 0
    while len((part := journal.observations(after=after, limit=3000)).rows):
        parts.append(part.codes)
        after = int(part.rows[-1])
    assert (np.concatenate(parts) == found.codes).all()


def test_waiting_cases_wait_across_restarts(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        observe(journal, ["a", "b"], [NAN, NAN])
    with open_journal(tmp_path) as journal:
        assert len(journal.observations(Which.WAITING).rows) == 2
        noted = journal.confirm(["a", "nobody"], np.array([1.0, 1.0]))
        assert noted.tolist() == [Noted.CONFIRMED, Noted.UNKNOWN]
        assert journal.confirm(["a"], np.array([1.0])).tolist() == [Noted.DUPLICATE]
        assert journal.confirm(["a"], np.array([0.0])).tolist() == [Noted.UPDATED]
        assert observe(journal, ["b"], [1.0]) == [Noted.CONFIRMED]
    with open_journal(tmp_path) as journal:
        assert journal.observations().outcome.tolist() == [0, 1]


def test_an_outcome_is_not_taken_back_by_a_gap(journal: Journal) -> None:
    observe(journal, ["a"], [1])
    assert observe(journal, ["a"], [NAN]) == [Noted.DUPLICATE]
    assert journal.observations().outcome.tolist() == [1]


def queue(journal: Journal, rows: list[list[int]]) -> np.ndarray:
    first = journal.outbox.reserve(len(rows))
    packets = make_packets(len(rows), first=first)
    members = [np.array(r, dtype=np.int64) for r in rows]
    return journal.outbox.add(packets, [place(i) for i in range(len(rows))], members, now=NOW)


def test_what_has_left_is_not_changed_but_kept_aside(journal: Journal) -> None:
    observe(journal, list("abcdef"), [1, 0, 1, 0, 1, NAN])
    rows = journal.observations(Which.READY).rows.tolist()
    numbers = queue(journal, [rows])
    assert len(journal.observations(Which.READY).rows) == 0
    assert journal.outbox.members(int(numbers[0])).tolist() == rows
    assert set(journal.observations().packet.tolist()) == set(numbers.tolist())
    assert observe(journal, ["a"], [1]) == [Noted.DUPLICATE]
    assert observe(journal, ["a"], [0]) == [Noted.CONFLICT]
    assert observe(journal, ["a"], [0]) == [Noted.CONFLICT]
    assert observe(journal, ["b"], [0], code=9) == [Noted.CONFLICT]
    assert journal.confirm(["c"], np.array([0.0])).tolist() == [Noted.CONFLICT]
    found = journal.conflicts()
    assert found.rows.tolist() == rows[:3]
    assert found.outcome.tolist() == [0, 0, 0]
    assert found.codes[:, 0].tolist() == [7, 9, 7]
    assert set(found.packet.tolist()) == set(numbers.tolist())
    assert journal.observations().outcome.tolist() == [1, 0, 1, 0, 1]
    assert observe(journal, ["a"], [1]) == [Noted.DUPLICATE]  # a mistake put right: no conflict any more
    assert journal.counts()["conflicts"] == 2


def test_an_observation_enters_one_packet_only(journal: Journal) -> None:
    observe(journal, list("abc"), [1, 0, NAN])
    rows = journal.observations(Which.READY).rows.tolist()
    waiting = journal.observations(Which.WAITING).rows.tolist()
    queue(journal, [rows[:1]])
    for bad in ([rows], [waiting], [[rows[1]], [rows[1]]]):
        with pytest.raises(StoreError, match="already or have no outcome") as raised:
            queue(journal, bad)
        assert raised.value.code == "store.twice"
    assert journal.outbox.counts()[State.PENDING] == 1
    assert journal.observations(Which.READY).rows.tolist() == rows[1:]


def test_the_outbox_remembers_how_far_packets_came(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        packets = make_packets(5)
        secrets = [bytes([i]) * 32 for i in range(5)]
        ids = journal.outbox.add(
            packets, [place(i) for i in range(5)], [np.array([], dtype=np.int64)] * 5, secrets=secrets, now=NOW
        )
        assert len(journal.outbox.queued().ids) == 0  # nothing leaves before it is approved
        journal.outbox.mark(ids, State.SENT, now=NOW)
        assert journal.outbox.counts()[State.PENDING] == 5
        journal.outbox.approve_ids(ids[:4], by="Erika", now=NOW)
        journal.outbox.mark(ids[:1], State.ACKNOWLEDGED, now=NOW)
        journal.outbox.mark(ids[1:2], State.SENT, now=NOW)
        journal.outbox.mark(ids[2:3], State.REFUSED, now=NOW)
    with open_journal(tmp_path) as journal:
        queued = journal.outbox.queued()
        assert queued.ids.tolist() == ids[[1, 3]].tolist()
        assert queued.packets.tobytes() == packets[[1, 3]].tobytes()
        assert queued.addresses == (place(1), place(3))
        assert journal.outbox.queued(State.REFUSED).ids.tolist() == ids[2:3].tolist()
        assert journal.outbox.queued(limit=1).ids.tolist() == ids[1:2].tolist()
        assert journal.outbox.secret(int(ids[2])) == secrets[2]
        assert journal.outbox.secret(999) is None
        counts = journal.outbox.counts()
        assert {state for state, count in counts.items() if count == 1} == set(State) - {
            State.REJECTED,
            State.WITHDRAWN,
        }
        for wrong in (State.QUEUED, State.PENDING, State.WITHDRAWN):
            with pytest.raises(StoreError, match="approve, reject or withdraw"):
                journal.outbox.mark(ids, wrong, now=NOW)


def test_sequence_numbers_are_never_given_twice(tmp_path: Path) -> None:
    given_out: list[int] = []
    for _ in range(3):
        with open_journal(tmp_path) as journal:
            for count in (1, 5):
                first = journal.outbox.reserve(count)
                given_out += range(first, first + count)
    assert len(set(given_out)) == len(given_out)
    assert {number >> 32 for number in given_out} == {NOW}
    assert [number & 0xFFFFFFFF for number in given_out] == list(range(18))


def test_a_copied_directory_starts_a_new_incarnation(tmp_path: Path) -> None:
    with open_journal(tmp_path / "node") as journal:
        before = journal.outbox.reserve(10)
    shutil.copytree(tmp_path / "node", tmp_path / "backup")
    with open_journal(tmp_path / "node") as journal:
        later = journal.outbox.reserve(10)
    with open_journal(tmp_path / "backup", now=NOW + 5) as journal:
        restored = journal.outbox.reserve(10)
        assert journal.outbox.copied
        assert [entry.kind for entry in journal.log.entries()] == ["copied"]
    assert before >> 32 == later >> 32 == NOW
    assert restored >> 32 == NOW + 5
    with open_journal(tmp_path / "backup", now=NOW, restored=True) as journal:  # a clock that went back
        assert journal.outbox.copied
        assert journal.outbox.reserve(1) >> 32 == NOW + 6
    with open_journal(tmp_path / "backup", now=NOW) as journal:
        assert not journal.outbox.copied
        assert journal.outbox.incarnation == NOW + 6


def test_a_double_found_by_others_starts_a_new_incarnation(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        assert not journal.outbox.copied
        first = journal.outbox.reserve(3)
        assert journal.outbox.new_incarnation(NOW + 9) == journal.outbox.incarnation == NOW + 9
        assert journal.outbox.reserve(1) == (NOW + 9) << 32 > first
        entry = journal.log.entries()[-1]
        assert (entry.kind, entry.fields["why"], entry.fields["before"]) == ("copied", "equivocation", NOW)


def test_a_counter_that_is_used_up_goes_on_in_the_next_incarnation(journal: Journal) -> None:
    first = journal.outbox.reserve(2**32 - 1)
    assert journal.outbox.reserve(2) == ((first >> 32) + 1) << 32
    with pytest.raises(StoreError, match="reserve"):
        journal.outbox.reserve(0)


def test_known_cases_keep_the_date_of_their_first_day(journal: Journal) -> None:
    codes = np.zeros((2, WIDTH), dtype=np.uint16)
    journal.observe(["a", "b"], codes, np.ones(2), bucket=np.array([86_400, 172_800]))
    assert journal.dated(["b", "new", "a"], 259_200).tolist() == [172_800, 259_200, 86_400]
    assert journal.dated([], 0).tolist() == []


def test_ids_never_reach_the_disk(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        observe(journal, ["case-Muster-0001"], [1], subjects=["Erika Mustermann"])
        journal.ask("question-Muster-0002", b"payload", now=NOW)
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"payload" in raw
    assert b"Muster" not in raw


def test_two_directories_hash_the_same_subject_differently(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        with open_journal(tmp_path / name) as journal:
            observe(journal, ["x", "y"], [1, 1], subjects=["s", "s"])
            subjects = journal.observations().subject
            assert subjects[0] == subjects[1]
            found.append(int(subjects[0]))
    assert found[0] != found[1]


def test_questions_wait_for_their_outcome(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.ask("case", b"first", now=NOW)
        journal.ask("case", b"second", now=NOW + 1)
    with open_journal(tmp_path) as journal:
        found = journal.question("case")
        assert found is not None
        assert (found.asked, found.payload) == (NOW + 1, b"second")
        assert journal.counts()["questions"] == 1
        assert journal.question("case", forget=True) == found
        assert journal.question("case") is None


def test_old_questions_make_room(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outroute.store.journal.QUESTION_LIMIT", 10)
    for number in range(25):
        journal.ask(number, b"", now=NOW)
    assert journal.counts()["questions"] == 10
    assert journal.question(14) is None
    assert journal.question(15) is not None


def test_a_journal_serves_one_schema(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    with pytest.raises(StoreError, match="one directory per schema") as raised:
        Journal(tmp_path, schema_id=b"\1" * 32, width=WIDTH, now=NOW)
    assert raised.value.code == "store.schema"
    open_journal(tmp_path).close()  # the failed opening has freed the directory


def test_columns_that_do_not_fit_are_refused(journal: Journal) -> None:
    codes = np.zeros((2, WIDTH), dtype=np.uint16)
    bucket = np.zeros(2, dtype=np.int64)
    for bad in (
        lambda: journal.observe(["a"], codes, np.zeros(1), bucket=bucket[:1]),
        lambda: journal.observe(["a", "b"], codes, np.zeros(3), bucket=bucket),
        lambda: journal.observe(["a", "b"], codes.astype(np.int32), np.zeros(2), bucket=bucket),  # type: ignore[arg-type]
        lambda: journal.observe(["a", "b"], codes, np.zeros(2), bucket=bucket, subjects=["one"]),
        lambda: journal.confirm(["a"], np.array([NAN])),
    ):
        with pytest.raises(StoreError) as raised:
            bad()
        assert raised.value.code == "store.type"
    assert journal.counts()["known"] == 0


class Model:
    """What a journal should do, in the plainest way."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}
        self.left: set[str] = set()
        self.aside: dict[str, list[float]] = {}

    def observe(self, case: str, code: float, outcome: float) -> Noted:
        row = self.rows.get(case)
        if row is None:
            self.rows[case] = [code, outcome]
            return Noted.ADDED
        newest = self.aside.get(case, row)
        return self.take(case, code, newest[1] if np.isnan(outcome) else outcome)

    def confirm(self, case: str, outcome: float) -> Noted:
        if case not in self.rows:
            return Noted.UNKNOWN
        return self.take(case, self.aside.get(case, self.rows[case])[0], outcome)

    def take(self, case: str, code: float, result: float) -> Noted:
        row = self.rows[case]
        if row[0] == code and (row[1] == result or (np.isnan(row[1]) and np.isnan(result))):
            self.aside.pop(case, None)
            return Noted.DUPLICATE
        if case in self.left:
            self.aside[case] = [code, result]
            return Noted.CONFLICT
        waited = np.isnan(row[1]) and not np.isnan(result)
        self.rows[case] = [code, result]
        return Noted.CONFIRMED if waited else Noted.UPDATED


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 2), st.sampled_from([0.0, 1.0, NAN])),
        st.tuples(st.sampled_from("abcd"), st.sampled_from([0.0, 1.0])),
        st.just("distil"),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(1, 6))
def test_a_journal_does_what_its_model_does(script: list[object], batch: int) -> None:
    model = Model()
    with open_journal() as journal:
        pending: list[tuple[str, int, float]] = []

        def flush() -> None:
            if pending:
                cases, codes, outcome = zip(*pending, strict=True)
                rows = np.repeat(np.array(codes, dtype=np.uint16)[:, None], WIDTH, axis=1)
                noted = journal.observe(cases, rows, np.array(outcome), bucket=np.zeros(len(cases), dtype=np.int64))
                assert noted.tolist() == [model.observe(*step) for step in pending]
                pending.clear()

        for step in [*script, "distil"]:
            if step == "distil":
                flush()
                ready = journal.observations(Which.READY).rows
                if len(ready):
                    queue(journal, [ready.tolist()])
                model.left |= {case for case, row in model.rows.items() if not np.isnan(row[1])}
            elif len(step) == 2:  # type: ignore[arg-type]
                flush()
                case, value = step  # type: ignore[misc]
                assert journal.confirm([case], np.array([value])).tolist() == [model.confirm(case, value)]
            else:
                pending.append(step)  # type: ignore[arg-type]
                if len(pending) >= batch:
                    flush()
        known = [row[1] for row in model.rows.values() if not np.isnan(row[1])]
        assert sorted(journal.observations().outcome.tolist()) == sorted(known)
        assert journal.counts()["waiting"] == len(model.rows) - len(known)
        aside = journal.conflicts()
        found = zip(aside.codes[:, 0].tolist(), aside.outcome.tolist(), strict=True)
        assert sorted(found) == sorted((code, value) for code, value in model.aside.values())
