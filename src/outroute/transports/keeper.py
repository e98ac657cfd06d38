"""The holder's side: frames in, frames out, over any link.

Pure but for its shelf (the packet store it is given): no sockets, no clock of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PACKET_DTYPE, PacketArray, identities
from outroute.placement import Kept, Part, Summary, Wanted, summary
from outroute.transports.contract import Receipt
from outroute.transports.frames import (
    FRAME_PACKETS,
    IDENTITIES_PER_FRAME,
    Flag,
    Frame,
    FrameReason,
    Kind,
    Rejected,
    decode,
    encode,
)
from outroute.transports.guard import Guard, Use
from outroute.transports.standing import Standing

__all__ = ["CAP_LIMIT", "Answered", "Keeper", "Shelf"]

#: Told of every question that is answered: the asker's id where the link knows it, and the addresses.
Answered = Callable[[bytes | None, Sequence[bytes]], None]

#: Packets of one cell in one answer, whatever the question says: 256 at 512 bytes are two frames.
CAP_LIMIT = 256

#: Milliseconds until statements are sent again to a member whose disk is full.
_FULL_MILLISECONDS = 1000


_KIND_AT = 4
"""Place of the kind in a frame."""


def _receipt_of(durable: bool) -> NDArray[np.uint8]:
    """The receipt for what a store says of a packet."""
    table = np.zeros(len(Kept), dtype=np.uint8)
    table[Kept.STORED] = Receipt.DURABLE if durable else Receipt.HELD
    table[Kept.DUPLICATE] = Receipt.DUPLICATE if durable else Receipt.HELD_DUPLICATE
    table[Kept.WITHDRAWN] = Receipt.WITHDRAWN
    table[Kept.EQUIVOCATION] = Receipt.EQUIVOCATION
    table[Kept.EXPIRED] = Receipt.REJECTED
    table[Kept.LEFT_OUT] = Receipt.LEFT_OUT
    return table


_RECEIPT_OF = {durable: _receipt_of(durable) for durable in (False, True)}


def _repeated(names: Sequence[bytes], counts: Sequence[int]) -> list[bytes]:
    """Each name as often as its count says."""
    if len(names) == sum(counts):
        return list(names)
    return [name for name, count in zip(names, counts, strict=True) for _ in range(count)]


def _joined(parts: Sequence[PacketArray]) -> PacketArray:
    """Packets one after the other; joined as bytes, which is much faster than field by field."""
    raw = np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts])
    return raw.view(PACKET_DTYPE)


class _Fetched(Protocol):
    @property
    def packets(self) -> PacketArray: ...
    @property
    def left_out(self) -> int: ...


class _Entries(Protocol):
    @property
    def identities(self) -> tuple[bytes, ...]: ...
    @property
    def parts(self) -> tuple[Part, ...]: ...


class Shelf(Protocol):
    """What a holder needs of a store; ``outroute.store.PacketStore`` is one."""

    @property
    def durable(self) -> bool:
        """True when what is kept is on disk."""

    def put(
        self, addresses: Sequence[bytes], packets: PacketArray, *, bucket_seconds: int, now: int
    ) -> NDArray[np.uint8]:
        """Keep verified packets; a ``Kept`` each."""

    def fetch(
        self, addresses: Iterable[bytes], *, now: int, cap: int, wanted: Sequence[Wanted] = ()
    ) -> Sequence[_Fetched]:
        """What cells answer."""

    def entries(self, address: bytes, *, now: int, wanted: Sequence[Wanted] = ()) -> _Entries:
        """Everything in force in a cell, of those wanted if any are named."""

    def summaries(
        self, addresses: Iterable[bytes], *, now: int, cap: int, wanted: Sequence[Wanted] = ()
    ) -> list[Summary]:
        """What each cell shows and keeps back with this cap, as digests."""

    def read(self, address: bytes, identities: Iterable[bytes], *, now: int) -> PacketArray:
        """Some entries of a cell; withdrawals first."""

    def addresses(self) -> list[bytes]:
        """All cells with anything in them."""

    def drop(self, digests: Mapping[bytes, bytes], *, now: int) -> int:
        """Forget cells whose digest is still the one given; how many."""

    def set_organisations(self, organisation_of: Mapping[bytes, bytes]) -> None:
        """Sample by these organisations from now on: author's key to organisation's key."""


class Keeper:
    """Answers the frames that reach a holder.

    Args:
        shelf: where packets are kept.
        guard: checks them.
        owns: for some addresses, whether this member is an owner of each.
        clock: seconds since 1970.
        standing: what this member knows about keys; default nothing.
    """

    def __init__(
        self,
        shelf: Shelf,
        guard: Guard,
        *,
        owns: Callable[[Sequence[bytes]], Sequence[bool]],
        clock: Callable[[], int],
        standing: Standing | None = None,
    ) -> None:
        self.shelf = shelf
        self.standing = standing or Standing()
        self.guard = guard.under(self.standing.register)
        self.answered: Answered | None = None
        """Set it to be told which questions of others are answered, in the thread that answers them."""
        self.refused_frames: Counter[FrameReason] = Counter()
        """Frames refused so far, by reason."""
        self.receipts: Counter[Receipt] = Counter()
        """Receipts given so far."""
        self.last_store_error: StoreError | None = None
        """Why packets could not be kept the last time it went wrong: a full disk, say."""
        self._owns = owns
        self._clock = clock

    def handle(self, data: bytes, sender: bytes | None = None) -> list[bytes]:
        """The frames that answer a frame: at least one, whatever it is.

        Args:
            data: the frame.
            sender: id of the member that it comes from, where the link knows it.
        """
        frame = decode(data)
        if isinstance(frame, Rejected):
            return [self._refuse(frame.reason)]
        if frame.kind is Kind.STATEMENTS:
            return [self._statements(frame, sender)]
        if frame.kind is Kind.DEPOSIT:
            return self._deposits([frame])
        if self._shut_out(frame, sender):
            return [self._refuse(FrameReason.REVOKED, frame.sequence)]
        if frame.kind is Kind.ASK:
            if self.answered is not None:
                self.answered(sender, frame.addresses)
            return self._answer(frame)
        if frame.kind is Kind.COMPARE:
            return [self._reply(frame, Kind.DIGESTS, addresses=frame.addresses, digests=self._digests(frame))]
        if frame.kind is Kind.LIST:
            return self._list(frame)
        return [self._refuse(FrameReason.UNEXPECTED, frame.sequence)]

    def _shut_out(self, frame: Frame, sender: bytes | None) -> bool:
        """Whether a frame comes from a revoked member. What it keeps for others it may still hand over.

        Its deposits are judged by their authors, packet by packet.
        """
        if sender is None or frame.flags & Flag.REPAIR:
            return False
        return self.standing.register.member_revoked(sender, self._clock())

    def _statements(self, frame: Frame, sender: bytes | None) -> bytes:
        try:
            return encode(self.standing.answer(frame, sender, self._clock()))
        except StoreError as error:
            self.last_store_error = error
            return encode(Frame(kind=Kind.BUSY, sequence=frame.sequence, detail=_FULL_MILLISECONDS))

    def _digests(self, frame: Frame) -> tuple[bytes, ...]:
        """What each cell shows and keeps back. What is not believed any more is in it for other holders only."""
        now = self._clock()
        found = self.shelf.summaries(frame.addresses, now=now, cap=frame.cap, wanted=frame.wanted)
        if frame.flags & Flag.REPAIR or not self.standing.register.any_compromised:
            return tuple(one.digest for one in found)
        cells = self.shelf.fetch(frame.addresses, now=now, cap=frame.cap, wanted=frame.wanted)
        return tuple(
            summary(identities(self.believed(cell.packets, now)), one.rest).digest
            for one, cell in zip(found, cells, strict=True)
        )

    def believed(self, packets: PacketArray, now: int) -> PacketArray:
        """Packets without those whose author's key others may have."""
        if not self.standing.register.any_compromised:
            return packets
        return packets[~self.guard.compromised(packets, now)]

    def _refuse(self, reason: FrameReason, sequence: int = 0) -> bytes:
        self.refused_frames[reason] += 1
        return encode(Frame(kind=Kind.REFUSED, sequence=sequence, detail=reason))

    @staticmethod
    def _reply(frame: Frame, kind: Kind, **fields: object) -> bytes:
        return encode(
            Frame(kind=kind, sequence=frame.sequence, cause=frame.cause, schema=frame.schema, **fields)  # type: ignore[arg-type]
        )

    def handle_all(self, jobs: Sequence[tuple[bytes | None, bytes]]) -> list[list[bytes]]:
        """The frames that answer each of several frames, as if they had come one after the other.

        Deposits that follow each other are checked together and kept in one durable commit.

        Args:
            jobs: for each, the id of the member that it comes from, None where that is not known, and the frame.
        """
        found: list[list[bytes]] = []
        group: list[Frame] = []
        for sender, data in jobs:
            frame = decode(data) if len(data) > _KIND_AT and data[_KIND_AT] == Kind.DEPOSIT else None
            alike = isinstance(frame, Frame) and (
                not group or (frame.schema, frame.flags) == (group[0].schema, group[0].flags)
            )
            if group and not alike:
                found += [[reply] for reply in self._deposits(group)]
                group = []
            if isinstance(frame, Frame):
                group.append(frame)
            else:
                found.append(self.handle(data, sender))
        if group:
            found += [[reply] for reply in self._deposits(group)]
        return found

    def _deposits(self, frames: Sequence[Frame]) -> list[bytes]:
        """A reply to each of some deposits of one schema, with the same flags."""
        now, first = self._clock(), frames[0]
        addresses = [name for frame in frames for name in frame.addresses]
        counts = [count for frame in frames for count in frame.counts]
        names = _repeated(addresses, counts)
        packets = first.packets if len(frames) == 1 else _joined([frame.packets for frame in frames])
        receipts = np.zeros((len(names), 2), dtype=np.uint8)
        mine = self._owns(addresses)
        own: NDArray[np.intp] | None = None
        if not all(mine):
            receipts[:, 0] = Receipt.NOT_MINE
            own = np.flatnonzero(np.repeat(np.asarray(mine, dtype=np.bool_), counts))
            names, packets = [names[i] for i in own.tolist()], packets[own]
        use = Use.REPAIR if first.flags & Flag.REPAIR else Use.DEPOSIT
        reasons = self.guard.check(first.schema, names, packets, now=now, use=use)
        done = np.full(len(names), Receipt.REJECTED, dtype=np.uint8)
        if not reasons.any():
            done[:] = self._put(first.schema, names, packets, now) if names else done
        else:
            good = np.flatnonzero(reasons == 0)
            if len(good):
                done[good] = self._put(first.schema, [names[i] for i in good.tolist()], packets[good], now)
        rows = slice(None) if own is None else own
        receipts[rows, 0], receipts[rows, 1] = done, reasons
        for code, number in enumerate(np.bincount(receipts[:, 0]).tolist()):
            if number:
                self.receipts[Receipt(code)] += number
        ends = np.cumsum([len(frame.packets) for frame in frames])[:-1]
        parts = np.split(receipts, ends) if len(frames) > 1 else [receipts]
        return [self._reply(frame, Kind.RECEIPTS, receipts=part) for frame, part in zip(frames, parts, strict=True)]

    def _put(self, schema: bytes, names: list[bytes], packets: PacketArray, now: int) -> NDArray[np.uint8]:
        seconds = self.guard.schemas[schema].time.bucket_seconds
        try:
            kept = self.shelf.put(names, packets, bucket_seconds=seconds, now=now)
        except StoreError as error:
            # Nothing of these frames was kept: other owners keep the packets, or the author sends them again.
            self.last_store_error = error
            return np.full(len(names), Receipt.BUSY, dtype=np.uint8)
        return self.receipt_of()[kept]

    def receipt_of(self) -> NDArray[np.uint8]:
        """The receipt of each ``Kept`` of the store, uint8 by its number."""
        return _RECEIPT_OF[self.shelf.durable]

    def _answer(self, frame: Frame) -> list[bytes]:
        """The cells asked for, in as few frames as hold them; a large cell goes on in the next frame."""
        now = self._clock()
        cap = min(frame.cap, CAP_LIMIT)
        wanted = frame.wanted
        digests = [one.rest for one in self.shelf.summaries(frame.addresses, now=now, cap=cap, wanted=wanted)]
        if frame.flags & Flag.WHOLE:
            entries = [self.shelf.entries(a, now=now, wanted=wanted).identities for a in frame.addresses]
            cells = [self.shelf.read(a, known, now=now) for a, known in zip(frame.addresses, entries, strict=True)]
            left_out = [0] * len(cells)
        else:
            fetched = self.shelf.fetch(frame.addresses, now=now, cap=cap, wanted=wanted)
            cells, left_out = [one.packets for one in fetched], [one.left_out for one in fetched]
        cells = [self.believed(packets, now) for packets in cells]
        pages: list[list[tuple[bytes, bytes, PacketArray, int]]] = [[]]
        room = FRAME_PACKETS
        for name, digest, packets, left in zip(frame.addresses, digests, cells, left_out, strict=True):
            at = 0
            while True:
                part = packets[at : at + room]
                pages[-1].append((name, digest, part, left))
                at, room = at + len(part), room - len(part)
                if at >= len(packets):
                    break
                pages.append([])
                room = FRAME_PACKETS
        return [
            self._reply(
                frame,
                Kind.ANSWER,
                flags=Flag.MORE if number < len(pages) - 1 else Flag.NONE,
                addresses=tuple(run[0] for run in page),
                digests=tuple(run[1] for run in page),
                counts=tuple(len(run[2]) for run in page),
                left_out=tuple(run[3] for run in page),
                packets=np.concatenate([run[2] for run in page]) if page else frame.packets,
            )
            for number, page in enumerate(pages)
        ]

    def _list(self, frame: Frame) -> list[bytes]:
        found = self.shelf.entries(frame.addresses[0], now=self._clock())
        listed = [(int(part), identity) for part, identity in zip(found.parts, found.identities, strict=True)]
        starts = range(0, max(1, len(listed)), IDENTITIES_PER_FRAME)
        return [
            self._reply(
                frame,
                Kind.LISTING,
                flags=Flag.MORE if at + IDENTITIES_PER_FRAME < len(listed) else Flag.NONE,
                addresses=frame.addresses,
                listed=tuple(listed[at : at + IDENTITIES_PER_FRAME]),
            )
            for at in starts
        ]
