"""The opponents' estimators: linear, boosted trees, nearest neighbours, a constant.

All work on a schema's slots in unit scale (so ranges are declared, not learnt); means for imputation and scales come
from the training rows given. A *family* is one estimator with several settings; every setting is one trial of the
tuning budget.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.trial.parallel import single_threaded

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = [
    "NEIGHBOUR_ROWS",
    "Boosting",
    "Family",
    "Layout",
    "Linear",
    "Model",
    "Moments",
    "Neighbours",
    "Standard",
    "base_rate",
    "fit",
    "moments",
    "standard",
]

Model = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""float64[n, D] unit scale with NaN -> float64[n, C] probabilities, or float64[n] numbers."""

NEIGHBOUR_ROWS = 5_000
"""Nearest neighbours are looked for among this many training rows at most, drawn at random."""

_PSEUDO = 0.5
"""Pseudo-count per class of a base rate (Krichevsky-Trofimov)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What linear models and distances must know about slots.

    Attributes:
        first: int64, first slot of each field; its missingness is the field's.
        numeric: bool[D], slots of numeric fields.
    """

    first: NDArray[np.int64]
    numeric: NDArray[np.bool_]

    @staticmethod
    def of(schema: Schema) -> Layout:
        """The layout of a schema."""
        numeric = np.zeros(schema.width, dtype=bool)
        first = []
        for field in schema.fields:
            slots = schema.slots[field.name]
            first.append(slots.start)
            numeric[slots] = not field.categories
        return Layout(first=np.array(first, dtype=np.int64), numeric=numeric)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums that sites can add up: rows, and per slot how many values are present, their sum and sum of squares."""

    rows: int
    present: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            rows=self.rows + other.rows,
            present=self.present + other.present,
            total=self.total + other.total,
            squares=self.squares + other.squares,
        )


def moments(x: NDArray[np.float64]) -> Moments:
    """Moments of the slots of some rows."""
    known = ~np.isnan(x)
    filled = np.where(known, x, 0.0)
    return Moments(
        rows=len(x), present=known.sum(axis=0).astype(float), total=filled.sum(axis=0), squares=(filled**2).sum(axis=0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """Imputation by the mean, standard scores, and one indicator for every field that is missing somewhere.

    Attributes:
        mean, scale: float64[D]; scale is 0 for slots that never vary.
        fields: int64, first slots of the fields with an indicator.
        share, share_scale: mean and scale of the indicators.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    fields: NDArray[np.int64]
    share: NDArray[np.float64]
    share_scale: NDArray[np.float64]

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[n, D] -> float64[n, D + indicators], finite."""
        missing = np.isnan(x)
        out = np.where(missing, 0.0, (x - self.mean) * self.scale)
        flags = (missing[:, self.fields] - self.share) * self.share_scale
        return np.concatenate([out, flags], axis=1)


def standard(layout: Layout, sums: Moments) -> Standard:
    """Standard scores from moments (of one site, or added up over sites)."""
    present = np.maximum(sums.present, 1.0)
    mean = sums.total / present
    deviation = np.sqrt(np.maximum(sums.squares / present - mean**2, 0.0))
    gone = 1 - sums.present[layout.first] / max(sums.rows, 1)
    some = (gone > 0) & (gone < 1)
    share = gone[some]
    return Standard(
        mean=mean,
        scale=np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0),
        fields=layout.first[some],
        share=share,
        share_scale=1 / np.sqrt(share * (1 - share)),
    )


def base_rate(y: NDArray[np.float64], classes: int) -> Model:
    """The constant model: class shares with half a pseudo-count each, or the mean (0.5 of nothing known: 0)."""
    if classes:
        counts = np.bincount(y.astype(np.int64), minlength=classes) + _PSEUDO
        shares = counts / counts.sum()
        return lambda x: np.tile(shares, (len(x), 1))
    mean = float(y.mean()) if len(y) else 0.0
    return lambda x: np.full(len(x), mean)


class Family(Protocol):
    """One estimator with several settings."""

    @property
    def trials(self) -> tuple[str, ...]:
        """A readable name of every setting."""

    def fit(self, x: NDArray[np.float64], y: NDArray[np.float64], classes: int, which: Sequence[int]) -> list[Model]:
        """Models of the settings `which`; y holds at least two classes (two different values)."""


def fit(
    family: Family, x: NDArray[np.float64], y: NDArray[np.float64], classes: int, which: Sequence[int]
) -> list[Model]:
    """Models of some settings of a family; the constant model where the outcomes are all equal."""
    if len(y) < 2 or y.min() == y.max():
        return [base_rate(y, classes)] * len(which)
    with single_threaded():
        return family.fit(x, y, classes, which)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Logistic regression (multinomial with several classes) or ridge, L2 strength 1/C on standard scores.

    The penalty is |w|^2 / (2 C) beside the sum of the losses; the intercept goes free. For numbers the loss is half
    the squared error and the weights count in units of the outcome's standard deviation.
    """

    layout: Layout
    strengths: tuple[float, ...]

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(f"linear, C {c:.3g}" for c in self.strengths)

    def fit(self, x: NDArray[np.float64], y: NDArray[np.float64], classes: int, which: Sequence[int]) -> list[Model]:
        """See :class:`Family`."""
        scores = standard(self.layout, moments(x))
        z = scores(x)
        if not classes:
            return list(_ridge(scores, z, y, [self.strengths[i] for i in which]))
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        models: list[Model] = []
        for i in which:
            fitted = LogisticRegression(C=self.strengths[i], solver="newton-cholesky", max_iter=100)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted.fit(z, y.astype(np.int64))
            models.append(_classes(fitted, classes, len(y), scores))
        return models


