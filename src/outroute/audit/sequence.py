"""Packets that leave one after another, under the eyes of somebody who knows when each person came.

With everything emitted at once an attacker sees a set of packets. With records that arrive over time it sees a
sequence, and may know more: a packet from before a person's visit cannot hold the visit, and the newest record is
likely to be in one of the next cohorts. Nothing is regrouped, so two successive snapshots differ by the packets that
are new, and by nothing else: what there is to gain is in who could be in them, and that is attacked here.

The same emissions are judged twice: by what is in them alone, and by that and their times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.emission import Emission, Emitter, floor_of, of_cohorts
from outroute.audit.membership import LEAST_SUBJECTS, Membership, Pairs, half_in, judge, pairs_of
from outroute.audit.naming import Named, Naming, name_members, named
from outroute.audit.scores import FieldScale
from outroute.audit.traces import distances, traces
from outroute.distill import Agreement, Grouping, blurred, distil_waiting
from outroute.schema import unit_scale

if TYPE_CHECKING:
    from outroute.distill import Cohorts, Observations
    from outroute.schema import Schema

__all__ = ["STEPS", "Sequence", "arriving", "in_steps", "sequence", "sequences"]

STEPS = 20
"""Times at which a node distils what has arrived, as in the trials of streaming."""
NEVER = np.iinfo(np.int64).max
"""The time of packets of which only the content is looked at."""


def in_steps(observations: Observations, rng: np.random.Generator, steps: int = STEPS) -> Observations:
    """Observations with known outcomes and the number of the step at which each subject comes for a bucket.

    Those of a table with times come in their order, others in one that is drawn.
    """
    rows = observations.take(np.flatnonzero(~np.isnan(observations.outcome)))
    people, subject = np.unique(rows.subject, return_inverse=True)
    first = np.full(len(people), NEVER)
    np.minimum.at(first, subject.reshape(-1), rows.bucket)
    place = np.empty(len(people), dtype=np.int64)
    place[np.lexsort((rng.random(len(people)), first))] = np.arange(len(people))
    step = place * steps // max(len(people), 1)
    return replace(rows, bucket=step[subject.reshape(-1)])


def arriving(k: int, grouping: Grouping | None = None, *, noise: Decimal | None = None, steps: int = STEPS) -> Emitter:
    """Cohorts as a node makes them while records arrive; observations have steps for buckets (:func:`in_steps`).

    Args:
        k, grouping, noise: as for :func:`outroute.audit.emission.cohorts`.
        steps: times at which the node distils what has not left yet.
    """
    how = grouping or Grouping(agreement=Agreement.MERGE)

    def emit(schema: Schema, observations: Observations, rng: np.random.Generator) -> Emission:
        own = floor_of(schema, k)
        if noise is not None:
            own = replace(own, privacy=replace(own.privacy, noise=noise))
        left = np.zeros(len(observations), dtype=bool)
        parts: list[Emission] = []
        packet_of = np.full(len(observations), -1, dtype=np.int64)
        # One time window for all: how long a record waits depends on how many come, not on the calendar.
        flat = replace(observations, bucket=np.zeros(len(observations), dtype=np.int64))
        for step in range(steps):
            here = np.flatnonzero(~left & (observations.bucket <= step))
            seeded = replace(how, seed=int(rng.integers(2**31)))
            made: Cohorts = distil_waiting(own, flat.take(here), now=0, k=k, grouping=seeded).cohorts
            if not len(made):
                continue
            part = of_cohorts(own, blurred(own, made, rng.bytes(32)), len(here))
            inside = np.flatnonzero(part.packet_of >= 0)
            packet_of[here[inside]] = part.packet_of[inside] + sum(len(one) for one in parts)
            left[here[inside]] = True
            parts.append(replace(part, bucket=np.full(len(part), step, dtype=np.int64)))
        return _one_after_another(own, schema, parts, packet_of)

    return emit


def _one_after_another(own: Schema, schema: Schema, parts: list[Emission], packet_of: NDArray[np.int64]) -> Emission:
    """All packets in the order in which they left."""
    none = np.zeros(0, dtype=np.int64)
    return Emission(
        x=np.vstack([np.zeros((0, schema.width)), *(part.x for part in parts)]),
        size=np.concatenate([np.zeros(0), *(part.size for part in parts)]),
        outcome=np.vstack([np.zeros((0, max(len(schema.outcome.classes), 1))), *(part.outcome for part in parts)]),
        bucket=np.concatenate([none, *(part.bucket for part in parts)]),
        facet=np.concatenate([none, *(part.facet for part in parts)]),
        packet_of=packet_of,
        noise=float(own.privacy.noise),
        flip=float(own.privacy.flip),
    )


def _timed(
    schema: Schema, scale: FieldScale, x: NDArray[np.float64], rows: Observations, emission: Emission
) -> NDArray[np.float64]:
    """Traces with times, float64[n, 12]: those of :func:`traces`, which leave out packets from before a record came;
    log distance to the nearest of the next packets; how many they are; steps until they came."""
    if emission.noisy is not None:
        return traces(schema, scale, x, rows, emission)
    base = traces(schema, scale, x, rows, emission)
    if not len(emission):
        return np.hstack([base, np.zeros((len(x), 3))])
    when = np.append(emission.bucket, NEVER)
    after = when[None, :-1] >= rows.bucket[:, None]
    following = np.where(after, emission.bucket[None, :], NEVER).min(axis=1)
    soon = emission.bucket[None, :] == following[:, None]
    near = np.where(soon, distances(scale, x, emission.x), np.inf).min(axis=1)
    wait = np.where(soon.any(axis=1), following - rows.bucket, STEPS)
    near = np.where(np.isfinite(near), near, distances(scale, x, emission.x).max())
    return np.hstack([base, np.stack([np.log(near + 1e-6), soon.sum(axis=1), wait], axis=1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """One site, or all of them when judged.

    Attributes:
        timed: membership from packets and their times.
        untimed: membership from the same packets without them.
        naming: members named with the list of all candidates and when each came.
        left: share of the observations that left.
    """

    timed: Membership
    untimed: Membership
    naming: Named | None
    left: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "with_times": self.timed.to_json(),
            "without_times": self.untimed.to_json(),
            "naming": None if self.naming is None else self.naming.to_json(),
            "left": self.left,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What was found at one site; join several with :func:`sequences`."""

    timed: Pairs
    untimed: Pairs
    naming: Naming | None
    left: float
    rows: int


