"""One fit with attackers among the peers: elected, fitted, scored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute import trial
from outroute.elections import elect, leaning
from outroute.node.electing import dropped, elect_packets
from outroute.schema import Schema
from outroute.simulation import attack, standardised
from outroute.synthesis import Evidence, Records, Settings, fit
from outroute.trial.metrics import MIN_FOR_R2
from outroute.trial.parallel import single_threaded
from outroute.walls.hostile_cases import Case

__all__ = [
    "Elections",
    "Scored",
    "alone",
    "attacked",
    "attackers",
    "everybody",
    "figures",
    "honest_parts",
    "judged",
    "least_honest",
    "loss_name",
    "of_organisations",
    "ours",
    "score",
    "weight_share",
]

REACH = 0.5
"""Width, in deviations between packets per slot, within which packets count as near a victim's cases."""
OVERLAP_LEAST = 0.02
"""An honest node is looked at if it holds at least this part of all honest observations near the victim's cases."""

HALF = 0.5
"""Part of what is due to it that no honest node should fall below."""

Elections = Callable[[Schema, Evidence, Records, np.random.Generator], Evidence]
"""(schema, packets of others, own records, rng) -> the same packets with weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One fit, scored at one site.

    Attributes:
        scores: by metric, over all test cases; see `judged`.
        inside: the same over the test cases in the case's region.
        share: attackers' share of the weight.
        least: of all honest nodes that matter to the victim, the least part of the weight that the oracle gives it,
            the oracle being size times overlap with the victim's cases; 1 where the election changes nothing among
            the honest, and below for whoever is thought ill of. NaN where no honest node counts.
        matter, below: honest nodes that matter, and how many of them keep less than half of what is due.
        weights: of the calculations.
    """

    scores: dict[str, float]
    inside: dict[str, float]
    share: float
    least: float
    matter: int
    below: int
    weights: dict[str, float]


def loss_name(classes: int) -> str:
    """What is to be small: "log_loss" of classes, in nats; "unexplained" of numbers (classes 0): 1 - R2."""
    return "log_loss" if classes else "unexplained"


def judged(case: Case, predicted: NDArray[np.float64]) -> tuple[dict[str, float], dict[str, float]]:
    """Scores over all test cases of a victim, and over those in its region.

    Numbers are cut to the outcome's declared range first, whoever says them. What is unexplained is the mean squared
    error over the variance of all its test outcomes, in the region too, so that both have one unit; NaN with fewer than
    `MIN_FOR_R2` test cases.
    """
    inside = case.region.contains(case.x)
    if case.classes:
        return trial.score(case.y, predicted, case.classes), trial.score(
            case.y[inside], predicted[inside], case.classes
        )
    outcome = case.schema.outcome
    assert outcome.low is not None
    assert outcome.high is not None
    within = np.clip(predicted, float(outcome.low), float(outcome.high))
    variance = float(case.y.var()) if len(case.y) >= MIN_FOR_R2 else 0.0
    error = (case.y - within) ** 2 / variance if variance > 0 else np.full(len(case.y), np.nan)
    found = trial.score(case.y, within, 0) | {"unexplained": float(error.mean()) if len(error) else float("nan")}
    there = {"unexplained": float(error[inside].mean()) if inside.any() else float("nan")}
    return found, trial.score(case.y[inside], within[inside], 0) | there


def figures(case: Case, scores: Mapping[str, float], inside: Mapping[str, float]) -> dict[str, float]:
    """What a row keeps of the scores of `judged`; the AUC only where there is enough of each class."""
    name = loss_name(case.classes)
    found = {name: scores[name], "inside": inside[name]}
    if not case.classes:
        return found | {"r2": scores["r2"] if np.isfinite(scores[name]) else float("nan"), "mae": scores["mae"]}
    enough = int(np.bincount(case.y.astype(np.int64), minlength=case.classes).min()) >= trial.MIN_PER_CLASS
    return found | {"accuracy": scores["accuracy"], "auc": scores["auc"] if enough else float("nan")}


def everybody(schema: Schema, evidence: Evidence, own: Records, rng: np.random.Generator) -> Evidence:
    """No election: every packet counts."""
    return evidence


def attackers(honest: int, share: float) -> int:
    """Attackers that make `share` (0 to 1) of all peers beside `honest` ones; at least one above zero."""
    return max(1, round(share * honest / (1 - share))) if share > 0 else 0


def attacked(case: Case, name: str, count: int, *, rule: Any = None) -> Evidence:
    """Packets of `count` attackers on a case; none for 0."""
    if not count:
        return case.evidence.take(np.zeros(0, dtype=np.int64))
    victim = case.published.nodes[0] if case.published.n else None
    rng = case.rng(f"{name} {count}")
    return attack(name, case.read, count, rng, region=case.region, rule=rule, victim=victim)


