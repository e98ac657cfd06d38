"""The benchmark of survival runs and prints what its readers look for. No time is asserted."""

from __future__ import annotations

import os

import pytest
from benchmarks.survive import SHARES, speed, verdicts


def test_speed_says_what_it_measured() -> None:
    found = speed(500, 10, 50, 1)
    assert (found["packets"], found["nodes"], found["own_outcomes"]) == (500, 10, 50)
    assert {"whole_cpu_seconds", "confirm_cpu_milliseconds", "load_average"} <= set(found)


def test_a_backdoor_loses_and_honest_packets_stay() -> None:
    if "OUTROUTE_DATA" not in os.environ:
        pytest.skip("set OUTROUTE_DATA")
    found = verdicts("heart", 1, 0)
    assert set(found["weight_left"]) == {f"{share:.0%} attackers" for share in SHARES}
    assert sum(found["cases_by_own_outcomes_in_region"].values()) == 4
    alone, half = found["weight_left"]["0% attackers"], found["weight_left"]["50% attackers"]
    assert min(alone.values()) > 0.95
    for band in found["cases_by_own_outcomes_in_region"]:
        hostile, honest = (half[f"{who} inside, {band} own outcomes there"] for who in ("hostile", "honest"))
        assert hostile < honest
