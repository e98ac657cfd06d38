"""Taking packets back: a withdrawal for what may have left, and the observations are free again.

Functions on a connection inside a running transaction; ``Outbox`` and ``Journal`` are the way in.
"""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PACKET_DTYPE, Flag, PacketArray, slots
from outroute.store.log import Event, append_entry
from outroute.store.outgoing import (
    APPROVED_STATES,
    Kind,
    State,
    Withdrawn,
    hashes_of,
    id_list,
    operator_text,
    read_queued,
)

__all__ = ["blank", "free", "withdraw"]

#: What names the slot of an erased packet; all else becomes zero.
_SLOT_FIELDS = ("magic", "flags", "kind", "distiller", "schema", "author", "sequence", "bucket", "lifetime", "cell")


def withdraw(
    connection: sqlite3.Connection,
    ids: NDArray[np.int64],
    withdrawals: PacketArray,
    *,
    by: str,
    reason: str,
    now: int,
    event: Event = Event.WITHDRAWN,
) -> Withdrawn:
    """See ``Outbox.withdraw``; ``event`` says as what it is logged."""
    by, reason = operator_text(by, "who withdraws"), operator_text(reason, "the reason")
    wanted = np.asarray(ids, dtype=np.int64)
    order = np.argsort(wanted, kind="stable")
    if withdrawals.dtype != PACKET_DTYPE or len(withdrawals) != len(wanted) or len(np.unique(wanted)) != len(wanted):
        raise StoreError("withdraw takes n different numbers and PACKET_DTYPE[n]", code="store.type")
    found = read_queued(connection, "id IN (SELECT value FROM json_each(?))", (id_list(wanted),))
    if len(found) != len(wanted):
        raise StoreError(f"{len(wanted) - len(found):,} of these packets are not in the outbox", code="outbox.unknown")
    if (found.kinds != Kind.PACKET).any():
        raise StoreError("a withdrawal cannot be withdrawn: distil its observations again", code="outbox.kind")
    signed = withdrawals[order]
    if ((signed["flags"] & int(Flag.WITHDRAWAL)) == 0).any() or slots(signed) != slots(found.packets):
        raise StoreError("give the withdrawal of each packet, in the same order", code="outbox.withdrawal")
    left = np.isin(found.states, APPROVED_STATES)
    dropped = found.states == State.PENDING
    chosen = found.ids[left | dropped]
    freed, applied = free(connection, chosen)
    connection.execute(
        "UPDATE outbox SET state = ? WHERE id IN (SELECT value FROM json_each(?))",
        (int(State.WITHDRAWN), id_list(chosen)),
    )
    places = np.nonzero(left)[0].tolist()
    rows, identities = _queue(connection, found.ids[left], signed[left], [found.addresses[i] for i in places])
    if len(chosen):
        append_entry(
            connection,
            event,
            now=now,
            by=by,
            reason=reason,
            packets=len(places),
            identities=[found.identities[i] for i in places],
            withdrawals=identities,
            dropped=[found.identities[i] for i in np.nonzero(dropped)[0].tolist()],
            observations=freed,
            corrected=applied,
        )
    return Withdrawn(ids=found.ids[left], withdrawals=rows, dropped=found.ids[dropped], freed=freed, applied=applied)


def _queue(
    connection: sqlite3.Connection, ids: NDArray[np.int64], signed: PacketArray, addresses: list[bytes]
) -> tuple[NDArray[np.int64], list[bytes]]:
    """Put withdrawals into the outbox: their numbers, their identities."""
    first = int(connection.execute("SELECT max(id) FROM outbox").fetchone()[0] or 0) + 1
    numbers = np.arange(first, first + len(ids), dtype=np.int64)
    joined, size = signed.tobytes(), PACKET_DTYPE.itemsize
    hashed = hashes_of(joined)
    columns = zip(numbers.tolist(), ids.tolist(), addresses, hashed, strict=True)
    connection.executemany(
        "INSERT INTO outbox (id, state, kind, withdraws, address, body, digest, identity)"
        f" VALUES (?, {State.QUEUED:d}, {Kind.WITHDRAWAL:d}, ?, ?, ?, ?, ?)",
        [
            (number, original, address, joined[i * size : (i + 1) * size], *pair)
            for i, (number, original, address, pair) in enumerate(columns)
        ],
    )
    return numbers, [identity for _, identity in hashed]


def free(connection: sqlite3.Connection, ids: NDArray[np.int64], *, exclude: bool = False) -> tuple[int, int]:
    """Take observations out of their packets, with the values that had been kept aside for a correction.

    Args:
        connection: inside a transaction.
        ids: numbers of packets.
        exclude: leave these observations out of distilling from now on.

    Returns:
        How many observations were in the packets, and how many took new values.
    """
    chosen = id_list(ids)
    within = "packet IN (SELECT value FROM json_each(?))"
    connection.execute(
        f"INSERT INTO former SELECT DISTINCT packet, subject FROM observations WHERE {within}"
        f" UNION SELECT packet, subject FROM conflicts WHERE {within}",
        (chosen, chosen),
    )
    changed = connection.execute(
        f"SELECT codes, outcome, bucket, facet, subject, id FROM conflicts WHERE {within}", (chosen,)
    ).fetchall()
    connection.executemany(
        "UPDATE observations SET codes = ?, outcome = ?, bucket = ?, facet = ?, subject = ? WHERE id = ?", changed
    )
    connection.execute(f"DELETE FROM conflicts WHERE {within}", (chosen,))
    if exclude:
        connection.execute(f"UPDATE observations SET excluded = packet WHERE {within}", (chosen,))
    freed = connection.execute(f"UPDATE observations SET packet = NULL WHERE {within}", (chosen,)).rowcount
    return freed, len(changed)


def blank(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> None:
    """Delete the content and the nonce of packets for good; what names their slot stays, and their identity."""
    found = read_queued(connection, "id IN (SELECT value FROM json_each(?))", (id_list(ids),))
    empty = np.zeros(len(found), dtype=PACKET_DTYPE)
    for name in _SLOT_FIELDS:
        empty[name] = found.packets[name]
    joined, size = empty.tobytes(), PACKET_DTYPE.itemsize
    connection.executemany(
        "UPDATE outbox SET body = ?, secret = NULL WHERE id = ?",
        [(joined[i * size : (i + 1) * size], number) for i, number in enumerate(found.ids.tolist())],
    )
