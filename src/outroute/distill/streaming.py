"""Records arrive over time: cohorts leave when they are tight, and never change afterwards.

No state of its own: give whatever has not left yet, as often as you like. What left stays left, so a node that stops
and starts again goes on where it was, from nothing but its list of which observation went into which packet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.cohort import Grouping, default_window, finish, form_groups, free_rows, settle
from outroute.distill.joining import number_parts
from outroute.distill.model import Distilled, Observations
from outroute.errors import DataError
from outroute.schema import facet_index

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["PATIENCE_WINDOWS", "POOL_COHORTS", "Waiting", "distil_waiting"]

POOL_COHORTS = 4
"""A pool waits until it could make this many cohorts, then lets its tightest go. On the heart-disease hospitals, one
patient at a time, k = 5: loss .80, .65, .54, .42, .33 and 0, 4, 10, 22, 47 % still waiting at the end for 1, 2, 4, 8,
16; AUC of a kernel on peers' packets .795, .812, .816, .813, .807 (batch: .814; single records: .809)."""
PATIENCE_WINDOWS = 1
"""An observation waits for company for this many time windows (a quarter of the lifetime each) at most, if there are
k subjects at all: news that nobody hears helps nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """When a pool lets go.

    Attributes:
        pool_cohorts: a pool of this many times k observations, 1 or more, emits its tightest cohorts until it is
            smaller. 1 emits as soon as there are k subjects.
        patience_seconds: a pool whose oldest bucket started longer ago emits all it can; None: see
            ``PATIENCE_WINDOWS``.
    """

    pool_cohorts: int = POOL_COHORTS
    patience_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.pool_cohorts < 1 or (self.patience_seconds is not None and self.patience_seconds < 0):
            raise DataError("pool_cohorts must be 1 or more and patience_seconds 0 or more", code="distill.waiting")


def distil_waiting(
    schema: Schema,
    observations: Observations,
    *,
    now: int,
    k: int | None = None,
    grouping: Grouping | None = None,
    waiting: Waiting | None = None,
) -> Distilled:
    """Emit the tight cohorts of pools that have grown, and everything possible from pools that have waited too long.

    A pool is a facet and time window; what has left before (``Observations.stale``) is not in it, and joins what
    leaves, as in ``distil``. Which cohorts leave depends on conditions, subjects and time only, never on
    outcomes, except that ``Agreement.MERGE`` joins cohorts whose outcomes agree, and keeps them where there is nothing
    to join. When records arrive one at a time, the newest is likely to be in the next cohort: whoever watches both sees
    that; approve in batches where it matters.

    Args:
        schema: fields, weights, floor, times.
        observations: rows that are in no packet in force.
        now: seconds since 1970.
        k: subjects in a cohort; None for the schema's floor.
        grouping: how to group; None for the defaults.
        waiting: when to let go; None for the defaults.

    Raises:
        PrivacyError: when ``k`` lies below the schema's floor.
        DataError: when the rows do not fit the schema.
    """
    wanted, how = settle(schema, k, grouping)
    policy = waiting or Waiting()
    window = how.window_seconds or default_window(schema)
    patience = PATIENCE_WINDOWS * window if policy.patience_seconds is None else policy.patience_seconds
    known = np.flatnonzero(free_rows(observations, wanted))
    seen = observations.take(known)
    part = number_parts(seen.facet, facet_index(schema, seen.codes), seen.bucket // window)
    parts = int(part.max(initial=-1)) + 1
    oldest = np.full(parts, np.iinfo(np.int64).max)
    np.minimum.at(oldest, part, seen.bucket)
    late = (oldest < now - patience)[part]
    rest = np.bincount(part, minlength=parts)
    group = np.full(len(observations), -1, dtype=np.int64)
    if late.any():
        _take_over(group, known[late], *form_groups(schema, seen.take(late), wanted, how)[:2])
    grown = ~late & (rest >= policy.pool_cohorts * wanted)[part]
    if grown.any():
        pool = seen.take(grown)
        rows, found, points = form_groups(schema, pool, wanted, how, whole=False)
        found = _tight(
            found,
            points,
            part[grown][rows],
            rest - policy.pool_cohorts * wanted,
        )
        _take_over(group, known[grown], rows, found)
    keep = np.zeros(len(observations), dtype=bool)
    keep[known] = ~late
    return finish(schema, observations, known, group[known], wanted, how, waiting=keep[known])


def _take_over(
    group: NDArray[np.int64], where: NDArray[np.int64], rows: NDArray[np.int64], found: NDArray[np.int64]
) -> None:
    """Write groups of a selection of rows into the groups of all rows, numbered after those there."""
    number = np.where(found >= 0, found + group.max(initial=-1) + 1, -1)
    group[where[rows]] = number


def _tight(
    group: NDArray[np.int64],
    points: NDArray[np.float32],
    part: NDArray[np.int64],
    above: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Keep of each pool its tightest groups, until it holds fewer rows than it takes to emit.

    Args:
        group: int64[n], -1 for none.
        points: float32[n, E].
        part: int64[n], the pool of each row.
        above: int64[parts]; rows that each pool holds beyond its threshold (it emits while this is 0 or more).
    """
    inside = np.flatnonzero(group >= 0)
    if not len(inside):
        return group
    rows = inside[np.argsort(group[inside], kind="stable")]
    start = np.flatnonzero(np.diff(group[rows], prepend=-1))
    size = np.diff(np.append(start, len(rows)))
    which = np.repeat(np.arange(len(start)), size)
    x = points[rows].astype(np.float64)
    centre = np.add.reduceat(x, start, axis=0) / size[:, None]
    loss = np.add.reduceat(((x - centre[which]) ** 2).sum(axis=1), start) / size
    home = part[rows[start]]
    order = np.lexsort((np.arange(len(start)), loss, home))
    ranked = home[order]
    begin = np.flatnonzero(np.diff(ranked, prepend=-1))
    run = np.cumsum(size[order]) - size[order]
    before = run - np.repeat(run[begin], np.diff(np.append(begin, len(ranked))))
    go = order[before <= above[ranked]]
    kept = np.zeros(len(start), dtype=bool)
    kept[go] = True
    out = np.full(len(group), -1, dtype=np.int64)
    out[rows] = np.where(kept[which], group[rows], -1)
    return out
