"""The calling side of Arrow Flight: clients of a place, sessions, and streams of frames with two threads each."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from outroute.errors import MissingExtraError
from outroute.identity import Identity
from outroute.transports.calls import Calls
from outroute.transports.certificates import TLS_NAME, Pair, Papers, Shown, keep_quiet, look, place_parts
from outroute.transports.channel import ANYBODY, REPLY_BYTES, ChannelReason, Secrets
from outroute.transports.contract import UnreachableError
from outroute.transports.flight_tables import message_of, table_schema, told_of
from outroute.transports.frames import FRAME_BYTES
from outroute.transports.linking import REFUSAL_BYTES, LinkBase
from outroute.transports.links import HANDSHAKE_SECONDS, NO_BINDING, Channel
from outroute.transports.tls_context import QUIET_SECONDS, UNHEARD_SECONDS

if TYPE_CHECKING:
    from pyarrow.flight import FlightClient

__all__ = ["FRAMES", "FlightStream", "errors", "failed", "library", "open_client", "open_stream"]

FRAMES = b"frames"
"""The path of the exchange of frames."""
_HEAD_ROOM = 1024
"""Bytes of a message beside its frame: what Arrow and Flight put around it."""


def library() -> Any:
    """The module ``pyarrow.flight``.

    Raises:
        MissingExtraError: it is not installed.
    """
    keep_quiet()
    try:
        import pyarrow.flight as flight
    except ImportError as error:
        raise MissingExtraError("flight", "a Flight link") from error
    return flight


def errors() -> tuple[type[Exception], ...]:
    """What the library raises when the other side is gone or refuses."""
    import pyarrow as pa

    return (pa.ArrowException, OSError)


def _client(place: str, seen: tuple[Shown, Pair] | None) -> FlightClient:
    """A client of a place; with TLS, which trusts the one certificate that was seen, where one was."""
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", FRAME_BYTES + _HEAD_ROOM),
        ("grpc.keepalive_time_ms", 1000 * QUIET_SECONDS),
        ("grpc.keepalive_timeout_ms", 1000 * UNHEARD_SECONDS),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    flight = library()
    if seen is None:
        return flight.FlightClient(f"grpc+tcp://{place}", generic_options=options)
    shown, pair = seen
    return flight.FlightClient(
        f"grpc+tls://{place}",
        tls_root_certs=shown.certificate,
        cert_chain=pair.certificate,
        private_key=pair.key,
        override_hostname=TLS_NAME,
        generic_options=options,
    )


def _handshake(client: FlightClient, hello: bytes) -> bytes:
    """Send a hello in Flight's handshake; what comes back, without the token, which the client keeps."""
    flight = library()

    class Handshake(flight.ClientAuthHandler):  # type: ignore[misc,name-defined]
        said = token = b""

        def authenticate(self, outgoing: Any, incoming: Any) -> None:
            outgoing.write(hello)
            found = bytes(incoming.read())
            size = REFUSAL_BYTES if LinkBase.refuses(found) else REPLY_BYTES
            self.said, self.token = found[:size], found[size:]

        def get_token(self) -> bytes:
            return self.token

    handler = Handshake()
    client.authenticate(handler, flight.FlightCallOptions(timeout=HANDSHAKE_SECONDS))
    return handler.said


def failed(error: Exception) -> ConnectionError:
    """An error of the library's as one of a link's, in one line."""
    text = " ".join(str(error).split())
    return ConnectionError(text.partition(". gRPC client debug context")[0][:300] or type(error).__name__)


