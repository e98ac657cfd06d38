"""Tables about nodes that lie and about the network under them, from what the benchmarks printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outroute.simulation import ADVERSARIES, SYBILS
from outroute.walls.hostile_federated import SYBIL_CLIENTS

__all__ = ["breakdown", "byzantine", "federated", "liars", "partition", "power"]

RECALIBRATED = " recalibrated"
RESULTS = Path(__file__).parent.parent / "experiments" / "results"


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _cost(row: dict[str, Any], what: str = "over_attack_free") -> str:
    d = row[what]
    return f"{d['mean']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})"


def byzantine(name: str, how: str) -> list[str]:
    """What attackers cost outcome routing on one table."""
    found = _read(f"byzantine-{name}")
    if found is None:
        return []
    free = found["results"]["attack-free"]
    cells = _cells(found["results"])
    margin = found["margin"]
    out = [
        f"## Nodes that lie: {name}",
        "",
        f"`python -m benchmarks.byzantine {how} --repeats {found['repeats']} --json`. Log-loss at the honest sites; cost: what "
        "the attack adds to the score with honest packets only, same splits, interval of 95 %; over local: what is then above "
        "the score of the site all by itself.",
        "",
        "Nobody attacks: "
        + ", ".join(f"{one} {free[one]['log_loss']:.4f}" for one in ("local", "no election", "elections"))
        + ". With elections the honest node that is worst off keeps "
        f"{free['elections']['least']:.2f} of the weight that its size and overlap deserve, on average over cases; of all honest "
        f"nodes that matter {free['elections']['below_half']:.1%} keep less than half.",
        "",
        _counted("cost", [one["elections"]["over_attack_free"] for _, one in cells], margin),
        _counted("loss over local", [one["elections"]["over_local"] for _, one in cells], margin),
        "",
        f"Sybils are {SYBILS} identities at every share, so their rows are draws of one and the same attack.",
        "",
        "| attack | attackers | cost without election | cost with elections | over local | their share of the weight | worst off "
        "among the honest | honest below half |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for attack, share in cells:
        none, ours = share["no election"], share["elections"]
        out.append(
            f"| {attack} | {_standing(attack, share)} | {_cost(none)} | {_cost(ours)} | "
            f"{_cost(ours, 'over_local')} | {ours['share']:.2f} | {ours['least']:.2f} | {ours['below_half']:.0%} |"
        )
    return [*out, ""]


def _standing(attack: str, share: dict[str, Any]) -> str:
    """How many attackers stand beside honest peers, and what share of all peers that is."""
    count, part = share["attackers"], share["real_share"]
    if attack == "sybils":
        honest = count * (1 - part) / part
        count = max(SYBILS, count)
        part = count / (count + honest)
    return f"{count:.0f}, {100 * part:.0f} %"


def _cells(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Attacks at all shares; shares that come to the same number of attackers once."""
    out = []
    for attack, shares in results.items():
        if attack != "attack-free":
            seen = {share["attackers"]: share for share in shares.values()}
            out += [(attack, share) for share in seen.values()]
    return out


def _counted(what: str, intervals: list[dict[str, float]], margin: float) -> str:
    """How many intervals say what."""
    inside = sum(one["high"] <= margin for one in intervals)
    outside = sum(one["low"] > margin for one in intervals)
    mean = sum(one["mean"] <= margin for one in intervals)
    zero = sum(one["mean"] <= 0.0 for one in intervals)
    return (
        f"With elections the {what} is certainly within {margin:g} in {inside} of {len(intervals)} cells, certainly beyond in "
        f"{outside}, undecided in {len(intervals) - inside - outside}; on average within in {mean}, and nothing or less in "
        f"{zero}; at most {max(one['mean'] for one in intervals):+.4f} on average."
    )


def power(how: str) -> list[str]:
    """By own outcomes in the region of a backdoor."""
    found = _read("byzantine-power")
    if found is None:
        return []
    out = [
        "## How many own outcomes does a region need?",
        "",
        f"`python -m benchmarks.byzantine {how} --repeats {found['repeats']} --json`: cost inside the region, in nats, by own "
        "outcomes left there, with intervals of 95 %. Cases differ from column to column: not every hospital has 20 there.",
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
            f"| {side} | " + " | ".join(_cost(by[side][c]) for c in columns) + " |"
            for side in ("no election", "elections")
        ]
        out += [
            "| elections, over local | " + " | ".join(_cost(by["elections"][c], "over_local") for c in columns) + " |",
            "",
        ]
        least = next((c for i, c in enumerate(columns) if _stays(by["elections"], columns[i:], found["margin"])), None)
        out += [
            f"From {least} own outcomes in the region on, the cost of the {attack} stays within {found['margin']:g} on average."
            if least is not None
            else f"The cost of the {attack} stays within {found['margin']:g} on average nowhere.",
            "",
        ]
    return out


