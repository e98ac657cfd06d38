"""The verdict of the inversion wall, its tables and its pictures, from the steps that are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outroute.audit.accounting import DELTA
from outroute.audit.utility import TEST_SHARE
from outroute.trial.intervals import MIN_REPEATS, Difference, Verdict, difference
from outroute.walls.base import Curve, Figure, Found, Part, Score, Winner
from outroute.walls.inversion_more import part_of
from outroute.walls.inversion_scores import EXACT, MARGIN, READ_OFF, Row, bounds_db, row_of, scores_of
from outroute.walls.inversion_sides import Bench, mapping_of, strips

__all__ = ["LEAK_MARGIN", "RULE", "conclude"]

LEAK_MARGIN = 0.1
"""Advantage (from 0 to 1) by which one side must leak less."""
RULE = (
    "Leak of a setting: the largest advantage that an attack reaches, from 0 (chance) to 1: of membership inference "
    "(2 AUC - 1), and of naming members from the list of all candidates ((named - chance) / (1 - chance), 0 where lots "
    "would name as many in one of 40 cases). Worth: AUC "
    "of one linear model from what leaves all sites and nothing else, on held-out subjects, paired by split. Two "
    "comparisons, of settings that a site would run on all its records. (1) Equal epsilon: federated averaging with "
    "clipping and noise against packets of the distiller private, the same lifetime budget of a subject: the side of "
    "higher worth wins if the Nadeau-Bengio interval of the difference excludes zero and the difference is above "
    f"{MARGIN} AUC. (2) Equal worth: among settings within {MARGIN} AUC of the best of both sides on every other split "
    f"(from which values are not read off at more than {READ_OFF:g} dB above the best public guess), the least leaking "
    f"one of each side. The side with the smaller leak wins if it is smaller by more than {LEAK_MARGIN} and, where "
    "membership inference is the strongest attack on both, their intervals are apart; a side without such a setting "
    "loses. The wall goes to the side that wins one and loses none; else it is a tie. Updates and packets of single "
    "records are shown and decide nothing."
)


def conclude(bench: Bench, done: Mapping[str, Mapping[str, Any]]) -> Found:
    """The verdict from the steps that are done."""
    searches = [found for _, found in sorted(mapping_of(done, "search/").items())]
    rows = [row_of(method, done, searches) for method in bench.methods]
    rows = [row for row in rows if row.leak is not None or row.worth is not None]
    budget, first = _equal_epsilon(bench, rows)
    worth, second = _equal_worth(rows)
    ours, theirs = (sum(said is side for said in (budget, worth)) for side in (Winner.OUTROUTE, Winner.FEDERATED))
    winner = Winner.TIE
    if bool(ours) != bool(theirs):
        winner = Winner.OUTROUTE if ours else Winner.FEDERATED
    notes = [*dict.fromkeys(bench.notes), *_notes(bench, done)]
    return Found(
        verdict=f"{first} {second} {_single(searches)}".strip(),
        winner=winner,
        scores=[score for row in rows for score in scores_of(row)],
        change=_change(winner, rows),
        parts=_parts(bench, rows, searches, done),
        settings={
            "seed": bench.plan.seed,
            "k": bench.plan.k,
            "epsilon": bench.plan.epsilon,
            "delta": DELTA,
            "repeats": bench.effort.repeats,
            "shadows": bench.effort.shadows,
            "subjects": bench.effort.subjects,
            "equal_epsilon": budget.value,
            "equal_worth": worth.value,
        },
        notes=notes,
    )


def _equal_epsilon(bench: Bench, rows: Sequence[Row]) -> tuple[Winner, str]:
    pair = [
        next((r for r in rows if r.method.ours is ours and r.method.epsilon == bench.plan.epsilon and r.worth), None)
        for ours in (True, False)
    ]
    if pair[0] is None or pair[1] is None:
        return Winner.TIE, "At equal epsilon nothing was compared: steps are missing."
    made = _difference(pair[0], pair[1])
    text = (
        f"At equal epsilon ({bench.plan.epsilon:g} for one subject over its lifetime) private packets are worth "
        f"{made.mean:+.3f} AUC against federated averaging with noise ({_interval(made)})"
    )
    if made.verdict is Verdict.BETTER and made.mean > MARGIN:
        return Winner.OUTROUTE, text + ": packets win that."
    if made.high < 0 and made.mean < -MARGIN:
        return Winner.FEDERATED, text + ": federated learning wins that."
    return Winner.TIE, text + ": undecided."


def _difference(a: Row, b: Row) -> Difference:
    assert a.worth is not None
    assert b.worth is not None
    gaps = [
        float("nan") if x is None or y is None else x - y
        for x, y in zip(a.worth["splits"], b.worth["splits"], strict=True)
    ]
    return difference(gaps, metric="auc", margin=MARGIN, test_to_train=TEST_SHARE / (1 - TEST_SHARE))


def _interval(made: Difference) -> str:
    if not np.isfinite(made.low):
        return "no interval: one split"
    return f"95 % interval {made.low:+.3f} to {made.high:+.3f}"


def _equal_worth(rows: Sequence[Row]) -> tuple[Winner, str]:
    standing = [row for row in rows if row.standing and not np.isnan(row.auc(0, 2))]
    if not standing:
        return Winner.TIE, "At equal worth nothing was compared: steps are missing."
    best = max(row.auc(0, 2) for row in standing)
    good = [row for row in standing if row.auc(0, 2) >= best - MARGIN]
    least = [
        min((r for r in good if r.method.ours is ours), key=lambda r: r.leak or 0.0, default=None)
        for ours in (True, False)
    ]
    ours, theirs = least
    if ours is None or theirs is None:
        side, only = (Winner.OUTROUTE, ours) if theirs is None else (Winner.FEDERATED, theirs)
        assert only is not None
        other = "federated learning" if theirs is None else "packets"
        return side, (
            f"Within {MARGIN} AUC of the best (on every other split) there is no setting of {other}; the least leaking "
            f"that is there is {only.method.name} (leak {only.leak:.2f}, by {only.attack})."
        )
    gap = (ours.leak or 0.0) - (theirs.leak or 0.0)
    text = (
        f"At equal worth, {ours.method.name} leaks {ours.leak:.2f} (by {ours.attack}) and {theirs.method.name} "
        f"{theirs.leak:.2f} (by {theirs.attack})"
    )
    if abs(gap) <= LEAK_MARGIN or not _apart(ours, theirs):
        return Winner.TIE, text + ": no difference beyond the margin."
    return (Winner.FEDERATED if gap > 0 else Winner.OUTROUTE), text + "."


def _apart(a: Row, b: Row) -> bool:
    if a.attack != "membership" or b.attack != "membership":
        return True
    assert a.membership is not None
    assert b.membership is not None
    one, two = (row["likelihood_ratio"]["auc"] for row in (a.membership, b.membership))
    return bool(one["high"] < two["low"] or two["high"] < one["low"])


def _single(searches: Sequence[Mapping[str, Any]]) -> str:
    plain = next((one for one in searches if one["setting"] == "one record, one step"), None)
    if plain is None or not plain["rows"]:
        return ""
    best = max(plain["rows"], key=lambda row: row["advantage_db"])
    text = "exactly" if best["advantage_db"] >= EXACT else f"{best['advantage_db']:+.1f} dB above the best public guess"
    return f"An update made from one record gives it away {text} ({best['attack']}); so does a packet of one record."


def _change(winner: Winner, rows: Sequence[Row]) -> str:
    noisy = [row.method.name for row in rows if not row.method.ours and row.method.epsilon]
    if winner is Winner.FEDERATED:
        return (
            "More records at each site (noise is added to each region's counts, so it weighs less with more records "
            "in a region), regions that suit the matter better than landmarks drawn from ranges, or sites that train "
            "on few records in a round: then updates give them away and cohorts do not."
        )
    if winner is Winner.OUTROUTE:
        return (
            "A federation with more records at each site, or one that adds noise "
            f"({noisy[0] if noisy else 'clipping and noise'}) without losing worth, would leak as little."
        )
    return "More splits narrow the intervals; a larger k or a smaller epsilon lowers what leaks and what it is worth."


def _parts(
    bench: Bench,
    rows: Sequence[Row],
    searches: Sequence[Mapping[str, Any]],
    done: Mapping[str, Mapping[str, Any]],
) -> list[Part]:
    out = [
        Part(
            title="Privacy against utility",
            text="Both sides on the same axes: to the left is who leaks less, upwards is who is worth more. Each point "
            "is one setting, with the strongest attack on it.",
            figures=[
                Figure(
                    title="What leaks, and what it is worth",
                    caption="Leak: the largest advantage that an attack reaches, from 0 (chance) to 1. Worth: AUC of "
                    "one linear model from what leaves and nothing else. Lines: packets of 1, k, 2k and 4k subjects; "
                    "private packets and federated averaging with noise as epsilon grows.",
                    curves=_curves(rows),
                    x="leak (largest advantage of an attack)",
                    y="AUC",
                )
            ],
        )
    ]
    found = [
        Score(
            method=f"{row['setting']}: {row['attack']}", metric="dB above the best public guess",
            value=min(row["advantage_db"], EXACT), low=low, high=high, higher_is_better=False,
            baseline=row["records"] == 1,
            note=f"{row['records']} record(s), error {row['error']:.2f} standard deviations",
        )
        for one in searches
        for row in one["rows"]
        for low, high in [bounds_db(row["advantage_db"], row.get("advantage_db_bounds"))]
    ]  # fmt: skip
    pictures = _pictures(bench, searches, done)
    if found or pictures:
        out.append(
            Part(
                title="Records from updates and from packets",
                text="Searches look for the records that would make this update. Decibel above the best guess that "
                "knows public statistics only; below 0 the search is worse than that guess.",
                scores=found,
                figures=pictures,
            )
        )
    return out + part_of(bench.methods, done)


def _curves(rows: Sequence[Row]) -> list[Curve]:
    lines: dict[tuple[bool, str], list[Row]] = {}
    for row in rows:
        if row.leak is not None and row.worth is not None and row.worth["auc"] is not None:
            lines.setdefault((row.method.ours, row.method.line), []).append(row)
    return [
        Curve(
            label=line if len(of) > 1 else of[0].method.name,
            x=[row.leak or 0.0 for row in of],
            y=[(row.worth or {})["auc"] for row in of],
            ours=ours,
            points=len(of) == 1,
        )
        for (ours, line), of in lines.items()
    ]


def _pictures(
    bench: Bench, searches: Sequence[Mapping[str, Any]], done: Mapping[str, Mapping[str, Any]]
) -> list[Figure]:
    plain = next((one for one in searches if one["setting"] == "one record, one step"), None)
    if plain is None or not plain["truth"]:
        return []
    images = [("the records", strips(plain["truth"], bench.side))]
    for one in searches:
        if one["truth"] == plain["truth"]:
            where = one["setting"].removeprefix("one record, one step").lstrip(", ")
            for attack, guess in one["guesses"].items():
                images.append((f"update, {attack}{f' ({where})' if where else ''}", strips(guess, bench.side)))
    for name, guess in done.get("pictures", {}).get("guesses", {}).items():
        images.append((f"packet, {name}", strips(guess, bench.side)))
    fields = ", ".join(field.name for field in bench.schema.fields)
    how = "as they are" if bench.side else f"as strips, dark is low, light is high, categories one by one: {fields}"
    return [
        Figure(
            title="The same records, from an update of one record and from packets",
            caption=f"Records {how}. The first row is the truth; each row below is what an attacker takes them for.",
            images=images,
        )
    ]


def _notes(bench: Bench, done: Mapping[str, Mapping[str, Any]]) -> list[str]:
    out = [
        "worth is that of one linear model from what leaves all sites, made in the same steps for both sides; nobody "
        "adds own records and nothing is recalibrated here",
        f"federated noise has delta {DELTA:g} besides epsilon, private packets have delta 0; under a lifetime budget "
        "both sides' standard scores come from the declared ranges, since exact moments would be outside of it",
        "private packets use landmarks drawn from the declared ranges; other regions give other figures",
        "intervals: of membership from the attack's own cases, of members named an exact one, as if each were named or "
        "not by itself, of AUC and log-loss over the splits, of values over packets or updates (none where values are "
        "exact)",
    ]
    read = [done.get(f"leak/{method.key}", {}).get("values_db") for method in bench.methods if method.epsilon]
    if any(value is not None and value > READ_OFF for value in read):
        out.append(
            "values: the attacker is told which packet a record is in; of private packets, which have a public region "
            "each, that alone tells coarse conditions, whatever the noise"
        )
    if bench.effort.repeats < MIN_REPEATS:
        out.append(f"{bench.effort.repeats} splits: intervals need {MIN_REPEATS}")
    if not bench.effort.plan.realistic:
        out.append("quick: a whole site's training was not searched for its records")
    if len(bench.used) < 2:
        out.append("one site: secure aggregation needs several")
    return out
