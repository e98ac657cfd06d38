"""A direct link between nodes: TLS 1.3 over TCP, node keys pinned both ways, frames with request and reply.

One connection per pair and direction carries many exchanges. The receiver takes the frames of a connection one after
the other, so a fast sender waits in its own socket; the sender counts what is on its way (credit) and is told BUSY
above that. Frames are handled in one thread beside the event loop, so checking signatures holds nobody up.

On the wire, after the handshake of ``outroute.transports.channel``, records of a header of 9 bytes, little-endian
(flags u8: 1 = more frames of this reply follow; number of the exchange u32; length u32), and a frame.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

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
from outroute.transports.tls_context import client_context, notice_end, server_context

__all__ = ["CALLERS_MOST", "CALLERS_PER_NODE", "HANDSHAKE_SECONDS", "IDLE_SECONDS", "SLOW_SECONDS", "TlsLink"]

_RECORD = struct.Struct("<BII")
_MORE = 1


class _Connection(Channel):
    """A connection that this node opened."""

    def __init__(
        self, link: TlsLink, member: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.member, self.reader, self.writer = member, reader, writer
        self._link = link
        self._calls = Calls()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """See ``Channel.exchange``."""
        number = self._calls.begin()
        try:
            await _say(self.reader, self.writer, _RECORD.pack(0, number, len(frame)) + frame)
            return await self._calls.reply(number)
        finally:
            self._calls.forget(number)

    async def _read(self) -> None:
        """Hand replies to those who wait for them, until the connection ends."""
        error: BaseException = EOFError("the connection has ended")
        try:
            while True:
                more, number, length = _RECORD.unpack(await self.reader.readexactly(_RECORD.size))
                if length > FRAME_BYTES:
                    raise EOFError("a frame over the limit")
                self._calls.take(number, bool(more & _MORE), await self.reader.readexactly(length))
        except FAILURES as failure:
            error = failure
        finally:
            self._link.ended(self)
            self._calls.fail(str(error))
            _shut(self.writer)

    def close(self) -> None:
        """See ``Channel.close``."""
        self._reading.cancel()
        _shut(self.writer)


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
            self._server = await asyncio.start_server(self._accept, host, port, limit=FRAME_BYTES)
        except OSError as error:
            raise TransportError(
                f"cannot listen on {host}:{port} ({error.strerror or error}): choose another address or port",
                code="transport.listen",
            ) from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # it was waiting to be taken when the link was closed
            _shut(writer)
            return
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # what comes first is for TLS
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step runs nothing of itself, no `finally` either.
        task.add_done_callback(lambda _: _shut(writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender = b""
        try:
            notice_end(writer)
            if len(self._tasks) > CALLERS_MOST:
                self.dropped["full"] += 1
                return
            assert self._context is not None
            await writer.start_tls(self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS)
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                reply, key = self.greet(await reader.readexactly(HELLO_BYTES), self._certificate)
                writer.write(reply)
                await writer.drain()
            if key is None:
                return
            sender = node_id(key)
            if self.enter(sender):
                await self._answer(sender, key, reader, writer)
        except FAILURES:
            return  # the caller is gone or cut off; it knows what was not answered
        finally:
            if sender:
                self.leave(sender)

    async def _answer(
        self, sender: bytes, key: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async def read() -> tuple[int, bytes] | None:
            async with asyncio.timeout(IDLE_SECONDS):
                first = await reader.readexactly(1)
            async with asyncio.timeout(SLOW_SECONDS):
                _, number, length = _RECORD.unpack(first + await reader.readexactly(_RECORD.size - 1))
                if length > SKIPPED_BYTES:
                    self.dropped["oversized"] += 1
                    return None
                return number, await reader.readexactly(length)

        async def say(number: int, replies: Sequence[bytes]) -> None:
            for at, reply in enumerate(replies, 1):
                more = _MORE if at < len(replies) else 0
                await _say(reader, writer, _RECORD.pack(more, number, len(reply)) + reply)

        try:
            await answer_in_turn(self, sender, key, read, say)
        except TimeoutError:
            self.dropped["slow"] += 1

    # calling ------------------------------------------------------------------------------------------------

    async def connect(self, member: bytes, place: str) -> Channel:
        """See ``LinkBase.connect``."""
        host, _, port = place.rpartition(":")
        reader, writer = await asyncio.open_connection(
            host.strip("[]"), int(port), ssl=self._client, server_hostname="", limit=FRAME_BYTES
        )
        try:
            notice_end(writer)
            key = await self._introduce(member, reader, writer)
        except BaseException:
            _shut(writer)
            raise
        return _Connection(self, node_id(key), reader, writer)

    async def _introduce(self, member: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Our own handshake, as the caller; the public key of the one called."""
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        binding = hashlib.sha256(shown).digest()
        hello = self.hello(member, binding)
        writer.write(hello)
        reply = await reader.readexactly(REFUSAL_BYTES)
        if not self.refuses(reply):
            reply += await reader.readexactly(REPLY_BYTES - len(reply))
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


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, unless it is known that the other side is gone: the event loop warns of each such write.

    Raises:
        ConnectionResetError: it is gone.
    """
    if writer.is_closing() or reader.at_eof():
        raise ConnectionResetError("the connection has ended")
    writer.write(data)
    await writer.drain()


def _shut(writer: asyncio.StreamWriter) -> None:
    """Close without waiting: the other side may be gone."""
    with suppress(*FAILURES):
        writer.transport.abort()
