"""The inversion wall: its verdict follows the rule that is written, and a real run finds what is known to be there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from outroute.schema import Outcome, OutcomeKind
from outroute.walls.base import Plan, Winner
from outroute.walls.inversion import WALL
from outroute.walls.inversion_scores import EXACT
from outroute.walls.inversion_sides import Bench, strips

from .making import table


def plan(**settings: Any) -> Plan:
    return Plan(dataset=table(140, sites=2), **({"quick": True, "repeats": 3} | settings))


def measured(
    auc: float, *, member: float = 0.5, named: float = 0.5, chance: float = 0.5, values: float | None = 0.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A leak and a worth as steps keep them: twenty splits around a mean."""
    jitter = np.tile([-0.001, 0.001], 10)
    area = {"value": member, "low": member - 0.02, "high": member + 0.02}
    naming = {"named": named, "chance": chance, "members": 60, "advantage": (named - chance) / (1 - chance)}
    leak = {
        "membership": {"likelihood_ratio": {"auc": area}},
        "naming": naming,
        "values_db": values,
        "bound": None,
    }
    return leak, {"auc": auc, "log_loss": 0.5, "r2": None, "splits": (auc + jitter).tolist(), "losses": [0.5] * 20}


def concluded(ours: Mapping[str, Any], theirs: Mapping[str, Any], private: float, noisy: float) -> Any:
    """The verdict where one setting of each side is good, beside `private` and federated noise of some worth."""
    asked = plan(repeats=20)
    done: dict[str, Any] = {}
    for method in Bench(asked).methods:
        figures = measured(0.6)
        if method.epsilon:
            figures = measured(private if method.ours else noisy)
        elif method.key == "p-k5":
            figures = measured(**ours)
        elif method.name.endswith("5 epochs"):
            figures = measured(**theirs)
        done[f"leak/{method.key}"], done[f"worth/{method.key}"] = figures
    return WALL.conclude(asked, done)


GOOD = {"auc": 0.9, "member": 0.55}
LEAKY = {"auc": 0.9, "member": 0.75}


@pytest.mark.parametrize(
    ("ours", "theirs", "private", "noisy", "winner"),
    [
        (GOOD, GOOD, 0.7, 0.7, Winner.TIE),
        (GOOD, LEAKY, 0.7, 0.7, Winner.OUTROUTE),
        (LEAKY, GOOD, 0.7, 0.7, Winner.FEDERATED),
        (GOOD, LEAKY, 0.7, 0.8, Winner.TIE),  # one comparison each
        (GOOD, GOOD, 0.7, 0.8, Winner.FEDERATED),
        (GOOD, GOOD, 0.8, 0.7, Winner.OUTROUTE),
        (GOOD, GOOD, 0.705, 0.7, Winner.TIE),  # within the margin
        ({"auc": 0.85, "member": 0.5}, LEAKY, 0.7, 0.7, Winner.FEDERATED),  # none of ours is worth as much
        (GOOD | {"named": 0.95}, GOOD, 0.7, 0.7, Winner.FEDERATED),  # the strongest attack counts
        (GOOD | {"values": 20.0}, LEAKY, 0.7, 0.7, Winner.FEDERATED),  # values are read off: it may not stand
    ],
)
def test_the_verdict_follows_the_rule(
    ours: dict[str, Any], theirs: dict[str, Any], private: float, noisy: float, winner: Winner
) -> None:
    pytest.importorskip("torch", reason="searches need the extra audit; run in .venv-walls")
    found = concluded(ours, theirs, private, noisy)
    assert found.winner is winner
    assert found.verdict
    assert found.change


def test_figures_carry_their_intervals() -> None:
    asked = plan(repeats=20)
    one, other, *_ = Bench(asked).methods
    by_name, name_worth = measured(0.9, named=0.9)
    by_score, _ = measured(0.9, member=0.75)
    done = {
        f"leak/{one.key}": by_name,
        f"worth/{one.key}": name_worth,
        f"leak/{other.key}": by_score,
    }
    found = {(score.method, score.metric): score for score in WALL.conclude(asked, done).scores}
    named = found[one.name, "named from a list"]
    assert (named.low, named.high) == pytest.approx((0.795, 0.962), abs=5e-4)  # 54 of 60, from Clopper-Pearson tables
    leak = found[one.name, "leak (0 to 1)"]
    assert (leak.low, leak.high) == pytest.approx((2 * 0.795 - 1, 2 * 0.962 - 1), abs=1e-3)
    leak = found[other.name, "leak (0 to 1)"]
    assert (leak.low, leak.value, leak.high) == pytest.approx((0.46, 0.5, 0.54))
    area = found[one.name, "AUC"]
    assert area.low is not None
    assert area.high is not None
    half = 2.0930 * ((1 / 20 + 3 / 7) * 1e-6 * 20 / 19) ** 0.5  # t(19, 0.975), Nadeau and Bengio
    loss = found[one.name, "log-loss"]
    assert (loss.low, loss.high) == (0.5, 0.5)
    assert (area.low, area.high) == pytest.approx((0.9 - half, 0.9 + half), abs=1e-6)


