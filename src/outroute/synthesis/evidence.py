"""What a synthesis is made of: packets as arrays, own records as arrays, and what it must know of the schema.

Everything here is plain numbers. Conditions are on the unit scale (0 to 1 over the declared range, a
category's share in its slot, NaN where missing), one column per slot of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError

__all__ = ["Evidence", "Floats", "Ints", "OutcomeLike", "Records", "SchemaLike", "class_count"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUMERIC_KIND = 3
"""Value of ``outroute.schema.OutcomeKind.NUMERIC``; the class kinds are 1 (binary) and 2 (categorical)."""


class OutcomeLike(Protocol):
    """The part of ``outroute.schema.Outcome`` that synthesis reads."""

    @property
    def kind(self) -> Any: ...  # noqa: D102 - 1 binary, 2 categorical, 3 numeric

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def low(self) -> Any: ...  # noqa: D102

    @property
    def high(self) -> Any: ...  # noqa: D102


class SchemaLike(Protocol):
    """The part of ``outroute.schema.Schema`` that synthesis reads."""

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def slots(self) -> Mapping[str, slice]: ...  # noqa: D102

    @property
    def slot_weights(self) -> npt.NDArray[np.int64]: ...  # noqa: D102

    @property
    def outcome(self) -> OutcomeLike: ...  # noqa: D102


def class_count(schema: SchemaLike) -> int:
    """Number of outcome classes of `schema` (2 for binary); 0 for a numeric outcome."""
    return 0 if int(schema.outcome.kind) == NUMERIC_KIND else len(schema.outcome.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Packets of other nodes, as columns of equal length n.

    Attributes:
        x: float64[n, D], conditions, unit scale, NaN missing.
        node: int64[n], index into `nodes`.
        nodes: node ids, in any order.
        size: float64[n], observations that each packet condenses, >= 0.
        counts: float64[n, C], class counts per packet, for class outcomes; else None.
        mean, variance: float64[n] in outcome units, for numeric outcomes; else None.
        bucket: int64[n], start of the observed-at bucket, seconds.
        cell: int64[n], landmark index.
        weight: float64[n] in [0, 1], how far elections let each packet count; None means all ones.
    """

    x: Floats
    node: Ints
    nodes: tuple[bytes, ...]
    size: Floats
    counts: Floats | None
    mean: Floats | None
    variance: Floats | None
    bucket: Ints
    cell: Ints
    weight: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.x)
        for name in ("node", "size", "counts", "mean", "variance", "bucket", "cell", "weight"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise DataError(
                    f"evidence column '{name}' has {len(column)} rows and x has {n}; pass columns of equal length",
                    code="synthesis.evidence",
                )
        if n and (self.node.min() < 0 or self.node.max() >= len(self.nodes)):
            raise DataError(
                "evidence names a node outside `nodes`; pass node as an index into nodes",
                code="synthesis.evidence",
            )
        if (self.counts is None) == (self.mean is None) or (self.mean is None) != (self.variance is None):
            raise DataError(
                "evidence needs either counts (class outcomes) or mean and variance (numeric outcomes)",
                code="synthesis.evidence",
            )

    @property
    def n(self) -> int:
        """Number of packets."""
        return len(self.x)

    def take(self, rows: npt.NDArray[Any]) -> Evidence:
        """The packets `rows` (indices or mask), same `nodes`."""
        return Evidence(
            x=self.x[rows],
            node=self.node[rows],
            nodes=self.nodes,
            size=self.size[rows],
            counts=None if self.counts is None else self.counts[rows],
            mean=None if self.mean is None else self.mean[rows],
            variance=None if self.variance is None else self.variance[rows],
            bucket=self.bucket[rows],
            cell=self.cell[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def canonical(self) -> Evidence:
        """Packets that count (size and weight above zero), in an order that depends on content only.

        `nodes` is reduced to those that have such packets, and sorted. So the order of arrival can never
        change an answer, and a packet without weight changes nothing.
        """
        amount = self.size if self.weight is None else self.size * self.weight
        kept = self.take(np.flatnonzero(amount > 0))
        names = tuple(sorted({self.nodes[i] for i in np.unique(kept.node)}))
        place = {name: i for i, name in enumerate(names)}
        table = np.array([place.get(name, 0) for name in self.nodes], np.int64)
        kept = replace(kept, nodes=names, node=table[kept.node] if kept.n else kept.node)
        keys: list[npt.NDArray[Any]] = [np.nan_to_num(column, nan=-1.0) for column in kept.x.T]
        if kept.counts is not None:
            keys += list(kept.counts.T)
        if kept.mean is not None and kept.variance is not None:
            keys += [kept.mean, kept.variance]
        keys += [kept.size, kept.cell, kept.bucket, kept.node]
        if kept.weight is not None:
            keys.insert(0, kept.weight)
        return kept.take(np.lexsort(keys))


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Own records; they never leave the node.

    Attributes:
        x: float64[n, D], conditions, unit scale, NaN missing.
        y: float64[n], class index, or value in outcome units; no NaN (open cases are not records yet).
        group: int64[n], rows of one group (a subject, a day) are never split between folds.
        timed: `group` is the observed-at bucket. Then packets of the same bucket do not help to score a
            record either: what peers saw on that very day will not be there when the next day is asked about.
    """

    x: Floats
    y: Floats
    group: Ints
    timed: bool = False

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.y) == len(self.group):
            raise DataError("own records need x, y and group of equal length", code="synthesis.records")
        if np.isnan(self.y).any():
            raise DataError(
                "own records must have known outcomes; leave open cases out until they are confirmed",
                code="synthesis.records",
            )

    @property
    def n(self) -> int:
        """Number of records."""
        return len(self.y)
