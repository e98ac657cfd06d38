"""Trust: the batch election and the running one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.elections import Trust, elect
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
    state = Trust.start(("a", "b")).update(np.tile([0.1, 0.9], (100, 1)))
    prior = state.prior(("b", "a", "c"))
    assert prior.sum() == pytest.approx(1.0)
    assert prior[1] > prior[2] > prior[0] > 0.0


def test_losses_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(DataError, match="one column"):
        Trust.start(("a", "b")).update(np.zeros((3, 3)))
