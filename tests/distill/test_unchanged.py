"""Where nothing has left before, distilling gives exactly what it always gave: published figures rest on it.

The digests were computed by the first version of the code, before it knew of observations that had left.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from outroute.distill import (
    Agreement,
    Distilled,
    Grouping,
    Observations,
    Waiting,
    distil,
    distil_single,
    distil_waiting,
)
from outroute.schema import Distiller, OutcomeKind, Schema

from .conftest import DAY, SITES, heart_schema, make_observations, make_schema


def digest(*results: Distilled) -> str:
    total = hashlib.sha256()
    for result in results:
        c, w = result.cohorts, result.withheld
        for array in (c.rows, c.offsets, c.codes, c.size, c.subjects, c.bucket, c.facet, c.counts, c.mean, c.variance):
            total.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        total.update(w.rows.tobytes() + w.reasons.tobytes() + bytes([result.k, result.agreeing % 256]))
    return total.hexdigest()[:16]


def world(kind: OutcomeKind, seed: int, **how: int) -> tuple[Schema, Observations]:
    schema = make_schema(k=4, kind=kind, facet=True, lifetime_days=12)
    rng = np.random.default_rng(seed)
    return schema, make_observations(schema, rng, 150, missing=0.1, unknown=0.1, days=10, **how)


BATCH = {
    OutcomeKind.BINARY: "88ddec06f83c4654",
    OutcomeKind.CATEGORICAL: "93d2da0853e42ede",
    OutcomeKind.NUMERIC: "c71a03137499fa06",
}


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_batch(kind: OutcomeKind) -> None:
    schema, observations = world(kind, 21)
    repeated_schema, repeated = world(kind, 22, subjects=30)
    results = [
        distil(s, o, grouping=Grouping(agreement=agreement))
        for s, o in ((schema, observations), (repeated_schema, repeated))
        for agreement in Agreement
    ]
    assert digest(*results) == BATCH[kind]


def test_waiting() -> None:
    schema, observations = world(OutcomeKind.BINARY, 23, subjects=60)
    results = [
        distil_waiting(schema, observations, now=now * DAY, waiting=Waiting(pool_cohorts=pool))
        for now in (0, 8, 40)
        for pool in (1, 2, 4)
    ]
    assert digest(*results) == "87379e85c74d8433"


def test_single() -> None:
    schema = make_schema(k=1, distiller=Distiller.SINGLE)
    observations = make_observations(schema, np.random.default_rng(24), 60, subjects=9, unknown=0.2)
    assert digest(distil_single(schema, observations), distil(schema, observations)) == "3cc9bd11681b2ea6"


def test_the_heart_disease_hospitals(heart: dict[str, Observations]) -> None:
    schema = heart_schema()
    results = [distil(schema, heart[site], k=k) for site in SITES for k in (5, 8)]
    assert digest(*results) == "093697352e7c1cce"
