"""A link between nodes of one process: ``local://``. For trying things out, for tests, and for a node by itself.

Everything is as over a wire but for the wire: hellos, refusals, credit, one frame of a channel after the other. All
nodes have to live in one event loop, which ``outroute.node`` sees to.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from itertools import count

from outroute.errors import TransportError
from outroute.identity import Identity, node_id
from outroute.transports.channel import Secrets
from outroute.transports.contract import CREDIT_FRAMES
from outroute.transports.linking import LinkBase
from outroute.transports.links import NO_BINDING, SKIPPED_BYTES, Channel, Handle
from outroute.transports.places import PORT_MOST

__all__ = ["InsideLink"]

_PLACE = re.compile(r"local:([1-9][0-9]{0,4})")
_listening: dict[int, InsideLink] = {}


class _Inside(Channel):
    """A channel to another link of this process."""

    def __init__(self, link: InsideLink, other: InsideLink, member: bytes) -> None:
        self.member = member
        self._link, self._other = link, other
        self._turn = asyncio.Lock()

    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """See ``Channel.exchange``."""
        await self._turn.acquire()
        if self.over:
            self._turn.release()
            raise EOFError("the other node has left")
        task = asyncio.get_running_loop().create_task(self._other.serve(self, self._link.identity, frame))
        task.add_done_callback(self._answered)
        self._other.serving.add(task)
        await asyncio.wait({task})
        replies = None if task.cancelled() else task.result()
        if replies is None:
            self.close()
            raise EOFError("the other node has ended the channel")
        return replies

    def _answered(self, task: asyncio.Task[list[bytes] | None]) -> None:
        """The next frame's turn, later for those whose frames are refused."""
        self._other.serving.discard(task)
        replies = None if task.cancelled() else task.result()
        wait = self._other.hold_up(self._link.identity.id, replies) if replies else 0.0
        asyncio.get_running_loop().call_later(wait, self._turn.release)

    def close(self) -> None:
        """See ``Channel.close``."""
        self._link.ended(self)
        self._other.forget(self)


class InsideLink(LinkBase):
    """Frames to and from other nodes of this process; see ``LinkBase`` for the arguments."""

    place_hint = "places in one process are written local:NUMBER"

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
        super().__init__(identity, handle=handle, endpoint_of=endpoint_of, secrets=secrets, admit=admit, credit=credit)
        self._number = 0
        self._channels: dict[_Inside, bytes] = {}
        self.serving: set[asyncio.Task[list[bytes] | None]] = set()

    @classmethod
    def is_place(cls, text: str) -> bool:
        """``local:NUMBER``."""
        found = _PLACE.fullmatch(text)
        return found is not None and int(found[1]) <= PORT_MOST

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """See ``MemberLink.listen``; the host says nothing here."""
        number = port or next(free for free in count(1) if free not in _listening)
        if number in _listening or number > PORT_MOST:
            raise TransportError(f"local:{number} is taken in this process: choose another", code="transport.listen")
        _listening[number], self._number = self, number
        return f"local:{number}"

    async def connect(self, member: bytes, place: str) -> Channel:
        """See ``LinkBase.connect``."""
        other = _listening.get(int(place.partition(":")[2]))
        if other is None:
            raise ConnectionError("no node of this process is there")
        hello = self.hello(member, NO_BINDING)
        reply, key = other.greet(hello, NO_BINDING)
        found = self.introduced(member, hello, reply, NO_BINDING)
        made = _Inside(self, other, node_id(found))
        if key is None or not other.enter(node_id(key)):
            raise ConnectionError("it has too many channels of this node")
        other.keep(made, node_id(key))
        return made

    def keep(self, channel: _Inside, sender: bytes) -> None:
        """Somebody has opened a channel to this link."""
        self._channels[channel] = sender

    def forget(self, channel: _Inside) -> None:
        """Somebody has ended a channel to this link; harmless when repeated."""
        sender = self._channels.pop(channel, None)
        if sender is not None:
            self.leave(sender)

    async def serve(self, channel: _Inside, caller: Identity, frame: bytes) -> list[bytes] | None:
        """Answer a frame of a channel; None when the channel has to end."""
        if len(frame) > SKIPPED_BYTES:
            self.dropped["oversized"] += 1
            return None
        return None if channel.over else await self.answer(caller.id, caller.public_key, frame)

    async def close(self) -> None:
        """See ``MemberLink.close``."""
        if _listening.get(self._number) is self:
            del _listening[self._number]
        ending = list(self.serving)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for channel in list(self._channels):
            channel.close()
        await super().close()
