"""Small made-up networks with known truth, for the tests of synthesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from outroute.synthesis import Evidence, Records

WIDTH = 5
"""Three numeric fields and one of two categories."""


@dataclass(frozen=True)
class MadeOutcome:
    kind: int = 1
    classes: tuple[str, ...] = ("no", "yes")
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MadeSchema:
    outcome: MadeOutcome = field(default_factory=MadeOutcome)
    width: int = WIDTH
    slots: Mapping[str, slice] = field(
        default_factory=lambda: {"a": slice(0, 1), "b": slice(1, 2), "c": slice(2, 3), "kind": slice(3, 5)}
    )
    slot_weights: np.ndarray = field(default_factory=lambda: np.array([200, 200, 200, 100, 100], np.int64))


BINARY = MadeSchema()
THREE = MadeSchema(outcome=MadeOutcome(kind=2, classes=("x", "y", "z")))
NUMBER = MadeSchema(outcome=MadeOutcome(kind=3, classes=(), low=-10.0, high=30.0))


def conditions(n: int, rng: np.random.Generator, missing: float = 0.0) -> np.ndarray:
    x = np.zeros((n, WIDTH))
    x[:, :3] = rng.random((n, 3))
    x[np.arange(n), 3 + rng.integers(0, 2, n)] = 1.0
    for columns in ([0], [1], [2], [3, 4]):
        x[np.ix_(np.flatnonzero(rng.random(n) < missing), np.array(columns))] = np.nan
    return x


def outcomes(schema: MadeSchema, x: np.ndarray, offset: float, rng: np.random.Generator) -> np.ndarray:
    drive = offset + 4.0 * (np.nan_to_num(x[:, 0], nan=0.5) - 0.5) + 1.5 * np.nan_to_num(x[:, 3], nan=0.5)
    if schema.outcome.kind == 3:
        return 5.0 + 2.0 * drive + rng.normal(0, 1.5, len(x))
    if schema.outcome.kind == 2:
        score = np.stack([np.zeros(len(x)), drive, -drive], axis=1) + rng.gumbel(size=(len(x), 3))
        return score.argmax(1).astype(np.float64)
    return (rng.random(len(x)) < 1.0 / (1.0 + np.exp(-drive))).astype(np.float64)


def packets(
    schema: MadeSchema, nodes: int, each: int, rng: np.random.Generator, *, spread: float = 0.3, missing: float = 0.0
) -> Evidence:
    """`each` packets of 5 similar records from every node."""
    xs, ys, owner = [], [], []
    for j in range(nodes):
        x = conditions(each * 5, rng, missing)
        y = outcomes(schema, x, rng.normal(0, spread), rng)
        order = np.argsort(np.nan_to_num(x[:, 0], nan=-1.0), kind="stable")
        xs.append(x[order].reshape(each, 5, WIDTH))
        ys.append(y[order].reshape(each, 5))
        owner.append(np.full(each, j))
    x = np.concatenate(xs)
    y = np.concatenate(ys)
    n = len(x)
    known = ~np.isnan(x)
    middle = np.where(known.any(1), np.nan_to_num(x).sum(1) / np.maximum(known.sum(1), 1), np.nan)
    classes = len(schema.outcome.classes)
    return Evidence(
        x=middle,
        node=np.concatenate(owner).astype(np.int64),
        nodes=tuple(bytes([j]) * 32 for j in range(nodes)),
        size=np.full(n, 5.0),
        counts=np.stack([(y == c).sum(1) for c in range(classes)], axis=1).astype(np.float64) if classes else None,
        mean=None if classes else y.mean(1),
        variance=None if classes else y.var(1),
        bucket=np.zeros(n, np.int64),
        cell=np.zeros(n, np.int64),
    )


def no_packets(schema: MadeSchema) -> Evidence:
    classes = len(schema.outcome.classes)
    return Evidence(
        x=np.zeros((0, WIDTH)),
        node=np.zeros(0, np.int64),
        nodes=(),
        size=np.zeros(0),
        counts=np.zeros((0, classes)) if classes else None,
        mean=None if classes else np.zeros(0),
        variance=None if classes else np.zeros(0),
        bucket=np.zeros(0, np.int64),
        cell=np.zeros(0, np.int64),
    )


def records(
    schema: MadeSchema, n: int, rng: np.random.Generator, *, offset: float = 0.0, missing: float = 0.0
) -> Records:
    x = conditions(n, rng, missing)
    return Records(x=x, y=outcomes(schema, x, offset, rng), group=np.arange(n, dtype=np.int64))


def no_records() -> Records:
    return Records(x=np.zeros((0, WIDTH)), y=np.zeros(0), group=np.zeros(0, np.int64))
