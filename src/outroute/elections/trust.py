"""Trust: which calculation to believe, scored on own outcomes before they enter any of them.

Two forms of one election. `elect` looks at all scored outcomes at once and minimises the loss of the
mixture; `Trust` is the running form, whose weights follow exponentiated loss as outcomes get confirmed, so
that its loss is never much worse than that of the best calculation in hindsight.
Source: Freund and Schapire (1997), section 2 (Hedge); Kivinen and Warmuth (1997), section 3 (exponentiated
gradient). Departure: `elect` iterates on the whole batch with a line search, and stays near the prior
weights by a relative-entropy pull, which is what a site with few outcomes needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError

__all__ = ["LOSS_MOST", "Objective", "Trust", "elect"]

Floats = npt.NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]
"""Weights float64[J] on the simplex -> (total loss of the mixture in nats, its gradient float64[J])."""

STEPS = 150
"""Exponentiated-gradient steps; seven calculations settle in well under a hundred."""
PULL = 2.0
"""Nats of own loss that one nat of distance from the prior weights costs."""
LOSS_MOST = 6.0
"""Loss per outcome above this is counted as this (nats; one chance in 400): one mistake is not a verdict."""
FADE = 0.999
"""Factor on past losses per new outcome: half-life about 700 outcomes, so that a drift is noticed."""


def elect(objective: Objective, prior: Floats, *, pull: float = PULL) -> Floats:
    """Weights of calculations that minimise objective(w) + pull * KL(w || prior).

    Args:
        objective: loss of the mixture on own outcomes, convex in the weights.
        prior: float64[J] > 0, sums to one.
        pull: >= 0.

    Returns:
        float64[J] >= 0, sums to one.
    """
    weights = prior.copy()

    def total(w: Floats) -> tuple[float, Floats]:
        loss, gradient = objective(w)
        ratio = np.log(np.maximum(w, 1e-300) / prior)
        return loss + pull * float(w @ ratio), gradient + pull * (ratio + 1.0)

    value, gradient = total(weights)
    rate = 1.0 / max(float(np.abs(gradient - gradient.mean()).max()), 1e-9)
    for _ in range(STEPS):
        moved = np.log(np.maximum(weights, 1e-300)) - rate * (gradient - gradient.min())
        trial = np.exp(moved - moved.max())
        trial /= trial.sum()
        new, new_gradient = total(trial)
        if new <= value:
            done = value - new < 1e-7 * max(1.0, abs(value)) and np.abs(trial - weights).max() < 1e-4
            weights, value, gradient = trial, new, new_gradient
            rate *= 1.6
            if done:
                break
        else:
            rate *= 0.5
            if rate < 1e-12:
                break
    return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Running trust in named calculations.

    Attributes:
        names: calculations, in order.
        total: float64[J], faded sum of losses, nats.
        count: outcomes seen.
        rate: learning rate per nat; 1 is the Bayesian mixture for log-loss.
    """

    names: tuple[str, ...]
    total: Floats
    count: int = 0
    rate: float = 1.0

    @classmethod
    def start(cls, names: Sequence[str]) -> Trust:
        """Nobody has been scored yet: equal trust."""
        return cls(names=tuple(names), total=np.zeros(len(names)))

    @property
    def weights(self) -> Floats:
        """float64[J], sums to one."""
        raw = np.exp(-self.rate * (self.total - self.total.min()))
        out: Floats = raw / raw.sum()
        return out

    def update(self, losses: Floats) -> Trust:
        """Score m confirmed outcomes, in order.

        Args:
            losses: float64[m, J], loss of each calculation on outcomes it had not seen, nats.

        Returns:
            The new state.
        """
        if losses.ndim != 2 or losses.shape[1] != len(self.names):
            raise DataError(f"losses need one column for each of {len(self.names)} calculations", code="trust.losses")
        total = self.total
        for row in np.minimum(losses, LOSS_MOST):
            total = FADE * total + row
        return replace(self, total=total, count=self.count + len(losses))

    def prior(self, names: Sequence[str], least: float = 0.01) -> Floats:
        """Weights for `names` as a prior of `elect`: unknown ones get the average, none less than `least`."""
        known = dict(zip(self.names, self.weights, strict=True))
        raw = np.array([known.get(n, 1.0 / max(1, len(self.names))) for n in names])
        raw = np.maximum(raw / raw.sum(), least)
        out: Floats = raw / raw.sum()
        return out
