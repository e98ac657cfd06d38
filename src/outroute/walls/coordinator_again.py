"""The same blows again, in processes started anew: how far they differ from each other. Shown, and decides nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from outroute.trial import difference
from outroute.walls.base import Part, Score, Step

__all__ = ["again", "part_of"]

Done = Mapping[str, Mapping[str, Any]]
Blows = Sequence[Mapping[str, Any]]


def again(steps: Sequence[Step], times: int) -> list[Step]:
    """Steps once more, until each is there so many times."""
    return [
        replace(step, key=f"again-{number}/{step.key}", text=f"{step.text}, time {number} of {times}")
        for number in range(2, times + 1)
        for step in steps
    ]


def part_of(
    done: Done, keys: Mapping[str, Sequence[str]], blows: Callable[[Done, Sequence[str]], Blows], *, ours: str
) -> list[Part]:
    """Shares of work over all times, if there are several.

    Args:
        done: steps.
        keys: of the steps in which each method is struck.
        blows: what a method's steps found.
        ours: the method that is outcome routing.
    """
    numbers = sorted({int(key.partition("/")[0].removeprefix("again-")) for key in done if key.startswith("again-")})
    if not numbers:
        return []
    runs: list[Done] = [done]
    for number in numbers:
        head = f"again-{number}/"
        runs.append({key.removeprefix(head): of for key, of in done.items() if key.startswith(head)})
    scores = []
    for method, mine in keys.items():
        shares: dict[str, list[float]] = {}
        pauses: dict[str, list[float]] = {}
        for run in runs:
            for one in blows(run, mine):
                shares.setdefault(one["what"], []).append(float(one["share"]))
                if "pause" in one:
                    pauses.setdefault(one["what"], []).append(float(one["pause"]))
        for what, of in shares.items():
            scores.append(
                _mean(
                    method,
                    "share of work, mean",
                    of,
                    ours=method == ours,
                    most=1.0,
                    higher_is_better=True,
                    note=f"{what}: {', '.join(f'{share:.0%}' for share in of)}",
                )
            )
            if what in pauses:
                scores.append(
                    _mean(
                        method,
                        "longest pause, s, mean",
                        pauses[what],
                        ours=method == ours,
                        most=math.inf,
                        higher_is_better=False,
                    )
                )
    text = (
        f"Everything was started anew and struck again, {len(runs)} times in all. Intervals are Student's over the "
        "times, cut at 0 (shares at 1 too): how blows differ from each other is in them; where all times were equal "
        "they have no width, and say no more than that. The verdict rests on the first time."
    )
    return [Part(title="The same blows again", text=text, scores=scores)]


def _mean(
    method: str, metric: str, of: list[float], *, ours: bool, most: float, higher_is_better: bool, note: str = ""
) -> Score:
    """The mean of several times, with an interval cut at 0 and at ``most``; none for a single time."""
    # The times share nothing, so nothing is added to the variance of their mean.
    made = difference(of, metric="accuracy" if higher_is_better else "mae", margin=0.0, test_to_train=0.0)
    known = math.isfinite(made.low)
    return Score(
        method=method,
        metric=metric,
        value=made.mean,
        low=max(made.low, 0.0) if known else None,
        high=min(made.high, most) if known else None,
        ours=ours,
        higher_is_better=higher_is_better,
        note=note,
    )
