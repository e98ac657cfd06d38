"""Neighbourhoods: conditions cut into parts in which packets are compared.

Middles are moved to the means of what lies around them, on a sample in which every node has the same share: who sends
many packets does not draw the map.
Source: Lloyd (1982), "Least squares quantization in PCM".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outroute.elections.baseline import Floats, Ints

__all__ = ["Space", "space_of"]

Singles = npt.NDArray[np.float32]

REGION_ROWS = 24
"""Packets and own records of one neighbourhood, on average, in small networks."""
REGIONS_MOST = 192
"""Neighbourhoods at most: with more of them 1,000 nodes have too little to say in each."""
DRAWN = 4_096
"""Packets and own records that neighbourhoods are learnt from."""
MOVES = 4
"""Times that the middles of neighbourhoods move to the mean of what lies there."""
REACH = (0.5, 1.2)
"""Squared widths of the transition between neighbourhoods, in squared distances of a packet to its middle: a narrow
one, for what is wrong in a small region, and a wide one, for what few observations can show only together."""
NEIGHBOURS = 20
"""Most neighbourhoods that one listens to, itself included: with many conditions all are about equally far apart."""
BLOCK = 2_048
"""Points whose distances are held at once: 2 MB, which stays in the cache."""
FAINT = 0.05
"""Similarity of two neighbourhoods below which they do not know each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Neighbourhoods of conditions.

    Attributes:
        fill: float64[D], what a missing condition counts as.
        root: float64[D], scale of each slot.
        middles: float32[R, D].
        similar: for each width of `REACH`, float64[R, R] in [0, 1]: how far a neighbourhood (row) listens to another.
    """

    fill: Floats
    root: Floats
    middles: Singles
    similar: tuple[Floats, ...]

    def points(self, x: Floats) -> Singles:
        """float32[n, D]; a missing condition counts as the average one."""
        return (np.where(np.isnan(x), self.fill, x) * self.root).astype(np.float32)

    def nearest(self, points: Singles) -> tuple[Ints, Floats]:
        """Neighbourhood of each point and the squared distance to its middle."""
        return _nearest(points, self.middles)


def _nearest(
    points: Singles,
    middles: Singles,
) -> tuple[Ints, Floats]:
    square = (middles**2).sum(1)
    at, distance = np.zeros(len(points), np.int64), np.zeros(len(points))
    for start in range(0, len(points), BLOCK):
        part = points[start : start + BLOCK]
        away = part @ (-2.0 * middles.T)
        away += square
        here = away.argmin(1)
        at[start : start + BLOCK] = here
        distance[start : start + BLOCK] = np.maximum(away[np.arange(len(part)), here] + (part**2).sum(1), 0.0)
    return at, distance


def space_of(x: Floats, slot_weights: Floats, voice: Ints, rng: np.random.Generator) -> Space:
    """Neighbourhoods: every voice (own records among them) has the same chance to place one, however much it says."""
    root = np.sqrt(slot_weights / max(float(slot_weights.sum()), 1e-12))
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(x)
        fill = np.where(known, x, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    if not len(x):
        one = np.zeros((1, x.shape[1]), np.float32)
        return Space(fill=fill, root=root, middles=one, similar=(np.ones((1, 1)),))
    share = 1.0 / np.bincount(voice)[voice]
    drawn = rng.choice(len(x), min(DRAWN, len(x)), replace=False, p=share / share.sum())
    points = (np.where(np.isnan(x[drawn]), fill, x[drawn]) * root).astype(np.float32)
    count = int(np.clip(len(x) // REGION_ROWS, 1, REGIONS_MOST))
    middles = points[:count].copy()
    for _ in range(MOVES):
        at, _unused = _nearest(points, middles)
        total = np.zeros((count, x.shape[1]))
        np.add.at(total, at, points)
        here = np.bincount(at, minlength=count)
        middles = np.where(here[:, None] > 0, total / np.maximum(here, 1)[:, None], middles).astype(np.float32)
    _at, distance = _nearest(points, middles)
    near = 2.0 * max(float(np.median(distance)), 1e-9)
    apart = ((middles[:, None].astype(np.float64) - middles[None]) ** 2).sum(2)
    similar = tuple(np.exp(-apart / (near * reach)) for reach in REACH)
    for one in similar:
        least = np.sort(one, axis=1)[:, -min(NEIGHBOURS, count)]
        one[one < np.maximum(least[:, None], FAINT)] = 0.0
    return Space(fill=fill, root=root, middles=middles, similar=similar)
