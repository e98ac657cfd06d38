"""The contest inside each neighbourhood: who contradicts whom, and who has more trust behind it.

Every node has a say in every neighbourhood where it has packets: by how much its outcomes exceed what was expected
of them, with a variance. What is compared is net of each node's own base rate (estimated outside the neighbourhood
in question), of sampling noise, and of how much honest nodes differ.

Two hypotheses stand against each other for each say: *sound* (it deviates from the others by noise and ordinary
differences between nodes) and *wrong* (it may deviate widely). The answer is the posterior probability of *sound*,
first against own outcomes, then against the other nodes, whose votes count by trust and by how they fared against own
outcomes. Nobody loses to less trust than stands behind itself.
Source: Box and Tiao (1968), "A Bayesian approach to some outlier problems" (two-component model); DerSimonian and
Laird (1986) for votes of variance noise + heterogeneity. Departures: heterogeneity from a weighted median, so that
liars do not widen it; a node never votes about itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["TAU_GUESS", "Judged", "Says", "first_offsets", "judge", "middle_of", "offsets", "tau"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SOUND = 0.9
"""Probability that a say is sound before it is compared. A higher one would let a say that is contradicted at three
standard errors keep its weight; a lower one would fade one at two."""
WRONG = 0.6
"""Variance of the deviation of a wrong say, in variances of one outcome: a flipped rate of 80 % deviates by 2.8 on the
logit scale, twice the standard deviation that this means."""
ROUNDS = 3
"""Times that votes are weighed anew by how their nodes fared."""
OWN_TRUST = 2.0
"""Trust in own outcomes, in units of the trust in all nodes present together, if they leave no doubt."""
LESSER = 0.5
"""A node trusted less than this share of the accused counts as lesser; all lesser ones together count at most as this
share of the accused."""
DOUBLE = 2.0
"""A say that is contradicted fades wholly when this many times its own trust stands against it, and not at all when no
more than its own does."""
CONFIRM_MOST = 1.5
"""Nats by which other nodes can confirm a say; more needs own outcomes."""
TAU_LEAST, TAU_GUESS, TAU_MOST = 0.01, 0.03, 0.15
"""Variance between honest nodes in one neighbourhood, base rates apart, in variances of one outcome: bounds, and what
is taken while few can be compared."""
TAU_PRIOR = 20.0
"""Comparisons that the guess weighs as much as."""
TAU_READ = 20_000
"""Comparisons that are read for it, drawn evenly."""
TAU_STEPS = 14
"""Values of the variance that are tried."""
MEDIAN = 0.4549
"""Median of a squared standard Normal variable."""
LOUD = 0.6
"""Share of information (against noise) from which a say is read for the variance between nodes."""
OFFSET = 0.15
"""Variance of a node's base rate, in variances of one outcome, before it is known."""
LOST_TO_OWN = 0.5
"""Weight after own outcomes alone below which they are named as what a say lost to."""
UNMOVED = 0.25
"""Say of "no other base rate" in the first median, relative to all neighbourhoods together."""
SILENT = 1e30
"""Variance of a voice that says nothing: so large that its factor is 0."""
NOTHING = 1e-9
"""Information below which a node has no say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """What voices say in neighbourhoods, all columns of one outcome.

    Attributes:
        value: float64[V, R, K], deviation from the expectation, scale of the score.
        variance: float64[V, R, K], its sampling variance; infinite where there is no say.
    """

    value: Floats
    variance: Floats

    def take(self, regions: Ints) -> Says:
        """Some neighbourhoods only."""
        return Says(value=self.value[:, regions], variance=self.variance[:, regions])


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Outcome of the contest.

    Attributes:
        weight: float64[V, R] in [0, 1].
        z: float64[V, R], signed deviation from the others, standard errors (column with the largest).
        support, opposition: float64[V, R], trust for and against, units of node weight.
        by_own: bool[V, R], own outcomes alone would halve it, or speak against it more loudly than other nodes.
        votes: float64[V, R], trust that each node brought to what the others agree on.
        consensus: float64[R, K], what they agree on; NaN where nobody votes.
    """

    weight: Floats
    z: Floats
    support: Floats
    opposition: Floats
    by_own: npt.NDArray[np.bool_]
    votes: Floats
    consensus: Floats


def relative(log_odds: Floats) -> Floats:
    """Posterior probability of *sound* from the log Bayes factor, relative to that before; at most 1."""
    prior = np.log(SOUND / (1.0 - SOUND))
    out: Floats = np.minimum(0.5 * (1.0 + np.tanh(0.5 * (prior + log_odds))) / SOUND, 1.0)
    return out


def _factor(deviation: Floats, variance: Floats, wide: Floats) -> Floats:
    """Log Bayes factor of *sound* against *wrong*, summed over the K columns; 0 where nothing is known."""
    v = np.minimum(variance, SILENT)
    total = v + wide
    each = 0.5 * np.log(total / v) - 0.5 * deviation**2 * wide / (v * total)
    columns = deviation.shape[-1]
    share = 1.0 if columns == 1 else (columns - 1) / columns  # shares of classes sum to one: K - 1 are free
    out: Floats = (each[..., 0] if columns == 1 else each.sum(-1)) * share
    return out


