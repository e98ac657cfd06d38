"""FLTrust by its published properties, and Flower's rules at work on clients that lie."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute import trial
from outroute.errors import DataError, MissingExtraError
from outroute.trial import fltrust
from outroute.trial.estimators import Layout
from outroute.trial.federated import federated
from outroute.trial.metrics import log_loss, r2
from outroute.trial.robust import ROOTED_ROUNDS, Client, Setting, predictions, robust, tuned
from outroute.trial.robust_rules import (
    FLOWER_RULES,
    Rule,
    flower,
    flower_functions,
    fltrust_rule,
    gaussian,
    idle,
    leaning,
    little_is_enough,
)

from .making import first_fold, make, truth

SETTING = Setting(strength=1.0, local_steps=5)


def mean_rule(number: int, shared: np.ndarray, sent: np.ndarray, rows: np.ndarray, root: np.ndarray) -> np.ndarray:
    return np.average(sent, axis=0, weights=rows).astype(np.float32)


def fitted(fold: trial.Fold, liars: list[Client], rule: Rule, root: str | None = None) -> float:
    """Log-loss over all sites."""
    honest = {site: Client(x=rows.x, y=rows.y) for site, rows in fold.train.items()}
    model = robust(
        [*honest.values(), *liars],
        rule,
        layout=Layout.of(fold.schema),
        classes=fold.classes,
        setting=SETTING,
        rng=np.random.default_rng(0),
        root=None if root is None else honest[root],
    )
    return float(np.mean([log_loss(y, model(fold.test[site].x)) for site, y in TRUTH.items()]))


DATA = make(sizes=(150, 150, 150, 150))
FOLD, PARTS = first_fold(DATA)
TRUTH = truth(DATA, PARTS)


def flippers(count: int) -> list[Client]:
    rows = list(FOLD.train.values())
    return [Client(x=rows[i % 4].x, y=1 - rows[i % 4].y, hostile=True) for i in range(count)]


vectors = st.lists(st.floats(-10, 10), min_size=6, max_size=6).map(np.array).filter(lambda v: np.linalg.norm(v) > 0.01)


@settings(max_examples=60, deadline=None)
@given(root=vectors, update=vectors, factor=st.floats(0.01, 1000))
def test_fltrust_scores_are_clipped_cosines(root: np.ndarray, update: np.ndarray, factor: float) -> None:
    cosine = float(root @ update / np.linalg.norm(root) / np.linalg.norm(update))
    score = fltrust.trust_scores(root, update[None])[0]
    assert score == pytest.approx(max(cosine, 0.0), abs=1e-9)
    # Length earns nothing, and the opposite of a trusted update is not trusted at all.
    assert fltrust.trust_scores(root, factor * update[None])[0] == pytest.approx(score, abs=1e-9)
    assert min(score, fltrust.trust_scores(root, -update[None])[0]) == 0.0


@settings(max_examples=60, deadline=None)
@given(root=vectors, updates=st.lists(vectors, min_size=1, max_size=6), factor=st.floats(0.01, 1000))
def test_fltrust_never_moves_further_than_its_own_records_would(
    root: np.ndarray, updates: list[np.ndarray], factor: float
) -> None:
    sent = np.array(updates)
    moved = fltrust.combine(root, sent)
    assert np.linalg.norm(moved) <= np.linalg.norm(root) * (1 + 1e-9)
    # Scaling an attack up changes nothing: every update is brought to the length of the server's.
    sent[0] *= factor
    assert np.allclose(fltrust.combine(root, sent), moved, atol=1e-9 * (1 + np.linalg.norm(root)))


def test_one_trusted_update_has_the_length_of_the_root_update() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 2))
    near = 100 * (root + 0.1 * rng.normal(size=root.shape))
    against = np.stack([-root, -50 * root])
    moved = fltrust.combine(root, np.stack([near, *against]))
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(root))
    assert np.allclose(moved / np.linalg.norm(moved), near / np.linalg.norm(near))


def test_where_nobody_is_trusted_nothing_changes() -> None:
    root = np.ones((3, 1))
    assert (fltrust.combine(root, np.stack([-root, np.zeros((3, 1))])) == 0).all()
    assert (fltrust.combine(np.zeros((3, 1)), np.stack([root])) == 0).all()


def test_fltrust_stands_nine_liars_in_ten_where_the_mean_does_not() -> None:
    clean = fitted(FOLD, [], mean_rule)
    site = next(iter(FOLD.train))
    assert fitted(FOLD, flippers(36), mean_rule) > clean + 0.3
    assert fitted(FOLD, flippers(36), fltrust_rule, root=site) < clean + 0.05


def test_with_the_mean_it_is_federated_averaging() -> None:
    ours = robust(
        [Client(x=rows.x, y=rows.y) for rows in FOLD.train.values()],
        mean_rule,
        layout=Layout.of(FOLD.schema),
        classes=2,
        setting=SETTING,
        rng=np.random.default_rng(0),
    )
    theirs = federated(
        {site: (rows.x, rows.y) for site, rows in FOLD.train.items()},
        layout=Layout.of(FOLD.schema),
        classes=2,
        strength=SETTING.strength,
        local_steps=SETTING.local_steps,
    ).model
    for cases in FOLD.test.values():
        assert np.allclose(ours(cases.x), theirs(cases.x), atol=1e-4)


def test_several_classes_and_clients_of_different_size() -> None:
    data = make(sizes=(200, 40, 90), outcome="categorical")
    fold, parts = first_fold(data)
    clients = {site: (rows.x, rows.y) for site, rows in fold.train.items()}
    layout = Layout.of(fold.schema)
    ours = robust(
        [Client(x=x, y=y) for x, y in clients.values()],
        mean_rule,
        layout=layout,
        classes=3,
        setting=SETTING,
        rng=np.random.default_rng(0),
    )
    theirs = federated(clients, layout=layout, classes=3, strength=1.0, local_steps=5).model
    for site, y in truth(data, parts).items():
        said = ours(fold.test[site].x)
        assert np.allclose(said.sum(axis=1), 1.0)
        assert np.allclose(said, theirs(fold.test[site].x), atol=1e-3)
        assert log_loss(y, said) < 0.9


def test_liars_send_what_their_papers_say() -> None:
    rng = np.random.default_rng(0)
    shared, mine = np.zeros((4, 1), np.float32), np.ones((4, 1), np.float32)
    honest = rng.normal(1.0, 0.2, (7, 4, 1)).astype(np.float32)
    assert idle(shared, mine, honest, rng) is shared
    sent = gaussian(shared, mine, honest, rng)
    assert np.linalg.norm(sent) == pytest.approx(10 * np.linalg.norm(mine), rel=1e-5)
    # 50 clients, 24 of them attackers: two honest ones must be outdone, so 24 of 26 may lie further in.
    for attackers, z in ((24, NormalDist().inv_cdf(24 / 26)), (40, 1.5), (1, 0.0)):
        sent = little_is_enough(50, attackers)(shared, mine, honest, rng)
        assert np.allclose((honest.mean(axis=0) - sent) / honest.std(axis=0), z, atol=1e-3)


def test_a_leaning_attacker_is_trusted_and_does_harm() -> None:
    rng = np.random.default_rng(0)
    shared = np.zeros((5, 1), np.float32)
    honest = (np.ones((4, 5, 1)) + 0.1 * rng.normal(size=(4, 5, 1))).astype(np.float32)
    mine = (-np.ones((5, 1)) + rng.normal(size=(5, 1))).astype(np.float32)
    sent = leaning(shared, mine, honest, rng)
    mean = honest.mean(axis=0)
    assert fltrust.trust_scores(mean, sent[None])[0] == pytest.approx(np.sqrt(0.5), abs=1e-5)
    assert np.linalg.norm(sent) == pytest.approx(np.linalg.norm(mean), rel=1e-5)
    assert fltrust.trust_scores(mean, mine[None])[0] == 0.0
    site = next(iter(FOLD.train))
    leaners = [replace(client, liar=leaning) for client in flippers(36)]
    assert fitted(FOLD, leaners, fltrust_rule, root=site) > fitted(FOLD, flippers(36), fltrust_rule, root=site)


def test_with_numbers_it_is_federated_averaging_too_and_the_rules_stand_where_the_mean_does_not() -> None:
    data = make(sizes=(150, 60, 150, 150), outcome="numeric")
    fold, parts = first_fold(data)
    honest = {site: Client(x=rows.x, y=rows.y) for site, rows in fold.train.items()}
    layout, y = Layout.of(fold.schema), truth(data, parts)

    def fit(clients: list[Client], rule: Rule, root: str | None = None) -> float:
        model = robust(
            clients,
            rule,
            layout=layout,
            classes=0,
            setting=SETTING,
            rng=np.random.default_rng(0),
            root=None if root is None else honest[root],
        )
        return float(np.mean([r2(seen, model(fold.test[site].x)) for site, seen in y.items()]))

    records = {site: (client.x, client.y) for site, client in honest.items()}
    plain = federated(records, layout=layout, classes=0, strength=1.0, local_steps=5).model
    theirs = float(np.mean([r2(seen, plain(fold.test[site].x)) for site, seen in y.items()]))
    clean = fit([*honest.values()], mean_rule)
    assert clean == pytest.approx(theirs, abs=1e-3)
    every = np.concatenate([client.y for client in honest.values()])
    mirrored = [replace(client, y=2 * every.mean() - client.y, hostile=True) for client in [*honest.values()] * 9]
    assert fit([*honest.values(), *mirrored], mean_rule) < 0
    assert fit([*honest.values(), *mirrored], fltrust_rule, next(iter(honest))) > clean - 0.1
    # Squared errors have no bound: random updates drive the mean away, and the last model before that is kept.
    wild = [replace(client, liar=gaussian) for client in mirrored]
    found = fit([*honest.values(), *wild], mean_rule)
    assert np.isfinite(found)
    assert found < 0


def test_no_honest_client_is_refused() -> None:
    layout = Layout.of(FOLD.schema)
    with pytest.raises(DataError) as caught:
        robust(flippers(2), mean_rule, layout=layout, classes=2, setting=SETTING, rng=np.random.default_rng(0))
    assert caught.value.code == "trial.robust"


def test_tuning_stays_within_the_budget_and_predictions_are_probabilities() -> None:
    site = next(iter(FOLD.train))
    tried: list[int] = []

    def counted(clients: int) -> Rule:
        tried.append(clients)
        return fltrust_rule

    chosen = tuned(FOLD, counted, root=site)
    assert len(tried) == trial.TUNING_TRIALS * 3
    assert chosen.local_steps in (2, 5)
    assert chosen.rounds in ROOTED_ROUNDS
    tried.clear()
    assert tuned(FOLD, lambda n: tried.append(n) or mean_rule).rounds == 60  # type: ignore[func-returns-value]
    assert len(tried) == trial.TUNING_TRIALS * 3
    found = predictions(FOLD, flippers(4), fltrust_rule, chosen, sites=[site], root=site)
    for part in found[site]:
        assert part.shape == (len(FOLD.test[site]), 2)
        assert np.allclose(part.sum(axis=1), 1.0)
        assert log_loss(TRUTH[site], part) < 0.6


def test_the_extra_is_named_where_flower_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.common", None)
    with pytest.raises(MissingExtraError) as caught:
        flower("krum", 4, 1)
    assert caught.value.code == "extra.walls"


class TestFlower:
    """With the extra `walls` only."""

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("flwr")

    def test_fedavg_is_the_mean_by_records(self) -> None:
        assert fitted(FOLD, [], flower("fedavg", 4, 0)) == pytest.approx(fitted(FOLD, [], mean_rule), abs=1e-4)

    @pytest.mark.parametrize("name", FLOWER_RULES)
    def test_every_rule_learns_where_nobody_lies(self, name: str) -> None:
        assert fitted(FOLD, [], flower(name, 4, 0)) < fitted(FOLD, [], mean_rule) + 0.1

    def test_krum_sends_on_one_clients_weights_and_multikrum_the_mean_of_those_kept(self) -> None:
        rng = np.random.default_rng(1)
        sent = np.concatenate([rng.normal(0, 0.1, (5, 3, 1)), rng.normal(9, 0.1, (2, 3, 1))]).astype(np.float32)
        rows = np.full(7, 10)
        shared = np.zeros((3, 1), np.float32)
        one = flower("krum", 7, 2)(1, shared, sent, rows, shared)
        assert any(np.array_equal(one, part) for part in sent[:5])
        kept = flower("multikrum", 7, 2)(1, shared, sent, rows, shared)
        assert np.allclose(kept, sent[:5].mean(axis=0), atol=1e-6)

    def test_median_and_trimmed_mean_leave_out_the_ends(self) -> None:
        sent = np.array([0.0, 1.0, 2.0, 3.0, 1000.0], np.float32).reshape(5, 1, 1)
        rows, shared = np.full(5, 10), np.zeros((1, 1), np.float32)
        assert flower("median", 5, 1)(1, shared, sent, rows, shared)[0, 0] == 2.0
        assert flower("trimmed", 5, 1)(1, shared, sent, rows, shared)[0, 0] == pytest.approx(2.0)

    @pytest.mark.parametrize("name", FLOWER_RULES)
    def test_no_rule_stands_a_majority_of_liars(self, name: str) -> None:
        assert fitted(FOLD, flippers(12), flower(name, 16, 12)) > fitted(FOLD, [], mean_rule) + 0.3


@pytest.mark.parametrize("name", [*FLOWER_RULES, "bulyan"])
@pytest.mark.parametrize("attackers", [0, 2])
def test_the_functions_behind_a_strategy_give_what_the_strategy_gives(name: str, attackers: int) -> None:
    pytest.importorskip("flwr", reason="the extra walls is not installed; scripts/test runs this where it is")
    rng = np.random.default_rng(3)
    clients = 11  # Bulyan wants 4 f + 3
    sent = rng.normal(size=(clients, 6, 2)).astype(np.float32)
    sent[:attackers] += 5
    rows = rng.integers(10, 90, clients)
    shared = np.zeros((6, 2), np.float32)
    found = [kind(name, clients, attackers)(1, shared, sent, rows, shared) for kind in (flower, flower_functions)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
