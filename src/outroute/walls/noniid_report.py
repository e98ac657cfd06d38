"""What the non-IID wall tells: verdict, what would change it, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from outroute.trial import MIN_REPEATS, TUNING_TRIALS, Difference
from outroute.trial.metrics import HIGHER_IS_BETTER, LIMITS
from outroute.walls.base import Curve, Figure, Found, Part, Plan, Score, Winner
from outroute.walls.noniid_scores import MARGIN, OURS, Splits, Verdict, verdict
from outroute.walls.opponents import BASELINES, CONVERGED, GROUPS, LABELS, NO_FORM, QUICK, cannot

__all__ = ["found"]

SITES_SHOWN = 20
"""Sites with figures of their own in the tables; more are summed up by worst site and spread."""
NAMES = {"log_loss": "log-loss", "auc": "AUC", "accuracy": "accuracy", "r2": "R2", "mae": "absolute error"}
SAY = {Winner.OUTROUTE: "outcome routing wins", Winner.FEDERATED: "federated learning wins", Winner.TIE: "a tie"}
FEDERATED = tuple(name for names in GROUPS.values() for name in names)


def label(name: str) -> str:
    """A method for people."""
    return "outcome routing" if name == OURS else LABELS[name]


def found(
    plan: Plan, splits: Splits, sweep: Mapping[str, Splits], skew: Mapping[str, Any] | None, *, asked: int
) -> Found:
    """Everything from the steps that are done."""
    judged = verdict(splits, FEDERATED)
    notes = []
    done = len(splits.per_split(OURS, splits.metric))
    if done < asked:
        notes.append(f"{done} of {asked} splits are done")
    if done < MIN_REPEATS:
        notes.append(f"{done} splits: at least {MIN_REPEATS} are needed before an interval says much")
    notes += [reason for name, reason in NO_FORM.items() if reason and cannot(name, splits.classes)]
    if plan.quick:
        left = [name for name in FEDERATED if name not in {n for names in QUICK.values() for n in names}]
        notes.append(f"a quick look leaves out {', '.join(label(name) for name in left)}")
    parts = [_pairs(splits, judged), _sites(splits, judged), _rounds(splits)]
    if skew is not None:
        parts.insert(0, _skew(splits, skew, plan.dataset.schema.outcome.classes))
    if sweep:
        parts.append(_sweep(sweep, splits, judged))
    return Found(
        verdict=_verdict(splits, judged),
        winner=judged.winner,
        scores=_scores(splits),
        change=_change(splits, judged, sweep),
        parts=[part for part in parts if part.scores or part.figures],
        settings={
            "splits": done,
            "splits_asked": asked,
            "seed": plan.seed,
            "k": plan.k,
            "margin": MARGIN,
            "tuning_trials": TUNING_TRIALS,
            "converged_within": CONVERGED,
            "strongest_by_validation": judged.strongest,
            "validation": {name: _finite(splits.validation(name)) for name in FEDERATED if name in splits.methods},
            "gap": None if judged.gap is None else judged.gap.to_json(),
            "skew": None if skew is None else dict(skew),
        },
        notes=notes,
    )


def _verdict(splits: Splits, judged: Verdict) -> str:
    if judged.gap is None or judged.strongest is None:
        return "Not enough is done for a verdict: no federated method has finished a split beside outcome routing."
    name, metric = label(judged.strongest), NAMES[splits.metric]
    ours, theirs = splits.mean(OURS, splits.metric), splits.mean(judged.strongest, splits.metric)
    gap = _gap(judged.gap, inside=True)
    figures = f"{metric} {theirs:.3f} against {ours:.3f} of outcome routing; ours minus theirs {gap}"
    if judged.winner is Winner.FEDERATED:
        return f"Federated learning is better on these sites: {name} ({figures})."
    if judged.winner is Winner.OUTROUTE:
        return f"Outcome routing is better on these sites than the strongest federated method, {name} ({figures})."
    if judged.equal:
        return f"Neither is better: the strongest federated method, {name}, is equal within {MARGIN} ({figures})."
    who = "outcome routing" if judged.lead > 0 else name
    if judged.sure:
        return f"A tie by the rule: {who} is ahead, but by less than {MARGIN} ({figures}; federated side: {name})."
    return (
        f"A tie: against {name}, the strongest federated method by validation, the interval includes zero; {who} is "
        f"ahead on average ({figures})."
    )


def _gap(gap: Difference, *, inside: bool = False) -> str:
    """With its interval; `inside` brackets already."""
    if not math.isfinite(gap.low):
        return f"{gap.mean:+.3f}{', one split: no interval' if inside else ' (one split: no interval)'}"
    if inside:
        return f"{gap.mean:+.3f}, 95 % interval {gap.low:+.3f} to {gap.high:+.3f}"
    return f"{gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"


def _change(splits: Splits, judged: Verdict, sweep: Mapping[str, Splits]) -> str:
    if judged.gap is None or judged.strongest is None:
        return "Let it finish at least two splits."
    out = []
    if judged.winner is Winner.TIE and not judged.equal:
        half = (judged.gap.high - judged.gap.low) / 2
        need = "at least two splits" if not math.isfinite(half) else f"a lead of more than {max(half, MARGIN):.3f}"
        out.append(
            f"To win, a side needs {need} with this many records and splits; narrower intervals need more records, "
            "since splits share them."
        )
    elif judged.winner is Winner.TIE:
        out.append("More splits would not change it: both say the same within the margin.")
    else:
        loser = label(judged.strongest) if judged.winner is Winner.OUTROUTE else "outcome routing"
        out.append(
            f"{loser[0].upper()}{loser[1:]} would have to gain {max(abs(judged.gap.mean) - MARGIN, 0):.3f} "
            f"{NAMES[splits.metric]} for a tie."
        )
    for text, one in sweep.items():
        other = verdict(one, FEDERATED)
        if other.gap is None or other.strongest is None:
            continue
        out.append(
            f"With the same records divided anew ({text}, {other.gap.repeats} splits), ours minus "
            f"{label(other.strongest)} is {_gap(other.gap)}: {SAY[other.winner]}."
        )
    return " ".join(out)


def _scores(splits: Splits) -> list[Score]:
    """All methods, all metrics, worst site, spread, rounds and bytes."""
    out = []
    higher = HIGHER_IS_BETTER[splits.metric]
    for name in _order(splits):
        score = partial(Score, method=label(name), ours=name == OURS, baseline=name in BASELINES)
        for metric in splits.metrics:
            interval = splits.interval(name, metric)
            out.append(
                score(
                    metric=NAMES[metric],
                    value=_finite(interval.mean),
                    **_bounds(interval, *LIMITS[metric]),
                    higher_is_better=HIGHER_IS_BETTER[metric],
                )
            )
        sites = {site: of for site, of in splits.site_means(name, splits.metric).items() if math.isfinite(of)}
        if sites:
            low, high = (pick(sites, key=lambda site: sites[site]) for pick in (min, max))
            worst, metric = low if higher else high, NAMES[splits.metric]
            bounds = _bounds(splits.site_interval(name, splits.metric, worst), *LIMITS[splits.metric])
            out.append(
                score(
                    metric=f"{metric}, worst site",
                    value=sites[worst],
                    higher_is_better=higher,
                    **bounds,
                    note=f"worst site: {worst}",
                )
            )
            bounds = _bounds(splits.site_interval(name, splits.metric, high, low))
            value = sites[high] - sites[low]
            out.append(score(metric=f"{metric}, best to worst", value=value, higher_is_better=False, **bounds))
        rounds = splits.kept(name, "converged")
        if rounds:
            value, bounds = sum(rounds) / len(rounds), _bounds(splits.kept_interval(name, "converged"), 0.0)
            out.append(score(metric="rounds to converge", value=value, higher_is_better=False, **bounds))
    return out


def _bounds(of: Difference, least: float = -math.inf, most: float = math.inf) -> dict[str, Any]:
    """Of an interval, cut at what no figure is below or above; None where there is none."""
    if not math.isfinite(of.low):
        return {"low": None, "high": None}
    return {"low": max(of.low, least), "high": min(of.high, most)}


def _order(splits: Splits) -> list[str]:
    """Ours, then federated methods from the best validation on, then baselines."""
    there = splits.methods
    federated = [name for name in FEDERATED if name in there]
    federated.sort(key=lambda name: splits.validation(name) if math.isfinite(splits.validation(name)) else math.inf)
    return [*([OURS] if OURS in there else []), *federated, *(name for name in BASELINES if name in there)]


def _pairs(splits: Splits, judged: Verdict) -> Part:
    scores = []
    if OURS in splits.methods:
        for name in _order(splits):
            if name == OURS:
                continue
            for metric in splits.metrics:
                gap = splits.minus(OURS, name, metric)
                scores.append(
                    Score(
                        method=label(name),
                        metric=f"ours minus this, {NAMES[metric]}",
                        value=_finite(gap.mean),
                        low=_finite(gap.low),
                        high=_finite(gap.high),
                        higher_is_better=HIGHER_IS_BETTER[metric],
                        baseline=name in BASELINES,
                        note="the strongest by validation" if name == judged.strongest else "",
                    )
                )
    return Part(
        title="Paired differences",
        text="Ours minus each method on the same splits, with Nadeau-Bengio intervals of 95 %. Federated methods stand "
        "in the order of their validation loss, which is what chooses the one that the verdict looks at.",
        scores=scores,
    )


def _sites(splits: Splits, judged: Verdict) -> Part:
    names = [OURS, *([judged.strongest] if judged.strongest else []), "fedavg", "local", "majority", "pooled"]
    scores = []
    for name in dict.fromkeys(one for one in names if one in splits.methods):
        for site, value in list(splits.site_means(name, splits.metric).items())[:SITES_SHOWN]:
            bounds = _bounds(splits.site_interval(name, splits.metric, site), *LIMITS[splits.metric])
            scores.append(
                Score(
                    method=label(name),
                    metric=site,
                    value=_finite(value),
                    **bounds,
                    ours=name == OURS,
                    baseline=name in BASELINES,
                    higher_is_better=HIGHER_IS_BETTER[splits.metric],
                )
            )
    return Part(title=f"Site by site: {NAMES[splits.metric]}", text="Mean over the splits.", scores=scores)


def _rounds(splits: Splits) -> Part:
    curves = []
    for name in FEDERATED:
        rounds, losses = splits.curve(name)
        if len(rounds) > 1 and not name.endswith("_recal"):
            curves.append(Curve(label=label(name), x=rounds, y=losses))
    kind = "log-loss" if splits.classes else "squared error, in variances of the outcome"
    figure = Figure(
        title="How fast each federation learns",
        caption="Validation loss by round of the setting that the tuning chose, mean over the splits. Outcome routing "
        "has no rounds.",
        curves=curves,
        x="rounds",
        y=f"validation {kind}",
    )
    text = f"Converged: the first round whose validation loss is within {CONVERGED} of the best of all rounds."
    return Part(title="Rounds", text=text, figures=[figure] if curves else [])


def _skew(splits: Splits, skew: Mapping[str, Any], classes: Sequence[str]) -> Part:
    rows = skew["rows"]
    scores = [
        Score(method="outcomes", metric="distance between sites", value=skew["label"]),
        Score(method="outcomes, by chance", metric="distance between sites", value=skew["label_chance"]),
    ]
    text = (
        f"{skew['sites']} sites of {min(rows.values()):,} to {max(rows.values()):,} records. Outcomes: the mean "
        f"distance (total variation, 0 to 1) of a site's outcomes from everybody's is {skew['label']:.3f}; "
        f"chance alone gives {skew['label_chance']:.3f}."
    )
    if skew["feature_auc"] is not None:
        text += (
            f" Conditions: a classifier tells the site from them with an AUC of {skew['feature_auc']:.3f} (0.5: alike)."
        )
        scores.append(Score(method="conditions", metric="AUC of guessing the site", value=skew["feature_auc"]))
    if {"pooled", "pooled_site"} <= set(splits.methods):
        gain = splits.minus("pooled_site", "pooled", splits.metric)
        text += (
            f" What follows from conditions: knowing the site changes the {NAMES[splits.metric]} of a pooled "
            f"linear model by {_gap(gain)}."
        )
    level = f"share of '{classes[1]}'" if len(classes) == 2 else "mean outcome"
    for site, value in list(skew["level"].items())[:SITES_SHOWN]:
        scores.append(Score(method=site, metric=level, value=value))
    return Part(title="How the sites differ", text=text, scores=scores)


def _sweep(sweep: Mapping[str, Splits], natural: Splits, judged: Verdict) -> Part:
    scores = []
    for text, splits in {"as it is": natural, **sweep}.items():
        names = [
            OURS,
            *(name for name in ("fedavg", "fedavg_recal", "fedavg_tuned", "majority") if name in splits.methods),
        ]
        for name in [name for name in names if name in splits.methods]:
            interval = splits.interval(name, splits.metric)
            scores.append(
                Score(
                    method=label(name),
                    metric=text,
                    value=_finite(interval.mean),
                    **_bounds(interval, *LIMITS[splits.metric]),
                    ours=name == OURS,
                    baseline=name in BASELINES,
                    higher_is_better=HIGHER_IS_BETTER[splits.metric],
                )
            )
    return Part(
        title=f"The same records at other sites: {NAMES[natural.metric]}",
        text="The records of this table divided over as many sites anew: at random (iid), by a Dirichlet distribution "
        "over classes (parts of equal size, for numbers; the smaller its value, the more the sites differ), with so "
        "many classes at each site (classes), or in size alone (quantity). A site is then a random part, so nothing "
        "but its outcomes and size is its own.",
        scores=scores,
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
