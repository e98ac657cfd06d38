"""Packets that compete within their neighbourhood: how fast, and who loses.

    OUTROUTE_DATA=... python -m benchmarks.survive [heart] --json

Speed: 100,000 packets of 1,000 nodes, 25 conditions, 2,000 own outcomes; the whole election, and one more outcome
confirmed, in CPU time of one thread and in wall time. Verdicts on a real table (heart): every hospital in turn, all
nodes trusted alike (as if hire had found nothing), with no attacker and with a backdoor's attackers, who are honest
outside a region of conditions and lie inside. Printed is the weight that is left, by size, of honest and of hostile
packets inside and outside the region, by how many own outcomes lie inside.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._byzantine_tables import cases
from benchmarks.common import median, options, show
from outroute.elections.survive import survive
from outroute.node.threads import single_threaded
from outroute.simulation import together
from outroute.synthesis import Evidence, Records
from outroute.walls.hostile_scores import attacked, attackers

SLOPE = 1.0
"""Spread of what conditions mean, in the table that is made up for speed."""
BANDS = ((0, 0), (1, 5), (6, 15), (16, 10_000))
"""Own outcomes inside the region, from and to."""
SHARES = (0.0, 0.5, 0.9)
"""Attackers among all peers."""


def speed(packets: int, nodes: int, own: int, turns: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    slots, size = 25, 5
    slope = rng.normal(size=slots) * SLOPE
    x, own_x = rng.random((packets, slots)), rng.random((own, slots))

    def chance(conditions: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1.0 / (1.0 + np.exp(-2.0 * (conditions - 0.5) @ slope)))

    yes = rng.binomial(size, chance(x)).astype(np.float64)
    own_y = (rng.random(own) < chance(own_x)).astype(np.float64)
    given: dict[str, Any] = {"counts": np.stack([size - yes, yes], axis=1), "own_x": own_x, "own_y": own_y}
    node = rng.integers(0, nodes, packets)
    found = None
    whole: list[tuple[float, float]] = []
    one: list[tuple[float, float]] = []
    for turn in range(turns + 1):
        started = time.thread_time(), time.perf_counter()
        found = survive(
            x,
            np.ones(slots),
            node,
            np.ones(nodes),
            np.full(packets, float(size)),
            rng=np.random.default_rng(1),
            **given,
        )
        whole.append((time.thread_time() - started[0], time.perf_counter() - started[1]))
        for _ in range(10):
            started = time.thread_time(), time.perf_counter()
            found = found.confirm(own_x[turn : turn + 1], own_y[turn : turn + 1])
            one.append((time.thread_time() - started[0], time.perf_counter() - started[1]))
    return {
        "packets": packets,
        "nodes": nodes,
        "own_outcomes": own,
        "whole_cpu_seconds": median([cpu for cpu, _ in whole[1:]]),
        "whole_wall_seconds": median([wall for _, wall in whole[1:]]),
        "confirm_cpu_milliseconds": 1e3 * median([cpu for cpu, _ in one[10:]]),
        "confirm_wall_milliseconds": 1e3 * median([wall for _, wall in one[10:]]),
        "load_average": os.getloadavg()[0],
    }


def weights(packets: Evidence, own: Records, slot_weights: NDArray[np.int64], rng: np.random.Generator) -> Any:
    return survive(
        packets.x,
        slot_weights.astype(np.float64),
        packets.node,
        np.ones(len(packets.nodes)),
        packets.size,
        counts=packets.counts,
        mean=packets.mean,
        variance=packets.variance,
        own_x=own.x,
        own_y=own.y,
        rng=rng,
    ).weight


def verdicts(name: str, repeats: int, seed: int) -> dict[str, Any]:
    left: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    asked: dict[str, int] = defaultdict(int)
    for case in cases(name, repeats, seed=seed):
        inside_own = int(case.region.contains(case.own.x).sum())
        band = next(f"{low}-{high}" if high < 10_000 else f"{low}+" for low, high in BANDS if low <= inside_own <= high)
        asked[band] += 1
        for share in SHARES:
            hostile = attacked(case, "backdoor", attackers(case.peers, share))
            packets = together(case.evidence, hostile) if hostile.n else case.evidence
            weight = weights(packets, case.own, case.schema.slot_weights, case.rng("survive"))
            bad = np.arange(packets.n) >= case.evidence.n
            inside = case.region.contains(packets.x)
            for who, mine in (("honest", ~bad), ("hostile", bad)):
                for where, there in (("inside", inside), ("outside", ~inside)):
                    rows = mine & there
                    if rows.any():
                        total = float(packets.size[rows].sum())
                        part = (float(packets.size[rows] @ weight[rows]), total)
                        left[f"{share:.0%} attackers"][f"{who} {where}, {band} own outcomes there"].append(part)
    table = {
        share: {key: sum(p for p, _ in parts) / sum(t for _, t in parts) for key, parts in sorted(found.items())}
        for share, found in left.items()
    }
    return {"repeats": repeats, "cases_by_own_outcomes_in_region": dict(asked), "weight_left": table}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", metavar="TABLE", help="verdicts on these tables too, for example heart")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    with single_threaded(boosting=False):
        found: dict[str, Any] = {"speed": speed(2_000, 50, 200, 1) if args.quick else speed(100_000, 1_000, 2_000, 5)}
        for name in args.names:
            found[name] = verdicts(name, 1 if args.quick else args.repeats, args.seed)
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
