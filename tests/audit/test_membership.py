"""Membership inference finds what is planted, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from outroute.audit import cohorts, judge, membership_pairs
from outroute.audit.membership import half_in, likelihood_ratio

from .making import blind, observed, world

SCHEMA = world()


def test_single_records_give_everybody_away() -> None:
    pairs = membership_pairs(SCHEMA, observed(SCHEMA, 80, 1), cohorts(1), np.random.default_rng(0), shadows=16)
    assert pairs is not None
    found = judge([pairs], np.random.default_rng(0))
    assert found is not None
    assert found.ratio.auc.value > 0.99
    assert found.ratio.tpr[0.01].value > 0.95
    assert found.worst.value > 0.99


def test_larger_cohorts_tell_less_and_small_ones_something() -> None:
    rows = observed(SCHEMA, 120, 2)
    areas = []
    for k in (2, 30):
        pairs = membership_pairs(SCHEMA, rows, cohorts(k), np.random.default_rng(0), shadows=32)
        assert pairs is not None
        found = judge([pairs], np.random.default_rng(0))
        assert found is not None
        areas.append(found.ratio.auc)
    assert areas[0].low > 0.6
    assert areas[0].low > areas[1].high


@pytest.mark.parametrize("k", [1, 5])
def test_nothing_is_found_in_packets_about_other_people(k: int) -> None:
    """The interval over subjects covers chance, and rare false positives are no more than promised."""
    rows = observed(SCHEMA, 120, 3)
    pairs = membership_pairs(SCHEMA, rows, blind(SCHEMA, 60, k), np.random.default_rng(0), shadows=64)
    assert pairs is not None
    found = judge([pairs], np.random.default_rng(0))
    assert found is not None
    for attack in (found.ratio, found.nearest):
        assert abs(attack.auc.value - 0.5) < 0.03
    assert found.ratio.auc.low <= 0.51
    assert found.ratio.auc.high >= 0.49
    assert found.ratio.tpr[0.01].value < 0.03
    assert abs(found.worst.value - 0.5) < 0.12


def test_subjects_are_judged_not_rows() -> None:
    rows = observed(SCHEMA, 90, 4, each=3)
    pairs = membership_pairs(SCHEMA, rows, cohorts(1), np.random.default_rng(0), shadows=8)
    assert pairs is not None
    assert pairs.member.shape == (8, 30)


def test_too_few_subjects_are_not_judged() -> None:
    assert membership_pairs(SCHEMA, observed(SCHEMA, 7, 5), cohorts(5), np.random.default_rng(0), shadows=8) is None
    assert judge([], np.random.default_rng(0)) is None


def test_draws_come_in_complements() -> None:
    inside = half_in(9, 10, np.random.default_rng(0))
    assert (inside[0::2] ^ inside[1::2]).all()
    assert (inside.sum(axis=0) == 5).all()


def test_the_complement_of_an_emission_does_not_help_to_attack_it() -> None:
    """A statistic that only says who is in another emission than this one tells nothing."""
    rng = np.random.default_rng(0)
    inside = half_in(200, 40, rng)
    noise = rng.normal(size=(20, 200))
    values = np.repeat(noise, 2, axis=0)
    values[1::2] *= -1  # complements are mirror images, whoever is in
    ratio = likelihood_ratio(values[:, :, None], inside)
    gap = ratio[inside].mean() - ratio[~inside].mean()
    assert abs(gap) < 4 * ratio.std() / np.sqrt(inside.size / 2)
