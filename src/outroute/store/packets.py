"""The packets that a node keeps for others: durable, sampled where full, gone when expired.

Rows lie in order of arrival (fast, compact); one integer index over (cell, slot) carries every other
column, so that duplicates, samples, counts and expiry are decided without touching the 512 bytes. Slots are
indexed by a 64-bit hash and compared in full. Every call commits once, however many packets it brings.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PACKET_DTYPE, PacketArray
from outroute.placement import ID_BYTES, Kept, Part, Summary, Wanted, answered, set_digest, summary, turn_order
from outroute.store.cells import (
    ANSWER_CAP,
    CELL_LIMIT,
    CUT_SLACK,
    GRACE_SECONDS,
    MARK_LIMIT,
    Cached,
    Cell,
    CellEntries,
    Fetched,
    Sampler,
    by_wanted,
    layout_1,
)
from outroute.store.database import Database
from outroute.store.rows import Rows, identity_of, rows_of
from outroute.store.slots import Row, Slot, decide, load_slots

__all__ = ["ANSWER_CAP", "CELL_LIMIT", "GRACE_SECONDS", "CellEntries", "Fetched", "PacketStore"]

#: Cells whose counters stay in memory: about 20 MiB.
_CELLS_CACHED = 65_536

_INSERT = "INSERT INTO packets VALUES (?, ?, ?, ?, ?, ?, ?)"
_APPLICATION = 0x6F726B70  # "orkp"


class PacketStore:
    """A durable store of packets that were verified before.

    Args:
        directory: where to keep them; ``None`` keeps them in memory only.
        organisation_of: author's key to its organisation's key; an author that is not there stands for
            itself.
        cell_limit: packets kept per cell.
        page_limit: at most so many pages of 4,096 bytes, for those who share a disk; ``None``: no limit.

    Raises:
        StoreError: see ``outroute.store.database.Database``.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        organisation_of: Mapping[bytes, bytes] | None = None,
        cell_limit: int = CELL_LIMIT,
        page_limit: int | None = None,
    ) -> None:
        self._database = Database(
            None if directory is None else Path(directory) / "packets.db",
            application=_APPLICATION,
            migrations=(layout_1,),
            page_limit=page_limit,
        )
        self._cell_limit = cell_limit
        self._cells: dict[bytes, Cell] = {}
        self._sampler = Sampler(organisation_of or {}, cell_limit)
        with self._database.reading() as connection:
            self._next_cell = int(connection.execute("SELECT max(id) FROM cells").fetchone()[0] or 0) + 1
            self._next_row = int(connection.execute("SELECT max(id) FROM packets").fetchone()[0] or 0) + 1

    @property
    def durable(self) -> bool:
        """True when what ``put`` reports as kept is on disk."""
        return self._database.durable

    def set_organisations(self, organisation_of: Mapping[bytes, bytes]) -> None:
        """From now on sample by these organisations: author's key to organisation's key."""
        self._sampler = Sampler(organisation_of, self._cell_limit)
        self._cells.clear()

    def put(
        self,
        addresses: bytes | Sequence[bytes],
        packets: PacketArray,
        *,
        bucket_seconds: int,
        now: int,
    ) -> NDArray[np.uint8]:
        """Keep a batch, in one durable commit.

        Args:
            addresses: the address of all packets (32 bytes), or one for each.
            packets: PACKET_DTYPE[n], each accepted by ``outroute.packet.accept``.
            bucket_seconds: the width of the schema's time buckets, for the expiry.
            now: seconds since 1970.

        Returns:
            uint8[n]: a ``Kept`` per packet, as if they had come one after the other.

        Raises:
            StoreError: disk full (``store.full``) or another failure; nothing of the batch is kept.
        """
        if packets.dtype != PACKET_DTYPE:
            raise StoreError("put takes an array of PACKET_DTYPE: see outroute.packet", code="store.type")
        names = [addresses] * len(packets) if isinstance(addresses, bytes) else list(addresses)
        if len(names) != len(packets) or any(len(name) != ID_BYTES for name in set(names)):
            raise StoreError(f"each packet needs an address of {ID_BYTES} bytes", code="store.address")
        outcome = np.full(len(packets), Kept.EXPIRED, dtype=np.uint8)
        if len(packets) == 0:
            return outcome
        rows = rows_of(packets, bucket_seconds)
        live = np.flatnonzero(rows.expires > now).tolist()
        if not live:
            return outcome
        try:
            with self._database.transaction() as connection:
                cells = {name: self._cell(connection, name, create=True) for name in {names[i] for i in live}}
                numbers = [cells[names[i]].id for i in live]
                keys = [(number, rows.slot_keys[i]) for number, i in zip(numbers, live, strict=True)]
                found = load_slots(connection, list(zip(numbers, rows.slots[live].tolist(), strict=True)))
                if not found and len(set(keys)) == len(keys) and not rows.withdrawn.any():
                    outcome[live] = Kept.STORED
                    self._write_new(connection, cells, numbers, rows, live, outcome, now)
                    return outcome
                slots: dict[tuple[int, bytes], Slot] = {}
                for i, key in zip(live, keys, strict=True):
                    slot = slots.get(key)
                    if slot is None:
                        slot = slots[key] = found.get(key) or Slot()
                    incoming = Row(
                        part=Part.WITHDRAWAL if rows.withdrawn[i] else Part.PACKET,
                        expires=int(rows.expires[i]),
                        body=rows.bodies[i],
                        slot=int(rows.slots[i]),
                        author=int(rows.authors[i]),
                        index=i,
                    )
                    outcome[i] = decide(slot, incoming)
                self._write(connection, cells, slots, outcome, now)
        except BaseException:
            self._cells.clear()
            raise
        return outcome

    def _write_new(
        self,
        connection: sqlite3.Connection,
        cells: Mapping[bytes, Cell],
        numbers: list[int],
        rows: Rows,
        live: list[int],
        outcome: NDArray[np.uint8],
        now: int,
    ) -> None:
        """What ``_write`` does where nothing was in any slot and each packet has its own: as most often."""
        ids = range(self._next_row, self._next_row + len(live))
        self._next_row += len(live)
        expires = rows.expires[live].tolist()
        connection.executemany(
            _INSERT,
            zip(
                ids,
                numbers,
                rows.slots[live].tolist(),
                itertools.repeat(int(Part.PACKET)),
                expires,
                rows.authors[live].tolist(),
                [rows.bodies[i] for i in live] if len(live) < len(rows.bodies) else rows.bodies,
                strict=False,
            ),
        )
        by_id = {cell.id: cell for cell in cells.values()}
        for number, soonest in zip(numbers, expires, strict=True):
            cell = by_id[number]
            cell.packets += 1
            if soonest < cell.soonest:
                cell.soonest = soonest
        self._count(connection, by_id, dict(zip(ids, live, strict=True)), outcome, now)

    def _write(
        self,
        connection: sqlite3.Connection,
        cells: Mapping[bytes, Cell],
        slots: Mapping[tuple[int, bytes], Slot],
        outcome: NDArray[np.uint8],
        now: int,
    ) -> None:
        """Bring the tables to what the slots have become, and cut the cells that are over their limit."""
        by_id = {cell.id: cell for cell in cells.values()}
        inserts: list[tuple[int, int, int, int, int, int, bytes]] = []
        index_of_row: dict[int, int] = {}
        touched: set[int] = set()
        gone: list[tuple[int]] = []
        changed: list[tuple[int, int, int | None]] = []
        for (number, _), slot in slots.items():
            if not slot.changed:
                continue
            touched.add(number)
            cell = by_id[number]
            for row in slot.rows:
                if row.id is None:
                    row.id = self._next_row
                    self._next_row += 1
                    index_of_row[row.id] = row.index
                    inserts.append((row.id, number, row.slot, row.part, row.expires, row.author, row.body))
                elif row.changed:
                    changed.append((row.part, row.expires, row.id))
                if row.expires < cell.soonest:
                    cell.soonest = row.expires
            packets, marks = slot.growth()
            cell.packets += packets
            cell.marks += marks
            if slot.before:
                gone += [(row_id,) for row_id in slot.gone()]
        if not touched:
            return
        connection.executemany("DELETE FROM packets WHERE id = ?", gone)
        connection.executemany("UPDATE packets SET part = ?, expires = ? WHERE id = ?", changed)
        connection.executemany(_INSERT, inserts)
        self._count(connection, {number: by_id[number] for number in touched}, index_of_row, outcome, now)

    def _count(
        self,
        connection: sqlite3.Connection,
        touched: Mapping[int, Cell],
        index_of_row: Mapping[int, int],
        outcome: NDArray[np.uint8],
        now: int,
    ) -> None:
        """Write the counters of cells that have changed, and cut those that are over their limit."""
        for cell in touched.values():
            cell.summary = None
            if cell.packets > self._cell_limit + CUT_SLACK or cell.marks > MARK_LIMIT + CUT_SLACK:
                for row_id in self._cut(connection, cell, now):
                    if row_id in index_of_row:
                        outcome[index_of_row[row_id]] = Kept.LEFT_OUT
        connection.executemany(
            "UPDATE cells SET soonest = ?, packets = ?, marks = ? WHERE id = ?",
            [(cell.soonest, cell.packets, cell.marks, number) for number, cell in touched.items()],
        )

    def _cut(self, connection: sqlite3.Connection, cell: Cell, now: int) -> list[int]:
        """Cut a cell back to its limits; the rows that went."""
        ids, slots, parts, expires, authors = self._index(connection, cell, 0)
        alive = expires > now
        keep = alive & self._sampler.shown(slots, parts, authors, alive)
        keep |= ~alive & (parts != Part.PACKET)
        gone: list[int] = ids[~keep].tolist()
        connection.executemany("DELETE FROM packets WHERE id = ?", [(row,) for row in gone])
        cell.packets = int(np.count_nonzero(keep & (parts == Part.PACKET)))
        cell.marks = int(np.count_nonzero(keep)) - cell.packets
        return gone

    def _index(
        self, connection: sqlite3.Connection, cell: Cell, now: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Row, slot, part, expiry and author of what has not expired, by slot: read from the index alone."""
        rows = connection.execute(
            "SELECT id, slot, part, expires, author FROM packets WHERE cell = ? AND expires > ?"
            " ORDER BY slot, part, id",
            (cell.id, now),
        ).fetchall()
        table = np.array(rows, dtype=np.int64).reshape(-1, 5)
        return table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4]

    def _cell(self, connection: sqlite3.Connection, address: bytes, *, create: bool = False) -> Cell:
        """The counters of a cell; a cell that is not there has number -1 unless it is to be created."""
        cell = self._cells.get(address)
        if cell is None:
            row = connection.execute(
                "SELECT id, soonest, packets, marks FROM cells WHERE address = ?", (address,)
            ).fetchone()
            if row is not None:
                cell = Cell(*row)
            elif create:
                cell = Cell(self._next_cell, 2**62, 0, 0)
                self._next_cell += 1
                connection.execute("INSERT INTO cells VALUES (?, ?, ?, 0, 0)", (cell.id, address, cell.soonest))
            else:
                return Cell(-1, 2**62, 0, 0)
            if len(self._cells) >= _CELLS_CACHED:
                self._cells.clear()
            self._cells[address] = cell
        return cell

    def fetch(
        self, addresses: Iterable[bytes], *, now: int, cap: int = ANSWER_CAP, wanted: Sequence[Wanted] = ()
    ) -> list[Fetched]:
        """The packets of some cells that are in force at ``now``, at most ``cap`` of each.

        A cell with more is sampled by turns of organisations and authors, the same for every question; where authors
        are wanted, among theirs, without those that the asker has.
        """
        answers: list[Fetched] = []
        with self._database.reading() as connection:
            for address in addresses:
                cell = self._cell(connection, address)
                if 0 < cell.packets <= min(cap, self._cell_limit) and not wanted:
                    found = connection.execute(
                        "SELECT body FROM packets WHERE cell = ? AND part = 0 AND expires > ? ORDER BY slot, id",
                        (cell.id, now),
                    ).fetchall()
                    answers.append(Fetched(packets=_array([row[0] for row in found]), left_out=0))
                    continue
                ids, slots, parts, _, authors = self._index(connection, cell, now)
                packets = parts == Part.PACKET
                if wanted:
                    packets &= self._sampler.shown(slots, parts, authors)
                ids, slots, authors = ids[packets], slots[packets], authors[packets]
                if wanted:
                    rows, left = answered(*self._sampler.ranks(slots, authors), cap, wanted)
                    answers.append(Fetched(packets=_array(_bodies(connection, ids[np.sort(rows)])), left_out=left))
                    continue
                total = min(len(ids), self._cell_limit)
                room = min(cap, self._cell_limit)
                if len(ids) > room:
                    ids = ids[np.sort(turn_order(*self._sampler.ranks(slots, authors))[:room])]
                answers.append(Fetched(packets=_array(_bodies(connection, ids)), left_out=total - len(ids)))
        return answers

    def entries(self, address: bytes, *, now: int, wanted: Sequence[Wanted] = ()) -> CellEntries:
        """Everything in force in a cell, of those wanted if any are named, sorted by identity."""
        with self._database.reading() as connection:
            cell = self._cell(connection, address)
            ids, slots, parts, _, authors = self._index(connection, cell, now)
            shown = self._sampler.shown(slots, parts, authors) & by_wanted(authors, wanted)
            bodies = _bodies(connection, ids[shown])
        pairs = sorted(
            (identity_of(body), Part(part)) for body, part in zip(bodies, parts[shown].tolist(), strict=True)
        )
        return CellEntries(identities=tuple(p[0] for p in pairs), parts=tuple(p[1] for p in pairs))

    def digests(self, addresses: Iterable[bytes], *, now: int) -> list[bytes]:
        """32 bytes per cell, equal between two stores exactly if the same is in force in both."""
        return [one.digest for one in self.summaries(addresses, now=now, cap=self._cell_limit)]

    def summaries(
        self, addresses: Iterable[bytes], *, now: int, cap: int, wanted: Sequence[Wanted] = ()
    ) -> list[Summary]:
        """What answers with this cap show of each cell, and what they do not show, as digests.

        Where authors are wanted, both are about theirs alone, what the asker has being not shown.
        """
        found: list[Summary] = []
        for address in addresses:
            with self._database.reading() as connection:
                cell = self._cell(connection, address)
                if wanted:
                    found.append(self._summary(connection, cell, now, cap, wanted))
                    continue
                known = cell.summary
                key = cap if cell.packets > cap else self._cell_limit
                if known is None or known.cap != key or not known.since <= now < known.until:
                    # What has expired and waits for its deletion makes the first expiry useless as a bound.
                    until = cell.soonest if cell.soonest > now else now + 1
                    made = self._summary(connection, cell, now, cap)
                    known = cell.summary = Cached(since=now, until=until, cap=key, summary=made)
            found.append(known.summary)
        return found

    def _summary(
        self, connection: sqlite3.Connection, cell: Cell, now: int, cap: int, wanted: Sequence[Wanted] = ()
    ) -> Summary:
        ids, slots, parts, _, authors = self._index(connection, cell, now)
        kept = self._sampler.shown(slots, parts, authors) & by_wanted(authors, wanted)
        ids, slots, parts, authors = ids[kept], slots[kept], parts[kept], authors[kept]
        shown = parts == Part.PACKET
        if wanted or np.count_nonzero(shown) > cap:
            rows = np.flatnonzero(shown)
            ranks = self._sampler.ranks(slots[rows], authors[rows])
            shown[:] = False
            shown[rows[answered(*ranks, cap, wanted)[0]]] = True
        identities = [identity_of(body) for body in _bodies(connection, ids)]
        pairs = list(zip(identities, shown.tolist(), strict=True))
        rest = set_digest(identity for identity, is_shown in pairs if not is_shown)
        return summary([identity for identity, is_shown in pairs if is_shown], rest)

    def read(self, address: bytes, identities: Iterable[bytes], *, now: int) -> PacketArray:
        """The packets with these identities in a cell, PACKET_DTYPE[m]; withdrawals first, then proofs."""
        wanted = set(identities)
        with self._database.reading() as connection:
            cell = self._cell(connection, address)
            found = connection.execute(
                "SELECT body FROM packets WHERE cell = ? AND expires > ? ORDER BY part DESC, slot, id",
                (cell.id, now),
            ).fetchall()
        return _array([row[0] for row in found if identity_of(row[0]) in wanted])

    def addresses(self) -> list[bytes]:
        """The addresses of all cells with anything in them, sorted."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT address FROM cells WHERE packets + marks > 0 ORDER BY address")
            return [row[0] for row in found]

    def count(self, address: bytes | None = None) -> int:
        """How many packets lie here (of one cell, or in all), withdrawals and proofs not counted."""
        with self._database.reading() as connection:
            if address is not None:
                return min(self._cell(connection, address).packets, self._cell_limit)
            return int(connection.execute("SELECT total(packets) FROM cells").fetchone()[0])

    def drop(self, digests: Mapping[bytes, bytes], *, now: int) -> int:
        """Forget cells that are no longer ours, each only if its digest is still the one given; how many went.

        So a packet that was acknowledged after others were seen to have the cell is not lost with it.
        """
        dropped = 0
        try:
            with self._database.transaction() as connection:
                for address, digest in digests.items():
                    cell = self._cell(connection, address)
                    if cell.id >= 0 and self.digests([address], now=now) == [digest]:
                        connection.execute("DELETE FROM packets WHERE cell = ?", (cell.id,))
                        connection.execute("DELETE FROM cells WHERE id = ?", (cell.id,))
                        self._cells.pop(address, None)
                        dropped += 1
        except BaseException:
            self._cells.clear()
            raise
        return dropped

    def sweep(self, now: int) -> int:
        """Delete what expired more than an hour ago; how many rows went."""
        deadline = now - GRACE_SECONDS
        gone = 0
        try:
            with self._database.transaction() as connection:
                due = connection.execute("SELECT id FROM cells WHERE soonest <= ?", (deadline,)).fetchall()
                for (number,) in due:
                    gone += connection.execute(
                        "DELETE FROM packets WHERE cell = ? AND expires <= ?", (number, deadline)
                    ).rowcount
                    left = connection.execute(
                        "SELECT min(expires), total(part = 0), total(part <> 0) FROM packets WHERE cell = ?",
                        (number,),
                    ).fetchone()
                    if left[0] is None:
                        connection.execute("DELETE FROM cells WHERE id = ?", (number,))
                    else:
                        connection.execute(
                            "UPDATE cells SET soonest = ?, packets = ?, marks = ? WHERE id = ?",
                            (left[0], int(left[1]), int(left[2]), number),
                        )
        finally:
            self._cells.clear()
        return gone

    def pages(self) -> dict[str, int]:
        """Bytes on disk (or in memory) by table and index; empty where the engine cannot tell."""
        return self._database.pages()

    def close(self) -> None:
        """Close the file and free the directory; harmless when repeated."""
        self._database.close()

    def __enter__(self) -> PacketStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _array(bodies: list[bytes]) -> PacketArray:
    return np.frombuffer(b"".join(bodies), dtype=PACKET_DTYPE)


def _bodies(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> list[bytes]:
    """The 512 bytes of some rows, in the order given."""
    found: list[bytes] = []
    for number in ids.tolist():
        found.append(connection.execute("SELECT body FROM packets WHERE id = ?", (number,)).fetchone()[0])
    return found
