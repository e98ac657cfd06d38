from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from outroute.trial import metrics


def drawn(classes: int, seed: int = 0, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), size=n).round(2)  # rounded: with ties
    p /= p.sum(axis=1, keepdims=True)
    return rng.integers(classes, size=n).astype(float), p


@pytest.mark.parametrize("seed", range(5))
def test_binary_metrics_agree_with_scikit_learn(seed: int) -> None:
    y, p = drawn(2, seed)
    p = np.clip(p, 0.01, 0.99)
    assert metrics.auc(y, p) == pytest.approx(reference.roc_auc_score(y, p[:, 1]))
    assert metrics.log_loss(y, p) == pytest.approx(reference.log_loss(y, p[:, 1]))
    assert metrics.brier(y, p) == pytest.approx(reference.brier_score_loss(y, p[:, 1]))
    assert metrics.accuracy(y, p) == pytest.approx(reference.accuracy_score(y, p[:, 1] >= 0.5))


def test_metrics_of_several_classes_agree_with_scikit_learn() -> None:
    y, p = drawn(4)
    p = np.clip(p, 0.01, None)
    p /= p.sum(axis=1, keepdims=True)
    assert metrics.auc(y, p) == pytest.approx(reference.roc_auc_score(y, p, multi_class="ovr", average="macro"))
    assert metrics.log_loss(y, p) == pytest.approx(reference.log_loss(y, p))
    assert metrics.accuracy(y, p) == pytest.approx(np.mean(p.argmax(axis=1) == y), abs=0.02)


def test_number_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    y, f = rng.normal(size=(2, 200))
    assert metrics.r2(y, f) == pytest.approx(reference.r2_score(y, f))
    assert metrics.mae(y, f) == pytest.approx(reference.mean_absolute_error(y, f))


def test_what_cannot_be_scored_is_not_a_number() -> None:
    p = np.array([[0.2, 0.8], [0.6, 0.4]])
    assert math.isnan(metrics.auc(np.ones(2), p))
    assert math.isnan(metrics.r2(np.ones(2), np.zeros(2)))
    assert all(math.isnan(value) for value in metrics.score(np.empty(0), np.empty((0, 2)), 2).values())


def test_a_sure_mistake_costs_a_bounded_loss() -> None:
    assert metrics.log_loss(np.array([1.0]), np.array([[1.0, 0.0]])) == pytest.approx(-math.log(metrics.CLIP))
    assert metrics.log_loss(np.array([1.0]), np.array([[0.0, 1.0]])) == pytest.approx(metrics.CLIP, rel=1e-3)
