"""Luck: what rules it out among many nodes, and how many are honest at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from outroute.elections.luck import HONEST_LEAST, HONEST_MOST, LEVEL, honest_share, needed

Floats = npt.NDArray[np.float64]
ONE = 1.6448536


def everybody(count: int) -> npt.NDArray[np.bool_]:
    return np.ones(count, dtype=np.bool_)


@pytest.mark.parametrize(("small", "large"), [(0, 40), (300, 0), (300, 15)])
def test_random_nodes_pass_as_rarely_as_the_level_says(small: int, large: int) -> None:
    """In one of twenty networks of random nodes anybody passes, whatever their sizes."""
    rng = np.random.default_rng(1)
    expected = np.concatenate([np.full(small, 1.0), np.full(large, 5.0)])
    runs = 400
    passed = 0
    for _ in range(runs):
        z = rng.normal(size=len(expected))
        passed += bool((z > needed(z, expected, everybody(len(z)))).any())
    assert passed / runs < 2 * LEVEL


def test_hundreds_of_small_nodes_hardly_raise_the_bar_for_large_ones() -> None:
    rng = np.random.default_rng(2)
    honest, sybils = np.full(15, 3.0), rng.normal(size=300)
    reverse, expected = np.concatenate([honest, sybils]), np.concatenate([np.full(15, 5.0), np.full(300, 1.0)])
    bar = needed(reverse, expected, everybody(315))
    assert bar[:15].max() < 3.0  # shared out evenly it would be 3.6
    assert bar[15:].min() > 3.5
    # As many random nodes of the same size do raise it.
    alike = needed(reverse, np.full(315, 5.0), everybody(315))
    assert alike[:15].min() > 3.3


def test_where_nobody_is_below_zero_one_node_stands_for_itself() -> None:
    bar = needed(np.full(14, 2.5), np.full(14, 4.0), everybody(14))
    np.testing.assert_allclose(bar, ONE, atol=1e-6)


def test_liars_who_are_clearly_below_zero_are_no_luck() -> None:
    honest = needed(np.full(4, 3.0), np.full(4, 5.0), everybody(4))
    beside = needed(np.concatenate([np.full(4, 3.0), np.full(12, -5.0)]), np.full(16, 5.0), everybody(16))
    np.testing.assert_allclose(beside[:4], honest)


def test_the_share_of_honest_nodes_is_seen() -> None:
    rng = np.random.default_rng(3)
    for honest, other in ((30, 0), (15, 15), (3, 27)):
        z = np.concatenate([rng.normal(4.0, 1.0, honest), rng.normal(0.0, 1.0, other)])
        share = honest_share(z, np.full(30, 5.0), everybody(30))
        assert abs(share[0] - min(honest / 30, HONEST_MOST)) < 0.25
    liars = honest_share(np.concatenate([np.full(3, 4.0), np.full(27, -4.0)]), np.full(30, 5.0), everybody(30))
    assert 0.05 < liars[0] < 0.2


def test_small_random_nodes_say_little_about_large_ones() -> None:
    rng = np.random.default_rng(4)
    z = np.concatenate([np.full(15, 3.0), rng.normal(size=300)])
    expected = np.concatenate([np.full(15, 5.0), np.full(300, 1.0)])
    share = honest_share(z, expected, everybody(315))
    assert share[0] > 0.7
    assert share[-1] < 0.2


def test_who_cannot_be_compared_is_believed_as_far_as_nodes_are_known_to_be_honest() -> None:
    z = np.array([4.0, 4.0, 0.0])
    assert honest_share(z, np.full(3, 5.0), np.array([True, True, False]))[2] == pytest.approx(3 / 5)
    hidden = np.concatenate([np.full(2, 4.0), np.zeros(300)])
    judged = np.arange(302) < 2
    assert honest_share(hidden, np.full(302, 5.0), judged)[2] == HONEST_LEAST


def test_nobody_there() -> None:
    nothing = np.zeros(0)
    assert len(needed(nothing, nothing, everybody(0))) == 0
    assert len(honest_share(nothing, nothing, everybody(0))) == 0
    np.testing.assert_allclose(needed(np.zeros(2), np.zeros(2), np.zeros(2, dtype=np.bool_)), ONE)
