from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute import trial
from outroute.errors import DataError
from outroute.trial.estimators import Boosting, Layout, Linear, Neighbours, base_rate, fit, moments, standard
from outroute.trial.federated import federated
from outroute.trial.metrics import log_loss
from outroute.trial.recalibrate import parameters, recalibration
from outroute.trial.tuning import (
    TUNING_TRIALS,
    boosting_families,
    choose,
    cross_fit,
    linear_family,
    local_families,
    strengths,
)

from .making import first_fold, make, truth


def test_majority_says_each_sites_own_base_rate_and_nothing_else() -> None:
    fold, _ = first_fold(make(shift=2.0))
    answer = trial.majority()(fold)
    for site, rows in fold.train.items():
        said = answer.predictions[site]
        assert np.ptp(said, axis=0).max() == 0
        assert said[0, 1] == pytest.approx((rows.y.sum() + 0.5) / (len(rows) + 1))
        assert answer.out == {}


def test_every_side_has_the_same_budget() -> None:
    layout = Layout.of(make().schema)
    for families in (local_families(layout, 0), boosting_families(0), linear_family(layout)):
        assert sum(len(family.trials) for family in families) == TUNING_TRIALS
    too_many = [*boosting_families(0), Linear(layout=layout, strengths=strengths(1))]
    y, rng = np.array([0.0, 1.0, 0.0, 1.0]), np.random.default_rng(0)
    with pytest.raises(DataError, match="budget"):
        choose(too_many, np.zeros((4, 1)), y, np.arange(4), 2, rng)


@pytest.mark.parametrize("outcome", ["binary", "numeric", "classes"])
def test_fedavg_of_one_site_is_its_local_fit(outcome: str) -> None:
    dataset = make(sizes=(400,), outcome=outcome, missing=0.1)
    prepared = trial.prepare(dataset)
    layout = Layout.of(dataset.schema)
    alone = fit(Linear(layout=layout, strengths=(1.0,)), prepared.x, prepared.y, prepared.classes, [0])[0]
    shared = federated(
        {"only": (prepared.x, prepared.y)},
        layout=layout,
        classes=prepared.classes,
        strength=1.0,
        local_steps=10,
        rounds=300,
    )
    np.testing.assert_allclose(shared.model(prepared.x), alone(prepared.x), atol=0.01)


def test_fedavg_of_alike_sites_is_nearly_the_pooled_fit() -> None:
    dataset = make(sizes=(500, 500, 500, 500), seed=8)
    prepared = trial.prepare(dataset)
    layout = Layout.of(dataset.schema)
    pooled = fit(Linear(layout=layout, strengths=(1.0,)), prepared.x, prepared.y, 2, [0])[0]
    parts = {site: (prepared.x[dataset.site == site], prepared.y[dataset.site == site]) for site in dataset.sites}
    shared = federated(parts, layout=layout, classes=2, strength=1.0, local_steps=5)
    np.testing.assert_allclose(shared.model(prepared.x), pooled(prepared.x), atol=0.02)


def test_fedavg_takes_sites_without_rows() -> None:
    prepared = trial.prepare(make(sizes=(60,)))
    layout = Layout.of(prepared.dataset.schema)
    parts = {"full": (prepared.x, prepared.y), "empty": (prepared.x[:0], prepared.y[:0])}
    both = federated(parts, layout=layout, classes=2, strength=1.0, local_steps=2)
    one = federated({"full": parts["full"]}, layout=layout, classes=2, strength=1.0, local_steps=2)
    np.testing.assert_array_equal(both.weights, one.weights)


def test_federated_means_are_those_of_all_records() -> None:
    prepared = trial.prepare(make(missing=0.2))
    layout = Layout.of(prepared.dataset.schema)
    whole = standard(layout, moments(prepared.x))
    summed = standard(layout, moments(prepared.x[:50]) + moments(prepared.x[50:]))
    np.testing.assert_allclose(whole.mean, np.nanmean(prepared.x, axis=0))
    np.testing.assert_allclose(whole(prepared.x), summed(prepared.x))
    z = whole(prepared.x)
    assert z.shape[1] == prepared.x.shape[1] + 1  # one indicator: only `a` is missing somewhere
    assert np.isfinite(z).all()


@given(seed=st.integers(0, 10_000), flip=st.booleans(), classes=st.sampled_from([0, 2, 3]), n=st.integers(0, 60))
@settings(max_examples=80, deadline=None)
def test_recalibration_has_no_negative_slope_and_keeps_probabilities(seed, flip, classes, n) -> None:
    rng = np.random.default_rng(seed)
    if classes:
        p = rng.dirichlet(np.ones(classes), size=n) if n else np.empty((0, classes))
        y = np.array([rng.choice(classes, p=row) for row in p], dtype=float)
        if flip:
            y = classes - 1 - y
    else:
        p = rng.normal(size=n)
        y = (-1 if flip else 1) * p + rng.normal(size=n)
    slope, _ = parameters(p, y, classes)
    assert slope >= 0
    new = recalibration(p, y, classes)(p)
    assert new.shape == p.shape
    assert np.isfinite(new).all()
    if classes:
        np.testing.assert_allclose(new.sum(axis=1), 1)


def test_recalibration_brings_another_base_rate_home() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=2000)
    y = (rng.random(2000) < 1 / (1 + np.exp(-(value + 2)))).astype(float)
    said = 1 / (1 + np.exp(-value))
    p = np.stack([1 - said, said], axis=1)
    slope, intercept = parameters(p, y, 2)
    assert slope == pytest.approx(1.0, abs=0.15)
    assert intercept[1] == pytest.approx(2.0, abs=0.2)
    assert log_loss(y, recalibration(p, y, 2)(p)) < log_loss(y, p) - 0.2


