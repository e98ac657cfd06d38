"""Tables, and emitters that leak everything or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from outroute.audit import Emission, Emitter, cohorts
from outroute.datasets.declare import category, number, schema, two_classes
from outroute.distill import Observations
from outroute.schema import Schema, encode

FIELDS = (
    number("age", "0", "100"),
    number("dose", "0", "10"),
    category("ward", ("a", "b", "c")),
    number("pulse", "40", "180"),
)


def world(k: int = 5) -> Schema:
    return schema("audit tests", FIELDS, two_classes("end", "no", "yes"), k=k, subject="patient")


def observed(made: Schema, n: int, seed: int, *, missing: float = 0.0, each: int = 1) -> Observations:
    """Rows with some structure: an outcome that follows age and dose, ward by age."""
    rng = np.random.default_rng(seed)
    age, dose, pulse = rng.uniform(20, 90, n), rng.gamma(2.0, 1.5, n).clip(0, 10), rng.normal(90, 20, n).clip(40, 180)
    ward = np.array(["a", "b", "c"], dtype=object)[(age // 31).astype(int).clip(0, 2)]
    risk = 1 / (1 + np.exp(-(age - 55) / 15 - (dose - 3) / 2))
    age[rng.random(n) < missing] = np.nan
    codes = encode(made, {"age": age, "dose": dose, "ward": ward, "pulse": pulse}).codes
    return Observations(
        codes=codes,
        outcome=(rng.random(n) < risk).astype(np.float64),
        subject=np.arange(n, dtype=np.int64) // each,
        bucket=np.zeros(n, dtype=np.int64),
        facet=np.zeros(n, dtype=np.int64),
    )


def blind(made: Schema, n: int, k: int = 5) -> Emitter:
    """Emits cohorts of other people: whatever an attack finds in it is an error of the attack."""

    def emit(where: Schema, observations: Observations, rng: np.random.Generator) -> Emission:
        others = observed(made, n, int(rng.integers(2**31)))
        found = cohorts(k)(where, others, rng)
        packet_of = np.arange(len(observations)) % max(len(found), 1)
        return replace(found, packet_of=packet_of.astype(np.int64))

    return emit
