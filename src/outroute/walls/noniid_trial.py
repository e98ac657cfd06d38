"""One step of the non-IID wall: some methods on one split, scored at every site, as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from outroute.datasets import Dataset
from outroute.trial import MIN_PER_CLASS, Fold, Method, Prepared, Protocol, fold_of, prepare, score, split
from outroute.trial.metrics import MIN_FOR_R2
from outroute.walls.base import Tell

__all__ = ["Table", "scored"]


class Table:
    """A data set with its splits; the last split is kept, so that methods that follow each other share it."""

    def __init__(self, dataset: Callable[[], Dataset], seed: int) -> None:
        """`dataset` is called once, when the first step needs it."""
        self.dataset, self.seed = dataset, seed
        self._prepared: Prepared | None = None
        self._last: tuple[int, Fold, Mapping[str, Any]] | None = None

    @property
    def prepared(self) -> Prepared:
        """Encoded once."""
        if self._prepared is None:
            self._prepared = prepare(self.dataset())
        return self._prepared

    def fold(self, repeat: int) -> tuple[Fold, Mapping[str, Any]]:
        """A split and the outcomes of its test cases: whole groups are held out where there are any, else rows."""
        if self._last is None or self._last[0] != repeat:
            data = self.prepared.dataset
            protocol = Protocol.ROWS if data.group is None else Protocol.GROUPED
            parts = split(data.site, data.group, protocol=protocol, repeat=repeat, seed=self.seed)
            fold = fold_of(self.prepared, parts, seed=self.seed, protocol=protocol)
            self._last = repeat, fold, {site: self.prepared.y[rows] for site, rows in parts.test.items()}
        return self._last[1], self._last[2]


def scored(
    table: Table, repeat: int, methods: Sequence[Method], labels: Mapping[str, str], tell: Tell
) -> dict[str, Any]:
    """What some methods say about one split.

    Args:
        table: the records.
        repeat: number of the split, from 0.
        methods: in the order in which they are run.
        labels: their names for people.
        tell: is told which one is running.
    """
    fold, truth = table.fold(repeat)
    found: dict[str, Any] = {}
    for method in methods:
        tell(labels.get(method.name, method.name))
        start = time.perf_counter()
        answer = method(fold)
        seconds = time.perf_counter() - start
        fold.check(method.name, answer)
        details = answer.details if "validation" in answer.details or "chosen" in answer.details else {}
        sent = [out.bytes_out for out in answer.out.values()]
        found[method.name] = {
            "sites": {site: score(y, answer.predictions[site], fold.classes) for site, y in truth.items() if len(y)},
            "bytes_up": float(np.mean(sent)) if sent else 0.0,
            "seconds": round(seconds, 3),
            **{key: details[key] for key in ("chosen", "validation", "converged", "rounds", "curve") if key in details},
        }
    return {
        "methods": found,
        "train": {site: len(rows) for site, rows in fold.train.items()},
        "test": {site: len(y) for site, y in truth.items()},
        "enough": {site: _enough(y, fold.classes) for site, y in truth.items()},
    }


def _enough(y: Any, classes: int) -> bool:
    """Whether a site's AUC or R2 enters the mean."""
    if not classes:
        return len(y) >= MIN_FOR_R2
    return int(np.bincount(y.astype(np.int64), minlength=classes).min()) >= MIN_PER_CLASS
