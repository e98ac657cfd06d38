"""Ridge regression on weighted rows, with an intercept per node, its variances learnt by empirical Bayes.

The coefficients have a common Normal prior N(prior mean, ridge), the nodes' intercepts N(0, spread); both
variances follow from the data by the EM fixed point on the Laplace approximation, so nothing is searched.
Source: MacKay, "Bayesian interpolation" (1992), section 4; Breslow and Clayton (1993) for the penalised
quasi-likelihood of random intercepts; Armijo (1966) for the steps that are halved until they help: where what is to
be corrected is sure of itself and wrong, as attackers make it, a full Newton step overshoots and never settles.
Departure: the two variances are updated inside the Newton steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from outroute.synthesis.evidence import Floats, Ints
from outroute.synthesis.scores import LOGIT_MOST, Link, sigmoid
from outroute.synthesis.settings import Settings

__all__ = ["Design", "Linear", "design", "fit_linear", "spread_guess"]

STEPS = 14
"""Newton steps; weighted logistic regressions settle in six, the variances in a dozen."""
CONSTANT = 1e-9
"""A column whose variance is below this carries nothing and is left out."""
LOGISTIC_VARIANCE = np.pi**2 / 3.0
"""Variance of the logistic distribution: that of one outcome on the logit scale."""
HALVINGS = 12
"""Times that a Newton step is halved at most; one of 1/4096 changes nothing any more."""
RARE = 0.01
"""A field missing in less than this share of rows (or present in less) gets no indicator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How conditions become regressors: imputed, standardised, with indicators of missing fields.

    Attributes:
        centre, spread: float64[D], weighted mean (what a missing slot becomes) and standard deviation.
        kept: int64[P0], slots used.
        indicators: first slot of every field that has an indicator.
        shift: float64[number of indicators], mean of each indicator.
    """

    centre: Floats
    spread: Floats
    kept: Ints
    indicators: tuple[int, ...]
    shift: Floats

    def __call__(self, x: Floats) -> Floats:
        """float64[n, P] regressors of float64[n, D] conditions."""
        z = (x[:, self.kept] - self.centre[self.kept]) / self.spread[self.kept]
        z = np.nan_to_num(z, nan=0.0)
        if not self.indicators:
            return z
        return np.concatenate([z, np.isnan(x[:, list(self.indicators)]) - self.shift], axis=1)


def design(x: Floats, amount: Floats, slots: Mapping[str, slice]) -> Design:
    """Learn a `Design` from rows float64[n, D] with weights float64[n]."""
    present = ~np.isnan(x)
    weight = present * amount[:, None]
    total = weight.sum(0)
    filled = np.nan_to_num(x)
    centre = np.divide((filled * weight).sum(0), total, out=np.full(x.shape[1], 0.5), where=total > 0)
    second = (weight * (filled - centre) ** 2).sum(0)
    variance = np.divide(second, total, out=np.zeros(x.shape[1]), where=total > 0)
    kept = np.flatnonzero(variance > CONSTANT)
    first = [s.start for s in slots.values()]
    everything = amount.sum()
    gone = {s: float(1.0 - total[s] / everything) if everything > 0 else 0.0 for s in first}
    indicators = tuple(s for s in first if RARE < gone[s] < 1.0 - RARE)
    return Design(
        centre=centre,
        spread=np.sqrt(np.maximum(variance, CONSTANT)),
        kept=kept,
        indicators=indicators,
        shift=np.array([gone[s] for s in indicators], np.float64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A fitted regression on one score column.

    Attributes:
        coefficients: float64[P + 1], intercept last.
        covariance: float64[P + 1, P + 1], Laplace approximation.
        intercepts: float64[N], deviation of each node, shrunk.
        errors: float64[N], its posterior variance.
        ridge, spread: the variances learnt.
        noise: residual variance per observation (numeric); 1 for class outcomes.
    """

    coefficients: Floats
    covariance: Floats
    intercepts: Floats
    errors: Floats
    ridge: float
    spread: float
    noise: float

    def score(self, z: Floats) -> Floats:
        """float64[n] score of a new node with average intercept."""
        out: Floats = z @ self.coefficients[:-1] + self.coefficients[-1]
        return out


