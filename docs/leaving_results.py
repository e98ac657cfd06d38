"""Tables about what leaves a node: tiny sites, questions, and how cohorts are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "experiments" / "results"

NAMES = {
    "heart": "heart",
    "opt": "opt",
    "azpro": "azpro",
    "flights": "flights (a sample)",
}


def _load(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(found: dict[str, Any] | None) -> str:
    if not found or found["low"] is None:
        return "–"
    return f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}) {found['verdict']}"


def tiny() -> list[str]:
    """Sites of one to four subjects."""
    found = _load("tiny")
    if found is None:
        return []
    out = [
        "## Sites of one to four subjects",
        "",
        f"`python -m benchmarks.tiny --json`: tables cut into sites of one to four, k = {found['k']}; asked by somebody with "
        "no outcomes of their own (`alone`: each site's own one to four). AUC, for azpro R2; differences are to all "
        "records pooled through the same calculations.",
        "",
    ]
    for name, label in NAMES.items():
        if name not in found:
            continue
        table = found[name]
        metric, other = ("auc", "log_loss") if "auc" in table["scores"]["alone"] else ("r2", "mae")
        has_oo = "oo" in table["scores"]["alone"]
        titles = [metric.upper(), "against pooled", "log-loss" if other == "log_loss" else "MAE"]
        titles += ["OO's flights, AUC"] if has_oo else []
        out += [
            f"**{label}**, {table['repeats']} repeats, {table['train']:,} subjects in tiny sites, {table['test']:,} asked",
            "",
            "| what the sites let out | " + " | ".join(titles) + " |",
            "|---|" + "---|" * len(titles),
        ]
        for way, row in table["scores"].items():
            cells = [_three(row[metric]), _interval(row.get("against_pooled", {}).get(metric)), _three(row[other])]
            cells += [f"{_three(row['oo']['auc'])} ({row['oo']['cases']} cases)"] if has_oo else []
            shown = "nothing; " + way if way == "alone" else way
            out.append(f"| {shown} | " + " | ".join(cells) + " |")
        out.append("")
    out += [
        "Of shares: cohorts (median and largest number of subjects), bytes a subject to either synthesizer, processor "
        "time a subject at the site and at each synthesizer (of the machine that measured), and for adding up and "
        "combining everything.",
        "",
        "| table | cells | subjects | sites | cohorts | bytes a subject | ms a subject | ms to combine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, label in NAMES.items():
        for cost in found.get(name, {}).get("costs", {}).values():
            size, time = cost["bytes_per_subject"], cost["cpu_ms_per_subject"]
            out.append(
                f"| {label} | {cost['cells']:,} | {cost['subjects']:,} | {cost['sites']:,} | {cost['cohorts']} "
                f"({cost['cohort_median']:.0f}, {cost['cohort_most']:.0f}) | {size['one']:.0f} + {size['other']:.0f} | "
                f"{time['site']:.2f}; {time['each_synthesizer']:.2f} | {cost['cpu_ms_add_up_and_combine']:.0f} |"
            )
    return [*out, ""]


LIES = {
    "nobody": "nobody",
    "own": "about the own outcome",
    "blind": "four times as much, not knowing the others",
    "knowing": "turns its cohort round, knowing the sum",
    "spoil": "makes its cohort's sum impossible",
}


def liars() -> list[str]:
    """Sites that lie in shares."""
    found = _load("tiny-liars")
    if found is None:
        return []
    out = [
        "## Sites that lie in shares",
        "",
        f"`python -m benchmarks.tiny_liars --json`: sites of one to four subjects, k = {found['k']}, {found['cells']} cells. Cohorts "
        "with a liar in them, and those lost, in per cent. AUC and log-loss of somebody who asks without outcomes of their "
        "own, and with some: packets are elected and calculations chosen by them. Differences are to nobody lying.",
        "",
    ]
    for name, label in NAMES.items():
        if name not in found:
            continue
        table = found[name]
        out += [
            f"**{label}**, {table['repeats']} repeats, {table['subjects']:,} subjects in tiny sites; own outcomes: "
            f"{table['own']}",
            "",
            "| liars, % of sites | what they do | cohorts reached | lost | AUC without own | difference | log-loss | "
            "AUC with own | difference | log-loss |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in table["rows"]:
            cells = []
            for mode in ("alone", "own"):
                one = row[mode]
                cells += [_three(one["auc"]), _interval(one.get("auc_lost")), _three(one["log_loss"])]
            out.append(
                f"| {row['share']} | {LIES[row['lie']]} | {100 * row['touched']:.0f} | {100 * row['lost']:.0f} | "
                f"{' | '.join(cells)} |"
            )
        out.append("")
    return out


def questions() -> list[str]:
    """What a question tells holders."""
    found = _load("questions")
    if found is None:
        return []
    out = [
        "## What a question tells holders",
        "",
        "`python -m benchmarks.questions --json`: an observer that keeps every cell guesses the case. *Told*: share of the "
        "variance of conditions that the question explains (0: nothing beyond what the reference rows say). *Named*: "
        "how often its best guess of the case's cell is right. Three dangers of dummies: drawn anew for each of three "
        "questions (ours are not), and a second question about a case that changed a little, where that moved it to "
        "another cell (share of cases in brackets). Packets fetched and processor time of a question are ratios to plain.",
        "",
        "| table | questions | cells asked | told | named | named if drawn anew | named if asked from another cell | "
        "packets | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, table in found.items():
        blind = table["without_question"]
        out.append(f"| {name}, {table['landmarks']} cells | none | 0 | 0 | {_three(blind['cell_named'])} | | | | |")
        for way, row in table["ways"].items():
            cost = table["costs"][way]
            anew, later = "", ""
            if "cell_named_if_drawn_anew_and_asked_3_times" in row:
                anew = _three(row["cell_named_if_drawn_anew_and_asked_3_times"])
                later = (
                    f"{_three(row['cell_named_if_asked_again_from_another_cell'])} ({row['moved_to_another_cell']:.3f})"
                )
            out.append(
                f"| {name} | {way} | {row['cells_asked']:.1f} | {_three(row['told'])} | {_three(row['cell_named'])} | {anew} | "
                f"{later} | {cost['packets_ratio']:.1f} | {cost['cpu_ratio']:.1f} |"
            )
    return [*out, ""]


COLUMNS = (
    "| table | cohorts | loss | with own records | difference | packets alone | difference | membership | at 1 % | worst tenth | "
    "as they are | weighed | members | worst tenth |"
)


def _ways(found: dict[str, Any]) -> list[str]:
    out = [COLUMNS, "|---" * 14 + "|"]
    for name in NAMES:
        for way, row in found.get(name, {}).items():
            metric = "auc" if "with own, auc" in row else "r2"
            cells = []
            for side in ("with own", "packets alone"):
                against = row["against_first"].get(f"{side}, {metric}")
                cells += [_three(row[f"{side}, {metric}"]), "" if way == "k=5" else _interval(against)]
            out.append(
                f"| {name} | {way} | {row['grouping_loss']:.2f} | {' | '.join(cells)} | {row['membership_auc']['value']:.3f} | "
                f"{row['tpr']['0.01']['value']:.3f} | {row['worst_decile_auc']['value']:.2f} | {row['reconstruction_db']:.1f} | "
                f"{row['denoised_db']:.1f} | {row['members_db']:.1f} | {row['worst_decile_db']:.1f} |"
            )
    return [*out, ""]


def cohorts() -> list[str]:
    """How cohorts are made: utility beside attacks."""
    choosing, found, whole = _load("cohorts-choosing"), _load("cohorts"), _load("cohorts-whole")
    out: list[str] = []
    if choosing is not None:
        out += [
            "## How cohorts are made",
            "",
            "Utility: AUC (azpro: R2) of sites that answer held-out cases from their own records and the others' packets, and "
            "from the others' packets alone; differences are to cohorts of five, paired by split. Membership: area under the "
            "curve of the likelihood-ratio attack, its true-positive rate at 1 % false positives, and the area for the most "
            "exposed tenth of subjects. Reconstruction: decibel above the best guess that knows public statistics only (0: nothing "
            "gained), by the packet's conditions as they are, weighed as well as can be, by guesses of all members, and for the "
            "tenth given away most. *Loss*: squared error inside cohorts as a share of the site's. `one block (MDAV)` and the "
            "default (blocks of 1,024) are the same at sites of this size; the default weighs fields as the schema does.",
            "",
            "The advised setting (k = 10, noise 0.1, dissent 2) was chosen by this run, which lets attackers know how much noise "
            "there is only as far as their shadow emissions show it:",
            "",
            f"`python -m benchmarks.cohorts --tables heart opt --seed {choosing['seed']} --repeats {choosing['repeats']} --json`",
            "",
            *_ways(choosing),
            "Halving the distance to the landmark (`shrunk`) is undone by whoever knows that it is done, as the column "
            "*weighed* shows; rounding and the most frequent category (`grid`, `majority`) give the worst tenth away as before; "
            "where half of the subjects stay at home, nothing protects the others. They are not in the product.",
            "",
        ]
    if found is not None:
        out += [
            "Checked with other draws, and attackers who allow for the noise:",
            "",
            '`python -m benchmarks.cohorts --ways "k=5" "k=10, noise 0.1, dissent 2" '
            f"--seed {found['seed']} --repeats {found['repeats']} --json`",
            "",
            *_ways(found),
        ]
    growing = _load("cohorts-growing")
    if growing is not None:
        out += [
            "Larger cohorts where a site is larger: a packet is a twentieth of its site, five subjects at least, beside k = 5 and k = 10 "
            "everywhere.",
            "",
            '`python -m benchmarks.cohorts --tables heart azpro --ways "k=5" "k=10" "k=5, a 20th of the site" '
            f"--repeats {growing['repeats']} --json`",
            "",
            *_ways(growing),
            "The sites' own size protects nobody: membership is left nearly where it was, above all for the most exposed tenth, "
            "who are at the small sites too. Ten everywhere protects better and costs no more on average (no interval is narrow enough to be sure); only the "
            "reconstruction of values falls as far. So there is no such rule in the "
            "schema; whoever wants larger cohorts at one node says `outroute distil --k N`.",
            "",
        ]
    if whole is not None:
        out += [
            "Through real nodes, with elections (`python -m benchmarks.cohorts --whole --json`): advised against cohorts of five.",
            "",
            "| table | advised | cohorts of five | difference | log-loss (azpro: MAE), difference |",
            "|---|---|---|---|---|",
        ]
        for name in NAMES:
            if name in whole:
                one = whole[name]
                first, second = one["difference"]
                scores = [_three(one["scores"][side][first]) for side in ("advised", "cohorts of five")]
                out.append(
                    f"| {name}, {one['repeats']} repeats | {' | '.join(scores)} | {_interval(one['difference'][first])} | "
                    f"{_interval(one['difference'][second])} |"
                )
        out.append("")
    return out
