"""What every member of a network does, whatever carries its frames: keeps, deposits, asks, repairs, tells.

A transport adds how a frame reaches another member (``_carry``), and who lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from outroute.errors import StoreError
from outroute.identity import Learned, Refused
from outroute.packet import PacketArray
from outroute.placement import Member, Members, Wanted
from outroute.transports.contract import Answer, Deposited, Traffic, UnreachableError
from outroute.transports.frames import Frame, Kind, decode, encode
from outroute.transports.guard import Guard
from outroute.transports.keeper import Keeper, Shelf
from outroute.transports.replicas import Repaired, Replicas
from outroute.transports.standing import EXCHANGE_FRAMES, EXCHANGE_SECONDS, Organisations, Standing, partners

__all__ = ["MemberTransport"]

#: Seconds until members are looked at again for certificates that have ended: they are given for days.
_VIEW_SECONDS = 3600


class MemberTransport(ABC):
    """A ``Link`` and most of a ``Holder``.

    Args:
        member: its id and organisation.
        shelf: where it keeps packets.
        guard: checks packets; members of one process may share one.
        members: the members that are believed to live, itself among them if it keeps packets.
        clock: seconds since 1970.
        replicas: owners per address; the same for all members.
        organisation_of: author's key to organisation's key, where no certificate says it.
        request_seconds: time-out of one exchange.
        standing: what the member knows about keys.
    """

    hedged = True
    """Whether a member that is slower than usual is passed over."""

    def __init__(
        self,
        member: Member,
        shelf: Shelf,
        guard: Guard,
        *,
        members: Callable[[], Members],
        clock: Callable[[], int],
        replicas: int,
        organisation_of: Mapping[bytes, bytes],
        request_seconds: float,
        standing: Standing,
    ) -> None:
        self.member = member
        self.shelf = shelf
        self.standing = standing
        self.guard = guard.under(standing.register)
        self._everybody, self._clock = members, clock
        self._request_seconds = request_seconds
        self._turn = -1
        self._told = 0
        self._sampled = 0
        self._view: tuple[Members, tuple[int, int], Members] | None = None
        self._known = Organisations(standing.register, clock, organisation_of)
        self._count = replicas
        self._traffic = Traffic()
        self.replicas = Replicas(
            self,
            self.guard,
            members=self.members,
            clock=clock,
            replicas=replicas,
            organisation_of=self._known,
            request_seconds=request_seconds,
            hedged=self.hedged,
        )
        self.keeper = Keeper(shelf, guard, owns=self._owns, clock=clock, standing=standing)
        self._sample()

    def now(self) -> int:
        """Seconds since 1970, by this member's clock."""
        return self._clock()

    @property
    def organisations(self) -> Mapping[bytes, bytes]:
        """Organisation's key by author's key, as far as it is known."""
        return self._known

    @property
    def traffic(self) -> Traffic:
        """Bytes of frames to and from other members; what a member keeps itself costs none."""
        return self._traffic

    @abstractmethod
    async def _carry(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        """Bring a frame to another member; see ``Link.request``."""

    async def _handle_own(self, frame: bytes) -> Sequence[bytes]:
        """Answer a frame of this member to itself."""
        return self.keeper.handle(frame)

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        """See ``Link.request``."""
        if member == self.member.id:
            return await self._handle_own(frame)
        replies = await self._carry(member, frame)
        self._traffic.count(frame, replies, outgoing=True)
        return replies

    def receive(self, frame: bytes, sender: bytes | None = None) -> list[bytes]:
        """Answer a frame from another member."""
        replies = self.keeper.handle(frame, sender)
        self.noted(frame, replies, sender)
        return replies

    def receive_all(self, jobs: Sequence[tuple[bytes, bytes]]) -> list[list[bytes]]:
        """Answer several frames, each with its sender's id, as if they had come one after the other."""
        found = self.keeper.handle_all(jobs)
        for (sender, frame), replies in zip(jobs, found, strict=True):
            self.noted(frame, replies, sender)
        return found

    def noted(self, frame: bytes, replies: Sequence[bytes], sender: bytes | None) -> None:
        """A frame of another member was answered: count it."""
        self._traffic.count(frame, replies, outgoing=False)

    def _owns(self, addresses: Sequence[bytes]) -> list[bool]:
        return [self.member.id in row for row in self.members().owner_ids(addresses, self._count)]

    def members(self) -> Members:
        """The live members as this one knows them: without those that are revoked, or whose organisation is.

        Where the network names organisations, a member counts under the one that it is known to belong to, whatever
        it says itself.
        """
        everybody, register = self._everybody(), self.standing.register
        if not (register.organisations or register.any_revoked or register.any_followed):
            return everybody
        now = self._clock()
        state = (register.version, now // _VIEW_SECONDS)
        if self._view is None or self._view[0] is not everybody or self._view[1] != state:
            kept = [
                Member(id=one.id, organisation=self._organisation(one, now))
                for one in everybody.members
                if not register.member_revoked(one.id, now) and not register.revoked(one.organisation, now)
            ]
            self._view = everybody, state, Members(kept)
        return self._view[2]

    def _organisation(self, member: Member, now: int) -> bytes:
        register = self.standing.register
        if not register.organisations:
            return register.origin(member.organisation)
        key = register.key_of(member.id)
        return member.id if key is None else register.organisation_of(key, now)

    async def tell(self, statements: Iterable[bytes]) -> list[Learned | Refused]:
        """Take statements in, from the operator or an organisation, and pass them on to every member at once.

        Raises:
            StoreError: they cannot be kept.
        """
        found = self.standing.learn(statements, self._clock())
        await self._exchange([one.id for one in self._everybody().members if one.id != self.member.id])
        return found

    async def exchange(self) -> None:
        """Give what is new about keys to the members whose turn it is; nothing travels when nothing is new.

        Deposits, questions and repair do it by themselves, every ``EXCHANGE_SECONDS`` of the clock and at once when
        there is something new.

        Raises:
            StoreError: what this member learns cannot be kept.
        """
        now = self._clock()
        self.standing.refresh(now)
        self._turn, self._told = now // EXCHANGE_SECONDS, self.standing.register.version
        await self._exchange(list(partners(self._everybody(), self.member.id, self._turn)))
        self._told = self.standing.register.version
        self._sample()

    async def _exchange(self, members: Sequence[bytes]) -> None:
        await asyncio.gather(*(self._exchange_with(one) for one in members if self.standing.owes(one)))

    async def _exchange_with(self, member: bytes) -> None:
        """Exchange statements with one member; one that does not answer is told another time."""
        with contextlib.suppress(UnreachableError, TimeoutError):
            for number in range(EXCHANGE_FRAMES):
                frame = self.standing.give(member, number)
                async with asyncio.timeout(self._request_seconds):
                    replies = await self.request(member, encode(frame))
                if not self.absorb(member, frame, replies):
                    return

    def absorb(self, member: bytes, given: Frame, replies: Sequence[bytes]) -> bool:
        """Take a reply to statements in; whether there is more to give or to take."""
        reply = decode(replies[0]) if replies else None
        if not isinstance(reply, Frame) or reply.kind is not Kind.STATEMENTS:
            return False
        return self.standing.take(member, given, reply, self._clock())

    async def _tend(self) -> None:
        """Exchange statements if it is time; a full disk must not keep packets from moving."""
        due = self._clock() // EXCHANGE_SECONDS != self._turn
        if due or self.standing.register.version != self._told:
            try:
                await self.exchange()
            except StoreError as error:
                self.keeper.last_store_error = error

    def _sample(self) -> None:
        """Let the store count packets by the organisations that are known now."""
        version = self.standing.register.version
        if version != self._sampled:
            self._sampled = version
            self.shelf.set_organisations(dict(self._known))

    async def deposit(
        self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray, *, cause: bytes = bytes(16)
    ) -> Deposited:
        """See ``Holder.deposit``."""
        await self._tend()
        return await self.replicas.deposit(schema, addresses, packets, cause=cause)

    async def fetch(
        self,
        schema: bytes,
        addresses: Sequence[bytes],
        *,
        cap: int,
        wanted: Sequence[Wanted] = (),
        cause: bytes = bytes(16),
    ) -> list[Answer]:
        """See ``Holder.fetch``."""
        await self._tend()
        return await self.replicas.fetch(schema, addresses, cap=cap, wanted=wanted, cause=cause)

    async def repair(self, *, nearest: bool = False) -> Repaired:
        """One round of repair of what this member keeps; see ``Repairer.round``."""
        await self._tend()
        return await self.replicas.repair(self.member.id, self.shelf, nearest=nearest)
