"""What must hold of every result of distilling, whatever went in."""

from __future__ import annotations

import numpy as np

from outroute.distill import Agreement, Distilled, Observations, Reason
from outroute.schema import MISSING, SCALE, FieldKind, Schema, codes_problem


def holds(schema: Schema, observations: Observations, result: Distilled, *, window: int, agreement: Agreement) -> None:
    cohorts, withheld = result.cohorts, result.withheld
    everything = np.concatenate([cohorts.rows, withheld.rows])
    assert np.array_equal(np.sort(everything), np.arange(len(observations))), "each row once, none lost"
    assert not codes_problem(schema, cohorts.codes).any()
    assert (cohorts.subjects >= result.k).all()
    assert not np.isnan(observations.outcome[cohorts.rows]).any()
    agreeing = 0
    for cohort in cohorts:
        rows = cohort.members
        inside = observations.take(rows)
        assert cohort.size == len(rows) == len(np.unique(inside.subject)) == cohort.subjects
        assert np.array_equal(rows, np.sort(rows))
        assert (inside.facet == cohort.facet).all()
        assert np.ptp(inside.bucket) < window
        assert cohort.bucket == inside.bucket.max()
        agreeing += len(np.unique(inside.outcome)) == 1
        conditions(schema, inside, cohort.codes)
        if schema.outcome.has_classes:
            assert cohort.counts is not None
            wanted = np.bincount(inside.outcome.astype(int), minlength=len(schema.outcome.classes))
            assert cohort.counts.tolist() == wanted.tolist()
            assert np.isnan(cohort.mean)
        else:
            assert cohort.counts is None
            assert inside.outcome.min() <= cohort.mean <= inside.outcome.max()
            assert np.isclose(cohort.mean, inside.outcome.mean(), rtol=0, atol=1e-9)
            assert np.isclose(cohort.variance, inside.outcome.var(), rtol=1e-9, atol=1e-9)
        if agreement is Agreement.ALLOW:
            assert cohort.size < 2 * result.k
    assert result.agreeing == agreeing
    if agreement is Agreement.MERGE:
        assert agreeing == 0
    unknown = np.flatnonzero(np.isnan(observations.outcome))
    assert np.array_equal(withheld.rows[withheld.reasons == Reason.NO_OUTCOME], unknown)
    assert sum(withheld.counts.values()) == len(withheld)


def conditions(schema: Schema, inside: Observations, codes: np.ndarray) -> None:
    """One cohort's conditions against plain Python on its members."""
    for item in schema.fields:
        where = schema.slots[item.name]
        members = inside.codes[:, where].astype(int)
        present = members[members[:, 0] != MISSING]
        here = codes[where].astype(int)
        if not len(present):
            assert (here == MISSING).all()
        elif item.kind is FieldKind.NUMERIC:
            assert abs(here[0] - present.mean()) <= 0.5
        else:
            assert here.sum() == SCALE
            assert np.abs(here - present.mean(axis=0)).max() < 1
