"""Write docs/results.md from experiments/results/*.json: no figure in it is typed by hand (``--check`` only compares)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import audit_results as audit
import elections_results as elections
import hostile_results as hostile
import leaving_results as leaving
import nats_results as nats
import noniid_results
import private_results
import transports_results as transports
import walls_results

HERE = Path(__file__).parent
RESULTS = HERE.parent / "experiments" / "results"

LABELS = {
    "outroute": "**outcome routing**",
    "majority": "site majority",
    "local": "each site on its own, best by inner CV",
    "fedavg": "federated averaging",
    "fedavg_recal": "federated averaging, recalibrated at each site",
    "pooled": "all records pooled, linear",
    "pooled_recal": "pooled linear, recalibrated",
    "pooled_boosting": "pooled boosting",
    "pooled_boosting_recal": "pooled boosting, recalibrated",
    "pooled_same_estimator": "all records pooled, our estimator",
}
BYZANTINE = {"heart": "heart", "digits": "digits --victims 1", "flights": "flights --victims 1"}
"""Table: arguments of the run that is kept."""
TABLES = {
    "heart": (
        "Heart disease: four hospitals",
        "920 patients, 13 conditions; rows are exchangeable, random 70/30 per hospital. The AUC mean is over the three "
        "hospitals that have 10 of each class in their test sets (Switzerland has not).",
    ),
    "flights": (
        "Flights: sixteen airlines",
        "327,346 flights with an outcome; whole days held out, the same at every airline; full test sets. OO SkyWest "
        "has 29 flights in all, so its figure, and with it the mean over airlines, is noisy: see the strata.",
    ),
    "beijing": (
        "Beijing: twelve stations, PM2.5, whole weeks held out",
        "Every sixth hour of four years. Peers cannot tell a week that they have not seen: this is forecasting.",
    ),
    "beijing-concurrent": (
        "Beijing, the concurrent protocol (named apart)",
        "Each station holds out its own weeks; the others have seen them: this is nowcasting, where peers are the point.",
    ),
    "azpro": ("azpro: seventeen hospitals, log length of stay", "3,589 cardiovascular admissions, random splits."),
    "opt": (
        "opt: four clinics, preterm birth",
        "823 women. Log-loss is the figure to read: few clinics have 10 positives in a test set.",
    ),
}


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def difference(d: dict[str, Any]) -> str:
    if d["mean"] is None or d["low"] is None:
        return "–"
    return f"{d['mean']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}) {d['verdict']}"


def table(name: str, found: dict[str, Any]) -> list[str]:
    title, text = TABLES[name]
    metrics = [m for m in ("auc", "accuracy", "log_loss", "r2", "mae") if m in found["scores"]["outroute"]]
    pair = [m for m in ("auc", "log_loss", "r2", "mae") if m in metrics]
    out = [f"## {title}", "", text, ""]
    few = "" if "fedavg" in found["scores"] else " --few"
    out.append(
        f"`python -m benchmarks.figures {name}{few}`: {found['repeats']} repeats, k = {found['k']}, protocol "
        f"{found['protocol']}; {found['packets']:,} packets, {found['bytes_out']:,} bytes (every copy, question and "
        f"reply), {found['records_out']} records left a site."
    )
    if found["repeats"] < 20:
        out[-1] += (
            f" **{found['repeats']} repeats are fewer than the 20 that the protocol asks for: the run was cut short.**"
        )
    out += ["", "| | " + " | ".join(metrics) + " | " + " | ".join(f"ours minus this, {m}" for m in pair) + " |"]
    out.append("|---" * (1 + len(metrics) + len(pair)) + "|")
    order = [m for m in LABELS if m in found["scores"]]
    for method in order:
        scores = found["scores"][method]
        row = [number(scores[m]) for m in metrics]
        row += [difference(found["differences"][method][m]) if method != "outroute" else "" for m in pair]
        out.append(f"| {LABELS[method]} | " + " | ".join(row) + " |")
    lost = [
        f"{LABELS[m]} ({k}: {d['verdict']})"
        for m in order
        if m != "outroute"
        for k, d in found["differences"][m].items()
        if k in pair and d["verdict"] == "worse"
    ]
    out += ["", "Where we lose: " + ("; ".join(lost) if lost else "nowhere with certainty") + "."]
    for stratum, row in (found.get("strata") or {}).items():
        parts = [
            f"{LABELS[m].replace('*', '')} {row[m]['mean']:+.3f} "
            + (
                f"({row[m]['low']:+.3f} to {row[m]['high']:+.3f}), {row[m]['verdict']}"
                if row[m]["low"] is not None
                else ""
            )
            for m in ("local", "pooled", "pooled_boosting", "pooled_boosting_recal")
            if m in row
        ]
        out += ["", f"Sites with {stratum} ({', '.join(row['sites'])}), ours minus: " + "; ".join(parts) + "."]
    return [*out, ""]


def variants(found: dict[str, Any]) -> list[str]:
    metrics = [m for m in ("auc", "log_loss") if m in found["scores"]["outroute"]]
    out = ["## Cohort size, and streaming against batch (heart)", ""]
    out.append(
        f"`python -m benchmarks.figures heart --variants`: {found['repeats']} repeats. The schema's floor is 1 here so "
        "that all sizes can be compared; agreeing cohorts are therefore allowed in all of them. Streaming: records "
        "arrive in 20 batches and nothing is ever regrouped."
    )
    out += [
        "",
        "| distilling | " + " | ".join(metrics) + " | k = 5 in batch minus this, log-loss |",
        "|---|---|---|---|",
    ]
    for name, scores in found["scores"].items():
        label = {"outroute": "batch, k = 5", "local": "each site on its own"}.get(name)
        if label is None:
            label = name.replace("streaming_k", "streaming, k = ")
            label = label if label != name else name.replace("k", "batch, k = ")
        d = "" if name == "outroute" else difference(found["differences"][name]["log_loss"])
        out.append(f"| {label} | " + " | ".join(number(scores[m], 4) for m in metrics) + f" | {d} |")
    return [*out, ""]


def covered() -> list[str]:
    """Coverage of the intervals as a table."""
    path = RESULTS / "coverage.json"
    if not path.exists():
        return []
    sets = json.loads(path.read_text())["sets"]
    more = RESULTS / "coverage-flights.json"
    rows = [(name, "", role, sets[name][role]) for name in sets for role in ("newcomer", "resident")]
    if more.exists():
        found = json.loads(more.read_text())["sets"]["flights"]
        rows += [("flights", ", --cases 10000", role, found[role]) for role in ("newcomer", "resident")]
    out = [
        "## Coverage of the intervals",
        "",
        "`python -m benchmarks.coverage --seed 100 --json` (and `flights --cases 10000`): nominal 90 %, each site left out "
        "in turn. A *newcomer* has no records of its own, a *resident* half of them. A decile of support is meant to lie "
        "between 85 and 95 %; the last column counts those that do within two standard errors of chance.",
        "",
        "| table | asker | covered | thinnest decile | worst decile | groups or cases a decile | deciles inside | "
        "inside but for chance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, how, role, d in rows:
        worst = max(d["deciles"], key=lambda x: abs(x - 0.9))
        out.append(
            f"| {name}{how} | {role} | {number(d['total'])} | {number(d['deciles'][0])} | {number(worst)} | "
            f"{d['counts'][0]:,} | {d['deciles_inside']} of 10 | {d['deciles_inside_but_for_chance']} of 10 |"
        )
    swiss = sets["heart"]["newcomer"]["per_site"]
    out += ["", "Heart, newcomer, by site: " + ", ".join(f"{site} {number(v)}" for site, v in swiss.items()) + ".", ""]
    return out


def plain(name: str, title: str, arguments: str = "") -> list[str]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    return [
        f"## {title}",
        "",
        f"`python -m benchmarks.{name} {arguments}--json`",
        "",
        "```json",
        path.read_text().strip(),
        "```",
        "",
    ]


def page() -> str:
    out = [
        "# Results",
        "",
        "Made by `python docs/generate_results.py` from `experiments/results/`; every figure comes from the command "
        'above its table. Differences are paired by split with Nadeau-Bengio intervals of 95 %. "Better" and '
        '"worse": the interval excludes zero. "Not worse within margin": it lies inside a margin written down before '
        "the run (0.01 AUC, 0.01 log-loss, 0.01 R2, 1 % of MAE). Every side has the same number of tuning trials; "
        "one configuration of ours serves all tables. Some of its constants (prior weights of calculations, sizes of trees, "
        "thresholds) were chosen while looking at test splits of these tables: read small leads with that in mind.",
        "",
    ]
    for name in TABLES:
        path = RESULTS / f"{name}.json"
        if path.exists():
            out += table(name, json.loads(path.read_text()))
    path = RESULTS / "heart-variants.json"
    if path.exists():
        out += variants(json.loads(path.read_text()))
    out += covered()
    path = RESULTS / "private.json"
    if path.exists():
        more = RESULTS / "private-askers.json"
        askers = json.loads(more.read_text()) if more.exists() else None
        out += private_results.private(json.loads(path.read_text()), askers)
    out += walls_results.section()
    out += noniid_results.section()
    out += plain("codec", "The codec")
    out += plain("store", "Store and local transport")
    out += plain("ask", "Asking")
    out += plain("distil", "Distilling")
    out += leaving.tiny()
    out += leaving.liars()
    out += leaving.questions()
    out += leaving.cohorts()
    out += elections.failover()
    out += nats.cluster()
    out += nats.gateway()
    out += hostile.partition()
    out += plain("network", "The network's speed", "--sizes 5 10 20 40 80 ")
    out += transports.section()
    out += hostile.liars()
    for name, how in BYZANTINE.items():
        out += hostile.byzantine(name, how)
    out += hostile.power("heart --power --shares 90 --attacks backdoor label-flip")
    out += hostile.breakdown()
    out += hostile.federated("heart", "heart --federated --shares 0 50 90")
    out += hostile.federated("digits", "digits --federated --victims 1 --shares 0 50 90")
    out += hostile.federated("flights", "flights --federated --victims 1 --shares 0 50 90")
    out += elections.hire()
    out += elections.trust()
    out += elections.survive()
    out += elections.drift()
    out += elections.paths()
    out += elections.speed()
    out += audit.section()
    notes = HERE / "results_notes.md"
    if notes.exists():
        out += [notes.read_text().rstrip(), ""]
    return "\n".join(out)


if __name__ == "__main__":
    made = {HERE / "results.md": page(), audit.PAGE: audit.page()}
    for path, text in made.items():
        if "--check" in sys.argv and path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is out of date: run this without --check")
        path.write_text(text, encoding="utf-8")
