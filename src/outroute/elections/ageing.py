"""Ageing: how fast evidence loses its say, elected from own outcomes.

An outcome that changes over time makes old packets wrong; one that does not makes every discarded packet a loss. Own
outcomes decide: they are cut into blocks of time, each block is predicted from what was known before it, once for
every half-life, and a half-life is elected only if its gain over "nothing ages" exceeds two and a half standard
errors. Every own record is thus scored by a regression that has not seen it, nor anything later.
Source: Dawid (1984), "Statistical theory: the prequential approach"; exponential forgetting as in Gama et al. (2014),
"A survey on concept drift adaptation", section 3.2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outroute.elections.baseline import Floats, Ints, Rows, fit_baseline, probability, rows_of
from outroute.errors import DataError

__all__ = ["HALF_LIVES", "Ageing", "ageing"]

DAY = 86_400
"""Seconds."""
HALF_LIVES: tuple[int, ...] = (1460 * DAY, 730 * DAY, 365 * DAY, 180 * DAY, 90 * DAY, 45 * DAY, 20 * DAY)
"""Half-lives that stand for election, seconds: four years down to three weeks, each about half of the one before."""
BLOCKS = 8
"""Parts of equal size that own records are cut into by time."""
FIRST = 2
"""Parts at the start that are learnt from and not asked about."""
CERTAIN = 2.5
"""Standard errors by which a half-life must gain: seven are tried, and losing old evidence costs."""
BUCKETS_LEAST = 6
"""Times at which own outcomes were asked about, below which nothing is elected: a standard error needs some."""
PIECES = 20
"""Stretches of time that standard errors are taken over: what happens in one week is much like the week before, and
counting weeks as independent elected, in the first year of air quality, half-lives that only followed the season."""
RECORDS_LEAST = 60
"""Own records below which nothing is elected."""
FLOOR = 0.02
"""Least weight: old evidence yields to fifty times as little that is new, and stays where there is nothing else."""
CURRENT = 2.0
"""Half-lives for which an own record is used."""
OWN_LEAST = 200
"""Newest own records that are used however old they are."""
LOSS_MOST = 6.0
"""Loss per outcome above this counts as this, nats: one mistake is not a verdict."""
PACKETS_MOST = 20_000
"""Packets that are read, evenly spaced in time; the speed of a drift shows in far fewer."""
OWN_MOST = 10_000
"""Own records that are read, evenly spaced in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ageing:
    """An elected speed of ageing.

    Attributes:
        half_life: seconds; None: nothing ages.
        half_lives: what stood for election, seconds.
        gains: float64[H], mean gain per own outcome over "nothing ages": nats (classes), or standard deviations of
            the outcome (numbers, by CRPS). Empty when there was too little to elect from.
        errors: float64[H], their standard errors, over stretches of time.
        scored: own outcomes that were asked about.
    """

    half_life: int | None
    half_lives: tuple[int, ...]
    gains: Floats
    errors: Floats
    scored: int

    def weight(self, bucket: Ints, now: int) -> Floats:
        """Weight of evidence observed at `bucket` (seconds), float64[n] in [`FLOOR`, 1]; the newest has 1."""
        return _weights(bucket, now, self.half_life)

    def current(self, bucket: Ints, now: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Own records that are recent enough to be used, bool[n]: records carry no weight in a synthesis."""
        if self.half_life is None or not len(bucket):
            return np.ones(len(bucket), bool)
        recent = now - CURRENT * self.half_life
        newest = np.sort(bucket)[-min(OWN_LEAST, len(bucket))]
        return np.asarray(bucket >= min(recent, newest))


def _weights(bucket: Ints, now: int, half_life: int | None) -> Floats:
    if half_life is None or not len(bucket):
        return np.ones(len(bucket))
    age = np.maximum(now - bucket, 0).astype(np.float64)
    out: Floats = np.maximum(2.0 ** (-(age - age.min()) / half_life), FLOOR)
    return out


def ageing(
    x: Floats,
    node: Ints,
    size: Floats,
    bucket: Ints,
    *,
    counts: Floats | None = None,
    mean: Floats | None = None,
    variance: Floats | None = None,
    own_x: Floats,
    own_y: Floats,
    own_bucket: Ints,
    now: int,
    node_weight: Floats | None = None,
    half_lives: Sequence[int] = HALF_LIVES,
) -> Ageing:
    """Elect a half-life.

    Args:
        x: float64[n, D], conditions of packets, unit scale, NaN missing.
        node: int64[n], index of the author.
        size: float64[n], observations of each packet.
        bucket: int64[n], start of the observed-at bucket, seconds.
        counts: float64[n, C], for class outcomes.
        mean, variance: float64[n], outcome units, for numeric outcomes.
        own_x, own_y, own_bucket: own records: conditions, class index or value, and when, seconds.
        now: seconds; what is later is not read.
        node_weight: float64[N] in [0, 1], trust in each node; None: all ones.
        half_lives: seconds, what stands for election beside "never".

    Raises:
        DataError: neither counts nor mean and variance, or columns of unequal length.
    """
    if (counts is None) == (mean is None) or (mean is None) != (variance is None):
        raise DataError("ageing needs either counts, or mean and variance", code="ageing.outcome")
    if not len(x) == len(node) == len(size) == len(bucket) or not len(own_x) == len(own_y) == len(own_bucket):
        raise DataError("ageing needs columns of equal length", code="ageing.length")
    none = Ageing(half_life=None, half_lives=tuple(half_lives), gains=np.zeros(0), errors=np.zeros(0), scored=0)
    order = np.argsort(own_bucket, kind="stable")
    order = _thinned(order[own_bucket[order] <= now], OWN_MOST)
    kept = np.flatnonzero(bucket <= now)
    kept = _thinned(kept[np.argsort(bucket[kept], kind="stable")], PACKETS_MOST)
    if len(order) < RECORDS_LEAST:
        return none
    mine_x, mine_y, mine_at = own_x[order], own_y[order], own_bucket[order]
    rows, peers = _joined(rows_of(counts, mean, variance), kept, mine_y)
    everything = np.concatenate([x[kept], mine_x])
    when = np.concatenate([bucket[kept], mine_at])
    voice = 1 + int(node[kept].max()) if peers else 0
    who = np.concatenate([node[kept], np.full(len(mine_x), voice, np.int64)])
    amount = np.concatenate(
        [size[kept] if node_weight is None else size[kept] * node_weight[node[kept]], mine_y * 0 + 1]
    )
    starts = np.unique(mine_at[np.arange(FIRST, BLOCKS) * len(mine_at) // BLOCKS])
    table, times = [], []
    for i, start in enumerate(starts.tolist()):
        end = int(starts[i + 1]) if i + 1 < len(starts) else now + 1
        asked = peers + np.flatnonzero((mine_at >= start) & (mine_at < end))
        known = np.flatnonzero((when < start) & (amount > 0))
        if not len(asked) or (who[known] == voice).sum() < RECORDS_LEAST // 4:
            continue
        part = Rows(target=rows.target[known], within=rows.within[known], logistic=rows.logistic)
        losses = []
        for half_life in (None, *half_lives):
            weight = amount[known] * _weights(when[known], start, half_life)
            model = fit_baseline(everything[known], part, weight, who[known], voice + 1)
            score = model.score(everything[asked]) + model.intercepts[voice]
            losses.append(_loss(score, rows.target[asked], model.noise, rows.logistic))
        table.append(np.stack(losses, axis=1))
        times.append(when[asked])
    if not table:
        return none
    loss, at = np.concatenate(table), np.concatenate(times)
    gain = loss[:, :1] - loss[:, 1:]
    if not rows.logistic:
        gain = gain / max(float(mine_y.std()), 1e-12)
    names, place = np.unique(at, return_inverse=True)
    if len(names) < BUCKETS_LEAST:
        return none
    mean_gain = gain.mean(0)
    pieces = min(PIECES, len(names))
    piece = place.reshape(-1) * pieces // len(names)
    by_piece = np.stack([np.bincount(piece, column, pieces) for column in (gain - mean_gain).T])
    errors = np.sqrt((by_piece**2).sum(1) * pieces / (pieces - 1)) / len(gain)
    sure = mean_gain - CERTAIN * errors
    best = int(sure.argmax())
    return Ageing(
        half_life=int(half_lives[best]) if sure[best] > 0 else None,
        half_lives=tuple(half_lives),
        gains=mean_gain,
        errors=errors,
        scored=len(gain),
    )


def _thinned(rows: Ints, most: int) -> Ints:
    """At most `most` of them, evenly spaced."""
    return rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]


def _joined(packets: Rows, kept: Ints, y: Floats) -> tuple[Rows, int]:
    """Packets `kept`, then own outcomes, and how many packets there are."""
    columns = packets.target.shape[1]
    if not packets.logistic or columns == 1:
        own = y[:, None].astype(np.float64)
    else:
        own = (y[:, None] == np.arange(columns)).astype(np.float64)
    target = np.concatenate([packets.target[kept], own])
    within = np.concatenate([packets.within[kept], np.zeros(len(y))])
    return Rows(target=target, within=within, logistic=packets.logistic), len(kept)


def _loss(score: Floats, target: Floats, noise: Floats, logistic: bool) -> Floats:
    """Loss of each row, float64[n]: nats, or the CRPS of a Normal in outcome units."""
    if logistic:
        share = np.clip(probability(score, True), 1e-6, 1.0 - 1e-6)
        if share.shape[1] > 1:
            share = share / share.sum(1, keepdims=True)
            return np.asarray(np.minimum(-(target * np.log(share)).sum(1), LOSS_MOST))
        return np.asarray(np.minimum(-(target * np.log(share) + (1 - target) * np.log1p(-share))[:, 0], LOSS_MOST))
    from scipy.special import ndtr

    sd = float(np.sqrt(noise[0]))
    z = (target[:, 0] - score[:, 0]) / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    out: Floats = sd * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    return out
