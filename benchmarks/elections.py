"""Elections for one question: how long they take after one more own outcome has become known, and from scratch.

    python -m benchmarks.elections --packets 100000 --nodes 1000 --json

The packets are made up: 25 conditions, cohorts of five, 2,000 own outcomes; three nodes in ten say the opposite of what
is true, one in ten says nothing but chance, and one packet in a hundred is somebody else's, word for word.

A question after which nothing new became known costs no election: the verdicts stand. Measured is the other case, one
own outcome more before every question. Then anew are: the profile of own records (their cross-fitted slope too); both
scores of every node against it, from sums kept by node, twice (own outcomes, then proven nodes with them), and so who
is hired; the contest in the neighbourhoods that the outcome lies in or near; the weight of every packet. Kept are: sums
and profiles by node, which packets are copies, neighbourhoods, expectations and base rates, and the trust in nodes that
packets compete with. All of these are made anew by a refit, `from_scratch`; a node refits when a twentieth of its own
records or of the packets is new, or when elections moved a twentieth of the weight.

The bare work takes turns with each: one matrix product of all packets' conditions, [packets, slots] by [slots, slots],
and one numpy pass that adds up a column by node.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import heart_like, median, options, show
from outroute.elections.copies import said_once
from outroute.elections.hire import prepare
from outroute.elections.survive import survive
from outroute.node.electing import elect_packets, organisations_of, table_of, table_of_own
from outroute.node.threads import single_threaded
from outroute.synthesis import Evidence, Records

COHORT = 5
"""Observations in a packet."""
LYING, RANDOM = 0.3, 0.1
"""Shares of nodes that say the opposite, and that say anything."""
COPIES = 0.01
"""Share of packets that repeat another node's."""


def world(packets: int, nodes: int, own: int, seed: int = 0) -> tuple[Evidence, Records]:
    """Packets and own records as arrays."""
    rng = np.random.default_rng(seed)
    slots = heart_like().width
    slope = rng.normal(size=slots)

    def chance(x: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-2.0 * (x - 0.5) @ slope))

    x, own_x = rng.random((packets, slots)), rng.random((own, slots))
    node = rng.integers(0, nodes, packets)
    kind = rng.permutation(nodes)[node] / nodes
    risk = chance(x)
    risk = np.where(kind < LYING, 1.0 - risk, np.where(kind < LYING + RANDOM, 0.5, risk))
    yes = rng.binomial(COHORT, risk).astype(np.float64)
    copies = rng.integers(0, packets, int(COPIES * packets))
    source = rng.integers(0, packets, len(copies))
    x[copies], yes[copies] = x[source], yes[source]
    evidence = Evidence(
        x=x,
        node=node,
        nodes=tuple(b"%08d" % i for i in range(nodes)),
        size=np.full(packets, float(COHORT)),
        counts=np.stack([COHORT - yes, yes], axis=1),
        mean=None,
        variance=None,
        bucket=np.zeros(packets, np.int64),
        cell=np.zeros(packets, np.int64),
    )
    return evidence, Records(x=own_x, y=(rng.random(own) < chance(own_x)).astype(np.float64), group=np.arange(own))


