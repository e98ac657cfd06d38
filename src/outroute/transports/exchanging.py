"""Exchanges with other members over any link: checked replies, and how long each member usually takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from outroute.placement import Wanted
from outroute.transports.contract import Link, UnreachableError
from outroute.transports.frames import ADDRESSES_PER_FRAME, Flag, Frame, Kind, Rejected, decode, encode

__all__ = ["ALL", "ANSWER_FRAMES", "REQUEST_SECONDS", "Exchanger"]

#: Seconds until a holder that does not answer is passed over: ten times what a loaded holder takes for the
#: largest frame with every signature to check.
REQUEST_SECONDS = 5.0

#: Frames that one reply may have: 128 cells of 256 packets, or a whole cell with its withdrawals.
ANSWER_FRAMES = 512

#: As a cap: all packets of a cell.
ALL = 0xFFFF

#: Seconds that a member is given before another one is asked too, at least: below, a busy machine would ask twice
#: as a rule.
USUAL_LEAST = 0.05

#: Seconds that a member is given that was never asked before: a handshake comes first.
USUAL_FIRST = 0.5

#: Members whose usual time is remembered: at some 200 bytes each 4 MB.
_REMEMBERED = 20_000


class Exchanger:
    """Sends frames to members and reads what they answer.

    How long a member usually takes is estimated as TCP does for its retransmissions: a smoothed mean plus four times
    the smoothed deviation; for each kind of frame and size of question by itself, since a digest comes back sooner than
    a hundred cells.

    Source: RFC 6298, section 2.

    Args:
        link: carries frames.
        request_seconds: time-out of one exchange.
        hedged: whether a member that takes longer than usual is late; in one process nobody is slower than another, and
            a busy processor would ask twice for nothing.
    """

    def __init__(self, link: Link, *, request_seconds: float = REQUEST_SECONDS, hedged: bool = True) -> None:
        self._link, self._hedged = link, hedged
        self._request_seconds = request_seconds
        self._sequence = 0
        self._times: dict[tuple[bytes, Kind, int], tuple[float, float]] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._overdue: Counter[bytes] = Counter()
        self.bad_replies: Counter[bytes] = Counter()
        """Replies that were no frame or not what was asked for, by member."""

    def next(self) -> int:
        """The number of the next exchange."""
        self._sequence += 1
        return self._sequence

    async def exchange(self, member: bytes, frame: Frame, kind: Kind) -> list[Frame]:
        """Frames of ``kind`` that answer a frame; none when the member does not answer or answers nonsense."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._request_seconds):
                replies = await self._link.request(member, encode(frame))
        except (UnreachableError, TimeoutError):
            return []
        self._took((member, frame.kind, len(frame.addresses).bit_length()), clock() - began)
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

    def _took(self, what: tuple[bytes, Kind, int], seconds: float) -> None:
        known = self._times.get(what)
        if known is None:
            if len(self._times) >= _REMEMBERED:
                self._times.clear()
            self._times[what] = seconds, seconds / 2
            return
        mean, deviation = known
        self._times[what] = 0.875 * mean + 0.125 * seconds, 0.75 * deviation + 0.25 * abs(seconds - mean)

    def usual(self, member: bytes, kind: Kind, addresses: int) -> float:
        """Seconds after which the answer of a member to a question is late; 0 while it owes a late one.

        Args:
            member: its id.
            kind: of the question.
            addresses: how many it asks for.
        """
        if not self._hedged:
            return self._request_seconds
        if self._overdue[member]:
            return 0.0
        known = self._times.get((member, kind, min(addresses, ADDRESSES_PER_FRAME).bit_length()))
        mean, deviation = known or (USUAL_FIRST, 0.0)
        return min(max(mean + 4 * deviation, USUAL_LEAST), self._request_seconds)

    def let_go(self, member: bytes, task: asyncio.Task[object]) -> None:
        """Wait no longer for a member; its answer still counts for how long it takes, and whether it lives."""

        def ended(done: asyncio.Task[object]) -> None:
            self._late.discard(done)
            self._overdue[member] -= 1
            if not done.cancelled():
                done.exception()

        self._late.add(task)
        self._overdue[member] += 1
        task.add_done_callback(ended)

    async def compare(
        self,
        member: bytes,
        names: Sequence[bytes],
        cap: int,
        *,
        wanted: tuple[Wanted, ...] = (),
        cause: bytes = bytes(16),
        repair: bool = False,
    ) -> dict[bytes, bytes]:
        """The digest of each address at a member; missing where it does not answer."""
        found: dict[bytes, bytes] = {}
        for at in range(0, len(names), ADDRESSES_PER_FRAME):
            part = tuple(names[at : at + ADDRESSES_PER_FRAME])
            frame = Frame(
                kind=Kind.COMPARE,
                flags=Flag.REPAIR if repair else Flag.NONE,
                sequence=self.next(),
                cause=cause,
                addresses=part,
                cap=cap,
                wanted=wanted,
            )
            for reply in await self.exchange(member, frame, Kind.DIGESTS):
                if reply.kind is Kind.DIGESTS and reply.addresses == part:
                    found.update(zip(reply.addresses, reply.digests, strict=True))
        return found
