"""Which contributions of several sites are added up together: near cells, enough subjects, whoever looks at them.

Everything that decides it stands outside of the shares, signed by the sites: where a contribution lies and whose it is.
So each synthesizer comes to the same cohorts by itself and depends on nobody to count right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.joining import number_parts

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["pool"]


def pool(
    schema: Schema,
    *,
    cell: NDArray[np.int64],
    facet: NDArray[np.int64],
    bucket: NDArray[np.int64],
    site: NDArray[np.int64],
    k: int,
    window: int,
) -> NDArray[np.int64]:
    """Cohorts of contributions, one subject each.

    A cohort holds at least k subjects beside those of any one site: a site that takes its own away from the sum is
    left with k others. Cells that hold as many stand alone; the smallest of the others joins its nearest neighbour of
    the same facet and time window, again and again, until all have enough or nothing is left to join. Where there are
    enough for several cohorts, contributions are dealt out to them in turn, those of one site to different ones.

    Args:
        schema: landmarks and slot weights.
        cell, facet, bucket: int64[n]; where and when each lies, in the order in which they are dealt out.
        site: int64[n]; equal numbers are one site (or one organisation, where sites of one work together).
        k: fewest subjects of others.
        window: seconds within which the buckets of one cohort start.

    Returns:
        int64[n], cohorts numbered from 0 in the order of facet, time and lowest cell; -1 where there are too few.
    """
    out = np.full(len(cell), -1, dtype=np.int64)
    part = number_parts(facet, bucket // window)
    count = 0
    for number in range(int(part.max(initial=-1)) + 1):
        rows = np.flatnonzero(part == number)
        found = _pool_part(schema, cell[rows], site[rows], k)
        for name in range(int(found.max(initial=-1)) + 1):
            out[rows[found == name]] = count
            count += 1
    return out


def _pool_part(schema: Schema, cell: NDArray[np.int64], site: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Cohorts of one facet and time window, int64[n]."""
    cells, at = np.unique(cell, return_inverse=True)
    sites, who = np.unique(site, return_inverse=True)
    held = np.zeros((len(cells), len(sites)), dtype=np.int64)
    np.add.at(held, (at, who), 1)
    # Whole numbers only, so that both synthesizers find the same whatever their machines.
    centre = schema.landmarks.codes[cells].astype(np.int64)
    # A place stands for itself and for all that joined it; those that joined are gone.
    home = np.arange(len(cells))
    alive = np.ones(len(cells), dtype=np.bool_)
    size = held.sum(axis=1)
    while True:
        small = np.flatnonzero(alive & (size - held.max(axis=1, initial=0) < k))
        if not len(small):
            break
        mine = int(small[np.argmin(size[small])])
        others = np.flatnonzero(alive & (np.arange(len(cells)) != mine))
        if not len(others):
            alive[mine] = False
            break
        far = (schema.slot_weights * (centre[others] - centre[mine]) ** 2).sum(axis=1)
        best = int(others[np.argmin(far)])
        keep, gone = min(mine, best), max(mine, best)
        centre[keep] = (size[keep] * centre[keep] + size[gone] * centre[gone]) // (size[keep] + size[gone])
        held[keep] += held[gone]
        size[keep] += size[gone]
        alive[gone] = False
        home[home == gone] = keep
    kept = np.where(alive[home], home, -1)[at]
    out = np.full(len(cell), -1, dtype=np.int64)
    count = 0
    for place in np.unique(kept[kept >= 0]).tolist():
        rows = np.flatnonzero(kept == place)
        rows = rows[np.argsort(who[rows], kind="stable")]
        parts = _parts(who[rows], k)
        out[rows] = count + np.arange(len(rows)) % parts
        count += parts
    return out


def _parts(site: NDArray[np.int64], k: int) -> int:
    """Cohorts, 1 or more, to which contributions (ordered by site) can be dealt out in turn so that all have enough."""
    for parts in range(max(1, len(site) // (k + 1)), 1, -1):
        held = np.zeros((parts, int(site.max()) + 1), dtype=np.int64)
        np.add.at(held, (np.arange(len(site)) % parts, site), 1)
        if (held.sum(axis=1) - held.max(axis=1) >= k).all():
            return parts
    return 1
