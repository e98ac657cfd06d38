"""Trust: the batch election and the running one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.elections import Trust, elect, leaning
from outroute.elections.trust import DROPPED, FADE, LEAN, LEAN_MOST, PULL, SELECTION_MOST
from outroute.errors import DataError


def squares(said: np.ndarray, truth: np.ndarray):
    """Loss of the mixture of columns `said` as an objective."""

    def objective(w):
        gap = said @ w - truth
        return 0.5 * float(gap @ gap), said.T @ gap

    return objective


def test_the_best_calculation_wins_with_many_outcomes_and_not_with_few() -> None:
    rng = np.random.default_rng(0)
    prior = np.full(3, 1 / 3)
    for n, least, most in ((3, 0.3, 0.95), (3000, 0.95, 1.0)):
        truth = rng.normal(size=n)
        said = np.stack([truth + rng.normal(0, s, n) for s in (0.05, 1.0, 2.0)], axis=1)
        assert least <= elect(squares(said, truth), prior)[0] <= most


def test_two_half_right_calculations_share() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=4000)
    noise = rng.normal(size=4000)
    weights = elect(squares(np.stack([truth + noise, truth - noise], axis=1), truth), np.array([0.9, 0.1]))
    np.testing.assert_allclose(weights, 0.5, atol=0.02)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 50), j=st.integers(1, 6))
def test_an_election_never_does_worse_than_its_prior(seed: int, n: int, j: int) -> None:
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(j) * 3) * 0.99 + 0.01 / j
    objective = squares(rng.normal(size=(n, j)), rng.normal(size=n))
    weights = elect(objective, prior)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    assert objective(weights)[0] <= objective(prior)[0] + 1e-9
    if n == 0:
        np.testing.assert_allclose(weights, prior, atol=1e-6)


def test_running_trust_is_never_much_worse_than_the_best_in_hindsight() -> None:
    rng = np.random.default_rng(2)
    losses = rng.random((500, 4)) + np.array([0.3, 0.0, 0.5, 0.4])
    state, paid = Trust.start("abcd"), 0.0
    for row in losses:
        paid += float(-np.log(state.weights @ np.exp(-row)))
        state = state.update(row[None])
    assert paid <= losses.sum(0).min() + np.log(4) + 0.05 * len(losses)
    assert state.weights.argmax() == 1
    assert state.count == 500


def test_running_trust_follows_a_drift() -> None:
    state = Trust.start(("old", "new"))
    state = state.update(np.tile([0.1, 0.6], (3000, 1)))
    assert state.weights[0] > 0.99
    state = state.update(np.tile([0.6, 0.1], (3000, 1)))
    assert state.weights[1] > 0.99


def test_one_disaster_is_not_a_verdict() -> None:
    state = Trust.start(("steady", "sharp")).update(np.tile([0.5, 0.3], (200, 1)))
    hit = state.update(np.array([[0.5, 1e9]]))
    assert hit.weights[1] > 0.99


def test_prior_for_other_names() -> None:
    state = Trust.start(("a", "b")).update(np.tile([0.1, 0.9], (100, 1)), paid=np.full(100, 0.5))
    prior = state.prior(("b", "a", "c"))
    assert prior.sum() == pytest.approx(1.0)
    assert prior[1] > prior[2] > prior[0] > 0.0


def test_the_prior_is_what_it_was_until_an_outcome_is_scored() -> None:
    default = np.array([0.2, 0.5, 0.3])
    state = Trust.start(("a",), bands=3).told(1).told(2)
    assert state.prior(("a", "b", "c"), default) is default
    np.testing.assert_array_equal(Trust.start().prior(("a", "b")), [0.5, 0.5])
    after = state.update(np.array([[0.2]]), paid=np.array([0.2]), bands=np.array([1]))
    assert after.prior(("a", "b", "c"), default) == pytest.approx(default)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 200))
def test_a_wrong_running_trust_costs_little(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    names, default = ("a", "b", "c"), np.full(3, 1 / 3)
    state = Trust.start(names).update(rng.random((500, 3)) + rng.random(3))
    objective = squares(rng.normal(size=(n, 3)), rng.normal(size=n))
    alone = elect(objective, default)
    cost = objective(alone)[0] + PULL * float(alone @ np.log(np.maximum(alone, 1e-300) / default))
    assert objective(elect(objective, state.prior(names, default)))[0] <= cost + PULL * np.log(2) + 1e-3


def test_hedge_keeps_its_bound_against_the_best_calculation() -> None:
    """At rate 1 the Bayesian mixture of probabilities pays at most ln J more than the best, fade aside."""
    rng = np.random.default_rng(5)
    truth = rng.random(300) < 0.3
    shares = np.clip(0.3 + rng.normal(0, [0.05, 0.2, 0.4, 0.3], (300, 4)), 0.02, 0.98)
    losses = -np.log(np.where(truth[:, None], shares, 1 - shares))
    state, paid = Trust.start("abcd"), 0.0
    for row in losses:
        paid -= np.log(state.weights @ np.exp(-row))
        state = state.update(row[None])
    assert paid <= losses.sum(0).min() + np.log(4) + 0.5


def test_who_took_no_part_counts_as_the_answer_did() -> None:
    state = Trust.start()
    for _ in range(20):
        state = state.update(np.array([[0.3, 0.7]]), names=("a", "b"), paid=np.array([0.5]))
    for _ in range(20):
        state = state.update(np.array([[0.4]]), names=("c",), paid=np.array([0.4]))
    assert state.names == ("a", "b", "c")
    weights = dict(zip(state.names, state.weights, strict=True))
    assert weights["a"] > weights["c"] > weights["b"]
    assert state.running(("c", "new"))[0] == pytest.approx(0.5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_arrival_matters_by_the_fade_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    losses, paid, bands = rng.random((n, 3)) * 2, rng.random(n), rng.integers(0, 4, n)
    start = Trust.start("abc", bands=4)
    for band in bands.tolist():
        start = start.told(band)
    order = rng.permutation(n)
    one = start.update(losses, paid=paid, bands=bands)
    other = start.update(losses[order], paid=paid[order], bands=bands[order])
    most = (1 - FADE**n) * np.abs(losses - paid[:, None]).sum()
    assert np.abs(one.excess - other.excess).max() <= most
    assert one.count == other.count == n
    np.testing.assert_allclose(one.selection, other.selection, rtol=0.1)
    parts = start
    for i in range(n):
        parts = parts.update(losses[i : i + 1], paid=paid[i : i + 1], bands=bands[i : i + 1])
    assert parts.says_as(one)  # one by one or all at once: the same to the last bit


def confirmed_more_often(share: tuple[float, float], seed: int = 3) -> tuple[Trust, Trust, Trust]:
    """Trust by all outcomes; by those confirmed, with and without counting who was asked.

    `low` is the better one where risk is answered as low (three quarters of the cases), `high` where it is high.
    """
    rng = np.random.default_rng(seed)
    everything, counted, plain = (Trust.start(("low", "high"), bands=2) for _ in range(3))
    for _ in range(600):
        band = int(rng.random() < 0.25)
        losses = np.array([[0.48, 0.52], [0.55, 0.45]])[band][None]
        bands = np.array([band])
        counted = counted.told(band)
        everything = everything.update(losses, bands=bands)
        if rng.random() < share[band]:
            counted, plain = counted.update(losses, bands=bands), plain.update(losses)
    return everything, counted, plain


def test_selective_confirmation_is_corrected_by_band() -> None:
    everything, counted, plain = confirmed_more_often((0.3, 0.6))
    assert everything.weights[0] > 0.7  # `low` is better over all cases
    assert plain.weights[0] < 0.5  # what became known says otherwise
    assert counted.weights[0] > 0.55
    assert counted.selection[0] > 1.1 > 0.9 > counted.selection[1]


def test_correction_is_bounded_and_asking_alone_changes_nothing() -> None:
    _, counted, _ = confirmed_more_often((0.02, 0.98))
    assert (counted.selection <= SELECTION_MOST).all()
    assert (counted.selection >= 1 / SELECTION_MOST).all()
    for _ in range(50):
        told = counted.told(0)
        assert told.says_as(counted)
        np.testing.assert_array_equal(told.weights, counted.weights)
    again = counted.told(0).told(1, instead_of=0)
    assert again.asked[1] == counted.asked[1] + 1
    assert again.asked[0] == pytest.approx(counted.asked[0])


def test_a_state_comes_back_as_it_was() -> None:
    _, state, _ = confirmed_more_often((0.5, 0.9))
    again = Trust.from_bytes(state.to_bytes())
    assert again.says_as(state)
    assert again.to_bytes() == state.to_bytes()
    assert (again.names, again.count, again.rate) == (state.names, state.count, state.rate)
    empty = Trust.start(bands=3, rate=0.25)
    assert Trust.from_bytes(empty.to_bytes()).excess.shape == (3, 0)


def test_losses_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(DataError, match="one column"):
        Trust.start(("a", "b")).update(np.zeros((3, 3)))


def binary(rows: int, seed: int, *, peers: float, own: float):
    """Own outcomes, and log-loss of a mixture of two calculations as good as their slopes: peers, then own records."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.5, rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(float)
    said = np.stack([peers * truth, own * truth], axis=1)

    def objective(w):
        score = said @ w
        return float((np.logaddexp(0, score) - y * score).sum()), said.T @ (1 / (1 + np.exp(-score)) - y)

    return objective


