"""Finding members through a distributed hash table; nothing that matters rests on it alone.

The engine is OpenDHT, embedded. A node puts its announcement under the shard of the key space that its id lies in, at
the width that fits the size of the network as it sees it and at the widths beside that (others may see another size),
each under several salted keys, so that whoever swallows one key hides nobody. Values in the table live ten minutes, so
what is found may be dead: it is a hint whom to call, not a word that somebody lives. In a closed network keys and
values are made with the network secret: outsiders find nothing and can read nothing.

Source: DESIGN section 5 (Finding and holding), and the engine's limits as measured there.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from nacl import exceptions, secret, utils

from outroute.errors import TransportError
from outroute.placement import shard
from outroute.transports.channel import Secrets
from outroute.transports.contract import Announcement
from outroute.transports.frames import ANNOUNCEMENT_BYTES

__all__ = ["SALTS", "DhtFinder", "shard_keys"]

SALTS = 4
"""Keys of one shard: who takes all places beside one of them hides nobody while another is left."""
WIDTHS_BESIDE = 1
"""Shards one bit wider and narrower are used too: estimates of the network's size differ by a factor of two."""
VALUES_MOST = 512
"""Values read of one key at most; a shard holds some 64 members, the rest is noise or flooding."""
FIND_SECONDS = 4.0
"""Seconds for one search: a table with dead neighbours needs up to two until it has forgotten them."""
PUT_SECONDS = 8.0
"""Seconds for one announcement; it is repeated anyway."""
CLOSE_SECONDS = 3.0
"""Seconds for leaving the table; its values are copied elsewhere anyway."""
REST_SECONDS = 0.1
"""Seconds between the engine's last callback and the end of its thread: microseconds are enough on a quiet machine."""
RATE_LIMIT = 1_000_000
"""Requests a second that the engine lets through: its default drops bursts silently."""

_KEY_BYTES = 20


def shard_keys(point: bytes, size: int, network: bytes) -> list[bytes]:
    """Keys of the table for the shard of a point, 20 bytes each.

    Args:
        point: an id or an address, 32 bytes.
        size: members of the network, about.
        network: the network secret, or empty.
    """
    seen: dict[bytes, None] = {}
    for step in range(-WIDTHS_BESIDE, WIDTHS_BESIDE + 1):
        guess = size << step if step >= 0 else max(1, size >> -step)
        bits, prefix = shard(point, guess)
        for salt in range(SALTS):
            text = b"outroute shard v1\0" + bytes([bits, salt]) + prefix
            seen[hmac.new(network, text, hashlib.sha256).digest()[:_KEY_BYTES]] = None
    return list(seen)