def _median(value: Floats, weight: Floats) -> Floats:
    """Weighted median along the first axis, float64[R, K]; NaN where all weights are 0."""
    order = np.argsort(value, axis=0)
    ordered = np.take_along_axis(value, order, 0)
    mass = np.cumsum(np.take_along_axis(weight, order, 0), axis=0)
    at = (mass < 0.5 * mass[-1:]).sum(0)
    out = np.take_along_axis(ordered, np.minimum(at, len(value) - 1)[None], 0)[0]
    return np.where(mass[-1] > NOTHING, out, np.nan)


def judge(
    says: Says,
    own: Says,
    trust: Floats,
    organisation: Ints,
    offset: tuple[Floats, Floats],
    own_offset: tuple[Floats, Floats],
    tau2: Floats,
    unit: Floats,
) -> Judged:
    """Hold the contest.

    Args:
        says: of V nodes in R neighbourhoods.
        own: of own outcomes (V = 1).
        trust: float64[V] in [0, 1].
        organisation: int64[V]; votes of one count together at most as its most trusted node.
        offset, own_offset: base rate of each voice outside each neighbourhood and its variance, float64[V, R, K].
        tau2: float64[K], variance between honest nodes.
        unit: float64[K], variance of one outcome.
    """
    wide = WRONG * unit
    heard = np.isfinite(says.variance)
    value = np.where(heard, says.value - offset[0], 0.0)
    spread = np.where(heard, says.variance + offset[1] + tau2, np.inf)
    mine = np.where(np.isfinite(own.variance), own.value - own_offset[0], 0.0)
    mine_spread = own.variance + own_offset[1] + tau2
    # How much a say is information and not noise, 0 to 1.
    clear = (wide / (wide + says.variance)).min(-1)
    own_clear = (wide / (wide + own.variance)).min(-1)[0]
    against_own = _factor(value - mine, spread + mine_spread, wide)
    checked = relative(against_own)
    base = trust[:, None] * clear
    votes = _capped(base * checked, organisation)
    own_trust = OWN_TRUST * np.maximum(_capped(base, organisation).sum(0), 1.0) * own_clear
    inverse = np.where(heard, 1.0 / np.where(heard, spread, 1.0), 0.0)
    consensus = _median(value, np.where(heard, votes[:, :, None], 0.0))
    stays = relative(_factor(value - np.nan_to_num(consensus), np.where(np.isnan(consensus), np.inf, spread), wide))
    for _ in range(ROUNDS):
        pull = (votes * stays)[:, :, None] * inverse
        total = pull.sum(0) - pull
        others = total > NOTHING
        safe = np.where(others, total, 1.0)
        middle = ((pull * value).sum(0) - pull * value) / safe
        # Votes count by trust, so the variance of their mean is that of a sum with these weights.
        squares = pull**2 * np.where(heard, spread, 0.0)
        doubt = np.where(others, (squares.sum(0) - squares) / safe**2, np.inf)
        factor = _factor(value - middle, spread + doubt, wide)
        stays = relative(factor)
    agreed = (votes * stays)[:, :, None] * inverse
    mass = agreed.sum(0)
    known = mass > NOTHING
    consensus = np.where(known, (agreed * value).sum(0) / np.where(known, mass, 1.0), np.nan)
    doubt_all = np.where(
        known, (agreed**2 * np.where(heard, spread, 0.0)).sum(0) / np.where(known, mass, 1.0) ** 2, np.inf
    )
    own_agrees = relative(_factor(mine - np.nan_to_num(consensus), mine_spread + doubt_all, wide))[0]
    opposition = _opposing(votes * stays, trust) + own_trust * own_agrees
    support = base + _same_side(value, consensus, votes * (1.0 - stays)) + own_trust * checked
    strength = np.clip((opposition - support) / ((DOUBLE - 1.0) * np.maximum(support, NOTHING)), 0.0, 1.0)
    contradicted = strength * np.minimum(factor, 0.0)
    confirmed = np.where(against_own >= 0.0, np.clip(factor, 0.0, CONFIRM_MOST), 0.0)
    z = np.where(
        np.isfinite(spread + doubt),
        (value - middle) / np.sqrt(np.where(heard, spread, 1.0) + np.where(others, doubt, 1.0)),
        0.0,
    )
    largest = np.abs(z).argmax(-1)
    return Judged(
        weight=relative(against_own + contradicted + confirmed),
        z=np.take_along_axis(z, largest[..., None], -1)[..., 0],
        support=support,
        opposition=opposition,
        by_own=(checked < LOST_TO_OWN) | (against_own <= contradicted),
        votes=votes * stays,
        consensus=consensus,
    )


