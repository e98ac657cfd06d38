"""How far each node's packets say what an anchor says, seen from both sides.

A node is reduced to a *profile*: a ridge regression of its outcomes on conditions, net of its own base rate. Two tests
ask whether a profile and the anchor (own records) agree, and each has its own noise:

``forward``  does the node's profile predict own outcomes? (noise: own outcomes)
``reverse``  does the profile of own records predict the node's packets? (noise: the node's packets)

Only both together tell an honest node from a lucky one. A profile of random labels is *some* direction in the space of
conditions, and where own outcomes are predictable it predicts them, or their opposite, far beyond their own noise:
among 27 random nodes beside Cleveland, forward scores of 5 are common. The reverse test has the node's own labels as
its noise, so a random node passes it as often as its level says.
Source: score tests in a regression (Cox and Hinkley 1974, section 9.3), as a correlation with Student's t; the ridge is
one Newton step from the base rate, which is enough for a direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Alignment", "Anchor", "Summaries", "Table", "align", "aligned", "anchored", "consensus", "extended"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPREAD_LEAST = 0.05
"""Smallest scale of a slot (share of its range): a slot that hardly varies must not dominate a direction."""
CENTRE, SPREAD = 0.5, 0.3
"""Centre and scale of a slot that the anchor never saw: those of a uniform draw from the declared range."""
PACKETS_LEAST = 4
"""Packets below which a node cannot be told from chance at all."""
SLOPE_LEAST = 0.25
"""Least slope that an honest node is expected to show; an anchor too weak for it decides nothing."""
FOLDS = 4
"""Parts of own records for the slope that honest nodes are expected to show."""
MOST = 0.95
"""Correlation above which nobody is expected."""
Z_MOST = 8.0
"""Standardised scores beyond this are counted as this."""
KEPT_MOST = 2**25
"""Numbers kept of what nodes said (256 MiB); of more nodes it is worked out again for each comparison."""
BLOCK = 2**22
"""Numbers worked on at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that bear outcomes: packets, or own records.

    Attributes:
        x: float64[n, D], unit scale, NaN missing.
        target: float64[n, K], share of the positive class, of each class, or the mean in any unit.
        size: float64[n] > 0, observations.
        node: int64[n], index of the node.
        nodes: number of nodes N.
        numeric: the outcome is a number.
    """

    x: Floats
    target: Floats
    size: Floats
    node: Ints
    nodes: int
    numeric: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What nodes are compared with.

    Attributes:
        centre, spread: float64[D], how conditions are standardised; they never come from the nodes that are judged
            unless there is nothing else.
        profile: float64[D, K].
        slope: what an honest node is expected to show of the profile.
        z, target: own records, standardised conditions float64[m, D] and centred outcomes float64[m, K]; m may be 0.
        independent: how many of own records count as independent (groups).
    """

    centre: Floats
    spread: Floats
    profile: Floats
    slope: float
    z: Floats
    target: Floats
    independent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Scores of N nodes against an anchor, in standard errors; 0 where nothing can be said.

    Attributes:
        forward: float64[N], the node's profile on own outcomes.
        reverse: float64[N], the anchor's profile on the node's packets.
        expected: float64[N], `reverse` that an honest node of this size and range of conditions would show.
        mass: float64[N], observations.
        judged: bool[N], nodes with packets enough.
    """

    forward: Floats
    reverse: Floats
    expected: Floats
    mass: Floats
    judged: npt.NDArray[np.bool_]


def standardised(x: Floats, centre: Floats, spread: Floats) -> Floats:
    """Conditions relative to the anchor; a missing one says nothing (0)."""
    out: Floats = np.nan_to_num((x - centre) / spread, nan=0.0)
    return out


def scales(x: Floats) -> tuple[Floats, Floats]:
    """Centre and scale of each slot over rows float64[n, D]."""
    width = x.shape[1]
    present = ~np.isnan(x)
    seen = present.sum(0)
    filled = np.nan_to_num(x)
    centre = np.divide(filled.sum(0), seen, out=np.full(width, CENTRE), where=seen > 0)
    second = (present * (filled - centre) ** 2).sum(0)
    spread = np.sqrt(np.divide(second, seen, out=np.full(width, SPREAD**2), where=seen > 1))
    return centre, np.maximum(spread, SPREAD_LEAST)


def ridge(z: Floats, size: Floats, target: Floats, numeric: bool) -> Floats:
    """Profile float64[D, K] of rows float64[n, D], net of their base rate.

    The prior lets all slots together move an outcome by about one unit of the score, however many there are.
    """
    total = max(float(size.sum()), 1e-12)
    middle, rate = size @ z / total, size @ target / total
    centred = z - middle
    bend = _bend(rate, numeric, target, size)
    gram = (centred * size[:, None]).T @ centred
    out: Floats = np.linalg.solve(
        bend * gram + z.shape[1] * np.eye(z.shape[1]), centred.T @ ((target - rate) * size[:, None])
    )
    return out


def _bend(rate: Floats, numeric: bool, target: Floats, size: Floats) -> float:
    """Variance of one outcome, which is the curvature of the log-likelihood (numbers: in their own unit, so 1)."""
    if numeric:
        return 1.0
    return max(float((rate * (1.0 - rate)).mean()), 1e-3)


def anchored(own: Table, group: Ints, scale: tuple[Floats, Floats] | None = None) -> Anchor:
    """Own records as the anchor.

    Args:
        own: m >= 2 own records, every size 1.
        group: int64[m], rows that are not independent share a number.
        scale: centre and spread of conditions, each float64[D]; None: those of own records.
    """
    centre, spread = scales(own.x) if scale is None else scale
    z = standardised(own.x, centre, spread)
    target = own.target - own.target.mean(0)
    _, which = np.unique(group, return_inverse=True)
    which = which.reshape(-1)
    groups = int(which.max()) + 1
    upper = lower = 0.0
    # Groups are dealt out in order: which one lands where says nothing about outcomes.
    for fold in range(FOLDS):
        held = which % FOLDS == fold
        if not held.any() or held.all():
            continue
        part = ridge(z[~held], own.size[~held], own.target[~held], own.numeric)
        said = z[held] @ part
        said = said - said.mean(0)
        upper += float((said * (own.target[held] - own.target[held].mean(0))).sum())
        lower += _bend(own.target.mean(0), own.numeric, own.target, own.size) * float((said**2).sum())
    return Anchor(
        centre=centre,
        spread=spread,
        profile=ridge(z, own.size, own.target, own.numeric),
        slope=max(upper / max(lower, 1e-12), SLOPE_LEAST),
        z=z,
        target=target,
        independent=groups,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What J nodes say, in sums that are all a comparison with any anchor needs.

    Attributes:
        node: int64[J].
        rows: float64[J], packets.
        gram: float64[J, D, D], size-weighted products of conditions, net of the node's means.
        cross: float64[J, D, K], the same of conditions and outcomes.
        left: float64[J], size-weighted squares of outcomes, net of the node's rates.
        bend: float64[J], see `_bend`.
        profile: float64[J, D, K].
    """

    node: Ints
    rows: Floats
    gram: Floats
    cross: Floats
    left: Floats
    bend: Floats
    profile: Floats


