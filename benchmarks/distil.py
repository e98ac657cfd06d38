"""What condensing costs and keeps: batch against streaming, at k = 1, 3, 5, 10 and 20.

    OUTROUTE_DATA=... python -m benchmarks.distil --json

On the four hospitals: squared error inside cohorts as a share of that around the site's mean, what stays at home, and
the AUC of a logistic regression on the cohorts of the three other hospitals, tested on the fourth. Then how long the
largest airline takes (extra `demo`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import options, show
from outroute import datasets
from outroute.datasets.observations import observations_of
from outroute.distill import Cohorts, Observations, distil, distil_single, distil_waiting
from outroute.distill.measure import compare
from outroute.schema import Schema, unit_scale

KS = (3, 5, 10, 20)
SHARE = 0.7
"""Part of a site's rows that each repeat draws."""
METHODS = ("batch", "batch, merged", "streaming", "streaming, merged", "at random")


def scorer_of(schema: Schema) -> Any:
    """AUC of a regression on others' cohorts (class counts as weighted rows) at a site."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    def filled(x: Any, middle: Any) -> Any:
        return np.hstack([np.where(np.isnan(x), middle, x), np.isnan(x)])

    def score(cohorts: Sequence[Cohorts], site: Observations) -> float:
        x = unit_scale(schema, np.concatenate([c.codes for c in cohorts]))
        counts = np.concatenate([c.counts for c in cohorts if c.counts is not None]).astype(np.float64)
        present = ~np.isnan(x)
        middle = np.where(present, x, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
        rows = filled(x, middle)
        model = LogisticRegression(max_iter=2000).fit(
            np.vstack([rows, rows]), np.repeat([0, 1], len(rows)), sample_weight=np.concatenate(counts.T)
        )
        asked = filled(unit_scale(schema, site.codes), middle)
        return float(roc_auc_score(site.outcome, model.predict_proba(asked)[:, 1]))

    return score


def hospitals(repeats: int, ks: Sequence[int]) -> list[dict[str, Any]]:
    data = datasets.load("heart", k=3)
    schema, sites = data.schema, observations_of(data)
    score = scorer_of(schema)
    figures = compare(
        schema,
        sites,
        ks=ks,
        rng=np.random.default_rng(0),
        methods=METHODS,
        repeats=repeats,
        share=SHARE,
        scorer=score,
        clock=time.thread_time,
    )
    # k = 1 is another distiller: every record is a packet, nothing is lost and nothing is private.
    single = datasets.load("heart", k=1).schema
    rng = np.random.default_rng(1)
    aucs, numbers, spent = [], [], 0.0
    for _ in range(repeats):
        drawn = {
            s: rows.take(np.sort(rng.permutation(len(rows))[: round(SHARE * len(rows))])) for s, rows in sites.items()
        }
        started = time.thread_time()
        made = {site: distil_single(single, rows).cohorts for site, rows in drawn.items()}
        spent += time.thread_time() - started
        aucs += [score([c for s, c in made.items() if s != site], sites[site]) for site in sites]
        numbers.append(sum(len(c) for c in made.values()))
    one = {"method": "single", "k": 1, "loss": 0.0, "score": float(np.mean(aucs)), "agreeing": 1.0, "withheld": 0.0}
    one |= {"cohorts": float(np.mean(numbers)), "seconds": spent / repeats / len(sites)}
    return [one, *(dataclasses.asdict(f) for f in figures)]


def airline(most: int | None) -> dict[str, Any]:
    data = datasets.load("flights", k=5)
    sites = observations_of(data)
    name = max(sites, key=lambda site: len(sites[site]))
    rows = sites[name]
    if most is not None:
        rows = rows.take(np.arange(min(most, len(rows))))
    out: dict[str, Any] = {"airline": name, "rows": len(rows)}
    now = int(rows.bucket.max()) + 86_400
    for way, work in (
        ("batch", lambda: distil(data.schema, rows, k=5)),
        ("streaming, in one call", lambda: distil_waiting(data.schema, rows, now=now, k=5)),
    ):
        started = time.process_time()
        made = work()
        spent = time.process_time() - started
        out[way] = {
            "cpu_seconds": spent,
            "rows_per_cpu_second": len(rows) / spent,
            "packets": len(made.cohorts),
            "withheld": len(rows) - len(made.cohorts.rows),
        }
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args(arguments)
    found: dict[str, Any] = {
        "hospitals": hospitals(1 if args.quick else args.repeats, (5,) if args.quick else KS),
        "airline": airline(2_000 if args.quick else None),
    }
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
