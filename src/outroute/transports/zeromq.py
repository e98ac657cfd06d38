"""A link over ZeroMQ: DEALER to ROUTER, CURVE, an allow-list through ZAP, credit in our own envelope.

*Keys.* Both ends of a connection have a static Curve25519 key that follows from their node's key, so CURVE proves who
is there, and the allow-list (who is admitted, who is revoked) is asked before a message is read. A caller has to know
the key of the one called beforehand: it stands in the place, ``HOST:PORT/KEY``, where KEY is the node's public key as
lists of members have it. Inside, our own handshake goes on as over TLS: node keys sign, and the network secret is
proved, both bound to the Curve25519 key of the one called. Every message carries the key that CURVE has proved for its
connection; one under another key than the handshake's is refused, whatever identity its sender gave itself.

*Bounds.* A caller has as many frames on their way as it has credit; they are answered in their order, more are told
BUSY. The library drops connections with larger messages, makes senders wait at its high-water marks, and ends
connections without heartbeats. A connection that says no hello, or nothing at all for minutes, is cut off.

*Wire.* One connection per pair and direction. A caller's first message is the hello, the first one back the reply or a
refusal; then messages as in ``outroute.transports.calls``.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import ClassVar

import zmq

from outroute.errors import OutrouteError, TransportError
from outroute.identity import Identity, exchange_key, node_id, signing_keys
from outroute.transports.answering import answer_in_turn
from outroute.transports.calls import pack, packed, unpack
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.contract import CREDIT_FRAMES, Capabilities
from outroute.transports.linking import LinkBase
from outroute.transports.links import (
    CALLERS_MOST,
    CALLERS_PER_NODE,
    FAILURES,
    HANDSHAKE_SECONDS,
    IDLE_SECONDS,
    NO_BINDING,
    Channel,
    Handle,
    LinkMaker,
)
from outroute.transports.places import is_place
from outroute.transports.url import Url, bad
from outroute.transports.zeromq_calling import Connection
from outroute.transports.zeromq_wire import FULL_SECONDS, Wire, bounded, cut, is_loopback, new_context, numeric, room

__all__ = ["ZeroMqLink"]

DOMAIN = b"outroute"
"""Of the allow-list: the library asks for each connection under the domain of the socket that took it."""
LINES_MOST = 2 * CALLERS_MOST
"""Connections at a time, those counted that have not said who they are yet; these are cut off soon."""
SWEEP_SECONDS = 1.0
"""Seconds between looks for connections that said no hello."""
_KEYED = re.compile(r"(.+)/([0-9a-f]{64})")
_ZAP = "inproc://zeromq.zap.01"


class _Caller:
    """A connection that somebody else opened and that is proved."""

    __slots__ = ("fd", "key", "proved", "sender", "task", "waiting", "wake")

    def __init__(self, key: bytes, proved: str, fd: int) -> None:
        self.key, self.sender, self.proved, self.fd = key, node_id(key), proved, fd
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class ZeroMqLink(LinkBase):
    """Frames to and from other nodes over ZeroMQ; see ``LinkBase`` for the other arguments.

    Args:
        secure: CURVE and the allow-list; without them only programs of this machine may be talked to, and every one of
            them may read and change what is said.
    """

    options: ClassVar[Mapping[str, str]] = {"security": "on or off"}
    place_hint = "write HOST:PORT/KEY, as the node prints it when it starts (KEY is its public key)"

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
        self._secure = secure
        self.capabilities = Capabilities(durable=True, ordered=True, back_pressure=True, secure=secure)
        self._context, self.open_most = new_context(), room()
        self._public, self._private = identity.exchange_keys()
        self._router: Wire | None = None
        self._allowing: Wire | None = None
        self._port = 0
        self._lines: dict[int, float] = {}
        self._known: dict[bytes, _Caller] = {}
        self._sweeping: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: Url) -> LinkMaker:
        """What makes the links of a URL.

        Raises:
            TransportError: the URL has a path, an option that is none, or would go without security over a network.
        """
        super().from_url(url)
        security = url.options.get("security", "on")
        if security not in ("on", "off"):
            raise bad(str(url), "security is on or off")
        return partial(cls, secure=security == "on")

    @classmethod
    def is_place(cls, text: str) -> bool:
        """``HOST:PORT/KEY``; without the key where there is no security."""
        keyed = _KEYED.fullmatch(text)
        return is_place(keyed[1] if keyed else text)

    def advertised(self, listening: str, place: str) -> str:
        """The user's place, with this node's key."""
        return f"{place}/{self.identity.public_key.hex()}" if self._secure else place

    # called -------------------------------------------------------------------------------------------------

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """See ``MemberLink.listen``."""
        self._only_here(host)
        router = self._context.socket(zmq.ROUTER)
        bounded(router)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.IPV6, int(":" in host))
        router.setsockopt(zmq.BACKLOG, CALLERS_MOST)
        if self._secure:
            allowing = self._context.socket(zmq.ROUTER)
            allowing.setsockopt(zmq.LINGER, 0)
            allowing.bind(_ZAP)
            self._allowing = Wire(allowing, self._allow)
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, self._private)
            router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        self._router = Wire(router, self._heard, self._seen)
        try:
            router.bind(f"tcp://{numeric(host)}:{port or '*'}")
        except (zmq.ZMQError, OSError) as error:
            raise TransportError(
                f"cannot listen on {host}:{port} ({error.strerror or error}): choose another address or port",
                code="transport.listen",
            ) from error
        self._port = int(router.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())
        return self.advertised("", f"{host}:{self._port}")

    def _only_here(self, host: str) -> None:
        if not self._secure and not is_loopback(host):
            raise TransportError(
                f"security=off is for programs of one machine, {host or 'every address'} is reached by others: listen "
                "on 127.0.0.1, or leave security on",
                code="transport.security",
            )

    def _allow(self, parts: list[zmq.Frame]) -> None:
        """The library asks whether a connection may be (ZAP, RFC 27): answer by the list of who is admitted."""
        assert self._allowing is not None
        *way, _, version, number, domain, _, _, mechanism = (one.bytes for one in parts[:8])
        key = parts[8].bytes if len(parts) == 9 else b""
        status, text = b"200", b"OK"
        if (version, domain, mechanism, len(key)) != (b"1.0", DOMAIN, b"CURVE", 32):
            status, text = b"400", b"not asked as it should be"
        elif len(self._lines) > LINES_MOST:
            self.dropped["full"] += 1
            status, text = b"300", b"full, later again"
        elif not any(self.admit(one) for one in signing_keys(key)):
            self.refused[ChannelReason.NOT_ADMITTED] += 1
            status, text = b"400", b"not admitted"
        self._allowing.send([*way, b"", b"1.0", number, status, text, key.hex().encode(), b""])

    def _seen(self, event: int, value: int) -> None:
        """Connections come and go; the library names them by their descriptors."""
        if event == zmq.EVENT_ACCEPTED:
            self._lines[value] = asyncio.get_running_loop().time()
        elif event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
            self._lines.pop(value, None)
            for way, caller in [(way, one) for way, one in self._known.items() if one.fd == value]:
                self._forget(way, caller)

    async def _sweep(self) -> None:
        """Cut off who connects and says no hello."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            late = asyncio.get_running_loop().time() - HANDSHAKE_SECONDS
            greeted = {caller.fd for caller in self._known.values()}
            for fd in [fd for fd, since in self._lines.items() if since < late and fd not in greeted]:
                self.dropped["slow"] += 1
                self._cut(fd)

    def _cut(self, fd: int) -> None:
        self._lines.pop(fd, None)
        cut(fd, self._port)

    def _heard(self, parts: list[zmq.Frame]) -> None:
        way, message = parts[0].bytes, parts[-1]
        fd = int(message.get(zmq.SRCFD))
        caller = self._known.get(way)
        proved = str(message.get("User-Id")) if self._secure else ""
        if len(parts) != 2:
            self._cut(fd)
        elif caller is None:
            self._greet(way, message.bytes, fd, proved)
        elif (caller.fd, caller.proved) != (fd, proved):
            self._cut(fd)  # somebody else under the same identity
        elif (read := unpack(message.buffer)) is None:
            self._cut(fd)
        elif len(caller.waiting) >= self.credit:
            self._try_send(way, pack(read[0], self.busy()))
        else:
            caller.waiting.append((read[0], read[2]))
            caller.wake.set()

    def _greet(self, way: bytes, hello: bytes, fd: int, proved: str) -> None:
        assert self._router is not None
        reply, key = self.greet(hello, self._binding(self._public))
        if key is not None and self._secure and not _follows(proved, key):
            self.refused[ChannelReason.IDENTITY] += 1
            reply, key = self.refuse(ChannelReason.IDENTITY), None
        if key is None:
            self._try_send(way, reply)
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._cut, fd)  # it reads why until then
            return
        caller = _Caller(key, proved, fd)
        if len(self._known) >= CALLERS_MOST:
            self.dropped["full"] += 1
            self._cut(fd)
            return
        same = [(old, one) for old, one in self._known.items() if one.sender == caller.sender]
        for old, one in same[: len(same) - CALLERS_PER_NODE + 1]:
            self.dropped["full"] += 1
            self._forget(old, one)
            self._cut(one.fd)
        self._known[way] = caller
        self._try_send(way, reply)
        caller.task = asyncio.get_running_loop().create_task(self._attend(way, caller))

    def _forget(self, way: bytes, caller: _Caller) -> None:
        self._known.pop(way, None)
        if caller.task is not None:
            caller.task.cancel()

    def _try_send(self, way: bytes, message: bytes) -> None:
        """Send what may be lost: a peer that does not read has itself to blame."""
        assert self._router is not None
        try:
            self._router.send([way, message])
        except ConnectionError:
            return  # it is gone

    async def _attend(self, way: bytes, caller: _Caller) -> None:
        """Answer the frames of one connection."""

        async def read(most: int) -> list[tuple[int, bytes]]:
            if not caller.waiting:
                caller.wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_SECONDS):
                        await caller.wake.wait()
            return [caller.waiting.popleft() for _ in range(min(most, len(caller.waiting)))]

        async def say(answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
            assert self._router is not None
            for number, replies in answers:
                for message in packed(number, replies):
                    while not self._router.send([way, message]):
                        await asyncio.sleep(FULL_SECONDS)

        try:
            await answer_in_turn(self, caller.sender, caller.key, read, say)
        except TimeoutError:
            self.dropped["slow"] += 1
        except FAILURES:
            return  # it is gone
        finally:
            if self._known.get(way) is caller:
                del self._known[way]
                self._cut(caller.fd)

    def _binding(self, public: bytes) -> bytes:
        return hashlib.sha256(b"outroute zeromq v1\0" + public).digest() if self._secure else NO_BINDING

    # calling ------------------------------------------------------------------------------------------------

    async def connect(self, member: bytes, place: str) -> Channel:
        """See ``LinkBase.connect``."""
        keyed = _KEYED.fullmatch(place)
        if self._secure and keyed is None:
            raise TransportError(f"'{place[:80]}' is no place: {self.place_hint}", code="transport.endpoint")
        where, key = (keyed[1], bytes.fromhex(keyed[2])) if keyed else (place, b"")
        self._only_here(where.rpartition(":")[0])
        try:
            called = exchange_key(key) if self._secure else b""
            socket = self._context.socket(zmq.DEALER)
        except OutrouteError as error:
            raise ConnectionError("the key in its place is no key of a node") from error
        except zmq.ZMQError as error:
            raise ConnectionError(f"too many connections ({error.strerror})") from error
        bounded(socket)
        socket.setsockopt(zmq.IPV6, 1)
        if self._secure:
            socket.setsockopt(zmq.CURVE_SERVERKEY, called)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._private)
        try:
            made = Connection(self, member, socket, f"tcp://{where}")
        except zmq.ZMQError as error:
            socket.close(0)
            raise ConnectionError(str(error)) from error
        try:
            await made.introduce(self._binding(called))
        except BaseException:
            made.close()
            raise
        return made

    async def close(self) -> None:
        """See ``MemberLink.close``."""
        ending = [caller.task for caller in self._known.values() if caller.task is not None]
        ending += [] if self._sweeping is None else [self._sweeping]
        self._known.clear()
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await super().close()
        for wire in (self._router, self._allowing):
            if wire is not None:
                wire.close()
        self._context.destroy(0)


def _follows(proved: str, key: bytes) -> bool:
    """Whether what CURVE has proved follows from a node's key."""
    try:
        return proved == exchange_key(key).hex()
    except OutrouteError:
        return False
