"""Members of cohorts -> contents of packets, all cohorts at once, conditions in integers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.model import Cohorts, Observations
from outroute.schema import MISSING, SCALE, FieldKind

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["aggregate", "agreeing", "mean_codes"]


def aggregate(schema: Schema, observations: Observations, group: NDArray[np.int64]) -> Cohorts:
    """Condense every group of rows.

    A numeric slot is the mean of the codes that are present, rounded half up, ``MISSING`` where none is. A
    categorical field is the mean of the shares present, by largest remainder, so that shares sum to exactly
    ``SCALE``. Outcomes are class counts, or mean and population variance. The observed-at bucket is the latest
    member's.

    Args:
        schema: the schema.
        observations: n rows.
        group: int64[n]; number of the cohort of each row, -1 for none. Cohorts appear in the order of their numbers.

    Returns:
        The cohorts; numbers without a row are left out.
    """
    inside = np.flatnonzero(group >= 0)
    rows = inside[np.argsort(group[inside], kind="stable")]
    numbers, start = np.unique(group[rows], return_index=True)
    m = len(numbers)
    offsets = np.append(start, len(rows)).astype(np.int64)
    size = np.diff(offsets)
    outcome = observations.outcome[rows]
    classes = schema.outcome.classes
    counts = None
    mean = variance = np.full(m, np.nan)
    which = np.repeat(np.arange(m), size)
    if schema.outcome.has_classes:
        flat = np.bincount(which * len(classes) + outcome.astype(np.int64), minlength=m * len(classes))
        counts = flat.reshape(m, len(classes)).astype(np.uint32)
    elif m:
        # Sorted inside each cohort: sums of floats must not depend on the order in which rows arrived.
        sorted_outcome = outcome[np.lexsort((outcome, which))]
        # The mean of equal numbers may differ from them in the last bit; it never leaves the range of its members.
        low, high = sorted_outcome[offsets[:-1]], sorted_outcome[offsets[1:] - 1]
        mean = np.clip(np.add.reduceat(sorted_outcome, offsets[:-1]) / size, low, high)
        variance = np.add.reduceat((sorted_outcome - mean[which]) ** 2, offsets[:-1]) / size
    return Cohorts(
        rows=rows,
        offsets=offsets,
        codes=_conditions(schema, observations.codes[rows], offsets),
        size=size,
        subjects=_distinct(observations.subject[rows], which, m),
        bucket=np.maximum.reduceat(observations.bucket[rows], offsets[:-1]) if m else np.zeros(0, np.int64),
        facet=observations.facet[rows][offsets[:-1]],
        counts=counts,
        mean=mean,
        variance=variance,
    )


def _conditions(schema: Schema, codes: NDArray[np.uint16], offsets: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Mean conditions of consecutive runs of rows, uint16[m, D]."""
    m = len(offsets) - 1
    out = np.full((m, schema.width), MISSING, dtype=np.uint16)
    if not m:
        return out
    # Field by field: 64-bit sums of all slots at once would take eight times the memory of the codes.
    for item in schema.fields:
        where = schema.slots[item.name]
        part = codes[:, where]
        gone = part == MISSING
        present = np.add.reduceat(~gone[:, 0], offsets[:-1], dtype=np.int64)
        total = np.add.reduceat(np.where(gone, 0, part), offsets[:-1], axis=0, dtype=np.int64)
        have = present > 0
        out[have, where] = mean_codes(item.kind, present[have], total[have])
    return out


def mean_codes(kind: FieldKind, present: NDArray[np.int64], sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """Mean codes of one field in m cohorts, int64[m, width of the field].

    Args:
        kind: numeric: the mean rounded half up; categorical: mean shares by largest remainder.
        present: int64[m]; members with a value, 1 or more.
        sums: int64[m, width]; sums of their codes, for categories ``SCALE`` times ``present`` in all.
    """
    number = present[:, None]
    if kind is FieldKind.NUMERIC:
        return (2 * sums + number) // (2 * number)
    floor, rest = sums // number, sums % number
    left = SCALE - floor.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(-rest, axis=1, kind="stable"), axis=1, kind="stable")
    out: NDArray[np.int64] = floor + (rank < left)
    return out


def _distinct(values: NDArray[np.int64], which: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    """Distinct values in each of m groups, int64[m]."""
    if not len(values):
        return np.zeros(m, dtype=np.int64)
    order = np.lexsort((values, which))
    v, w = values[order], which[order]
    first = np.append(True, (v[1:] != v[:-1]) | (w[1:] != w[:-1]))
    return np.bincount(w[first], minlength=m).astype(np.int64)


def agreeing(cohorts: Cohorts, observations: Observations) -> NDArray[np.bool_]:
    """Which cohorts hold one outcome only, bool[m]."""
    if not len(cohorts):
        return np.zeros(0, dtype=bool)
    outcome = observations.outcome[cohorts.rows]
    low = np.minimum.reduceat(outcome, cohorts.offsets[:-1])
    high = np.maximum.reduceat(outcome, cohorts.offsets[:-1])
    return np.asarray(low == high)
