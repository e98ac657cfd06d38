"""The tuning of federated opponents: the same inner split, the same number of trials, one refit.

:class:`Tuned` makes a federation a method of a trial: it looks at every setting after some numbers of rounds on the
inner validation split that all of them share (each setting after each number of rounds is one trial), takes the best,
and fits it again on all training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.trial import Answer, Fold, Rows, SiteOut
from outroute.trial.estimators import Model
from outroute.trial.recalibrate import recalibration
from outroute.trial.tuning import INNER_FOLDS, TUNING_TRIALS, cross_fit
from outroute.walls.opponents.sites import Federation, Masks, Stage, inner, inner_masks, site_loss, sites_of

__all__ = ["CONVERGED", "Chosen", "Recalibrated", "Tuned", "refit", "seed_of", "tune"]

CONVERGED = 0.01
"""A federation has converged in the first round whose validation loss is this close to the best one of all rounds."""

_CHECKED = 50
"""Rows of a site on which a fit is checked to be finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What the tuning of one opponent found.

    Attributes:
        setting, rounds: the best trial.
        loss: its validation loss.
        tried: how many trials there were.
        curve: validation loss by round, of the best setting.
        converged: rounds that it took.
        stage: the best trial's models, fitted on the training part.
    """

    setting: Mapping[str, Any]
    rounds: int
    loss: float
    tried: int
    curve: tuple[tuple[int, float], ...]
    converged: int
    stage: Stage


def tune(federation: Federation, fold: Fold) -> Chosen:
    """The best setting and number of rounds of an opponent; made once for a fold."""

    def search() -> Chosen:
        part = inner(fold)
        settings = federation.settings(part.sites)
        tried = len(settings) * len(federation.stages)
        if tried > TUNING_TRIALS:
            raise DataError(f"{federation.name} has {tried} trials, {TUNING_TRIALS} are allowed", code="walls.trials")
        best: Chosen | None = None
        for setting in settings:
            curve: list[tuple[int, float]] = []
            found: list[tuple[float, Stage]] = []
            for stage in federation.fit(part.sites, setting, federation.stages[-1], seed_of(federation, fold)):
                predicted = {site: stage.model(site)(x) for site, x in part.x.items()}
                loss = site_loss(predicted, part.y, fold.classes)
                curve.append((stage.rounds, loss if np.isfinite(loss) else float("inf")))
                if stage.rounds in federation.stages:
                    found.append((curve[-1][1], stage))
            loss, stage = min(found, key=lambda one: one[0])
            if best is None or loss < best.loss:
                least = min(value for _, value in curve)
                best = Chosen(
                    setting=setting,
                    rounds=stage.rounds,
                    loss=loss,
                    tried=tried,
                    curve=tuple(curve),
                    converged=next(rounds for rounds, value in curve if value <= least + CONVERGED),
                    stage=stage,
                )
        assert best is not None
        return best

    return fold.shared(f"walls: tuned {federation.name}", search)


def seed_of(federation: Federation, fold: Fold) -> int:
    """Everything random in an opponent follows from it."""
    return int(fold.rng(f"walls: {federation.name}").integers(2**31))


def refit(federation: Federation, fold: Fold, keep: Masks | None = None) -> Stage:
    """The chosen setting on all training rows (kept for the fold), or on those that a mask keeps."""
    chosen = tune(federation, fold)

    def make() -> Stage:
        last: Stage | None = None
        for stage in federation.fit(sites_of(fold, keep), chosen.setting, chosen.rounds, seed_of(federation, fold)):
            last = stage
        assert last is not None
        some = [rows.x[:_CHECKED] for rows in fold.train.values() if len(rows)]
        # A training that has diverged on more records is no answer: the one that was judged is.
        return last if all(np.isfinite(last.shared(x)).all() for x in some) else chosen.stage

    return make() if keep is not None else fold.shared(f"walls: fitted {federation.name}", make)


def _answer(fold: Fold, predictions: Mapping[str, NDArray[np.float64]], chosen: Chosen, loss: float, up: int) -> Answer:
    names = " ".join(f"{key} {value}" for key, value in chosen.setting.items())
    return Answer(
        predictions=predictions,
        out={site: SiteOut(bytes_out=up) for site, rows in fold.train.items() if len(rows)},
        details={
            "chosen": f"{names}, {chosen.rounds} rounds",
            "validation": loss,
            "tried": chosen.tried,
            "converged": chosen.converged,
            "rounds": chosen.rounds,
            "curve": [[rounds, loss] for rounds, loss in chosen.curve],
        },
    )


@dataclass(frozen=True, slots=True)
class Tuned:
    """An opponent as a method of a trial: its best setting, as it comes out of the federation."""

    federation: Federation

    @property
    def name(self) -> str:
        """See :class:`~outroute.trial.fold.Method`."""
        return self.federation.name

    @property
    def text(self) -> str:
        """For people."""
        return self.federation.text

    def __call__(self, fold: Fold) -> Answer:
        """Tune, fit, answer."""
        chosen, stage = tune(self.federation, fold), refit(self.federation, fold)
        predictions = {site: stage.model(site)(cases.x) for site, cases in fold.test.items()}
        return _answer(fold, predictions, chosen, chosen.loss, stage.bytes_up)


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """An opponent whose shared model every site brings to its own level.

    The recalibration is that of `outroute.trial.recalibrate`, learnt from cross-fitted predictions of the site's
    training rows. Its validation loss is found in the same way inside the inner split.
    """

    federation: Federation

    @property
    def name(self) -> str:
        """See :class:`~outroute.trial.fold.Method`."""
        return f"{self.federation.name}_recal"

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.federation.text}, recalibrated at each site"

    def __call__(self, fold: Fold) -> Answer:
        """Tune, fit, recalibrate, answer."""
        chosen, stage = tune(self.federation, fold), refit(self.federation, fold)
        before = cross_fit(
            fold.train, lambda keep: refit(self.federation, fold, keep).shared, fold.rng(f"walls: {self.name}")
        )
        predictions = {}
        for site, cases in fold.test.items():
            own = recalibration(before[site], fold.train[site].y, fold.classes)
            predictions[site] = own(stage.shared(cases.x))
        fits = 1 + INNER_FOLDS
        return _answer(fold, predictions, chosen, self._validation(fold, chosen), fits * stage.bytes_up)

    def _validation(self, fold: Fold, chosen: Chosen) -> float:
        train, _ = inner_masks(fold)
        rows = {site: _some(part, train[site]) for site, part in fold.train.items() if train[site].any()}
        where = {site: np.flatnonzero(train[site]) for site in rows}

        def fit_on(keep: Masks) -> Model:
            masks = {site: np.zeros(len(part), dtype=bool) for site, part in fold.train.items()}
            for site, mask in keep.items():
                masks[site][where[site][mask]] = True
            return refit(self.federation, fold, masks).shared

        before = cross_fit(rows, fit_on, fold.rng(f"walls: validation of {self.name}"))
        part, predicted = inner(fold), {}
        for site, x in part.x.items():
            plain = chosen.stage.shared(x)
            own = site in rows
            predicted[site] = recalibration(before[site], rows[site].y, fold.classes)(plain) if own else plain
        return site_loss(predicted, part.y, fold.classes)


def _some(rows: Rows, keep: NDArray[np.bool_]) -> Rows:
    return Rows(
        x=rows.x[keep],
        columns={name: values[keep] for name, values in rows.columns.items()},
        case=rows.case[keep],
        group=rows.group[keep],
        time=None if rows.time is None else rows.time[keep],
        y=rows.y[keep],
        outcome=rows.outcome[keep],
    )
