"""Everybody that outcome routing is compared with. Each is a :class:`~outroute.trial.fold.Method`.

All sides choose their settings by inner cross-validation with the same number of trials
(:data:`~outroute.trial.tuning.TUNING_TRIALS`), and everything that is learnt comes from training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.trial.estimators import Layout, Model, base_rate
from outroute.trial.federated import LOCAL_STEPS, Federated, federated
from outroute.trial.fold import Answer, Fold, Method, Rows, SiteOut
from outroute.trial.parallel import side_by_side
from outroute.trial.recalibrate import recalibration
from outroute.trial.splits import inner_folds
from outroute.trial.tuning import (
    DEMO_SELECTION_ROWS,
    INNER_FOLDS,
    SELECTION_ROWS,
    TUNING_TRIALS,
    Chosen,
    boosting_families,
    choose,
    cross_fit,
    join,
    linear_family,
    local_families,
    loss,
    strengths,
)

__all__ = [
    "Named",
    "Tuned",
    "demo_opponents",
    "fedavg",
    "fedavg_recal",
    "local",
    "majority",
    "pooled",
    "pooled_boosting",
    "pooled_boosting_recal",
    "pooled_recal",
    "pooled_same_estimator",
    "standard_opponents",
    "tuned_fedavg",
]

Predictions = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Named:
    """A method made of a name and a function."""

    name: str
    answer: Callable[[Fold], Answer]

    def __call__(self, fold: Fold) -> Answer:
        """Learn from `fold.train`, answer `fold.test`."""
        return self.answer(fold)


def standard_opponents() -> tuple[Method, ...]:
    """All opponents of `evaluate`, except ``pooled_same_estimator``, which needs our own estimator."""
    return (
        majority(),
        local(),
        fedavg(),
        fedavg_recal(),
        pooled(),
        pooled_recal(),
        pooled_boosting(),
        pooled_boosting_recal(),
    )


def demo_opponents() -> tuple[Method, ...]:
    """The opponents of the demo: no federated ones, and settings chosen on fewer rows."""
    rows = DEMO_SELECTION_ROWS
    return majority(), local(selection_rows=rows), pooled(), pooled_boosting(selection_rows=rows)


def majority() -> Method:
    """Each site's own base rate (or mean), whatever the case."""

    def answer(fold: Fold) -> Answer:
        return Answer(
            predictions={
                site: base_rate(fold.train[site].y, fold.classes)(cases.x) for site, cases in fold.test.items()
            }
        )

    return Named("majority", answer)


def local(*, selection_rows: int = SELECTION_ROWS) -> Method:
    """Each site on its own, with the best estimator by inner cross-validation.

    Args:
        selection_rows: estimators and settings are compared on this many rows of a site at most.
    """

    def answer(fold: Fold) -> Answer:
        families = local_families(Layout.of(fold.schema), _seed(fold))

        def alone(site: str) -> tuple[str, NDArray[np.float64]]:
            rows = fold.train[site]
            rng = fold.rng(f"local {site}")
            best = choose(families, rows.x, rows.y, rows.group, fold.classes, rng, selection_rows=selection_rows)
            return best.name, best.refit(rows.x, rows.y, fold.classes)(fold.test[site].x)

        order = sorted(fold.train, key=lambda site: -len(fold.train[site]))
        found = dict(zip(order, side_by_side(alone, order), strict=True))
        return Answer(
            predictions={site: found[site][1] for site in fold.test},
            details={"chosen": {site: found[site][0] for site in fold.test}},
        )

    return Named("local", answer)


def pooled() -> Method:
    """All records in one place: logistic regression (ridge for numbers)."""

    def answer(fold: Fold) -> Answer:
        chosen, model = fold.shared("pooled", lambda: _pooled(fold))
        return _everything_left(fold, _for_all(fold, model), {"chosen": chosen.name})

    return Named("pooled", answer)


def pooled_boosting(*, selection_rows: int = SELECTION_ROWS) -> Method:
    """All records in one place: gradient-boosted trees, the ceiling nobody is allowed.

    Args:
        selection_rows: settings are compared on this many rows at most.
    """

    def answer(fold: Fold) -> Answer:
        chosen, model = fold.shared("pooled_boosting", lambda: _pooled_boosting(fold, selection_rows))
        return _everything_left(fold, _for_all(fold, model), {"chosen": chosen.name})

    return Named("pooled_boosting", answer)


def pooled_recal() -> Method:
    """The pooled linear model, recalibrated at each site on cross-fitted training rows."""
    return Named("pooled_recal", _recalibrating("pooled", _pooled))


def pooled_boosting_recal() -> Method:
    """The pooled boosted trees, recalibrated at each site on cross-fitted training rows."""
    return Named("pooled_boosting_recal", _recalibrating("pooled_boosting", _pooled_boosting))


def _recalibrating(key: str, make: Callable[[Fold], tuple[Chosen, Model]]) -> Callable[[Fold], Answer]:
    def answer(fold: Fold) -> Answer:
        chosen, model = fold.shared(key, lambda: make(fold))

        def fit_on(mask: Mapping[str, NDArray[np.bool_]]) -> Model:
            x = np.concatenate([rows.x[mask[site]] for site, rows in fold.train.items()])
            y = np.concatenate([rows.y[mask[site]] for site, rows in fold.train.items()])
            return chosen.refit(x, y, fold.classes)

        before = cross_fit(fold.train, fit_on, fold.rng(f"{key} recalibrated"))
        return _everything_left(fold, _recalibrated(fold, model, before), {"chosen": chosen.name})

    return answer


