"""The trial with attackers: who is counted, what is weighed, and that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks._byzantine_tables import CLASSES_EACH, CLIENTS, digits

from benchmarks import breakdown, byzantine
from outroute.schema import Schema
from outroute.simulation import ADVERSARIES, together
from outroute.synthesis import Evidence, Records
from outroute.walls.hostile_federated import hostile_clients, records_as_packets
from outroute.walls.hostile_scores import honest_parts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def case() -> byzantine.Case:
    """The first victim among the digits, which come with scikit-learn."""
    return next(iter(byzantine.cases("digits", 1)))


def run(*options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.byzantine", *options, "--quick", "--json"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("honest", "share", "count"), [(3, 0.0, 0), (3, 0.1, 1), (3, 0.5, 3), (3, 0.9, 27), (9, 0.1, 1), (15, 0.7, 35)]
)
def test_attackers_are_the_share_of_all_peers(honest: int, share: float, count: int) -> None:
    assert byzantine.attackers(honest, share) == count


def test_digits_differ_between_nodes_unless_they_are_spread() -> None:
    skewed, spread = digits(), digits(iid=True)
    for data, most, least in ((skewed, CLASSES_EACH, CLASSES_EACH), (spread, 10, 10)):
        seen = [len(set(data.outcome[data.site == site].tolist())) for site in data.sites]
        assert (len(seen), max(seen), min(seen)) == (CLIENTS, most, least)
    assert min((skewed.site == site).sum() for site in skewed.sites) > 150


def test_a_case_keeps_what_the_victim_keeps(case: byzantine.Case) -> None:
    assert case.peers == CLIENTS - 1
    assert not set(case.published.nodes) & set(case.evidence.nodes)
    assert case.read.n == case.evidence.n + case.published.n
    # A fifth of the questions lie in the region.
    assert case.region.contains(case.x).mean() == pytest.approx(0.2, abs=0.05)
    thin = byzantine.few(case, 20)
    assert (thin.own.n, thin.evidence.n) == (20, case.evidence.n)
    assert np.array_equal(byzantine.few(case, 20).own.x, thin.own.x)
    assert byzantine.few(case, None).own.n == case.own.n


def test_weights_are_counted_by_observations(case: byzantine.Case) -> None:
    hostile = byzantine.attacked(case, "label-flip", 3)
    everything = together(case.evidence, hostile)
    plain = hostile.size.sum() / everything.size.sum()
    assert byzantine.weight_share(everything, hostile.nodes) == pytest.approx(plain)
    weight = np.ones(everything.n)
    weight[case.evidence.n :] = 0.0
    assert byzantine.weight_share(replace(everything, weight=weight), hostile.nodes) == 0.0
    assert byzantine.weight_share(replace(everything, weight=1 - weight), hostile.nodes) == 1.0
    assert byzantine.attacked(case, "label-flip", 0).n == 0


def test_the_least_that_an_honest_node_keeps(case: byzantine.Case) -> None:
    hostile = byzantine.attacked(case, "random", 5)
    everything = together(case.evidence, hostile)
    assert byzantine.least_honest(case, everything, hostile.nodes) == pytest.approx(1.0)
    # Attackers' weights have no part in it; one honest node that is silenced has.
    near = int(np.bincount(case.evidence.node, minlength=9).argmax())
    weight = np.where(everything.node < 9, 1.0, 0.0)
    assert byzantine.least_honest(case, replace(everything, weight=weight), hostile.nodes) == pytest.approx(1.0)
    for node in range(9):
        low = np.where(everything.node == node, 0.25, 1.0)
        found = byzantine.least_honest(case, replace(everything, weight=low), hostile.nodes)
        assert 0.25 <= found <= 1.0
        if node == near:
            assert found < 1.0
    assert byzantine.least_honest(case, replace(everything, weight=np.zeros(everything.n)), hostile.nodes) == 0.0
    scored = byzantine.score(case, everything, hostile=hostile.nodes)
    assert scored.matter == len(honest_parts(case, everything, hostile.nodes))
    assert scored.below == 0


def test_elections_are_told_of_organisations_only_if_they_ask(case: byzantine.Case) -> None:
    hostile = byzantine.attacked(case, "random", 4)
    told: list[np.ndarray | None] = []

    def asking(
        schema: Schema,
        evidence: Evidence,
        own: Records,
        rng: np.random.Generator,
        organisation: np.ndarray | None = None,
    ) -> Evidence:
        told.append(organisation)
        return evidence.take(np.zeros(0, dtype=np.int64))

    everything = together(case.evidence, hostile)
    byzantine.score(case, everything, elections=asking, hostile=hostile.nodes)
    byzantine.score(case, everything, elections=asking, hostile=hostile.nodes, one_organisation=True)
    assert told[0] is None
    assert told[1] is not None
    assert len(set(told[1][:9].tolist())) == 9
    assert len(set(told[1][9:].tolist())) == 1


def test_every_attack_makes_clients_too(case: byzantine.Case) -> None:
    read = records_as_packets(case.split.fold, case.classes)
    assert read.n == sum(len(rows) for rows in case.split.fold.train.values())
    for name in ADVERSARIES:
        clients = hostile_clients(case, name, 2, CLIENTS)
        assert all(client.hostile and len(client.y) for client in clients)
        assert len(clients) == (60 if name == "sybils" else 2)
        assert all(((client.y >= 0) & (client.y < 10)).all() for client in clients)


def test_rows_sum_up_to_what_an_attack_costs() -> None:
    rows = [
        {"repeat": r, "site": s, "attack": a, "attackers": n, "peers": 3, "method": m, "log_loss": base + n / 100}
        | {"accuracy": 0.5, "auc": float("nan"), "inside": base, "share": n / (n + 3), "least": 1.0}
        for r, base in enumerate((0.3, 0.4))
        for s in ("x", "y")
        for a, n in (("", 0), ("random", 3), ("random", 27))
        for m in ("local", "no election")
        if m != "local" or not n
    ]
    found = byzantine.summary(rows, (0, 50, 90), 3 / 7)
    assert found["attack-free"]["local"]["log_loss"] == pytest.approx(0.35)
    for share, cost in (("50", 0.03), ("90", 0.27)):
        at = found["random"][share]
        assert at["no election"]["over_attack_free"]["mean"] == pytest.approx(cost)
        assert at["no election"]["over_local"]["mean"] == pytest.approx(cost)
        assert at["no election"]["over_attack_free"]["verdict"] == "worse"
        assert at["real_share"] == pytest.approx(at["no election"]["share"])
        assert "auc" not in at["no election"]


def test_it_runs_on_digits() -> None:
    found = run("digits", "--attacks", "label-flip", "--shares", "0", "50")
    at = found["results"]["label-flip"]["50"]
    assert at["attackers"] == 9
    assert {"no election", "elections", "attackers", "real_share"} <= set(at)
    assert {"log_loss", "share", "least", "over_attack_free", "over_local"} <= set(at["elections"])
    assert {"local", "no election", "elections"} == set(found["results"]["attack-free"])


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    how = ("digits", "--attacks", "label-flip", "--shares", "0", "50")
    first = run(*how, "--keep", str(kept))
    assert len(kept.read_text().splitlines()) == 1
    kept.write_text(kept.read_text().replace('"own_inside"', '"seen_before"'))
    again = run(*how, "--keep", str(kept))
    assert again == first
    assert kept.read_text().count("seen_before") > 0
    assert len(kept.read_text().splitlines()) == 1  # nothing was worked out anew


def test_the_power_curve_runs_on_digits() -> None:
    found = run("digits", "--power", "--attacks", "backdoor", "--shares", "50", "--elections", "none")
    curve = found["results"]["backdoor"]["no election"]
    assert {"0", "2", "all"} <= set(curve)
    assert {"log_loss", "over_attack_free", "over_local", "share"} <= set(curve["0"])


def test_the_consensus_breaks_down_where_liars_are_most(case: byzantine.Case) -> None:
    """Made-up organisations: what liars weigh grows with their number, unless one organisation or group holds them."""
    found = breakdown.summary(breakdown.rows_of(case, (30, 70)))
    assert set(found) == set(breakdown.arrangements([], []))
    flip = {name: by["label-flip"] for name, by in found.items()}
    assert flip["each its own organisation"]["70"]["units"] == pytest.approx(0.7)
    for name in ("liars of one organisation", "one organisation, liars of one group"):
        assert flip[name]["70"]["weight"] <= flip["each its own organisation"]["70"]["weight"]
        assert flip[name]["70"]["units"] == pytest.approx(0.1)
    assert flip["one organisation, liars of one group"]["70"]["anchors"] == ["groups"]
    assert flip["one organisation, no groups"]["70"]["anchors"] == ["nothing"]


def test_federated_learning_under_attack_runs() -> None:
    pytest.importorskip("flwr")
    if "OUTROUTE_DATA" not in os.environ:
        pytest.skip("set OUTROUTE_DATA")
    found = run("heart", "--federated", "--attacks", "label-flip", "--shares", "90")
    at = found["results"]["label-flip"]["90"]
    assert {"fedavg", "krum", "multikrum", "median", "trimmed", "fltrust", "fltrust recalibrated"} <= set(at)
