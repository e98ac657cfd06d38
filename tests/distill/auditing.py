"""A lower bound on epsilon from many runs on neighbouring data: what a mechanism gives away, whatever it claims.

Two data sets differ in one subject. Any event that is likelier with the subject than without bounds epsilon from below:
epsilon >= ln((P(event | with) - delta) / P(event | without)), with P from below and above by exact binomial intervals.
Events are thresholds on a few statistics, and "there is no packet". The best event is chosen on one half of the runs
and judged on the other, so that one interval is all that is asked of chance.

Regions do not touch each other, so a release of R regions with a target in each is R independent runs.

Source: Jagielski, Ullman, Oprea, "Auditing Differentially Private Machine Learning" (2020), section 4; Nasr et al.,
"Tight Auditing of Differentially Private Machine Learning" (2023), section 3; intervals of Clopper and Pearson (1934).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from outroute.distill import Noise, Observations, Release, distil_private
from outroute.packet import places
from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    encode,
    grid_landmarks,
)

ALPHA = 1e-9
"""Probability that a bound is wrong, so also that a sound mechanism is accused by chance in one audit."""
REGIONS = 2_048
QUANTILES = np.linspace(0.002, 0.998, 100)

Floats = NDArray[np.float64]
Mechanism = Callable[[Schema, Observations, NDArray[np.int64], Noise], Release]
"""As ``distil_private``."""


class SeededNoise:
    """The same distribution from a seeded generator, as the difference of two geometric variables: for tests only."""

    def __init__(self, seed: int, *, part: float = 1.0) -> None:
        self._rng, self._part = np.random.default_rng(seed), part

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        stop = -math.expm1(-1.0 / (scale * self._part))
        return values + self._rng.geometric(stop, len(values)) - self._rng.geometric(stop, len(values))


class NoNoise:
    """No noise at all, so that sensitivities can be seen; it remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, int, Fraction]] = []

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        self.asked.append((scale, sensitivity, epsilon))
        return values.copy()


