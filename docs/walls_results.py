"""The walls' figures for docs/results.md, from experiments/results/walls-*.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "experiments" / "results"
WINNERS = {"federated": "federated learning", "outroute": "outcome routing", "tie": "neither", None: "–"}
NAMES = {
    "inversion": "Inversion",
    "noniid": "Sites that differ",
    "communication": "Communication",
    "byzantine": "Participants that lie",
    "coordinator": "Coordinator",
}


def section() -> list[str]:
    """A section for each table that was run; nothing where none was."""
    paths = sorted(RESULTS.glob("walls-*.json"))
    if not paths:
        return []
    out = ["## The walls", "", "Rules: [the walls](walls.md). Ours in bold.", ""]
    for path in paths:
        out += _table(path.stem.removeprefix("walls-"), json.loads(path.read_text()))
    return out


def _table(name: str, found: dict[str, Any]) -> list[str]:
    walls = found["walls"]
    spent = sum(wall["seconds"] for wall in walls.values())
    out = [
        f"### The walls: {name}",
        "",
        f"`{found['command']}`, {spent / 60:.0f} minutes of steps. {' '.join(found['summary'])}",
        "",
        "| wall | better | verdict |",
        "|---|---|---|",
    ]
    for key, wall in walls.items():
        verdict = wall["verdict"] or f"not measured: {wall['reason']}"
        out.append(f"| {NAMES[key]} | {WINNERS[wall['winner']]} | {_cell(verdict)} |")
    for key, wall in walls.items():
        if wall["scores"]:
            out += ["", f"{NAMES[key]}, what the verdict rests on:", "", *_scores(wall["scores"])]
        if wall["change"]:
            out += ["", _cell(wall["change"].strip())]
    return [*out, ""]


def _scores(scores: list[dict[str, Any]]) -> list[str]:
    out = ["| method | measure | value (95 % interval) | |", "|---|---|---|---|"]
    for one in scores:
        method = f"**{_cell(one['method'])}**" if one["ours"] else _cell(one["method"])
        note = "; ".join(text for text in ("for comparison" if one["baseline"] else "", one["note"]) if text)
        out.append(f"| {method} | {_cell(one['metric'])} | {_value(one)} | {_cell(note)} |")
    return out


def _value(one: dict[str, Any]) -> str:
    if one["low"] is None or one["high"] is None:
        return _number(one["value"])
    return f"{_number(one['value'])} ({_number(one['low'])} to {_number(one['high'])})"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) >= 1_000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
