"""Nodes that lie, beside those that do not: what the lies cost the honest ones.

    OUTROUTE_DATA=... python -m benchmarks.byzantine heart [--attacks label-flip sybils] [--shares 0 10 50 90] [--json]
    OUTROUTE_DATA=... python -m benchmarks.byzantine digits --federated     (needs the extra `walls`)
    OUTROUTE_DATA=... python -m benchmarks.byzantine heart --power          (how many own outcomes does a region need?)
    OUTROUTE_DATA=... python -m benchmarks.byzantine heart --keep heart.jsonl   (may be stopped and called again)

Every site asks in turn; its peers are honest, and attackers stand beside them, so that they are a given share of all
peers (10 % of three honest peers is less than one attacker: the share that really stands there is printed). For each
attack and share: the score at the honest sites with elections, without any, of what the site says all by itself, and
of honest packets only (the oracle); and the attackers' share of the weight: of all observations that count, the part
that is theirs. With --federated the same attackers, with records like those that honest sites have, take part in
federated learning under Flower's robust rules and FLTrust, whose root set is the records of the site that asks.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._byzantine_tables import TABLES, Case, Table, case_of, cases, load, tables
from benchmarks.common import options, show
from outroute import trial
from outroute.simulation import ADVERSARIES, together
from outroute.walls.hostile_rows import Row, rows_of, rule_of, sides
from outroute.walls.hostile_scores import (
    Elections,
    Scored,
    alone,
    attacked,
    attackers,
    everybody,
    least_honest,
    ours,
    score,
    weight_share,
)

__all__ = [
    "SHARES",
    "TABLES",
    "Case",
    "Elections",
    "Scored",
    "Table",
    "alone",
    "attacked",
    "attackers",
    "case_of",
    "cases",
    "everybody",
    "least_honest",
    "load",
    "ours",
    "score",
    "tables",
    "weight_share",
]

SHARES = (0, 10, 30, 50, 70, 90)
"""Attackers among all peers, per cent."""
MARGIN = 0.01
"""Nats of log-loss by which an attack may cost, or a site alone do better; written down before any run."""
POWER = (0, 2, 5, 10, 20, 40)
"""Own outcomes left in the region, for the power curve."""


def power_of(case: Case, attacks: Sequence[str], share: int, elections: Elections) -> list[Row]:
    """Loss inside the region with and without attackers, by how many own outcomes the victim has there."""
    found: list[Row] = []
    inside = np.flatnonzero(case.region.contains(case.own.x))
    order = case.rng("own outcomes in the region").permutation(inside)
    for own in [n for n in POWER if n <= len(inside)] + [len(inside)]:
        kept = np.ones(case.own.n, dtype=bool)
        kept[order[own:]] = False
        thin = case.rows(kept)
        count = attackers(thin.peers, share / 100)
        one = {"repeat": case.repeat, "site": case.victim, "own": own if own in POWER else "all", "attackers": count}
        clean = {
            method: score(thin, thin.evidence, elections=rule).inside["log_loss"] for method, rule in sides(elections)
        }
        by_itself = alone(thin).inside["log_loss"]
        for name in attacks:
            for method, rule in sides(elections):
                hostile = attacked(thin, name, count, rule=rule_of(thin, rule))
                scored = score(thin, together(thin.evidence, hostile), elections=rule, hostile=hostile.nodes)
                found.append(
                    one
                    | {"attack": name, "method": method, "inside": scored.inside["log_loss"], "share": scored.share}
                    | {"attack-free": clean[method], "local": by_itself}
                )
    return found


def _power_summary(rows: Sequence[Row], test_to_train: float) -> dict[str, Any]:
    out: dict[str, Any] = defaultdict(dict)
    for name in dict.fromkeys(row["attack"] for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [row for row in rows if row["attack"] == name and row["method"] == method]
            out[name][method] = {
                str(own): {
                    "cases": len(part),
                    "log_loss": float(np.nanmean([row["inside"] for row in part])),
                    "over_attack_free": _gap(part, "attack-free", test_to_train),
                    "over_local": _gap(part, "local", test_to_train),
                    "share": float(np.mean([row["share"] for row in part])),
                }
                for own in [*POWER, "all"]
                if (part := [row for row in mine if row["own"] == own])
            }
    return dict(out)


def _gap(rows: Sequence[Row], other: str, test_to_train: float) -> dict[str, Any]:
    return _cost(rows, [row | {"inside": row[other]} for row in rows], test_to_train, "inside")


def summary(rows: Sequence[Row], shares: Sequence[int], test_to_train: float) -> dict[str, Any]:
    """By attack, share and method: means over sites and splits, and what the attack costs, paired by site and split."""
    place = {(r["repeat"], r["site"], r["attack"], r["attackers"], r["method"]): r for r in rows}
    methods = list(dict.fromkeys(r["method"] for r in rows))
    base = {m: [r for r in rows if r["method"] == m and not r["attackers"]] for m in methods}
    out: dict[str, Any] = {"attack-free": {m: _means(base[m]) for m in methods if base[m]}}
    for name in dict.fromkeys(r["attack"] for r in rows if r["attack"]):
        out[name] = {}
        for share in shares:
            if not share:
                continue
            at: dict[str, Any] = {}
            for method in methods:
                mine = [
                    r
                    for r in rows
                    if r["attack"] == name and r["method"] == method and r["attackers"] == _wanted(r, share)
                ]
                if not mine:
                    continue
                clean = [place[r["repeat"], r["site"], "", 0, method] for r in mine]
                local = [place.get((r["repeat"], r["site"], "", 0, "local")) for r in mine]
                at["attackers"] = float(np.mean([r["attackers"] for r in mine]))
                at["real_share"] = float(np.mean([r["attackers"] / (r["attackers"] + r["peers"]) for r in mine]))
                at[method] = _means(mine) | {
                    "over_attack_free": _cost(mine, clean, test_to_train),
                    "inside_over_attack_free": _cost(mine, clean, test_to_train, "inside"),
                    "over_local": _cost(mine, local, test_to_train) if all(local) else None,
                }
            out[name][str(share)] = at
    return out


def _wanted(row: Row, share: int) -> int:
    return attackers(row["peers"], share / 100)


def _means(rows: Sequence[Row]) -> dict[str, float]:
    out = {}
    for metric in ("log_loss", "accuracy", "auc", "inside", "share", "least"):
        values = np.array([row.get(metric, np.nan) for row in rows], dtype=np.float64)
        if np.isfinite(values).any():
            out[metric] = float(np.nanmean(values))
    if "least" in out:
        out["least_of_all"] = float(np.nanmin([row["least"] for row in rows]))
        matter = sum(row.get("matter", 0) for row in rows)
        if matter:
            out["below_half"] = sum(row["below"] for row in rows) / matter
    return out


def _cost(
    rows: Sequence[Row], others: Sequence[Row | None], test_to_train: float, what: str = "log_loss"
) -> dict[str, Any]:
    """Log-loss above that of `others`: mean over splits, interval, and what it says with the margin."""
    gaps: dict[int, list[float]] = defaultdict(list)
    for row, other in zip(rows, others, strict=True):
        assert other is not None
        gaps[row["repeat"]].append(row[what] - other[what])
    values = [float(np.nanmean(gap)) if np.isfinite(gap).any() else float("nan") for gap in gaps.values()]
    found = trial.difference(values, metric="log_loss", margin=MARGIN, test_to_train=test_to_train).to_json()
    return {name: found[name] for name in ("mean", "low", "high", "verdict")}


def few(case: Case, own: int | None) -> Case:
    """The victim with `own` of its records only, drawn at random; None: all."""
    if own is None or own >= case.own.n:
        return case
    kept = np.zeros(case.own.n, dtype=bool)
    kept[case.rng("few records").permutation(case.own.n)[:own]] = True
    return case.rows(kept)


def find(path: str) -> Elections:
    """The elections named `module:function`."""
    module, _, name = path.partition(":")
    found: Elections = getattr(importlib.import_module(module), name)
    return found


def _work(args: Any, repeat: int) -> list[Row]:
    elections = {"none": everybody, "ours": ours}.get(args.elections) or find(args.elections)
    found: list[Row] = []
    if args.federated and not args.power:
        from outroute.walls.hostile_federated import federated_rows

        for table in tables(args.name, 1, seed=args.seed, first=repeat):
            found += federated_rows(table, args.attacks, args.shares, victims=args.victims)
        return found
    for case in cases(args.name, 1, seed=args.seed, first=repeat, victims=args.victims):
        if args.power:
            found += power_of(case, args.attacks, args.shares[-1], elections)
        else:
            found += rows_of(few(case, args.own), args.attacks, args.shares, elections, one=args.one_organisation)
    print(f"repeat {repeat + 1} done", file=sys.stderr)
    return found


def _kept(path: Path | None) -> dict[int, list[Row]]:
    """Rows of the splits that a run before this one has finished, by number of the split."""
    if path is None or not path.exists():
        return {}
    return {int(one["repeat"]): one["rows"] for one in map(json.loads, path.read_text().splitlines())}


def _finished(path: Path | None, done: dict[int, list[Row]], repeat: int, rows: list[Row]) -> None:
    """Note a split, on disk too: a run that is stopped loses the split it is at, and no other."""
    done[repeat] = rows
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"repeat": repeat, "rows": rows}, default=float) + "\n")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("name", nargs="?", choices=TABLES, default="heart")
    parser.add_argument("--attacks", nargs="+", choices=sorted(ADVERSARIES), metavar="NAME", default=list(ADVERSARIES))
    parser.add_argument("--shares", nargs="+", type=int, default=list(SHARES), help="per cent of all peers")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--victims", type=int, help="this many sites ask in each split, taking turns; default all")
    parser.add_argument("--elections", default="ours", help="ours, none, or module:function")
    parser.add_argument("--federated", action="store_true", help="federated learning instead, attacked the same way")
    parser.add_argument("--power", action="store_true", help="by number of own outcomes in the region; last share only")
    parser.add_argument("--own", type=int, help="own records that the site asking has, at most; default all")
    parser.add_argument("--one-organisation", action="store_true", help="one organisation certifies all attackers")
    parser.add_argument("--jobs", type=int, default=1, help="splits side by side, in processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="keep finished splits here, and go on from those there"
    )
    args = parser.parse_args(arguments)
    if args.quick:
        args.repeats, args.victims, args.shares = 1, 1, args.shares[-1:]
    work = partial(_work, args)
    done = _kept(args.keep)
    missing = [repeat for repeat in range(args.repeats) if repeat not in done]
    if args.jobs > 1:
        with ProcessPoolExecutor(args.jobs) as pool:
            for repeat, part in zip(missing, pool.map(work, missing), strict=True):
                _finished(args.keep, done, repeat, part)
    else:
        for repeat in missing:
            _finished(args.keep, done, repeat, work(repeat))
    rows = [row for repeat in range(args.repeats) for row in done[repeat]]
    ratio = trial.TEST_SHARE / (1 - trial.TEST_SHARE)
    found: dict[str, Any] = {
        "table": args.name,
        "repeats": args.repeats,
        "elections": args.elections,
        "federated": args.federated,
        "margin": MARGIN,
        "results": _power_summary(rows, ratio) if args.power else summary(rows, args.shares, ratio),
    }
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
