"""FedMA's published property: hidden units in another order are the same function, before and after averaging."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.walls.opponents.matching import Layers, average, matched_average, reorder


def network(rng: np.random.Generator, features: int = 6, hidden: int = 12, outputs: int = 3) -> Layers:
    return Layers(
        w1=rng.normal(size=(features, hidden)),
        b1=rng.normal(size=hidden),
        w2=rng.normal(size=(hidden, outputs)),
        b2=rng.normal(size=outputs),
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), clients=st.integers(2, 6))
def test_permuted_copies_average_to_the_same_function(seed: int, clients: int) -> None:
    rng = np.random.default_rng(seed)
    one, x = network(rng), rng.normal(size=(50, 6))
    copies = [reorder(one, rng.permutation(12)) for _ in range(clients)]
    assert all(np.allclose(copy(x), one(x)) for copy in copies)
    weights = rng.uniform(1, 100, clients)
    assert np.allclose(matched_average(copies, weights)(x), one(x))


def test_a_plain_mean_of_permuted_copies_is_another_function() -> None:
    rng = np.random.default_rng(0)
    one, x = network(rng), rng.normal(size=(50, 6))
    copies = [reorder(one, rng.permutation(12)) for _ in range(4)]
    lost = np.abs(average(copies, np.ones(4))(x) - one(x)).mean()
    assert lost > 0.3 * np.abs(one(x)).mean()
    assert np.abs(matched_average(copies, np.ones(4))(x) - one(x)).mean() < 1e-9


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_copies_that_have_been_trained_apart_are_matched_too(noise: float) -> None:
    rng = np.random.default_rng(1)
    one, x = network(rng), rng.normal(size=(200, 6))

    def apart() -> Layers:
        moved = Layers(**{k: getattr(one, k) + noise * rng.normal(size=getattr(one, k).shape) for k in SHAPES})
        return reorder(moved, rng.permutation(12))

    clients = [apart() for _ in range(5)]
    near = np.abs(matched_average(clients, np.ones(5))(x) - one(x)).mean()
    single = np.mean([np.abs(client(x) - one(x)).mean() for client in clients])
    assert near < 0.7 * single  # the mean of five noisy copies is nearer than each of them


SHAPES = ("w1", "b1", "w2", "b2")