class Summaries:
    """Packets summed up by node (or another label), with conditions standardised in one way.

    It takes one pass over the packets; whatever own outcomes say afterwards is compared with the sums.

    Args:
        packets: of N nodes.
        centre, spread: float64[D].
        label: int64[n], whose packet each is; None: the node's.
        labels: number of labels.
    """

    def __init__(
        self, packets: Table, centre: Floats, spread: Floats, label: Ints | None = None, labels: int | None = None
    ) -> None:
        self.centre, self.spread = centre, spread
        self._packets = packets
        whose = packets.node if label is None else label
        self.nodes = packets.nodes if labels is None else labels
        self._order = np.argsort(whose, kind="stable")
        self.rows = np.bincount(whose, minlength=self.nodes).astype(np.int64)
        self._end = np.cumsum(self.rows)
        self.mass: Floats = np.bincount(whose, packets.size, self.nodes).astype(np.float64)
        self.judged: npt.NDArray[np.bool_] = self.rows >= PACKETS_LEAST
        self._kept: tuple[_Block, ...] | None = None
        width, columns = packets.x.shape[1], packets.target.shape[1]
        self._numbers = width * (width + 2 * columns)
        if int(self.judged.sum()) * self._numbers <= KEPT_MOST:
            self._kept = tuple(self._made())

    def blocks(self) -> Iterator[_Block]:
        """The sums of all nodes with packets enough, some nodes at a time."""
        return iter(self._made() if self._kept is None else self._kept)

    def _made(self) -> Iterator[_Block]:
        names = np.flatnonzero(self.judged)
        width = self._packets.x.shape[1]
        start = 0
        while start < len(names):
            # As many nodes as their packets and their sums allow, one at least.
            spent = np.cumsum(self.rows[names[start:]] * width + self._numbers)
            stop = start + max(1, int(np.searchsorted(spent, BLOCK, side="right")))
            yield self._block(names[start:stop])
            start = stop

    def _block(self, node: Ints) -> _Block:
        p, rows = self._packets, self.rows[node]
        at = np.concatenate([self._order[end - count : end] for end, count in zip(self._end[node], rows, strict=True)])
        size, target, z = p.size[at], p.target[at], standardised(p.x[at], self.centre, self.spread)
        cuts = np.concatenate([[0], np.cumsum(rows)])
        total = np.maximum(self.mass[node], 1e-12)[:, None]
        place = np.repeat(np.arange(len(node)), rows)
        rate = np.add.reduceat(target * size[:, None], cuts[:-1]) / total
        z -= (np.add.reduceat(z * size[:, None], cuts[:-1]) / total)[place]
        left = target - rate[place]
        heavy = z * size[:, None]
        gram = np.empty((len(node), z.shape[1], z.shape[1]))
        cross = np.empty((len(node), z.shape[1], target.shape[1]))
        for i, (a, b) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
            np.matmul(heavy[a:b].T, z[a:b], out=gram[i])
            np.matmul(heavy[a:b].T, left[a:b], out=cross[i])
        bend = np.ones(len(node)) if p.numeric else np.maximum((rate * (1.0 - rate)).mean(1), 1e-3)
        return _Block(
            node=node,
            rows=rows.astype(np.float64),
            gram=gram,
            cross=cross,
            left=np.add.reduceat(size * (left**2).sum(1), cuts[:-1]),
            bend=bend,
            profile=np.linalg.solve(bend[:, None, None] * gram + z.shape[1] * np.eye(z.shape[1]), cross),
        )


