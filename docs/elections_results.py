"""Tables about the three elections, from what the benchmarks printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["drift", "failover", "hire", "paths", "speed", "survive", "trust"]

RESULTS = Path(__file__).parent.parent / "experiments" / "results"
ATTACKS = {
    "none": "none",
    "label-flip": "label flip",
    "sybils": "Sybils, each an organisation",
    "certified-sybils": "Sybils of one organisation",
}


def _load(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _interval(found: Mapping[str, float] | None, digits: int = 4) -> str:
    if not found or found.get("low") is None:
        return ""
    return f"{found['mean']:+.{digits}f} ({found['low']:+.{digits}f} to {found['high']:+.{digits}f})"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def hire() -> list[str]:
    """What to fetch: scores beside asking everybody, and what it costs."""
    found = _load("hire")
    if found is None:
        return []
    ways = ["nearest", "random 1/4", "hire 1/4", "hire 1/8", "local"]
    scores, costs = [], []
    within, cells, largest = 0, 0, 0.0
    for name, attacks in found["tables"].items():
        for attack, sides in attacks.items():
            metric = "r2" if "r2" in sides["everybody"] else "log_loss"
            scores.append(
                [name, ATTACKS[attack], f"{sides['everybody'][metric]:.4f}"]
                + [_interval(sides[way]["minus_everybody"]) for way in ways]
            )
            quarter = sides["hire 1/4"]["minus_everybody"]
            within += quarter["verdict"] in ("better", "not worse within margin")
            largest = max(largest, quarter["mean"] if metric == "log_loss" else -quarter["mean"])
            cells += 1
            costs.append(
                [name, ATTACKS[attack]]
                + [f"{sides[way]['packets']:,.0f}" for way in ("everybody", "hire 1/4", "hire 1/8")]
                + [f"{sides[way]['bytes'] / 1e3:,.0f}" for way in ("everybody", "nearest", "hire 1/4", "hire 1/8")]
                + [f"{sides[way]['honest']:.0%}" for way in ("everybody", "hire 1/4", "hire 1/8")]
            )
    return [
        "## Hire: which packets to fetch",
        "",
        f"`python -m benchmarks.hire {' '.join(found['tables'])} --json` (seed {found['seed']}, {found['repeats']} splits, "
        "calculations without boosting). Every site asks all its test cases at once; azpro and flights: eight and four "
        "sites of each split in turn, azpro those with ten test cases or more, flights a sample. With an attack half of all "
        "peers lie; Sybils are 300 identities with eight packets each. Log-loss, for azpro R2; then the difference to asking "
        "everybody, 95 %, paired by site and split (log-loss: below zero is better; R2: above).",
        "",
        *_table(
            [
                "table",
                "attack",
                "asking everybody",
                "nearest cell",
                "random 1/4",
                "**hire 1/4**",
                "hire 1/8",
                "all by itself",
            ],
            scores,
        ),
        f"Hire at a quarter: within the margin of {found['margin']} (or better) in {within} of {cells} cases; it costs "
        f"{largest:.4f} at most on average.",
        "",
        "Packets and kilobytes fetched for it, and how many of the packets were honest ones'. Bytes count questions, answers "
        "and the comparison with two more owners, each cell by itself.",
        "",
        *_table(
            [
                "table",
                "attack",
                "packets: everybody",
                "hire 1/4",
                "hire 1/8",
                "kB: everybody",
                "nearest",
                "hire 1/4",
                "hire 1/8",
                "honest: everybody",
                "hire 1/4",
                "hire 1/8",
            ],
            costs,
        ),
    ]


def trust() -> list[str]:
    """Which calculation to believe, outcome after outcome."""
    found = _load("trust")
    if found is None:
        return []
    sets: dict[str, Any] = found["sets"]
    sides = {
        "ours": "**ours**",
        "batch": "in one go alone",
        "running": "running alone",
        "uniform": "all alike",
        "leader": "follow the leader",
        "whole": "`whole`",
        "answered": "ours, recalibrated last",
    }
    regret = [
        [name, str(one["sites"]), f"{one['prompt']['loss']['best']:.4f}"]
        + [_interval(one["prompt"]["regret"].get(side)) for side in sides]
        for name, one in sets.items()
    ]
    against = [
        [name] + [_interval(one["prompt"]["ours_minus"].get(side)) for side in sides if side != "ours"]
        for name, one in sets.items()
    ]
    scenarios = {"delay": "late", "by answer": "by answer", "by outcome": "by outcome"}
    late = [
        [name, label]
        + [_interval(one[key]["regret"].get(side)) for side in ("ours", "running", "running, as seen", "leader")]
        for name, one in sets.items()
        for key, label in scenarios.items()
    ]
    return [
        "## Trust, outcome after outcome",
        "",
        f"`python -m benchmarks.trust {' '.join(sets)} --json` (seed 0). Every site answers its own cases in turn, each "
        "before its outcome is known; calculations are fitted anew six times on the way, with dates only to packets of the "
        "time before. Flights: a sample of 8,000, airlines with 40 or more; Beijing: one hour a day. *Regret*: loss per "
        "outcome minus that of the single calculation which turns out best at the site, in nats (azpro, Beijing: CRPS in "
        "standard deviations); 95 % over sites.",
        "",
        *_table(["table", "sites", "best single", *sides.values()], regret),
        "Ours minus the others, paired by site (better is below zero):",
        "",
        *_table(["table", *(label for side, label in sides.items() if side != "ours")], against),
        "Regret where an outcome becomes known late (up to a fifth of the stream), or nine times as often when the answer, "
        "or the outcome itself, was high:",
        "",
        *_table(
            ["table", "scenario", "**ours**", "running alone", "running, selection not corrected", "follow the leader"],
            late,
        ),
    ]


def survive() -> list[str]:
    """Who loses when packets compete."""
    found = _load("survive")
    if found is None:
        return []
    speed = found["speed"]
    out = [
        "## Survive",
        "",
        f"`python -m benchmarks.survive heart --json`: {speed['packets']:,} packets of {speed['nodes']:,} nodes compete beside "
        f"{speed['own_outcomes']:,} own outcomes in {speed['whole_cpu_seconds']:.2f} s of processor time "
        f"({speed['whole_wall_seconds']:.2f} s by the clock, load {speed['load_average']:.1f}); one more outcome is confirmed in "
        f"{speed['confirm_cpu_milliseconds']:.0f} ms.",
        "",
    ]
    for name in [key for key in found if key != "speed"]:
        one = found[name]
        rows = []
        for share, cells in one["weight_left"].items():
            bands = sorted(
                {key.split(", ")[1] for key in cells}, key=lambda text: int(text.split()[0].rstrip("+").split("-")[0])
            )
            for band in bands:
                count = one["cases_by_own_outcomes_in_region"].get(band.split(" own")[0], 0)
                row = [share, f"{band.removesuffix(' there')} ({count} cases)"]
                for who in ("honest inside", "hostile inside", "honest outside", "hostile outside"):
                    value = cells.get(f"{who}, {band}")
                    row.append("" if value is None else f"{value:.2f}")
                rows.append(row)
        out += [
            f"**{name}**, {one['repeats']} repeats, every hospital in turn, a backdoor, and **all nodes trusted alike** (as if hire "
            "had found nothing): weight that is left, by size, inside and outside the region of the backdoor.",
            "",
            *_table(
                [
                    "attackers",
                    "in the region",
                    "honest, inside",
                    "hostile, inside",
                    "honest, outside",
                    "hostile, outside",
                ],
                rows,
            ),
        ]
    return out


def drift() -> list[str]:
    """Outcomes that change over time."""
    out: list[str] = []
    for name in ("flights", "beijing"):
        found = _load(f"drift-{name}")
        if found is None:
            continue
        metrics = list(next(iter(found["means"].values())))
        labels = {
            "ours": "**both (ours)**",
            "ageing": "ageing alone",
            "survive": "survive alone",
            "none": "nothing selected",
        }
        order = [*labels, *(side for side in found["means"] if side.startswith("window"))]
        means = [
            [labels.get(side) or f"window of {side.partition(':')[2]} days"]
            + [f"{found['means'][side][metric]:.4f}" for metric in metrics]
            for side in order
        ]
        minus = [
            [
                {
                    "none": "nothing selected",
                    "fixed window": f"the fixed window ({found['fixed_window'][7:]} days)",
                }.get(
                    label,
                    f"the best window, chosen in hindsight ({(found['best_window_in_hindsight'] or '')[7:]} days)",
                )
            ]
            + [_interval(one[metric]) for metric in metrics]
            for label, one in found["minus"]["ours"].items()
        ]
        elected = "; ".join(
            f"{side}: " + ", ".join(f"{value} ({count})" for value, count in counts.items())
            for side, counts in found.get("half_lives_elected", {}).items()
        )
        kept = ", ".join(f"{side} {value:.0%}" for side, value in found.get("weight_survived", {}).items())
        out += [
            f"## Drift: {name}",
            "",
            f"`python -m benchmarks.drift {name} --json`: {found['rows']:,} rows, {found['periods']} periods, k = {found['k']}, "
            f"{'with' if found['boosting'] else 'without'} boosting. Learn from the periods before, be asked about the next.",
            "",
            *_table(["what counts", *(metric.replace("_", "-") for metric in metrics)], means),
            "Ours minus the others, paired by site and period; periods are the blocks of the interval (95 %):",
            "",
            *_table(["against", *(metric.replace("_", "-") for metric in metrics)], minus),
            f"Half-lives elected, in days (times): {elected or 'none'}. Weight that packets kept: {kept or 'all'}.",
            "",
        ]
    return out


def failover() -> list[str]:
    """What is lost when processes are killed."""
    found = _load("failover")
    if found is None:
        return []
    churn, rolling, kills = found.get("churn"), found.get("rolling"), found.get("random_kills")
    rows = [
        [
            f"{found['killed']} of {found['nodes']} nodes killed at once",
            f"{found['acknowledged']:,}",
            str(found["lost"]),
            f"{found['answered']} of {found['asks']}",
            f"{found['ask_ms_p50']:.0f} / {found['ask_ms_p99']:.0f} (before: {found['ask_ms_p50_before']:.0f} / "
            f"{found['ask_ms_p99_before']:.0f})",
            f"noticed {found['noticed_s']:.1f} s, copies made again {found['repair_s']:.1f} s",
        ]
    ]
    if churn:
        rows.append(
            [
                f"{churn['events']} nodes killed and back, one after the other",
                "",
                str(churn["lost"]),
                f"{churn['answered']} of {churn['asks']}",
                f"{churn['ask_ms_p50']:.0f} / {churn['ask_ms_p99']:.0f}",
                "",
            ]
        )
    if rolling:
        rows.append(
            [
                f"all {rolling['replaced']} nodes replaced in turn",
                f"{rolling['packets']:,}",
                "",
                f"{rolling['answered']} of {rolling['asks']}",
                f"{rolling['ask_ms_p50']:.0f} / {rolling['ask_ms_p99']:.0f}",
                f"{found['rolling_recall']:.0%} found afterwards",
            ]
        )
    if kills:
        rows.append(
            [
                f"{kills['kills']} kills at random moments, {kills['nodes']} nodes",
                f"{kills['acknowledged']:,}",
                str(kills["lost"]),
                "",
                "",
                "",
            ]
        )
    return [
        "## Killing real processes",
        "",
        f"`python -m benchmarks.failover --json` (load {found['load_before']}).",
        "",
        *_table(["what", "packets acknowledged", "lost", "questions answered", "ms, median / p99", ""], rows),
    ]


def paths() -> list[str]:
    """All pairs of nodes beside the bare products, and trust without pairs."""
    found = _load("paths")
    if found is None:
        return []
    turns, standing = found["ratio_of_turns"], found["standing"]
    rows = [
        ["nodes, cells, packets", f"{found['nodes']:,}, {found['cells']}, {found['packets']:,}"],
        ["pairs evaluated", f"{found['pairs']:,} of {found['all_pairs']:,}"],
        [
            "seconds, on threads",
            f"{found['seconds']:.1f}, {found['threads']} (load before: {found['load_before']:.1f})",
        ],
        ["seconds of the bare matrix products in the same run", f"{found['bare_seconds']:.1f}"],
        [
            "ratio, by the clock; processor time; of single turns (median, least to most)",
            f"{found['ratio']:.2f}; {found['ratio_cpu']:.2f}; {turns['median']:.2f}, {turns['least']:.2f} to {turns['most']:.2f}",
        ],
        ["peak memory", f"{found['peak_mib']:,.0f} MiB"],
        ["nodes evaluated again", f"{found['evaluated_again']:,}"],
        ["the leading trust vector without pairs", f"{standing['seconds']:.1f} s for {standing['entries']:,} entries"],
        [
            f"how far it lies from the explicit one, {standing['explicit_nodes']:,} nodes",
            f"{standing['explicit_difference']:.0e}",
        ],
    ]
    return [
        "## Paths",
        "",
        f"`python -m benchmarks.paths --nodes {found['nodes']} --json`: paths between all nodes, in turns with the bare matrix "
        "products of the same blocks.",
        "",
        *_table(["measured", ""], rows),
    ]


def speed() -> list[str]:
    """How long elections take for one question."""
    found = _load("elections")
    if found is None:
        return []
    question, scratch = found["question"], found["from_scratch"]

    def of_question(name: str, one: Mapping[str, float], which: str) -> list[str]:
        return [name, f"{one[f'wall_ms_{which}']:.1f}", f"{one[f'cpu_ms_{which}']:.1f}", ""]

    rows = [of_question("one question, median", question, "median")]
    rows[0][-1] = f"{question['times_bare_product']:.1f}"
    rows.append(of_question("one question, 99th percentile", question, "p99"))
    labels = {"hire": "who is hired", "survive": "packets that compete"}
    rows += [
        of_question(f"of which {labels[part]}, median", one, "median") for part, one in question["of_which"].items()
    ]
    labels |= {"whole": "from scratch", "copies": "copies"}
    rows += [
        [
            labels[part] if part == "whole" else f"of which {labels[part]}",
            f"{one['wall_ms']:,.0f}",
            f"{one['cpu_ms']:,.0f}",
            f"{one['times_bare_product']:,.0f}",
        ]
        for part, one in scratch.items()
    ]
    rows += [
        ["bare: one matrix product of all conditions", f"{found['bare_product_ms']:.1f}", "", "1"],
        ["bare: one column added up by node", f"{found['bare_pass_ms']:.2f}", "", ""],
    ]
    return [
        "## Elections for one question",
        "",
        f"`python -m benchmarks.elections --packets {found['packets']} --nodes {found['nodes']} --json`: {found['packets']:,} "
        f"packets of {found['nodes']:,} nodes, {found['own_outcomes']:,} own outcomes, {found['questions']} questions, each after "
        f"one more own outcome became known; one thread, load {found['load_average']:.1f}. Milliseconds.",
        "",
        *_table(["", "by the clock", "processor time", "times the bare product"], rows),
        f"After all of these questions the weights differ from those made from scratch by "
        f"{found['weight_apart_from_scratch']:.1%} of all observations.",
        "",
    ]
