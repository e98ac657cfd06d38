"""What goes into distilling (observations) and what comes out (cohorts, and what was withheld and why)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum, IntEnum
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError

__all__ = [
    "ROWS_PER_SUBJECT",
    "Agreement",
    "Cohort",
    "Cohorts",
    "Distilled",
    "Observations",
    "Reason",
    "Withheld",
]

ROWS_PER_SUBJECT = 1
"""Observations of one subject in one cohort. With one, no subject weighs more than 1/k of any packet, whatever the
number of its rows; its other rows go to other cohorts, and wait where there are not enough other subjects."""


class Reason(IntEnum):
    """Why an observation stays at home. Nothing is lost: it may leave in a later cohort."""

    NO_OUTCOME = 1
    """Its outcome is not known yet."""
    TOO_FEW_SUBJECTS = 2
    """Fewer than k subjects share its facet and time window."""
    ONE_SUBJECT = 3
    """Its subject has more observations here than there are others to hide them among."""
    WAITING = 4
    """Streaming: the pool is still too small for a tight cohort."""
    AGREES = 5
    """All outcomes that could share its cohort agree, and the agreement rule forbids to say so."""
    WAITING_FOR_NEW = 6
    """It has left before, in a packet that was withdrawn: it leaves again only among k subjects that are new, else the
    difference of the two packets would tell about the few who are in one of them only."""
    SPENT = 7
    """Under ``private``: its subject has given all the records that it may, over the node's lifetime."""
    NEXT_RELEASE = 8
    """Under ``private``: this time bucket had its release; it waits for the next one."""


class Agreement(Enum):
    """What to do with a cohort whose outcomes all agree (whoever knows a member knows the outcome)."""

    ALLOW = "allow"
    """Emit it."""
    MERGE = "merge"
    """Never emit it: join it to its nearest neighbour until two outcomes meet. Larger cohorts where one is rare."""


_UNSAID: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
"""Stands for "none is stale" until the number of rows is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Rows of one node that may be condensed. Arrays are not copied; do not write to them.

    Attributes:
        codes: uint16[n, D], as ``outroute.schema.encode`` makes them.
        outcome: float64[n]; class index, or value in the outcome's unit; NaN while not known.
        subject: int64[n]; equal numbers are one subject. Any integers.
        bucket: int64[n]; start of the observed-at bucket, seconds since 1970.
        facet: int64[n]; number of the combination of exact-match facets; 0 where there are none.
        stale: bool[n]; it has left before, in a packet that was withdrawn since. By default none has.
    """

    codes: NDArray[np.uint16]
    outcome: NDArray[np.float64]
    subject: NDArray[np.int64]
    bucket: NDArray[np.int64]
    facet: NDArray[np.int64]
    stale: NDArray[np.bool_] = field(default_factory=lambda: _UNSAID)

    def __post_init__(self) -> None:
        if self.stale is _UNSAID:
            object.__setattr__(self, "stale", np.zeros(len(self.codes), dtype=np.bool_))
        if self.codes.ndim != 2 or self.codes.dtype != np.uint16:
            raise DataError(
                f"codes must be uint16[n, D], not {self.codes.dtype}{list(self.codes.shape)}: "
                "make them with outroute.schema.encode",
                code="distill.observations",
            )
        for item in fields(self)[1:]:
            array = getattr(self, item.name)
            wanted = {"outcome": np.float64, "stale": np.bool_}.get(item.name, np.int64)
            if array.shape != (len(self.codes),) or array.dtype != wanted:
                raise DataError(
                    f"{item.name} must be {wanted.__name__}[{len(self.codes)}], one per row of codes, "
                    f"not {array.dtype}{list(array.shape)}",
                    code="distill.observations",
                )

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: NDArray[Any]) -> Observations:
        """The chosen rows, in that order (``rows``: indices or a mask)."""
        return Observations(
            codes=self.codes[rows],
            outcome=self.outcome[rows],
            subject=self.subject[rows],
            bucket=self.bucket[rows],
            facet=self.facet[rows],
            stale=self.stale[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The contents of one packet, before it is signed.

    Attributes:
        members: int64[size]; rows of the observations that it condenses, ascending.
        codes: uint16[D]; conditions in the schema's slots.
        size: observations condensed.
        subjects: distinct subjects among them.
        bucket: observed-at bucket of its latest member, seconds since 1970.
        facet: the facet combination that all members share.
        counts: uint32[C], observations per class; None for a numeric outcome.
        mean: mean outcome in the outcome's unit; for classes NaN.
        variance: population variance (divided by size), unit squared; for classes NaN.
    """

    members: NDArray[np.int64]
    codes: NDArray[np.uint16]
    size: int
    subjects: int
    bucket: int
    facet: int
    counts: NDArray[np.uint32] | None
    mean: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohorts(Sequence[Cohort]):
    """Many cohorts as columns; indexing gives one ``Cohort``.

    Attributes:
        rows: int64[sum of sizes]; members of all cohorts, one cohort after the other, ascending inside each.
        offsets: int64[m + 1]; cohort i holds ``rows[offsets[i]:offsets[i + 1]]``.
        codes: uint16[m, D].
        size, subjects, bucket, facet: int64[m].
        counts: uint32[m, C] or None.
        mean, variance: float64[m]; NaN for class outcomes.
    """

    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    codes: NDArray[np.uint16]
    size: NDArray[np.int64]
    subjects: NDArray[np.int64]
    bucket: NDArray[np.int64]
    facet: NDArray[np.int64]
    counts: NDArray[np.uint32] | None
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.size)

    @overload
    def __getitem__(self, index: int) -> Cohort: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Cohort]: ...
    def __getitem__(self, index: int | slice) -> Cohort | Sequence[Cohort]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"cohort {index} of {len(self)}")
        i = index % len(self)
        return Cohort(
            members=self.rows[self.offsets[i] : self.offsets[i + 1]],
            codes=self.codes[i],
            size=int(self.size[i]),
            subjects=int(self.subjects[i]),
            bucket=int(self.bucket[i]),
            facet=int(self.facet[i]),
            counts=None if self.counts is None else self.counts[i],
            mean=float(self.mean[i]),
            variance=float(self.variance[i]),
        )

    def __iter__(self) -> Iterator[Cohort]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cohorts):
            return NotImplemented
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return all(
            (a is None and b is None)
            or (a is not None and b is not None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
            for a, b in pairs
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """Observations that stay at home.

    Attributes:
        rows: int64[w]; ascending.
        reasons: uint8[w]; a ``Reason`` each.
    """

    rows: NDArray[np.int64]
    reasons: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def counts(self) -> Mapping[Reason, int]:
        """How many observations for each reason that occurs."""
        values, numbers = np.unique(self.reasons, return_counts=True)
        return {Reason(int(v)): int(n) for v, n in zip(values, numbers, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """What one round of distilling decided: every observation is in exactly one cohort or withheld.

    Attributes:
        cohorts: what may leave.
        withheld: what stays, with reasons.
        k: the number of subjects that was asked for.
    """

    cohorts: Cohorts
    withheld: Withheld
    k: int
    agreeing: int = field(default=0)
    """Cohorts whose outcomes all agree (0 under ``Agreement.MERGE``)."""
