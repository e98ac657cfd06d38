"""Small synthetic data sets for the tests of the trial."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from outroute.datasets import Dataset, GroupKind
from outroute.datasets.declare import flag, number, numeric_outcome, schema, two_classes
from outroute.schema import Outcome, OutcomeKind
from outroute.trial import Fold, Protocol, Split, fold_of, prepare, split

FIELDS = (number("a", "-5", "5"), number("b", "-5", "5"), flag("c"))


def make(
    *,
    sizes: tuple[int, ...] = (120, 90, 60),
    outcome: str = "binary",
    groups: int = 0,
    seed: int = 3,
    shift: float = 0.0,
    missing: float = 0.0,
) -> Dataset:
    """Sites that share one relation between conditions and outcome; `shift` moves their base rates apart."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    place = np.repeat(np.arange(len(sizes)), sizes)
    a, b = np.clip(rng.normal(size=(2, n)), -5, 5)
    c = rng.integers(2, size=n)
    value = 1.5 * a - b + 0.5 * c + shift * (place - place.mean())
    a = np.where(rng.random(n) < missing, np.nan, a)
    y: NDArray[np.generic]
    if outcome == "numeric":
        kind: Outcome = numeric_outcome("y", "-50", "50")
        y = value + 0.5 * rng.normal(size=n)
    elif outcome == "binary":
        kind = two_classes("y", "bad", "good")
        y = np.where(rng.random(n) < 1 / (1 + np.exp(-value)), "good", "bad").astype(object)
    else:
        kind = Outcome(name="y", kind=OutcomeKind.CATEGORICAL, classes=("low", "middle", "high"))
        noisy = value + 0.5 * rng.normal(size=n)
        y = np.array(["low", "middle", "high"], dtype=object)[np.digitize(noisy, [-1.0, 1.0])]
    return Dataset(
        name="made",
        columns={"a": a, "b": b, "c": np.array(["no", "yes"], dtype=object)[c]},
        outcome=y,
        site=np.array([f"site {i}" for i in place], dtype=object),
        case=np.array([f"case {i}" for i in range(n)], dtype=object),
        group=rng.integers(groups, size=n) if groups else None,
        group_kind=GroupKind.DAY if groups else GroupKind.NONE,
        time=None,
        schema=schema("made", FIELDS, kind, k=5, subject="row"),
        provenance="drawn",
        licence="none",
    )


def first_fold(dataset: Dataset, protocol: Protocol | None = None, seed: int = 0) -> tuple[Fold, Split]:
    """The first fold of a data set."""
    prepared = prepare(dataset)
    if protocol is None:
        protocol = Protocol.ROWS if dataset.group is None else Protocol.GROUPED
    parts = split(prepared.dataset.site, prepared.dataset.group, protocol=protocol, repeat=0, seed=seed)
    return fold_of(prepared, parts, seed=seed, protocol=protocol), parts


def truth(dataset: Dataset, parts: Split) -> dict[str, NDArray[np.float64]]:
    """The outcomes of a split's test cases."""
    y = prepare(dataset).y
    return {site: y[rows] for site, rows in parts.test.items()}


def without_outcomes(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The same data set with some outcomes not known."""
    outcome = dataset.outcome.copy()
    outcome[rows] = None if outcome.dtype == object else np.nan
    return dataclasses.replace(dataset, outcome=outcome)
