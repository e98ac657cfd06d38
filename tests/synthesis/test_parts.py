"""The parts: recalibration, regression, boosting, kernel, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.synthesis import Settings, coverage, fit, places
from outroute.synthesis.boosting import FEW, fit_boosted
from outroute.synthesis.recalibration import recalibrate
from outroute.synthesis.regression import design, fit_linear
from outroute.synthesis.scores import Link, losses, sigmoid

from .worlds import BINARY, NUMBER, conditions, no_records, outcomes, packets, records


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 60),
    sign=st.sampled_from([-3.0, 0.0, 1.0]),
    link=st.sampled_from([Link.BINARY, Link.CATEGORICAL, Link.NUMERIC]),
)
def test_a_slope_is_never_negative_and_never_makes_own_records_look_worse(
    seed: int, n: int, sign: float, link: Link
) -> None:
    rng = np.random.default_rng(seed)
    k = 3 if link is Link.CATEGORICAL else 1
    score = rng.normal(0, 1, (n, k))
    truth = sign * score + rng.gumbel(size=(n, k))
    if link is Link.CATEGORICAL:
        target = np.eye(3)[truth.argmax(1)] if n else np.zeros((0, 3))
    else:
        target = truth if link is Link.NUMERIC else (truth > 0).astype(np.float64)
    r = recalibrate(score, target, link=link, intercept_variance=0.5, slope_sd=0.3)
    assert r.slope >= 0.0
    assert r.variance <= 0.5 + 1e-9
    if n:
        moved, plain = losses(r(score, link), target, link), losses(score, target, link)
        assert moved.sum() <= plain.sum() + 1e-6
    else:
        assert r.slope == 1.0
        assert (r.intercept == 0.0).all()


def test_twenty_records_move_an_answer_less_than_two_thousand() -> None:
    rng = np.random.default_rng(0)
    moved = []
    for n in (20, 2000):
        score = rng.normal(0, 1, (n, 1))
        target = (rng.random((n, 1)) < sigmoid(score - 1.0)).astype(np.float64)
        r = recalibrate(score, target, link=Link.BINARY, intercept_variance=0.1, slope_sd=0.3)
        moved.append((abs(float(r.intercept[0])), r.variance))
    assert moved[0][0] < moved[1][0] < 1.2
    assert moved[0][1] > 5 * moved[1][1]


def test_regression_recovers_coefficients_and_spread_between_nodes() -> None:
    rng = np.random.default_rng(1)
    nodes, each = 40, 400
    z = rng.normal(size=(nodes * each, 3))
    node = np.repeat(np.arange(nodes), each)
    u = rng.normal(0, 1.0, nodes)
    y = (rng.random(len(z)) < sigmoid(z @ np.array([1.0, -0.5, 0.0]) + 0.3 + u[node])).astype(np.float64)
    model = fit_linear(z, y, np.ones(len(z)), node, nodes, link=Link.BINARY, settings=Settings())
    np.testing.assert_allclose(model.coefficients[:3], [1.0, -0.5, 0.0], atol=0.06)
    assert 0.6 < model.spread < 1.6
    assert np.corrcoef(model.intercepts, u)[0, 1] > 0.97


@pytest.mark.parametrize("seed", range(4))
def test_regression_settles_though_what_it_corrects_is_sure_and_wrong(seed: int) -> None:
    """A full Newton step overshoots there: without halving, all but one of these end far from their optimum."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(200, 25))
    z[:, :8] = ((rng.random((200, 8)) < 0.03) - 0.03) / np.sqrt(0.03 * 0.97)  # rare categories reach far
    y = (rng.random(200) < sigmoid(z[:, 10] - 0.5 * z[:, 11])).astype(np.float64)
    wrong = 4.0 * z[:, 12:15].sum(axis=1)
    fitted = fit_linear(
        z,
        y,
        np.ones(200),
        np.zeros(200, np.int64),
        0,
        link=Link.BINARY,
        settings=Settings(),
        offset=wrong,
        intercept_variance=0.5,
    )
    share = sigmoid(wrong + fitted.score(z))
    gradient = z.T @ (y - share) - fitted.coefficients[:-1] / fitted.ridge
    assert np.abs(gradient).max() < 1.0  # variances move a little in the last step
    said = np.logaddexp(0.0, wrong + fitted.score(z)) - y * (wrong + fitted.score(z))
    assert said.mean() < (np.logaddexp(0.0, wrong) - y * wrong).mean()


