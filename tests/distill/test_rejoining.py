"""What left before leaves again only among k subjects that are new, whatever was withdrawn, corrected or erased."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.distill import (
    Agreement,
    Distilled,
    Grouping,
    Observations,
    Reason,
    Waiting,
    default_window,
    distil,
    distil_single,
    distil_waiting,
)
from outroute.errors import DataError
from outroute.schema import Distiller, Schema

from .checks import holds
from .conftest import DAY, make_observations, make_schema, worlds


class History:
    """A node's list of what left: which rows are here, which are in a packet in force, which ever left."""

    def __init__(self, final: Observations) -> None:
        n = len(final)
        self.final = final
        self.here = np.zeros(n, dtype=bool)
        self.emitted = np.zeros(n, dtype=bool)
        self.packet = np.full(n, -1)
        self.emissions: list[np.ndarray] = []
        self.new_in: list[int] = []

    def distil(self, schema: Schema, agreement: Agreement, pool: int | None) -> None:
        rows = np.flatnonzero(self.here & (self.packet < 0))
        ready = replace(self.final.take(rows), stale=self.emitted[rows])
        grouping = Grouping(agreement=agreement)
        if pool is None:
            result = distil(schema, ready, grouping=grouping)
        else:
            result = distil_waiting(schema, ready, now=0, grouping=grouping, waiting=Waiting(pool_cohorts=pool))
        holds(schema, ready, result, window=default_window(schema), agreement=agreement)
        before = self.emitted.copy()
        for cohort in result.cohorts:
            members = rows[cohort.members]
            fresh = members[~before[members]]
            self.new_in.append(len(np.unique(self.final.subject[fresh])))
            self.packet[members] = len(self.emissions)
            self.emissions.append(members)
            self.emitted[members] = True

    def withdraw(self, packets: np.ndarray) -> None:
        self.packet[np.isin(self.packet, packets)] = -1

    def erase(self, subject: int) -> None:
        own = self.here & (self.final.subject == subject)
        self.withdraw(np.unique(self.packet[own & (self.packet >= 0)]))
        self.here[own] = False


@settings(max_examples=150, deadline=None)
@given(
    worlds(),
    st.integers(0, 2**32 - 1),
    st.sampled_from(list(Agreement)),
    st.sampled_from([None, 1, 2]),
    st.lists(st.sampled_from(["withdraw", "erase", "all", "nothing"]), min_size=2, max_size=6),
)
def test_no_two_packets_tell_about_fewer_than_k_subjects(
    world: tuple[Schema, Observations], seed: int, agreement: Agreement, pool: int | None, steps: list[str]
) -> None:
    schema, final = world
    rng = np.random.default_rng(seed)
    arrival = rng.integers(0, len(steps), len(final))
    history = History(final)
    gone: set[int] = set()
    for number, step in enumerate(steps):
        history.here |= (arrival == number) & ~np.isin(final.subject, list(gone))
        history.distil(schema, agreement, pool)
        in_force = np.unique(history.packet[history.packet >= 0])
        if step == "withdraw":
            history.withdraw(in_force[rng.random(len(in_force)) < 0.5])
        elif step == "all":
            history.withdraw(in_force)
        elif step == "erase" and len(final):
            gone.add(int(rng.choice(final.subject)))
            history.erase(max(gone))
        history.distil(schema, agreement, pool)
    k = schema.privacy.k
    # The strong form: any sum and difference of packets holds the new rows of the latest packet in it.
    assert all(count >= k for count in history.new_in)
    for a, b in combinations(history.emissions, 2):
        if len(np.intersect1d(a, b)):
            assert len(np.unique(final.subject[np.setxor1d(a, b)])) >= k


def far_and_near(n: int, k: int = 5) -> tuple[Schema, Observations]:
    schema = make_schema(k=k)
    return schema, make_observations(schema, np.random.default_rng(31), n)


def marked(observations: Observations, stale: slice) -> Observations:
    flags = np.zeros(len(observations), dtype=bool)
    flags[stale] = True
    return replace(observations, stale=flags)


ALLOW = Grouping(agreement=Agreement.ALLOW)


