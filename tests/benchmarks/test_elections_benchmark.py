"""The benchmark of elections runs and prints what its readers look for. No time is asserted."""

from __future__ import annotations

from benchmarks.elections import main


def test_it_says_what_it_measured() -> None:
    found = main(["--quick", "--json"])
    assert (found["packets"], found["nodes"], found["own_outcomes"], found["questions"]) == (2_000, 50, 200, 20)
    assert {"wall_ms_median", "wall_ms_p99", "times_bare_product", "times_bare_pass"} <= set(found["question"])
    assert set(found["from_scratch"]) == {"whole", "copies", "hire", "survive"}
    assert found["proven"] == 30
    assert found["contradicted"] >= 15
    assert found["weight_apart_from_scratch"] < 0.02
