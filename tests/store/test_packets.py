"""The packet store: slots, samples, expiry, digests, and what lies on the disk."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import StoreError
from outroute.packet import PacketArray, expiry, identities, withdraw
from outroute.placement import EMPTY_DIGEST, Kept, Part, Wanted, slot_ranks, summary
from outroute.store import GRACE_SECONDS, PacketStore
from outroute.store.cells import CUT_SLACK
from store.making import BUCKET_SECONDS, DAY, NOW, SCHEMA, identity, make_packets, place

HOME = place(0)


def put(store: PacketStore, packets: PacketArray, address: bytes = HOME, now: int = NOW) -> list[Kept]:
    return [Kept(k) for k in store.put(address, packets, bucket_seconds=BUCKET_SECONDS, now=now).tolist()]


def answered(store: PacketStore, address: bytes = HOME, now: int = NOW, cap: int = 10_000) -> set[bytes]:
    return set(identities(store.fetch([address], now=now, cap=cap)[0].packets))


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    with PacketStore(None if request.param == "memory" else tmp_path / "node") as opened:
        assert opened.durable == (request.param == "disk")
        yield opened


def test_what_goes_in_comes_out(store: PacketStore) -> None:
    packets = make_packets(50)
    assert put(store, packets) == [Kept.STORED] * 50
    found = store.fetch([HOME, place(1)], now=NOW)
    assert sorted(found[0].packets.tobytes()[i : i + 512] for i in range(0, 50 * 512, 512)) == sorted(
        packets.tobytes()[i : i + 512] for i in range(0, 50 * 512, 512)
    )
    assert (found[0].left_out, len(found[1].packets), found[1].left_out) == (0, 0, 0)
    assert put(store, packets) == [Kept.DUPLICATE] * 50
    assert put(store, np.concatenate([packets[:1], packets[:1]]), place(7)) == [Kept.STORED, Kept.DUPLICATE]
    assert store.count() == 51
    assert store.count(HOME) == 50
    assert store.addresses() == sorted([HOME, place(7)])


def test_one_batch_goes_to_many_addresses(store: PacketStore) -> None:
    packets = make_packets(300)
    names = [place(i % 90) for i in range(300)]
    kept = store.put(names, packets, bucket_seconds=BUCKET_SECONDS, now=NOW)
    assert (kept == Kept.STORED).all()
    for i in range(90):
        assert answered(store, place(i)) == set(identities(packets[i::90]))


def test_an_empty_batch_and_an_empty_store(store: PacketStore) -> None:
    assert put(store, make_packets(0)) == []
    assert store.addresses() == []
    assert store.digests([HOME], now=NOW) == [EMPTY_DIGEST]
    assert store.entries(HOME, now=NOW).identities == ()
    assert store.sweep(NOW) == 0
    assert store.drop({HOME: EMPTY_DIGEST}, now=NOW) == 0


def test_a_withdrawal_dominates_whenever_it_comes(store: PacketStore) -> None:
    packets = make_packets(4)
    notes = withdraw(packets, identity(0))
    assert put(store, packets[:2]) == [Kept.STORED] * 2
    assert put(store, notes) == [Kept.STORED] * 4
    assert put(store, packets) == [Kept.WITHDRAWN] * 4
    assert put(store, notes) == [Kept.DUPLICATE] * 4
    assert answered(store) == set()
    assert store.count(HOME) == 0
    entries = store.entries(HOME, now=NOW)
    assert set(entries.identities) == set(identities(notes))
    assert set(entries.parts) == {Part.WITHDRAWAL}


def test_a_withdrawal_outlives_what_it_withdraws(store: PacketStore) -> None:
    short, long = make_packets(1, lifetime=DAY, cell=3), make_packets(1, lifetime=20 * DAY, cell=3)
    assert put(store, withdraw(short, identity(0))) == [Kept.STORED]
    assert put(store, long) == [Kept.WITHDRAWN]
    after = int(expiry(SCHEMA, short)[0]) + 2 * GRACE_SECONDS
    store.sweep(after)
    assert put(store, long, now=after) == [Kept.WITHDRAWN]


def test_equivocation_is_kept_as_proof_and_not_answered(store: PacketStore) -> None:
    first, second, third = (make_packets(1, seed=s, cell=3) for s in (1, 2, 3))
    assert put(store, np.concatenate([first, second])) == [Kept.STORED, Kept.EQUIVOCATION]
    assert answered(store) == set()
    entries = store.entries(HOME, now=NOW)
    assert set(entries.parts) == {Part.PROOF}
    assert set(entries.identities) == set(identities(first) + identities(second))
    assert put(store, third) == [Kept.EQUIVOCATION]
    assert put(store, first) == [Kept.EQUIVOCATION]
    assert len(store.entries(HOME, now=NOW).identities) == 2
    assert put(store, withdraw(first, identity(0))) == [Kept.STORED]
    assert set(store.entries(HOME, now=NOW).parts) == {Part.WITHDRAWAL}


SLOT_MATES = [make_packets(1, seed=s, cell=3, lifetime=(5 + s) * DAY) for s in range(4)]
MIXED = [
    *SLOT_MATES,
    withdraw(SLOT_MATES[0], identity(0)),
    withdraw(SLOT_MATES[1], identity(0)),
    make_packets(1, first=9),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(MIXED) - 1), min_size=1, max_size=10), st.data())
def test_a_slot_ends_the_same_whatever_the_order(chosen: list[int], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(chosen))
    cuts = data.draw(st.sets(st.integers(1, len(chosen))))
    with PacketStore() as one, PacketStore() as other:
        put(one, np.concatenate([MIXED[i] for i in chosen]))
        bounds = [0, *sorted(cuts | {len(chosen)})]
        for start, stop in itertools.pairwise(bounds):
            if stop > start:
                put(other, np.concatenate([MIXED[i] for i in shuffled[start:stop]]))
        assert one.digests([HOME], now=NOW) == other.digests([HOME], now=NOW)
        assert answered(one) == answered(other)
        assert one.count(HOME) == other.count(HOME) == len(answered(one))


def test_expiry_and_grace(store: PacketStore) -> None:
    packets = make_packets(2, lifetime=DAY)
    later = make_packets(1, first=10, lifetime=2 * DAY)
    end = int(expiry(SCHEMA, packets)[0])
    put(store, np.concatenate([packets, later]))
    before = store.digests([HOME], now=end - 1)
    assert len(answered(store, now=end - 1)) == 3
    assert answered(store, now=end) == set(identities(later))
    assert store.digests([HOME], now=end) != before
    assert store.entries(HOME, now=end).identities == tuple(identities(later))
    assert put(store, packets, now=end) == [Kept.EXPIRED] * 2
    assert store.sweep(end + GRACE_SECONDS - 1) == 0
    assert store.sweep(end + GRACE_SECONDS) == 2
    assert store.count(HOME) == 1
    assert store.sweep(end + DAY + GRACE_SECONDS) == 1
    assert store.addresses() == []


def crowd(counts: dict[int, int]) -> PacketArray:
    """So many packets of each author, in one cell."""
    return np.concatenate([make_packets(n, author=a, cell=2) for a, n in counts.items()])


def by_author(packets: PacketArray) -> dict[int, int]:
    keys = {identity(a).public_key: a for a in range(8)}
    found: dict[int, int] = {}
    for key in packets["author"]:
        found[keys[bytes(key)]] = found.get(keys[bytes(key)], 0) + 1
    return found


def test_a_capped_answer_gives_authors_turns(store: PacketStore) -> None:
    put(store, crowd({0: 200, 1: 30, 2: 4}))
    answer = store.fetch([HOME], now=NOW, cap=64)[0]
    assert by_author(answer.packets) == {0: 30, 1: 30, 2: 4}
    assert answer.left_out == 234 - 64
    again = store.fetch([HOME], now=NOW, cap=64)[0]
    assert again.packets.tobytes() == answer.packets.tobytes()


def test_a_capped_answer_gives_organisations_turns() -> None:
    one_org = {identity(a).public_key: b"\x01" * 32 for a in (0, 1, 2)}
    with PacketStore(organisation_of=one_org) as store:
        put(store, crowd({0: 50, 1: 50, 2: 50, 3: 100}))
        assert by_author(store.fetch([HOME], now=NOW, cap=60)[0].packets) == {0: 10, 1: 10, 2: 10, 3: 30}


def test_a_full_cell_keeps_the_same_sample_in_any_order() -> None:
    limit = 100
    packets = crowd({0: 400, 1: 150, 2: 20})
    rng = np.random.default_rng(5)
    digests, samples = set(), set()
    for batch in (570, 64, 7):
        with PacketStore(cell_limit=limit) as store:
            order = rng.permutation(len(packets))
            for at in range(0, len(order), batch):
                kept = put(store, packets[order[at : at + batch]])
                assert set(kept) <= {Kept.STORED, Kept.LEFT_OUT}
            assert store.pages() == {} or sum(store.pages().values()) < 4 * (limit + CUT_SLACK) * 700
            digests.update(store.digests([HOME], now=NOW))
            answer = store.fetch([HOME], now=NOW, cap=10_000)[0]
            samples.add(frozenset(identities(answer.packets)))
            assert by_author(answer.packets) == {0: 40, 1: 40, 2: 20}
            assert store.count(HOME) == limit
            entries = store.entries(HOME, now=NOW)
            assert set(entries.identities) == set(identities(answer.packets))
            small = store.fetch([HOME], now=NOW, cap=10)[0]
            assert small.left_out == limit - 10
    assert len(digests) == len(samples) == 1


def test_withdrawals_of_nothing_cannot_fill_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outroute.store.packets.MARK_LIMIT", 50)
    monkeypatch.setattr("outroute.store.cells.MARK_LIMIT", 50)
    flood = withdraw(make_packets(400, author=6, cell=2), identity(6))
    honest = withdraw(make_packets(10, author=1, cell=2), identity(1))
    with PacketStore() as store:
        put(store, honest)
        put(store, flood)
        kept = set(store.entries(HOME, now=NOW).identities)
        assert len(kept) == 50
        assert set(identities(honest)) <= kept


def test_read_gives_withdrawals_first(store: PacketStore) -> None:
    packets = make_packets(6, cell=2)
    put(store, packets[:4])
    notes = withdraw(packets[4:], identity(0))
    put(store, notes)
    wanted = identities(packets[:2]) + identities(notes)
    found = store.read(HOME, wanted, now=NOW)
    assert identities(found)[:2] == sorted(identities(notes), key=identities(found).index)
    assert set(identities(found)) == set(wanted)
    assert len(store.read(HOME, [b"\0" * 32], now=NOW)) == 0


def test_digests_follow_every_change(store: PacketStore) -> None:
    packets = make_packets(3, cell=2)
    seen = [store.digests([HOME], now=NOW)[0]]
    put(store, packets[:2])
    seen += store.digests([HOME], now=NOW)
    put(store, packets[2:])
    seen += store.digests([HOME], now=NOW)
    put(store, withdraw(packets[2:], identity(0)))
    seen += store.digests([HOME], now=NOW)
    assert len(set(seen)) == 4
    assert store.drop({HOME: seen[-2]}, now=NOW) == 0  # something came since
    assert store.digests([HOME], now=NOW) == seen[-1:]
    assert store.drop({HOME: seen[-1]}, now=NOW) == 1
    assert store.digests([HOME], now=NOW) == [EMPTY_DIGEST]


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    packets = make_packets(200)
    with PacketStore(tmp_path / "a" / "b") as store:
        put(store, packets)
        put(store, withdraw(packets[:20], identity(0)))
        before = store.digests([HOME], now=NOW)
    with PacketStore(tmp_path / "a" / "b") as store:
        assert store.digests([HOME], now=NOW) == before
        assert answered(store) == set(identities(packets[20:]))
        assert put(store, make_packets(5, first=1000)) == [Kept.STORED] * 5
        assert len(answered(store)) == 185


def test_stored_packets_take_little_more_than_their_bytes(store: PacketStore) -> None:
    """At most 1.2 times 512 bytes each, index apart."""
    template = make_packets(1)
    packets = np.tile(template, 5000)
    packets["sequence"] = np.arange(5000)
    for at in range(0, 5000, 128):
        names = [place(i % 200) for i in range(at, min(5000, at + 128))]
        store.put(names, packets[at : at + 128], bucket_seconds=BUCKET_SECONDS, now=NOW)
    pages = store.pages()
    if not pages:
        pytest.skip("this build of the engine has no dbstat table to measure pages with")
    assert pages["packets"] <= 1.2 * 512 * 5000


def test_misuse_says_what_to_do(store: PacketStore) -> None:
    with pytest.raises(StoreError, match="32 bytes") as raised:
        store.put(b"short", make_packets(1), bucket_seconds=BUCKET_SECONDS, now=NOW)
    assert raised.value.code == "store.address"
    with pytest.raises(StoreError, match="PACKET_DTYPE"):
        store.put(HOME, np.zeros(3, dtype=np.uint8), bucket_seconds=BUCKET_SECONDS, now=NOW)  # type: ignore[arg-type]
    store.close()
    with pytest.raises(StoreError, match="open it again"):
        put(store, make_packets(1))


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    named=st.sets(st.integers(0, 5)),
    cap=st.integers(0, 20),
    skip=st.integers(0, 4),
    over=st.booleans(),
)
def test_what_is_wanted_is_what_everybody_would_get_of_it(
    counts: list[int], named: set[int], cap: int, skip: int, over: bool
) -> None:
    """Only of those named, after what the asker has, by the same rank; and summaries speak of just that."""
    parts = {author: make_packets(count, author=author) for author, count in enumerate(counts) if count}
    key = {author: int.from_bytes(identity(author).public_key[:8], "little") for author in range(6)}
    wanted = [Wanted(key[author], skip) for author in named]
    with PacketStore(cell_limit=20 if over else 4096) as store:
        for packets in parts.values():
            put(store, packets)
        everything = store.fetch([HOME], now=NOW, cap=4096)[0].packets
        found = store.fetch([HOME], now=NOW, cap=cap, wanted=wanted)[0]
        one = store.summaries([HOME], now=NOW, cap=cap, wanted=wanted)[0]
        entries = store.entries(HOME, now=NOW, wanted=wanted).identities
        if not wanted:
            assert len(found.packets) == min(cap, len(everything))
            assert set(entries) == set(identities(everything))
            return
        here = set(identities(everything))
        of = {
            author: [i for i in identities(packets[np.argsort(slot_ranks(packets))]) if i in here]
            for author, packets in parts.items()
        }
        allowed = {i for author in named & set(of) for i in of[author][skip:]}
        assert set(entries) == {i for author in named & set(of) for i in of[author]}
        shown = identities(found.packets)
        assert set(shown) <= allowed
        assert len(shown) == len(set(shown)) == min(cap, len(allowed))
        assert found.left_out == len(allowed) - len(shown)
        assert one.digest == summary(shown, one.rest).digest
        for author in named & set(of):  # an author's are taken by rank
            count = len(set(of[author]) & set(shown))
            assert set(of[author][skip : skip + count]) <= set(shown)
