"""What leaves or waits to leave, as values, and the tables that hold it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PACKET_BYTES, PACKET_DTYPE, SIGNED_BYTES, Flag, PacketArray
from outroute.store.log import Event, append_entry, log_layout

__all__ = [
    "APPROVED_STATES",
    "Approved",
    "Erased",
    "Kind",
    "Queued",
    "Review",
    "State",
    "Summary",
    "Withdrawn",
    "approvals_layout",
    "hashes_of",
    "id_list",
    "operator_text",
    "outbox_layout",
    "prefix_range",
    "read_queued",
]

PREFIX_DIGITS = 12
"""Fewest hexadecimal digits that name a digest or an identity: 48 bits."""

OPERATOR_CHARACTERS = 200
"""Longest name of an approver or reason, so that the log stays readable."""

#: By whom packets were approved that left under the first layout, which had no approvals.
_BEFORE = "before approvals were recorded"

#: Packets read at a time: 2 MB.
_CHUNK = 4096


@unique
class State(IntEnum):
    """How far a packet of the outbox has come; the numbers are stable."""

    #: Approved, not sent yet.
    QUEUED = 0
    #: Sent, not acknowledged by enough holders: to be sent again.
    SENT = 1
    #: Enough holders keep it.
    ACKNOWLEDGED = 2
    #: The holders refused it for good (expired, malformed): not sent again.
    REFUSED = 3
    #: Made, waits for approval. It does not leave.
    PENDING = 4
    #: Rejected: these bytes never leave.
    REJECTED = 5
    #: Withdrawn: by a withdrawal of its own when it had been approved, else simply dropped.
    WITHDRAWN = 6


APPROVED_STATES = (State.QUEUED, State.SENT, State.ACKNOWLEDGED, State.REFUSED)
"""States of what was approved, so that it may have left, and is in force."""


@unique
class Kind(IntEnum):
    """What a row of the outbox is; the numbers are stable."""

    PACKET = 0
    WITHDRAWAL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Packets of the outbox.

    Attributes:
        ids: int64[n], their numbers in the outbox.
        packets: PACKET_DTYPE[n]; of an erased packet only what names its slot is left.
        addresses: n addresses of 32 bytes.
        states: uint8[n], a ``State`` each.
        kinds: uint8[n], a ``Kind`` each.
        withdraws: int64[n], for a withdrawal the number of what it withdraws, else -1.
        digests: n times SHA-256 of the 512 bytes as they were made.
        identities: n packet identities.
    """

    ids: NDArray[np.int64]
    packets: PacketArray
    addresses: tuple[bytes, ...]
    states: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    withdraws: NDArray[np.int64]
    digests: tuple[bytes, ...]
    identities: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep: NDArray[np.bool_]) -> Queued:
        """Only those that ``keep`` (bool[n]) names."""
        rows = np.flatnonzero(keep).tolist()
        return Queued(
            ids=self.ids[keep],
            packets=self.packets[keep],
            addresses=tuple(self.addresses[i] for i in rows),
            states=self.states[keep],
            kinds=self.kinds[keep],
            withdraws=self.withdraws[keep],
            digests=tuple(self.digests[i] for i in rows),
            identities=tuple(self.identities[i] for i in rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How many rows of the outbox there are.

    Attributes:
        packets: per state.
        withdrawals: per state.
    """

    packets: Mapping[State, int]
    withdrawals: Mapping[State, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Pending packets put together to be looked at, and approved as they are.

    Attributes:
        digest: SHA-256 of their bytes one after the other: that of the exported file.
        ids: int64[n], rising.
    """

    digest: bytes
    ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """What an approval (or rejection) concerned.

    Attributes:
        ids: int64[n], rising.
        digest: the review's or packet's, in full.
    """

    ids: NDArray[np.int64]
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What a withdrawal did.

    Attributes:
        ids: int64[n], packets that had been approved and are withdrawn now.
        withdrawals: int64[n], the rows of their withdrawals, to be sent.
        dropped: int64[m], packets not approved yet: nothing of them left, nothing is sent.
        freed: observations that were in these packets.
        applied: of those, how many took the new values that had been kept aside.
    """

    ids: NDArray[np.int64]
    withdrawals: NDArray[np.int64]
    dropped: NDArray[np.int64]
    freed: int
    applied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What erasing a subject did.

    Attributes:
        observations: how many were deleted.
        questions: how many remembered questions were deleted.
        withdrawn: what became of the packets with an observation of the subject.
    """

    observations: int
    questions: int
    withdrawn: Withdrawn


def outbox_layout(connection: sqlite3.Connection) -> None:
    """Create the tables of the outbox (layout 1)."""
    connection.execute(
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, address BLOB NOT NULL,"
        " secret BLOB, body BLOB NOT NULL)"
    )
    connection.execute("CREATE INDEX by_state ON outbox (state)")
    connection.execute("CREATE TABLE counter (incarnation INTEGER NOT NULL, next INTEGER NOT NULL, file TEXT NOT NULL)")


def approvals_layout(connection: sqlite3.Connection, *, now: int) -> None:
    """Layout 1 to 2: approvals, withdrawals and the log. What the outbox holds already counts as approved."""
    for statement in (
        "ALTER TABLE outbox ADD COLUMN kind INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE outbox ADD COLUMN withdraws INTEGER",
        "ALTER TABLE outbox ADD COLUMN digest BLOB",
        "ALTER TABLE outbox ADD COLUMN identity BLOB",
        # Hash of the recipients that the log names for it, so that sending again to the same adds no entry.
        "ALTER TABLE outbox ADD COLUMN told BLOB",
        "DROP INDEX by_state",
        "CREATE INDEX by_state ON outbox (state, kind)",
        "CREATE INDEX by_digest ON outbox (digest)",
        "CREATE INDEX by_identity ON outbox (identity)",
        "CREATE INDEX by_withdrawn ON outbox (withdraws) WHERE withdraws IS NOT NULL",
        "CREATE TABLE reviews (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, packets INTEGER NOT NULL,"
        " rows BLOB NOT NULL)",
        # Once in an approved packet: it may have left.
        "ALTER TABLE observations ADD COLUMN emitted INTEGER NOT NULL DEFAULT 0",
        # The rejected packet on whose account it is not distilled again.
        "ALTER TABLE observations ADD COLUMN excluded INTEGER",
        "CREATE INDEX by_subject ON observations (subject)",
        "CREATE INDEX by_excluded ON observations (excluded) WHERE excluded IS NOT NULL",
        # Whose observations a packet held that was withdrawn or rejected: to erase them there too.
        "CREATE TABLE former (packet INTEGER NOT NULL, subject INTEGER NOT NULL)",
        "CREATE INDEX by_former ON former (subject)",
        "UPDATE observations SET emitted = 1 WHERE packet IS NOT NULL",
    ):
        connection.execute(statement)
    log_layout(connection)
    known: list[bytes] = []
    after = 0
    while True:
        rows = connection.execute(
            "SELECT id, body FROM outbox WHERE id > ? ORDER BY id LIMIT ?", (after, _CHUNK)
        ).fetchall()
        if not rows:
            break
        joined = b"".join(row[1] for row in rows)
        flags = np.frombuffer(joined, dtype=PACKET_DTYPE)["flags"] & int(Flag.WITHDRAWAL)
        hashed = hashes_of(joined)
        connection.executemany(
            "UPDATE outbox SET digest = ?, identity = ?, kind = ? WHERE id = ?",
            [(*pair, int(flag), row[0]) for pair, flag, row in zip(hashed, flags.tolist(), rows, strict=True)],
        )
        known += [identity for _, identity in hashed]
        after = rows[-1][0]
    if known:
        append_entry(connection, Event.APPROVED, now=now, by=_BEFORE, packets=len(known), identities=known)


def hashes_of(joined: bytes) -> list[tuple[bytes, bytes]]:
    """Digest and identity of each of the packets in a row."""
    sha = hashlib.sha256
    starts = range(0, len(joined), PACKET_BYTES)
    return [
        (sha(joined[at : at + PACKET_BYTES]).digest(), sha(joined[at : at + SIGNED_BYTES]).digest()) for at in starts
    ]


def id_list(ids: NDArray[np.int64] | Sequence[int]) -> str:
    """Numbers as one value of a query: ``IN (SELECT value FROM json_each(?))``."""
    return json.dumps(np.asarray(ids, dtype=np.int64).tolist())


def read_queued(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> Queued:
    """The rows of the outbox that a condition chooses, by rising number."""
    rows = connection.execute(
        f"SELECT id, address, body, state, kind, withdraws, digest, identity FROM outbox WHERE {where} ORDER BY id",
        tuple(values),
    ).fetchall()
    return Queued(
        ids=np.array([row[0] for row in rows], dtype=np.int64),
        packets=np.frombuffer(b"".join(row[2] for row in rows), dtype=PACKET_DTYPE),
        addresses=tuple(row[1] for row in rows),
        states=np.array([row[3] for row in rows], dtype=np.uint8),
        kinds=np.array([row[4] for row in rows], dtype=np.uint8),
        withdraws=np.array([-1 if row[5] is None else row[5] for row in rows], dtype=np.int64),
        digests=tuple(row[6] for row in rows),
        identities=tuple(row[7] for row in rows),
    )


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """The lowest and the highest hash that begin with these hexadecimal digits.

    Raises:
        StoreError: ``outbox.digest``, too short or no hexadecimal digits.
    """
    digits = prefix.strip().lower()
    if not PREFIX_DIGITS <= len(digits) <= 64 or set(digits) - set("0123456789abcdef"):
        raise StoreError(
            f"'{prefix[:70]}' names no packet and no review: give {PREFIX_DIGITS} to 64 hexadecimal digits, as "
            "outroute outbox show prints them",
            code="outbox.digest",
        )
    return bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))


def operator_text(text: str, what: str) -> str:
    """A name or reason that goes into the log.

    Raises:
        StoreError: ``outbox.text``, empty, too long, or not plain text.
    """
    if not 0 < len(text.strip()) <= OPERATOR_CHARACTERS or not text.isprintable():
        raise StoreError(f"say {what} in 1 to {OPERATOR_CHARACTERS} characters on one line", code="outbox.text")
    return text.strip()
