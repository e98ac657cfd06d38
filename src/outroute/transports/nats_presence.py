"""Who is there, over NATS: every node says so now and then to all, signed; nothing rests on it but what is shown.

Packets and questions find their way by subjects, so a node that nobody hears of is served all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from outroute.identity import Certificate, Identity, Register
from outroute.transports.contract import Announcement, Role, Topic, Traffic, UnreachableError
from outroute.transports.frames import Frame, Kind, decode, encode
from outroute.transports.nats_connection import NatsConnection
from outroute.transports.nats_subjects import Subjects

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["ALIVE_SECONDS", "Presence"]

ALIVE_SECONDS = 60
"""Seconds that an announcement lasts."""
SAY_SECONDS = 15.0
"""Seconds between announcements: four while one lasts."""
GREETED_MOST = 64
"""Nodes in sight up to which a newcomer is answered at once: of more, each that comes would make all others speak."""
GREET_SECONDS = 0.5
"""Seconds within which a newcomer is answered, drawn, so that not all answer at once, and several together."""
PEERS_MOST = 16_384
"""Nodes remembered: at some 600 bytes each 10 MB; of more, those that were heard first are shown."""
_ECHOES = 64
"""Own announcements that are known again when they come back: of a quarter of an hour."""


class Presence:
    """Says that this node is there, and hears of others.

    Args:
        connection, subjects: where.
        identity, roles, certificate: what is said.
        clock: seconds since 1970.
        register: what is known about keys.
        traffic: where bytes are counted.
    """

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        *,
        identity: Identity,
        roles: Role,
        certificate: Certificate | None,
        clock: Callable[[], int],
        register: Register,
        traffic: Traffic,
    ) -> None:
        self._connection, self._subject, self._identity = connection, subjects.presence, identity
        self._roles, self._certificate, self._clock = roles, certificate, clock
        self._register, self._traffic = register, traffic
        self._subscription: Subscription | None = None
        self._peers: dict[bytes, Announcement] = {}
        self._own: deque[bytes] = deque(maxlen=_ECHOES)
        self.heard: Counter[str] = Counter()
        """Announcements heard so far: "new", "known", "refused", "twin"."""
        self._greet = asyncio.Event()
        self._said = self._announcement(roles)

    def _announcement(self, roles: Role) -> Announcement:
        made = Announcement(
            key=self._identity.public_key,
            roles=roles,
            endpoint="",
            expires=self._clock() + ALIVE_SECONDS,
            certificate=self._certificate,
        )
        return made.signed(self._identity)

    async def start(self) -> None:
        """Hear of others, and ask them to say that they are there."""
        self._subscription = await self._connection.subscribe(self._subject, self._on)
        await self.say(self._roles, comes=True)

    async def say(self, roles: Role, *, comes: bool = False) -> None:
        """Tell everybody; nothing is lost if it does not arrive.

        Args:
            roles: what this node does; none says farewell.
            comes: whether it has just come, and wants to hear of the others: then the message names a subject for
                replies, the same one.
        """
        import nats.errors

        self._said = made = self._announcement(roles)
        data = made.to_bytes()
        self._own.append(data)
        frame = encode(Frame(kind=Kind.ANNOUNCE, announcements=(data,)))
        with contextlib.suppress(nats.errors.Error, OSError, UnreachableError):
            await self._connection.client.publish(self._subject, frame, reply=self._subject if comes else "")
            self._traffic.sent[Topic.ANNOUNCEMENT] += len(frame)

    async def go_on(self) -> None:
        """Say it again and again, and soon after somebody came, until cancelled."""
        while True:
            self._greet.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._greet.wait(), SAY_SECONDS)
                await asyncio.sleep(random.uniform(0.0, GREET_SECONDS))  # spreads nodes; decides nothing
            await self.say(self._roles)

    async def _on(self, message: Msg) -> None:
        frame, now = decode(message.data), self._clock()
        if not isinstance(frame, Frame) or frame.kind is not Kind.ANNOUNCE:
            self.heard["refused"] += 1
            return
        self._traffic.received[Topic.ANNOUNCEMENT] += len(message.data)
        for data in frame.announcements[:1]:  # a node speaks for itself alone
            if data in self._own:
                continue
            one = Announcement.from_bytes(data)
            known = None if one is None else self._peers.get(one.key)
            if one is None or one.expires > now + 2 * ALIVE_SECONDS or not one.holds(now, self._register):
                self.heard["refused"] += 1
            elif one.key == self._identity.public_key:
                self.heard["twin"] += 1
            elif known is not None and known.expires > one.expires:
                self.heard["known"] += 1
            elif not one.here:
                self._peers.pop(one.key, None)
                self.heard["known"] += 1
            elif known is not None or len(self._peers) < PEERS_MOST:
                self.heard["new" if known is None else "known"] += 1
                self._peers[one.key] = one
                if message.reply and len(self._peers) <= GREETED_MOST:
                    self._greet.set()
            if len(self._peers) >= PEERS_MOST:
                self.peers()

    def peers(self) -> list[Announcement]:
        """Announcements of those that are there, this node's among them, by id."""
        now = self._clock()
        for key, one in list(self._peers.items()):
            if one.expires <= now:
                self._peers.pop(key, None)
        return sorted([self._said, *self._peers.values()], key=lambda one: one.member.id)

    async def close(self) -> None:
        """Say farewell."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._connection.up:
            await subscription.unsubscribe()
            await self.say(Role(0))
