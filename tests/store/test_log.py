"""The log: what is written stays, and whatever is done to it later is found."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import StoreError
from outroute.store import NAMED, Event, Journal, Problem, verify_lines
from outroute.store.log import _canonical, _hash
from store.making import NOW, open_journal

ENTRIES = 9


def fill(journal: Journal, count: int = ENTRIES) -> None:
    for number in range(count):
        journal.log.append(
            Event.ASKED, now=NOW + number, addresses=[bytes([number]) * 32], recipients=["file: über.orp"]
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with open_journal(tmp_path / "node") as journal:
        fill(journal)
    return tmp_path / "node"


def tamper(directory: Path, *statements: str) -> list[Problem]:
    with sqlite3.connect(directory / "journal.db") as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
    connection.close()
    with open_journal(directory) as journal:
        return journal.log.verify()


def test_entries_come_back_and_fit_together(directory: Path) -> None:
    with open_journal(directory) as journal:
        assert journal.log.verify() == []
        assert journal.log.head()[0] == ENTRIES
        entries = journal.log.entries(after=3, limit=4)
        assert [entry.number for entry in entries] == [4, 5, 6, 7]
        assert [entry.at for entry in entries] == [NOW + 3, NOW + 4, NOW + 5, NOW + 6]
        assert entries[0].kind == "asked"
        assert entries[0].fields == {"addresses": ["03" * 32], "recipients": ["file: über.orp"]}
        assert journal.log.entries(after=ENTRIES - 1)[0].hash == journal.log.head()[1]


def test_an_empty_log_is_sound() -> None:
    with open_journal() as journal:
        assert journal.log.head() == (0, "00" * 32)
        assert journal.log.verify() == journal.log.verify(head="00" * 32) == []
        lines = exported(journal)
        assert verify_lines(lines) == []
        assert verify_lines([]) != []


CHANGED = "UPDATE log SET entry = replace(CAST(entry AS TEXT), 'file', 'disk') WHERE number = {}"
SWAP = (
    "UPDATE log SET number = -1 WHERE number = {0}",
    "UPDATE log SET number = {0} WHERE number = {1}",
    "UPDATE log SET number = {1} WHERE number = -1",
)


@pytest.mark.parametrize("number", [1, 5, ENTRIES])
def test_a_changed_entry_is_found(directory: Path, number: int) -> None:
    assert [problem.number for problem in tamper(directory, CHANGED.format(number))] == [number]


@pytest.mark.parametrize("number", [1, 5, ENTRIES])
def test_a_removed_entry_is_found(directory: Path, number: int) -> None:
    assert [problem.number for problem in tamper(directory, f"DELETE FROM log WHERE number = {number}")] == [number]


@pytest.mark.parametrize("pair", [(1, 2), (4, 5), (2, 8), (ENTRIES - 1, ENTRIES)])
def test_swapped_entries_are_found(directory: Path, pair: tuple[int, int]) -> None:
    assert tamper(directory, *(step.format(*pair) for step in SWAP)) != []


def test_an_entry_removed_with_the_others_moved_up_is_found(directory: Path) -> None:
    problems = tamper(
        directory,
        "DELETE FROM log WHERE number = 4",
        *(f"UPDATE log SET number = {n} WHERE number = {n + 1}" for n in range(4, ENTRIES)),
    )
    assert problems[0].number == 4
    assert "missing" in str(problems[0])


def test_a_truncated_log_is_found(directory: Path) -> None:
    (problem,) = tamper(directory, "DELETE FROM log WHERE number > 6")
    assert problem.number == 7
    assert "3 entries are missing at the end" in problem.text
    (problem,) = tamper(directory, "DELETE FROM log")
    assert "9 entries are missing" in problem.text


def test_an_appended_entry_is_found(directory: Path) -> None:
    with open_journal(directory) as journal:
        count, head = journal.log.head()
    entry = _canonical({"number": count + 1, "at": NOW, "kind": "approved", "previous": head, "by": "nobody"})
    (problem,) = tamper(directory, f"INSERT INTO log VALUES ({count + 1}, x'{entry.hex()}')")
    assert problem.number == count + 1
    assert "added" in problem.text


@pytest.mark.parametrize("raw", ["'no json'", "x'ff00ff'", "'[]'", "NULL", "'{\"number\": true}'", "17"])
def test_an_unreadable_entry_is_found_and_shown_as_such(directory: Path, raw: str) -> None:
    if raw == "NULL":
        statement = "UPDATE log SET entry = zeroblob(0) WHERE number = 3"
    else:
        statement = f"UPDATE log SET entry = {raw} WHERE number = 3"
    assert 3 in [problem.number for problem in tamper(directory, statement)]
    with open_journal(directory) as journal:
        assert journal.log.entries(after=2, limit=1)[0].kind == "unreadable"


def test_a_lost_head_is_found_and_nothing_more_is_written(directory: Path) -> None:
    (problem,) = tamper(directory, "DELETE FROM meta WHERE name = 'log'")
    assert "head is gone" in problem.text
    with open_journal(directory) as journal, pytest.raises(StoreError, match="verify") as raised:
        journal.log.append(Event.STARTED, now=NOW)
    assert raised.value.code == "log.head"


def rewrite(directory: Path) -> None:
    """Write the whole log anew, with sound hashes and a sound head, and another approver."""
    with sqlite3.connect(directory / "journal.db") as connection:
        previous = bytes(32)
        rows = connection.execute("SELECT number, entry FROM log ORDER BY number").fetchall()
        for number, entry in rows:
            fields = json.loads(entry) | {"previous": previous.hex(), "recipients": ["file: other.orp"]}
            connection.execute("UPDATE log SET entry = ? WHERE number = ?", (_canonical(fields), number))
            previous = _hash(_canonical(fields))
        head = len(rows).to_bytes(8, "little") + previous
        connection.execute("UPDATE meta SET value = ? WHERE name = 'log'", (head,))
    connection.close()


def test_a_head_noted_earlier_shows_a_log_written_anew(directory: Path) -> None:
    with open_journal(directory) as journal:
        noted = journal.log.head()[1]
        fill(journal, 2)
        assert journal.log.verify(head=noted) == journal.log.verify(head=noted[:12].upper()) == []
    rewrite(directory)
    with open_journal(directory) as journal:
        assert journal.log.verify() == []  # sound in itself
        (problem,) = journal.log.verify(head=noted)
        assert "not in this log" in problem.text
        for bad in ("", "xyz", noted[:11], noted + "00"):
            with pytest.raises(StoreError, match="hexadecimal") as raised:
                journal.log.verify(head=bad)
            assert raised.value.code == "log.head"


def test_an_older_copy_of_the_file_does_not_know_a_later_head(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "old")
    with open_journal(directory) as journal:
        fill(journal, 1)
        noted = journal.log.head()[1]
    with open_journal(tmp_path / "old") as journal:
        assert journal.log.verify() == []
        assert len(journal.log.verify(head=noted)) == 1


def exported(journal: Journal) -> list[str]:
    stream = io.StringIO()
    assert journal.log.export(stream) == journal.log.head()[0]
    return stream.getvalue().splitlines(keepends=True)


def test_an_exported_log_is_verified_elsewhere(directory: Path) -> None:
    with open_journal(directory) as journal:
        lines, head = exported(journal), journal.log.head()[1]
        middle = journal.log.entries(after=3, limit=1)[0].hash
    assert len(lines) == ENTRIES + 1
    assert all(json.loads(line)["kind"] == "asked" for line in lines[:-1])
    assert verify_lines(lines) == verify_lines(lines, head=head) == verify_lines(lines, head=middle) == []
    assert verify_lines([line.replace("\n", "\r\n") for line in lines] + ["\n"]) == []
    assert len(verify_lines(lines, head="ab" * 32)) == 1


TAMPERED: dict[str, Callable[[list[str]], list[str]]] = {
    "closing line gone": lambda lines: lines[:-1],
    "last entries gone": lambda lines: lines[:-3],
    "cut off inside a line": lambda lines: [*lines[:5], lines[5][:40]],
    "cut off inside the closing line": lambda lines: [*lines[:-1], lines[-1][:-20]],
    "entry gone": lambda lines: lines[:3] + lines[4:],
    "first gone": lambda lines: lines[1:],
    "last entry gone": lambda lines: lines[:-2] + lines[-1:],
    "swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
    "last swapped": lambda lines: [*lines[:-3], lines[-2], lines[-3], lines[-1]],
    "twice": lambda lines: [*lines[:4], *lines[3:]],
    "changed": lambda lines: [line.replace("0404", "0405") for line in lines],
    "spaces": lambda lines: [lines[0].replace(",", ", "), *lines[1:]],
    "added": lambda lines: [*lines, lines[-2]],
    "other closing line": lambda lines: [*lines[:-1], lines[-1].replace("9", "8")],
    "nothing": lambda lines: [],
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_export_is_found(directory: Path, what: str) -> None:
    with open_journal(directory) as journal:
        lines = TAMPERED[what](exported(journal))
    assert verify_lines(lines) != []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_other_byte_in_an_export_is_found(data: st.DataObject) -> None:
    with open_journal() as journal:
        fill(journal, 4)
        whole = "".join(exported(journal))
    at = data.draw(st.integers(0, len(whole) - 2))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != whole[at]))
    changed = whole[:at] + other + whole[at + 1 :]
    same = changed.splitlines() == whole.splitlines() or [x.strip() for x in changed.split("\n") if x.strip()] == [
        x.strip() for x in whole.split("\n") if x.strip()
    ]
    hex_case = whole.splitlines()[-1] != changed.splitlines()[-1] and changed.lower() == whole.lower()
    assert (verify_lines(changed.split("\n")) == []) == (same or hex_case)


def test_many_problems_are_told_up_to_a_limit(directory: Path) -> None:
    assert len(verify_lines(["x\n"] * 1000)) == 100


def test_long_lists_are_spread_over_entries() -> None:
    with open_journal() as journal:
        many = [bytes([i % 256, i // 256]) * 16 for i in range(2 * NAMED + 1)]
        assert journal.log.append(Event.SENT, now=NOW, packets=len(many), identities=many, recipients=["a"]) == 3
        entries = journal.log.entries()
        assert [len(entry.fields["identities"]) for entry in entries] == [NAMED, NAMED, 1]
        assert [(entry.fields["part"], entry.fields["parts"]) for entry in entries] == [(1, 3), (2, 3), (3, 3)]
        assert all(entry.fields["packets"] == len(many) and entry.fields["recipients"] == ["a"] for entry in entries)
        assert [name for entry in entries for name in entry.fields["identities"]] == [name.hex() for name in many]
        assert journal.log.verify() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"x": 1.5},
        {"x": "a" * 5001},
        {"previous": "00"},
        {"number": 1},
        {"x": {"a": 1}},
        {"x": [1.0]},
        {"part": 1},
        {"x": True},
    ],
)
def test_what_an_entry_cannot_hold_is_refused(fields: dict[str, object]) -> None:
    with open_journal() as journal:
        with pytest.raises(StoreError) as raised:
            journal.log.append(Event.ASKED, now=NOW, **fields)  # type: ignore[arg-type]
        assert raised.value.code == "log.field"
        with pytest.raises(ValueError, match="no event"):
            journal.log.append("no event", now=NOW)  # type: ignore[arg-type]
        assert journal.log.head()[0] == 0


def test_names_of_files_that_are_no_text_are_written_so_that_they_can_be_read() -> None:
    with open_journal() as journal:
        journal.log.append(Event.SENT, now=NOW, recipients=["file: caf\udce9\n.orp"])
        assert journal.log.entries()[0].fields["recipients"] == ["file: caf\\udce9\n.orp"]
        assert journal.log.verify() == verify_lines(exported(journal)) == []


def append_and_fail(journal: Journal) -> None:
    with journal._database.transaction():
        journal.log.append(Event.ASKED, now=NOW)
        raise KeyError


def test_an_entry_is_kept_or_lost_with_the_transaction_that_it_joins() -> None:
    with open_journal() as journal:
        with pytest.raises(KeyError):
            append_and_fail(journal)
        assert journal.log.head()[0] == 0
        with journal._database.transaction():
            journal.log.append(Event.STARTED, now=NOW)
            with pytest.raises(KeyError):
                append_and_fail(journal)
            journal.log.append(Event.STOPPED, now=NOW)
        assert [entry.kind for entry in journal.log.entries()] == ["started", "stopped"]
        assert journal.log.verify() == []
