"""Nothing leaves that was not approved, and exactly the bytes that were looked at."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from outroute.errors import StoreError
from outroute.packet import identities, withdraw
from outroute.store import Journal, Kind, Noted, State, Which
from store.making import NOW, SCHEMA, filled, identity, make_packets, open_journal, place, withdrawals_of

WIDTH = SCHEMA.width


@pytest.fixture
def journal() -> Iterator[Journal]:
    with open_journal() as opened:
        yield opened


def kinds(journal: Journal) -> list[str]:
    return [entry.kind for entry in journal.log.entries(limit=1000)]


def refused(journal: Journal, digest: str, match: str, code: str = "outbox.digest") -> None:
    before = (journal.outbox.summary(), journal.log.head(), journal.observations().emitted.tolist())
    for decide in (journal.outbox.approve, journal.outbox.reject):
        with pytest.raises(StoreError, match=match) as raised:
            decide(digest, by="Erika", now=NOW)
        assert raised.value.code == code
    assert (journal.outbox.summary(), journal.log.head(), journal.observations().emitted.tolist()) == before


def test_a_review_is_the_digest_of_the_bytes(journal: Journal) -> None:
    ids = filled(journal, 4)
    page = journal.outbox.page(State.PENDING)
    review = journal.outbox.review(now=NOW)
    assert review.digest == hashlib.sha256(page.packets.tobytes()).digest()
    assert review.ids.tolist() == ids.tolist()
    part = journal.outbox.review(ids[[2, 0]], now=NOW)  # in outbox order, whatever the order asked for
    assert part.digest == hashlib.sha256(page.packets[[0, 2]].tobytes()).digest()
    assert part.ids.tolist() == ids[[0, 2]].tolist()
    assert page.digests == tuple(hashlib.sha256(p.tobytes()).digest() for p in page.packets)
    assert list(page.identities) == identities(page.packets)


def test_what_is_approved_goes_and_nothing_else(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        ids = filled(journal, 4)
        digest = journal.outbox.review(ids[:2], now=NOW).digest.hex()
        assert len(journal.outbox.queued()) == 0
    with open_journal(tmp_path) as journal:  # a review is remembered across a restart
        approved = journal.outbox.approve(digest[:12].upper(), by=" Erika Muster ", now=NOW + 1)
        assert (approved.ids.tolist(), approved.digest.hex()) == (ids[:2].tolist(), digest)
        assert journal.outbox.queued().ids.tolist() == ids[:2].tolist()
        seen = journal.observations()
        assert seen.emitted.tolist() == np.isin(seen.packet, ids[:2]).tolist()
        assert sum(seen.emitted) == 10
        single = journal.outbox.page(State.PENDING).digests[1].hex()
        assert journal.outbox.approve(single, by="Erika", now=NOW).ids.tolist() == ids[3:].tolist()
        refused(journal, digest, "no longer waiting")
    with open_journal(tmp_path) as journal:
        assert journal.outbox.queued().ids.tolist() == ids[[0, 1, 3]].tolist()
        assert kinds(journal) == ["distilled", "reviewed", "approved", "approved"]
        entry = journal.log.entries()[2]
        assert (entry.at, entry.fields["by"], entry.fields["digest"]) == (NOW + 1, "Erika Muster", digest)
        assert entry.fields["identities"] == [name.hex() for name in journal.outbox.get(ids[:2]).identities]
        assert journal.log.verify() == []


def test_a_digest_that_names_nothing(journal: Journal) -> None:
    refused(journal, "ab" * 32, "no packet and no review")
    filled(journal, 2)
    found = journal.outbox.page()
    refused(journal, "ab" * 32, "no packet and no review")
    refused(journal, found.digests[0].hex()[:11], "12 to 64 hexadecimal")
    refused(journal, found.digests[0].hex() + "0", "12 to 64 hexadecimal")
    refused(journal, "approve it all", "12 to 64 hexadecimal")
    refused(journal, found.identities[0].hex(), "no packet and no review")  # an identity leaves the signature out
    with pytest.raises(StoreError, match="12 to 64"):
        journal.outbox.find("abc")


def test_a_prefix_of_several_digests_is_refused(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        filled(journal, 3)
        full = [digest.hex() for digest in journal.outbox.page().digests]
    with sqlite3.connect(tmp_path / "journal.db") as connection:  # no two real digests share 12 digits
        forged = bytes.fromhex(full[0][:-1] + ("0" if full[0][-1] != "0" else "1"))
        connection.execute("UPDATE outbox SET digest = ? WHERE id = 2", (forged,))
    connection.close()
    with open_journal(tmp_path) as journal:
        refused(journal, full[0][:-1], "give more digits")
        with pytest.raises(StoreError, match="not the bytes"):
            journal.outbox.approve(forged.hex(), by="Erika", now=NOW)
        assert journal.outbox.approve(full[0], by="Erika", now=NOW).ids.tolist() == [1]


def test_bytes_changed_after_the_review_do_not_leave(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        ids = filled(journal, 3)
        digest = journal.outbox.review(now=NOW).digest.hex()
        own = journal.outbox.page().digests[1].hex()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        body = bytearray(connection.execute("SELECT body FROM outbox WHERE id = 2").fetchone()[0])
        body[200] ^= 1
        connection.execute("UPDATE outbox SET body = ? WHERE id = 2", (bytes(body),))
    connection.close()
    with open_journal(tmp_path) as journal:
        for bad in (digest, own):
            with pytest.raises(StoreError, match="not the bytes that were reviewed") as raised:
                journal.outbox.approve(bad, by="Erika", now=NOW)
            assert raised.value.code == "outbox.digest"
        with pytest.raises(StoreError, match="not the bytes that were made"):
            journal.outbox.approve_ids(ids, by="rule: all", now=NOW)
        assert len(journal.outbox.queued()) == 0
        assert not journal.observations().emitted.any()
        assert journal.outbox.reject(own, by="Erika", now=NOW, again=True).ids.tolist() == [2]  # the way out
        assert journal.outbox.approve_ids(ids[[0, 2]], by="rule: all", now=NOW).ids.tolist() == [1, 3]


def test_a_review_with_a_packet_that_waits_no_longer(journal: Journal) -> None:
    ids = filled(journal, 5)
    digest = journal.outbox.review(now=NOW).digest.hex()
    page = journal.outbox.page()
    journal.outbox.approve(page.digests[1].hex(), by="Erika", now=NOW)
    journal.outbox.reject(page.digests[2].hex(), by="Erika", now=NOW)
    refused(
        journal, digest, f"packet {page.identities[1].hex()[:16]} .queued., {page.identities[2].hex()[:16]} .rejected."
    )
    assert len(journal.outbox.queued()) == 1
    with pytest.raises(StoreError, match="no longer waiting"):
        journal.outbox.review(ids, now=NOW)
    with pytest.raises(StoreError, match="no longer waiting"):
        journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    with pytest.raises(StoreError, match="not in the outbox"):
        journal.outbox.approve_ids(np.array([99]), by="Erika", now=NOW)
    rest = journal.outbox.review(now=NOW)
    assert rest.ids.tolist() == ids[[0, 3, 4]].tolist()
    assert journal.outbox.approve(rest.digest.hex(), by="Erika", now=NOW, limit_ids=ids[2:4]).ids.tolist() == [4]
    assert journal.outbox.counts()[State.PENDING] == 2


def test_nothing_to_review(journal: Journal) -> None:
    with pytest.raises(StoreError, match="distil first") as raised:
        journal.outbox.review(now=NOW)
    assert raised.value.code == "outbox.empty"
    assert len(journal.outbox.approve_ids(np.array([], dtype=np.int64), by="rule", now=NOW).ids) == 0
    assert kinds(journal) == []


@pytest.mark.parametrize("by", ["", "  ", "a\nb", "x" * 201, "\x1b[31m"])
def test_an_approver_has_a_name(journal: Journal, by: str) -> None:
    ids = filled(journal, 1)
    digest = journal.outbox.review(now=NOW).digest.hex()
    for decide in (
        lambda: journal.outbox.approve(digest, by=by, now=NOW),
        lambda: journal.outbox.approve_ids(ids, by=by, now=NOW),
        lambda: journal.outbox.reject(digest, by=by, now=NOW),
        lambda: journal.outbox.withdraw(ids, withdrawals_of(journal, ids), by=by, reason="x", now=NOW),
        lambda: journal.outbox.withdraw(ids, withdrawals_of(journal, ids), by="x", reason=by, now=NOW),
        lambda: journal.erase("subject 0.0", ids, withdrawals_of(journal, ids), by=by, now=NOW),
    ):
        with pytest.raises(StoreError) as raised:
            decide()
        assert raised.value.code == "outbox.text"
    assert journal.outbox.counts()[State.PENDING] == 1
    assert len(journal.observations().rows) == 5


def test_what_is_rejected_stays_out_of_distilling(journal: Journal) -> None:
    ids = filled(journal, 2)
    digest = journal.outbox.page().digests[0].hex()
    rows = journal.outbox.members(int(ids[0]))
    assert journal.outbox.reject(digest, by="Erika", now=NOW).ids.tolist() == ids[:1].tolist()
    assert len(journal.observations(Which.READY).rows) == 0
    assert journal.observations(Which.EXCLUDED).rows.tolist() == rows.tolist()
    assert journal.counts()["excluded"] == 5
    assert not journal.observations().emitted.any()
    refused_codes = np.full((1, WIDTH), 9, dtype=np.uint16)
    noted = journal.observe(
        ["case 0.1"], refused_codes, np.ones(1), bucket=np.zeros(1, dtype=np.int64), subjects=["subject 0.1"]
    )
    assert noted.tolist() == [Noted.UPDATED]  # it has not left: no conflict
    with pytest.raises(StoreError, match="ready"):
        journal.outbox.add(make_packets(1, first=9), [place(0)], [rows], now=NOW)
    with pytest.raises(StoreError, match="no longer waiting"):
        journal.outbox.reject(digest, by="Erika", now=NOW)
    with pytest.raises(StoreError, match="no longer waiting"):
        journal.outbox.approve(digest, by="Erika", now=NOW)
    journal.outbox.reject(digest, by="Erika", now=NOW, again=True)  # said later
    assert journal.observations(Which.READY).rows.tolist() == rows.tolist()
    assert journal.outbox.counts()[State.REJECTED] == 1
    other = journal.outbox.page(State.PENDING).digests[0].hex()
    journal.outbox.reject(other, by="Erika", now=NOW, again=True)
    assert len(journal.observations(Which.READY).rows) == 10
    assert [e.fields["again"] for e in journal.log.entries() if e.kind == "rejected"] == [0, 1, 1]


def test_pages_and_names(journal: Journal) -> None:
    ids = filled(journal, 7)
    journal.outbox.approve_ids(ids[2:5], by="Erika", now=NOW)
    journal.outbox.withdraw(ids[3:4], withdrawals_of(journal, ids[3:4]), by="Erika", reason="wrong", now=NOW)
    assert journal.outbox.page(State.PENDING, limit=3).ids.tolist() == [1, 2, 6]
    assert journal.outbox.page(State.PENDING, after=2, limit=9).ids.tolist() == [6, 7]
    assert journal.outbox.page(State.PENDING, State.WITHDRAWN, after=2).ids.tolist() == [4, 6, 7]
    assert journal.outbox.page().ids.tolist() == list(range(1, 9))
    assert journal.outbox.page(kind=Kind.WITHDRAWAL).ids.tolist() == [8]
    assert journal.outbox.page(State.QUEUED, kind=Kind.PACKET).ids.tolist() == [3, 5]
    queued = journal.outbox.queued()  # withdrawals first
    assert queued.ids.tolist() == [8, 3, 5]
    assert queued.kinds.tolist() == [Kind.WITHDRAWAL, Kind.PACKET, Kind.PACKET]
    assert queued.withdraws.tolist() == [4, -1, -1]
    assert queued.addresses == (place(3), place(2), place(4))
    assert list(queued.identities) == identities(queued.packets)
    assert journal.outbox.queued(limit=1).ids.tolist() == [8]
    found = journal.outbox.page()
    for i in range(len(found)):
        for name in (found.identities[i].hex()[:12], found.digests[i].hex()[:13], found.digests[i].hex()):
            assert journal.outbox.find(name).ids.tolist() == [i + 1]
    assert len(journal.outbox.find("0" * 12)) == 0
    summary = journal.outbox.summary()
    assert summary.packets == journal.outbox.counts()
    assert {s: n for s, n in summary.packets.items() if n} == {State.QUEUED: 2, State.PENDING: 4, State.WITHDRAWN: 1}
    assert {s: n for s, n in summary.withdrawals.items() if n} == {State.QUEUED: 1}


def test_sending_is_logged_once_for_each_set_of_recipients(journal: Journal) -> None:
    ids = filled(journal, 3)
    journal.outbox.approve_ids(ids, by="rule: all", now=NOW)
    before = len(kinds(journal))
    one, two = b"\1" * 32, b"\2" * 32
    journal.outbox.mark(ids, State.SENT, now=NOW, recipients=[one, two])
    journal.outbox.mark(ids, State.SENT, now=NOW, recipients=[two, one])  # again to the same
    journal.outbox.mark(ids, State.SENT, now=NOW)
    journal.outbox.mark(ids[:1], State.SENT, now=NOW, recipients=["file: review.orp"])
    journal.outbox.mark(ids[:2], State.ACKNOWLEDGED, now=NOW, recipients=[one])
    journal.outbox.mark(ids[2:], State.REFUSED, now=NOW)
    entries = journal.log.entries(after=before)
    assert [e.kind for e in entries] == ["sent", "sent", "acknowledged", "refused"]
    assert [e.fields["packets"] for e in entries] == [3, 1, 2, 1]
    assert [e.fields.get("recipients") for e in entries] == [
        [one.hex(), two.hex()], ["file: review.orp"], [one.hex()], None,
    ]  # fmt: skip


def test_reviews_are_kept_up_to_a_limit(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outroute.store.approving.REVIEWS_KEPT", 3)
    monkeypatch.setattr("outroute.store.approving.REVIEWED_PACKETS_KEPT", 8)
    ids = filled(journal, 6)
    digests = [journal.outbox.review(ids[i : i + 2], now=NOW).digest.hex() for i in range(5)]
    refused(journal, digests[0], "review again")
    refused(journal, digests[1], "review again")
    whole = journal.outbox.review(now=NOW)
    refused(journal, digests[3], "review again")
    assert len(journal.outbox.approve(digests[4], by="Erika", now=NOW).ids) == 2
    refused(journal, whole.digest.hex(), "no longer waiting")


def test_a_withdrawal_is_no_packet_to_approve(journal: Journal) -> None:
    ids = filled(journal, 1)
    journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    done = journal.outbox.withdraw(
        ids, withdraw(journal.outbox.page().packets, identity(0)), by="E", reason="r", now=NOW
    )
    refused(journal, journal.outbox.get(done.withdrawals).digests[0].hex(), "no packet and no review")
