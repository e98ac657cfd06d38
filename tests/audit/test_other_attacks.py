"""Linkage, attributes, differencing, addresses, questions, the schema file: planted leaks are found, nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from outroute.audit import cohorts
from outroute.audit.addresses import enumerate_addresses
from outroute.audit.attributes import OUTCOME, attribute_gains, attributes
from outroute.audit.differencing import difference, differences
from outroute.audit.linkage import link, linked
from outroute.audit.questions import questioned
from outroute.audit.schemas import landmark_membership, schema_leaks
from outroute.schema import Landmarks, drawn_landmarks

from .making import blind, observed, world

SCHEMA = world()


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_single_records_are_linked_and_strangers_are_not() -> None:
    rows = observed(SCHEMA, 80, 1)
    single, strangers = link(SCHEMA, rows, cohorts(1), rng()), link(SCHEMA, rows, blind(SCHEMA, 80), rng())
    assert single is not None
    assert strangers is not None
    found, none = linked([single]), linked([strangers])
    assert found is not None
    assert none is not None
    assert found.top1 == 1.0
    assert found.chance < 0.02
    assert none.top1 < none.chance + 0.15


def test_attributes_are_read_off_single_records_only() -> None:
    rows = observed(SCHEMA, 120, 2)
    single = attribute_gains(SCHEMA, rows, cohorts(1), rng())
    others = attribute_gains(SCHEMA, rows, blind(SCHEMA, 60), rng())
    assert single is not None
    assert others is not None
    found, none = attributes([single]), attributes([others])
    assert found is not None
    assert none is not None
    assert found.gain > 10
    assert found.outcome_gain > 10
    assert found.gain_others < 1
    assert abs(none.gain - none.gain_others) < 0.5
    assert OUTCOME in single.members


def test_regrouping_without_one_record_gives_it_away_and_the_node_does_not_do_that() -> None:
    site = difference(SCHEMA, observed(SCHEMA, 120, 3), 5, rng())
    assert site is not None
    found = differences([site])
    assert found is not None
    assert found.error_regrouped < 0.35
    assert found.gain_regrouped > 6
    assert found.gain_reemitted < 1


def test_addresses_are_enumerated_in_an_open_network_only() -> None:
    found = enumerate_addresses(SCHEMA, observed(SCHEMA, 60, 4).codes, rng())
    assert found is not None
    assert found.found_open == 1.0
    assert found.found_keyed == 0.0
    assert found.tried == found.possible == 64
    assert enumerate_addresses(SCHEMA, observed(SCHEMA, 0, 4).codes, rng()) is None


def test_more_of_the_nearest_cells_say_more_about_the_case() -> None:
    rows, known = observed(SCHEMA, 60, 5), observed(SCHEMA, 400, 6)
    one, four = (questioned(SCHEMA, rows.codes, known.codes, rng(), probes=p) for p in (1, 4))
    assert one is not None
    assert four is not None
    assert four.gain["all"] > one.gain["all"] > 0.3
    assert four.gain["outside"] < four.gain["all"]
    assert four.addresses == 4


def test_the_same_addresses_for_everybody_say_nothing() -> None:
    rows, known = observed(SCHEMA, 60, 5), observed(SCHEMA, 400, 6)
    whole, theirs = np.ones((60, 64), dtype=bool), np.ones((400, 64), dtype=bool)
    found = questioned(SCHEMA, rows.codes, known.codes, rng(), asked=whole, reference_asked=theirs)
    assert found is not None
    assert abs(found.gain["all"]) < 0.05


def test_a_schema_that_copies_the_table_is_found_out() -> None:
    rows = observed(SCHEMA, 60, 7)
    clean = schema_leaks(SCHEMA, rows.codes, rows.subject, 5)
    assert clean.copies == 0
    assert not clean.exact_ranges or clean.exact_ranges == ("dose",)
    copied = replace(SCHEMA, landmarks=Landmarks(np.vstack([rows.codes[:3], drawn_landmarks(SCHEMA.fields, 8).codes])))
    assert schema_leaks(copied, rows.codes, rows.subject, 5).copies == 3
    codes = rows.codes.copy()
    codes[0, 0] = 65534
    codes[:, 2:5] = (65534, 0, 0)
    codes[0, 2:5] = (0, 0, 65534)
    found = schema_leaks(SCHEMA, codes, rows.subject, 5)
    assert "age" in found.exact_ranges
    assert found.rare == {"ward": ("c",)}


@pytest.mark.parametrize(("k", "leaks"), [(1, True), (20, False)])
def test_landmarks_learnt_from_records_tell_who_was_among_them(k: int, leaks: bool) -> None:
    found = landmark_membership(SCHEMA, observed(SCHEMA, 160, 8), k, rng())
    assert found is not None
    assert (found.ratio.auc.low > 0.55) == leaks
