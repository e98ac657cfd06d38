"""The model that both federations train: linear, by gradient steps. Light to load, since Flower starts a process for
each task of a client.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["RATE", "STEPS", "Records", "keep", "load", "steps"]

Weights = NDArray[np.float32]

STEPS = 5
"""Gradient steps on a client in a round."""
RATE = 0.5
"""Length of a step over the records' curvature (its largest eigenvalue is 1 after scaling)."""
PENALTY = 1e-3
"""Ridge penalty of all weights but the intercept."""

Records = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Conditions with a leading 1, float32[n, features], and outcomes, float32[n, outputs] (classes as 0 and 1)."""


def keep(path: Path, records: Records) -> None:
    """Write one site's records where its client finds them."""
    np.savez(path, z=records[0], target=records[1])


def load(path: Path | str) -> Records:
    """Read them."""
    with np.load(path) as file:
        return file["z"], file["target"]


def steps(records: Records, weights: Weights, classes: int, count: int = STEPS) -> Weights:
    """Weights after some gradient steps on one site's records.

    Args:
        records: of the site.
        weights: float32[features, outputs] to start from.
        classes: 0 for numbers.
        count: of steps.
    """
    z, target = records
    scale = np.float32(RATE / max(1.0, float((z**2).sum(axis=1).mean())))
    for _ in range(count):
        slope = z.T @ (_link(z @ weights, classes) - target) / np.float32(len(z))
        slope[1:] += np.float32(PENALTY) * weights[1:]
        weights = (weights - scale * slope * np.float32(_CURVATURE.get(classes, 2.0))).astype(np.float32)
    return weights


_CURVATURE = {0: 1.0, 2: 4.0}
"""One over the largest second derivative of the loss: of squares, of the logistic function; else of the softmax."""


def _link(value: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    if not classes:
        return value
    if classes == 2:
        return 0.5 + 0.5 * np.tanh(0.5 * value)  # type: ignore[no-any-return]
    power = np.exp(value - value.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
