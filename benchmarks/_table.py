"""Nodes of the table with ids of their choice that answer with what they like, to real nodes of the engine.

They speak the engine's protocol (MessagePack over UDP, as OpenDHT 4 sends it): they are pinged, searched and given
values like any node, say that they keep what they are given, and answer every search for an address with the same few
values and with each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

__all__ = ["AROUND", "Gang", "pack", "unpack"]

AROUND = 16
"""Chosen ids around each address: the engine writes eight copies of a value, these are twice as many."""
CALL_SECONDS = 2.0
"""Seconds between calls by which they make themselves known."""
CALLED_MOST = 128
VALUES_AT_ONCE = 40
NODES_TOLD = 8
_ID_BYTES, _NODE_BYTES = 20, 26
_ID_FIELD = 1


def pack(value: Any) -> bytes:
    """A value as MessagePack: what the engine's messages are made of."""
    if isinstance(value, bool) or not isinstance(value, (int, str, bytes, list, dict)):
        raise TypeError(f"{type(value).__name__} is in no message of the engine")
    if isinstance(value, int):
        for limit, start, form in ((128, b"", ">B"), (1 << 8, b"\xcc", ">B"), (1 << 16, b"\xcd", ">H")):
            if value < limit:
                return start + struct.pack(form, value)
        return b"\xce" + struct.pack(">I", value) if value < 1 << 32 else b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode("ascii")
    if isinstance(value, bytes):
        return (b"\xc4" + bytes([len(value)]) if len(value) < 256 else b"\xc5" + struct.pack(">H", len(value))) + value
    if isinstance(value, list):
        start = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
        return start + b"".join(map(pack, value))
    return bytes([0x80 | len(value)]) + b"".join(pack(name) + pack(one) for name, one in value.items())


def unpack(data: bytes) -> Any:
    """The first value of a MessagePack text.

    Raises:
        ValueError: it is damaged, or of a kind that the engine does not send.
    """
    try:
        return _read(data, 0)[0]
    except (IndexError, struct.error, UnicodeDecodeError, TypeError, RecursionError):
        raise ValueError("no message of the engine") from None


_SIZES = {
    0xC4: (">B", "bin"),
    0xC5: (">H", "bin"),
    0xC6: (">I", "bin"),
    0xD9: (">B", "str"),
    0xDA: (">H", "str"),
    0xDC: (">H", "list"),
    0xDE: (">H", "map"),
}
_SHORT = ((0x80, 0x90, 15, "map"), (0x90, 0xA0, 15, "list"), (0xA0, 0xC0, 31, "str"))
_NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}


def _read(data: bytes, at: int) -> tuple[Any, int]:
    head, at = data[at], at + 1
    if head < 0x80:
        return head, at
    if head in _NUMBERS:
        form = _NUMBERS[head]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], at
    if head in _SIZES:
        form, kind = _SIZES[head]
        size, at = struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    else:
        found = next((one for one in _SHORT if one[0] <= head < one[1]), None)
        if found is None:
            raise ValueError("no message of the engine")
        size, kind = head & found[2], found[3]
    if kind in ("bin", "str"):
        part = data[at : at + size]
        return (part if kind == "bin" else part.decode()), at + size
    items = []
    for _ in range(size * (2 if kind == "map" else 1)):
        one, at = _read(data, at)
        items.append(one)
    return (items if kind == "list" else dict(zip(items[::2], items[1::2], strict=True))), at


