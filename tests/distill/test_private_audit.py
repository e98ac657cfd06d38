"""Nobody's epsilon is larger than claimed, as far as any event tells; and every broken mechanism is found out.

A sound mechanism is accused by chance with a probability below 1e-9 an audit (``auditing.ALPHA``), so of all audits in
this file together below 1e-7. Broken ones are seeded: their bounds are the same in every run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from outroute.distill import Noise, Observations, Release, distil_private
from outroute.node.noise import OpenDPNoise
from outroute.schema import OutcomeKind, Schema

from .auditing import SeededNoise, audited, neighbours, schema_for

CLASSES = (OutcomeKind.BINARY, OutcomeKind.CATEGORICAL)


@pytest.mark.parametrize("kind", OutcomeKind)
def test_opendp_keeps_the_claim(kind: OutcomeKind) -> None:
    """The noise that nodes really use; unseeded, since OpenDP cannot be seeded."""
    schema = schema_for(kind, regions=1_024)
    pair = neighbours(schema, others=2, records=1, target=6.0 if kind is OutcomeKind.NUMERIC else 1.0)
    source = OpenDPNoise()
    found = audited(schema, pair, lambda _: source, runs=8)
    assert 0.3 < found <= 1.0


@pytest.mark.parametrize("epsilon", ["0.5", "1", "3"])
@pytest.mark.parametrize("kind", OutcomeKind)
def test_the_claim_is_kept_and_not_far_from_what_is_found(kind: OutcomeKind, epsilon: str) -> None:
    schema = schema_for(kind, epsilon=Decimal(epsilon))
    target = 6.0 if kind is OutcomeKind.NUMERIC else 1.0
    pair = neighbours(schema, others=1, records=1, target=target, other=-2.0 if kind is OutcomeKind.NUMERIC else 0.0)
    found = audited(schema, pair, SeededNoise)
    assert found <= float(epsilon)
    # A test that could find nothing would find nothing wrong either.
    assert found > 0.4 * float(epsilon)


def test_several_records_of_a_subject_cost_no_more() -> None:
    schema = schema_for(OutcomeKind.BINARY, m=3)
    found = audited(schema, neighbours(schema, others=2, records=7, target=1.0), SeededNoise)
    assert 0.6 < found <= 1.0


def test_with_delta_a_lonely_subject_is_not_told() -> None:
    schema = schema_for(OutcomeKind.BINARY, delta=Decimal("0.001"))
    found = audited(schema, neighbours(schema, others=0, records=1, target=1.0), SeededNoise)
    assert found <= 1.0
    crowded = audited(schema, neighbours(schema, others=12, records=1, target=1.0), SeededNoise)
    assert 0.3 < crowded <= 1.0


def half_the_noise(seed: int) -> Noise:
    return SeededNoise(seed, part=0.5)


def no_bound(schema: Schema, observations: Observations, left: NDArray[np.int64], noise: Noise) -> Release:
    """Whatever a subject has is counted."""
    return distil_private(schema, observations, np.full_like(left, 1_000), noise)


def no_empty_cells(schema: Schema, observations: Observations, left: NDArray[np.int64], noise: Noise) -> Release:
    """Regions where nobody was observed have no packet."""
    made = distil_private(schema, observations, left, noise)
    full = np.isin(made.regions, made.region)
    return dataclasses.replace(made, regions=made.regions[full], sums=made.sums[full])


class BareCount:
    """The first quantity that noise is asked for gets none: of a number, that is the count."""

    def __init__(self, seed: int) -> None:
        self._noise, self._asked = SeededNoise(seed), 0

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        self._asked += 1
        bare = self._asked % 3 == 1
        noisy = self._noise.laplace(values, scale, sensitivity=sensitivity, epsilon=epsilon)
        return values.copy() if bare else noisy


class BareClass(SeededNoise):
    """The counts of the last class get no noise."""

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        noisy = super().laplace(values, scale, sensitivity=sensitivity, epsilon=epsilon)
        noisy[1::2] = values[1::2]
        return noisy


Broken = tuple[OutcomeKind, Callable[[int], Noise], Callable[..., Release], int, int]
BROKEN: dict[str, Broken] = {
    "noise of half the scale, classes": (OutcomeKind.BINARY, half_the_noise, distil_private, 1, 1),
    "noise of half the scale, numbers": (OutcomeKind.NUMERIC, half_the_noise, distil_private, 1, 1),
    "contributions not bounded": (OutcomeKind.BINARY, SeededNoise, no_bound, 1, 3),
    "contributions not bounded, numbers": (OutcomeKind.NUMERIC, SeededNoise, no_bound, 1, 3),
    "empty cells dropped": (OutcomeKind.BINARY, SeededNoise, no_empty_cells, 0, 1),
    "the count has no noise": (OutcomeKind.NUMERIC, BareCount, distil_private, 1, 1),
    "the count of a class has no noise": (OutcomeKind.BINARY, BareClass, distil_private, 1, 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_mechanisms_are_found_out(name: str) -> None:
    kind, noise, mechanism, others, records = BROKEN[name]
    schema = schema_for(kind)
    target = 6.0 if kind is OutcomeKind.NUMERIC else 1.0
    pair = neighbours(schema, others=others, records=records, target=target)
    assert audited(schema, pair, noise, mechanism=mechanism) > 1.1


def test_delta_that_tells_everybody_is_found_out() -> None:
    """A threshold of nothing: whoever is alone in a region is told with a packet, far beyond delta."""
    schema = schema_for(OutcomeKind.BINARY, delta=Decimal("0.001"))
    pair = neighbours(schema, others=0, records=1, target=1.0)

    def tells(schema: Schema, observations: Observations, left: NDArray[np.int64], noise: Noise) -> Release:
        pure = dataclasses.replace(schema, privacy=dataclasses.replace(schema.privacy, delta=Decimal(0)))
        return no_empty_cells(pure, observations, left, noise)

    assert audited(schema, pair, SeededNoise, mechanism=tells) > 3.0
