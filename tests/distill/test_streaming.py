"""Streaming: any split of arrivals, restarts, patience; never regrouped, never below k."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.distill import (
    Agreement,
    Grouping,
    Observations,
    Reason,
    Waiting,
    default_window,
    distil,
    distil_waiting,
)
from outroute.errors import DataError, PrivacyError
from outroute.schema import Schema

from .checks import holds
from .conftest import DAY, make_observations, make_schema, worlds


@settings(max_examples=100, deadline=None)
@given(
    worlds(),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3, 40]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from(list(Agreement)),
)
def test_any_split_of_arrivals(
    world: tuple[Schema, Observations], seed: int, batches: int, pool: int, agreement: Agreement
) -> None:
    """Rows arrive in any order, in any number of batches; outcomes may come late; only what has not left is given."""
    schema, final = world
    rng = np.random.default_rng(seed)
    grouping = Grouping(agreement=agreement)
    waiting = Waiting(pool_cohorts=pool)
    window = default_window(schema)
    arrival = rng.integers(0, batches, len(final))
    learnt = arrival + rng.integers(0, 2, len(final))
    left = np.zeros(len(final), dtype=bool)
    for step in range(batches + 1):
        here = np.flatnonzero((arrival <= step) & ~left)
        outcome = np.where(learnt <= step, final.outcome, np.nan)[here]
        given_now = final.take(here)
        given_now = Observations(
            codes=given_now.codes,
            outcome=outcome,
            subject=given_now.subject,
            bucket=given_now.bucket,
            facet=given_now.facet,
        )
        result = distil_waiting(schema, given_now, now=0, grouping=grouping, waiting=waiting)
        holds(schema, given_now, result, window=window, agreement=agreement)
        gone = here[result.cohorts.rows]
        assert not left[gone].any()
        left[gone] = True


def arrive(schema: Schema, observations: Observations, pool: int, *, restart: bool) -> list[tuple[int, ...]]:
    """One row at a time; with ``restart`` every call is from scratch but for the list of what left."""
    left: list[int] = []
    out = []
    for n in range(1, len(observations) + 1):
        here = np.setdiff1d(np.arange(n), left)
        if restart:
            here = here[::-1]
        result = distil_waiting(schema, observations.take(here), now=0, waiting=Waiting(pool_cohorts=pool)).cohorts
        for cohort in result:
            rows = np.sort(here[cohort.members])
            out.append(tuple(rows.tolist()))
            left += rows.tolist()
    return out


def test_no_state_but_what_left() -> None:
    schema = make_schema(k=3)
    observations = make_observations(schema, np.random.default_rng(1), 80)
    assert arrive(schema, observations, 4, restart=False) == arrive(schema, observations, 4, restart=True)


def test_a_pool_waits_until_it_has_grown_then_lets_its_tightest_go() -> None:
    schema = make_schema(k=3)
    observations = make_observations(schema, np.random.default_rng(2), 24)
    allow, eight = Grouping(agreement=Agreement.ALLOW), Waiting(pool_cohorts=8)
    small = distil_waiting(schema, observations.take(np.arange(23)), now=0, grouping=allow, waiting=eight)
    assert small.withheld.counts == {Reason.WAITING: 23}
    full = distil_waiting(schema, observations, now=0, grouping=allow, waiting=eight)
    assert len(full.cohorts) == 1
    assert full.withheld.counts == {Reason.WAITING: 21}

    def loss(rows: np.ndarray) -> float:
        from outroute.distill.space import embed

        x = embed(schema, observations.codes)[rows]
        return float(((x - x.mean(axis=0)) ** 2).sum() / len(rows))

    everything = distil(schema, observations, grouping=allow).cohorts
    assert loss(full.cohorts[0].members) <= np.mean([loss(c.members) for c in everything])


def test_patience_ends() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(3), 12)
    policy = Waiting(patience_seconds=3 * DAY)
    assert distil_waiting(schema, observations, now=3 * DAY, waiting=policy).withheld.counts == {Reason.WAITING: 12}
    late = distil_waiting(schema, observations, now=3 * DAY + 1, waiting=policy)
    assert late.cohorts.size.sum() == 12
    few = distil_waiting(schema, observations.take(np.arange(4)), now=10**12, waiting=policy)
    assert few.withheld.counts == {Reason.TOO_FEW_SUBJECTS: 4}


def test_a_facet_waits_for_itself() -> None:
    schema = make_schema(k=3, facet=True)
    observations = make_observations(schema, np.random.default_rng(4), 60)
    order = np.argsort(observations.facet, kind="stable")
    sizes = np.unique(observations.facet, return_counts=True)[1]
    assert (sizes >= 24).all()
    lopsided = observations.take(order[: sizes[0] + 5])
    result = distil_waiting(schema, lopsided, now=0)
    assert set(result.cohorts.facet.tolist()) == {int(observations.facet.min())}
    kept = lopsided.take(result.withheld.rows)
    assert (kept.facet == observations.facet.max()).sum() == 5


def test_agreeing_cohorts_wait_under_merge() -> None:
    schema = make_schema(k=3)
    observations = make_observations(schema, np.random.default_rng(5), 40)
    same = Observations(
        codes=observations.codes,
        outcome=np.zeros(40),
        subject=observations.subject,
        bucket=observations.bucket,
        facet=observations.facet,
    )
    merging = Grouping(agreement=Agreement.MERGE)
    allow = Grouping(agreement=Agreement.ALLOW)
    assert len(distil_waiting(schema, same, now=0, grouping=allow).cohorts) > 0
    assert distil_waiting(schema, same, now=0, grouping=merging).withheld.counts == {Reason.WAITING: 40}


def test_misuse() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(6), 50)
    with pytest.raises(PrivacyError, match="below the floor"):
        distil_waiting(schema, observations, now=0, k=3)
    with pytest.raises(DataError, match="pool_cohorts"):
        Waiting(pool_cohorts=0)
