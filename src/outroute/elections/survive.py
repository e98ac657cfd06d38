"""Survive: conflicting packets compete within their neighbourhood; losers fade, what nobody contradicts stays.

Conditions are cut into neighbourhoods. What a node's packets say in one of them is compared with own outcomes and with
what other nodes say there (see `outroute.elections.contest`); the packets that it has there share the verdict. Rare
outcomes stay as long as nobody who knows the neighbourhood contradicts them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from outroute.elections.baseline import Baseline, Floats, Ints, Rows, fit_baseline, probability, rows_of
from outroute.elections.contest import TAU_GUESS, Says, first_offsets, judge, middle_of, offsets, tau
from outroute.elections.neighbourhoods import Space, space_of
from outroute.errors import DataError

__all__ = ["NOBODY", "OWN", "Survival", "survive"]

OWN = -2
"""Opponent: own outcomes."""
NOBODY = -1
"""Opponent of a packet that did not lose."""
LOST = 0.9
"""Weight below which a packet counts as having lost."""
ROUNDS = 2
"""Times that base rates, differences between nodes and verdicts are estimated in turn."""
SIZE_MOST = 20.0
"""Size, in medians, that one packet weighs at most where the expectation is fitted: size is the author's word."""
PSEUDO = 1.0
"""Pseudo-observations of a share, so that none of five is not an infinite deviation."""
NOTHING = 1e-9
"""Observations below which there is no say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """Sums by voice and neighbourhood.

    Attributes:
        observed, expected: float64[V, R, K], outcomes that were seen, and that the expectation would have seen.
        amount: float64[V, R], observations.
        squared: float64[V, R], observations times their weight once more: what weighting costs in precision.
        noise: float64[K], variance of one outcome (numbers).
        logistic: classes, and not numbers.
    """

    observed: Floats
    expected: Floats
    amount: Floats
    squared: Floats
    noise: Floats
    logistic: bool

    def says(self, similar: Floats | None = None) -> Says:
        """As deviations with variances; `similar` float64[R', R] lets neighbourhoods R' listen to others.

        Shares deviate by the difference of empirical logits. Source: Haldane (1956), for the half counts.
        """
        observed, expected, amount, squared = self.observed, self.expected, self.amount, self.squared
        if similar is not None:
            listened = np.flatnonzero(similar.any(0))
            near = similar[:, listened]
            observed = _smoothed(observed[:, listened], near)
            expected = _smoothed(expected[:, listened], near)
            amount, squared = amount[:, listened] @ near.T, squared[:, listened] @ (near**2).T
        known = amount > NOTHING
        n = np.where(known, amount, 1.0)[:, :, None]
        precise = squared[:, :, None] / n**2
        if self.logistic:
            seen, thought = ((part + 0.5 * PSEUDO) / (n + PSEUDO) for part in (observed, expected))
            value = np.log(seen / (1.0 - seen)) - np.log(thought / (1.0 - thought))
            variance = precise / (seen * (1.0 - seen))
        else:
            value, variance = (observed - expected) / n, precise * self.noise
        return Says(
            value=np.where(known[:, :, None], value, 0.0), variance=np.where(known[:, :, None], variance, np.inf)
        )

    def plus(self, other: _Heard) -> _Heard:
        """Both together."""
        return replace(
            self,
            observed=self.observed + other.observed,
            expected=self.expected + other.expected,
            amount=self.amount + other.amount,
            squared=self.squared + other.squared,
        )


def _smoothed(part: Floats, near: Floats) -> Floats:
    """float64[V, R', K] of float64[V, R, K]."""
    return np.stack([part[:, :, k] @ near.T for k in range(part.shape[2])], axis=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """One width of neighbourhoods: similarity float64[R, R], what nodes say, base rates, heterogeneity."""

    similar: Floats
    says: Says
    offset: tuple[Floats, Floats]
    own_offset: tuple[Floats, Floats]
    tau2: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """Which packets survive.

    Attributes:
        weight: float64[n] in [0, 1].
        region: int64[n], neighbourhood of each packet.
        opponent: int64[n], node that each packet mostly lost to; `OWN`: own outcomes; `NOBODY`: it did not lose.
        opponent_packet: int64[n], that node's packet nearest to the middle of the neighbourhood, -1: none.
        support, opposition: float64[n], trust for and against, in units of node weight, own outcomes included.
        z: float64[n], signed deviation of its node from the others there, in standard errors.
        tau2: float64[K], variance found between honest nodes, base rates apart (logit scale, or squared units).
    """

    weight: Floats
    region: Ints
    opponent: Ints
    opponent_packet: Ints
    support: Floats
    opposition: Floats
    z: Floats
    tau2: Floats
    _node: Ints
    _trust: Floats
    _organisation: Ints
    _space: Space
    _baseline: Baseline
    _own: _Heard
    _scales: tuple[_Scale, ...]
    _nearest: Ints

    def regions(self, x: Floats) -> Ints:
        """Neighbourhood of conditions float64[m, D], int64[m]."""
        return self._space.nearest(self._space.points(x))[0]

    def confirm(self, x: Floats, y: Floats, weight: Floats | None = None) -> Survival:
        """After m more own outcomes became known: the contest is held anew where they matter, and nowhere else.

        Expectation, base rates and neighbourhoods stay; call `survive` when much is new.

        Args:
            x: float64[m, D], conditions.
            y: float64[m], class index, or value.
            weight: float64[m] in [0, 1]; None: ones.
        """
        rows = _own_rows(y, self._baseline)
        at = self.regions(x)
        voice = np.zeros(len(y), np.int64)
        amount = np.ones(len(y)) if weight is None else weight
        sums = _sums(
            self._baseline.score(x), rows, amount, amount**2, voice, at, self._baseline, 1, len(self._space.middles)
        )
        new = replace(self, _own=self._own.plus(sums))
        changed = np.unique(at)
        return _told(new, np.flatnonzero(sum(scale.similar[:, changed].any(1) for scale in self._scales)))


def survive(
    x: Floats,
    slot_weights: Floats,
    node: Ints,
    node_weight: Floats,
    size: Floats,
    *,
    counts: Floats | None = None,
    mean: Floats | None = None,
    variance: Floats | None = None,
    own_x: Floats,
    own_y: Floats,
    weight: Floats | None = None,
    own_weight: Floats | None = None,
    organisation: Ints | None = None,
    rng: np.random.Generator,
) -> Survival:
    """Let packets compete.

    Args:
        x: float64[n, D], conditions, unit scale, NaN missing.
        slot_weights: float64[D], weight of each slot in similarity.
        node: int64[n], author, index into `node_weight`.
        node_weight: float64[N] in [0, 1], trust in each node; ones where nothing is known.
        size: float64[n] >= 0, observations that each packet condenses.
        counts: float64[n, C], for class outcomes.
        mean, variance: float64[n], outcome units, for numeric outcomes.
        own_x, own_y: own records: conditions, and class index or value; may be empty.
        weight: float64[n] in [0, 1], for example by age; without weight a packet has no say.
        own_weight: float64[m] in [0, 1], the same for own records.
        organisation: int64[N], organisation of each node; None: each its own.
        rng: draws what neighbourhoods are learnt from.

    Raises:
        DataError: neither counts nor mean and variance, columns of unequal length, or nodes outside `node_weight`.
    """
    n, nodes = len(x), len(node_weight)
    if (counts is None) == (mean is None) or (mean is None) != (variance is None):
        raise DataError("survive needs either counts, or mean and variance", code="survive.outcome")
    if not n == len(node) == len(size) or len(own_x) != len(own_y):
        raise DataError("survive needs columns of equal length", code="survive.length")
    if n and (node.min() < 0 or node.max() >= nodes):
        raise DataError("survive got a packet of a node outside `node_weight`", code="survive.node")
    if not nodes:  # nobody has said anything: one who is silent
        nodes, node_weight = 1, np.zeros(1)
        organisation = None
    believed = np.ones(n) if weight is None else weight
    mine = np.ones(len(own_y)) if own_weight is None else own_weight
    home = np.arange(nodes) if organisation is None else organisation
    rows = rows_of(counts, mean, variance)
    everything = np.concatenate([x, own_x])
    space = space_of(everything, slot_weights, np.concatenate([node, np.full(len(own_y), nodes)]), rng)
    most = SIZE_MOST * float(np.median(size)) if n else 0.0
    amount = np.concatenate([np.minimum(size, most) * believed * node_weight[node], mine])
    shown = _own_rows(own_y, rows)
    joined = Rows(
        target=np.concatenate([rows.target, shown.target]),
        within=np.concatenate([rows.within, shown.within]),
        logistic=rows.logistic,
    )
    who = np.concatenate([node, np.full(len(own_y), nodes)])
    baseline = fit_baseline(everything, joined, amount, who, nodes + 1, rng=rng)
    at, distance = space.nearest(space.points(everything))
    heavy = size * believed
    score = baseline.score(everything)
    alone = np.zeros(len(own_y), np.int64)
    count = len(space.middles)
    heard = _sums(score[:n], rows, heavy, heavy * believed, node, at[:n], baseline, nodes, count)
    own = _sums(score[n:], shown, mine, mine**2, alone, at[n:], baseline, 1, count)
    scales = tuple(_contest(heard, own, similar, node_weight, home, baseline.noise) for similar in space.similar)
    blank = Survival(
        weight=np.ones(n),
        region=at[:n],
        opponent=np.full(n, NOBODY),
        opponent_packet=np.full(n, -1),
        support=np.zeros(n),
        opposition=np.zeros(n),
        z=np.zeros(n),
        tau2=scales[-1].tau2,
        _node=node,
        _trust=node_weight,
        _organisation=home,
        _space=space,
        _baseline=baseline,
        _own=own,
        _scales=scales,
        _nearest=_representatives(node, at[:n], distance[:n], heavy, nodes, count),
    )
    return _told(blank, np.arange(count))


def _contest(heard: _Heard, own: _Heard, similar: Floats, trust: Floats, home: Ints, unit: Floats) -> _Scale:
    """Estimate base rates, differences between honest nodes and verdicts in turn."""
    says, own_says = heard.says(similar), own.says(similar)
    raw, own_raw = heard.says(), own.says()
    tau2 = TAU_GUESS * unit
    middle = middle_of(raw, trust, unit)
    offset, own_offset = first_offsets(raw, middle, unit), first_offsets(own_raw, middle, unit)
    for _ in range(ROUNDS):
        judged = judge(says, own_says, trust, home, offset, own_offset, tau2, unit)
        offset = offsets(raw, judged.consensus, judged.weight, tau2, unit)
        own_offset = offsets(own_raw, judged.consensus, np.ones(own_raw.value.shape[:2]), tau2, unit)
        tau2 = tau(says, judged, offset, tau2, unit)
    return _Scale(similar=similar, says=says, offset=offset, own_offset=own_offset, tau2=tau2)


def _told(s: Survival, regions: Ints) -> Survival:
    """Verdicts for packets in `regions` (the harshest of all widths), and whom each loser lost to."""
    verdicts = []
    for scale in s._scales:
        similar = scale.similar[regions]
        offset, own_offset = ((pair[0][:, regions], pair[1][:, regions]) for pair in (scale.offset, scale.own_offset))
        says, own = scale.says.take(regions), s._own.says(similar)
        verdicts.append(judge(says, own, s._trust, s._organisation, offset, own_offset, scale.tau2, s._baseline.noise))
    place = np.full(len(s._space.middles), -1)
    place[regions] = np.arange(len(regions))
    rows = np.flatnonzero(place[s.region] >= 0)
    at = (s._node[rows], place[s.region[rows]])
    harshest = np.stack([judged.weight[at] for judged in verdicts]).argmin(0)

    def chosen(name: str) -> Floats:
        each = np.stack([getattr(judged, name)[at] for judged in verdicts])
        return np.asarray(np.take_along_axis(each, harshest[None], 0)[0])

    weight, by_own = chosen("weight"), chosen("by_own") > 0
    # The strongest voice with packets of its own there, or the next one where that is the loser itself.
    there = s._nearest[:, regions]
    present = np.where(there >= 0, verdicts[0].votes, 0.0)
    order = np.argpartition(-present, 1, axis=0)[:2] if len(present) > 1 else np.zeros((2, len(regions)), np.int64)
    order = np.take_along_axis(order, np.argsort(-np.take_along_axis(present, order, 0), axis=0, kind="stable"), 0)
    first = np.where(order[0][at[1]] == at[0], order[1][at[1]], order[0][at[1]])
    voted = (present[first, at[1]] > 0) & (first != at[0])
    lost = weight < LOST
    opponent = np.where(by_own, OWN, np.where(voted, first, NOBODY))
    packet = np.where(~by_own & voted, there[first, at[1]], NOBODY)
    found = {
        "weight": weight,
        "support": chosen("support"),
        "opposition": chosen("opposition"),
        "z": chosen("z"),
        "opponent": np.where(lost, opponent, NOBODY),
        "opponent_packet": np.where(lost, packet, NOBODY),
    }
    changed = {}
    for name, value in found.items():
        changed[name] = getattr(s, name).copy()
        changed[name][rows] = value
    return replace(s, **changed)


def _representatives(node: Ints, region: Ints, distance: Floats, amount: Floats, nodes: int, regions: int) -> Ints:
    """Packet of each node nearest to the middle of each neighbourhood, int64[N, R]; -1: none."""
    out = np.full((nodes, regions), -1)
    order = np.argsort(-distance, kind="stable")
    order = order[amount[order] > 0]
    out[node[order], region[order]] = order  # the nearest is written last
    return out


def _own_rows(y: Floats, like: Rows | Baseline) -> Rows:
    columns = like.target.shape[1] if isinstance(like, Rows) else like.coefficients.shape[1]
    single = not like.logistic or columns == 1
    target = y[:, None].astype(np.float64) if single else (y[:, None] == np.arange(columns)).astype(np.float64)
    return Rows(target=target, within=np.zeros(len(y)), logistic=like.logistic)


def _sums(
    score: Floats,
    rows: Rows,
    amount: Floats,
    squared: Floats,
    voice: Ints,
    region: Ints,
    baseline: Baseline,
    voices: int,
    regions: int,
) -> _Heard:
    """Outcomes seen and expected (at scores float64[n, K]) by voice and neighbourhood."""
    cell = voice * regions + region

    def added(values: Floats) -> Floats:
        return np.bincount(cell, values, voices * regions).astype(np.float64).reshape(voices, regions)

    share = probability(score, baseline.logistic)
    return _Heard(
        observed=np.stack([added(amount * column) for column in rows.target.T], axis=2),
        expected=np.stack([added(amount * column) for column in share.T], axis=2),
        amount=added(amount),
        squared=added(squared),
        noise=baseline.noise,
        logistic=baseline.logistic,
    )
