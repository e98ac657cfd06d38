"""The audit's figures for docs/results.md and docs/what-leaves.md, from experiments/results/audit.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHOOSING = Path(__file__).parent.parent / "experiments" / "results" / "choosing.json"
RESULTS = Path(__file__).parent.parent / "experiments" / "results" / "audit.json"
PAGE = Path(__file__).parent / "what-leaves.md"
EXACT = 60
"""Decibel from which a guess is called exact."""
START, END = "<!-- figures: written by docs/generate_results.py -->", "<!-- end of figures -->"
TABLES = {
    "heart": "Heart disease, four hospitals",
    "flights": "Flights, four of sixteen airlines",
    "opt": "Preterm birth, four clinics",
    "digits": "Digits, four of ten nodes",
}


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    return "–" if value is None else "exact" if value >= 60 else f"{value:+.1f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}" if value < 0.1 else f"{100 * value:.0f}"


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _membership(of: dict[str, Any]) -> list[str]:
    one = of["membership"]
    if one is None:
        return ["–"] * 5
    ratio, area = one["likelihood_ratio"], one["likelihood_ratio"]["auc"]
    bound = of.get("bound")
    most = "" if bound is None else f", at most {number(bound['auc'], 3)}"
    return [
        f"{number(area['value'], 3)} ({number(area['low'], 3)} to {number(area['high'], 3)}{most})",
        number(one["nearest"]["auc"]["value"], 3),
        *(
            percent(ratio["tpr"][rate]["value"])
            + ("" if bound is None else f" (at most {percent(bound['tpr'][rate])})")
            for rate in ("0.001", "0.01")
        ),
        number(one["worst_decile_auc"]["value"]),
    ]


def _naming(of: dict[str, Any]) -> str:
    one = of["naming"]
    return "–" if one is None else f"{percent(one['named'])} / {percent(one['precision'])} / {percent(one['chance'])}"


def _worth(of: dict[str, Any]) -> str:
    worth = of["utility"]
    less = worth.get("minus_single_records")
    text = f"{number(worth['auc'], 3)} / {number(worth['log_loss'], 3)}"
    if less is None or not less["se"]:
        return text
    return f"{text} ({less['mean']:+.3f}, {less['low']:+.3f} to {less['high']:+.3f}: {less['verdict']})"


def _lines(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def section() -> list[str]:
    """All of it, for docs/results.md."""
    found = load()
    if not found:
        return []
    first = next(iter(found.values()))
    out = [
        "## What leaks",
        "",
        f"`python -m benchmarks.audit {' '.join(found)} --json` (`--shadows` and `--subjects` as said here): up to {max(len(one['sites']) for one in found.values())} "
        f"sites a table and {max(s['subjects'] for one in found.values() for s in one['sites'].values())} subjects a site, "
        f"{first['shadows']} shadow emissions, epsilon {first['epsilon']:g} where noise is added. Membership: AUC (0.5 "
        "is chance) with its 95 % interval over subjects, the distance to the nearest packet alone, true positives in "
        "percent at false-positive rates of 0.1 % and 1 %, AUC of the most exposed tenth (chosen on other emissions). "
        "Named: members found / names that are right / chance, in percent, by an attacker with the list of all "
        "candidates. Values: decibel above the best guess from public statistics; exact from 60. Worth: AUC / log-loss "
        "of one linear model on packets (or of the federated one, made in the same steps), a light stand-in for the trial "
        f"above, with up to {first['worth_subjects']} subjects a site; in brackets its difference in AUC to single records, "
        "paired over 20 splits, with its Nadeau-Bengio interval and the verdict at a margin of 0.01 that was written down "
        "before. *At most*: what no attack whatever can pass at this epsilon. `private` has one release on "
        "a grid (heart, flights) or on 32 landmarks drawn from the declared ranges; federated noise has delta 1e-5 besides. "
        "With noise of a lifetime budget, both sides' standard scores come from the declared ranges.",
        "",
    ]
    for name, one in found.items():
        out += [f"### {TABLES.get(name, name)}", ""]
        rows = []
        for setting, of in one["packets"].items():
            values, link = of["reconstruction"], of["linkage"]
            gain = values["advantage_db"] if values else {}
            rows.append(
                [
                    setting,
                    *_membership(of),
                    _naming(of),
                    " / ".join(signed(gain.get(a)) for a in ("packet", "members", "fingerprint", "others known")),
                    "–" if link is None else f"{percent(link['top1'])} / {percent(link['chance'])}",
                    _worth(of),
                ]
            )
        columns = ["packets", "membership AUC", "nearest", "TPR .1 %", "TPR 1 %", "worst tenth", "named"]
        out += _lines(
            [*columns, "values: packet / each member / fingerprint / others known", "linked / chance, %", "worth"], rows
        )
        rows = []
        for setting, of in one["packets"].items():
            a, d, v = of["attributes"], of["differencing"], of["reconstruction"]
            rows.append(
                [
                    setting,
                    "–" if a is None else f"{signed(a['gain_db'])} / {signed(a['gain_others_db'])}",
                    "–" if a is None else f"{a['worst_field']} {signed(a['worst_gain_db'])}",
                    "–" if a is None else f"{signed(a['outcome_gain_db'])} / {signed(a['outcome_gain_others_db'])}",
                    "–" if d is None else f"{signed(d['gain_reemitted_db'])} / {signed(d['gain_regrouped_db'])}",
                    "–" if v is None else f"{signed(v['worst_decile_db'])} / {signed(v['worst_decile_baseline_db'])}",
                ]
            )
        out += _lines(
            [
                "packets, dB",
                "attributes: in packets / others",
                "most exposed field",
                "outcome: in packets / others",
                "second look: as a node / regrouped",
                "worst tenth of values / of a public guess",
            ],
            rows,
        )
        out += _images(one)
        out += _sequences(one)
        if "federated" in one:
            rows = [
                [setting, *_membership(of), _naming(of), _worth(of)]
                for setting, of in one["federated"]["settings"].items()
            ]
            columns[0] = "federated averaging"
            out += _lines([*columns, "worth"], rows)
            rows = [
                [
                    of["setting"],
                    of["attack"],
                    str(of["records"]),
                    number(of["error"]),
                    number(of["baseline"]),
                    signed(of["advantage_db"]),
                    *_picture(of["psnr"], of["ssim"]),
                    *_picture(of["baseline_psnr"])[:1],
                ]
                for of in one["federated"]["inversion"]
            ]
            columns = ["update", "attack", "records", "error, SD", "public guess", "above it, dB"]
            columns += ["PSNR", "SSIM", "PSNR of the public guess"]
            if all(of["psnr"] is None for of in one["federated"]["inversion"]):  # no images
                columns, rows = columns[:6], [row[:6] for row in rows]
            out += _lines(columns, rows)
        rows = [
            [
                asked,
                f"{of['addresses']:.0f}",
                *(signed(of["gain_db"][view]) for view in ("all", "one", "outside")),
                signed(of["worst_decile_db"]),
            ]
            for asked, of in one["questions"].items()
            if of is not None
        ]
        out += _lines(
            ["question", "addresses", "sees all, dB", "one holder", "without the secret", "worst tenth, sees all"], rows
        )
        out += _more(one)
    return out + _choosing()


def _picture(psnr: float | None, ssim: float | None = None) -> tuple[str, str]:
    """PSNR in dB and SSIM of reconstructed images, as text."""
    exact = psnr is not None and psnr >= EXACT
    return "exact" if exact else number(psnr, 1), number(ssim)


def _images(one: dict[str, Any]) -> list[str]:
    """How like the images behind packets are to what packets say."""
    seen = {setting: of["images"] for setting, of in one["packets"].items() if of.get("images")}
    if not seen:
        return []
    public = next(iter(seen.values()))
    rows = [[setting, *_picture(of["psnr"], of["ssim"])] for setting, of in seen.items()]
    rows.append(
        ["(the mean of the class, a public guess)", *_picture(public["class_mean_psnr"], public["class_mean_ssim"])]
    )
    return _lines(["images, by the packet's own conditions", "PSNR, dB", "SSIM"], rows)


def _choosing() -> list[str]:
    """Other sizes, noise and dissent beside the advised ones: a row a setting, a column a table."""
    if not CHOOSING.exists():
        return []
    found = json.loads(CHOOSING.read_text())
    ways = list(dict.fromkeys(way for one in found.values() for way in one["settings"]))
    rows = []
    for way in ways:
        cells = []
        for one in found.values():
            of = one["settings"].get(way)
            less = None if of is None else of["auc_minus_single_records"]
            cells.append(
                "–"
                if of is None or less is None
                else f"{number(of['membership_auc']['value'], 3)}; {less['mean']:+.3f} ({less['low']:+.3f} to "
                f"{less['high']:+.3f})"
            )
        rows.append([way, *cells])
    first = next(iter(found.values()))
    return [
        "### Other settings than the advised one",
        "",
        f"`python -m benchmarks.choosing {' '.join(found)} --json`: membership AUC ({first['shadows']} shadow emissions), "
        f"and the difference in AUC to single records of one linear model on packets alone ({first['repeats']} splits). "
        "A setting would replace the advised one (first row) if it leaked less and were worth more on every table.",
        "",
        *_lines(["packets", *found], rows),
    ]


def _sequences(one: dict[str, Any]) -> list[str]:
    """What leaves while records arrive, and who knows all others."""
    rows = []
    for setting, of in one["packets"].items():
        seen = of.get("sequence")
        if seen is None:
            continue
        with_times, without = (seen[name]["likelihood_ratio"] for name in ("with_times", "without_times"))
        rows.append(
            [
                setting,
                f"{number(with_times['auc']['value'], 3)} ({number(with_times['auc']['low'], 3)} to "
                f"{number(with_times['auc']['high'], 3)})",
                number(without["auc"]["value"], 3),
                percent(with_times["tpr"]["0.01"]["value"]),
                _naming(seen),
                percent(seen["left"]),
            ]
        )
    if not rows:
        return []
    columns = ["as records arrive", "membership AUC, times known", "without times", "TPR 1 %", "named", "had left, %"]
    out = _lines(columns, rows)
    for setting, of in one["packets"].items():
        known = of.get("knows_all_others")
        if known is not None:
            area, tpr = known["auc"], known["tpr"]["0.01"]
            out += [
                f"{setting.capitalize()}, an attacker that knows all other records and who of them is in: membership AUC "
                f"{number(area['value'], 3)} ({number(area['low'], 3)} to {number(area['high'], 3)}), at most "
                f"{number(of['bound']['auc'], 3)}; true positives at 1 % false ones {percent(tpr['value'])} %, at most "
                f"{percent(of['bound']['tpr']['0.01'])} %.",
                "",
            ]
    return out


def _more(one: dict[str, Any]) -> list[str]:
    out = []
    learnt = one["schema"]["landmarks_learnt_from"]
    parts = [f"{source} {number(of['auc']['value'], 3)}" for source, of in learnt.items() if of is not None]
    if parts:
        out.append(f"Membership AUC from landmarks alone, learnt from: {', '.join(parts)}.")
    tried = one["addresses"]
    out.append(
        f"Addresses: {percent(tried['found_open'])} % of {tried['used']} in use found in {tried['tried']:,} guesses in an "
        f"open network, {percent(tried['found_keyed'])} % with a network secret."
    )
    rules = one.get("cohorts_of_5_above_db")
    if rules:
        text = "; ".join(
            f"agreeing cohorts {rule}: " + ", ".join(f"{base} {signed(gain)}" for base, gain in of.items())
            for rule, of in rules.items()
        )
        out.append(f"Cohorts of 5, a packet's own conditions above each public guess, dB: {text}.")
    if "sketches_psnr" in one:
        text = ", ".join(f"{what} {value:.1f} dB" for what, value in one["sketches_psnr"].items())
        out.append(f"Single images from signs alone, PSNR: {text}.")
    return [" ".join(out), ""]


def _claim(found: dict[str, Any], setting: str, path: tuple[str, ...], show: Any) -> str:
    """One figure over all tables: ``heart 0.77, flights ...``."""
    parts = []
    for name, one in found.items():
        value: Any = one["packets"].get(setting)
        for step in path:
            value = None if value is None else value.get(step)
        if value is not None:
            parts.append(f"{name} {show(value)}")
    return ", ".join(parts) or "not measured"


def _less(made: dict[str, Any]) -> str:
    return f"{made['mean']:+.3f} ({made['low']:+.3f} to {made['high']:+.3f})" if made["se"] else "0"


def figures() -> list[str]:
    """The table of claims for docs/what-leaves.md."""
    found = load()
    if not found:
        return ["*Not measured yet.*"]
    settings = list(dict.fromkeys(name for one in found.values() for name in one["packets"]))
    auc = ("membership", "likelihood_ratio", "auc", "value")
    tpr = ("membership", "likelihood_ratio", "tpr", "0.01", "value")
    claims: list[tuple[str, tuple[str, ...], Any]] = [
        ("membership, AUC", auc, lambda v: number(v)),
        ("found at 1 % false alarms, %", tpr, percent),
        ("members named from a list of candidates, %", ("naming", "named"), percent),
        ("of these names right, %", ("naming", "precision"), percent),
        ("members named by lots instead, %", ("naming", "chance"), percent),
        ("values above public statistics, dB", ("reconstruction", "advantage_db", "packet"), signed),
        ("one sensitive field, people in packets, dB", ("attributes", "gain_db"), signed),
        ("records linked to their packet, %", ("linkage", "top1"), percent),
        ("linked by lots instead, %", ("linkage", "chance"), percent),
        ("second look after a withdrawal adds, dB", ("differencing", "gain_reemitted_db"), signed),
        ("as records arrive, membership, AUC", ("sequence", "with_times", *auc[1:]), lambda v: number(v)),
        ("worth, AUC", ("utility", "auc"), lambda v: number(v, 3)),
        ("less single records", ("utility", "minus_single_records"), _less),
    ]
    shown = [
        s for s in settings if s == "single records" or s.endswith((" 5", " 20")) or "private" in s or "noise" in s
    ]
    rows = [[claim, *(_claim(found, setting, path, show) for setting in shown)] for claim, path, show in claims]
    out = _lines(["measured", *shown], rows)
    rows = []
    for name, one in found.items():
        federated = one.get("federated")
        if federated is None:
            continue
        for setting, of in federated["settings"].items():
            area = of["membership"]["likelihood_ratio"]["auc"]["value"] if of["membership"] else None
            rows.append([name, setting, number(area), percent(of["naming"]["named"]), number(of["utility"]["auc"], 3)])
    out += _lines(
        ["table", "federated averaging", "membership, AUC", "named from a list of candidates, % (chance 50)", "AUC"],
        rows,
    )
    return out


def page() -> str:
    """docs/what-leaves.md with the figures between its marks."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return "\n".join([before + START, "", *figures(), END + rest.split(END)[1]])
