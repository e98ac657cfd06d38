"""A hundred thousand packets in the outbox."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np

from outroute.packet import Flag
from outroute.store import State, Which
from store.making import NOW, SCHEMA, make_packets, open_journal, place

COUNT = 100_000


def test_a_hundred_thousand_packets_are_paged_reviewed_approved_and_withdrawn(tmp_path: Path) -> None:
    """How long each step takes is printed (``-s``), not asserted."""
    packets = np.tile(make_packets(1), COUNT)
    packets["sequence"] = np.arange(COUNT)
    withdrawals = packets.copy()
    withdrawals["flags"] = int(Flag.WITHDRAWAL)
    started = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal started
        print(f"{what:12} {time.perf_counter() - started:6.2f} s")
        started = time.perf_counter()

    with open_journal(tmp_path) as journal:
        codes = np.full((COUNT, SCHEMA.width), 7, dtype=np.uint16)
        journal.observe(range(COUNT), codes, np.ones(COUNT), bucket=np.zeros(COUNT, dtype=np.int64))
        rows = journal.observations(Which.READY).rows
        lap("observe")
        journal.outbox.add(packets, [place(0)] * COUNT, list(rows.reshape(-1, 1)), now=NOW)
        lap("add")
        assert journal.outbox.summary().packets[State.PENDING] == COUNT
        lap("summary")
        after, pages, last = 0, 0, b""
        while len(page := journal.outbox.page(State.PENDING, after=after, limit=100)):
            after, pages, last = int(page.ids[-1]), pages + 1, page.identities[-1]
        assert (after, pages) == (COUNT, COUNT // 100)
        lap("1,000 pages")
        assert journal.outbox.find(last.hex()[:12]).ids.tolist() == [COUNT]
        review = journal.outbox.review(now=NOW)
        assert review.digest == hashlib.sha256(packets.tobytes()).digest()
        lap("review")
    with open_journal(tmp_path) as journal:
        lap("open")
        assert len(journal.outbox.approve(review.digest.hex(), by="Erika", now=NOW).ids) == COUNT
        lap("approve")
        assert journal.observations().emitted.all()
        queued = journal.outbox.queued(limit=COUNT)
        assert queued.packets.tobytes() == packets.tobytes()
        lap("queued")
        journal.outbox.mark(queued.ids, State.ACKNOWLEDGED, now=NOW, recipients=[bytes(32)])
        lap("mark")
        done = journal.outbox.withdraw(queued.ids, withdrawals, by="Erika", reason="wrong unit", now=NOW)
        assert (len(done.withdrawals), done.freed) == (COUNT, COUNT)
        assert journal.outbox.queued(limit=10).ids.tolist() == list(range(COUNT + 1, COUNT + 11))
        lap("withdraw")
        assert journal.log.verify() == []
        lap("verify")
        print(f"{journal.log.head()[0]} entries, {(tmp_path / 'journal.db').stat().st_size >> 20} MB")
