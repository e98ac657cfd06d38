"""Scores against values worked out by hand or by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from outroute.audit.scores import FieldScale, decibel, decibel_bounds, detection, psnr, ssim

from .making import world


def test_detection_is_the_area_and_the_rates_of_the_curve() -> None:
    rng = np.random.default_rng(0)
    member = rng.random(4000) < 0.4
    score = np.round(rng.normal(size=4000) + member, 1)  # ties
    found = detection(score, member, np.arange(4000) // 4, rng)
    assert found.auc.value == pytest.approx(roc_auc_score(member, score))
    assert found.auc.low < found.auc.value < found.auc.high
    cut = min(s for s in np.unique(score) if (score[~member] >= s).mean() <= 0.01)
    assert found.tpr[0.01].value == pytest.approx((score[member] >= cut).mean())


def test_equal_scores_detect_nobody() -> None:
    found = detection(np.zeros(100), np.arange(100) % 2 == 0, np.arange(100), np.random.default_rng(0))
    assert found.auc.value == 0.5
    assert found.tpr[0.001].value == 0.0


def test_errors_count_in_field_variances() -> None:
    made = world()
    rng = np.random.default_rng(0)
    x = rng.random((500, made.width))
    x[:, 2:5] = np.eye(3)[rng.integers(0, 3, 500)]
    x[::7, 0] = np.nan
    scale = FieldScale.of(made, x)
    mean = np.tile(scale.mean, (len(x), 1))
    assert np.mean(scale.errors(x, mean)) == pytest.approx(1.0, abs=0.02)
    assert np.nanmax(scale.errors(x, x)) == 0.0
    assert scale.errors(x, np.full_like(x, np.nan)) == pytest.approx(scale.errors(x, mean))


def test_decibel() -> None:
    assert decibel(1.0, 0.1) == pytest.approx(10.0)
    assert decibel(1.0, 0.0) == 120.0


def test_images() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 64))
    assert psnr(image, image + 0.1) == pytest.approx([20.0] * 3)
    assert ssim(image, image, 8) == pytest.approx([1.0] * 3)
    noisy = np.clip(image + rng.normal(0, 0.3, image.shape), 0, 1)
    assert (ssim(image, noisy, 8) < 0.9).all()
    # One window, by the formula of the paper.
    a, b = image[0, :49], noisy[0, :49]
    covariance = np.cov(a, b)
    hand = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance[0, 1] + 9e-4)
    hand /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (covariance[0, 0] + covariance[1, 1] + 9e-4)
    assert ssim(a[None], b[None], 7)[0] == pytest.approx(hand)


def test_bounds_of_decibel_hold_the_truth_and_know_what_comes_together() -> None:
    rng = np.random.default_rng(0)
    group, held, widths = np.arange(300) // 5, 0, []
    for _ in range(200):
        level = rng.gamma(2.0, size=60)[group]  # records of a packet are alike
        base, attack = (
            2.0 * level * rng.chisquare(3, 300),
            level * rng.gamma(2.0, size=60)[group] * rng.random(300) * 1.5,
        )
        truth = 10 * np.log10(2.0 * 3.0 / 1.5)
        bounds = decibel_bounds(base, attack, group)
        assert bounds is not None
        held += bounds[0] <= truth <= bounds[1]
        widths.append(bounds[1] - bounds[0])
        naive = decibel_bounds(base, attack, np.arange(300))
        assert naive is not None
    assert 0.90 <= held / 200 <= 0.99
    assert np.mean(widths) > naive[1] - naive[0]
    assert decibel_bounds(base[:5], attack[:5], group[:5]) is None  # one packet says nothing about others
    assert decibel_bounds(base, np.zeros(300), group) is None
    gone = np.where(np.arange(300) == 7, np.nan, attack)
    assert decibel_bounds(base, gone, group) != decibel_bounds(base, attack, group)
