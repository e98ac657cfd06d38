"""Tables about nodes that lie and about the network under them, from what the benchmarks printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["byzantine", "federated", "liars", "partition", "power"]

RECALIBRATED = " recalibrated"
RESULTS = Path(__file__).parent.parent / "experiments" / "results"


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _cost(row: dict[str, Any]) -> str:
    d = row["over_attack_free"]
    return f"{d['mean']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})"


def byzantine(name: str, how: str) -> list[str]:
    """What attackers cost outcome routing on one table."""
    found = _read(f"byzantine-{name}")
    if found is None:
        return []
    free = found["results"]["attack-free"]
    out = [
        f"## Nodes that lie: {name}",
        "",
        f"`python -m benchmarks.byzantine {how} --json`, {found['repeats']} repeats. Log-loss at the honest sites; cost: "
        "what the attack adds to the score with honest packets only, same splits, interval of 95 %.",
        "",
        "Nobody attacks: "
        + ", ".join(f"{one} {free[one]['log_loss']:.3f}" for one in ("local", "no election", "elections"))
        + f". With elections an honest node keeps at least {free['elections']['least']:.2f} of the weight that its size and "
        "overlap deserve, on average over cases.",
        "",
        "| attack | attackers | cost without election | cost with elections | their share of the weight | ours over local |",
        "|---|---|---|---|---|---|",
    ]
    for attack, shares in found["results"].items():
        if attack == "attack-free":
            continue
        for share in shares.values():
            none, ours = share["no election"], share["elections"]
            local = ours["log_loss"] - free["local"]["log_loss"]
            out.append(
                f"| {attack} | {100 * share['real_share']:.0f} % | {_cost(none)} | {_cost(ours)} | {ours['share']:.2f} | "
                f"{local:+.3f} |"
            )
    return [*out, ""]


def power(how: str) -> list[str]:
    """By own outcomes in the region of a backdoor."""
    found = _read("byzantine-power")
    if found is None:
        return []
    out = [
        "## How many own outcomes does a region need?",
        "",
        f"`python -m benchmarks.byzantine {how} --json`, {found['repeats']} repeats: cost inside the region, in nats, by own "
        "outcomes left there. Cases differ from column to column: not every hospital has 20 there.",
        "",
    ]
    for attack, by in found["results"].items():
        columns = list(by["elections"])
        out += [
            f"| {attack} | " + " | ".join(columns) + " |",
            "|---|" + "---|" * len(columns),
            "| cases | " + " | ".join(str(by["elections"][c]["cases"]) for c in columns) + " |",
        ]
        out += [
            f"| {side} | " + " | ".join(f"{by[side][c]['over_attack_free']:+.3f}" for c in columns) + " |"
            for side in ("no election", "elections")
        ]
        out.append("")
    return out


def federated(name: str, how: str) -> list[str]:
    """The same attackers as clients of federated learning."""
    found = _read(f"byzantine-{name}-federated")
    if found is None:
        return []
    results = found["results"]
    free = results["attack-free"]
    rules = [rule for rule in free if rule != "local"]
    out = [
        f"## The same attackers in federated learning: {name}",
        "",
        f"`python -m benchmarks.byzantine {how} --json` (extra `walls`), {found['repeats']} repeats: log-loss at the honest "
        "sites, in brackets recalibrated at each site. Flower's own rules, told how many attackers there are; FLTrust's root "
        "set is the records of the site that asks.",
        "",
        "| attack | " + " | ".join(rule for rule in rules if not rule.endswith(RECALIBRATED)) + " |",
        "|---|" + "---|" * sum(not rule.endswith(RECALIBRATED) for rule in rules),
    ]

    def cells(row: dict[str, Any]) -> str:
        return " | ".join(
            f"{row[rule]['log_loss']:.3f} ({row[rule + RECALIBRATED]['log_loss']:.3f})"
            for rule in rules
            if not rule.endswith(RECALIBRATED)
        )

    out.append(f"| nobody | {cells(free)} |")
    for attack, shares in results.items():
        if attack != "attack-free":
            out += [f"| {attack}, {share} % | {cells(row)} |" for share, row in shares.items()]
    return [*out, ""]


def liars() -> list[str]:
    """Members that lie about what they hold, and what a place costs."""
    out: list[str] = []
    found = _read("liars")
    if found is not None:
        out += [
            "## A fifth of the members lies",
            "",
            f"`{found['command']}`: real processes; liars acknowledge and drop, and show and name each other alone. Whole: "
            "the answer holds every acknowledged honest packet.",
            "",
            "| network | cells taken | one cell, whole | eight cells, whole | one and eight cells over chance layouts |",
            "|---|---|---|---|---|",
        ]
        for title, one in found.items():
            if not isinstance(one, dict) or "one_cell" not in one:
                continue
            chance = one.get("by_chance")
            by = "" if chance is None else f"{chance['one_cell']:.4f} / {chance['several_cells']:.4f}"
            cells = [
                f"{part['whole']} of {part['questions']} ({part['interval'][0]:.3f} to {part['interval'][1]:.3f})"
                for part in (one["one_cell"], one["several_cells"])
            ]
            out.append(f"| {title} | {one['cells_taken']} of 256 | {cells[0]} | {cells[1]} | {by} |")
        out.append("")
    found = _read("liars-eclipse")
    if found is not None:
        out += [
            "## An eclipse that stays and lies",
            "",
            f"`{found['command']}`: lying nodes of the table with chosen ids around announcement addresses, beside lying "
            "members; 100 questions of 8 cells for each newcomer.",
            "",
            "| surrounded | newcomer | honest members found | whole |",
            "|---|---|---|---|",
        ]
        for title, one in found.items():
            if isinstance(one, dict):
                out += [
                    f"| {title} | {who} | {row['honest_members_found']} of {row['of']} | {row['whole']} of "
                    f"{row['questions']} |"
                    for who, row in one.items()
                    if isinstance(row, dict) and "honest_members_found" in row
                ]
        out.append("")
    found = _read("liars-keys")
    if found is not None:
        out += [
            "## What a place costs",
            "",
            f"`{found['command']}`: keys tried (median) until one, two or all three places of a chosen cell are the "
            f"attacker's; a try costs {found['try_to_key']:.2f} times making a key.",
            "",
            "| members | one | two | three | processor seconds for three |",
            "|---|---|---|---|---|",
        ]
        for members, row in found["open"].items():
            tries = [(row[k].get("tries") or row[k]["order_statistics"])[1] for k in ("one", "majority", "all")]
            seconds = row["all"].get("cpu_s")
            out.append(f"| {int(members):,} | " + " | ".join(f"{t:,.0f}" for t in tries) + f" | {seconds:.3g} |")
        out += ["", "Where the schema names organisations, a key without a certificate gets no place at all.", ""]
    return out


def partition() -> list[str]:
    """A network that was cut in two."""
    found = _read("partition")
    if found is None:
        return []
    out = [
        "## A network cut in two",
        "",
        "`python -m benchmarks.failover --partition --json`: real processes in two network namespaces, traffic on both sides. "
        "Whole: every packet acknowledged on either side is at all its owners again.",
        "",
        "| finding | nodes | cut for | acknowledged in the halves meanwhile | lost | whole after | answers without the other half, "
        "said so / not said |",
        "|---|---|---|---|---|---|---|",
    ]
    for how, title in (("dht", "table and telling"), ("telling_alone", "telling alone")):
        for cut in found[how]["cuts"]:
            said = [
                sum(side["answers"][f"partial_and_{which}"] for side in cut["during"]) for which in ("said", "not_said")
            ]
            out.append(
                f"| {title} | {found[how]['nodes']} | {cut['cut_s']:.0f} s | "
                f"{' + '.join(f'{n:,}' for n in cut['acknowledged_during'])} | {cut['lost']} | {cut['heal_s']:.1f} s | "
                f"{said[0]:,} / {said[1]} |"
            )
    return [*out, ""]