def _ridge(
    scores: Standard, z: NDArray[np.float64], y: NDArray[np.float64], strengths: Iterable[float]
) -> Iterator[Model]:
    centre, mean = z.mean(axis=0), float(y.mean())
    values, vectors = np.linalg.eigh((z - centre).T @ (z - centre))
    side = vectors.T @ ((z - centre).T @ (y - mean))
    for strength in strengths:
        weights = vectors @ (side / (np.maximum(values, 0) + 1 / strength))

        def model(
            x: NDArray[np.float64], weights: NDArray[np.float64] = weights, mean: float = mean
        ) -> NDArray[np.float64]:
            out: NDArray[np.float64] = (scores(x) - centre) @ weights + mean
            return out

        yield model


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosting:
    """Gradient-boosted trees on histograms; missing values go their own way in every split.

    Attributes:
        leaves: most leaves of a tree.
        rate: learning rate.
        lengths: numbers of trees; one fit gives them all, and each counts as one trial.
        seed: seed of the binning (only used above 200,000 rows).
    """

    leaves: int
    rate: float
    lengths: tuple[int, ...]
    seed: int

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(f"boosting, {self.leaves} leaves, rate {self.rate:g}, {n} trees" for n in self.lengths)

    def fit(self, x: NDArray[np.float64], y: NDArray[np.float64], classes: int, which: Sequence[int]) -> list[Model]:
        """See :class:`Family`."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        settings: dict[str, Any] = {
            "max_leaf_nodes": self.leaves,
            "learning_rate": self.rate,
            "max_iter": max(self.lengths[i] for i in which),
            "early_stopping": False,
            "random_state": self.seed,
        }
        x = x.copy()
        x[:, np.isnan(x).all(axis=0)] = 0.0  # a column without any value has no histogram
        if not classes:
            number = HistGradientBoostingRegressor(**settings).fit(x, y)
            return [_stage(number.staged_predict, number.predict, self.lengths[i]) for i in which]
        fitted = HistGradientBoostingClassifier(**settings).fit(x, y.astype(np.int64))
        models: list[Model] = []
        for i in which:
            stage = _stage(fitted.staged_predict_proba, fitted.predict_proba, self.lengths[i])
            models.append(_spread(stage, fitted.classes_, classes, len(y)))
        return models


def _stage(staged: Callable[[Any], Iterator[Any]], last: Callable[[Any], Any], length: int) -> Model:
    owner: Any = last.__self__  # type: ignore[attr-defined]

    def model(x: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(x):
            return last(np.zeros((1, x.shape[1])))[:0]  # type: ignore[no-any-return]
        with single_threaded():
            if length == owner.n_iter_:
                return last(x)  # type: ignore[no-any-return]
            for number, predicted in enumerate(staged(x), start=1):
                if number == length:
                    return predicted  # type: ignore[no-any-return]
        raise AssertionError(length)

    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Mean of the k nearest training rows, and one pseudo-row at the base rate.

    Numeric slots count in standard deviations, categories as 0 or 1; what is missing counts as the mean.

    Attributes:
        layout: which slots are numeric.
        counts: numbers of neighbours.
        seed: draws the rows that are kept, above ``NEIGHBOUR_ROWS``.
    """

    layout: Layout
    counts: tuple[int, ...]
    seed: int

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(f"{k} nearest neighbours" for k in self.counts)

    def fit(self, x: NDArray[np.float64], y: NDArray[np.float64], classes: int, which: Sequence[int]) -> list[Model]:
        """See :class:`Family`."""
        from sklearn.neighbors import NearestNeighbors

        scores = standard(self.layout, moments(x))
        scale = np.where(self.layout.numeric, scores.scale, 1.0)

        def place(rows: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.where(np.isnan(rows), 0.0, (rows - scores.mean) * scale)

        if len(y) > NEIGHBOUR_ROWS:
            keep = np.random.default_rng(self.seed).permutation(len(y))[:NEIGHBOUR_ROWS]
            x, y = x[keep], y[keep]
        base = base_rate(y, classes)(x[:1])[0]
        target = np.eye(classes)[y.astype(np.int64)] if classes else y
        index = NearestNeighbors(algorithm="brute").fit(place(x))
        most = min(max(self.counts[i] for i in which), len(y))
        last: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []

        def neighbours(rows: NDArray[np.float64]) -> NDArray[np.int64]:
            """The nearest first; all settings are asked about the same rows, one after the other."""
            if not last or last[0][0] is not rows:
                with single_threaded():
                    last[:] = [(rows, index.kneighbors(place(rows), n_neighbors=most, return_distance=False))]
            return last[0][1]

        def nearest(k: int) -> Model:
            def model(rows: NDArray[np.float64]) -> NDArray[np.float64]:
                if not len(rows):
                    return np.empty((0, *np.shape(base)))
                found = neighbours(rows)[:, :k]
                return (target[found].sum(axis=1) + base) / (k + 1)  # type: ignore[no-any-return]

            return model

        return [nearest(min(self.counts[i], len(y))) for i in which]


def _classes(fitted: Any, classes: int, rows: int, scores: Standard) -> Model:
    def probability(x: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(x):
            return np.empty((0, len(fitted.classes_)))
        return fitted.predict_proba(scores(x))  # type: ignore[no-any-return]

    return _spread(probability, fitted.classes_, classes, rows)


def _spread(model: Model, known: NDArray[np.int64], classes: int, rows: int) -> Model:
    """Probabilities over all classes when some never occurred in training: those share one pseudo-row."""
    if len(known) == classes:
        return model

    def wide(x: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.full((len(x), classes), 1 / classes / (rows + 1))
        out[:, known] += model(x) * rows / (rows + 1)
        return out

    return wide
