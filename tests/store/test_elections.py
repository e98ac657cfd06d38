"""What was said, and what became of it: the journal's part of the elections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outroute.store import Journal
from store.making import NOW, SCHEMA, open_journal

NOT_YET = float("nan")


def noted(journal: Journal, case: object, outcome: float, subject: object | None = None) -> None:
    codes = np.zeros((1, SCHEMA.width), dtype=np.uint16)
    subjects = None if subject is None else [subject]
    journal.observe([case], codes, np.array([outcome]), bucket=np.array([0]), subjects=subjects)


def test_an_outcome_settles_what_was_said_once(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.ask("a", b"asked", now=NOW, said=b"said of a")
        journal.ask("b", b"asked", now=NOW, said=b"said of b")
        journal.ask("c", b"asked", now=NOW)
        outcome = np.array([1.0, NOT_YET, 0.0, 1.0])
        found = journal.elections.settle(["b", "a", "c", "stranger"], outcome)
        assert found.fresh == ((b"said of b", 1.0),)
        assert not found.corrected
        assert journal.counts()["questions"] == 1  # nothing was said of c, and its outcome is known
    with open_journal(tmp_path) as journal:
        assert journal.elections.settle(["b"], np.array([1.0])).fresh == ()
        assert journal.elections.settle(["a", "a"], np.array([0.0, 0.0])).fresh == ((b"said of a", 0.0),)
        assert list(journal.elections.scored()) == [(b"said of b", 1.0), (b"said of a", 0.0)]
        assert journal.elections.settle(["b", "a"], np.array([0.0, 0.0])).corrected
        assert list(journal.elections.scored()) == [(b"said of b", 0.0), (b"said of a", 0.0)]


def half_done(journal: Journal) -> None:
    with journal.together():
        journal.ask("a", b"", now=NOW, said=b"")
        journal.elections.settle(["a"], np.array([1.0]))
        journal.elections.keep(b"second")
        raise RuntimeError("in between")


def test_the_state_is_kept_or_lost_with_the_rest(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        assert journal.elections.state() == (None, False)
        journal.elections.keep(b"first")
        with pytest.raises(RuntimeError, match="in between"):
            half_done(journal)
        assert list(journal.elections.scored()) == []
    with open_journal(tmp_path) as journal:
        assert journal.elections.state() == (b"first", False)


def test_ids_are_the_same_however_they_come() -> None:
    with open_journal(None) as journal:
        for number in range(4):
            journal.ask(number, b"", now=NOW, said=b"%d" % number)
        settle = journal.elections.settle
        assert settle(np.array([0, 9]), np.ones(2)).fresh == ((b"0", 1.0),)
        assert settle(np.array([1.0, np.nan]), np.ones(2)).fresh == ((b"1", 1.0),)
        assert settle(np.array(["2", "x"]), np.ones(2)).fresh == ((b"2", 1.0),)
        assert settle(np.array([3, None], dtype=object), np.ones(2)).fresh == ((b"3", 1.0),)


def test_many_cases_at_once_and_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outroute.store.elections.SCORED_LIMIT", 10)
    with open_journal(None) as journal:
        asked = range(0, 20_000, 1_000)
        for number in asked:
            journal.ask(number, b"", now=NOW, said=b"%d" % number)
        found = journal.elections.settle(np.arange(20_000), np.ones(20_000))
        assert [said for said, _ in found.fresh] == [b"%d" % number for number in asked]
        assert [said for said, _ in journal.elections.scored()] == [b"%d" % number for number in asked[-10:]]


def test_a_known_outcome_decides() -> None:
    with open_journal(None) as journal:
        assert not journal.elections.decided("a")
        noted(journal, "a", NOT_YET)
        assert not journal.elections.decided("a")
        journal.confirm(["a"], np.array([1.0]))
        assert journal.elections.decided("a")


@pytest.mark.parametrize("subject", ["somebody", "a"])
def test_erasing_leaves_nothing_that_was_said(tmp_path: Path, subject: str) -> None:
    with open_journal(tmp_path) as journal:
        for case in ("a", "b"):
            journal.ask(case, b"", now=NOW, said=b"what was said of case %s" % case.encode())
            noted(journal, case, 1.0, subject if case == "a" else "somebody else")
            journal.elections.settle([case], np.ones(1))
        journal.elections.keep(b"state")
        nothing = np.empty(0, dtype=np.int64)
        packets = journal.outbox.get(nothing).packets
        journal.erase("nobody", nothing, packets, by="a test", now=NOW)
        assert journal.elections.state() == (b"state", False)
        journal.erase(subject, nothing, packets, by="a test", now=NOW)
        assert journal.elections.state() == (b"state", True)
        assert [said for said, _ in journal.elections.scored()] == [b"what was said of case b"]
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"what was said of case b" in raw
    assert b"what was said of case a" not in raw
