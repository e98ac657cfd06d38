"""Measuring whether intervals cover what they claim to, by decile of support.

Class outcomes have no interval for one case; what an interval promises is the rate at the site asking. So
left-out cases that resemble each other (same decile of support, adjacent estimates) form groups, and the
observed count of a group is compared with its predictive distribution: the uncertainty of the rate and the
chance of so many cases. Counts are discrete, so the place of a count inside its own step is drawn at random
(randomised probability integral transform); a group is covered if its place lies in the central 90 %.
Numeric outcomes: the outcome of each case lies inside its interval or not.
Source: Czado, Gneiting and Held (2009), "Predictive model assessment for count data", section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outroute.synthesis.answers import Answers
from outroute.synthesis.evidence import Floats
from outroute.synthesis.fitting import Fitted
from outroute.synthesis.scores import Link, logit, sigmoid

__all__ = ["Coverage", "coverage", "places"]

GROUP = 20
"""Similar cases per group: at a rate of 0.2 their count moves by 9 points by chance, as much as sites differ."""
NODES = 101
"""Quantiles that stand for the distribution of a site's rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Share covered, in total and by decile of support.

    Attributes:
        total: in [0, 1].
        deciles: float64[10], thinnest support first; NaN where a decile is empty.
        counts: int64[10], groups (class outcomes) or cases (numeric) per decile.
    """

    total: float
    deciles: Floats
    counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def places(
    fitted: Fitted, answers: Answers, y: Floats, rng: np.random.Generator, *, group: int = GROUP
) -> tuple[Floats, Floats]:
    """Where outcomes of one left-out site fell in what was predicted.

    Args:
        fitted: the fit that answered.
        answers: m answers of a binary or numeric outcome.
        y: float64[m], outcomes.
        rng: draws the place of a count inside its step.
        group: similar cases per group (class outcomes).

    Returns:
        Support and place in [0, 1], one for each group or case.
    """
    if fitted.link is Link.NUMERIC:
        inside = np.where(y < answers.low, 0.0, np.where(y > answers.high, 1.0, 0.5))
        return answers.support, inside
    from scipy.stats import t

    rank = np.argsort(np.argsort(answers.support, kind="stable"), kind="stable")
    decile = np.minimum(rank * 10 // max(len(y), 1), 9)
    order = np.lexsort((answers.estimate, decile))
    quantile = float(t.ppf((1.0 + fitted.spread.level) / 2.0, fitted.spread.freedom))
    sd = (logit(answers.high) - logit(answers.low)) / (2.0 * quantile)
    steps = t.ppf((np.arange(NODES) + 0.5) / NODES, fitted.spread.freedom)
    support, found = [], []
    for rows in np.array_split(order, max(1, len(y) // group)):
        rates = sigmoid(logit(answers.estimate[rows])[:, None] + sd[rows][:, None] * steps)
        count = int(y[rows].sum())
        chance = _counts(rates)
        below, here = float(chance[:count].sum()), float(chance[count])
        support.append(float(answers.support[rows].mean()))
        found.append(below + rng.random() * here)
    return np.array(support), np.array(found)


def _counts(rates: Floats) -> Floats:
    """Distribution of the count of a group, float64[m + 1], for rates float64[m, Q] of Q equally likely sites."""
    chance = np.zeros((rates.shape[0] + 1, rates.shape[1]))
    chance[0] = 1.0
    for rate in rates:
        chance[1:] = chance[1:] * (1.0 - rate) + chance[:-1] * rate
        chance[0] *= 1.0 - rate
    out: Floats = chance.mean(1)
    return out


def coverage(support: Floats, place: Floats, level: float = 0.90) -> Coverage:
    """Share of `place` float64[n] in the central `level`, by decile of `support` float64[n]."""
    tail = (1.0 - level) / 2.0
    covered = (place > tail) & (place < 1.0 - tail)
    rank = np.argsort(np.argsort(support, kind="stable"), kind="stable")
    decile = np.minimum(rank * 10 // max(len(place), 1), 9)
    counts = np.bincount(decile, minlength=10)
    deciles = np.full(10, np.nan)
    some = counts > 0
    deciles[some] = np.bincount(decile, covered, 10)[some] / counts[some]
    return Coverage(total=float(covered.mean()) if len(place) else float("nan"), deciles=deciles, counts=counts)
