"""The privacy floor of a schema: which distiller, and what it promises.

Source: DESIGN section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum

from outroute.errors import SchemaError
from outroute.schema.checks import text_of, whole_of

__all__ = [
    "DISSENT",
    "MAX_EPSILON",
    "MAX_FLIP",
    "MAX_NOISE",
    "MAX_RECORDS",
    "MAX_RELEASES",
    "Distiller",
    "Privacy",
]

MAX_EPSILON = Decimal(100)
"""Largest epsilon: far beyond any that promises something, but measuring without noise must be possible."""
MAX_DELTA = Decimal("0.001")
"""Largest delta, the probability that the promise may fail: one in a thousand is too much for any register."""
EPSILON_DECIMALS, DELTA_DECIMALS = 6, 15
"""Decimals of epsilon and delta; what is spent is kept in whole units of them."""
MAX_RECORDS = 1_000
"""Largest number of records that a subject may give over a node's lifetime; noise grows with it."""
MAX_RELEASES = 10_000
"""Largest number of releases of a node: one a day for 27 years."""


MAX_NOISE = Decimal("0.5")
"""Largest noise on conditions: with more, they say nothing."""
MAX_FLIP = Decimal("0.9")
"""Largest share of outcomes drawn by lot: beyond, a packet says nothing of its outcomes."""
DISSENT = 1
"""Members with another outcome, where a schema does not say how many: outcomes do not all agree."""


class Distiller(IntEnum):
    """How observations are condensed into packets; the number stands in every packet."""

    COHORT = 1
    SINGLE = 2
    PRIVATE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The floor below which a node refuses to emit.

    Attributes:
        distiller: ``COHORT`` (k subjects a packet), ``SINGLE`` (data about no person only), or ``PRIVATE`` (noise, so
            that nobody's presence can be told; ``docs/differential-privacy.md``).
        k: fewest subjects in a packet; at least 2 for cohorts, exactly 1 for single. Under ``PRIVATE`` the fewest
            observations, counted with noise, about which a packet says anything; 1 for no such bound.
        subject: what a subject is, for people ("patient", "flight").
        noise: standard deviation of noise on every condition of a cohort, as a share of the field's declared range; 0
            to ``MAX_NOISE``, two decimals.
        dissent: fewest members of a cohort with another outcome than its most frequent one; 0 allows cohorts in which
            all agree.
        flip: share of the members of a cohort whose class is replaced by one drawn evenly; 0 to ``MAX_FLIP``, two
            decimals. Receivers correct for it.
        epsilon: ``PRIVATE`` only: bound on what can be learnt about one subject over a node's lifetime, above 0.
        delta: ``PRIVATE`` only: 0 for pure differential privacy. Above 0, cells of few observations are left out, and
            this is the probability that one is not though it tells of a subject.
        m: ``PRIVATE`` only: records that one subject gives at most, across cells and releases.
        releases: ``PRIVATE`` only: how many releases a node makes over its lifetime, one a time bucket at most.
        public_landmarks: ``PRIVATE`` only: those who agree to the schema declare that landmarks that were learnt come
            from public records, not from protected ones.
    """

    distiller: Distiller = Distiller.COHORT
    k: int = 5
    subject: str = "subject"
    noise: Decimal = Decimal(0)
    dissent: int = DISSENT
    flip: Decimal = Decimal(0)
    epsilon: Decimal | None = None
    delta: Decimal = Decimal(0)
    m: int | None = None
    releases: int | None = None
    public_landmarks: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject", text_of(self.subject, "privacy: subject"))
        object.__setattr__(self, "k", whole_of(self.k, "privacy: k"))
        if self.distiller is Distiller.SINGLE and self.k != 1:
            raise SchemaError("privacy: distiller 'single' goes with k = 1", code="schema.privacy")
        if self.distiller is Distiller.COHORT and not 2 <= self.k <= 10_000:
            raise SchemaError("privacy: a cohort needs k between 2 and 10000", code="schema.privacy")
        self._check_cohort()
        if self.distiller is Distiller.PRIVATE:
            self._check_private()
        elif self.epsilon is not None or self.delta or self.m or self.releases or self.public_landmarks:
            raise SchemaError(
                "privacy: epsilon, delta, m, releases and public landmarks go with distiller 'private'",
                code="schema.privacy",
            )

    def _check_cohort(self) -> None:
        for name, value, most in (("noise", self.noise, MAX_NOISE), ("flip", self.flip, MAX_FLIP)):
            if not (value.is_finite() and 0 <= value <= most and value == value.quantize(Decimal("0.01"))):
                raise SchemaError(
                    f"privacy: {name} lies between 0 and {most}, with at most two decimals", code="schema.privacy"
                )
        object.__setattr__(self, "dissent", whole_of(self.dissent, "privacy: dissent"))
        if not 0 <= self.dissent <= self.k // 2 and self.distiller is Distiller.COHORT:
            raise SchemaError(f"privacy: dissent lies between 0 and half of k ({self.k // 2})", code="schema.privacy")
        if self.distiller is not Distiller.COHORT and (self.noise or self.flip or self.dissent != DISSENT):
            raise SchemaError(
                "privacy: noise, dissent and flip are about cohorts: leave them out", code="schema.privacy"
            )

    def _check_private(self) -> None:
        if not 1 <= self.k <= 10_000:
            raise SchemaError("privacy: under 'private' k lies between 1 and 10000", code="schema.privacy")
        epsilon = self.epsilon
        if (
            epsilon is None
            or not (epsilon.is_finite() and 0 < epsilon <= MAX_EPSILON)
            or _finer(epsilon, EPSILON_DECIMALS)
        ):
            raise SchemaError(
                f"privacy: distiller 'private' needs epsilon, above 0 and at most {MAX_EPSILON}, with at most "
                f"{EPSILON_DECIMALS} decimals: 1 is a usual choice, 0.1 a careful one",
                code="schema.privacy",
            )
        if not (self.delta.is_finite() and 0 <= self.delta <= MAX_DELTA) or _finer(self.delta, DELTA_DECIMALS):
            raise SchemaError(
                f"privacy: delta lies between 0 (none) and {MAX_DELTA}, with at most {DELTA_DECIMALS} decimals: far "
                "below one in the number of subjects",
                code="schema.privacy",
            )
        for name, most in (("m", MAX_RECORDS), ("releases", MAX_RELEASES)):
            value = whole_of(getattr(self, name), f"privacy: {name}")
            if not 1 <= value <= most:
                raise SchemaError(f"privacy: {name} lies between 1 and {most:,}", code="schema.privacy")
            object.__setattr__(self, name, value)


def _finer(value: Decimal, decimals: int) -> bool:
    """Whether a decimal has more decimals than so many."""
    exponent = value.normalize().as_tuple().exponent
    return isinstance(exponent, int) and exponent < -decimals