def ours(
    schema: Schema,
    evidence: Evidence,
    own: Records,
    rng: np.random.Generator,
    organisation: NDArray[np.int64] | None = None,
) -> Evidence:
    """The elections that a node holds."""
    certified = {}
    if organisation is not None:
        certified = {
            name: b"organisation %d" % i for name, i in zip(evidence.nodes, organisation.tolist(), strict=True)
        }
    return elect_packets(schema, evidence, own, rng=rng, certified=certified).evidence


def of_organisations(elections: Elections, hostile: Iterable[bytes]) -> Elections:
    """The same elections, told that the hostile nodes are of one organisation, if they want to know.

    They do if they have a parameter `organisation`: int64[nodes], which organisation each of `Evidence.nodes` is of.
    """
    if "organisation" not in inspect.signature(elections).parameters:
        return elections
    theirs = set(hostile)

    def told(schema: Schema, evidence: Evidence, own: Records, rng: np.random.Generator) -> Evidence:
        number = [len(evidence.nodes) if name in theirs else i for i, name in enumerate(evidence.nodes)]
        wanting: Any = elections
        elected: Evidence = wanting(schema, evidence, own, rng, organisation=np.array(number, dtype=np.int64))
        return elected

    return told


def weight_share(elected: Evidence, hostile: Iterable[bytes]) -> float:
    """Observations that count (weight times size) and come from hostile nodes, as a share of all that count."""
    amount = elected.size if elected.weight is None else elected.size * elected.weight
    theirs = np.isin(elected.node, np.flatnonzero([name in set(hostile) for name in elected.nodes]))
    total = float(amount.sum())
    return float(amount[theirs].sum()) / total if total > 0 else 0.0


def least_honest(case: Case, elected: Evidence, hostile: Iterable[bytes]) -> float:
    """The least that any honest node keeps of the part of the weight that is due to it; see `Scored.least`."""
    parts = honest_parts(case, elected, hostile)
    return float(parts.min()) if len(parts) else float("nan")


def honest_parts(case: Case, elected: Evidence, hostile: Iterable[bytes]) -> NDArray[np.float64]:
    """What each honest node that matters keeps of the part of the weight that is due to it."""
    honest = np.flatnonzero(~np.isin(elected.node, np.flatnonzero([n in set(hostile) for n in elected.nodes])))
    if not len(honest) or not len(case.x):
        return np.zeros(0)
    part = elected.take(honest)
    mean, spread = standardised(case.evidence.x)
    a, b = np.nan_to_num((part.x - mean) / spread), np.nan_to_num((case.x - mean) / spread)
    gap = ((a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)) / a.shape[1]
    overlap = np.exp(-np.maximum(gap, 0.0) / (2 * REACH**2)).mean(axis=1)
    due = np.bincount(part.node, part.size * overlap, len(part.nodes))
    weight = np.ones(part.n) if part.weight is None else part.weight
    given = np.bincount(part.node, part.size * overlap * weight, len(part.nodes))
    matters = due >= OVERLAP_LEAST * due.sum()
    if given.sum() <= 0:
        return np.zeros(int(matters.sum()))  # nobody is drawn on
    found: NDArray[np.float64] = (given / given.sum())[matters] / (due / due.sum())[matters]
    return found


def score(
    case: Case,
    evidence: Evidence,
    *,
    elections: Elections = everybody,
    hostile: Iterable[bytes] = (),
    settings: Settings | None = None,
    one_organisation: bool = False,
) -> Scored:
    """Elect, fit and score one case.

    Args:
        case: the victim.
        evidence: packets of everybody else, attackers included.
        elections: gives packets their weights.
        hostile: node ids of the attackers.
        settings: of the synthesis.
        one_organisation: one organisation certifies all attackers; otherwise everybody is one of its own.
    """
    if one_organisation:
        elections = of_organisations(elections, hostile)
    elected = elections(case.schema, evidence, case.own, case.rng("elections"))
    with single_threaded():
        fitted = fit(
            case.schema,
            elected,
            case.own,
            settings=settings,
            rng=case.rng("fit"),
            trust=lambda names, prior, objective: leaning(
                names, elect(objective, prior), objective, case.own.n, dropped(elected)
            ),
        )
        estimate = fitted.answer(case.x).estimate
    predicted = np.column_stack([1 - estimate, estimate]) if case.classes == 2 else estimate
    scores, inside = judged(case, predicted)
    parts = honest_parts(case, elected, hostile)
    return Scored(
        scores=scores,
        inside=inside,
        share=weight_share(elected, hostile),
        least=float(parts.min()) if len(parts) else float("nan"),
        matter=len(parts),
        below=int((parts < HALF).sum()),
        weights=dict(zip(fitted.calculations, fitted.weights.tolist(), strict=True)),
    )


def alone(case: Case, settings: Settings | None = None) -> Scored:
    """What the victim says from its own records only."""
    return score(case, case.evidence.take(np.zeros(0, dtype=np.int64)), settings=settings)
