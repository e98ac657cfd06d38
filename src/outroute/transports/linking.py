"""What all links share: who may talk, how much at a time, what happens to a frame, how long to wait for who was away.

``MemberLink`` is what a member needs of a link, ``LinkBase`` is most of it: a link of one's own says how to listen
(``listen``), how to reach a place (``connect``), and hands what comes in to ``greet`` and ``answer``.

The order of things on a new channel, whoever carries it:

1. The caller sends a hello (``hello``): its key, signed, and proofs of the network secret, all bound to 32 bytes that
   both sides see of the line below (the *binding*: a hash of the certificate or key that the other side showed there).
2. The one called checks it (``greet``), sends back a reply or a refusal of 5 bytes.
3. The caller checks that (``introduced``). From now on each frame is answered (``answer``), one after the other.
"""

from __future__ import annotations

import asyncio
import secrets as random_bytes
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from outroute.errors import TransportError
from outroute.identity import Identity
from outroute.transports.channel import (
    ANYBODY,
    Accepted,
    ChannelReason,
    Secrets,
    answer_hello,
    check_reply,
    make_hello,
)
from outroute.transports.contract import CREDIT_FRAMES, Capabilities, UnreachableError
from outroute.transports.frames import FRAME_BYTES, Frame, FrameReason, Kind, encode
from outroute.transports.links import (
    AWAY_MOST,
    CALLERS_PER_NODE,
    FAILURES,
    HANDSHAKE_SECONDS,
    OPEN_MOST,
    RETRY_SECONDS,
    SLOW_SECONDS,
    Channel,
    Handle,
    LinkMaker,
)
from outroute.transports.places import is_place
from outroute.transports.refusals import Refusals
from outroute.transports.url import Url, bad
from outroute.transports.working import Waiting, Worker

__all__ = ["REFUSAL_BYTES", "LinkBase"]

_REFUSAL = b"ORX\x01"
REFUSAL_BYTES = len(_REFUSAL) + 1
"""Bytes of a refusal in place of a reply to a hello."""
_BUSY_MILLISECONDS = 50

_REASONS = {
    ChannelReason.MALFORMED: "it does not speak this version of the protocol: compare the releases of both sides",
    ChannelReason.SECRET: "the network secret differs: compare --secret-file on both sides",
    ChannelReason.IDENTITY: "it is another node than the one called, or cannot prove its key",
    ChannelReason.NOT_ADMITTED: "this node is revoked or not on its list of members",
}


