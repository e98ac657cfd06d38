"""What the same setting is worth: a light stand-in for the trial, with one linear model for both sides.

A logistic regression (ridge for numbers) on packets as weighted records, and federated averaging of the same model,
both made in the same steps, tested on held-out subjects of every site. No site keeps own records here and nothing is
recalibrated, so both sides are below what ``outroute evaluate`` measures; what counts is the difference between
settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.clients import clients_of, declared_scores
from outroute.audit.nets import new_net
from outroute.audit.updates import ROUNDS, WHOLE, Federation, average
from outroute.schema import unit_scale
from outroute.trial.estimators import Layout, Moments, Standard, standard
from outroute.trial.intervals import difference
from outroute.trial.metrics import auc, log_loss, r2

if TYPE_CHECKING:
    from outroute.audit.emission import Emitter
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["MARGIN", "REFERENCE", "Utility", "against_first", "federated_utility", "packet_utility", "utility_splits"]

TEST_SHARE = 0.3
"""Of each site's subjects."""
REPEATS = 20
"""Splits: as many as intervals need (DESIGN 10)."""
MARGIN = 0.01
"""AUC (R2) that a setting may lose against single records and still count as not worse, written down before any run."""
REFERENCE = "single records"
"""The setting that all others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utility:
    """Means over splits; NaN where it does not apply.

    Attributes:
        auc, log_loss: class outcomes, over the test records of all sites together.
        r2: numeric outcomes.
        splits: by split, the AUC (R2), for paired differences.
        losses: by split, the log-loss of class outcomes.
    """

    auc: float
    log_loss: float
    r2: float
    splits: tuple[float, ...]
    losses: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        named = {"auc": self.auc, "log_loss": self.log_loss, "r2": self.r2}
        out: dict[str, Any] = {name: None if np.isnan(value) else value for name, value in named.items()}
        return out | {
            "splits": [None if np.isnan(value) else value for value in self.splits],
            "losses": list(self.losses),
        }


def against_first(found: dict[str, Any], metric: str) -> None:
    """Put beside every setting's worth its paired difference to single records, with Nadeau-Bengio intervals.

    Args:
        found: of an audit, changed in place; nothing is added where single records are not among its settings.
        metric: "auc" or "r2", what ``splits`` holds.
    """
    if REFERENCE not in found["packets"]:
        return
    first = found["packets"][REFERENCE]["utility"]["splits"]
    for of in (*found["packets"].values(), *found.get("federated", {}).get("settings", {}).values()):
        worth = of["utility"]
        if worth is first or len(worth["splits"]) != len(first):
            continue
        gaps = [float("nan") if a is None or b is None else a - b for a, b in zip(worth["splits"], first, strict=True)]
        made = difference(gaps, metric=metric, margin=MARGIN, test_to_train=TEST_SHARE / (1 - TEST_SHARE))
        worth["minus_single_records"] = made.to_json()


Split = tuple[Mapping[str, "Observations"], Mapping[str, "Observations"]]


def utility_splits(sites: Mapping[str, Observations], rng: np.random.Generator, repeats: int = REPEATS) -> list[Split]:
    """Train and test observations of every site, split by subject; rows without an outcome are left out."""
    out: list[Split] = []
    for _ in range(repeats):
        train, test = {}, {}
        for name, of in sites.items():
            rows = of.take(np.flatnonzero(~np.isnan(of.outcome)))
            people, number = np.unique(rows.subject, return_inverse=True)
            held = (rng.permutation(len(people)) < round(TEST_SHARE * len(people)))[number.reshape(-1)]
            train[name], test[name] = rows.take(np.flatnonzero(~held)), rows.take(np.flatnonzero(held))
        out.append((train, test))
    return out


def packet_utility(schema: Schema, splits: list[Split], emit: Emitter, rng: np.random.Generator) -> Utility:
    """A linear model on the packets of all sites."""

    def predict(train: Mapping[str, Observations]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        emitted = [emit(schema, rows, rng) for rows in train.values()]
        emitted = [e for e in emitted if len(e)]
        classes = len(schema.outcome.classes)
        if not emitted:
            return lambda x: np.full((len(x), max(classes, 1)), 1 / max(classes, 1))
        x, size = np.vstack([e.x for e in emitted]), np.concatenate([e.size for e in emitted])
        outcome = np.vstack([e.outcome for e in emitted])
        return _linear(schema, x, outcome, np.maximum(size, 0.0), declared=emitted[0].noisy is not None)

    return _tested(schema, splits, predict)


def federated_utility(schema: Schema, splits: list[Split], how: Federation, rng: np.random.Generator) -> Utility:
    """The model of a federation; class outcomes only."""
    if not schema.outcome.has_classes:
        nan = float("nan")
        return Utility(auc=nan, log_loss=nan, r2=nan, splits=())

    def predict(train: Mapping[str, Observations]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        clients = clients_of(schema, train, public=bool(how.training.noise))
        net = average(clients.sites, how, rng)
        return lambda x: net.probabilities(clients.scores(x))

    return _tested(schema, splits, predict)


def _linear(
    schema: Schema,
    x: NDArray[np.float64],
    outcome: NDArray[np.float64],
    size: NDArray[np.float64],
    *,
    declared: bool,
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A linear model on packets as weighted records, made from the same scores as federated averaging's, in the same
    steps: on single records it is what averaging one step of every site makes. Under a lifetime budget the scores come
    from the declared ranges (``declared``), on both sides."""
    from sklearn.linear_model import Ridge

    scores = declared_scores(schema) if declared else _scores(schema, x, size)
    z, classes = scores(x), len(schema.outcome.classes)
    if not classes:
        ridge = Ridge(alpha=1.0).fit(z, outcome[:, 0], sample_weight=size)
        return lambda of: np.asarray(ridge.predict(scores(of)))[:, None]
    counts = np.maximum(outcome, 0.0) * size[:, None]
    rows, label = np.nonzero(counts > 1e-9)
    weight = counts[rows, label] / max(float(counts.sum()), 1e-12)
    net = new_net(z.shape[1], classes, np.random.default_rng(0), hidden=0)
    for _ in range(ROUNDS):
        net = net - net.gradient(z[rows], label, weight).times(WHOLE.rate)
    return lambda of: net.probabilities(scores(of))


