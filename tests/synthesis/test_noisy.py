"""Sums with noise: what is said little of counts little, and nothing is bent on average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.synthesis import steady_counts, steady_moments


def laplace(rng: np.random.Generator, scale: float, shape: tuple[int, ...]) -> np.ndarray:
    stop = -np.expm1(-1.0 / scale)
    return rng.geometric(stop, shape) - rng.geometric(stop, shape)


def variance(scale: float) -> float:
    q = np.exp(-1.0 / scale)
    return float(2 * q / (1 - q) ** 2)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 5), st.integers(1, 60), st.sampled_from([0.5, 3.0, 1e4]), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_whatever_the_sums_are_what_comes_out_is_possible(
    classes: int, n: int, reach: float, untold: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sums = np.rint(rng.normal(0, reach, (n, classes)))
    node, place = rng.integers(0, 4, n), rng.integers(0, 6, n)
    told = rng.integers(0, 2, n).astype(float) if untold else None
    made = steady_counts(sums, node, place, 2.0, told)
    assert np.isfinite(made.size).all()
    assert (made.size > 0).all()
    assert ((made.outcome >= 0) & (made.outcome <= 1)).all()
    assert made.outcome.sum(1) == pytest.approx(np.ones(n))
    numbers = steady_moments(
        np.column_stack([sums[:, 0], sums[:, 1], np.abs(sums[:, 0])]), node, place, (2, 3, 4), told
    )
    assert np.isfinite(numbers.size).all()
    assert (numbers.size > 0).all()
    assert ((numbers.outcome >= 0) & (numbers.outcome <= 1)).all()
    assert ((numbers.within >= 0) & (numbers.within <= 0.25)).all()
    if told is not None:
        assert (made.size[told == 0] < 1e-5).all()


def test_large_counts_stay_as_they_are() -> None:
    sums = np.array([[40_000.0, 10_000.0], [5_000.0, 45_000.0]])
    made = steady_counts(sums, np.array([0, 0]), np.array([0, 1]), 2.0)
    assert made.size == pytest.approx([50_000, 50_000], rel=1e-3)
    assert made.outcome == pytest.approx(sums / sums.sum(1, keepdims=True), abs=1e-3)


def test_cells_that_are_noise_weigh_next_to_nothing() -> None:
    """One large node, one of nobody: the second one's cells together count less than ten observations of the first."""
    rng, cells = np.random.default_rng(1), 200
    large = rng.multinomial(20_000, np.full(cells, 1 / cells))
    true = np.stack([rng.binomial(large, 0.7), np.zeros(cells)], axis=1)
    true[:, 1], true[:, 0] = large - true[:, 0], true[:, 0]
    sums = np.concatenate([true, np.zeros((cells, 2))]) + laplace(rng, 1.0, (2 * cells, 2))
    node, place = np.repeat([0, 1], cells), np.tile(np.arange(cells), 2)
    made = steady_counts(sums.astype(float), node, place, variance(1.0))
    assert made.size[node == 0].sum() == pytest.approx(20_000, rel=0.05)
    assert made.size[node == 1].sum() < 10


@pytest.mark.parametrize("per_cell", [3, 10, 40])
def test_the_mean_is_not_bent_and_the_size_says_how_much_is_known(per_cell: int) -> None:
    """A rare outcome in small cells: cutting at zero alone would double it."""
    rng, cells, rate = np.random.default_rng(2), 400, 0.1
    bias, scaled = [], []
    for _ in range(30):
        there = rng.poisson(per_cell, cells)
        ill = rng.binomial(there, rate)
        sums = np.stack([there - ill, ill], axis=1) + laplace(rng, 1.0, (cells, 2))
        made = steady_counts(sums.astype(float), np.zeros(cells, np.int64), np.arange(cells), variance(1.0))
        mean = made.size @ made.outcome[:, 1] / made.size.sum()
        bias.append(mean - rate)
        # Were each packet as many independent observations as its size, the mean would vary so much.
        scaled.append((mean - rate) * np.sqrt(made.size.sum() / (rate * (1 - rate))))
    assert abs(np.mean(bias)) < 0.03
    assert 0.4 < np.std(scaled) < 2.0


def test_a_number_comes_back() -> None:
    rng, cells = np.random.default_rng(3), 50
    size = rng.poisson(200, cells)
    values = [rng.normal(0.2 * np.sin(i), 0.3, n).clip(-1, 1) for i, n in enumerate(size)]
    sums = np.array([[len(v), v.sum(), (v**2).sum()] for v in values]) + laplace(rng, 1.0, (cells, 3))
    v = variance(1.0)
    made = steady_moments(sums, np.zeros(cells, np.int64), np.arange(cells), (v, v, v), None)
    mean = np.array([one.mean() for one in values])
    assert made.outcome[:, 0] * 2 - 1 == pytest.approx(mean, abs=0.05)
    assert made.size == pytest.approx(size, rel=0.25)
    assert np.sqrt(made.within * 4) == pytest.approx(np.full(cells, 0.33), abs=0.05)


def test_releases_of_the_same_place_are_added_up() -> None:
    """Ten noisy parts of one count say what one noisy count with ten times the noise says, shared out evenly."""
    parts = np.tile([[7.0, 3.0]], (10, 1))
    made = steady_counts(parts, np.zeros(10, np.int64), np.zeros(10, np.int64), 2.0)
    whole = steady_counts(parts.sum(0, keepdims=True), np.zeros(1, np.int64), np.zeros(1, np.int64), 20.0)
    assert made.size == pytest.approx(np.full(10, whole.size[0] / 10), rel=1e-6)
    assert made.outcome == pytest.approx(np.tile(whole.outcome, (10, 1)), abs=0.02)
