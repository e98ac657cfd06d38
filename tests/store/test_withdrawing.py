"""Taking packets back, correcting, and erasing a subject for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import OutrouteError, StoreError
from outroute.packet import Flag, identities, slots, withdraw
from outroute.store import Journal, Kind, Noted, State, Which
from store.making import DAY, NOW, SCHEMA, filled, identity, make_packets, open_journal, place, withdrawals_of

WIDTH = SCHEMA.width


@pytest.fixture
def journal() -> Iterator[Journal]:
    with open_journal() as opened:
        yield opened


def take_back(journal: Journal, ids: np.ndarray) -> object:
    return journal.outbox.withdraw(ids, withdrawals_of(journal, ids), by="Erika", reason="wrong unit", now=NOW)


def test_what_may_have_left_is_withdrawn_and_its_observations_are_stale(journal: Journal) -> None:
    ids = filled(journal, 3)
    journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    journal.outbox.mark(ids[:2], State.ACKNOWLEDGED, now=NOW)
    before = journal.outbox.page()
    rows = np.concatenate([journal.outbox.members(int(i)) for i in ids[[0, 2]]])
    signed = withdrawals_of(journal, ids[[2, 0]])
    done = journal.outbox.withdraw(ids[[2, 0]], signed, by="Erika", reason="wrong unit", now=NOW + 7)
    assert done.ids.tolist() == ids[[0, 2]].tolist()
    assert (done.freed, done.applied, len(done.dropped)) == (10, 0, 0)
    kept = journal.outbox.get(ids)
    assert kept.states.tolist() == [State.WITHDRAWN, State.ACKNOWLEDGED, State.WITHDRAWN]
    assert kept.packets.tobytes() == before.packets.tobytes()
    queued = journal.outbox.queued()
    assert queued.ids.tolist() == done.withdrawals.tolist()
    assert queued.withdraws.tolist() == ids[[0, 2]].tolist()
    assert (queued.packets["flags"] == Flag.WITHDRAWAL).all()
    assert slots(queued.packets) == slots(before.packets[[0, 2]])
    assert queued.addresses == (before.addresses[0], before.addresses[2])
    stale = journal.observations(Which.READY)
    assert stale.rows.tolist() == sorted(rows.tolist())
    assert stale.emitted.all()
    assert (stale.packet == -1).all()
    entry = journal.log.entries(limit=1000)[-1]
    assert (entry.at, entry.kind, entry.fields["by"], entry.fields["reason"]) == (
        NOW + 7,
        "withdrawn",
        "Erika",
        "wrong unit",
    )
    assert entry.fields["identities"] == [before.identities[0].hex(), before.identities[2].hex()]
    assert entry.fields["withdrawals"] == [name.hex() for name in identities(queued.packets)]


def test_withdrawing_twice_is_harmless(journal: Journal) -> None:
    ids = filled(journal, 2)
    journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    take_back(journal, ids[:1])
    state = (journal.log.head(), journal.outbox.summary(), journal.outbox.queued().ids.tolist())
    done = take_back(journal, ids[:1])
    assert (len(done.ids), len(done.withdrawals), len(done.dropped), done.freed) == (0, 0, 0, 0)
    assert state == (journal.log.head(), journal.outbox.summary(), journal.outbox.queued().ids.tolist())
    assert take_back(journal, ids).ids.tolist() == ids[1:].tolist()


def test_a_pending_packet_is_dropped(journal: Journal) -> None:
    ids = filled(journal, 2)
    review = journal.outbox.review(now=NOW)
    done = take_back(journal, ids[:1])
    assert (done.dropped.tolist(), len(done.ids), len(done.withdrawals)) == (ids[:1].tolist(), 0, 0)
    assert len(journal.outbox.queued()) == 0
    ready = journal.observations(Which.READY)
    assert len(ready.rows) == 5
    assert not ready.emitted.any()  # nothing left: as if never distilled
    assert journal.log.entries()[-1].fields["dropped"] == [journal.outbox.get(ids[:1]).identities[0].hex()]
    with pytest.raises(StoreError, match="withdrawn"):
        journal.outbox.approve(review.digest.hex(), by="Erika", now=NOW)


def test_a_rejected_packet_is_passed_over(journal: Journal) -> None:
    ids = filled(journal, 1)
    journal.outbox.reject(journal.outbox.page().digests[0].hex(), by="Erika", now=NOW)
    assert len(take_back(journal, ids).dropped) == 0
    assert journal.outbox.counts()[State.REJECTED] == 1


def test_stale_observations_leave_again_in_another_packet(journal: Journal) -> None:
    ids = filled(journal, 1)
    rows = journal.outbox.members(int(ids[0]))
    journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    take_back(journal, ids)
    again = journal.outbox.add(make_packets(1, first=50), [place(0)], [rows], now=NOW)
    assert journal.observations().emitted.all()  # still, before the new one is approved
    journal.outbox.withdraw(again, withdrawals_of(journal, again), by="Erika", reason="no", now=NOW)
    assert journal.observations(Which.READY).emitted.all()


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("another slot", "outbox.withdrawal"),
        ("no flag", "outbox.withdrawal"),
        ("another author", "outbox.withdrawal"),
        ("other order", "outbox.withdrawal"),
        ("too few", "store.type"),
        ("twice the same", "store.type"),
        ("unknown", "outbox.unknown"),
        ("a withdrawal", "outbox.kind"),
    ],
)
def test_a_withdrawal_that_does_not_fit_changes_nothing(journal: Journal, wrong: str, code: str) -> None:
    ids = filled(journal, 3)
    journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    own = take_back(journal, ids[2:]).withdrawals
    ids = ids[:2]
    packets = journal.outbox.get(ids).packets
    signed = withdrawals_of(journal, ids)
    before = (journal.log.head(), journal.outbox.summary(), journal.observations().packet.tolist())
    if wrong == "another slot":
        signed = withdraw(make_packets(2, first=70), identity(0))
    elif wrong == "no flag":
        signed = packets
    elif wrong == "another author":
        signed = withdraw(make_packets(2, author=1), identity(1))
    elif wrong == "other order":
        signed = signed[::-1]
    elif wrong == "too few":
        signed = signed[:1]
    elif wrong == "twice the same":
        ids, signed = ids[[0, 0]], signed[[0, 0]]
    elif wrong == "unknown":
        ids = np.array([ids[0], 999])
    else:
        ids = np.array([ids[0], own[0]])
    with pytest.raises(StoreError) as raised:
        journal.outbox.withdraw(ids, signed, by="Erika", reason="wrong unit", now=NOW)
    assert raised.value.code == code
    assert before == (journal.log.head(), journal.outbox.summary(), journal.observations().packet.tolist())
    with pytest.raises(OutrouteError, match="only its author"):
        withdraw(packets, identity(1))


def change(journal: Journal, case: str, subject: str, code: int = 9) -> Noted:
    codes = np.full((1, WIDTH), code, dtype=np.uint16)
    bucket = np.zeros(1, dtype=np.int64)
    return Noted(int(journal.observe([case], codes, np.zeros(1), bucket=bucket, subjects=[subject])[0]))


def test_a_correction_withdraws_and_takes_the_new_values(journal: Journal) -> None:
    ids = filled(journal, 3)
    journal.outbox.approve_ids(ids[:2], by="Erika", now=NOW)
    assert change(journal, "case 0.2", "subject 0.2") == Noted.CONFLICT
    assert change(journal, "case 2.4", "subject 2.4") == Noted.CONFLICT  # its packet is still pending
    found = np.unique(journal.conflicts().packet)
    assert found.tolist() == ids[[0, 2]].tolist()
    done = journal.correct(found, withdrawals_of(journal, found), by="Erika", now=NOW)
    assert (done.ids.tolist(), done.dropped.tolist(), done.freed, done.applied) == ([1], [3], 10, 2)
    assert journal.counts()["conflicts"] == 0
    seen = journal.observations()
    assert seen.codes[:, 0].tolist() == [7, 7, 9, 7, 7] + [7] * 5 + [7, 7, 7, 7, 9]
    assert seen.outcome.tolist() == [1, 1, 0, 1, 1] + [1] * 5 + [1, 1, 1, 1, 0]
    assert seen.emitted.tolist() == [True] * 10 + [False] * 5
    assert (seen.packet == -1).tolist() == [True] * 5 + [False] * 5 + [True] * 5
    entry = journal.log.entries(limit=1000)[-1]
    assert (entry.kind, entry.fields["corrected"]) == ("corrected", 2)
    assert change(journal, "case 0.2", "subject 0.2") == Noted.DUPLICATE


def test_withdrawing_by_hand_takes_the_corrections_too(journal: Journal) -> None:
    ids = filled(journal, 2)
    journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    change(journal, "case 0.2", "subject 0.2")
    change(journal, "case 1.2", "subject 1.2")
    assert take_back(journal, ids[:1]).applied == 1
    assert journal.observations().codes[2, 0] == 9
    assert journal.conflicts().packet.tolist() == ids[1:].tolist()


def test_the_packets_of_a_case_a_time_and_a_subject(journal: Journal) -> None:
    ids = filled(journal, 4)
    assert journal.case_packets("case 2.3").tolist() == [3]
    assert journal.case_packets("nobody").tolist() == []
    assert journal.time_packets(DAY, 3 * DAY).tolist() == [2, 3]
    assert journal.time_packets(DAY + 1, 3 * DAY + 1).tolist() == [3, 4]
    assert journal.time_packets(10 * DAY, 20 * DAY).tolist() == []
    assert journal.subject_packets("subject 2.3").tolist() == [3]
    assert journal.subject_packets("case 2.3").tolist() == []
    codes = np.zeros((5, WIDTH), dtype=np.uint16)
    cases = ["x0", "x1", "x2", "x3", "x4"]
    subjects = ["subject 2.3", "s1", "s2", "s3", "s4"]
    journal.observe(cases, codes, np.ones(5), bucket=np.zeros(5, dtype=np.int64), subjects=subjects)
    rows = journal.observations(Which.READY).rows
    journal.outbox.add(make_packets(1, first=60), [place(0)], [rows], now=NOW)
    assert journal.subject_packets("subject 2.3").tolist() == [3, 5]
    take_back(journal, ids[2:3])
    assert journal.case_packets("case 2.3").tolist() == []
    assert journal.subject_packets("subject 2.3").tolist() == [5]


def test_a_case_without_a_subject_is_its_own_subject(journal: Journal) -> None:
    codes = np.zeros((5, WIDTH), dtype=np.uint16)
    journal.observe(list("abcde"), codes, np.ones(5), bucket=np.zeros(5, dtype=np.int64))
    ids = journal.outbox.add(make_packets(1), [place(0)], [journal.observations().rows], now=NOW)
    journal.ask("c", b"asked", now=NOW)
    journal.ask("d", b"asked", now=NOW)
    assert journal.subject_packets("c").tolist() == ids.tolist()
    done = journal.erase("c", ids, withdrawals_of(journal, ids), by="Erika", now=NOW)
    assert (done.observations, done.questions) == (1, 1)
    assert len(journal.observations(Which.READY).rows) == 4
    assert journal.question("c") is None
    assert journal.question("d") is not None


def erase(journal: Journal, subject: str) -> object:
    ids = journal.subject_packets(subject)
    q = journal.outbox.get(ids)
    return journal.erase(subject, q.ids, withdraw(q.packets, identity(0)), by="Erika", now=NOW)


def test_erasing_a_subject_leaves_nothing_of_it(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    with open_journal(directory) as journal:
        ids = filled(journal, 4)
        journal.outbox.approve_ids(ids[:3], by="Erika", now=NOW)
        codes = np.frombuffer(b"Zq" * WIDTH, dtype="<u2").reshape(1, WIDTH).astype(np.uint16)
        for packet in (0, 1):  # of its own conditions in packet 1, and once more kept aside for a correction
            case, bucket = [f"case {packet}.1"], np.zeros(1, dtype=np.int64)
            assert journal.observe(case, codes, np.ones(1), bucket=bucket, subjects=["subject 1.1"]) == Noted.CONFLICT
        journal.observe(["waits"], codes, np.array([np.nan]), bucket=bucket, subjects=["subject 1.1"])
        journal.ask("case 1.1", b"secret question 1.1", now=NOW)
        journal.ask("case 2.1", b"question 2.1", now=NOW)
        gone = journal.outbox.get(ids[:2]).packets
        nonces = [journal.outbox.secret(number) for number in (1, 2, 3)]
        assert journal.subject_packets("subject 1.1").tolist() == [1, 2]
        done = erase(journal, "subject 1.1")
        assert (done.observations, done.questions, done.withdrawn.ids.tolist()) == (3, 1, [1, 2])
        assert journal.subject_packets("subject 1.1").tolist() == []
        kept = journal.outbox.get(ids)
        assert kept.states.tolist() == [State.WITHDRAWN, State.WITHDRAWN, State.QUEUED, State.PENDING]
        assert slots(kept.packets[:2]) == slots(gone)
        assert list(kept.identities[:2]) == identities(gone)
        assert [journal.outbox.secret(number) for number in (1, 2)] == [None, None]
        for name in ("conditions", "outcome", "fingerprint", "commitment", "signature", "size", "weight"):
            assert not kept.packets[name][:2].any()
        stale = journal.observations(Which.READY)
        assert len(stale.rows) == 8
        assert stale.emitted.all()
        assert journal.question("case 2.1") is not None
        assert journal.conflicts().rows.tolist() == []
        entry = journal.log.entries(limit=1000)[-1]
        assert (entry.kind, entry.fields["observations"], entry.fields["packets"]) == ("erased", 3, 2)
        assert journal.log.verify() == []
        raw = b"".join(path.read_bytes() for path in directory.iterdir())
    raw += b"".join(path.read_bytes() for path in directory.iterdir())
    for trace in (*nonces[:2], b"Zq" * WIDTH, b"secret question", gone[0].tobytes()[136:448], gone[1].tobytes()[448:]):
        assert trace is not None
        assert trace not in raw
    assert nonces[2] is not None
    assert nonces[2] in raw  # what is not erased is still there
    assert b"question 2.1" in raw


def test_erasing_reaches_packets_withdrawn_or_rejected_before(journal: Journal) -> None:
    ids = filled(journal, 3)
    journal.outbox.approve_ids(ids[:1], by="Erika", now=NOW)
    take_back(journal, ids[:1])
    journal.outbox.reject(journal.outbox.page(State.PENDING).digests[0].hex(), by="Erika", now=NOW)
    for packet, waits in ((0, 4), (1, 4)):
        done = erase(journal, f"subject {packet}.3")
        assert (done.observations, len(done.withdrawn.ids)) == (1, 0)
        kept = journal.outbox.get(ids[[packet]]).packets
        assert not kept["conditions"].any()
        assert journal.outbox.secret(int(ids[packet])) is None
        field = Which.READY if packet == 0 else Which.EXCLUDED
        assert len(journal.observations(field).rows) == waits
    assert journal.outbox.secret(int(ids[2])) is not None
    assert erase(journal, "nobody").observations == 0


def test_erasing_needs_all_packets_of_the_subject(journal: Journal) -> None:
    ids = filled(journal, 2)
    journal.outbox.approve_ids(ids, by="Erika", now=NOW)
    for wrong in (ids[:0], ids[1:], ids):
        with pytest.raises(StoreError, match="subject_packets") as raised:
            journal.erase("subject 0.0", wrong, withdrawals_of(journal, ids)[: len(wrong)], by="Erika", now=NOW)
        assert raised.value.code == "store.erase"
    assert len(journal.observations().rows) == 10
    assert journal.outbox.counts()[State.QUEUED] == 2


ACTIONS = ("observe", "distil", "approve", "reject", "again", "withdraw", "correct", "erase", "send", "restart")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 10**6)), max_size=30))
def test_after_any_history_the_books_agree(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, int]]
) -> None:
    """Whatever was done in whatever order: no byte to go that was not approved, and every observation accounted for."""
    directory = tmp_path_factory.mktemp("journal")
    journal = open_journal(directory)
    approved: set[bytes] = set()
    left: set[int] = set()  # rows that were in an approved packet
    erased: set[str] = set()
    batch = 0
    try:
        for action, number in script:
            pending = journal.outbox.page(State.PENDING, limit=1000)
            every = journal.outbox.page(kind=Kind.PACKET, limit=1000)
            one = every.ids[[number % len(every)]] if len(every) else every.ids
            if action == "observe":
                change(journal, f"case {number % 7}", f"subject {number % 5}", code=number % 3)
                erased.discard(f"subject {number % 5}")
            elif action == "distil":
                ready = journal.observations(Which.READY).rows
                if len(ready):
                    batch += 1
                    made = make_packets(1, first=journal.outbox.reserve(1))
                    journal.outbox.add(made, [place(batch)], [ready[: number % 5 + 1]], now=NOW)
            elif action == "approve" and len(pending):
                chosen = pending.ids[: number % len(pending) + 1]
                left |= {row for i in chosen.tolist() for row in journal.outbox.members(i).tolist()}
                done = journal.outbox.approve(journal.outbox.review(chosen, now=NOW).digest.hex(), by="E", now=NOW)
                approved |= set(journal.outbox.get(done.ids).digests)
            elif action in ("reject", "again") and len(pending):
                digest = pending.digests[number % len(pending)].hex()
                journal.outbox.reject(digest, by="E", now=NOW, again=action == "again")
            elif action == "withdraw":
                take_back(journal, one)
            elif action == "correct":
                packets = journal.outbox.get(np.unique(journal.conflicts().packet))
                journal.correct(packets.ids, withdraw(packets.packets, identity(0)), by="E", now=NOW)
                assert journal.counts()["conflicts"] == 0
            elif action == "erase":
                erase(journal, f"subject {number % 5}")
                erased.add(f"subject {number % 5}")
            elif action == "send":
                journal.outbox.mark(one, State(number % 3 + 1), now=NOW)
            elif action == "restart":
                before = (journal.outbox.page(limit=1000).packets.tobytes(), journal.counts(), journal.log.head())
                journal.close()
                journal = open_journal(directory)
                assert before == (
                    journal.outbox.page(limit=1000).packets.tobytes(),
                    journal.counts(),
                    journal.log.head(),
                )
            goes = journal.outbox.queued(*(s for s in State if s <= State.REFUSED), limit=1000)
            assert {d for d, kind in zip(goes.digests, goes.kinds, strict=True) if kind == Kind.PACKET} <= approved
            assert set(goes.withdraws[goes.withdraws >= 0]) <= set(
                every.ids[np.isin(every.digests, list(approved))].tolist()
            )
            seen = journal.observations()
            assert set(seen.rows[seen.emitted].tolist()) == left & set(seen.rows.tolist())
            inside = journal.outbox.get(np.unique(seen.packet[seen.packet >= 0]))
            assert not np.isin(inside.states, (State.WITHDRAWN, State.REJECTED)).any()
            assert all(len(journal.subject_packets(subject)) == 0 for subject in erased)
            assert journal.log.verify() == []
    finally:
        journal.close()
