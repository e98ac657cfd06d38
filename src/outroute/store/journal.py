"""The node's own state: its observations, what waits for an outcome, what was asked, what left.

Case and subject ids never reach the disk: what is kept is a hash under a secret of this directory, so that
the file does not name a patient, and so that the same export read twice counts once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PacketArray
from outroute.store import erasing
from outroute.store.budget import Budget, budget_layout
from outroute.store.database import Database, scalar
from outroute.store.elections import Elections, elections_layout
from outroute.store.log import AuditLog, Event
from outroute.store.noting import confirm_rows, observe_rows
from outroute.store.observed import Noted, Observed, Question, Which, journal_layout
from outroute.store.outbox import Outbox
from outroute.store.outgoing import Erased, Withdrawn, approvals_layout
from outroute.store.rounding import Rounding
from outroute.store.withdrawing import withdraw

__all__ = ["Journal", "Noted", "Observed", "Question", "Which"]

#: Rows looked up by one statement; engines allow 32,766 parameters by default.
_CHUNK = 8192

#: Questions kept for a later confirm; the oldest go first. At some kB each: below 100 MB.
QUESTION_LIMIT = 20_000

_APPLICATION = 0x6F726A6C  # "orjl"


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
            migrations=(journal_layout, partial(approvals_layout, now=now), elections_layout, budget_layout),
            page_limit=page_limit,
            overwrite=True,
        )
        try:
            with self._database.transaction() as connection:
                meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
                if "schema" not in meta:
                    meta = {"schema": schema_id, "secret": secrets.token_bytes(32)}
                    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            if meta["schema"] != schema_id:
                raise StoreError(
                    f"{directory} belongs to another schema: use one directory per schema", code="store.schema"
                )
            self._secret: bytes = meta["secret"]
            self.rounding = Rounding.from_bytes(meta["rounding"]) if "rounding" in meta else None
            """How far rows may lie beside what they are, where they were carried over from another schema."""
            self.log = AuditLog(self._database)
            self.outbox = Outbox(self._database, now=now, restored=restored)
            self.budget = Budget(self._database, copied=self.outbox.copied)
            """What was spent of the privacy that the schema promises, where it does."""
            self.elections = Elections(self._database, self._keys)
            """What was said before outcomes were known, and what elections made of it."""
        except BaseException:
            self._database.close()
            raise

    def derived(self, label: bytes) -> bytes:
        """A secret of this directory for one purpose, 32 bytes, the same for as long as the directory lives."""
        return hmac.new(self._secret, label, hashlib.sha256).digest()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Changes made inside are kept or lost together, in one durable commit."""
        with self._database.transaction():
            yield

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
                noted[part] = observe_rows(
                    connection,
                    [(int(high), int(low)) for high, low in keys.tolist()],
                    codes[part],
                    _optional(outcome[part]),
                    np.asarray(bucket[part], dtype=np.int64).tolist(),
                    np.asarray(facet[part], dtype=np.int64).tolist(),
                    owners.tolist(),
                    self.rounding,
                )
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
                noted[part] = confirm_rows(connection, self._keys(cases[part]), outcome[part].tolist())
        return noted

    def observations(self, which: Which = Which.KNOWN, *, after: int = 0, limit: int | None = None) -> Observed:
        """Observations in order of arrival.

        Args:
            which: which ones.
            after: only rows with a higher number, for reading in parts.
            limit: at most so many.
        """
        return self._observed(
            "SELECT id, subject, bucket, facet, outcome, packet, codes, emitted FROM observations"
            f" WHERE {which.value} AND id > ? ORDER BY id LIMIT ?",
            (after, -1 if limit is None else limit),
        )

    def conflicts(self) -> Observed:
        """What came in for observations after they had left in a packet; the old values are in ``packet``."""
        return self._observed(
            "SELECT c.id, c.subject, c.bucket, c.facet, c.outcome, c.packet, c.codes, o.emitted FROM conflicts AS c"
            " JOIN observations AS o ON o.id = c.id ORDER BY c.id",
            (),
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
            emitted=np.array([row[7] for row in rows], dtype=np.bool_),
        )

    def dated(self, cases: Sequence[object] | NDArray[Any], bucket: int) -> NDArray[np.int64]:
        """The time bucket of each case as it is known, ``bucket`` for new ones; int64 ``[n]``.

        A table that does not say when its cases were observed is read again tomorrow: that must not make every case
        a changed one.
        """
        out = np.full(len(cases), bucket, dtype=np.int64)
        with self._database.reading() as connection:
            for start in range(0, len(cases), _CHUNK):
                hashes = self._hashes(cases[start : start + _CHUNK], b"case").tolist()
                marks = ", ".join("?" * len(hashes))
                rows = connection.execute(
                    f"SELECT case_high, case_low, bucket FROM observations WHERE case_high IN ({marks})",
                    [high for high, _ in hashes],
                )
                known = {(high, low): found for high, low, found in rows}
                for i, (high, low) in enumerate(hashes, start):
                    out[i] = known.get((high, low), bucket)
        return out

    def set_aside(
        self, rows: NDArray[np.int64], *, now: int, by: str, digest: bytes, recipients: Sequence[str]
    ) -> None:
        """Note that observations left as shares (``outroute.node.sharing``): they go into no packet any more.

        Args:
            rows: int64[n], their numbers, all of them ready.
            now: seconds since 1970.
            by: who approved it.
            digest: of the bytes that leave.
            recipients: who gets them.

        Raises:
            StoreError: ``store.twice``, one of them is in a packet already, or was set aside; nothing is changed.
        """
        with self._database.transaction() as connection:
            done = connection.executemany(
                # Numbers in the outbox begin at 1; 0 stands for what left as shares, and cannot be taken back.
                f"UPDATE observations SET excluded = 0, emitted = 1 WHERE id = ? AND {Which.READY.value}",
                [(row,) for row in rows.tolist()],
            ).rowcount
            if done != len(rows):
                raise StoreError(
                    f"{len(rows) - done} observations are in a packet already: run the command again",
                    code="store.twice",
                )
            self.log.append(
                Event.SHARED, now=now, by=by, observations=len(rows), digest=digest, recipients=list(recipients)
            )

    # taking back --------------------------------------------------------------------------------------------

    def case_packets(self, case: object) -> NDArray[np.int64]:
        """Number of the packet in the outbox that holds a case: one, or none."""
        with self._database.reading() as connection:
            return erasing.case_packets(connection, self._case(case))

    def time_packets(self, since: int, until: int) -> NDArray[np.int64]:
        """Numbers of the packets with an observation whose time bucket starts at ``since`` or later, before ``until``.

        Args:
            since, until: seconds since 1970; round ``since`` down to the start of a bucket to include all of it.
        """
        with self._database.reading() as connection:
            return erasing.time_packets(connection, since, until)

    def subject_packets(self, subject: object) -> NDArray[np.int64]:
        """Numbers of the packets in force, or pending, with an observation of a subject."""
        with self._database.reading() as connection:
            return erasing.subject_packets(connection, self._subjects(subject))

    def subject_numbers(self, subject: object) -> list[int]:
        """What observations may call a subject: by its own id, and by its case's where each case is a subject."""
        return self._subjects(subject)

    def erase(
        self,
        subject: object,
        ids: NDArray[np.int64],
        withdrawals: PacketArray,
        *,
        by: str,
        now: int,
        noisy: bool = False,
    ) -> Erased:
        """Erase a subject in one commit: withdraw its packets, and delete what is here for good.

        Its observations, what was kept aside for a correction, and remembered questions about its cases are deleted; of
        its packets only the slot and the identity stay. The other observations of these packets are free again.

        Args:
            subject: its id.
            ids: int64[n], all of ``subject_packets(subject)``.
            withdrawals: PACKET_DTYPE[n], signed, of each of them; one for a pending packet is not used.
            by: who, for the log.
            now: seconds since 1970.
            noisy: its packets hold counts with noise: none is withdrawn, and it gives nothing more.

        Raises:
            StoreError: ``store.erase``, these are not all its packets; or as ``Outbox.withdraw``. Nothing is changed.
        """
        with self._database.transaction() as connection:
            done = erasing.erase(
                connection, self._subjects(subject), self._case(subject), ids, withdrawals, by=by, now=now, noisy=noisy
            )
        self._database.settle()
        return done

    def correct(
        self,
        ids: NDArray[np.int64],
        withdrawals: PacketArray,
        *,
        by: str,
        now: int,
        reason: str = "a correction",
    ) -> Withdrawn:
        """Withdraw packets with observations that changed later (``conflicts``); the new values replace the old.

        Args:
            ids, withdrawals, by, now, reason: as for ``Outbox.withdraw``.
        """
        with self._database.transaction() as connection:
            return withdraw(connection, ids, withdrawals, by=by, reason=reason, now=now, event=Event.CORRECTED)

    def leave_out(self, rows: NDArray[np.int64]) -> None:
        """Leave observations out of distilling for good."""
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE observations SET excluded = 0 WHERE id = ?", [(one,) for one in rows.tolist()]
            )

    def amend(self, *, by: str, now: int, reason: str) -> int:
        """Let new values of observations that left replace the old here, and withdraw nothing; how many there were.

        For packets that hold counts with noise: a correction would tell of a person.
        """
        with self._database.transaction() as connection:
            return erasing.amend(connection, by=by, now=now, reason=reason)

    def counts(self) -> dict[str, int]:
        """How many observations are known, ready, waiting, excluded, in conflict; how many questions are open."""
        with self._database.reading() as connection:
            found = {
                which.name.lower(): scalar(connection, f"SELECT count(*) FROM observations WHERE {which.value}")
                for which in Which
            }
            found["conflicts"] = scalar(connection, "SELECT count(*) FROM conflicts")
            found["questions"] = scalar(connection, "SELECT count(*) FROM questions")
        return found

    def ask(self, case: object, payload: bytes, *, now: int, said: bytes | None = None) -> None:
        """Remember a question until its outcome is known; the same case again replaces it.

        Args:
            case: its id.
            payload: what was asked.
            now: seconds since 1970.
            said: what was said of it, to be scored on the outcome.
        """
        high, low = self._case(case)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM questions WHERE case_high = ? AND case_low = ?", (high, low))
            connection.execute(
                "INSERT INTO questions (case_high, case_low, asked, payload, said) VALUES (?, ?, ?, ?, ?)",
                (high, low, now, payload, said),
            )
            connection.execute(
                "DELETE FROM questions WHERE id <= (SELECT max(id) FROM questions) - ?", (QUESTION_LIMIT,)
            )

    def question(self, case: object, *, forget: bool = False) -> Question | None:
        """What was asked about a case, or ``None``; ``forget`` it when its outcome has been used."""
        high, low = self._case(case)
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT asked, payload, said FROM questions WHERE case_high = ? AND case_low = ?", (high, low)
            ).fetchone()
            if forget:
                connection.execute("DELETE FROM questions WHERE case_high = ? AND case_low = ?", (high, low))
        return None if row is None else Question(asked=row[0], payload=row[1], said=row[2])

    def close(self) -> None:
        """Close the file and free the directory; harmless when repeated."""
        self._database.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _case(self, case: object) -> tuple[int, int]:
        return self._keys([case])[0]

    def _keys(self, cases: Sequence[object] | NDArray[Any]) -> list[tuple[int, int]]:
        """The hashes under which cases are known."""
        return [(int(high), int(low)) for high, low in self._hashes(cases, b"case").tolist()]

    def _subjects(self, subject: object) -> list[int]:
        """The hashes under which a subject may be known: its own, and its case's where each case is a subject."""
        return [int(self._hashes([subject], purpose)[0, 0]) for purpose in (b"subject", b"case")]

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