def extended(anchor: Anchor, own: Table, packets: Summaries, weight: Floats) -> Anchor:
    """The same anchor with a profile of own records and some nodes together, each node net of its own base rate.

    Args:
        anchor: of own records.
        own: own records.
        packets: of N nodes, standardised as the anchor.
        weight: float64[N], what each node counts; nodes with few packets count nothing.
    """
    z = anchor.z - anchor.z.mean(0)
    gram, cross = z.T @ z, z.T @ anchor.target
    for block in packets.blocks():
        heard = weight[block.node]
        gram += np.einsum("n,nde->de", heard, block.gram)
        cross += np.einsum("n,ndk->dk", heard, block.cross)
    bend = _bend(own.target.mean(0), own.numeric, own.target, own.size)
    return replace(
        anchor,
        profile=np.linalg.solve(bend * gram + z.shape[1] * np.eye(z.shape[1]), cross),
        slope=max(SLOPE_LEAST, min(anchor.slope, 1.0)),
    )


def consensus(packets: Table, organisation: Ints) -> Anchor:
    """What most organisations say, the anchor of an asker without outcomes: the median of their profiles, by slot.

    Up to half of the organisations may lie about a slot without moving its median beyond what honest ones say
    (breakdown point 1/2). An organisation's nodes count once.

    Args:
        packets: packets of N nodes.
        organisation: int64[N].
    """
    centre, spread = scales(packets.x)
    theirs = organisation[packets.node]
    seen = Summaries(packets, centre, spread, theirs, int(theirs.max(initial=-1)) + 1)
    profiles = [block.profile for block in seen.blocks()]
    width, columns = packets.x.shape[1], packets.target.shape[1]
    return Anchor(
        centre=centre,
        spread=spread,
        profile=np.median(np.concatenate(profiles), axis=0) if profiles else np.zeros((width, columns)),
        slope=1.0,
        z=np.zeros((0, width)),
        target=np.zeros((0, columns)),
        independent=0,
    )


def align(packets: Table, anchor: Anchor) -> Alignment:
    """Compare every node with the anchor; cost linear in packets."""
    return aligned(Summaries(packets, anchor.centre, anchor.spread), anchor)


def aligned(packets: Summaries, anchor: Anchor) -> Alignment:
    """The same with packets that are summed up already, standardised as the anchor is; cost linear in nodes."""
    count = packets.nodes
    forward, reverse, expected = np.zeros(count), np.zeros(count), np.zeros(count)
    z = anchor.z - anchor.z.mean(0) if len(anchor.z) else anchor.z
    gram, cross, whole = z.T @ z, z.T @ anchor.target, float((anchor.target**2).sum())
    for block in packets.blocks():
        node = block.node
        said = np.einsum("nde,ek->ndk", block.gram, anchor.profile, optimize=True)
        one = np.maximum(np.einsum("ndk,dk->n", said, anchor.profile), 0.0)
        both = np.einsum("ndk,dk->n", block.cross, anchor.profile)
        reverse[node] = both / np.sqrt(np.maximum(one * block.left, 1e-18))
        steep = anchor.slope * block.bend * np.sqrt(one / np.maximum(block.left, 1e-18))
        expected[node] = np.minimum(steep, MOST)
        if len(z):
            agreed = np.einsum("ndk,dk->n", block.profile, cross)
            heard = np.einsum("de,nek->ndk", gram, block.profile, optimize=True)
            spoken = np.einsum("ndk,ndk->n", heard, block.profile)
            forward[node] = agreed / np.sqrt(np.maximum(spoken * whole, 1e-18))
    rows_of = np.maximum(packets.rows.astype(np.float64), PACKETS_LEAST)
    return Alignment(
        forward=_scores(forward, np.full(count, float(max(anchor.independent, 3)))),
        reverse=_scores(reverse, rows_of),
        expected=_scores(expected, rows_of),
        mass=packets.mass,
        judged=packets.judged,
    )


def _scores(correlation: Floats, rows: Floats) -> Floats:
    """Correlations over so many independent rows as standard Normal scores, by way of Student's t."""
    from scipy.special import ndtri, stdtr

    r = np.clip(correlation, -0.999, 0.999)
    freedom = np.maximum(rows - 2.0, 1.0)
    tail = stdtr(freedom, -np.abs(r) * np.sqrt(freedom / (1.0 - r**2)))
    out: Floats = np.minimum(-ndtri(np.maximum(tail, 1e-300)), Z_MOST) * np.sign(r)
    return out
