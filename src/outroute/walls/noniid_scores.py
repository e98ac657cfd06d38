"""From the steps of the non-IID wall to means, paired differences and the verdict: the same steps, the same verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.trial import Difference, difference
from outroute.trial.metrics import HIGHER_IS_BETTER
from outroute.walls.base import Winner

__all__ = ["MARGIN", "OURS", "Splits", "Verdict", "verdict"]

MARGIN = 0.01
"""Nats of log-loss, or R2, by which the better side must be ahead; written down before any run."""
OURS = "outroute"
"""Name of outcome routing among the methods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """All splits of one table.

    Attributes:
        results: per split, what its steps found, put together (see `outroute.walls.noniid_trial.scored`).
        classes: number of classes, 0 for numbers.
    """

    results: Mapping[int, Mapping[str, Any]]
    classes: int

    @staticmethod
    def gather(done: Mapping[str, Mapping[str, Any]], prefix: str, classes: int) -> Splits:
        """The steps whose keys are `prefix`, the number of the split, a slash and the name of a group."""
        results: dict[int, dict[str, Any]] = {}
        for key, found in done.items():
            head, _, _ = key.removeprefix(prefix).partition("/")
            if not key.startswith(prefix) or not head.isdigit():
                continue
            mine = results.setdefault(int(head), {**found, "methods": {}})
            mine["methods"].update(found["methods"])
        return Splits(results=dict(sorted(results.items())), classes=classes)

    @property
    def metric(self) -> str:
        """The one that the verdict rests on."""
        return "log_loss" if self.classes else "r2"

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that are shown."""
        return ("log_loss", "auc", "accuracy") if self.classes else ("r2", "mae")

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods with at least one split."""
        names: dict[str, None] = {}
        for result in self.results.values():
            names.update(dict.fromkeys(result["methods"]))
        return tuple(names)

    def per_split(self, method: str, metric: str) -> dict[int, float]:
        """Mean over sites of every split in which the method took part."""
        out = {}
        for number, result in self.results.items():
            if method in result["methods"]:
                sites = result["methods"][method]["sites"]
                values = [
                    one[metric] for site, one in sites.items() if metric not in ("auc", "r2") or result["enough"][site]
                ]
                out[number] = _mean(values)
        return out

    def mean(self, method: str, metric: str) -> float:
        """Mean over sites, then over splits."""
        return _mean(self.per_split(method, metric).values())

    def interval(self, method: str, metric: str) -> Difference:
        """Of the mean itself."""
        return self._interval(list(self.per_split(method, metric).values()), metric)

    def minus(self, first: str, second: str, metric: str) -> Difference:
        """First minus second method, paired by split."""
        one, other = self.per_split(first, metric), self.per_split(second, metric)
        return self._interval([one[i] - other[i] for i in one if i in other], metric)

    def site_means(self, method: str, metric: str) -> dict[str, float]:
        """Mean over splits at each site."""
        return {site: _mean(of.values()) for site, of in self._at_sites(method, metric).items()}

    def site_interval(self, method: str, metric: str, site: str, minus: str = "") -> Difference:
        """Of the mean at a site, or of its difference to another one in the same splits."""
        sites = self._at_sites(method, metric)
        less = sites[minus] if minus else dict.fromkeys(sites[site], 0.0)
        return self._interval([value - less[i] for i, value in sites[site].items() if i in less], metric)

    def _at_sites(self, method: str, metric: str) -> dict[str, dict[int, float]]:
        """By site and split."""
        found: dict[str, dict[int, float]] = {}
        for number, result in self.results.items():
            for site, one in result["methods"].get(method, {"sites": {}})["sites"].items():
                if one[metric] is not None:
                    found.setdefault(site, {})[number] = one[metric]
        return dict(sorted(found.items()))

    def kept_interval(self, method: str, key: str) -> Difference:
        """Of the mean of a detail that is a number."""
        return self._interval(self.kept(method, key), "log_loss")

    def kept(self, method: str, key: str) -> list[Any]:
        """A detail of a method, of all splits that have it."""
        rows = [result["methods"][method] for result in self.results.values() if method in result["methods"]]
        return [row[key] for row in rows if row.get(key) is not None]

    def curve(self, method: str) -> tuple[list[float], list[float]]:
        """Rounds, and the validation loss after them: mean over the splits that went so far."""
        found: dict[float, list[float]] = {}
        for points in self.kept(method, "curve"):
            for rounds, loss in points:
                if loss is not None and math.isfinite(loss):
                    found.setdefault(float(rounds), []).append(float(loss))
        rounds = sorted(found)
        return rounds, [_mean(found[one]) for one in rounds]

    def strongest(self, names: Sequence[str]) -> str | None:
        """The method with the least mean validation loss over the splits that all of them finished."""
        tuned = [name for name in names if self.kept(name, "validation")]
        if not tuned:
            return None
        common = [
            result["methods"] for result in self.results.values() if all(name in result["methods"] for name in tuned)
        ]
        rows = common or [result["methods"] for result in self.results.values()]
        return min(
            tuned, key=lambda name: _mean([row[name]["validation"] for row in rows if name in row] or [math.inf])
        )

    def validation(self, method: str) -> float:
        """Mean validation loss."""
        return _mean(self.kept(method, "validation"))

    def _interval(self, values: Sequence[float], metric: str) -> Difference:
        train = _mean([sum(result["train"].values()) for result in self.results.values()])
        test = _mean([sum(result["test"].values()) for result in self.results.values()])
        return difference(values, metric=metric, margin=MARGIN, test_to_train=test / max(train, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Who wins.

    Attributes:
        winner: by the rule.
        strongest: the federated method that stands for its side; None where none was finished.
        gap: ours minus that one, in the metric's unit; None without it.
        lead: of ours, positive where ours is better.
        sure: whether the interval excludes zero.
        equal: whether the interval lies inside the margin on both sides.
    """

    winner: Winner
    strongest: str | None
    gap: Difference | None
    lead: float
    sure: bool
    equal: bool


def verdict(splits: Splits, federated: Sequence[str]) -> Verdict:
    """The rule: ahead by more than the margin, with an interval that excludes zero; else a tie."""
    strongest = splits.strongest([name for name in federated if name in splits.methods])
    if strongest is None or OURS not in splits.methods:
        return Verdict(winner=Winner.TIE, strongest=strongest, gap=None, lead=0.0, sure=False, equal=False)
    gap = splits.minus(OURS, strongest, splits.metric)
    lead = gap.mean if HIGHER_IS_BETTER[splits.metric] else -gap.mean
    sure = gap.low > 0 or gap.high < 0
    winner = Winner.TIE
    if sure and abs(gap.mean) > MARGIN:
        winner = Winner.OUTROUTE if lead > 0 else Winner.FEDERATED
    equal = gap.low >= -MARGIN and gap.high <= MARGIN
    return Verdict(winner=winner, strongest=strongest, gap=gap, lead=lead, sure=sure, equal=equal)


def _mean(values: Any) -> float:
    known: NDArray[np.float64] = np.array([v for v in values if v is not None and math.isfinite(v)], dtype=np.float64)
    return float(known.mean()) if len(known) else math.nan
