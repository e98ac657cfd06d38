"""All paths between many nodes: time, memory, and the bare matrix products beside it.

    python -m benchmarks.paths --nodes 100000 --json

Makes packets of so many nodes (profiles that agree in part, base rates of their own, a tenth of the nodes with flipped
outcomes), turns them into profiles, and evaluates every pair. Block rows are dealt to as many threads as there are
cores. Groups of them take turns: first only the two matrix products of all their blocks, in the same memory, then the
same blocks in full (products, strengths, strongest paths of every node, histogram of each eighth block). So both meet
the same neighbours on the machine, and `ratio` is full over bare; it counts all that comes before (matrices and bars)
and after (putting together) the blocks too. `seconds` is what the paths alone take, without the bare products.

`standing` is the leading trust vector without pairs; `explicit_difference` is its distance from the one of the explicit
matrix, formed from all pairs of as many of the nodes as `--explicit` says.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import options, show
from outroute.elections.paths import BINS, Search, finish, matrices, pair_count, strips
from outroute.elections.profiles import PRIOR_CELLS, Profiles, profiles
from outroute.elections.standing import standing

GROUPS = 24
"""Turns that bare and full take."""


def packets(nodes: int, cells: int, each: int, seed: int = 0) -> dict[str, Any]:
    """Packets of five outcomes; popular cells have more of them.

    Half of what a node's cells differ by is common to all nodes, half is its own.
    """
    rng = np.random.default_rng(seed)
    popular = 1.0 / np.sqrt(np.arange(1, cells + 1))
    node = np.repeat(np.arange(nodes), each)
    cell = rng.choice(cells, len(node), p=popular / popular.sum())
    common, base = rng.normal(0, 0.14, cells), rng.normal(0.4, 0.1, nodes)
    sign = np.where(rng.random(nodes) < 0.1, -1.0, 1.0)
    size, rate = np.full(len(node), 5.0), np.empty(len(node))
    for at in range(0, nodes, 10_000):  # what is each node's own is the same in all its packets of a cell
        some = slice(at * each, (at + 10_000) * each)
        own = rng.normal(0, 0.14, (min(10_000, nodes - at), cells)).astype(np.float32)
        rate[some] = base[node[some]] + sign[node[some]] * common[cell[some]] + own[node[some] - at, cell[some]]
    yes = rng.binomial(5, np.clip(rate, 0.02, 0.98)).astype(np.float64)
    counts = np.stack([5.0 - yes, yes], axis=1)
    return {"node": node, "cell": cell, "size": size, "counts": counts, "nodes": nodes, "cells": cells}


def explicit(known: Profiles) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The leading eigenvector of the explicit matrix over all pairs, by power iteration."""
    signal, reliability = (part.astype(np.float64) for part in known.dense())
    reach = np.sqrt(PRIOR_CELLS + (reliability**2).sum(1))
    matrix = (signal @ signal.T) / np.outer(reach, reach)
    np.fill_diagonal(matrix, 0.0)
    shift = np.abs(np.linalg.norm(signal, axis=1) / reach).max() ** 2  # no eigenvalue lies below minus this
    vector = np.ones(len(matrix)) / np.sqrt(len(matrix))
    for _ in range(10_000):
        following = matrix @ vector + shift * vector
        following /= np.linalg.norm(following)
        done = np.abs(following - vector).max() < 1e-13
        vector = following
        if done:
            break
    return vector if vector.sum() >= 0 else -vector


def measure(known: Profiles, keep: int, workers: int) -> dict[str, Any]:
    clock: dict[str, float] = {"bare": 0.0, "full": 0.0, "bare_cpu": 0.0, "full_cpu": 0.0}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        done = work()
        clock[name] += time.perf_counter() - wall
        clock[name + "_cpu"] += time.process_time() - cpu
        return done

    given = timed("full", lambda: matrices(known, keep))
    searches = [Search(given) for _ in range(workers)]
    dealt = strips(known.nodes, workers)
    most = max(map(len, dealt))
    count = max(1, min(GROUPS, most))

    def bare(search: Search, firsts: Iterable[int]) -> None:
        for first in firsts:
            for here, there in search.blocks(first):
                search.products(here, there)

    def full(search: Search, firsts: Iterable[int]) -> None:
        for first in firsts:
            search.add(first)

    ratios = []
    with ThreadPoolExecutor(workers) as pool:
        for turn in range(count):
            some = [firsts[turn::count] for firsts in dealt]
            before = dict(clock)
            timed("bare", lambda part=some: list(pool.map(bare, searches, part)))
            timed("full", lambda part=some: list(pool.map(full, searches, part)))
            ratios.append((clock["full"] - before["full"]) / max(clock["bare"] - before["bare"], 1e-9))
    found = timed("full", lambda: finish(searches))
    strength = np.linspace(-1, 1, BINS)
    share = np.cumsum(found.histogram) / max(found.counted, 1)
    return {
        "pairs": found.pairs,
        "all_pairs": pair_count(known.nodes),
        "pairs_in_histogram": found.counted,
        "seconds": clock["full"],
        "bare_seconds": clock["bare"],
        "ratio": clock["full"] / max(clock["bare"], 1e-9),
        "ratio_cpu": clock["full_cpu"] / max(clock["bare_cpu"], 1e-9),
        "ratio_of_turns": {"median": float(np.median(ratios)), "least": min(ratios), "most": max(ratios)},
        "evaluated_again": found.again,
        "strength_quantiles": {str(q): float(strength[np.searchsorted(share, q)]) for q in (0.01, 0.1, 0.5, 0.9, 0.99)},
        "strongest": float(found.corroboration.max(initial=0.0)),
        "strongest_contradiction": float(found.contradiction.min(initial=0.0)),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--packets", type=int, default=64, help="packets of a node")
    parser.add_argument("--keep", type=int, default=10, help="paths of either sign kept for each node")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--explicit", type=int, default=2_000, help="nodes of which the explicit matrix is formed")
    args = parser.parse_args()
    if args.quick:
        args.nodes, args.explicit = min(args.nodes, 3_000), min(args.explicit, 300)
    with threadpool_limits(limits=1):
        load = os.getloadavg()[0]
        began = time.perf_counter()
        made = packets(args.nodes, args.cells, args.packets)
        known = profiles(**made)
        seconds = {"packets": len(made["node"]), "profiles_seconds": time.perf_counter() - began}
        del made
        began = time.perf_counter()
        value = standing(known)
        implicit = {"seconds": time.perf_counter() - began, "entries": len(known.row), "strength": value.strength}
        few = profiles(**packets(min(args.nodes, args.explicit), args.cells, args.packets))
        implicit["explicit_nodes"] = few.nodes
        implicit["explicit_difference"] = float(np.abs(standing(few).value - explicit(few)).max())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        evaluated = measure(known, args.keep, args.threads)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    show(
        {
            "nodes": args.nodes,
            "cells": args.cells,
            "threads": args.threads,
            "load_before": load,
            **seconds,
            **evaluated,
            "peak_mib": peak / 1024,
            "peak_before_pairs_mib": before / 1024,
            "standing": implicit,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
