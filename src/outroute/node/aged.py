"""What is old counts less, where own outcomes say so: packets lose weight by age, own records of long ago are left out.

How fast is elected by ``outroute.elections.ageing``; here it is put to what a node knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.elections.ageing import ageing
from outroute.synthesis import Evidence, Records

__all__ = ["Aged", "aged", "records_since"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """How fast what is known ages.

    Attributes:
        half_life: seconds in which evidence loses half of its weight; None: nothing ages.
        since: start of the oldest time bucket whose own records count, seconds since 1970; None: all do.
        left_out: own records older than that.
    """

    half_life: int | None
    since: int | None = None
    left_out: int = 0


def aged(
    evidence: Evidence, own: Records, when: NDArray[np.int64], now: int
) -> tuple[Aged, NDArray[np.float64], Records]:
    """Elect how fast what is known ages.

    Args:
        evidence: packets of others.
        own: all own records.
        when: int64[len(own)], their time buckets, seconds since 1970.
        now: seconds since 1970.

    Returns:
        How fast; the weight of each packet by its age, float64[n] in (0, 1]; the own records that count.
    """
    speed = ageing(
        evidence.x,
        evidence.node,
        evidence.size,
        evidence.bucket,
        counts=evidence.counts,
        mean=evidence.mean,
        variance=evidence.variance,
        own_x=own.x,
        own_y=own.y,
        own_bucket=when,
        now=now,
    )
    kept = speed.current(when, now)
    weight = speed.weight(evidence.bucket, now)
    if kept.all():
        return Aged(half_life=speed.half_life), weight, own
    since = int(when[kept].min())
    found = Aged(half_life=speed.half_life, since=since, left_out=int((~kept).sum()))
    return found, weight, records_since(own, when, since)


def records_since(own: Records, when: NDArray[np.int64], since: int | None) -> Records:
    """Own records of a time bucket and later.

    Args:
        own: own records.
        when: int64[len(own)], their time buckets.
        since: start of the first bucket, seconds since 1970; None: all.
    """
    if since is None:
        return own
    kept = when >= since
    return Records(x=own.x[kept], y=own.y[kept], group=own.group[kept], timed=own.timed)
