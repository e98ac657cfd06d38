"""An attacker with the list of candidates solves for the members; packets about others name nobody."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from outroute.audit import Emission, cohorts
from outroute.audit.naming import Named, name_members, named
from outroute.distill import Observations
from outroute.schema import Schema

from .making import blind, observed, world

SCHEMA = world()


def test_what_lots_would_name_is_no_advantage() -> None:
    def found(share: float, members: int) -> Named:
        return Named(named=share, precision=share, solved=0.0, candidates=10.0, chance=0.5, members=members)

    assert found(0.6, 20).advantage == 0.0
    assert found(0.6, 2_000).advantage == pytest.approx(0.2)
    assert found(1.0, 20).advantage == 1.0
    assert found(0.4, 2_000).advantage == 0.0


def test_exact_means_name_their_members() -> None:
    site = name_members(SCHEMA, observed(SCHEMA, 60, 1), cohorts(3), np.random.default_rng(0), packets=6)
    assert site is not None
    found = named([site])
    assert found is not None
    assert found.named > 0.6
    assert found.precision > 0.9
    assert found.chance < 0.4


def test_packets_about_other_people_name_nobody() -> None:
    site = name_members(SCHEMA, observed(SCHEMA, 60, 2), blind(SCHEMA, 60), np.random.default_rng(0), packets=6)
    assert site is not None
    found = named([site])
    assert found is not None
    assert found.named == 0.0
    assert found.solved == 0.0


def test_coarse_numbers_hide_the_members() -> None:
    """The same cohorts with conditions rounded to eighths: many subsets fit, so names are mostly wrong."""

    def coarse(schema: Schema, observations: Observations, rng: np.random.Generator) -> Emission:
        made = cohorts(5)(schema, observations, rng)
        return replace(made, x=np.round(made.x * 8) / 8)

    site = name_members(
        SCHEMA, observed(SCHEMA, 80, 3), coarse, np.random.default_rng(0), packets=6, tolerance=1 / 16 + 1e-3
    )
    assert site is not None
    found = named([site])
    assert found is not None
    assert found.solved > 0.5
    assert found.precision < 0.6


def test_noise_hides_the_members_though_the_attacker_allows_for_it() -> None:
    emit = cohorts(5, noise=Decimal("0.2"))
    site = name_members(SCHEMA, observed(SCHEMA, 80, 4), emit, np.random.default_rng(0), packets=6)
    assert site is not None
    found = named([site])
    assert found is not None
    assert found.solved > 0.5
    assert found.precision < 0.7
