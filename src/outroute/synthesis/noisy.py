"""Sums with noise of known size -> sizes and outcomes that the calculations may take at their word.

Noise of a few observations makes a count of three worthless and leaves a count of three hundred as it is. So a packet
counts as many observations as would say as much without noise; one whose sum is mostly noise counts next to nothing.
Sums may be negative; what comes out never is, and a node's outcomes keep the mean that its sums have.

What a node said about the same place in several releases is added up first. All of it is calculated from what was
released, so that nobody's privacy is touched.

Source: Fuller, "Measurement Error Models" (1987), section 1.2, for estimates corrected for noise of known variance;
Efron and Morris, "Stein's Estimation Rule and Its Competitors" (1973), for counts that are drawn towards what is
expected of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outroute.synthesis.evidence import Floats, Ints

__all__ = ["Steady", "steady_counts", "steady_moments"]

LEAST = 1e-6
"""Observations that a packet counts at least, so that every packet keeps its place."""
SHARE_LEAST = 0.01
"""Smallest share of a class (or variance, as a share of the largest) that noise is compared with."""
STEPS = 40
"""Halvings of the interval in which a node's shift is looked for: to a part in 10^12."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What n packets say once noise is allowed for.

    Attributes:
        size: float64[n] > 0, observations that would say as much without noise.
        outcome: float64[n, K] >= 0; shares of the classes, or the mean, from 0 to 1 over the declared range.
        within: float64[n], variance of one outcome around it (numbers, on that scale), else zeros.
    """

    size: Floats
    outcome: Floats
    within: Floats


def steady_counts(sums: Floats, node: Ints, place: Ints, variance: float, told: Floats | None = None) -> Steady:
    """Class counts with noise.

    Args:
        sums: float64[n, C], counts with noise.
        node: int64[n], whose packet each is.
        place: int64[n], which region each is about.
        variance: of the noise on each count.
        told: float64[n], 0 where a packet says nothing, else 1; None: all ones.
    """
    n, classes = sums.shape
    groups = _Groups(node, place, told)
    found = groups.add(sums)
    noise = groups.packets * variance
    rates = _rates(found, groups, variance)[groups.node]
    total = found.sum(1)
    amount, drawn = _drawn(total, classes * noise, groups)
    kept = np.maximum(rates, SHARE_LEAST)
    single = (kept * (1.0 - np.minimum(kept, 1.0 - SHARE_LEAST))).sum(1)
    blur = noise * ((1.0 - rates) ** 2 + (classes - 1) * rates**2).sum(1)
    size = _size(amount, single, blur)
    raw = rates + (found - rates * total[:, None]) / np.maximum(amount, LEAST)[:, None]
    # Noise of a class stands in the total too: what looks large looks like much of that class.
    bent = _slope(amount, single, blur) * drawn * noise
    share = np.stack(
        [_bounded(raw[:, c], size, bent * (1.0 - classes * rates[:, c]), groups) for c in range(classes)], axis=1
    )
    whole = share.sum(1, keepdims=True)
    share = np.where(whole > 0, share / np.where(whole > 0, whole, 1.0), rates)
    return Steady(size=groups.shared(size), outcome=share[groups.of], within=np.zeros(n))


def steady_moments(sums: Floats, node: Ints, place: Ints, variances: Sequence[float], told: Floats | None) -> Steady:
    """Counts, sums and sums of squares with noise, of outcomes from -1 to 1.

    Args:
        sums: float64[n, 3], with noise.
        node, place: as for ``steady_counts``.
        variances: of the noise on count, sum and sum of squares.
        told: as for ``steady_counts``.
    """
    groups = _Groups(node, place, told)
    found = groups.add(sums)
    of_node = groups.of_nodes(found)
    everybody = np.maximum(of_node.sum(0), [1.0, -np.inf, 0.0])
    # A node of few observations is taken for an ordinary one.
    spare = np.sqrt(groups.of_nodes(groups.packets[:, None])[:, 0] * variances[0])
    number = np.maximum(of_node[:, 0], 0.0) + spare + 1e-9
    middle = np.clip((of_node[:, 1] + spare * everybody[1] / everybody[0]) / number, -1.0, 1.0)
    square = np.clip((of_node[:, 2] + spare * everybody[2] / everybody[0]) / number, 0.0, 1.0)
    around = np.clip(square - middle**2, SHARE_LEAST, 1.0)[groups.node]
    mean = middle[groups.node]
    amount, drawn = _drawn(found[:, 0], groups.packets * variances[0], groups)
    blur = groups.packets * (variances[1] + mean**2 * variances[0])
    size = _size(amount, around, blur)
    raw = mean + (found[:, 1] - mean * found[:, 0]) / np.maximum(amount, LEAST)
    bent = -_slope(amount, around, blur) * drawn * groups.packets * variances[0] * mean
    outcome = _bounded((raw + 1.0) / 2.0, size, bent / 2.0, groups)
    return Steady(size=groups.shared(size), outcome=outcome[groups.of][:, None], within=around[groups.of] / 4.0)


class _Groups:
    """Packets of one node about one place, which are added up."""

    def __init__(self, node: Ints, place: Ints, told: Floats | None) -> None:
        names, of = np.unique(np.stack([node, place], axis=1), axis=0, return_inverse=True)
        self.of: Ints = np.asarray(of.reshape(-1), dtype=np.int64)
        self.node: Ints = names[:, 0]
        _, index = np.unique(names[:, 1], return_inverse=True)
        self.place: Ints = np.asarray(index.reshape(-1), dtype=np.int64)
        self.told = np.ones(len(node)) if told is None else told
        self.count = len(names)
        self.packets: Floats = np.bincount(self.of, self.told, self.count).astype(np.float64)
        self.nodes = int(node.max(initial=-1)) + 1

    def add(self, values: Floats) -> Floats:
        """Sums over the packets of each group, float64[g, K]."""
        columns = [np.bincount(self.of, column * self.told, self.count) for column in values.T]
        return np.stack(columns, axis=1).astype(np.float64)

    def of_nodes(self, values: Floats) -> Floats:
        """Sums over the groups of each node, float64[N, K]."""
        return np.stack([np.bincount(self.node, column, self.nodes) for column in values.T], axis=1).astype(np.float64)

    def shared(self, size: Floats) -> Floats:
        """The size of each packet: an equal part of its group's."""
        each = size / np.maximum(self.packets, 1.0)
        return np.asarray(np.maximum(each[self.of] * self.told, LEAST), dtype=np.float64)


