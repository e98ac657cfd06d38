"""What lies near a question, one by one: for explanations and comparisons, not for estimates."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from outroute.schema import Schema

__all__ = ["NEAR", "near_of", "nearest"]

NEAR = 64
"""Packets nearest to the question that are looked at one by one, at most; and"""
NEAR_SHARE, NEAR_LEAST = 0.25, 8
"""no more than this share of all, unless these are few: in a small network, not everything is near."""


def near_of(packets: int) -> int:
    """How many of so many packets are looked at as near."""
    return min(NEAR, max(NEAR_LEAST, ceil(packets * NEAR_SHARE)))


def nearest(
    schema: Schema, x: NDArray[np.float64], question: NDArray[np.float64], count: int, without: slice | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of x float64[n, D] nearest to a question float64[D], and their squared distances.

    A slot that is missing on either side says nothing; facets must agree.

    Args:
        schema: the schema.
        x: conditions on the unit scale, NaN missing.
        question: the question's.
        count: rows, at most.
        without: slots that do not count, their facet neither.
    """
    weights = np.asarray(schema.slot_weights, dtype=np.float64).copy()
    allowed = np.ones(len(x), dtype=np.bool_)
    for facet in schema.facets:
        at = schema.slots[facet.name]
        if at != without:
            gap = np.abs(np.nan_to_num(x[:, at], nan=-1.0) - np.nan_to_num(question[at], nan=-1.0))
            allowed &= gap.max(axis=1) < 0.5
    if without is not None:
        weights[without] = 0.0
    rows = np.flatnonzero(allowed)
    distance = np.nan_to_num((x[rows] - question) ** 2) @ weights
    order = np.argsort(distance, kind="stable")[:count]
    return rows[order], distance[order]
