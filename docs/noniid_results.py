"""The part of docs/results.md about sites that differ: no figure in it is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["section"]

RESULTS = Path(__file__).parent.parent / "experiments" / "results"
ORDER = (
    "heart",
    "opt",
    "azpro",
    "beijing",
    "flights",
    "digits-iid",
    "digits-classes2",
    "digits-dirichlet",
    "synthetic",
)
"""Of the tables that are there; others follow by name."""


def _number(one: dict[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return "–"
    if one["metric"] == "rounds to converge":
        return f"{one['value']:.1f}"
    return f"{one['value']:.3f}"


def _gap(one: dict[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return ""
    if one["low"] is None:
        return f"{one['value']:+.3f}"
    return f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"


def _command(found: dict[str, Any]) -> str:
    words = [found["table"]]
    if found["partition"] != "natural":
        words += ["--partition", found["partition"]]
    if found["methods"] != "all":
        words += ["--methods", found["methods"]]
    if found.get("undivided"):
        words.append("--undivided")
    if found["repeats"] != 20:
        words += ["--repeats", str(found["repeats"])]
    return f"`python -m benchmarks.noniid {' '.join(words)} --json`"


def _table(found: dict[str, Any]) -> list[str]:
    parts = {part["title"]: part for part in found["parts"]}
    cells = {(one["method"], one["metric"]): one for one in found["scores"]}
    pairs = {(one["method"], one["metric"]): one for one in parts.get("Paired differences", {"scores": []})["scores"]}
    methods = list(dict.fromkeys(one["method"] for one in found["scores"]))
    metrics = list(dict.fromkeys(one["metric"] for one in found["scores"]))
    baseline = {one["method"] for one in found["scores"] if one["baseline"]}
    chosen = {one["method"] for one in pairs.values() if one["note"]}
    main = metrics[0]
    settings = found["settings"]
    text = (
        f"{_command(found)}: {found['rows']:,} records at {found['sites']} sites, {settings['splits']} splits, "
        f"k = {settings['k']}, {settings['tuning_trials']} trials for every method on one inner split."
    )
    if settings["splits"] < found["repeats"]:
        text += f" **{settings['splits']} of {found['repeats']} splits: the run was cut short.**"
    elif settings["splits"] < 20:
        text += " Fewer than 20 splits: read the intervals with that in mind."
    out = [text, "", f"**{found['verdict']}** {found['change']}", ""]
    if "How the sites differ" in parts:
        out += [parts["How the sites differ"]["text"], ""]
    out += [
        "| | " + " | ".join(metrics) + f" | ours minus this, {main} |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for method in methods:
        name = "**outcome routing**" if method == "outcome routing" else method
        if method in chosen:
            name += " (strongest by validation)"
        if method in baseline:
            name = f"*{name}*"
        row = [_number(cells.get((method, metric))) for metric in metrics]
        out.append(f"| {name} | {' | '.join(row)} | {_gap(pairs.get((method, f'ours minus this, {main}')))} |")
    out.append("")
    for title, part in parts.items():
        if title.startswith("The same records"):
            out += _divided(title, part)
    return out + [f"- {note}" for note in found["notes"]] + ([""] if found["notes"] else [])


def _divided(title: str, part: dict[str, Any]) -> list[str]:
    cells = {(one["method"], one["metric"]): one for one in part["scores"]}
    methods = list(dict.fromkeys(one["method"] for one in part["scores"]))
    ways = list(dict.fromkeys(one["metric"] for one in part["scores"]))
    out = [f"{title}. {part['text']}", "", "| | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for method in methods:
        out.append(f"| {method} | " + " | ".join(_number(cells.get((method, way))) for way in ways) + " |")
    return [*out, ""]


def section() -> list[str]:
    """All tables that were measured."""
    there = {path.stem.removeprefix("noniid-"): path for path in sorted(RESULTS.glob("noniid-*.json"))}
    if not there:
        return []
    names = [*(name for name in ORDER if name in there), *(name for name in there if name not in ORDER)]
    first = json.loads(there[names[0]].read_text())
    out = [
        "## Sites that differ: federated learning beside outcome routing",
        "",
        "The non-IID wall. Methods that send no single model home (fine-tuned, recalibrated, Ditto, gossip, FedProto, "
        "FedMD) are federated learning too, and may win for it. Baselines, in italics, cannot win.",
        "",
        f"The rule: {first['rule']}",
        "",
    ]
    every = {name: json.loads(there[name].read_text()) for name in names}
    out += _overview(every)
    for name, found in every.items():
        out += [f"### {name}", "", *_table(found)]
    return out


def _overview(every: dict[str, dict[str, Any]]) -> list[str]:
    """All tables, a line each."""
    out = [
        "| table | sites | splits | score | outcome routing | strongest federated method by validation | ours minus this | wins |",
        "|---" * 8 + "|",
    ]
    for name, found in every.items():
        parts = {part["title"]: part for part in found["parts"]}
        main = found["scores"][0]["metric"]
        value = {one["method"]: one for one in found["scores"] if one["metric"] == main}
        pair = next(
            one
            for one in parts["Paired differences"]["scores"]
            if one["note"] and one["metric"] == f"ours minus this, {main}"
        )
        wins = {"outroute": "**outcome routing**", "federated": "**federated learning**"}.get(found["winner"], "tie")
        out.append(
            f"| {name} | {found['sites']} | {found['settings']['splits']} | {main} | {_number(value['outcome routing'])} | "
            f"{pair['method']}: {_number(value[pair['method']])} | {_gap(pair)} | {wins} |"
        )
    return [*out, ""]