def schema_for(kind: OutcomeKind, *, regions: int = REGIONS, **privacy: Any) -> Schema:
    """One field with a region for each of its levels."""
    fields = (Field(name="x", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(1)),)
    classes = {OutcomeKind.BINARY: ("no", "yes"), OutcomeKind.CATEGORICAL: ("a", "b", "c")}
    if kind is OutcomeKind.NUMERIC:
        outcome = Outcome(name="y", kind=kind, low=Decimal(-2), high=Decimal(6))
    else:
        outcome = Outcome(name="y", kind=kind, classes=classes[kind])
    promise: dict[str, Any] = {"k": 1, "epsilon": Decimal(1), "m": 1, "releases": 10}
    return Schema(
        name="audit",
        fields=fields,
        outcome=outcome,
        privacy=Privacy(distiller=Distiller.PRIVATE, **(promise | privacy)),
        time=Time(bucket_seconds=86_400, lifetime_seconds=864_000),
        landmarks=grid_landmarks(fields, {"x": regions}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Two data sets, in each region of which one subject is there, or is not.

    Attributes:
        with_: the records with the target of each region, its own first.
        without: the same without the targets.
    """

    with_: Observations
    without: Observations


def neighbours(schema: Schema, *, others: int, records: int, target: float, other: float = 0.0) -> Neighbours:
    """In every region a target with some records, and other subjects with one record each."""
    many = len(schema.landmarks)
    where = (np.arange(many) + 0.5) / many

    def made(own: int) -> Observations:
        x = np.concatenate([np.repeat(where, own), np.repeat(where, others)])
        n = len(x)
        subject = np.concatenate([np.repeat(np.arange(many), own), many + np.arange(many * others)])
        zero = np.zeros(n, dtype=np.int64)
        return Observations(
            codes=encode(schema, {"x": x}).codes,
            outcome=np.concatenate([np.full(many * own, target), np.full(many * others, other)]),
            subject=subject.astype(np.int64),
            bucket=zero,
            facet=zero,
        )

    return Neighbours(with_=made(records), without=made(0))


def outputs(
    mechanism: Mechanism, schema: Schema, observations: Observations, noise: Noise, runs: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """What regions say, float64 ``[runs * R, places]``, and where there is no packet."""
    said, absent = [], []
    for _ in range(runs):  # the same data, noise of its own
        left = np.full(len(observations), schema.privacy.m, dtype=np.int64)
        made = mechanism(schema, observations, left, noise)
        sums = np.zeros((len(schema.landmarks), places(schema)))
        sums[made.regions] = made.sums
        gone = np.ones(len(sums), dtype=np.bool_)
        gone[made.regions] = False
        said.append(sums)
        absent.append(gone)
    return np.concatenate(said), np.concatenate(absent)


Said = tuple[Floats, NDArray[np.bool_]]
"""What ``outputs`` gives."""


def lower_bound(with_: Said, without: Said, *, delta: float = 0.0) -> float:
    """A bound on epsilon that holds with probability 1 - ``ALPHA``."""
    first = _statistics(_half(with_, 0), _half(without, 0))
    tests = [first(*_half(sample, which)) for sample in (with_, without) for which in (0, 1)]
    best = -math.inf
    for likely, rarely in ((tests[:2], tests[2:]), (tests[2:], tests[:2])):
        which, cut = _best_event(likely[0], rarely[0], delta)
        hits, others = (int((judged[1][which] >= cut).sum()) for judged in (likely, rarely))
        bound = _bounds(np.array([hits]), likely[1].shape[1], np.array([others]), rarely[1].shape[1], delta, ALPHA / 2)
        best = max(best, float(bound[0]))
    return best


def _half(sample: Said, which: int) -> Said:
    return sample[0][which::2], sample[1][which::2]


def _statistics(with_: Said, without: Said) -> Callable[[Floats, NDArray[np.bool_]], Floats]:
    """Statistics float64 ``[S, n]`` of which large values are events: the likelihood ratio of Laplace noise, both ways,
    each sum, both ways, and whether there is no packet, or one. Chosen on one half of the runs."""
    middle = [np.median(sample[0], axis=0) for sample in (with_, without)]
    spread = np.abs(without[0] - middle[1]).mean(axis=0) + 1e-9
    low, high = np.minimum(*middle), np.maximum(*middle)
    sign = np.sign(middle[0] - middle[1])

    def of(x: Floats, gone: NDArray[np.bool_]) -> Floats:
        ratio = (sign * np.clip(x, low, high) / spread).sum(axis=1)
        signed = np.where(gone, -np.inf, np.stack([ratio, -ratio, *x.T, *-x.T]))
        return np.concatenate([signed, [gone.astype(np.float64), -gone.astype(np.float64)]])

    return of


def _best_event(likely: Floats, rarely: Floats, delta: float) -> tuple[int, float]:
    """The statistic and the cut that promise the largest bound, where rare events are promised less."""
    best, chosen = -math.inf, (0, 0.0)
    for which, (a, b) in enumerate(zip(np.sort(likely, axis=1), np.sort(rarely, axis=1), strict=True)):
        finite = np.concatenate([a[np.isfinite(a)], b[np.isfinite(b)]])
        if not len(finite):
            continue
        cuts = np.unique(np.append(np.quantile(finite, QUANTILES, method="lower"), finite.max()))
        hits, others = len(a) - np.searchsorted(a, cuts), len(b) - np.searchsorted(b, cuts)
        bounds = _bounds(hits, len(a), others, len(b), delta, 1e-3)
        if bounds.max() > best:
            best, chosen = float(bounds.max()), (which, float(cuts[bounds.argmax()]))
    return chosen


def _bounds(
    hits: NDArray[np.int64], runs: int, others: NDArray[np.int64], other_runs: int, delta: float, alpha: float
) -> Floats:
    """Clopper-Pearson, one-sided at ``alpha / 2`` each."""
    low = np.where(hits > 0, beta.ppf(alpha / 2, np.maximum(hits, 1), runs - np.maximum(hits, 1) + 1), 0.0)
    rest = np.maximum(other_runs - others, 1)
    high = np.where(others < other_runs, beta.ppf(1 - alpha / 2, others + 1, rest), 1.0)
    return np.log(np.maximum(low - delta, 1e-300) / high)


def audited(
    schema: Schema,
    pair: Neighbours,
    noise: Callable[[int], Noise],
    *,
    runs: int = 16,
    mechanism: Mechanism = distil_private,
) -> float:
    """The bound for a mechanism on two neighbouring data sets; ``noise`` makes a source from a seed."""
    there = outputs(mechanism, schema, pair.with_, noise(1), runs)
    gone = outputs(mechanism, schema, pair.without, noise(2), runs)
    return lower_bound(there, gone, delta=float(schema.privacy.delta))
