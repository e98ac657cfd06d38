"""One repeat of a trial: what each site may learn from, and the cases it must answer.

A method (ours or an opponent) is a callable that takes a :class:`Fold` and returns an :class:`Answer`. It never sees
the outcome of a test case: :class:`Cases` has no such attribute.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["Answer", "Cases", "Fold", "Method", "Rows", "SiteOut"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Cases of one site without their outcomes.

    Attributes:
        x: float64[n, D], the schema's slots in unit scale 0..1, NaN where missing.
        columns: one array of n values per field of the schema, as the data set holds them.
        case: n case identifiers (object array of strings), unique within the site.
        group: int64[n], rows that were held out together share a number; row numbers when rows are exchangeable.
        time: int64[n], seconds since 1970, or None.
    """

    x: NDArray[np.float64]
    columns: Mapping[str, NDArray[Any]]
    case: NDArray[np.object_]
    group: NDArray[np.int64]
    time: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Cases):
    """Records of one site, with their outcomes (all of them known).

    Attributes:
        y: float64[n], class index, or the value in the outcome's unit.
        outcome: n outcomes as the data set holds them (class names or numbers).
    """

    y: NDArray[np.float64]
    outcome: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOut:
    """What left one site, counted: packets, bytes (questions and announcements included) and single records."""

    packets: int = 0
    bytes_out: int = 0
    records_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one method says about the test cases of every site.

    Attributes:
        predictions: per site, float64[n, C] class probabilities (rows sum to 1), or float64[n] numbers.
        out: per site, what left it; sites that are absent sent nothing.
        notes: things a reader must know (shown once per trial).
        details: anything else worth keeping that is JSON-serialisable (chosen settings, abstentions, support).
    """

    predictions: Mapping[str, NDArray[np.float64]]
    out: Mapping[str, SiteOut] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One train/test split of a data set.

    Attributes:
        schema: what all sites agreed on.
        train: per site, the records it holds; sites in sorted order. A site may hold none.
        test: per site, the cases it must answer; the same keys as `train`.
        classes: number of classes, 0 when the outcome is a number.
        repeat: number of the repeat, from 0.
        seed: seed of the whole trial.
        protocol: name of the splitting protocol.
        by_subject: rows of one `group` are one subject's, so that k counts groups.
    """

    schema: Schema
    train: Mapping[str, Rows]
    test: Mapping[str, Cases]
    classes: int
    repeat: int
    seed: int
    protocol: str
    by_subject: bool = False
    _memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose, so that adding a method never changes another's figures."""
        return np.random.default_rng([self.seed, self.repeat, zlib.crc32(purpose.encode())])

    def shared(self, key: str, make: Callable[[], T]) -> T:
        """The value of `make()`, made once per fold (two methods may share one fit)."""
        if key not in self._memo:
            self._memo[key] = make()
        return cast(T, self._memo[key])

    def check(self, name: str, answer: Answer) -> None:
        """Refuse an answer that does not fit the test cases.

        Raises:
            DataError: a site is missing, a shape is wrong, or a value is not finite or not a probability.
        """
        for site, cases in self.test.items():
            shape = (len(cases), self.classes) if self.classes else (len(cases),)
            values = answer.predictions.get(site)
            problem = None
            if values is None:
                problem = "no predictions"
            elif values.shape != shape:
                problem = f"predictions of shape {values.shape}, expected {shape}"
            elif not np.isfinite(values).all():
                problem = "predictions that are not finite"
            elif self.classes and len(values):
                low, total = float(values.min()), values.sum(axis=1)
                if low < 0 or float(np.abs(total - 1).max()) > 1e-6:
                    problem = "predictions that are not probabilities (>= 0, rows that sum to 1)"
            if problem:
                raise DataError(f"method {name!r} gave {problem} for site {site!r}", code="trial.answer")


class Method(Protocol):
    """One side of a trial."""

    @property
    def name(self) -> str:
        """Name under which its scores appear, for example ``"local"``."""

    def __call__(self, fold: Fold) -> Answer:
        """Learn from `fold.train`, answer `fold.test`."""
