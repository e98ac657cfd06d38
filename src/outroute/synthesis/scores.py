"""The scale that calculations answer on, the losses that judge them, and the way back to probabilities.

A *score* is float64[n, K]. Binary outcomes: K = 1, the logit of the positive class. Categorical outcomes:
K = C, log-probabilities. Numeric outcomes: K = 1, the mean in standardised units (see `Scale`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from outroute.synthesis.evidence import Evidence, Floats, Records

__all__ = ["Link", "Sample", "Scale", "losses", "probability", "residual"]

LOGIT_MOST = 12.0
"""Largest logit that anything may claim: odds of 160,000 to 1; keeps one wrong outcome from costing infinity."""


class Link(IntEnum):
    """How a score maps to an outcome; the values are those of ``outroute.schema.OutcomeKind``."""

    BINARY = 1
    CATEGORICAL = 2
    NUMERIC = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Standardisation of a numeric outcome: score = (value - centre) / spread. Identity for class outcomes."""

    centre: float = 0.0
    spread: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Packets or records in one form.

    Attributes:
        x: float64[n, D], unit scale, NaN missing.
        target: float64[n, K]: share of the positive class; share of each class; or standardised mean.
        amount: float64[n], observations that each row stands for, times its weight.
        within: float64[n], variance of the outcome inside each row, standardised units; 0 for records.
        node: int64[n], index of the node; -1 for own records.
    """

    x: Floats
    target: Floats
    amount: Floats
    within: Floats
    node: np.ndarray[tuple[int, ...], np.dtype[np.int64]]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.x)

    def take(self, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Sample:
        """The rows at the indices `rows`."""
        return Sample(
            x=self.x[rows],
            target=self.target[rows],
            amount=self.amount[rows],
            within=self.within[rows],
            node=self.node[rows],
        )

    def join(self, other: Sample) -> Sample:
        """These rows, then those of `other`."""
        return Sample(
            x=np.concatenate([self.x, other.x]),
            target=np.concatenate([self.target, other.target]),
            amount=np.concatenate([self.amount, other.amount]),
            within=np.concatenate([self.within, other.within]),
            node=np.concatenate([self.node, other.node]),
        )


def scale_of(evidence: Evidence, own: Records) -> Scale:
    """Centre and spread of a numeric outcome over packets and own records together."""
    if evidence.mean is None or evidence.variance is None:
        return Scale()
    amount = np.concatenate([evidence.size, np.ones(own.n)])
    if amount.sum() <= 0:
        return Scale()
    means = np.concatenate([evidence.mean, own.y])
    within = np.concatenate([evidence.variance, np.zeros(own.n)])
    centre = float(np.average(means, weights=amount))
    spread = float(np.sqrt(np.average((means - centre) ** 2 + within, weights=amount)))
    return Scale(centre=centre, spread=spread if spread > 0 else 1.0)


def sample_of_evidence(evidence: Evidence, scale: Scale) -> Sample:
    """Packets as a `Sample`."""
    amount = evidence.size if evidence.weight is None else evidence.size * evidence.weight
    within = np.zeros(evidence.n)
    if evidence.counts is not None:
        total = np.maximum(evidence.counts.sum(1, keepdims=True), 1e-12)
        target = evidence.counts / total
        if target.shape[1] == 2:
            target = target[:, 1:]
    else:
        assert evidence.mean is not None
        assert evidence.variance is not None
        target = ((evidence.mean - scale.centre) / scale.spread)[:, None]
        within = evidence.variance / scale.spread**2
    return Sample(x=evidence.x, target=target, amount=amount, within=within, node=evidence.node)


def sample_of_records(own: Records, link: Link, classes: int, scale: Scale) -> Sample:
    """Own records as a `Sample`, node -1."""
    if link is Link.NUMERIC:
        target = ((own.y - scale.centre) / scale.spread)[:, None]
    elif link is Link.BINARY:
        target = own.y[:, None].astype(np.float64)
    else:
        target = (own.y[:, None] == np.arange(classes)).astype(np.float64)
    return Sample(
        x=own.x,
        target=target,
        amount=np.ones(own.n),
        within=np.zeros(own.n),
        node=np.full(own.n, -1, np.int64),
    )


def sigmoid(score: Floats) -> Floats:
    """Logistic function, safe for any finite score."""
    out: Floats = 0.5 * (1.0 + np.tanh(0.5 * score))
    return out


def logit(share: Floats) -> Floats:
    """Log-odds, bounded by `LOGIT_MOST`."""
    floor = 1.0 / (1.0 + np.exp(LOGIT_MOST))
    bounded = np.clip(share, floor, 1.0 - floor)
    out: Floats = np.log(bounded) - np.log1p(-bounded)
    return out


def normalise(score: Floats) -> Floats:
    """Scores of classes to log-probabilities (rows sum to one after exp)."""
    top = score - score.max(1, keepdims=True)
    out: Floats = top - np.log(np.exp(top).sum(1, keepdims=True))
    return out


def probability(score: Floats, link: Link) -> Floats:
    """Scores to float64[n, K]: positive share, class shares, or the (standardised) mean itself."""
    if link is Link.BINARY:
        return sigmoid(score)
    if link is Link.CATEGORICAL:
        return np.exp(normalise(score))
    return score


def losses(score: Floats, target: Floats, link: Link, spread: float = 1.0) -> Floats:
    """Loss of each row, float64[n]: log-loss in nats; for numbers the Gaussian log score at sd `spread`.

    Constants are kept, so that differences and sums both mean something.
    """
    if link is Link.BINARY:
        s = np.clip(score[:, 0], -LOGIT_MOST, LOGIT_MOST)
        out: Floats = np.logaddexp(0.0, s) - target[:, 0] * s
        return out
    if link is Link.CATEGORICAL:
        chosen: Floats = -(target * np.maximum(normalise(score), -LOGIT_MOST)).sum(1)
        return chosen
    gap = (target[:, 0] - score[:, 0]) / spread
    gauss: Floats = 0.5 * gap**2 + np.log(spread) + 0.5 * np.log(2 * np.pi)
    return gauss


def residual(score: Floats, target: Floats, link: Link) -> Floats:
    """Gradient of minus the loss with respect to the score, float64[n, K] (numeric: at sd 1)."""
    return target - probability(score, link)
