"""The wall "byzantine": what lies cost, by share of those who lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from outroute import trial
from outroute.datasets import Dataset
from outroute.errors import DataError
from outroute.schema import Distiller
from outroute.simulation import ADVERSARIES
from outroute.trial.robust_rules import FLOWER_RULES
from outroute.walls.base import CannotRunError, Found, Plan, Step, Tell
from outroute.walls.byzantine_report import found_of
from outroute.walls.byzantine_score import BESIDE, MARGIN, NAMED
from outroute.walls.hostile_cases import Table, cases_of, tables_of
from outroute.walls.hostile_federated import baseline_rows, federated_rows
from outroute.walls.hostile_rows import rows_of
from outroute.walls.hostile_scores import ours
from outroute.walls.opponents import baselines

__all__ = ["ATTACKS", "ATTACKS_QUICK", "SHARES", "WALL", "Byzantine"]

ATTACKS = ("label-flip", "backdoor", "free-rider", "adaptive")
"""Of the adversaries of `outroute.simulation`: the plainest, the targeted, the idle, and the one that knows the rules.
A user may name others or all of them (``Plan.attacks``); these keep the wall within its minutes."""
ATTACKS_QUICK = ("label-flip", "backdoor", "free-rider")
SHARES = (30, 50, 90)
"""Attackers among all peers, per cent, beside the deployment's own share."""
SHARES_QUICK = (50,)
SHARE_MOST = 90
"""Per cent; a network in which nobody is honest has nothing to be measured."""
REPEATS_QUICK = 2
REPEATS_IID = 5
"""Splits of the clean partition, which is shown and decides nothing."""
SITES_MOST = 8
"""Sites that take part, those with most records."""
ROWS_MOST = 500
"""Records of a site: a robust rule's rounds take their time."""
VICTIMS = 1
"""Sites that ask in each split, taking turns."""
RULES = (*FLOWER_RULES, "bulyan")
NATURAL, IID = "natural", "iid"


class Byzantine:
    """See `outroute.walls.base.Wall`."""

    name = "byzantine"
    question = "Can I trust all participants, and what do the lies of some cost?"
    rule = (
        "In each split one site asks (they take turns); its peers are honest, and attackers stand beside them, so that "
        "they are a given share of all peers. Each attack strikes both sides: packets that lie, and federated clients "
        "with the same lying records and, where the attack is one on updates, lying updates. A method's figure is its "
        "log-loss (for numbers the R2, where the asking site has at least 10 held-out cases; all answers are cut to "
        "the outcome's declared range) at the share of the deployment (`hostile_share`) under the attack that is worst "
        f"for it. Outcome routing with its elections is compared with {NAMED}, whose root set is the records of the "
        "asking site, so that both have the same; it was named as the strongest robust rule before any run (for "
        "numbers: with the robust rule, recalibrated, of the least mean validation loss at the asking sites, nobody "
        "lying; test cases do not choose it). Paired "
        "differences by split with Nadeau-Bengio intervals of 95 %: a side wins when the interval excludes zero and "
        f"the mean difference is above {MARGIN} (nats, or R2); else it is a tie. Beside that, for every method, the "
        f"largest share up to which no attack costs more than {MARGIN} against its own attack-free score, nor leaves "
        f"it more than {MARGIN} worse than own records alone. Robust rules are told how many attackers there are, and "
        "standard scores come from honest clients only. Sites as they are decide; the same records dealt out at "
        "random are shown."
    )
    one_site = False
    needs: Sequence[str] = ("flwr",)

    def steps(self, plan: Plan) -> Sequence[Step]:
        """By partition, split and side.

        Raises:
            DataError: there is no attack of such a name.
            CannotRunError: packets are private.
        """
        if plan.dataset.schema.privacy.distiller is Distiller.PRIVATE:
            raise CannotRunError(
                "liars are measured with packets of cohorts, and this schema's distiller is private: leave the wall "
                "out with --walls, or give a schema whose distiller is cohort"
            )
        if unknown := [name for name in plan.attacks if name not in ADVERSARIES]:
            raise DataError(
                f"There is no attack {unknown[0]!r}; there are {', '.join(ADVERSARIES)}, and all", code="walls.attack"
            )
        scene = _Scene(plan)
        more = len(attacks_of(plan)) / len(ATTACKS_QUICK if plan.quick else ATTACKS)
        repeats = min(plan.repeats, REPEATS_QUICK) if plan.quick else plan.repeats
        splits = [(NATURAL, i) for i in range(repeats)]
        splits += [(IID, i) for i in range(0 if plan.quick else min(plan.repeats, REPEATS_IID))]
        made = []
        for partition, repeat in splits:
            where = "" if partition == NATURAL else ", records dealt out at random"
            count = repeats if partition == NATURAL else min(plan.repeats, REPEATS_IID)
            for side, text, cost, run in (
                ("outroute", "packets that lie", 2.5, scene.packets),
                ("federated", "federated clients that lie", 5.0 if plan.quick else 11.0, scene.clients),
            ):
                made.append(
                    Step(
                        key=f"{partition}/{repeat}/{side}",
                        text=f"split {repeat + 1} of {count}: {text}{where}",
                        cost=cost * more,
                        run=partial(run, partition, repeat),
                    )
                )
        return made

    def conclude(self, plan: Plan, done: Mapping[str, Mapping[str, Any]]) -> Found:
        """The verdict."""
        return found_of(plan, done, shares=shares_of(plan), attacks=attacks_of(plan))


