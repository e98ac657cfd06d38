"""Where the consensus of organisations breaks down: what liars weigh for an asker without any outcome of its own.

    OUTROUTE_DATA=... python -m benchmarks.breakdown [flights] [--repeats 5] [--json]

Liars are added to the honest nodes of a table until they are a given share of all. Four arrangements: every node is an
organisation of its own; one organisation has certified all liars; all nodes are of one organisation, which has declared
groups, and all liars are in one group of their own; the same with liars in groups of two; the same without groups. No
calculation is fitted: what is printed is liars' share of the weight, their share of what the consensus counts
(organisations, or groups), and what they would weigh if everybody weighed the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._byzantine_tables import TABLES, Case, cases
from benchmarks.common import options, show
from outroute.elections.hire import Anchored
from outroute.node.electing import elect_packets
from outroute.simulation import together
from outroute.walls.hostile_scores import attacked, attackers, weight_share

ATTACKS = ("label-flip", "colluding")
SHARES = (20, 30, 40, 45, 55, 60, 70, 80, 90)
"""Liars among all peers, per cent."""
ONE = b"one organisation"


def arrangements(honest: list[bytes], liars: list[bytes]) -> dict[str, tuple[dict[bytes, bytes], dict[bytes, str]]]:
    """Organisation of each certified node, and declared groups, by arrangement."""
    fleet = dict.fromkeys([*honest, *liars], ONE)
    own_model = {node: f"model {i}" for i, node in enumerate(honest)}
    return {
        "each its own organisation": ({}, {}),
        "liars of one organisation": (dict.fromkeys(liars, ONE), {}),
        "one organisation, liars of one group": (fleet, own_model | dict.fromkeys(liars, "liars")),
        "one organisation, liars in groups of two": (
            fleet,
            own_model | {node: f"liars {i // 2}" for i, node in enumerate(liars)},
        ),
        "one organisation, no groups": (fleet, {}),
    }


def rows_of(case: Case, shares: tuple[int, ...]) -> list[dict[str, Any]]:
    """Liars' share of the weight in all arrangements."""
    nobody = case.rows(np.zeros(case.own.n, dtype=np.bool_)).own
    honest = [case.evidence.nodes[i] for i in np.unique(case.evidence.node)]
    out = []
    for attack in ATTACKS:
        for share in shares:
            hostile = attacked(case, attack, attackers(case.peers, share / 100))
            everything = together(case.evidence, hostile)
            for name, (certified, groups) in arrangements(honest, list(hostile.nodes)).items():
                found = elect_packets(
                    case.schema,
                    everything,
                    nobody,
                    rng=case.rng("elections"),
                    certified=certified,
                    groups=groups,
                )
                weight = weight_share(found.evidence, hostile.nodes)
                units = _units(certified, groups, honest, list(hostile.nodes))
                out.append(
                    {
                        "attack": attack,
                        "share": share,
                        "arrangement": name,
                        "anchor": Anchored(found.hired.anchor).name.lower(),
                        "weight": weight,
                        "units": units,
                        "alike": weight_share(everything, hostile.nodes),
                    }
                )
    return out


def _units(certified: dict[bytes, bytes], groups: dict[bytes, str], honest: list[bytes], liars: list[bytes]) -> float:
    """Share of liars among what the consensus counts: organisations, or groups."""
    name: dict[bytes, Any] = dict(groups) if groups else {n: certified.get(n, n) for n in [*honest, *liars]}
    theirs, ours = {name[n] for n in liars}, {name[n] for n in honest}
    return len(theirs) / len(theirs | ours)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means by arrangement, attack and share."""
    out: dict[str, Any] = {}
    for row in rows:
        at = out.setdefault(row["arrangement"], {}).setdefault(row["attack"], {})
        at.setdefault(str(row["share"]), []).append(row)
    return {
        name: {
            attack: {
                share: {
                    "weight": float(np.mean([row["weight"] for row in part])),
                    "units": float(np.mean([row["units"] for row in part])),
                    "alike": float(np.mean([row["alike"] for row in part])),
                    "anchors": sorted({row["anchor"] for row in part}),
                }
                for share, part in by.items()
            }
            for attack, by in attacks.items()
        }
        for name, attacks in out.items()
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("name", nargs="?", choices=TABLES, default="flights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--victims", type=int, default=2, help="sites that ask in each split, taking turns")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    shares: tuple[int, ...] = SHARES
    if args.quick:
        args.repeats, args.victims, shares = 1, 1, (30, 70)
    rows = [
        row
        for case in cases(args.name, args.repeats, seed=args.seed, victims=args.victims)
        for row in rows_of(case, shares)
    ]
    found = {"table": args.name, "repeats": args.repeats, "victims": args.victims, "results": summary(rows)}
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
