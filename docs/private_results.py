"""The part of docs/results.md about differential privacy: no figure in it is typed by hand."""

from __future__ import annotations

from typing import Any

__all__ = ["private"]

WORDS = {
    "records": "single records",
    "fields": "single records, of each only the fields that make the cells",
    "cohorts": "cohorts of 5",
    "nothing": "no packets",
}


def _way(name: str, found: dict[str, Any]) -> str:
    if name in WORDS:
        return WORDS[name]
    cells = found["regions"]
    if name.startswith("e"):
        return f"`private`, epsilon {name[1:]}, {cells:,} cells"
    if name.startswith("points"):
        return f"`private`, epsilon 1, {int(name.split()[1]):,} cells written down by hand"
    if name.startswith("cells"):
        return f"`private`, epsilon 1, {name.split()[1]} cells"
    count = name.split()[-1]
    how = "releases" if name.startswith("releases") else "releases, epsilon split over them"
    return f"`private`, epsilon 1, {cells:,} cells, {count} {how}"


def private(found: dict[str, Any], askers: dict[str, Any] | None = None) -> list[str]:
    """Tables of what differential privacy costs, for each data set."""
    out = [
        "## What differential privacy costs",
        "",
        "`python -m benchmarks.private --json`, margin 0.03 AUC against single records, written down before any run. *Alone*: "
        "an asker without records of its own, so that all rests on packets. *Beside*: with its own training rows. Epsilon is "
        "for each subject over the node's lifetime, m = 1. How cells were chosen, and what the rest means, stands in the "
        "benchmark's own text.",
        "",
    ]
    for name, table in found["tables"].items():
        out += _table(name, table)
    if askers is not None:
        table = askers["tables"]["flights"]
        out += [
            "The same splits with more airlines that ask, so that the interval is narrower (single records and the cells written "
            "by hand only):",
            "",
            f"`python -m benchmarks.private flights --repeats {table['settings']['repeats']} --victims "
            f'{table["settings"]["victims"]} --ways "points 2160" --alone --json`',
            "",
            *_table("flights", table),
        ]
    return out


def _table(name: str, table: dict[str, Any]) -> list[str]:
    how = table["settings"]
    out = [
        f"**{name}**, {table['rows']:,} rows, {how['repeats']} splits"
        + (
            f", one day in {how['every']}, {how['victims']} airlines ask in each split about {how['asked']:,} test "
            f"cases at most, own rows at most {how['own']:,}"
            if name == "flights"
            else ""
        )
        + ":",
        "",
        "| packets | asker | how many | AUC | less single records | log-loss |",
        "|---|---|---|---|---|---|",
    ]
    for mode in ("alone", "beside"):
        for way, scores in table[mode].items():
            gap = scores.get("auc_minus_records")
            less = ""
            if gap is not None:
                bounds = "" if gap["low"] is None else f" ({gap['low']:+.3f} to {gap['high']:+.3f})"
                less = f"{gap['mean']:+.3f}{bounds}, {gap['verdict']}"
            count = table["packets"].get(way)
            out.append(
                f"| {_way(way, table)} | {mode} | {'–' if count is None else f'{count:,}'} | {scores['auc']:.3f} | "
                f"{less} | {scores['log_loss']:.3f} |"
            )
    out.append("")
    return out
