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
import secrets as random_bytes
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from outroute.errors import TransportError
from outroute.identity import Identity, node_id
from outroute.transports.channel import (
    ANYBODY,
    HELLO_BYTES,
    REPLY_BYTES,
    Accepted,
    ChannelReason,
    Secrets,
    answer_hello,
    check_reply,
    make_hello,
)
from outroute.transports.contract import CREDIT_FRAMES, UnreachableError
from outroute.transports.frames import FRAME_BYTES, Frame, FrameReason, Kind, encode
from outroute.transports.refusals import Refusals
from outroute.transports.tls_context import client_context, notice_end, server_context

__all__ = ["CALLERS_MOST", "HANDSHAKE_SECONDS", "IDLE_SECONDS", "SLOW_SECONDS", "TlsLink"]

#: Seconds for TLS and our own handshake together: three round trips and two signatures, with room for a far node.
HANDSHAKE_SECONDS = 5.0

#: Seconds after which a connection that says nothing is closed; it is opened again when needed.
IDLE_SECONDS = 300.0

#: Seconds that a peer may take to send the rest of a frame, or to read a reply, before it is cut off.
SLOW_SECONDS = 15.0

#: Connections from others at a time; each may hold one frame and one reply, some 40 MB for the largest.
CALLERS_MOST = 512

#: Connections of one node at a time: the one in use and one that has not noticed its end yet.
CALLERS_PER_NODE = 2

#: Frames of one reply; as ``outroute.transports.exchanging.ANSWER_FRAMES``, above which a reply is cut off.
REPLY_FRAMES = 512

#: Bytes of a record that are read and refused; above, the connection ends.
SKIPPED_BYTES = 2 * FRAME_BYTES

#: Seconds before the next attempt at a node that could not be reached: the first, and the most it grows to.
RETRY_SECONDS = (0.05, 5.0)

_RECORD = struct.Struct("<BII")
_MORE = 1
_REFUSAL = b"ORX\x01"
_BUSY_MILLISECONDS = 50
_FAILURES = (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError)

_REASONS = {
    ChannelReason.MALFORMED: "it does not speak this version of the protocol: compare the releases of both sides",
    ChannelReason.SECRET: "the network secret differs: compare --secret-file on both sides",
    ChannelReason.IDENTITY: "it is another node than the one called, or cannot prove its key",
    ChannelReason.NOT_ADMITTED: "this node is revoked or not on its list of members",
}

Handle = Callable[[bytes, bytes], list[bytes]]
"""(id of the sender, its frame) -> the frames of the reply; called in the link's own thread."""


@dataclass(slots=True)
class _Call:
    """An exchange under way."""

    done: asyncio.Future[list[bytes]]
    frames: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Connection:
    """A connection that this node opened."""

    member: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    calls: dict[int, _Call] = field(default_factory=dict)
    reading: asyncio.Task[None] | None = None


