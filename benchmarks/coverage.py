"""Do intervals cover what they claim? Nominal 90 %, one site left out at a time, by decile of support.

    OUTROUTE_DATA=... python -m benchmarks.coverage --json [heart azpro opt beijing flights]

Each site asks in turn, of packets that all others distilled from all their records. As a newcomer it has no records
of its own; as a resident it has a random half of them (whole groups: days, weeks) and asks about the others. Class
outcomes: an interval is for the rate that the site would see, so left-out cases are grouped by support and estimate
and their count is compared with what was predicted of it, chance included. Numeric outcomes: each case is inside its
interval or not. Sites weigh alike: at most --cases of each are asked about. A decile is meant to lie in 85-95 %.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import options, show
from outroute import datasets
from outroute.datasets import Dataset
from outroute.datasets.observations import observations_of
from outroute.distill import Observations, distil
from outroute.elections import elect
from outroute.schema import Schema, unit_scale
from outroute.synthesis import Evidence, Records, coverage, fit, places

SETS: dict[str, dict[str, Any]] = {"heart": {}, "azpro": {}, "opt": {}, "beijing": {"every": 24}, "flights": {}}
"""How each table is loaded."""
REPEATS = {"heart": 100, "azpro": 20, "opt": 100}
"""Rounds, where one has too few left-out cases: each draws other cases and other halves."""
SHARE = 0.5
"""Part of a newcomer's cases that one of several rounds draws; residents are asked about as many."""
LOW, HIGH = 0.85, 0.95
SIGMAS = 2.0
"""Standard errors by which a decile may lie outside for chance. They know nothing of sites that differ: with few sites
deciles move by more."""


def evidence(schema: Schema, sites: dict[str, Observations], k: int) -> dict[str, dict[str, NDArray[Any]]]:
    """Columns of each site's packets."""
    out = {}
    for site, rows in sites.items():
        c = distil(schema, rows, k=k).cohorts
        out[site] = {
            "x": unit_scale(schema, c.codes),
            "size": c.size.astype(np.float64),
            "bucket": c.bucket,
            "cell": np.zeros(len(c), dtype=np.int64),
        }
        if c.counts is not None:
            out[site]["counts"] = c.counts.astype(np.float64)
        else:
            out[site] |= {"mean": c.mean, "variance": c.variance}
    return out


def joined(parts: dict[str, dict[str, NDArray[Any]]]) -> Evidence:
    columns = {name: np.concatenate([p[name] for p in parts.values()]) for name in next(iter(parts.values()))}
    node = np.repeat(np.arange(len(parts)), [len(p["size"]) for p in parts.values()])
    absent: dict[str, Any] = {name: columns.get(name) for name in ("counts", "mean", "variance")}
    rest = {name: columns[name] for name in ("x", "size", "bucket", "cell")}
    return Evidence(node=node, nodes=tuple(site.encode() for site in parts), **rest, **absent)


def halves(group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows a resident keeps as its own: whole groups."""
    names, index = np.unique(group, return_inverse=True)
    mine = np.zeros(len(names), dtype=bool)
    mine[rng.permutation(len(names))[: len(names) // 2]] = True
    return np.asarray(mine[index.reshape(-1)])


def measure(data: Dataset, *, k: int, cases: int, seed: int, repeats: int, resident: bool) -> dict[str, Any]:
    schema, sites = data.schema, observations_of(data)
    parts = evidence(schema, sites, k)
    packets = {site: joined({s: p for s, p in parts.items() if s != site}) for site in sites}
    supports: dict[str, list[NDArray[np.float64]]] = {site: [] for site in sites}
    found: dict[str, list[NDArray[np.float64]]] = {site: [] for site in sites}
    for repeat in range(repeats):
        for number, (site, rows) in enumerate(sites.items()):
            rng = np.random.default_rng([seed, repeat, number])
            group = rows.subject if data.group is None else rows.bucket
            own = halves(group, rng) if resident else np.zeros(len(rows), dtype=bool)
            asked = rng.permutation(np.flatnonzero(~own))
            most = min(cases, len(asked) if resident or repeats == 1 else round(SHARE * len(asked)))
            asked = np.sort(asked[:most])
            x = unit_scale(schema, rows.codes)
            fitted = fit(
                schema,
                packets[site],
                Records(x=x[own], y=rows.outcome[own], group=group[own]),
                rng=rng,
                trust=lambda names, prior, objective: elect(objective, prior),
            )
            support, place = places(fitted, fitted.answer(x[asked]), rows.outcome[asked], rng)
            supports[site].append(support)
            found[site].append(place)
    joint_support = np.concatenate([one for site in sites for one in supports[site]])
    joint_place = np.concatenate([one for site in sites for one in found[site]])
    all_found = coverage(joint_support, joint_place)
    again = 1.0 if repeats == 1 else repeats * SHARE  # times that one case is drawn: it counts once
    error = np.sqrt(0.9 * 0.1 * again / np.maximum(all_found.counts, 1))
    inside = (all_found.deciles >= LOW) & (all_found.deciles <= HIGH)
    near = (all_found.deciles >= LOW - SIGMAS * error) & (all_found.deciles <= HIGH + SIGMAS * error)
    return {
        "total": all_found.total,
        "repeats": repeats,
        "deciles": all_found.deciles.tolist(),
        "counts": all_found.counts.tolist(),
        "standard_error": float(error.max()),
        "deciles_inside": int(inside.sum()),
        "deciles_inside_but_for_chance": int(near.sum()),
        "every_decile_inside": bool(inside.all()),
        "per_site": {s: coverage(np.concatenate(supports[s]), np.concatenate(found[s])).total for s in sites},
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; default all")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--cases", type=int, default=2000, help="left-out cases of a site, at most")
    parser.add_argument("--repeats", type=int, help="rounds; default 1, small tables 20 or 100")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    names = args.names or (["heart"] if args.quick else list(SETS))
    if unknown := set(names) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {"k": args.k, "level": 0.9, "sets": {}}
    for name in names:
        started = time.process_time()
        data = datasets.load(name, **SETS[name])
        roles = {"newcomer": False} if args.quick else {"newcomer": False, "resident": True}
        cases = min(args.cases, 200) if args.quick else args.cases
        repeats = 1 if args.quick else args.repeats or REPEATS.get(name, 1)
        one: dict[str, Any] = {
            role: measure(data, k=args.k, cases=cases, seed=args.seed, repeats=repeats, resident=resident)
            for role, resident in roles.items()
        }
        found["sets"][name] = one | {"cpu_seconds": time.process_time() - started}
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