class LinkBase(ABC):
    """Frames to and from other nodes.

    Args:
        identity: this node's.
        handle: answers the frames of others.
        endpoint_of: the place where a node (its id) is reached; None when that is not known.
        secrets: of the network; none in an open one.
        admit: whether the node with a public key may connect and be connected to.
        credit: exchanges with one node at a time.
    """

    about = ""
    """What the link is, in one line, for ``outroute transports``."""
    url = ""
    """How its URL is written."""
    options: ClassVar[Mapping[str, str]] = {}
    """What each option of its URL means, by name."""
    capabilities = Capabilities(durable=True, ordered=True, back_pressure=True, secure=True)
    """What a node over it promises, with its store on disk."""
    place_hint = "write HOST:PORT"
    """What to write instead of something that is no place."""

    @classmethod
    def from_url(cls, url: Url) -> LinkMaker:
        """What makes links of a URL; see ``outroute.transports.registry``. Here the class itself, with no options.

        Raises:
            TransportError: the URL cannot be used.
        """
        url.only(cls.options)
        if url.path.strip("/"):
            raise bad(str(url), f"{url.scheme}:// has no path: write {url.scheme}://HOST:PORT")
        return cls

    def __init__(
        self,
        identity: Identity,
        *,
        handle: Handle,
        endpoint_of: Callable[[bytes], str | None],
        secrets: Secrets | None = None,
        admit: Callable[[bytes], bool] = lambda _: True,
        credit: int = CREDIT_FRAMES,
    ) -> None:
        self.identity, self.credit = identity, credit
        self.secrets = secrets or Secrets()
        self.admit = admit
        self._endpoint_of = endpoint_of
        self.worker = Worker(handle)
        """Answers frames in a thread; ``handle_all`` of it may be set for several at once."""
        self.held = 0
        """Frames of others under way here, by their channels (see ``answering``)."""
        self._callers: Counter[bytes] = Counter()
        self._open: dict[bytes, asyncio.Task[Channel]] = {}
        self._flying: Counter[bytes] = Counter()
        self._down: dict[bytes, tuple[float, float]] = {}
        self._closed = False
        self.open_most = OPEN_MOST
        """Channels that this node opens and keeps at a time."""
        self.refused: Counter[ChannelReason] = Counter()
        """Handshakes that this node refused, by reason."""
        self.dropped: Counter[str] = Counter()
        """Channels of others that were cut off: "slow", "oversized", "full"; frames not read at once: "held up"."""
        self._refusals = Refusals()

    # what a link of its own adds ----------------------------------------------------------------------------

    @classmethod
    def is_place(cls, text: str) -> bool:
        """See ``MemberLink.is_place``: here ``HOST:PORT``."""
        return is_place(text)

    def advertised(self, listening: str, place: str) -> str:
        """See ``MemberLink.advertised``: here what the user said."""
        return place

    @abstractmethod
    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """See ``MemberLink.listen``."""

    @abstractmethod
    async def connect(self, member: bytes, place: str) -> Channel:
        """Open a channel and make the handshake; within ``HANDSHAKE_SECONDS``, or it is cancelled.

        Args:
            member: id of the node to reach, or ``ANYBODY``.
            place: a text for which ``is_place`` is true.

        Raises:
            OSError, EOFError, TimeoutError: nobody is there.
            UnreachableError: somebody is there, and one side refuses the other (see ``introduced``).
        """

    async def close(self) -> None:
        """End all channels that this node opened, and the thread for frames; whoever listens stops that first."""
        self._closed = True
        opened = [channel for task in self._open.values() if (channel := _opened(task)) is not None]
        waiting = [task for task in self._open.values() if not task.done()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for one in opened:
            one.close()
        self._open.clear()
        self.worker.close()

    # the handshake ------------------------------------------------------------------------------------------

    def hello(self, member: bytes, binding: bytes) -> bytes:
        """What a caller says first, ``channel.HELLO_BYTES`` long.

        Args:
            member: id of the node to reach, or ``ANYBODY``.
            binding: 32 bytes of the line below that the other side sees too.
        """
        return make_hello(
            self.identity,
            called=member,
            certificate=binding,
            nonce=random_bytes.token_bytes(32),
            secrets=self.secrets,
        )

    def introduced(self, member: bytes, hello: bytes, reply: bytes, binding: bytes) -> bytes:
        """The public key of the node that sent a reply to a hello.

        Raises:
            UnreachableError: it refuses, or it is not the one called, or not admitted.
        """
        if reply.startswith(_REFUSAL) and len(reply) == REFUSAL_BYTES:
            known = reply[-1] in set(ChannelReason)
            raise self.refusal(member, ChannelReason(reply[-1]) if known else ChannelReason.MALFORMED)
        found = check_reply(reply, hello, called=member, certificate=binding, secrets=self.secrets)
        if isinstance(found, Accepted) and not self.admit(found.key):
            found = ChannelReason.NOT_ADMITTED
        if isinstance(found, ChannelReason):
            raise self.refusal(member, found)
        return found.key

    @staticmethod
    def refuses(start: bytes) -> bool:
        """Whether the first bytes of a reply to a hello are a refusal, which has ``REFUSAL_BYTES``."""
        return start.startswith(_REFUSAL)

    @staticmethod
    def refuse(reason: ChannelReason) -> bytes:
        """What is sent back in place of a reply to a hello."""
        return _REFUSAL + bytes([reason])

    @staticmethod
    def refusal(member: bytes, reason: ChannelReason) -> UnreachableError:
        """The error that says why a node and this one do not talk."""
        return UnreachableError(
            f"node {member.hex()[:16]}: {_REASONS[reason]}", code=f"transport.{reason.name.lower()}"
        )

    def greet(self, hello: bytes, binding: bytes) -> tuple[bytes, bytes | None]:
        """Check a caller's hello: what to send back, and its public key; no key when it has to go, which is counted.

        Args:
            hello: any bytes.
            binding: 32 bytes of the line below that the caller sees too.
        """
        found = answer_hello(self.identity, hello, certificate=binding, secrets=self.secrets)
        if isinstance(found, Accepted) and not self.admit(found.key):
            found = ChannelReason.NOT_ADMITTED
        if isinstance(found, ChannelReason):
            self.refused[found] += 1
            return self.refuse(found), None
        return found.reply, found.key

    # those who call -----------------------------------------------------------------------------------------

    def enter(self, sender: bytes) -> bool:
        """One more channel of a caller; False, and counted, when it has too many. Both ways ``leave`` has to follow."""
        self._callers[sender] += 1
        if self._callers[sender] > CALLERS_PER_NODE:
            self.dropped["full"] += 1
            return False
        return True

    def leave(self, sender: bytes) -> None:
        """A channel of a caller has ended."""
        self._callers[sender] -= 1
        if not self._callers[sender]:
            del self._callers[sender]

    async def answer(self, sender: bytes, key: bytes, frame: bytes) -> list[bytes] | None:
        """The frames that answer a caller's frame; None when it is no longer admitted: end its channel.

        Only some frames of a channel are to be given at a time: that is what slows a fast sender down. They are
        answered in order (see ``answering``).

        Args:
            sender: its id.
            key: its public key.
            frame: any bytes.
        """
        found = await self.begin(sender, key, [frame])
        return None if found is None else found[0]

    def begin(self, sender: bytes, key: bytes, frames: Sequence[bytes]) -> Waiting:
        """As ``answer``, without waiting, and for some frames that came together: what will be their answers."""
        done: Waiting = asyncio.get_running_loop().create_future()
        good = [frame for frame in frames if len(frame) <= FRAME_BYTES]
        if not self.admit(key):  # revoked meanwhile
            done.set_result(None)
        elif len(good) == len(frames):
            self.worker.begin(sender, frames, done)
        else:
            self.dropped["oversized"] += len(frames) - len(good)
            inner: Waiting = asyncio.get_running_loop().create_future()
            inner.add_done_callback(lambda _: _refuse_long(frames, inner, done))
            self.worker.begin(sender, good, inner)
        return done

    def hold_up(self, sender: bytes, replies: Sequence[bytes]) -> float:
        """Seconds to wait, after these replies, before the next frame of a caller is read; most often 0."""
        wait = self._refusals.wait(sender, replies)
        if wait:
            self.dropped["held up"] += 1
        return wait

    @staticmethod
    def busy() -> bytes:
        """The frame that says: not now, again in a moment."""
        return encode(Frame(kind=Kind.BUSY, detail=_BUSY_MILLISECONDS))

    # calling ------------------------------------------------------------------------------------------------

    async def own(self, frame: bytes) -> list[bytes]:
        """See ``MemberLink.own``."""
        return await self.worker.answered(self.identity.id, frame)

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        """See ``outroute.transports.Link.request``."""
        if self._flying[member] >= self.credit:
            return [self.busy()]
        self._flying[member] += 1
        try:
            channel = await self._channel(member)
            return await channel.exchange(frame)
        except FAILURES as error:
            raise _unreachable(member, error) from error
        finally:
            self._flying[member] -= 1
            if not self._flying[member]:
                del self._flying[member]

    async def request_at(self, place: str, frame: bytes) -> tuple[bytes, Sequence[bytes]]:
        """See ``MemberLink.request_at``."""
        try:
            channel = await self._connect(ANYBODY, place)
        except FAILURES as error:
            raise UnreachableError(f"nobody answers at {place} ({_said(error)})", code="transport.unreachable") from (
                error
            )
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                return channel.member, await channel.exchange(frame)
        except FAILURES as error:
            raise _unreachable(channel.member, error) from error
        finally:
            channel.close()

    async def _channel(self, member: bytes) -> Channel:
        if self._closed:
            raise TransportError("this link is closed: open the node again", code="transport.closed")
        task = self._open.pop(member, None)
        opened = None if task is None else _opened(task)
        if opened is not None and opened.over:
            task = None
        if task is not None:
            self._open[member] = task  # at the end again: those not used for longest stand first
            if opened is not None:
                return opened
        else:
            until, _ = self._down.get(member, (0.0, 0.0))
            if asyncio.get_running_loop().time() < until:
                raise UnreachableError(f"node {member.hex()[:16]} was away just now", code="transport.unreachable")
            self._make_room()
            task = self._open[member] = asyncio.get_running_loop().create_task(self._connect(member))
            task.add_done_callback(lambda done: self._connected(member, done))
        return await asyncio.shield(task)

    def _make_room(self) -> None:
        """Close the channel that was not used for longest, when there are too many; none on which somebody waits."""
        if len(self._open) < self.open_most:
            return
        for member, task in self._open.items():
            if not self._flying[member] and (idle := _opened(task)) is not None:
                del self._open[member]
                idle.close()
                return

    def _connected(self, member: bytes, task: asyncio.Task[Channel]) -> None:
        """Note whether a node could be reached; wait longer each time that it could not."""
        if task.cancelled() or task.exception() is not None:
            self._open.pop(member, None)
            _, waited = self._down.pop(member, (0.0, 0.0))
            if len(self._down) >= AWAY_MOST:
                del self._down[next(iter(self._down))]
            wait = min(max(2 * waited, RETRY_SECONDS[0]), RETRY_SECONDS[1])
            self._down[member] = (asyncio.get_running_loop().time() + wait, wait)
        else:
            self._down.pop(member, None)

    async def _connect(self, member: bytes, place: str | None = None) -> Channel:
        place = self._endpoint_of(member) if place is None else place
        if place is None:
            raise TransportError(
                f"nobody knows where node {member.hex()[:16]} is: it has to announce itself first",
                code="transport.nobody",
            )
        if not self.is_place(place):
            raise TransportError(f"'{place[:80]}' is no place: {self.place_hint}", code="transport.endpoint")
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            return await self.connect(member, place)

    def ended(self, channel: Channel) -> None:
        """A channel that this node opened has ended: the next request opens another."""
        channel.over = True
        task = self._open.get(channel.member)
        if task is not None and _opened(task) is channel:
            del self._open[channel.member]


def _refuse_long(frames: Sequence[bytes], good: Waiting, done: Waiting) -> None:
    """Answer some frames, those over the limit among them, once those within it are answered."""
    if done.done():
        return
    if good.cancelled():
        done.cancel()
    elif (error := good.exception()) is not None:
        done.set_exception(error)
    else:
        answers = iter(good.result() or ())
        refusal = [encode(Frame(kind=Kind.REFUSED, detail=FrameReason.LENGTH))]
        done.set_result([next(answers) if len(frame) <= FRAME_BYTES else refusal for frame in frames])


def _opened(task: asyncio.Task[Channel]) -> Channel | None:
    """The channel that a task has opened; None while it is at it, and when it could not."""
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _unreachable(member: bytes, error: BaseException) -> UnreachableError:
    return UnreachableError(f"node {member.hex()[:16]} does not answer ({_said(error)})", code="transport.unreachable")