class FlightStream(Channel):
    """An exchange that this node opened."""

    def __init__(self, link: LinkBase, member: bytes, client: FlightClient, writer: Any, reader: Any) -> None:
        self.member = member
        self._link, self._client, self._writer, self._reader = link, client, writer, reader
        self._calls, self._errors = Calls(), errors()
        self._loop = asyncio.get_running_loop()
        self._out: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._most = max(link.credit, 1)
        self._coming = threading.Lock()
        self._come: list[tuple[int, bool, bytes]] = []
        self._writing = threading.Thread(target=self._write, name="outroute-flight-write", daemon=True)
        self._reading = threading.Thread(target=self._read, name="outroute-flight-read", daemon=True)
        self._writing.start()
        self._reading.start()

    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """See ``Channel.exchange``."""
        if self.over:
            raise EOFError("the stream has ended")
        if self._out.qsize() >= self._most:  # who gives up leaves his frame in the queue
            return [LinkBase.busy()]
        number = self._calls.begin()
        try:
            self._out.put((number, frame))
            return await self._calls.reply(number)
        finally:
            self._calls.forget(number)

    def _write(self) -> None:
        """In a thread of its own: frames out, until there are no more."""
        with suppress(*self._errors):
            while (one := self._out.get()) is not None:
                head, batch = message_of(*one)
                if batch is None:
                    self._writer.write_metadata(head)
                else:
                    self._writer.write_with_metadata(batch, head)

    def _read(self) -> None:
        """In a thread of its own: replies in, until the stream ends."""
        why = "the stream has ended"
        try:
            while not self.over:
                found = told_of(self._reader.read_chunk(), FRAME_BYTES + _HEAD_ROOM)
                if found is None or not found[0]:  # nonsense, or a farewell
                    break
                with self._coming:
                    self._come.append(found)
                    first = len(self._come) == 1
                if first:  # else the event loop has not taken yet what came before: waking it costs much
                    self._tell(self._take)
        except StopIteration:
            pass
        except self._errors as error:
            why = str(failed(error))
        self._tell(self._end, why)
        # The library ends a stream by itself when it fails, in the thread that notices it first. Doing so in another
        # one at the same time (``done_writing``) aborts the process, so streams are cancelled, and closed by the last.
        self._reader.cancel()
        self._out.put(None)
        self._writing.join()
        with suppress(*self._errors):
            self._writer.close()
        with suppress(*self._errors):
            self._client.close()

    def _tell(self, work: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it whoever would want to know
            self._loop.call_soon_threadsafe(work, *arguments)

    def _take(self) -> None:
        with self._coming:
            come, self._come = self._come, []
        try:
            for found in come:
                self._calls.take(*found)
        except EOFError as error:
            self._end(str(error))

    def _end(self, why: str) -> None:
        if self.over:
            return
        self._link.ended(self)
        self._calls.fail(why)
        self._out.put(None)
        self._reader.cancel()  # wakes the thread that reads

    def close(self) -> None:
        """See ``Channel.close``."""
        self._end("closed")

    def joined(self, seconds: float) -> None:
        """Wait, in a thread, until its threads have ended, but not longer than so many seconds."""
        self._reading.join(seconds)


def open_stream(
    link: LinkBase, member: bytes, place: str, seen: tuple[Shown, Pair] | None
) -> tuple[bytes, FlightClient, Any, Any]:
    """Begin a session and an exchange of frames; to be called in a thread, for at most ``HANDSHAKE_SECONDS``.

    Returns:
        Public key of the one called, the client, and the stream's two ends.

    Raises:
        ConnectionError: nobody is there.
        UnreachableError: one side refuses the other.
    """
    client, binding = _client(place, seen), NO_BINDING if seen is None else seen[0].digest
    try:
        hello = link.hello(member, binding)
        key = link.introduced(member, hello, _handshake(client, hello), binding)
        writer, reader = client.do_exchange(library().FlightDescriptor.for_path(FRAMES))
        writer.begin(table_schema())
    except errors() as error:
        client.close()
        raise failed(error) from error
    except BaseException:
        client.close()
        raise
    return key, client, writer, reader


def open_client(
    place: str, identity: Identity, *, secrets: Secrets | None = None, member: bytes = ANYBODY, secure: bool = True
) -> FlightClient:
    """A plain ``pyarrow.flight`` client with a session, for tables; close it when you are done.

    Args:
        place: ``HOST:PORT`` of a node.
        identity: yours; a node's or one made for the purpose (``Identity.generate()``).
        secrets: of the network; none in an open one.
        member: id of the node, to be sure that it is this one.
        secure: whether the node's transport has TLS.

    Raises:
        UnreachableError: nobody is there, or one side refuses the other.
    """

    async def see() -> tuple[Shown, Pair] | None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            return await look(*place_parts(place), Papers("flight").pairs(known))

    known = secrets or Secrets()
    link = _Alone(identity, handle=lambda _, __: [], endpoint_of=lambda _: None, secrets=known)
    try:
        seen = asyncio.run(see()) if secure else None
    except OSError as error:  # a TimeoutError is one
        raise UnreachableError(f"nobody answers at {place} ({error})", code="transport.unreachable") from error
    if secure and seen is None:
        raise link.refusal(member, ChannelReason.SECRET)
    client, binding = _client(place, seen), NO_BINDING if seen is None else seen[0].digest
    hello = link.hello(member, binding)
    try:
        link.introduced(member, hello, _handshake(client, hello), binding)
    except errors() as error:
        client.close()
        raise UnreachableError(f"nobody answers at {place} ({failed(error)})", code="transport.unreachable") from error
    except BaseException:
        client.close()
        raise
    return client


class _Alone(LinkBase):
    """For the handshake of somebody who has no member: neither listens nor connects."""

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        raise NotImplementedError

    async def connect(self, member: bytes, place: str) -> Channel:
        raise NotImplementedError
