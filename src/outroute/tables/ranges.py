"""Ranges that may be published, and values that only look like measurements.

A table's smallest and largest value belong to somebody. A published range therefore starts from values that at
least k subjects reach, goes outward by a margin, and ends on round numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

from outroute.tables.table import Flags, Floats

__all__ = ["MARGIN", "Range", "outward_range", "round_step", "suspected_sentinels"]

#: A range goes outward from the bulk by this share of its width, so that the next extreme patient still fits.
MARGIN: Final = 0.2
#: A range is cut into about this many round steps; its ends lie on them.
STEPS: Final = 10

#: Numbers that people type for "not measured".
_SENTINELS: Final = frozenset(
    {0.0, -1.0, -7.0, -8.0, -9.0, 9.0, *(sign * n for sign in (1, -1) for n in (88.0, 99.0, 777.0, 888.0, 999.0))}
    | {sign * n for sign in (1, -1) for n in (9999.0, 99999.0, 999999.0, 99.9, 999.9, 9999.9)}
)
#: A spike at the edge is suspected when the gap to the other values exceeds this share of their bulk's width.
_GAP: Final = 0.25
#: ... and when it holds at least this share of the values.
_SPIKE: Final = 0.005
#: At most so many different sentinels in one column.
_MOST_SENTINELS: Final = 3

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range to publish.

    Attributes:
        low, high: on round steps; ``low`` < ``high``.
        outside: how many of the values lie outside it (local knowledge: never published).
    """

    low: Decimal
    high: Decimal
    outside: int


def round_step(width: float) -> Decimal:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``width / STEPS``."""
    target = width / STEPS
    power = math.floor(math.log10(target))
    for exponent in (power, power + 1):
        for digit in (1, 2, 5):
            step = Decimal(digit).scaleb(exponent)
            if float(step) >= target * (1 - 1e-12):
                return step
    return Decimal(1).scaleb(power + 2)  # pragma: no cover - 10 ** (power + 1) is always enough


def _per_subject(values: Floats, subjects: Ints | None, largest: bool) -> Floats:
    """Each subject's largest (or smallest) value, ascending."""
    if subjects is None:
        return np.sort(values)
    order = np.argsort(subjects, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(subjects[order]) != 0])
    reduce = np.maximum.reduceat if largest else np.minimum.reduceat
    return np.sort(reduce(values[order], starts))


def outward_range(values: Floats, subjects: Ints | None, *, k: int, integer: bool) -> Range | None:
    """A range that at least k subjects reach on both sides, extended outward to round numbers.

    The ends depend on the k-th smallest and the k-th largest subject alone (and on the sign all values share), so
    fewer than k subjects cannot move them. An end never equals the smallest or largest value, unless it is zero. There
    is no margin beyond a value that k subjects hold and nobody exceeds: it is a natural limit (the hour 23).

    Args:
        values: float64[n], finite.
        subjects: int64[n], whose value it is; None if every row is a subject.
        k: the privacy floor, at least 1.
        integer: whether the ends must be whole numbers.

    Returns:
        The range; None with fewer than 2 k subjects, or if all but fewer than k subjects hold one value.
    """
    highest = _per_subject(values, subjects, largest=True)
    lowest = _per_subject(values, subjects, largest=False)
    if len(highest) < 2 * k or not len(values):
        return None
    top, bottom = float(highest[-k]), float(lowest[k - 1])
    if not bottom < top:
        return None
    width = top - bottom
    step = round_step(width)
    if integer and step < 1:
        step = Decimal(1)
    smallest, largest = float(lowest[0]), float(highest[-1])
    below = 0.0 if smallest == bottom else MARGIN * width
    above = 0.0 if largest == top else MARGIN * width
    low = step * math.floor((bottom - below) / float(step))
    high = step * math.ceil((top + above) / float(step))
    if smallest >= 0:
        low = max(low, Decimal(0))
    if largest <= 0:
        high = min(high, Decimal(0))
    if low != 0 and float(low) == smallest:
        low -= step
    if high != 0 and float(high) == largest:
        high += step
    outside = int(((values < float(low)) | (values > float(high))).sum())
    return Range(low=low, high=high, outside=outside)


def suspected_sentinels(values: Floats, *, k: int) -> tuple[float, ...]:
    """Edge values that are probably a code for "not measured": 0, -1, 99, 999, ... with a gap to all others.

    Args:
        values: float64[n], finite.
        k: a spike of fewer values than this is an odd value, not a code.
    """
    found: list[float] = []
    rest = values
    while len(found) < _MOST_SENTINELS and len(rest):
        spike = next((edge for edge in (float(rest.max()), float(rest.min())) if _is_spike(rest, edge, k)), None)
        if spike is None:
            break
        found.append(spike)
        rest = rest[rest != spike]
    return tuple(found)


def _is_spike(values: Floats, edge: float, k: int) -> bool:
    if edge not in _SENTINELS:
        return False
    here: Flags = values == edge
    count = int(here.sum())
    rest = values[~here]
    if count < max(k, _SPIKE * len(values)) or len(rest) < 2 * k:
        return False
    gap = float(np.min(np.abs(rest - edge)))
    spread = float(np.quantile(rest, 0.95) - np.quantile(rest, 0.05))
    neighbours = bool(np.all(rest == np.floor(rest))) and gap <= 1
    return not neighbours and gap > _GAP * spread and len(np.unique(rest)) > 1
