"""What an attacker sees of one site: its packets as numbers, whoever made them.

An *emitter* turns a site's observations into an emission. Attacks take an emitter, not packets, because the strongest
of them run it themselves on shadow data. Every distiller is one more emitter; ``of_cohorts`` serves those that make
cohorts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Agreement, Grouping, blurred, distil, distil_single
from outroute.schema import Distiller, Privacy, unit_scale

if TYPE_CHECKING:
    from outroute.audit.noisy import NoisySums
    from outroute.distill import Cohorts, Observations
    from outroute.schema import Schema

__all__ = ["Emission", "Emitter", "cohorts", "floor_of", "of_cohorts", "outcome_numbers"]

Emitter = Callable[["Schema", "Observations", np.random.Generator], "Emission"]
"""Schema, one site's observations, randomness -> what would leave the site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """Packets of one site as an attacker reads them, and (for judging an attack only) who is in which.

    Attributes:
        x: float64[m, D], conditions in unit scale 0..1, NaN where missing.
        size: float64[m], observations a packet says that it condenses; noise may have moved it.
        outcome: float64[m, C] class shares, or float64[m, 1] the mean in unit scale of the declared range.
        bucket: int64[m], observed-at bucket, seconds since 1970.
        facet: int64[m], number of the combination of exact-match facets.
        noise: standard deviation of noise on conditions, in unit scale; public, since it stands in the schema.
        flip: share of outcomes drawn by lot; public too.
        noisy: under ``private``, the sums with noise that packets hold; None for cohorts.
        packet_of: int64[n], the packet that condenses each observation, -1 where it stayed at home. The truth: no
            attack reads it.
    """

    x: NDArray[np.float64]
    size: NDArray[np.float64]
    outcome: NDArray[np.float64]
    bucket: NDArray[np.int64]
    facet: NDArray[np.int64]
    packet_of: NDArray[np.int64]
    noise: float = 0.0
    flip: float = 0.0
    noisy: NoisySums | None = None

    def __len__(self) -> int:
        return len(self.size)


def outcome_numbers(schema: Schema, outcome: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outcomes of observations as in an emission: float64[n, C] one-hot, or float64[n, 1] in unit scale."""
    if schema.outcome.has_classes:
        return np.asarray(np.eye(len(schema.outcome.classes))[outcome.astype(np.int64)])
    assert schema.outcome.low is not None
    assert schema.outcome.high is not None
    low, high = float(schema.outcome.low), float(schema.outcome.high)
    return ((outcome - low) / (high - low))[:, None]


def of_cohorts(schema: Schema, made: Cohorts, rows: int) -> Emission:
    """The emission of cohorts.

    Args:
        schema: the schema.
        made: cohorts of observations.
        rows: how many observations there were.
    """
    if made.counts is not None:
        outcome = made.counts / made.size[:, None]
    else:
        outcome = outcome_numbers(schema, made.mean)
    packet_of = np.full(rows, -1, dtype=np.int64)
    packet_of[made.rows] = np.repeat(np.arange(len(made)), made.size)
    return Emission(
        x=unit_scale(schema, made.codes),
        size=made.size.astype(np.float64),
        outcome=np.asarray(outcome, dtype=np.float64),
        bucket=made.bucket,
        facet=made.facet,
        packet_of=packet_of,
        noise=float(schema.privacy.noise),
        flip=float(schema.privacy.flip),
    )


def floor_of(schema: Schema, k: int) -> Schema:
    """The same schema with another floor, so that what it forbids can be measured. Its id differs."""
    distiller = Distiller.SINGLE if k == 1 else Distiller.COHORT
    if k == 1:
        return replace(schema, privacy=Privacy(distiller=distiller, k=k, subject=schema.privacy.subject))
    few = min(schema.privacy.dissent, k // 2)
    return replace(schema, privacy=replace(schema.privacy, distiller=distiller, k=k, dissent=few))


def cohorts(k: int, grouping: Grouping | None = None, *, noise: Decimal | None = None) -> Emitter:
    """Cohorts of at least k subjects, made all at once as a node makes them; k = 1 is one packet a record.

    Args:
        k: subjects in a packet; the schema's own floor is set aside, so that what it forbids can be measured.
        grouping: how to group; None: as for data about persons, whatever the schema says.
        noise: on conditions, as a share of their ranges; None: the schema's.
    """
    how = grouping or Grouping(agreement=Agreement.MERGE)

    def emit(schema: Schema, observations: Observations, rng: np.random.Generator) -> Emission:
        own = floor_of(schema, k)
        if k == 1:
            made = distil_single(own, observations).cohorts
        else:
            if noise is not None:
                own = replace(own, privacy=replace(own.privacy, noise=noise))
            seeded = replace(how, seed=int(rng.integers(2**31)))
            made = blurred(own, distil(own, observations, k=k, grouping=seeded).cohorts, rng.bytes(32))
        return of_cohorts(own, made, len(observations))

    return emit
