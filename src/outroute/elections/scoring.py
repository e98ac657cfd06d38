"""What an outcome costs those who said something before it was known, and the band that an answer falls into."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from outroute.elections.trust import LOSS_MOST

__all__ = ["BANDS", "band_of_class", "band_of_number", "class_losses", "crps"]

Floats = npt.NDArray[np.float64]

RISK_EDGES = (0.1, 0.25, 0.5, 0.75)
"""Probabilities of the positive class between bands: finer below, where most outcomes are rare events."""
NUMBER_EDGES = (-0.84, -0.25, 0.25, 0.84)
"""Spreads from the centre between bands: fifths of a normal distribution."""
BANDS = 5
"""Bands of a probability or a number; with several classes each class is a band."""


def class_losses(shares: Floats, outcome: int) -> Floats:
    """Log-loss in nats of what J calculations said, float64[J], at most `LOSS_MOST`.

    Args:
        shares: float64[J, C], probability of each class.
        outcome: index of the class that came true.
    """
    out: Floats = -np.log(np.maximum(shares[:, outcome], np.exp(-LOSS_MOST)))
    return out


def crps(mean: Floats, deviation: Floats | float, outcome: Floats | float) -> Floats:
    """Continuous ranked probability score of normal distributions, in the unit of the outcome; 0 is perfect.

    Args:
        mean: any shape.
        deviation: > 0, broadcasts.
        outcome: broadcasts.

    Source: Gneiting and Raftery (2007), equation 21.
    """
    from scipy.special import ndtr

    z = (np.asarray(outcome) - mean) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    out: Floats = deviation * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    return out


def band_of_class(shares: Floats) -> int:
    """Band of class probabilities float64[C]: risk of the second of two classes, else the most probable class."""
    if len(shares) == 2:
        return int(np.searchsorted(RISK_EDGES, shares[1], side="right"))
    return int(np.argmax(shares))


def band_of_number(mean: float, centre: float, spread: float) -> int:
    """Band of an expected number, by its distance from the centre of outcomes in spreads."""
    return int(np.searchsorted(NUMBER_EDGES, (mean - centre) / max(spread, 1e-12), side="right"))
