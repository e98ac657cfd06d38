"""Observations into the journal's table: what is new, known, changed, or changed after it left.

Functions on a connection inside a running transaction; ``Journal`` is the way in.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.store.database import scalar
from outroute.store.observed import Noted
from outroute.store.outgoing import id_list
from outroute.store.rounding import Rounding

__all__ = ["confirm_rows", "observe_rows"]

#: A row on its way: id (None: new), codes, outcome (None: waits), bucket, facet, subject, packet, changed.
_Row = list[Any]
_ID, _CODES, _OUTCOME, _BUCKET, _FACET, _SUBJECT, _PACKET, _CHANGED = range(8)


def observe_rows(
    connection: sqlite3.Connection,
    keys: list[tuple[int, int]],
    codes: NDArray[np.uint16],
    outcome: list[float | None],
    bucket: list[int],
    facet: list[int],
    subject: list[int],
    rounding: Rounding | None = None,
) -> list[Noted]:
    """Note observations as if they had come one after the other; see ``Journal.observe``.

    Args:
        connection: inside a transaction.
        keys: hash of each case.
        codes: uint16[n, D].
        outcome: ``None`` where it is not known yet.
        bucket, facet, subject: a number each.
        rounding: how far rows may lie beside what they are, in a journal that was carried over.
    """
    known = _known(connection, keys)
    joined, size = codes.astype("<u2", copy=False).tobytes(), 2 * codes.shape[1]
    noted: list[Noted] = []
    fresh: list[tuple[tuple[int, int], _Row]] = []
    conflicts = _conflicts(connection, known)
    for i, key in enumerate(keys):
        own = joined[i * size : (i + 1) * size]
        row = known.get(key)
        if row is None:
            row = known[key] = [None, own, outcome[i], bucket[i], facet[i], subject[i], None, False]
            fresh.append((key, row))
            noted.append(Noted.ADDED)
            continue
        result = outcome[i] if outcome[i] is not None else conflicts.get(row[_ID], row)[_OUTCOME]
        time = bucket[i]
        if rounding is not None and row[_ID] is not None:
            if own != row[_CODES] and rounding.same_codes(row[_ID], row[_CODES], own):
                own = row[_CODES]
            if time != row[_BUCKET] and rounding.same_time(row[_ID], row[_BUCKET], time):
                time = row[_BUCKET]
        values = [own, result, time, facet[i], subject[i]]
        before = row[_CODES : _SUBJECT + 1]
        if values == before:
            conflicts.pop(row[_ID], None)
            noted.append(Noted.DUPLICATE)
        elif row[_PACKET] is not None:
            conflicts[row[_ID]] = [row[_ID], *values, row[_PACKET], True]
            noted.append(Noted.CONFLICT)
        else:
            waited = row[_OUTCOME] is None and result is not None
            row[_CODES : _SUBJECT + 1] = values
            row[_CHANGED] = True
            noted.append(Noted.CONFIRMED if waited else Noted.UPDATED)
    _write(connection, fresh, list(known.values()), conflicts)
    return noted


def confirm_rows(connection: sqlite3.Connection, keys: list[tuple[int, int]], outcome: list[float]) -> list[Noted]:
    """Bring the outcomes of known cases; see ``Journal.confirm``."""
    known = _known(connection, keys)
    noted: list[Noted] = []
    conflicts = _conflicts(connection, known)
    for key, value in zip(keys, outcome, strict=True):
        row = known.get(key)
        if row is None:
            noted.append(Noted.UNKNOWN)
            continue
        values = [*conflicts.get(row[_ID], row)[:_CHANGED]]
        values[_OUTCOME] = value
        if values == row[:_CHANGED]:
            noted.append(Noted.DUPLICATE)
            conflicts.pop(row[_ID], None)
        elif row[_PACKET] is not None:
            noted.append(Noted.CONFLICT)
            conflicts[row[_ID]] = values
        else:
            noted.append(Noted.CONFIRMED if row[_OUTCOME] is None else Noted.UPDATED)
            row[_OUTCOME], row[_CHANGED] = value, True
    _write(connection, [], list(known.values()), conflicts)
    return noted


def _known(connection: sqlite3.Connection, keys: list[tuple[int, int]]) -> dict[tuple[int, int], _Row]:
    marks = ", ".join("?" * len(keys))
    found = connection.execute(
        "SELECT case_high, case_low, id, codes, outcome, bucket, facet, subject, packet"
        f" FROM observations WHERE case_high IN ({marks})",
        [high for high, _ in keys],
    )
    return {(row[0], row[1]): [*row[2:], False] for row in found}


def _conflicts(connection: sqlite3.Connection, known: dict[tuple[int, int], _Row]) -> dict[int, _Row]:
    """What is kept aside for these rows already: the newest that is known of them."""
    if not scalar(connection, "SELECT count(*) FROM conflicts"):
        return {}
    rows = connection.execute(
        "SELECT id, codes, outcome, bucket, facet, subject, packet FROM conflicts"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (id_list([row[_ID] for row in known.values()]),),
    )
    return {row[0]: list(row) for row in rows}


def _write(
    connection: sqlite3.Connection,
    fresh: list[tuple[tuple[int, int], _Row]],
    rows: list[_Row],
    conflicts: dict[int, _Row],
) -> None:
    connection.executemany(
        "INSERT INTO observations (case_high, case_low, codes, outcome, bucket, facet, subject)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(*key, *row[_CODES : _SUBJECT + 1]) for key, row in fresh],
    )
    connection.executemany(
        "UPDATE observations SET codes = ?, outcome = ?, bucket = ?, facet = ?, subject = ? WHERE id = ?",
        [(*row[_CODES : _SUBJECT + 1], row[_ID]) for row in rows if row[_CHANGED] and row[_ID] is not None],
    )
    if scalar(connection, "SELECT count(*) FROM conflicts"):  # what agrees again is no conflict any more
        connection.executemany(
            "DELETE FROM conflicts WHERE id = ?", [(row[_ID],) for row in rows if row[_PACKET] is not None]
        )
    connection.executemany(
        "INSERT OR REPLACE INTO conflicts (id, codes, outcome, bucket, facet, subject, packet)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [row[:_CHANGED] for row in conflicts.values()],
    )
