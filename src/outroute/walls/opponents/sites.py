"""What all federated opponents work on: the records of the sites, the inner split, and what a federation is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.trial import Fold, inner_folds
from outroute.trial.estimators import Layout, Model, Standard, moments, standard
from outroute.trial.metrics import log_loss
from outroute.trial.tuning import INNER_FOLDS, SELECTION_ROWS

__all__ = [
    "Federation",
    "Inner",
    "Masks",
    "Sites",
    "Stage",
    "inner",
    "inner_masks",
    "mean_of",
    "site_loss",
    "sites_of",
]

Masks = Mapping[str, NDArray[np.bool_]]
"""Per site, which of its training rows."""


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
