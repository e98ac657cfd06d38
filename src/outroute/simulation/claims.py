"""What attackers claim about outcomes, as columns over packets: class counts, or means and variances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from outroute.simulation.imitation import Outcomes, outcomes, standardised
from outroute.synthesis.evidence import Evidence, Floats

__all__ = ["all_of_one", "at_base_rate", "by_function", "chosen", "false_function", "flipped", "random_outcomes"]

STEEPNESS = 3.0
"""Standard deviation of the false function in logits (or in standard deviations / 2 of a number): as sure of itself
as a good model of an easy disease."""
CERTAIN = 0.25
"""Variance inside a packet that claims to be certain, as a share of what is usual."""


def flipped(packets: Evidence) -> Evidence:
    """Every outcome turned into its opposite: class c into C - 1 - c, numbers mirrored about the mean.

    Source: Fang et al. (2020), Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, section 5.1
    (label l becomes L - l - 1).
    """
    if packets.counts is not None:
        return replace(packets, counts=packets.counts[:, ::-1].copy())
    assert packets.mean is not None
    return replace(packets, mean=2 * outcomes(packets).centre - packets.mean)


def random_outcomes(packets: Evidence, rng: np.random.Generator) -> Evidence:
    """Outcomes of each packet drawn around a rate of its own, itself uniform; numbers with the usual spread."""
    known = outcomes(packets)
    if known.classes:
        return _counted(packets, rng.dirichlet(np.ones(known.classes), packets.n), rng)
    return replace(packets, mean=rng.normal(known.centre, known.spread, packets.n))


def all_of_one(packets: Evidence, which: int | None = None) -> Evidence:
    """All outcomes the same: class `which` (default: the rarest), or a number two standard deviations up."""
    known = outcomes(packets)
    if known.classes:
        counts = np.zeros((packets.n, known.classes))
        counts[:, int(np.argmin(known.rate)) if which is None else which] = packets.size
        return replace(packets, counts=counts)
    return _certain(packets, np.full(packets.n, known.centre + 2 * known.spread), known)


def at_base_rate(packets: Evidence, rng: np.random.Generator) -> Evidence:
    """The base rate everywhere: nothing learnt, nothing told."""
    known = outcomes(packets)
    if known.classes:
        return _counted(packets, np.tile(known.rate, (packets.n, 1)), rng)
    return replace(packets, mean=np.full(packets.n, known.centre))


def false_function(packets: Evidence, rng: np.random.Generator) -> Floats:
    """A random linear function of conditions, float64[D + 1, K]: slopes on standardised slots, then the level.

    K is 1 for binary outcomes (logit of the second class) and numbers (standard deviations), else C (logits).
    """
    known = outcomes(packets)
    columns = 1 if known.classes in (0, 2) else known.classes
    slopes = rng.normal(size=(packets.x.shape[1], columns))
    _, spread = standardised(packets.x)
    slopes[spread >= 1.0] = 0.0  # a slot without any value
    slopes /= np.sqrt((slopes**2).sum(axis=0)) + 1e-12
    level = np.zeros((1, columns))
    if known.classes == 2:
        level[0, 0] = np.log(known.rate[1] / known.rate[0])
    elif known.classes:
        level[0] = np.log(known.rate)
    return np.concatenate([slopes, level])


def by_function(packets: Evidence, function: Floats, like: Evidence) -> Evidence:
    """Outcomes as a false function has them, without noise.

    Args:
        packets: whose outcomes are replaced.
        function: of `false_function`.
        like: packets whose conditions standardise the slots (the same for all who collude).
    """
    known = outcomes(like)
    mean, spread = standardised(like.x)
    reference = np.nan_to_num((like.x - mean) / spread) @ function[:-1]
    score = np.nan_to_num((packets.x - mean) / spread) @ function[:-1]
    score = (score - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-9)
    if not known.classes:
        return _certain(packets, known.centre + known.spread * STEEPNESS / 2 * score[:, 0], known)
    score = STEEPNESS * score + function[-1]
    if known.classes == 2:
        second = 0.5 * (1 + np.tanh(0.5 * score[:, 0]))
        return _expected(packets, np.stack([1 - second, second], axis=1))
    power = np.exp(score - score.max(axis=1, keepdims=True))
    return _expected(packets, power / power.sum(axis=1, keepdims=True))


def chosen(where: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], yes: Evidence, no: Evidence) -> Evidence:
    """Outcomes of `yes` where the mask says so and of `no` elsewhere; the other columns are those of `no`."""
    if no.counts is not None and yes.counts is not None:
        return replace(no, counts=np.where(where[:, None], yes.counts, no.counts))
    assert yes.mean is not None
    assert yes.variance is not None
    assert no.mean is not None
    assert no.variance is not None
    return replace(no, mean=np.where(where, yes.mean, no.mean), variance=np.where(where, yes.variance, no.variance))


def _counted(packets: Evidence, rate: Floats, rng: np.random.Generator) -> Evidence:
    counts = rng.multinomial(packets.size.astype(np.int64), rate).astype(np.float64)
    return replace(packets, counts=counts)


def _expected(packets: Evidence, rate: Floats) -> Evidence:
    """Whole counts as near to size times rate as they get: the largest remainders are rounded up."""
    wanted = rate * packets.size[:, None]
    counts = np.floor(wanted)
    left = np.rint(packets.size - counts.sum(axis=1)).astype(np.int64)
    order = np.argsort(np.argsort(-(wanted - counts), axis=1, kind="stable"), axis=1)
    return replace(packets, counts=counts + (order < left[:, None]))


def _certain(packets: Evidence, mean: Floats, known: Outcomes) -> Evidence:
    return replace(packets, mean=mean, variance=np.full(packets.n, CERTAIN * known.within))