def sequence(
    schema: Schema,
    observations: Observations,
    emit: Emitter,
    rng: np.random.Generator,
    *,
    shadows: int,
    packets: int,
    coins: bool = False,
    step: Callable[[int, int], None] | None = None,
) -> Watched | None:
    """Attack what leaves one site over time; None where there are too few subjects.

    Args:
        schema: the schema.
        observations: all candidates.
        emit: of observations with steps for buckets: :func:`arriving`, or ``private`` with several releases.
        rng: draws the order in which people come, who is in, and what the emitter draws.
        shadows: emissions, an even number, at least 8.
        packets: whose members are named.
        coins: see :func:`outroute.audit.membership.half_in`.
        step: told how many shadow emissions are done.
    """
    rows = in_steps(observations, rng)
    people, subject = np.unique(rows.subject, return_inverse=True)
    subject = subject.reshape(-1)
    if len(people) < LEAST_SUBJECTS:
        return None
    x = unit_scale(schema, rows.codes)
    scale = FieldScale.of(schema, x)
    inside = half_in(len(people), shadows, rng, coins=coins)
    timeless = replace(rows, bucket=np.zeros(len(rows), dtype=np.int64))
    timed, untimed, left = [], [], []
    for number, chosen in enumerate(inside):
        part = np.flatnonzero(chosen[subject])
        emission = emit(schema, rows.take(part), rng)
        timed.append(_timed(schema, scale, x, rows, emission))
        untimed.append(traces(schema, scale, x, timeless, emission))
        left.append(float((emission.packet_of >= 0).mean()) if len(part) else 0.0)
        if step is not None:
            step(number + 1, shadows)
    return Watched(
        timed=pairs_of(np.stack(timed), inside, subject),
        untimed=pairs_of(np.stack(untimed), inside, subject),
        naming=name_members(schema, rows, emit, rng, packets=packets),
        left=float(np.mean(left)),
        rows=len(rows),
    )


def sequences(sites: list[Watched], rng: np.random.Generator) -> Sequence | None:
    """One judgement over the sites that were attacked; None where there is none."""
    timed, untimed = judge([s.timed for s in sites], rng), judge([s.untimed for s in sites], rng)
    if timed is None or untimed is None:
        return None
    return Sequence(
        timed=timed,
        untimed=untimed,
        naming=named([s.naming for s in sites if s.naming is not None]),
        left=sum(s.left * s.rows for s in sites) / sum(s.rows for s in sites),
    )
