"""The non-IID wall: its steps, what it concludes from them, and the rule by which somebody wins."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from outroute import trial
from outroute.datasets.declare import numeric_outcome
from outroute.errors import DataError
from outroute.trial.metrics import HIGHER_IS_BETTER, LIMITS
from outroute.walls import Plan, Winner
from outroute.walls.noniid import QUICK_REPEATS, SWEEP, WALL, NonIid
from outroute.walls.noniid_report import _bounds
from outroute.walls.noniid_scores import MARGIN, OURS, Splits, verdict
from outroute.walls.noniid_skew import label_distance, site_auc, skew
from outroute.walls.opponents import BASELINES, GROUPS, LABELS
from outroute.walls.state import plain

from .making import table

FEDERATED = tuple(name for names in GROUPS.values() for name in names)


def steps_like(losses: dict[str, float], validation: dict[str, float], splits: int = 20) -> dict[str, Any]:
    """What steps leave behind where methods have these log-losses at three sites, with the same noise for all."""
    rng = np.random.default_rng(0)
    done: dict[str, Any] = {}
    for number in range(splits):
        noise, rows = rng.normal(0, 0.01, 3), {}
        for name, loss in losses.items():
            own = rng.normal(0, 0.002, 3)
            sites = {
                f"site {i}": {"log_loss": loss + 0.1 * i + noise[i] + own[i], "auc": 0.8, "accuracy": 0.8, "brier": 0.1}
                for i in range(3)
            }
            rows[name] = {"sites": sites, "bytes_up": 10.0, "seconds": 1.0}
            if name in validation:
                rows[name] |= {
                    "validation": validation[name],
                    "converged": 3,
                    "curve": [[1, 0.7], [2, 0.5], [3, 0.4]],
                }
        for name, row in rows.items():
            done[f"split-{number:02d}/{name}"] = {
                "methods": {name: row},
                "train": {f"site {i}": 70 for i in range(3)},
                "test": {f"site {i}": 30 for i in range(3)},
                "enough": {f"site {i}": True for i in range(3)},
            }
    return done


def judged(losses: dict[str, float], validation: dict[str, float], splits: int = 20) -> Any:
    done = steps_like(losses, validation, splits)
    return verdict(Splits.gather(done, "split-", 2), FEDERATED)


def test_who_is_ahead_by_more_than_the_margin_wins() -> None:
    ours = judged({OURS: 0.40, "fedavg": 0.43}, {"fedavg": 0.4})
    theirs = judged({OURS: 0.43, "fedavg": 0.40}, {"fedavg": 0.4})
    near = judged({OURS: 0.40, "fedavg": 0.405}, {"fedavg": 0.4})
    assert (ours.winner, theirs.winner, near.winner) == (Winner.OUTROUTE, Winner.FEDERATED, Winner.TIE)
    assert near.sure
    assert near.equal
    assert ours.lead == pytest.approx(0.03, abs=0.003)
    assert MARGIN == 0.01


def test_validation_and_not_the_test_chooses_who_stands_for_the_federated_side() -> None:
    losses = {OURS: 0.40, "fedavg": 0.44, "scaffold": 0.36, "pooled": 0.30}
    found = judged(losses, {"fedavg": 0.38, "scaffold": 0.39})
    assert found.strongest == "fedavg"
    assert found.winner is Winner.OUTROUTE
    other = judged(losses, {"fedavg": 0.39, "scaffold": 0.38})
    assert (other.strongest, other.winner) == ("scaffold", Winner.FEDERATED)


def test_one_split_or_no_opponent_decides_nothing() -> None:
    assert judged({OURS: 0.40, "fedavg": 0.60}, {"fedavg": 0.4}, splits=1).winner is Winner.TIE
    alone = judged({OURS: 0.40, "majority": 0.60}, {})
    assert (alone.winner, alone.strongest, alone.gap) == (Winner.TIE, None, None)


def plan(**options: Any) -> Plan:
    return Plan(dataset=table(150), repeats=20, **options)


def test_steps_are_unique_stable_and_end_in_whole_splits() -> None:
    keys = [step.key for step in WALL.steps(plan())]
    assert len(set(keys)) == len(keys)
    assert keys == [step.key for step in WALL.steps(plan())]
    assert keys[0] == "skew"
    assert sum(key.startswith("split-19/") for key in keys) == 2 + len(GROUPS)
    assert sum(key.startswith("divided-") for key in keys) == 5 * len(SWEEP)
    quick = [step.key for step in WALL.steps(plan(quick=True))]
    assert sum(key.startswith("split-") for key in quick) == QUICK_REPEATS * 5
    assert not any(key.startswith("divided-") for key in quick)
    assert all(step.cost > 0 for step in WALL.steps(plan()))


def test_divisions_are_the_users_where_they_are_asked_for() -> None:
    asked = plan(quick=True, divisions=("classes:1", "quantity:0.50", "quantity:0.5"))
    keys = [step.key for step in WALL.steps(asked) if step.key.startswith("divided-")]
    assert keys == [
        f"divided-{name}-{i:02d}/all" for name in ("classes-1", "quantity-0.5") for i in range(QUICK_REPEATS)
    ]
    done = steps_like({OURS: 0.40, "fedavg": 0.45}, {"fedavg": 0.4}, splits=3)
    done |= {key.replace("split-", "divided-quantity-0.5-"): of for key, of in done.items()}
    found = WALL.conclude(asked, done)
    part = found.parts[-1]
    assert {score.metric for score in part.scores} == {"as it is", "quantity:0.5"}
    assert "divided anew (quantity:0.5, 3 splits)" in found.change
    for text in ("classes:3", "classes:0", "classes:1.5", "dirichlet:inf", "dirichlet:nan", "dirichlet:", "natural"):
        with pytest.raises(DataError) as error:
            WALL.steps(plan(divisions=(text,)))
        assert error.value.code == "walls.partition"


def test_what_is_concluded_says_all_figures_and_losses_of_ours_stay() -> None:
    losses = {OURS: 0.43, "fedavg": 0.40, "scaffold": 0.41, "majority": 0.6, "pooled": 0.39}
    done = steps_like(losses, {"fedavg": 0.38, "scaffold": 0.39})
    done["skew"] = json.loads(json.dumps(skew(trial.prepare(table(150)), 0)))
    found = WALL.conclude(plan(), done)
    assert found.winner is Winner.FEDERATED
    assert found.verdict.startswith("Federated learning is better on these sites: FedAvg (Flower)")
    assert "+0.03" in found.verdict
    assert found.change.startswith("Outcome routing would have to gain 0.0")
    names = [score.method for score in found.scores if score.metric == "log-loss"]
    assert names == ["outcome routing", *(LABELS[name] for name in ("fedavg", "scaffold", "majority", "pooled"))]
    assert {s.method for s in found.scores if s.baseline} == {LABELS["majority"], LABELS["pooled"]}
    assert all(s.low is not None and s.low < s.value < s.high for s in found.scores if s.metric == "log-loss")
    worst = next(s for s in found.scores if s.metric == "log-loss, worst site" and s.ours)
    spread = next(s for s in found.scores if s.metric == "log-loss, best to worst" and s.ours)
    assert worst.value == pytest.approx(0.63, abs=0.01)
    assert spread.value == pytest.approx(0.2, abs=0.01)
    assert (worst.note, spread.note) == ("worst site: site 2", "")
    for score in (worst, spread):
        assert score.low is not None
        assert score.low < score.value < score.high
        assert 0.02 < score.high - score.low < 0.06  # by hand: 4.19 * 0.69 * 0.01, and root two times that
    rounds = next(s for s in found.scores if s.metric == "rounds to converge")
    assert (rounds.low, rounds.value, rounds.high) == (3.0, 3.0, 3.0)
    assert found.settings["strongest_by_validation"] == "fedavg"
    assert found.parts[0].title == "How the sites differ"
    assert [s.metric for s in found.parts[0].scores if s.method == "site 1"] == ["share of 'sick'"]
    curve = next(p for p in found.parts if p.title == "Rounds").figures[0].curves[0]
    assert (list(curve.x), list(curve.y)) == ([1, 2, 3], pytest.approx([0.7, 0.5, 0.4]))
    json.dumps(dict(found.settings), allow_nan=False)


def test_what_is_there_after_an_interruption_is_enough_for_a_verdict_that_says_so() -> None:
    done = steps_like({OURS: 0.40, "fedavg": 0.45}, {"fedavg": 0.4}, splits=4)
    done.pop("split-03/fedavg")
    found = WALL.conclude(plan(), done)
    assert "4 of 20 splits are done" in found.notes
    assert found.winner is Winner.OUTROUTE
    nothing = WALL.conclude(plan(), {"skew": skew(trial.prepare(table(150)), 0)})
    assert nothing.winner is Winner.TIE
    assert "Not enough is done" in nothing.verdict


def test_distances_between_sites_are_seen_and_chance_is_told() -> None:
    rng = np.random.default_rng(0)
    site = np.repeat(np.arange(4), 100)
    alike, apart = rng.integers(0, 2, 400), (site >= 2).astype(np.int64)
    assert label_distance(apart, site) == pytest.approx(0.5)
    assert label_distance(alike, site) < 0.08
    x = rng.random((400, 3))
    guess = site_auc(x, site, np.arange(400), 0)
    assert guess is not None
    assert 0.4 < guess < 0.6
    x[:, 0] += site
    known = site_auc(x, site, np.arange(400), 0)
    assert known is not None
    assert known > 0.9
    assert site_auc(x, np.zeros(400, dtype=np.int64), np.arange(400), 0) is None
    measured = skew(trial.prepare(table(150)), 0)
    assert measured["label_chance"] > 0
    assert measured["rows"] == {"site 0": 50, "site 1": 50, "site 2": 50}


def test_ours_and_baselines_run_as_steps_and_give_the_same_again() -> None:
    wall = NonIid(groups={}, baselines=("majority", "one_shot"), sweep=())
    small = replace(plan(), repeats=1)

    def once() -> dict[str, Any]:
        done = {step.key: json.loads(json.dumps(dict(step.run(lambda _: None)))) for step in wall.steps(small)}
        for found in done.values():
            for row in found.get("methods", {}).values():
                row.pop("seconds")
        return done

    done = once()
    assert list(done) == ["skew", "split-00/ours", "split-00/baselines"]
    assert done == once()
    found = wall.conclude(small, done)
    assert {s.method for s in found.scores} == {"outcome routing", LABELS["majority"], LABELS["one_shot"]}
    assert set(BASELINES) >= {"majority", "one_shot"}


def test_numbers_are_judged_by_r2_of_sites_with_enough_cases() -> None:
    data = table(150)
    value = data.columns["age"] / 2 + data.columns["crp"] / 10
    site = data.site.copy()
    site[:6] = "a tiny one"
    numeric = replace(
        data, outcome=value, site=site, schema=replace(data.schema, outcome=numeric_outcome("value", "-50", "150"))
    )
    wall = NonIid(groups={}, baselines=("majority", "one_shot", "pooled_site"), sweep=())
    two = Plan(dataset=numeric, repeats=2)
    done = {step.key: json.loads(json.dumps(plain(step.run(lambda _: None)))) for step in wall.steps(two)}
    found = wall.conclude(two, done)
    scores = {(s.method, s.metric): s for s in found.scores}
    assert not done["split-00/ours"]["enough"]["a tiny one"]
    ours, mean = scores["outcome routing", "R2"], scores[LABELS["majority"], "R2"]
    assert ours.higher_is_better
    assert ours.value is not None
    assert mean.value is not None
    assert ours.value > 0.8 > 0.1 > mean.value
    assert scores[LABELS["pooled_site"], "R2"].value == pytest.approx(1.0, abs=0.01)
    assert scores["outcome routing", "absolute error"].value < scores[LABELS["majority"], "absolute error"].value


def test_intervals_of_few_splits_are_cut_at_what_a_figure_can_be() -> None:
    wide = trial.difference([0.4, 1.0], metric="auc", margin=0.01, test_to_train=0.3)
    assert wide.low < 0 < 1 < wide.high
    assert _bounds(wide, *LIMITS["auc"]) == {"low": 0.0, "high": 1.0}
    assert _bounds(wide, *LIMITS["r2"]) == {"low": wide.low, "high": 1.0}
    assert _bounds(trial.difference([0.4], metric="auc", margin=0.01, test_to_train=0.3)) == {"low": None, "high": None}
    assert set(LIMITS) == set(HIGHER_IS_BETTER)