def _stays(by: dict[str, Any], columns: list[str], margin: float) -> bool:
    return all(by[c]["over_attack_free"]["mean"] <= margin for c in columns)


def breakdown() -> list[str]:
    """Where the consensus breaks down."""
    found = _read("breakdown")
    if found is None:
        return []
    first = next(iter(next(iter(found["results"].values())).values()))
    out = [
        "## Where the consensus breaks down",
        "",
        f"`python -m benchmarks.breakdown {found['table']} --repeats {found['repeats']} --victims {found['victims']} --json`: "
        "an asker without own outcomes; what liars weigh, by their share among all peers, and in brackets their share of what "
        "the consensus counts (organisations, or declared groups).",
        "",
        "| arrangement | attack | judged by | " + " | ".join(f"{share} %" for share in first) + " |",
        "|---|---|---|" + "---|" * len(first),
    ]
    for name, attacks in found["results"].items():
        for attack, by in attacks.items():
            anchors = ", ".join(sorted({one for row in by.values() for one in row["anchors"]}))
            cells = " | ".join(f"{row['weight']:.2f} ({row['units']:.2f})" for row in by.values())
            out.append(f"| {name} | {attack} | {anchors} | {cells} |")
    return [*out, ""]


def federated(name: str, how: str) -> list[str]:
    """The same attackers as clients of federated learning."""
    found = _read(f"byzantine-{name}-federated")
    if found is None:
        return []
    ours = _read(f"byzantine-{name}-same") or _read(f"byzantine-{name}")
    if ours is not None and ours["repeats"] != found["repeats"]:
        ours = None  # other splits, in which other sites ask
    results = found["results"]
    free = results["attack-free"]
    rules = [rule for rule in free if rule != "local" and not rule.endswith(RECALIBRATED)]
    beside = ""
    if ours is not None:
        beside = (
            "Own records alone and outcome routing with its elections stand beside, from the same splits and sites."
        )
    attacks = [attack for attack in results if attack != "attack-free"]
    some = "" if set(attacks) == set(ADVERSARIES) else f" --attacks {' '.join(attacks)}"
    if ours is not None and "sybils" in results:
        beside += f" Sybils are {SYBIL_CLIENTS} clients, and {SYBILS} identities for outcome routing."
    out = [
        f"## The same attackers in federated learning: {name}",
        "",
        f"`python -m benchmarks.byzantine {how}{some} --repeats {found['repeats']} --json` (extra `walls`): log-loss at the honest "
        "sites, in brackets recalibrated at each site. Flower's own rules, told how many attackers there are; FLTrust's root "
        f"set is the records of the site that asks. {beside}".rstrip(),
        "",
        "| attack | " + " | ".join(rules) + (" | own records alone | **outcome routing** |" if ours else " |"),
        "|---|" + "---|" * (len(rules) + 2 * (ours is not None)),
    ]

    def cells(row: dict[str, Any], attack: str, share: str) -> str:
        theirs = [f"{row[rule]['log_loss']:.3f} ({row[rule + RECALIBRATED]['log_loss']:.3f})" for rule in rules]
        if ours is None:
            return " | ".join(theirs)
        clean = ours["results"]["attack-free"]
        at = ours["results"][attack][share] if attack else clean
        return " | ".join([*theirs, f"{clean['local']['log_loss']:.3f}", f"**{at['elections']['log_loss']:.3f}**"])

    out.append(f"| nobody | {cells(free, '', '')} |")
    for attack, shares in results.items():
        if attack != "attack-free":
            out += [
                f"| {_clients(attack, share, row)} | {cells(row, attack, share)} |" for share, row in shares.items()
            ]
    return [*out, ""]


def _clients(attack: str, share: str, row: dict[str, Any]) -> str:
    """An attack in federated learning, and how many take part in it."""
    if attack == "sybils":
        return f"{attack}, {max(SYBIL_CLIENTS, row['attackers']):.0f} clients"
    return f"{attack}, {share} %"


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
