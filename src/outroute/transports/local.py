"""Members in one process: real frames, real stores, no sockets. The first transport, and the tests' network.

Every frame is encoded, counted, handed over and decoded, so that what is true here is true on a wire. The
order of everything is fixed: the same calls give the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from outroute.errors import TransportError
from outroute.placement import DEFAULT_REPLICAS, Member, Members
from outroute.transports.contract import (
    CREDIT_FRAMES,
    Announcement,
    Capabilities,
    UnreachableError,
)
from outroute.transports.frames import Frame, Kind, encode
from outroute.transports.guard import Guard
from outroute.transports.keeper import Shelf
from outroute.transports.member import MemberTransport
from outroute.transports.replicas import REQUEST_SECONDS
from outroute.transports.standing import EXCHANGE_FRAMES, Standing

__all__ = ["LocalNetwork", "LocalTransport"]

#: Milliseconds that a member without credit asks its senders to wait.
_BUSY_MILLISECONDS = 50

#: Members that tell a newcomer what they know about keys: one that keeps something back is not enough.
_WELCOMING = 3


class LocalNetwork:
    """An internet in one process. Sending to somebody who never was there fails loudly.

    Args:
        clock: seconds since 1970, the same for all members.
        credit: frames that may be on their way to one member at a time.
    """

    def __init__(self, *, clock: Callable[[], int], credit: int = CREDIT_FRAMES) -> None:
        self.clock = clock
        self._credit = credit
        self._members: dict[bytes, LocalTransport] = {}
        self._seen: dict[bytes, Member] = {}
        self._announcements: dict[bytes, Announcement] = {}
        self._running: dict[bytes, asyncio.Event] = {}
        self._flying: dict[bytes, int] = {}
        self._view: Members | None = None
        self._joined = 0

    def members(self) -> Members:
        """The members that are believed to live: those killed unnoticed among them."""
        if self._view is None:
            self._view = Members(list(self._seen.values()))
        return self._view

    def join(
        self,
        member: Member,
        shelf: Shelf,
        guard: Guard,
        *,
        replicas: int = DEFAULT_REPLICAS,
        organisation_of: Mapping[bytes, bytes] | None = None,
        request_seconds: float = REQUEST_SECONDS,
        standing: Standing | None = None,
    ) -> LocalTransport:
        """Add a member.

        Args:
            member: its id and organisation.
            shelf: where it keeps packets, for example an ``outroute.store.PacketStore``.
            guard: what checks packets for it; members of one process may share one, and then each packet is
                checked once in the process.
            replicas: owners per address; the same for all members.
            organisation_of: author's key to organisation's key, where no certificate says it.
            request_seconds: time-out of one exchange.
            standing: what the member knows about keys; default nothing, and in memory only. Other members tell it
                what they know.

        Raises:
            TransportError: the id is in use (``transport.twice``).
            StoreError: what it is told cannot be kept.
        """
        if member.id in self._members:
            raise TransportError(
                f"member {member.id.hex()[:16]} is on this network already: close it first", code="transport.twice"
            )
        standing = standing or Standing()
        self._joined += 1
        standing.name = member.id + self._joined.to_bytes(8, "little")
        transport = LocalTransport(
            self, member, shelf, guard, replicas, organisation_of or {}, request_seconds, standing
        )
        self._members[member.id] = transport
        self._seen[member.id] = member
        self._running[member.id] = asyncio.Event()
        self._running[member.id].set()
        self._flying[member.id] = 0
        self._view = None
        self._welcome(transport)
        return transport

    def _welcome(self, newcomer: LocalTransport) -> None:
        """Let a few members tell a newcomer what they know about keys."""
        ready = [one for id, one in self._members.items() if self._running[id].is_set() and one is not newcomer]
        knowing = [one for one in ready if len(one.standing.register)]
        for other in knowing[:_WELCOMING]:
            for number in range(EXCHANGE_FRAMES):
                frame = newcomer.standing.give(other.member.id, number)
                replies = other.receive(encode(frame), newcomer.member.id)
                newcomer.traffic.count(encode(frame), replies, outgoing=True)
                if not newcomer.absorb(other.member.id, frame, replies):
                    break

    def kill(self, member: bytes, *, noticed: bool = True) -> None:
        """Take a member away without a word; ``noticed`` is false while the others still believe in it.

        Its store is not closed: that is up to whoever made it.
        """
        self._alive(member)
        self._members.pop(member, None)
        self._announcements.pop(member, None)
        if noticed:
            self.notice(member)

    def notice(self, member: bytes) -> None:
        """Let everybody know that a member is gone."""
        self._seen.pop(member, None)
        self._view = None

    def pause(self, member: bytes) -> None:
        """Let a member read nothing until ``resume``: frames to it pile up, up to its credit."""
        self._alive(member)
        self._running[member].clear()

    def resume(self, member: bytes) -> None:
        """Let it read on."""
        self._alive(member)
        self._running[member].set()

    def _alive(self, member: bytes) -> None:
        if member not in self._flying:
            raise TransportError(
                f"nobody with id {member.hex()[:16]} was ever on this network: send to a member that joined",
                code="transport.nobody",
            )

    async def carry(self, member: bytes, frame: bytes, sender: bytes | None = None) -> list[bytes]:
        """Hand a frame to a member and return its reply; ``sender`` is the id of who sends it.

        Raises:
            TransportError: nobody with this id ever joined (``transport.nobody``).
            UnreachableError: it is gone.
        """
        self._alive(member)
        if self._flying[member] >= self._credit:
            return [encode(Frame(kind=Kind.BUSY, detail=_BUSY_MILLISECONDS))]
        self._flying[member] += 1
        try:
            await self._running[member].wait()
            receiver = self._members.get(member)
            if receiver is None:
                raise UnreachableError(f"member {member.hex()[:16]} is gone", code="transport.unreachable")
            return receiver.receive(frame, sender)
        finally:
            self._flying[member] -= 1

    def announce(self, announcement: Announcement) -> None:
        """Keep an announcement that holds; others are dropped."""
        if announcement.holds(self.clock()):
            self._announcements[announcement.member.id] = announcement

    def announcements(self) -> list[Announcement]:
        """Announcements in force, by member id."""
        now = self.clock()
        return [a for _, a in sorted(self._announcements.items()) if a.expires > now]


class LocalTransport(MemberTransport):
    """One member of a ``LocalNetwork``: a ``Link``, a ``Finder`` and a ``Holder``. Made by ``join``."""

    hedged = False

    def __init__(
        self,
        network: LocalNetwork,
        member: Member,
        shelf: Shelf,
        guard: Guard,
        replicas: int,
        organisation_of: Mapping[bytes, bytes],
        request_seconds: float,
        standing: Standing,
    ) -> None:
        self._network = network
        super().__init__(
            member,
            shelf,
            guard,
            members=network.members,
            clock=network.clock,
            replicas=replicas,
            organisation_of=organisation_of,
            request_seconds=request_seconds,
            standing=standing,
        )

    @property
    def capabilities(self) -> Capabilities:
        """Durable with a store on disk; nothing leaves the process, so nothing is encrypted."""
        return Capabilities(durable=self.shelf.durable, ordered=True, back_pressure=True, secure=False)

    async def _carry(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        return await self._network.carry(member, frame, self.member.id)

    async def announce(self, announcement: Announcement) -> None:
        """See ``Finder.announce``."""
        self._network.announce(announcement)

    async def find(self, address: bytes, *, limit: int) -> Sequence[Announcement]:
        """See ``Finder.find``."""
        key = int.from_bytes(address, "big")
        near = sorted(self._network.announcements(), key=lambda a: int.from_bytes(a.member.id, "big") ^ key)
        return near[:limit]

    async def close(self) -> None:
        """Leave properly: hand everything over, then go. The store stays open, it is the maker's."""
        if self._network._members.get(self.member.id) is not self:
            return
        self._network.notice(self.member.id)
        await self.repair()
        self._network.kill(self.member.id)
