"""The attackers of a trial as clients of federated learning: the same lies, told through records and updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute import trial
from outroute.simulation import ADVERSARIES, attack
from outroute.synthesis import Evidence
from outroute.trial import Method
from outroute.trial.robust import Client, Setting, predictions, validated
from outroute.trial.robust_rules import (
    FLOWER_RULES,
    Liar,
    Rule,
    flower_functions,
    fltrust_rule,
    gaussian,
    idle,
    leaning,
    little_is_enough,
)
from outroute.walls.hostile_cases import Case, Table, case_of, victims_of
from outroute.walls.hostile_scores import attackers, figures, judged

__all__ = ["SYBIL_CLIENTS", "baseline_rows", "federated_rows", "hostile_clients", "records_as_packets"]

SYBIL_CLIENTS = 60
"""Sybils as clients: Krum compares all pairs in every round, and with 300 it takes minutes for one model."""


def records_as_packets(fold: trial.Fold, classes: int) -> Evidence:
    """All honest training records, one packet each: what attackers' records are made like; classes 0 for numbers."""
    x = np.concatenate([rows.x for rows in fold.train.values()])
    y = np.concatenate([rows.y for rows in fold.train.values()])
    time = [np.zeros(len(r), np.int64) if r.time is None else r.time - r.time % 86_400 for r in fold.train.values()]
    return Evidence(
        x=x,
        node=np.repeat(np.arange(len(fold.train)), [len(rows) for rows in fold.train.values()]),
        nodes=tuple(site.encode() for site in fold.train),
        size=np.ones(len(y)),
        counts=np.eye(classes)[y.astype(np.int64)] if classes else None,
        mean=None if classes else y,
        variance=None if classes else np.zeros(len(y)),
        bucket=np.concatenate(time),
        cell=np.zeros(len(y), dtype=np.int64),
    )


def hostile_clients(case: Case, name: str, count: int, clients: int, *, rooted: bool = False) -> list[Client]:
    """`count` attackers with the same attack as on packets, and with what can be done on updates beside it.

    On updates: random sends random ones, the free-rider sends back what it got, and the adaptive attacker, whose
    records are flipped, does what suits the rule: it hides among the honest (A Little Is Enough) or, if the server has
    records of its own (`rooted`), leans as far from them as pays.
    """
    read = records_as_packets(case.split.fold, case.classes)
    rng = case.rng(f"clients {name} {count}")
    made = attack("label-flip" if name == "adaptive" else name, read, count, rng, region=case.region)
    if name == "sybils":
        made = made.take(np.flatnonzero(made.node < max(count, SYBIL_CLIENTS)))
    liars: dict[str, Liar] = {
        "random": gaussian,
        "free-rider": idle,
        "adaptive": leaning if rooted else little_is_enough(clients + count, count),
    }
    y = made.mean if made.counts is None else made.counts.argmax(axis=1).astype(np.float64)
    assert y is not None
    told = (made.size if made.counts is None else made.counts.sum(axis=1)) > 0
    if made.weight is not None:
        told &= made.weight > 0
    return [
        Client(x=made.x[mine], y=y[mine], hostile=True, liar=liars.get(name))
        for i in np.unique(made.node)
        if (mine := (made.node == i) & told).any()
    ]


def federated_rows(
    table: Table,
    attacks: Sequence[str],
    shares: Sequence[int],
    *,
    victims: int | None = None,
    rules: Sequence[str] = FLOWER_RULES,
    make: Callable[[str, int, int], Rule] = flower_functions,
) -> list[dict[str, Any]]:
    """All rules under all attacks on one split, as rows like those of the trial with packets.

    Args:
        table: the split.
        attacks: names of adversaries.
        shares: attackers among all peers, per cent.
        victims: this many sites ask; None: all.
        make: (name, clients, attackers) -> the rule; the functions behind Flower's strategies give what these give.
        rules: of Flower; FLTrust is always there. Bulyan has no row where it is not defined (n < 4 f + 3).

    Of numbers, a row also keeps the rule's validation loss at the site, nobody lying and as it is, in variances of the
    site's outcomes.
    """
    fold = table.fold
    sites = victims_of(table, victims)
    present = sum(len(rows) > 0 for rows in fold.train.values())
    settings: dict[str, Setting] = {}
    held_out: dict[tuple[str, str], float] = {}

    def tune(name: str, rule: Callable[[int], Rule], root: str | None = None) -> None:
        key = name if root is None else f"{name} {root}"
        settings[key], losses = validated(fold, rule, root=root)
        for site, value in losses.items():
            held_out[name, site] = value / (float(fold.train[site].y.var()) or 1.0)

    for name in rules:
        tune(name, lambda n, name=name: make(name, n, 0))  # type: ignore[misc]
    for site in sites:
        tune("fltrust", lambda n: fltrust_rule, site)
    cases = {site: case_of(table, site) for site in sites}
    found: list[dict[str, Any]] = []

    def keep(name: str, count: int, method: str, of: Any) -> None:
        for site, (plain, recalibrated) in of.items():
            for label, predicted in ((method, plain), (f"{method} recalibrated", recalibrated)):
                row = _row(cases[site], name, count, label, predicted)
                if not fold.classes:
                    row["validation"] = held_out.get((method, site))
                found.append(row)

    def everything(name: str, count: int) -> None:
        # A backdoor aims at one site's region; all rules but FLTrust serve all sites with one model.
        aimed = bool(name) and ADVERSARIES[name].aimed
        for asked in [[site] for site in sites] if aimed else [sites]:
            liars = hostile_clients(cases[asked[0]], name, count, present) if count else []
            n = present + len(liars)
            for rule in rules:
                if rule == "bulyan" and n < 4 * len(liars) + 3:
                    continue
                made = make(rule, n, len(liars))
                keep(name, count, rule, predictions(fold, liars, made, settings[rule], sites=asked))
            if name == "adaptive":
                liars = hostile_clients(cases[asked[0]], name, count, present, rooted=True)
            for site in asked:
                mine = settings[f"fltrust {site}"]
                keep(name, count, "fltrust", predictions(fold, liars, fltrust_rule, mine, sites=[site], root=site))

    everything("", 0)
    for name in attacks:
        for count in sorted({attackers(present - 1, share / 100) for share in shares} - {0}):
            everything(name, count)
    return found


def baseline_rows(table: Table, methods: Sequence[Method], *, victims: int | None = None) -> list[dict[str, Any]]:
    """Baselines with nobody lying, as rows like the others."""
    found = []
    for method in methods:
        said = method(table.fold).predictions
        found += [_row(case_of(table, site), "", 0, method.name, said[site]) for site in victims_of(table, victims)]
    return found


def _row(case: Case, name: str, count: int, method: str, predicted: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "repeat": case.repeat,
        "site": case.victim,
        "attack": name,
        "attackers": count,
        "peers": case.peers,
        "method": method,
        **figures(case, *judged(case, predicted)),
    }
