"""The asker's side: the quickest live owner answers, the others say whether they have the same.

Every address is asked of its nearest owner; its other owners are asked for a digest at the same time. An owner that
takes longer than it usually does is not waited for: the next one is asked too, and whoever answers first is taken.
Where owners differ (one lags, keeps something back or lies), all that differ send everything that they have,
withdrawals included, and what is in force in the union is the answer.

Source: Dean and Barroso, "The Tail at Scale" (2013), section "Hedged requests".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from outroute.packet import PACKET_DTYPE, PacketArray, identities, slots
from outroute.packet import Flag as PacketFlag
from outroute.placement import EMPTY_DIGEST, Wanted, answered, slot_ranks, summary
from outroute.transports.contract import Answer
from outroute.transports.exchanging import Exchanger
from outroute.transports.frames import ADDRESSES_PER_FRAME, Flag, Frame, Kind
from outroute.transports.guard import Guard
from outroute.transports.keeper import CAP_LIMIT

__all__ = ["Reader", "in_force"]

#: A whole cell may be four times as late as an answer before it is left out of a union: it is that much larger.
_WHOLE_TIMES = 4.0

#: Packets of one answer that are checked in another thread: so many take more than a millisecond, a thread a tenth.
_BESIDE_FROM = 32

#: How often it is found out who owns a cell: a member counts as gone after two calls that failed.
ROWS_MOST = 3

#: Seconds within which calls of the dead fail: their machine refuses, or the last attempt was just now.
EARLY_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What is wanted of every cell.

    Attributes:
        schema: id of the schema.
        cap: packets of each cell, at most.
        wanted: whose packets, by ascending author; none: everybody's.
        cause: 16 bytes for logs.
    """

    schema: bytes
    cap: int
    wanted: tuple[Wanted, ...]
    cause: bytes

    def of(self, packets: PacketArray) -> NDArray[np.bool_]:
        """Whether each packet is of an author that is wanted, bool[n]."""
        if not self.wanted:
            return np.ones(len(packets), dtype=np.bool_)
        return np.isin(_authors(packets), np.array([one.author for one in self.wanted], dtype=np.uint64))


@dataclass(slots=True)
class _Part:
    """What one holder said about one cell; ``rest`` is the digest of what it has and did not show."""

    packets: PacketArray
    left_out: int
    rest: bytes
    refused: int
    _digest: bytes = b""

    @property
    def digest(self) -> bytes:
        """What another holder says, if it has the same; the packets do not change any more once it was asked for."""
        if not self._digest:
            self._digest = summary(identities(self.packets), self.rest).digest
        return self._digest


@dataclass(slots=True)
class _Cell:
    """One address while it is asked for.

    Attributes:
        owners: whom to ask, nearest first.
        told: whom it was sent to, for packets or a digest.
        tried: how many of the owners were asked for packets.
        waiting: how many of these have not answered yet.
        rows: how often it was found out who the owners are.
        part: the first answer, and ``by`` whom.
        digests: what other owners said, by owner.
    """

    owners: tuple[bytes, ...]
    told: dict[bytes, None]
    tried: int = 0
    waiting: int = 0
    rows: int = 1
    part: _Part | None = None
    by: bytes = b""
    digests: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def differing(self) -> list[bytes]:
        """Owners that have something else than the first answer shows."""
        if self.part is None:
            return []
        said = self.part.digest
        return [one for one, digest in self.digests.items() if one != self.by and digest != said]

    @property
    def adding(self) -> list[bytes]:
        """Those among them that have anything: a newcomer that has nothing yet adds nothing."""
        return [one for one in self.differing if self.digests[one] != EMPTY_DIGEST]

    @property
    def agreed(self) -> bool | None:
        """Whether the others have the same; None when none of them answered."""
        others = [one for one in self.digests if one != self.by]
        return not self.differing if others else None


@dataclass(slots=True)
class _Asked:
    """A question under way to one member, and when it is late."""

    member: bytes
    names: list[bytes]
    late: float
    passed: bool = False