def test_a_run_that_was_stopped_still_says_what_it_has() -> None:
    asked = plan()
    methods = Bench(asked).methods
    leak, _ = measured(0.9)
    found = WALL.conclude(asked, {f"leak/{methods[0].key}": leak})
    assert found.winner is Winner.TIE
    assert "missing" in found.verdict
    assert len(found.scores) == 4


def test_a_whole_run_finds_what_is_known() -> None:
    pytest.importorskip("torch", reason="searches need the extra audit; run in .venv-walls")
    asked = plan()
    steps = WALL.steps(asked)
    assert len({step.key for step in steps}) == len(steps)
    assert [step.key for step in WALL.steps(asked)] == [step.key for step in steps]
    said: list[str] = []
    done = {step.key: json.loads(json.dumps(step.run(said.append))) for step in steps}
    found = WALL.conclude(asked, done)
    assert said
    value = {(s.method, s.metric): s.value for s in found.scores}
    assert value["single records", "values, dB above public"] == EXACT
    assert value["single records", "leak (0 to 1)"] > 0.9
    assert value["FedAvg, 20 rounds", "leak (0 to 1)"] > 0.3  # sums of gradients name who trained
    assert value["private, epsilon 1", "membership, AUC"] < 0.75
    for score in found.scores:  # an interval, or why there is none
        told = score.note == "values are exact" or score.note.startswith("no interval")
        assert told if score.low is None else score.low <= score.value <= score.high, score
    searched = {s.method: s.value for part in found.parts for s in part.scores}
    assert searched["one record, one step: closed form"] == EXACT
    assert searched["one record, one step: Geiping"] > 20
    noisy = "one record, one step, clipping and noise, epsilon 1"
    assert searched[f"{noisy}: closed form"] < 3
    compressed = next(of for name, of in searched.items() if "largest 10 %" in name and "closed form" in name)
    assert compressed < EXACT
    more = next(part for part in found.parts if part.title == "Other attacks on packets")
    value = {(s.method, s.metric): s for s in more.scores}
    alone, linked = (
        value["single records", "a field of a member, dB"],
        value["single records", "linked to their packet"],
    )
    assert alone.value > 10  # a packet of one record tells every field of it
    assert linked.value > 0.9
    assert linked.low < linked.value <= linked.high
    assert abs(value["cohorts of 5", "a field of a member, dB"].value) < 3
    assert ("private, epsilon 1", "linked to their packet") not in value  # its packets are there whoever is in them
    assert ("cohorts of 5", "a second look adds, dB") in value
    pictures = next(f for part in found.parts for f in part.figures if f.images)
    shapes = {np.shape(pixels) for _, pixels in pictures.images}
    assert len(shapes) == 1
    truth, closed = (np.array(pixels) for _, pixels in pictures.images[:2])
    assert np.abs(truth - closed).max() < 0.01
    curves = next(f for part in found.parts for f in part.figures if f.curves).curves
    assert any(curve.ours for curve in curves)
    assert any(not curve.ours for curve in curves)


def test_one_site_is_enough() -> None:
    asked = Plan(dataset=table(70, sites=1), quick=True, repeats=2)
    bench = Bench(asked)
    assert not any(method.aggregated for method in bench.methods)
    assert all("secure aggregation" not in one.setting for one in bench.searches)
    assert any("secure aggregation" in method.name for method in Bench(plan()).methods)


def test_a_number_becomes_two_classes_for_both_sides() -> None:
    data = table(70, sites=2)
    days = Outcome(name="days", kind=OutcomeKind.NUMERIC, low=Decimal(0), high=Decimal(100))
    numbers = replace(data, outcome=np.linspace(0, 100, 70), schema=replace(data.schema, outcome=days))
    bench = Bench(Plan(dataset=numbers, quick=True, repeats=2))
    assert len(bench.schema.outcome.classes) == 2
    assert {float(v) for rows in bench.used.values() for v in rows.outcome} == {0.0, 1.0}
    assert any("median" in note for note in bench.notes)
    found = bench.worth(bench.methods[0])
    assert 0 <= found["auc"] <= 1


def test_records_as_pictures() -> None:
    assert np.shape(strips([[0.0, 0.5, None]], 0)) == (1, 6, 8)
    assert strips([[0.0, 0.5, None]], 0)[0][0] == [0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0]
    assert np.shape(strips([[0.25] * 64] * 3, 8)) == (3, 8, 8)
