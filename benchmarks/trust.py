"""Which calculation to believe: what each way to decide costs, outcome after outcome, on the real tables.

    OUTROUTE_DATA=... python -m benchmarks.trust --json [heart azpro beijing opt flights]

Each site in turn answers its own cases one after the other. Calculations are fitted anew at fixed shares of the stream
(`EDGES`), to packets of the others (tables with dates: of the time before, no others) and to own records so far; every
case is answered before its outcome is known, and only then scored. Ways to weigh the same calculations are compared:

``ours``        the batch election, with the running trust as its prior: what a node does
``batch``       the batch election alone, prior as when nothing was confirmed
``whole``       the batch election with nothing but the running trust as its prior: tried, not used
``answered``    ``ours``, once per part of the stream and recalibrated as a whole: what the insight said
``running``     the running trust alone (Hedge)
``uniform``     all calculations alike
``default``     the weights before any outcome has spoken
``leader``      the calculation with the least loss so far (follow the leader)
``best``        the calculation that turns out best at this site: known in hindsight only

Loss: log-loss in nats; numbers: CRPS in standard deviations of the outcome, and `nats`, the log score of the same
normal distributions. *Regret* is a way's loss minus that of `best`, per outcome. Intervals of 95 % (Student's t) are
over sites: what another site like these would see. Three scenarios besides `prompt` change what trust sees, not what
calculations are fitted to: `delay` (an outcome becomes known up to 2 * `DELAY` of the stream later), `by answer`
(outcomes of cases answered as risky or high become known nine times as often), `by outcome` (the same for outcomes that
*are* bad or high, which no answer shows fully). There `running, as seen` is without the correction for selection.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import options, show
from benchmarks.coverage import evidence, joined
from outroute import datasets
from outroute.datasets import Dataset
from outroute.datasets.observations import observations_of
from outroute.distill import Observations
from outroute.elections import (
    BANDS,
    CRPS_RATE,
    LOG_RATE,
    Trust,
    band_of_class,
    band_of_number,
    crps,
    elect,
)
from outroute.node.threads import single_threaded
from outroute.schema import Schema, unit_scale
from outroute.synthesis import Evidence, Records, fit

Floats = NDArray[np.float64]

SETS: dict[str, dict[str, Any]] = {
    "heart": {"repeats": 10},
    "azpro": {"repeats": 2},
    "opt": {"repeats": 10},
    "beijing": {"load": {"every": 24}, "repeats": 1},
    "flights": {"load": {"k": 1}, "repeats": 1, "rows": 8_000},
}
"""How each table is loaded; repeats (other orders) where rows are exchangeable; flights: so many, drawn at random."""
EDGES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Shares of a stream at which calculations are fitted; what comes before the first is only learnt from."""
LEAST = 10
"""Own records before the first answer."""
DELAY = 0.1
"""Mean delay, as a share of the stream."""
CONFIRMED = (0.9, 0.1)
"""Share of outcomes that become known under selection, of risky or high and of the other cases."""
EVERY = 20
"""Outcomes between two batch elections with a new prior inside a part of the stream."""
SCENARIOS = ("prompt", "delay", "by answer", "by outcome")
FLOOR = 1e-6
"""Least probability in a log-loss, as in the trial."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a stream: what the calculations, fitted before it, said of each case.

    Attributes:
        names: J calculations.
        default: float64[J].
        objective: loss of a mixture on own records before.
        said: float64[m, J, C] log-probabilities, or [m, J, 1] means in standard deviations of the outcome.
        deviation: of one outcome around a mean, in the same unit.
        outcome: float64[m], class index, or value in that unit.
        answered: float64[m, C or 1], what the node answered.
        band: int64[m].
        high: bool[m, 2], answered as risky or high; the outcome is.
    """

    names: tuple[str, ...]
    default: Floats
    objective: Callable[[Floats], tuple[float, Floats]]
    said: Floats
    deviation: float
    outcome: Floats
    answered: Floats
    band: NDArray[np.int64]
    high: NDArray[np.bool_]

    def losses(self, said: Floats, *, nats: bool = False) -> Floats:
        """Loss of what was said, float64[m, K] of float64[m, K, C or 1]."""
        if said.shape[2] > 1:
            top = said - said.max(2, keepdims=True)
            log_share = top - np.log(np.exp(top).sum(2, keepdims=True))
            rows = np.arange(len(said))
            return -np.maximum(log_share[rows, :, self.outcome.astype(np.int64)], np.log(FLOOR))
        gap = self.outcome[:, None] - said[:, :, 0]
        if nats:
            return 0.5 * (gap / self.deviation) ** 2 + np.log(self.deviation * np.sqrt(2 * np.pi))
        return crps(said[:, :, 0], self.deviation, self.outcome[:, None])


