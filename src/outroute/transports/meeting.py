"""How a member meets others: whom it calls to join, whom a finder names, whom it tells, and who may keep packets.

Strangers cost nothing to make. So none of them takes another's turn: places are called side by side, of what a finder
says only those not known yet, and where the network names organisations, those that these certify go first.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from outroute.errors import TransportError
from outroute.placement import Member, Members, Roster, Wanted, vouched
from outroute.transports.contract import Announcement, Answer, Finder
from outroute.transports.direct import DirectTransport
from outroute.transports.frames import Flag, Frame, Kind, decode, encode

__all__ = ["Meeting", "everybody"]

CALLED_MOST = 16
"""Places of a finder's answer that are called."""
FOUND_MOST = 256
"""Members of a finder's answer that are looked at; who is known already takes nobody's place among the called."""


class Meeting(DirectTransport):
    """The part of ``MeshTransport`` that deals with members not known yet."""

    _roster: Roster[Announcement]
    _lock: threading.Lock
    _rng: np.random.Generator
    _finder: Finder | None
    _vouched: tuple[Members, Members] | None = None

    _silence: tuple[Members, list[Member], Members] | None = None

    def hear(self, announcements: Iterable[bytes]) -> int:
        """Take announcements in, each checked; how many were new."""
        raise NotImplementedError

    def members(self) -> Members:
        """The live members that keep packets; see ``MemberTransport.members``.

        Where the network names organisations, these are those that one of them certifies; see ``placement.vouched``.
        """
        found = super().members()
        if not self.standing.register.organisations:
            return found
        if self._vouched is None or self._vouched[0] is not found:
            self._vouched = found, vouched(found, self._count)
        return self._vouched[1]

    def _organisation(self, member: Member, now: int) -> bytes:
        """Where the network names organisations: the one that is known to certify a member, else its own id.

        The certificate in its announcement was checked when that was heard, so nobody gains by keeping his membership
        to himself.
        """
        register = self.standing.register
        if not register.organisations:
            return super()._organisation(member, now)
        key = register.key_of(member.id)
        known = () if key is None else (register.organisation_of(key, now),)
        for organisation in (*known, member.organisation):
            if self.standing.names(organisation):
                return register.origin(organisation)
        return member.id

    def can_be_called(self, one: Announcement) -> bool:
        """Whether a member can be called where it says. Who only calls others names no place and keeps nothing."""
        return self.link.is_place(one.endpoint) if one.endpoint else not one.keeps

    async def join(self, places: Iterable[str]) -> None:
        """Call whoever is at some places, and take in whom they know.

        Raises:
            TransportError: there are places and nobody answered at any.
        """
        with self._lock:
            own = self._roster.known(self.member.id)
        frame = encode(everybody(() if own is None else (own.to_bytes(),)))
        answered = await asyncio.gather(*(self._call(place, frame) for place in places))
        problems = [said for said in answered if isinstance(said, str)]
        if problems and len(problems) == len(answered):
            raise TransportError(
                f"nobody to join: {'; '.join(problems)}. Give the address of a member that runs", code="transport.join"
            )

    async def find_more(self, address: bytes) -> int:
        """Ask the finder who is near an address, and call those not known; how many answered."""
        if self._finder is None:
            return 0
        found = await self._finder.find(address, limit=FOUND_MOST)
        with self._lock:
            living = {one.member.id for one in self._roster.live(self._clock())} | {self.member.id}
        strangers = [one for one in found if one.member.id not in living and self.link.is_place(one.endpoint)]
        strangers.sort(key=lambda one: not self.standing.names(one.organisation))
        places = list(dict.fromkeys(one.endpoint for one in strangers))[:CALLED_MOST]
        frame = encode(everybody(()))
        answered = await asyncio.gather(*(self._call(place, frame) for place in places))
        return sum(isinstance(said, bytes) for said in answered)

    async def _call(self, place: str, frame: bytes) -> bytes | str | None:
        """Ask whoever is at a place whom it knows: its id; None when it answers something else; why it does not."""
        try:
            member, replies = await self.link.request_at(place, frame)
        except TransportError as error:
            return str(error)
        return member if self._take(replies) else None

    def silent(self) -> list[Announcement]:
        """The last words of members that fell silent without a farewell, for a day: dead, or cut off from here."""
        with self._lock:
            return self._roster.silent(self._clock())

    async def _seek(self) -> None:
        """Call somebody who fell silent: a part of the network that was cut off is found again."""
        away = [one.endpoint for one in self.silent() if self.link.is_place(one.endpoint)]
        with self._lock:
            own = self._roster.known(self.member.id)
        if away and own is not None:
            await self._call(away[int(self._rng.integers(len(away)))], encode(everybody((own.to_bytes(),))))

    def silent_owners(self, addresses: Sequence[bytes]) -> list[int]:
        """How many of the owners of each address are silent, if those that fell silent are counted as members."""
        living = self.members()
        here = {one.id for one in living.members}
        away = [one.member for one in self.silent() if one.keeps and one.member.id not in here]
        if not away:
            return [0] * len(addresses)
        if self._silence is None or self._silence[0] is not living or self._silence[1] != away:
            self._silence = living, away, Members([*living.members, *away])
        names = {one.id for one in away}
        return [len(names & set(row)) for row in self._silence[2].owner_ids(addresses, self._count)]

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
        answers = await super().fetch(schema, addresses, cap=cap, wanted=wanted, cause=cause)
        away = self.silent_owners([one.address for one in answers])
        return [replace(one, silent=number) if number else one for one, number in zip(answers, away, strict=True)]

    def _take(self, replies: Sequence[bytes]) -> bool:
        reply = decode(replies[0]) if replies else None
        if not isinstance(reply, Frame) or reply.kind is not Kind.ANNOUNCE:
            return False
        self.hear(reply.announcements)
        return True

    def _partners(self, now: int, count: int) -> list[bytes]:
        """Whom to tell next; one is vouched for where the network names organisations, as strangers may be many."""
        vouched = self._roster.partners(now, self._rng, 1, among=lambda a: self.standing.names(a.organisation))
        return list(dict.fromkeys([*vouched, *self._roster.partners(now, self._rng, count)]))[:count]


def everybody(words: tuple[bytes, ...]) -> Frame:
    """What a member says that wants to know everybody."""
    return Frame(kind=Kind.ANNOUNCE, flags=Flag.WHOLE, announcements=words)
