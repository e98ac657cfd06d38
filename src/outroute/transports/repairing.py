"""The repairer's side: the owners of a cell find out that they differ, and give each other what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from outroute.packet import PacketArray
from outroute.placement import EMPTY_DIGEST, missing
from outroute.transports.contract import Deposited
from outroute.transports.exchanging import ALL, Exchanger
from outroute.transports.frames import Flag, Frame, Kind
from outroute.transports.keeper import Shelf

__all__ = ["Repaired", "Repairer"]

#: Cells worked on at a time: eight full ones are 16 MiB, and a question never waits for more than these.
_CELLS_AT_ONCE = 8

#: Cells whose digests are taken, or that are given up, before others have their turn.
_CELLS_IN_TURN = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What one round of repair did.

    Attributes:
        sent: packets sent to other owners.
        dropped: cells given up to their new owners.
        unsettled: copies of cells of which it is not known that they are whole: their owner did not answer or did not
            take all, or it was left to a nearer owner.
    """

    sent: int
    dropped: int
    unsettled: int = 0


class _Deposit(Protocol):
    async def __call__(
        self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray, *, only: bytes, repair: bool
    ) -> Deposited: ...


class Repairer:
    """Keeps the owners of cells equal.

    Args:
        exchanger: carries questions.
        owners: the owners of some addresses each, nearest first.
        deposit: brings packets to one member.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        exchanger: Exchanger,
        *,
        owners: Callable[[Sequence[bytes]], list[tuple[bytes, ...]]],
        deposit: _Deposit,
        clock: Callable[[], int],
    ) -> None:
        self._exchanger, self._owners, self._deposit, self._clock = exchanger, owners, deposit, clock

    async def round(self, me: bytes, shelf: Shelf, *, nearest: bool = False) -> Repaired:
        """Give the other owners what they lack, and give up cells that are no longer mine.

        A cell is given up only after every owner has confirmed all of it. Run it on each member; a round of
        all members makes the owners of a cell equal when no packet arrives meanwhile.

        Args:
            me: this member's id.
            shelf: what it keeps.
            nearest: leave a cell to its nearest owner, so that a newcomer does not get everything twice; what that
                owner lacks itself is found in the next round.
        """
        names = shelf.addresses()
        owners = dict(zip(names, self._owners(names), strict=True))
        mine: dict[bytes, bytes] = {}
        for at in range(0, len(names), _CELLS_IN_TURN):
            part = names[at : at + _CELLS_IN_TURN]
            found = shelf.summaries(part, now=self._clock(), cap=ALL)
            mine.update((name, one.digest) for name, one in zip(part, found, strict=True))
            await asyncio.sleep(0)
        shared: dict[bytes, list[bytes]] = {}
        for name, row in owners.items():
            for member in row:
                if member != me:
                    shared.setdefault(member, []).append(name)
        settled = dict.fromkeys(names, 0)
        sent = 0

        async def bring(member: bytes) -> None:
            nonlocal sent
            theirs = await self._exchanger.compare(member, shared[member], ALL, repair=True)
            differing: list[bytes] = []
            for name in shared[member]:
                if theirs.get(name) == mine[name]:
                    settled[name] += 1
                elif name in theirs and not (nearest and me != next(o for o in owners[name] if o != member)):
                    differing.append(name)
            for at in range(0, len(differing), _CELLS_AT_ONCE):
                part = {name: theirs[name] for name in differing[at : at + _CELLS_AT_ONCE]}
                number, complete = await self._bring(member, part, shelf)
                sent += number
                for name in complete:
                    settled[name] += 1

        await asyncio.gather(*(bring(member) for member in sorted(shared)))
        wanted = {name: sum(member != me for member in row) for name, row in owners.items()}
        unsettled = sum(wanted[name] - settled[name] for name in names)
        left = {
            name: mine[name]
            for name, row in owners.items()
            if row and me not in row and settled[name] == len(row) and row == self._owners([name])[0]
        }
        dropped = 0
        for at in range(0, len(left), _CELLS_IN_TURN):
            some = list(left.items())[at : at + _CELLS_IN_TURN]
            dropped += shelf.drop(dict(some), now=self._clock())
            await asyncio.sleep(0)
        return Repaired(sent=sent, dropped=dropped, unsettled=unsettled)

    async def _bring(self, member: bytes, digests: dict[bytes, bytes], shelf: Shelf) -> tuple[int, set[bytes]]:
        """Send a member what it lacks of some cells, withdrawals first; how many, and which cells it has whole."""
        lists = await asyncio.gather(*(self._listed(member, name, digest) for name, digest in digests.items()))
        complete: set[bytes] = set()
        pieces: list[PacketArray] = []
        places: list[bytes] = []
        now = self._clock()
        for name, have in zip(digests, lists, strict=True):
            if have is None:
                continue
            packets = shelf.read(name, missing(shelf.entries(name, now=now).identities, have), now=now)
            complete.add(name)
            pieces.append(packets)
            places += [name] * len(packets)
        if not places:
            return 0, complete
        packets = np.concatenate(pieces)
        for schema in dict.fromkeys(one.tobytes() for one in packets["schema"]):
            rows = np.flatnonzero((packets["schema"] == np.frombuffer(schema, dtype=np.uint8)).all(axis=1))
            done = await self._deposit(
                schema, [places[i] for i in rows.tolist()], packets[rows], only=member, repair=True
            )
            taken = done.acknowledged | done.replicated | done.refused
            complete -= {places[i] for i in rows[~taken].tolist()}
        return len(places), complete

    async def _listed(self, member: bytes, name: bytes, digest: bytes) -> list[bytes] | None:
        """Identities that a member has of a cell; None when it does not say."""
        if digest == EMPTY_DIGEST:
            return []
        frame = Frame(kind=Kind.LIST, flags=Flag.REPAIR, sequence=self._exchanger.next(), addresses=(name,))
        replies = await self._exchanger.exchange(member, frame, Kind.LISTING)
        if not replies or replies[0].kind is Kind.BUSY:
            return None
        return [identity for reply in replies for _, identity in reply.listed]