@dataclass
class Way:
    """A scenario: what has become known so far."""

    trust: Trust
    seen: Trust
    total: dict[str, float] = field(default_factory=dict)
    waiting: list[tuple[int, int, Any]] = field(default_factory=list)

    def tell(self, at: int) -> bool:
        """Take in what is known by now; whether there was anything."""
        news = False
        while self.waiting and self.waiting[0][0] <= at:
            names, losses, paid, band = heapq.heappop(self.waiting)[2]
            given = {"names": names, "paid": np.array([paid])}
            self.trust = self.trust.update(losses[None], bands=np.array([band]), **given)
            self.seen = self.seen.update(losses[None], **given)
            for name, loss in zip(names, losses.tolist(), strict=True):
                self.total[name] = self.total.get(name, 0.0) + loss - paid
            news = True
        return news

    def leader(self, names: tuple[str, ...]) -> Floats:
        totals = np.array([self.total.get(name, 0.0) for name in names])
        first = np.isclose(totals, totals.min())
        return first / first.sum()


def stream(
    schema: Schema,
    packets: Evidence,
    rows: Observations,
    group: NDArray[np.int64],
    timed: bool,
    order: NDArray[np.int64],
    trust: Callable[[], Trust],
    rng: np.random.Generator,
) -> Any:
    """The parts of one site's stream, each fitted to what was known before it."""
    x = unit_scale(schema, rows.codes)
    classes = len(schema.outcome.classes) if schema.outcome.has_classes else 0
    edges = sorted({max(LEAST, round(share * len(order))) for share in EDGES})
    for begin, end in pairwise(edges):
        before, part = order[:begin], order[begin:end]
        heard = packets
        if timed:
            heard = packets.take(np.flatnonzero(packets.bucket < rows.bucket[part].min()))
        kept: dict[str, Any] = {}

        def mixing(names: Any, default: Floats, objective: Any, kept: dict[str, Any] = kept) -> Floats:
            kept["default"], kept["objective"] = default, objective
            return elect(objective, trust().prior(names, default))

        with single_threaded(boosting=True):
            fitted = fit(
                schema,
                heard,
                Records(x=x[before], y=rows.outcome[before], group=group[before], timed=timed),
                rng=rng,
                trust=mixing,
            )
            answers = fitted.answer(x[part])
        y = rows.outcome[part]
        if classes:
            shares, mixed = answers.by_calculation, answers.estimate
            if classes == 2:
                shares, mixed = np.stack([1 - shares, shares], axis=2), np.stack([1 - mixed, mixed], axis=1)
            yield Part(
                names=fitted.calculations,
                said=np.log(np.maximum(shares, 1e-9)),
                deviation=1.0,
                outcome=y,
                answered=np.log(np.maximum(mixed, 1e-9)),
                band=np.array([band_of_class(one) for one in mixed]),
                high=np.stack([mixed[:, -1] >= np.median(mixed[:, -1]), y == classes - 1], axis=1),
                **kept,
            )
        else:
            centre, spread = fitted.scale.centre, fitted.scale.spread
            means, mixed = (answers.by_calculation - centre) / spread, (answers.estimate - centre) / spread
            y = (y - centre) / spread
            yield Part(
                names=fitted.calculations,
                said=means[:, :, None],
                deviation=float(np.sqrt(fitted.noise)),
                outcome=y,
                answered=mixed[:, None],
                band=np.array([band_of_number(one, 0.0, 1.0) for one in mixed]),
                high=np.stack([mixed >= np.median(mixed), y >= np.median(y)], axis=1),
                **kept,
            )


def walk(
    schema: Schema,
    packets: Evidence,
    rows: Observations,
    group: NDArray[np.int64],
    timed: bool,
    order: NDArray[np.int64],
    rng: np.random.Generator,
) -> dict[str, dict[str, float]]:
    """Mean loss over one site's stream, by scenario and way; those in nats besides for numbers."""
    classes = len(schema.outcome.classes) if schema.outcome.has_classes else 0
    start = Trust.start(bands=classes if classes > 2 else BANDS, rate=LOG_RATE if classes else CRPS_RATE)
    ways = {name: Way(trust=start, seen=Trust.start(rate=start.rate)) for name in SCENARIOS}
    chance = np.random.default_rng(rng.integers(2**32))
    sums: dict[str, dict[str, float]] = {name: {} for name in SCENARIOS}
    singles: dict[str, float] = {}
    at = count = 0
    for part in stream(schema, packets, rows, group, timed, order, lambda: ways["prompt"].trust, rng):
        m = len(part.outcome)
        table, paid = part.losses(part.said), part.losses(part.answered[:, None])[:, 0]
        for name in {*part.names, *singles}:  # who takes no part counts as the answer did
            column = table[:, part.names.index(name)] if name in part.names else paid
            singles.setdefault(name, 0.0 if not count else sums["prompt"]["answered"])
            singles[name] += float(column.sum())
        for scenario, way in ways.items():
            weights: dict[str, list[Floats]] = {}
            asked = None
            for i in range(m):
                news = way.tell(at + i) or i == 0
                way.trust = way.trust.told(int(part.band[i]))
                if asked is None or (news and i % EVERY == 0):
                    asked = elect(part.objective, way.trust.prior(part.names, part.default))
                    full = elect(part.objective, np.maximum(way.trust.running(part.names, part.default), 1e-2))
                now = {
                    "ours": asked,
                    "whole": full,
                    "running": way.trust.running(part.names, part.default),
                    "leader": way.leader(part.names),
                }
                if scenario.startswith("by"):
                    now["running, as seen"] = way.seen.running(part.names, part.default)
                for method, w in now.items():
                    weights.setdefault(method, []).append(w)
                known, wait = _known(scenario, part, i, len(order), chance)
                if known:
                    one = (part.names, table[i], float(paid[i]), int(part.band[i]))
                    heapq.heappush(way.waiting, (at + i + 1 + wait, at + i, one))
            all_weights = {method: np.array(w) for method, w in weights.items()}
            if scenario == "prompt":
                alike = np.full(len(part.names), 1 / len(part.names))
                batch = elect(part.objective, part.default)
                for method, w in {"uniform": alike, "default": part.default, "batch": batch}.items():
                    all_weights[method] = np.broadcast_to(w, (m, len(w)))
            out = sums[scenario]
            for method, w in all_weights.items():
                mixed = np.einsum("mj,mjc->mc", w, part.said)[:, None]
                out[method] = out.get(method, 0.0) + float(part.losses(mixed).sum())
                if not classes and scenario == "prompt":
                    name = f"{method}, nats"
                    out[name] = out.get(name, 0.0) + float(part.losses(mixed, nats=True).sum())
            if scenario == "prompt":
                out["answered"] = out.get("answered", 0.0) + float(paid.sum())
        at += m
        count += m
    for scenario in SCENARIOS:
        sums[scenario]["best"] = min(singles.values())
    return {s: {method: total / count for method, total in of.items()} for s, of in sums.items()}


