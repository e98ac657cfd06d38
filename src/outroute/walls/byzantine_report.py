"""What the Byzantine wall shows: the verdict, tables and curves, from the rows of its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from outroute.simulation import ADVERSARIES, SYBILS
from outroute.trial.intervals import Difference
from outroute.walls.base import Curve, Figure, Found, Part, Plan, Score, Winner
from outroute.walls.byzantine_score import (
    BESIDE,
    ELECTIONS,
    LOCAL,
    MARGIN,
    NAMED,
    NO_ELECTION,
    Figures,
    decided,
    interval,
    paired,
)
from outroute.walls.hostile_federated import SYBIL_CLIENTS
from outroute.walls.hostile_scores import loss_name
from outroute.walls.opponents import LABELS

__all__ = ["NAMES", "found_of"]

NAMES = {
    ELECTIONS: "outcome routing",
    NO_ELECTION: "outcome routing without elections",
    LOCAL: "own records alone (the root set)",
    **{name: LABELS[name] for name in BESIDE},
    "fedavg": "FedAvg",
    "krum": "Krum",
    "multikrum": "MultiKrum",
    "median": "median",
    "trimmed": "trimmed mean",
    "bulyan": "Bulyan",
    "fltrust": "FLTrust",
}
"""Of methods, for people; " recalibrated" is kept."""
CURVES = (ELECTIONS, NO_ELECTION, NAMED, "fedavg recalibrated", "median recalibrated", "trimmed recalibrated")
"""Methods that are drawn, beside the one that stands for the other side."""
ATTACKS_DRAWN = 4
"""Attacks whose weight is drawn, the heaviest; with more, lines could not be told apart."""


def name_of(method: str) -> str:
    """For people."""
    plain = method.removesuffix(" recalibrated")
    return NAMES.get(plain, plain) + method[len(plain) :]


def found_of(
    plan: Plan, done: Mapping[str, Mapping[str, Any]], *, shares: Sequence[int], attacks: Sequence[str]
) -> Found:
    """The verdict and what is shown, from the steps that are done."""
    loss = loss_name(len(plan.dataset.schema.outcome.classes))
    by = {
        partition: Figures(
            [row for key in sorted(done) if key.startswith(partition) for row in done[key]["rows"]], loss=loss
        )
        for partition in ("natural", "iid")
    }
    natural = by["natural"] if by["natural"].rows else by["iid"]
    share = min(round(100 * plan.deployment.hostile_share), max(shares))
    winner, verdict, change = _verdict(natural, share, shares)
    parts = [
        Part(
            title="What the worst attack does",
            text=(
                f"The {natural.metric} at the asking site when {share} % of all peers lie, each method under the "
                "attack that is worst for it, and what it costs against the same method with nobody lying: the table "
                "above, and below how that grows with the share of attackers."
            ),
            figures=[_curves(natural, share, shares, "Sites as they are")],
        ),
        Part(
            title="Up to which share each method stands",
            text=f"No attack costs more than {MARGIN} {natural.unit}, nor leaves it that much worse than own records "
            "alone. Brackets: up to where that is sure, and up to where the opposite is not, by the intervals of the "
            "costs; only shares that were tried can stand in them.",
            scores=_breakdowns(natural, shares),
        ),
        Part(
            title="Attack by attack",
            text="; ".join(f"{attack}: {ADVERSARIES[attack].summary}" for attack in natural.attacks()) + ".",
            scores=_attacks(natural, share),
            figures=[_weights(natural, shares)],
        ),
    ]
    if by["iid"].rows and natural is not by["iid"]:
        parts.append(
            Part(
                title="The same records dealt out at random",
                text="With sites that are alike, the honest majority agrees, and robust rules have an easier time.",
                scores=_table(by["iid"], share),
                figures=[_curves(by["iid"], share, shares, "Records dealt out at random")],
            )
        )
    return Found(
        verdict=verdict,
        winner=winner,
        scores=_table(natural, share),
        change=change,
        parts=parts,
        settings={
            "attacks": list(attacks),
            "shares": list(shares),
            "hostile_share": share / 100,
            "margin": MARGIN,
            "named": natural.named(share),
            "seed": plan.seed,
            "k": plan.k,
            "repeats": len(natural.clean(ELECTIONS)),
        },
        notes=_notes(natural, share, shares),
    )


def _verdict(figures: Figures, share: int, shares: Sequence[int]) -> tuple[Winner, str, str]:
    named = figures.named(share)
    mine, theirs = figures.under_worst(ELECTIONS, share), figures.under_worst(named, share)
    gap = paired(mine, theirs)
    if gap.repeats < 1:
        return Winner.TIE, "Undecided: only one side was measured until it was stopped.", "Let it run on (--resume)."
    winner = decided(gap)
    ours, other = (figures.shown(float(np.mean(list(values.values())))) for values in (mine, theirs))
    sign = -1 if figures.numbers else 1  # differences are shown as those of what is shown
    real = figures.real_share(share)
    verdict = (
        f"With {share} % of all peers lying ({real:.0%} here, since attackers are whole), {figures.metric} under the "
        f"worst attack is {ours:.3f} for outcome routing and {other:.3f} for {name_of(named)}; difference "
        f"{_gap(gap, sign)}."
    )
    best = _best_other(figures, share)
    if best is not None and best != named:
        again = paired(mine, figures.under_worst(best, share))
        verdict += f" Of all federated rules {name_of(best)} did best here ({_gap(again, sign)}"
        verdict += ")" if decided(again) is winner else f"; with it the verdict would be: {decided(again).value})"
        verdict += ", which nobody knows beforehand."
    stands = {method: figures.breakdown(method, shares) for method in (ELECTIONS, named)}
    texts = [f"{name_of(m)} {f'up to {s} %' if s else 'at no share that was tried'}" for m, s in stands.items()]
    verdict += f" No attack costs more than {MARGIN} {figures.unit}, or than asking nobody: {', '.join(texts)}."
    if winner is Winner.TIE:
        change = "More splits, or a larger share of attackers: see the curve."
    elif winner is Winner.OUTROUTE:
        change = "Fewer own records at the asking site: without an anchor, trust has nothing to rest on."
    else:
        change = "A smaller share of attackers, or more own records at the asking site."
    return winner, verdict, change


def _gap(gap: Difference, sign: int) -> str:
    low, high = sorted((sign * gap.low, sign * gap.high))
    known = "95 % interval " if math.isfinite(low) else ""
    return f"{sign * gap.mean:+.3f}, {known}{_bounds(low, high).removeprefix(', ')}"


def _bounds(low: float, high: float) -> str:
    return f", {low:+.3f} to {high:+.3f}" if math.isfinite(low) else ", one split: no interval"


def _best_other(figures: Figures, share: int) -> str | None:
    """The federated method with the best score under its worst attack, known only afterwards."""
    means = {}
    for method in figures.methods():
        if method not in (ELECTIONS, NO_ELECTION, LOCAL, *BESIDE) and (values := figures.under_worst(method, share)):
            means[method] = float(np.mean(list(values.values())))
    return min(means, key=lambda method: means[method]) if means else None


def _score(figures: Figures, method: str, values: Mapping[int, float], note: str = "", metric: str = "") -> Score:
    of = interval(values)
    # No loss is below 0.
    bounds = sorted(figures.shown(of) for of in (max(of.low, 0.0), of.high)) if math.isfinite(of.low) else [None] * 2
    return Score(
        method=name_of(method),
        metric=metric or figures.metric,
        value=figures.shown(of.mean) if math.isfinite(of.mean) else None,
        low=bounds[0],
        high=bounds[1],
        ours=method in (ELECTIONS, NO_ELECTION),
        higher_is_better=figures.numbers,
        baseline=method in (LOCAL, NO_ELECTION, *BESIDE),
        note=note,
    )


def _table(figures: Figures, share: int) -> list[Score]:
    out = []
    for method in figures.methods():
        if method == LOCAL:
            out.append(_score(figures, method, figures.clean(LOCAL), "asks nobody"))
            continue
        if method in BESIDE:
            out.append(_score(figures, method, figures.clean(method), "nobody lies"))
            continue
        attack = figures.worst(method, share)
        if attack is None:
            continue
        note = "nobody lies"
        if attack:
            cost = figures.cost(method, attack, share)
            note = f"worst: {attack}, costs {cost.mean:+.3f}{_bounds(cost.low, cost.high)}"
        out.append(_score(figures, method, figures.under_worst(method, share), note))
    return out


def _breakdowns(figures: Figures, shares: Sequence[int]) -> list[Score]:
    out = []
    for method in figures.methods():
        found = None if method in (LOCAL, *BESIDE) else figures.breakdown(method, shares)
        if found is not None:
            sure, perhaps = (figures.breakdown(method, shares, end) for end in ("high", "low"))
            known = len(figures.clean(method)) > 1
            out.append(
                Score(
                    method=name_of(method),
                    metric="largest share of attackers, %",
                    value=float(found),
                    low=float(sure or 0) if known else None,
                    high=float(perhaps or 0) if known else None,
                    ours=method in (ELECTIONS, NO_ELECTION),
                    higher_is_better=True,
                    baseline=method == NO_ELECTION,
                    note=_why_none(figures, method) if not found else "",
                )
            )
    return out


def _why_none(figures: Figures, method: str) -> str:
    if figures.behind_alone(method):
        return "worse than own records alone even with nobody lying"
    return "not even the smallest share that was tried"


def _attacks(figures: Figures, share: int) -> list[Score]:
    out = []
    for attack in figures.attacks():
        for method in (ELECTIONS, NO_ELECTION, figures.named(share), "fedavg recalibrated"):
            values = figures.at(method, attack, share)
            if not values or not share:
                continue
            weight = figures.at(method, attack, share, "share")
            note = f"attackers hold {np.mean(list(weight.values())):.0%} of the weight" if weight else ""
            who = f"{attack}: {name_of(method)}"
            out.append(replace(_score(figures, method, values, note), method=who))
            if ADVERSARIES[attack].aimed and (inside := figures.at(method, attack, share, "inside")):
                before = figures.clean(method, "inside")
                cost = paired(inside, before)
                note = f"in the region it costs {cost.mean:+.3f}{_bounds(cost.low, cost.high)}"
                out.append(replace(_score(figures, method, inside, note, "in the region aimed at"), method=who))
    return out


def _curves(figures: Figures, share: int, shares: Sequence[int], title: str) -> Figure:
    curves, named = [], figures.named(share)
    for method in dict.fromkeys((*CURVES[:2], named, *CURVES[2:])):
        points = [(0, figures.clean(method)), *((s, figures.under_worst(method, s)) for s in shares if s)]
        known = [(s, interval(values)) for s, values in points if values]
        if known:
            bounded = all(math.isfinite(of.low) for _, of in known)
            ends = [[figures.shown(max(of.low, 0.0)) for _, of in known], [figures.shown(of.high) for _, of in known]]
            ends = ends[::-1] if figures.numbers else ends
            curves.append(
                Curve(
                    label=name_of(method),
                    x=[float(s) for s, _ in known],
                    y=[figures.shown(of.mean) for _, of in known],
                    low=ends[0] if bounded and method in (ELECTIONS, named) else None,
                    high=ends[1] if bounded and method in (ELECTIONS, named) else None,
                    ours=method in (ELECTIONS, NO_ELECTION),
                    baseline=method == NO_ELECTION,
                )
            )
    alone = figures.clean(LOCAL)
    if alone:
        level = figures.shown(float(np.mean(list(alone.values()))))
        curves.append(
            Curve(label=name_of(LOCAL), x=[0.0, float(max(shares))], y=[level, level], baseline=True, ours=True)
        )
    return Figure(
        title=title,
        caption="Each method under the attack that is worst for it; bands are intervals of 95 %.",
        curves=curves,
        x="attackers among all peers, %",
        y=figures.metric,
    )


def _weights(figures: Figures, shares: Sequence[int]) -> Figure:
    curves = []
    heaviest = figures.attacks()
    if len(heaviest) > ATTACKS_DRAWN:
        weight = {attack: figures.at(ELECTIONS, attack, max(shares), "share") for attack in heaviest}
        heaviest.sort(key=lambda attack: -float(np.mean(list(weight[attack].values()) or [0.0])))
    for method in (ELECTIONS, NO_ELECTION):
        for attack in heaviest[:ATTACKS_DRAWN]:
            points = [(s, figures.at(method, attack, s, "share")) for s in shares if s]
            known = [(s, float(np.mean(list(values.values())))) for s, values in points if values]
            if known:
                curves.append(
                    Curve(
                        label=f"{attack}{'' if method == ELECTIONS else ', without elections'}",
                        x=[float(s) for s, _ in known],
                        y=[value for _, value in known],
                        ours=True,
                        baseline=method == NO_ELECTION,
                    )
                )
    return Figure(
        title="Attackers' share of the weight",
        caption="Of all observations that count in outcome routing's answers, the part that is theirs"
        + (f"; the {ATTACKS_DRAWN} attacks that hold most." if len(heaviest) > ATTACKS_DRAWN else "."),
        curves=curves,
        x="attackers among all peers, %",
        y="share of the weight",
    )


def _notes(figures: Figures, share: int, shares: Sequence[int]) -> list[str]:
    notes = []
    tried = figures.attacks()
    if len(tried) < len(ADVERSARIES):
        notes.append(
            f"{len(tried)} of {len(ADVERSARIES)} attacks were tried ({', '.join(tried)}): --attacks all tries every one"
        )
    if "sybils" in tried:
        notes.append(
            f"sybils are {SYBILS} identities with packets, {SYBIL_CLIENTS} clients of a federation, whatever the share"
        )
    repeats = len(figures.clean(ELECTIONS))
    if repeats < 20:
        notes.append(f"{repeats} splits only: intervals need 20")
    missing = [s for s in shares if s and not figures.under_worst("bulyan", s)]
    if missing and "bulyan" in figures.methods():
        notes.append(
            f"Bulyan needs 4 f + 3 clients with f attackers, so it has no figure at {', '.join(map(str, missing))} %"
        )
    if share:
        notes.append(
            f"{share} % of the peers here are {figures.real_share(share):.0%} in truth: attackers are whole, and there "
            "is at least one"
        )
    return notes
