"""Prediction intervals for the site asking, between-node heterogeneity included.

The centre is the recalibrated mixture. Its error has four parts, on the score scale: the site's own offset
(prior: the variance between nodes; own records narrow it), what differs between sites from region to region,
the sampling error of what was seen near the question, and the doubt between calculations. The first two
rest on few nodes, so the quantile is Student's t.
Source: IntHout, Ioannidis and Borm (2014) and Partlett and Riley (2017), prediction intervals with the
Hartung-Knapp type of t quantile, nodes - 2 degrees of freedom. Departures: the guess at
the variance between nodes that the fit starts from adds the nodes it weighs as much as (otherwise three nodes
leave one degree of freedom and an interval from 0 to 1); own records add more as they replace that prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from outroute.synthesis.answers import Heterogeneity
from outroute.synthesis.calculations import Peers, Problem
from outroute.synthesis.evidence import Floats
from outroute.synthesis.kernel import Near
from outroute.synthesis.regression import spread_guess
from outroute.synthesis.scores import Link, Scale, logit, probability

__all__ = ["Spread", "bounds", "fit_spread"]

NODES_KNOWN = 3
"""Nodes from which a variance between nodes can be told from nothing."""
RESIDUALS_PRIOR = 20.0
"""Own records that the peers' idea of the noise of one outcome weighs as much as."""
SUPPORT_CLASSES = 5
"""Classes of support that are calibrated by themselves; thin support is where intervals fail first."""
CLASS_PRIOR = 100.0
"""Own records in a class that the calibration over all classes weighs as much as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What intervals rest on; variances on the score scale.

    Attributes:
        offset: variance of the site's offset after its own records.
        region: variance of what is peculiar to the site in one region.
        freedom: degrees of freedom of the t quantile for the two.
        heterogeneity: whether the variance between nodes is known.
        noise_ratio: variance of own outcomes around the answer, relative to what lies near (numeric).
        edges: float64[B - 1], supports that separate classes of support, each calibrated by itself (numeric).
        low_level, high_level: float64[B], quantile levels of an outcome's distribution that give the interval.
        level: what the interval claims to cover.
        range: declared range of a numeric outcome.
    """

    offset: float
    region: float
    freedom: float
    heterogeneity: Heterogeneity
    noise_ratio: float
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
    believed: float,
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
        believed: variance of one outcome around what peers' calculations say, relative to what lies near
            (numeric), as packets show it.
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
        offset=1.0 / (1.0 / wide + heard),
        region=0.0,
        freedom=freedom,
        heterogeneity=Heterogeneity.KNOWN if known else Heterogeneity.UNKNOWN,
        noise_ratio=1.0,
        edges=np.zeros(0),
        low_level=np.array([low_level]),
        high_level=np.array([high_level]),
        level=settings.level,
        range=outcome_range,
    )
    if problem.link is not Link.NUMERIC:
        return found
    found = replace(found, noise_ratio=believed)
    if not len(mixed):
        return found
    n = len(mixed)
    gap2 = (target[:, 0] - mixed[:, 0]) ** 2 / np.maximum(near.variance, 1e-9)
    ratio = float((gap2.sum() + RESIDUALS_PRIOR * believed) / (n + RESIDUALS_PRIOR))
    found = replace(found, noise_ratio=ratio)
    place = _levels(found, mixed[:, 0], near.variance, target[:, 0], scale)
    edges = np.quantile(near.mass, np.arange(1, SUPPORT_CLASSES) / SUPPORT_CLASSES)
    kind = np.searchsorted(edges, near.mass)
    levels = []
    for level in (low_level, high_level):
        share = n / (n + RESIDUALS_PRIOR)
        overall = (1.0 - share) * level + share * float(np.quantile(place, level, method="weibull"))
        parts = []
        for c in range(SUPPORT_CLASSES):
            there = place[kind == c]
            share = len(there) / (len(there) + CLASS_PRIOR)
            seen = float(np.quantile(there, level, method="weibull")) if len(there) else overall
            parts.append((1.0 - share) * overall + share * seen)
        levels.append(np.array(parts))
    return replace(found, edges=edges, low_level=levels[0], high_level=levels[1])


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
        variance = near.variance + doubt[:, 0] + spread.offset + spread.region
        kind = np.searchsorted(spread.edges, near.mass)
        low = _quantile(spread, spread.low_level[kind], mixed[:, 0], variance, scale)
        high = _quantile(spread, spread.high_level[kind], mixed[:, 0], variance, scale)
        return np.minimum(low[:, None], middle), middle, np.maximum(high[:, None], middle)
    share = probability(mixed, link)
    sd = np.sqrt(spread.offset + spread.region + doubt)
    quantile = student(spread)
    centre = mixed if link is Link.BINARY else logit(share)
    ends = [probability(centre + sign * quantile * sd, Link.BINARY) for sign in (-1.0, 1.0)]
    return ends[0], share, ends[1]


def student(spread: Spread) -> float:
    """The t quantile of the interval."""
    from scipy.stats import t

    return float(t.ppf((1.0 + spread.level) / 2.0, spread.freedom))


def _beta(spread: Spread, mean: Floats, variance: Floats, scale: Scale) -> tuple[Floats, Floats, float, float]:
    low, high = spread.range
    reach = max(high - low, 1e-12)
    middle = np.clip((mean * scale.spread + scale.centre - low) / reach, 1e-3, 1.0 - 1e-3)
    part = np.clip(spread.noise_ratio * variance * (scale.spread / reach) ** 2, 1e-8, 0.95 * middle * (1.0 - middle))
    total = middle * (1.0 - middle) / part - 1.0
    return middle * total, (1.0 - middle) * total, low, reach


def _quantile(spread: Spread, level: Floats, mean: Floats, variance: Floats, scale: Scale) -> Floats:
    """Quantile of one outcome: a Beta distribution on the declared range with this mean and variance."""
    from scipy.special import betaincinv

    a, b, low, reach = _beta(spread, mean, variance, scale)
    return np.asarray(low + reach * betaincinv(a, b, level), np.float64)


def _levels(spread: Spread, mean: Floats, variance: Floats, value: Floats, scale: Scale) -> Floats:
    """Where outcomes fell in their distributions, float64[n] in [0, 1]."""
    from scipy.special import betainc

    a, b, low, reach = _beta(spread, mean, variance, scale)
    share = np.clip((value * scale.spread + scale.centre - low) / reach, 0.0, 1.0)
    return np.asarray(betainc(a, b, share), np.float64)
