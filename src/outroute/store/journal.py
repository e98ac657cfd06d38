"""The node's own state: its observations, what waits for an outcome, what was asked, what left.

Case and subject ids never reach the disk: what is kept is a hash under a secret of this directory, so that
the file does not name a patient, and so that the same export read twice counts once.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.store.database import Database, scalar
from outroute.store.observed import Noted, Observed, Question, Which, journal_layout
from outroute.store.outbox import Outbox

__all__ = ["Journal", "Noted", "Observed", "Question", "Which"]

#: Rows looked up by one statement; engines allow 32,766 parameters by default.
_CHUNK = 8192

#: Questions kept for a later confirm; the oldest go first. At some kB each: below 100 MB.
QUESTION_LIMIT = 20_000

_APPLICATION = 0x6F726A6C  # "orjl"

#: A row on its way: id (None: new), codes, outcome (None: waits), bucket, facet, subject, packet, changed.
_Row = list[Any]
_ID, _CODES, _OUTCOME, _BUCKET, _FACET, _SUBJECT, _PACKET, _CHANGED = range(8)


class Journal:
    """The durable state of one node under one schema.

    Args:
        directory: where to keep it; ``None`` keeps it in memory only.
        schema_id: 32 bytes; a journal serves one schema.
        width: D, how many slots the schema's conditions have.
        now: seconds since 1970; marks a new incarnation of the sequence counter.
        restored: say so when the directory comes from a backup or a snapshot: sequence numbers then go on
            in a new incarnation (a plain copy of the directory is noticed without).

    Raises:
        StoreError: ``store.schema``, the directory belongs to another schema; or see ``Database``.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        schema_id: bytes,
        width: int,
        now: int,
        restored: bool = False,
        page_limit: int | None = None,
    ) -> None:
        self._width = width
        self._database = Database(
            None if directory is None else Path(directory) / "journal.db",
            application=_APPLICATION,
            migrations=(journal_layout,),
            page_limit=page_limit,
        )
        try:
            with self._database.transaction() as connection:
                meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
                if not meta:
                    meta = {"schema": schema_id, "secret": secrets.token_bytes(32)}
                    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            if meta["schema"] != schema_id:
                raise StoreError(
                    f"{directory} belongs to another schema: use one directory per schema", code="store.schema"
                )
            self._secret: bytes = meta["secret"]
            self.outbox = Outbox(self._database, now=now, restored=restored)
        except BaseException:
            self._database.close()
            raise

    def observe(
        self,
        cases: Sequence[object] | NDArray[Any],
        codes: NDArray[np.uint16],
        outcome: NDArray[np.float64],
        *,
        bucket: NDArray[np.int64],
        facet: NDArray[np.int64] | None = None,
        subjects: Sequence[object] | NDArray[Any] | None = None,
    ) -> NDArray[np.uint8]:
        """Note a batch, in one durable commit; the same batch again changes nothing.

        Args:
            cases: n ids of cases: text or whole numbers.
            codes: uint16[n, D].
            outcome: float64[n], NaN where it is not known yet. An outcome once known is not taken back by a
                later NaN.
            bucket: int64[n], start of the time bucket.
            facet: int64[n]; zeros by default.
            subjects: n ids of subjects; by default each case is a subject of its own.

        Returns:
            uint8[n]: a ``Noted`` per row, as if they had come one after the other.

        Raises:
            StoreError: shapes differ (``store.type``), disk full, ...; nothing of the batch is kept.
        """
        count = len(cases)
        if codes.shape != (count, self._width) or codes.dtype != np.uint16:
            raise StoreError(f"codes come as uint16[{count}, {self._width}]", code="store.type")
        facet = np.zeros(count, dtype=np.int64) if facet is None else facet
        if any(len(column) != count for column in (outcome, bucket, facet, *([] if subjects is None else [subjects]))):
            raise StoreError("all columns must be as long as the cases", code="store.type")
        noted = np.empty(count, dtype=np.uint8)
        with self._database.transaction() as connection:
            for start in range(0, count, _CHUNK):
                part = slice(start, start + _CHUNK)
                keys = self._hashes(cases[part], b"case")
                owners = keys[:, 0] if subjects is None else self._hashes(subjects[part], b"subject")[:, 0]
                noted[part] = self._observe_chunk(
                    connection,
                    [(int(high), int(low)) for high, low in keys.tolist()],
                    codes[part],
                    _optional(outcome[part]),
                    np.asarray(bucket[part], dtype=np.int64).tolist(),
                    np.asarray(facet[part], dtype=np.int64).tolist(),
                    owners.tolist(),
                )
        return noted

    def _observe_chunk(
        self,
        connection: sqlite3.Connection,
        keys: list[tuple[int, int]],
        codes: NDArray[np.uint16],
        outcome: list[float | None],
        bucket: list[int],
        facet: list[int],
        subject: list[int],
    ) -> list[Noted]:
        known = self._known(connection, keys)
        joined, size = codes.astype("<u2", copy=False).tobytes(), 2 * self._width
        noted: list[Noted] = []
        fresh: list[tuple[tuple[int, int], _Row]] = []
        conflicts: dict[int, _Row] = {}
        for i, key in enumerate(keys):
            own = joined[i * size : (i + 1) * size]
            row = known.get(key)
            if row is None:
                row = known[key] = [None, own, outcome[i], bucket[i], facet[i], subject[i], None, False]
                fresh.append((key, row))
                noted.append(Noted.ADDED)
                continue
            result = outcome[i] if outcome[i] is not None else row[_OUTCOME]
            values = [own, result, bucket[i], facet[i], subject[i]]
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
        self._write(connection, fresh, list(known.values()), conflicts)
        return noted

    def confirm(self, cases: Sequence[object] | NDArray[Any], outcome: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Bring the outcomes of cases observed before, in one durable commit.

        Args:
            cases: n ids.
            outcome: float64[n], none of them NaN.

        Returns:
            uint8[n]: a ``Noted`` per case; UNKNOWN where it was never observed (see ``question``).
        """
        if len(cases) != len(outcome) or bool(np.isnan(outcome).any()):
            raise StoreError("confirm takes one known outcome per case", code="store.type")
        noted = np.empty(len(cases), dtype=np.uint8)
        with self._database.transaction() as connection:
            for start in range(0, len(cases), _CHUNK):
                part = slice(start, start + _CHUNK)
                keys = [(int(high), int(low)) for high, low in self._hashes(cases[part], b"case").tolist()]
                known = self._known(connection, keys)
                conflicts: dict[int, _Row] = {}
                for i, (key, value) in enumerate(zip(keys, outcome[part].tolist(), strict=True), start):
                    row = known.get(key)
                    if row is None:
                        noted[i] = Noted.UNKNOWN
                    elif row[_OUTCOME] == value:
                        noted[i] = Noted.DUPLICATE
                        conflicts.pop(row[_ID], None)
                    elif row[_PACKET] is not None:
                        noted[i] = Noted.CONFLICT
                        conflicts[row[_ID]] = [*row[:_OUTCOME], value, *row[_OUTCOME + 1 :]]
                    else:
                        noted[i] = Noted.CONFIRMED if row[_OUTCOME] is None else Noted.UPDATED
                        row[_OUTCOME], row[_CHANGED] = value, True
                self._write(connection, [], list(known.values()), conflicts)
        return noted

    def _known(self, connection: sqlite3.Connection, keys: list[tuple[int, int]]) -> dict[tuple[int, int], _Row]:
        marks = ", ".join("?" * len(keys))
        found = connection.execute(
            "SELECT case_high, case_low, id, codes, outcome, bucket, facet, subject, packet"
            f" FROM observations WHERE case_high IN ({marks})",
            [high for high, _ in keys],
        )
        return {(row[0], row[1]): [*row[2:], False] for row in found}

    def _write(
        self,
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

    def observations(self, which: Which = Which.KNOWN, *, after: int = 0, limit: int | None = None) -> Observed:
        """Observations in order of arrival.

        Args:
            which: which ones.
            after: only rows with a higher number, for reading in parts.
            limit: at most so many.
        """
        return self._observed(
            "SELECT id, subject, bucket, facet, outcome, packet, codes FROM observations"
            f" WHERE {which.value} AND id > ? ORDER BY id LIMIT ?",
            (after, -1 if limit is None else limit),
        )

    def conflicts(self) -> Observed:
        """What came in for observations after they had left in a packet; the old values are in ``packet``."""
        return self._observed(
            "SELECT id, subject, bucket, facet, outcome, packet, codes FROM conflicts ORDER BY id", ()
        )

    def _observed(self, query: str, values: tuple[int, ...]) -> Observed:
        with self._database.reading() as connection:
            rows = connection.execute(query, values).fetchall()
        whole = np.array([row[:4] for row in rows], dtype=np.int64).reshape(-1, 4)
        outcome = [np.nan if row[4] is None else row[4] for row in rows]
        codes = np.frombuffer(b"".join(row[6] for row in rows), dtype="<u2").astype(np.uint16)
        return Observed(
            rows=whole[:, 0],
            codes=codes.reshape(-1, self._width),
            outcome=np.array(outcome, dtype=np.float64),
            subject=whole[:, 1],
            bucket=whole[:, 2],
            facet=whole[:, 3],
            packet=np.array([-1 if row[5] is None else row[5] for row in rows], dtype=np.int64),
        )

    def counts(self) -> dict[str, int]:
        """How many observations are known, ready, waiting and in conflict, and how many questions are open."""
        with self._database.reading() as connection:
            found = {
                which.name.lower(): scalar(connection, f"SELECT count(*) FROM observations WHERE {which.value}")
                for which in Which
            }
            found["conflicts"] = scalar(connection, "SELECT count(*) FROM conflicts")
            found["questions"] = scalar(connection, "SELECT count(*) FROM questions")
        return found

    def ask(self, case: object, payload: bytes, *, now: int) -> None:
        """Remember a question until its outcome is known; the same case again replaces it."""
        high, low = self._hashes([case], b"case")[0].tolist()
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM questions WHERE case_high = ? AND case_low = ?", (high, low))
            connection.execute(
                "INSERT INTO questions (case_high, case_low, asked, payload) VALUES (?, ?, ?, ?)",
                (high, low, now, payload),
            )
            connection.execute(
                "DELETE FROM questions WHERE id <= (SELECT max(id) FROM questions) - ?", (QUESTION_LIMIT,)
            )

    def question(self, case: object, *, forget: bool = False) -> Question | None:
        """What was asked about a case, or ``None``; ``forget`` it when its outcome has been used."""
        high, low = self._hashes([case], b"case")[0].tolist()
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT asked, payload FROM questions WHERE case_high = ? AND case_low = ?", (high, low)
            ).fetchone()
            if forget:
                connection.execute("DELETE FROM questions WHERE case_high = ? AND case_low = ?", (high, low))
        return None if row is None else Question(asked=row[0], payload=row[1])

    def close(self) -> None:
        """Close the file and free the directory; harmless when repeated."""
        self._database.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hashes(self, ids: Sequence[object] | NDArray[Any], purpose: bytes) -> NDArray[np.int64]:
        """int64[n, 2] per id: a hash under this directory's secret."""
        key = self._secret
        digests = [
            hashlib.blake2b(_text(value), digest_size=16, key=key, person=purpose).digest()
            for value in (ids.tolist() if isinstance(ids, np.ndarray) else ids)
        ]
        return np.frombuffer(b"".join(digests), dtype="<i8").reshape(-1, 2)


def _text(value: object) -> bytes:
    """An id as bytes. 7, 7.0 and "7" are one id: a column with gaps is read as floating point."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).encode()


def _optional(values: NDArray[np.float64]) -> list[float | None]:
    return [None if value != value else value for value in np.asarray(values, dtype=np.float64).tolist()]