def _rates(found: Floats, groups: _Groups, variance: float) -> Floats:
    """Share of each class by node, float64[N, C]; where a node's sums are mostly noise, near that of all nodes."""
    classes = found.shape[1]
    counts = np.maximum(groups.of_nodes(found), 0.0)
    everybody = (counts.sum(0) + 1.0) / (counts.sum() + classes)
    spare = np.sqrt(groups.of_nodes(groups.packets[:, None]) * variance * classes) + 1e-9
    out: Floats = (counts + spare * everybody) / (counts.sum(1, keepdims=True) + spare)
    return out


def _drawn(total: Floats, noise: Floats, groups: _Groups) -> tuple[Floats, Floats]:
    """Observations of each group, drawn towards what its node and its place let expect, as far as noise is large.

    And how far the number follows what was told, from 0 (not at all) to 1.
    """
    seen = np.maximum(total, 0.0)
    by_place = np.bincount(groups.place, seen)
    by_node = np.bincount(groups.node, total, groups.nodes)
    expected = np.maximum(by_node, 0.0)[groups.node] * (by_place / max(float(by_place.sum()), 1e-12))[groups.place]
    spread = expected + expected**2
    follows = spread / (spread + noise + 1e-12)
    out = expected + follows * (total - expected)
    return np.maximum(out, 0.0), np.where(out > 0, follows, 0.0)


def _size(amount: Floats, single: Floats, blur: Floats) -> Floats:
    """Observations without noise that would say as much about a share or mean.

    Args:
        amount: float64[g], observations.
        single: float64[g], variance of one outcome.
        blur: float64[g], variance that noise adds to the sum.
    """
    out: Floats = amount**2 * single / np.maximum(amount * single + blur, 1e-12)
    return out


def _slope(amount: Floats, single: Floats, blur: Floats) -> Floats:
    """By how much the weight of a deviation, size / amount, grows with the amount."""
    out: Floats = single * blur / np.maximum(amount * single + blur, 1e-12) ** 2
    return out


def _bounded(raw: Floats, size: Floats, bent: Floats, groups: _Groups) -> Floats:
    """Values cut to 0..1 such that each node's mean (by size) stays what it was, as far as it lies there itself.

    Cutting alone would raise what is rare: noise below zero is cut, noise above is not.

    Args:
        raw: float64[g].
        size: float64[g].
        bent: float64[g], what noise that stands in both is expected to add to size times value.
        groups: of g groups.
    """
    total = np.maximum(np.bincount(groups.node, size, groups.nodes), 1e-12)
    wanted = np.clip(np.bincount(groups.node, size * raw - bent, groups.nodes) / total, 0.0, 1.0)
    span = float(np.abs(raw).max(initial=0.0)) + 1.0
    low, high = np.full(groups.nodes, -span), np.full(groups.nodes, span)
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        cut = np.clip(raw + middle[groups.node], 0.0, 1.0)
        above = np.bincount(groups.node, size * cut, groups.nodes) / total > wanted
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return np.asarray(np.clip(raw + ((low + high) / 2.0)[groups.node], 0.0, 1.0), dtype=np.float64)
