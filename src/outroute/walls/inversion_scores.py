"""One method of the inversion wall: what it leaks and what it is worth, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outroute.audit.utility import TEST_SHARE
from outroute.trial.intervals import counted, difference
from outroute.trial.metrics import LIMITS
from outroute.walls.base import Score
from outroute.walls.inversion_sides import Method

__all__ = ["EXACT", "MARGIN", "READ_OFF", "Row", "bounds_db", "row_of", "scores_of"]

MARGIN = 0.01
"""AUC: what still counts as equally good."""
EXACT = 60.0
"""Decibel from which a guess is exact (a thousandth of a standard deviation)."""
READ_OFF = 3.0
"""Decibel above the best public guess from which values count as read off: half of the squared error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method, as far as it was measured; `bounds` and `values_bounds` are intervals of leak and values."""

    method: Method
    leak: float | None
    bounds: tuple[float, float]
    attack: str
    membership: Mapping[str, Any] | None
    naming: Mapping[str, Any] | None
    values: float | None
    values_bounds: tuple[float, float] | None
    worth: Mapping[str, Any] | None

    @property
    def standing(self) -> bool:
        """Whether it may stand for its side at equal worth."""
        return (
            self.method.whole
            and self.leak is not None
            and self.worth is not None
            and self.worth["auc"] is not None
            and (self.values is None or self.values <= READ_OFF)
        )

    def auc(self, start: int, step: int) -> float:
        """Mean AUC over some splits."""
        assert self.worth is not None
        some = [v for v in self.worth["splits"][start::step] if v is not None]
        return float(np.mean(some)) if some else float("nan")


def row_of(method: Method, done: Mapping[str, Mapping[str, Any]], searches: Sequence[Mapping[str, Any]]) -> Row:
    """A method from the steps that are done; `searches` are all that were, of which it may have one."""
    found = done.get(f"leak/{method.key}")
    leak, attack, values, bounds = None, "", None, (0.0, 1.0)
    around: tuple[float, float] | None = None
    if found is not None:
        reached = {}
        if found["membership"] is not None:
            reached["membership"] = 2 * found["membership"]["likelihood_ratio"]["auc"]["value"] - 1
        if found["naming"] is not None:
            reached["naming"] = found["naming"]["advantage"]
        if reached:
            attack = max(reached, key=lambda name: reached[name])
            leak = max(reached[attack], 0.0)
            bounds = _bounds(found[attack], attack)
        values, around = found["values_db"], found.get("values_bounds")
    for one in searches:
        if one["setting"] == method.search and one["rows"]:
            best = max(one["rows"], key=lambda row: row["advantage_db"])
            values, around = best["advantage_db"], best.get("advantage_db_bounds")
    return Row(
        method=method,
        leak=leak,
        bounds=bounds,
        attack=attack,
        membership=None if found is None else found["membership"],
        naming=None if found is None else found["naming"],
        values=values,
        values_bounds=around,
        worth=done.get(f"worth/{method.key}"),
    )


def _bounds(of: Mapping[str, Any], attack: str) -> tuple[float, float]:
    """Interval of an attack's advantage; of members named, as if each were named or not by itself."""
    if attack == "membership":
        area = of["likelihood_ratio"]["auc"]
        return max(2 * area["low"] - 1, 0.0), max(2 * area["high"] - 1, 0.0)
    low, high = (max(value - of["chance"], 0.0) / max(1 - of["chance"], 1e-9) for value in _named(of))
    return low, high


def _named(of: Mapping[str, Any]) -> tuple[float, float]:
    return counted(round(of["named"] * of["members"]), of["members"])


def _over_splits(values: Sequence[float | None], metric: str) -> tuple[float | None, float | None]:
    """Nadeau-Bengio interval of a mean over splits; none for one split."""
    known = [value for value in values if value is not None]
    made = difference(known, metric=metric, margin=MARGIN, test_to_train=TEST_SHARE / (1 - TEST_SHARE))
    least, most = LIMITS[metric]
    return (max(made.low, least), min(made.high, most)) if np.isfinite(made.low) else (None, None)


def bounds_db(value: float, bounds: Sequence[float] | None) -> tuple[float | None, float | None]:
    """Interval of decibel as it is shown: none where values are exact, or nothing is known of it."""
    if bounds is None or value >= EXACT:
        return None, None
    return min(bounds[0], EXACT), min(bounds[1], EXACT)


def scores_of(row: Row) -> list[Score]:
    """Its figures, with intervals where there are any."""
    name, ours, baseline = row.method.name, row.method.ours, not row.method.whole
    out = []
    if row.leak is not None:
        out.append(
            Score(
                method=name, metric="leak (0 to 1)", value=row.leak, low=row.bounds[0], high=row.bounds[1], ours=ours,
                higher_is_better=False, baseline=baseline, note=f"by {row.attack}",
            )
        )  # fmt: skip
    if row.membership is not None:
        area = row.membership["likelihood_ratio"]["auc"]
        out.append(
            Score(
                method=name, metric="membership, AUC", value=area["value"], low=area["low"], high=area["high"],
                ours=ours, higher_is_better=False, baseline=baseline,
            )
        )  # fmt: skip
    if row.naming is not None:
        low, high = _named(row.naming)
        out.append(
            Score(
                method=name, metric="named from a list", value=row.naming["named"], low=low, high=high, ours=ours,
                higher_is_better=False, baseline=baseline, note=f"chance {row.naming['chance']:.2f}",
            )
        )  # fmt: skip
    if row.values is not None:
        around = bounds_db(row.values, row.values_bounds)
        note = "no interval: one packet or update" if around[0] is None else ""
        if row.values >= EXACT:
            note = "values are exact"
        out.append(
            Score(
                method=name, metric="values, dB above public", value=min(row.values, EXACT), low=around[0],
                high=around[1], ours=ours, higher_is_better=False, baseline=baseline, note=note,
            )
        )  # fmt: skip
    if row.worth is not None and row.worth["auc"] is not None:
        for metric, better in (("auc", True), ("log_loss", False)):
            label = "AUC" if metric == "auc" else "log-loss"
            over = _over_splits(row.worth["splits" if metric == "auc" else "losses"], metric)
            out.append(
                Score(
                    method=name, metric=label, value=row.worth[metric], low=over[0], high=over[1], ours=ours,
                    higher_is_better=better, baseline=baseline,
                )
            )  # fmt: skip
    return out
