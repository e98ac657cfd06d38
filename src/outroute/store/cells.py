"""Cells: their limits, their tables, and what of a full one is shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.packet import PacketArray
from outroute.placement import Part, Summary, Wanted, sample

__all__ = [
    "ANSWER_CAP",
    "CELL_LIMIT",
    "CUT_SLACK",
    "GRACE_SECONDS",
    "MARK_LIMIT",
    "Cached",
    "Cell",
    "CellEntries",
    "Fetched",
    "Sampler",
    "by_wanted",
    "layout_1",
]

#: Packets of a full cell: 2 MiB, read in some milliseconds, and more than an answer ever shows.
CELL_LIMIT = 4096

#: Withdrawals and proofs kept beside them in one cell, sampled in the same way, so that nobody can fill a
#: disk with withdrawals of packets that never were.
MARK_LIMIT = 4096

#: A cell is cut back when it is over its limit by so many; what it shows never is. Cutting takes a sort.
CUT_SLACK = 256

#: Packets of one cell in one answer: at 512 bytes 128 KiB, two frames.
ANSWER_CAP = 256

#: Seconds from expiry to deletion: clocks may differ by as much without holders sending each other packets
#: that the other has just deleted.
GRACE_SECONDS = 3600


def layout_1(connection: sqlite3.Connection) -> None:
    """Create the tables of the packet store."""
    connection.execute(
        "CREATE TABLE cells (id INTEGER PRIMARY KEY, address BLOB NOT NULL UNIQUE, soonest INTEGER NOT NULL,"
        " packets INTEGER NOT NULL, marks INTEGER NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE packets (id INTEGER PRIMARY KEY, cell INTEGER NOT NULL, slot INTEGER NOT NULL,"
        " part INTEGER NOT NULL, expires INTEGER NOT NULL, author INTEGER NOT NULL, body BLOB NOT NULL)"
    )
    connection.execute("CREATE INDEX by_slot ON packets (cell, slot, part, expires, author)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a cell answers.

    Attributes:
        packets: PACKET_DTYPE[n], in the order of their slots' hashes.
        left_out: how many more the cell has, not shown because of the cap.
    """

    packets: PacketArray
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEntries:
    """Everything in force in a cell, for repair: identities (32 bytes each) and what each is."""

    identities: tuple[bytes, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """A summary, for which cap, and from when until when it is good."""

    since: int
    until: int
    cap: int
    summary: Summary


@dataclass(slots=True)
class Cell:
    """Counters of a cell: first expiry, packets, withdrawals and proofs; its last summary."""

    id: int
    soonest: int
    packets: int
    marks: int
    summary: Cached | None = None


def by_wanted(authors: NDArray[np.int64], wanted: Sequence[Wanted]) -> NDArray[np.bool_]:
    """Which of some rows are of authors that are wanted, bool[n]; all where nobody is named."""
    if not wanted:
        return np.ones(len(authors), dtype=np.bool_)
    names = np.array([one.author for one in wanted], dtype=np.uint64)
    return np.isin(np.ascontiguousarray(authors).view(np.uint64), names)


class Sampler:
    """Cuts cells by turns of organisations and authors.

    Args:
        organisation_of: author's key to its organisation's key; an author that is not there stands for itself.
        cell_limit: packets shown of a cell.
    """

    def __init__(self, organisation_of: Mapping[bytes, bytes], cell_limit: int) -> None:
        self._cell_limit = cell_limit
        self._organisations = {
            int.from_bytes(author[:8], "little", signed=True): int.from_bytes(key[:8], "little", signed=True)
            for author, key in organisation_of.items()
        }

    def shown(
        self,
        slots: NDArray[np.int64],
        parts: NDArray[np.int64],
        authors: NDArray[np.int64],
        among: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """What a cell shows: all, or a sample of its packets and one of its withdrawals and proofs."""
        shown = np.ones(len(slots), dtype=np.bool_) if among is None else among.copy()
        for group, limit in ((parts == Part.PACKET, self._cell_limit), (parts != Part.PACKET, MARK_LIMIT)):
            members = np.flatnonzero(group & shown)
            if len(members) > limit:
                unique, first, inverse = np.unique(slots[members], return_index=True, return_inverse=True)
                rank, author, organisation = self.ranks(unique, authors[members][first])
                shown[members] = sample(rank, author, organisation, limit)[inverse]
        return shown

    def ranks(
        self, slots: NDArray[np.int64], authors: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Rank, author and organisation, as ``outroute.placement.turn_order`` wants them."""
        unique, inverse = np.unique(authors, return_inverse=True)
        organisations = np.array([self._organisations.get(a, a) for a in unique.tolist()], dtype=np.int64)
        slots, authors = np.ascontiguousarray(slots), np.ascontiguousarray(authors)
        return slots.view(np.uint64), authors.view(np.uint64), organisations[inverse].view(np.uint64)
