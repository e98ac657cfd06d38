"""All fits of one victim in one split as rows, with packets: nobody lying, and under attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.simulation import together
from outroute.synthesis import Evidence, Records
from outroute.walls.hostile_cases import Case
from outroute.walls.hostile_scores import Elections, Scored, alone, attacked, attackers, everybody, figures, score

__all__ = ["Row", "rows_of", "rule_of", "sides"]

Row = dict[str, Any]
"""Repeat, site, attack, attackers, honest peers, method, and what was scored."""


def rule_of(case: Case, elections: Elections) -> Callable[[Evidence, Records], NDArray[np.float64]]:
    """The elections as the adaptive attacker plays them through."""

    def weigh(packets: Evidence, own: Records) -> NDArray[np.float64]:
        elected = elections(case.schema, packets, own, case.rng("elections as the attacker plays them"))
        return np.ones(packets.n) if elected.weight is None else elected.weight

    return weigh


def sides(elections: Elections) -> list[tuple[str, Elections]]:
    """Without elections, and with them if there are any."""
    return [("no election", everybody), *([] if elections is everybody else [("elections", elections)])]


def rows_of(
    case: Case, attacks: Sequence[str], shares: Sequence[int], elections: Elections, *, one: bool = False
) -> list[Row]:
    """All fits of one case as rows: attack, attackers, method and what was scored."""
    found: list[Row] = []
    inside = int(case.region.contains(case.own.x).sum())

    def keep(name: str, count: int, method: str, scored: Scored) -> None:
        found.append(
            {
                "repeat": case.repeat,
                "site": case.victim,
                "attack": name,
                "attackers": count,
                "peers": case.peers,
                "method": method,
                **figures(case, scored.scores, scored.inside),
                "share": scored.share,
                "least": scored.least,
                "matter": scored.matter,
                "below": scored.below,
                "own_inside": inside,
            }
        )

    keep("", 0, "local", alone(case))
    for method, rule in sides(elections):
        keep("", 0, method, score(case, case.evidence, elections=rule))
    for name in attacks:
        for count in sorted({attackers(case.peers, share / 100) for share in shares} - {0}):
            for method, rule in sides(elections):
                hostile = attacked(case, name, count, rule=rule_of(case, rule))
                everything = together(case.evidence, hostile)
                scored = score(case, everything, elections=rule, hostile=hostile.nodes, one_organisation=one)
                keep(name, count, method, scored)
    return found
