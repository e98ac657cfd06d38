"""The non-IID wall: federated learning and outcome routing on sites that differ, split by split.

Each step is one group of methods on one split. Everything is tuned on one inner validation split with the same number
of trials; the federated side is represented by the method that this validation, not the test, puts first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from outroute.trial import Method
from outroute.trial.routing import OutcomeRouting
from outroute.trial.tuning import TUNING_TRIALS
from outroute.walls import opponents
from outroute.walls.base import Found, Plan, Step, Tell
from outroute.walls.noniid_partitions import Partition, check_divisions, known, partitioned
from outroute.walls.noniid_report import found
from outroute.walls.noniid_scores import MARGIN, OURS, Splits
from outroute.walls.noniid_skew import skew
from outroute.walls.noniid_trial import Table, scored

__all__ = ["QUICK_REPEATS", "SWEEP", "SWEEP_METHODS", "SWEEP_REPEATS", "WALL", "NonIid"]

QUICK_REPEATS = 3
"""Splits of a quick look."""
SWEEP_REPEATS = 5
"""Splits of every artificial division: enough to see where the verdict would turn, not to prove it."""
SWEEP = ("iid", "dirichlet:1", "dirichlet:0.1")
"""Divisions of the same records: alike, somewhat skewed, strongly skewed in the outcome. A user may ask for others
(``Plan.divisions``); a quick look has none of its own."""
SWEEP_METHODS = ("fedavg", "fedavg_recal", "fedavg_tuned")
"""Federated methods in those."""
COSTS: Mapping[str, float] = {
    "ours": 1.5,
    "baselines": 6.0,
    "flower": 6.0,
    "private": 2.0,
    "trees": 5.0,
    "scaffold": 4.0,
    "moon": 5.0,
    "fluke": 5.0,
    "papers": 4.0,
}
"""Seconds on one core for four sites of 160 training rows; only for the time that is left."""

_BATCH, _MOST, _USUAL = 32, 16, 20
"""Rows in a batch, batches of a site at most, and batches of those four sites: how costs grow with a table."""


class NonIid:
    """See :class:`~outroute.walls.base.Wall`."""

    name = "noniid"
    question = "My sites differ from each other: does federated learning still learn something that each can use?"
    rule = (
        "Every split gives, for each method, the mean over sites of the log-loss on held-out cases (for numbers the "
        "R2, of sites with at least 10 of them). All methods are tuned on one inner validation split with "
        f"{TUNING_TRIALS} trials each; outcome routing uses one of its trials, the configuration of all tables. The "
        "federated side is represented by the method with the least mean validation loss: test cases do not choose "
        "it. Baselines cannot win. Ours minus that method is paired by split, with a Nadeau-Bengio interval of 95 %: "
        f"a side wins when it is ahead by more than {MARGIN} (nats, or R2) and the interval excludes zero; anything "
        "else is a tie. Written down before any run."
    )
    one_site = False
    needs: Sequence[str] = ("flwr", "torch", "fluke", "xgboost")

    def __init__(
        self,
        *,
        groups: Mapping[str, Sequence[str]] = opponents.GROUPS,
        baselines: Sequence[str] = opponents.BASELINES,
        sweep: Sequence[str] = SWEEP,
    ) -> None:
        """With fewer groups, baselines or artificial divisions, for a shorter measurement."""
        self.groups, self.baselines, self.sweep = groups, baselines, sweep

    def steps(self, plan: Plan) -> Sequence[Step]:
        """How the sites differ, then all groups of methods split by split, then the artificial divisions.

        Raises:
            DataError: a division that the user asked for is none, or cannot be made of this table.
        """
        check_divisions(plan.dataset, plan.divisions, plan.seed)
        table = Table(lambda: plan.dataset, plan.seed)
        scale = _scale(plan)
        out = [
            Step(key="skew", text="how the sites differ", cost=3.0, run=lambda tell: skew(table.prepared, plan.seed))
        ]
        repeats = repeats_of(plan)
        for repeat in range(repeats):
            for group in self._groups(plan):
                out.append(
                    Step(
                        key=f"split-{repeat:02d}/{group}",
                        text=f"split {repeat + 1} of {repeats}: {_WORDS[group]}",
                        cost=COSTS[group] * scale,
                        run=_run(table, repeat, self._methods(plan, group)),
                    )
                )
        return [*out, *self._sweep(plan, scale)]

    def _divisions(self, plan: Plan) -> Sequence[str]:
        """The user's, or the wall's own."""
        if plan.divisions:
            return tuple(dict.fromkeys(str(Partition.parse(text)) for text in plan.divisions))
        return () if plan.quick else self.sweep

    def _sweep(self, plan: Plan, scale: float) -> list[Step]:
        out = []
        repeats = min(SWEEP_REPEATS, repeats_of(plan))
        for text in self._divisions(plan):
            table = Table(partial(partitioned, plan.dataset, Partition.parse(text), plan.seed), plan.seed)
            for repeat in range(repeats):
                out.append(
                    Step(
                        key=f"divided-{text.replace(':', '-')}-{repeat:02d}/all",
                        text=f"the same records divided anew ({text}), split {repeat + 1} of {repeats}",
                        cost=(COSTS["ours"] + COSTS["flower"]) * scale,
                        run=_run(
                            table,
                            repeat,
                            lambda: [
                                _ours(plan),
                                *opponents.baselines(("majority",)),
                                *opponents.federations(SWEEP_METHODS),
                            ],
                        ),
                    )
                )
        return out

    def conclude(self, plan: Plan, done: Mapping[str, Mapping[str, Any]]) -> Found:
        """The verdict from the splits that are there."""
        classes = len(plan.dataset.schema.outcome.classes)
        sweep = {
            text: Splits.gather(done, f"divided-{text.replace(':', '-')}-", classes)
            for text in self._divisions(plan)
            if any(key.startswith(f"divided-{text.replace(':', '-')}-") for key in done)
        }
        return found(
            plan,
            Splits.gather(done, "split-", classes),
            sweep,
            done.get("skew"),
            asked=repeats_of(plan),
        )

    def _groups(self, plan: Plan) -> tuple[str, ...]:
        """Groups of methods that are run on every split."""
        classes = len(plan.dataset.schema.outcome.classes)
        groups = opponents.QUICK if plan.quick else self.groups
        some = (g for g, names in groups.items() if any(not opponents.cannot(name, classes) for name in names))
        return ("ours", "baselines", *some)

    def _methods(self, plan: Plan, group: str) -> Callable[[], Sequence[Method]]:
        """Made when they are needed: only then are the libraries imported."""
        classes = len(plan.dataset.schema.outcome.classes)

        def make() -> Sequence[Method]:
            if group == "ours":
                return [_ours(plan)]
            if group == "baselines":
                return opponents.baselines(self.baselines)
            names = (opponents.QUICK if plan.quick else self.groups)[group]
            return opponents.federations([name for name in names if not opponents.cannot(name, classes)])

        return make


def repeats_of(plan: Plan) -> int:
    """Splits of the table as it is."""
    return min(plan.repeats, QUICK_REPEATS) if plan.quick else plan.repeats


_WORDS: Mapping[str, str] = {
    "ours": "outcome routing",
    "baselines": "baselines",
    "flower": "FedAvg and FedProx",
    "private": "FedAvg with Flower's differential privacy",
    "trees": "federated XGBoost",
    "scaffold": "SCAFFOLD",
    "moon": "MOON",
    "fluke": "gossip and Ditto",
    "papers": "FedMA, FedProto and FedMD",
}


def _ours(plan: Plan) -> Method:
    return OutcomeRouting(k=plan.k, name=OURS)


def _run(table: Table, repeat: int, make: Callable[[], Sequence[Method]]) -> Callable[[Tell], Mapping[str, Any]]:
    return lambda tell: scored(table, repeat, make(), {**opponents.LABELS, OURS: "outcome routing"}, tell)


def _scale(plan: Plan) -> float:
    """How much longer a method takes here than on four sites of 160 training rows."""
    data = known(plan.dataset)
    batches = sum(min(-(-int(0.7 * (data.site == site).sum()) // _BATCH), _MOST) for site in data.sites)
    return max(batches / _USUAL, 0.2)


WALL = NonIid()
"""For the runner."""
