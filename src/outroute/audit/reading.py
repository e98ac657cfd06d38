"""What an audit found, in sentences and in rows for tables: shared by the terminal and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Row", "membership_rows", "naming_rows", "other_rows", "reconstruction_rows", "sentences"]

Values = Mapping[str, Any]
PACKETS, UPDATES = "packets", "federated averaging"
NOTHING = "-"
"""Stands where there is no figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        side: packets or federated averaging.
        setting: of the side.
        cells: texts.
        value, low, high: what a plot shows; NaN for nothing.
        chance: where a plot marks what chance finds.
    """

    side: str
    setting: str
    cells: tuple[str, ...]
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    chance: float = float("nan")


def number(value: float | None, digits: int = 2) -> str:
    """A number for people, or a dash."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """A share in percent, or a dash."""
    return NOTHING if value is None else f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"


def _settings(found: Values) -> list[tuple[str, str, Values]]:
    sides = [(PACKETS, name, of) for name, of in found["packets"].items()]
    return sides + [(UPDATES, name, of) for name, of in found.get("federated", {}).get("settings", {}).items()]


def _worth(of: Values) -> str:
    worth = of["utility"]
    text = number(worth["auc"], 3) if worth["auc"] is not None else number(worth["r2"], 3)
    less = worth.get("minus_single_records")
    if less is None or not less["se"]:
        return text
    return f"{text} ({less['mean']:+.3f}, {less['low']:+.3f} to {less['high']:+.3f})"


def _most(of: Values, value: float | None, show: Callable[[float | None], str]) -> str:
    """A bound that no attack can pass, where there is one."""
    return f", at most {show(value)}" if "bound" in of else ""


def membership_rows(found: Values) -> list[Row]:
    """Cells: AUC with interval, TPR at 0.1 %, at 1 % (each with its bound, if any), worst tenth, utility with its
    difference to single records."""
    out = []
    for side, setting, of in _settings(found):
        one = of["membership"]
        if one is None:
            out.append(Row(side=side, setting=setting, cells=("too few", NOTHING, NOTHING, NOTHING, _worth(of))))
            continue
        ratio = one["likelihood_ratio"]
        area, most = ratio["auc"], of.get("bound", {"auc": None, "tpr": {}})
        cells = (
            f"{number(area['value'], 3)} ({number(area['low'], 3)} to {number(area['high'], 3)})"
            + _most(of, most["auc"], number),
            *(share(found["value"]) + _most(of, most["tpr"].get(rate), share) for rate, found in ratio["tpr"].items()),
            number(one["worst_decile_auc"]["value"]),
            _worth(of),
        )
        out.append(
            Row(side=side, setting=setting, cells=cells, value=area["value"], low=area["low"], high=area["high"])
        )
    return out


def naming_rows(found: Values) -> list[Row]:
    """Cells: named, of these right, chance."""
    out = []
    for side, setting, of in _settings(found):
        one = of["naming"]
        if one is None:
            continue
        cells = (share(one["named"]), share(one["precision"]), share(one["chance"]))
        out.append(Row(side=side, setting=setting, cells=cells, value=one["named"], chance=one["chance"]))
    return out


def reconstruction_rows(found: Values) -> list[Row]:
    """Cells: attack, error, error of the best public guess, decibel above it."""
    out = []
    words = {
        "packet": "the packet's own conditions",
        "members": "a guess for each member",
        "fingerprint": "the fingerprint alone",
        "others known": "all other members known",
    }
    for setting, of in found["packets"].items():
        one = of["reconstruction"]
        if one is None:
            continue
        for attack, text in words.items():
            gain = one["advantage_db"][attack]
            base = one["error"][attack] * 10 ** (gain / 20)
            out.append(
                Row(
                    side=PACKETS,
                    setting=setting,
                    cells=(text, number(one["error"][attack]), number(base if gain < 100 else None), _decibel(gain)),
                    value=gain,
                )
            )
    for one in found.get("federated", {}).get("inversion", []):
        cells = (one["attack"], number(one["error"]), number(one["baseline"]), _decibel(one["advantage_db"]))
        out.append(Row(side=UPDATES, setting=one["setting"], cells=cells, value=one["advantage_db"]))
    return out


def _decibel(value: float, digits: int = 1) -> str:
    return "exact" if value >= 60 else f"{value:+.{digits}f} dB"


def other_rows(found: Values) -> list[tuple[str, str, str]]:
    """Attack, setting, what it found."""
    out = []
    for setting, of in found["packets"].items():
        one = of["linkage"]
        if one is not None:
            text = f"{share(one['top1'])} of records linked to their packet (chance {share(one['chance'])})"
            out.append(("linkage", setting, f"{text}; {share(one['top1_half_of_the_fields'])} from half of the fields"))
        one = of["attributes"]
        if one is not None:
            out.append(
                (
                    "attributes",
                    setting,
                    f"{_decibel(one['gain_db'], 2)} for people in packets, "
                    f"{_decibel(one['gain_others_db'], 2)} for others; "
                    f"most: {one['worst_field']} {_decibel(one['worst_gain_db'], 2)}; outcome "
                    f"{_decibel(one['outcome_gain_db'], 2)}",
                )
            )
        one = of["sequence"]
        if one is not None:
            timed, plain = (one[name]["likelihood_ratio"]["auc"]["value"] for name in ("with_times", "without_times"))
            text = f"membership AUC {number(timed)} for who knows when each came, {number(plain)} without times"
            out.append(("as records arrive", setting, f"{text}; {share(one['left'])} of the records had left"))
        one = of["differencing"]
        if one is not None:
            out.append(
                (
                    "differencing",
                    setting,
                    f"a second look after a withdrawal adds {one['gain_reemitted_db']:+.1f} dB as a node does it; "
                    f"regrouping everything would add {one['gain_regrouped_db']:+.1f} dB",
                )
            )
    for asked, one in found["questions"].items():
        if one is not None:
            gain = one["gain_db"]
            out.append(
                (
                    "questions",
                    asked,
                    f"the asker's case {gain['all']:+.1f} dB above a guess without them for who sees all addresses, "
                    f"{gain['one']:+.1f} dB for one holder, {gain['outside']:+.1f} dB without the network secret",
                )
            )
    one = found["addresses"]
    if one is not None:
        out.append(
            (
                "addresses",
                "open network",
                f"{share(one['found_open'])} of {one['used']} cells in use found in {one['tried']:,} guesses",
            )
        )
        out.append(("addresses", "keyed", f"{share(one['found_keyed'])} found in as many guesses"))
    return out + _schema_rows(found["schema"])


def _schema_rows(one: Values) -> list[tuple[str, str, str]]:
    out = [
        (
            "schema file",
            "landmarks",
            f"{one['landmarks_equal_to_a_record']} of {one['landmarks']} equal a record of the table",
        )
    ]
    for source, learnt in one["landmarks_learnt_from"].items():
        if learnt is not None:
            text = f"membership AUC {number(learnt['auc']['value'])} if landmarks were learnt from {source}"
            out.append(("schema file", f"learnt from {source}", text))
    ends = one["ranges_that_end_at_an_extreme"]
    out.append(("schema file", "ranges", f"end at somebody's value: {', '.join(ends)}" if ends else "end at nobody's"))
    rare = one["categories_of_fewer_than_k"]
    text = "; ".join(f"{name}: {', '.join(of)}" for name, of in rare.items())
    out.append(("schema file", "categories", f"of fewer than k subjects: {text}" if rare else "all of k subjects"))
    return out


def sentences(found: Values) -> list[str]:
    """What matters most, in plain words."""
    out = []
    for setting, of in found["packets"].items():
        one, names = of["membership"], of["naming"]
        if one is not None:
            area, tpr = one["likelihood_ratio"]["auc"]["value"], one["likelihood_ratio"]["tpr"]["0.01"]["value"]
            verdict = "gives membership away" if area > 0.9 else "tells something" if area > 0.55 else "tells little"
            text = f"{setting.capitalize()}: what leaves {verdict} "
            text += f"(AUC {area:.2f}; {share(tpr)} found at 1 % false alarms)"
            if names is not None and names["named"] > 0.1:
                text += (
                    f"; who has the list of all candidates names {share(names['named'])} of the members, "
                    f"{share(names['precision'])} of the names right"
                )
            known = of.get("knows_all_others")
            if known is not None:
                text += f"; who knows all others reaches AUC {known['auc']['value']:.2f}"
            if "bound" in of:
                text += f"; no attack can do better than AUC {of['bound']['auc']:.2f}"
            out.append(text + ".")
    if "federated" in found:
        settings = found["federated"]["settings"]
        plain = {n: s for n, s in settings.items() if "noise" not in n and s["membership"] is not None}
        if plain:
            worst = max(plain, key=lambda n: plain[n]["membership"]["likelihood_ratio"]["auc"]["value"])
            area = plain[worst]["membership"]["likelihood_ratio"]["auc"]["value"]
            out.append(f"Federated averaging without noise tells most with {worst} (AUC {area:.2f}).")
            named = max(plain, key=lambda n: plain[n]["naming"]["named"])
            one = plain[named]["naming"]
            out.append(
                f"Who has the list of all candidates names {share(one['named'])} of those who trained with {named} "
                f"(chance {share(one['chance'])})."
            )
    cohort = [name for name, of in found["packets"].items() if of["k"] > 1 and not of["epsilon"]]
    if cohort:
        out.append(
            "A cohort limits disclosure and guarantees nothing: an attacker with more knowledge than these may find "
            "more."
        )
    return out