def test_recalibration_of_numbers_by_hand() -> None:
    said = np.linspace(-1, 1, 500)
    slope, intercept = parameters(said, 3 + 0.5 * said, 0)
    assert slope == pytest.approx(0.5, abs=0.01)
    assert intercept[0] == pytest.approx(3.0, abs=0.05)


def test_nothing_is_fitted_to_the_rows_it_is_cross_fitted_for() -> None:
    fold, _ = first_fold(make(groups=12))
    trained = []

    def fit_on(mask):
        trained.append({site: set(fold.train[site].group[chosen].tolist()) for site, chosen in mask.items()})
        number = len(trained) - 1
        return lambda x: np.full(len(x), float(number))

    said = cross_fit(fold.train, fit_on, np.random.default_rng(0))
    for site, rows in fold.train.items():
        for group, which in zip(rows.group, said[site], strict=True):
            assert all(int(group) not in seen for seen in trained[int(which)].values())


@pytest.mark.parametrize(("outcome", "groups"), [("binary", 0), ("binary", 15), ("numeric", 15), ("classes", 0)])
def test_all_opponents_answer_and_learn(outcome: str, groups: int) -> None:
    dataset = make(outcome=outcome, groups=groups, missing=0.1, sizes=(160, 80))
    methods = trial.standard_opponents()
    result = trial.run(dataset, methods, subject="majority", repeats=1)
    metric = "log_loss" if result.classes else "mae"
    for method in result.methods[1:]:
        assert result.score(method, metric) < result.score("majority", metric), method
    for method in ("pooled", "pooled_recal", "pooled_boosting"):
        assert result.left(method).records_out == round(sum(result.sizes[s].train for s in result.sites))
    assert result.left("local").bytes_out == 0
    assert result.left("fedavg").records_out == 0
    assert 0 < result.left("fedavg").bytes_out < result.left("fedavg_recal").bytes_out


def test_recalibration_answers_different_base_rates() -> None:
    dataset = make(shift=3.0, sizes=(300, 300, 300))
    result = trial.run(dataset, [trial.fedavg(), trial.fedavg_recal()], subject="fedavg_recal", repeats=2)
    assert result.difference("fedavg", "log_loss").mean < -0.05


def test_a_site_with_one_class_or_few_rows_gets_a_base_rate() -> None:
    dataset = make(sizes=(80, 5, 30))
    outcome = dataset.outcome.copy()
    outcome[dataset.site == "site 2"] = "good"
    import dataclasses

    fold, parts = first_fold(dataclasses.replace(dataset, outcome=outcome))
    answer = trial.local()(fold)
    said = answer.predictions["site 2"][:, 1]
    assert np.ptp(said) == 0
    assert said[0] == pytest.approx((21 + 0.5) / (21 + 1))
    assert len(answer.predictions["site 1"]) == len(parts.test["site 1"])


def test_classes_that_a_site_never_saw_keep_some_probability() -> None:
    prepared = trial.prepare(make(outcome="classes"))
    layout = Layout.of(prepared.dataset.schema)
    few = prepared.y != 1
    x, y = prepared.x[few], prepared.y[few]
    for family in (
        Linear(layout=layout, strengths=(1.0,)),
        Boosting(leaves=4, rate=0.1, lengths=(5, 10), seed=0),
        Neighbours(layout=layout, counts=(5,), seed=0),
    ):
        for model in fit(family, x, y, 3, range(len(family.trials))):
            said = model(prepared.x)
            np.testing.assert_allclose(said.sum(axis=1), 1)
            assert said.min() >= 0
            assert said[:, 1].max() < 0.1
            assert model(prepared.x[:0]).shape == (0, 3)


def test_one_long_boosting_gives_the_shorter_ones() -> None:
    prepared = trial.prepare(make(sizes=(300,)))
    both = Boosting(leaves=4, rate=0.1, lengths=(10, 30), seed=0)
    short = Boosting(leaves=4, rate=0.1, lengths=(10,), seed=0)
    long_run = fit(both, prepared.x, prepared.y, 2, [0, 1])
    np.testing.assert_allclose(long_run[0](prepared.x), fit(short, prepared.x, prepared.y, 2, [0])[0](prepared.x))
    assert not np.allclose(long_run[0](prepared.x), long_run[1](prepared.x))


def test_a_column_without_any_value_hurts_nobody() -> None:
    prepared = trial.prepare(make(sizes=(200,)))
    x = prepared.x.copy()
    x[:, 0] = np.nan
    for family in local_families(Layout.of(prepared.dataset.schema), 0):
        for model in fit(family, x, prepared.y, 2, range(len(family.trials))):
            assert np.isfinite(model(prepared.x)).all()


def test_base_rate_of_nothing() -> None:
    assert base_rate(np.empty(0), 2)(np.zeros((1, 3))).tolist() == [[0.5, 0.5]]
    assert base_rate(np.empty(0), 0)(np.zeros((1, 3))).tolist() == [0.0]


def test_pooled_same_estimator_counts_every_record_as_out() -> None:
    fold, parts = first_fold(make())
    method = trial.pooled_same_estimator(lambda fold: trial.majority()(fold).predictions)
    answer = method(fold)
    assert method.name == "pooled_same_estimator"
    assert {s: o.records_out for s, o in answer.out.items()} == {s: len(r) for s, r in parts.train.items()}


def test_local_predicts_better_than_chance_on_held_out_rows() -> None:
    dataset = make(sizes=(300, 300))
    fold, parts = first_fold(dataset)
    said = trial.local()(fold).predictions
    for site, y in truth(dataset, parts).items():
        assert trial.score(y, said[site], 2)["auc"] > 0.75
