"""Sizes, noise and dissent of cohorts against each other, by who is found in them and what packets alone are worth.

    OUTROUTE_DATA=... python -m benchmarks.choosing heart flights opt digits --json

Membership by likelihood ratios as in `benchmarks.audit`, and the difference in AUC to single records of one linear
model on the packets of all sites (nobody has own records; `benchmarks.cohorts` has both), paired by split, with
Nadeau-Bengio intervals. Is there a setting that leaks less than the advised one and is worth more, on every table? With
--save DIR each finished table is kept in DIR/choosing.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._byzantine_tables import load
from benchmarks.common import by_table, options, show
from outroute.audit import Emitter, cohorts, judge, membership_pairs
from outroute.audit.run import drawn
from outroute.audit.settings import ADVISED, Effort
from outroute.audit.utility import MARGIN, TEST_SHARE, packet_utility, utility_splits
from outroute.datasets.observations import observations_of
from outroute.distill import Agreement, Grouping
from outroute.trial.intervals import difference
from outroute.trial.parallel import single_threaded

TABLES = ("heart", "flights", "opt", "digits")
OTHERS = (
    (3, "0.2", 1),
    (3, "0.3", 1),
    (5, "0.1", 2),
    (5, "0.2", 2),
    (10, "0.05", 2),
    (10, "0.15", 2),
    (20, "0.05", 2),
    (20, "0.1", 2),
)
"""k, noise, dissent."""


def ways() -> dict[str, Emitter]:
    out = {ADVISED.name: ADVISED.emit}
    for k, noise, dissent in OTHERS:
        grouping = Grouping(agreement=Agreement.MERGE, dissent=dissent)
        out[f"cohorts of {k}, noise {noise}, dissent {dissent}"] = cohorts(k, grouping, noise=Decimal(noise))
    return out


def one(name: str, effort: Effort, seed: int) -> dict[str, Any]:
    data = load(name)
    sites = observations_of(data)
    used = drawn(sites, effort, seed)[0]
    worth = drawn(sites, replace(effort, subjects=effort.worth), seed)[0]
    splits = utility_splits(worth, np.random.default_rng([seed, 5]), effort.repeats)
    first = packet_utility(data.schema, splits, cohorts(1), np.random.default_rng(seed)).splits
    out: dict[str, Any] = {"shadows": effort.shadows, "repeats": effort.repeats, "margin": MARGIN, "settings": {}}
    for way, emit in ways().items():
        rng = np.random.default_rng([seed, 1])
        found = [membership_pairs(data.schema, rows, emit, rng, shadows=effort.shadows) for rows in used.values()]
        judged = judge([pairs for pairs in found if pairs is not None], rng)
        assert judged is not None
        made = packet_utility(data.schema, splits, emit, rng)
        gaps = [a - b for a, b in zip(made.splits, first, strict=True)]
        less = difference(gaps, metric="auc", margin=MARGIN, test_to_train=TEST_SHARE / (1 - TEST_SHARE))
        out["settings"][way] = {
            "membership_auc": judged.ratio.auc.to_json(),
            "auc": made.auc,
            "auc_minus_single_records": less.to_json(),
        }
        print(f"{name}: {way}", file=sys.stderr, flush=True)
    return out


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", choices=[*TABLES, []], default=list(TABLES))
    parser.add_argument("--shadows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    shadows, repeats = (8, 2) if args.quick else (args.shadows, args.repeats)
    effort = Effort(shadows=shadows, subjects=120, sites=4, worth=500, repeats=repeats)
    save = args.save / "choosing.json" if args.save else None
    with single_threaded():
        found = by_table(args.names or TABLES, lambda name: one(name, effort, args.seed), save)
    show(found, args.json)


if __name__ == "__main__":
    main()
