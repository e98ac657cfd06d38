"""What left or waits to leave: packets, which observations each condenses, and the sequence counter."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, unique
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PACKET_DTYPE, PacketArray
from outroute.placement import ID_BYTES
from outroute.store.database import Database

__all__ = ["Outbox", "Queued", "State", "outbox_layout"]

#: The counter is the low half of a sequence number (bits).
_COUNTER_BITS = 32


@unique
class State(IntEnum):
    """How far a packet of the outbox has come."""

    #: Made, not sent yet.
    QUEUED = 0
    #: Sent, not acknowledged by enough holders: to be sent again.
    SENT = 1
    #: Enough holders keep it.
    ACKNOWLEDGED = 2
    #: The holders refused it for good (expired, malformed): not sent again.
    REFUSED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Packets of the outbox.

    Attributes:
        ids: int64[n], their numbers in the outbox.
        packets: PACKET_DTYPE[n].
        addresses: n addresses of 32 bytes.
    """

    ids: NDArray[np.int64]
    packets: PacketArray
    addresses: tuple[bytes, ...]


def outbox_layout(connection: sqlite3.Connection) -> None:
    """Create the tables of the outbox."""
    connection.execute(
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, address BLOB NOT NULL,"
        " secret BLOB, body BLOB NOT NULL)"
    )
    connection.execute("CREATE INDEX by_state ON outbox (state)")
    connection.execute("CREATE TABLE counter (incarnation INTEGER NOT NULL, next INTEGER NOT NULL, file TEXT NOT NULL)")


class Outbox:
    """The outbox of a journal; made by ``Journal``, not by hand."""

    def __init__(self, database: Database, *, now: int, restored: bool) -> None:
        self._database = database
        file = _file_mark(database.path)
        with database.transaction() as connection:
            row = connection.execute("SELECT incarnation, next, file FROM counter").fetchone()
            if row is None:
                connection.execute("INSERT INTO counter VALUES (?, 0, ?)", (_incarnation(0, now), file))
            elif restored or row[2] != file:
                # A copy of the directory may be older than what was sent: start a new incarnation.
                connection.execute(
                    "UPDATE counter SET incarnation = ?, next = 0, file = ?", (_incarnation(row[0], now), file)
                )

    def reserve(self, count: int) -> int:
        """Take ``count`` sequence numbers; the first of them. They are used up on disk before this returns.

        The high half is an incarnation, new when the directory was restored from a copy; the low half
        counts. Gaps (numbers taken and never used) are harmless.

        Raises:
            StoreError: the counter could not be written; do not send.
        """
        if not 0 < count < 1 << _COUNTER_BITS:
            raise StoreError("reserve at least one and below 2**32 sequence numbers", code="store.reserve")
        with self._database.transaction() as connection:
            incarnation, following = connection.execute("SELECT incarnation, next FROM counter").fetchone()
            if following + count > 1 << _COUNTER_BITS:
                incarnation, following = incarnation + 1, 0
            connection.execute("UPDATE counter SET incarnation = ?, next = ?", (incarnation, following + count))
        return (int(incarnation) << _COUNTER_BITS) + int(following)

    def add(
        self,
        packets: PacketArray,
        addresses: Sequence[bytes],
        members: Sequence[NDArray[np.int64]],
        *,
        secrets: Sequence[bytes] | None = None,
    ) -> NDArray[np.int64]:
        """Queue packets and note what each condenses, in one commit.

        Args:
            packets: PACKET_DTYPE[n], signed.
            addresses: where each goes.
            members: per packet the rows (``Observed.rows``) that it condenses; empty for a withdrawal.
            secrets: per packet the nonce of its commitment, kept so that an auditor can be answered.

        Returns:
            int64[n]: their numbers in the outbox.

        Raises:
            StoreError: ``store.twice``, a row is in a packet already or has no outcome yet; nothing is kept.
        """
        if packets.dtype != PACKET_DTYPE or not len(packets) == len(addresses) == len(members):
            raise StoreError("add takes PACKET_DTYPE[n], n addresses and n member lists", code="store.type")
        if any(len(address) != ID_BYTES for address in addresses):
            raise StoreError(f"each packet needs an address of {ID_BYTES} bytes", code="store.address")
        if secrets is not None and len(secrets) != len(packets):
            raise StoreError("give one secret per packet, or none", code="store.type")
        with self._database.transaction() as connection:
            first = int(connection.execute("SELECT max(id) FROM outbox").fetchone()[0] or 0) + 1
            ids = np.arange(first, first + len(packets), dtype=np.int64)
            joined, size = np.ascontiguousarray(packets).view(np.uint8).tobytes(), PACKET_DTYPE.itemsize
            connection.executemany(
                "INSERT INTO outbox VALUES (?, 0, ?, ?, ?)",
                [
                    (number, addresses[i], secrets[i] if secrets else None, joined[i * size : (i + 1) * size])
                    for i, number in enumerate(ids.tolist())
                ],
            )
            pairs = [
                (number, row)
                for number, rows in zip(ids.tolist(), members, strict=True)
                for row in np.asarray(rows).tolist()
            ]
            done = connection.executemany(
                "UPDATE observations SET packet = ? WHERE id = ? AND packet IS NULL AND outcome IS NOT NULL",
                pairs,
            ).rowcount
            if pairs and done != len(pairs):
                raise StoreError(
                    f"{len(pairs) - done} observations are in a packet already or have no outcome yet: "
                    "distil only what observations() gives as ready",
                    code="store.twice",
                )
        return ids

    def queued(self, *states: State, limit: int = 4096) -> Queued:
        """The oldest packets in any of these states (default: QUEUED and SENT, all that must still go)."""
        wanted = states or (State.QUEUED, State.SENT)
        marks = ", ".join("?" * len(wanted))
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT id, address, body FROM outbox WHERE state IN ({marks}) ORDER BY id LIMIT ?",
                (*wanted, limit),
            ).fetchall()
        return Queued(
            ids=np.array([row[0] for row in rows], dtype=np.int64),
            packets=np.frombuffer(b"".join(row[2] for row in rows), dtype=PACKET_DTYPE),
            addresses=tuple(row[1] for row in rows),
        )

    def mark(self, ids: NDArray[np.int64], state: State) -> None:
        """Note how far some packets have come, in one commit."""
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE outbox SET state = ? WHERE id = ?", [(state, number) for number in ids.tolist()]
            )

    def counts(self) -> dict[State, int]:
        """How many packets are in each state."""
        with self._database.reading() as connection:
            found = dict(connection.execute("SELECT state, count(*) FROM outbox GROUP BY state").fetchall())
        return {state: int(found.get(state, 0)) for state in State}

    def members(self, number: int) -> NDArray[np.int64]:
        """The rows that a packet condenses, rising."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id FROM observations WHERE packet = ? ORDER BY id", (number,)).fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    def secret(self, number: int) -> bytes | None:
        """The nonce of a packet's commitment, or ``None``."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT secret FROM outbox WHERE id = ?", (number,)).fetchone()
        return None if row is None else row[0]


def _incarnation(last: int, now: int) -> int:
    """A new incarnation: the clock, so that two restores of one backup differ; never one used before."""
    return max(last + 1, now % (1 << _COUNTER_BITS))


def _file_mark(path: Path | None) -> str:
    """What changes when a file is copied: device and inode. A snapshot of a whole disk keeps them."""
    if path is None:
        return ""
    found = os.stat(path)
    return f"{found.st_dev}:{found.st_ino}"
