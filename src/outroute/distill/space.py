"""Where observations lie for grouping: a Euclidean space whose squared distance is the schema's similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.schema import MISSING, SCALE

if TYPE_CHECKING:
    from outroute.distill.model import Observations
    from outroute.schema import Schema

__all__ = ["MISSING_PULL", "canonical_order", "embed"]

MISSING_PULL = 0.25
"""Squared distance between present and missing, as a share of the field's greatest squared distance. A quarter is
a difference of half the declared range: cohorts agree on what is missing unless the rest of the case says otherwise."""


def embed(
    schema: Schema,
    codes: NDArray[np.uint16],
    *,
    slot_weights: NDArray[np.float64] | None = None,
    missing_pull: float = MISSING_PULL,
) -> NDArray[np.float32]:
    """Points whose squared distance is the weighted squared difference of codes, on the scale 0..1 per slot.

    A missing value takes the mean of those present (so that it adds nothing by itself) and one more coordinate per
    field says that it is missing.

    Args:
        schema: gives slots and weights.
        codes: uint16[n, D].
        slot_weights: float64[D], 0 or more, in place of the schema's own.
        missing_pull: 0 or more; see ``MISSING_PULL``.

    Returns:
        float32[n, E]. The same rows in another order give the same points.
    """
    weights = np.asarray(schema.slot_weights if slot_weights is None else slot_weights, dtype=np.float64)
    absent = codes == MISSING
    present = np.maximum((~absent).sum(axis=0), 1)
    # Integer sums are exact, so the fill does not depend on the order of the rows.
    fill = (codes.sum(axis=0, dtype=np.int64) - MISSING * absent.sum(axis=0)) / present
    # Only slots that differ somewhere can move a distance.
    moving = np.flatnonzero((codes != codes[:1]).any(axis=0) & (weights > 0)) if len(codes) else np.arange(0)
    marked = [
        where
        for where in schema.slots.values()
        if missing_pull > 0 and absent[:, where.start].any() and not absent[:, where.start].all()
    ]
    points = np.empty((len(codes), len(moving) + len(marked)), dtype=np.float32)
    for at, slot in enumerate(moving):
        points[:, at] = np.where(absent[:, slot], fill[slot], codes[:, slot]) * (np.sqrt(weights[slot]) / SCALE)
    for at, where in enumerate(marked, start=len(moving)):
        reach = weights[where.start] if where.stop - where.start == 1 else 2.0 * weights[where].mean()
        points[:, at] = absent[:, where.start] * np.sqrt(missing_pull * reach)
    return points


def canonical_order(observations: Observations, seed: int) -> NDArray[np.int64]:
    """An order of the rows that does not depend on how they arrived: by conditions, ties by a mixed subject.

    Outcomes come last, so that equal conditions are not sorted by how they ended. Rows equal in everything are
    interchangeable. ``seed`` changes the order of ties between subjects.

    Returns:
        int64[n], a permutation.
    """
    if not len(observations):
        return np.zeros(0, dtype=np.int64)
    # Big-endian bytes compare like the tuple of codes; one memory comparison instead of D sort keys.
    rows = np.ascontiguousarray(observations.codes.astype(">u2"))
    keys = rows.view(np.dtype((np.void, rows.shape[1] * 2))).ravel()
    _, rank = np.unique(keys, return_inverse=True)
    mixed = _mix(observations.subject.astype(np.uint64), seed)
    return np.lexsort((observations.outcome, observations.bucket, mixed, rank.ravel()))


def _mix(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A bijection of 64-bit numbers that looks random. Source: Steele, Lea, Flood 2014, SplitMix64, section 5."""
    z = values + np.uint64((0x9E3779B97F4A7C15 * (seed * 2 + 1)) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
