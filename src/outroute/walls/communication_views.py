"""Tables and pictures of the communication wall."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from outroute.trial import difference
from outroute.trial.metrics import HIGHER_IS_BETTER, LIMITS
from outroute.walls.base import Curve, Figure, Part, Score
from outroute.walls.communication_model import SECURE, Costs, secure_bytes
from outroute.walls.communication_plan import Needed
from outroute.walls.communication_train import METHODS
from outroute.walls.units import amount

__all__ = ["curve_figure", "needed_text", "scores_part", "secure_scores", "wire_part"]

_NAMES = {"log_loss": "log-loss", "auc": "AUC", "accuracy": "accuracy", "r2": "R2", "mae": "mean abs. error"}
UNSURE = "; no interval: from these splits it is not sure that it gets there"
_BASELINES = {
    "majority": "base rate of the site",
    "local": "each site alone",
    "pooled_recal": "all records pooled, recalibrated",
    "pooled_site": "all records pooled with the site's name",
}


def _mean(values: Sequence[float | None], ratio: float, metric: str) -> tuple[float | None, float | None, float | None]:
    """Mean and its interval over splits."""
    known = [value for value in values if value is not None]
    if not known:
        return None, None, None
    found = difference(known, metric=metric, margin=0.0, test_to_train=ratio)
    if not np.isfinite(found.low):
        return found.mean, None, None
    least, most = LIMITS[metric]
    return found.mean, max(found.low, least), min(found.high, most)


def scores_part(splits: Sequence[Mapping[str, Any]], *, metric: str, target: float) -> Part:
    """How well everybody answers, after the last round."""
    ratio = float(np.mean([one["test"] for one in splits]) / max(np.mean([one["train"] for one in splits]), 1.0))
    scores: list[Score] = []

    def add(method: str, of: Sequence[Mapping[str, Any]], *, ours: bool = False, baseline: bool = False) -> None:
        for name in of[0]:
            if name not in _NAMES:
                continue
            value, low, high = _mean([one[name] for one in of], ratio, name)
            scores.append(
                Score(
                    method=method,
                    metric=_NAMES[name],
                    value=value,
                    low=low,
                    high=high,
                    ours=ours,
                    higher_is_better=HIGHER_IS_BETTER[name],
                    baseline=baseline,
                )
            )

    add("outcome routing", [one["ours"]["scores"] for one in splits], ours=True)
    for key, method in METHODS.items():
        add(method.name + ", recalibrated", [one["federated"][key]["recal"][-1] for one in splits])
    add("federated averaging, as it is", [one["federated"]["fedavg"]["plain"][-1] for one in splits])
    for key, name in _BASELINES.items():
        add(name, [one["baselines"][key] for one in splits], baseline=True)
    return Part(
        title="Scores of both sides",
        text=f"Means over the sites of {len(splits)} splits, federated methods after their last round. The target is "
        f"{'an' if metric == 'R2' else 'a'} {metric} of {target:.3f}.",
        scores=scores,
    )


def curve_figure(
    splits: Sequence[Mapping[str, Any]],
    rounds: Mapping[str, Sequence[int]],
    spent: Callable[..., float],
    ours: Sequence[float] | Any,
    *,
    metric: str,
    target: float,
) -> Figure:
    """Score against bytes, a line for each federated method, a point for outcome routing."""
    key_of = "log_loss" if metric == "log-loss" else "r2"

    def mean(values: Sequence[float | None]) -> float:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else float("nan")

    curves = []
    for key, method in METHODS.items():
        per_round = [
            mean([one["federated"][key]["recal"][at][key_of] for one in splits]) for at in range(len(rounds[key]))
        ]
        x = [spent(key, count) for count in rounds[key]]
        curves.append(Curve(label=method.name, x=x, y=per_round, points=len(x) == 1))
        if key == "fedavg":
            flower = [spent(key, count, flower=True) for count in rounds[key]]
            curves.append(Curve(label=f"{method.name}, in Flower's messages", x=flower, y=per_round))
    mine = [one["ours"]["scores"][key_of] for one in splits]
    curves.append(Curve(label="outcome routing", x=[float(np.mean(ours))], y=[mean(mine)], ours=True, points=True))
    raw = [float(np.mean([min(one["raw"].values()) for one in splits]))]
    pooled = mean([one["baselines"]["pooled_recal"][key_of] for one in splits])
    curves.append(Curve(label="uploading the rows", x=raw, y=[pooled], baseline=True, points=True))
    every = [x for curve in curves for x in curve.x]
    curves.append(Curve(label="the target", x=[min(every), max(every)], y=[target, target], baseline=True))
    better = "lower" if metric == "log-loss" else "higher"
    return Figure(
        title=f"{metric[0].upper()}{metric[1:]} per bytes",
        caption=f"Mean {metric} over the sites ({better} is better) against the bytes at one site's line until then; "
        "points of a line are rounds of training.",
        curves=curves,
        x="bytes at one site's line, both ways",
        y=metric,
        log_x=True,
    )


def wire_part(costs: Costs, splits: Sequence[Mapping[str, Any]]) -> Part:
    """What was measured on real connections, and what outcome routing's bytes were."""
    flower = costs.flower
    scores = [
        Score(method="our link (TLS 1.3)", metric="bytes", value=costs.fixed, ours=True, note="for each frame"),
        Score(
            method="our link, a connection", metric="bytes", value=costs.connect, ours=True, note="handshake, both ways"
        ),
        Score(
            method="a member that stays connected",
            metric="bytes",
            value=costs.idle_each,
            ours=True,
            note="each second, for every member of the network, both ways",
        ),
        Score(
            method="a round of Flower",
            metric="bytes",
            value=flower["up"]["fixed"] + flower["down"]["fixed"],
            note="besides the arrays: asking, objects one by one, confirmations, both ways, over TLS",
        ),
        Score(
            method="Flower's client asking in vain", metric="bytes", value=flower["poll"], note="every three seconds"
        ),
        Score(method="Flower's client joining and leaving", metric="bytes", value=flower["join"]),
    ]
    if (secure := costs.secure) is not None:
        each, slope = (secure["up"][name] + secure["down"][name] for name in ("each", "slope"))
        scores.append(
            Score(
                method="a round of Flower's secure aggregation (SecAgg+)",
                metric="bytes",
                value=secure["up"]["fixed"] + secure["down"]["fixed"],
                note=f"four messages each way; {each:,.0f} more for each neighbour, {slope:.0f} for each parameter. "
                f"The sum is off by {secure['error']:.1e} at most",
            )
        )
    if splits:
        topics = sorted({name for one in splits for name in one["ours"]["bytes"]})
        for name in topics:
            value = float(np.mean([one["ours"]["bytes"].get(name, 0) for one in splits]))
            scores.append(
                Score(
                    method=f"outcome routing: {name}",
                    metric="bytes",
                    value=value,
                    ours=True,
                    note="of a split, at a site",
                )
            )
    return Part(
        title="What the wire carries",
        text="Measured through a relay that counts what TCP carries in both directions; headers of TCP and IP are on "
        "neither side.",
        scores=scores,
    )


def needed_text(needed: Needed | None, *, known: bool) -> str:
    """What a federated method needed, for people; `known`: its bytes have an interval."""
    if needed is None:
        return "does not reach the target"
    rounds = f"{needed.rounds} round{'s' if needed.rounds != 1 else ''}"
    return f"{rounds}; {amount(needed.flower)} in Flower's own messages{'' if known else UNSURE}"


def secure_scores(
    costs: Costs, one: Mapping[str, Any], needed: Needed | None, between: tuple[int, int] | None
) -> list[Score]:
    """Federated averaging of which the server sees sums only; never the leanest, so it is shown beside."""
    if needed is None or costs.secure is None:
        return []

    def spent(weights: int, rounds: int) -> float | None:
        return secure_bytes(costs, weights=weights, slots=one["slots"], rounds=rounds, nodes=one["sites"])

    return [
        Score(
            method=SECURE,
            metric="bytes at a site, both ways",
            value=spent(needed.weights, needed.rounds),
            low=spent(needed.weights, between[0]) if between else None,
            high=spent(needed.weights, between[1]) if between else None,
            higher_is_better=False,
            baseline=True,
            note="the same rounds; the server sees sums of updates only" + ("" if between else UNSURE),
        )
    ]