def test_it_leans_on_own_records_only_where_many_were_dropped() -> None:
    objective = binary(200, 0, peers=1.0, own=0.9)
    weights = np.array([0.9, 0.1])
    for dropped in (0.0, DROPPED[0]):
        assert leaning(("kernel", "local"), weights, objective, 200, dropped) is weights
    half = leaning(("kernel", "local"), weights, objective, 200, sum(DROPPED) / 2)
    full = leaning(("kernel", "local"), weights, objective, 200, 1.0)
    assert weights[1] < half[1] < full[1]
    assert full[1] == pytest.approx(LEAN_MOST + (1 - LEAN_MOST) * 0.1)
    assert full.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_leaning_costs_own_outcomes_no_more_than_chance(seed: int) -> None:
    objective = binary(3000, seed, peers=1.0, own=-0.5)
    weights = np.array([1.0, 0.0])
    moved = leaning(("kernel", "local"), weights, objective, 3000, 1.0)
    assert objective(moved)[0] <= objective(weights)[0] + LEAN
    assert moved[1] < 0.1  # many own outcomes show that others help


def test_there_is_nothing_to_lean_on_without_own_records() -> None:
    weights = np.array([0.5, 0.5])
    objective = binary(50, 1, peers=1.0, own=1.0)
    assert leaning(("kernel", "regression"), weights, objective, 50, 1.0) is weights
    assert leaning(("local", "local-boosting"), weights, objective, 50, 1.0) is weights
