"""The sender's, asker's and repairer's side: several holders per address, over any link."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.packet import PACKET_DTYPE, PacketArray, identities, slots
from outroute.packet import Flag as PacketFlag
from outroute.placement import DEFAULT_REPLICAS, Members, majority, missing, slot_ranks, summary, turn_order
from outroute.transports.contract import Answer, Deposited, Link, Receipt, UnreachableError
from outroute.transports.frames import (
    ADDRESSES_PER_FRAME,
    FRAME_PACKETS,
    Flag,
    Frame,
    Kind,
    Rejected,
    decode,
    encode,
)
from outroute.transports.guard import Guard
from outroute.transports.keeper import CAP_LIMIT, Shelf

__all__ = ["ANSWER_FRAMES", "REQUEST_SECONDS", "Repaired", "Replicas"]

#: Seconds until a holder that does not answer is passed over: ten times what a loaded holder takes for the
#: largest frame with every signature to check.
REQUEST_SECONDS = 5.0

#: Frames that one reply may have: 128 cells of 256 packets, or a whole cell with its withdrawals.
ANSWER_FRAMES = 512


#: As a cap: all packets of a cell.
ALL = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What one round of repair did: packets sent to other owners, cells given up to their new owners."""

    sent: int
    dropped: int


@dataclass(slots=True)
class _Part:
    """What one holder said about one cell; ``rest`` is the digest of what it has and did not show."""

    packets: PacketArray
    left_out: int
    rest: bytes
    refused: int

    @property
    def digest(self) -> bytes:
        """What another holder says, if it has the same."""
        return summary(identities(self.packets), self.rest).digest


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
    ) -> None:
        self._link = link
        self._guard = guard
        self._members = members
        self._clock = clock
        self._replicas = replicas
        self._organisation_of = organisation_of or {}
        self._request_seconds = request_seconds
        self._sequence = 0
        self.bad_replies: Counter[bytes] = Counter()
        """Replies that were no frame or not what was asked for, by member."""

    def owners(self, addresses: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        """The ids of the owners of each address, nearest first."""
        return self._members().owner_ids(addresses, self._replicas)

    async def _exchange(self, member: bytes, frame: Frame, kind: Kind) -> list[Frame]:
        """Frames of ``kind`` that answer a frame; none when the member does not answer or answers nonsense."""
        try:
            async with asyncio.timeout(self._request_seconds):
                replies = await self._link.request(member, encode(frame))
        except (UnreachableError, TimeoutError):
            return []
        found: list[Frame] = []
        for data in replies[:ANSWER_FRAMES]:
            reply = decode(data)
            if isinstance(reply, Frame) and reply.kind is Kind.BUSY:
                return [reply]
            if isinstance(reply, Rejected) or reply.kind is not kind or reply.sequence != frame.sequence:
                self.bad_replies[member] += 1
                return []
            found.append(reply)
        if not found or found[-1].flags & Flag.MORE:
            self.bad_replies[member] += 1
            return []
        return found

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

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
                    sequence=self._next(),
                    cause=cause,
                    schema=schema,
                    addresses=tuple(runs),
                    counts=tuple(runs.values()),
                    packets=packets[rows],
                )
                replies = await self._exchange(owner, frame, Kind.RECEIPTS)
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
        self, schema: bytes, addresses: Sequence[bytes], *, cap: int, cause: bytes = bytes(16)
    ) -> list[Answer]:
        """See ``Holder.fetch``: the nearest live owner answers, another one's digest is compared.

        Where they differ (one lags, or lies), both send all they have, withdrawals included, and what is in
        force in the union is the answer.
        """
        cap = min(cap, CAP_LIMIT)
        distinct = list(dict.fromkeys(addresses))
        owners = dict(zip(distinct, self.owners(distinct), strict=True))
        first: dict[bytes, _Part] = {}
        asked: dict[bytes, int] = dict.fromkeys(distinct, 0)
        while todo := [a for a in distinct if a not in first and asked[a] < len(owners[a])]:
            groups: dict[bytes, list[bytes]] = {}
            for name in todo:
                groups.setdefault(owners[name][asked[name]], []).append(name)
                asked[name] += 1
            found = await asyncio.gather(
                *(self._ask(m, schema, names, cap, cause) for m, names in sorted(groups.items()))
            )
            for answered in found:
                first.update(answered)
        second = {a: owners[a][asked[a]] for a in first if asked[a] < len(owners[a])}
        digests = await self._compare(second, cause, cap)
        answers: dict[bytes, Answer] = {}
        for name in distinct:
            part = first.get(name)
            told = owners[name][: asked[name]] + ((second[name],) if name in second else ())
            if part is None:
                answers[name] = _answer(name, None, None, told)
                continue
            agreed = None if name not in digests else digests[name] == part.digest
            if agreed is False:
                part = await self._merge(schema, name, owners[name][asked[name] - 1], second[name], part, cap, cause)
            answers[name] = _answer(name, part, agreed, told)
        return [answers[name] for name in addresses]

    async def _ask(
        self, member: bytes, schema: bytes, addresses: Sequence[bytes], cap: int, cause: bytes, *, whole: bool = False
    ) -> dict[bytes, _Part]:
        """What one member answers, checked; addresses that it does not answer are missing."""
        found: dict[bytes, _Part] = {}
        for at in range(0, len(addresses), ADDRESSES_PER_FRAME):
            wanted = tuple(addresses[at : at + ADDRESSES_PER_FRAME])
            frame = Frame(
                kind=Kind.ASK,
                flags=Flag.WHOLE if whole else Flag.NONE,
                sequence=self._next(),
                cause=cause,
                schema=schema,
                addresses=wanted,
                cap=cap,
            )
            replies = await self._exchange(member, frame, Kind.ANSWER)
            if not replies or replies[0].kind is Kind.BUSY:
                continue
            pieces: dict[bytes, list[PacketArray]] = {}
            for reply in replies:
                if not set(reply.addresses) <= set(wanted):
                    self.bad_replies[member] += 1
                    continue
                names = np.repeat(np.arange(len(reply.addresses)), reply.counts).tolist()
                reasons = self._guard.check(
                    schema, [reply.addresses[i] for i in names], reply.packets, now=self._clock()
                )
                start = 0
                for name, digest, count, left in zip(
                    reply.addresses, reply.digests, reply.counts, reply.left_out, strict=True
                ):
                    good = reasons[start : start + count] == 0
                    pieces.setdefault(name, []).append(reply.packets[start : start + count][good])
                    before = found[name].refused if name in found else 0
                    found[name] = _Part(reply.packets[:0], left, digest, before + count - int(good.sum()))
                    start += count
            for name, parts in pieces.items():
                found[name].packets = np.concatenate(parts)
        return found

    async def _compare(
        self, members: Mapping[bytes, bytes], cause: bytes, cap: int, *, repair: bool = False
    ) -> dict[bytes, bytes]:
        """The digest of each address at the member named beside it; missing where it does not answer."""
        groups: dict[bytes, list[bytes]] = {}
        for name, member in members.items():
            groups.setdefault(member, []).append(name)

        async def one(member: bytes, names: list[bytes]) -> dict[bytes, bytes]:
            found: dict[bytes, bytes] = {}
            for at in range(0, len(names), ADDRESSES_PER_FRAME):
                wanted = tuple(names[at : at + ADDRESSES_PER_FRAME])
                flags = Flag.REPAIR if repair else Flag.NONE
                frame = Frame(
                    kind=Kind.COMPARE, flags=flags, sequence=self._next(), cause=cause, addresses=wanted, cap=cap
                )
                for reply in await self._exchange(member, frame, Kind.DIGESTS):
                    if reply.kind is Kind.DIGESTS and reply.addresses == wanted:
                        found.update(zip(reply.addresses, reply.digests, strict=True))
            return found

        parts = await asyncio.gather(*(one(m, names) for m, names in sorted(groups.items())))
        return {name: digest for part in parts for name, digest in part.items()}

    async def _merge(
        self, schema: bytes, name: bytes, first: bytes, second: bytes, known: _Part, cap: int, cause: bytes
    ) -> _Part:
        """The union of what two holders have, with withdrawals and equivocation applied, cut to the cap."""
        parts = [known]
        for member in (first, second):
            parts += (await self._ask(member, schema, [name], cap, cause, whole=True)).values()
        packets = in_force(np.concatenate([part.packets for part in parts]))
        left_out = max(part.left_out for part in parts)
        if len(packets) > cap:
            authors = np.ascontiguousarray(packets["author"][:, :8]).view("<u8")[:, 0]
            keys = [bytes(author) for author in packets["author"]]
            organisations = np.array(
                [int.from_bytes(self._organisation_of.get(key, key)[:8], "little") for key in keys], dtype=np.uint64
            )
            order = turn_order(slot_ranks(packets), authors, organisations)
            left_out = max(left_out, len(packets) - cap)
            packets = packets[np.sort(order[:cap])]
        return _Part(packets, left_out, known.rest, max(part.refused for part in parts))

    async def repair(self, me: bytes, shelf: Shelf) -> Repaired:
        """One round: give the other owners what they lack, and give up cells that are no longer mine.

        A cell is given up only after every owner has confirmed all of it. Run it on each member; a round of
        all members makes the owners of a cell equal when no packet arrives meanwhile.
        """
        addresses = shelf.addresses()
        sent = dropped = 0
        settled = dict.fromkeys(addresses, 0)
        owners = dict(zip(addresses, self.owners(addresses), strict=True))
        mine = dict(zip(addresses, shelf.summaries(addresses, now=self._clock(), cap=ALL), strict=True))
        for column in range(self._replicas):
            others = {a: row[column] for a, row in owners.items() if column < len(row) and row[column] != me}
            theirs = await self._compare(others, bytes(16), ALL, repair=True)
            for name, member in others.items():
                if name not in theirs:
                    continue
                if theirs[name] == mine[name].digest:
                    settled[name] += 1
                    continue
                number, complete = await self._send_missing(name, member, shelf)
                sent += number
                settled[name] += complete
        for name, row in owners.items():
            if me not in row and row and settled[name] == len(row):
                shelf.drop(name)
                dropped += 1
        return Repaired(sent=sent, dropped=dropped)

    async def _send_missing(self, name: bytes, member: bytes, shelf: Shelf) -> tuple[int, bool]:
        """Send a member what it lacks of a cell, withdrawals first; how many, and whether it took them all."""
        frame = Frame(kind=Kind.LIST, flags=Flag.REPAIR, sequence=self._next(), addresses=(name,))
        replies = await self._exchange(member, frame, Kind.LISTING)
        if not replies or replies[0].kind is Kind.BUSY:
            return 0, False
        have = [identity for reply in replies for _, identity in reply.listed]
        now = self._clock()
        lacking = missing(shelf.entries(name, now=now).identities, have)
        packets = shelf.read(name, lacking, now=now)
        if len(packets) == 0:
            return 0, True
        schema = packets["schema"][0].tobytes()
        done = await self.deposit(schema, [name] * len(packets), packets, only=member, repair=True)
        return len(packets), bool((done.acknowledged | done.replicated | done.refused).all())


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
