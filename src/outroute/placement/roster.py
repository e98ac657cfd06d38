"""Who lives, as one member knows it: announcements heard, failures seen, and nothing else (pure).

A member is live from an announcement that it signed until that expires. Others call it, and note whether it answered;
after a few failures in a row it counts as gone until it announces itself anew: an old announcement that somebody passes
on does not bring the dead back. A member that leaves properly says so with an announcement that gives it no role; one
that fell silent is still remembered for a day, so that two parts of a network that were cut off from each other, each
of which takes the other for dead, meet again.

Announcements spread by telling a few members, drawn anew each time, what was heard since they were told last. In a
network of more members than ``NEAR_LEAST`` each remembers those near itself, where it keeps packets, and as many as
it needs to reach the rest: nobody holds the whole membership.

Source: Demers et al., "Epidemic Algorithms for Replicated Database Maintenance" (1987), section 1.4 (rumour spreading);
Das, Gupta and Motivala, "SWIM" (2002), section 4.2, for announcements that outrank suspicion. Departure: suspicion is
not spread, because whoever spreads it could silence an honest member; everybody finds out by calling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from outroute.placement.owners import Member, Members, points

__all__ = [
    "FAILURES_GONE",
    "MEMBERS_MOST",
    "NEAR_LEAST",
    "SILENT_MOST",
    "SILENT_SECONDS",
    "Announced",
    "Roster",
    "network_size",
    "shard",
]

FAILURES_GONE = 2
"""Calls in a row that fail before a member counts as gone: one may be a lost connection."""
MEMBERS_MOST = 20_000
"""Members remembered at most; at some 600 bytes each 12 MB. Those farthest from this member go first."""
NEAR_LEAST = 1_024
"""Nearest members by which the size of the network is estimated, and which are never forgotten for others."""
SILENT_SECONDS = 86_400
"""Seconds that a member is remembered that fell silent without a farewell: lines are mended within a day."""
SILENT_MOST = 1_024
"""Silent members remembered at most, the latest; one that answers tells of all others."""
TOLD_MOST = 128
"""Announcements told at a time: one frame."""
SIZE_FROM = 16
"""Nearest members that an estimate of the network's size rests on; below so many the members are counted."""
SHARD_MEMBERS = 64
"""Members that one shard of the key space should hold, so that its list fits one answer of a few kB."""


class Announced(Protocol):
    """What the roster reads of an announcement; ``outroute.transports.Announcement`` is one."""

    @property
    def member(self) -> Member:
        """Who."""

    @property
    def keeps(self) -> bool:
        """Whether it keeps packets for others."""

    @property
    def here(self) -> bool:
        """False when it says that it leaves."""

    @property
    def expires(self) -> int:
        """Seconds since 1970."""

    @property
    def endpoint(self) -> str:
        """Where it is called; empty for one that only calls others."""


A = TypeVar("A", bound=Announced)


@dataclass(slots=True)
class _Seen(Generic[A]):
    """A member as it is known.

    Attributes:
        announcement: the newest one.
        order: grows with every announcement heard; what is told to others goes by it.
        failures: calls in a row that failed.
        gone: the expiry of the announcement under which it stopped answering, or -1.
    """

    announcement: A
    order: int
    failures: int = 0
    gone: int = -1