class Reader:
    """Reads cells from their owners.

    Args:
        exchanger: carries questions.
        guard: checks what holders send.
        owners: so many owners of some addresses each, nearest first.
        clock: seconds since 1970.
        replicas: owners per address.
        organisation_of: author's key to organisation's key, for the cap of a merged answer.
    """

    def __init__(
        self,
        exchanger: Exchanger,
        guard: Guard,
        *,
        owners: Callable[[Sequence[bytes], int], list[tuple[bytes, ...]]],
        clock: Callable[[], int],
        replicas: int,
        organisation_of: Mapping[bytes, bytes],
    ) -> None:
        self._exchanger, self._guard, self._owners = exchanger, guard, owners
        self._clock, self._replicas, self._organisation_of = clock, replicas, organisation_of

    async def fetch(
        self, schema: bytes, addresses: Sequence[bytes], *, cap: int, wanted: Sequence[Wanted], cause: bytes
    ) -> list[Answer]:
        """See ``Holder.fetch``."""
        wish = _Wish(schema=schema, cap=min(cap, CAP_LIMIT), wanted=tuple(sorted(wanted)), cause=cause)
        distinct = list(dict.fromkeys(addresses))
        rows = self._owners(distinct, self._replicas)
        cells = {name: _Cell(row, dict.fromkeys(row)) for name, row in zip(distinct, rows, strict=True)}
        asking = self._ask_next(cells, cells, wish, early=True)  # first: it takes longest
        comparing = self._compare_others(cells, wish)
        try:
            await self._first(asking, cells, wish)
            await self._digests(cells, comparing)
        finally:
            for task, asked in comparing.items():
                if not task.done():
                    self._exchanger.let_go(asked.member, task)
        agreed = {name: cell.agreed for name, cell in cells.items()}
        await self._merge({name: cell for name, cell in cells.items() if cell.adding}, wish)
        return [_answer(name, cells[name].part, agreed[name], tuple(cells[name].told)) for name in addresses]

    def _compare_others(
        self, cells: Mapping[bytes, _Cell], wish: _Wish
    ) -> dict[asyncio.Task[dict[bytes, bytes]], _Asked]:
        """Ask the owners that are not asked for packets for their digests."""
        groups: dict[bytes, list[bytes]] = {}
        for name, cell in cells.items():
            for owner in cell.owners[1:]:
                groups.setdefault(owner, []).append(name)
        loop = asyncio.get_running_loop()
        return {
            loop.create_task(
                self._exchanger.compare(member, names, wish.cap, wanted=wish.wanted, cause=wish.cause)
            ): _Asked(member, names, loop.time() + self._exchanger.usual(member, Kind.COMPARE, len(names)))
            for member, names in sorted(groups.items())
        }

    def _ask_next(
        self,
        cells: Mapping[bytes, _Cell],
        names: Iterable[bytes],
        wish: _Wish,
        *,
        early: bool,
    ) -> dict[asyncio.Task[dict[bytes, _Part]], _Asked]:
        """Ask the next owner of some cells for packets."""
        loop = asyncio.get_running_loop()
        groups: dict[bytes, list[bytes]] = {}
        for name in names:
            owner = self._next_owner(name, cells[name], early)
            if owner is not None:
                groups.setdefault(owner, []).append(name)
        return {
            loop.create_task(self._ask(member, wanted, wish)): _Asked(
                member, wanted, loop.time() + self._exchanger.usual(member, Kind.ASK, len(wanted))
            )
            for member, wanted in sorted(groups.items())
        }

    async def _first(
        self,
        pending: dict[asyncio.Task[dict[bytes, _Part]], _Asked],
        cells: Mapping[bytes, _Cell],
        wish: _Wish,
    ) -> None:
        """Ask until every cell has an answer or nobody is left; who is late is passed over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while pending and any(cell.part is None for cell in cells.values()):
                waited = [asked.late for asked in pending.values() if not asked.passed]
                timeout = max(0.0, min(waited) - loop.time()) if waited else None
                done, _ = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                again: list[bytes] = []
                for task in done:
                    asked = pending.pop(task)
                    for name, part in task.result().items():
                        if cells[name].part is None:
                            cells[name].part, cells[name].by = part, asked.member
                    for name in asked.names:
                        cells[name].waiting -= 1
                        if cells[name].part is None and not cells[name].waiting:
                            again.append(name)
                for asked in pending.values():
                    if not asked.passed and asked.late <= loop.time():
                        asked.passed = True
                        again += [name for name in asked.names if cells[name].part is None]
                early = loop.time() - began < EARLY_SECONDS
                pending |= self._ask_next(cells, dict.fromkeys(again), wish, early=early)
        finally:
            for task, asked in pending.items():
                self._exchanger.let_go(asked.member, task)

    def _next_owner(self, name: bytes, cell: _Cell, early: bool) -> bytes | None:
        """Whom to ask next; when the calls of all owners failed, those that own the cell now that these are gone.

        Owners that do not answer in time are not gone: then nobody else may speak for the cell.
        """
        if cell.tried == len(cell.owners) and not cell.waiting and early and cell.rows < ROWS_MOST:
            cell.owners, cell.tried, cell.rows = self._owners([name], self._replicas)[0], 0, cell.rows + 1
        if cell.tried >= len(cell.owners):
            return None
        owner = cell.owners[cell.tried]
        cell.told[owner] = None
        cell.tried += 1
        cell.waiting += 1
        return owner

    async def _digests(
        self, cells: Mapping[bytes, _Cell], comparing: Mapping[asyncio.Task[dict[bytes, bytes]], _Asked]
    ) -> None:
        """Wait for digests: for one of each cell, and for the others as long as they usually take."""
        loop = asyncio.get_running_loop()
        pending = dict(comparing)
        while True:
            for task in [task for task in pending if task.done()]:
                asked = pending.pop(task)
                for name, digest in task.result().items():
                    cells[name].digests[asked.member] = digest
            alone = any(
                cells[name].part is not None and cells[name].agreed is None
                for asked in pending.values()
                for name in asked.names
            )
            left = max((asked.late for asked in pending.values()), default=0.0) - loop.time()
            if not pending or (left <= 0 and not alone):
                return
            await asyncio.wait(pending, timeout=None if left <= 0 else left, return_when=asyncio.FIRST_COMPLETED)

    async def _ask(
        self, member: bytes, addresses: Sequence[bytes], wish: _Wish, *, whole: bool = False
    ) -> dict[bytes, _Part]:
        """What one member answers, checked; addresses that it does not answer are missing."""
        found: dict[bytes, _Part] = {}
        for at in range(0, len(addresses), ADDRESSES_PER_FRAME):
            wanted = tuple(addresses[at : at + ADDRESSES_PER_FRAME])
            frame = Frame(
                kind=Kind.ASK,
                flags=Flag.WHOLE if whole else Flag.NONE,
                sequence=self._exchanger.next(),
                cause=wish.cause,
                schema=wish.schema,
                addresses=wanted,
                cap=wish.cap,
                wanted=wish.wanted,
            )
            replies = await self._exchanger.exchange(member, frame, Kind.ANSWER)
            if not replies or replies[0].kind is Kind.BUSY:
                continue
            pieces: dict[bytes, list[PacketArray]] = {}
            for reply in replies:
                if not set(reply.addresses) <= set(wanted):
                    self._exchanger.bad_replies[member] += 1
                    continue
                names = [name for name, count in zip(reply.addresses, reply.counts, strict=True) for _ in range(count)]
                good = (await self._check(wish.schema, names, reply.packets) == 0) & wish.of(reply.packets)
                all_good = bool(good.all())
                start = 0
                for name, digest, count, left in zip(
                    reply.addresses, reply.digests, reply.counts, reply.left_out, strict=True
                ):
                    piece, refused = reply.packets[start : start + count], 0
                    if not all_good:
                        piece = piece[good[start : start + count]]
                        refused = count - len(piece)
                    pieces.setdefault(name, []).append(piece)
                    before = found[name].refused if name in found else 0
                    found[name] = _Part(piece, left, digest, before + refused)
                    start += count
            for name, parts in pieces.items():
                if len(parts) > 1:
                    found[name].packets = np.concatenate(parts)
        return found

    async def _check(self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray) -> NDArray[np.uint8]:
        """Why each packet is refused; many are checked beside the loop, so that several answers are at a time."""
        if len(packets) < _BESIDE_FROM:
            return self._guard.check(schema, addresses, packets, now=self._clock())
        return await asyncio.to_thread(self._guard.check, schema, addresses, packets, now=self._clock())

    async def _merge(self, cells: Mapping[bytes, _Cell], wish: _Wish) -> None:
        """Put the union of what holders have in place of each first answer."""
        groups: dict[bytes, list[bytes]] = {}
        for name, cell in cells.items():
            for owner in [cell.by, *cell.adding]:
                groups.setdefault(owner, []).append(name)
        if not groups:
            return
        loop = asyncio.get_running_loop()
        tasks = {
            loop.create_task(self._ask(member, names, wish, whole=True)): member
            for member, names in sorted(groups.items())
        }
        usual = [self._exchanger.usual(member, Kind.ASK, len(names)) for member, names in groups.items()]
        patience = _WHOLE_TIMES * max(usual)
        done, late = await asyncio.wait(tasks, timeout=patience)
        for task in late:
            self._exchanger.let_go(tasks[task], task)
        whole: dict[bytes, list[_Part]] = {}
        for task in sorted(done, key=lambda one: tasks[one]):
            for name, part in task.result().items():
                whole.setdefault(name, []).append(part)
        for name, cell in cells.items():
            if cell.part is not None:
                cell.part = self._union(cell.part, whole.get(name, []), wish)

    def _union(self, known: _Part, whole: Sequence[_Part], wish: _Wish) -> _Part:
        """What holders have together, with withdrawals and equivocation applied, cut to the cap."""
        parts = [known, *whole]
        packets = in_force(np.concatenate([part.packets for part in parts]))
        left_out = max(part.left_out for part in parts)
        if len(packets) > wish.cap or wish.wanted:
            keys = [bytes(author) for author in packets["author"]]
            organisations = np.array(
                [int.from_bytes(self._organisation_of.get(key, key)[:8], "little") for key in keys], dtype=np.uint64
            )
            shown, more = answered(slot_ranks(packets), _authors(packets), organisations, wish.cap, wish.wanted)
            left_out = max(left_out, more)
            packets = packets[np.sort(shown)]
        return _Part(packets, left_out, known.rest, max(part.refused for part in parts))


def in_force(packets: PacketArray) -> PacketArray:
    """The packets of a union that are answered: no duplicates, no withdrawn slot, no slot with two packets."""
    by_slot: dict[bytes, dict[bytes, int]] = {}
    withdrawn = (packets["flags"] & np.uint16(PacketFlag.WITHDRAWAL)) != 0
    gone: set[bytes] = set()
    for row, (slot, identity) in enumerate(zip(slots(packets), identities(packets), strict=True)):
        by_slot.setdefault(slot, {})[identity] = row
        if withdrawn[row]:
            gone.add(slot)
    rows: list[int] = [
        next(iter(found.values())) for slot, found in by_slot.items() if len(found) == 1 and slot not in gone
    ]
    chosen: NDArray[np.intp] = np.array(rows, dtype=np.intp)
    kept = packets[chosen]
    return kept[np.argsort(slot_ranks(kept), kind="stable")]


def _authors(packets: PacketArray) -> NDArray[np.uint64]:
    """The leading bytes of each author's key."""
    found: NDArray[np.uint64] = np.ascontiguousarray(packets["author"][:, :8]).view("<u8")[:, 0]
    return found


def _answer(name: bytes, part: _Part | None, agreed: bool | None, asked: tuple[bytes, ...]) -> Answer:
    if part is None:
        empty = np.empty(0, dtype=PACKET_DTYPE)
        return Answer(address=name, packets=empty, left_out=0, refused=0, complete=False, agreed=None, asked=asked)
    return Answer(
        address=name,
        packets=part.packets,
        left_out=part.left_out,
        refused=part.refused,
        complete=True,
        agreed=agreed,
        asked=asked,
    )