class TlsLink:
    """Frames to and from other nodes.

    Args:
        identity: this node's.
        handle: answers the frames of others.
        endpoint_of: where a node (its id) is reached, ``host:port``; None when that is not known.
        secrets: of the network; none in an open one.
        admit: whether the node with a public key may connect and be connected to.
        credit: exchanges with one node at a time.
    """

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
        self._identity, self._handle, self._endpoint_of = identity, handle, endpoint_of
        self.secrets = secrets or Secrets()
        self._admit, self._credit = admit, credit
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="outroute-frames")
        self._client = client_context()
        self._server: asyncio.Server | None = None
        self._certificate = b""
        self._callers: Counter[bytes] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[bytes, asyncio.Task[_Connection]] = {}
        self._flying: Counter[bytes] = Counter()
        self._down: dict[bytes, tuple[float, float]] = {}
        self._number = 0
        self._closed = False
        self.refused: Counter[ChannelReason] = Counter()
        """Handshakes that this node refused, by reason."""
        self.dropped: Counter[str] = Counter()
        """Connections of others that were cut off: "slow", "oversized", "full"; frames not read at once: "held up"."""
        self._refusals = Refusals()

    # called -------------------------------------------------------------------------------------------------

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Take connections; where, as ``host:port``.

        Raises:
            TransportError: the address cannot be used.
        """
        context, self._certificate = server_context()
        try:
            self._server = await asyncio.start_server(
                self._accept, host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS, limit=FRAME_BYTES
            )
        except OSError as error:
            raise TransportError(
                f"cannot listen on {host}:{port} ({error.strerror or error}): choose another address or port",
                code="transport.listen",
            ) from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender = b""
        try:
            notice_end(writer)
            if len(self._tasks) > CALLERS_MOST:
                self.dropped["full"] += 1
                return
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                hello = await reader.readexactly(HELLO_BYTES)
                found = answer_hello(self._identity, hello, certificate=self._certificate, secrets=self.secrets)
                if isinstance(found, Accepted) and not self._admit(found.key):
                    found = ChannelReason.NOT_ADMITTED
                if isinstance(found, ChannelReason):
                    self.refused[found] += 1
                    writer.write(_REFUSAL + bytes([found]))
                    await writer.drain()
                    return
                writer.write(found.reply)
                await writer.drain()
            sender = node_id(found.key)
            self._callers[sender] += 1
            if self._callers[sender] > CALLERS_PER_NODE:
                self.dropped["full"] += 1
                return
            await self._answer(sender, found.key, reader, writer)
        except _FAILURES:
            return  # the caller is gone or cut off; it knows what was not answered
        finally:
            if sender:
                self._callers[sender] -= 1
            _shut(writer)

    async def _answer(
        self, sender: bytes, key: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                first = await reader.readexactly(1)
            try:
                async with asyncio.timeout(SLOW_SECONDS):
                    _, number, length = _RECORD.unpack(first + await reader.readexactly(_RECORD.size - 1))
                    if length > SKIPPED_BYTES:
                        self.dropped["oversized"] += 1
                        return
                    frame = await reader.readexactly(length)
                if not self._admit(key):  # revoked meanwhile
                    return
                if length > FRAME_BYTES:
                    self.dropped["oversized"] += 1
                    replies = [encode(Frame(kind=Kind.REFUSED, detail=FrameReason.LENGTH))]
                else:
                    replies = await loop.run_in_executor(self._worker, self._handle, sender, frame)
                async with asyncio.timeout(SLOW_SECONDS):
                    for at, reply in enumerate(replies, 1):
                        more = _MORE if at < len(replies) else 0
                        await _say(reader, writer, _RECORD.pack(more, number, len(reply)) + reply)
            except TimeoutError:
                self.dropped["slow"] += 1
                return
            wait = self._refusals.wait(sender, replies)
            if wait:
                self.dropped["held up"] += 1
                await asyncio.sleep(wait)

    # calling ------------------------------------------------------------------------------------------------

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        """See ``outroute.transports.Link.request``."""
        if self._flying[member] >= self._credit:
            return [encode(Frame(kind=Kind.BUSY, detail=_BUSY_MILLISECONDS))]
        self._flying[member] += 1
        try:
            return await self._exchange(await self._connection(member), member, frame)
        finally:
            self._flying[member] -= 1
            if not self._flying[member]:
                del self._flying[member]

    async def request_at(self, endpoint: str, frame: bytes) -> tuple[bytes, Sequence[bytes]]:
        """Send a frame to whoever is at a place (``host:port``): its id and the frames of its reply.

        Raises:
            UnreachableError: nobody answers there.
            TransportError: that is no place.
        """
        try:
            connection = await self._connect(ANYBODY, endpoint)
        except _FAILURES as error:
            raise UnreachableError(f"nobody answers at {endpoint} ({error})", code="transport.unreachable") from error
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                return connection.member, await self._exchange(connection, connection.member, frame)
        except TimeoutError as error:
            raise _unreachable(connection.member, error) from error
        finally:
            _shut(connection.writer)
            if connection.reading is not None:
                connection.reading.cancel()

    async def _exchange(self, connection: _Connection, member: bytes, frame: bytes) -> Sequence[bytes]:
        self._number = (self._number + 1) % 2**32
        number = self._number
        call = connection.calls[number] = _Call(asyncio.get_running_loop().create_future())
        try:
            await _say(connection.reader, connection.writer, _RECORD.pack(0, number, len(frame)) + frame)
            return await call.done
        except _FAILURES as error:
            raise _unreachable(member, error) from error
        finally:
            connection.calls.pop(number, None)

    async def own(self, frame: bytes) -> list[bytes]:
        """Handle a frame of this node itself, in turn with those of others."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._handle, self._identity.id, frame)

    async def _connection(self, member: bytes) -> _Connection:
        if self._closed:
            raise TransportError("this link is closed: open the node again", code="transport.closed")
        task = self._open.get(member)
        if task is None:
            until, _ = self._down.get(member, (0.0, 0.0))
            if asyncio.get_running_loop().time() < until:
                raise UnreachableError(f"node {member.hex()[:16]} was away just now", code="transport.unreachable")
            task = self._open[member] = asyncio.get_running_loop().create_task(self._connect(member))
            task.add_done_callback(lambda done: self._connected(member, done))
        try:
            return await asyncio.shield(task)
        except _FAILURES as error:
            raise _unreachable(member, error) from error

    def _connected(self, member: bytes, task: asyncio.Task[_Connection]) -> None:
        """Note whether a node could be reached; wait longer each time that it could not."""
        if task.cancelled() or task.exception() is not None:
            self._open.pop(member, None)
            _, waited = self._down.get(member, (0.0, 0.0))
            wait = min(max(2 * waited, RETRY_SECONDS[0]), RETRY_SECONDS[1])
            self._down[member] = (asyncio.get_running_loop().time() + wait, wait)
        else:
            self._down.pop(member, None)

    async def _connect(self, member: bytes, endpoint: str | None = None) -> _Connection:
        endpoint = endpoint or self._endpoint_of(member)
        if endpoint is None:
            raise TransportError(
                f"nobody knows where node {member.hex()[:16]} is: it has to announce itself first",
                code="transport.nobody",
            )
        host, _, port = endpoint.rpartition(":")
        if not host or not port.isdecimal():
            raise TransportError(f"'{endpoint}' is no place: write HOST:PORT", code="transport.endpoint")
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=self._client, server_hostname="", limit=FRAME_BYTES
            )
            try:
                notice_end(writer)
                key = await self._introduce(member, reader, writer)
            except BaseException:
                _shut(writer)
                raise
        connection = _Connection(node_id(key), reader, writer)
        connection.reading = asyncio.get_running_loop().create_task(self._read(member, connection))
        return connection

    async def _introduce(self, member: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Our own handshake, as the caller; the public key of the one called."""
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        certificate = hashlib.sha256(shown).digest()
        hello = make_hello(
            self._identity,
            called=member,
            certificate=certificate,
            nonce=random_bytes.token_bytes(32),
            secrets=self.secrets,
        )
        writer.write(hello)
        start = await reader.readexactly(len(_REFUSAL) + 1)
        if start.startswith(_REFUSAL):
            known = start[-1] in set(ChannelReason)
            raise _refused(member, ChannelReason(start[-1]) if known else ChannelReason.MALFORMED)
        reply = start + await reader.readexactly(REPLY_BYTES - len(start))
        found = check_reply(reply, hello, called=member, certificate=certificate, secrets=self.secrets)
        if isinstance(found, Accepted) and not self._admit(found.key):
            found = ChannelReason.NOT_ADMITTED
        if isinstance(found, ChannelReason):
            raise _refused(member, found)
        return found.key

    async def _read(self, member: bytes, connection: _Connection) -> None:
        """Hand replies to those who wait for them, until the connection ends."""
        reader = connection.reader
        error: BaseException = EOFError("the connection has ended")
        try:
            while True:
                more, number, length = _RECORD.unpack(await reader.readexactly(_RECORD.size))
                if length > FRAME_BYTES:
                    raise EOFError("a frame over the limit")
                data = await reader.readexactly(length)
                call = connection.calls.get(number)
                if call is None:
                    continue  # whoever asked has given up
                call.frames.append(data)
                if len(call.frames) > REPLY_FRAMES:
                    raise EOFError("a reply over the limit")
                if not more & _MORE and not call.done.done():
                    call.done.set_result(call.frames)
        except _FAILURES as failure:
            error = failure
        finally:
            if member != ANYBODY:
                self._open.pop(member, None)
            for call in connection.calls.values():
                if not call.done.done():
                    call.done.set_exception(EOFError(str(error)))
            _shut(connection.writer)

    async def close(self) -> None:
        """End all connections and take no more; harmless when repeated."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        opened = [task.result() for task in self._open.values() if task.done() and not task.cancelled()]
        waiting = [task for task in self._open.values() if not task.done()]
        reading = [one.reading for one in opened if one.reading is not None]
        ending = [*self._tasks, *waiting, *reading]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for one in opened:
            _shut(one.writer)
        self._worker.shutdown(wait=False, cancel_futures=True)


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
    with suppress(*_FAILURES):
        writer.transport.abort()


def _unreachable(member: bytes, error: BaseException) -> UnreachableError:
    return UnreachableError(
        f"node {member.hex()[:16]} does not answer ({error or type(error).__name__})", code="transport.unreachable"
    )


def _refused(member: bytes, reason: ChannelReason) -> UnreachableError:
    return UnreachableError(f"node {member.hex()[:16]}: {_REASONS[reason]}", code=f"transport.{reason.name.lower()}")
