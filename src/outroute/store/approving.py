"""Reviewing, approving and rejecting what waits in the outbox: exactly the bytes that were looked at leave, or none.

Functions on a connection inside a running transaction; ``Outbox`` is the way in.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.store.log import Event, append_entry
from outroute.store.outgoing import Approved, Review, State, id_list, operator_text, prefix_range
from outroute.store.withdrawing import free

__all__ = ["approve", "approve_ids", "reject", "review"]

REVIEWS_KEPT = 1000
"""Reviews whose digests can still be approved; the oldest are forgotten, and are made again by looking again."""

REVIEWED_PACKETS_KEPT = 4_000_000
"""Packets in all reviews kept, at 8 bytes each: 32 MB."""

#: Packets read at a time: 2 MB.
_CHUNK = 4096


def review(connection: sqlite3.Connection, ids: NDArray[np.int64] | None, *, now: int) -> Review:
    """See ``Outbox.review``."""
    if ids is None:
        rows = connection.execute("SELECT id FROM outbox WHERE state = ? ORDER BY id", (State.PENDING,)).fetchall()
        chosen = np.array([row[0] for row in rows], dtype=np.int64)
    else:
        chosen = np.unique(np.asarray(ids, dtype=np.int64))
    if not len(chosen):
        raise StoreError("nothing waits for approval: distil first", code="outbox.empty")
    _all_pending(connection, chosen)
    digest, _ = _digest(connection, chosen)
    if connection.execute("SELECT 1 FROM reviews WHERE digest = ?", (digest,)).fetchone() is None:
        append_entry(connection, Event.REVIEWED, now=now, digest=digest, packets=len(chosen))
    connection.execute("DELETE FROM reviews WHERE digest = ?", (digest,))
    connection.execute(
        "INSERT INTO reviews (digest, packets, rows) VALUES (?, ?, ?)",
        (digest, len(chosen), chosen.astype("<i8").tobytes()),
    )
    connection.execute(
        "DELETE FROM reviews WHERE id IN (SELECT id FROM (SELECT id, sum(packets) OVER newest AS total,"
        " row_number() OVER newest AS place FROM reviews WINDOW newest AS (ORDER BY id DESC))"
        " WHERE place > 1 AND (place > ? OR total > ?))",
        (REVIEWS_KEPT, REVIEWED_PACKETS_KEPT),
    )
    return Review(digest=digest, ids=chosen)


def approve(
    connection: sqlite3.Connection, digest: str, *, by: str, now: int, limit_ids: NDArray[np.int64] | None = None
) -> Approved:
    """See ``Outbox.approve``."""
    full, ids = _named(connection, digest)
    _all_pending(connection, ids)
    if _digest(connection, ids)[0] != full:
        raise StoreError(
            f"the packets of {full.hex()[:16]} are not the bytes that were reviewed: the file was changed; restore a "
            "backup, or reject them and distil again",
            code="outbox.digest",
        )
    if limit_ids is not None:
        ids = ids[np.isin(ids, limit_ids)]
    return _approve(connection, ids, full, by=by, now=now)


def approve_ids(connection: sqlite3.Connection, ids: NDArray[np.int64], *, by: str, now: int) -> Approved:
    """See ``Outbox.approve_ids``."""
    chosen = np.unique(np.asarray(ids, dtype=np.int64))
    _all_pending(connection, chosen)
    digest, sound = _digest(connection, chosen)
    if not sound:
        raise StoreError(
            "a packet is not the bytes that were made: the file was changed; restore a backup, or reject what waits "
            "and distil again",
            code="outbox.digest",
        )
    return _approve(connection, chosen, digest, by=by, now=now)


def reject(connection: sqlite3.Connection, digest: str, *, by: str, now: int, again: bool) -> Approved:
    """See ``Outbox.reject``."""
    by = operator_text(by, "who rejects")
    full, ids = _named(connection, digest)
    states = _states(connection, ids)
    if again and set(states) == {State.REJECTED}:
        connection.execute(
            "UPDATE observations SET excluded = NULL WHERE excluded IN (SELECT value FROM json_each(?))",
            (id_list(ids),),
        )
    else:
        _all_pending(connection, ids)
        free(connection, ids, exclude=not again)
        _set_state(connection, ids, State.REJECTED)
    append_entry(
        connection,
        Event.REJECTED,
        now=now,
        by=by,
        digest=full,
        packets=len(ids),
        again=int(again),
        identities=_identities(connection, ids),
    )
    return Approved(ids=ids, digest=full)


def _approve(connection: sqlite3.Connection, ids: NDArray[np.int64], digest: bytes, *, by: str, now: int) -> Approved:
    by = operator_text(by, "who approves")
    if len(ids):
        _set_state(connection, ids, State.QUEUED)
        connection.execute(
            "UPDATE observations SET emitted = 1 WHERE packet IN (SELECT value FROM json_each(?))", (id_list(ids),)
        )
        append_entry(
            connection,
            Event.APPROVED,
            now=now,
            by=by,
            digest=digest,
            packets=len(ids),
            identities=_identities(connection, ids),
        )
    return Approved(ids=ids, digest=digest)


def _named(connection: sqlite3.Connection, digest: str) -> tuple[bytes, NDArray[np.int64]]:
    """The one review or packet whose digest begins so: its digest in full, and its packets.

    Raises:
        StoreError: ``outbox.digest``.
    """
    low, high = prefix_range(digest)
    found: dict[bytes, NDArray[np.int64]] = {}
    for full, number in connection.execute(
        "SELECT digest, id FROM outbox WHERE digest BETWEEN ? AND ? AND kind = 0 LIMIT 2", (low, high)
    ):
        found[full] = np.array([number], dtype=np.int64)
    for full, rows in connection.execute(
        "SELECT digest, rows FROM reviews WHERE digest BETWEEN ? AND ? LIMIT 2", (low, high)
    ):
        found[full] = np.frombuffer(rows, dtype="<i8").astype(np.int64)
    if not found:
        raise StoreError(
            f"no packet and no review has the digest {digest[:70]}: take the one that outroute outbox show prints, or "
            "review again",
            code="outbox.digest",
        )
    if len(found) > 1:
        raise StoreError(f"several digests begin with {digest[:70]}: give more digits", code="outbox.digest")
    return found.popitem()


def _states(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> list[int]:
    """The states that occur.

    Raises:
        StoreError: ``outbox.unknown``, a number that is not in the outbox.
    """
    rows = connection.execute(
        "SELECT state, count(*) FROM outbox WHERE id IN (SELECT value FROM json_each(?)) GROUP BY state",
        (id_list(ids),),
    ).fetchall()
    missing = len(ids) - sum(row[1] for row in rows)
    if missing:
        raise StoreError(f"{missing:,} of these numbers are not in the outbox", code="outbox.unknown")
    return [row[0] for row in rows]


def _all_pending(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> None:
    """Raises ``outbox.digest`` when one of the packets waits for approval no longer."""
    if set(_states(connection, ids)) <= {State.PENDING}:
        return
    other = connection.execute(
        "SELECT identity, state FROM outbox WHERE id IN (SELECT value FROM json_each(?)) AND state <> ? ORDER BY id",
        (id_list(ids), State.PENDING),
    ).fetchall()
    named = ", ".join(f"{row[0].hex()[:16]} ({State(row[1]).name.lower()})" for row in other[:3])
    more = f" and {len(other) - 3:,} more" if len(other) > 3 else ""
    raise StoreError(
        f"no longer waiting for approval: packet {named}{more}; review again what still waits (outroute outbox show)",
        code="outbox.digest",
    )


def _digest(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> tuple[bytes, bool]:
    """SHA-256 over the stored bytes, and whether each packet has the digest with which it was made."""
    whole, sound = hashlib.sha256(), True
    for body, digest in _bodies(connection, ids):
        whole.update(body)
        sound = sound and hashlib.sha256(body).digest() == digest
    return whole.digest(), sound


def _bodies(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> Iterator[tuple[bytes, bytes]]:
    for start in range(0, len(ids), _CHUNK):
        yield from connection.execute(
            "SELECT body, digest FROM outbox WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (id_list(ids[start : start + _CHUNK]),),
        )


def _identities(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> list[bytes]:
    rows = connection.execute(
        "SELECT identity FROM outbox WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (id_list(ids),)
    )
    return [row[0] for row in rows]


def _set_state(connection: sqlite3.Connection, ids: NDArray[np.int64], state: State) -> None:
    connection.execute(
        "UPDATE outbox SET state = ? WHERE id IN (SELECT value FROM json_each(?))", (int(state), id_list(ids))
    )
