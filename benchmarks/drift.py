"""Outcomes that change over time: learn from the past, be asked about what comes next, period by period.

    OUTROUTE_DATA=... python -m benchmarks.drift flights|beijing --json

Every site distils what it saw at the end of each period (a month of flights, a quarter of air quality); nothing is
regrouped later. At the start of a period each site is asked about every case of that period, knowing peers' packets
and its own records of the periods before and nothing else. The sides differ only in what they let count:

    none       everything ever seen, alike
    window:D   packets and own records of the last D days, alike (a sliding window)
    ageing     a half-life elected on own outcomes (`outroute.elections.ageing`), or none
    survive    packets compete within their neighbourhood (`outroute.elections.survive`)
    ours       both

Calculations are the kernel and the regressions; `--boosting` adds the boosted ones, which takes ten times as long.
The fixed window was written down before the first run; the best window is chosen in hindsight, which no site could.
Differences are paired by site and period, averaged over sites, and their interval (Student's t, 95 %) takes periods as
blocks: rows of one period are not independent, periods nearly are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import options, show
from benchmarks.coverage import evidence, joined
from outroute import datasets
from outroute.datasets import Dataset
from outroute.datasets.observations import observations_of
from outroute.distill import Observations
from outroute.elections import elect
from outroute.elections.ageing import ageing
from outroute.elections.survive import survive
from outroute.node.threads import single_threaded
from outroute.schema import Schema, unit_scale
from outroute.synthesis import Evidence, Records, Settings, fit
from outroute.trial.metrics import auc, log_loss, mae, r2

DAY = 86_400
PLAIN = Settings(calculations=("kernel", "regression", "adjusted", "local"))
"""Calculations that fit in a tenth of a second."""
ASKED_LEAST = 20
"""Cases of a site in a period below which its figure is left out: it would be noise with the weight of a site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one table is asked about.

    Attributes:
        options: how it is loaded.
        share: part of its rows that is used, drawn at random, for time.
        months: length of a period.
        first: first period asked about.
        windows: days, of sliding windows.
        fixed: the one of them written down beforehand.
    """

    options: dict[str, Any]
    share: float
    months: int
    first: int
    windows: tuple[int, ...]
    fixed: int


SETTINGS = {
    "flights": Setting(options={}, share=0.15, months=1, first=4, windows=(31, 61, 92, 184), fixed=92),
    "beijing": Setting(options={"every": 24}, share=1.0, months=3, first=4, windows=(92, 184, 365, 730), fixed=365),
}


def periods(when: NDArray[np.int64], months: int) -> NDArray[np.int64]:
    """Number of the period of each moment, calendar months counted from the first."""
    month = when.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    return np.asarray((month - month.min()) // months)


def part_of(rows: Observations, which: NDArray[Any]) -> Observations:
    return Observations(
        codes=rows.codes[which],
        outcome=rows.outcome[which],
        subject=rows.subject[which],
        bucket=rows.bucket[which],
        facet=rows.facet[which],
    )


def scored(schema: Schema, fitted: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float]:
    said = fitted.answer(x).estimate
    if schema.outcome.low is not None:
        return {"mae": mae(y, said), "r2": r2(y, said)}
    two = np.stack([1.0 - said, said], axis=1)
    return {"log_loss": log_loss(y, two), "auc": auc(y, two)}


def selected(
    side: str, schema: Schema, packets: Evidence, own: Records, own_at: NDArray[np.int64], now: int
) -> tuple[Evidence, Records, dict[str, Any]]:
    """What a side lets count, and what it elected."""
    weight, kept, note = np.ones(packets.n), np.ones(own.n, bool), {}
    outcome: dict[str, Any] = {"counts": packets.counts, "mean": packets.mean, "variance": packets.variance}
    if side.startswith("window:"):
        start = now - int(side.partition(":")[2]) * DAY
        weight, kept = (packets.bucket >= start).astype(np.float64), own_at >= start
    if side in ("ageing", "ours"):
        speed = ageing(
            packets.x,
            packets.node,
            packets.size,
            packets.bucket,
            **outcome,
            own_x=own.x,
            own_y=own.y,
            own_bucket=own_at,
            now=now,
        )
        weight, kept = speed.weight(packets.bucket, now), speed.current(own_at, now)
        note["half_life_days"] = None if speed.half_life is None else speed.half_life / DAY
    if side in ("survive", "ours"):
        left = survive(
            packets.x,
            schema.slot_weights.astype(np.float64),
            packets.node,
            np.ones(len(packets.nodes)),
            packets.size,
            **outcome,
            own_x=own.x[kept],
            own_y=own.y[kept],
            weight=weight,
            rng=np.random.default_rng(0),
        )
        note["survived"] = float(np.average(left.weight, weights=packets.size * weight + 1e-12))
        weight = weight * left.weight
    mine = Records(x=own.x[kept], y=own.y[kept], group=own.group[kept], timed=own.timed)
    return replace(packets, weight=weight), mine, note


def measure(
    data: Dataset, setting: Setting, sides: list[str], *, k: int, seed: int, last: int, settings: Settings
) -> dict[str, Any]:
    schema = data.schema
    sites = observations_of(data)
    zero = min(int(rows.bucket.min()) for rows in sites.values())
    number = {site: periods(np.append(rows.bucket, zero), setting.months)[:-1] for site, rows in sites.items()}
    count = 1 + max(int(n.max()) for n in number.values())
    parts: dict[str, list[dict[str, NDArray[Any]]]] = {site: [] for site in sites}
    for site, rows in sites.items():
        for p in range(count - 1):
            found = part_of(rows, number[site] == p)
            parts[site].append(evidence(schema, {site: found}, k)[site])
    rows_x = {site: unit_scale(schema, rows.codes) for site, rows in sites.items()}
    asked = range(setting.first, min(count, setting.first + last))
    losses: dict[str, list[list[dict[str, float]]]] = {side: [] for side in sides}
    notes: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for p in asked:
        if not any((n == p).sum() >= ASKED_LEAST for n in number.values()):
            continue  # the last hours of a year may lie in the next one elsewhere in the world
        heard = {
            site: {name: np.concatenate([one[name] for one in old[:p]]) for name in old[0]}
            for site, old in parts.items()
        }
        for side in sides:
            losses[side].append([])
        for i, (site, rows) in enumerate(sites.items()):
            test = number[site] == p
            if test.sum() < ASKED_LEAST:
                continue
            past = number[site] < p
            now = int(rows.bucket[test].min())
            packets = joined({s: h for s, h in heard.items() if s != site})
            own = Records(x=rows_x[site][past], y=rows.outcome[past], group=rows.bucket[past], timed=True)
            done: dict[bytes, dict[str, float]] = {}
            for side in sides:
                used, mine, note = selected(side, schema, packets, own, rows.bucket[past], now)
                same = b"".join(np.ascontiguousarray(a).tobytes() for a in (used.weight, mine.group))
                if same not in done:  # several sides often elect the same
                    fitted = fit(
                        schema,
                        used,
                        mine,
                        settings=settings,
                        rng=np.random.default_rng([seed, p, i]),
                        trust=lambda names, prior, objective: elect(objective, prior),
                    )
                    done[same] = scored(schema, fitted, rows_x[site][test], rows.outcome[test])
                losses[side][-1].append(done[same])
                notes[side].append({"period": p, "site": site} | note)
    return {"periods": len(losses[sides[0]]), "losses": losses, "notes": notes}


def interval(values: list[float]) -> dict[str, float]:
    """Mean of a difference by period and its 95 % interval."""
    from scipy.special import stdtrit

    a = np.array(values)
    half = float(stdtrit(len(a) - 1, 0.975)) * float(a.std(ddof=1)) / np.sqrt(len(a)) if len(a) > 1 else float("nan")
    return {"mean": float(a.mean()), "low": float(a.mean()) - half, "high": float(a.mean()) + half}


def summary(found: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Means of every metric, and differences of ours (and its two parts) to the others."""
    by_period: dict[str, dict[str, list[float]]] = {}
    for side, table in found["losses"].items():
        names = list(next(one for sites in table for one in sites))
        by_period[side] = {name: [float(np.nanmean([s[name] for s in sites])) for sites in table] for name in names}
    names = list(next(iter(by_period.values())))
    first = names[0]
    means = {side: {name: float(np.mean(v[name])) for name in names} for side, v in by_period.items()}
    windows = [side for side in means if side.startswith("window:")]
    out: dict[str, Any] = {"periods": found["periods"], "means": means, "minus": {}}
    best = min(windows, key=lambda side: means[side][first]) if windows else None
    out["best_window_in_hindsight"], out["fixed_window"] = best, f"window:{setting.fixed}"
    rivals = {"none": "none", "fixed window": f"window:{setting.fixed}", "best window": best}
    for side in [s for s in ("ageing", "survive", "ours") if s in means]:
        out["minus"][side] = {
            label: {
                name: interval([a - b for a, b in zip(by_period[side][name], by_period[rival][name], strict=True)])
                for name in names
            }
            for label, rival in rivals.items()
            if rival in means
        }
    out["by_period"] = {side: v[first] for side, v in by_period.items()}
    for side, notes in found["notes"].items():
        elected = [n["half_life_days"] for n in notes if "half_life_days" in n]
        if elected:
            names_, counts = np.unique([str(e) for e in elected], return_counts=True)
            out.setdefault("half_lives_elected", {})[side] = dict(zip(names_.tolist(), counts.tolist(), strict=True))
        stayed = [n["survived"] for n in notes if "survived" in n]
        if stayed:
            out.setdefault("weight_survived", {})[side] = float(np.mean(stayed))
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("name", choices=list(SETTINGS))
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--sides", nargs="+", help="of none, window:DAYS, ageing, survive, ours; default all")
    parser.add_argument("--share", type=float, help="part of the rows that is used")
    parser.add_argument("--periods", type=int, default=10_000, help="periods asked about, at most")
    parser.add_argument("--boosting", action="store_true", help="with the boosted calculations")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    setting = SETTINGS[args.name]
    started = time.process_time()
    data = datasets.load(args.name, **setting.options)
    share = args.share or (setting.share / 5 if args.quick else setting.share)
    if share < 1:
        rng = np.random.default_rng([args.seed, 0xD1F7])
        data = data.rows(rng.random(len(data)) < share)
    sides = args.sides or ["none", *(f"window:{days}" for days in setting.windows), "ageing", "survive", "ours"]
    with single_threaded(boosting=True):
        chosen = Settings() if args.boosting else PLAIN
        last = 2 if args.quick else args.periods
        found = summary(measure(data, setting, sides, k=args.k, seed=args.seed, last=last, settings=chosen), setting)
    found = {"set": args.name, "rows": len(data), "k": args.k, "share": share, "boosting": args.boosting} | found
    found["cpu_seconds"] = time.process_time() - started
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
