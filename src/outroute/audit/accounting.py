"""How much noise a federation needs for the same guarantee: Gaussian noise on clipped gradients, every step counted."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

__all__ = ["DELTA", "gaussian_delta", "noise_for"]

DELTA = 1e-5
"""Probability with which the guarantee may fail, over the lifetime."""


def gaussian_delta(epsilon: float, noise: float) -> float:
    """Delta of one Gaussian release of sensitivity 1, add or remove one record.

    Source: Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy" (ICML 2018), theorem 8. It is
    exact; T releases with noise s each are one with noise s / sqrt(T).
    """
    a, b = 1 / (2 * noise), epsilon * noise
    return float(np.exp(log_ndtr(a - b)) - np.exp(epsilon + log_ndtr(-a - b)))


def noise_for(epsilon: float, steps: int, delta: float = DELTA) -> float:
    """Noise of each of so many steps over all records, as a multiple of the clipping length, for a lifetime epsilon.

    Args:
        epsilon: above 0, for one subject with one record over all steps.
        steps: gradient steps over the lifetime of the training, all of them over all records (no sampling is claimed).
        delta: see ``DELTA``.
    """
    alone = brentq(lambda s: gaussian_delta(epsilon, s) - delta, 1e-3, 1e4)
    return float(alone * np.sqrt(steps))
