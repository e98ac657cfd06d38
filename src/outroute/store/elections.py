"""What was said before an outcome was known, what it was scored on since, and what elections made of it.

A question that is remembered keeps what was said of it. When its outcome becomes known, question and outcome become a
*scored* row, in order; the state of the elections is kept beside them and written in the same commit. It follows from
these rows, so it can be made again from them when one is corrected or erased. What the bytes mean is not known here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.store.database import Database, scalar

__all__ = ["SCORED_LIMIT", "Elections", "Settled", "elections_layout", "forget_scored"]

SCORED_LIMIT = 20_000
"""Scored outcomes kept, the oldest go first; with a fade of .999 an outcome, those before weigh 2e-9."""

_CHUNK = 8192

_STATE = "trust"
_PINS = "pinned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What outcomes that became known did.

    Attributes:
        fresh: of questions that had waited for them, in order: what was said, and the outcome.
        corrected: an outcome that was scored before is another one now.
    """

    fresh: tuple[tuple[bytes, float], ...]
    corrected: bool


def elections_layout(connection: sqlite3.Connection) -> None:
    """Layout 2 to 3: what was said of questions, and what became of it. Questions asked before say nothing."""
    for statement in (
        "ALTER TABLE questions ADD COLUMN said BLOB",
        "CREATE TABLE scored (id INTEGER PRIMARY KEY, case_high INTEGER NOT NULL, case_low INTEGER NOT NULL,"
        " outcome REAL NOT NULL, said BLOB NOT NULL)",
        "CREATE INDEX by_scored ON scored (case_high)",
        "CREATE TABLE elections (name TEXT PRIMARY KEY, state BLOB NOT NULL, stale INTEGER NOT NULL)",
    ):
        connection.execute(statement)


def forget_scored(connection: sqlite3.Connection, case: tuple[int, int], rows: str) -> None:
    """Delete what was said of a case, and of the cases of some observations; the state is to be made again.

    Args:
        connection: inside a transaction, before the observations are deleted.
        case: hash of a case.
        rows: numbers of observations, as ``id_list`` gives them.
    """
    gone = connection.execute(
        "DELETE FROM scored WHERE (case_high = ? AND case_low = ?) OR id IN (SELECT s.id FROM scored AS s"
        " JOIN observations AS o ON o.case_high = s.case_high AND o.case_low = s.case_low"
        " WHERE o.id IN (SELECT value FROM json_each(?)))",
        (*case, rows),
    ).rowcount
    if gone:
        connection.execute("UPDATE elections SET stale = 1 WHERE name = ?", (_STATE,))


class Elections:
    """Scored questions and the state of elections; a part of ``Journal``.

    Args:
        database: the journal's.
        keys: hashes of cases.
    """

    def __init__(self, database: Database, keys: Callable[[Sequence[object]], list[tuple[int, int]]]) -> None:
        self._database, self._keys = database, keys

    def state(self) -> tuple[bytes | None, bool]:
        """The state as it was kept, if any; and whether it is stale: to be made again from ``scored``."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT state, stale FROM elections WHERE name = ?", (_STATE,)).fetchone()
        return (None, False) if row is None else (row[0], bool(row[1]))

    def keep(self, state: bytes) -> None:
        """Keep the state, with whatever else the running transaction changes."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO elections VALUES (?, ?, 0)", (_STATE, state))

    def pins(self) -> bytes | None:
        """What the operator pinned, as it was kept."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT state FROM elections WHERE name = ?", (_PINS,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_pins(self, pins: bytes) -> None:
        """Keep what the operator pinned, with whatever else the running transaction changes."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO elections VALUES (?, ?, 0)", (_PINS, pins))

    def decided(self, case: object) -> bool:
        """Whether the outcome of a case is known here: then nothing said of it now may be scored."""
        high, low = self._keys([case])[0]
        with self._database.reading() as connection:
            found = scalar(
                connection,
                "SELECT count(*) FROM observations WHERE case_high = ? AND case_low = ? AND outcome IS NOT NULL",
                high,
                low,
            )
        return found > 0

    def settle(self, cases: Sequence[object] | NDArray[Any], outcome: NDArray[np.float64]) -> Settled:
        """Outcomes became known: remembered questions about these cases are scored, and remembered no longer.

        Args:
            cases: n ids.
            outcome: float64[n], NaN where it is not known yet.
        """
        fresh: list[tuple[bytes, float]] = []
        corrected = False
        known = np.flatnonzero(~np.isnan(outcome)).tolist()
        ids: Sequence[object] = cases.tolist() if isinstance(cases, np.ndarray) else cases
        with self._database.transaction() as connection:
            if not scalar(connection, "SELECT EXISTS (SELECT 1 FROM questions) OR EXISTS (SELECT 1 FROM scored)"):
                return Settled(fresh=(), corrected=False)
            for start in range(0, len(known), _CHUNK):
                part = known[start : start + _CHUNK]
                keys = self._keys([ids[i] for i in part])
                open_, scored = _found(connection, "questions", keys), _found(connection, "scored", keys)
                for key, value in zip(keys, outcome[part].tolist(), strict=True):
                    if key in scored:
                        number, before = scored[key]
                        corrected |= before != value
                        scored[key] = (number, value)
                        connection.execute("UPDATE scored SET outcome = ? WHERE id = ?", (value, number))
                    if key not in open_:
                        continue
                    number, said = open_.pop(key)
                    connection.execute("DELETE FROM questions WHERE id = ?", (number,))
                    if said is not None and key not in scored:
                        fresh.append((said, value))
                        made = connection.execute(
                            "INSERT INTO scored (case_high, case_low, outcome, said) VALUES (?, ?, ?, ?)",
                            (*key, value, said),
                        )
                        scored[key] = (int(made.lastrowid or 0), value)
            connection.execute("DELETE FROM scored WHERE id <= (SELECT max(id) FROM scored) - ?", (SCORED_LIMIT,))
        return Settled(fresh=tuple(fresh), corrected=corrected)

    def scored(self) -> Iterator[tuple[bytes, float]]:
        """What was said and what came true, in the order in which outcomes became known."""
        after = 0
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    "SELECT id, said, outcome FROM scored WHERE id > ? ORDER BY id LIMIT ?", (after, _CHUNK)
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield from ((said, outcome) for _, said, outcome in rows)


_Rows = dict[tuple[int, int], tuple[int, Any]]


def _found(connection: sqlite3.Connection, table: str, keys: list[tuple[int, int]]) -> _Rows:
    """Number and value (what was said of a question, the outcome of a scored one) of the rows of some cases."""
    value = "said" if table == "questions" else "outcome"
    rows = connection.execute(
        f"SELECT case_high, case_low, id, {value} FROM {table} WHERE case_high IN ({', '.join('?' * len(keys))})",
        [high for high, _ in keys],
    )
    return {(high, low): (number, found) for high, low, number, found in rows}
