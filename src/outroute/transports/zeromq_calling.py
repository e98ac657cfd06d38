"""The caller's side of a link over ZeroMQ: a DEALER for each node called, and what the library says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import zmq

from outroute.identity import node_id
from outroute.transports.calls import Calls, pack, unpack
from outroute.transports.channel import ChannelReason
from outroute.transports.linking import LinkBase
from outroute.transports.links import HANDSHAKE_SECONDS, Channel
from outroute.transports.zeromq_wire import FULL_SECONDS, Wire

__all__ = ["Connection"]

_FAILED = (
    "the encryption below could not be agreed on: the key in its place may be another node's, one side may have "
    "security=off, or something else listens there"
)
_SILENT = "it says nothing: its place may be out of date, or a firewall or another program swallows what is sent there"


class Connection(Channel):
    """A connection that this node opened: a DEALER of its own."""

    def __init__(self, link: LinkBase, member: bytes, socket: zmq.Socket[bytes], endpoint: str) -> None:
        loop = asyncio.get_running_loop()
        self.member = member
        self._link, self._calls = link, Calls()
        self._up: asyncio.Future[None] = loop.create_future()
        self._reply: asyncio.Future[bytes] = loop.create_future()
        for one in (self._up, self._reply):
            one.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting
        self._wire = Wire(socket, self._heard, self._seen)
        socket.connect(endpoint)

    async def introduce(self, binding: bytes) -> None:
        """The handshakes of the library and our own.

        Raises:
            OSError, EOFError, TimeoutError, UnreachableError: see ``LinkBase.connect``.
        """
        try:
            async with asyncio.timeout(0.9 * HANDSHAKE_SECONDS):
                await self._up
                hello = self._link.hello(self.member, binding)
                self._wire.send([hello])
                reply = await self._reply
        except TimeoutError:
            raise TimeoutError(_SILENT) from None
        self.member = node_id(self._link.introduced(self.member, hello, reply, binding))

    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """See ``Channel.exchange``."""
        if self.over:
            raise EOFError("the connection has ended")
        number = self._calls.begin()
        try:
            while not self._wire.send([pack(number, frame)]):
                await asyncio.sleep(FULL_SECONDS)
                if self.over:
                    raise EOFError("the connection has ended")
            return await self._calls.reply(number)
        finally:
            self._calls.forget(number)

    def _heard(self, parts: list[zmq.Frame]) -> None:
        if not self._reply.done():
            self._reply.set_result(parts[0].bytes)
            return
        read = unpack(parts[0].buffer)
        try:
            if read is None or len(parts) != 1:
                raise EOFError("a message that is none")
            number, more, frame = read
            self._calls.take(number, more, frame)
        except EOFError as error:
            self._end(str(error))

    def _seen(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            if not self._up.done():
                self._up.set_result(None)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._fail(LinkBase.refusal(self.member, ChannelReason.NOT_ADMITTED))
        elif event in (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL):
            self._fail(ConnectionError(_FAILED))
        elif event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
            self._fail(ConnectionError("nobody takes connections there"))
            self._end("the connection has ended")

    def _fail(self, error: Exception) -> None:
        for one in (self._up, self._reply):
            if not one.done():
                one.set_exception(error)

    def _end(self, why: str) -> None:
        self._link.ended(self)
        self._calls.fail(why)
        self._wire.close()

    def close(self) -> None:
        """See ``Channel.close``."""
        self.over = True
        self._fail(EOFError("closed"))
        self._calls.fail("closed")
        self._wire.close()
