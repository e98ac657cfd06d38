"""A user's table -> observations in the journal; outcomes that become known later."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.node.believing import Beliefs
from outroute.node.releasing import Releasing
from outroute.node.reports import ObserveReport
from outroute.schema import Schema, encode, encode_outcome, facet_index
from outroute.store import Noted

if TYPE_CHECKING:
    from outroute.tables.mapping import TableMapping
    from outroute.tables.observed import Observed

__all__ = ["Note", "Observing", "observe_table"]

Note = Callable[..., dict[Noted, int]]
"""``Node.observe_encoded``."""


class Observing(Releasing):
    """Observing and confirming: the half of ``Node`` that takes in; ``Node`` is one."""

    _beliefs: Beliefs
    _newest: Callable[[str], None]

    def observe(
        self,
        table: Any,
        *,
        mapping: TableMapping | None = None,
        case: str | None = None,
        subject: str | None = None,
        time: str | None = None,
        outcome: str | None = None,
    ) -> ObserveReport:
        """Take observations in; the same table again changes nothing.

        Args:
            table: path of a CSV, Parquet or NDJSON file, ``"-"`` for NDJSON on standard input, a DataFrame, an Arrow
                table, or a mapping of columns. Read in batches, each kept in one durable step.
            mapping: how its columns become the schema's fields; default the same names.
            case: column that names a case. Without it a case is known by its whole row and its number among equal
                rows of the table; then an outcome that comes later makes it another case.
            subject: column that names a subject; k counts subjects. Default: each case is its own.
            time: column that says when it was observed; default when this node first saw it.
            outcome: column with the outcome, when it is not called as in the schema.

        Returns:
            What became of every row. Rows without an outcome wait until ``confirm`` or ``observe`` brings it.

        Raises:
            DataError: when the table cannot be used; nothing of the batch concerned is kept, batches before it are.
        """
        from outroute.tables.mapping import default_mapping

        self._alive()
        if mapping is None:
            mapping = default_mapping(
                self.schema,
                outcome=outcome,
                case=(case,) if case else (),
                subject=(subject,) if subject else (),
                time=(time,) if time else (),
            )
        return observe_table(self.schema, table, mapping, self.observe_encoded)

    def observe_encoded(
        self,
        codes: NDArray[np.uint16],
        outcome: NDArray[np.float64],
        *,
        cases: Sequence[Any] | NDArray[Any],
        subjects: Sequence[Any] | NDArray[Any] | None = None,
        times: NDArray[np.int64] | None = None,
    ) -> dict[Noted, int]:
        """Take observations in that are encoded already, in one durable step.

        Args:
            codes: uint16 ``[n, width]``.
            outcome: float64 ``[n]``, NaN while not known.
            cases: n ids.
            subjects: n ids; default the cases.
            times: int64 ``[n]``, seconds since 1970-01-01 UTC; default when this node first saw the case.

        Returns:
            How many rows were what to this node.
        """
        self._newest("observe")
        bucket_of = self.schema.time.bucket_seconds
        now = self._now()
        if times is None:
            bucket = self._journal.dated(cases, now - now % bucket_of)
        else:
            bucket = times - times % bucket_of
        facet = facet_index(self.schema, codes)
        self._own = None
        with self._journal.together():
            noted = self._journal.observe(cases, codes, outcome, bucket=bucket, facet=facet, subjects=subjects)
            self._beliefs.settle(cases, outcome)
        values, numbers = np.unique(noted, return_counts=True)
        found = {Noted(int(v)): int(n) for v, n in zip(values, numbers, strict=True)}
        if Noted.UPDATED in found:
            self._asker.refit()
        return found

    def confirm(self, case: object, outcome: Any) -> Noted:
        """Bring the outcome of a case that was observed or asked about before.

        What every calculation had said of it is scored now, in the same durable step.

        Args:
            case: its id.
            outcome: class name, class index or number.

        Returns:
            What it was: ``CONFIRMED``, ``DUPLICATE``, ``UPDATED``, ``CONFLICT`` (it has left in a packet with another
            outcome) or ``UNKNOWN``.

        Raises:
            DataError: when the outcome is not one of the schema's.
            StoreError: ``node.successor``, the observations were carried over to the schema's successor.
        """
        self._newest("confirm")
        value = encode_outcome(self.schema.outcome, [outcome])
        if np.isnan(value[0]):
            raise DataError("confirm needs an outcome: the case waits for it already", code="data.outcome")
        self._own = None
        with self._journal.together():
            noted = Noted(int(self._journal.confirm([case], value)[0]))
            asked = self._journal.question(case)
            if noted is Noted.UNKNOWN and asked is not None:
                codes = np.frombuffer(asked.payload, dtype="<u2").astype(np.uint16)[None, :]
                self.observe_encoded(codes, value, cases=[case], times=np.array([asked.asked], dtype=np.int64))
                return Noted.CONFIRMED
            self._beliefs.settle([case], value)
        if noted is Noted.UPDATED:
            self._asker.refit()
        return noted


def observe_table(schema: Schema, table: Any, mapping: TableMapping, note: Note) -> ObserveReport:
    """Read a table in batches and note each in one durable commit.

    Args:
        schema: the schema.
        table: see ``Node.observe``.
        mapping: how its columns become the schema's fields.
        note: takes encoded observations.

    Raises:
        DataError: when the table cannot be used; nothing of the batch concerned is kept.
    """
    from outroute.tables.applying import apply_batches
    from outroute.tables.observed import Tally
    from outroute.tables.reading import iter_batches

    totals = dict.fromkeys(Noted, 0)
    seen: dict[bytes, int] = {}
    tally = Tally()
    batches = iter_batches(table, only=_columns(table, mapping))
    for part in apply_batches(mapping, schema, batches, outcomes="optional"):
        tally.add(part)
        codes = encode(schema, part.columns).codes
        noted = note(
            codes,
            part.outcome,
            cases=part.case if mapping.case else _rows_as_cases(codes, part, bool(mapping.subject), seen),
            subjects=part.subject if mapping.subject else None,
            times=part.time,
        )
        for kind, count in noted.items():
            totals[kind] += count
    return ObserveReport(
        seen=tally.seen,
        added=totals[Noted.ADDED],
        duplicate=totals[Noted.DUPLICATE],
        confirmed=totals[Noted.CONFIRMED],
        updated=totals[Noted.UPDATED],
        conflict=totals[Noted.CONFLICT],
        waiting=tally.waiting,
        refused=tally.refused,
        problems=tally.problems,
    )


def _columns(table: Any, mapping: TableMapping) -> list[str] | None:
    """The columns to read, without the outcome's where a file has none; None to read all."""
    from outroute.tables.reading import iter_batches
    from outroute.tables.sources import is_object, open_source

    if is_object(table) or hasattr(table, "read") or str(table) == "-":
        return None
    with open_source(table) as opened:
        if opened.kind == "ndjson":  # a column may begin in any line
            return None
    names = next(iter_batches(table)).names
    return [name for name in mapping.columns if name in names or name != mapping.outcome.column]


def _rows_as_cases(codes: NDArray[np.uint16], part: Observed, subjects: bool, seen: dict[bytes, int]) -> list[bytes]:
    """Ids of cases that have none: their whole row, and their number among equal rows of this table.

    Args:
        codes: uint16 ``[n, width]``.
        part: the batch.
        subjects: whether subjects have ids of their own.
        seen: how often each row has come so far; continued here.
    """
    out = []
    times = [None] * len(codes) if part.time is None else part.time.tolist()
    who = part.subject.tolist() if subjects else times
    for row, outcome, time, subject in zip(codes, part.outcome.tolist(), times, who, strict=True):
        key = hashlib.blake2b(row.tobytes() + repr((outcome, time, subject)).encode(), digest_size=16).digest()
        count = seen[key] = seen.get(key, 0) + 1
        out.append(key + count.to_bytes(4, "little"))
    return out
