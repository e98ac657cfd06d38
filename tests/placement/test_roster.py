"""Who lives: announcements, failures, and how news spreads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.placement import Member
from outroute.placement.roster import (
    FAILURES_GONE,
    NEAR_LEAST,
    SHARD_MEMBERS,
    TOLD_MOST,
    Roster,
    network_size,
    shard,
)

NOW = 1_000_000


@dataclass(frozen=True)
class Word:
    """An announcement as the roster sees it."""

    member: Member
    expires: int = NOW + 60
    keeps: bool = True
    here: bool = True
    endpoint: str = "127.0.0.1:7000"


def name(number: int) -> bytes:
    return hashlib.sha256(b"member %d" % number).digest()


def word(number: int, expires: int = NOW + 60, *, keeps: bool = True, here: bool = True) -> Word:
    return Word(Member(id=name(number), organisation=name(number)), expires, keeps, here)


def roster(*words: Word, me: int = 0, most: int = 1000) -> Roster[Word]:
    made: Roster[Word] = Roster(name(me), most=most)
    for one in words:
        made.hear(one, NOW)
    return made


def living(of: Roster[Word], now: int = NOW) -> set[bytes]:
    return {member.id for member in of.members(now).members}


def test_a_member_lives_until_its_announcement_expires() -> None:
    some = roster(word(1), word(2, NOW + 10), word(3, keeps=False))
    assert living(some) == {name(1), name(2)}
    assert [a.member.id for a in some.live(NOW)] == sorted([name(1), name(2), name(3)])
    assert living(some, NOW + 10) == {name(1)}
    assert some.sweep(NOW + 10) == 1
    assert living(some, NOW + 60) == set()


def test_only_newer_words_count() -> None:
    some = roster(word(1, NOW + 30))
    assert not some.hear(word(1, NOW + 30), NOW)
    assert not some.hear(word(1, NOW + 20), NOW)
    assert not some.hear(word(2, NOW), NOW)
    assert some.hear(word(1, NOW + 31, here=False), NOW)
    assert living(some) == set()
    assert not some.hear(word(1, NOW + 30), NOW)  # an old word does not bring back who left
    assert some.hear(word(1, NOW + 32), NOW)
    assert living(some) == {name(1)}


def test_who_does_not_answer_is_gone_until_it_speaks_again() -> None:
    some = roster(word(1), word(2))
    for _ in range(FAILURES_GONE - 1):
        assert not some.failed(name(1))
        assert living(some) == {name(1), name(2)}
    some.answered(name(1))
    assert [some.failed(name(1)) for _ in range(FAILURES_GONE)] == [False] * (FAILURES_GONE - 1) + [True]
    assert living(some) == {name(2)}
    assert some.doubtful(NOW) == [name(1)]
    assert not some.hear(word(1), NOW)
    assert living(some) == {name(2)}
    assert some.hear(word(1, NOW + 75), NOW)
    assert living(some) == {name(1), name(2)}
    assert some.doubtful(NOW) == []
    assert not some.failed(name(9))


def test_a_late_answer_brings_a_member_back() -> None:
    some = roster(word(1))
    for _ in range(FAILURES_GONE):
        some.failed(name(1))
    assert living(some) == set()
    some.answered(name(1))
    assert living(some) == {name(1)}


def test_nobody_suspects_itself() -> None:
    some = roster(word(0))
    for _ in range(5):
        some.failed(name(0))
    assert living(some) == {name(0)}
    assert some.partners(NOW, np.random.default_rng(0), 3) == []


def test_memory_is_bounded_and_the_nearest_stay() -> None:
    some = roster(most=200)
    for number in range(2_000):
        some.hear(word(number), NOW)
        assert len(some) <= 200
    near = sorted(range(2_000), key=lambda n: int.from_bytes(name(n), "big") ^ int.from_bytes(name(0), "big"))
    assert {name(n) for n in near[:100]} <= living(some)


def test_news_is_told_once_and_in_parts() -> None:
    count = TOLD_MOST + 10
    some = roster(*(word(n) for n in range(1, count + 1)))
    first = some.news(name(1), NOW)
    assert len(first) == TOLD_MOST
    assert word(1) in first  # its own too: somebody else may sign with its key
    assert some.news(name(1), NOW) == first  # not told until it is taken
    some.told(name(1), first)
    rest = some.news(name(1), NOW)
    assert len(rest) == count - TOLD_MOST
    some.told(name(1), rest)
    assert some.news(name(1), NOW) == []
    some.hear(word(5, NOW + 90), NOW)
    assert some.news(name(1), NOW) == [word(5, NOW + 90)]
    assert len(some.news(name(2), NOW)) == TOLD_MOST


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_every_word_reaches_everybody_in_few_rounds(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    all_of_them = [roster(word(n), word(0), me=n) for n in range(count)]  # each knows itself and the first
    numbers = {name(n): n for n in range(count)}
    for n in range(1, count):
        all_of_them[0].hear(word(n), NOW)  # whoever joins calls the first
    rounds = 0
    while any(len(one) < count for one in all_of_them):
        rounds += 1
        assert rounds <= 4 * count.bit_length() + 4
        for mine in all_of_them:
            for partner in mine.partners(NOW, rng, 2):
                other = all_of_them[numbers[partner]]
                told = mine.news(partner, NOW)
                for one in told:
                    other.hear(one, NOW)
                mine.told(partner, told)
    assert all(living(one) == set(numbers) for one in all_of_them)


@pytest.mark.parametrize("size", [2_000, 20_000, 200_000])
def test_the_size_is_estimated_from_the_nearest(size: int) -> None:
    rng = np.random.default_rng(7)
    first = np.sort(rng.integers(0, 2**64, size, dtype=np.uint64))
    found = []
    for me in rng.integers(0, 2**64, 20, dtype=np.uint64):
        near = np.sort(first ^ me)[: 2 * NEAR_LEAST] ^ me
        ids = [int(one).to_bytes(8, "big") + bytes(24) for one in near]
        found.append(network_size(int(me).to_bytes(8, "big") + bytes(24), ids))
    assert 0.7 * size < np.median(found) < 1.4 * size
    assert min(found) > 0.3 * size
    assert max(found) < 3 * size


def test_small_networks_are_counted() -> None:
    assert network_size(name(0), [name(n) for n in range(20)]) == 20
    assert network_size(name(0), []) == 1


@pytest.mark.parametrize("size", [1, 64, 65, 128, 1_000, 10**6])
def test_shards_hold_about_as_many_whatever_the_size(size: int) -> None:
    bits, prefix = shard(name(1), size)
    assert len(prefix) == (bits + 7) // 8
    assert SHARD_MEMBERS / 2 <= size / 2**bits <= SHARD_MEMBERS or bits == 0
    assert bits == 0 or size > SHARD_MEMBERS
    same = [n for n in range(500) if shard(name(n), size) == (bits, prefix)]
    assert all(
        int.from_bytes(name(n), "big") >> (256 - bits) == int.from_bytes(name(1), "big") >> (256 - bits) for n in same
    )
