"""Recalibration on own records: a slope that is never negative, and an intercept, both as MAP.

Sites differ in base rate, so a peer's answer is moved before it is believed. With few records the prior
holds it back: the intercept is Normal(0, between-node variance), the slope Normal(1, slope_sd^2) on [0, inf).
Source: Cox (1958) for slope and intercept; Platt (1999), section 2.2 for the regularised fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outroute.synthesis.evidence import Floats
from outroute.synthesis.scores import Link, normalise, probability

__all__ = ["Recalibration", "recalibrate"]

STEPS = 30
"""Newton steps; the problem is convex with two (or C + 1) unknowns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """score -> slope * score + intercept.

    Attributes:
        slope: >= 0.
        intercept: float64[K].
        variance: posterior variance of the intercept (largest over K).
    """

    slope: float
    intercept: Floats
    variance: float

    def __call__(self, score: Floats, link: Link) -> Floats:
        """Recalibrated score, float64[n, K]."""
        moved: Floats = self.slope * score + self.intercept
        return normalise(moved) if link is Link.CATEGORICAL else moved


def recalibrate(
    score: Floats, target: Floats, *, link: Link, intercept_variance: float, slope_sd: float, noise: float = 1.0
) -> Recalibration:
    """Fit on rows that `score` has not seen.

    Args:
        score: float64[n, K].
        target: float64[n, K].
        link: kind of outcome.
        intercept_variance: prior variance of the intercept (variance between nodes).
        slope_sd: prior standard deviation of the slope around 1.
        noise: variance of one outcome (numeric only).
    """
    k = score.shape[1]
    theta = np.concatenate([[1.0], np.zeros(k)])
    centre = theta.copy()
    precision = np.concatenate([[slope_sd**-2.0], np.full(k, 1.0 / max(intercept_variance, 1e-9))])
    middle = score.mean(0) if len(score) else np.zeros(k)
    spread = score - middle
    unit = np.broadcast_to(np.eye(k), (len(score), k, k))
    jacobian = np.concatenate([spread[:, :, None], unit], axis=2)
    hessian = np.diag(precision)
    for _ in range(STEPS):
        moved = middle + theta[0] * spread + theta[1:]
        share = probability(moved, link)
        slope = np.einsum("nk,nkp->p", target - share, jacobian) / (noise if link is Link.NUMERIC else 1.0)
        slope = slope - precision * (theta - centre)
        if link is Link.NUMERIC:
            hessian = np.einsum("nkp,nkq->pq", jacobian, jacobian) / noise + np.diag(precision)
        else:
            bend = share[:, :, None] * jacobian
            hessian = np.einsum("nkp,nkq->pq", bend, jacobian)
            if link is Link.BINARY:
                hessian = np.einsum("nkp,nkq->pq", bend * (1.0 - share)[:, :, None], jacobian)
            else:
                mixed = bend.sum(1)
                hessian = hessian - mixed.T @ mixed
            hessian = hessian + np.diag(precision)
        step = np.linalg.solve(hessian, slope)
        step = step / max(1.0, float(np.abs(step).max()) / 2.0)
        theta = theta + step
        theta[0] = max(theta[0], 0.0)
        if float(np.abs(step).max()) < 1e-9:
            break
    covariance = np.linalg.inv(hessian)
    return Recalibration(
        slope=float(theta[0]),
        intercept=middle * (1.0 - theta[0]) + theta[1:],
        variance=float(np.diag(covariance)[1:].max()),
    )
