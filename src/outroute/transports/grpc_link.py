"""A link over gRPC: one long stream per pair of nodes and direction, a frame per message, mutual TLS.

A stream begins with metadata: the hello of ``channel``, bound to the certificate of the one called (see
``certificates``), and its reply. From then on it carries messages of ``proto/frames.proto`` both ways. gRPC's flow
control slows a fast sender down; on top of it stands the credit of ``LinkBase``. The stream has no deadline, its
opening has one, and so has every exchange. A stream that breaks is opened anew by us, with a wait that doubles, since
the process at the other end may be another one with another certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from outroute.errors import MissingExtraError, TransportError
from outroute.identity import Identity, node_id
from outroute.transports.answering import answer_in_turn
from outroute.transports.calls import Calls
from outroute.transports.certificates import (
    SECURITY_MEANS,
    TLS_NAME,
    Pair,
    Papers,
    keep_quiet,
    look,
    own_certificate,
    place_parts,
    secure_by,
)
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.contract import CREDIT_FRAMES, Capabilities
from outroute.transports.frames import FRAME_BYTES
from outroute.transports.linking import LinkBase
from outroute.transports.links import (
    CALLERS_MOST,
    FAILURES,
    HANDSHAKE_SECONDS,
    IDLE_SECONDS,
    NO_BINDING,
    SKIPPED_BYTES,
    SLOW_SECONDS,
    Channel,
    Handle,
    LinkMaker,
)
from outroute.transports.messages import MESSAGE_HEAD_BYTES, file_of, pack, unpack
from outroute.transports.proto import SERVICE
from outroute.transports.tls_context import QUIET_SECONDS, UNHEARD_SECONDS
from outroute.transports.url import Url

if TYPE_CHECKING:
    import grpc
    import grpc.aio

__all__ = ["GrpcLink"]

METHOD = f"/{SERVICE}/Exchange"
HELLO, REPLY = "outroute-hello-bin", "outroute-reply-bin"
_READ_BYTES = 2 * SKIPPED_BYTES
"""Bytes of a message that gRPC reads; above, it ends the stream by itself and tells nobody but the caller."""
_METADATA_BYTES = 8192
"""Bytes of metadata that are read: a hello, a reply, and what proxies and libraries add."""


def _library() -> Any:
    """The module ``grpc``.

    Raises:
        MissingExtraError: it is not installed.
    """
    keep_quiet()
    try:
        import grpc
        import grpc.aio
    except ImportError as error:
        raise MissingExtraError("grpc", "a gRPC link") from error
    return grpc


def _options(received: int) -> list[tuple[str, int]]:
    """Options of both sides: bounds of messages, and noticing that the other side is away."""
    return [
        ("grpc.max_receive_message_length", received + MESSAGE_HEAD_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.keepalive_time_ms", 1000 * QUIET_SECONDS),
        ("grpc.keepalive_timeout_ms", 1000 * UNHEARD_SECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _server_options() -> list[tuple[str, int]]:
    return [
        *_options(_READ_BYTES),
        ("grpc.so_reuseport", 0),  # else a second node at the same port would silently get half of the calls
        ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_SECONDS)),
        ("grpc.max_connection_idle_ms", int(1000 * IDLE_SECONDS)),
        ("grpc.max_concurrent_streams", 16),  # of one connection: a node has one stream, a person who looks some
        ("grpc.http2.min_ping_interval_without_data_ms", 1000 * QUIET_SECONDS // 2),
    ]


class _Stream(Channel):
    """A stream that this node opened."""

    def __init__(self, link: GrpcLink, member: bytes, channel: grpc.aio.Channel, call: Any) -> None:
        self.member = member
        self._link, self._channel, self._call = link, channel, call
        self._calls = Calls()
        # A task that is cancelled while it writes or reads takes the whole stream with it, so others wait for those
        # who asked, and only these two touch the stream.
        self._out: asyncio.Queue[bytes] = asyncio.Queue(maxsize=max(link.credit, 1))
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(self._write())), loop.create_task(self._run(self._read()))]

    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """See ``Channel.exchange``."""
        if self.over:
            raise EOFError("the stream has ended")
        number = self._calls.begin()
        try:
            await self._out.put(pack(number, frame))
            return await self._calls.reply(number)
        finally:
            self._calls.forget(number)

    async def _write(self) -> None:
        while True:
            message = await self._out.get()
            async with asyncio.timeout(SLOW_SECONDS):
                await self._call.write(message)

    async def _read(self) -> None:
        end = self._link.grpc.aio.EOF
        while (message := await self._call.read()) is not end:
            found = unpack(message)
            if found is None:
                raise EOFError("a message that is none")
            self._calls.take(*found)

    async def _run(self, work: Any) -> None:
        """Do a part of the work until the stream ends, and then end the whole."""
        why = "the stream has ended"
        try:
            await work
        except (self._link.grpc.RpcError, asyncio.InvalidStateError) as error:
            why = _said(error)
        except FAILURES as error:
            why = str(error) or type(error).__name__
        finally:
            self._end(why)

    def _end(self, why: str) -> None:
        if self.over:
            return
        self._link.ended(self)
        self._calls.fail(why)
        self._call.cancel()
        self._link.shut(self._channel)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def close(self) -> None:
        """See ``Channel.close``."""
        self._end("closed")


def _said(error: BaseException) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)


class GrpcLink(LinkBase):
    """Frames to and from other nodes over gRPC; see ``LinkBase`` for the other arguments.

    Args:
        secure: mutual TLS. Without it everybody on the way can read and change frames, and hellos are bound to
            nothing: for lines that are protected otherwise, a service mesh with TLS of its own, say.

    Raises:
        MissingExtraError: the extra ``grpc`` is not installed.
    """

    about = "gRPC: a stream of frames between two nodes, mutual TLS, reflection"
    url = "grpc://[HOST:PORT][?security=off]"
    options: ClassVar[Mapping[str, str]] = {"security": SECURITY_MEANS}

    def __init__(
        self,
        identity: Identity,
        *,
        handle: Handle,
        endpoint_of: Callable[[bytes], str | None],
        secrets: Secrets | None = None,
        admit: Callable[[bytes], bool] = lambda _: True,
        credit: int = CREDIT_FRAMES,
        secure: bool = True,
    ) -> None:
        super().__init__(identity, handle=handle, endpoint_of=endpoint_of, secrets=secrets, admit=admit, credit=credit)
        self.grpc = _library()
        self.capabilities = Capabilities(durable=False, ordered=True, back_pressure=True, secure=secure)
        self._secure = secure
        self._papers = Papers("grpc")
        self._server: grpc.aio.Server | None = None
        self._binding = NO_BINDING
        self._ending: set[asyncio.Task[None]] = set()

    @classmethod
    def from_url(cls, url: Url) -> LinkMaker:
        """What makes the links of a URL.

        Raises:
            TransportError: the URL has a path, or an option that is none.
        """
        return partial(cls, secure=secure_by(url, cls.options))

    # called -------------------------------------------------------------------------------------------------

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """See ``MemberLink.listen``."""
        aio = self.grpc.aio
        server = aio.server(options=_server_options(), maximum_concurrent_rpcs=CALLERS_MOST)
        handler = self.grpc.stream_stream_rpc_method_handler(self._serve)  # no serializers: bytes as they come
        server.add_generic_rpc_handlers((self.grpc.method_handlers_generic_handler(SERVICE, {"Exchange": handler}),))
        self._reflect(server)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._secure:
                pair, shown = own_certificate("grpc")
                self._binding = shown.digest
                used = server.add_secure_port(where, self._credentials(pair))
            else:
                used = server.add_insecure_port(where)
        except RuntimeError as error:
            raise TransportError(
                f"cannot listen on {where} (in use, or no address of this machine): choose another address or port",
                code="transport.listen",
            ) from error
        await server.start()
        self._server = server
        return f"{where.rpartition(':')[0]}:{used}"

    def _credentials(self, pair: Pair) -> Any:
        """The server's credentials: which callers are trusted is asked anew for each connection."""

        def now() -> Any:
            return self.grpc.ssl_server_certificate_configuration(
                [(pair.key, pair.certificate)], self._papers.roots(self.secrets)
            )

        return self.grpc.dynamic_ssl_server_credentials(now(), now, require_client_authentication=True)

    def _reflect(self, server: Any) -> None:
        """Serve the description of the link to tools."""
        try:
            from grpc_reflection.v1alpha import reflection
        except ImportError as error:
            raise MissingExtraError("grpc", "a gRPC link") from error
        pool, _ = file_of()
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server, pool=pool)

    async def _serve(self, _: object, context: Any) -> Any:
        hello = next((one.value for one in context.invocation_metadata() if one.key == HELLO), b"")
        reply, key = self.greet(hello if isinstance(hello, bytes) else b"", self._binding)
        code = self.grpc.StatusCode
        if key is None:
            return await context.abort(code.UNAUTHENTICATED, "see the trailing metadata", ((REPLY, reply),))
        sender = node_id(key)
        try:
            if not self.enter(sender):
                return await context.abort(code.RESOURCE_EXHAUSTED, "this node has streams enough here")
            await context.send_initial_metadata(((REPLY, reply),))
            return await self._answer(sender, key, context)
        finally:
            self.leave(sender)

    async def _answer(self, sender: bytes, key: bytes, context: Any) -> Any:
        """Answer messages until the stream ends."""
        end, code = self.grpc.aio.EOF, self.grpc.StatusCode

        async def read(most: int) -> list[tuple[int, bytes]]:
            async with asyncio.timeout(IDLE_SECONDS):
                message = await context.read()
            found = None if message is end else unpack(message)
            if found is None:
                return []
            number, _, frame = found
            if len(frame) > SKIPPED_BYTES:
                self.dropped["oversized"] += 1
                raise EOFError("a message over the limit")
            return [(number, frame)]

        async def say(answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
            for number, replies in answers:
                for at, one in enumerate(replies, 1):
                    await context.write(pack(number, one, more=at < len(replies)))

        try:
            if not await answer_in_turn(self, sender, key, read, say):
                return await context.abort(code.PERMISSION_DENIED, "no longer admitted")
        except TimeoutError:
            self.dropped["slow"] += 1
        except EOFError as error:
            return await context.abort(code.RESOURCE_EXHAUSTED, str(error))
        except self.grpc.RpcError:
            return None  # the caller is gone
        return None

    # calling ------------------------------------------------------------------------------------------------

    async def connect(self, member: bytes, place: str) -> Channel:
        """See ``LinkBase.connect``."""
        aio = self.grpc.aio
        options = [
            *_options(FRAME_BYTES),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.ssl_target_name_override", TLS_NAME),
        ]
        binding = NO_BINDING
        if self._secure:
            seen = await look(*place_parts(place), self._papers.pairs(self.secrets))
            if seen is None:
                raise self.refusal(member, ChannelReason.SECRET)
            shown, pair = seen
            binding = shown.digest
            credentials = self.grpc.ssl_channel_credentials(shown.certificate, pair.key, pair.certificate)
            channel = aio.secure_channel(place, credentials, options=options)
        else:
            channel = aio.insecure_channel(place, options=options)
        try:
            call, key = await self._introduce(member, channel, binding)
        except BaseException:
            self.shut(channel)
            raise
        return _Stream(self, node_id(key), channel, call)

    async def _introduce(self, member: bytes, channel: Any, binding: bytes) -> tuple[Any, bytes]:
        """Open the stream; it, and the public key of the one called."""
        hello = self.hello(member, binding)
        call = channel.stream_stream(METHOD)(metadata=((HELLO, hello),))
        try:
            said = dict(await call.initial_metadata())
            if REPLY not in said:
                said = dict(await call.trailing_metadata())
            if REPLY not in said:
                raise ConnectionError(await call.details() or "the stream was not opened")
            return call, self.introduced(member, hello, bytes(said[REPLY]), binding)
        except self.grpc.RpcError as error:
            raise ConnectionError(_said(error)) from error
        except BaseException:
            call.cancel()
            raise

    def shut(self, channel: Any) -> None:
        """Close a channel, without waiting."""
        task = asyncio.get_running_loop().create_task(channel.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """See ``MemberLink.close``."""
        await super().close()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._ending, return_exceptions=True)