def test_what_is_left_of_a_withdrawn_cohort_waits_for_new_ones() -> None:
    schema, observations = far_and_near(40)
    result = distil(schema, marked(observations, slice(0, 40)), grouping=ALLOW)
    assert len(result.cohorts) == 0
    assert result.withheld.counts == {Reason.WAITING_FOR_NEW: 40}
    four_new = distil(schema, marked(observations, slice(0, 36)), grouping=ALLOW)
    assert len(four_new.cohorts) == 0
    assert four_new.withheld.counts == {Reason.WAITING_FOR_NEW: 36, Reason.TOO_FEW_SUBJECTS: 4}
    five_new = distil(schema, marked(observations, slice(0, 35)), grouping=ALLOW)
    assert [c.size for c in five_new.cohorts] == [9], "five that are new, and four that wait have room"
    assert np.array_equal(five_new.cohorts[0].members[-5:], np.arange(35, 40))
    assert five_new.withheld.counts == {Reason.WAITING_FOR_NEW: 31}


def test_they_join_the_nearest_cohort() -> None:
    schema, observations = far_and_near(10, k=3)
    codes = np.repeat(observations.codes[:1], 10, axis=0)
    codes[:, 0] = [0, 100, 200, 60_000, 60_100, 60_200, 30, 60_050, 60_070, 150]
    moved = marked(replace(observations, codes=codes, facet=np.zeros(10, dtype=np.int64)), slice(6, 10))
    found = {frozenset(c.members.tolist()) for c in distil(schema, moved, grouping=ALLOW).cohorts}
    assert {frozenset(c & set(range(6))) for c in found} == {frozenset({0, 1, 2}), frozenset({3, 4, 5})}
    for cohort in found:
        assert len({codes[row, 0] > 30_000 for row in cohort}) == 1
        assert len(cohort) == 5, "2k - 1 at most"


def test_new_rows_are_grouped_as_if_nothing_waited() -> None:
    schema, observations = far_and_near(120)
    both = distil(schema, marked(observations, slice(0, 20)), grouping=ALLOW).cohorts
    alone = distil(schema, observations.take(np.arange(20, 120)), grouping=ALLOW).cohorts
    assert [set(c.members[c.members >= 20] - 20) for c in both] == [set(c.members) for c in alone]


def test_facet_window_and_subject_hold_for_them_too() -> None:
    schema = make_schema(k=3, facet=True, lifetime_days=40)
    observations = make_observations(schema, np.random.default_rng(32), 200, subjects=60, days=40)
    flagged = marked(observations, slice(0, 100))
    result = distil(schema, flagged, grouping=ALLOW)
    holds(schema, flagged, result, window=default_window(schema), agreement=Agreement.ALLOW)
    assert (result.cohorts.rows < 100).sum() > 10


def test_order_of_rows_does_not_matter() -> None:
    schema, observations = far_and_near(150)
    flagged = marked(observations, slice(0, 60))
    shuffle = np.random.default_rng(33).permutation(150)
    first = {frozenset(c.members.tolist()) for c in distil(schema, flagged).cohorts}
    second = {frozenset(shuffle[c.members].tolist()) for c in distil(schema, flagged.take(shuffle)).cohorts}
    assert first == second


def test_a_pool_counts_new_rows_only() -> None:
    schema, observations = far_and_near(50)

    def waiting(stale: int, now: int = 0) -> Distilled:
        flagged = marked(observations, slice(0, stale))
        return distil_waiting(schema, flagged, now=now, grouping=ALLOW, waiting=Waiting(pool_cohorts=4))

    assert waiting(31).withheld.counts == {Reason.WAITING_FOR_NEW: 31, Reason.WAITING: 19}
    grown = waiting(30)
    assert [int((c.members >= 30).sum()) for c in grown.cohorts] == [5]
    assert [c.size for c in grown.cohorts] == [9]
    late = waiting(40, now=200_000 * DAY)
    assert sorted(int((c.members >= 40).sum()) for c in late.cohorts) == [5, 5]


@pytest.mark.parametrize("kind", ["single", "batch"])
def test_where_nobody_is_hidden_they_leave_again_alone(kind: str) -> None:
    schema = make_schema(k=1, distiller=Distiller.SINGLE)
    observations = make_observations(schema, np.random.default_rng(34), 20)
    flagged = marked(observations, slice(0, 12))
    result = distil_single(schema, flagged) if kind == "single" else distil(schema, flagged)
    assert (result.cohorts.size == 1).all()
    assert len(result.cohorts) == 20
    assert len(distil(schema, marked(observations, slice(0, 18)), k=3).cohorts) == 0, "cohorts were asked for"


def test_flags_are_one_a_row() -> None:
    _, observations = far_and_near(6)
    assert not observations.stale.any()
    with pytest.raises(DataError, match="stale must be bool"):
        replace(observations, stale=np.zeros(5, dtype=bool))
    with pytest.raises(DataError, match="stale must be bool"):
        replace(observations, stale=np.zeros(6, dtype=np.int64))
