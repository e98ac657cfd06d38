"""What comes out of a mapping: usable rows, and rows refused with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from outroute.tables.table import Floats

__all__ = ["Observed", "Reason", "RowProblem", "Tally"]


class Reason(Enum):
    """Why rows were refused."""

    OUT_OF_RANGE = "out of range"
    NOT_A_NUMBER = "not a number"
    UNKNOWN_CATEGORY = "unknown category"
    NO_CASE = "no case id"
    NO_SUBJECT = "no subject id"
    NO_TIME = "no time"
    BAD_TIME = "not a time"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProblem:
    """Rows refused for one reason in one field (a row may appear under several).

    Attributes:
        name: the field, or "outcome", "case", "subject", "time".
        reason: why.
        count: rows concerned.
        first_row: number of the first such row, from 1, header not counted.
        first_case: its case id, if the mapping names one.
        example: the value that stood there.
        hint: what was expected and what to do.
    """

    name: str
    reason: Reason
    count: int
    first_row: int
    first_case: str | None
    example: str
    hint: str

    def __str__(self) -> str:
        what = {
            Reason.OUT_OF_RANGE: "values outside the range",
            Reason.NOT_A_NUMBER: "values that are no number",
            Reason.UNKNOWN_CATEGORY: "values of no known category",
            Reason.NO_CASE: "rows without a case id",
            Reason.NO_SUBJECT: "rows without a subject id",
            Reason.NO_TIME: "rows without a time",
            Reason.BAD_TIME: "values that are no time",
        }[self.reason]
        case = f" (case {self.first_case})" if self.first_case is not None else ""
        value = f": {self.example}" if self.example else ""
        if self.count == 1:
            what = what.replace("values", "value").replace("rows", "row").replace("that are", "that is")
        return f"{self.name}: {self.count:,} {what}; first in row {self.first_row:,}{case}{value}. {self.hint}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """Rows as the schema knows them; refused rows are not among them.

    Attributes:
        columns: by field name, for ``schema.encode``: float64[n] (NaN missing) or object[n] (category or None).
        outcome: float64[n], class index or value in the outcome's unit; NaN while not known.
        case: object[n] of text.
        subject: object[n] of text (the case id where the mapping names no subject).
        time: int64[n], seconds since 1970-01-01 UTC; None if the mapping names no time.
        row: int64[n], each row's number in the source, from 1.
        seen: rows looked at.
        problems: why rows were refused.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    outcome: Floats
    case: npt.NDArray[np.object_]
    subject: npt.NDArray[np.object_]
    time: npt.NDArray[np.int64] | None
    row: npt.NDArray[np.int64]
    seen: int
    problems: tuple[RowProblem, ...]

    @property
    def refused(self) -> int:
        """Rows refused."""
        return self.seen - len(self.row)

    @property
    def waiting(self) -> int:
        """Rows kept whose outcome is not known yet."""
        return int(np.isnan(self.outcome).sum())


class Tally:
    """Adds up what was refused over many batches."""

    def __init__(self) -> None:
        self.seen = 0
        self.kept = 0
        self.waiting = 0
        self._problems: dict[tuple[str, Reason], RowProblem] = {}

    def add(self, observed: Observed) -> None:
        """Count one batch more."""
        self.seen += observed.seen
        self.kept += len(observed.row)
        self.waiting += observed.waiting
        for problem in observed.problems:
            key = (problem.name, problem.reason)
            old = self._problems.get(key)
            self._problems[key] = problem if old is None else replace(old, count=old.count + problem.count)

    @property
    def refused(self) -> int:
        """Rows refused."""
        return self.seen - self.kept

    @property
    def problems(self) -> tuple[RowProblem, ...]:
        """One entry per field and reason, most frequent first."""
        return tuple(sorted(self._problems.values(), key=lambda item: -item.count))
