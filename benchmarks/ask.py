"""How long one question takes over many packets that are verified and local.

    python -m benchmarks.ask --packets 100000 --json

Makes signed packets of 50 authors, lets a node receive them (all checked, kept at the node), observe records of its
own and fit once, and then asks single questions. What is timed is `Node.ask` as a user calls it: encoding, cells,
calculations, interval, contributors. On a busy machine the wall-clock times are other programs' too; the processor
times (all threads of this process) are not.
"""

from __future__ import annotations

import argparse
import json
import time
from decimal import Decimal
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from outroute.identity import Identity
from outroute.node import Node
from outroute.packet import PacketArray, build, sign
from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    drawn_landmarks,
)

AUTHORS = 50
FIELDS_NUMERIC = 10
CATEGORIES = ("red", "green", "blue", "white")


def schema_of(landmarks: int) -> Schema:
    fields = (
        *(Field(name=f"x{i}", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(1)) for i in range(FIELDS_NUMERIC)),
        *(Field(name=f"c{i}", kind=FieldKind.CATEGORICAL, categories=CATEGORIES) for i in range(2)),
    )
    return Schema(
        name="ask benchmark",
        fields=fields,
        outcome=Outcome(name="bad", kind=OutcomeKind.BINARY, classes=("no", "yes")),
        privacy=Privacy(distiller=Distiller.COHORT, k=5),
        time=Time(bucket_seconds=86_400, lifetime_seconds=365 * 86_400),
        landmarks=drawn_landmarks(fields, landmarks),
    )


def cases_of(rng: np.random.Generator, n: int) -> dict[str, np.ndarray[Any, Any]]:
    cases: dict[str, Any] = {f"x{i}": rng.beta(2, 2, n) for i in range(FIELDS_NUMERIC)}
    return cases | {f"c{i}": rng.choice(CATEGORIES, n).astype(object) for i in range(2)}


def rate_of(cases: dict[str, Any]) -> np.ndarray[Any, Any]:
    score = 4 * (cases["x0"] - 0.5) + 3 * (cases["x1"] - 0.5) * (cases["c0"] == "red") + (cases["c1"] == "blue") - 1
    return np.asarray(1 / (1 + np.exp(-score.astype(np.float64))))


def packets_of(schema: Schema, author: int, n: int, now: int) -> PacketArray:
    from outroute.schema import encode

    rng = np.random.default_rng([7, author])
    cases = cases_of(rng, n)
    codes = encode(schema, cases).codes
    yes = rng.binomial(5, rate_of(cases))
    who = Identity(bytes([author]) * 32)
    made = build(
        schema,
        author=who.public_key,
        sequence=np.arange(n, dtype=np.uint64),
        codes=codes,
        size=np.full(n, 5),
        subjects=np.full(n, 5),
        bucket=np.full(n, schema.time.bucket(now)),
        distiller=Distiller.COHORT,
        counts=np.stack([5 - yes, yes], axis=1),
    )
    sign(made, who)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--own", type=int, default=2_000, help="own records of the asker")
    parser.add_argument("--landmarks", type=int, default=1024)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    now = int(time.time())
    schema = schema_of(args.landmarks)
    console = Console(stderr=True)
    seconds: dict[str, float] = {}

    def step(name: str, since: float) -> None:
        seconds[name] = time.perf_counter() - since
        console.print(f"{name}: {seconds[name]:.2f} s", style="dim")

    with Node(schema, clock=lambda: now) as node:
        made = np.concatenate([packets_of(schema, a, args.packets // AUTHORS, now) for a in range(1, AUTHORS + 1)])
        began = time.perf_counter()
        refused = node.receive(made)
        step("receive: check and keep", began)
        if refused:
            raise SystemExit(f"packets were refused: {refused}")
        rng = np.random.default_rng(1)
        own = cases_of(rng, args.own)
        late = np.where(rng.random(args.own) < rate_of(own), "yes", "no")
        node.observe(own | {"bad": late, "case": np.arange(args.own)}, case="case")
        asked = cases_of(rng, args.questions + 50)
        rows = [{name: values[i] for name, values in asked.items()} for i in range(args.questions + 50)]
        began = time.perf_counter()
        node.ask_many(asked)  # reads and fits
        step("first answers: read and fit", began)
        for row in rows[:50]:
            node.ask(row)
        fit_before = node._asker._fit
        times, busy = [], []
        if args.profile:
            import cProfile
            import pstats

            profile = cProfile.Profile()
            profile.enable()
        for row in rows[50:]:
            began, worked = time.perf_counter(), time.process_time()
            insight = node.ask(row)
            times.append(time.perf_counter() - began)
            busy.append(time.process_time() - worked)
        if args.profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        if node._asker._fit is not fit_before:
            raise SystemExit("the calculations were fitted again while questions were timed")
    p50, p90, p99 = (float(q) * 1000 for q in np.quantile(times, [0.5, 0.9, 0.99]))
    result = {
        "packets": len(made),
        "packets_known": insight.reach.packets,
        "own_records": args.own,
        "questions": len(times),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "worst_ms": max(times) * 1000,
        "cpu_p50_ms": float(np.quantile(busy, 0.5)) * 1000,
        "cpu_p99_ms": float(np.quantile(busy, 0.99)) * 1000,
        "calculations": {name: weight for name, (weight, _) in insight.calculations.items()},
        "seconds": seconds,
    }
    if args.json:
        print(json.dumps(result))
        return
    table = Table("", "value")
    for name, value in result.items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