def _scores(schema: Schema, x: NDArray[np.float64], size: NDArray[np.float64]) -> Standard:
    """Standard scores from packets, each as often as it has observations."""
    known = ~np.isnan(x)
    filled = np.where(known, x, 0.0)
    sums = Moments(
        rows=max(round(float(size.sum())), 1),
        present=size @ known,
        total=size @ filled,
        squares=size @ filled**2,
    )
    return standard(Layout.of(schema), sums)


def _tested(
    schema: Schema,
    splits: list[Split],
    predict: Callable[[Mapping[str, Observations]], Callable[[NDArray[np.float64]], NDArray[np.float64]]],
) -> Utility:
    areas, losses, shares = [], [], []
    for train, test in splits:
        model = predict(train)
        x = np.vstack([unit_scale(schema, rows.codes) for rows in test.values()])
        y = np.concatenate([rows.outcome for rows in test.values()])
        found = model(x)
        if schema.outcome.has_classes:
            areas.append(auc(y, found))
            losses.append(log_loss(y, found))
        else:
            assert schema.outcome.low is not None
            assert schema.outcome.high is not None
            low, high = float(schema.outcome.low), float(schema.outcome.high)
            shares.append(r2(y, low + (high - low) * found[:, 0]))
    nan = float("nan")
    return Utility(
        auc=float(np.nanmean(areas)) if areas else nan,
        log_loss=float(np.mean(losses)) if losses else nan,
        r2=float(np.nanmean(shares)) if shares else nan,
        splits=tuple(areas or shares),
        losses=tuple(losses),
    )
