"""Who fell silent is remembered: two parts of a network that take each other for dead meet again."""

from __future__ import annotations

import numpy as np

from outroute.placement.roster import FAILURES_GONE, SILENT_MOST, SILENT_SECONDS, Roster
from placement.test_roster import NOW, Word, living, name, roster, word


def silent(of: Roster[Word], now: int = NOW) -> list[bytes]:
    return [one.member.id for one in of.silent(now)]


def test_who_falls_silent_is_remembered_for_a_day() -> None:
    some = roster(word(0), word(1), word(2, NOW + 90), word(3))
    assert silent(some) == []
    for _ in range(FAILURES_GONE):
        some.failed(name(1))
    assert silent(some) == [name(1)]  # its announcement is still in force
    some.hear(word(3, NOW + 70, here=False), NOW)
    some.sweep(NOW + 80)
    assert silent(some, NOW + 80) == [name(1)]  # 3 said farewell, 0 is this member itself
    assert living(some, NOW + 80) == {name(2)}
    some.sweep(NOW + 90)
    assert silent(some, NOW + 90) == [name(1), name(2)]
    assert some.hear(word(1, NOW + 200), NOW + 90)
    assert silent(some, NOW + 90) == [name(2)]
    assert silent(some, NOW + 90 + SILENT_SECONDS) == []
    some.sweep(NOW + 60 + SILENT_SECONDS)
    assert silent(some, NOW + 60 + SILENT_SECONDS) == [name(2), name(1)]


def test_a_late_answer_ends_the_silence() -> None:
    some = roster(word(1))
    for _ in range(FAILURES_GONE):
        some.failed(name(1))
    some.answered(name(1))
    assert silent(some) == []


def test_the_latest_are_remembered() -> None:
    some = roster(most=10 * SILENT_MOST)
    for number in range(SILENT_MOST + 50):
        some.hear(word(number + 1, NOW + 1 + number), NOW)
    for second in range(SILENT_MOST + 60):
        some.sweep(NOW + second)
    assert silent(some, NOW + SILENT_MOST + 60) == [name(number + 1) for number in range(50, SILENT_MOST + 50)]


def test_halves_that_forgot_each_other_are_one_after_a_single_call() -> None:
    """Twelve members, cut in two until all of the other half have expired; then one of them calls a silent one."""
    count, half = 12, 6
    rosters = [roster(*(word(number) for number in range(count)), me=me) for me in range(count)]
    now = NOW + 60
    for me, some in enumerate(rosters):
        mine = range(half) if me < half else range(half, count)
        for number in mine:
            some.hear(word(number, now + 60), now)
        some.sweep(now)
        assert living(some, now) == {name(number) for number in mine}
        assert set(silent(some, now)) == {name(number) for number in range(count) if number not in mine}

    def exchange(one: int, other: int) -> None:
        for here, there in ((one, other), (other, one)):
            news = rosters[here].news(name(there), now)
            for announcement in news:
                rosters[there].hear(announcement, now)
            rosters[here].told(name(there), news)

    exchange(0, next(n for n in range(count) if name(n) == silent(rosters[0], now)[0]))
    rng = np.random.default_rng(5)
    for _ in range(20):
        for me in range(count):
            for partner in rosters[me].partners(now, rng, 2):
                exchange(me, next(n for n in range(count) if name(n) == partner))
    everybody = {name(number) for number in range(count)}
    assert all(living(some, now) == everybody and not silent(some, now) for some in rosters)
