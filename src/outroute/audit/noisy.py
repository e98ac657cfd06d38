"""The distiller ``private`` under attack: the same path as a node's, from noisy sums to what others make of them.

Everybody can work out in which region a record would be counted, so the strongest trace that it leaves is the sum of
its own class in its own region. What noise with a lifetime budget epsilon promises is a bound on every attack at once
(:func:`most_auc`, :func:`most_found`), and the audit prints it beside what its attacks reach.

Source: Kairouz, Oh, Viswanath, "The Composition Theorem for Differential Privacy" (ICML 2015), section 2, for the
region of false and true positives that (epsilon, delta) leaves to any test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.emission import Emission, Emitter, outcome_numbers
from outroute.audit.membership import LEAST_SUBJECTS, half_in
from outroute.audit.scores import FALSE_POSITIVES, Detection, detection
from outroute.distill import distil_private, plan_of
from outroute.node.evidence import evidence_of
from outroute.packet import build_noisy, contributions, region_of, regions_of
from outroute.schema import Distiller, Privacy, drawn_landmarks, grid_landmarks

if TYPE_CHECKING:
    from outroute.distill import Noise, Observations
    from outroute.schema import Schema

__all__ = [
    "MARKS",
    "NoisySums",
    "SeededNoise",
    "bounds",
    "informed",
    "join_informed",
    "most_auc",
    "most_found",
    "private",
    "private_floor",
]

MARKS = 32
"""Landmarks drawn from the declared ranges where no grid is given: a few records each at sites of a hundred."""
NOBODY = bytes(32)
"""Stands for the author's key: nobody here doubts who wrote the packets."""


