"""How well an attack does: detection with intervals, errors in standard deviations, PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = [
    "FALSE_POSITIVES",
    "Detection",
    "FieldScale",
    "Interval",
    "decibel",
    "decibel_bounds",
    "detection",
    "psnr",
    "ssim",
]

FALSE_POSITIVES = (0.001, 0.01)
"""False-positive rates at which true positives are reported (Carlini et al. 2022, section III): an attack that is sure
about few is worse than one that is a little better than chance about all."""
DRAWS = 200
"""Bootstrap draws of an interval; its ends then rest on five draws each."""
LEVEL = 0.95
"""Of all intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and its 95 % interval (NaN where there is none)."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def to_json(self) -> dict[str, float | None]:
        """Three numbers, None for NaN."""
        named = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(value) else float(value) for name, value in named.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How well members are told from non-members.

    Attributes:
        auc: area under the ROC curve, 0.5 is chance.
        tpr: true-positive rate by false-positive rate; chance is the rate itself.
        members, others: pairs (subject, emission) that were judged.
    """

    auc: Interval
    tpr: Mapping[float, Interval]
    members: int
    others: int

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "auc": self.auc.to_json(),
            "tpr": {f"{rate:g}": value.to_json() for rate, value in self.tpr.items()},
            "members": self.members,
            "others": self.others,
        }


def detection(
    score: NDArray[np.float64],
    member: NDArray[np.bool_],
    cluster: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
) -> Detection:
    """Judge scores.

    Args:
        score: float64[p], higher is more probably a member.
        member: bool[p], the truth.
        cluster: int64[p]; pairs of one cluster (a subject, over many emissions) are drawn together by the bootstrap.
        rng: draws the bootstrap.
        draws: 0 for no intervals.
    """
    order = np.argsort(-score, kind="stable")
    ranked, truth = score[order], member[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1) if len(ranked) else np.zeros(0, dtype=np.int64)
    number = np.unique(cluster, return_inverse=True)[1].reshape(-1)[order]

    def judge(weight: NDArray[np.float64]) -> tuple[float, ...]:
        positive, negative = (np.cumsum(np.where(which, weight, 0.0))[last] for which in (truth, ~truth))
        if not len(positive) or positive[-1] <= 0 or negative[-1] <= 0:
            return (float("nan"),) * (1 + len(FALSE_POSITIVES))
        true, false = (np.append(0.0, of / of[-1]) for of in (positive, negative))
        area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
        return area, *(float(true[false <= rate + 1e-12].max()) for rate in FALSE_POSITIVES)

    found = judge(np.ones(len(score)))
    count = int(number.max(initial=-1)) + 1
    again = [judge(rng.multinomial(count, np.full(count, 1 / count)).astype(np.float64)[number]) for _ in range(draws)]
    low, high = np.full(len(found), np.nan), np.full(len(found), np.nan)
    table = np.array(again).reshape(-1, len(found))
    table = table[~np.isnan(table).any(axis=1)]
    if len(table):
        low, high = np.quantile(table, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    each = [Interval(value=v, low=float(a), high=float(b)) for v, a, b in zip(found, low, high, strict=True)]
    return Detection(
        auc=each[0],
        tpr=dict(zip(FALSE_POSITIVES, each[1:], strict=True)),
        members=int(member.sum()),
        others=int((~member).sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldScale:
    """Units in which errors count: the standard deviation of each field.

    Attributes:
        mean: float64[D], what a missing guess is filled with.
        first: int64[fields], first slot of each field.
        variance: float64[fields]; a categorical field's is the sum over its slots (the Gini index). 0 where it never
            varies: such a field does not count.
    """

    mean: NDArray[np.float64]
    first: NDArray[np.int64]
    variance: NDArray[np.float64]

    @staticmethod
    def of(schema: Schema, x: NDArray[np.float64]) -> FieldScale:
        """Scales from some rows in unit scale, float64[n, D] with NaN for missing."""
        known = ~np.isnan(x)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, x, 0.0).sum(axis=0) / count
        spread = np.where(known, x - mean, 0.0)
        first = np.array([schema.slots[f.name].start for f in schema.fields], dtype=np.int64)
        return FieldScale(mean=mean, first=first, variance=np.add.reduceat((spread**2).sum(axis=0) / count, first))

    def weights(self) -> NDArray[np.float64]:
        """Weight of each slot, float64[D]: one over the variance of its field, 0 where that is 0."""
        inverse = np.where(self.variance > 1e-12, 1 / np.maximum(self.variance, 1e-12), 0.0)
        return np.repeat(inverse, np.diff(np.append(self.first, len(self.mean))))

    def errors(self, truth: NDArray[np.float64], guess: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared error of each row in field variances, mean over the fields that it has, float64[n].

        1 is what guessing everybody's mean costs on average; NaN for rows without any field that varies.
        """
        filled = np.where(np.isnan(guess), self.mean, guess)
        known = ~np.isnan(truth)
        squared = np.where(known, truth - filled, 0.0) ** 2
        field = np.add.reduceat(squared, self.first, axis=1)
        have = known[:, self.first] & (self.variance > 1e-12)
        number = have.sum(axis=1)
        total = np.where(have, field / np.maximum(self.variance, 1e-12), 0.0).sum(axis=1)
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def decibel(baseline: float, attack: float) -> float:
    """How much smaller an attack's squared error is than the baseline's: 10 log10 of the ratio, 120 at most."""
    return float(10 * np.log10(max(baseline, 1e-12) / max(attack, 1e-12 * max(baseline, 1.0))))


