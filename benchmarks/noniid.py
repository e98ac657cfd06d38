"""Federated learning and outcome routing on sites that differ: the non-IID wall, on any table and any division.

    OUTROUTE_DATA=... python -m benchmarks.noniid heart --json              (needs the extra `walls`)
    OUTROUTE_DATA=... python -m benchmarks.noniid digits --partition classes:2 --clients 10 --json
    OUTROUTE_DATA=... python -m benchmarks.noniid flights --methods few --repeats 5 --keep flights.jsonl --json
    python -m benchmarks.noniid synthetic:1:1 --methods few --json

Tables: heart, opt, azpro, beijing, flights, digits (1,797 pictures, divided by --partition), synthetic:ALPHA:BETA.
Of flights every ninth day is taken, and of beijing every fourth week, at all sites, so that a split takes minutes.
Partitions: natural, iid, dirichlet:ALPHA, classes:COUNT, quantity:ALPHA. --methods few: FedAvg plain, recalibrated and
fine-tuned, SCAFFOLD and (for two classes or numbers) XGBoost bagging, and no artificial divisions.
With --keep every finished step is written there, and a run that was stopped goes on.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._byzantine_tables import digits
from benchmarks.common import options, show
from outroute import datasets
from outroute.datasets import Dataset
from outroute.walls import Plan
from outroute.walls.noniid import SWEEP, NonIid
from outroute.walls.noniid_partitions import Partition, partitioned, synthetic
from outroute.walls.opponents import BASELINES, GROUPS, QUICK
from outroute.walls.state import plain

FLIGHT_DAYS = 9
"""One day in so many."""
BEIJING_WEEKS = 4
"""One week in so many."""


def load(name: str) -> Dataset:
    """A table by its name, of the large ones a part."""
    if name == "digits":
        return digits(iid=True)
    if name.startswith("synthetic"):
        alpha, beta = (float(value) for value in name.split(":")[1:])
        return synthetic(alpha, beta)
    data = datasets.load(name, k=5)
    every = {"flights": FLIGHT_DAYS, "beijing": BEIJING_WEEKS}.get(name)
    if every is None:
        return data
    assert data.group is not None
    days = np.unique(data.group)[::every]
    kept = data.rows(np.isin(data.group, days))
    what = "day" if name == "flights" else "week"
    note = f"one {what} in {every} of the table: {len(kept):,} of {len(data):,} records"
    return Dataset(
        **{f: getattr(kept, f) for f in Dataset.__dataclass_fields__ if f != "notes"}, notes=(*kept.notes, note)
    )


def main(arguments: list[str]) -> None:
    parser = options(__doc__)
    parser.add_argument("table")
    parser.add_argument("--partition", default="natural")
    parser.add_argument("--clients", type=int, default=0, help="sites of an artificial division; default: as they are")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", choices=("all", "few"), default="all")
    parser.add_argument("--undivided", action="store_true", help="the sites as they are, and no divisions beside them")
    parser.add_argument("--keep", type=Path, help="finished steps, one a line")
    asked = parser.parse_args(arguments)
    data = load(asked.table)
    divided = asked.methods == "all" and asked.partition == "natural" and not asked.undivided
    sweep = SWEEP if divided else ()
    data = partitioned(data, Partition.parse(asked.partition, asked.clients), asked.seed)
    few = asked.methods == "few"
    wall = NonIid(groups=QUICK if few else GROUPS, baselines=BASELINES, sweep=sweep)
    plan = Plan(dataset=data, repeats=asked.repeats, seed=asked.seed, quick=asked.quick)
    done: dict[str, Any] = {}
    if asked.keep and asked.keep.exists():
        done = dict(json.loads(line) for line in asked.keep.read_text().splitlines())
    steps = wall.steps(plan)
    started = time.perf_counter()
    cpu = time.process_time()
    for number, step in enumerate(steps):
        if step.key in done:
            continue
        print(f"{number + 1} of {len(steps)}: {step.text}", file=sys.stderr, flush=True)
        # What is concluded from has always been through JSON, whether this run made it or an earlier one.
        done[step.key] = json.loads(json.dumps(plain(step.run(lambda _: None))))
        if asked.keep:
            with asked.keep.open("a") as file:
                file.write(json.dumps([step.key, done[step.key]]) + "\n")
    found = wall.conclude(plan, done)
    show(
        {
            "table": asked.table,
            "partition": asked.partition,
            "sites": len(data.sites),
            "rows": len(data),
            "repeats": asked.repeats,
            "seed": asked.seed,
            "methods": asked.methods,
            "undivided": asked.undivided,
            "rule": wall.rule,
            "verdict": found.verdict,
            "winner": found.winner.value,
            "change": found.change,
            "scores": [one.to_json() for one in found.scores],
            "parts": [
                {"title": p.title, "text": p.text, "scores": [one.to_json() for one in p.scores]} for p in found.parts
            ],
            "settings": dict(found.settings),
            "notes": [*data.notes, *found.notes],
            "seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        },
        asked.json,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
