"""Four real hospitals: cohorts stay useful, differ from chance, and agree on what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from outroute.distill import Agreement, Grouping, Observations, Waiting, distil
from outroute.distill.measure import METHODS, arrivals, compare, grouping_loss
from outroute.errors import PrivacyError
from outroute.schema import MISSING, codes_problem

from .conftest import heart_schema


@pytest.mark.parametrize("k", [5, 10, 20])
@pytest.mark.parametrize("agreement", list(Agreement))
def test_every_hospital(heart: dict[str, Observations], k: int, agreement: Agreement) -> None:
    schema = heart_schema()
    for observations in heart.values():
        result = distil(schema, observations, k=k, grouping=Grouping(agreement=agreement))
        assert len(result.withheld) == 0
        assert result.cohorts.subjects.min() >= k
        assert result.cohorts.counts is not None
        assert result.cohorts.counts.sum() == len(observations)
        assert not codes_problem(schema, result.cohorts.codes).any()
        assert result.agreeing == 0 or agreement is Agreement.ALLOW
        assert result.agreeing > 0 or agreement is Agreement.MERGE or k == 20


def test_cholesterol_that_nobody_measured_stays_missing(heart: dict[str, Observations]) -> None:
    schema = heart_schema()
    codes = distil(schema, heart["switzerland"]).cohorts.codes
    assert (codes[:, schema.slots["chol"]] == MISSING).all()


def test_near_cases_meet(heart: dict[str, Observations]) -> None:
    """Loss grows with k and stays well below that of groups drawn by lot."""
    schema = heart_schema()
    figures = compare(
        schema,
        heart,
        ks=(5, 20),
        rng=np.random.default_rng(1),
        methods=("batch", "batch, merged", "streaming", "at random"),
        repeats=2,
        share=0.7,
    )
    loss = {(f.method, f.k): f.loss for f in figures}
    assert loss["batch", 5] < loss["batch", 20] < loss["at random", 20]
    assert loss["batch", 5] < loss["batch, merged", 5] < 0.8 * loss["at random", 5]
    assert loss["batch", 5] < 0.6 * loss["at random", 5]
    assert loss["streaming", 5] < loss["at random", 5]


def test_streaming_a_hospital_one_patient_at_a_time(heart: dict[str, Observations]) -> None:
    schema = heart_schema()
    observations = heart["hungarian"]
    order = np.random.default_rng(2).permutation(len(observations))
    cohorts = arrivals(schema, observations, order, 5, waiting=Waiting(pool_cohorts=4))
    assert cohorts.subjects.min() >= 5
    assert len(np.unique(cohorts.rows)) == len(cohorts.rows) > 0.9 * len(observations)
    assert 0 < grouping_loss(schema, observations, cohorts) < 1


def test_every_way_of_grouping_can_be_compared(heart: dict[str, Observations]) -> None:
    ticks = iter(range(10_000))
    figures = compare(
        heart_schema(),
        {"va": heart["va"], "switzerland": heart["switzerland"]},
        ks=(10,),
        rng=np.random.default_rng(3),
        scorer=lambda cohorts, site: float(sum(c.size.sum() for c in cohorts)) / len(site),
        clock=lambda: float(next(ticks)),
    )
    assert [f.method for f in figures] == list(METHODS)
    for figure in figures:
        assert figure.k == 10
        assert 0 < figure.loss < 1
        assert 0 <= figure.withheld < 1
        assert figure.seconds == 0.5
        assert np.isfinite(figure.score)
    assert {f.method: f.agreeing for f in figures}["batch, merged"] == 0
    with pytest.raises(PrivacyError):
        compare(heart_schema(), heart, ks=(3,), rng=np.random.default_rng(4), methods=("batch",))
