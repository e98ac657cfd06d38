"""Reconstruction finds what is planted, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from outroute.audit import FieldScale, cohorts, reconstruct, summarise
from outroute.audit.sketches import from_signs, from_sketches, prior_of
from outroute.distill import Observations
from outroute.schema import Schema, unit_scale

from .making import blind, observed, world

SCHEMA = world()


def attacked(rows: Observations, k: int, schema: Schema = SCHEMA):
    site = reconstruct(schema, rows, cohorts(k), np.random.default_rng(0))
    assert site is not None
    found = summarise([site])
    assert found is not None
    return found


def test_single_records_are_read_off() -> None:
    found = attacked(observed(SCHEMA, 60, 1, missing=0.2), 1)
    assert found.error["packet"] < 1e-6
    assert found.advantage["packet"] > 60
    assert found.error["fingerprint"] < found.error[found.baseline]


def test_cohorts_give_less_and_who_knows_the_others_reads_the_last() -> None:
    rows = observed(SCHEMA, 120, 2, missing=0.2)
    small, large = attacked(rows, 2), attacked(rows, 20)
    assert small.advantage["packet"] > large.advantage["packet"]
    assert small.advantage["members"] > large.advantage["members"]
    for found in (small, large):
        assert found.error["others known"] < 0.01
        assert found.left == 1.0


def test_packets_of_other_people_say_no_more_than_public_statistics() -> None:
    site = reconstruct(SCHEMA, observed(SCHEMA, 150, 3), blind(SCHEMA, 150), np.random.default_rng(0))
    assert site is not None
    found = summarise([site])
    assert found is not None
    for attack in ("packet", "fingerprint", "members"):
        assert found.advantage[attack] < 0.3, attack
    assert found.error["others known"] > 1


def test_a_site_that_emits_nothing_is_not_judged() -> None:
    assert reconstruct(SCHEMA, observed(SCHEMA, 3, 4), cohorts(5), np.random.default_rng(0)) is None
    assert summarise([]) is None


def test_baselines_do_not_contain_the_record_itself() -> None:
    """One far outlier: no public mean moves towards it when its own mean is asked for."""
    rows = observed(SCHEMA, 40, 5)
    codes = rows.codes.copy()
    codes[:, 0], codes[0, 0] = 10_000, 60_000
    site = reconstruct(SCHEMA, replace(rows, codes=codes), cohorts(5), np.random.default_rng(0))
    assert site is not None
    scale = FieldScale.of(SCHEMA, unit_scale(SCHEMA, codes))
    gap = (60_000 - 10_000) / 65_534
    alone = gap**2 / scale.variance[0] / 4
    assert site.errors["site mean"][0] >= alone


def test_signs_of_many_planes_give_a_vector_away() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 0.1, (20, 8))
    planes = rng.choice([-1.0, 1.0], (8, 2048))
    centre = np.full(8, 0.5)
    found = from_signs((x - centre) @ planes > 0, planes, centre, prior_of(x))
    assert np.sqrt(((found - x) ** 2).mean()) < 0.03


@pytest.mark.parametrize("signs", ["true", "random"])
def test_a_fingerprint_is_used_and_random_codes_do_not_help(signs: str) -> None:
    rows = observed(SCHEMA, 80, 6)
    x = unit_scale(SCHEMA, rows.codes)
    codes = rows.codes if signs == "true" else rows.codes[np.random.default_rng(1).permutation(80)]
    scale = FieldScale.of(SCHEMA, x)
    error = np.nanmean(scale.errors(x, from_sketches(SCHEMA, codes, prior_of(x))))
    assert error < 0.5 if signs == "true" else error > 0.95