class DhtFinder:
    """A node of the table; a ``Finder``.

    Args:
        clock: seconds since 1970.
        size: members of the network, about; asked at each use.
        secrets: of the network.

    Raises:
        TransportError: the engine is not installed here.
    """

    def __init__(self, *, clock: Callable[[], int], size: Callable[[], int], secrets: Secrets | None = None) -> None:
        try:
            import opendht
        except ImportError as error:
            raise TransportError(
                "finding members over the DHT needs the extra 'dht': pip install 'outroute[dht]'. Wheels of its engine "
                "exist for Linux (glibc 2.34 or newer), macOS 15 on arm64 and Windows; elsewhere use a closed network "
                "with a member file, which needs none",
                code="transport.extra",
            ) from error
        self._engine: Any = opendht
        self._clock, self._size = clock, size
        self.secrets = secrets or Secrets()
        """Of the network; another value takes effect with the next announcement or search."""
        self._node: Any = None

    def start(self, *, host: str = "", port: int = 0, bootstrap: Iterable[tuple[str, int]] = ()) -> int:
        """Join the table; the UDP port that is in use.

        Args:
            host: IPv4 address to bind, empty for all.
            port: 0 for any free one.
            bootstrap: other nodes of the table.

        Raises:
            TransportError: the port is taken.
        """
        config = self._engine.DhtConfig()
        config.setRateLimit(RATE_LIMIT, RATE_LIMIT)
        node = self._engine.DhtRunner()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # the engine aborts on a taken port
                probe.bind((host, port))
        except OSError as error:
            raise TransportError(
                f"cannot use UDP port {port} for the DHT ({error.strerror or error}): choose another",
                code="transport.listen",
            ) from error
        node.run(None, False, port, host, "", config)
        self._node = node
        self.bootstrap(bootstrap)
        return int(node.getBound().getPort())

    def bootstrap(self, nodes: Iterable[tuple[str, int]]) -> None:
        """Make other nodes of the table known."""
        for host, port in nodes:
            self._running().bootstrap(host, str(port))

    def _running(self) -> Any:
        if self._node is None:
            raise TransportError("start the DHT node first", code="transport.closed")
        return self._node

    def _network(self, which: int = 0) -> bytes:
        known = self.secrets.known
        return known[min(which, len(known) - 1)] if known else b""  # a search may outlast a change of secrets

    async def announce(self, announcement: Announcement) -> None:
        """See ``Finder.announce``; under the newest secret."""
        node = self._running()
        data = self._seal(announcement.to_bytes())
        keys = shard_keys(announcement.member.id, self._size(), self._network())
        # What the engine reports of a put is not reliable; who announces repeats it and looks for itself.
        await asyncio.wait({asyncio.ensure_future(self._put(node, key, data)) for key in keys}, timeout=PUT_SECONDS)

    async def _put(self, node: Any, key: bytes, data: bytes) -> None:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        node.put(self._hash(key), self._engine.Value(data), lambda *_: _tell(loop, done.set))
        with suppress(TimeoutError):  # it may be there all the same
            async with asyncio.timeout(PUT_SECONDS):
                await done.wait()

    def _hash(self, key: bytes) -> Any:
        return self._engine.InfoHash(key.hex().encode())

    async def find(self, address: bytes, *, limit: int) -> Sequence[Announcement]:
        """See ``Finder.find``; under every secret known, the nearest under each key in turn."""
        size = self._size()
        jobs = [
            self._values(key, which)
            for which in range(max(1, len(self.secrets.known)))
            for key in shard_keys(address, size, self._network(which))
        ]
        parts = await asyncio.gather(*jobs)
        now = self._clock()
        lists = [[one for data in part if (one := Announcement.from_bytes(data)) is not None] for part in parts]
        return in_turn(lists, address, limit=limit, holds=lambda one: one.holds(now))

    async def _values(self, key: bytes, which: int) -> list[bytes]:
        """What lies under a key and can be opened; what a slow search found before its end is kept too."""
        found: dict[bytes, None] = {}
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def value(one: Any) -> bool:  # called in the engine's own thread
            data = bytes(one.data)
            _tell(loop, lambda: keep(data))
            return len(found) < VALUES_MOST

        def keep(data: bytes) -> None:
            opened = self._open(data, which)
            if opened is not None and len(found) < VALUES_MOST:
                found[opened] = None

        self._running().get(self._hash(key), value, lambda *_: _tell(loop, done.set))
        with suppress(TimeoutError):  # what a slow search has found until then counts
            async with asyncio.timeout(FIND_SECONDS):
                await done.wait()
        return list(found)

    def _seal(self, data: bytes) -> bytes:
        if not self.secrets.known:
            return data
        box = secret.SecretBox(_box_key(self._network()))
        return bytes(box.encrypt(data, utils.random(secret.SecretBox.NONCE_SIZE)))

    def _open(self, data: bytes, which: int) -> bytes | None:
        if len(data) > ANNOUNCEMENT_BYTES + 64:
            return None
        if not self.secrets.known:
            return data
        try:
            return bytes(secret.SecretBox(_box_key(self._network(which))).decrypt(data))
        except exceptions.CryptoError:
            return None

    async def close(self) -> None:
        """Leave the table."""
        if self._node is not None:
            node, self._node = self._node, None
            done = asyncio.Event()
            loop = asyncio.get_running_loop()
            node.shutdown(lambda: _tell(loop, done.set))
            with suppress(TimeoutError):  # it ends with the process at the latest
                async with asyncio.timeout(CLOSE_SECONDS):
                    await done.wait()
            # Joining holds the interpreter: the engine's thread has to be out of its last callback by then.
            await asyncio.sleep(REST_SECONDS)
            node.join()


def in_turn(
    lists: Iterable[Iterable[Announcement]], address: bytes, *, limit: int, holds: Callable[[Announcement], bool]
) -> list[Announcement]:
    """The members of several lists nearest to an address, from each list in turn.

    So whoever fills one list with keys of his own fills one of their number of turns, not all.

    Args:
        lists: what was found under each key of the table.
        address: 32 bytes.
        limit: members at most.
        holds: whether an announcement may be believed; asked of the newest of a member first.
    """
    point = int.from_bytes(address, "big")
    said: dict[bytes, list[Announcement]] = {}
    turns: list[list[bytes]] = []
    for found in lists:
        keys: dict[bytes, int] = {}
        for one in found:
            keys.setdefault(one.key, int.from_bytes(one.member.id, "big") ^ point)
            said.setdefault(one.key, []).append(one)
        turns.append(sorted(keys, key=keys.__getitem__, reverse=True))
    taken: dict[bytes, Announcement | None] = {}
    chosen: list[Announcement] = []
    while turns and len(chosen) < limit:
        turns = [left for left in turns if left]
        for left in turns:
            while left and left[-1] in taken:
                left.pop()
            if left:
                key = left.pop()
                newest = sorted(said[key], key=lambda one: one.expires, reverse=True)
                taken[key] = good = next(filter(holds, newest), None)
                chosen += [] if good is None else [good]
    return chosen[:limit]


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """From the engine's thread: let the loop do something, unless it has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what)


def _box_key(network: bytes) -> bytes:
    return hmac.new(network, b"outroute announcement box v1\0", hashlib.sha256).digest()
