"""What leaves over time: times help an attacker where they should, and nothing is found where nothing is."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from outroute.audit.noisy import most_auc, private
from outroute.audit.sequence import arriving, in_steps, sequence, sequences

from .making import observed, world

SCHEMA = world()


def watched(emit, n: int = 100, *, coins: bool = False):  # type: ignore[no-untyped-def]
    rows, rng = observed(SCHEMA, n, 1), np.random.default_rng(0)
    seen = sequence(SCHEMA, rows, emit, rng, shadows=24, packets=3, coins=coins)
    assert seen is not None
    found = sequences([seen], np.random.default_rng(0))
    assert found is not None
    return found


def test_people_come_in_the_order_of_their_records() -> None:
    rows = replace(observed(SCHEMA, 40, 2, each=2), bucket=np.arange(40)[::-1] * 10)
    steps = in_steps(rows, np.random.default_rng(0), steps=10)
    order = np.argsort(rows.bucket)
    assert (np.diff(steps.bucket[order]) >= 0).all()
    assert len(np.unique(steps.bucket)) == 10
    assert (steps.bucket[0::2] == steps.bucket[1::2]).all()


def test_cohorts_leave_whole_and_only_once() -> None:
    rows = in_steps(observed(SCHEMA, 80, 3), np.random.default_rng(0))
    emission = arriving(5)(SCHEMA, rows, np.random.default_rng(0))
    inside = emission.packet_of >= 0
    assert inside.any()
    sizes = np.bincount(emission.packet_of[inside], minlength=len(emission))
    assert sizes.tolist() == emission.size.tolist()
    assert sizes.min() >= 5
    # Nobody is in a packet that left before.
    assert (emission.bucket[emission.packet_of[inside]] >= rows.bucket[inside]).all()
    assert (np.diff(emission.bucket) >= 0).all()


def test_times_help_against_small_cohorts() -> None:
    found = watched(arriving(3))
    assert found.timed.ratio.auc.low > 0.52
    assert found.naming is not None
    assert found.naming.named > 0.5
    assert found.naming.precision > 0.9
    assert 0.5 < found.left < 1.0


def test_releases_over_time_stay_within_the_bound() -> None:
    found = watched(private(Decimal("0.5"), grid={"age": 3, "ward": 3}, until=(4, 9, 14)), coins=True)
    assert found.timed.ratio.auc.low <= most_auc(0.5)
    assert found.left == 1.0


def test_too_few_subjects() -> None:
    rows = observed(SCHEMA, 7, 5)
    assert sequence(SCHEMA, rows, arriving(3), np.random.default_rng(0), shadows=8, packets=1) is None
    assert sequences([], np.random.default_rng(0)) is None


@pytest.mark.parametrize("k", [2, 5])
def test_the_advised_noise_stands_in_a_sequence_too(k: int) -> None:
    rows = in_steps(observed(SCHEMA, 60, 4), np.random.default_rng(0))
    emission = arriving(k, noise=Decimal("0.1"))(SCHEMA, rows, np.random.default_rng(0))
    assert emission.noise == pytest.approx(0.1)
