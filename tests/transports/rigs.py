"""What the contract suite needs of a transport: a network of members that can be disturbed.

To put another transport under the suite, write a class with the methods of ``Rig`` and add it to ``RIGS``.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from outroute.fingerprint import address
from outroute.packet import PacketArray
from outroute.placement import Member
from outroute.schema import Schema, facet_index
from outroute.store import PacketStore
from outroute.transports import Guard, Holder, LocalNetwork, LocalTransport
from outroute.transports.flight_link import FlightLink
from outroute.transports.grpc_link import GrpcLink
from outroute.transports.tls import TlsLink
from outroute.transports.zeromq import ZeroMqLink
from store.making import NOW, SCHEMA, identity
from transports.link_rig import LinkRig

#: Seconds that members of the suite wait for each other.
PATIENCE = 0.2


class Rig(Protocol):
    """A network of members, numbered from 0."""

    name: str
    now: int
    credit: int

    async def start(self, members: int, directory: Path | None = None, *, organisations: int | None = None) -> None:
        """Let so many members join, with their stores in a directory or in memory."""

    async def join(self) -> int:
        """One more; its number."""

    def holder(self, number: int) -> Holder: ...
    def guard(self, number: int) -> Guard: ...
    def store(self, number: int) -> PacketStore: ...
    def alive(self) -> list[int]: ...

    async def kill(self, number: int, *, noticed: bool = True) -> None:
        """End a member without a word; the others know it at once, or not at all."""

    async def leave(self, number: int) -> None:
        """Let a member leave properly."""

    async def repair(self) -> None:
        """Repair until nothing changes any more."""

    def pause(self, number: int) -> None:
        """Let a member read nothing."""

    def resume(self, number: int) -> None: ...

    def owners(self, address: bytes) -> list[int]: ...

    async def raw(self, sender: int, receiver: int, data: bytes) -> list[bytes]:
        """Send any bytes as a frame."""

    async def stop(self) -> None:
        """End everything and close the stores."""


class LocalRig:
    """Members in this process."""

    name = "local"
    credit = 4

    def __init__(self) -> None:
        self.now = NOW
        self._directory: Path | None = None
        self._organisations: int | None = None
        self._transports: dict[int, LocalTransport] = {}
        self._stores: list[PacketStore] = []
        self._guards: list[Guard] = []

    async def start(self, members: int, directory: Path | None = None, *, organisations: int | None = None) -> None:
        self.network = LocalNetwork(clock=lambda: self.now, credit=self.credit)
        self._directory, self._organisations = directory, organisations
        for _ in range(members):
            await self.join()

    async def join(self) -> int:
        number = len(self._stores)
        key = identity(1000 + number)
        group = number if self._organisations is None else number % self._organisations
        self._stores.append(PacketStore(None if self._directory is None else self._directory / str(number)))
        self._guards.append(Guard([SCHEMA, FACETED]))
        self._transports[number] = self.network.join(
            Member(id=key.id, organisation=identity(5000 + group).public_key),
            self._stores[number],
            self._guards[number],
            request_seconds=PATIENCE,
        )
        return number

    def holder(self, number: int) -> LocalTransport:
        return self._transports[number]

    def guard(self, number: int) -> Guard:
        return self._guards[number]

    def store(self, number: int) -> PacketStore:
        return self._stores[number]

    def alive(self) -> list[int]:
        return sorted(self._transports)

    async def kill(self, number: int, *, noticed: bool = True) -> None:
        self.network.kill(self._transports.pop(number).member.id, noticed=noticed)
        self._stores[number].close()

    async def leave(self, number: int) -> None:
        await self._transports.pop(number).close()
        self._stores[number].close()

    async def repair(self) -> None:
        for _ in range(10):
            done = [await self._transports[number].repair() for number in self.alive()]
            if not any(one.sent or one.dropped for one in done):
                return
        raise AssertionError("repair does not come to an end")

    def pause(self, number: int) -> None:
        self.network.pause(self._transports[number].member.id)

    def resume(self, number: int) -> None:
        self.network.resume(self._transports[number].member.id)

    def owners(self, address: bytes) -> list[int]:
        numbers = {transport.member.id: number for number, transport in self._transports.items()}
        first = self._transports[self.alive()[0]]
        return [numbers[owner] for owner in first.replicas.owners([address])[0] if owner in numbers]

    async def raw(self, sender: int, receiver: int, data: bytes) -> list[bytes]:
        return list(await self._transports[sender].request(self._transports[receiver].member.id, data))

    async def stop(self) -> None:
        for store in self._stores:
            store.close()


RIGS: dict[str, Callable[[], Rig]] = {
    "local": LocalRig,
    "direct": functools.partial(LinkRig, "direct", TlsLink),
    "flight": functools.partial(LinkRig, "flight", FlightLink),
    "grpc": functools.partial(LinkRig, "grpc", GrpcLink),
    "zeromq": functools.partial(LinkRig, "zeromq", ZeroMqLink),
}


async def _with_end(test: Callable[..., Awaitable[None]], *args: object, **kwargs: object) -> None:
    """Run a test and end its rig in the same loop, which is where its sockets live."""
    try:
        await test(*args, **kwargs)
    finally:
        rig = kwargs.get("rig")
        if rig is not None:
            await rig.stop()  # type: ignore[attr-defined]


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(_with_end(test, *args, **kwargs))

    return run


def _faceted() -> Schema:
    from dataclasses import replace

    from outroute.schema import Field, FieldKind, drawn_landmarks

    ward = Field(name="ward", kind=FieldKind.CATEGORICAL, categories=("north", "south"), facet=True)
    fields = (*SCHEMA.fields, ward)
    return replace(SCHEMA, name="wards", fields=fields, landmarks=drawn_landmarks(fields, 4))


FACETED = _faceted()


def addresses_of(packets: PacketArray, schema: Schema = SCHEMA) -> list[bytes]:
    """Where packets belong."""
    facets = facet_index(schema, packets["conditions"][:, : schema.width]).tolist()
    return [address(schema, f, c) for f, c in zip(facets, packets["cell"].tolist(), strict=True)]


def cell_address(cell: int) -> bytes:
    return address(SCHEMA, 0, cell)
