"""Sums over the subjects of several sites, without anybody seeing a summand: additive shares for two synthesizers.

A site that has too few subjects for a cohort of its own turns one observation into a vector of whole numbers and splits
it in two: one share is drawn at random, the other is the difference, both modulo 2^64. Either share alone is uniformly
distributed, whatever the observation: it says nothing. Each synthesizer adds the shares that it holds; only the two
sums together give the sum of the observations, and from it the contents of a packet.

Source: H. Corrigan-Gibbs and D. Boneh, "Prio" (NSDI 2017), section 3, the scheme without proofs; RFC draft
irtf-cfrg-vdaf for sending one of the shares as the seed from which it is drawn. Departure: modulo 2^64 and not a prime,
because a prime is needed for proofs of range only, which are not here. So a site that lies can spoil, or turn, the sum
of its cohort; what it cannot do is learn from it. ``total`` refuses every sum that no honest sites can have.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.aggregate import mean_codes
from outroute.errors import DataError
from outroute.schema import MISSING, SCALE, FieldKind

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["SEED_BYTES", "Spoilt", "Total", "drawn_share", "other_share", "total", "vector_width", "vectors_of"]

SEED_BYTES = 32
"""Bytes of the seed from which a share is drawn: 256 bits, as long as any key here."""
_PREFIX = b"outroute share v1\0"
_MOMENTS = 2
"""Numbers that carry a numeric outcome: sums of its code and of the code squared."""


class Spoilt(IntEnum):
    """Why a sum is no sum of honest contributions."""

    PRESENT = 1
    """More values are present than there are observations."""
    CONDITIONS = 2
    """A sum of codes lies outside of what so many values can have."""
    OUTCOME = 3
    """Class counts do not add up to the observations, or moments lie outside of the outcome's range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The contents of one cohort, out of the sum of its members.

    Attributes:
        codes: uint16[D].
        counts: int64[C], observations per class; None for a numeric outcome.
        mean, variance: in the outcome's unit (squared); NaN for classes.
    """

    codes: NDArray[np.uint16]
    counts: NDArray[np.int64] | None
    mean: float
    variance: float


def vector_width(schema: Schema) -> int:
    """Numbers of a contribution's vector: fields present, codes, outcome."""
    outcome = len(schema.outcome.classes) if schema.outcome.has_classes else _MOMENTS
    return len(schema.fields) + schema.width + outcome


def vectors_of(schema: Schema, codes: NDArray[np.uint16], outcome: NDArray[np.float64]) -> NDArray[np.uint64]:
    """One vector an observation, uint64[n, ``vector_width``].

    For each field 1 where it is present; the codes, 0 where they are missing; then 1 in the place of the class, or the
    outcome's code (0 to ``SCALE`` over the declared range, clipped to it) and its square.

    Args:
        schema: fields and outcome.
        codes: uint16[n, D].
        outcome: float64[n]; class index, or value in the outcome's unit; all known.

    Raises:
        DataError: an outcome is not known, or is no class of the schema.
    """
    if np.isnan(outcome).any():
        raise DataError("an observation without an outcome has nothing to contribute yet", code="distill.outcome")
    starts = [schema.slots[item.name].start for item in schema.fields]
    present = (codes[:, starts] != MISSING).astype(np.uint64)
    held = np.where(codes == MISSING, 0, codes).astype(np.uint64)
    if schema.outcome.has_classes:
        number = len(schema.outcome.classes)
        if ((outcome < 0) | (outcome >= number) | (outcome != np.floor(outcome))).any():
            raise DataError("an outcome is no class of the schema: encode it first", code="distill.outcome")
        last = np.eye(number, dtype=np.uint64)[outcome.astype(np.int64)]
    else:
        low, high = _range(schema)
        code = np.rint(np.clip((outcome - low) / (high - low), 0.0, 1.0) * SCALE).astype(np.uint64)
        last = np.stack([code, code * code], axis=1)
    return np.hstack([present, held, last])


def drawn_share(seed: bytes, width: int) -> NDArray[np.uint64]:
    """The share that a seed stands for, uint64[width]: SHAKE-256 over a prefix and the seed.

    Raises:
        DataError: the seed has not 32 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise DataError(f"the seed of a share has {SEED_BYTES} bytes", code="distill.seed")
    stream = hashlib.shake_256(_PREFIX + seed).digest(width * 8)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def other_share(vector: NDArray[np.uint64], seed: bytes) -> NDArray[np.uint64]:
    """What makes the drawn share up to the vector, modulo 2^64, uint64[width]."""
    out: NDArray[np.uint64] = vector - drawn_share(seed, len(vector))
    return out


def total(schema: Schema, members: int, sums: NDArray[np.uint64]) -> Total | Spoilt:
    """The contents of a cohort, out of the sum of its members' vectors (the two synthesizers' sums, added).

    Args:
        schema: fields and outcome.
        members: how many observations were added, 1 or more.
        sums: uint64[``vector_width``].

    Returns:
        The contents, or why no honest sites can have contributed this sum.
    """
    fields, width = len(schema.fields), schema.width
    # Every honest sum stays far below 2^63; what lies above it counts as too large.
    values = np.minimum(sums, np.uint64(2**62)).astype(np.int64)
    present, codes, outcome = values[:fields], values[fields : fields + width], values[fields + width :]
    if (present > members).any():
        return Spoilt.PRESENT
    out = np.full(width, MISSING, dtype=np.uint16)
    for item, number in zip(schema.fields, present.tolist(), strict=True):
        where = schema.slots[item.name]
        part = codes[where]
        whole = item.kind is FieldKind.CATEGORICAL
        if (part > SCALE * number).any() or (whole and int(part.sum()) != SCALE * number):
            return Spoilt.CONDITIONS
        if item.facet and not ((part == 0) | (part == SCALE * members)).all():
            return Spoilt.CONDITIONS
        if number:
            out[where] = mean_codes(item.kind, np.array([number]), part[None, :])[0]
    if schema.outcome.has_classes:
        if (outcome > members).any() or int(outcome.sum()) != members:
            return Spoilt.OUTCOME
        return Total(codes=out, counts=outcome, mean=float("nan"), variance=float("nan"))
    first, second = (int(value) for value in outcome)
    # Whole numbers: n times the sum of squares is at least the square of the sum, and codes end at SCALE.
    spread = members * second - first * first
    if first > SCALE * members or second > SCALE * first or spread < 0:
        return Spoilt.OUTCOME
    low, high = _range(schema)
    step = (high - low) / SCALE
    return Total(
        codes=out,
        counts=None,
        mean=low + step * first / members,
        variance=step * step * spread / (members * members),
    )


def _range(schema: Schema) -> tuple[float, float]:
    assert schema.outcome.low is not None
    assert schema.outcome.high is not None
    return float(schema.outcome.low), float(schema.outcome.high)
