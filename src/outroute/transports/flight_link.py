"""A link over Arrow Flight: frames in one exchange per pair of nodes and direction, packets in them as Arrow batches.

Besides, any Arrow client with a key of its own may deposit packets as a table and read cells as tables (see
``flight_server``); ``flight_client.open_client`` gives a plain ``pyarrow.flight`` client with a session.

The library has no asynchronous interface in Python, so two threads serve each stream that this node opened, and the
library's own serve those of others. It verifies certificates as gRPC does (see ``certificates``); who a session belongs
to is proved by a hello in Flight's handshake, whose token every later call carries.

What the library does not offer in Python: a bound on the size of a message before it is read, and ending a call of
somebody who does not read. Messages over the limit are refused after they were read, and such calls hold a thread;
both take a node that was let in. Where members are not trusted that far, use another link.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from outroute.errors import TransportError
from outroute.identity import Identity, node_id
from outroute.transports.certificates import (
    SECURITY_MEANS,
    Pair,
    Papers,
    Shown,
    look,
    own_certificate,
    place_parts,
    secure_by,
)
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.contract import CREDIT_FRAMES, Capabilities
from outroute.transports.flight_client import FlightStream, errors, library, open_stream
from outroute.transports.flight_offer import MemberTables, Offered
from outroute.transports.frames import FRAME_BYTES, Frame, FrameReason, Kind, encode
from outroute.transports.linking import LinkBase
from outroute.transports.links import HANDSHAKE_SECONDS, NO_BINDING, Channel, Handle, LinkMaker
from outroute.transports.url import Url

if TYPE_CHECKING:
    from outroute.transports.flight_server import Caller, Server

__all__ = ["FlightLink"]

_Made = TypeVar("_Made")

_OPENING_MOST = 4
"""Streams that are being opened at a time; each holds a thread for a handshake."""
_AGAIN_SECONDS = 0.2
"""Seconds until a port is tried again whose server is just ending."""
_CLOSE_SECONDS = 2.0
"""Seconds that calls of others may take to end when this node goes; whoever does not read would hold it up for ever."""


class FlightLink(LinkBase):
    """Frames to and from other nodes over Arrow Flight; see ``LinkBase`` for the other arguments.

    Args:
        secure: mutual TLS. Without it everybody on the way can read and change what travels, and hellos are bound to
            nothing: for lines that are protected otherwise.

    Raises:
        MissingExtraError: the extra ``flight`` is not installed.
    """

    about = "Arrow Flight: frames as Arrow batches, packets as tables for any Arrow client, mutual TLS"
    url = "flight://[HOST:PORT][?security=off]"
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
        library()
        self.capabilities = Capabilities(durable=False, ordered=True, back_pressure=True, secure=secure)
        self._secure = secure
        self._papers = Papers("flight")
        self._trusted = b""
        self._server: Server | None = None
        self._place = ("", 0)
        self._own: tuple[Pair, Shown] | None = None
        self._member: Offered | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving = threading.Lock()
        self._opening = ThreadPoolExecutor(_OPENING_MOST, thread_name_prefix="outroute-flight")
        self._streams: set[FlightStream] = set()

    @classmethod
    def from_url(cls, url: Url) -> LinkMaker:
        """What makes the links of a URL.

        Raises:
            TransportError: the URL has a path, or an option that is none.
        """
        return partial(cls, secure=secure_by(url, cls.options))

    def offer(self, member: Offered) -> None:
        """See ``links.Offering``: its packets as tables."""
        self._member = member

    @property
    def secrets(self) -> Secrets:
        """Of the network. New ones take a new server, since the library trusts the same callers for its whole life."""
        return self._secrets

    @secrets.setter
    def secrets(self, secrets: Secrets) -> None:
        self._secrets = secrets
        if getattr(self, "_server", None) is not None and self._secure:
            threading.Thread(target=self._renew, name="outroute-flight-renew", daemon=True).start()

    def _renew(self) -> None:
        """In a thread: another server at the same place."""
        with self._serving:
            while self._server is not None and not self._closed:
                _end(self._server)
                try:
                    self._server = self._served()
                    return
                except TransportError:  # the old one still holds the port
                    time.sleep(_AGAIN_SECONDS)

    # called -------------------------------------------------------------------------------------------------

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """See ``MemberLink.listen``."""
        self._loop = asyncio.get_running_loop()
        if self._secure:
            self._own = own_certificate("flight")
        self._place = (host, port)
        self._server = self._served()
        self._place = (host, self._server.port)
        return f"[{host}]:{self._server.port}" if ":" in host else f"{host}:{self._server.port}"

    def _served(self) -> Server:
        from outroute.transports.flight_server import serve

        host, port = self._place
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        options: dict[str, Any] = {"location": f"grpc+tcp://{where}"}
        if self._own is not None:
            pair, _ = self._own
            self._trusted = self._papers.roots(self.secrets)
            options = {
                "location": f"grpc+tls://{where}",
                "tls_certificates": [(pair.certificate, pair.key)],
                "verify_client": True,
                "root_certificates": self._trusted,
            }
        try:
            tables = None if self._member is None or self._loop is None else MemberTables(self._member, self._loop)
            return serve(self, tables, node_id, **options)
        except errors() as error:
            raise TransportError(
                f"cannot listen on {where} (in use, or no address of this machine): choose another address or port",
                code="transport.listen",
            ) from error

    @property
    def _binding(self) -> bytes:
        return NO_BINDING if self._own is None else self._own[1].digest

    def _in_loop(self, work: Callable[..., _Made], *arguments: Any) -> _Made:
        """Call something in the event loop, from another thread, and wait for it."""
        done: Future[_Made] = Future()

        def run() -> None:
            try:
                done.set_result(work(*arguments))
            except BaseException as error:  # noqa: BLE001  (handed to the thread that waits)
                done.set_exception(error)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(run)
        return done.result(timeout=HANDSHAKE_SECONDS)

    def greeted(self, hello: bytes) -> tuple[bytes, bytes | None]:
        """See ``flight_server.Desk``."""
        return self._in_loop(self.greet, hello, self._binding)

    def admitted(self, key: bytes) -> bool:
        """See ``flight_server.Desk``."""
        return self.admit(key)

    def entered(self, sender: bytes) -> bool:
        """See ``flight_server.Desk``."""
        return self._in_loop(self.enter, sender)

    def left(self, sender: bytes) -> None:
        """See ``flight_server.Desk``."""
        with suppress(RuntimeError):  # the loop is closed
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self.leave, sender)

    def drop(self, why: str) -> None:
        """See ``flight_server.Desk``."""
        self.dropped[why] += 1

    def handed(self, caller: Caller, frame: bytes) -> Future[list[list[bytes]] | None]:
        """See ``flight_server.Desk``."""
        if len(frame) <= FRAME_BYTES:
            return self.worker.submit(caller.id, frame)
        self.dropped["oversized"] += 1
        refused: Future[list[list[bytes]] | None] = Future()
        refused.set_result([[encode(Frame(kind=Kind.REFUSED, detail=FrameReason.LENGTH))]])
        return refused

    # calling ------------------------------------------------------------------------------------------------

    async def connect(self, member: bytes, place: str) -> Channel:
        """See ``LinkBase.connect``."""
        seen: tuple[Shown, Pair] | None = None
        if self._secure:
            seen = await look(*place_parts(place), self._papers.pairs(self.secrets))
            if seen is None:
                raise self.refusal(member, ChannelReason.SECRET)
        opening = asyncio.get_running_loop().run_in_executor(self._opening, open_stream, self, member, place, seen)
        try:
            key, client, writer, reader = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_give_up)
            raise
        stream = FlightStream(self, node_id(key), client, writer, reader)
        self._streams = {one for one in self._streams if not one.over} | {stream}
        return stream

    async def close(self) -> None:
        """See ``MemberLink.close``."""
        await super().close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._finish)
        self._opening.shutdown(wait=False, cancel_futures=True)

    def _finish(self) -> None:
        """In a thread: end the server and wait for the threads of streams."""
        with self._serving:
            server, self._server = self._server, None
        if server is not None:
            _end(server)
        for stream in self._streams:
            stream.joined(_CLOSE_SECONDS)


def _end(server: Server) -> None:
    """End a server: it takes no more calls, and those under way are asked to end."""
    for one in list(server.streams):
        with suppress(*errors()):
            one.farewell()
    ending = threading.Thread(target=server.shutdown, name="outroute-flight-end", daemon=True)
    ending.start()
    ending.join(_CLOSE_SECONDS)


def _give_up(opening: asyncio.Future[tuple[bytes, Any, Any, Any]]) -> None:
    """Close a stream that nobody waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        _, client, _, _ = opening.result()
        client.close()
