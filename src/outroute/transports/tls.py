"""A direct link between nodes: TLS 1.3 over TCP, node keys pinned both ways, frames with request and reply.

One connection per pair and direction carries many exchanges. The receiver answers the frames of a connection in their
order, a few deposits at a time and one question, so a fast sender waits in its own socket; the sender counts what is on
its way (credit) and is told BUSY above that. Frames are handled in one thread beside the event loop, so checking
signatures holds nobody up.

On the wire, after the handshake of ``outroute.transports.channel``, the records of ``outroute.transports.records``.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Sequence

from outroute.errors import TransportError
from outroute.identity import Identity, node_id
from outroute.transports.answering import answer_in_turn
from outroute.transports.calls import Calls
from outroute.transports.channel import HELLO_BYTES, REPLY_BYTES, Secrets
from outroute.transports.contract import CREDIT_FRAMES
from outroute.transports.frames import FRAME_BYTES
from outroute.transports.linking import REFUSAL_BYTES, LinkBase
from outroute.transports.links import (
    CALLERS_MOST,
    CALLERS_PER_NODE,
    FAILURES,
    HANDSHAKE_SECONDS,
    IDLE_SECONDS,
    SKIPPED_BYTES,
    SLOW_SECONDS,
    Channel,
    Handle,
)
from outroute.transports.records import Line, pack_record
from outroute.transports.tls_context import client_context, notice_end, server_context

__all__ = ["CALLERS_MOST", "CALLERS_PER_NODE", "HANDSHAKE_SECONDS", "IDLE_SECONDS", "SLOW_SECONDS", "TlsLink"]

_TAKEN = 64
"""Records taken from a line at a time."""


class _Connection(Channel):
    """A connection that this node opened."""

    def __init__(self, link: TlsLink, member: bytes, line: Line) -> None:
        self.member, self.line = member, line
        self._link = link
        self._calls = Calls()
        line.begin(self._heard)

    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """See ``Channel.exchange``."""
        number = self._calls.begin()
        try:
            await self.line.say(pack_record(number, frame))
            return await self._calls.reply(number)
        finally:
            self._calls.forget(number)

    def _heard(self) -> None:
        """Hand replies to those who wait for them, until the connection ends."""
        why = "a frame over the limit" if self.line.oversized else "the connection has ended"
        try:
            while records := self.line.take(_TAKEN):
                for number, more, frame in records:
                    self._calls.take(number, more, frame)
        except EOFError as error:
            why = str(error)
            self.line.shut()
        if self.line.ended:
            self._link.ended(self)
            self._calls.fail(why)
            self.line.shut()

    def close(self) -> None:
        """See ``Channel.close``."""
        self.line.shut()


class TlsLink(LinkBase):
    """Frames to and from other nodes; see ``LinkBase`` for the arguments."""

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
        self._client = client_context()
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None
        self._certificate = b""
        self._tasks: set[asyncio.Task[None]] = set()

    # called -------------------------------------------------------------------------------------------------

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Take connections; where, as ``host:port``.

        Raises:
            TransportError: the address cannot be used.
        """
        self._context, self._certificate = server_context()
        try:
            # TLS begins in `_serve`: a server that speaks it knows of nobody whose handshake is under way, neither to
            # count nor to end them.
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Line(SKIPPED_BYTES, self._accept), host, port
            )
        except OSError as error:
            raise TransportError(
                f"cannot listen on {host}:{port} ({error.strerror or error}): choose another address or port",
                code="transport.listen",
            ) from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, line: Line) -> None:
        if self._closed:  # it was waiting to be taken when the link was closed
            line.shut()
            return
        assert line.transport is not None
        line.transport.pause_reading()  # what comes first is for TLS
        task = asyncio.get_running_loop().create_task(self._serve(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step runs nothing of itself, no `finally` either.
        task.add_done_callback(lambda _: line.shut())

    async def _serve(self, line: Line) -> None:
        sender = b""
        assert line.transport is not None
        assert self._context is not None
        try:
            notice_end(line.transport)
            if len(self._tasks) > CALLERS_MOST:
                self.dropped["full"] += 1
                return
            line.transport = await asyncio.get_running_loop().start_tls(
                line.transport, line, self._context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                reply, key = self.greet(await line.exactly(HELLO_BYTES), self._certificate)
                await line.say(reply)
            if key is None:
                return
            sender = node_id(key)
            if self.enter(sender):
                line.begin()
                await self._answer(sender, key, line)
        except FAILURES:
            return  # the caller is gone or cut off; it knows what was not answered
        finally:
            if sender:
                self.leave(sender)

    async def _answer(self, sender: bytes, key: bytes, line: Line) -> None:
        async def read(most: int) -> list[tuple[int, bytes]]:
            while not (records := line.take(most)) and not line.ended:
                now = asyncio.get_running_loop().time()
                until = now + IDLE_SECONDS if line.since is None else line.since + SLOW_SECONDS
                async with asyncio.timeout_at(until):
                    await line.changed()
            if not records and line.oversized:
                self.dropped["oversized"] += 1
            return [(number, frame) for number, _, frame in records]

        async def say(answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
            said: list[bytes] = []
            for number, replies in answers:
                if len(answers) == 1 and len(replies) > 1:  # long, perhaps: one frame at a time
                    for at, one in enumerate(replies, 1):
                        await line.say(pack_record(number, one, more=at < len(replies)))
                else:
                    said += [pack_record(number, one, more=at < len(replies)) for at, one in enumerate(replies, 1)]
            if said:
                await line.say(b"".join(said))

        try:
            await answer_in_turn(self, sender, key, read, say)
        except TimeoutError:
            self.dropped["slow"] += 1

    # calling ------------------------------------------------------------------------------------------------

    async def connect(self, member: bytes, place: str) -> Channel:
        """See ``LinkBase.connect``."""
        host, _, port = place.rpartition(":")
        _, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(FRAME_BYTES), host.strip("[]"), int(port), ssl=self._client, server_hostname=""
        )
        try:
            assert line.transport is not None
            notice_end(line.transport)
            key = await self._introduce(member, line, line.transport)
        except BaseException:
            line.shut()
            raise
        return _Connection(self, node_id(key), line)

    async def _introduce(self, member: bytes, line: Line, transport: asyncio.Transport) -> bytes:
        """Our own handshake, as the caller; the public key of the one called."""
        shown: bytes = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        binding = hashlib.sha256(shown).digest()
        hello = self.hello(member, binding)
        await line.say(hello)
        reply = await line.exactly(REFUSAL_BYTES)
        if not self.refuses(reply):
            reply += await line.exactly(REPLY_BYTES - len(reply))
        return self.introduced(member, hello, reply, binding)

    async def close(self) -> None:
        """See ``MemberLink.close``."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        ending = list(self._tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await super().close()
