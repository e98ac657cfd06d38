"""Recalibration at one site: a slope that is never negative, and an intercept.

Sites differ in base rate; a model that was fitted elsewhere is brought to this site's level with two numbers (one
intercept per class with several classes), learnt from cross-fitted predictions of the site's own training rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRIOR_VARIANCE", "Recalibration", "recalibration"]

PRIOR_VARIANCE = 4.0
"""Variance of the normal prior of slope (around 1) and intercept (around 0), in logits or standard deviations: weak,
but it keeps a site with twenty records, or with one class only, finite."""

_CLIP = 1e-6
"""Probabilities are clipped to this distance from 0 and 1 before their logarithm is taken."""

Recalibration = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Predictions -> recalibrated predictions, same shape. Has no effect for a site without training rows."""


def recalibration(predicted: NDArray[np.float64], y: NDArray[np.float64], classes: int) -> Recalibration:
    """Learn a recalibration.

    Args:
        predicted: cross-fitted predictions of the site's training rows, float64[n, C] or float64[n].
        y: float64[n], class indices or numbers.
        classes: C, or 0 for numbers.
    """
    slope, intercept = parameters(predicted, y, classes)
    if not classes:
        return lambda values: slope * values + float(intercept[0])

    def apply(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _softmax(slope * np.log(np.clip(values, _CLIP, 1.0)) + intercept)

    return apply


def parameters(
    predicted: NDArray[np.float64], y: NDArray[np.float64], classes: int
) -> tuple[float, NDArray[np.float64]]:
    """Slope (>= 0) and intercept; the intercept has one entry per class, the first 0 with two classes."""
    if not classes:
        return _numbers(predicted, y)
    if not len(y):
        return 1.0, np.zeros(classes)
    from scipy.optimize import minimize

    logs = np.log(np.clip(predicted, _CLIP, 1.0))
    hot = np.eye(classes)[y.astype(np.int64)]
    free = slice(1, None) if classes == 2 else slice(None)
    centre = np.zeros(1 + classes)[: 2 if classes == 2 else None]
    centre[0] = 1.0

    def objective(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shift = np.zeros(classes)
        shift[free] = theta[1:]
        value = theta[0] * logs + shift
        top = value.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(value - top).sum(axis=1)) + top[:, 0]
        error = np.exp(value - log_total[:, None]) - hot
        away = theta - centre
        loss = float((log_total - (value * hot).sum(axis=1)).sum() + (away**2).sum() / (2 * PRIOR_VARIANCE))
        slopes = np.concatenate([[(error * logs).sum()], error.sum(axis=0)[free]]) + away / PRIOR_VARIANCE
        return loss / len(y), slopes / len(y)

    bounds = [(0.0, None)] + [(None, None)] * (len(centre) - 1)
    theta = minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12}).x
    intercept = np.zeros(classes)
    intercept[free] = theta[1:]
    return float(theta[0]), intercept


def _numbers(predicted: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Least squares of what the slope 1 and intercept 0 leave over, shrunk towards no change."""
    if len(y) < 2:
        return 1.0, np.zeros(1)
    spread = float(y.std()) or 1.0
    centre = float(predicted.mean())
    left = (y - predicted) / spread
    z = np.stack([(predicted - centre) / spread, np.ones(len(y))], axis=1)
    noise = max(float(left.var()), 1e-12)
    change = np.linalg.solve(z.T @ z / noise + np.eye(2) / PRIOR_VARIANCE, z.T @ left / noise)
    slope = 1.0 + float(change[0])
    if slope < 0:
        slope, level = 0.0, float(y.mean())
        return slope, np.array([level])
    return slope, np.array([spread * float(change[1]) - float(change[0]) * centre])


def _softmax(value: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(value - value.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
