"""Federated averaging of a linear model: the textbook opponent, without a framework.

Every round each site takes a few gradient steps from the shared weights on its own records, and the server averages
the results weighted by size. Before the first round the sites add up their means and variances, so that all use the
same standard scores.

Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017,
algorithm 1, with full batches (B = infinity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from outroute.trial.estimators import Layout, Model, Moments, Standard, moments, standard
from outroute.trial.parallel import single_threaded

__all__ = ["LOCAL_STEPS", "ROUNDS", "Federated", "Lossy", "federated", "linear_model"]

ROUNDS = 60
"""Rounds of averaging. With ten local steps the loss moves by less than 0.002 after that on all data sets here; with
two it may still fall (beijing), and the tuning decides whether stopping there is better."""

LOCAL_STEPS = (2, 5, 10)
"""Gradient steps per round and site that the tuning may choose from."""

Lossy = Callable[[int, NDArray[np.float32]], NDArray[np.float32]]
"""What arrives of an array that is compressed on its way; the number says whose it is."""

_WEIGHT_BYTES = 8
"""A weight travels as a 64-bit float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federated:
    """A fitted federated model.

    Attributes:
        model: predicts; see :data:`~outroute.trial.estimators.Model`.
        weights: float64[1 + features, outputs], the intercept first.
        bytes_up: bytes that each site sent: weights in every round, and moments once.
    """

    model: Model
    weights: NDArray[np.float64]
    bytes_up: int


def federated(
    sites: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    layout: Layout,
    classes: int,
    strength: float,
    local_steps: int,
    rounds: int = ROUNDS,
    up: Lossy | None = None,
    down: Lossy | None = None,
    after: Callable[[int, Model], None] | None = None,
) -> Federated:
    """Fit by federated averaging.

    Args:
        sites: per site, x float64[n, D] in unit scale and y float64[n]; sites without rows take no part.
        layout: of the schema.
        classes: number of classes, 0 for numbers.
        strength: C, as in :class:`~outroute.trial.estimators.Linear`; the penalty is shared over all records.
        local_steps: gradient steps per round and site.
        rounds: rounds of averaging.
        up: what the server gets of a site's change of the weights, where that is compressed; by number of the site.
        down: what the sites get of the server's weights; the number is 0.
        after: called after each round with how many there were, and the model as the sites would get it.
    """
    present = [(x, y) for x, y in sites.values() if len(y)]
    sums: Moments = reduce(add, [moments(x) for x, _ in present])
    scores = standard(layout, sums)
    total = sums.rows
    centre, spread = 0.0, 1.0
    if not classes:
        centre = sum(float(y.sum()) for _, y in present) / total
        spread = float(np.sqrt(sum(float(((y - centre) ** 2).sum()) for _, y in present) / total)) or 1.0
    with single_threaded():
        local = [_Site(scores, x, y, classes, centre, spread) for x, y in present]
        penalty = 1 / (strength * total)
        # A step that the average site can take safely, and no site more than is safe for itself.
        common = sum(site.rows * site.curvature for site in local) / total
        weights = np.zeros((local[0].z.shape[1], local[0].target.shape[1]), dtype=np.float32)
        shared = weights
        for number in range(rounds):
            new = [
                site.step(shared, penalty, 1 / (max(common, site.curvature) + penalty), local_steps) for site in local
            ]
            if up is not None:
                new = [shared + up(i, w - shared) for i, w in enumerate(new)]
            weights = sum(
                (site.rows / total * w for site, w in zip(local, new, strict=True)), np.zeros_like(weights)
            ).astype(np.float32)
            shared = weights if down is None else down(0, weights)
            if after is not None:
                after(number + 1, linear_model(scores, shared.astype(np.float64), classes, centre, spread))
    return Federated(
        model=linear_model(scores, weights.astype(np.float64), classes, centre, spread),
        weights=weights.astype(np.float64),
        bytes_up=_WEIGHT_BYTES * (rounds * weights.size + 3 * len(sums.present)),
    )


class _Site:
    """One site's records, as it sees them during training."""

    def __init__(
        self,
        scores: Standard,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        classes: int,
        centre: float,
        spread: float,
    ) -> None:
        z = scores(x)
        self.z = np.concatenate([np.ones((len(z), 1)), z], axis=1).astype(np.float32)
        self.rows = len(y)
        self.classes = classes
        if classes == 2:
            target = y[:, None]
        elif classes:
            target = np.eye(classes)[y.astype(np.int64)]
        else:
            target = (y[:, None] - centre) / spread
        self.target = target.astype(np.float32)
        gram = (self.z.T @ self.z).astype(np.float64) / self.rows
        bound = {0: 1.0, 2: 0.25}.get(classes, 0.5)
        self.curvature = bound * float(np.linalg.eigvalsh(gram)[-1])

    def step(self, weights: NDArray[np.float32], penalty: float, rate: float, steps: int) -> NDArray[np.float32]:
        for _ in range(steps):
            error = _link(self.z @ weights, self.classes) - self.target
            slope = self.z.T @ error / np.float32(self.rows)
            slope[1:] += np.float32(penalty) * weights[1:]
            weights = (weights - np.float32(rate) * slope).astype(np.float32)
        return weights


def _link(value: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    if not classes:
        return value
    if classes == 2:
        return 0.5 + 0.5 * np.tanh(0.5 * value)  # type: ignore[no-any-return]
    power = np.exp(value - value.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def linear_model(scores: Standard, weights: NDArray[np.float64], classes: int, centre: float, spread: float) -> Model:
    """The model of some weights: logistic with classes, else linear in standard deviations `spread` about `centre`."""

    def model(x: NDArray[np.float64]) -> NDArray[np.float64]:
        z = scores(x)
        value = z @ weights[1:] + weights[0]
        if not classes:
            return centre + spread * value[:, 0]  # type: ignore[no-any-return]
        if classes == 2:
            positive = 0.5 + 0.5 * np.tanh(0.5 * value[:, 0])
            return np.stack([1 - positive, positive], axis=1)
        power = np.exp(value - value.max(axis=1, keepdims=True))
        return power / power.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

    return model
