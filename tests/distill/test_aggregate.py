"""Members -> contents of a packet: exact integers, shares that sum up, outcomes of all kinds."""

from __future__ import annotations

import numpy as np
import pytest

from outroute.distill import Observations
from outroute.distill.aggregate import aggregate, agreeing
from outroute.schema import MISSING, SCALE, OutcomeKind

from .conftest import DAY, make_schema


def observations_of(codes: list[list[int]], outcome: list[float], **more: list[int]) -> Observations:
    n = len(codes)
    return Observations(
        codes=np.array(codes, dtype=np.uint16).reshape(n, 7),
        outcome=np.array(outcome, dtype=np.float64),
        subject=np.array(more.get("subject", range(n)), dtype=np.int64),
        bucket=np.array(more.get("bucket", [0] * n), dtype=np.int64),
        facet=np.array(more.get("facet", [0] * n), dtype=np.int64),
    )


U, V, W, P, Q = [SCALE, 0, 0], [0, SCALE, 0], [0, 0, SCALE], [SCALE, 0], [0, SCALE]
GONE3, GONE2 = [MISSING] * 3, [MISSING] * 2


def test_by_hand() -> None:
    observations = observations_of(
        [
            [10, MISSING, *U, *P],
            [11, MISSING, *V, *GONE2],
            [MISSING, MISSING, *W, *P],
            [500, 7, *GONE3, *Q],
        ],
        [1, 0, 1, 1],
        bucket=[3 * DAY, DAY, 2 * DAY, 9 * DAY],
        subject=[4, 5, 5, 9],
        facet=[2, 2, 2, 2],
    )
    cohorts = aggregate(make_schema(), observations, np.array([0, 0, 0, -1]))
    assert len(cohorts) == 1
    only = cohorts[0]
    # (10 + 11) / 2 rounds up; three thirds of 65534 are 21844.67 each: the two odd units go to the first categories.
    assert only.codes.tolist() == [11, MISSING, 21845, 21845, 21844, SCALE, 0]
    assert only.counts is not None
    assert only.counts.tolist() == [1, 2]
    assert (only.size, only.subjects, only.bucket, only.facet) == (3, 2, 3 * DAY, 2)
    assert np.isnan(only.mean)
    assert np.isnan(only.variance)


def test_shares_of_shares() -> None:
    """Observations may hold shares themselves (an aggregate of an aggregate keeps the sum)."""
    observations = observations_of(
        [[0, 0, 1, 2, SCALE - 3, *P], [0, 0, 2, 2, SCALE - 4, *P], [SCALE, 1, SCALE, 0, 0, *Q]], [0, 0, 0]
    )
    codes = aggregate(make_schema(), observations, np.zeros(3, dtype=np.int64)).codes[0]
    assert codes[2:5].sum() == SCALE
    assert codes[5:7].tolist() == [43689, 21845]
    assert codes[0] == 21845


def test_numeric_outcome() -> None:
    schema = make_schema(kind=OutcomeKind.NUMERIC)
    rows = [[0, 0, *U, *P]] * 5
    cohorts = aggregate(schema, observations_of(rows, [1.0, 2.0, 6.0, 0.1, 0.1]), np.array([0, 0, 0, 1, 1]))
    assert cohorts.counts is None
    assert cohorts.mean.tolist() == [3.0, 0.1]
    assert cohorts.variance == pytest.approx([14 / 3, 0.0])
    assert agreeing(cohorts, observations_of(rows, [1.0, 2.0, 6.0, 0.1, 0.1])).tolist() == [False, True]


def test_nothing() -> None:
    for kind in OutcomeKind:
        schema = make_schema(kind=kind)
        empty = aggregate(schema, observations_of([], []), np.zeros(0, dtype=np.int64))
        assert len(empty) == 0
        assert list(empty) == []
        assert empty.codes.shape == (0, schema.width)
        assert len(agreeing(empty, observations_of([], []))) == 0
        left = aggregate(schema, observations_of([[0, 0, *U, *P]], [0]), np.array([-1]))
        assert len(left) == 0
