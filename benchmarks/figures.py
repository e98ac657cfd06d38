"""The figures that the documentation quotes: the trial of DESIGN section 10 on real tables.

    python -m benchmarks.figures heart              # four hospitals, 20 repeats, k = 5
    python -m benchmarks.figures flights --json
    python -m benchmarks.figures heart --variants   # k = 1, 3, 5, 10, 20 and streaming, against k = 5 in batch
    python -m benchmarks.figures flights --elections    # what the election of packets changes while everybody is honest

flights needs the extra `demo`; the others need OUTROUTE_DATA. Long: heart takes minutes, flights an hour.
With --save DIR the result is written there as JSON too.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from outroute import datasets, trial
from outroute.node.electing import Electing
from outroute.trial import report
from outroute.trial.routing import OutcomeRouting, pooled_same

SETS: dict[str, dict[str, Any]] = {
    "heart": {"k": 5},
    "flights": {"k": 5, "load": {"k": 1}},
    "beijing": {"k": 5, "load": {"every": 6}},
    "beijing-concurrent": {"k": 5, "load": {"every": 6, "concurrent": True}},
    "azpro": {"k": 5},
    "opt": {"k": 5},
}
"""One configuration of the method; what differs is how the table is loaded (flights are no persons: floor 1)."""

STRATA = {
    "over 10,000 rows": lambda rows: rows > 10_000,
    "under 1,000 rows": lambda rows: rows < 1_000,
    "under 500 rows": lambda rows: rows < 500,
}


def load(name: str, k: int) -> datasets.Dataset:
    options = {"k": k} | SETS[name].get("load", {})
    return datasets.load(name.split("-")[0], **options)


def strata(result: trial.Result) -> dict[str, Any]:
    """Differences over sites by size, where there are such sites."""
    out: dict[str, Any] = {}
    metric = "log_loss" if result.classes else "r2"
    for name, rule in STRATA.items():
        sites = [s for s in result.sites if rule(result.sizes[s].rows)]
        if not sites or len(sites) == len(result.sites):
            continue
        row: dict[str, Any] = {"sites": sites}
        for other in result.methods[1:]:
            d = result.difference(other, metric, sites)
            row[other] = {"mean": d.mean, "low": d.low, "high": d.high, "verdict": str(d.verdict.value)}
        out[name] = row
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(SETS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", action="store_true", help="other k, and streaming, instead of opponents")
    parser.add_argument(
        "--few", action="store_true", help="only majority, local and pooled (linear, boosting) as opponents"
    )
    parser.add_argument("--elections", action="store_true", help="against ours without electing packets")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    # A shell starts background jobs deaf to interrupts; here one keeps the finished repeats.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    k = int(SETS[args.name]["k"])
    data = load(args.name, 1 if args.variants else k)
    ours = OutcomeRouting(k=k)
    if args.variants:
        methods: list[Any] = [ours]
        methods += [OutcomeRouting(k=other, name=f"k{other}") for other in (1, 3, 10, 20)]
        methods += [OutcomeRouting(k=other, streaming=True, name=f"streaming_k{other}") for other in (3, 5, 10, 20)]
        methods.append(trial.local())
    elif args.elections:
        methods = [ours, OutcomeRouting(k=k, name="without_elections", electing=Electing(packets=False))]
    elif args.few:
        methods = [ours, trial.majority(), trial.local(), trial.pooled(), trial.pooled_boosting()]
        methods.append(trial.pooled_boosting_recal())
    else:
        methods = [ours, *trial.standard_opponents(), trial.pooled_same_estimator(pooled_same)]
    protocol = trial.Protocol.CONCURRENT if args.name.endswith("concurrent") else None
    started = time.monotonic()

    def progress(p: trial.Progress) -> None:
        print(f"{time.monotonic() - started:6.0f} s  repeat {p.repeat + 1}/{p.repeats} {p.method}", file=sys.stderr)

    result = trial.run(data, methods, repeats=args.repeats, seed=args.seed, protocol=protocol, progress=progress)
    found = result.to_json() | {"strata": strata(result), "k": k, "seconds_in_all": time.monotonic() - started}
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
        name = args.name + ("-variants" if args.variants else "-elections" if args.elections else "")
        (args.save / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    if args.json:
        print(json.dumps(found))
        return
    report.show(result, Console(width=150))
    print(json.dumps(found["strata"], indent=1))


if __name__ == "__main__":
    main()
