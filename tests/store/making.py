"""Real signed packets for tests, of a small schema, and a journal that holds some."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.packet import PacketArray, withdraw
from outroute.store import Journal, Which
from outroute.testing.making import BUCKET_SECONDS, DAY, NOW, SCHEMA, identity, make_packets, make_schema, place

__all__ = [
    "BUCKET_SECONDS",
    "DAY",
    "NOW",
    "SCHEMA",
    "filled",
    "identity",
    "make_packets",
    "make_schema",
    "open_journal",
    "place",
    "withdrawals_of",
]


def filled(journal: Journal, packets: int, *, size: int = 5, name: str = "", author: int = 0) -> NDArray[np.int64]:
    """Observe ``size`` cases for each of so many packets and put these into the outbox; their numbers there.

    Case ``"case 3.1"`` is the second in packet 3, of subject ``"subject 3.1"``; a name stands before the numbers.
    """
    labels = [f"{name}{packet}.{place}" for packet in range(packets) for place in range(size)]
    codes = np.full((len(labels), SCHEMA.width), 7, dtype=np.uint16)
    journal.observe(
        [f"case {label}" for label in labels],
        codes,
        np.ones(len(labels)),
        bucket=np.repeat(np.arange(packets), size) * DAY,
        subjects=[f"subject {label}" for label in labels],
    )
    rows = journal.observations(Which.READY).rows[-len(labels) :].reshape(packets, size)
    made = make_packets(packets, author=author, first=journal.outbox.reserve(packets))
    secrets = [hashlib.sha256(b"nonce %d" % int(row[0])).digest() for row in rows]
    return journal.outbox.add(made, [place(i) for i in range(packets)], list(rows), secrets=secrets, now=NOW)


def withdrawals_of(journal: Journal, ids: NDArray[np.int64]) -> PacketArray:
    """A signed withdrawal of each packet, in the order of ``ids``."""
    found = journal.outbox.get(ids)
    return withdraw(found.packets[np.searchsorted(found.ids, ids)], identity(0))


def open_journal(directory: Path | None = None) -> Journal:
    return Journal(directory, schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW)