def test_regression_many_nodes_take_the_same_path() -> None:
    rng = np.random.default_rng(2)
    n = 1500
    z, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    node = rng.integers(0, 30, n)
    few = fit_linear(z, y, np.ones(n), node, 30, link=Link.NUMERIC, settings=Settings())
    padded = fit_linear(z, y, np.ones(n), node, 600, link=Link.NUMERIC, settings=Settings(spread_nodes=1e9))
    again = fit_linear(z, y, np.ones(n), node, 30, link=Link.NUMERIC, settings=Settings(spread_nodes=1e9))
    np.testing.assert_allclose(padded.coefficients, again.coefficients, atol=1e-9)
    assert np.isfinite(few.coefficients).all()


def test_a_field_that_is_sometimes_missing_gets_an_indicator_and_no_gap_stays() -> None:
    rng = np.random.default_rng(3)
    x = conditions(200, rng)
    x[:60, 1] = np.nan
    x[:, 2] = 0.5
    plan = design(x, np.ones(200), BINARY.slots)
    z = plan(x)
    assert plan.indicators == (1,)
    assert 2 not in plan.kept
    assert np.isfinite(z).all()
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-9)


@pytest.mark.parametrize("link", [Link.BINARY, Link.NUMERIC])
def test_walking_trees_here_gives_what_scikit_learn_gives(link: Link) -> None:
    rng = np.random.default_rng(4)
    x = conditions(1500, rng, missing=0.1)
    y = outcomes(BINARY, x, 0.0, rng)
    model = fit_boosted(x, y, np.ones(1500), np.zeros(1500), link=link, settings=Settings())
    whole = model.score(x[: FEW + 1])
    np.testing.assert_allclose(model.score(x[:FEW]), whole[:FEW], atol=1e-10)


def test_kernel_reads_an_asker_with_gaps_though_no_packet_has_any() -> None:
    rng = np.random.default_rng(5)
    evidence = packets(BINARY, 4, 60, rng)
    model = fit(BINARY, evidence, no_records(), rng=rng)
    x = np.array([[0.9, np.nan, np.nan, 1.0, 0.0]])
    a = model.answer(x)
    assert a.by_calculation[0, model.calculations.index("kernel")] > 0.7
    assert a.support[0] > model.answer(np.array([[0.9, 0.0, 1.0, 1.0, 0.0]])).support[0]


def test_coverage_counts_by_decile() -> None:
    support = np.arange(100.0)
    place = np.where(support < 10, 0.99, 0.5)
    found = coverage(support, place)
    assert found.total == pytest.approx(0.9)
    assert found.deciles[0] == 0.0
    assert (found.deciles[1:] == 1.0).all()
    assert (found.counts == 10).all()
    assert np.isnan(coverage(np.zeros(0), np.zeros(0)).total)


@pytest.mark.parametrize("schema", [BINARY, NUMBER], ids=["binary", "numeric"])
@pytest.mark.parametrize("count", [0, 60])
def test_intervals_cover_made_sites_left_out(schema, count: int) -> None:
    """Thirty made sites with known spread: nominal 90 %, and neither far more nor far less."""
    support, found = [], []
    for seed in range(30):
        rng = np.random.default_rng(200 + seed)
        offset = rng.normal(0, 0.6)
        own = records(schema, count, rng, offset=offset) if count else no_records()
        model = fit(schema, packets(schema, 12, 40, rng, spread=0.6), own, rng=rng)
        x = conditions(200, rng)
        y = outcomes(schema, x, offset, rng)
        s, p = places(model, model.answer(x), y, rng)
        support.append(s)
        found.append(p)
    total = coverage(np.concatenate(support), np.concatenate(found)).total
    assert 0.82 < total < 0.98