def attacks_of(plan: Plan) -> tuple[str, ...]:
    """Names of the attacks: the user's, in the order of `ADVERSARIES`, or the wall's own."""
    if plan.attacks:
        return tuple(name for name in ADVERSARIES if name in plan.attacks)
    return ATTACKS_QUICK if plan.quick else ATTACKS


def shares_of(plan: Plan) -> tuple[int, ...]:
    """Shares of attackers, per cent, the deployment's among them."""
    own = min(round(100 * plan.deployment.hostile_share), SHARE_MOST)
    return tuple(sorted({own, *(SHARES_QUICK if plan.quick else SHARES)}))


@dataclass(slots=True)
class _Scene:
    """The table in both partitions; the split that was used last is kept, since both sides use it."""

    plan: Plan
    _prepared: dict[str, trial.Prepared] = field(default_factory=dict)
    _last: tuple[str, int, Table] | None = None

    def table(self, partition: str, repeat: int) -> Table:
        """One split."""
        if self._last is None or self._last[:2] != (partition, repeat):
            if partition not in self._prepared:
                self._prepared[partition] = trial.prepare(_dealt(self.plan, partition))
            made = tables_of(self._prepared[partition], partition, 1, k=self.plan.k, seed=self.plan.seed, first=repeat)
            self._last = (partition, repeat, next(made))
        return self._last[2]

    def packets(self, partition: str, repeat: int, tell: Tell) -> dict[str, Any]:
        """Outcome routing, with elections and without, own records alone, and baselines."""
        tell("baselines")
        plan, table = self.plan, self.table(partition, repeat)
        rows = baseline_rows(table, baselines(BESIDE), victims=VICTIMS)
        tell("packets of liars are made, elected and answered from")
        for case in cases_of(table, VICTIMS):
            rows += rows_of(case, attacks_of(plan), shares_of(plan), ours)
        return {"rows": rows}

    def clients(self, partition: str, repeat: int, tell: Tell) -> dict[str, Any]:
        """Federated learning under all rules."""
        tell("robust rules are tuned, and trained with liars")
        plan = self.plan
        rows = federated_rows(
            self.table(partition, repeat),
            attacks_of(plan),
            shares_of(plan),
            victims=VICTIMS,
            rules=RULES,
        )
        return {"rows": rows}


def _dealt(plan: Plan, partition: str) -> Dataset:
    """The table's largest sites as they are, or the same records dealt out at random to as many of the same sizes."""
    data = trial.prepare(plan.dataset).dataset
    rng = np.random.default_rng([plan.seed, 0xB12A])
    sizes = {site: int((data.site == site).sum()) for site in data.sites}
    largest = sorted(sizes, key=lambda site: -sizes[site])[:SITES_MOST]
    kept = [rng.permutation(np.flatnonzero(data.site == site))[:ROWS_MOST] for site in largest]
    data = data.rows(np.sort(np.concatenate(kept)))
    if partition == NATURAL:
        return data
    site = data.site[rng.permutation(len(data))]
    case = np.array([f"{number}" for number in range(len(data))], dtype=object)
    return replace(data, site=site, case=case)


WALL = Byzantine()
