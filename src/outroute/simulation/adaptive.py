"""The attacker who knows the elections and lies exactly as much as they will still believe.

It plays the victim: outcomes drawn from packets that anybody can read stand in for those that the victim keeps. For
each part of its packets that it might turn around, it asks the elections how far its packets would be believed, and
takes the part that does the most harm: weight times lies. It lies first where the victim has shown the least.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from outroute.simulation.claims import chosen
from outroute.simulation.imitation import standardised, together
from outroute.synthesis.evidence import Evidence, Floats, Records

__all__ = ["LIES", "Rule", "adaptive", "guess", "pretended"]

Rule = Callable[[Evidence, Records], Floats]
"""The elections: (all packets, own records) -> weight of each packet, float64[n] in [0, 1]."""

LIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Parts of its packets that the attacker may turn around."""
PRETENDED_MOST = 300
"""Outcomes that stand in for the victim's: as many as a hospital of middling size has."""
RIDGE = 10.0
"""Strength of the ridge regression that guesses at the elections."""


def adaptive(
    honest: Evidence,
    lying: Evidence,
    read: Evidence,
    rule: Rule | None,
    victim: bytes | None,
    rng: np.random.Generator,
) -> Evidence:
    """The packets of attackers who turn around as many as pays.

    Args:
        honest: what the attackers would say if they were honest.
        lying: the same packets turned around.
        read: packets of all honest members.
        rule: the elections; None: `guess`.
        victim: node id of the victim; its packets, if it has any, stand in for its records.
        rng: draws the records that stand in.
    """
    weigh = guess if rule is None else rule
    theirs = np.array([i for i, name in enumerate(read.nodes) if name == victim], dtype=np.int64)
    shown = np.flatnonzero(np.isin(read.node, theirs))
    records = pretended(read.take(shown) if len(shown) else read, rng)
    remote = np.argsort(-_nearest(honest.x, records.x), kind="stable")
    best, harm = honest, -1.0
    for part in LIES:
        where = np.zeros(honest.n, dtype=bool)
        where[remote[: round(part * honest.n)]] = True
        tried = chosen(where, lying, honest)
        weight = weigh(together(read, tried), records)[read.n :]
        done = float((weight * tried.size)[where].sum())
        if done > harm:
            best, harm = tried, done
    return best


def pretended(packets: Evidence, rng: np.random.Generator) -> Records:
    """Records as the packets might have been made of: one outcome drawn from each of up to `PRETENDED_MOST`."""
    rows = rng.permutation(packets.n)[:PRETENDED_MOST]
    part = packets.take(rows)
    if part.counts is not None:
        share = part.counts / np.maximum(part.counts.sum(axis=1, keepdims=True), 1e-12)
        y = (share.cumsum(axis=1) < rng.random((part.n, 1))).sum(axis=1).clip(0, share.shape[1] - 1).astype(np.float64)
    else:
        assert part.mean is not None
        assert part.variance is not None
        y = rng.normal(part.mean, np.sqrt(np.maximum(part.variance, 0.0)))
    return Records(x=part.x, y=y, group=np.arange(part.n, dtype=np.int64))


def guess(packets: Evidence, own: Records) -> Floats:
    """A plain guess at any election: each node weighs by how well a ridge regression on its packets predicts.

    Weight is the correlation of prediction and own outcome (mean over classes), and none below two standard errors.
    """
    mean, spread = standardised(packets.x)
    z = np.nan_to_num((packets.x - mean) / spread)
    mine = np.nan_to_num((own.x - mean) / spread)
    if packets.counts is not None:
        said = packets.counts / np.maximum(packets.counts.sum(axis=1, keepdims=True), 1e-12)
        seen = np.eye(said.shape[1])[own.y.astype(np.int64)]
    else:
        assert packets.mean is not None
        said, seen = packets.mean[:, None], own.y[:, None]
    out = np.zeros(packets.n)
    for node in np.unique(packets.node):
        rows = np.flatnonzero(packets.node == node)
        gap = said[rows] - said[rows].mean(axis=0)
        # The dual form: a node has fewer packets than a table may have slots.
        near = z[rows] @ z[rows].T + RIDGE * np.eye(len(rows))
        predicted = (mine @ z[rows].T) @ np.linalg.solve(near, gap)
        together_ = [_correlation(predicted[:, c], seen[:, c]) for c in range(seen.shape[1])]
        value = float(np.mean(together_))
        out[rows] = max(0.0, value) if value > 2 / np.sqrt(max(own.n, 1)) else 0.0
    return out


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 1e-12 else 0.0


def _nearest(x: Floats, pool: Floats) -> Floats:
    """float64[n]: distance of each row of x to the nearest of the pool, standard deviations of the pool."""
    mean, spread = standardised(pool)
    a, b = np.nan_to_num((x - mean) / spread), np.nan_to_num((pool - mean) / spread)
    gap = (a**2).sum(axis=1)[:, None] - 2 * a @ b.T + (b**2).sum(axis=1)
    out: Floats = np.sqrt(np.maximum(gap.min(axis=1), 0.0))
    return out
