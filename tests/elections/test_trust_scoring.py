"""What an outcome costs, and the band of an answer."""

from __future__ import annotations

import numpy as np
import pytest

from outroute.elections import BANDS, band_of_class, band_of_number, class_losses, crps
from outroute.elections.trust import LOSS_MOST


@pytest.mark.parametrize(("mean", "deviation", "outcome"), [(0.0, 1.0, 0.3), (4.0, 0.5, -2.0), (-1.0, 7.0, -1.0)])
def test_crps_is_the_integral_that_defines_it(mean: float, deviation: float, outcome: float) -> None:
    from scipy.stats import norm

    u = np.linspace(-60, 60, 400_001)
    gap = norm.cdf(u, mean, deviation) - (u >= outcome)
    assert crps(np.array(mean), deviation, outcome) == pytest.approx(float((gap**2).sum() * (u[1] - u[0])), rel=1e-3)


def test_crps_is_least_for_the_true_distribution() -> None:
    y = np.random.default_rng(0).normal(2.0, 1.5, 20_000)
    true = crps(np.full(len(y), 2.0), 1.5, y).mean()
    for mean, deviation in ((1.8, 1.5), (2.2, 1.5), (2.0, 1.2), (2.0, 1.9)):
        assert crps(np.full(len(y), mean), deviation, y).mean() > true


def test_class_losses_are_nats_with_a_limit() -> None:
    losses = class_losses(np.array([[0.25, 0.75], [1.0, 0.0]]), 1)
    np.testing.assert_allclose(losses, [-np.log(0.75), LOSS_MOST])


def test_bands() -> None:
    risks = [band_of_class(np.array([1 - p, p])) for p in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert risks == list(range(BANDS))
    assert band_of_class(np.array([0.2, 0.5, 0.3])) == 1
    assert [band_of_number(v, 10.0, 2.0) for v in (0.0, 9.0, 10.0, 11.0, 99.0)] == list(range(BANDS))
    assert band_of_number(5.0, 5.0, 0.0) == 2
