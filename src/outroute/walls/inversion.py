"""The inversion wall: can records be read out of what leaves a site?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from outroute.walls.base import Found, Plan, Step, Tell
from outroute.walls.inversion_more import more
from outroute.walls.inversion_sides import Bench
from outroute.walls.inversion_verdict import RULE, conclude

__all__ = ["WALL", "Inversion"]


def _quietly(run: Callable[[], Mapping[str, Any]], tell: Tell) -> Mapping[str, Any]:
    """Steps that say nothing while they run."""
    return run()


class Inversion:
    """DLG, iDLG, Geiping and the closed form against federated averaging; the audit's attacks against packets."""

    name = "inversion"
    question = "Is it enough that gradients leave and records stay: can records be read out of what leaves a site?"
    rule = RULE
    one_site = True
    needs: Sequence[str] = ("torch",)

    def steps(self, plan: Plan) -> Sequence[Step]:
        """Leak and worth of every method, other attacks on packets, searches in updates, and the pictures."""
        bench = Bench(plan)
        quick = plan.quick
        out = []

        def add(key: str, text: str, cost: float, run: Callable[[Tell], Mapping[str, Any]]) -> None:
            out.append(Step(key=key, text=text, cost=cost, run=run))

        for method in bench.methods:
            cost = (0.5 if quick else 4.0) if method.ours else (0.3 if quick else 1.0)
            add(f"leak/{method.key}", f"attacking {method.name}", cost, partial(bench.leak, method))
        for method in bench.methods:
            run = partial(_quietly, partial(bench.worth, method))
            add(f"worth/{method.key}", f"what {method.name} is worth", 0.03 * bench.effort.repeats, run)
        for method in bench.methods:
            if method.ours:
                add(f"more/{method.key}", f"other attacks on {method.name}", 1.5, partial(more, bench, method))
        for number, one in enumerate(bench.searches):
            cost = sum(len(this.rows) ** 0.5 for this in one.tries) * len(one.attacks) * (0.2 if quick else 0.3)
            text = f"searching for records in updates: {one.setting}"
            add(f"search/{number}", text, cost, partial(bench.searched, number))
        add("pictures", "what packets say of the same records", 1.0, partial(_quietly, bench.pictured))
        return out

    def conclude(self, plan: Plan, done: Mapping[str, Mapping[str, Any]]) -> Found:
        """The verdict by :data:`~outroute.walls.inversion_verdict.RULE`."""
        return conclude(Bench(plan), done)


WALL = Inversion()