class Roster(Generic[A]):
    """The members that one member knows.

    Args:
        me: its id, 32 bytes.
        most: members remembered at most.
    """

    def __init__(self, me: bytes, *, most: int = MEMBERS_MOST) -> None:
        self._me, self._most = me, most
        self._mine = int.from_bytes(me, "big")
        self._seen: dict[bytes, _Seen[A]] = {}
        self._silent: dict[bytes, A] = {}
        self._order = 0
        self._told: dict[bytes, int] = {}
        self._view = Members([])
        self._stale = True
        self._until = 0

    def __len__(self) -> int:
        return len(self._seen)

    def hear(self, announcement: A, now: int) -> bool:
        """Take an announcement whose signature holds; whether it said anything new."""
        member = announcement.member
        if announcement.expires <= now:
            return False
        old = self._seen.get(member.id)
        if old is not None and announcement.expires <= old.announcement.expires:
            return False
        self._order += 1
        seen = _Seen(announcement, self._order)
        if old is not None and announcement.expires <= old.gone:
            seen.failures, seen.gone = old.failures, old.gone
        self._seen[member.id] = seen
        self._silent.pop(member.id, None)
        self._stale = True
        if len(self._seen) > self._most:
            self._forget(now)
        return True

    def _forget(self, now: int) -> None:
        """Make room: what has expired, then a tenth of those farthest away."""
        self.sweep(now)
        if len(self._seen) > self._most:
            far = sorted(self._seen, key=self._distance, reverse=True)
            for member in far[: max(len(self._seen) - self._most, self._most // 10)]:
                if member != self._me:
                    del self._seen[member]

    def _distance(self, member: bytes) -> int:
        return int.from_bytes(member, "big") ^ self._mine

    def answered(self, member: bytes) -> None:
        """A call to a member succeeded: it lives."""
        seen = self._seen.get(member)
        if seen is not None and (seen.failures or seen.gone >= 0):
            seen.failures, seen.gone = 0, -1
            self._stale = True

    def failed(self, member: bytes) -> bool:
        """A call to a member failed; whether it counts as gone from now on."""
        seen = self._seen.get(member)
        if seen is None or member == self._me:
            return False
        seen.failures += 1
        if seen.failures < FAILURES_GONE or seen.gone >= 0:
            return False
        seen.gone = seen.announcement.expires
        self._stale = True
        return True

    def members(self, now: int) -> Members:
        """The live members that keep packets; the same object until they change."""
        if self._stale or now >= self._until:
            live = [(s.announcement.expires, s.announcement.member) for s in self._living(now) if s.announcement.keeps]
            found = tuple(sorted((member for _, member in live), key=lambda member: member.id))
            if found != self._view.members:
                self._view = Members(found)
            self._stale = False
            self._until = min((expires for expires, _ in live), default=now + 1)
        return self._view

    def _living(self, now: int) -> Iterable[_Seen[A]]:
        for seen in self._seen.values():
            if seen.gone < 0 and seen.announcement.here and seen.announcement.expires > now:
                yield seen

    def known(self, member: bytes) -> A | None:
        """The newest announcement of a member, live or not."""
        seen = self._seen.get(member)
        return None if seen is None else seen.announcement

    def live(self, now: int) -> list[A]:
        """Announcements of all live members, by id."""
        return [s.announcement for s in sorted(self._living(now), key=lambda s: s.announcement.member.id)]

    def doubtful(self, now: int) -> list[bytes]:
        """Members that stopped answering and whose announcement is still in force: worth a call now and then."""
        return sorted(i for i, s in self._seen.items() if s.gone >= 0 and s.announcement.expires > now)

    def partners(
        self, now: int, rng: np.random.Generator, count: int, *, among: Callable[[A], bool] = lambda _: True
    ) -> list[bytes]:
        """Whom to tell next: live members that can be called, drawn at random, this one not among them.

        Args:
            now: seconds since 1970.
            rng: draws.
            count: how many at most.
            among: who comes into question.
        """
        others = sorted(
            s.announcement.member.id
            for s in self._living(now)
            if s.announcement.member.id != self._me and s.announcement.endpoint and among(s.announcement)
        )
        chosen = rng.permutation(len(others))[:count].tolist()
        return [others[i] for i in chosen]

    def news(self, member: bytes, now: int) -> list[A]:
        """What a member has not been told yet, oldest news first, at most ``TOLD_MOST``.

        Its own word is among it: somebody else who signs with its key is found out by that.
        """
        told = self._told.get(member, 0)
        fresh = sorted((s.order, i) for i, s in self._seen.items() if s.order > told and s.announcement.expires > now)[
            :TOLD_MOST
        ]
        return [self._seen[i].announcement for _, i in fresh]

    def starts(self, member: bytes) -> None:
        """A member has just been started and knows nothing that it was told before."""
        self._told.pop(member, None)

    def told(self, member: bytes, announcements: Sequence[A]) -> None:
        """A member has taken these announcements, as ``news`` gave them."""
        orders = [
            self._seen[a.member.id].order
            for a in announcements
            if a.member.id in self._seen and self._seen[a.member.id].announcement.expires == a.expires
        ]
        if orders:
            self._told[member] = max(self._told.get(member, 0), *orders)

    def sweep(self, now: int) -> int:
        """Forget announcements that have expired; how many. Who ended without a farewell is among ``silent``."""
        old = [member for member, seen in self._seen.items() if seen.announcement.expires <= now]
        for member in old:
            last = self._seen.pop(member).announcement
            self._told.pop(member, None)
            if last.here and member != self._me:
                self._silent[member] = last
        kept = list(self._silent.items())[-SILENT_MOST:]
        self._silent = {member: last for member, last in kept if last.expires + SILENT_SECONDS > now}
        if old:
            self._stale = True
        return len(old)

    def silent(self, now: int) -> list[A]:
        """The last words of members that fell silent, whether still in force or not; longest ago first.

        They may be dead, or on the other side of a line that is cut: worth a call now and then.
        """
        before = [last for last in self._silent.values() if last.expires + SILENT_SECONDS > now]
        return before + [s.announcement for s in self._seen.values() if s.gone >= 0 and s.announcement.here]

    def size(self, now: int) -> int:
        """How many members the network has, about: counted while few are known, else from the density near this one."""
        ids = [seen.announcement.member.id for seen in self._living(now)]
        return network_size(self._me, ids)


def network_size(me: bytes, members: Sequence[bytes]) -> int:
    """Members of a network, estimated from those known: all of them if few, else by how close the nearest lie.

    With n ids spread evenly over 2^256, the k-th nearest lies at a distance of about k / n of the space.

    Args:
        me: id of whoever estimates.
        members: ids known, those near ``me`` completely.
    """
    others = [member for member in members if member != me]
    if len(others) < NEAR_LEAST:
        return len(others) + 1
    near = np.sort(points(others)[:, 0] ^ points([me])[0, 0])[:NEAR_LEAST]
    # The harmonic mean over several ranks is steadier than any single one.
    ranks = np.arange(SIZE_FROM, NEAR_LEAST + 1)
    found = ranks.sum() / (near[SIZE_FROM - 1 :].astype(np.float64) / 2.0**64).sum()
    return max(len(others) + 1, round(float(found)))


def shard(point: bytes, size: int) -> tuple[int, bytes]:
    """The shard of the key space that a point lies in: bits of its prefix, and the prefix.

    Shards hold ``SHARD_MEMBERS`` members or so, whatever the size of the network, so no list of a shard grows with it.

    Args:
        point: an id or an address, 32 bytes.
        size: members of the network.
    """
    bits = max(0, (max(size, 1) - 1).bit_length() - SHARD_MEMBERS.bit_length() + 1)
    if not bits:
        return 0, b""
    prefix = int.from_bytes(point, "big") >> (256 - bits) << (-bits % 8)
    return bits, prefix.to_bytes((bits + 7) // 8, "big")
