"""What all federated opponents have in common: the same inner split, the same number of trials, one refit.

An opponent is a :class:`Federation`: it fits one of its settings round by round. :class:`Tuned` makes it a method of a
trial: it looks at every setting after some numbers of rounds on the inner validation split that all of them share
(each setting after each number of rounds is one trial), takes the best, and fits it again on all training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.trial import Answer, Fold, SiteOut, inner_folds
from outroute.trial.estimators import Layout, Model, Standard, moments, standard
from outroute.trial.metrics import log_loss
from outroute.trial.recalibrate import recalibration
from outroute.trial.tuning import INNER_FOLDS, SELECTION_ROWS, TUNING_TRIALS, cross_fit

__all__ = [
    "CONVERGED",
    "Chosen",
    "Federation",
    "Inner",
    "Recalibrated",
    "Sites",
    "Stage",
    "Tuned",
    "inner",
    "inner_masks",
    "mean_of",
    "refit",
    "seed_of",
    "site_loss",
    "sites_of",
    "tune",
]

CONVERGED = 0.01
"""A federation has converged in the first round whose validation loss is this close to the best one of all rounds."""

Masks = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Records of all sites that take part in a federation, as standard scores.

    Attributes:
        z: per site, float32[n, features], standard scores by means and deviations that the sites have added up;
            sites without records are left out.
        y: per site, float64[n], class index; numbers in standard deviations about the mean of all sites.
        classes: number of classes, 0 for numbers.
        scores: turns conditions into standard scores.
        centre, spread: of the outcome, for numbers.
        image: points down and across where records are pictures, else None.
        memo: for fits that two opponents share.
    """

    z: Mapping[str, NDArray[np.float32]]
    y: Mapping[str, NDArray[np.float64]]
    classes: int
    scores: Standard
    centre: float
    spread: float
    image: tuple[int, int] | None
    memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Sites with records."""
        return tuple(self.z)

    @property
    def outputs(self) -> int:
        """Of a network: one per class, one for a number."""
        return self.classes or 1

    def model(self, scores: Callable[[NDArray[np.float32]], NDArray[np.float64]]) -> Model:
        """A model from a function of standard scores to float64[n, outputs] (logits; a number in deviations)."""

        def predict(x: NDArray[np.float64]) -> NDArray[np.float64]:
            if not len(x):
                return np.empty((0, self.classes) if self.classes else (0,))
            value = scores(self.scores(x).astype(np.float32))
            if not self.classes:
                return self.centre + self.spread * value[:, 0]
            power = np.exp(value - value.max(axis=1, keepdims=True))
            return power / power.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

        return predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A federation after some rounds.

    Attributes:
        rounds: how many.
        models: per site that takes part; the same one for all where nothing is personal.
        shared: for a site that has no records.
        bytes_up: that one site has sent until now, mean over the sites.
    """

    rounds: int
    models: Mapping[str, Model]
    shared: Model
    bytes_up: int

    def model(self, site: str) -> Model:
        """Of a site."""
        return self.models.get(site, self.shared)


