"""What one member knows about keys, kept on its disk, and how members tell each other.

Every member keeps its statements in a list, in the order in which it learnt them, and remembers of every other member
how much of the list it has given and how much of the other's it has taken. A frame gives what is new and says how far
the other's list was read; the reply gives what came after that. So an exchange with nothing new costs nothing, a
newcomer gets everything, and a frame that is lost is made good by the next one.

Who exchanges with whom changes from round to round: in round r a member gives to those whose place among the members
(by id, in a ring) is k * 17**r ahead, for k from 1 to 16. After d rounds in a row every member has been reached where
there are at most 17**d of them, as every distance is a sum of one such step a round.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from outroute.identity import Learned, Refused, Register, StatementReason
from outroute.placement import Members
from outroute.transports.frames import FRAME_PACKETS, Flag, Frame, Kind

__all__ = [
    "EXCHANGE_FRAMES",
    "EXCHANGE_MEMBERS",
    "EXCHANGE_SECONDS",
    "Organisations",
    "Standing",
    "StatementShelf",
    "partners",
]

#: Members that one gives its news to in a round.
EXCHANGE_MEMBERS = 16

#: Seconds between rounds: four of them, a minute, reach 83,521 members.
EXCHANGE_SECONDS = 15

#: Members of which it is remembered what they know: at some 200 bytes each about 13 MB.
PEERS_REMEMBERED = 65_536

#: Frames of one exchange with one member: more than hold all statements that a member keeps.
EXCHANGE_FRAMES = 8192


class StatementShelf(Protocol):
    """Where statements are kept; ``outroute.store.StatementFile`` is one."""

    def read_on(self) -> list[bytes]:
        """What was added since the last call, by whomever."""

    def append(self, statements: Sequence[bytes]) -> None:
        """Add statements, durably."""

    def rewrite(self, statements: Sequence[bytes]) -> None:
        """Keep these only."""


class Standing:
    """A member's register, its disk, and what it told whom. Safe for threads.

    Args:
        shelf: where statements are kept; default in memory only.
        now: seconds since 1970.
        organisations: keys of the organisations that the network names; others are refused then.
        name: names the list of this run of this member; the transport gives one.
    """

    def __init__(
        self,
        shelf: StatementShelf | None = None,
        *,
        now: int = 0,
        organisations: Iterable[bytes] = (),
        name: bytes = b"",
    ) -> None:
        self.register = Register(organisations)
        self.refused: dict[StatementReason, int] = dict.fromkeys(StatementReason, 0)
        """Statements refused so far, by reason."""
        self.name = name
        self._shelf = shelf
        self._lock = threading.RLock()
        self._given: dict[bytes, tuple[int, int]] = {}
        self._taken: dict[bytes, tuple[bytes, int]] = {}
        self.refresh(now)

    def names(self, organisation: bytes) -> bool:
        """Whether an organisation is one that the network names, under that key or an earlier one; all, if none is."""
        named = self.register.organisations
        return not named or organisation in named or not named.isdisjoint(self.register.lineage(organisation))

    def refresh(self, now: int) -> int:
        """Read what was added to the disk, by a command for example; how many statements were new."""
        with self._lock:
            if self._shelf is None:
                return 0
            before = self.register.version
            for data in self._shelf.read_on():
                self.register.learn(data, now, checked=True)
            return self.register.version - before

    def learn(self, statements: Iterable[bytes], now: int) -> list[Learned | Refused]:
        """Take statements in and keep what is new; after one with a wrong signature the rest is not looked at.

        Whoever passes on what he did not check can make others check without end.

        Raises:
            StoreError: they could not be kept; they count as long as this process runs.
        """
        with self._lock:
            epoch = self.register.epoch
            found: list[Learned | Refused] = []
            new: list[bytes] = []
            for data in statements:
                one = self.register.learn(data, now)
                found.append(one)
                if isinstance(one, Refused):
                    self.refused[one.reason] += 1
                    if one.reason in (StatementReason.SIGNATURE, StatementReason.FORM):
                        break
                elif one.new:
                    new.append(data)
            if self._shelf is not None and new:
                if self.register.epoch != epoch:
                    self._shelf.rewrite(self.register.statements()[0])
                else:
                    self._shelf.append(new)
            return found

    # telling each other -------------------------------------------------------------------------------------

    def owes(self, member: bytes) -> bool:
        """Whether there is anything that a member was not given yet."""
        return self._place_of(member) < self.register.length

    def give(self, member: bytes, sequence: int) -> Frame:
        """The next frame for a member: what it was not given yet, and how far its own list was read."""
        with self._lock:
            statements, _ = self.register.statements(self._place_of(member), FRAME_PACKETS)
            journal, place = self._taken.get(member, (bytes(16), 0))
            return Frame(
                kind=Kind.STATEMENTS, sequence=sequence, statements=tuple(statements), journal=journal, place=place
            )

    def take(self, member: bytes, given: Frame, reply: Frame, now: int) -> bool:
        """Take the reply to a frame in; whether there is more to give or to take.

        Raises:
            StoreError: what is new could not be kept.
        """
        with self._lock:
            at, end = self._place_of(member), self.register.length
            _, reached = self.register.statements(at, len(given.statements))
            epoch = self.register.epoch
            self.learn(reply.statements, now)
            self._remember(member, (reply.journal, reply.place))
            if reached == end:
                # What came from the member itself need not be given back to it.
                self._given[member] = (self.register.epoch, self.register.length)
            else:
                self._given[member] = (epoch, reached)
            return bool(reply.flags & Flag.MORE) or reached < end

    def answer(self, frame: Frame, member: bytes | None, now: int) -> Frame:
        """Learn what a frame gives, and reply with what the sender has not read of this list.

        Raises:
            StoreError: what is new could not be kept.
        """
        with self._lock:
            place = frame.place if frame.journal == self.journal else 0
            end = self.register.length
            statements, reached = self.register.statements(place, FRAME_PACKETS)
            epoch, level = self.register.epoch, member is not None and self._place_of(member) == end
            self.learn(frame.statements, now)
            if reached == end:
                reached = self.register.length
                if member is not None and (level or place == end):
                    self._given[member] = (self.register.epoch, reached)
            elif self.register.epoch != epoch:
                reached = 0
            return Frame(
                kind=Kind.STATEMENTS,
                flags=Flag.MORE if reached < self.register.length else Flag.NONE,
                sequence=frame.sequence,
                cause=frame.cause,
                statements=tuple(statements),
                journal=self.journal,
                place=reached,
            )

    @property
    def journal(self) -> bytes:
        """16 bytes that name this list and the numbering of its places."""
        return hashlib.sha256(self.name + self.register.epoch.to_bytes(8, "little")).digest()[:16]

    def _place_of(self, member: bytes) -> int:
        epoch, place = self._given.get(member, (-1, 0))
        return place if epoch == self.register.epoch else 0

    def _remember(self, member: bytes, taken: tuple[bytes, int]) -> None:
        if len(self._taken) >= PEERS_REMEMBERED and member not in self._taken:
            self._taken.clear()
            self._given.clear()
        self._taken[member] = taken


def partners(members: Members, me: bytes, turn: int) -> Iterator[bytes]:
    """The members that one gives its news to in a round, by the number of the round."""
    ids = [member.id for member in members.members]
    if me not in ids:
        ids.append(me)
        ids.sort()
    own, count = ids.index(me), len(ids)
    base, digits = EXCHANGE_MEMBERS + 1, 1
    while base**digits < count:
        digits += 1
    step = base ** (turn % digits)
    seen = {me}
    for number in range(1, base):
        other = ids[(own + number * step) % count]
        if other not in seen:
            seen.add(other)
            yield other


class Organisations(Mapping[bytes, bytes]):
    """Organisation's key by author's key, as a register has it at the moment.

    Args:
        register: says who certifies whom.
        clock: seconds since 1970.
        given: what is known from elsewhere; it goes before.
    """

    def __init__(self, register: Register, clock: Callable[[], int], given: Mapping[bytes, bytes]) -> None:
        self._register = register
        self._clock = clock
        self._given = given

    def __getitem__(self, key: bytes) -> bytes:
        if key in self._given:
            return self._given[key]
        return self._register.organisation_of(key, self._clock())

    def __iter__(self) -> Iterator[bytes]:
        return iter({**self._register.organisations_at(self._clock()), **self._given})

    def __len__(self) -> int:
        return sum(1 for _ in self)
