"""Batch cohorts: properties over random observations, and the cases that go wrong elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.distill import (
    ROWS_PER_SUBJECT,
    Agreement,
    Cohorts,
    Grouping,
    Observations,
    Reason,
    default_window,
    distil,
    distil_single,
)
from outroute.errors import DataError, PrivacyError
from outroute.schema import MISSING, Distiller, OutcomeKind, Schema

from .checks import holds
from .conftest import DAY, make_observations, make_schema, worlds


def members(cohorts: Cohorts) -> set[tuple[int, ...]]:
    return {tuple(c.members.tolist()) for c in cohorts}


@settings(max_examples=150, deadline=None)
@given(worlds(), st.sampled_from(list(Agreement)), st.sampled_from([0.0, 1.0]), st.sampled_from([8, 1024]))
def test_every_cohort_and_every_row(
    world: tuple[Schema, Observations], agreement: Agreement, pull: float, block: int
) -> None:
    schema, observations = world
    grouping = Grouping(agreement=agreement, outcome_pull=pull, block_rows=block)
    result = distil(schema, observations, grouping=grouping)
    holds(schema, observations, result, window=default_window(schema), agreement=agreement)


@settings(max_examples=80, deadline=None)
@given(worlds(), st.sampled_from(list(Agreement)), st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(world: tuple[Schema, Observations], agreement: Agreement, seed: int) -> None:
    schema, observations = world
    shuffle = np.random.default_rng(seed).permutation(len(observations))
    grouping = Grouping(agreement=agreement)
    first = distil(schema, observations, grouping=grouping).cohorts
    second = distil(schema, observations.take(shuffle), grouping=grouping).cohorts
    for name in ("codes", "size", "subjects", "bucket", "facet", "counts", "mean", "variance"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def test_same_call_same_result_and_seed_only_breaks_ties() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(1), 200)
    first = distil(schema, observations)
    assert first.cohorts == distil(schema, observations).cohorts
    assert members(first.cohorts) == members(distil(schema, observations, grouping=Grouping(seed=9)).cohorts)
    same = make_observations(schema, np.random.default_rng(1), 200, distinct=1)
    assert members(distil(schema, same).cohorts) != members(distil(schema, same, grouping=Grouping(seed=9)).cohorts)


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_outcomes_do_not_decide_what_is_withheld_or_grouped(kind: OutcomeKind) -> None:
    schema = make_schema(k=4, kind=kind)
    rng = np.random.default_rng(2)
    observations = make_observations(schema, rng, 150, subjects=40, distinct=30)
    allow = Grouping(agreement=Agreement.ALLOW)
    first = distil(schema, observations, grouping=allow)
    other = Observations(
        codes=observations.codes,
        outcome=observations.outcome[rng.permutation(150)],
        subject=observations.subject,
        bucket=observations.bucket,
        facet=observations.facet,
    )

    # Rows of one subject with equal conditions are interchangeable but for their outcome; compare who and what.
    def told(o: Observations, rows: np.ndarray) -> list[tuple[int, ...]]:
        return sorted((int(o.subject[r]), *o.codes[r].tolist()) for r in rows)

    second = distil(schema, other, grouping=allow)
    assert told(observations, first.withheld.rows) == told(other, second.withheld.rows)
    assert np.array_equal(first.cohorts.codes, second.cohorts.codes)


def test_fewer_than_k_subjects_stay_home() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(3), 4)
    result = distil(schema, observations)
    assert len(result.cohorts) == 0
    assert result.withheld.counts == {Reason.TOO_FEW_SUBJECTS: 4}
    assert distil(schema, observations.take(np.arange(0))).withheld.counts == {}


def test_many_rows_of_few_subjects_are_no_cohort() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(4), 400, subjects=4)
    result = distil(schema, observations)
    assert len(result.cohorts) == 0
    assert result.withheld.counts == {Reason.TOO_FEW_SUBJECTS: 400}


def test_one_subject_with_most_rows_never_dominates() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(5), 100)
    subject = np.where(np.arange(100) < 96, 0, np.arange(100))
    observations = Observations(
        codes=observations.codes,
        outcome=observations.outcome,
        subject=subject,
        bucket=observations.bucket,
        facet=observations.facet,
    )
    result = distil(schema, observations)
    assert ROWS_PER_SUBJECT == 1
    assert [c.size for c in result.cohorts] == [5]
    assert result.withheld.counts == {Reason.ONE_SUBJECT: 95}


def test_few_subjects_with_separate_conditions_still_meet() -> None:
    """Five subjects, each with 300 near-equal rows far from the others': near groups do not exist, layers do."""
    schema = make_schema(k=5)
    rng = np.random.default_rng(6)
    observations = make_observations(schema, rng, 1500)
    subject = np.repeat(np.arange(5), 300)
    codes = np.repeat(observations.codes[:1], 1500, axis=0)
    codes[:, schema.slots["x"]] = (subject * 13_000 + rng.integers(0, 500, 1500))[:, None]
    observations = Observations(
        codes=codes,
        outcome=observations.outcome,
        subject=subject,
        bucket=observations.bucket,
        facet=observations.facet,
    )
    result = distil(schema, observations, grouping=Grouping(agreement=Agreement.ALLOW, block_rows=100))
    assert len(result.cohorts) > 290
    holds(schema, observations, result, window=default_window(schema), agreement=Agreement.ALLOW)