def decibel_bounds(
    baseline: NDArray[np.float64], attack: NDArray[np.float64], cluster: NDArray[np.int64]
) -> tuple[float, float] | None:
    """Interval of the decibel of two mean squared errors on the same records.

    By linearising the logarithm of the ratio of both sums (the delta method), with records of one cluster taken
    together, and Student's distribution over the clusters.

    Args:
        baseline, attack: squared errors by record, float64[n]; records that either does not know are left out.
        cluster: int64[n], records that are given away together: of one packet, or of one update.

    Returns:
        Lower and upper bound; None with fewer than two clusters, or where either error is nothing.
    """
    from scipy.special import stdtrit

    known = np.isfinite(baseline) & np.isfinite(attack)
    names, index = np.unique(cluster[known], return_inverse=True)
    sums = [np.bincount(index.reshape(-1), values[known], len(names)) for values in (baseline, attack)]
    if len(names) < 2 or min(float(of.sum()) for of in sums) <= 0:
        return None
    gap = sums[0] / sums[0].sum() - sums[1] / sums[1].sum()
    error = 10 / np.log(10) * np.sqrt(len(names) / (len(names) - 1) * float((gap**2).sum()))
    half = float(stdtrit(len(names) - 1, (1 + LEVEL) / 2)) * error
    middle = decibel(float(sums[0].sum()), float(sums[1].sum()))
    return float(middle - half), float(middle + half)


def psnr(truth: NDArray[np.float64], guess: NDArray[np.float64], peak: float = 1.0) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each row in decibel, float64[n]; 120 at most (a perfect copy)."""
    error = ((truth - guess) ** 2).mean(axis=1)
    return np.asarray(10 * np.log10(peak**2 / np.maximum(error, 1e-12 * peak**2)))


def ssim(truth: NDArray[np.float64], guess: NDArray[np.float64], side: int, peak: float = 1.0) -> NDArray[np.float64]:
    """Structural similarity of square images, float64[n], 1 is equal.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment" (2004), section III, with K1 = 0.01 and
    K2 = 0.03, over uniform windows of 7 by 7 as far as they lie inside the image.

    Args:
        truth, guess: float64[n, side * side].
        side: points of an edge, at least 7.
        peak: largest value.
    """
    shape = (len(truth), side, side)
    windows = [
        np.lib.stride_tricks.sliding_window_view(part.reshape(shape), (7, 7), axis=(1, 2)) for part in (truth, guess)
    ]
    a, b = windows
    mean_a, mean_b = a.mean(axis=(-2, -1)), b.mean(axis=(-2, -1))
    var_a, var_b = a.var(axis=(-2, -1), ddof=1), b.var(axis=(-2, -1), ddof=1)
    product = (a * b).mean(axis=(-2, -1)) - mean_a * mean_b
    covariance = product * 49 / 48
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return np.asarray((top / bottom).mean(axis=(-2, -1)))
