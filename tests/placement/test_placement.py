"""Who owns an address, and what stays in a full cell."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import OutrouteError
from outroute.placement import (
    EMPTY_DIGEST,
    NOTHING,
    Member,
    Members,
    keyed_rank,
    majority,
    missing,
    sample,
    set_digest,
    summary,
    turn_order,
    vouched,
)


def point(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def member(number: int, organisation: int) -> Member:
    return Member(id=point(number), organisation=organisation.to_bytes(32, "big"))


def slow_owners(members: list[Member], address: bytes, replicas: int) -> list[bytes]:
    """The definition, written down again without any cleverness."""
    near = sorted(members, key=lambda m: int.from_bytes(m.id, "big") ^ int.from_bytes(address, "big"))
    taken: list[Member] = []
    for one in near:
        if len(taken) < replicas and one.organisation not in {m.organisation for m in taken}:
            taken.append(one)
    for one in near:
        if len(taken) < min(replicas, len(near)) and one not in taken:
            taken.append(one)
    return [m.id for m in near if m in taken]


networks = st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True).flatmap(
    lambda numbers: st.tuples(
        st.just(numbers), st.lists(st.integers(0, 6), min_size=len(numbers), max_size=len(numbers))
    )
)


def owner_ids(members: list[Member], address: bytes, replicas: int = 3) -> list[bytes]:
    view = Members(members)
    return [view.members[i].id for i in view.owners([address], replicas)[0]]


@given(networks, st.integers(0, 50), st.integers(1, 5))
def test_owners_are_what_the_definition_says(network: tuple[list[int], list[int]], at: int, replicas: int) -> None:
    members = [member(n, o) for n, o in zip(*network, strict=True)]
    assert owner_ids(members, point(1000 + at), replicas) == slow_owners(members, point(1000 + at), replicas)


@given(networks, st.integers(0, 50))
def test_a_member_that_leaves_moves_only_its_own_cells(network: tuple[list[int], list[int]], at: int) -> None:
    members = [member(n, o) for n, o in zip(*network, strict=True)]
    before = owner_ids(members, point(at))
    for gone in members:
        after = owner_ids([m for m in members if m is not gone], point(at))
        if gone.id not in before:
            assert after == before
        else:
            assert set(before) - {gone.id} <= set(after)


@given(networks, st.integers(0, 50), st.integers(0, 6))
def test_a_member_that_joins_takes_one_place_at_most(
    network: tuple[list[int], list[int]], at: int, organisation: int
) -> None:
    members = [member(n, o) for n, o in zip(*network, strict=True)]
    before = owner_ids(members, point(at))
    new = member(9999, organisation)
    assert set(owner_ids([*members, new], point(at))) <= {*before, new.id}


def test_a_large_network_agrees_with_the_definition() -> None:
    members = [member(n, n % 97) for n in range(3000)]
    view = Members(members)
    addresses = [point(10_000 + n) for n in range(40)]
    found = view.owners(addresses)
    assert found.shape == (40, 3)
    for address, row in zip(addresses, found, strict=True):
        assert [view.members[i].id for i in row] == slow_owners(members, address, 3)


def test_many_members_of_one_organisation_get_one_copy() -> None:
    """Sixteen keys ground next to an address belong to one organisation: they take one place of three."""
    address = point(1)
    close = [Member(id=address[:-1] + bytes([address[-1] ^ n]), organisation=b"\xee" * 32) for n in range(1, 17)]
    honest = [member(n, n) for n in range(100, 110)]
    owners = owner_ids(close + honest, address)
    assert sum(owner in {m.id for m in close} for owner in owners) == 1


def test_ids_that_tie_in_their_leading_bytes_are_told_apart() -> None:
    address = point(1)
    near = [Member(id=address[:-1] + bytes([address[-1] ^ n]), organisation=bytes([n]) * 32) for n in range(1, 60)]
    far = [member(n, n) for n in range(200, 240)]
    assert owner_ids(far + near[::-1], address) == [m.id for m in near[:3]]


def test_owners_are_remembered_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outroute.placement.owners._OWNERS_REMEMBERED", 10)
    view = Members([member(n, n) for n in range(20)])
    for start in (0, 4, 2, 0):
        addresses = [point(n) for n in (*range(start, start + 8), start)]
        for replicas in (3, 2):
            rows = view.owners(addresses, replicas).tolist()
            expected = [tuple(view.members[i].id for i in row) for row in rows]
            assert view.owner_ids(addresses, replicas) == expected


def test_no_members_no_owners() -> None:
    assert Members([]).owners([point(1)]).shape == (1, 0)


def test_misuse_says_what_to_do() -> None:
    with pytest.raises(OutrouteError, match="32 bytes"):
        Member(id=b"short", organisation=b"")
    with pytest.raises(OutrouteError, match="newest announcement"):
        Members([member(1, 1), member(1, 1)])
    with pytest.raises(OutrouteError, match="at least one"):
        Members([member(1, 1)]).owners([point(1)], 0)
    with pytest.raises(OutrouteError, match="32 bytes"):
        Members([member(1, 1)]).owners([b"short"])
    with pytest.raises(OutrouteError, match="uint8"):
        Members([member(1, 1)]).owners(np.zeros((2, 31), dtype=np.uint8))


def test_majority() -> None:
    assert [majority(r) for r in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]


# A packet of a sample: rank, author, organisation (an author always has the same one).
crowds = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 12)), max_size=80, unique_by=lambda pair: pair[0])


@given(st.integers(0, 8), st.integers(0, 30))
def test_who_makes_keys_buys_no_place_beside_enough_certified_members(certified: int, strangers: int) -> None:
    good = [member(number, 1 + number % 4) for number in range(certified)]
    made = [Member(id=point(1000 + number), organisation=point(1000 + number)) for number in range(strangers)]
    found = vouched(Members([*good, *made]), 3)
    assert found.members == Members(good if certified >= 3 else [*good, *made]).members


def columns(crowd: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rank = np.array([r for r, _ in crowd], dtype=np.uint64)
    author = np.array([a for _, a in crowd], dtype=np.uint64)
    return rank, author, author // np.uint64(4)


def kept(crowd: list[tuple[int, int]], limit: int) -> set[tuple[int, int]]:
    mask = sample(*columns(crowd), limit)
    return {packet for packet, stays in zip(crowd, mask.tolist(), strict=True) if stays}


@settings(max_examples=300)
@given(crowds, st.integers(0, 40), st.randoms(use_true_random=False), st.integers(1, 5))
def test_a_sample_does_not_depend_on_the_order_of_arrival(
    crowd: list[tuple[int, int]], limit: int, shuffle: object, batches: int
) -> None:
    at_once = kept(crowd, limit)
    shuffled = list(crowd)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    held: list[tuple[int, int]] = []
    for number in range(batches):
        held = sorted(kept(held + shuffled[number::batches], limit))
    assert set(held) == at_once
    assert len(at_once) == min(limit, len(crowd))


@given(crowds, st.integers(1, 40))
def test_an_organisation_that_sends_more_gets_no_more_than_its_turns(crowd: list[tuple[int, int]], limit: int) -> None:
    stays = kept(crowd, limit)
    counts = {org: sum(a // 4 == org for _, a in stays) for org in range(4)}
    sent = {org: sum(a // 4 == org for _, a in crowd) for org in range(4)}
    for org in counts:
        if counts[org] < sent[org]:  # cut: then nobody else has over one turn more
            assert max(counts.values()) <= counts[org] + 1


def test_turns_go_by_organisation_then_author_then_rank() -> None:
    rank = np.array([5, 1, 2, 9, 3], dtype=np.uint64)
    author = np.array([1, 1, 1, 2, 8], dtype=np.uint64)
    organisation = np.array([0, 0, 0, 0, 7], dtype=np.uint64)
    assert turn_order(rank, author, organisation).tolist() == [1, 4, 3, 2, 0]


def test_ranks_are_the_same_everywhere() -> None:
    """SplitMix64 seeded with 0 starts with these numbers (Steele, Lea and Flood; also in java.util)."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden, 2 * golden % 2**64], dtype=np.uint64)
    assert [hex(v) for v in keyed_rank(states, 0).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_digests_compare_sets() -> None:
    a, b = point(1), point(2)
    assert set_digest([a, b]) == set_digest([b, a]) != set_digest([a])
    assert summary([], NOTHING).digest == EMPTY_DIGEST
    assert summary([a], set_digest([b])).digest != summary([a, b], NOTHING).digest
    assert missing([b, a], [a]) == [b]
