"""Prediction intervals for the site asking, between-node heterogeneity included.

The centre is the recalibrated mixture. Its error has three parts, on the score scale: the site's own offset
(prior: the variance between nodes; own records narrow it), the sampling error of what was seen near the question, and
the doubt between calculations. The first rests on few nodes, so for rates the quantile is Student's t.
Numeric outcomes: the variance of one outcome depends on support, on where in the declared range the answer lies and
on what scatters nearby; a log-linear model of it is learnt from packets that are predicted without their node, then
from own cross-fitted records, and so are quantile levels by class of support. (With a variance that does not depend on
the answer, a low answer far from everything seen got a distribution with its mass at the end of the range.)
Source: IntHout, Ioannidis and Borm (2014) and Partlett and Riley (2017), prediction intervals with the
Hartung-Knapp type of t quantile, nodes - 2 degrees of freedom. Departures: the guess at
the variance between nodes that the fit starts from adds the nodes it weighs as much as (otherwise three nodes
leave one degree of freedom and an interval from 0 to 1); own records add more as they replace that prior.
Davidian and Carroll (1987), variance function estimation; Vovk (2012), classes of their own in conformal prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from outroute.synthesis.answers import Heterogeneity
from outroute.synthesis.calculations import Peers, Problem
from outroute.synthesis.evidence import Floats
from outroute.synthesis.kernel import Near
from outroute.synthesis.leftout import LeftOut
from outroute.synthesis.regression import spread_guess
from outroute.synthesis.scores import Link, Scale, logit, probability, sigmoid

__all__ = ["Spread", "bounds", "fit_spread"]

NODES_KNOWN = 3
"""Nodes from which a variance between nodes can be told from nothing."""
RESIDUALS_PRIOR = 20.0
"""Own records that the peers' idea of the noise of one outcome weighs as much as."""
CUTS = (0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of questions below the edges of classes of support, each calibrated by itself; thin support is where
intervals fail first, so classes are finer there."""
SLOPE_PRIOR = 20.0
"""Own records that the peers' idea of how noise depends on the question weighs as much as."""
SLOPES = 3
"""See `_features`."""
STEPS = 12
"""Newton steps; four unknowns settle in six."""
STEP_MOST = 1.0
"""Longest step in a logarithm of noise."""
RATIO_MOST = 25.0
"""Squared standardised error above which one outcome does not pull the noise any further: five standard deviations;
tails are for the quantile levels to learn."""
BEND_MOST = 4.0
"""The same for the curvature, so that an outlier does not stop the steps."""
POINTS = 5
"""Outcomes that a packet stands for; the smallest cohort of the default privacy floor."""
FITTED = 2.0
"""Numbers that recalibration has fitted on the very outcomes that intervals are learnt from (slope and intercept):
errors on n of them are too small by a factor of about 1 + 2 FITTED / n in variance (Mallows 1973)."""
CLASS_PRIOR = 30.0
"""Own records in a class that the calibration over all classes weighs as much as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What intervals rest on; variances on the score scale.

    Attributes:
        offset: variance of the site's offset after its own records.
        freedom: degrees of freedom of its t quantile.
        heterogeneity: whether the variance between nodes is known.
        noise: float64[4], coefficients of the logarithm of the variance of one outcome around the answer, relative
            to what lies near (numeric); of what, see `_features`.
        edges: float64[B - 1], supports that separate classes of support, each calibrated by itself (numeric).
        low_level, high_level: float64[B], quantile levels of an outcome's distribution that give the interval.
        level: what the interval claims to cover.
        range: declared range of a numeric outcome.
    """

    offset: float
    freedom: float
    heterogeneity: Heterogeneity
    noise: Floats
    edges: Floats
    low_level: Floats
    high_level: Floats
    level: float
    range: tuple[float, float]


def fit_spread(
    problem: Problem,
    peers: Peers | None,
    mixed: Floats,
    target: Floats,
    near: Near,
    offset_variance: float,
    blown: float,
    doubt: Floats,
    believed: float,
    others: LeftOut | None,
    *,
    scale: Scale,
    outcome_range: tuple[float, float],
) -> Spread:
    """Learn a `Spread`.

    Args:
        problem: what was fitted.
        peers: regression on packets, for the variance between nodes.
        mixed: float64[n, K], recalibrated cross-fitted answers to scored own records.
        target: float64[n, K], their outcomes.
        near: what lies near them.
        offset_variance: posterior variance of the site's intercept from the scored records.
        blown: own records per scored record.
        doubt: float64[n, K], how far the calculations lie apart there (squared).
        believed: variance of one outcome around what peers' calculations say, relative to what lies near
            (numeric), as packets show it.
        others: packets predicted from other peers' packets.
        scale: standardisation.
        outcome_range: declared range of a numeric outcome.
    """
    settings = problem.settings
    known = problem.nodes >= NODES_KNOWN
    between = spread_guess(settings, problem.link) if peers is None or not known else peers.spread
    heard = max(1.0 / max(offset_variance, 1e-12) - 1.0 / between, 0.0) * blown if len(mixed) else 0.0
    wide = between * (1.0 + 1.0 / max(problem.nodes, 1))
    freedom = max(0.0, problem.nodes - 2.0) + settings.spread_nodes + heard * between
    low_level, high_level = (1.0 - settings.level) / 2.0, (1.0 + settings.level) / 2.0
    found = Spread(
        offset=wide,
        freedom=freedom,
        heterogeneity=Heterogeneity.KNOWN if known else Heterogeneity.UNKNOWN,
        noise=np.array([np.log(believed), *[0.0] * SLOPES]),
        edges=np.zeros(0),
        low_level=np.array([low_level]),
        high_level=np.array([high_level]),
        level=settings.level,
        range=outcome_range,
    )
    narrow = 1.0 / (1.0 / wide + heard)
    if problem.link is not Link.NUMERIC:
        return replace(found, offset=narrow)
    if others is not None:
        part = others.sample
        values = _values(part.target[:, 0], part.within, scale, outcome_range)
        found = _calibrated(found, others.mixed, others.doubt, others.near, values, scale)
    found = replace(found, offset=narrow)
    if len(mixed):
        middle = mixed[:, :1]
        blind = middle + (target - middle) * np.sqrt(1.0 + 2.0 * FITTED / len(mixed))
        found = _calibrated(found, middle[:, 0], doubt[:, 0], near, blind, scale)
    return found


def _values(mean: Floats, within: Floats, scale: Scale, reach: tuple[float, float]) -> Floats:
    """Outcomes that a packet may stand for, float64[n, POINTS]: a Beta distribution with its mean and variance."""
    from scipy.special import betaincinv

    low, high = (np.array(reach) - scale.centre) / scale.spread
    middle = np.clip((mean - low) / (high - low), 1e-4, 1.0 - 1e-4)
    part = np.clip(within / (high - low) ** 2, 1e-9, 0.95 * middle * (1.0 - middle))
    total = middle * (1.0 - middle) / part - 1.0
    steps = (np.arange(POINTS) + 0.5) / POINTS
    return np.asarray(
        low + (high - low) * betaincinv((middle * total)[:, None], ((1 - middle) * total)[:, None], steps)
    )


def _calibrated(spread: Spread, mean: Floats, doubt: Floats, near: Near, values: Floats, scale: Scale) -> Spread:
    """Learn how widely outcomes scatter, by support; what `spread` says already is the prior.

    Args:
        spread: before.
        mean, doubt: float64[n], answers to questions whose outcomes are known.
        near: what lies near them.
        values: float64[n, V], equally likely outcomes of each.
        scale: standardisation.
    """
    base = near.variance + doubt + spread.offset
    ratio = ((values - mean[:, None]) ** 2).mean(1) / np.maximum(base, 1e-9)
    u = _features(spread, mean, base, near.mass, scale)
    middle = u.mean(0)
    middle[0] = 0.0
    u = u - middle
    prior = spread.noise.copy()
    prior[0] += float(middle @ prior)
    hold = np.diag([RESIDUALS_PRIOR, *[SLOPE_PRIOR] * SLOPES])
    theta = prior.copy()
    for _ in range(STEPS):
        r = np.minimum(ratio * np.exp(-(u @ theta)), RATIO_MOST)
        step = np.linalg.solve(
            (u * np.minimum(r, BEND_MOST)[:, None]).T @ u + hold, u.T @ (r - 1.0) - hold @ (theta - prior)
        )
        theta = theta + np.clip(step, -STEP_MOST, STEP_MOST)
    theta[0] -= float(middle @ theta)
    found = replace(spread, noise=theta)
    place = _levels(found, mean, base, near.mass, values, scale)
    edges = np.quantile(near.mass, CUTS)
    kind = np.searchsorted(edges, near.mass)
    tail = (1.0 - spread.level) / 2.0
    levels = []
    for before, level in ((spread.low_level, tail), (spread.high_level, 1.0 - tail)):
        whole = _pulled(place, logit(before), level, RESIDUALS_PRIOR)
        start = np.broadcast_to(whole, (len(CUTS) + 1,))
        parts = [_pulled(place[kind == c], start[c : c + 1], level, CLASS_PRIOR) for c in range(len(start))]
        levels.append(sigmoid(np.concatenate(parts)))
    return replace(found, edges=edges, low_level=levels[0], high_level=levels[1])


def _pulled(place: Floats, prior: Floats, level: float, weight: float) -> Floats:
    """Quantile `level` of `place` float64[n, V], as log-odds, pulled to `prior` as if that were `weight` rows."""
    if not len(place):
        return prior
    share = len(place) / (len(place) + weight)
    seen = logit(np.quantile(place, [level], method="weibull"))
    return np.asarray((1.0 - share) * prior + share * seen)


def bounds(
    spread: Spread,
    mixed: Floats,
    doubt: Floats,
    near: Near,
    *,
    link: Link,
    scale: Scale,
    outcome_range: tuple[float, float],
) -> tuple[Floats, Floats, Floats]:
    """Low, estimate and high, float64[m, K] each: shares (class outcomes) or outcome units (numeric)."""
    if link is Link.NUMERIC:
        middle = np.clip(mixed * scale.spread + scale.centre, *outcome_range)
        variance = near.variance + doubt[:, 0] + spread.offset
        kind = np.searchsorted(spread.edges, near.mass)
        low = _quantile(spread, spread.low_level[kind], mixed[:, 0], variance, near.mass, scale)
        high = _quantile(spread, spread.high_level[kind], mixed[:, 0], variance, near.mass, scale)
        return np.minimum(low[:, None], middle), middle, np.maximum(high[:, None], middle)
    share = probability(mixed, link)
    sd = np.sqrt(spread.offset + doubt)
    quantile = student(spread)
    centre = mixed if link is Link.BINARY else logit(share)
    ends = [probability(centre + sign * quantile * sd, Link.BINARY) for sign in (-1.0, 1.0)]
    return ends[0], share, ends[1]


def student(spread: Spread) -> float:
    """The t quantile of the interval."""
    from scipy.stats import t

    return float(t.ppf((1.0 + spread.level) / 2.0, spread.freedom))


def _middle(spread: Spread, mean: Floats, scale: Scale) -> Floats:
    """Answers as a share of the declared range, its ends excluded."""
    low, high = spread.range
    return np.clip((mean * scale.spread + scale.centre - low) / max(high - low, 1e-12), 1e-3, 1.0 - 1e-3)


def _features(spread: Spread, mean: Floats, variance: Floats, mass: Floats, scale: Scale) -> Floats:
    """What noise depends on, float64[n, 1 + SLOPES]: one, support, place in the declared range, scatter nearby."""
    middle = _middle(spread, mean, scale)
    parts = [np.ones(len(mean)), np.log1p(mass), np.log(middle * (1.0 - middle)), np.log(np.maximum(variance, 1e-9))]
    return np.stack(parts, axis=1)


def _beta(
    spread: Spread, mean: Floats, variance: Floats, mass: Floats, scale: Scale
) -> tuple[Floats, Floats, float, float]:
    """Both parameters of the Beta distribution of one outcome, float64[n] each; lower end and width of the range."""
    low, high = spread.range
    reach = max(high - low, 1e-12)
    middle = _middle(spread, mean, scale)
    ratio = np.exp(_features(spread, mean, variance, mass, scale) @ spread.noise)
    part = np.clip(ratio * variance * (scale.spread / reach) ** 2, 1e-8, 0.95 * middle * (1.0 - middle))
    total = middle * (1.0 - middle) / part - 1.0
    return middle * total, (1.0 - middle) * total, low, reach


def _quantile(spread: Spread, level: Floats, mean: Floats, variance: Floats, mass: Floats, scale: Scale) -> Floats:
    """Quantile of one outcome: a Beta distribution on the declared range with this mean and variance."""
    from scipy.special import betaincinv

    a, b, low, reach = _beta(spread, mean, variance, mass, scale)
    return np.asarray(low + reach * betaincinv(a, b, level), np.float64)


def _levels(spread: Spread, mean: Floats, variance: Floats, mass: Floats, value: Floats, scale: Scale) -> Floats:
    """Where outcomes fell in their distributions, float64[n, V] in [0, 1]."""
    from scipy.special import betainc

    a, b, low, reach = _beta(spread, mean, variance, mass, scale)
    share = np.clip((value * scale.spread + scale.centre - low) / reach, 0.0, 1.0)
    return np.asarray(betainc(a[:, None], b[:, None], share), np.float64)
