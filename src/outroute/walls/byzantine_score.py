"""Figures of the Byzantine wall from the rows of its steps: worst attacks, costs, breakdown, and the verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outroute import trial
from outroute.trial.intervals import Difference
from outroute.walls.base import Winner
from outroute.walls.hostile_scores import attackers

__all__ = ["BESIDE", "ELECTIONS", "LOCAL", "MARGIN", "NAMED", "NO_ELECTION", "ROBUST", "Figures", "decided"]

MARGIN = 0.01
"""Nats of log-loss, or R2 of numbers; written down before any run."""
ELECTIONS, NO_ELECTION, LOCAL = "elections", "no election", "local"
"""Methods as rows name them."""
BESIDE = ("majority", "pooled", "pooled_site", "one_shot")
"""Baselines with nobody lying, as rows name them: what there would be to win."""
NAMED = "fltrust recalibrated"
"""The strongest of the other side for classes, named before any run: its root set is the asking site's records."""
ROBUST = ("krum", "multikrum", "median", "trimmed", "bulyan", "fltrust")
"""Of which validation names one for numbers; FedAvg is no robust rule."""
TEST_TO_TRAIN = trial.TEST_SHARE / (1 - trial.TEST_SHARE)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """Rows of one partition, and what follows from them.

    Attributes:
        rows: of `hostile_rows` and `hostile_federated`.
        loss: what is to be small; see `outroute.walls.hostile_scores.loss_name`.
    """

    rows: Sequence[Row]
    loss: str = "log_loss"

    @property
    def numbers(self) -> bool:
        """Whether outcomes are numbers: then the loss is 1 - R2, and R2 is what is shown."""
        return self.loss == "unexplained"

    @property
    def metric(self) -> str:
        """What is shown, for people."""
        return "R2" if self.numbers else "log-loss"

    @property
    def unit(self) -> str:
        """Of a difference."""
        return "R2" if self.numbers else "nats"

    def shown(self, loss: float) -> float:
        """A loss as it is shown."""
        return 1 - loss if self.numbers else loss

    def methods(self) -> list[str]:
        """All: ours first, then others in the order in which they came, and what cannot win last."""
        names = dict.fromkeys(str(row["method"]) for row in self.rows)
        last = (LOCAL, *BESIDE)
        return sorted(names, key=lambda name: (name in last, name not in (ELECTIONS, NO_ELECTION), name != ELECTIONS))

    def attacks(self) -> list[str]:
        """All that were tried."""
        return list(dict.fromkeys(str(row["attack"]) for row in self.rows if row["attack"]))

    def at(self, method: str, attack: str, share: int, metric: str = "") -> dict[int, float]:
        """By split, the mean over the sites that asked; `share` in per cent, 0 for nobody lying; "" for the loss."""
        metric = metric or self.loss
        found: dict[int, list[float]] = defaultdict(list)
        for row in self.rows:
            if row["method"] != method or row.get(metric) is None:
                continue
            wanted = attackers(int(row["peers"]), share / 100)
            if row["attackers"] == wanted and (not wanted or row["attack"] == attack):
                found[int(row["repeat"])].append(float(row[metric]))
        return {repeat: float(np.nanmean(values)) for repeat, values in found.items() if np.isfinite(values).any()}

    def clean(self, method: str, metric: str = "") -> dict[int, float]:
        """By split, nobody lying."""
        return self.at(method, "", 0, metric)

    def worst(self, method: str, share: int) -> str | None:
        """The attack that is worst for a method, by its mean over splits; None where nothing was measured."""
        if not share:
            return ""
        means = {attack: _mean(self.at(method, attack, share).values()) for attack in self.attacks()}
        known = {attack: value for attack, value in means.items() if np.isfinite(value)}
        return max(known, key=lambda attack: known[attack]) if known else None

    def under_worst(self, method: str, share: int) -> dict[int, float]:
        """By split, under the attack that is worst for this method."""
        attack = self.worst(method, share)
        return {} if attack is None else self.at(method, attack, share)

    def cost(self, method: str, attack: str, share: int) -> Difference:
        """Loss above the method's own attack-free one."""
        return paired(self.at(method, attack, share), self.clean(method))

    def breakdown(self, method: str, shares: Sequence[int], end: str = "mean") -> int | None:
        """Largest share up to which no attack costs more than the margin, nor leaves it worse than own records alone.

        Args:
            method: as rows name it.
            shares: that were tried, per cent.
            end: "mean"; "high": up to which that is sure, by the intervals of the costs; "low": from which on it surely
                is not so any more, the last share before.

        Returns:
            0 where even the smallest share that was tried does; None where nothing was measured.
        """
        least: int | None = None
        for share in sorted(share for share in shares if share):
            for attack in self.attacks():
                struck = self.at(method, attack, share)
                if not struck:
                    return least  # not defined at this share (Bulyan with too few clients)
                alone = self.clean(LOCAL)
                if getattr(self.cost(method, attack, share), end) > MARGIN:
                    return least or 0
                if set(struck) & set(alone) and getattr(paired(struck, alone), end) > MARGIN:
                    return least or 0
            least = share
        return least

    def behind_alone(self, method: str) -> bool:
        """Whether it is worse than own records alone with nobody lying, by more than the margin."""
        return paired(self.clean(method), self.clean(LOCAL)).mean > MARGIN

    def named(self, share: int) -> str:
        """The rule that stands for the other side: `NAMED`; for numbers the robust rule, recalibrated, of the least
        mean validation loss at the asking sites with nobody lying, of those defined at this share."""
        if not self.numbers:
            return NAMED
        means = {}
        for rule in ROBUST:
            seen = self.clean(rule, "validation")
            if seen and self.under_worst(f"{rule} recalibrated", share):
                means[f"{rule} recalibrated"] = float(np.mean(list(seen.values())))
        return min(means, key=lambda method: means[method], default=NAMED)

    def real_share(self, share: int) -> float:
        """Of all peers, the part that really lies: attackers are whole."""
        found = [
            wanted / (wanted + int(row["peers"]))
            for row in self.rows
            if (wanted := attackers(int(row["peers"]), share / 100)) == row["attackers"]
        ]
        return float(np.mean(found)) if found else share / 100


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """First minus second, by split, with its interval."""
    gaps = [first[repeat] - second[repeat] for repeat in sorted(set(first) & set(second))]
    return trial.difference(gaps, metric="log_loss", margin=MARGIN, test_to_train=TEST_TO_TRAIN)


def interval(values: Mapping[int, float]) -> Difference:
    """Of a mean over splits."""
    return paired(values, dict.fromkeys(values, 0.0))


def decided(gap: Difference) -> Winner:
    """By the rule; `gap` is our loss minus theirs."""
    if gap.high < 0 and gap.mean < -MARGIN:
        return Winner.OUTROUTE
    if gap.low > 0 and gap.mean > MARGIN:
        return Winner.FEDERATED
    return Winner.TIE


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.mean(known)) if known else float("nan")
