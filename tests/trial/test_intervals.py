from __future__ import annotations

import json
import math

import pytest
from scipy import stats

from outroute.trial import Verdict, counted, difference
from outroute.trial.intervals import MARGINS, relative_margin


def test_nadeau_bengio_by_hand() -> None:
    # mean 0.02, s^2 = (0.01^2 + 0 + 0.01^2) / 2 = 0.0001; J = 3, n_test/n_train = 3/7
    found = difference([0.01, 0.02, 0.03], metric="auc", margin=0.01, test_to_train=3 / 7)
    se = math.sqrt((1 / 3 + 3 / 7) * 0.0001)  # 0.008729
    assert found.mean == pytest.approx(0.02)
    assert found.se == pytest.approx(0.0087287, abs=1e-6)
    assert found.se == pytest.approx(se)
    assert found.high - found.mean == pytest.approx(4.302653 * se, rel=1e-5)  # t(2, 0.975)
    assert found.low == pytest.approx(found.mean - stats.t.ppf(0.975, 2) * se)


def test_the_interval_is_wider_than_that_of_independent_splits() -> None:
    values = [0.01, 0.02, 0.04, 0.00, 0.03]
    honest = difference(values, metric="auc", margin=0.01, test_to_train=3 / 7)
    naive = difference(values, metric="auc", margin=0.01, test_to_train=0.0)
    assert honest.se / naive.se == pytest.approx(math.sqrt(1 + 5 * 3 / 7))


@pytest.mark.parametrize(
    ("metric", "mean", "verdict"),
    [
        ("auc", 0.05, Verdict.BETTER),
        ("auc", -0.05, Verdict.WORSE),
        ("auc", -0.001, Verdict.NOT_WORSE),
        ("auc", -0.008, Verdict.UNDECIDED),
        ("log_loss", -0.05, Verdict.BETTER),
        ("log_loss", 0.05, Verdict.WORSE),
        ("log_loss", 0.001, Verdict.NOT_WORSE),
        ("log_loss", 0.008, Verdict.UNDECIDED),
    ],
)
def test_verdicts(metric: str, mean: float, verdict: Verdict) -> None:
    # spread chosen so that the half width is about 0.0086: with a mean of 0.008 the interval holds zero
    values = [mean + sign * 0.006 for sign in (-1, 1)] * 10
    found = difference(values, metric=metric, margin=0.01, test_to_train=3 / 7)
    assert (found.high - found.low) / 2 == pytest.approx(0.0089, abs=0.0002)
    assert found.verdict is verdict


def test_a_small_certain_loss_inside_the_margin_counts_as_not_worse() -> None:
    found = difference([-0.002] * 20, metric="auc", margin=0.01, test_to_train=3 / 7)
    assert found.high < 0
    assert found.verdict is Verdict.NOT_WORSE


def test_too_few_repeats_decide_nothing() -> None:
    for values in ([], [0.4], [float("nan"), 0.4]):
        found = difference(values, metric="auc", margin=0.01, test_to_train=3 / 7)
        assert found.verdict is Verdict.UNDECIDED
        assert found.low == -math.inf
        assert json.loads(json.dumps(found.to_json(), allow_nan=False))["low"] is None


def test_margins_are_absolute_except_for_the_absolute_error() -> None:
    assert relative_margin("auc", MARGINS, 0.8) == 0.01
    assert relative_margin("mae", MARGINS, 50.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("found", "of"), [(0, 4), (4, 4), (1, 1), (50, 100), (54, 60), (7, 9)])
def test_a_counted_share_has_the_exact_interval(found: int, of: int) -> None:
    theirs = stats.binomtest(found, of).proportion_ci(0.95, method="exact")
    assert counted(found, of) == pytest.approx((theirs.low, theirs.high))
    assert counted(0, 0) == (0.0, 1.0)
