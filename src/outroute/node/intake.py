"""Observations of many devices, as they come: lines of JSON -> rows of the schema, or refused one by one.

Devices are strangers: a line that cannot be used is refused and counted, and never keeps another from being taken.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.schema import Schema, encode
from outroute.store import Noted
from outroute.tables.mapping import TableMapping

__all__ = ["DEVICE", "LINES_MOST", "LINE_BYTES", "MESSAGE", "Intake", "Line", "RefusedLine", "Taken"]

LINE_BYTES = 65_536
"""Bytes of one observation, at most."""
LINES_MOST = 1000
"""Observations of one message, at most."""
VALUES_MOST = 256
"""Values of one observation, at most: four times as many as a schema has fields."""
TEXT_MOST = 1024
"""Characters of one value, at most."""
_EXACT = 2**53
DEVICE = "@device"
"""As a column: the last word of the subject that an observation came under."""
MESSAGE = "@message"
"""As a column: which line of which message it was; the same when it is delivered again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One observation as it came.

    Attributes:
        data: one JSON object.
        device: who sent it, by the subject.
        message: names the line, the same at every delivery.
    """

    data: bytes
    device: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedLine:
    """A line that was not taken, and why."""

    line: Line
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of some lines.

    Attributes:
        noted: rows by what they were to the node.
        refused: lines that were not taken.
    """

    noted: Counter[Noted]
    refused: tuple[RefusedLine, ...]


Note = Callable[..., dict[Noted, int]]
"""``Node.observe_encoded``."""


class Intake:
    """Reads lines by a mapping.

    Args:
        schema: the schema.
        mapping: how values become fields; it names a case.
    """

    def __init__(self, schema: Schema, mapping: TableMapping) -> None:
        if not mapping.case:
            raise DataError("observations need a column that names a case", code="data.case")
        self._schema, self._mapping = schema, mapping

    def take(self, lines: Sequence[Line], note: Note) -> Taken:
        """Read lines and note what can be used, in one durable step where nothing is wrong.

        Args:
            lines: any bytes.
            note: keeps encoded observations.

        Raises:
            StoreError: they could not be kept; the same lines again count nothing twice.
        """
        rows: list[tuple[Line, dict[str, Any]]] = []
        refused: list[RefusedLine] = []
        for line in lines:
            row = _row(line)
            if isinstance(row, str):
                refused.append(RefusedLine(line=line, reason=row))
            else:
                rows.append((line, row))
        noted: Counter[Noted] = Counter()
        self._take(rows, note, noted, refused)
        return Taken(noted=noted, refused=tuple(refused))

    def _take(
        self,
        rows: Sequence[tuple[Line, dict[str, Any]]],
        note: Note,
        noted: Counter[Noted],
        refused: list[RefusedLine],
    ) -> None:
        """Take rows; where so many are wrong that a table would be refused, halves of them, down to single ones."""
        from outroute.tables.applying import apply_batches
        from outroute.tables.reading import iter_batches

        if not rows:
            return
        columns = {name: [row.get(name) for _, row in rows] for name in self._mapping.columns}
        try:
            batches = iter_batches(columns)
            parts = list(apply_batches(self._mapping, self._schema, batches, outcomes="optional"))
        except DataError as error:
            if len(rows) == 1:
                refused.append(RefusedLine(line=rows[0][0], reason=error.code))
                return
            middle = len(rows) // 2
            self._take(rows[:middle], note, noted, refused)
            self._take(rows[middle:], note, noted, refused)
            return
        done = 0
        for part in parts:
            good = part.row - 1 - done
            bad = np.ones(part.seen, dtype=np.bool_)
            bad[good] = False
            reasons = {f"{problem.name}: {problem.reason.value}" for problem in part.problems}
            for at in np.flatnonzero(bad).tolist():
                line, row = rows[done + at]
                why = next(iter(reasons)) if len(reasons) == 1 else self._why(row)
                refused.append(RefusedLine(line=line, reason=why))
            done += part.seen
            if not len(good):
                continue
            codes = encode(self._schema, part.columns).codes
            noted.update(self._note(note, codes, part))

    def _note(self, note: Note, codes: NDArray[np.uint16], part: Any) -> dict[Noted, int]:
        return note(
            codes,
            part.outcome,
            cases=part.case,
            subjects=part.subject if self._mapping.subject else None,
            times=part.time,
        )

    def _why(self, row: dict[str, Any]) -> str:
        """Why one row is refused, where the batch had several reasons."""
        from outroute.tables.applying import apply_batches
        from outroute.tables.reading import iter_batches

        columns = {name: [row.get(name)] for name in self._mapping.columns}
        parts = apply_batches(self._mapping, self._schema, iter_batches(columns), outcomes="optional")
        problems = [problem for part in parts for problem in part.problems]
        return "; ".join(f"{problem.name}: {problem.reason.value}" for problem in problems) or "not usable"


def _row(line: Line) -> dict[str, Any] | str:
    """The values of a line by name, or why there are none. Total: any bytes give one or the other."""
    if len(line.data) > LINE_BYTES:
        return "longer than 65,536 bytes"
    try:
        found = json.loads(line.data)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(found, dict):
        return "not a JSON object"
    if len(found) > VALUES_MOST:
        return "too many values"
    for name, value in found.items():
        if isinstance(value, str):
            fine = len(value) <= TEXT_MOST and value.isprintable()
        elif isinstance(value, float):
            fine = math.isfinite(value)
        else:
            fine = value is None or (isinstance(value, int) and abs(value) <= _EXACT)
        if not fine or len(name) > TEXT_MOST:
            return "a value that is no number, text, true, false or null"
    return {**found, DEVICE: line.device, MESSAGE: line.message}
