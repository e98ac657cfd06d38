"""``private`` under attack: the bound holds on what a node really draws, and a broken mechanism is caught by it."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from outroute.audit import judge, membership_pairs, reconstruct, summarise
from outroute.audit.linkage import link
from outroute.audit.naming import name_members, named
from outroute.audit.noisy import (
    SeededNoise,
    bounds,
    informed,
    join_informed,
    most_auc,
    most_found,
    private,
    private_floor,
)
from outroute.datasets.declare import schema
from outroute.node.noise import OpenDPNoise
from outroute.schema import Distiller, Outcome, OutcomeKind

from .making import FIELDS, observed, world

SCHEMA = world()
GRID = {"age": 3, "ward": 3}


def detected(epsilon: str, noise: object = None, shadows: int = 32) -> tuple[float, float, float]:
    """AUC, its lower end, and true positives at 1 %."""
    pairs = membership_pairs(
        SCHEMA,
        observed(SCHEMA, 120, 1),
        private(Decimal(epsilon), grid=GRID, noise=noise),  # type: ignore[arg-type]
        np.random.default_rng(0),
        shadows=shadows,
        coins=True,
    )
    assert pairs is not None
    found = judge([pairs], np.random.default_rng(0))
    assert found is not None
    return found.ratio.auc.value, found.ratio.auc.low, found.ratio.tpr[0.01].low


def test_bounds_of_epsilon() -> None:
    assert most_auc(0.0) == 0.5
    assert most_auc(1.0) == pytest.approx(math.e / (1 + math.e))
    assert most_found(1.0, 0.01) == pytest.approx(0.02718, abs=1e-5)
    assert most_found(1.0, 0.9) == pytest.approx(1 - 0.1 / math.e)
    assert most_found(50.0, 0.01) == 1.0
    assert bounds(1.0, 1e-5)["tpr"]["0.001"] == pytest.approx(0.002718 + 1e-5, abs=1e-6)
    # The area under the bound itself, point by point.
    false = np.linspace(0, 1, 100_001)
    true = [most_found(1.3, float(f)) for f in false[::10]]
    assert np.trapezoid(true, false[::10]) == pytest.approx(most_auc(1.3), abs=1e-4)


@pytest.mark.parametrize("epsilon", ["0.5", "2"])
def test_membership_stays_within_its_bound_with_noise_from_opendp(epsilon: str) -> None:
    pytest.importorskip("opendp", reason="noise of a node needs the extra private")
    _, low, found = detected(epsilon, OpenDPNoise())
    assert low <= most_auc(float(epsilon))
    assert found <= most_found(float(epsilon), 0.01)


def known(epsilon: str, noise: object = None):  # type: ignore[no-untyped-def]
    """What an attacker reaches that knows all others."""
    emit = private(Decimal(epsilon), grid=GRID, noise=noise)  # type: ignore[arg-type]
    pairs = informed(SCHEMA, observed(SCHEMA, 120, 1), emit, np.random.default_rng(0), draws=64)
    assert pairs is not None
    found = join_informed([pairs], np.random.default_rng(0))
    assert found is not None
    return found


@pytest.mark.parametrize("epsilon", ["0.5", "1", "3"])
def test_who_knows_all_others_comes_close_to_the_bound_and_not_above(epsilon: str) -> None:
    pytest.importorskip("opendp", reason="noise of a node needs the extra private")
    found = known(epsilon, OpenDPNoise())
    bound = most_auc(float(epsilon))
    # The attack reaches the bound nearly, and the noise is drawn anew: twice the half-width is four standard errors.
    assert found.auc.value - 2 * (found.auc.value - found.auc.low) <= bound
    assert found.auc.value > 0.5 + 0.7 * (bound - 0.5)
    named = found.tpr[0.01]
    assert named.value - 2 * (named.value - named.low) <= most_found(float(epsilon), 0.01)


def test_too_little_noise_is_caught() -> None:
    class Broken:
        """A tenth of the noise that was asked for."""

        def laplace(self, values, scale, *, sensitivity, epsilon):  # type: ignore[no-untyped-def]
            return SeededNoise(np.random.default_rng()).laplace(
                values, scale / 10, sensitivity=sensitivity, epsilon=epsilon
            )

    assert known("0.5", Broken()).auc.low > most_auc(0.5)


def test_seeded_noise_has_the_law_of_opendp() -> None:
    """Two samples of 20,000 each, told apart by a chi-square test that fails once in a million."""
    pytest.importorskip("opendp", reason="noise of a node needs the extra private")
    zeros = np.zeros(20_000, dtype=np.int64)
    drawn = [
        source.laplace(zeros, 2.5, sensitivity=1, epsilon=Fraction(2, 5))
        for source in (SeededNoise(np.random.default_rng(0)), OpenDPNoise())
    ]
    counts = np.array([np.bincount(np.clip(one, -12, 12) + 12, minlength=25) for one in drawn], dtype=np.float64)
    counts = counts[:, counts.min(axis=0) >= 5]
    expected = counts.sum(axis=0) / 2
    square = float((((counts - expected) ** 2) / expected).sum())
    freedom = counts.shape[1] - 1
    assert square < freedom + 5 * math.sqrt(2 * freedom) + 12


def test_a_record_is_in_one_release_and_the_budget_is_not_split() -> None:
    rows = replace(observed(SCHEMA, 90, 2), bucket=np.arange(90) % 3)
    emission = private(Decimal(50), grid=GRID, until=(0, 1))(SCHEMA, rows, np.random.default_rng(0))
    assert emission.noisy is not None
    # At epsilon 50 there is next to no noise: every release counts its own thirty.
    assert emission.noisy.sums.sum(axis=(1, 2)).tolist() == pytest.approx([30, 30, 30], abs=2)
    assert (emission.packet_of >= 0).all()


def test_a_subject_gives_no_more_than_it_may() -> None:
    rows = observed(SCHEMA, 90, 2, each=3)
    emission = private(Decimal(50), grid=GRID)(SCHEMA, rows, np.random.default_rng(0))
    assert int((emission.packet_of >= 0).sum()) == 30
    own = private_floor(SCHEMA, Decimal(1), grid=GRID)
    assert own.privacy.distiller is Distiller.PRIVATE
    assert private_floor(own, Decimal(2)).landmarks == own.landmarks


def test_regions_tell_of_the_population_and_of_nobody() -> None:
    rows, emit = observed(SCHEMA, 120, 3), private(Decimal(1), grid=GRID)
    found = summarise([g for g in [reconstruct(SCHEMA, rows, emit, np.random.default_rng(0))] if g is not None])
    assert found is not None
    assert max(found.advantage.values()) < 0.5
    assert link(SCHEMA, rows, emit, np.random.default_rng(0)) is None
    sites = [name_members(SCHEMA, rows, emit, np.random.default_rng(seed), packets=9) for seed in range(6)]
    solved = named([site for site in sites if site is not None])
    assert solved is not None
    assert abs(solved.precision - 0.5) < 0.12  # half of the candidates are in


def test_numbers_are_attacked_too() -> None:
    days = Outcome(name="days", kind=OutcomeKind.NUMERIC, low=Decimal(0), high=Decimal(1))
    numeric = schema("numbers", FIELDS, days, k=5, subject="patient")
    rows = observed(numeric, 80, 4)
    for epsilon, low, high in (("1", 0.4, most_auc(1.0)), ("100", 0.8, 1.01)):
        emit = private(Decimal(epsilon), grid=GRID)
        pairs = informed(numeric, rows, emit, np.random.default_rng(0), draws=32)
        assert pairs is not None
        found = join_informed([pairs], np.random.default_rng(0))
        assert found is not None
        assert low < found.auc.value
        assert found.auc.low < high