def _capped(votes: Floats, organisation: Ints) -> Floats:
    """Votes float64[V, R] such that an organisation's nodes together count as its strongest one."""
    count = int(organisation.max(initial=-1)) + 1
    if count >= len(votes):
        return votes
    total = np.zeros((count, votes.shape[1]))
    np.add.at(total, organisation, votes)
    most = np.zeros_like(total)
    np.maximum.at(most, organisation, votes)
    out: Floats = votes * (most / np.maximum(total, NOTHING))[organisation]
    return out


def _opposing(votes: Floats, trust: Floats) -> Floats:
    """Trust of all other voters, lesser ones capped, float64[V, R]."""
    order = np.argsort(trust, kind="stable")
    running = np.concatenate([np.zeros((1, votes.shape[1])), np.cumsum(votes[order], axis=0)])
    first = np.searchsorted(trust[order], LESSER * trust, side="left")
    lesser = running[first]
    out: Floats = running[-1] - lesser - np.where(trust[:, None] > 0, votes, 0.0)
    return np.asarray(np.maximum(out, 0.0) + np.minimum(lesser, LESSER * trust[:, None]))


def _same_side(value: Floats, consensus: Floats, out: Floats) -> Floats:
    """Trust of those who also deviate from the consensus, to the same side, float64[V, R]."""
    if value.shape[-1] > 1:  # sides of several classes are many: each stands alone
        return np.zeros(out.shape)
    above = value[:, :, 0] > consensus[:, 0]
    up, down = (out * above).sum(0), (out * ~above).sum(0)
    return np.asarray(np.maximum(np.where(above, up, down) - out, 0.0))


def middle_of(raw: Says, trust: Floats, unit: Floats) -> Floats:
    """What most trust says in each neighbourhood before anything is compared, float64[R, K]; 0 where nobody speaks."""
    weight = trust[:, None, None] * (WRONG * unit / (WRONG * unit + raw.variance))
    return np.nan_to_num(_median(raw.value, weight))


def first_offsets(raw: Says, middle: Floats, unit: Floats) -> tuple[Floats, Floats]:
    """Base rate of each voice to begin with, and its variance, float64[V, 1, K] each.

    A median over neighbourhoods, so that lies in some of them do not pass for a base rate; where half of them deviate,
    it is taken for a lie and not for a base rate.
    """
    precise = np.where(np.isfinite(raw.variance), 1.0 / np.where(np.isfinite(raw.variance), raw.variance, 1.0), 0.0)
    total = precise.sum(1, keepdims=True)
    gap = np.concatenate([raw.value - middle, np.zeros_like(total)], axis=1)
    weight = np.concatenate([precise, UNMOVED * total], axis=1)
    found = _median(np.moveaxis(gap, 1, 0), np.moveaxis(weight, 1, 0))
    return np.nan_to_num(found)[:, None], 1.0 / (total + 1.0 / (OFFSET * unit))


def offsets(raw: Says, consensus: Floats, sound: Floats, tau2: Floats, unit: Floats) -> tuple[Floats, Floats]:
    """Base rate of each voice outside each neighbourhood, and its variance, float64[V, R, K] each.

    Args:
        raw: says that share no packets between neighbourhoods.
        consensus: float64[R, K].
        sound: float64[V, R], how far each say is believed.
        tau2: float64[K].
        unit: float64[K].
    """
    known = np.isfinite(raw.variance) & ~np.isnan(consensus)
    precise = np.where(known, sound[:, :, None] / np.where(known, raw.variance + tau2, 1.0), 0.0)
    pull = precise * np.where(known, raw.value - np.nan_to_num(consensus), 0.0)
    total = precise.sum(1, keepdims=True) - precise + 1.0 / (OFFSET * unit)
    return (pull.sum(1, keepdims=True) - pull) / total, 1.0 / total


def tau(says: Says, judged: Judged, offset: tuple[Floats, Floats], before: Floats, unit: Floats) -> Floats:
    """Variance between honest nodes by column, float64[K], from a weighted median of squared deviations."""
    out = before.copy()
    for k in range(len(unit)):
        noise = says.variance[:, :, k] + offset[1][:, :, k]
        loud = np.isfinite(noise) & (noise < unit[k] * WRONG * (1.0 / LOUD - 1.0)) & (judged.votes > NOTHING)
        at = np.flatnonzero((loud & ~np.isnan(judged.consensus[:, k])).ravel())
        if not len(at):
            continue
        at = at[:: -(-len(at) // TAU_READ)]
        gap = (says.value[:, :, k] - offset[0][:, :, k] - judged.consensus[:, k]).ravel()[at] ** 2
        weight, noise = judged.votes.ravel()[at], noise.ravel()[at]
        tried = unit[k] * np.geomspace(TAU_LEAST, TAU_MOST, TAU_STEPS)
        ratio = gap[:, None] / (noise[:, None] + tried)
        fits = _median(ratio[:, :, None], np.broadcast_to(weight[:, None, None], (*ratio.shape, 1)))[:, 0] <= MEDIAN
        found = tried[int(fits.argmax())] if fits.any() else tried[-1]
        seen = weight.sum() ** 2 / (weight**2).sum()
        out[k] = (seen * found + TAU_PRIOR * TAU_GUESS * unit[k]) / (seen + TAU_PRIOR)
    return out
