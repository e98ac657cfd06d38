"""The holder's side: frames in, frames out, over any link.

Pure but for its shelf (the packet store it is given): no sockets, no clock of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PacketArray
from outroute.placement import Kept, Part, Summary
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
from outroute.transports.guard import Guard

__all__ = ["CAP_LIMIT", "Keeper", "Shelf"]

#: Packets of one cell in one answer, whatever the question says: 256 at 512 bytes are two frames.
CAP_LIMIT = 256


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

    def fetch(self, addresses: Iterable[bytes], *, now: int, cap: int) -> Sequence[_Fetched]:
        """What cells answer."""

    def entries(self, address: bytes, *, now: int) -> _Entries:
        """Everything in force in a cell."""

    def summaries(self, addresses: Iterable[bytes], *, now: int, cap: int) -> list[Summary]:
        """What each cell shows and keeps back with this cap, as digests."""

    def read(self, address: bytes, identities: Iterable[bytes], *, now: int) -> PacketArray:
        """Some entries of a cell; withdrawals first."""

    def addresses(self) -> list[bytes]:
        """All cells with anything in them."""

    def drop(self, address: bytes) -> int:
        """Forget a cell."""


class Keeper:
    """Answers the frames that reach a holder.

    Args:
        shelf: where packets are kept.
        guard: checks them.
        owns: for some addresses, whether this member is an owner of each.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        shelf: Shelf,
        guard: Guard,
        *,
        owns: Callable[[Sequence[bytes]], Sequence[bool]],
        clock: Callable[[], int],
    ) -> None:
        self.shelf = shelf
        self.guard = guard
        self.refused_frames: Counter[FrameReason] = Counter()
        """Frames refused so far, by reason."""
        self.receipts: Counter[Receipt] = Counter()
        """Receipts given so far."""
        self.last_store_error: StoreError | None = None
        """Why packets could not be kept the last time it went wrong: a full disk, say."""
        self._owns = owns
        self._clock = clock

    def handle(self, data: bytes) -> list[bytes]:
        """The frames that answer a frame: at least one, whatever it is."""
        frame = decode(data)
        if isinstance(frame, Rejected):
            return [self._refuse(frame.reason)]
        if frame.kind is Kind.DEPOSIT:
            return [self._deposit(frame)]
        if frame.kind is Kind.ASK:
            return self._answer(frame)
        if frame.kind is Kind.COMPARE:
            found = self.shelf.summaries(frame.addresses, now=self._clock(), cap=frame.cap)
            digests = tuple(one.digest for one in found)
            return [self._reply(frame, Kind.DIGESTS, addresses=frame.addresses, digests=digests)]
        if frame.kind is Kind.LIST:
            return self._list(frame)
        return [self._refuse(FrameReason.UNEXPECTED, frame.sequence)]

    def _refuse(self, reason: FrameReason, sequence: int = 0) -> bytes:
        self.refused_frames[reason] += 1
        return encode(Frame(kind=Kind.REFUSED, sequence=sequence, detail=reason))

    @staticmethod
    def _reply(frame: Frame, kind: Kind, **fields: object) -> bytes:
        return encode(
            Frame(kind=kind, sequence=frame.sequence, cause=frame.cause, schema=frame.schema, **fields)  # type: ignore[arg-type]
        )

    def _deposit(self, frame: Frame) -> bytes:
        now = self._clock()
        names = [name for name, count in zip(frame.addresses, frame.counts, strict=True) for _ in range(count)]
        receipts = np.zeros((len(names), 2), dtype=np.uint8)
        mine = np.repeat(np.asarray(self._owns(frame.addresses), dtype=np.bool_), frame.counts)
        receipts[~mine, 0] = Receipt.NOT_MINE
        own = np.flatnonzero(mine)
        reasons = self.guard.check(frame.schema, [names[i] for i in own], frame.packets[own], now=now)
        receipts[own, 0], receipts[own, 1] = Receipt.REJECTED, reasons
        good = own[reasons == 0]
        if len(good):
            receipts[good, 0] = self._put(frame, names, good, now)
        codes, counts = np.unique(receipts[:, 0], return_counts=True)
        for code, number in zip(codes.tolist(), counts.tolist(), strict=True):
            self.receipts[Receipt(code)] += number
        return self._reply(frame, Kind.RECEIPTS, receipts=receipts)

    def _put(self, frame: Frame, names: list[bytes], good: NDArray[np.intp], now: int) -> NDArray[np.uint8]:
        seconds = self.guard.schemas[frame.schema].time.bucket_seconds
        try:
            kept = self.shelf.put([names[i] for i in good], frame.packets[good], bucket_seconds=seconds, now=now)
        except StoreError as error:
            # Nothing of the frame was kept: other owners keep the packets, or the author sends them again.
            self.last_store_error = error
            return np.full(len(good), Receipt.BUSY, dtype=np.uint8)
        return self._receipt_of()[kept]

    def _receipt_of(self) -> NDArray[np.uint8]:
        table = np.zeros(len(Kept), dtype=np.uint8)
        table[Kept.STORED] = Receipt.DURABLE if self.shelf.durable else Receipt.HELD
        table[Kept.DUPLICATE] = Receipt.DUPLICATE if self.shelf.durable else Receipt.HELD_DUPLICATE
        table[Kept.WITHDRAWN] = Receipt.WITHDRAWN
        table[Kept.EQUIVOCATION] = Receipt.EQUIVOCATION
        table[Kept.EXPIRED] = Receipt.REJECTED
        table[Kept.LEFT_OUT] = Receipt.LEFT_OUT
        return table

    def _answer(self, frame: Frame) -> list[bytes]:
        """The cells asked for, in as few frames as hold them; a large cell goes on in the next frame."""
        now = self._clock()
        cap = min(frame.cap, CAP_LIMIT)
        digests = [one.rest for one in self.shelf.summaries(frame.addresses, now=now, cap=cap)]
        if frame.flags & Flag.WHOLE:
            cells = [self.shelf.read(a, self.shelf.entries(a, now=now).identities, now=now) for a in frame.addresses]
            left_out = [0] * len(cells)
        else:
            fetched = self.shelf.fetch(frame.addresses, now=now, cap=cap)
            cells, left_out = [one.packets for one in fetched], [one.left_out for one in fetched]
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
