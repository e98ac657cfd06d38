"""The distiller ``private``: observations -> noisy sums of every region, epsilon-differentially private for a subject.

A release takes observations that were in no release before, at most so many of each subject as it has left, sums them
by region, and adds discrete Laplace noise to every sum of every region, empty ones too. A subject gives at most m
records over all releases of a node, and a record moves each sum by a bounded step; so all releases together are
epsilon-differentially private, whatever their number. ``docs/differential-privacy.md`` has the argument.

Source: Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity in Private Data Analysis" (2006), section 3.1;
Ghosh, Roughgarden, Sundararajan, "Universally Utility-Maximizing Privacy Mechanisms" (2009), for the noise on integers;
for what a subject has left, Feldman and Zrnic, "Individual Privacy Accounting via a Renyi Filter" (2021), section 1;
Korolova et al., "Releasing Search Queries and Clicks Privately" (2009), for cells of few observations with delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.distill.cohort import check
from outroute.distill.model import Observations, Reason, Withheld
from outroute.errors import PrivacyError
from outroute.packet import SQUARE_HALF, STEPS, contributions, region_of, regions_of
from outroute.schema import Distiller

if TYPE_CHECKING:
    from outroute.schema import Privacy, Schema

__all__ = ["MOMENT_SHARES", "Noise", "Plan", "Release", "distil_private", "plan_of"]

MOMENT_SHARES = (Fraction(1, 4), Fraction(1, 2), Fraction(1, 4))
"""Of a numeric outcome, how epsilon is shared out between count, sum and sum of squares: the mean matters most."""


class Noise(Protocol):
    """A source of noise from a vetted library."""

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        """Add independent discrete Laplace noise to each value: P(x) is proportional to exp(-|x| / scale).

        Args:
            values: int64 ``[n]``.
            scale: above 0.
            sensitivity: by how much a subject moves all values together at most (sum of absolute differences).
            epsilon: what adding this noise may cost; a source that can, checks it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a schema's promise comes to.

    Attributes:
        sensitivities: by how much one subject moves the sums of each place at most, over all regions and releases
            together.
        epsilons: what each place costs; classes share one budget, since a record moves one of them only.
        scales: of the noise on each place; at least sensitivity / epsilon.
        threshold: with delta above 0, a region is left out unless one of its sums of observations is larger; None: all
            are told.
    """

    sensitivities: tuple[int, ...]
    epsilons: tuple[Fraction, ...]
    scales: tuple[float, ...]
    threshold: int | None

    @property
    def variances(self) -> tuple[float, ...]:
        """Variance of the noise on each place."""
        return tuple(_variance(scale) for scale in self.scales)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one release says, and whom it is charged to.

    Attributes:
        regions: int64[p], which regions have a packet, ascending.
        sums: int64[p, places], with noise.
        rows: int64[c], observations that were counted, ascending. Secret, as is all that follows.
        region: int64[c], of each of them.
        withheld: observations that stay at home, and why.
    """

    regions: NDArray[np.int64]
    sums: NDArray[np.int64]
    rows: NDArray[np.int64]
    region: NDArray[np.int64]
    withheld: Withheld


def plan_of(schema: Schema) -> Plan:
    """The noise that a schema's promise asks for.

    Raises:
        PrivacyError: ``privacy.distiller``, its distiller is not ``private``.
    """
    privacy = _promise(schema)
    assert privacy.epsilon is not None
    assert privacy.m is not None
    epsilon, m = Fraction(privacy.epsilon), privacy.m
    if schema.outcome.has_classes:
        places = len(schema.outcome.classes)
        sensitivities, epsilons = (m,) * places, (epsilon,) * places
    else:
        places = 1
        sensitivities = (m, m * STEPS, m * SQUARE_HALF)
        epsilons = tuple(epsilon * share for share in MOMENT_SHARES)
    scales = tuple(_at_least(Fraction(s) / e) for s, e in zip(sensitivities, epsilons, strict=True))
    threshold = None
    if privacy.delta:
        threshold = _threshold(scales[0], places, m, float(privacy.delta))
    return Plan(sensitivities=sensitivities, epsilons=epsilons, scales=scales, threshold=threshold)