def pooled_same_estimator(estimate: Callable[[Fold], Predictions]) -> Method:
    """All records in one place, through the estimator that outcome routing itself uses.

    Args:
        estimate: takes a fold, treats every record of every site as evidence, and returns predictions per site.
    """

    def answer(fold: Fold) -> Answer:
        return _everything_left(fold, estimate(fold), {})

    return Named("pooled_same_estimator", answer)


def fedavg() -> Method:
    """Federated averaging of a linear model."""

    def answer(fold: Fold) -> Answer:
        tuned = tuned_fedavg(fold)
        return _weights_left(fold, _for_all(fold, tuned.fitted.model), tuned, fits=1)

    return Named("fedavg", answer)


def fedavg_recal() -> Method:
    """Federated averaging, recalibrated at each site on cross-fitted training rows."""

    def answer(fold: Fold) -> Answer:
        tuned = tuned_fedavg(fold)
        fits = 1

        def fit_on(mask: Mapping[str, NDArray[np.bool_]]) -> Model:
            nonlocal fits
            fits += 1
            return tuned.fit({s: (r.x[mask[s]], r.y[mask[s]]) for s, r in fold.train.items()}).model

        before = cross_fit(fold.train, fit_on, fold.rng("fedavg_recal"))
        return _weights_left(fold, _recalibrated(fold, tuned.fitted.model, before), tuned, fits=fits)

    return Named("fedavg_recal", answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Federated averaging with the settings that inner validation chose.

    Attributes:
        fitted: on all training rows.
        fit: fits other rows with the same settings.
        name: readable settings.
        strength, local_steps: the settings.
    """

    fitted: Federated
    fit: Callable[[Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]], Federated]
    name: str
    strength: float
    local_steps: int


def tuned_fedavg(fold: Fold) -> Tuned:
    """Federated averaging of this fold, tuned once for everybody who asks."""
    return fold.shared("fedavg", lambda: _fedavg(fold))


def _fedavg(fold: Fold) -> Tuned:
    """Strength and local steps by inner validation, with the same budget as everybody's."""
    layout = Layout.of(fold.schema)
    grid = [(c, steps) for c in strengths(TUNING_TRIALS // len(LOCAL_STEPS)) for steps in LOCAL_STEPS]
    x, y, group = join(fold.train)
    of_site = np.repeat(np.arange(len(fold.train)), [len(rows) for rows in fold.train.values()])
    folds = inner_folds(group, INNER_FOLDS, fold.rng("fedavg"), most_rows=SELECTION_ROWS)
    losses = np.zeros(len(grid))
    for train, valid in folds:
        parts = {str(i): (x[mine], y[mine]) for i in range(len(fold.train)) if len(mine := train[of_site[train] == i])}
        for number, (c, steps) in enumerate(grid):
            model = federated(parts, layout=layout, classes=fold.classes, strength=c, local_steps=steps).model
            losses[number] += len(valid) * loss(y[valid], model(x[valid]), fold.classes)
    c, steps = grid[int(np.argmin(losses))]

    def fit(sites: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Federated:
        return federated(sites, layout=layout, classes=fold.classes, strength=c, local_steps=steps)

    return Tuned(
        fitted=fit({site: (rows.x, rows.y) for site, rows in fold.train.items()}),
        fit=fit,
        name=f"linear, C {c:.3g}, {steps} local steps",
        strength=c,
        local_steps=steps,
    )


def _pooled(fold: Fold) -> tuple[Chosen, Model]:
    x, y, group = join(fold.train)
    best = choose(linear_family(Layout.of(fold.schema)), x, y, group, fold.classes, fold.rng("pooled"))
    return best, best.refit(x, y, fold.classes)


def _pooled_boosting(fold: Fold, selection_rows: int = SELECTION_ROWS) -> tuple[Chosen, Model]:
    x, y, group = join(fold.train)
    families = boosting_families(_seed(fold))
    rng = fold.rng("pooled_boosting")
    best = choose(families, x, y, group, fold.classes, rng, parallel=True, selection_rows=selection_rows)
    return best, best.refit(x, y, fold.classes)


def _for_all(fold: Fold, model: Model) -> Predictions:
    return {site: model(cases.x) for site, cases in fold.test.items()}


def _recalibrated(fold: Fold, model: Model, before: Predictions) -> Predictions:
    out = {}
    for site, cases in fold.test.items():
        out[site] = recalibration(before[site], fold.train[site].y, fold.classes)(model(cases.x))
    return out


def _record_bytes(rows: Rows) -> int:
    """What a record weighs when it is sent plainly: two bytes a slot, and eight for its outcome."""
    return len(rows) * (2 * int(rows.x.shape[1]) + 8)


def _everything_left(fold: Fold, predictions: Predictions, details: Mapping[str, Any]) -> Answer:
    out = {site: SiteOut(records_out=len(rows), bytes_out=_record_bytes(rows)) for site, rows in fold.train.items()}
    return Answer(predictions=predictions, out=out, details=details)


def _weights_left(fold: Fold, predictions: Predictions, tuned: Tuned, *, fits: int) -> Answer:
    """Bytes of the final fits; those of the tuning are not counted, in favour of the opponent."""
    out = {site: SiteOut(bytes_out=fits * tuned.fitted.bytes_up) for site, rows in fold.train.items() if len(rows)}
    return Answer(predictions=predictions, out=out, details={"chosen": tuned.name})


def _seed(fold: Fold) -> int:
    return int(fold.rng("estimators").integers(2**31))
