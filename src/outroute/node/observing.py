"""A user's table -> observations in the journal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.node.reports import ObserveReport
from outroute.schema import Schema, encode
from outroute.store import Noted

if TYPE_CHECKING:
    from outroute.tables.mapping import TableMapping
    from outroute.tables.observed import Observed

__all__ = ["Note", "observe_table"]

Note = Callable[..., dict[Noted, int]]
"""``Node.observe_encoded``."""


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
