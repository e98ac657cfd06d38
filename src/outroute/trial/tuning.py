"""Choice of settings by cross-validation inside the training rows, with the same budget for every side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.trial.estimators import Boosting, Family, Layout, Linear, Model, Neighbours, base_rate, fit
from outroute.trial.fold import Rows
from outroute.trial.metrics import log_loss
from outroute.trial.parallel import side_by_side
from outroute.trial.splits import inner_folds

__all__ = [
    "DEMO_SELECTION_ROWS",
    "INNER_FOLDS",
    "LARGE_ROWS",
    "SELECTION_ROWS",
    "TUNING_TRIALS",
    "Chosen",
    "boosting_families",
    "choose",
    "cross_fit",
    "join",
    "linear_family",
    "local_families",
    "loss",
    "strengths",
]

TUNING_TRIALS = 12
"""Settings that every side may try in its inner cross-validation."""

DEMO_SELECTION_ROWS = 10_000
"""The same for the demo, which must not take minutes; fits after the choice still see all rows."""

INNER_FOLDS = 3
"""Folds of the inner cross-validation."""

LARGE_ROWS = 20_000
"""Above this many training rows, cross-fitting takes two halves instead of three thirds."""

SELECTION_ROWS = 30_000
"""Settings are chosen on this many training rows at most, thinned at random; the choice is then fitted on all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The winner of an inner cross-validation.

    Attributes:
        name: readable setting.
        refit: fits that setting on rows of its own (x, y, classes).
        loss: its validation loss; NaN when there was nothing to validate on.
        tried: how many settings were tried.
    """

    name: str
    refit: Callable[[NDArray[np.float64], NDArray[np.float64], int], Model]
    loss: float
    tried: int


def strengths(count: int) -> tuple[float, ...]:
    """A grid of `count` values of C from 0.001 to 10, evenly spaced in the logarithm."""
    return tuple(float(c) for c in np.geomspace(1e-3, 10.0, count))


def linear_family(layout: Layout, trials: int = TUNING_TRIALS) -> tuple[Family, ...]:
    """The linear model alone, with the whole budget."""
    return (Linear(layout=layout, strengths=strengths(trials)),)


def boosting_families(seed: int) -> tuple[Family, ...]:
    """Boosting alone: four shapes, three lengths each."""
    return (
        Boosting(leaves=4, rate=0.1, lengths=(25, 75, 200), seed=seed),
        Boosting(leaves=8, rate=0.1, lengths=(25, 75, 200), seed=seed),
        Boosting(leaves=16, rate=0.1, lengths=(25, 75, 200), seed=seed),
        Boosting(leaves=31, rate=0.1, lengths=(25, 75, 200), seed=seed),
    )


def local_families(layout: Layout, seed: int) -> tuple[Family, ...]:
    """What a site alone may choose from: four linear models, six boostings, two sets of neighbours."""
    return (
        Linear(layout=layout, strengths=strengths(4)),
        Boosting(leaves=4, rate=0.1, lengths=(25, 75, 200), seed=seed),
        Boosting(leaves=16, rate=0.1, lengths=(25, 75, 200), seed=seed),
        Neighbours(layout=layout, counts=(10, 40), seed=seed),
    )


def loss(y: NDArray[np.float64], predicted: NDArray[np.float64], classes: int) -> float:
    """What is minimised: log-loss for classes, mean squared error for numbers."""
    return log_loss(y, predicted) if classes else float(np.mean((y - predicted) ** 2))


def choose(
    families: Sequence[Family],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    group: NDArray[np.int64],
    classes: int,
    rng: np.random.Generator,
    *,
    parallel: bool = False,
    selection_rows: int = SELECTION_ROWS,
) -> Chosen:
    """The setting with the least validation loss; the first among equals.

    The constant model takes part too (it has nothing to tune), and wins where there is nothing to validate on.

    Args:
        families: estimators with their settings, ``TUNING_TRIALS`` in all at most.
        x, y, group: the training rows.
        classes: number of classes, 0 for numbers.
        rng: draws the folds.
        parallel: try families side by side.
        selection_rows: settings are compared on this many rows at most.
    """
    tried = sum(len(family.trials) for family in families)
    if tried > TUNING_TRIALS:
        raise DataError(f"{tried} settings; the budget is {TUNING_TRIALS} for every side", code="trial.budget")
    folds = inner_folds(group, INNER_FOLDS, rng, most_rows=selection_rows)
    best = Chosen(name="base rate", refit=lambda _x, y, classes: base_rate(y, classes), loss=float("nan"), tried=tried)
    if not folds:
        return best
    sizes = [len(valid) for _, valid in folds]
    flat = [loss(y[v], base_rate(y[t], classes)(x[v]), classes) for t, v in folds]
    least = float(np.average(flat, weights=sizes))
    best = Chosen(name=best.name, refit=best.refit, loss=least, tried=tried)

    def validate(family: Family) -> NDArray[np.float64]:
        every = range(len(family.trials))
        losses = np.empty((len(folds), len(every)))
        for number, (train, valid) in enumerate(folds):
            held = x[valid]
            for i, model in enumerate(fit(family, x[train], y[train], classes, every)):
                losses[number, i] = loss(y[valid], model(held), classes)
        means: NDArray[np.float64] = np.average(losses, axis=0, weights=sizes)
        return means

    found = side_by_side(validate, families) if parallel else [validate(family) for family in families]
    for family, means in zip(families, found, strict=True):
        i = int(np.argmin(means))
        if means[i] < best.loss:
            best = Chosen(name=family.trials[i], refit=_refit(family, i), loss=float(means[i]), tried=tried)
    return best


def _refit(family: Family, which: int) -> Callable[[NDArray[np.float64], NDArray[np.float64], int], Model]:
    return lambda x, y, classes: fit(family, x, y, classes, [which])[0]


def join(train: Mapping[str, Rows]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """x, y and group of all sites, in the order of the sites."""
    rows = list(train.values())
    return (
        np.concatenate([r.x for r in rows]),
        np.concatenate([r.y for r in rows]),
        np.concatenate([r.group for r in rows]),
    )


def cross_fit(
    train: Mapping[str, Rows],
    fit_on: Callable[[Mapping[str, NDArray[np.bool_]]], Model],
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Predictions for every training row by a model that saw no row of its group, at any site.

    Args:
        train: the training rows per site.
        fit_on: fits one model to the rows that a mask per site selects.
        rng: shuffles the groups.

    Returns:
        Per site, predictions in the order of its rows. Where all rows share one group, of a model that saw them all.
    """
    group = np.concatenate([rows.group for rows in train.values()])
    folds = inner_folds(group, 2 if len(group) > LARGE_ROWS else INNER_FOLDS, rng)
    if not folds:
        model = fit_on({site: np.ones(len(rows), dtype=bool) for site, rows in train.items()})
        return {site: model(rows.x) for site, rows in train.items()}
    fold_of = np.empty(len(group), dtype=np.int64)
    for number, (_, valid) in enumerate(folds):
        fold_of[valid] = number
    ends = np.cumsum([len(rows) for rows in train.values()])[:-1]
    of_site = dict(zip(train, np.split(fold_of, ends), strict=True))
    out: dict[str, NDArray[np.float64]] = {}
    for number in range(len(folds)):
        model = fit_on({site: of_site[site] != number for site in train})
        for site, rows in train.items():
            mine = of_site[site] == number
            predicted = model(rows.x[mine])
            if site not in out:
                out[site] = np.empty((len(rows), *predicted.shape[1:]))
            out[site][mine] = predicted
    return out
