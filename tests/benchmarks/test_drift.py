"""The benchmark of drift: what each side may know, on a made-up table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.drift import PLAIN, SETTINGS, interval, measure, periods, selected, summary

from benchmarks import drift
from outroute.datasets import Dataset, GroupKind
from outroute.datasets.declare import number, schema, two_classes
from outroute.synthesis import Evidence, Records

DAY = 86_400


def turning(turn: int | None, *, days: int = 300, each: int = 3) -> Dataset:
    """Three sites; from day `turn` on, what meant "yes" means "no"."""
    rng = np.random.default_rng(0)
    day = np.tile(np.repeat(np.arange(days), each), 3)
    site = np.repeat(np.array(["a", "b", "c"], dtype=object), days * each)
    x = rng.random(len(day))
    sign = np.ones(len(day)) if turn is None else np.where(day < turn, 1.0, -1.0)
    yes = rng.random(len(day)) < 1 / (1 + np.exp(-sign * (x - 0.5) * 8))
    return Dataset(
        name="turning",
        columns={"x": x},
        outcome=np.where(yes, "yes", "no").astype(object),
        site=site,
        case=np.array([f"case {i}" for i in range(len(day))], dtype=object),
        group=day.astype(np.int64),
        group_kind=GroupKind.DAY,
        time=(day * DAY).astype(np.int64),
        schema=schema(
            "turning", (number("x", "0", "1"),), two_classes("y", "no", "yes"), k=5, subject="case", bucket_seconds=DAY
        ),
        provenance="made up",
        licence="none",
    )


SETTING = replace(SETTINGS["flights"], first=7, windows=(60,), fixed=60)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    sides = ["none", "window:60", "ageing", "survive", "ours"]
    return summary(measure(turning(120), SETTING, sides, k=5, seed=0, last=2, settings=PLAIN), SETTING)


def test_an_outcome_that_turned_is_followed(found: dict[str, Any]) -> None:
    means = found["means"]
    assert means["ours"]["log_loss"] < means["none"]["log_loss"] - 0.02
    assert means["ageing"]["log_loss"] < means["none"]["log_loss"] - 0.02
    assert "None" not in found["half_lives_elected"]["ours"]
    assert found["periods"] == 2
    assert found["best_window_in_hindsight"] == "window:60"


def test_an_outcome_that_stays_loses_nothing() -> None:
    sides = ["none", "ageing"]
    same = summary(measure(turning(None), SETTING, sides, k=5, seed=0, last=1, settings=PLAIN), SETTING)
    assert same["half_lives_elected"] == {"ageing": {"None": 3}}
    assert same["means"]["none"] == same["means"]["ageing"]  # nothing elected: the very same fit


def test_a_window_keeps_what_is_in_it() -> None:
    n = 10
    at = np.arange(n) * DAY
    packets = Evidence(
        x=np.zeros((n, 1)),
        node=np.zeros(n, np.int64),
        nodes=(b"a",),
        size=np.ones(n),
        counts=np.ones((n, 2)),
        mean=None,
        variance=None,
        bucket=at,
        cell=np.zeros(n, np.int64),
    )
    own = Records(x=np.zeros((n, 1)), y=np.zeros(n), group=at, timed=True)
    used, mine, _ = selected("window:3", turning(None, days=2).schema, packets, own, at, 10 * DAY)
    assert used.weight is not None
    assert used.weight.tolist() == [0.0] * 7 + [1.0] * 3
    assert mine.group.tolist() == at[7:].tolist()


def test_periods_are_calendar_months() -> None:
    when = np.array(["2013-01-31", "2013-02-01", "2013-03-31", "2013-04-01"], dtype="datetime64[s]").astype(np.int64)
    assert periods(when, 1).tolist() == [0, 1, 2, 3]
    assert periods(when, 3).tolist() == [0, 0, 0, 1]


def test_an_interval_is_students() -> None:
    out = interval([1.0, 2.0, 3.0])
    assert out["mean"] == 2.0
    assert out["high"] - out["mean"] == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert np.isnan(interval([1.0])["low"])


def test_every_setting_declares_its_fixed_window() -> None:
    assert all(setting.fixed in setting.windows for setting in drift.SETTINGS.values())
