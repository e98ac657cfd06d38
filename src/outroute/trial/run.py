"""The trial itself: repeated splits, every method on the same split, scores at every site."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.datasets.base import Dataset, GroupKind
from outroute.errors import DataError
from outroute.schema import encode, encode_outcome, unit_scale
from outroute.trial.fold import Cases, Fold, Method, Rows, SiteOut
from outroute.trial.intervals import MARGINS, MIN_REPEATS
from outroute.trial.metrics import CLASS_METRICS, MIN_FOR_R2, MIN_PER_CLASS, NUMBER_METRICS, score
from outroute.trial.result import Result, SiteSize
from outroute.trial.splits import TEST_SHARE, Protocol, Split, split

__all__ = ["MAX_REPEATS", "Prepared", "Progress", "fold_of", "prepare", "run"]

MAX_REPEATS = 1_000
"""More repeats add nothing: the Nadeau-Bengio variance does not fall below n_test/n_train times s^2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a trial stands.

    Attributes:
        repeat: number of the repeat, from 0.
        repeats: how many were asked for.
        method: the method that is about to start.
        step, steps: finished and all pairs of (repeat, method).
    """

    repeat: int
    repeats: int
    method: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A data set encoded once for all repeats; rows without an outcome are left out.

    Attributes:
        dataset: the rows that take part.
        x: float64[n, D], unit scale, NaN where missing.
        y: float64[n].
        group: int64[n]; row numbers where rows are exchangeable.
        classes: number of classes, 0 for numbers.
        warnings: what a reader of the figures must know.
    """

    dataset: Dataset
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    group: NDArray[np.int64]
    classes: int
    warnings: tuple[str, ...]


def prepare(dataset: Dataset) -> Prepared:
    """Encode a data set and check that a trial makes sense.

    Raises:
        DataError: no row has an outcome, or all outcomes are equal.
    """
    warnings = []
    y = encode_outcome(dataset.schema.outcome, dataset.outcome)
    known = ~np.isnan(y)
    if not known.any():
        raise DataError(
            f"no row of {dataset.name!r} has an outcome: check the column {dataset.schema.outcome.name!r}",
            code="trial.no_outcome",
        )
    if not known.all():
        dataset, y = dataset.rows(known), y[known]
        warnings.append(f"{int((~known).sum())} rows without an outcome take no part")
    if y.min() == y.max():
        raise DataError(
            f"all {len(y)} outcomes of {dataset.name!r} are equal: there is nothing to predict", code="trial.constant"
        )
    encoded = encode(dataset.schema, dataset.columns)
    warnings += [
        f"{len(p.rows)} values of {p.field!r} are {p.kind.value} (for example {p.example}) and count as missing"
        for p in encoded.problems
    ]
    if len(dataset.sites) < 2:
        warnings.append("there is one site only: nobody to learn from")
    group = dataset.group if dataset.group is not None else np.arange(len(dataset), dtype=np.int64)
    return Prepared(
        dataset=dataset,
        x=unit_scale(dataset.schema, encoded.codes),
        y=y,
        group=group,
        classes=len(dataset.schema.outcome.classes),
        warnings=tuple(warnings),
    )


def fold_of(prepared: Prepared, parts: Split, *, seed: int, protocol: Protocol) -> Fold:
    """The fold of one split."""
    dataset = prepared.dataset

    def cases(rows: NDArray[np.int64]) -> dict[str, Any]:
        return {
            "x": prepared.x[rows],
            "columns": {name: values[rows] for name, values in dataset.columns.items()},
            "case": dataset.case[rows],
            "group": prepared.group[rows],
            "time": None if dataset.time is None else dataset.time[rows],
        }

    return Fold(
        schema=dataset.schema,
        train={
            site: Rows(**cases(rows), y=prepared.y[rows], outcome=dataset.outcome[rows])
            for site, rows in parts.train.items()
        },
        test={site: Cases(**cases(rows)) for site, rows in parts.test.items()},
        classes=prepared.classes,
        repeat=parts.repeat,
        seed=seed,
        protocol=protocol.value,
        by_subject=prepared.dataset.group_kind is GroupKind.SUBJECT,
    )