def fit_linear(
    z: Floats,
    target: Floats,
    amount: Floats,
    node: Ints,
    nodes: int,
    *,
    link: Link,
    settings: Settings,
    offset: Floats | None = None,
    within: Floats | None = None,
    intercept_variance: float = 100.0,
) -> Linear:
    """Fit one column.

    Args:
        z: float64[n, P] regressors, standardised.
        target: float64[n] share in [0, 1], or standardised mean.
        amount: float64[n] observations per row.
        node: int64[n] in 0..nodes-1; `nodes` = 0 means no intercept per node.
        nodes: number of nodes.
        link: NUMERIC is linear; anything else is logistic.
        settings: constants.
        offset: float64[n], score to correct (its coefficient is 1), or None.
        within: float64[n], variance of the outcome inside each row (numeric only).
        intercept_variance: prior variance of the common intercept.
    """
    n, p = z.shape
    base = np.zeros(n) if offset is None else offset
    full = np.concatenate([z, np.ones((n, 1))], axis=1)
    beta = np.zeros(p + 1)
    linear = link is Link.NUMERIC
    total = max(float(amount.sum()), 1e-12)
    rate = float((amount @ target) / total)
    start = rate - float(amount @ base) / total if linear else 0.0
    if not linear and offset is None:
        bounded = (rate * total + 0.5) / (total + 1.0)
        start = float(np.log(bounded / (1.0 - bounded)))
    beta[-1] = start
    centre = np.zeros(p + 1)
    centre[-1] = start if offset is None else 0.0
    u = np.zeros(nodes)
    ridge, spread, noise = settings.ridge_start, spread_guess(settings, link), 1.0
    spare = np.zeros(n) if within is None else within
    covariance = np.eye(p + 1)
    errors = np.full(nodes, spread)
    for _ in range(STEPS):
        score = base + full @ beta + (u[node] if nodes else 0.0)
        if linear:
            curve = amount / noise
            slope = curve * (target - score)
        else:
            score = np.clip(score, -LOGIT_MOST, LOGIT_MOST)
            mean = sigmoid(score)
            curve = amount * np.maximum(mean * (1.0 - mean), 1e-6)
            slope = amount * (target - mean)
        precision = np.full(p + 1, 1.0 / ridge)
        precision[-1] = 1.0 / intercept_variance
        gradient = full.T @ slope - precision * (beta - centre)
        hessian = (full * curve[:, None]).T @ full + np.diag(precision)
        if nodes:
            d = np.bincount(node, curve, nodes) + 1.0 / spread
            e = np.bincount(node, slope, nodes) - u / spread
            b = np.zeros((nodes, p + 1))
            np.add.at(b, node, full * curve[:, None]) if nodes > 512 else _grouped(b, node, full, curve)
            hessian = hessian - (b / d[:, None]).T @ b
            gradient = gradient - b.T @ (e / d)
        covariance = np.linalg.inv(hessian + 1e-9 * np.eye(p + 1))
        step = covariance @ gradient
        largest = float(np.abs(step).max()) if len(step) else 0.0
        if not linear and largest > 3.0:
            step = step * (3.0 / largest)
        lean = (e - b @ step) / d if nodes else u
        if not linear:
            before = base + full @ beta + (u[node] if nodes else 0.0)
            along = full @ step + (lean[node] if nodes else 0.0)
            penalty = _Penalty(beta - centre, step, precision, u, lean, 1.0 / spread)
            part = _helpful(before, along, target, amount, penalty)
            step, lean = part * step, part * lean
        beta = beta + step
        if nodes:
            u = u + lean
            errors = 1.0 / d + np.einsum("np,pq,nq->n", b, covariance, b) / d**2
            spread = float(
                np.clip(
                    ((u**2 + errors).sum() + settings.spread_nodes * spread_guess(settings, link, noise))
                    / (nodes + settings.spread_nodes),
                    settings.spread_least,
                    settings.spread_most,
                )
            )
        if p:
            moved = (beta[:-1] ** 2 + np.diag(covariance)[:-1]).mean()
            ridge = float(np.clip(moved, settings.ridge_least, settings.ridge_most))
        if linear:
            score = base + full @ beta + (u[node] if nodes else 0.0)
            noise = max(float(amount @ ((target - score) ** 2 + spare)) / total, 1e-9)
    return Linear(
        coefficients=beta,
        covariance=covariance,
        intercepts=u,
        errors=errors,
        ridge=ridge,
        spread=spread,
        noise=noise,
    )


@dataclass(frozen=True, slots=True)
class _Penalty:
    """Minus the log prior along a step, up to a constant; `u` and `lean` are empty without nodes."""

    beta: Floats
    step: Floats
    precision: Floats
    u: Floats
    lean: Floats
    loose: float

    def at(self, part: float) -> float:
        """After `part` (0 to 1) of the step."""
        beta, u = self.beta + part * self.step, self.u + part * self.lean
        return 0.5 * float(self.precision @ beta**2) + 0.5 * self.loose * float(u @ u)


def _helpful(before: Floats, along: Floats, target: Floats, amount: Floats, penalty: _Penalty) -> float:
    """Largest of 1, 1/2, 1/4, ... of a Newton step of a logistic regression that does not raise what is minimised.

    Args:
        before: float64[n], scores.
        along: float64[n], what the whole step adds to them.
        target, amount: float64[n], as for `fit_linear`.
        penalty: minus the log prior along the step.
    """

    def value(part: float) -> float:
        score = before + part * along
        return float(amount @ (np.logaddexp(0.0, score) - target * score)) + penalty.at(part)

    start, part = value(0.0), 1.0
    for _ in range(HALVINGS):
        if value(part) <= start + 1e-9 * abs(start):
            break
        part *= 0.5
    return part


def spread_guess(settings: Settings, link: Link, noise: float = 1.0) -> float:
    """Variance of the intercept between nodes before any node is seen, on the score scale."""
    return settings.spread_guess * (noise if link is Link.NUMERIC else LOGISTIC_VARIANCE)


def _grouped(out: Floats, node: Ints, full: Floats, curve: Floats) -> None:
    """Add rows of `full * curve` into `out` by node, one node at a time (few nodes, long blocks)."""
    for i in range(len(out)):
        rows = node == i
        out[i] = curve[rows] @ full[rows]
