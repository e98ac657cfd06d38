"""Gradient boosting as a correction of another score.

Each round takes one Newton step of the loss at the current score (working residual, working weight) and
fits it with boosted trees. So a packet is one row, not one per class, and node intercepts or a peers'
opinion enter as an offset. Source: Friedman, Hastie and Tibshirani, "Additive logistic regression" (2000),
section 3 (LogitBoost); departure: several small trees per step. No early stopping, so no randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outroute.synthesis.evidence import Floats, Ints
from outroute.synthesis.scores import Link, sigmoid
from outroute.synthesis.settings import Settings

__all__ = ["Boosted", "fit_boosted"]

STEP_MOST = 4.0
"""Largest working residual on the logit scale; a rare outcome at odds of 100 to 1 must not move a leaf by 100."""
BEND_LEAST = 0.02
"""Least working weight per observation, for the same reason."""
FEW = 64
"""Questions up to which trees are walked here: scikit-learn takes milliseconds to start on one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """All trees in flat arrays, to be walked together for a few questions.

    Attributes:
        feature, left, right: int64[nodes]; a leaf points to itself.
        threshold, value: float64[nodes].
        missing_left: bool[nodes], where a missing slot goes.
        roots: int64[T].
        depth: steps after which every walk has ended.
    """

    feature: Ints
    left: Ints
    right: Ints
    threshold: Floats
    value: Floats
    missing_left: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    roots: Ints
    depth: int

    def score(self, x: Floats) -> Floats:
        """Sum of all trees' leaves, float64[m]."""
        at = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        rows = np.arange(len(x))[:, None]
        for _ in range(self.depth):
            seen = x[rows, self.feature[at]]
            go_left = np.where(np.isnan(seen), self.missing_left[at], seen <= self.threshold[at])
            at = np.where(go_left, self.left[at], self.right[at])
        out: Floats = self.value[at].sum(1)
        return out


def _forest(models: Sequence[Any]) -> Forest:
    tables = [trees[0].nodes for model in models for trees in model._predictors]
    starts = np.cumsum([0] + [len(t) for t in tables])
    flat = np.concatenate(tables)
    base = np.repeat(starts[:-1], [len(t) for t in tables])
    here = np.arange(len(flat))
    leaf = flat["is_leaf"].astype(bool)
    return Forest(
        feature=np.where(leaf, 0, flat["feature_idx"]).astype(np.int64),
        left=np.where(leaf, here, flat["left"].astype(np.int64) + base),
        right=np.where(leaf, here, flat["right"].astype(np.int64) + base),
        threshold=flat["num_threshold"].astype(np.float64),
        value=flat["value"].astype(np.float64) * leaf,
        missing_left=flat["missing_go_to_left"].astype(bool),
        roots=starts[:-1].astype(np.int64),
        depth=int(flat["depth"].max()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosted:
    """A fitted correction: `rounds` are scikit-learn regressors, summed; `forest` the same, flat."""

    rounds: tuple[Any, ...]
    forest: Forest
    start: float

    def score(self, x: Floats) -> Floats:
        """float64[n], what to add to the offset for conditions float64[n, D]."""
        if len(x) <= FEW:
            return self.start + self.forest.score(x)
        out: Floats = np.zeros(len(x))
        for model in self.rounds:
            out = out + model.predict(x)
        return out


def _snapped(x: Floats, bins: int) -> Floats:
    """Conditions with at most `bins` different values a slot: the mean of each quantile bin.

    Trees look at that many bins anyway, and scikit-learn's own weighted quantiles take longer than its trees.
    """
    out = x.copy()
    for column in out.T:
        known = ~np.isnan(column)
        values = column[known]
        if len(np.unique(values)) <= bins:
            continue
        edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
        place = np.searchsorted(edges, values, side="right")
        count = np.bincount(place, minlength=len(edges) + 1)
        column[known] = (np.bincount(place, values, minlength=len(edges) + 1) / np.maximum(count, 1))[place]
    return out


def fit_boosted(
    x: Floats, target: Floats, amount: Floats, offset: Floats, *, link: Link, settings: Settings
) -> Boosted:
    """Fit a correction of `offset` float64[n] for one score column; shapes as in `fit_linear`."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rounds: list[Any] = []
    score = offset.astype(np.float64)
    snapped = _snapped(x, settings.boost_bins)
    least = int(np.clip(len(x) // 40, 5, settings.boost_leaf_rows))
    for _ in range(settings.boost_rounds):
        if link is Link.NUMERIC:
            work, curve = target - score, amount
        else:
            mean = sigmoid(score)
            bend = np.maximum(mean * (1.0 - mean), BEND_LEAST)
            work, curve = np.clip((target - mean) / bend, -STEP_MOST, STEP_MOST), amount * bend
        model = HistGradientBoostingRegressor(
            learning_rate=settings.boost_rate,
            max_iter=settings.boost_trees,
            max_leaf_nodes=settings.boost_leaves,
            min_samples_leaf=least,
            max_bins=settings.boost_bins,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=0,
        )
        model.fit(snapped, work, sample_weight=curve / curve.mean())
        score = score + model.predict(x)
        rounds.append(model)
    start = float(sum(float(model._baseline_prediction.item()) for model in rounds))
    return Boosted(rounds=tuple(rounds), forest=_forest(rounds), start=start)