def run(
    dataset: Dataset,
    methods: Sequence[Method],
    *,
    subject: str = "outroute",
    repeats: int = MIN_REPEATS,
    seed: int = 0,
    protocol: Protocol | None = None,
    test_share: float = TEST_SHARE,
    margins: Mapping[str, float] = MARGINS,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Run every method on the same repeated splits.

    Args:
        dataset: the records of all sites.
        methods: who takes part; names must differ.
        subject: name of the method that the others are compared with.
        repeats: number of splits, 1 to ``MAX_REPEATS``.
        seed: everything random follows from it.
        protocol: how rows are held out; default: whole groups if the data set has any, else rows.
        test_share: share of the groups or rows that is held out.
        margins: per metric, what still counts as "not worse".
        progress: called before every step.

    Returns:
        The finished repeats. Ctrl-C ends the trial and keeps the repeats that are complete.

    Raises:
        DataError: the data set or the arguments cannot be used as they are.
        KeyboardInterrupt: Ctrl-C before the first repeat was complete.
    """
    names = tuple(method.name for method in methods)
    if len(set(names)) != len(names) or subject not in names:
        raise DataError(
            f"the methods {', '.join(names)} must have different names, {subject!r} among them", code="trial.methods"
        )
    if not 1 <= repeats <= MAX_REPEATS:
        raise DataError(f"repeats must lie between 1 and {MAX_REPEATS}", code="trial.repeats")
    if protocol is None:
        protocol = Protocol.ROWS if dataset.group_kind is GroupKind.NONE else Protocol.GROUPED
    prepared = prepare(dataset)
    record = _Record(prepared, names)
    warnings = list(prepared.warnings)
    for repeat in range(repeats):
        parts = split(
            prepared.dataset.site,
            prepared.dataset.group,
            protocol=protocol,
            repeat=repeat,
            seed=seed,
            test_share=test_share,
        )
        fold = fold_of(prepared, parts, seed=seed, protocol=protocol)
        try:
            record.keep(_repeat(fold, methods, repeats, progress, record), parts)
        except KeyboardInterrupt:
            if not record.sizes:
                raise
            warnings.append(f"interrupted: {repeat} of {repeats} repeats are complete, and shown")
            break
    done = len(record.sizes)
    if done < MIN_REPEATS:
        warnings.append(f"{done} repeats: at least {MIN_REPEATS} are needed before an interval says much")
    if protocol is Protocol.ROWS and dataset.group_kind is not GroupKind.NONE:
        warnings.append(f"rows of one {dataset.group_kind.value} are on both sides of the split: figures flatter")
    if protocol is Protocol.CONCURRENT:
        warnings.append("concurrent protocol: peers have seen the held-out groups; compare with nothing else")
    order = (subject, *(name for name in names if name != subject))
    return record.result(
        order, protocol=protocol, test_share=test_share, seed=seed, margins=margins, asked=repeats, warnings=warnings
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """One method's answer in one repeat, scored."""

    scores: Mapping[str, Mapping[str, float]]
    out: Mapping[str, SiteOut]
    details: Mapping[str, Any]
    notes: tuple[str, ...]
    seconds: float


def _repeat(
    fold: Fold,
    methods: Sequence[Method],
    repeats: int,
    progress: Callable[[Progress], None] | None,
    record: _Record,
) -> dict[str, _Outcome]:
    done: dict[str, _Outcome] = {}
    for number, method in enumerate(methods):
        if progress is not None:
            step = fold.repeat * len(methods) + number
            progress(
                Progress(
                    repeat=fold.repeat, repeats=repeats, method=method.name, step=step, steps=repeats * len(methods)
                )
            )
        start = time.perf_counter()
        answer = method(fold)
        seconds = time.perf_counter() - start
        fold.check(method.name, answer)
        truth = record.truth(fold)
        done[method.name] = _Outcome(
            scores={site: score(truth[site], answer.predictions[site], fold.classes) for site in fold.test},
            out=answer.out,
            details=answer.details,
            notes=answer.notes,
            seconds=seconds,
        )
    return done


class _Record:
    """Collects finished repeats."""

    def __init__(self, prepared: Prepared, names: Sequence[str]) -> None:
        self.prepared = prepared
        self.sites = prepared.dataset.sites
        self.metrics = CLASS_METRICS if prepared.classes else NUMBER_METRICS
        self.values: dict[str, dict[str, list[list[float]]]] = {
            name: {metric: [] for metric in self.metrics} for name in names
        }
        self.out: dict[str, list[Mapping[str, SiteOut]]] = {name: [] for name in names}
        self.details: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
        self.seconds = dict.fromkeys(names, 0.0)
        self.counts: list[list[bool]] = []
        self.sizes: list[dict[str, tuple[int, int]]] = []
        self.notes: list[str] = list(prepared.dataset.notes)
        place = {}
        for site in self.sites:
            rows = np.flatnonzero(prepared.dataset.site == site)
            place[site] = dict(zip(prepared.dataset.case[rows].tolist(), rows.tolist(), strict=True))
            if len(place[site]) != len(rows):
                raise DataError(
                    f"site {site!r} of {prepared.dataset.name!r} has two rows with one case identifier",
                    code="trial.case",
                )
        self._place = place

    def truth(self, fold: Fold) -> dict[str, NDArray[np.float64]]:
        """The outcomes of the test cases, which no method has seen."""
        return {
            site: self.prepared.y[[self._place[site][case] for case in cases.case.tolist()]]
            for site, cases in fold.test.items()
        }

    def keep(self, done: Mapping[str, _Outcome], parts: Split) -> None:
        """Add one complete repeat."""
        for name, outcome in done.items():
            for metric in self.metrics:
                self.values[name][metric].append([outcome.scores[site][metric] for site in self.sites])
            self.out[name].append(outcome.out)
            self.details[name].append(outcome.details)
            self.seconds[name] += outcome.seconds
            self.notes += [note for note in outcome.notes if note not in self.notes]
        self.counts.append([self._enough(parts.test[site]) for site in self.sites])
        self.sizes.append({site: (len(parts.train[site]), len(parts.test[site])) for site in self.sites})

    def _enough(self, rows: NDArray[np.int64]) -> bool:
        classes = self.prepared.classes
        if not classes:
            return len(rows) >= MIN_FOR_R2
        seen = np.bincount(self.prepared.y[rows].astype(np.int64), minlength=classes)
        return int(seen.min()) >= MIN_PER_CLASS

    def result(
        self,
        methods: tuple[str, ...],
        *,
        protocol: Protocol,
        test_share: float,
        seed: int,
        margins: Mapping[str, float],
        asked: int,
        warnings: Sequence[str],
    ) -> Result:
        """Everything that was kept."""
        seen = np.array(self.counts, dtype=bool)
        warnings = list(warnings)
        few = [site for site, number in zip(self.sites, seen.sum(axis=0), strict=True) if not number]
        if few:
            what = f"{MIN_PER_CLASS} test cases of a class" if self.prepared.classes else f"{MIN_FOR_R2} test cases"
            warnings.append(
                f"fewer than {what} in every repeat, so the {'AUC' if self.prepared.classes else 'R2'} is shown but "
                f"not in the mean: {', '.join(few)}"
            )
        return Result(
            dataset=self.prepared.dataset.name,
            subject=methods[0],
            methods=methods,
            sites=self.sites,
            sizes={
                site: SiteSize(
                    rows=sum(self.sizes[0][site]),
                    train=math.fsum(size[site][0] for size in self.sizes) / len(self.sizes),
                    test=math.fsum(size[site][1] for size in self.sizes) / len(self.sizes),
                )
                for site in self.sites
            },
            classes=self.prepared.classes,
            values={
                name: {metric: np.array(rows, dtype=np.float64) for metric, rows in of.items()}
                for name, of in self.values.items()
            },
            counts=seen,
            out=self.out,
            details=self.details,
            protocol=protocol,
            test_share=test_share,
            seed=seed,
            margins=dict(margins),
            asked=asked,
            seconds=self.seconds,
            notes=tuple(self.notes),
            warnings=tuple(warnings),
        )