class _Node(asyncio.DatagramProtocol):
    """One of them."""

    def __init__(self, gang: Gang, node: bytes) -> None:
        self.gang, self.node = gang, node
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._number = int.from_bytes(os.urandom(3), "big")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def call(self, place: tuple[str, int]) -> None:
        """Search a node for this one's own id: it is known there from then on."""
        self._number += 1
        self._send(
            {"a": {"id": self.node, "target": self.node}, "q": "find", "t": self._number, "y": "q", "v": "o2"}, place
        )

    def _send(self, message: Mapping[str, Any], place: tuple[str, int]) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.sendto(pack(dict(message)), place)

    def datagram_received(self, data: bytes, place: tuple[str, int]) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            message = unpack(data)
            self.gang.met(place)
            if message["y"] == "r":
                nodes = message["r"].get("n4", b"")
                for at in range(0, len(nodes) - _NODE_BYTES + 1, _NODE_BYTES):
                    host = socket.inet_ntoa(nodes[at + _ID_BYTES : at + _ID_BYTES + 4])
                    self.gang.met((host, int.from_bytes(nodes[at + _ID_BYTES + 4 : at + _NODE_BYTES], "big")))
            elif message["y"] == "q":
                for reply in self._answers(message["q"], message["a"]):
                    told = {"id": self.node, "sa": socket.inet_aton(place[0]), **reply}
                    self._send({"r": told, "t": message["t"], "y": "r", "v": "o2"}, place)

    def _answers(self, question: str, about: Mapping[str, Any]) -> list[dict[str, Any]]:
        if question == "put":
            self.gang.swallowed += len(about["values"])
            return [{"vid": one["id"]} for one in about["values"]]
        target = about.get("h") or about.get("target")
        if not isinstance(target, bytes):
            return [{}]
        found: dict[str, Any] = {"n4": self.gang.nearest(target), "token": self.node + bytes(12)}
        if question == "get":
            wanted, fields = about["q"]["w"], about["q"]["s"]
            known = self.gang.values.get(target, {})
            self.gang.asked += bool(known)
            if fields == [_ID_FIELD] and known:
                found["fileds"] = {"f": [_ID_FIELD], "v": list(known)}  # the engine's own spelling
            elif known and not fields:
                ids = [one["v"] for one in wanted if one.get("f") == _ID_FIELD] or list(known)
                found["values"] = [
                    {"id": i, "dat": {"body": {"type": 0, "data": known[i]}}} for i in ids if i in known
                ][:VALUES_AT_ONCE]
        return [found]


class Gang:
    """Nodes of the table around some addresses, all of one mind.

    Args:
        addresses: keys of the table, 20 bytes each.
        table: ``(host, port)`` of honest nodes by which they get in.
        around: nodes around each address.
    """

    def __init__(self, addresses: Iterable[bytes], table: Iterable[tuple[str, int]], *, around: int = AROUND) -> None:
        self.addresses = list(addresses)
        self.values: dict[bytes, dict[int, bytes]] = {one: {} for one in self.addresses}
        """What they answer with, by address and number."""
        self.swallowed = self.asked = 0
        """Values that they were given, and questions that they answered with their own."""
        self._near = list(table)
        self._met: dict[tuple[str, int], None] = dict.fromkeys(self._near)
        self._nodes = [
            _Node(self, one[:-2] + (place + 1).to_bytes(2, "big")) for one in self.addresses for place in range(around)
        ]
        self._ports: set[int] = set()
        self._calling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Gang:
        loop = asyncio.get_running_loop()
        for node in self._nodes:
            await loop.create_datagram_endpoint(lambda node=node: node, local_addr=("127.0.0.1", 0))  # type: ignore[misc]
        self._ports = {node.port for node in self._nodes}
        self._calling = loop.create_task(self._call())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._calling is not None:
            self._calling.cancel()
            await asyncio.gather(self._calling, return_exceptions=True)
        for node in self._nodes:
            node.close()

    def say(self, values: Sequence[bytes]) -> None:
        """Answer every search for one of the addresses with these values from now on."""
        for known in self.values.values():
            known.clear()
            known.update((int.from_bytes(os.urandom(8), "big") | 1 << 63, one) for one in values)

    def met(self, place: tuple[str, int]) -> None:
        """Remember a node that is none of them."""
        if place[1] not in self._ports and len(self._met) < CALLED_MOST:
            self._met[place] = None

    def nearest(self, target: bytes) -> bytes:
        """Those of them nearest to an id, as the engine writes them."""
        point = int.from_bytes(target, "big")
        near = sorted(self._nodes, key=lambda node: int.from_bytes(node.node, "big") ^ point)[:NODES_TOLD]
        return b"".join(node.node + socket.inet_aton("127.0.0.1") + node.port.to_bytes(2, "big") for node in near)

    async def _call(self) -> None:
        while True:
            for place in list(self._met):
                for node in self._nodes:
                    node.call(place)
                await asyncio.sleep(0)
            await asyncio.sleep(CALL_SECONDS)
