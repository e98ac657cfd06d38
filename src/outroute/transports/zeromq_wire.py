"""Sockets of ZeroMQ in an event loop, with bounds: what ``outroute.transports.zeromq`` stands on.

The library's descriptor tells of changes, not of states. So whoever was woken takes everything that is there without
waiting, and looks again after each message that he sends, because sending may have swallowed a sign that something has
come. One message received, then all others that are there: that costs a tenth of waiting for each.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket as system
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from outroute.errors import TransportError
from outroute.transports.calls import HEAD_BYTES
from outroute.transports.links import HANDSHAKE_SECONDS, OPEN_MOST, SKIPPED_BYTES
from outroute.transports.tls_context import QUIET_SECONDS, UNHEARD_SECONDS

__all__ = ["BOUND_MESSAGES", "FULL_SECONDS", "Wire", "bounded", "cut", "is_loopback", "new_context", "numeric", "room"]

BOUND_MESSAGES = 64
"""Messages that wait in either direction for one peer (high-water mark): twice the credit, and two of the largest
replies wait for their turn here instead of in memory."""
SOCKETS_EACH, FILES_EACH = 3, 4
"""Sockets of the library and open files for one connection to another node: its own, and two that tell of it."""
FULL_SECONDS = 0.005
"""Seconds between attempts to send to a peer that has not read what waits for it."""
TURN_MESSAGES = 256
"""Messages taken in one turn of the event loop, so that a flood holds nobody else up."""
_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context of its own for each link: its allow-list is its own, too."""
    made = zmq.Context(io_threads=1)
    made.set(zmq.MAX_SOCKETS, SOCKETS_EACH * (2 * OPEN_MOST + 2))
    return made


def room() -> int:
    """Connections that a node may keep to others: a quarter of the files that this process may open, at most."""
    try:
        import resource
    except ImportError:  # not on this system
        return OPEN_MOST
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_MOST if files == resource.RLIM_INFINITY else max(8, min(OPEN_MOST, files // (4 * FILES_EACH)))


def bounded(socket: zmq.Socket[bytes]) -> None:
    """Set what every socket of a link has: bounds, heartbeats, and no reconnecting by itself.

    The link makes a new connection with a new handshake, later each time that it fails.
    """
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.SNDHWM, BOUND_MESSAGES),
        (zmq.RCVHWM, BOUND_MESSAGES),
        (zmq.MAXMSGSIZE, SKIPPED_BYTES + HEAD_BYTES),
        (zmq.IMMEDIATE, 1),
        (zmq.RECONNECT_IVL, -1),
        (zmq.CONNECT_TIMEOUT, int(1000 * HANDSHAKE_SECONDS)),
        (zmq.HANDSHAKE_IVL, int(1000 * HANDSHAKE_SECONDS)),
        (zmq.HEARTBEAT_IVL, 1000 * QUIET_SECONDS),
        (zmq.HEARTBEAT_TIMEOUT, 1000 * UNHEARD_SECONDS),
        (zmq.HEARTBEAT_TTL, 1000 * (QUIET_SECONDS + UNHEARD_SECONDS)),
    ):
        socket.setsockopt(option, value)


class Wire:
    """A socket in the running event loop.

    Args:
        socket: what it reads and writes; closed by ``close``.
        heard: told of each message, as frames.
        seen: told of what happens to connections, (event, value); None where nobody wants to know.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        heard: Callable[[list[zmq.Frame]], None],
        seen: Callable[[int, int], None] | None = None,
    ) -> None:
        self._socket, self._heard, self._seen = socket, heard, seen
        self._monitor = None if seen is None else socket.get_monitor_socket(_EVENTS)
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.Handle | None = None
        self._fds: list[int] = []
        for one, ready in ((socket, self._ready), (self._monitor, self._look)):
            if one is not None:
                fd = int(one.getsockopt(zmq.FD))
                try:
                    self._loop.add_reader(fd, ready)
                except NotImplementedError:
                    raise TransportError(
                        "the event loop of this system cannot wait for sockets of ZeroMQ: use dht:// here",
                        code="transport.loop",
                    ) from None
                self._fds.append(fd)
        self._again = self._loop.call_soon(self._ready)

    def send(self, parts: list[bytes]) -> bool:
        """Send a message without waiting; False when so many wait for this peer that it has to wait.

        Raises:
            ConnectionError: the peer is gone.
        """
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            raise ConnectionError(str(error)) from error
        finally:
            if (
                self._again is None
                and not self._socket.closed
                and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN
            ):
                self._again = self._loop.call_soon(self._ready)
        return True

    def _ready(self) -> None:
        """Take all that is there."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._look()  # first: who a descriptor belongs to may have changed since
        for _ in range(TURN_MESSAGES):
            if self._socket.closed:
                return
            try:
                message = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.ZMQError:  # nothing more for now, or closed
                return
            self._heard(message)
        self._again = self._loop.call_soon(self._ready)

    def _look(self) -> None:
        """Take what happened to connections."""
        while self._seen is not None and self._monitor is not None and not self._monitor.closed:
            try:
                told: Any = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.ZMQError:
                return
            self._seen(int(told["event"]), int(told["value"]))

    def close(self) -> None:
        """End it at once; harmless when repeated."""
        for fd in self._fds:
            self._loop.remove_reader(fd)
        self._fds.clear()
        if self._again is not None:
            self._again.cancel()
        if self._monitor is not None:
            with suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._monitor.close(0)
        self._socket.close(0)


def cut(fd: int, port: int) -> None:
    """End a connection that the library has taken on a port; it offers no way of its own.

    Args:
        fd: its descriptor, as the library said.
        port: where it was taken: any other descriptor that has got this number since is left alone.
    """
    with suppress(OSError), system.fromfd(fd, system.AF_INET, system.SOCK_STREAM) as line:
        if line.getsockname()[1] == port:
            line.shutdown(system.SHUT_RDWR)


def numeric(host: str) -> str:
    """The address of a host of this machine, as the library wants it for listening: ``*`` for all.

    Raises:
        OSError: the name is not known.
    """
    host = host.strip("[]")
    if host in ("", "0.0.0.0", "::"):
        return "*" if host != "::" else "[::]"
    found = str(system.getaddrinfo(host, None, type=system.SOCK_STREAM)[0][4][0])
    return f"[{found}]" if ":" in found else found


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing but it."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