def distil_private(schema: Schema, observations: Observations, left: NDArray[np.int64], noise: Noise) -> Release:
    """One release.

    Args:
        schema: the schema; its distiller is ``private``.
        observations: rows that were in no release before, in order of arrival.
        left: int64[n], how many records the subject of each row may still give, over all its rows here together.
        noise: adds noise.

    Raises:
        PrivacyError: ``privacy.distiller``.
        DataError: when the rows do not fit the schema.
    """
    plan = plan_of(schema)
    check(schema, observations)
    known = ~np.isnan(observations.outcome)
    rows = np.flatnonzero(known)
    rows = rows[_rank(observations.subject[rows]) < left[rows]]
    region = region_of(schema, observations.codes[rows])
    regions = regions_of(schema)
    sums = np.zeros((len(regions), len(plan.scales)), dtype=np.int64)
    np.add.at(sums, region, contributions(schema, observations.outcome[rows]))
    noisy = _with_noise(schema, sums, plan, noise)
    told = np.arange(len(regions))
    if plan.threshold is not None:
        # Regions without observations are never told, so that telling one is what delta is for.
        full = np.bincount(region, minlength=len(regions)) > 0
        counts = noisy if schema.outcome.has_classes else noisy[:, :1]
        told = np.flatnonzero(full & (counts > plan.threshold).any(axis=1))
    reasons = np.where(known, np.uint8(Reason.SPENT), np.uint8(Reason.NO_OUTCOME))
    reasons[rows] = 0
    at_home = np.flatnonzero(reasons)
    return Release(
        regions=told.astype(np.int64),
        sums=noisy[told],
        rows=rows.astype(np.int64),
        region=region,
        withheld=Withheld(rows=at_home.astype(np.int64), reasons=reasons[at_home].astype(np.uint8)),
    )


def _with_noise(schema: Schema, sums: NDArray[np.int64], plan: Plan, noise: Noise) -> NDArray[np.int64]:
    """Noise on every sum; classes are one vector, of which a record moves one entry."""
    if schema.outcome.has_classes:
        flat = noise.laplace(
            sums.reshape(-1), plan.scales[0], sensitivity=plan.sensitivities[0], epsilon=plan.epsilons[0]
        )
        return flat.reshape(sums.shape)
    parts = zip(sums.T, plan.scales, plan.sensitivities, plan.epsilons, strict=True)
    return np.stack(
        [noise.laplace(np.ascontiguousarray(part), s, sensitivity=d, epsilon=e) for part, s, d, e in parts], axis=1
    )


def _rank(subject: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row, how many earlier rows are of the same subject, int64 ``[n]``."""
    order = np.argsort(subject, kind="stable")
    ordered = subject[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, np.int64)
    size = np.diff(np.append(first, len(ordered)))
    out = np.empty(len(subject), dtype=np.int64)
    out[order] = np.arange(len(subject)) - np.repeat(first, size)
    return out


def _promise(schema: Schema) -> Privacy:
    if schema.privacy.distiller is not Distiller.PRIVATE:
        raise PrivacyError(
            f"schema '{schema.name}' has the distiller '{schema.privacy.distiller.name.lower()}': it promises no "
            "differential privacy",
            code="privacy.distiller",
        )
    return schema.privacy


def _at_least(value: Fraction) -> float:
    """The smallest 64-bit float that is not below a fraction: less noise than that would promise too much."""
    found = float(value)
    return found if Fraction(found) >= value else math.nextafter(found, math.inf)


def _variance(scale: float) -> float:
    """Variance of discrete Laplace noise: 2 q / (1 - q)^2 with q = exp(-1 / scale)."""
    q = math.exp(-1.0 / scale)
    return 2.0 * q / math.expm1(-1.0 / scale) ** 2


def _threshold(scale: float, places: int, m: int, delta: float) -> int:
    """Largest noisy count that is not told.

    A subject may be alone in m regions at most, and each of them must be told with a probability of at most delta / m.
    It is told when one of its places is above the threshold, where no place holds more than m without noise. P(noise
    >= t) is exp(-t / scale) / (1 + exp(-1 / scale)), for whole t of 1 and more. One is added for the rounding of this
    calculation.
    """
    tail = delta / (m * places) * (1.0 + math.exp(-1.0 / scale))
    return m + max(1, math.ceil(-scale * math.log(tail))) + 1