def test_facets_are_never_mixed_even_when_the_caller_does_not_say() -> None:
    schema = make_schema(k=3, facet=True)
    observations = make_observations(schema, np.random.default_rng(7), 90, missing=0.2)
    blind = Observations(
        codes=observations.codes,
        outcome=observations.outcome,
        subject=observations.subject,
        bucket=observations.bucket,
        facet=np.zeros(90, dtype=np.int64),
    )
    assert members(distil(schema, blind).cohorts) == members(distil(schema, observations).cohorts)


def test_rows_alone_in_their_window_get_a_second_chance() -> None:
    schema = make_schema(k=4, lifetime_days=40)
    assert default_window(schema) == 10 * DAY
    observations = make_observations(schema, np.random.default_rng(8), 4)
    across = Observations(
        codes=observations.codes,
        outcome=observations.outcome,
        subject=observations.subject,
        bucket=np.array([8, 9, 10, 11]) * DAY,
        facet=observations.facet,
    )
    assert len(distil(schema, across).cohorts) == 1
    apart = Observations(
        codes=observations.codes,
        outcome=observations.outcome,
        subject=observations.subject,
        bucket=np.array([0, 9, 10, 21]) * DAY,
        facet=observations.facet,
    )
    assert len(distil(schema, apart).cohorts) == 0


def test_missing_values_keep_together() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(9), 100)
    codes = observations.codes.copy()
    codes[:, schema.slots["x"]] = 30_000
    codes[:50, schema.slots["y"]] = MISSING
    codes[:, 2:] = codes[0, 2:]
    observations = Observations(
        codes=codes,
        outcome=observations.outcome,
        subject=observations.subject,
        bucket=observations.bucket,
        facet=np.zeros(100, dtype=np.int64),
    )
    for cohort in distil(schema, observations).cohorts:
        assert len(np.unique(cohort.members < 50)) == 1


def test_all_values_missing_everywhere() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(10), 23, missing=1.0)
    result = distil(schema, observations)
    assert result.cohorts.size.sum() == 23
    assert (result.cohorts.codes == MISSING).all()


def test_agreement_is_never_told_when_it_must_not_be() -> None:
    schema = make_schema(k=5)
    rng = np.random.default_rng(11)
    observations = make_observations(schema, rng, 300)
    rare = Observations(
        codes=observations.codes,
        outcome=(rng.random(300) < 0.04).astype(np.float64),
        subject=observations.subject,
        bucket=observations.bucket,
        facet=observations.facet,
    )
    merging = Grouping(agreement=Agreement.MERGE)
    allow = Grouping(agreement=Agreement.ALLOW)
    allowed, hidden = distil(schema, rare, grouping=allow), distil(schema, rare, grouping=merging)
    assert allowed.agreeing > 0
    assert hidden.agreeing == 0
    assert len(hidden.withheld) == 0, "majority and minority leave alike"
    same = Observations(
        codes=observations.codes,
        outcome=np.ones(300),
        subject=observations.subject,
        bucket=observations.bucket,
        facet=observations.facet,
    )
    assert distil(schema, same, grouping=merging).withheld.counts == {Reason.AGREES: 300}
    told = distil(schema, same, grouping=allow)
    assert told.agreeing == len(told.cohorts) == 60


