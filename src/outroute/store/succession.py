"""From a journal to the journal of a schema's successor: the same cases, subjects and numbers under new codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.store.journal import Journal
from outroute.store.log import Event, append_entry
from outroute.store.outgoing import id_list
from outroute.store.rounding import Rounding

__all__ = ["begin_successor", "note_successor"]

#: Observations written at a time.
_CHUNK = 8192


def begin_successor(
    parent: Journal,
    directory: Path | str,
    *,
    parent_id: bytes,
    schema_id: bytes,
    now: int,
    rows: NDArray[np.int64],
    codes: NDArray[np.uint16],
    outcome: NDArray[np.float64],
    bucket: NDArray[np.int64],
    facet: NDArray[np.int64],
    rounding: Rounding,
) -> Journal:
    """Make the journal of a successor, in one commit: observations keep their numbers, cases and subjects.

    They also keep whether they ever left and whether they were rejected, and are in no packet of the new outbox. What
    was rejected under the parent stays out of distilling for good. The secret under which cases are hashed is the same,
    so that a table read again names the same observations. The new log begins with the head of the parent's.

    Args:
        parent: the journal to carry over from.
        directory: of the successor; it holds no journal yet.
        parent_id, schema_id: of the schema and of its successor, 32 bytes each.
        now: seconds since 1970.
        rows: int64[n], rising; the parent's observations to carry over.
        codes: uint16[n, D of the successor].
        outcome: float64[n], NaN while not known.
        bucket, facet: int64[n].
        rounding: how far codes and times may lie beside what they are; rows with a higher number than its last one
            are exact.

    Raises:
        StoreError: a row is not in the parent, or the file cannot be written.
    """
    count, head = parent.log.head()
    made = Journal(directory, schema_id=schema_id, width=codes.shape[1], now=now)
    try:
        with made._database.transaction() as connection:
            connection.execute("UPDATE meta SET value = ? WHERE name = 'secret'", (parent._secret,))
            connection.execute("INSERT INTO meta VALUES ('rounding', ?)", (rounding.to_bytes(),))
            joined, size = codes.astype("<u2", copy=False).tobytes(), 2 * codes.shape[1]
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                known = _known(parent, rows[part])
                columns = zip(known, outcome[part].tolist(), bucket[part].tolist(), facet[part].tolist(), strict=True)
                connection.executemany(
                    "INSERT INTO observations (id, case_high, case_low, subject, emitted, excluded, outcome, bucket,"
                    " facet, codes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (*row, None if y != y else y, start_at, place, joined[i * size : (i + 1) * size])
                        for i, (row, y, start_at, place) in enumerate(columns, start)
                    ],
                )
            append_entry(
                connection,
                Event.MIGRATED,
                now=now,
                parent=parent_id,
                schema=schema_id,
                parent_entries=count,
                parent_head=head,
                observations=len(rows),
            )
        made._secret, made.rounding = parent._secret, rounding
    except BaseException:
        made.close()
        raise
    return made


def note_successor(parent: Journal, *, schema_id: bytes, now: int, observations: int) -> None:
    """Write into the parent's log that its observations were carried over."""
    parent.log.append(Event.MIGRATED, now=now, schema=schema_id, observations=observations)


def _known(parent: Journal, rows: NDArray[np.int64]) -> list[tuple[int | None, ...]]:
    """What stays as it is of some observations: number, case, subject, whether it left, and by what it is excluded.

    Numbers of packets of the parent's outbox become negative: they name no packet of the successor's.
    """
    with parent._database.reading() as connection:
        found = connection.execute(
            "SELECT id, case_high, case_low, subject, emitted, -excluded FROM observations"
            " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (id_list(rows),),
        ).fetchall()
    if len(found) != len(rows):
        raise StoreError("some observations to carry over are not in the parent", code="store.type")
    return found
