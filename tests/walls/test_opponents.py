"""Federated opponents: each learns something real, everything follows from the seed, and FedMA does what it is for."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the extra 'walls' is not installed here")
pytest.importorskip("torch", reason="the extra 'walls' is not installed here")
pytest.importorskip("fluke", reason="fluke-fl is not installed here")
pytest.importorskip("xgboost", reason="the extra 'walls' is not installed here")

from outroute import datasets, trial
from outroute.datasets.declare import number, numeric_outcome, schema
from outroute.walls import Plan
from outroute.walls.noniid import NonIid
from outroute.walls.noniid_partitions import synthetic
from outroute.walls.opponents import (
    BASELINES,
    GROUPS,
    LABELS,
    NO_FORM,
    Recalibrated,
    Tuned,
    baselines,
    federations,
    nets,
)
from outroute.walls.opponents.learner import tune
from outroute.walls.opponents.sites import Federation, inner, inner_masks, site_loss, sites_of

from .making import table

NAMES = [name for group in GROUPS.values() for name in group]
PLAIN = [name for name in NAMES if not name.endswith("_recal")]


def fold_and_truth(data: datasets.Dataset) -> tuple[trial.Fold, dict[str, np.ndarray]]:
    prepared = trial.prepare(data)
    parts = trial.split(prepared.dataset.site, prepared.dataset.group, protocol=trial.Protocol.ROWS, repeat=0, seed=0)
    fold = trial.fold_of(prepared, parts, seed=0, protocol=trial.Protocol.ROWS)
    return fold, {site: prepared.y[rows] for site, rows in parts.test.items()}


@pytest.fixture(scope="module")
def heart() -> tuple[trial.Fold, dict[str, np.ndarray]]:
    if not os.environ.get("OUTROUTE_DATA"):
        pytest.skip("set OUTROUTE_DATA to the folder of real tables")
    return fold_and_truth(datasets.load("heart", k=5))


@pytest.fixture(scope="module")
def numbers() -> tuple[trial.Fold, dict[str, np.ndarray]]:
    data = table(240)
    rng = np.random.default_rng(0)
    value = data.columns["age"] / 2 + data.columns["crp"] / 10 + rng.normal(0, 3, len(data))
    made = replace(data, outcome=value, schema=replace(data.schema, outcome=numeric_outcome("value", "-50", "150")))
    return fold_and_truth(made)


def federation(name: str) -> Federation:
    return federations([name])[0].federation


def answers(fold: trial.Fold, name: str, seed: int = 1) -> dict[str, np.ndarray]:
    """The first setting, after the second number of rounds."""
    sites, made = sites_of(fold), federation(name)
    stages = list(made.fit(sites, made.settings(sites)[0], made.stages[1], seed))
    assert stages[-1].rounds == made.stages[1]
    assert stages[-1].bytes_up > 0
    return {site: stages[-1].model(site)(cases.x) for site, cases in fold.test.items()}


def test_every_method_has_a_name_for_people() -> None:
    assert set(LABELS) == {*NAMES, *BASELINES}
    for method in federations(NAMES):
        assert LABELS[method.name] == method.text


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "fedavg_dp"])  # what noise costs: below
def test_every_opponent_beats_the_majority_on_heart(heart: Any, name: str) -> None:
    fold, truth = heart
    said = answers(fold, name)
    fold.check(name, trial.Answer(predictions=said))
    if name == "xgb_bagging":  # its trees know nothing of a site's level: it beats the majority of all sites
        rate = np.concatenate([rows.y for rows in fold.train.values()]).mean()
        least = site_loss({s: np.tile([1 - rate, rate], (len(y), 1)) for s, y in truth.items()}, truth, 2)
    else:
        least = site_loss(dict(trial.majority()(fold).predictions), truth, 2)
    assert site_loss(said, truth, 2) < least - 0.02
    again = answers(fold, name)
    assert all((said[site] == again[site]).all() for site in said)


def test_flowers_privacy_of_whole_sites_is_noise_that_more_sites_average_out(heart: Any) -> None:
    fold, truth = heart
    noisy, plain = answers(fold, "fedavg_dp"), answers(fold, "fedavg")
    assert site_loss(noisy, truth, 2) > site_loss(plain, truth, 2) + 0.05
    assert all((of == noisy[site]).all() for site, of in answers(fold, "fedavg_dp").items())
    names = list(fold.train)
    crowd = {f"{name} {i}": fold.train[name] for i in range(30) for name in names}
    many = replace(fold, train=crowd, test={f"{name} 0": fold.test[name] for name in names})
    theirs = {f"{name} 0": of for name, of in truth.items()}
    assert site_loss(answers(many, "fedavg_dp"), theirs, 2) < site_loss(noisy, truth, 2) - 0.05


@pytest.mark.parametrize(
    "name", [name for name in PLAIN if name not in (*NO_FORM, "fedavg_dp") or name == "xgb_bagging"]
)
def test_numbers_are_learnt_too(numbers: Any, name: str) -> None:
    fold, truth = numbers
    assert site_loss(answers(fold, name), truth, 0) < 0.8  # 1 is the mean


def test_tuning_has_everybodys_budget_and_split(heart: Any) -> None:
    fold, _ = heart
    for made in federations(PLAIN):
        sites = inner(fold).sites
        assert len(made.federation.settings(sites)) * len(made.federation.stages) <= trial.TUNING_TRIALS
    train, valid = inner_masks(fold)
    for site, rows in fold.train.items():
        assert not (train[site] & valid[site]).any()
        assert (train[site] | valid[site]).sum() == len(rows)


class _Short:
    """One that tries two settings for two rounds."""

    def __init__(self, one: Federation) -> None:
        self.one, self.name, self.text, self.personal, self.stages = one, one.name, one.text, one.personal, (1, 3)
        self.fits = 0

    def settings(self, sites: Any) -> Any:
        return list(self.one.settings(sites))[:2]

    def fit(self, sites: Any, setting: Any, rounds: int, seed: int) -> Any:
        self.fits += 1
        return self.one.fit(sites, setting, rounds, seed)


def test_recalibration_shares_the_fit_and_helps_where_levels_differ(heart: Any) -> None:
    fold, truth = heart
    made = _Short(federation("fedavg"))
    plain, own = Tuned(made)(fold), Recalibrated(made)(fold)
    assert made.fits == 2 + 1 + 3 + 3  # two settings, one refit, and three each for cross-fitted predictions
    assert plain.details["chosen"] == own.details["chosen"]
    assert site_loss(dict(own.predictions), truth, 2) < site_loss(dict(plain.predictions), truth, 2)
    assert own.details["validation"] < plain.details["validation"]
    assert own.out["cleveland"].bytes_out > plain.out["cleveland"].bytes_out > 0
    chosen = tune(made, fold)
    assert [rounds for rounds, _ in chosen.curve] == [1, 2, 3]


def test_trees_of_one_client_are_xgboosts_own(numbers: Any) -> None:
    import xgboost

    fold, _ = numbers
    one = replace(fold, train={"site 0": fold.train["site 0"]}, test={"site 0": fold.test["site 0"]})
    sites = sites_of(one)
    setting = {"depth": 3, "eta": 0.3}
    stage = list(federation("xgb_bagging").fit(sites, setting, 6, 0))[-1]
    records = xgboost.DMatrix(sites.z["site 0"], label=sites.y["site 0"])
    options = {"max_depth": 3, "eta": 0.3, "base_score": 0.0, "tree_method": "hist", "nthread": 1}
    theirs = xgboost.train(options, records, 6).predict(xgboost.DMatrix(sites.scores(one.test["site 0"].x)))
    ours = (stage.shared(one.test["site 0"].x) - sites.centre) / sites.spread
    assert np.allclose(ours, theirs, atol=1e-5)


def test_several_classes_and_baselines() -> None:
    fold, _ = fold_and_truth(synthetic(0, 0, sites=3, seed=1, most_rows=80))
    for name in ("fedavg", "scaffold", "fedproto", "fedma"):
        said = answers(fold, name)
        fold.check(name, trial.Answer(predictions=said))
    for method in baselines(("majority", "pooled_site", "one_shot")):
        fold.check(method.name, method(fold))


def test_pictures_get_a_convolutional_network() -> None:
    from sklearn.datasets import load_digits

    from outroute.datasets import Dataset, GroupKind
    from outroute.schema import Outcome, OutcomeKind

    raw = load_digits()
    x, y = np.asarray(raw.data)[:400], np.asarray(raw.target)[:400]
    fields = tuple(number(f"p{i:02d}", "0", "16") for i in range(64))
    outcome = Outcome(name="digit", kind=OutcomeKind.CATEGORICAL, classes=tuple("0123456789"))
    data = Dataset(
        name="some digits",
        columns={field.name: x[:, i] for i, field in enumerate(fields)},
        outcome=np.array([str(v) for v in y], dtype=object),
        site=np.array([f"node {i % 2}" for i in range(len(y))], dtype=object),
        case=np.array([f"image {i}" for i in range(len(y))], dtype=object),
        group=None,
        group_kind=GroupKind.NONE,
        time=None,
        schema=schema("digits", fields, outcome, k=5, subject="image"),
        provenance="scikit-learn",
        licence="CC BY 4.0",
    )
    fold, truth = fold_and_truth(data)
    sites, made = sites_of(fold), federation("fedavg")
    assert sites.image == (8, 8)
    setting = next(s for s in made.settings(sites) if s["net"] == "cnn")
    stage = list(made.fit(sites, setting, 8, 0))[-1]
    right = [np.mean(stage.shared(fold.test[s].x).argmax(axis=1) == truth[s]) for s in truth]
    assert np.mean(right) > 0.7


def test_the_wall_runs_and_names_who_stands_for_the_federated_side() -> None:
    wall = NonIid(groups={"flower": ("fedavg", "fedavg_recal")}, baselines=("majority",), sweep=())
    plan = Plan(dataset=table(150), repeats=2)
    done = {step.key: json.loads(json.dumps(dict(step.run(lambda _: None)))) for step in wall.steps(plan)}
    found = wall.conclude(plan, done)
    assert found.settings["strongest_by_validation"] in ("fedavg", "fedavg_recal")
    assert LABELS[found.settings["strongest_by_validation"]] in found.verdict
    rounds = next(part for part in found.parts if part.title == "Rounds").figures[0].curves
    assert [curve.label for curve in rounds] == [LABELS["fedavg"]]
    assert len(rounds[0].x) == 30
    assert rounds[0].y[-1] < rounds[0].y[0]


@pytest.mark.parametrize("name", ["scaffold", "gossip", "fedavg"])
def test_ctrl_c_in_a_federation_is_not_taken_for_its_end(
    numbers: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold, _ = numbers
    sites, made, calls = sites_of(fold), federation(name), []
    real = nets.model_of

    def model_of(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(nets, "model_of", model_of)
    with pytest.raises(KeyboardInterrupt):
        list(made.fit(sites, made.settings(sites)[0], 12, 0))


def test_conditions_that_say_the_same_do_not_make_training_diverge() -> None:
    data = table(240)
    names = [f"copy {i}" for i in range(12)]
    copies = replace(
        data,
        columns=dict.fromkeys(names, data.columns["age"]),
        outcome=data.columns["age"] / 2,
        schema=schema(
            "copies",
            tuple(number(n, "0", "120") for n in names),
            numeric_outcome("y", "-50", "150"),
            k=5,
            subject="person",
        ),
    )
    fold, truth = fold_and_truth(copies)
    sites = sites_of(fold)
    assert nets.work_of(sites, "whole").lr < 0.05 < nets.WORK["whole"].lr
    for name in ("fedavg", "scaffold"):
        assert site_loss(answers(fold, name), truth, 0) < 0.3
