"""The sender's, asker's and repairer's side: several holders per address, over any link."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from outroute.packet import PacketArray
from outroute.placement import DEFAULT_REPLICAS, Members, Wanted, majority
from outroute.transports.contract import Answer, Deposited, Link, Receipt
from outroute.transports.exchanging import ANSWER_FRAMES, REQUEST_SECONDS, Exchanger
from outroute.transports.frames import FRAME_PACKETS, Flag, Frame, Kind
from outroute.transports.guard import Guard
from outroute.transports.keeper import Shelf
from outroute.transports.reading import Reader, in_force
from outroute.transports.repairing import Repaired, Repairer

__all__ = ["ANSWER_FRAMES", "REQUEST_SECONDS", "Repaired", "Replicas", "in_force"]


class Replicas:
    """Deposits with, asks and repairs the owners of addresses.

    Args:
        link: carries frames.
        guard: checks what holders send.
        members: the live members as this node knows them now.
        clock: seconds since 1970.
        replicas: owners per address.
        organisation_of: author's key to organisation's key, for the cap of a merged answer.
        request_seconds: time-out of one exchange.
        hedged: whether a slow member is passed over before that; see ``Exchanger``.
    """

    def __init__(
        self,
        link: Link,
        guard: Guard,
        *,
        members: Callable[[], Members],
        clock: Callable[[], int],
        replicas: int = DEFAULT_REPLICAS,
        organisation_of: Mapping[bytes, bytes] | None = None,
        request_seconds: float = REQUEST_SECONDS,
        hedged: bool = True,
    ) -> None:
        self._members = members
        self._replicas = replicas
        self._exchanger = Exchanger(link, request_seconds=request_seconds, hedged=hedged)
        self._reader = Reader(
            self._exchanger,
            guard,
            owners=lambda addresses, count: self._members().owner_ids(addresses, count),
            clock=clock,
            replicas=replicas,
            organisation_of=organisation_of or {},
        )
        self._repairer = Repairer(self._exchanger, owners=self.owners, deposit=self.deposit, clock=clock)

    @property
    def bad_replies(self) -> Counter[bytes]:
        """Replies that were no frame or not what was asked for, by member."""
        return self._exchanger.bad_replies

    def owners(self, addresses: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        """The ids of the owners of each address, nearest first."""
        return self._members().owner_ids(addresses, self._replicas)

    async def deposit(
        self,
        schema: bytes,
        addresses: Sequence[bytes],
        packets: PacketArray,
        *,
        cause: bytes = bytes(16),
        only: bytes | None = None,
        repair: bool = False,
    ) -> Deposited:
        """See ``Holder.deposit``; ``only`` sends to one member, ``repair`` marks traffic between holders."""
        distinct = list(dict.fromkeys(addresses))
        owner_lists = [(only,)] * len(distinct) if only is not None else self.owners(distinct)
        columns = max((len(row) for row in owner_lists), default=0)
        receipts = np.full((len(packets), max(columns, 1)), Receipt.UNREACHABLE, dtype=np.uint8)
        reasons = np.zeros_like(receipts)
        owners_of = dict(zip(distinct, owner_lists, strict=True))
        place = {name: number for number, name in enumerate(distinct)}
        jobs: dict[bytes, list[tuple[int, int]]] = {}
        for row in sorted(range(len(packets)), key=lambda i: place[addresses[i]]):
            for column, owner in enumerate(owners_of[addresses[row]]):
                jobs.setdefault(owner, []).append((row, column))

        async def send(owner: bytes, pairs: list[tuple[int, int]]) -> None:
            for at in range(0, len(pairs), FRAME_PACKETS):
                part = pairs[at : at + FRAME_PACKETS]
                rows = [row for row, _ in part]
                runs = Counter(addresses[row] for row in rows)  # keeps the order of the rows
                frame = Frame(
                    kind=Kind.DEPOSIT,
                    flags=Flag.REPAIR if repair else Flag.NONE,
                    sequence=self._exchanger.next(),
                    cause=cause,
                    schema=schema,
                    addresses=tuple(runs),
                    counts=tuple(runs.values()),
                    packets=packets[rows],
                )
                replies = await self._exchanger.exchange(owner, frame, Kind.RECEIPTS)
                where = tuple(np.array(part, dtype=np.intp).T)
                if replies and replies[0].kind is Kind.BUSY:
                    receipts[where] = Receipt.BUSY
                elif replies and len(replies[0].receipts) == len(part):
                    receipts[where], reasons[where] = replies[0].receipts.T

        await asyncio.gather(*(send(owner, pairs) for owner, pairs in sorted(jobs.items())))
        return Deposited(
            receipts=receipts,
            reasons=reasons,
            needed=majority(1 if only else self._replicas),
            holders=tuple(owners_of[address] for address in addresses),
        )

    async def fetch(
        self,
        schema: bytes,
        addresses: Sequence[bytes],
        *,
        cap: int,
        wanted: Sequence[Wanted] = (),
        cause: bytes = bytes(16),
    ) -> list[Answer]:
        """See ``Holder.fetch`` and ``outroute.transports.reading``."""
        return await self._reader.fetch(schema, addresses, cap=cap, wanted=wanted, cause=cause)

    async def repair(self, me: bytes, shelf: Shelf, *, nearest: bool = False) -> Repaired:
        """One round; see ``Repairer.round``."""
        return await self._repairer.round(me, shelf, nearest=nearest)
