"""How reliable each node is where: what hire says of it, and what own outcomes say of it in each region."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from outroute.elections.alignment import PACKETS_LEAST, Floats, Ints, Table, anchored, ridge, standardised
from outroute.elections.hire import OWN_LEAST, Hired

if TYPE_CHECKING:
    from outroute.elections.drawing import Known

__all__ = ["reliability"]

DOUBT_LEAST = 0.1
"""Standard deviation of how reliable a node is, at least: nothing is ever certain."""
REGIONAL = 0.3
"""Standard deviation of how reliable one node is between regions, relative to its mean."""
UNPROVEN_EACH = 0.5
"""How reliable the best of the unproven nodes is taken to be, at least: as likely honest as not."""
SLOPE_PRIOR = 10.0
"""Own records that a slope of zero counts for."""
FOLDS = 4
"""Parts of own records for slopes."""


def reliability(known: Known, own: Table, group: Ints, region: Ints, hired: Hired) -> tuple[Floats, Floats]:
    """How reliable each node is expected to be in each cell, and the standard deviation of that, float64[N, C] each.

    Args:
        known: what has come.
        own: own records.
        group: int64[m], rows that are not independent share a number.
        region: int64[m], index of the cell of each own record, -1 for one that is not among them.
        hired: how far nodes are drawn on.
    """
    nodes, cells = known.packets.nodes, len(known.left)
    each = _each(hired)
    mean = np.repeat(each[:, None], cells, axis=1)
    doubt = np.repeat(np.maximum(0.5 * np.sqrt(each * (1.0 - each)), DOUBT_LEAST)[:, None], cells, axis=1)
    doubt[hired.contradicted] = 0.0
    if len(own.x) < OWN_LEAST or not bool((own.target != own.target[0]).any()):
        return mean, doubt
    anchor = anchored(own, group)
    packets = known.packets
    z = standardised(packets.x, anchor.centre, anchor.spread)
    _, fold = np.unique(group, return_inverse=True)
    fold = fold.reshape(-1) % FOLDS
    inside = np.flatnonzero(region >= 0)
    count = np.bincount(region[inside], minlength=cells).astype(np.float64)
    gain, regional, error = np.zeros(nodes), np.zeros((nodes, cells)), np.full((nodes, cells), np.inf)
    worth = max(float((anchor.target**2).sum(1).mean()), 1e-12)
    for node in np.flatnonzero(known.of_each() >= PACKETS_LEAST):
        rows = packets.node == node
        said = anchor.z @ ridge(z[rows], packets.size[rows], packets.target[rows], packets.numeric)
        lowered = _lowered(said - said.mean(0), anchor.target, fold) / worth
        gain[node] = lowered.mean()
        in_cell = np.bincount(region[inside], lowered[inside], cells)
        regional[node] = np.divide(in_cell, count, out=np.zeros(cells), where=count > 0)
        error[node] = np.divide(lowered.std(), np.sqrt(count), out=np.full(cells, np.inf), where=count > 0)
    best = float(np.median(gain[hired.proven])) if hired.proven.any() else float(gain.max(initial=0.0))
    if best <= 0.0:
        return mean, doubt
    with np.errstate(over="ignore", invalid="ignore"):
        noise = (error / best) ** 2
        share = np.where(np.isfinite(noise), REGIONAL**2 / (REGIONAL**2 + noise), 0.0)
    moved = np.where(share > 0, share * (regional - gain[:, None]) / best, 0.0)
    left = REGIONAL * np.sqrt(1.0 - share)
    return np.clip(mean * (1.0 + moved), 0.0, 1.0), np.sqrt(doubt**2 + (mean * left) ** 2)


def _each(hired: Hired) -> Floats:
    """How reliable each node is by itself, float64[N].

    What `hire` holds back from all unproven nodes together says nothing about one of them, and is given back.
    """
    unproven = np.where(hired.proven, 0.0, hired.weight)
    top = float(unproven.max(initial=0.0))
    if not 0.0 < top < UNPROVEN_EACH:
        return hired.weight
    return np.where(hired.proven, hired.weight, unproven * (UNPROVEN_EACH / top))


def _lowered(said: Floats, target: Floats, fold: Ints) -> Floats:
    """By how much each own record's squared error falls by what a node's profile says, float64[m].

    The slope is fitted to the other folds, and is never negative: whoever says the opposite helps nobody.
    """
    out = np.zeros(len(said))
    both, square = (said * target).sum(1), (said**2).sum(1)
    prior = SLOPE_PRIOR * float(square.mean())
    for one in range(FOLDS):
        held = fold == one
        slope = max(float(both[~held].sum()) / max(float(square[~held].sum()) + prior, 1e-18), 0.0)
        out[held] = 2.0 * slope * both[held] - slope**2 * square[held]
    return out