class _Clock:
    """Wall and CPU time of this thread, by name."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.thread_time()
        out = work()
        self.cpu.setdefault(name, []).append(1e3 * (time.thread_time() - cpu))
        self.wall.setdefault(name, []).append(1e3 * (time.perf_counter() - wall))
        return out

    def told(self, name: str) -> dict[str, float]:
        wall, cpu = self.wall[name], self.cpu[name]
        return {
            "wall_ms_median": median(wall),
            "wall_ms_p99": float(np.quantile(wall, 0.99)),
            "cpu_ms_median": median(cpu),
            "cpu_ms_p99": float(np.quantile(cpu, 0.99)),
        }


def _part(own: Records, rows: int) -> Records:
    return Records(x=own.x[:rows], y=own.y[:rows], group=own.group[:rows])


def run(packets: int, nodes: int, own: int, questions: int, turns: int, seed: int = 0) -> dict[str, Any]:
    """Time both cases.

    Args:
        packets, nodes, own: sizes.
        questions: asked after one more own outcome each.
        turns: elections from scratch.
        seed: of the world.
    """
    evidence, records = world(packets, nodes, own + questions + 1, seed)
    schema = heart_like()
    product = np.random.default_rng(seed).normal(size=(schema.width, schema.width))
    column = evidence.x[:, 0].copy()
    clock = _Clock()

    def bare() -> None:
        clock("bare product", lambda: evidence.x @ product)
        clock("bare pass", lambda: np.bincount(evidence.node, column, nodes))

    mine, alone = _part(records, own), organisations_of(evidence.nodes, {})
    elected = elect_packets(schema, evidence, mine, rng=np.random.default_rng(1))  # one more than is counted
    for _ in range(turns):
        bare()
        work = clock("whole", lambda: elect_packets(schema, evidence, mine, rng=np.random.default_rng(1)))
        counts = evidence.counts
        assert counts is not None
        said = np.column_stack([evidence.size, evidence.bucket, counts])
        once, _ = clock("copies", lambda said=said: said_once(evidence.x, evidence.node, np.ones(nodes), said))
        packed, table = table_of(evidence), table_of_own(schema, mine)
        hired = clock("hire", lambda p=packed, t=table: prepare(p, t, alone).hire(t, mine.group))
        clock(
            "survive",
            lambda once=once, hired=hired, counts=counts: survive(
                evidence.x,
                np.asarray(schema.slot_weights, dtype=np.float64),
                evidence.node,
                hired.weight,
                evidence.size,
                counts=counts,
                own_x=mine.x,
                own_y=mine.y,
                weight=once,
                rng=np.random.default_rng(1),
            ),
        )
        assert np.array_equal(work.hired.weight, elected.hired.weight)
    first = elected
    for i in range(questions + 1):
        now, fresh = _part(records, own + i + 1), np.array([own + i])
        bare()
        elected = clock("question", lambda e=elected, n=now, f=fresh: e.confirmed(schema, n, f))
        clock("question: hire", lambda e=elected, n=now: e._prepared.hire(table_of_own(schema, n), n.group))
        clock(
            "question: survive",
            lambda e=elected, n=now, f=fresh: e.survival.confirm(n.x[f], n.y[f]),
        )
        if not i:  # sums are made with the first one
            for name in ("question", "question: hire", "question: survive"):
                clock.wall[name].clear()
                clock.cpu[name].clear()
    anew = elect_packets(schema, evidence, now, rng=np.random.default_rng(1))
    question = clock.told("question")
    bare_wall, pass_wall = median(clock.wall["bare product"]), median(clock.wall["bare pass"])
    return {
        "packets": packets,
        "nodes": nodes,
        "own_outcomes": own,
        "questions": questions,
        "question": question
        | {"of_which": {name: clock.told(f"question: {name}") for name in ("hire", "survive")}}
        | {
            "times_bare_product": question["wall_ms_median"] / bare_wall,
            "times_bare_pass": question["wall_ms_median"] / pass_wall,
        },
        "from_scratch": {
            name: {"wall_ms": median(clock.wall[name]), "cpu_ms": median(clock.cpu[name])}
            | {"times_bare_product": median(clock.wall[name]) / bare_wall}
            for name in ("whole", "copies", "hire", "survive")
        },
        "bare_product_ms": bare_wall,
        "bare_pass_ms": pass_wall,
        "proven": int(elected.hired.proven.sum()),
        "contradicted": int(elected.hired.contradicted.sum()),
        "weight_moved_by_all_questions": elected.moved(first),
        "weight_apart_from_scratch": elected.moved(anew),
        "load_average": os.getloadavg()[0],
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--own", type=int, default=2_000, help="own outcomes")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3, help="elections from scratch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.quick:
        args.packets, args.nodes, args.own, args.questions, args.turns = 2_000, 50, 200, 20, 1
    with single_threaded(boosting=False):
        found = run(args.packets, args.nodes, args.own, args.questions, args.turns, args.seed)
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
