"""The outbox: packets from the moment they are made until holders keep them, and the sequence counter.

A packet waits in it for approval and leaves only after its exact bytes were approved. Each change is recorded in the
log, in the same commit.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PACKET_DTYPE, PacketArray
from outroute.placement import ID_BYTES
from outroute.store import approving, counter, withdrawing
from outroute.store.database import Database
from outroute.store.log import Event, append_entry
from outroute.store.outgoing import (
    APPROVED_STATES,
    Approved,
    Kind,
    Queued,
    Review,
    State,
    Summary,
    Withdrawn,
    hashes_of,
    id_list,
    prefix_range,
    read_queued,
)

__all__ = ["Outbox"]

#: Rows that ``find`` gives; a prefix that fits more is no name.
_FOUND = 100

_EVENTS = {
    State.SENT: Event.SENT,
    State.ACKNOWLEDGED: Event.ACKNOWLEDGED,
    State.REFUSED: Event.REFUSED,
}


class Outbox:
    """The outbox of a journal; made by ``Journal``, not by hand.

    Attributes:
        copied: whether the directory was found at this start to be a copy, moved, or restored from a backup; then
            sequence numbers go on in a new incarnation.
    """

    def __init__(self, database: Database, *, now: int, restored: bool) -> None:
        self._database = database
        with database.transaction() as connection:
            self.copied = counter.start(connection, database.path, now=now, restored=restored)

    @property
    def incarnation(self) -> int:
        """The high half of the sequence numbers given now."""
        with self._database.reading() as connection:
            return counter.current(connection)

    def new_incarnation(self, now: int, why: str = "equivocation") -> int:
        """Give sequence numbers in a new incarnation from now on; which. For a directory that has a double.

        Args:
            now: seconds since 1970.
            why: what was found, for the log.
        """
        with self._database.transaction() as connection:
            return counter.new_incarnation(connection, now=now, why=why)

    def reserve(self, count: int) -> int:
        """Take ``count`` sequence numbers; the first of them. They are used up on disk before this returns.

        The high half is an incarnation, new when the directory was restored from a copy; the low half
        counts. Gaps (numbers taken and never used) are harmless.

        Raises:
            StoreError: the counter could not be written; do not send.
        """
        with self._database.transaction() as connection:
            return counter.reserve(connection, count)

    def add(
        self,
        packets: PacketArray,
        addresses: Sequence[bytes],
        members: Sequence[NDArray[np.int64]],
        *,
        secrets: Sequence[bytes] | None = None,
        now: int,
        release: int | None = None,
    ) -> NDArray[np.int64]:
        """Put packets in, waiting for approval, and note what each condenses, in one commit.

        Args:
            packets: PACKET_DTYPE[n], signed.
            addresses: where each goes.
            members: per packet the rows (``Observed.rows``) that it condenses.
            secrets: per packet the nonce of its commitment, kept so that an auditor can be answered.
            now: seconds since 1970.
            release: they are a release with noise, the how many-th: the log does not say of how many observations.

        Returns:
            int64[n]: their numbers in the outbox.

        Raises:
            StoreError: ``store.twice``, a row is in a packet already, excluded, or has no outcome yet; nothing is kept.
        """
        if packets.dtype != PACKET_DTYPE or not len(packets) == len(addresses) == len(members):
            raise StoreError("add takes PACKET_DTYPE[n], n addresses and n member lists", code="store.type")
        if any(len(address) != ID_BYTES for address in addresses):
            raise StoreError(f"each packet needs an address of {ID_BYTES} bytes", code="store.address")
        if secrets is not None and len(secrets) != len(packets):
            raise StoreError("give one secret per packet, or none", code="store.type")
        joined, size = np.ascontiguousarray(packets).view(np.uint8).tobytes(), PACKET_DTYPE.itemsize
        hashed = hashes_of(joined)
        with self._database.transaction() as connection:
            first = int(connection.execute("SELECT max(id) FROM outbox").fetchone()[0] or 0) + 1
            ids = np.arange(first, first + len(packets), dtype=np.int64)
            connection.executemany(
                "INSERT INTO outbox (id, state, address, secret, body, digest, identity) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        number,
                        int(State.PENDING),
                        addresses[i],
                        secrets[i] if secrets else None,
                        joined[i * size : (i + 1) * size],
                        *hashed[i],
                    )
                    for i, number in enumerate(ids.tolist())
                ],
            )
            pairs = [
                (number, row)
                for number, rows in zip(ids.tolist(), members, strict=True)
                for row in np.asarray(rows).tolist()
            ]
            done = connection.executemany(
                "UPDATE observations SET packet = ?"
                " WHERE id = ? AND packet IS NULL AND outcome IS NOT NULL AND excluded IS NULL",
                pairs,
            ).rowcount
            if pairs and done != len(pairs):
                raise StoreError(
                    f"{len(pairs) - done} observations are in a packet already or have no outcome yet: "
                    "distil only what observations() gives as ready",
                    code="store.twice",
                )
            if len(ids):
                append_entry(
                    connection,
                    Event.DISTILLED,
                    now=now,
                    packets=len(ids),
                    **({"observations": len(pairs)} if release is None else {"release": release}),
                    identities=[identity for _, identity in hashed],
                )
        return ids

    # looking ------------------------------------------------------------------------------------------------

    def page(self, *states: State, after: int = 0, limit: int = 100, kind: Kind | None = None) -> Queued:
        """Rows with a number above ``after``, oldest first.

        Args:
            states: in any of these; default all.
            after: the last number of the page before.
            limit: at most so many.
            kind: packets or withdrawals only; default both.
        """
        kinds = tuple(Kind) if kind is None else (kind,)
        with self._database.reading() as connection:
            ids = _chosen(connection, states or tuple(State), kinds, after, limit)
            return read_queued(connection, "id IN (SELECT value FROM json_each(?))", (id_list(ids),))

    def get(self, ids: NDArray[np.int64] | Sequence[int]) -> Queued:
        """The rows with these numbers, by rising number; numbers that are not there are left out."""
        with self._database.reading() as connection:
            return read_queued(connection, "id IN (SELECT value FROM json_each(?))", (id_list(ids),))

    def find(self, prefix: str) -> Queued:
        """Rows whose digest or identity begins with these hexadecimal digits (12 to 64), at most 100.

        Raises:
            StoreError: ``outbox.digest``, too short or no digits.
        """
        between = (*prefix_range(prefix), *prefix_range(prefix), _FOUND)
        with self._database.reading() as connection:
            return read_queued(
                connection,
                "id IN (SELECT id FROM outbox WHERE digest BETWEEN ? AND ?"
                " UNION SELECT id FROM outbox WHERE identity BETWEEN ? AND ? LIMIT ?)",
                between,
            )

    def knows(self, identities: Sequence[bytes]) -> bool:
        """Whether all these packets and withdrawals were made here."""
        with self._database.reading() as connection:
            row = "SELECT 1 FROM outbox WHERE identity = ?"
            return all(connection.execute(row, (one,)).fetchone() is not None for one in identities)

    def queued(self, *states: State, limit: int = 4096) -> Queued:
        """What must go (QUEUED and SENT) or is in one of ``states``: withdrawals first, then the oldest."""
        wanted = states or (State.QUEUED, State.SENT)
        with self._database.reading() as connection:
            ids = _chosen(connection, wanted, (Kind.WITHDRAWAL,), 0, limit)
            ids += _chosen(connection, wanted, (Kind.PACKET,), 0, limit - len(ids))
            found = read_queued(connection, "id IN (SELECT value FROM json_each(?))", (id_list(ids),))
        order = np.argsort(found.kinds != Kind.WITHDRAWAL, kind="stable")
        return Queued(
            ids=found.ids[order],
            packets=found.packets[order],
            addresses=tuple(found.addresses[i] for i in order),
            states=found.states[order],
            kinds=found.kinds[order],
            withdraws=found.withdraws[order],
            digests=tuple(found.digests[i] for i in order),
            identities=tuple(found.identities[i] for i in order),
        )

    def summary(self) -> Summary:
        """How many packets and withdrawals are in each state."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT kind, state, count(*) FROM outbox GROUP BY state, kind").fetchall()
        found = {(kind, state): int(count) for kind, state, count in rows}
        return Summary(
            packets={state: found.get((Kind.PACKET, state), 0) for state in State},
            withdrawals={state: found.get((Kind.WITHDRAWAL, state), 0) for state in State},
        )

    def counts(self) -> dict[State, int]:
        """How many packets (withdrawals not counted) are in each state."""
        return dict(self.summary().packets)

    def members(self, number: int) -> NDArray[np.int64]:
        """The rows that a packet condenses, rising; none once it is withdrawn or rejected."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id FROM observations WHERE packet = ? ORDER BY id", (number,)).fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    def secret(self, number: int) -> bytes | None:
        """The nonce of a packet's commitment, or ``None``."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT secret FROM outbox WHERE id = ?", (number,)).fetchone()
        return None if row is None else row[0]

    # deciding -----------------------------------------------------------------------------------------------

    def review(self, ids: NDArray[np.int64] | None = None, *, now: int) -> Review:
        """Put pending packets together to be looked at; the digest can be approved later, also after a restart.

        Args:
            ids: their numbers; default all that are pending.
            now: seconds since 1970.

        Raises:
            StoreError: ``outbox.empty``, nothing is pending; ``outbox.digest``, one of them is not (any more);
                ``outbox.unknown``, there is no such number.
        """
        with self._database.transaction() as connection:
            return approving.review(connection, ids, now=now)

    def approve(self, digest: str, *, by: str, now: int, limit_ids: NDArray[np.int64] | None = None) -> Approved:
        """Let the packets of a review, or one packet, leave.

        Args:
            digest: of a review or of a packet, in hex; its first digits (at least 12) when no other begins so.
            by: who approves, for the log.
            now: seconds since 1970.
            limit_ids: approve only those of the review that are among these.

        Raises:
            StoreError: ``outbox.digest``, unknown or ambiguous, the bytes are not those reviewed, or one of the packets
                is pending no longer; ``outbox.text``, ``by`` is empty or too long. Nothing is approved.
        """
        with self._database.transaction() as connection:
            return approving.approve(connection, digest, by=by, now=now, limit_ids=limit_ids)

    def approve_ids(self, ids: NDArray[np.int64], *, by: str, now: int) -> Approved:
        """Let these pending packets leave, for a rule; as ``approve``."""
        with self._database.transaction() as connection:
            return approving.approve_ids(connection, ids, by=by, now=now)

    def reject(self, digest: str, *, by: str, now: int, again: bool = False) -> Approved:
        """Never let these bytes leave.

        Args:
            digest, by, now: as for ``approve``.
            again: their observations may be distilled again; else they stay out of distilling. May be said later of
                what was rejected before.

        Raises:
            StoreError: as ``approve``.
        """
        with self._database.transaction() as connection:
            return approving.reject(connection, digest, by=by, now=now, again=again)

    def withdraw(
        self, ids: NDArray[np.int64], withdrawals: PacketArray, *, by: str, reason: str, now: int
    ) -> Withdrawn:
        """Take packets back, in one commit; those withdrawn or rejected before are passed over.

        Observations are free afterwards, those of approved packets ``emitted``; new values that were kept aside
        (``Journal.conflicts``) replace the old. A packet not approved yet is dropped, and its withdrawal not used.

        Args:
            ids: int64[n], different packets (``find``, ``Journal.case_packets``, ``Journal.time_packets``).
            withdrawals: PACKET_DTYPE[n], signed, of each of them (``outroute.packet.withdraw``).
            by: who, for the log.
            reason: why, for the log; no case, no subject.
            now: seconds since 1970.

        Raises:
            StoreError: ``outbox.unknown``, ``outbox.kind``, ``outbox.withdrawal``, ``outbox.text``; nothing is changed.
        """
        with self._database.transaction() as connection:
            return withdrawing.withdraw(connection, ids, withdrawals, by=by, reason=reason, now=now)

    def mark(
        self,
        ids: NDArray[np.int64],
        state: State,
        *,
        now: int,
        recipients: Sequence[bytes | str] = (),
    ) -> None:
        """Note how far approved packets and withdrawals have come, in one commit; others are passed over.

        Args:
            ids: their numbers.
            state: SENT, ACKNOWLEDGED or REFUSED.
            now: seconds since 1970.
            recipients: member ids that they were handed to, or a text such as ``"file: ..."``. Logged with every change
                of state, and when the recipients are others than those logged last.

        Raises:
            StoreError: ``outbox.state``, another state; it is reached by approving, rejecting or withdrawing only.
        """
        if state not in _EVENTS:
            raise StoreError(
                "mark takes SENT, ACKNOWLEDGED or REFUSED: approve, reject or withdraw instead", code="outbox.state"
            )
        told = _recipients_hash(recipients)
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT id, identity FROM outbox WHERE id IN (SELECT value FROM json_each(?))"
                f" AND state IN ({', '.join(str(int(s)) for s in APPROVED_STATES)})"
                " AND (state <> ? OR (? IS NOT NULL AND told IS NOT ?)) ORDER BY id",
                (id_list(ids), int(state), told, told),
            ).fetchall()
            if not rows:
                return
            connection.execute(
                "UPDATE outbox SET state = ?, told = coalesce(?, told) WHERE id IN (SELECT value FROM json_each(?))",
                (int(state), told, id_list([row[0] for row in rows])),
            )
            named = {"recipients": [r.hex() if isinstance(r, bytes) else r for r in recipients]} if recipients else {}
            append_entry(
                connection, _EVENTS[state], now=now, packets=len(rows), identities=[row[1] for row in rows], **named
            )


def _chosen(
    connection: sqlite3.Connection, states: Sequence[State], kinds: Sequence[Kind], after: int, limit: int
) -> list[int]:
    """The lowest numbers above ``after`` in these states; each arm reads its part of the index only."""
    arm = "SELECT * FROM (SELECT id FROM outbox WHERE state = ? AND kind = ? AND id > ? ORDER BY id LIMIT ?)"
    pairs = [(int(state), int(kind), after, limit) for state in dict.fromkeys(states) for kind in kinds]
    rows = connection.execute(
        " UNION ALL ".join([arm] * len(pairs)) + " ORDER BY id LIMIT ?", [v for pair in pairs for v in pair] + [limit]
    )
    return [row[0] for row in rows]


def _recipients_hash(recipients: Sequence[bytes | str]) -> bytes | None:
    """What tells one set of recipients from another, or ``None`` for none named."""
    if not recipients:
        return None
    parts = sorted(r if isinstance(r, bytes) else r.encode(errors="backslashreplace") for r in recipients)
    return hashlib.blake2b(b"".join(len(p).to_bytes(4, "little") + p for p in parts), digest_size=8).digest()