def mean_of(models: Mapping[str, Model]) -> Model:
    """What a site without records is told where all have models of their own: the mean of what they say."""
    several = list(models.values())

    def model(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.mean([one(x) for one in several], axis=0)  # type: ignore[no-any-return]

    return model


class Federation(Protocol):
    """One algorithm of federated learning with the settings that the tuning may choose from.

    Attributes:
        name: under which its scores appear.
        text: for people.
        stages: numbers of rounds after which a fit is looked at, ascending.
        personal: whether sites end with models of their own.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def text(self) -> str:
        """See above."""

    @property
    def stages(self) -> Sequence[int]:
        """See above."""

    @property
    def personal(self) -> bool:
        """See above."""

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Settings; with the stages they make `TUNING_TRIALS` trials at most."""
        ...

    def fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int, seed: int) -> Iterator[Stage]:
        """Train for a number of rounds, one stage after each (or after those of `stages` only)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """The inner split: what settings are fitted on and judged by, the same for every opponent.

    Attributes:
        sites: the training part.
        x, y: the validation part, per site; sites without rows in it are left out.
    """

    sites: Sites
    x: Mapping[str, NDArray[np.float64]]
    y: Mapping[str, NDArray[np.float64]]


def sites_of(fold: Fold, keep: Masks | None = None) -> Sites:
    """The training rows of a fold, or those that a mask per site keeps."""
    parts = {
        site: (rows.x, rows.y) if keep is None else (rows.x[keep[site]], rows.y[keep[site]])
        for site, rows in fold.train.items()
    }
    parts = {site: part for site, part in parts.items() if len(part[1])}
    if not parts:
        raise DataError("no site has training rows", code="walls.rows")
    scores = standard(Layout.of(fold.schema), reduce(add, [moments(x) for x, _ in parts.values()]))
    centre, spread = 0.0, 1.0
    if not fold.classes:
        everything = np.concatenate([y for _, y in parts.values()])
        centre, spread = float(everything.mean()), float(everything.std()) or 1.0
    return Sites(
        z={site: scores(x).astype(np.float32) for site, (x, _) in parts.items()},
        y={site: (y - centre) / spread for site, (_, y) in parts.items()},
        classes=fold.classes,
        scores=scores,
        centre=centre,
        spread=spread,
        image=_image(fold),
    )


def inner(fold: Fold) -> Inner:
    """The inner split of a fold; made once."""
    return fold.shared("walls: inner split", lambda: _inner(fold))


def inner_masks(fold: Fold) -> tuple[Masks, Masks]:
    """Training and validation rows of the inner split, per site; one third is for validation, whole groups."""
    group = np.concatenate([rows.group for rows in fold.train.values()])
    folds = inner_folds(group, INNER_FOLDS, fold.rng("walls: inner split"), most_rows=SELECTION_ROWS)
    if not folds:
        raise DataError("all training rows share one group: settings cannot be chosen", code="walls.groups")
    ends = np.cumsum([len(rows) for rows in fold.train.values()])[:-1]

    def masks(rows: NDArray[np.int64]) -> Masks:
        flags = np.zeros(len(group), dtype=bool)
        flags[rows] = True
        return dict(zip(fold.train, np.split(flags, ends), strict=True))

    return masks(folds[0][0]), masks(folds[0][1])


def _inner(fold: Fold) -> Inner:
    train, valid = inner_masks(fold)
    return Inner(
        sites=sites_of(fold, train),
        x={site: rows.x[valid[site]] for site, rows in fold.train.items() if valid[site].any()},
        y={site: rows.y[valid[site]] for site, rows in fold.train.items() if valid[site].any()},
    )


def site_loss(
    predicted: Mapping[str, NDArray[np.float64]], y: Mapping[str, NDArray[np.float64]], classes: int
) -> float:
    """Mean over sites of the log-loss; of the squared error, in variances of the outcome, for numbers."""
    if classes:
        return float(np.mean([log_loss(y[site], predicted[site]) for site in y]))
    variance = float(np.concatenate(list(y.values())).var()) or 1.0
    return float(np.mean([np.mean((y[site] - predicted[site]) ** 2) for site in y])) / variance


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
        return last

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
    training rows. Its validation loss comes from recalibrations that are learnt on two thirds of a site's validation
    rows and judged on the rest.
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
        part = inner(fold)
        rng = fold.rng(f"walls: validation of {self.name}")
        predicted = {}
        for site, y in part.y.items():
            plain = chosen.stage.shared(part.x[site])
            out, piece = plain.copy(), rng.permutation(len(y)) % INNER_FOLDS
            for number in range(INNER_FOLDS):
                mine = piece == number
                out[mine] = recalibration(plain[~mine], y[~mine], fold.classes)(plain[mine])
            predicted[site] = out
        return site_loss(predicted, part.y, fold.classes)


def _image(fold: Fold) -> tuple[int, int] | None:
    """A square picture: numbers of one unit and one range, at least 6 by 6 of them, and nothing missing."""
    fields = fold.schema.fields
    edge = round(len(fields) ** 0.5)
    alike = {(f.unit, f.low, f.high) for f in fields if not f.categories}
    if edge < 6 or edge * edge != len(fields) or len(alike) != 1 or any(f.categories for f in fields):
        return None
    if any(np.isnan(rows.x).any() for rows in fold.train.values()):
        return None
    return edge, edge