def test_many_groups_are_merged_region_by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    from outroute.distill import joining

    schema = make_schema(k=3)
    rng = np.random.default_rng(17)
    observations = make_observations(schema, rng, 900)
    observations = Observations(
        codes=observations.codes,
        outcome=(rng.random(900) < 0.1).astype(np.float64),
        subject=observations.subject,
        bucket=observations.bucket,
        facet=observations.facet,
    )
    whole = distil(schema, observations)
    monkeypatch.setattr(joining, "MAX_PAIRS", 1)
    monkeypatch.setattr(joining, "REGION_GROUPS", 8)
    regions = distil(schema, observations)
    assert members(regions.cohorts) != members(whole.cohorts)
    assert len(regions.cohorts) == len(whole.cohorts)
    holds(schema, observations, regions, window=default_window(schema), agreement=Agreement.MERGE)


def test_agreement_is_hidden_unless_observations_concern_no_person() -> None:
    observations = make_observations(make_schema(), np.random.default_rng(16), 300)
    assert distil(make_schema(k=3), observations).agreeing == 0
    sensors = make_schema(k=1, distiller=Distiller.SINGLE)
    assert distil(sensors, observations, k=3).agreeing > 0


def test_floor() -> None:
    schema = make_schema(k=5)
    observations = make_observations(schema, np.random.default_rng(12), 50)
    with pytest.raises(PrivacyError, match="below the floor") as error:
        distil(schema, observations, k=4)
    assert error.value.code == "privacy.floor"
    assert distil(schema, observations, k=7).cohorts.subjects.min() >= 7
    with pytest.raises(PrivacyError) as error:
        distil_single(schema, observations)
    assert error.value.code == "privacy.single"


def test_single_emits_each_known_observation_as_it_is() -> None:
    schema = make_schema(k=1, distiller=Distiller.SINGLE)
    observations = make_observations(schema, np.random.default_rng(13), 60, subjects=3, unknown=0.3, missing=0.2)
    for result in (distil_single(schema, observations), distil(schema, observations)):
        known = ~np.isnan(observations.outcome)
        assert (result.cohorts.size == 1).all()
        assert len(result.cohorts) == known.sum()
        assert np.array_equal(result.cohorts.codes, observations.codes[result.cohorts.rows])
        assert result.withheld.counts == {Reason.NO_OUTCOME: int((~known).sum())}
    assert np.array_equal(distil_single(schema, observations).cohorts.rows, np.flatnonzero(known))
    assert distil(schema, observations, k=3).cohorts.subjects.min() >= 3


def test_wrong_input_says_what_to_do() -> None:
    schema = make_schema()
    good = make_observations(schema, np.random.default_rng(14), 10)
    with pytest.raises(DataError, match="encode them with this schema"):
        distil(
            schema,
            Observations(
                codes=good.codes[:, 1:],
                outcome=good.outcome,
                subject=good.subject,
                bucket=good.bucket,
                facet=good.facet,
            ),
        )
    for value in (2.0, -1.0, 0.5, np.inf):
        with pytest.raises(DataError, match="encode_outcome"):
            distil(
                schema,
                Observations(
                    codes=good.codes,
                    outcome=np.full(10, value),
                    subject=good.subject,
                    bucket=good.bucket,
                    facet=good.facet,
                ),
            )
    with pytest.raises(DataError, match="one per row"):
        Observations(
            codes=good.codes,
            outcome=good.outcome[1:],
            subject=good.subject,
            bucket=good.bucket,
            facet=good.facet,
        )
    with pytest.raises(DataError, match="uint16"):
        Observations(
            codes=good.codes.astype(float),
            outcome=good.outcome,
            subject=good.subject,
            bucket=good.bucket,
            facet=good.facet,
        )


def test_cohorts_read_like_a_sequence() -> None:
    schema = make_schema(k=3)
    cohorts = distil(schema, make_observations(schema, np.random.default_rng(15), 31)).cohorts
    assert [c.size for c in cohorts[:2]] == [cohorts[0].size, cohorts[1].size]
    assert cohorts[-1].members.tolist() == cohorts[len(cohorts) - 1].members.tolist()
    with pytest.raises(IndexError):
        cohorts[len(cohorts)]
    assert cohorts != "cohorts"
