"""Membership inference: was this person's record among those that a site condensed?

The attacker knows the record, its outcome, the schema, the distiller, k, and how records are spread (shadow data); it
does not know who was in. Half of the subjects are drawn in, again and again; every draw is emitted; and an attack
tells those who are in from those who are out.

Source: Carlini, Chien, Nasr, Song, Terzis, Tramer, "Membership Inference Attacks From First Principles" (IEEE S&P
2022), algorithm 1, the online attack. Departures: the statistics are those of packets (a model has a loss, packets have
distances), several of them, joined by a logistic regression that is fitted on other emissions; and variances are drawn
towards their mean over records, because shadow emissions are few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.scores import Detection, FieldScale, Interval, detection
from outroute.audit.traces import traces
from outroute.schema import unit_scale

if TYPE_CHECKING:
    from outroute.audit.emission import Emitter
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["SHADOWS", "Membership", "Pairs", "half_in", "judge", "likelihood_ratio", "membership_pairs", "pairs_of"]

SHADOWS = 64
"""Draws of half of the subjects. Carlini et al. use 256 models; with 64 the low rates of false positives are still
judged on thousands of pairs, and the whole takes seconds."""
LEAST_SUBJECTS = 8
"""Below that, half of them say nothing."""
PRIOR = 4.0
"""Shadow emissions that the common variance of a statistic counts for, beside the record's own."""
CLIP = 30.0
"""Largest log-likelihood ratio of one statistic: beyond, only the number grows, not the certainty."""
WORST = 0.1
"""Share of subjects that is called the most exposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Scores of an attack on one site: every subject against every emission.

    Attributes:
        ratio: float64[S, u], log-likelihood ratio of being in, from shadow emissions.
        nearest: float64[S, u], minus the distance to the nearest packet that could hold the record; no shadow data.
        member: bool[S, u], the truth.
    """

    ratio: NDArray[np.float64]
    nearest: NDArray[np.float64]
    member: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What membership inference finds, over all sites.

    Attributes:
        ratio: the likelihood-ratio attack.
        nearest: the distance to the nearest packet alone.
        worst: area under the curve for the most exposed tenth of subjects under the likelihood-ratio attack, chosen
            on half of the emissions and judged on the others. Without a choice on other data, the worst tenth of
            anything looks exposed.
        subjects: how many there were.
    """

    ratio: Detection
    nearest: Detection
    worst: Interval
    subjects: int

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "likelihood_ratio": self.ratio.to_json(),
            "nearest": self.nearest.to_json(),
            "worst_decile_auc": self.worst.to_json(),
            "subjects": self.subjects,
        }


def membership_pairs(
    schema: Schema,
    observations: Observations,
    emit: Emitter,
    rng: np.random.Generator,
    *,
    shadows: int = SHADOWS,
    coins: bool = False,
    step: Callable[[int, int], None] | None = None,
) -> Pairs | None:
    """Attack one site; judge several together with :func:`judge`.

    Args:
        schema: the schema.
        observations: all candidates; half of their subjects are in each emission.
        emit: the distiller under attack.
        rng: draws who is in, and what the emitter draws.
        shadows: emissions, an even number, at least 8.
        coins: see :func:`half_in`.
        step: told how many of them are done.

    Returns:
        None where there are too few subjects.
    """
    known = np.flatnonzero(~np.isnan(observations.outcome))
    rows = observations.take(known)
    people, subject = np.unique(rows.subject, return_inverse=True)
    subject = subject.reshape(-1)
    if len(people) < LEAST_SUBJECTS:
        return None
    x = unit_scale(schema, rows.codes)
    scale = FieldScale.of(schema, x)
    inside = half_in(len(people), shadows, rng, coins=coins)
    found = []
    for number, chosen in enumerate(inside):
        emission = emit(schema, rows.take(np.flatnonzero(chosen[subject])), rng)
        found.append(traces(schema, scale, x, rows, emission))
        if step is not None:
            step(number + 1, shadows)
    return pairs_of(np.stack(found), inside, subject)


def pairs_of(values: NDArray[np.float64], inside: NDArray[np.bool_], subject: NDArray[np.int64]) -> Pairs:
    """Scores from the traces of every row in every emission.

    Args:
        values: float64[S, n, F]; the first grows with the distance to what could be the record's packet.
        inside: bool[S, u], who was in; emissions as ``half_in`` pairs them.
        subject: int64[n], of each row, from 0.
    """
    ratio = likelihood_ratio(values, inside[:, subject])
    return Pairs(
        ratio=_by_subject(ratio, subject, np.add),
        nearest=_by_subject(-values[:, :, 0], subject, np.maximum),
        member=inside,
    )


def half_in(people: int, draws: int, rng: np.random.Generator, *, coins: bool = False) -> NDArray[np.bool_]:
    """Who is in: bool[draws, people]. Draws come in pairs of complements, so everybody is in half of all draws.

    Exactly half are in each, unless a coin is tossed for everybody: whether one is in then says nothing about the
    others, and this is the difference that differential privacy bounds. (With exact halves somebody else is out when
    one is in.) Without a bound to compare with, exact halves make for narrower intervals.
    """
    if coins:
        first = rng.random((draws // 2, people)) < 0.5
    else:
        first = np.stack([rng.permutation(people) < people // 2 for _ in range(draws // 2)])
    return np.stack([first, ~first], axis=1).reshape(-1, people)


def likelihood_ratio(values: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-likelihood ratios from statistics, each emission judged by all other pairs, float64[S, n].

    Args:
        values: float64[S, n, F], statistics of every record in every emission; emissions as ``half_in`` pairs them.
        member: bool[S, n].
    """
    inside = _gaussian(values, member)
    outside = _gaussian(values, ~member)
    each = np.clip(inside - outside, -CLIP, CLIP)
    return _joined(each, member)


