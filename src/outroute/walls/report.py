"""What all walls found, as JSON and as lines for people: where federated learning wins stands first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outroute.walls.base import Curve, Figure, Found, Part, Plan, Winner
from outroute.walls.runner import Outcome, Run, Status
from outroute.walls.state import plain
from outroute.walls.units import figure

__all__ = ["TITLES", "WINNERS", "Pivot", "headline", "pivot", "to_json"]

TITLES = {
    "inversion": "Inversion",
    "noniid": "Sites that differ",
    "communication": "Communication",
    "byzantine": "Participants that lie",
    "coordinator": "Coordinator",
}
"""What the walls are called in reports."""

WINNERS = {
    Winner.FEDERATED.value: "federated learning",
    Winner.OUTROUTE.value: "outcome routing",
    Winner.TIE.value: "neither",
}
"""What winners are called in reports."""


_ARROWS = {True: "\u00a0↑", False: "\u00a0↓", None: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pivot:
    """Scores as a table: a row for each method, a column for each metric.

    Attributes:
        columns: names of the metrics, with an arrow that says which way is better.
        rows: the method, its cells, its notes, and whether it is ours, and for comparison only. A cell is a figure
            and its interval, "" where there is none.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str]], str, bool, bool]]


def pivot(scores: Sequence[Mapping[str, Any]]) -> Pivot:
    """Scores (as JSON) as a table, methods and metrics in the order in which they come; a second figure of the same
    method and metric goes to a row of its own."""
    columns = {one["metric"]: one["metric"] + _ARROWS[one["higher_is_better"]] for one in scores}
    rows: list[tuple[str, dict[str, Mapping[str, Any]]]] = []
    for one in scores:
        for method, cells in rows:
            if method == one["method"] and one["metric"] not in cells:
                cells[one["metric"]] = one
                break
        else:
            rows.append((one["method"], {one["metric"]: one}))

    def cell(one: Mapping[str, Any] | None) -> tuple[str, str]:
        if one is None:
            return "", ""
        value, low, high = (figure(one["metric"], one[name]) for name in ("value", "low", "high"))
        return value, "" if one["low"] is None or one["high"] is None else f"({low} to {high})"

    def row(
        method: str, cells: Mapping[str, Mapping[str, Any]]
    ) -> tuple[str, Sequence[tuple[str, str]], str, bool, bool]:
        notes = dict.fromkeys(one["note"] for one in cells.values() if one["note"])
        baseline = all(one["baseline"] for one in cells.values())
        text = "; ".join([*(["for comparison"] if baseline else []), *notes])
        return (
            method,
            [cell(cells.get(name)) for name in columns],
            text,
            any(o["ours"] for o in cells.values()),
            baseline,
        )

    return Pivot(columns=list(columns.values()), rows=[row(*one) for one in rows])


def to_json(plan: Plan, run: Run, *, digest: str, command: str, seconds: float) -> dict[str, Any]:
    """Everything, as one JSON object.

    Args:
        plan: what was measured.
        run: what became of it.
        digest: of table and plan.
        command: that repeats it.
        seconds: of this run, steps that were taken from an earlier one not counted.
    """
    data = plan.dataset
    walls = {outcome.name: _wall(outcome) for outcome in run.outcomes}
    return {
        "summary": headline(walls),
        "table": data.name,
        "outcome": data.schema.outcome.name,
        "rows": len(data),
        "sites": {site: int((data.site == site).sum()) for site in data.sites},
        "schema": {"name": data.schema.name, "id": data.schema.id.hex()},
        "distiller": data.schema.privacy.distiller.name.lower(),
        "k": plan.k,
        "epsilon": plan.epsilon,
        "repeats": plan.repeats,
        "seed": plan.seed,
        "quick": plan.quick,
        "deployment": plan.deployment.to_json(),
        "walls": walls,
        "notes": list(data.notes),
        "interrupted": run.interrupted,
        "steps": {"taken": run.taken, "ran": run.ran},
        "digest": digest,
        "command": command,
        "seconds_in_all": round(seconds, 3),
    }


def headline(walls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each winner, federated learning first; then what was not measured."""

    def named(winner: str) -> str:
        return ", ".join(TITLES[name].lower() for name, wall in walls.items() if wall["winner"] == winner)

    measured = [name for name, wall in walls.items() if wall["winner"] is not None]
    lines = []
    if measured:
        theirs = named(Winner.FEDERATED.value)
        lines.append(f"Federated learning wins on: {theirs}." if theirs else "Federated learning wins on no wall here.")
        ours = named(Winner.OUTROUTE.value)
        lines.append(f"Outcome routing wins on: {ours}." if ours else "Outcome routing wins on no wall here.")
        ties = named(Winner.TIE.value)
        if ties:
            lines.append(f"Undecided, by the rule: {ties}.")
    missing = [TITLES[name].lower() for name in walls if name not in measured]
    if missing:
        lines.append(f"Not measured: {', '.join(missing)}.")
    partly = [TITLES[name].lower() for name, wall in walls.items() if wall["status"] == Status.PARTIAL]
    if partly:
        lines.append(f"Measured in part only: {', '.join(partly)}.")
    return lines


def _wall(outcome: Outcome) -> dict[str, Any]:
    found = outcome.found
    shared = {
        "status": outcome.status.value,
        "reason": outcome.reason,
        "question": outcome.question,
        "rule": outcome.rule,
        "seconds": outcome.seconds,
        "steps": {"done": outcome.done, "of": outcome.of},
    }
    if found is None:
        empty: dict[str, Any] = {"verdict": None, "winner": None, "change": None, "scores": [], "parts": []}
        return shared | empty | {"settings": {}, "notes": []}
    return shared | _found(found)


def _found(found: Found) -> dict[str, Any]:
    whole: dict[str, Any] = plain(
        {
            "verdict": found.verdict,
            "winner": found.winner.value,
            "change": found.change,
            "scores": [score.to_json() for score in found.scores],
            "parts": [_part(part) for part in found.parts],
            "settings": found.settings,
            "notes": list(found.notes),
        }
    )
    return whole


def _part(part: Part) -> dict[str, Any]:
    return {
        "title": part.title,
        "text": part.text,
        "scores": [score.to_json() for score in part.scores],
        "figures": [_figure(figure) for figure in part.figures],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "title": figure.title,
        "caption": figure.caption,
        "x": figure.x,
        "y": figure.y,
        "log_x": figure.log_x,
        "log_y": figure.log_y,
        "curves": [_curve(curve) for curve in figure.curves],
        "images": [{"label": label, "pixels": _rounded(plain(rows))} for label, rows in figure.images],
    }


def _curve(curve: Curve) -> dict[str, Any]:
    def numbers(values: Sequence[float] | None) -> list[float] | None:
        return None if values is None else [float(value) for value in values]

    return {
        "label": curve.label,
        "x": numbers(curve.x),
        "y": numbers(curve.y),
        "low": numbers(curve.low),
        "high": numbers(curve.high),
        "ours": curve.ours,
        "baseline": curve.baseline,
        "points": curve.points,
    }


def _rounded(images: Any) -> Any:
    """Pixels with three digits: more is not seen."""
    if isinstance(images, (int, float)):
        return round(float(images), 3)
    return [_rounded(one) for one in images]
