"""Paired differences over repeated splits, with intervals that do not pretend the splits to be independent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from outroute.trial.metrics import HIGHER_IS_BETTER

__all__ = ["LEVEL", "MARGINS", "MIN_REPEATS", "Difference", "Verdict", "counted", "difference", "relative_margin"]

LEVEL = 0.95
"""Coverage that the intervals aim at."""

MIN_REPEATS = 20
"""Below this many repeats an interval is shown with a warning (DESIGN 10)."""

MARGINS: Mapping[str, float] = {
    "auc": 0.01,
    "log_loss": 0.01,
    "accuracy": 0.01,
    "brier": 0.01,
    "r2": 0.01,
    "mae": 0.01,
}
"""What still counts as "not worse", written down before any run. All absolute, except that of ``mae``, which is
relative to the other method's mean absolute error (0.01 = 1 %)."""


class Verdict(StrEnum):
    """What an interval says."""

    BETTER = "better"
    """The interval excludes zero, in our favour."""
    NOT_WORSE = "not worse within margin"
    """The unfavourable bound lies inside the margin."""
    WORSE = "worse"
    """The interval excludes zero against us, and its unfavourable bound lies outside the margin."""
    UNDECIDED = "undecided"
    """Neither: more repeats or more data would be needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference, first minus second method, with its interval.

    Attributes:
        mean: mean over repeats.
        se: Nadeau-Bengio standard error; NaN with fewer than two repeats.
        low, high: bounds of the interval of level ``LEVEL``; infinite with fewer than two repeats.
        margin: largest loss that counts as "not worse", in the metric's unit.
        verdict: what it says about the first method.
        repeats: how many repeats had a finite difference.
    """

    mean: float
    se: float
    low: float
    high: float
    margin: float
    verdict: Verdict
    repeats: int

    def to_json(self) -> dict[str, float | int | str | None]:
        """As JSON; numbers that are not finite become null."""
        numbers = {name: getattr(self, name) for name in ("mean", "se", "low", "high", "margin")}
        return {
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
            "verdict": self.verdict.value,
            "repeats": self.repeats,
        }


def relative_margin(metric: str, margins: Mapping[str, float], other_mean: float) -> float:
    """The margin in the metric's unit: for ``mae`` the share of the other method's error, else as it stands."""
    return margins[metric] * (abs(other_mean) if metric == "mae" else 1.0)


def difference(
    values: Sequence[float], *, metric: str, margin: float, test_to_train: float, level: float = LEVEL
) -> Difference:
    """Interval of a mean paired difference over repeated random splits.

    The variance of the mean over J splits is taken as ``(1/J + n_test/n_train) s^2`` with J - 1 degrees of freedom,
    since the splits share records.

    Args:
        values: one difference per repeat (first minus second method); those that are not finite are left out.
        metric: its name; says which direction is better.
        margin: largest loss that counts as "not worse", in the metric's unit, not negative.
        test_to_train: number of test rows divided by number of training rows.
        level: coverage aimed at.

    Source: Nadeau and Bengio, Inference for the Generalization Error, Machine Learning 52 (2003), section 3 ("corrected
    resampled t-test").
    """
    finite = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    count = len(finite)
    if count == 0:
        nan = float("nan")
        return Difference(
            mean=nan, se=nan, low=-math.inf, high=math.inf, margin=margin, verdict=Verdict.UNDECIDED, repeats=0
        )
    mean = float(finite.mean())
    if count == 1:
        return Difference(
            mean=mean,
            se=float("nan"),
            low=-math.inf,
            high=math.inf,
            margin=margin,
            verdict=Verdict.UNDECIDED,
            repeats=1,
        )
    from scipy.special import stdtrit

    se = math.sqrt((1 / count + test_to_train) * float(finite.var(ddof=1)))
    half = float(stdtrit(count - 1, (1 + level) / 2)) * se
    low, high = mean - half, mean + half
    worst, best = (low, high) if HIGHER_IS_BETTER[metric] else (-high, -low)
    if worst > 0:
        verdict = Verdict.BETTER
    elif worst >= -margin:
        verdict = Verdict.NOT_WORSE
    elif best < 0:
        verdict = Verdict.WORSE
    else:
        verdict = Verdict.UNDECIDED
    return Difference(mean=mean, se=se, low=low, high=high, margin=margin, verdict=verdict, repeats=count)


def counted(found: int, of: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a share that was counted: `found` of `of` cases that do not depend on each other.

    Args:
        found: from 0 to `of`.
        of: how many cases; 0 tells nothing (0 to 1).
        level: coverage, at least.

    Source: Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26 (1934).
    """
    from scipy.special import betaincinv

    if of < 1:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = float(betaincinv(found, of - found + 1, tail)) if found > 0 else 0.0
    high = float(betaincinv(found + 1, of - found, 1 - tail)) if found < of else 1.0
    return low, high
