"""How good predictions are, at one site."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLASS_METRICS",
    "CLIP",
    "HIGHER_IS_BETTER",
    "LIMITS",
    "MIN_FOR_R2",
    "MIN_PER_CLASS",
    "NUMBER_METRICS",
    "accuracy",
    "auc",
    "brier",
    "log_loss",
    "mae",
    "r2",
    "score",
]

CLIP = 1e-6
"""Probabilities are clipped to [1e-6, 1 - 1e-6] in the log-loss: one sure mistake costs 13.8 nats, not infinity."""

MIN_PER_CLASS = 10
"""A site with fewer test cases than this in a class is shown, but its AUC does not enter the mean (DESIGN 10)."""

MIN_FOR_R2 = 10
"""A site with fewer test cases than this is shown, but its R2 does not enter the mean: the variance of so few outcomes
is no yardstick (with five cases, R2 falls to -3 by chance). The absolute error has no such trouble, and counts."""

CLASS_METRICS = ("auc", "accuracy", "log_loss", "brier")
NUMBER_METRICS = ("r2", "mae")
HIGHER_IS_BETTER: Mapping[str, bool] = {
    "auc": True,
    "accuracy": True,
    "log_loss": False,
    "brier": False,
    "r2": True,
    "mae": False,
}
LIMITS: Mapping[str, tuple[float, float]] = {
    "auc": (0.0, 1.0),
    "accuracy": (0.0, 1.0),
    "log_loss": (0.0, math.inf),
    "brier": (0.0, math.inf),
    "r2": (-math.inf, 1.0),
    "mae": (0.0, math.inf),
}
"""What a figure can be: the interval of a few splits may reach beyond, and is shown up to there."""


def auc(y: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """Area under the ROC curve; ties count half. With several classes: the mean of one-against-rest.

    Args:
        y: float64[n], class indices.
        probability: float64[n, C].

    Returns:
        A number between 0 and 1; NaN when a class that occurs stands alone.
    """
    classes = range(1, 2) if probability.shape[1] == 2 else range(probability.shape[1])
    areas = [_area(y == c, probability[:, c]) for c in classes]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def _area(positive: NDArray[np.bool_], value: NDArray[np.float64]) -> float:
    pos, neg = int(positive.sum()), int((~positive).sum())
    if not pos or not neg:
        return float("nan")
    _, index, counts = np.unique(value, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    return float((ranks[positive].sum() - pos * (pos + 1) / 2) / (pos * neg))


def accuracy(y: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """Share of cases whose most probable class (the last among equals) is the true one.

    With two classes that is the rule "positive from a probability of 0.5 on".
    """
    last = probability.shape[1] - 1
    return float(np.mean(last - np.argmax(probability[:, ::-1], axis=1) == y))


def log_loss(y: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """Mean of minus the log of the true class's probability, in nats, clipped at ``CLIP``."""
    true = probability[np.arange(len(y)), y.astype(np.int64)]
    return float(-np.log(np.clip(true, CLIP, 1 - CLIP)).mean())


def brier(y: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """Mean squared error of the probabilities: of the positive class with two classes, summed over classes else."""
    if probability.shape[1] == 2:
        return float(np.mean((probability[:, 1] - y) ** 2))
    hot = np.eye(probability.shape[1])[y.astype(np.int64)]
    return float(((probability - hot) ** 2).sum(axis=1).mean())


def r2(y: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Share of the variance *within these test cases* that is explained; NaN when all outcomes are equal."""
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - predicted) ** 2).sum()) / spread if spread > 0 else float("nan")


def mae(y: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Mean absolute error, in the outcome's unit."""
    return float(np.abs(y - predicted).mean())


def score(y: NDArray[np.float64], predicted: NDArray[np.float64], classes: int) -> dict[str, float]:
    """All metrics of one site; all NaN when the site has no test case.

    Args:
        y: float64[n], class indices or numbers.
        predicted: float64[n, C] or float64[n].
        classes: C, or 0 for numbers.
    """
    names = CLASS_METRICS if classes else NUMBER_METRICS
    if not len(y):
        return dict.fromkeys(names, float("nan"))
    if classes:
        return {
            "auc": auc(y, predicted),
            "accuracy": accuracy(y, predicted),
            "log_loss": log_loss(y, predicted),
            "brier": brier(y, predicted),
        }
    return {"r2": r2(y, predicted), "mae": mae(y, predicted)}
