"""What every attacker starts from: packets that look like honest ones.

An attacker reads what any member may read and makes packets of its own: conditions between those of two packets of
similar conditions, sizes, buckets and cells as in honest packets, and as many of them as an honest node has. What
they say about outcomes is what the attacks differ in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from outroute.errors import DataError
from outroute.synthesis.evidence import Evidence, Floats, Ints

__all__ = ["Outcomes", "Region", "imitate", "outcomes", "standardised", "together"]

MIXED_MOST = 0.5
"""Most that an imitated packet leans towards its neighbour: below one half it stays nearer to its own cell."""
NEIGHBOURS = 32
"""Packets among which the neighbour of a packet is looked for, at random: enough to be near, cheap for thousands."""
SPREAD_LEAST = 1e-3
"""Least standard deviation of a slot, unit scale, that distances are divided by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A ball of conditions.

    Attributes:
        centre: float64[D], unit scale, NaN where the field does not matter.
        scale: float64[D] > 0, what a difference in each slot is divided by.
        radius: root mean square of the divided differences, over slots present on both sides.
    """

    centre: Floats
    scale: Floats
    radius: float

    def distance(self, x: Floats) -> Floats:
        """float64[n]: root mean square distance from the centre of conditions float64[n, D]; inf if none is shared."""
        gap = ((x - self.centre) / self.scale) ** 2
        known = ~np.isnan(gap)
        count = known.sum(axis=1)
        total = np.where(known, gap, 0.0).sum(axis=1)
        out: Floats = np.where(count > 0, np.sqrt(total / np.maximum(count, 1)), np.inf)
        return out

    def contains(self, x: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """bool[n]."""
        return np.asarray(self.distance(x) <= self.radius)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What is known of outcomes over all packets that can be read.

    Attributes:
        classes: number of classes; 0 for numbers.
        rate: float64[C], share of each class; empty for numbers.
        centre, spread: mean and standard deviation of a numeric outcome, between packets; 0 and 1 for classes.
        within: typical variance inside a packet; 0 for classes.
    """

    classes: int
    rate: Floats
    centre: float
    spread: float
    within: float


def outcomes(read: Evidence) -> Outcomes:
    """Base rates and scales of the packets `read`."""
    if read.counts is not None:
        total = read.counts.sum(axis=0)
        return Outcomes(
            classes=read.counts.shape[1], rate=(total + 0.5) / (total + 0.5).sum(), centre=0.0, spread=1.0, within=0.0
        )
    assert read.mean is not None
    assert read.variance is not None
    centre = float(np.average(read.mean, weights=np.maximum(read.size, 1e-9)))
    spread = float(read.mean.std()) or 1.0
    return Outcomes(classes=0, rate=np.zeros(0), centre=centre, spread=spread, within=float(np.median(read.variance)))


def standardised(x: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation per slot, float64[D] each; slots without any value get 0 and 1."""
    known = ~np.isnan(x)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (x - mean) ** 2, 0.0).sum(axis=0) / count)
    return mean, np.where(known.any(axis=0), np.maximum(spread, SPREAD_LEAST), 1.0)


def imitate(
    read: Evidence, count: int, rng: np.random.Generator, *, each: int | None = None, among: Ints | None = None
) -> tuple[Evidence, Ints]:
    """Packets of `count` new nodes that look like those that can be read.

    Args:
        read: all packets that any member may read.
        count: number of new nodes.
        rng: draws everything.
        each: packets per node; None: as many as some honest node, drawn at random, has.
        among: indices of the packets to imitate; None: all.

    Returns:
        The packets, with the outcomes of the packets that they imitate, and the index into `read` of each, int64[n].

    Raises:
        DataError: there is nothing to imitate (`simulation.read`), or `count` is below 1 (`simulation.count`).
    """
    if count < 1:
        raise DataError("at least one attacker is needed; leave the attack out instead", code="simulation.count")
    among = np.arange(read.n) if among is None else among
    if not len(among):
        raise DataError("attackers imitate packets, and there are none to read", code="simulation.read")
    sizes = np.bincount(read.node, minlength=len(read.nodes))
    sizes = sizes[sizes > 0]
    source, node = [], []
    for i in range(count):
        wanted = int(rng.choice(sizes)) if each is None else each
        again = wanted > len(among)
        source.append(rng.choice(among, wanted, replace=again))
        node.append(np.full(wanted, i, dtype=np.int64))
    index = np.concatenate(source)
    stem = rng.bytes(16)
    made = replace(
        read.take(index),
        x=_between(read.x[index], read.x, rng),
        node=np.concatenate(node),
        nodes=tuple(hashlib.sha256(b"outroute adversary" + stem + i.to_bytes(4, "big")).digest() for i in range(count)),
        weight=None,
    )
    return made, index


def _between(x: Floats, pool: Floats, rng: np.random.Generator) -> Floats:
    """Conditions between `x` and a packet of the pool that is near; shares of categories stay shares."""
    mean, spread = standardised(pool)
    filled = np.nan_to_num((pool - mean) / spread)
    mine = np.nan_to_num((x - mean) / spread)
    tried = rng.integers(0, len(pool), (len(x), NEIGHBOURS))
    gap = ((filled[tried] - mine[:, None]) ** 2).sum(axis=2)
    gap[gap == 0] = np.inf  # itself
    other = pool[tried[np.arange(len(x)), gap.argmin(axis=1)]]
    lean = rng.uniform(0.0, MIXED_MOST, (len(x), 1))
    out: Floats = np.where(np.isnan(other), x, (1 - lean) * x + lean * other)
    return out


def together(*parts: Evidence) -> Evidence:
    """Several sets of packets as one; equal node ids become one node. Weights of parts without any count as one."""
    parts = tuple(part for part in parts if part.n) or parts[:1]
    names = tuple(dict.fromkeys(name for part in parts for name in part.nodes))
    place = {name: i for i, name in enumerate(names)}
    first = parts[0]
    weighted = any(part.weight is not None for part in parts)

    def column(name: str) -> Floats | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    return replace(
        first,
        x=np.concatenate([part.x for part in parts]),
        node=np.concatenate([np.array([place[n] for n in part.nodes], dtype=np.int64)[part.node] for part in parts]),
        nodes=names,
        size=np.concatenate([part.size for part in parts]),
        counts=column("counts"),
        mean=column("mean"),
        variance=column("variance"),
        bucket=np.concatenate([part.bucket for part in parts]),
        cell=np.concatenate([part.cell for part in parts]),
        weight=np.concatenate([np.ones(p.n) if p.weight is None else p.weight for p in parts]) if weighted else None,
    )