def _known(scenario: str, part: Part, i: int, length: int, chance: np.random.Generator) -> tuple[bool, int]:
    """Whether an outcome becomes known, and how many outcomes later."""
    if scenario == "delay":
        return True, int(chance.integers(0, max(1, round(2 * DELAY * length)) + 1))
    if scenario == "prompt":
        return True, 0
    high = part.high[i, 0 if scenario == "by answer" else 1]
    return bool(chance.random() < CONFIRMED[0 if high else 1]), 0


def interval(values: Floats) -> dict[str, float]:
    """Mean over sites with its interval of 95 %."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half}


def measure(data: Dataset, *, k: int, seed: int, repeats: int, sites_most: int | None) -> dict[str, Any]:
    schema, sites = data.schema, observations_of(data)
    timed = data.time is not None
    sites = {site: rows for site, rows in sites.items() if len(rows) >= 4 * LEAST}
    parts = evidence(schema, sites, k)
    found: dict[str, list[dict[str, dict[str, float]]]] = {}
    for number, (site, rows) in enumerate(list(sites.items())[:sites_most]):
        packets = joined({s: p for s, p in parts.items() if s != site})
        group = rows.bucket if timed else rows.subject
        for repeat in range(repeats):
            rng = np.random.default_rng([seed, repeat, number])
            order = rng.permutation(len(rows))
            if timed:
                order = order[np.argsort(rows.bucket[order], kind="stable")]
            found.setdefault(site, []).append(walk(schema, packets, rows, group, timed, order, rng))
    return summary(found)


def summary(found: dict[str, list[dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """Mean over sites, of means over repeats."""
    out: dict[str, Any] = {"sites": len(found)}
    for scenario in SCENARIOS:
        methods = next(iter(found.values()))[0][scenario]
        by_site = {
            method: np.array([np.mean([one[scenario][method] for one in rounds]) for rounds in found.values()])
            for method in methods
        }
        same = [m for m in by_site if not m.endswith("nats") and m != "best"]
        out[scenario] = {
            "loss": {method: float(values.mean()) for method, values in by_site.items()},
            "regret": {m: interval(by_site[m] - by_site["best"]) for m in same},
            "ours_minus": {m: interval(by_site["ours"] - by_site[m]) for m in same if m != "ours"},
        }
        if "ours, nats" in by_site:
            ours = by_site["ours, nats"]
            others = [m for m in by_site if m.endswith("nats") and not m.startswith("ours")]
            out[scenario]["ours_minus_in_nats"] = {m.split(",")[0]: interval(ours - by_site[m]) for m in others}
    return out


def load(name: str, *, quick: bool, seed: int) -> Dataset:
    data = datasets.load(name, **SETS[name].get("load", {}))
    most = SETS[name].get("rows")
    if most is not None and len(data) > most:
        data = data.rows(np.sort(np.random.default_rng(seed).permutation(len(data))[:most]))
    return data


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; default all")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--repeats", type=int, help="orders of the rows, where they are exchangeable")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    names = args.names or (["heart"] if args.quick else list(SETS))
    if unknown := set(names) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {"k": args.k, "edges": EDGES, "sets": {}}
    for name in names:
        started = time.process_time()
        data = load(name, quick=args.quick, seed=args.seed)
        repeats = 1 if args.quick or data.time is not None else args.repeats or SETS[name]["repeats"]
        one = measure(data, k=args.k, seed=args.seed, repeats=repeats, sites_most=2 if args.quick else None)
        found["sets"][name] = one | {"repeats": repeats, "cpu_seconds": time.process_time() - started}
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