def _gaussian(values: NDArray[np.float64], which: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-density of every value under a Gaussian fitted to the emissions of all other pairs in which ``which`` holds.

    A pair of complements is left out together: what is in neither the site nor its complement does not exist, so the
    complement would tell the attacker about the emission that it attacks.
    """
    weight = which[:, :, None].astype(np.float64)
    count = np.maximum(_others(weight), 1.0)
    mean = _others(values * weight) / count
    own = np.maximum(_others(values**2 * weight) / count - mean**2, 0.0)
    common = own.mean(axis=(0, 1), keepdims=True)
    floor = 1e-6 * np.maximum(values.var(axis=(0, 1), keepdims=True), 1e-12)
    variance = (count * own + PRIOR * common) / (count + PRIOR) + floor
    return np.asarray(-0.5 * np.log(variance) - 0.5 * (values - mean) ** 2 / variance)


def _others(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the emissions of all pairs but the own one, in the shape of ``values`` ``[S, ...]``."""
    pair = values.reshape(len(values) // 2, 2, *values.shape[1:]).sum(axis=1)
    return np.repeat(values.sum(axis=0) - pair, 2, axis=0)


def _joined(each: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-likelihood ratios of several statistics as one; the weights come from the other half of the emissions."""
    from sklearn.linear_model import LogisticRegression

    out = np.zeros(member.shape)
    # Draws come as complements: pairs of them stay together.
    half = np.arange(len(each)) // 2 % 2
    for side in (0, 1):
        fit, use = half != side, half == side
        if not fit.any() or not use.any():
            out[use] = each[use].sum(axis=-1)
            continue
        moving = each[fit].std(axis=(0, 1)) > 1e-9
        if not moving.any():
            continue
        model = LogisticRegression(C=1.0, max_iter=300)
        model.fit(each[fit][:, :, moving].reshape(-1, int(moving.sum())), member[fit].reshape(-1))
        flat = each[use][:, :, moving].reshape(-1, int(moving.sum()))
        out[use] = model.decision_function(flat).reshape(member[use].shape)
    return out


def _by_subject(score: NDArray[np.float64], subject: NDArray[np.int64], join: np.ufunc) -> NDArray[np.float64]:
    """Scores of rows ``[S, n]`` joined over each subject's rows, ``[S, u]``."""
    order = np.argsort(subject, kind="stable")
    start = np.flatnonzero(np.append(True, np.diff(subject[order]) > 0))
    return np.asarray(join.reduceat(score[:, order], start, axis=1))


def judge(sites: list[Pairs], rng: np.random.Generator) -> Membership | None:
    """One judgement over the sites that were attacked; None where there is none."""
    if not sites:
        return None
    first = np.cumsum([0, *(site.member.shape[1] for site in sites)])
    cluster = np.concatenate(
        [np.tile(np.arange(a, b), site.member.shape[0]) for a, b, site in zip(first, first[1:], sites, strict=False)]
    )
    member = np.concatenate([site.member.reshape(-1) for site in sites])

    def of(name: str) -> Detection:
        return detection(np.concatenate([getattr(s, name).reshape(-1) for s in sites]), member, cluster, rng)

    each = [_each_subject(site) for site in sites]
    chosen_by = np.concatenate([half for half, _ in each])
    judged_by = np.concatenate([half for _, half in each])
    return Membership(
        ratio=of("ratio"), nearest=of("nearest"), worst=_worst(chosen_by, judged_by, rng), subjects=int(first[-1])
    )


def _each_subject(site: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area under the curve of every subject on one half of the emissions and on the other, float64[u] each."""
    half = np.arange(len(site.member)) // 2 % 2
    one, two = (_areas(site.ratio[half == side], site.member[half == side]) for side in (0, 1))
    return one, two


def _areas(score: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area under the curve of each column, float64[u]; NaN without members or without others."""
    greater = (score[:, None, :] > score[None, :, :]) + 0.5 * (score[:, None, :] == score[None, :, :])
    pair = member[:, None, :] & ~member[None, :, :]
    count = pair.sum(axis=(0, 1))
    return np.where(count > 0, (greater * pair).sum(axis=(0, 1)) / np.maximum(count, 1), np.nan)


def _worst(one: NDArray[np.float64], two: NDArray[np.float64], rng: np.random.Generator) -> Interval:
    """Mean area of the most exposed tenth, chosen by one half and judged by the other, both ways."""
    known = ~(np.isnan(one) | np.isnan(two))
    one, two = one[known], two[known]
    if not len(one):
        return Interval(value=float("nan"))
    most = max(1, round(WORST * len(one)))
    # Both halves may be seen as the choice; ties are broken by lot, not by place.
    picked = []
    for chosen_by, judged_by in ((one, two), (two, one)):
        order = np.lexsort((rng.random(len(one)), -chosen_by))
        picked.append(judged_by[order[:most]])
    values = np.concatenate(picked)
    error = float(values.std(ddof=1) / np.sqrt(most)) if most > 1 else float("nan")
    mean = float(values.mean())
    return Interval(value=mean, low=mean - 1.96 * error, high=mean + 1.96 * error)
