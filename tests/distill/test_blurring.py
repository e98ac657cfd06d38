"""Noise on conditions, outcomes drawn by lot, and dissent: as much as the schema says, and nothing without."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outroute.audit import cohorts, judge, membership_pairs
from outroute.distill import Agreement, Grouping, Observations, blurred, distil, distil_waiting
from outroute.distill.blurring import deviates
from outroute.errors import DataError, SchemaError
from outroute.identity import Identity
from outroute.node.emitting import make_packets
from outroute.node.evidence import evidence_of
from outroute.packet import accept
from outroute.schema import MISSING, SCALE, OutcomeKind, Privacy, Schema, codes_problem, dumps, loads

from .conftest import make_observations, make_schema

KEY = b"k" * 32


def asking(schema: Schema, **privacy: Any) -> Schema:
    return replace(schema, privacy=replace(schema.privacy, **privacy))


def some(n: int = 120, kind: OutcomeKind = OutcomeKind.BINARY, **privacy: Any) -> tuple[Schema, Observations]:
    schema = asking(make_schema(k=6, kind=kind, facet=True), **privacy)
    return schema, make_observations(schema, np.random.default_rng(3), n, missing=0.2)


def test_deviates_are_uniform_and_depend_on_the_key() -> None:
    drawn = deviates(KEY, (200, 500))
    assert drawn.min() > 0
    assert drawn.max() < 1
    count = np.histogram(drawn, bins=100, range=(0, 1))[0]
    assert float(((count - 1000) ** 2 / 1000).sum()) < 200  # chi-squared, 99 degrees: beyond one in a million
    assert np.array_equal(drawn, deviates(KEY, (200, 500)))
    assert not (deviates(b"l" * 32, (200, 500)) == drawn).any()


@given(noise=st.integers(1, 50), seed=st.integers(0, 99), kind=st.sampled_from(OutcomeKind))
def test_noisy_conditions_are_still_conditions(noise: int, seed: int, kind: OutcomeKind) -> None:
    schema, rows = some(kind=kind, noise=Decimal(noise) / 100)
    made = distil(schema, rows).cohorts
    found = blurred(schema, made, seed.to_bytes(32, "little"))
    assert not codes_problem(schema, found.codes).any()
    assert np.array_equal(found.codes == MISSING, made.codes == MISSING)
    for item in schema.facets:
        assert np.array_equal(found.codes[:, schema.slots[item.name]], made.codes[:, schema.slots[item.name]])
    assert found.counts is made.counts
    assert np.array_equal(found.mean, made.mean, equal_nan=True)


def test_noise_is_as_large_as_the_schema_says() -> None:
    schema = asking(make_schema(k=6), noise=Decimal("0.05"))
    rows = make_observations(schema, np.random.default_rng(3), 3_000)
    made = distil(schema, rows).cohorts
    slot = schema.slots["x"].start
    middle = (made.codes[:, slot] > SCALE // 4) & (made.codes[:, slot] < SCALE * 3 // 4)
    moved = (blurred(schema, made, KEY).codes[:, slot].astype(float) - made.codes[:, slot])[middle] / SCALE
    assert len(moved) > 100
    assert moved.std() == pytest.approx(0.05, rel=0.2)
    assert abs(moved.mean()) < 0.02


def test_without_being_asked_nothing_changes() -> None:
    schema, rows = some()
    made = distil(schema, rows).cohorts
    assert blurred(schema, made, KEY) is made
    with pytest.raises(DataError):
        blurred(schema, made, b"short")


def test_outcomes_drawn_by_lot_are_corrected_by_who_receives_them() -> None:
    schema = asking(make_schema(k=6), flip=Decimal("0.4"), dissent=0)
    rows = make_observations(schema, np.random.default_rng(3), 6_000)
    rows = replace(rows, outcome=(rows.codes[:, 0] > SCALE * 0.8).astype(np.float64))
    made = distil(schema, rows)
    found = make_packets(
        schema,
        rows,
        made,
        identity=Identity(KEY),
        first_sequence=7,
        nonce=lambda: bytes(32),
        secret=b"",
    ).packets
    truth = float(rows.outcome[made.cohorts.rows].mean())
    counts = found["outcome"][:, :2].astype(float)
    assert accept(found, schema, int(rows.bucket.max()) + 86_400).ok.all()
    said = counts[:, 1].sum() / counts.sum()
    assert said == pytest.approx(0.6 * truth + 0.2, abs=0.02)
    corrected = evidence_of(schema, found)
    assert corrected.counts is not None
    assert np.allclose(corrected.counts.sum(axis=1), found["size"])
    # Cohort by cohort what is below nothing is cut off, so some of the rare class is left too much in small ones.
    right = float((corrected.counts[:, 1]).sum() / corrected.counts.sum())
    assert abs(right - truth) < 0.7 * abs(said - truth)


def test_packets_carry_the_noise_and_a_new_one_each_time() -> None:
    schema, rows = some(noise=Decimal("0.1"))
    made = distil(schema, rows)

    def conditions(first: int, key: bytes = KEY) -> np.ndarray[Any, Any]:
        found = make_packets(
            schema, rows, made, identity=Identity(key), first_sequence=first, nonce=lambda: bytes(32), secret=b""
        )
        assert accept(found.packets, schema, int(rows.bucket.max()) + 86_400).ok.all()
        return found.packets["conditions"][:, : schema.width]

    one = conditions(1)
    assert np.array_equal(one, conditions(1))
    assert not np.array_equal(one, made.cohorts.codes)
    assert not np.array_equal(one, conditions(2))
    assert not np.array_equal(one, conditions(1, b"o" * 32))


@given(dissent=st.integers(1, 3), seed=st.integers(0, 500), rare=st.floats(0.02, 0.5), streaming=st.booleans())
def test_every_cohort_holds_enough_dissent(dissent: int, seed: int, rare: float, streaming: bool) -> None:
    schema = asking(make_schema(k=6), dissent=dissent)
    rng = np.random.default_rng(seed)
    rows = make_observations(schema, rng, 150, subjects=90)
    rows = replace(rows, outcome=(rng.random(150) < rare).astype(np.float64))
    if streaming:
        made = distil_waiting(schema, rows, now=int(rows.bucket.max()))
    else:
        made = distil(schema, rows)
    counts = made.cohorts.counts
    assert counts is not None
    assert (counts.min(axis=1) >= dissent).all()
    assert (made.cohorts.subjects == made.cohorts.size).all()
    assert (made.cohorts.size >= 6).all()
    assert len(made.cohorts.rows) + len(made.withheld) == 150
    if int(np.minimum(rows.outcome.sum(), (1 - rows.outcome).sum())) < dissent:
        assert not len(made.cohorts)


def test_dissent_of_one_is_what_always_was_and_none_allows_agreement() -> None:
    schema, rows = some()
    rows = replace(rows, outcome=(np.random.default_rng(4).random(len(rows)) < 0.2).astype(np.float64))
    plain = distil(schema, rows)
    assert distil(schema, rows, grouping=Grouping(agreement=Agreement.MERGE)).cohorts == plain.cohorts
    allowed = distil(asking(schema, dissent=0), rows)
    assert allowed.agreeing > plain.agreeing == 0
    assert allowed.cohorts == distil(schema, rows, grouping=Grouping(agreement=Agreement.ALLOW)).cohorts


def test_a_schema_says_it_and_one_that_does_not_keeps_its_id() -> None:
    schema = make_schema(k=10)
    assert asking(schema, noise=Decimal("0.00"), dissent=1, flip=Decimal(0)).id == schema.id
    full = asking(schema, noise=Decimal("0.1"), dissent=2, flip=Decimal("0.05"))
    assert full.id != schema.id
    back = loads(dumps(full))
    assert (back.id, back.privacy) == (full.id, full.privacy)
    assert asking(schema, noise=Decimal("0.10")).id == asking(schema, noise=Decimal("0.1")).id
    for wrong in (
        {"noise": Decimal("0.51")},
        {"noise": Decimal("0.001")},
        {"noise": Decimal("NaN")},
        {"flip": Decimal(1)},
        {"dissent": 6},
        {"dissent": -1},
    ):
        with pytest.raises(SchemaError):
            Privacy(k=10, **wrong)  # type: ignore[arg-type]
    with pytest.raises(SchemaError):
        asking(make_schema(k=10, kind=OutcomeKind.NUMERIC), flip=Decimal("0.1"))


def test_the_attack_on_membership_fails_under_noise_and_larger_cohorts() -> None:
    """On data in which cohorts of five leak: two clear numbers, many subjects."""
    schema = make_schema(k=5)
    rows = make_observations(schema, np.random.default_rng(11), 100)
    found = {}
    for name, own in (("naive", schema), ("advised", asking(schema, k=10, noise=Decimal("0.1")))):
        pairs = membership_pairs(own, rows, cohorts(own.privacy.k), np.random.default_rng(1), shadows=32)
        assert pairs is not None
        judged = judge([pairs], np.random.default_rng(2))
        assert judged is not None
        found[name] = judged.ratio.auc
    assert found["naive"].low > 0.6
    assert found["advised"].value < found["naive"].value - 0.05