class SeededNoise:
    """Discrete Laplace noise as the difference of two geometric variables: OpenDP's law, drawn from a seed.

    For measurements that others must be able to repeat. It promises nothing, for whoever has the seed takes it off.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        """See ``outroute.distill.Noise``."""
        stop = -math.expm1(-1.0 / scale)
        return values + self._rng.geometric(stop, len(values)) - self._rng.geometric(stop, len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisySums:
    """Releases as an attacker reads them.

    Attributes:
        schema: with the promise; it says which region a record belongs to, and how large the noise is.
        sums: float64[releases, regions, places], with noise; 0 where a region was not told.
        until: int64[releases], the bucket up to which each release counts records, ascending; the last is the largest.
    """

    schema: Schema
    sums: NDArray[np.float64]
    until: NDArray[np.int64]

    def traces(self, rows: Observations) -> NDArray[np.float64]:
        """Statistics of every record, float64[n, 3]: minus the sums that it would have moved (in units of their noise,
        times how far it would have moved them), all sums of its region, and sums like the first over all regions."""
        plan = plan_of(self.schema)
        scales = np.array(plan.scales)
        moved = contributions(self.schema, rows.outcome) / scales
        seen = self.sums / scales
        release = np.searchsorted(self.until, rows.bucket)
        own = seen[release, region_of(self.schema, rows.codes)]
        everywhere = seen.sum(axis=1)[release]
        return np.stack([-(own * moved).sum(axis=1), own.sum(axis=1), (everywhere * moved).sum(axis=1)], axis=1)


def private_floor(schema: Schema, epsilon: Decimal, *, grid: Mapping[str, int] | None = None, m: int = 1) -> Schema:
    """The same schema with a promise of differential privacy, so that it can be measured. Its id differs.

    A schema that promises it already keeps its regions and records of a subject; only epsilon changes.

    Args:
        schema: the schema.
        epsilon: of one subject over the node's lifetime.
        grid: levels of some fields; None: ``MARKS`` landmarks drawn from the declared ranges.
        m: records that a subject gives at most.
    """
    own = schema.privacy
    if own.distiller is Distiller.PRIVATE:
        return replace(schema, privacy=replace(own, epsilon=epsilon))
    marks = drawn_landmarks(schema.fields, MARKS) if grid is None else grid_landmarks(schema.fields, grid)
    promise = Privacy(distiller=Distiller.PRIVATE, k=1, subject=own.subject, epsilon=epsilon, m=m, releases=1)
    return replace(schema, privacy=promise, landmarks=marks)


def private(
    epsilon: Decimal,
    *,
    grid: Mapping[str, int] | None = None,
    noise: Noise | None = None,
    until: Sequence[int] = (),
) -> Emitter:
    """Everything that a node releases under a lifetime budget, as the receivers of its packets read it.

    Args:
        epsilon: of one subject over the node's lifetime.
        grid: see ``private_floor``.
        noise: a source of noise; None: drawn from the emission's own randomness, so that the same seed finds the same.
            A node has OpenDP; its law is the same, and a test compares them.
        until: the last buckets of all releases but the last one; none for one release. No budget is split: a record is
            in one release.
    """
    ends = np.array([*until, np.iinfo(np.int64).max], dtype=np.int64)

    def emit(schema: Schema, observations: Observations, rng: np.random.Generator) -> Emission:
        own, source = private_floor(schema, epsilon, grid=grid), noise or SeededNoise(rng)
        regions, m = regions_of(own), own.privacy.m or 1
        first = _first_rows(observations.subject, m)
        release = np.searchsorted(ends, observations.bucket)
        packet_of = np.full(len(observations), -1, dtype=np.int64)
        sums = np.zeros((len(ends), len(regions), len(plan_of(own).scales)))
        packets, told, at = [], [], 0
        for number in range(len(ends)):
            rows = np.flatnonzero(first & (release == number))
            made = distil_private(own, observations.take(rows), np.full(len(rows), m, dtype=np.int64), source)
            sums[number, made.regions] = made.sums
            place = np.searchsorted(made.regions, made.region)
            there = np.isin(made.region, made.regions)
            packet_of[rows[made.rows[there]]] = at + place[there]
            sequence = np.arange(at, at + len(made.regions), dtype=np.uint64)
            packets.append(
                build_noisy(own, author=NOBODY, sequence=sequence, regions=made.regions, sums=made.sums, bucket=0)
            )
            told.append(made.regions)
            at += len(made.regions)
        read = evidence_of(own, np.concatenate(packets))
        if read.counts is not None:
            outcome = read.counts / np.maximum(read.size, 1e-12)[:, None]
        else:
            assert read.mean is not None
            outcome = outcome_numbers(schema, read.mean)
        return Emission(
            x=read.x,
            size=read.size,
            outcome=outcome,
            bucket=np.full(at, int(observations.bucket.max(initial=0)), dtype=np.int64),
            facet=regions.facet[np.concatenate(told)],
            packet_of=packet_of,
            noisy=NoisySums(schema=own, sums=sums, until=ends),
        )

    return emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Informed:
    """Pairs of a person and an emission at one site: score, truth, and which draw of noise the score has."""

    score: NDArray[np.float64]
    member: NDArray[np.bool_]
    noise: NDArray[np.int64]


def informed(
    schema: Schema, observations: Observations, emit: Emitter, rng: np.random.Generator, *, draws: int
) -> Informed | None:
    """The attacker that the promise is made against: it knows everybody else's records and who of them is in.

    It takes them off the noisy sums and looks at what is left in the place of the one person. No attack is stronger
    where a subject gives one record, so what it reaches lies close below the bound. None with too few subjects.

    Args:
        schema: the schema.
        observations: one site's; a subject's first record counts.
        emit: ``private``.
        rng: tosses a coin for everybody, and draws what the emitter draws.
        draws: emissions, an even number.
    """
    rows = observations.take(np.flatnonzero(~np.isnan(observations.outcome)))
    rows = rows.take(np.flatnonzero(_first_rows(rows.subject, 1)))
    if len(rows) < LEAST_SUBJECTS:
        return None
    inside = half_in(len(rows), draws, rng, coins=True)
    score, shared = np.zeros(inside.shape), np.zeros(inside.shape, dtype=np.int64)
    for number, chosen in enumerate(inside):
        noisy = emit(schema, rows.take(np.flatnonzero(chosen)), rng).noisy
        assert noisy is not None
        scales = np.array(plan_of(noisy.schema).scales)
        moved = contributions(noisy.schema, rows.outcome).astype(np.float64)
        region = region_of(noisy.schema, rows.codes)
        release = np.searchsorted(noisy.until, rows.bucket)
        truth = np.zeros_like(noisy.sums)
        np.add.at(truth, (release[chosen], region[chosen]), moved[chosen])
        others = truth[release, region] - np.where(chosen[:, None], moved, 0.0)
        score[number] = ((noisy.sums[release, region] - others) * moved / scales**2).sum(axis=1)
        place = region * len(scales) + (moved != 0).argmax(axis=1)
        shared[number] = (number * len(noisy.until) + release) * noisy.sums[0].size + place
    return Informed(score=score.reshape(-1), member=inside.reshape(-1), noise=shared.reshape(-1))


def join_informed(sites: list[Informed], rng: np.random.Generator) -> Detection | None:
    """One judgement over the sites; pairs that share a draw of noise are drawn together by the bootstrap."""
    if not sites:
        return None
    first = np.cumsum([0, *(int(site.noise.max()) + 1 for site in sites)])
    noise = np.concatenate([site.noise + at for site, at in zip(sites, first, strict=False)])
    score, member = (np.concatenate([getattr(s, name) for s in sites]) for name in ("score", "member"))
    return detection(score, member, noise, rng)


def _first_rows(subject: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """The first rows of every subject, as many as it may give, bool[n]."""
    order = np.argsort(subject, kind="stable")
    ordered = subject[order]
    start = np.flatnonzero(np.append(True, np.diff(ordered) > 0)) if len(ordered) else np.zeros(0, dtype=np.int64)
    rank = np.empty(len(subject), dtype=np.int64)
    rank[order] = np.arange(len(subject)) - np.repeat(start, np.diff(np.append(start, len(subject))))
    return rank < most


def most_found(epsilon: float, false: float, delta: float = 0.0) -> float:
    """Largest true-positive rate of any test for membership at this false-positive rate."""
    return min(1.0, math.exp(epsilon) * false + delta, 1.0 - math.exp(-epsilon) * (1.0 - delta - false))


def most_auc(epsilon: float, delta: float = 0.0) -> float:
    """Largest area under the curve of any test for membership: e^epsilon / (1 + e^epsilon) where delta is 0.

    With delta above 0, the true-positive rate is higher by delta at most everywhere, and so is the area.
    """
    return min(1.0, 1.0 / (1.0 + math.exp(-epsilon)) + delta)


def bounds(epsilon: float, delta: float = 0.0) -> dict[str, Any]:
    """What no attack on membership can do better than, as plain values."""
    return {
        "auc": most_auc(epsilon, delta),
        "tpr": {f"{rate:g}": most_found(epsilon, rate, delta) for rate in FALSE_POSITIVES},
    }
