"""A journal written before approvals were recorded opens and goes on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from outroute.packet import identities, withdraw
from outroute.store import Journal, Kind, State, Which
from outroute.store.database import Database
from outroute.store.journal import _APPLICATION
from outroute.store.observed import journal_layout
from store.making import NOW, SCHEMA, identity, make_packets, open_journal, place

STATES = (State.QUEUED, State.SENT, State.ACKNOWLEDGED, State.REFUSED, State.ACKNOWLEDGED)


def layout_1(directory: Path, packets: np.ndarray) -> None:
    """A file with the first layout, as the release before wrote it: five observations in each packet, and five more."""
    database = Database(directory / "journal.db", application=_APPLICATION, migrations=(journal_layout,))
    file = (directory / "journal.db").stat()
    codes = np.full(SCHEMA.width, 7, dtype="<u2").tobytes()
    with database.transaction() as connection:
        connection.executemany("INSERT INTO meta VALUES (?, ?)", [("schema", SCHEMA.id), ("secret", b"\5" * 32)])
        connection.execute(
            "INSERT INTO counter VALUES (?, ?, ?)", (NOW - 50, len(packets), f"{file.st_dev}:{file.st_ino}")
        )
        for i, packet in enumerate(packets):
            connection.execute(
                "INSERT INTO outbox VALUES (?, ?, ?, ?, ?)",
                (i + 1, STATES[i % len(STATES)], place(i), bytes([i % 256]) * 32, packet.tobytes()),
            )
        connection.executemany(
            "INSERT INTO observations (case_high, case_low, subject, bucket, facet, outcome, packet, codes)"
            " VALUES (?, 0, ?, 0, 0, 1.0, ?, ?)",
            [(n, n, n // 5 + 1 if n // 5 < len(packets) else None, codes) for n in range(5 * len(packets) + 5)],
        )
        connection.execute("INSERT INTO conflicts VALUES (1, 0, 0, 0, 0.0, 1, ?)", (codes,))
        connection.execute("INSERT INTO questions VALUES (1, 5, 6, ?, x'00')", (NOW,))
    database.close()
    with sqlite3.connect(directory / "journal.db") as plain:
        assert plain.execute("PRAGMA user_version").fetchone() == (1,)
    plain.close()


def check(journal: Journal, packets: np.ndarray) -> None:
    found = journal.outbox.page(limit=10**6)
    assert found.packets.tobytes() == packets.tobytes()
    assert found.addresses == tuple(place(i) for i in range(len(packets)))
    assert found.states.tolist() == [STATES[i % len(STATES)] for i in range(len(packets))]
    assert list(found.identities) == identities(packets)
    assert journal.outbox.find(found.digests[2].hex()).ids.tolist() == [3]
    assert journal.outbox.secret(2) == b"\1" * 32
    seen = journal.observations()
    assert seen.emitted.tolist() == (seen.packet >= 0).tolist()
    assert len(journal.observations(Which.READY).rows) == 5
    assert journal.counts() | {"conflicts": 1, "questions": 1, "excluded": 0} == journal.counts()
    entries = journal.log.entries(limit=10**6)
    assert {entry.kind for entry in entries} == {"approved"}
    assert {entry.fields["by"] for entry in entries} == {"before approvals were recorded"}
    assert [name for entry in entries for name in entry.fields["identities"]] == [n.hex() for n in found.identities]
    assert journal.log.verify() == []
    assert not journal.outbox.copied
    assert journal.outbox.incarnation == NOW - 50


def test_a_layout_1_file_opens_and_goes_on(tmp_path: Path) -> None:
    packets = make_packets(5)
    packets[4] = withdraw(packets[4:], identity(0))[0]
    layout_1(tmp_path, packets)
    for _ in range(2):  # the second time it has layout 2
        with open_journal(tmp_path) as journal:
            check(journal, packets)
            assert journal.outbox.page(kind=Kind.WITHDRAWAL).ids.tolist() == [5]
    with open_journal(tmp_path) as journal:
        assert journal.outbox.queued().ids.tolist() == [1, 2]
        done = journal.outbox.withdraw(
            np.array([1, 3]), withdraw(packets[[0, 2]], identity(0)), by="Erika", reason="wrong", now=NOW
        )
        assert (done.freed, done.applied) == (10, 1)
        ready = journal.observations(Which.READY)
        assert ready.emitted.tolist() == [True] * 10 + [False] * 5
        first = journal.outbox.reserve(1)
        assert first == ((NOW - 50) << 32) + 5
        ids = journal.outbox.add(make_packets(1, first=first), [place(0)], [ready.rows[10:]], now=NOW)
        assert journal.outbox.page(State.PENDING).ids.tolist() == ids.tolist()
        assert journal.log.verify() == []


def test_a_large_layout_1_file(tmp_path: Path) -> None:
    packets = np.tile(make_packets(1), 5000)
    packets["sequence"] = np.arange(5000)
    layout_1(tmp_path, packets)
    with open_journal(tmp_path) as journal:
        check(journal, packets)
        assert journal.log.head()[0] == -(-5000 // 256)


def test_an_empty_layout_1_file(tmp_path: Path) -> None:
    layout_1(tmp_path, make_packets(0))
    with open_journal(tmp_path) as journal:
        assert journal.log.head()[0] == 0
        assert len(journal.observations(Which.READY).rows) == 5
