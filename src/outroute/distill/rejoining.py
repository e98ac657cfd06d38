"""What left before in a packet that was withdrawn since: it leaves again only among enough that is new.

Every packet that leaves holds at least k subjects' rows that no packet before it held. So the difference of two
packets, and whatever else can be computed by adding and subtracting packets, tells about k subjects at least: those
that are new in the latest of them. Source: DESIGN section 4, "Withdrawal".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.joining import absorb, number_parts
from outroute.distill.model import Observations
from outroute.distill.space import canonical_order, embed
from outroute.schema import facet_index

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["rejoin"]


def rejoin(
    schema: Schema,
    observations: Observations,
    group: NDArray[np.int64],
    *,
    k: int,
    window: int,
    seed: int,
    missing_pull: float,
    slot_weights: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """Let stale rows join the nearest cohort of their facet and time window that has room for them.

    Cohorts are formed of new rows alone, so each holds k subjects that are new before any stale row joins it; no more
    than 2k - 1 rows in all, and no subject twice.

    Args:
        schema, observations: as for ``distil``.
        group: int64[n]; cohort of each row, -1 for none, and for every stale row.
        k: subjects of a cohort.
        window: seconds within which the buckets of one cohort start.
        seed, missing_pull, slot_weights: see ``Grouping``.

    Returns:
        int64[n]; ``group`` with stale rows added.
    """
    group = group.copy()
    for shift in (0, window // 2):
        left = observations.stale & ~np.isnan(observations.outcome) & (group < 0)
        number = (observations.bucket + shift) // window
        rows = np.flatnonzero(left | ((group >= 0) & _in_one(group, number)))
        if not left.any() or not (group[rows] >= 0).any():
            continue
        rows = rows[canonical_order(observations.take(rows), seed)]
        some = observations.take(rows)
        part = number_parts(some.facet, facet_index(schema, some.codes), number[rows])
        points = embed(schema, some.codes, slot_weights=slot_weights, missing_pull=missing_pull)
        joined = absorb(points, part, some.subject, group[rows], 2 * k - 1)
        # Groups come back numbered without gaps, in the order of their numbers.
        numbers = np.append(np.unique(group[rows][group[rows] >= 0]), -1)
        group[rows] = numbers[joined]
    return group


def _in_one(group: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows whose whole group lies in one time window, bool[n]."""
    out = np.zeros(len(group), dtype=np.bool_)
    inside = np.flatnonzero(group >= 0)
    if len(inside):
        _, at = np.unique(group[inside], return_inverse=True)
        low = np.full(int(at.max()) + 1, np.iinfo(np.int64).max)
        high = np.full(len(low), np.iinfo(np.int64).min)
        np.minimum.at(low, at, number[inside])
        np.maximum.at(high, at, number[inside])
        out[inside] = (low == high)[at]
    return out
