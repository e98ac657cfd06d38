"""A member of a living network: links to others, and who is there found out by telling each other.

Every member announces itself anew every few seconds and tells some others, drawn at random, what it has heard; a
newcomer calls any member it knows a place of. A ``Finder`` (the DHT) is asked besides, so that there are two
independent ways of finding. Who does not answer is passed over and found out by calling, never by hearsay. When the
members change, holders repair each other.

The deciding is in ``outroute.placement.Roster``, which is pure; here are its timers and its calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from outroute.errors import OutrouteError, TransportError
from outroute.identity import Certificate, Identity
from outroute.placement import DEFAULT_REPLICAS, Members, Roster
from outroute.transports.channel import Secrets
from outroute.transports.contract import CREDIT_FRAMES, Announcement, Finder, Role, UnreachableError
from outroute.transports.frames import FRAME_PACKETS, Flag, Frame, Kind, decode, encode
from outroute.transports.guard import Guard
from outroute.transports.keeper import Shelf
from outroute.transports.links import LinkMaker
from outroute.transports.meeting import Meeting
from outroute.transports.replicas import REQUEST_SECONDS
from outroute.transports.standing import Standing
from outroute.transports.tls import TlsLink

__all__ = ["ALIVE_SECONDS", "MeshTransport", "Pace"]

ALIVE_SECONDS = 60
"""Seconds that an announcement lasts: who dies unnoticed is forgotten after a minute at the latest."""
FOUND_SECONDS = 1200
"""Seconds that an announcement in a finder lasts; what is found there is called, not believed."""
PARTNERS = 2
"""Members told in one turn. News reaches n members in about log2(n) turns."""
FAREWELLS = 8
"""Members told by one that leaves."""
BORN_SLACK = 5
"""Seconds that the last word of an earlier life may outlast an announcement of this moment: it may have been repeated
within a second, each time a second longer, and clocks are set."""
OUTBID_MOST = 30
"""Seconds beyond its usual end up to which a word of another life is outbid; two copies of a directory stop there."""


class Pace:
    """Seconds between turns of what a member does by itself.

    Args:
        announce: new announcements; four are made while one lasts.
        tell: telling others.
        repair: looking whether the members have changed, and then repairing.
        repair_anyway: repair without a change.
        find: asking the finder.
        seek: calling somebody who fell silent.
    """

    def __init__(
        self,
        *,
        announce: float = 15.0,
        tell: float = 1.0,
        repair: float = 2.0,
        repair_anyway: float = 60.0,
        find: float = 60.0,
        seek: float = 5.0,
    ) -> None:
        self.announce, self.tell, self.repair = announce, tell, repair
        self.repair_anyway, self.find, self.seek = repair_anyway, find, seek


class MeshTransport(Meeting):
    """A ``DirectTransport`` that knows by itself who is there.

    Args:
        identity: this node's.
        shelf: where it keeps packets.
        guard: checks packets.
        clock: seconds since 1970.
        rng: draws whom to tell.
        roles: what it does; only those that ``HOLD`` keep packets.
        certificate: its organisation's word for it.
        finder: another way of finding members; None for telling each other alone.
        pace: how often it does what it does by itself.
        replicas, organisation_of, standing, secrets, admit, credit, request_seconds, link: see ``DirectTransport``.
    """

    def __init__(
        self,
        identity: Identity,
        shelf: Shelf,
        guard: Guard,
        *,
        clock: Callable[[], int],
        rng: np.random.Generator,
        roles: Role = Role.EMIT | Role.ASK | Role.HOLD,
        certificate: Certificate | None = None,
        finder: Finder | None = None,
        pace: Pace | None = None,
        replicas: int = DEFAULT_REPLICAS,
        organisation_of: Mapping[bytes, bytes] | None = None,
        standing: Standing | None = None,
        secrets: Secrets | None = None,
        admit: Callable[[bytes], bool] = lambda _: True,
        credit: int = CREDIT_FRAMES,
        request_seconds: float = REQUEST_SECONDS,
        link: LinkMaker = TlsLink,
    ) -> None:
        self._identity, self._roles, self._certificate = identity, roles, certificate
        self._rng, self._finder, self._pace = rng, finder, pace or Pace()
        self._lock = threading.Lock()
        self._roster: Roster[Announcement] = Roster(identity.id)
        self._now, self._born = clock, clock()
        self.endpoint = ""
        """Where this member is reached; empty for one that only calls others."""
        self._issued = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._last_error: dict[str, str] = {}
        self._repaired_for: Members | None = None
        self._repair_next = self._repair_wait = 0.0
        self._outbid = False
        self.announcements: Counter[str] = Counter()
        """Announcements heard so far: "new", "known", "refused"; "twin": somebody else announces with this node's key,
        so its directory was copied and both copies run."""
        super().__init__(
            identity,
            shelf,
            guard,
            members=self._living,
            endpoint_of=self._endpoint_of,
            clock=clock,
            organisation=None if certificate is None else certificate.organisation,
            replicas=replicas,
            organisation_of=organisation_of,
            standing=standing,
            secrets=secrets,
            admit=admit,
            credit=credit,
            request_seconds=request_seconds,
            link=link,
        )

    # who is there -------------------------------------------------------------------------------------------

    def _living(self) -> Members:
        with self._lock:
            return self._roster.members(self._now())

    def _endpoint_of(self, member: bytes) -> str | None:
        with self._lock:
            known = self._roster.known(member)
        return None if known is None or not known.endpoint else known.endpoint

    def peers(self) -> list[Announcement]:
        """Announcements of the live members known, this one's among them, by id."""
        with self._lock:
            return self._roster.live(self._now())

    def network_size(self) -> int:
        """How many members the network has, about."""
        with self._lock:
            return self._roster.size(self._now())

    @property
    def problems(self) -> Mapping[str, str]:
        """What went wrong the last time that this member did something by itself, by what it did."""
        return dict(self._last_error)

    def _announcement(self, seconds: int, roles: Role) -> Announcement:
        made = Announcement(
            key=self._identity.public_key,
            roles=roles,
            endpoint=self.endpoint,
            expires=self._now() + seconds,
            certificate=self._certificate,
        )
        return made.signed(self._identity)

    def _announce_self(self, roles: Role | None = None) -> None:
        """Put a new announcement of one's own among those that are told; each lasts longer than the one before."""
        roles = self._roles if roles is None else roles
        self._issued = max(self._issued + 1, self._now() + ALIVE_SECONDS)
        made = self._announcement(self._issued - self._now(), roles)
        with self._lock:
            self._roster.hear(made, self._now())

    def hear(self, announcements: Iterable[bytes]) -> int:
        """Take announcements in, each checked; how many were new."""
        now, new = self._now(), 0
        for data in announcements:
            one = Announcement.from_bytes(data)
            if one is None or one.expires > now + 2 * ALIVE_SECONDS or not self.can_be_called(one):
                self.announcements["refused"] += 1
                continue
            with self._lock:
                known = self._roster.known(one.member.id)
            mine = one.member.id == self.member.id
            if known is not None and (known == one or known.expires >= one.expires + mine):
                self.announcements["known"] += 1
                continue
            if not one.holds(now, self.standing.register):
                self.announcements["refused"] += 1
                continue
            if mine:
                self._hear_own(one)
                continue
            with self._lock:
                fresh = self._roster.hear(one, now)
            self.announcements["new" if fresh else "known"] += 1
            new += fresh
        return new

    def _hear_own(self, one: Announcement) -> None:
        """A word signed with this node's key and not by this process: of its life before it was started, or a twin's.

        Others pass the old word on, with the old place, until a newer one outbids it.
        """
        self.announcements["twin" if one.expires > self._born + ALIVE_SECONDS + BORN_SLACK else "known"] += 1
        if one.expires <= self._now() + ALIVE_SECONDS + OUTBID_MOST:
            self._issued = max(self._issued, one.expires)
            self._outbid = True

    def _receive(self, sender: bytes, frame: bytes) -> list[bytes]:
        """In the link's own thread: announcements here, everything else as in any transport."""
        read = decode(frame)
        if not isinstance(read, Frame) or read.kind is not Kind.ANNOUNCE:
            return super()._receive(sender, frame)
        self.hear(read.announcements)
        if read.flags & Flag.WHOLE:
            with self._lock:
                self._roster.starts(sender)
        news = self._news(sender)
        with self._lock:
            known = self._roster.known(sender)
        if known is not None and self._contradicts(sender, known, read.announcements):
            news = [*news[: FRAME_PACKETS - 1], known]
        reply = encode(
            Frame(kind=Kind.ANNOUNCE, sequence=read.sequence, announcements=tuple(a.to_bytes() for a in news))
        )
        with self._lock:
            self._roster.told(sender, news)
        if sender != self.member.id:
            self._traffic.count(frame, [reply], outgoing=False)
        return [reply]

    @staticmethod
    def _contradicts(sender: bytes, known: Announcement, words: Iterable[bytes]) -> bool:
        """Whether a member said something about itself that is older than what is known of it."""
        read = (Announcement.from_bytes(data) for data in words)
        return any(one is not None and one.member.id == sender and one != known for one in read)

    def _news(self, member: bytes) -> list[Announcement]:
        with self._lock:
            return self._roster.news(member, self._now())[:FRAME_PACKETS]

    async def _tell(self, member: bytes) -> None:
        """Exchange announcements with a member; one that does not answer is noted by the call itself."""
        news = self._news(member)
        frame = encode(Frame(kind=Kind.ANNOUNCE, announcements=tuple(a.to_bytes() for a in news)))
        with suppress(UnreachableError, TimeoutError):
            async with asyncio.timeout(self._request_seconds):
                replies = await self.request(member, frame)
            if self._take(replies):
                with self._lock:
                    self._roster.told(member, news)

    async def _carry(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        try:
            replies = await super()._carry(member, frame)
        except (UnreachableError, asyncio.CancelledError):  # cancelled: whoever asked has waited long enough
            with self._lock:
                self._roster.failed(member)
            raise
        except TransportError as error:
            if error.code != "transport.nobody":
                raise
            raise UnreachableError(str(error), code=error.code) from error  # forgotten while it was being called
        with self._lock:
            self._roster.answered(member)
        return replies

    # life ---------------------------------------------------------------------------------------------------

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, advertise: str | None = None, join: Iterable[str] = ()
    ) -> str:
        """Listen, join, and live on until ``close``; where this member is reached.

        Args:
            host, port: where to listen; port 0 for any free one.
            advertise: what others are told, if it is not the same: behind a router, say.
            join: places of other members, as the link writes them (``host:port``); the first member needs none.

        Raises:
            TransportError: the port is taken, or nobody answered at any place to join.
        """
        listening = await self.link.listen(host, port)
        self.endpoint = self.link.advertised(listening, advertise) if advertise else listening
        self._announce_self()
        try:
            await self.join(join)
        except BaseException:
            await self.stop()
            raise
        for name, work, seconds in (
            ("announce", self._announce, self._pace.announce),
            ("tell", self._tell_some, self._pace.tell),
            ("repair", self._repair_if_changed, self._pace.repair),
            ("find", self._find, self._pace.find),
            ("seek", self._seek, self._pace.seek),
        ):
            self._tasks.append(asyncio.get_running_loop().create_task(self._forever(name, work, seconds)))
        return self.endpoint

    async def _forever(self, name: str, work: Callable[[], Coroutine[None, None, None]], seconds: float) -> None:
        """Do something now and then; what goes wrong is kept for ``problems`` and tried again."""
        while True:
            try:
                await work()
                self._last_error.pop(name, None)
            except (OutrouteError, OSError) as error:
                self._last_error[name] = str(error)
            await asyncio.sleep(seconds)

    async def _announce(self) -> None:
        self._announce_self()

    async def _tell_some(self) -> None:
        if self._outbid:
            self._outbid = False
            self._announce_self()
        now = self._now()
        with self._lock:
            self._roster.sweep(now)
            chosen = self._partners(now, PARTNERS)
            doubtful = self._roster.doubtful(now)
        if doubtful:
            chosen.append(doubtful[int(self._rng.integers(len(doubtful)))])
        await asyncio.gather(*(self._tell(member) for member in chosen))
        await self._tend()

    async def _repair_if_changed(self) -> None:
        """After a change at once, by the nearest owners; then by all, less and less often until all is whole."""
        loop = asyncio.get_running_loop()
        members = self.members()
        changed = members is not self._repaired_for
        if changed:
            self._repaired_for, self._repair_wait = members, self._pace.repair
        elif loop.time() < self._repair_next:
            return
        done = await self.repair(nearest=changed)
        self._repair_next = loop.time() + (self._repair_wait if done.unsettled else self._pace.repair_anyway)
        self._repair_wait = min(1.5 * self._repair_wait, self._pace.repair_anyway)

    async def _find(self) -> None:
        if self._finder is None:
            return
        await self._finder.announce(self._announcement(FOUND_SECONDS, self._roles))
        await self.find_more(self.member.id)

    async def stop(self) -> None:
        """End at once, without a word: what a kill does."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await super().close()

    async def close(self) -> None:
        """Leave properly: hand over what is kept, say farewell, end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._announce_self(Role(0))
        await self.repair()
        with self._lock:
            chosen = self._partners(self._now(), FAREWELLS)
        await asyncio.gather(*(self._tell(member) for member in chosen))
        await super().close()
