"""Bytes that really cross a wire: a relay that counts, and our own link measured through it.

Everything that TCP carries is counted in both directions, the handshakes of TLS with it; the headers of TCP and IP
themselves are not, on either side.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from outroute.walls.base import Tell

__all__ = ["Relay", "idle", "line", "link"]

_CHUNK = 65_536
FRAMES = (72, 400, 4_096, 65_536 + 72)
"""Bytes of frames whose way over the wire is measured: a small reply, a question, a few packets, a full deposit."""
EACH = 8
"""Exchanges of each size."""
SPEED = 5.0
"""What a member does by itself is done this much faster while it is measured, and the bytes divided by it."""
SETTLE_SECONDS, WATCH_SECONDS = 2.0, 6.0
"""Of measuring a quiet network, at that speed: two periods of announcements."""


class Relay:
    """Listens on a free port, passes every byte on, and counts.

    Args:
        port: of this machine, to which bytes go.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.up = self.down = self.connections = 0
        """Bytes to the target and back, and connections made."""
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for end in [self._listening, *self._ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._ends += [near, far]
                self.connections += 1
            for source, sink, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass_on, args=(source, sink, up), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        while True:
            try:
                data = source.recv(_CHUNK)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                with self._lock:
                    if up:
                        self.up += len(data)
                    else:
                        self.down += len(data)
                sink.sendall(data)
            except OSError:
                return

    def count(self) -> tuple[int, int]:
        """Bytes up and down until now."""
        with self._lock:
            return self.up, self.down


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The straight line of least squares: its value at zero, and its slope."""
    slope, fixed = np.polyfit(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 1)
    return float(fixed), float(slope)


def link(tell: Tell) -> dict[str, Any]:
    """What our link (TLS 1.3 between two nodes) adds to a frame, and what a connection costs.

    Returns:
        ``fixed`` bytes for each frame, ``slope`` bytes for each byte of a frame, ``connect`` bytes both ways of one
        connection, and the ``frames`` measured.
    """
    tell("frames over a real connection")
    return asyncio.run(_link())


async def _link() -> dict[str, Any]:
    from outroute.identity import Identity
    from outroute.transports.channel import Secrets
    from outroute.transports.tls import TlsLink

    secrets = Secrets((bytes(32),))
    places: dict[bytes, str] = {}

    def make(seed: int) -> TlsLink:
        return TlsLink(
            Identity(bytes([seed]) * 32), handle=lambda _, frame: [frame], endpoint_of=places.get, secrets=secrets
        )

    here, there = make(1), make(2)
    try:
        port = int((await there.listen("127.0.0.1", 0)).rpartition(":")[2])
        with Relay(port) as relay:
            target = Identity(bytes([2]) * 32).id
            places[target] = f"127.0.0.1:{relay.port}"
            await here.request(target, bytes(FRAMES[0]))
            first = sum(relay.count())
            found = []
            for size in FRAMES:
                before = relay.count()
                for _ in range(EACH):
                    await here.request(target, bytes(size))
                after = relay.count()
                found.append([size, *((b - a) / EACH for a, b in zip(before, after, strict=True))])
    finally:
        await here.close()
        await there.close()
    sizes = [size for size, _, _ in found for _ in range(2)]
    fixed, slope = line(sizes, [bytes_ for _, up, down in found for bytes_ in (up, down)])
    return {"fixed": fixed, "slope": slope, "connect": first - 2 * (fixed + slope * FRAMES[0]), "frames": found}


def idle(tell: Tell, sizes: Sequence[int]) -> dict[str, Any]:
    """Bytes a second, both ways, that a member of a quiet network spends on knowing who is there.

    Args:
        tell: is told.
        sizes: numbers of members.

    Returns:
        ``seconds`` by number of members, and the straight line through them: ``fixed`` and ``each`` bytes a second
        for every member. Beyond the sizes measured it is a projection.
    """
    found = {}
    for size in sizes:
        tell(f"{size} members that stay connected")
        found[size] = asyncio.run(_idle(size))
    fixed, each = line(list(found), list(found.values()))
    return {"seconds": {str(size): value for size, value in found.items()}, "fixed": max(fixed, 0.0), "each": each}


async def _idle(size: int) -> float:
    from outroute.datasets.declare import number, schema, two_classes
    from outroute.identity import Identity
    from outroute.store import PacketStore
    from outroute.transports.channel import Secrets
    from outroute.transports.guard import Guard
    from outroute.transports.mesh import MeshTransport, Pace

    agreed = schema("quiet", (number("x", "0", "1"),), two_classes("y", "no", "yes"), k=5, subject="person")
    usual = Pace()
    pace = Pace(**{name: getattr(usual, name) / SPEED for name in ("announce", "tell", "repair", "repair_anyway")})
    members: list[MeshTransport] = []
    stores: list[PacketStore] = []
    try:
        for number_of in range(size):
            stores.append(PacketStore())
            member = MeshTransport(
                Identity(bytes([number_of + 1]) * 32),
                stores[-1],
                Guard([agreed]),
                clock=lambda: int(time.time()),
                rng=np.random.default_rng(number_of),
                secrets=Secrets((bytes(32),)),
                pace=pace,
            )
            members.append(member)
            await member.start(join=[members[0].endpoint] if number_of else [])
        await asyncio.sleep(SETTLE_SECONDS)
        before, began = [m.traffic.bytes_out + m.traffic.bytes_in for m in members], time.monotonic()
        await asyncio.sleep(WATCH_SECONDS)
        passed = time.monotonic() - began
        after = [m.traffic.bytes_out + m.traffic.bytes_in for m in members]
    finally:
        for member in reversed(members):
            await member.close()
        for store in stores:
            store.close()
    return float(np.mean([(b - a) / passed / SPEED for a, b in zip(before, after, strict=True)]))
